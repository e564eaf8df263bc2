"""checkpoint.publish: an institution extends its own log, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from anchor import checkpoint
from anchor.contracts import member_keys
from anchor.transaction import Code
from tests.ledger_consortium import (
    CHAIN,
    DAY,
    HOSPITAL_A,
    HOSPITAL_B,
    OBSERVER,
    START,
    InstitutionLog,
    Sender,
    digest,
    key,
    sign_key,
)


def published(count: int = 5) -> tuple[Sender, InstitutionLog]:
    """Return a ledger on which hospital A has published its first checkpoint, over ``count`` entries."""
    ledger, log = Sender(), InstitutionLog(HOSPITAL_A)
    log.grow(count)
    ledger.accepted(HOSPITAL_A, "checkpoint.publish", log.body(1, 0))
    return ledger, log


def test_the_newest_checkpoint_is_on_the_ledger() -> None:
    ledger, log = published()
    log.grow(7)
    result = ledger.accepted(HOSPITAL_A, "checkpoint.publish", log.body(2, 5))
    origin = checkpoint.log_origin(HOSPITAL_A, "2026")
    value = ledger.ledger.get(f"log/{origin}")
    assert value is not None
    assert (value["org"], value["number"], value["size"], value["tx"]) == (HOSPITAL_A, 2, 12, result.tx_id)


@pytest.mark.parametrize(
    ("grow", "changes", "code"),
    [
        pytest.param(7, {}, Code.OK, id="right"),
        pytest.param(0, {"proof": []}, Code.CONFLICT, id="no-growth"),
        pytest.param(7, {"number": 1}, Code.CONFLICT, id="number-again"),
        pytest.param(7, {"number": 3}, Code.CONFLICT, id="number-skipped"),
        pytest.param(7, {"number": 0}, Code.BAD_BODY, id="number-zero"),
        pytest.param(7, {"proof": []}, Code.BAD_PROOF, id="no-proof"),
        pytest.param(7, {"proof": [digest(1)] * 4}, Code.BAD_PROOF, id="wrong-proof"),
        pytest.param(7, {"proof": ["xyz"]}, Code.BAD_BODY, id="proof-not-hexadecimal"),
        pytest.param(7, {"proof": [digest(1)] * 65}, Code.BAD_BODY, id="proof-too-long"),
        pytest.param(7, {"note": "nonsense"}, Code.BAD_BODY, id="not-a-note"),
        pytest.param(7, {"note": "\ud800"}, None, id="not-even-text"),
        pytest.param(7, {"note": 5}, Code.BAD_BODY, id="note-not-text"),
        pytest.param(7, {"witness": "x"}, Code.BAD_BODY, id="unknown-field"),
    ],
)
def test_publish(grow: int, changes: dict[str, Any], code: str | None) -> None:
    ledger, log = published()
    log.grow(grow)
    body = log.body(2, 5, **changes)
    if code is None:
        from anchor.errors import TransactionRejected

        with pytest.raises(TransactionRejected):
            ledger.envelope(HOSPITAL_A, "checkpoint.publish", body)
        return
    assert ledger.send(HOSPITAL_A, "checkpoint.publish", body).code == code


def test_history_cannot_be_rewritten() -> None:
    ledger, _ = published()
    other = InstitutionLog(HOSPITAL_A)
    other.grow(1)
    other.leaves[0] = b"\x07" * 32
    other.grow(11)
    assert ledger.send(HOSPITAL_A, "checkpoint.publish", other.body(2, 5)).code == Code.BAD_PROOF


def test_history_cannot_be_shortened() -> None:
    ledger, log = published()
    del log.leaves[3:]
    assert ledger.send(HOSPITAL_A, "checkpoint.publish", log.body(2, 3)).code == Code.CONFLICT


def test_the_first_checkpoint_is_number_one_without_a_proof() -> None:
    ledger, log = Sender(), InstitutionLog(HOSPITAL_A)
    log.grow(3)
    assert ledger.send(HOSPITAL_A, "checkpoint.publish", log.body(2, 0)).code == Code.CONFLICT
    assert ledger.send(HOSPITAL_A, "checkpoint.publish", log.body(1, 0, proof=[digest(1)])).code == Code.BAD_PROOF
    ledger.accepted(HOSPITAL_A, "checkpoint.publish", log.body(1, 0))


def test_an_empty_log_is_not_published() -> None:
    ledger, log = Sender(), InstitutionLog(HOSPITAL_A)
    assert ledger.send(HOSPITAL_A, "checkpoint.publish", log.body(1, 0)).code == Code.CONFLICT


def test_shards_count_for_themselves() -> None:
    ledger, _ = published()
    next_year = InstitutionLog(HOSPITAL_A, "2027")
    next_year.grow(1)
    ledger.accepted(HOSPITAL_A, "checkpoint.publish", next_year.body(1, 0))


@pytest.mark.parametrize(
    "origin",
    [
        f"yiqiao/log/{HOSPITAL_B}/2026",
        f"yiqiao/log/{HOSPITAL_A}",
        f"yiqiao/log/{HOSPITAL_A}/2026/1",
        f"yiqiao/ledger/{CHAIN}",
        HOSPITAL_A,
    ],
)
def test_another_origin_is_refused(origin: str) -> None:
    ledger, log = Sender(), InstitutionLog(HOSPITAL_A)
    log.grow(1)
    body = log.body(1, 0, note=log.note(origin=origin))
    assert ledger.send(HOSPITAL_A, "checkpoint.publish", body).code == Code.NOT_AUTHORISED


def test_an_observer_publishes_nothing() -> None:
    ledger, log = Sender(), InstitutionLog(OBSERVER)
    log.grow(1)
    assert ledger.send(OBSERVER, "checkpoint.publish", log.body(1, 0)).code == Code.NOT_AUTHORISED


@pytest.mark.parametrize("case", ["another-key", "altered", "unsigned", "two-signatures", "no-time"])
def test_a_note_without_the_senders_own_signature_is_refused(case: str) -> None:
    ledger, log = Sender(), InstitutionLog(HOSPITAL_A)
    log.grow(2)
    note = log.note()
    if case == "another-key":
        note = log.note(signing=key("forger"))
    elif case == "altered":
        note = note.replace("\n2\n", "\n3\n")
    elif case == "unsigned":
        note = note.split("\n\n")[0] + "\n\n"
    elif case == "no-time":
        note = log.note(extensions=())
    else:
        signed = checkpoint.parse(note.encode())
        other = checkpoint.sign(signed.checkpoint, HOSPITAL_B, sign_key(HOSPITAL_B), START)
        note = checkpoint.render(signed.with_signatures([other])).decode()
    code = Code.BAD_BODY if case == "no-time" else Code.BAD_SIGNATURE
    assert ledger.send(HOSPITAL_A, "checkpoint.publish", log.body(1, 0, note=note)).code == code


def test_a_note_signed_by_a_retired_key_is_refused() -> None:
    ledger, log, second = Sender(), InstitutionLog(HOSPITAL_A), key(HOSPITAL_A, "sign-2")
    record = member_keys.key_record(second.public_key, "sign", since=START)
    retire = {"id": sign_key(HOSPITAL_A).public_key.key_id, "until": START + DAY}
    proof = member_keys.prove_possession(CHAIN, HOSPITAL_A, [record], second)
    ledger.accepted(HOSPITAL_A, "membership.rotate-key", {"key": record, "proof": proof, "retire": retire})
    ledger.time = START + DAY
    log.grow(1)
    refused = ledger.send(HOSPITAL_A, "checkpoint.publish", log.body(1, 0), key=second)
    assert refused.code == Code.BAD_SIGNATURE
    ledger.accepted(HOSPITAL_A, "checkpoint.publish", log.body(1, 0, note=log.note(signing=second)), key=second)
