"""The steps that every receipt shares: from signed transactions to a ledger checkpoint that a quorum has cosigned.

(1) each transaction is in its one encoding, of this chain, and signed by a key of its sender that was valid at the
    block's time (so a key rotated or a member suspended since does not spoil it);
(2) each transaction's entry names that very transaction and signature, and is in the ledger's log under the
    checkpoint's root;
(3) the checkpoint is of this chain's log and every signature under it verifies;
(4) enough members have cosigned it;
(5) where there is a time stamp: it is by an authority that the trust file names, over a checkpoint that extends this
    one by a consistency proof, so that everything the receipt speaks of existed by then;
(6) where the consensus engine has a proof of its own: validators that the trust file names have committed a block after
    the ledger stood at the checkpoint (``anchor.finality``).

What a transaction of a type has to say is for the callers to check.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from anchor import canonical, merkle
from anchor.checkpoint import Checkpoint, SignedCheckpoint, ledger_origin, parse
from anchor.errors import CanonicalError, FormatError, TransactionRejected, VerificationError
from anchor.finality import checkpoint_app_hash, verify_finality
from anchor.receipt import Committed, State, TimestampEvidence
from anchor.report import Steps, utc
from anchor.timestamp import verify_token
from anchor.transaction import MAX_LIFETIME_SECONDS, Transaction
from anchor.transaction import parse as parse_transaction
from anchor.trust import Cosignature, Trust

MAX_CLOCK_SKEW_SECONDS = 300
"""Seconds a cosigner's clock may be behind the ledger's: more, and one of the two clocks cannot be believed."""
MAX_REMEMBERED = 1024
"""Parts remembered by one verifier, some kilobytes each; beyond it all are forgotten and the work is done again."""

_Checked = TypeVar("_Checked")
_ENTRY_FIELDS = {"v", "tx", "sig", "height", "time", "index"}


@dataclass(frozen=True, slots=True)
class CheckedTransaction:
    """A transaction whose signature holds, and where the ledger put it; ``time`` is the block's, Unix seconds."""

    transaction: Transaction
    height: int
    time: int
    index: int

    @property
    def body(self) -> dict[str, Any]:
        """What the transaction says."""
        return self.transaction.body


@dataclass(frozen=True, slots=True)
class CheckedLedger:
    """A ledger checkpoint whose signatures hold; ``quorum_missing`` is None when enough members have signed."""

    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]
    quorum_missing: str | None
    quorum_time: int | None

    @property
    def state(self) -> State:
        """The state of a receipt under this checkpoint."""
        return "committed" if self.quorum_missing else "witnessed"


class TrustedParts:
    """Checks the signed parts of receipts against one trust file, each distinct part once.

    The receipts of one release share their publication and their ledger checkpoint, and a verdict follows from bytes
    and trust file alone: only what held is remembered, up to ``MAX_REMEMBERED`` parts. Threads may share it: at worst
    two check the same part.
    """

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self._remembered: dict[Hashable, Any] = {}

    def transaction(self, committed: Committed) -> CheckedTransaction:
        """Step (1), and that the ledger's entry names this transaction; raises an ``AnchorError``."""
        place = ("transaction", committed.envelope, committed.entry, committed.index)
        return self._once(place, lambda: _check_transaction(committed, self.trust))

    def ledger(self, note: bytes, latest: int) -> CheckedLedger:
        """Step (3), and what step (4) needs to know. ``latest`` is the newest block time the receipt speaks of.

        Raises ``FormatError`` or ``VerificationError``.
        """
        checked = self._once(("ledger", note), lambda: _check_ledger(note, self.trust))
        if checked.checkpoint.integer("time") < latest:
            raise VerificationError("the ledger checkpoint is older than a block it should cover")
        return checked

    def inclusion(self, committed: Committed, checkpoint: Checkpoint) -> None:
        """Step (2); raises ``VerificationError``."""
        place = ("inclusion", committed, checkpoint.size, checkpoint.root)
        self._once(place, lambda: check_inclusion(committed, checkpoint))

    def note(self, note: bytes, time: int | None) -> SignedCheckpoint:
        """Return a checkpoint whose every signature holds, by keys that were good at ``time`` (None: when signed).

        Raises ``FormatError`` or ``VerificationError``.
        """

        def check() -> SignedCheckpoint:
            signed = parse(note)
            self.trust.verify_signatures(signed, at=time)
            return signed

        return self._once(("note", note, time), check)

    def _once(self, place: Hashable, check: Callable[[], _Checked]) -> _Checked:
        found: _Checked | None = self._remembered.get(place)
        if found is None:
            found = check()
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[place] = found
        return found


def _check_transaction(committed: Committed, trust: Trust) -> CheckedTransaction:
    try:
        transaction = parse_transaction(committed.envelope)
    except TransactionRejected as error:
        raise FormatError(f"a transaction is not in its one encoding: {error}") from None
    if transaction.chain != trust.chain:
        raise VerificationError("a transaction is of another chain")
    entry = _read_entry(committed.entry)
    if entry["tx"] != transaction.tx_id or entry["sig"] != transaction.signature.hex():
        raise VerificationError("the ledger's entry names another transaction or signature")
    if entry["index"] != committed.index:
        raise VerificationError("the ledger's entry is of another place in its log")
    time: int = entry["time"]
    if not time <= transaction.expires <= time + MAX_LIFETIME_SECONDS:
        raise VerificationError("a transaction was in a block later or much earlier than its sender's clock allows")
    key = trust.member(transaction.sender).signing_key(transaction.key, time)
    key.public.verify(transaction.signed_bytes, transaction.signature)
    return CheckedTransaction(transaction, entry["height"], time, committed.index)


def check_inclusion(committed: Committed, checkpoint: Checkpoint) -> bool:
    """Step (2): return True when the entry is leaf ``index`` of the ledger's log; raises ``VerificationError``."""
    merkle.verify_inclusion(
        index=committed.index,
        size=checkpoint.size,
        leaf_hash=merkle.leaf_hash(committed.entry),
        proof=list(committed.proof),
        root=checkpoint.root,
    )
    return True


def _check_ledger(note: bytes, trust: Trust) -> CheckedLedger:
    signed = parse(note)
    checkpoint = signed.checkpoint
    if checkpoint.origin != ledger_origin(trust.chain):
        raise VerificationError("the ledger checkpoint is of another log")
    cosignatures = trust.verify_signatures(signed)
    if not cosignatures:
        raise VerificationError("nobody has signed the ledger checkpoint")
    for cosignature in cosignatures:
        if cosignature.time < checkpoint.integer("time") - MAX_CLOCK_SKEW_SECONDS:
            raise VerificationError(f"{cosignature.org} claims to have signed before the checkpoint was made")
    missing = trust.quorum_missing(cosignatures)
    return CheckedLedger(checkpoint, cosignatures, missing, None if missing else _quorum_time(cosignatures, trust))


def take_finality_step(steps: Steps, trust: Trust, ledger: CheckedLedger, proof: bytes | None) -> dict[str, Any]:
    """Step (6): return what the consensus engine's own proof says, as facts; nothing when there is none."""
    if proof is None:
        return {}
    with steps.step("finality") as details:
        checkpoint = ledger.checkpoint
        final = verify_finality(
            proof,
            chain=trust.chain,
            app_hash=checkpoint_app_hash(checkpoint.binary("state"), checkpoint.root),
            trusted=trust.validators,
        )
        details.append(f"{final.signed} of {final.total} power at height {final.height}: {', '.join(final.signers)}")
    return {"final": utc(final.time), "validators": len(final.signers)}


def take_timestamp_step(
    steps: Steps, trust: Trust, ledger: CheckedLedger, evidence: TimestampEvidence | None
) -> dict[str, Any]:
    """Step (5): return what the time stamp says, as facts; nothing when there is none."""
    if evidence is None:
        return {}
    with steps.step("timestamp") as details:
        if not trust.timestamping:
            raise VerificationError(
                "the trust file names no time-stamping authority; ask for a receipt without a stamp"
            )
        stamped, own = parse(evidence.text + b"\n").checkpoint, ledger.checkpoint
        if stamped.origin != own.origin:
            raise VerificationError("the time stamp is over a checkpoint of another log")
        if own.size or evidence.proof or not stamped.size >= own.size:
            merkle.verify_consistency(
                size1=own.size,
                size2=stamped.size,
                root1=own.root,
                root2=stamped.root,
                proof=list(evidence.proof),
            )
        stamp = verify_token(evidence.token, evidence.text, trust.timestamping)
        details.append(f"{utc(stamp.time)} by {stamp.authority}, {stamp.imprint}")
    return {"time stamped": utc(stamp.time), "time-stamping authority": stamp.authority}


def take_ledger_steps(
    steps: Steps,
    parts: TrustedParts,
    transactions: list[tuple[Committed, CheckedTransaction]],
    note: bytes,
    claimed: State,
) -> CheckedLedger:
    """Take the steps "checkpoint", "inclusion" and, for a receipt that claims it, "quorum"."""
    latest = max(checked.time for _, checked in transactions)
    with steps.step("checkpoint") as details:
        ledger = parts.ledger(note, latest)
        details.append(f"{ledger.checkpoint.size} entries, signed by {', '.join(c.org for c in ledger.cosignatures)}")
    with steps.step("inclusion") as details:
        for committed, checked in transactions:
            parts.inclusion(committed, ledger.checkpoint)
            details.append(f"{checked.transaction.type} is entry {committed.index}, block {checked.height}")
    if claimed == "witnessed" or ledger.quorum_missing is None:
        with steps.step("quorum") as details:
            if ledger.quorum_missing is not None:
                raise VerificationError(f"the ledger checkpoint lacks {ledger.quorum_missing}")
            details.append(f"{parts.trust.quorum} needed, {sum(c.counted for c in ledger.cosignatures)} there")
    return ledger


def _quorum_time(cosignatures: tuple[Cosignature, ...], trust: Trust) -> int:
    """Return when the quorum was complete, mandatory signers included."""
    counted = sorted(c.time for c in cosignatures if c.counted)
    mandatory = [c.time for c in cosignatures if c.counted and c.org in trust.mandatory]
    return max([counted[trust.quorum - 1], *mandatory])


def _read_entry(content: bytes) -> dict[str, Any]:
    try:
        value = canonical.load(content)
    except CanonicalError:
        raise FormatError("the ledger's entry is not JSON") from None
    if not isinstance(value, dict) or value.keys() != _ENTRY_FIELDS or type(value["v"]) is not int or value["v"] != 1:
        raise FormatError("the ledger's entry has not the fields it should have")
    if not all(type(value[name]) is int and value[name] >= 0 for name in ("height", "time", "index")):
        raise FormatError("the ledger's entry has a number that is none")
    return value
