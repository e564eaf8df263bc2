"""Pseudonyms: one person, one value per scope and key version; quota, key files, and what gets none."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlmodel import SQLModel

from anchor import gm
from bridge.errors import InvalidRequest, QuotaExceeded, SettingsError
from bridge.keys.store import KeyStore
from bridge.services.pseudonyms import HEALTH_CARD_SYSTEM, ID_CARD_SYSTEM, PseudonymService, normalised, pseudonym
from bridge.storage import exchange
from bridge.storage.database import open_database

KEY = bytes(range(32))
RESIDENT = "11010519491231002X"


class Audit:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def record_operations(self, queries: list[bytes], *, outcome: str, **facts: Any) -> None:
        self.events += [{**facts, "query": query, "outcome": outcome} for query in queries]


@pytest.fixture
def world(tmp_path: Path) -> Any:
    engine = open_database(f"sqlite:///{tmp_path / 'node.sqlite3'}")
    SQLModel.metadata.create_all(engine, [exchange.PseudonymUse.__table__])
    keys = tmp_path / "keys"
    keys.mkdir()
    audit = Audit()
    now = [1_790_000_000.0]
    service = PseudonymService(engine, KeyStore(keys), audit, lambda: now[0], daily_quota=5)
    yield SimpleNamespace(service=service, keys=keys, audit=audit, now=now)
    engine.dispose()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        pytest.param("11010519491231002x", RESIDENT, id="lower case"),
        pytest.param(" １１０１０５１９４９１２３１００２Ｘ ", RESIDENT, id="full width"),
        pytest.param("110105491231002", RESIDENT, id="15 digits"),
    ],
)
def test_ways_of_writing_one_number_are_one(written: str, meant: str) -> None:
    assert normalised(ID_CARD_SYSTEM, written) == (ID_CARD_SYSTEM, meant)


@pytest.mark.parametrize(
    ("system", "value"),
    [
        pytest.param(ID_CARD_SYSTEM, "110105194912310021", id="wrong check digit"),
        pytest.param(ID_CARD_SYSTEM, "", id="empty"),
        pytest.param(ID_CARD_SYSTEM, "1" * 100, id="too long"),
        pytest.param("urn:x", RESIDENT, id="a system that means nobody elsewhere"),
        pytest.param(HEALTH_CARD_SYSTEM, "no|thing", id="health card with other characters"),
    ],
)
def test_what_has_no_pseudonym(system: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        normalised(system, value)
    assert not value or value not in str(caught.value)


def test_the_value_is_the_keyed_hash_of_the_specification() -> None:
    """Recomputed from the definition of HMAC (RFC 2104) over the independent SM3 of gmssl."""
    from gmssl import sm3

    def digest(data: bytes) -> bytes:
        return bytes.fromhex(sm3.sm3_hash(list(data)))

    message = b'yiqiao/pid/v1\0default\0{"system":"%s","value":"%s"}' % (ID_CARD_SYSTEM.encode(), RESIDENT.encode())
    padded = KEY.ljust(64, b"\0")
    inner = digest(bytes(byte ^ 0x36 for byte in padded) + message)
    expected = digest(bytes(byte ^ 0x5C for byte in padded) + inner).hex()
    assert pseudonym(KEY, "default", 3, (ID_CARD_SYSTEM, RESIDENT)) == f"3.{expected}"


def test_scopes_keys_and_systems_do_not_meet() -> None:
    values = {
        pseudonym(key, scope, 1, (system, "12345678"))
        for key in (KEY, gm.sm3(KEY))
        for scope in ("a", "b")
        for system in (HEALTH_CARD_SYSTEM, "urn:y")
    }
    assert len(values) == 8


def test_a_key_is_made_once_and_is_the_owners_alone(world: Any) -> None:
    first = world.service.compute("B", "default", [(ID_CARD_SYSTEM, RESIDENT)])
    assert world.service.compute("B", "default", [(ID_CARD_SYSTEM, "110105491231002")]) == first
    (file,) = world.keys.iterdir()
    assert file.name == "pseudonym-default-1.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    with pytest.raises(SettingsError):
        world.service.compute("B", "default", [(ID_CARD_SYSTEM, RESIDENT)])


def test_rotation_changes_the_value_and_its_version(world: Any) -> None:
    (before,) = world.service.compute("B", "default", [(ID_CARD_SYSTEM, RESIDENT)])
    assert world.service.rotate("default") == 2
    (after,) = world.service.compute("B", "default", [(ID_CARD_SYSTEM, RESIDENT)])
    assert before.startswith("1.")
    assert after.startswith("2.")
    assert before[2:] != after[2:]


def test_the_quota_is_a_members_own_and_a_days(world: Any) -> None:
    many = [(ID_CARD_SYSTEM, RESIDENT)] * 5
    world.service.compute("B", "default", many)
    with pytest.raises(QuotaExceeded):
        world.service.compute("B", "default", many[:1])
    world.service.compute("C", "default", many)
    world.now[0] += 86_400
    world.service.compute("B", "default", many)


def test_every_use_is_recorded_without_the_identifier(world: Any) -> None:
    world.service.compute("B", "default", [(ID_CARD_SYSTEM, RESIDENT)] * 5)
    with pytest.raises(QuotaExceeded):
        world.service.compute("B", "default", [(ID_CARD_SYSTEM, RESIDENT)])
    assert [event["outcome"] for event in world.audit.events] == ["0", "4"]
    assert RESIDENT not in repr(world.audit.events)
    assert b"count=5" in world.audit.events[0]["query"]


@pytest.mark.parametrize("scope", ["", "../x", "A", "a" * 40])
def test_a_scope_is_a_plain_name(world: Any, scope: str) -> None:
    with pytest.raises(InvalidRequest):
        world.service.compute("B", scope, [(ID_CARD_SYSTEM, RESIDENT)])
