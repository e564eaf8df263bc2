"""`yiqiao lookup`, `grant`, `revoke`: what is wrong usage, what dates mean, and exit codes. No node is opened here."""

from __future__ import annotations

from datetime import datetime

import click
import pytest
from click.testing import CliRunner

from bridge.commands import consent, exchange
from bridge.commands.consent import moment
from bridge.commands.exchange import NO_HOLDER, NOT_RECEIVED, REFUSED, _exit_code
from bridge.services.grant_terms import CHINA_TIME
from bridge.services.lookup import HolderOutcome, LookupResult

WHO = ["--identifier", "urn:x|1", "--purpose", "TREAT"]


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        pytest.param(exchange.lookup, [], "Missing option", id="nothing given"),
        pytest.param(exchange.lookup, ["--identifier", "123", "--purpose", "TREAT"], "SYSTEM|VALUE", id="no system"),
        pytest.param(exchange.lookup, [*WHO, "--emergency", "BTG"], "belong together", id="emergency without reason"),
        pytest.param(exchange.lookup, [*WHO, "--reason", "x"], "belong together", id="reason without emergency"),
        pytest.param(exchange.lookup, [*WHO, "--grant", "xyz"], "32 hexadecimal", id="no grant id"),
        pytest.param(
            exchange.lookup,
            [*WHO, "--grant", "0" * 32, "--emergency", "BTG", "--reason", "x"],
            "exclude each other",
            id="grant and emergency",
        ),
        pytest.param(
            consent.grant,
            ["--patient", "urn:x|1", "--to", "B", "--purpose", "TREAT", "--until", "tomorrow"],
            "2026-12-31",
            id="no date",
        ),
        pytest.param(consent.revoke, ["abc"], "32 hexadecimal", id="no grant to revoke"),
        pytest.param(consent.amend, ["xyz"], "32 hexadecimal", id="no grant to change"),
        pytest.param(
            consent.grant,
            ["--patient", "urn:x|1", "--to", "B", "--purpose", "TREAT", "--until", "2027-01-01", "--except", "all"],
            "name=value",
            id="no exception",
        ),
    ],
)
def test_wrong_usage_is_said_in_one_sentence(command: click.Command, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(command, ["--home", "/nowhere", *arguments])
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "command",
    [exchange.lookup, consent.grant, consent.amend, consent.revoke, consent.confirm, consent.list_],
    ids=["lookup", "grant", "amend", "revoke", "confirm", "list"],
)
def test_help_has_an_example(command: click.Command) -> None:
    assert "yiqiao " in CliRunner().invoke(command, ["--help"]).output


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        pytest.param("2026-12-31", datetime(2027, 1, 1, tzinfo=CHINA_TIME), id="a day counts to its end"),
        pytest.param("2026-12-31T18:00", datetime(2026, 12, 31, 18, tzinfo=CHINA_TIME), id="China time"),
        pytest.param("2026-12-31T18:00:00+00:00", datetime.fromisoformat("2026-12-31T18:00:00+00:00"), id="with zone"),
    ],
)
def test_dates(text: str, meant: datetime) -> None:
    assert moment(None, None, text) == int(meant.timestamp())  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["31.12.2026", "2026-13-01", "9999-12-31", ""])
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(click.BadParameter):
        moment(None, None, text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        pytest.param([], NO_HOLDER, id="nobody"),
        pytest.param(["denied", "received"], 0, id="one of two"),
        pytest.param(["denied", "denied"], REFUSED, id="all refused"),
        pytest.param(["denied", "unavailable"], NOT_RECEIVED, id="one did not answer"),
        pytest.param(["rejected"], NOT_RECEIVED, id="did not hold"),
    ],
)
def test_exit_codes(statuses: list[str], code: int) -> None:
    assert _exit_code(LookupResult(tuple(HolderOutcome("A", "", status) for status in statuses))) == code
