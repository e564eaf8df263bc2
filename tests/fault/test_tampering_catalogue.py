"""The tampering catalogue: what somebody may try with the evidence, and which check finds it out.

Each case says in words what was done, by which check it is found ("fsck", "verify", "ledger", "witness", "observer")
and under which name. Real SQLite files, the real ledger, real signatures; whoever tampers has the keys of the machine
that he tampers with. ``test_tampering.py`` beside this goes through the same per table and column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from anchor.transaction import Code
from anchor.verify import verify_receipt
from tests import tampering_acts as acts
from tests.evidence_world import HOSPITAL_A, HOSPITAL_B, World
from tests.fault import test_tampering as rows
from tests.tampering_acts import ORIGIN, REF, fsck, ledger_file, publish, receipt


@dataclass(frozen=True)
class Case:
    """``act`` does it and returns what the check says; ``found`` must be among those words."""

    what: str
    by: str
    act: Callable[[World], str]
    found: str


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.anchored(6)
    for number in range(3):
        world.store(number, "0.41")
    world.clock.now += 1
    world.anchoring.run()
    world.witness.run()
    yield world
    world.close()


flip, sql = rows.flip_column, World.sql
CATALOGUE = [
    Case(
        "a bit of a record is flipped",
        "fsck",
        fsck(lambda w: flip(w, "resource_version", "sealed", rows.of_record())),
        f"record-altered {REF}",
    ),
    Case(
        "a record is replaced by somebody with the node's own keys",
        "fsck",
        fsck(rows._reseal_record),
        f"record-altered {REF}",
    ),
    Case(
        "a record is dropped",
        "fsck",
        fsck(lambda w: sql(w, f"DELETE FROM resource_version WHERE {rows.of_record()}")),
        f"record-missing {REF}",
    ),
    Case("two records are swapped", "fsck", fsck(rows._swap_sealed), f"record-altered {REF}"),
    Case(
        "a bit of a log entry is flipped",
        "fsck",
        fsck(lambda w: flip(w, "evidence_entry", "sealed", "position = 1")),
        f"entry-altered {ORIGIN} entry 1",
    ),
    Case(
        "an entry's salt is replaced by somebody with the node's own keys",
        "fsck",
        fsck(acts.other_salt),
        f"entry-altered {ORIGIN} entry 1",
    ),
    Case("two entries are swapped", "fsck", fsck(rows._swap_entries), f"entry-altered {ORIGIN} entry 1"),
    Case(
        "a batch of entries is dropped",
        "fsck",
        fsck(lambda w: sql(w, "DELETE FROM evidence_entry WHERE position BETWEEN 2 AND 5")),
        f"entry-missing {ORIGIN} entry 2",
    ),
    Case(
        "the tail is dropped: entries, hashes and head agree on seven",
        "fsck",
        fsck(rows._cut_tail_and_head),
        f"tail-cut {ORIGIN} from entry 7",
    ),
    Case(
        "a bit of a tile is flipped",
        "fsck",
        fsck(lambda w: flip(w, "evidence_tile", "hashes", "level = 0", 40)),
        f"tile-altered {ORIGIN} tile 0/0",
    ),
    Case(
        "a bit of an own checkpoint, or of the signature under it, is flipped",
        "fsck",
        fsck(lambda w: flip(w, "evidence_checkpoint", "note", "number = 1")),
        f"checkpoint-altered {ORIGIN} checkpoint 1",
    ),
    Case(
        "the whole log is rewritten so that everything in the node fits",
        "fsck",
        fsck(rows._rewrite_log),
        f"checkpoint-altered {ORIGIN} checkpoint 2",
    ),
    Case("yesterday's database is restored", "fsck", acts.yesterday, "old-state-restored"),
    Case(
        "a bit of a block is flipped in the host's file",
        "fsck",
        ledger_file("block header height = 1"),
        "ledger-altered",
    ),
    Case(
        "a bit of a transaction or of its signature is flipped in the host's file",
        "fsck",
        ledger_file("tx envelope idx = 0"),
        "ledger-altered",
    ),
    Case(
        "a bit of the ledger's state is flipped in the host's file",
        "fsck",
        ledger_file(f"state value key = 'member/{HOSPITAL_A}'"),
        "ledger-altered",
    ),
    Case(
        "a cosignature is bent in the host's file",
        "fsck",
        ledger_file("cosignature value log_size > 0"),
        "ledger-altered",
    ),
    Case("another content is shown with a record's receipt", "verify", acts.another_record, "resource"),
    Case("A's receipt is presented as B's: shown with record B", "verify", receipt(shown="o2"), "resource"),
    Case(
        "A's receipt is presented as B's: it names another record",
        "verify",
        receipt(lambda v: v["entry"].update(ref="Observation/o2/_history/1")),
        "entry",
    ),
    Case(
        "A's receipt is presented as B's: it names another institution",
        "verify",
        receipt(lambda v: v["entry"].update(org=HOSPITAL_B)),
        "publication",
    ),
    Case(
        "a bit of the digest in a receipt is flipped",
        "verify",
        receipt(lambda v: acts.bend(v, "entry", "digest")),
        "resource",
    ),
    Case(
        "a bit of the salt in a receipt is flipped", "verify", receipt(lambda v: acts.bend(v, "entry", "salt")), "entry"
    ),
    Case(
        "a bit of a proof in a receipt is flipped",
        "verify",
        receipt(lambda v: acts.bend(v, "log", "proof", 0)),
        "entry",
    ),
    Case(
        "a bit of a transaction's signature in a receipt is flipped",
        "verify",
        receipt(lambda v: acts.bend(v, "publication", "envelope", "sig")),
        "transaction",
    ),
    Case("a bit of a cosignature in a receipt is flipped", "verify", receipt(acts.bent_note), "checkpoint"),
    Case("a receipt claims a longer ledger than was signed", "verify", receipt(acts.younger_ledger), "checkpoint"),
    Case("a receipt claims witnesses that it does not show", "verify", receipt(acts.without_witness), "quorum"),
    Case("a release is made after the grant was revoked", "ledger", acts.release_after_revocation, Code.GRANT_REVOKED),
    Case(
        "a receipt from before a revocation is shown for a record that left after it",
        "verify",
        acts.old_receipt_for_a_later_record,
        "resource",
    ),
    Case(
        "a release from after a revocation is put into the receipt from before it",
        "verify",
        acts.later_release_in_the_old_receipt,
        "checkpoint",
    ),
    Case(
        "a receipt keeps the grant's state of before its revocation",
        "verify",
        acts.old_state_under_the_new_head,
        "grant",
    ),
    Case("a receipt leaves the revocation out", "verify", acts.revocation_left_out, "grant"),
    Case(
        "an institution publishes its log without one entry",
        "ledger",
        publish(3, lambda true: [*true[:4], *true[5:], b"\2" * 32, b"\3" * 32]),
        Code.BAD_PROOF,
    ),
    Case(
        "an institution publishes its log with two entries swapped",
        "ledger",
        publish(3, lambda true: [true[1], true[0], *true[2:], b"\2" * 32]),
        Code.BAD_PROOF,
    ),
    Case(
        "an institution publishes its log without its tail", "ledger", publish(3, lambda true: true[:7]), Code.CONFLICT
    ),
    Case(
        "an institution leaves out a batch: the number of its checkpoint",
        "ledger",
        publish(4, lambda true: [*true, b"\2" * 32]),
        Code.CONFLICT,
    ),
    Case(
        "an institution publishes another checkpoint under a number it has used",
        "ledger",
        publish(2, lambda true: [*true, b"\2" * 32]),
        Code.CONFLICT,
    ),
    Case("a member publishes a checkpoint of another one's log", "ledger", acts.foreign_log, Code.NOT_AUTHORISED),
    Case("the host shows two members different histories", "witness", acts.two_histories, "two-roots-of-one-size"),
    Case("the host restores an older ledger, or drops its tail", "witness", acts.older_ledger, "shrunk"),
    Case("the host dates its blocks as it likes", "witness", acts.future, "clock"),
    Case("the host breaks the rules and signs everything anew", "observer", acts.broken_rules, "broken-rules"),
]


@pytest.mark.parametrize("case", [pytest.param(each, id=f"{each.what} ({each.by})") for each in CATALOGUE])
def test_it_is_found_out_by_the_right_check(world: World, case: Case) -> None:
    assert case.found in case.act(world)


def test_an_untouched_world_says_nothing(world: World) -> None:
    assert world.places() == set()
    assert not world.witness.run().alarm
    shown = world.receipts.for_record("Observation", "o1", 1)
    assert verify_receipt(shown, world.trust(), resource=world.content(REF)).state == "witnessed"
