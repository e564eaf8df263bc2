"""The ledger's rules: one finite, deterministic state machine, whatever engine orders its transactions.

The machine has no clock, no I/O and no randomness: a block's time comes in with the block, values are read through the
``StateStore`` it was given. ``apply_block`` computes and changes nothing; ``commit`` takes a computed block over. An
engine persists between the two (an ABCI application computes in FinalizeBlock and persists in Commit), and may compute
the same height any number of times.

State keys (text -> JSON object)::

    chain                 {"chain","threshold","authorities","time"}
    member/<org>          the member's record (anchor.contracts.members)
    seq/<org>             {"seq": the last sequence number accepted from the member}
    proposal/<id>         (anchor.contracts.membership)
    log/<origin>          the newest checkpoint of an institution's log (anchor.contracts.checkpoint)
    grant/<id>            (anchor.contracts.consent)
    request/<id>          (anchor.contracts.access)
    node/<org>            keys and address of a member's node (anchor.contracts.nodes), with node-key/ and node-id/
    validators            who votes with which power (anchor.contracts.validators), with validators/<n>

A transaction passes these gates in this order; the first that fails gives the code, and a refused one changes nothing:
(1) encoding, (2) chain, (3) sender known, (4) sender not suspended, (5) key live at block time, (6) not expired, nor
good for longer than ``MAX_LIFETIME_SECONDS``, (7) sequence number exactly the next, (8) signature, (9) type known,
and one that an observer may send when the sender is nothing else, (10) the contract's own rules.

``app_hash = SM3("yiqiao/app/v1" ‖ state root ‖ log root)``: an empty block leaves it as it was.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from anchor.chain.client import TransactionResult
from anchor.checkpoint import Checkpoint, ledger_origin
from anchor.contracts import access, checkpoint, consent, member_keys, membership, nodes
from anchor.contracts.view import WRITERS, Changes, Rule, Value, View, member_of, refuse
from anchor.errors import SignatureInvalid, TransactionRejected
from anchor.genesis import Genesis
from anchor.gm import PublicKey, sm3
from anchor.merkle import FrontierTree, leaf_hash
from anchor.signature_cache import SignatureCache
from anchor.state_store import MemoryState, StateStore
from anchor.state_tree import StateTree, TreeUpdate
from anchor.transaction import MAX_LIFETIME_SECONDS, Code, Transaction, encode, parse

APP_DOMAIN = b"yiqiao/app/v1"

RULES: Mapping[str, Rule] = {**membership.RULES, **checkpoint.RULES, **consent.RULES, **access.RULES, **nodes.RULES}
"""Transaction type to its rule; a type that is not here is refused."""
OBSERVER_TYPES = frozenset({"membership.rotate-key", "membership.endpoint", "node.register"})
"""What a member that only observes may send: about its own keys, its address and its node, and nothing else."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One accepted transaction of a block, with its place in the ledger's log."""

    transaction: Transaction
    envelope: bytes
    index: int
    entry: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class BlockResult:
    """A computed block: what became of each envelope, and everything that committing it would change.

    ``results`` answers the envelopes in their order; ``values`` maps each changed state key to its canonical bytes.
    """

    height: int
    time: int
    results: tuple[TransactionResult, ...]
    accepted: tuple[Accepted, ...]
    changes: Changes
    values: Mapping[str, bytes]
    tree: TreeUpdate
    log: FrontierTree
    log_root: bytes
    app_hash: bytes

    @property
    def state_root(self) -> bytes:
        """The state root after this block."""
        return self.tree.root

    @property
    def head(self) -> Head:
        """How far the ledger has come with this block."""
        return Head(self.height, self.time, self.log)

    def header(self, chain: str, previous: bytes) -> bytes:
        """Return this block's header; ``previous`` is the SM3 of the header before it (of genesis: see ``Ledger``)."""
        return block_header(
            chain=chain,
            height=self.height,
            time=self.time,
            previous=previous,
            tx_ids=[one.transaction.tx_id for one in self.accepted],
            app_hash=self.app_hash,
            log_size=self.log.size,
        )


@dataclass(frozen=True, slots=True)
class Head:
    """How far the ledger has come: height and time of the last block, and the compact form of the log."""

    height: int
    time: int
    log: FrontierTree


class Ledger:
    """The state machine over a state store, a state tree and a log head that belong together."""

    def __init__(
        self, chain: str, head: Head, state: StateStore, tree: StateTree, signatures: SignatureCache | None = None
    ) -> None:
        self.chain = chain
        self.head = head
        self.tree = tree
        self.signatures = signatures or SignatureCache()
        self._state = state

    @classmethod
    def in_memory(
        cls, genesis: Genesis, *, state: MemoryState | None = None, signatures: SignatureCache | None = None
    ) -> Ledger:
        """Return a ledger at height 0 with its whole state in memory: for replays and for an engine's first start."""
        state = MemoryState() if state is None else state
        tree = StateTree(state.buckets)
        initial = genesis.state()
        values = {key: encode(value) for key, value in initial.items()}
        update = tree.update(values)
        state.install(initial, update.buckets)
        tree.commit(update)
        return cls(genesis.chain, Head(0, genesis.time, FrontierTree()), state, tree, signatures)

    @property
    def app_hash(self) -> bytes:
        """The hash that commits to the whole committed state and log."""
        return app_hash(self.tree.root, self.head.log.root())

    def get(self, key: str) -> Value | None:
        """Return a committed value of the state. It must not be altered."""
        return self._state.get(key)

    def check(self, envelope: bytes, time: int | None = None) -> Transaction:
        """Filter an envelope before it waits for a block: gates 1 to 6 and 8, and a sequence number that is not past.

        A weak filter (the state may change until its block). ``time``: Unix seconds to judge by, the last block's time
        unless given, which says nothing about how far away ``expires`` is. Raises ``TransactionRejected``; returns the
        transaction.
        """
        tx = parse(envelope)
        view = _BlockView(self, max(self.head.time, time or 0), self.head.height + 1)
        public = self._admit(tx, view)
        if time is not None:
            _check_lifetime(tx, view.time)
        if tx.seq < view.next_seq(tx.sender):
            refuse(Code.BAD_SEQUENCE, "the sequence number is past")
        self._check_signature(tx, public)
        _rule(tx, view)
        return tx

    def apply_block(self, envelopes: Sequence[bytes], time: int) -> BlockResult:
        """Compute the next block over ``envelopes``, in order, at ``time`` (the last block's if later)."""
        view = _BlockView(self, max(time, self.head.time), self.head.height + 1)
        log = self.head.log.copy()
        results: list[TransactionResult] = []
        accepted: list[Accepted] = []
        for envelope in envelopes:
            outcome = self._apply(envelope, view)
            if isinstance(outcome, TransactionResult):
                results.append(outcome)
                continue
            index = log.size
            entry = log_entry(outcome, view.height, view.time, index)
            leaf = leaf_hash(entry)
            log.append(leaf)
            accepted.append(Accepted(outcome, envelope, index, entry, leaf))
            results.append(TransactionResult(outcome.tx_id, Code.OK, "", view.height, index, view.time))
        values = {key: encode(value) for key, value in view.overlay.items()}
        update = self.tree.update(values)
        log_root = log.root()
        return BlockResult(
            height=view.height,
            time=view.time,
            results=tuple(results),
            accepted=tuple(accepted),
            changes=view.overlay,
            values=values,
            tree=update,
            log=log,
            log_root=log_root,
            app_hash=app_hash(update.root, log_root),
        )

    def commit(self, block: BlockResult) -> None:
        """Take over a computed block; it must be the next height of this very ledger."""
        if block.height != self.head.height + 1:
            raise ValueError("the block is not the next of this ledger")
        self._state.install(block.changes, block.tree.buckets)
        self.tree.commit(block.tree)
        self.head = Head(block.height, block.time, block.log)

    def _apply(self, envelope: bytes, view: _BlockView) -> Transaction | TransactionResult:
        """Run one transaction against the block's view: its changes are in the view when it is accepted."""
        tx_id, expected = "", None
        try:
            tx = parse(envelope)
            tx_id = tx.tx_id
            public = self._admit(tx, view)
            _check_lifetime(tx, view.time)
            next_seq = view.next_seq(tx.sender)
            if tx.seq != next_seq:
                expected = next_seq
                refuse(Code.BAD_SEQUENCE, f"the next sequence number of this sender is {next_seq}")
            self._check_signature(tx, public)
            view.overlay.update(_rule(tx, view)(tx, view))
        except TransactionRejected as refusal:
            return TransactionResult(
                tx_id or unreadable_id(envelope), refusal.code, str(refusal), expected_seq=expected
            )
        view.overlay[f"seq/{tx.sender}"] = {"seq": tx.seq}
        return tx

    def _admit(self, tx: Transaction, view: _BlockView) -> PublicKey:
        """Gates 2 to 6; returns the key that must have signed."""
        if tx.chain != self.chain:
            refuse(Code.WRONG_CHAIN, "the transaction is for another chain")
        member = view.get(f"member/{tx.sender}")
        if member is None:
            refuse(Code.UNKNOWN_SENDER, "the sender is not a member")
        if member["status"] != "active":
            refuse(Code.SUSPENDED_SENDER, "the sender is suspended")
        key = member_keys.find_key(member, tx.key)
        if key is None or key["use"] != "sign" or not member_keys.is_live(key, view.time):
            refuse(Code.UNKNOWN_KEY, "the sender has no such live signing key")
        if tx.expires < view.time:
            refuse(Code.EXPIRED, "the transaction has expired")
        return self.signatures.public_key(key["public"])

    def _check_signature(self, tx: Transaction, public: PublicKey) -> None:
        try:
            self.signatures.verify(public, tx)
        except SignatureInvalid:
            refuse(Code.BAD_SIGNATURE, "the signature does not verify")


def _check_lifetime(tx: Transaction, time: int) -> None:
    """The second half of gate 6, where the block's time is known: between blocks the last one's may be long past."""
    if tx.expires > time + MAX_LIFETIME_SECONDS:
        refuse(Code.EXPIRES_TOO_LATE, f"a transaction expires at most {MAX_LIFETIME_SECONDS} seconds after block time")


def _rule(tx: Transaction, view: View) -> Rule:
    """Gate 9: return the rule of a transaction's type."""
    rule = RULES.get(tx.type)
    if rule is None:
        refuse(Code.UNKNOWN_TYPE, "the ledger has no such transaction type")
    if tx.type not in OBSERVER_TYPES and WRITERS.isdisjoint(member_of(view, tx.sender)["roles"]):
        refuse(Code.NOT_AUTHORISED, "an observer writes nothing but its own keys, address and node")
    return rule


class _BlockView:
    """The state as of a transaction within a block: what the block has changed so far over what is committed."""

    def __init__(self, ledger: Ledger, time: int, height: int) -> None:
        self._ledger = ledger
        self.chain = ledger.chain
        self.time = time
        self.height = height
        self.overlay: dict[str, Value] = {}

    def get(self, key: str) -> Value | None:
        """Return a value of the state, or None."""
        found = self.overlay.get(key)
        return self._ledger.get(key) if found is None else found

    def next_seq(self, org: str) -> int:
        """Return the sequence number expected next from a member."""
        last = self.get(f"seq/{org}")
        return 1 if last is None else int(last["seq"]) + 1

    def public_key(self, public: str) -> PublicKey:
        """Return a public key from hexadecimal; raises ``KeyFormatError``."""
        return PublicKey.from_bytes(bytes.fromhex(public))


def app_hash(state_root: bytes, log_root: bytes) -> bytes:
    """Return the hash that commits to a state and a log."""
    return sm3(APP_DOMAIN + state_root + log_root)


def log_entry(tx: Transaction, height: int, time: int, index: int) -> bytes:
    """Return the log's entry of an accepted transaction: canonical JSON that binds it, its signature and its place."""
    return b'{"height":%d,"index":%d,"sig":"%s","time":%d,"tx":"%s","v":1}' % (
        height,
        index,
        tx.signature.hex().encode("ascii"),
        time,
        tx.tx_id.encode("ascii"),
    )


def unreadable_id(envelope: bytes) -> str:
    """Return what names an envelope that holds no transaction: SM3 over a domain of its own and the bytes."""
    return sm3(b"yiqiao/unreadable/v1" + envelope).hex()


def block_header(
    *, chain: str, height: int, time: int, previous: bytes, tx_ids: Iterable[str], app_hash: bytes, log_size: int
) -> bytes:
    """Return a block's canonical bytes; its hash is their SM3, ``previous`` that of the block before, or of genesis."""
    return encode(
        {
            "v": 1,
            "chain": chain,
            "height": height,
            "time": time,
            "prev": previous.hex(),
            "txs": list(tx_ids),
            "app_hash": app_hash.hex(),
            "log_size": log_size,
        }
    )


def ledger_checkpoint(chain: str, head: Head, state_root: bytes) -> Checkpoint:
    """Return the ledger's unsigned checkpoint after a block; the same on every node and engine."""
    return Checkpoint(
        origin=ledger_origin(chain),
        size=head.log.size,
        root=head.log.root(),
        extensions=(
            ("height", str(head.height)),
            ("time", str(head.time)),
            ("state", base64.b64encode(state_root).decode("ascii")),
        ),
    )
