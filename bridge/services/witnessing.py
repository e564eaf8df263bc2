"""Witnessing: this node cosigns the ledger's checkpoints, and keeps evidence against a host that shows two histories.

What makes a ledger that one member hosts tamper-evident is this and nothing else. The node cosigns a checkpoint only
when

(1) it is of this chain's log and at least one member's signature under it verifies (the host's, usually);
(2) it extends, by an RFC 6962 consistency proof, the one this node cosigned last, and its time does not go back;
(3) its time agrees with this node's clock: not ahead of it, and a block made since this node last looked is not dated
    before that look, within ``MAX_CLOCK_SKEW_SECONDS``;
(4) an observer, which replays the ledger in full, gets the same log, state, height and time from its transactions;
(5) what is about to be cosigned is on the disk before the cosignature leaves the node.

What other members show on calls between nodes (``bridge.services.gossip``) is compared in the same run.

Members' keys come from the trust file the node was given, or else from the ledger's state: a key swapped there would
be in the ledger's log for every member to see.

Two signed checkpoints of one log that cannot both be right are kept, with who showed them, and raise an alarm that
stays until an operator acknowledges it: a member shows them to the others, and the host has no answer. A checkpoint
that the ledger's host will not prove to belong to the ledger it shows here is no such pair yet; it is an alarm until
it is proven. On a replicated ledger this member's own replica is what would prove it: one that is behind the others, as
after each restart, is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from anchor import merkle
from anchor.chain.client import ChainClient
from anchor.chain.followed import FollowedLedger
from anchor.checkpoint import SignedCheckpoint, ledger_origin, parse, render, sign
from anchor.errors import FormatError, ReplayDiffers, VerificationError
from anchor.gm import PrivateKey, sm3
from anchor.trust import Trust
from anchor.verify_ledger import MAX_CLOCK_SKEW_SECONDS
from bridge.storage import witness_store
from bridge.storage.database import read_transaction, transact, write_transaction
from bridge.storage.witness_store import Conflict, Heard, Look

MAX_MEMBERS = 256
"""Members read from the ledger's state: as many as a checkpoint may carry signatures."""
SAME_SIZE = "two-roots-of-one-size"
NOT_AN_EXTENSION = "not-an-extension"
"""Kinds of contradiction, stable names."""
SHRUNK = "shrunk"
"""The ledger shows a smaller log than this node has cosigned: perhaps an old copy of it was restored."""
UNPROVEN = "unproven"
"""The ledger does not prove that a signed checkpoint belongs to what it shows: it may be keeping something back."""
CLOCK = "clock"
"""The ledger's time and this node's differ too much; one of the two clocks has to be set right."""
BROKEN_RULES = "broken-rules"
"""The ledger's transactions do not give what its host has signed; both an outcome and a kind of contradiction."""
ALARMS = frozenset({"conflict", SHRUNK, "invalid", UNPROVEN, CLOCK, BROKEN_RULES})
"""Outcomes of a look that an operator has to see."""
REACHED_WITHIN_SECONDS = 60
"""How long this member's own, healthy replica may take to a checkpoint that another showed it: several blocks."""
LOOK_NOTED_SECONDS = 60
"""How often a look is noted that found what the one before had found."""


@dataclass(frozen=True, slots=True)
class WitnessRun:
    """What one look at the ledger led to.

    ``outcome``: "cosigned", "unchanged" (cosigned before, handed in again when it had been lost), or why not:
    "conflict", "shrunk", "invalid", "unproven", "clock", "broken-rules". ``size`` is the checkpoint's; ``alarm`` says
    that an operator has to look, ``detail`` why.
    """

    outcome: str
    size: int
    detail: str = ""

    @property
    def alarm(self) -> bool:
        """Whether an operator has to look."""
        return self.outcome in ALARMS


@dataclass(frozen=True, slots=True)
class WitnessStatus:
    """What this node has cosigned last (0 and None before the first), the contradictions it keeps, what is unproven.

    ``look``: what came of the latest run, None before the first.
    """

    size: int
    cosigned: int | None
    conflicts: tuple[Conflict, ...]
    unproven: tuple[Heard, ...] = ()
    look: Look | None = None


class _Contradiction(Exception):
    """Two signed checkpoints that cannot both be right."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class _Unproven(Exception):
    """The ledger gave no proof that two checkpoints belong to one log."""


class WitnessService:
    """Checks and cosigns one ledger's checkpoints for one member."""

    def __init__(
        self,
        engine: Engine,
        chain: ChainClient,
        org: str,
        key: PrivateKey,
        chain_id: str,
        clock: Callable[[], float] = time.time,
        *,
        trust: Trust | None = None,
        replay: FollowedLedger | None = None,
    ) -> None:
        """``trust``: the members' keys, from outside the ledger; None takes them from its state. ``replay``: what an
        observer computes for itself of the ledger.
        """
        self._engine = engine
        self._chain = chain
        self._org = org
        self._key = key
        self._chain_id = chain_id
        self._origin = ledger_origin(chain_id)
        self._clock = clock
        self._trust = trust
        self._replay = replay

    def run(self) -> WitnessRun:
        """Check the ledger's newest checkpoint and cosign it, then compare what other members have shown.

        Returns what came of the former, or the first alarm of the latter. Raises ``ChainError`` when the ledger does
        not answer.
        """
        run = self._look(cosign=True)
        self._note_look(run)
        return next((each for each in [run, *self.compare_heard()] if each.alarm), run)

    def compare_heard(self) -> list[WitnessRun]:
        """Compare every checkpoint that members have shown since the last time; what agrees is forgotten."""
        with read_transaction(self._engine) as conn:
            waiting = witness_store.heard(conn, self._origin)
        runs = []
        for each in waiting:
            if self._still_to_come(each):
                continue
            run = self.observe(each.note, each.source)
            problem = run.detail if run.outcome == UNPROVEN else ""
            with write_transaction(self._engine) as conn:
                witness_store.settle_heard(conn, self._origin, each, problem)
            if run.outcome != "invalid":  # anybody can show bytes; they are no fault of the ledger's
                runs.append(run)
        return runs

    def _still_to_come(self, heard: Heard) -> bool:
        """Whether a replicated ledger's other members are merely ahead of the replica that this member reads."""
        if not self._chain.lag_seconds:
            return False
        health = self._chain.health()
        late = int(self._clock()) - heard.heard > REACHED_WITHIN_SECONDS
        return heard.size > health.log_size and not (late and health.ok)

    def _note_look(self, run: WitnessRun) -> None:
        """Note what came of a look, so that every process of the node can tell; seldom where nothing has changed."""
        now = int(self._clock())
        with read_transaction(self._engine) as conn:
            before = witness_store.last_look(conn, self._origin)
        changed = before is None or (before.outcome, before.size) != (run.outcome, run.size)
        if changed or before is None or now - before.looked >= LOOK_NOTED_SECONDS:
            look = Look(now, run.outcome, run.size, run.detail)
            transact(self._engine, lambda conn: witness_store.set_look(conn, self._origin, look))

    def inspect(self) -> WitnessRun:
        """Check the ledger's newest checkpoint as ``run`` does, and cosign nothing."""
        return self._look(cosign=False)

    def _look(self, *, cosign: bool) -> WitnessRun:
        note = self._chain.checkpoint()
        try:
            signed = self._checked(note)
        except (FormatError, VerificationError) as error:
            return WitnessRun("invalid", 0, str(error))
        size = signed.checkpoint.size
        last = self.last()
        if last is not None and size < last.checkpoint.size:
            return WitnessRun(SHRUNK, size, f"this node has cosigned {last.checkpoint.size} entries before")
        try:
            with self._keeping_contradictions(last, signed, self._origin) as contradiction:
                if last is not None:
                    self._compare(last, signed)
        except _Unproven as error:
            return WitnessRun(UNPROVEN, size, str(error))
        if contradiction:
            return WitnessRun("conflict", size, contradiction[0])
        disagreement = self._clock_disagreement(last, signed)
        if disagreement:
            return WitnessRun(CLOCK, size, disagreement)
        broken = self._broken_rules(signed)
        if broken:
            return WitnessRun(BROKEN_RULES, size, broken)
        if not cosign:
            return WitnessRun("unchanged", size)
        if last is not None and last.checkpoint == signed.checkpoint:
            if signed.by(self._org):
                return WitnessRun("unchanged", size)
            self._chain.cosign(render(last))
            return WitnessRun("unchanged", size, "handed in again")
        self._cosign(signed)
        return WitnessRun("cosigned", size)

    def observe(self, note: bytes, source: str) -> WitnessRun:
        """Compare a ledger checkpoint that another member showed (``source``: who) with what this node has cosigned.

        Members do this on every call between nodes, so that a host cannot show two of them different histories for
        long. A checkpoint ahead of this node's is compared through the ledger's own consistency proof.
        """
        try:
            signed = self._checked(note)
        except (FormatError, VerificationError) as error:
            return WitnessRun("invalid", 0, str(error))
        last = self.last()
        if last is None:
            return WitnessRun("unchanged", signed.checkpoint.size, "nothing cosigned yet")
        older, newer = sorted((last, signed), key=lambda each: each.checkpoint.size)
        try:
            with self._keeping_contradictions(last, signed, source) as contradiction:
                self._compare(older, newer)
        except _Unproven as error:
            return WitnessRun(UNPROVEN, signed.checkpoint.size, f"{error}, which {source} was shown")
        if contradiction:
            return WitnessRun("conflict", signed.checkpoint.size, contradiction[0])
        return WitnessRun("unchanged", signed.checkpoint.size)

    def last(self) -> SignedCheckpoint | None:
        """Return the checkpoint this node cosigned last, with the cosignature."""
        with read_transaction(self._engine) as conn:
            note = witness_store.witnessed(conn, self._origin)
        return None if note is None else parse(note)

    def status(self) -> WitnessStatus:
        """Return what was cosigned last and every contradiction kept."""
        last = self.last()
        with read_transaction(self._engine) as conn:
            kept = tuple(witness_store.conflicts(conn))
            unproven = tuple(each for each in witness_store.heard(conn, self._origin) if each.problem)
            look = witness_store.last_look(conn, self._origin)
        if last is None:
            return WitnessStatus(0, None, kept, unproven, look)
        own = last.by(self._org)
        return WitnessStatus(last.checkpoint.size, own[0].time if own else None, kept, unproven, look)

    def acknowledge(self, fingerprint: str) -> bool:
        """Note that an operator has seen a contradiction, which ends its alarm; False when none is waiting."""
        now = int(self._clock())
        return transact(self._engine, lambda conn: witness_store.acknowledge(conn, fingerprint, now))

    def _checked(self, note: bytes) -> SignedCheckpoint:
        """Step (1); raises ``FormatError`` or ``VerificationError``."""
        signed = parse(note)
        if signed.checkpoint.origin != self._origin:
            raise VerificationError("the checkpoint is of another ledger")
        signed.checkpoint.integer("time")
        signed.checkpoint.binary("state")
        if not self._members().verify_signatures(signed):
            raise VerificationError("nobody has signed the ledger's checkpoint")
        return signed

    def _members(self) -> Trust:
        if self._trust is not None:
            return self._trust
        members = self._chain.state_with_prefix("member/", MAX_MEMBERS)
        return Trust.from_members(self._chain_id, 1, (), members.values())

    def _compare(self, older: SignedCheckpoint, newer: SignedCheckpoint) -> None:
        """Step (2); raises ``_Contradiction``."""
        first, second = older.checkpoint, newer.checkpoint
        if first.size == second.size:
            if first.root != second.root:
                raise _Contradiction(SAME_SIZE, f"two roots are signed for {first.size} entries")
            if first.extensions != second.extensions and first.integer("height") == second.integer("height"):
                raise _Contradiction(SAME_SIZE, f"two states are signed for {first.size} entries")
            return
        if second.integer("time") < first.integer("time"):
            raise _Contradiction(NOT_AN_EXTENSION, "the ledger's time went back")
        if first.size == 0:
            return
        try:
            proof = self._chain.consistency_proof(first.size, second.size)
        except VerificationError:
            raise _Unproven(f"the ledger proves no consistency of {first.size} with {second.size} entries") from None
        try:
            merkle.verify_consistency(
                size1=first.size, size2=second.size, root1=first.root, root2=second.root, proof=proof
            )
        except VerificationError:
            detail = f"{second.size} entries do not extend the {first.size} cosigned before"
            raise _Contradiction(NOT_AN_EXTENSION, detail) from None

    def _clock_disagreement(self, last: SignedCheckpoint | None, signed: SignedCheckpoint) -> str:
        """Step (3): return what is wrong with a checkpoint's time, "" when nothing is."""
        now, time = int(self._clock()), signed.checkpoint.integer("time")
        if time > now + MAX_CLOCK_SKEW_SECONDS:
            return f"the ledger's time is {time - now} s ahead of this node's clock"
        own = () if last is None else last.by(self._org)
        if last is None or not own or signed.checkpoint.size == last.checkpoint.size:
            return ""
        behind = own[0].time - time
        return f"a new block is dated {behind} s before this node last looked" * (behind > MAX_CLOCK_SKEW_SECONDS)

    @contextmanager
    def _keeping_contradictions(
        self, first: SignedCheckpoint | None, second: SignedCheckpoint, source: str
    ) -> Iterator[list[str]]:
        """Keep the two checkpoints as evidence when what is inside finds that they contradict each other."""
        found: list[str] = []
        try:
            yield found
        except _Contradiction as contradiction:
            assert first is not None
            notes = (render(first), render(second))
            texts = b"\n".join(each.checkpoint.text() for each in (first, second))
            conflict = Conflict(
                fingerprint=sm3(contradiction.kind.encode() + b"\n" + texts).hex(),
                origin=self._origin,
                kind=contradiction.kind,
                source=source[:200],
                first=notes[0],
                second=notes[1],
                detected=int(self._clock()),
            )
            transact(self._engine, lambda conn: witness_store.add_conflict(conn, conflict))
            found.append(f"{contradiction.kind}: {contradiction.detail}")

    def _broken_rules(self, signed: SignedCheckpoint) -> str:
        """Step (4): replay up to a checkpoint; return what its transactions do not give, "" when nothing, and keep it.

        Raises ``ChainError`` when the ledger hands out less than it has signed.
        """
        if self._replay is None:
            return ""
        try:
            self._replay.follow(self._chain, signed.checkpoint)
            members = Trust.from_members(self._chain_id, 1, (), self._replay.members())
            if not members.verify_signatures(signed):
                own = render(SignedCheckpoint(signed.checkpoint))
                raise ReplayDiffers("no member by the ledger's rules has signed the checkpoint", place="state", own=own)
        except ReplayDiffers as error:
            place = f"{BROKEN_RULES}\n{self._origin}\n{error.place}\n{parse(error.own).checkpoint.size}"
            conflict = Conflict(
                fingerprint=sm3(place.encode()).hex(),
                origin=self._origin,
                kind=BROKEN_RULES,
                source=self._origin,
                first=error.own,
                second=render(signed),
                detected=int(self._clock()),
                transactions=error.evidence,
            )
            transact(self._engine, lambda conn: witness_store.add_conflict(conn, conflict))
            return str(error)
        return ""

    def _cosign(self, signed: SignedCheckpoint) -> None:
        """Step (5): sign, make durable, hand in."""
        now = int(self._clock())
        checkpoint = signed.checkpoint
        own = sign(checkpoint, self._org, self._key, now)
        host = tuple(signature for signature in signed.signatures if signature.org != self._org)
        cosigned = render(SignedCheckpoint(checkpoint, (*host, own)))

        def persist(conn: Connection) -> bool:
            newest = witness_store.witnessed(conn, self._origin)
            if newest is not None and parse(newest).checkpoint.size > checkpoint.size:
                return False
            witness_store.set_witnessed(conn, self._origin, checkpoint.size, cosigned, now)
            return True

        if not transact(self._engine, persist):
            return  # another process of this node cosigned a later one meanwhile
        self._chain.cosign(render(SignedCheckpoint(checkpoint, (own,))))
