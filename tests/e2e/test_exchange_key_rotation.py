"""A release sealed for an encryption key that was replaced meanwhile is opened after the restart, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anchor.contracts.member_keys import live_keys
from anchor.gm import PrivateKey, PublicKey
from bridge import key_rotation
from bridge.keys.decryption import DecryptionKeys
from bridge.peer_signature import live_key
from bridge.services import release
from tests.exchange_world import CHAIN, A, B, World, keys, observation, patient


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "world").mkdir()
    made = World(tmp_path / "world")
    made[A].store(patient(), observation("o1"))
    made[A].parts.register()
    for name, key in zip(("sign.key", "encrypt.key"), keys(B), strict=True):
        made[B].keys.write(name, key.to_bytes())
    yield made
    made.close()


class Holder:
    """Which of the requester's live encryption keys the holder seals for: in the overlap it may be either."""

    def __init__(self) -> None:
        self.oldest = False
        self.sealed_for: list[str] = []

    def choose(self, member: dict[str, Any], use: str, now: int) -> PublicKey:
        key = live_key(member, use, now)
        assert key is not None
        if self.oldest:
            key = PublicKey.from_bytes(bytes.fromhex(live_keys(member, use, now)[0]["public"]))
        self.sealed_for.append(key.key_id)
        return key


@pytest.fixture
def holder(monkeypatch: pytest.MonkeyPatch) -> Holder:
    made = Holder()
    monkeypatch.setattr(release, "live_key", made.choose)
    return made


def rotate_and_restart(world: World) -> tuple[str, str]:
    """B runs ``yiqiao member rotate-key --use encrypt`` and starts again with what is in its key directory."""
    site = world[B]
    node = SimpleNamespace(
        keys=site.keys, signer=site.signer, chain=site.chain, submitter=site.submitter, clock=world.clock,
        settings=SimpleNamespace(ledger=SimpleNamespace(chain=CHAIN)),
    )  # fmt: skip
    ids = key_rotation.rotate(node, "encrypt", 7 * 86_400)  # type: ignore[arg-type]
    current = PrivateKey.from_bytes(site.keys.read("encrypt.key"))
    assert current.public_key.key_id == ids[1]
    site.parts.exchange._receive._checks._decryption = DecryptionKeys(site.keys, current)
    return ids


def test_what_was_sealed_for_the_old_key_is_opened_after_the_restart(world: World, holder: Holder) -> None:
    world.grant()
    assert world.lookup().received
    old, new = rotate_and_restart(world)
    assert world[B].keys.exists(f"encrypt.key.{old}")
    holder.oldest = True  # as one does that had looked just before the rotation
    assert world.lookup().received
    holder.oldest = False
    assert world.lookup().received
    assert holder.sealed_for == [old, old, new]


def test_without_the_old_keys_file_the_failure_is_told(world: World, holder: Holder) -> None:
    world.grant()
    old, _ = rotate_and_restart(world)
    world[B].keys.forget(f"encrypt.key.{old}")
    holder.oldest = True
    (outcome,) = world.lookup().holders
    assert holder.sealed_for == [old]
    assert (outcome.status, outcome.records) == ("rejected", ())
    assert "key" in outcome.message
