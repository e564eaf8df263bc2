"""What the cases of the tampering catalogue do: each act tampers, and returns what the check in question then says.

Whoever tampers has the keys of the machine that he tampers with.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from anchor import checkpoint
from anchor.chain.embedded import EmbeddedChain
from anchor.chain.followed import FollowedLedger
from anchor.checkpoint import Checkpoint, SignedCheckpoint, log_origin
from anchor.errors import ChainCorrupt, TransactionRejected
from anchor.receipt import LogEntry
from anchor.tiles import TileLog
from anchor.verify import StepFailed, verify_receipt
from bridge.services.witnessing import WitnessService
from bridge.storage import evidence
from bridge.storage.database import read_transaction, transact
from bridge.storage.evidence import DatabaseTiles
from tests.evidence_world import AUTHORITY, CHAIN, HOSPITAL_A, HOSPITAL_B, Disclosure, World, keys
from tests.fault import test_tampering as rows
from tests.unit.test_observer_replay import _promote, crooked, move, reopened

ORIGIN = log_origin(HOSPITAL_A, "2026")
REF = "Observation/o1/_history/1"


# --- in the node's own database: fsck


def fsck(act: Callable[[World], Any]) -> Callable[[World], str]:
    def run(world: World) -> str:
        assert world.places() == set(), "nothing differs before"
        act(world)
        return "\n".join(sorted(world.places()))

    return run


def other_salt(world: World) -> None:
    """With the node's own keys: the entry is sealed again with another salt, everything else as it was."""
    with read_transaction(world.engine) as conn:
        stored = evidence.find_entry(conn, REF)
        assert stored is not None
        aad = evidence.entry_aad(stored.origin, stored.position)
        entry = LogEntry.parse(world.keyring.open(conn, stored.subject, stored.sealed, aad))
    salted = replace(entry, salt=rows.flip(entry.salt))
    sealed = transact(world.engine, lambda conn: world.keyring.seal(conn, stored.subject, salted.dump(), aad))
    world.sql("UPDATE evidence_entry SET sealed = ? WHERE ref = ?", sealed, REF)


def yesterday(world: World) -> str:
    """A copy of the node's database of before the last checkpoint is put back."""
    copy = world.directory / "yesterday.sqlite3"
    world.engine.dispose()
    rows._copy_database(world.database, copy)
    world.store(50)
    world.clock.now += 86_400
    world.anchoring.run()
    world.engine.dispose()
    rows._put_back(copy, world.database)
    return "\n".join(sorted(world.kinds()))


# --- in the file of the ledger's host: opening it, or fsck there


def ledger_file(statement: str) -> Callable[[World], str]:
    """Flip the last bit of what ``statement`` selects (table, column, condition)."""
    table, column, where = statement.split(" ", 2)

    def run(world: World) -> str:
        world.chain.close()
        with closing(sqlite3.connect(world.ledger_path)) as file, file:
            (value,) = file.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()
            file.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (rows.flip(value),))
        try:
            reopened(world)
        except ChainCorrupt as error:
            world.chain = untampered(world)
            return f"ledger-altered {error}"
        return "\n".join(sorted(world.kinds()))

    return run


def untampered(world: World) -> EmbeddedChain:
    world.ledger_path = world.directory / "fresh.sqlite3"
    return world.open_chain()


# --- in a receipt that is shown to an outsider: verify


def receipt(change: Callable[[Any], None] | None = None, *, shown: str = "o1") -> Callable[[World], str]:
    """Alter the receipt of o1 and show it with the record ``shown``."""

    def run(world: World) -> str:
        value = json.loads(world.receipts.for_record("Observation", "o1", 1))
        if change is not None:
            change(value)
        content = world.content(f"Observation/{shown}/_history/1")
        return step(json.dumps(value).encode(), world.trust(), content)

    return run


def step(shown: bytes, trust: bytes, content: bytes | None = None) -> str:
    with pytest.raises(StepFailed) as failed:
        verify_receipt(shown, trust, resource=content)
    return failed.value.step


def edit(text: str, at: int = 0) -> str:
    return text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :]


def bend(value: Any, *path: Any) -> None:
    """Alter the text at a path."""
    for name in path[:-1]:
        value = value[name]
    value[path[-1]] = edit(value[path[-1]])


def bent_note(value: Any) -> None:
    note = value["ledger"]["checkpoint"]
    signed = checkpoint.parse(note.encode())
    first = replace(signed.signatures[0], value=rows.flip(signed.signatures[0].value))
    value["ledger"]["checkpoint"] = checkpoint.render(
        SignedCheckpoint(signed.checkpoint, (first, *signed.signatures[1:]))
    ).decode()


def another_record(world: World) -> str:
    content = world.content("Observation/o1/_history/1").replace(b"0.40", b"0.41")
    return step(world.receipts.for_record("Observation", "o1", 1), world.trust(), content)


def younger_ledger(value: Any) -> None:
    """The checkpoint claims one entry more, under the signatures it has."""
    lines = value["ledger"]["checkpoint"].split("\n")
    lines[1] = str(int(lines[1]) + 1)
    value["ledger"]["checkpoint"] = "\n".join(lines)


def without_witness(value: Any) -> None:
    signed = checkpoint.parse(value["ledger"]["checkpoint"].encode())
    host = tuple(each for each in signed.signatures if each.org == AUTHORITY)
    value["ledger"]["checkpoint"] = checkpoint.render(SignedCheckpoint(signed.checkpoint, host)).decode()


# --- a disclosure after a revocation, covered with a receipt from before it


def released(world: World) -> tuple[Disclosure, dict[str, Any]]:
    """A disclosure under a grant, its receipt, and then the revocation of the grant."""
    first = Disclosure.begin(world)
    first.release([REF])
    world.witness.run()
    before = json.loads(world.receipts.for_disclosure(first.request))
    first.revoke()
    world.clock.now += 1
    return first, before


def release_after_revocation(world: World) -> str:
    """The ledger takes no release under the grant any more."""
    first, _ = released(world)
    later = Disclosure(world, first.grant, "ab" * 16, {})
    world.submitter(HOSPITAL_B).submit(
        "access.request",
        {"request": later.request, "holder": HOSPITAL_A, "commitment": "cd" * 32, "purpose": "TREAT"},
    )
    with pytest.raises(TransactionRejected) as refused:
        later.hold("access.permit", request=later.request, grant=first.grant)
    return refused.value.code


def old_receipt_for_a_later_record(world: World) -> str:
    """What left after the revocation is shown beside the receipt from before it."""
    _, before = released(world)
    return step(json.dumps(before).encode(), world.trust(), world.content("Observation/o2/_history/1"))


def later_release_in_the_old_receipt(world: World) -> str:
    """The release of an emergency after the revocation stands in the receipt in the place of the first."""
    _, before = released(world)
    later = Disclosure.begin(world, emergency=True)
    later.release(["Observation/o2/_history/1"], grant=False, permit=False)
    world.witness.run()
    after = json.loads(world.receipts.for_disclosure(later.request))
    before["transactions"]["release"] = after["transactions"]["release"]
    return step(json.dumps(before).encode(), world.trust())


def old_state_under_the_new_head(world: World) -> str:
    """The receipt keeps the grant as it stood before the revocation, under the ledger's new head."""
    first, before = released(world)
    world.witness.run()
    after = json.loads(world.receipts.for_disclosure(first.request))
    after["grant"] = before["grant"]
    del after["transactions"]["revoke"]
    return step(json.dumps(after).encode(), world.trust())


def revocation_left_out(world: World) -> str:
    """The revocation is left out of the receipt; the grant's state counts its changes."""
    first, _ = released(world)
    world.witness.run()
    after = json.loads(world.receipts.for_disclosure(first.request))
    del after["transactions"]["revoke"]
    return step(json.dumps(after).encode(), world.trust())


# --- an institution that publishes another history of its log: the ledger's state machine


def publish(number: int, kept: Callable[[list[bytes]], list[bytes]], size: int | None = None) -> Callable[[World], str]:
    """Sign and publish a log made of ``kept`` of the true leaves, as the institution itself."""

    def run(world: World) -> str:
        with read_transaction(world.engine) as conn:
            true = DatabaseTiles(conn, ORIGIN)
            leaves = [TileLog(true, 9).leaf(position) for position in range(9)]
        from anchor.tiles import MemoryTileStore

        log = TileLog(MemoryTileStore())
        log.append(kept(leaves))
        now = int(world.clock())
        point = Checkpoint(ORIGIN, log.size, log.root(), (("time", str(now)),))
        note = checkpoint.render(
            SignedCheckpoint(point, (checkpoint.sign(point, HOSPITAL_A, keys(HOSPITAL_A)[0], now),))
        )
        proof = log.consistency_proof(9, log.size) if log.size > 9 else []
        body = {"note": note.decode(), "number": number, "proof": [node.hex() for node in proof]}
        with pytest.raises(TransactionRejected) as refused:
            world.submitter(HOSPITAL_A).submit("checkpoint.publish", body)
        return refused.value.code

    return run


def foreign_log(world: World) -> str:
    """Hospital B publishes a checkpoint of A's log."""
    now = int(world.clock())
    point = Checkpoint(ORIGIN, 20, b"\1" * 32, (("time", str(now)),))
    signed = SignedCheckpoint(point, (checkpoint.sign(point, HOSPITAL_B, keys(HOSPITAL_B)[0], now),))
    body = {"note": checkpoint.render(signed).decode(), "number": 3, "proof": []}
    with pytest.raises(TransactionRejected) as refused:
        world.submitter(HOSPITAL_B).submit("checkpoint.publish", body)
    return refused.value.code


# --- the ledger's host: the other members


def two_histories(world: World) -> str:
    """Two members are shown two ledgers; they compare on their first call to each other."""
    copy = world.directory / "for-b.sqlite3"
    with closing(sqlite3.connect(world.ledger_path)) as file:
        file.execute("VACUUM INTO ?", (str(copy),))
    host = {"host_key": keys(AUTHORITY)[0], "host_org": AUTHORITY, "clock": world.clock}
    other = EmbeddedChain(copy, genesis=world.genesis, **host)  # type: ignore[arg-type]
    try:
        world.clock.now += 1
        for chain, endpoint in ((world.chain, "http://127.0.0.1:7"), (other, "http://127.0.0.1:8")):
            world.submitter(HOSPITAL_B, chain).submit("membership.endpoint", {"endpoint": endpoint})
        assert world.witness.run().outcome == "cosigned"
        return world.witness.observe(other.checkpoint(), HOSPITAL_B).detail
    finally:
        other.close()


def older_ledger(world: World) -> str:
    copy = world.directory / "older.sqlite3"
    world.chain.close()
    rows._copy_database(world.ledger_path, copy)
    reopened(world)
    world.store(70)
    world.clock.now += 1
    world.anchoring.run()
    world.witness.run()
    world.chain.close()
    rows._put_back(copy, world.ledger_path)
    reopened(world)
    return world.witness.run().outcome


def broken_rules(world: World) -> str:
    """A member's roles are rewritten in the ledger's state, everything hashed anew and signed by the host."""
    world.clock.now += 1
    crooked(world).append(move(world, seq=3), changes=_promote)
    reopened(world)
    observer = FollowedLedger(world.directory / "observed.sqlite3", world.genesis)
    key = keys(HOSPITAL_B)[0]
    witness = WitnessService(world.engine, world.chain, HOSPITAL_B, key, CHAIN, world.clock, replay=observer)
    try:
        return witness.run().outcome
    finally:
        observer.close()


def future(world: World) -> str:
    """The host dates its blocks an hour ahead."""
    now, world.clock.now = world.clock.now, world.clock.now + 3600
    world.submitter(HOSPITAL_B).submit("membership.endpoint", {"endpoint": "http://127.0.0.1:7"})
    world.clock.now = now
    return world.witness.run().outcome
