"""The ABCI application: CometBFT decides the order, the one state machine of ``anchor.ledger`` decides the outcome.

(1) CheckTx lets a pack wait when at least one of its envelopes passes the ledger's filter; signatures verified here are
    not verified again.
(2) ProcessProposal accepts every block of well-formed packs: a pure function of the block's bytes, so that honest
    nodes always agree. An ill-formed pack can only come from a proposer that lies.
(3) FinalizeBlock computes and persists nothing; it may be asked for the same height again after a crash.
(4) Commit makes the computed block durable before it answers.

A CometBFT block in which nothing is accepted is no block of the ledger: heights, hashes and times of the ledger are the
same as on any other engine that is given the same transactions at the same times.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from anchor.chain.client import TransactionResult
from anchor.chain.cometbft import messages as abci
from anchor.chain.cometbft.history import Description, Restoration
from anchor.chain.cometbft.packing import pack_id, unpack
from anchor.chain.cometbft.queries import Queries
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.cometbft.snapshots import INTERVAL, SnapshotJoiner, SnapshotServer
from anchor.errors import ChainCorrupt, FormatError, TransactionRejected
from anchor.ledger import BlockResult
from anchor.light_block import PublicKey
from anchor.protobuf import Message
from anchor.transaction import Code

VERSION = "yiqiao/1"
APP_VERSION = 1
SOME_REFUSED, MALFORMED = 1, 2
"""Codes of a CometBFT transaction: not all of its envelopes were accepted; it is no pack."""
MAX_BLOCK_ENVELOPES = 16_384
"""Envelopes of one block: some 10 MB, computed in a few seconds; a proposer that exceeds it is refused."""
REMEMBERED_PACKS = 8_192
"""Packs whose results are kept for the clients that wait for them: minutes at full load."""

Handler = Callable[[Any], Message]


@dataclass(frozen=True, slots=True)
class _Computed:
    """A finalised block that waits for its Commit; ``block`` is None when nothing in it was accepted."""

    comet_height: int
    block: BlockResult | None
    results: Mapping[str, tuple[TransactionResult, ...]]


class Application:
    """Answers CometBFT's requests over one replica, which it closes. For one thread at a time.

    ``quorum``: members whose signatures make a checkpoint witnessed; a majority of the active ones unless given.
    ``bootstrap``: node ids that are let in before the ledger names them. ``on_misbehaviour`` is told of each proven
    misdeed of a validator; what follows from it is the authorities' decision, not the state machine's.
    """

    def __init__(
        self,
        store: ReplicaStore,
        *,
        bootstrap: frozenset[str] = frozenset(),
        quorum: int | None = None,
        snapshot_interval: int = INTERVAL,
        on_misbehaviour: Callable[[abci.Misbehavior], None] = lambda _: None,
    ) -> None:
        self._results: OrderedDict[str, tuple[TransactionResult, ...]] = OrderedDict()
        self._bootstrap = bootstrap
        self._quorum = quorum
        self._snapshot_interval = snapshot_interval
        self._adopt(store)
        self._joiner = SnapshotJoiner(self._begin_restoration, self._take_restoration)
        self._computed: _Computed | None = None
        self._on_misbehaviour = on_misbehaviour
        self._handlers: Mapping[type[Message], Handler] = {
            abci.RequestEcho: lambda request: abci.ResponseEcho(request.message),
            abci.RequestInfo: self._info,
            abci.RequestInitChain: self._init_chain,
            abci.RequestQuery: lambda request: self._queries.answer(request),
            abci.RequestCheckTx: self._check,
            abci.RequestPrepareProposal: self._prepare,
            abci.RequestProcessProposal: self._process,
            abci.RequestFinalizeBlock: self._finalize,
            abci.RequestCommit: self._commit,
            abci.RequestListSnapshots: lambda _: self._snapshots.list(),
            abci.RequestOfferSnapshot: self._offer,
            abci.RequestLoadSnapshotChunk: lambda request: self._snapshots.load(request),
            abci.RequestApplySnapshotChunk: self._joiner.apply,
        }

    def handle(self, request: Message) -> Message:
        """Answer one request. Raises ``ChainError`` when this replica cannot go on, and must then be stopped."""
        return self._handlers[type(request)](request)

    def close(self) -> None:
        """Let go of the store, and of a restoration that was not finished."""
        self._joiner.close()
        self.store.close()

    def _adopt(self, store: ReplicaStore) -> None:
        self.store = store
        self._queries = Queries(store, self._results, self._bootstrap, self._quorum)
        self._snapshots = SnapshotServer(store, self._snapshot_interval)

    def _offer(self, request: abci.RequestOfferSnapshot) -> abci.ResponseOfferSnapshot:
        return self._joiner.offer(request, empty=self.store.comet_height == 0)

    def _begin_restoration(self, description: Description) -> Restoration:
        store = self.store
        return Restoration(store.path, description, genesis=store.content, org=store.org, key=store.key)

    def _take_restoration(self, restoration: Restoration, comet_height: int) -> None:
        """Put the restored file in the place of this replica's empty one and go on with it."""
        before = self.store
        before.close()
        try:
            restoration.finish(comet_height)
        finally:
            self._adopt(ReplicaStore(before.path, genesis=before.content, org=before.org, key=before.key))

    def _info(self, _request: abci.RequestInfo) -> abci.ResponseInfo:
        height = self.store.comet_height
        return abci.ResponseInfo(
            data="yiqiao",
            version=VERSION,
            app_version=APP_VERSION,
            last_block_height=height,
            last_block_app_hash=self.store.app_hash if height else b"",
        )

    def _init_chain(self, request: abci.RequestInitChain) -> abci.ResponseInitChain:
        """Begin: the chain's genesis must be this replica's, and its validators those of the ledger's state."""
        if self.store.comet_height:
            raise ChainCorrupt("CometBFT begins a chain that this replica has blocks of")
        if request.chain_id != self.store.genesis.chain:
            raise ChainCorrupt("CometBFT's genesis is of another chain than this replica's")
        check_app_state(self.store, request.app_state_bytes)
        own = _powers(self.store.ledger.get("validators"))
        given = {each.pub_key.ed25519: each.power for each in request.validators}
        if own and own != given:
            raise ChainCorrupt("CometBFT's genesis names other validators than the ledger's state")
        return abci.ResponseInitChain(app_hash=self.store.app_hash)

    def _check(self, request: abci.RequestCheckTx) -> abci.ResponseCheckTx:
        """Step (1). ``data`` says of each envelope what the filter found."""
        try:
            envelopes = unpack(request.tx)
        except FormatError as error:
            return abci.ResponseCheckTx(code=MALFORMED, log=str(error))
        codes = [self._check_envelope(envelope) for envelope in envelopes]
        refused = Code.OK not in codes
        return abci.ResponseCheckTx(code=SOME_REFUSED if refused else 0, data=orjson.dumps(codes) if refused else b"")

    def _check_envelope(self, envelope: bytes) -> str:
        try:
            self.store.ledger.check(envelope)
        except TransactionRejected as refusal:
            return refusal.code
        return Code.OK

    def _prepare(self, request: abci.RequestPrepareProposal) -> abci.ResponsePrepareProposal:
        """Propose what waits, in its order, within the bounds and without what is no pack."""
        chosen: list[bytes] = []
        size = count = 0
        for tx in request.txs:
            envelopes = _envelopes(tx)
            size += len(tx)
            count += len(envelopes)
            if size > request.max_tx_bytes or count > MAX_BLOCK_ENVELOPES:
                break
            if envelopes:
                chosen.append(tx)
        return abci.ResponsePrepareProposal(chosen)

    def _process(self, request: abci.RequestProcessProposal) -> abci.ResponseProcessProposal:
        """Step (2)."""
        counts = [len(_envelopes(tx)) for tx in request.txs]
        acceptable = all(counts) and sum(counts) <= MAX_BLOCK_ENVELOPES
        return abci.ResponseProcessProposal(abci.PROPOSAL_ACCEPT if acceptable else abci.PROPOSAL_REJECT)

    def _finalize(self, request: abci.RequestFinalizeBlock) -> abci.ResponseFinalizeBlock:
        """Step (3)."""
        if request.height != self.store.comet_height + 1:
            raise ChainCorrupt(
                f"CometBFT is at height {request.height} and this replica at {self.store.comet_height}: "
                "their folders are not of one copy"
            )
        for each in request.misbehavior:
            self._on_misbehaviour(each)
        parts = [_envelopes(tx) for tx in request.txs]
        computed = self.store.compute([envelope for part in parts for envelope in part], request.time.seconds)
        block = computed if computed.accepted else None
        remaining = iter(computed.results)
        results = [tuple(next(remaining) for _ in part) for part in parts]
        by_pack = {pack_id(tx): found for tx, found in zip(request.txs, results, strict=True)}
        self._computed = _Computed(request.height, block, by_pack)
        return abci.ResponseFinalizeBlock(
            tx_results=[_tx_result(found) for found in results],
            validator_updates=[] if block is None else list(self._validator_updates(block)),
            app_hash=self.store.app_hash if block is None else block.app_hash,
        )

    def _commit(self, _request: abci.RequestCommit) -> abci.ResponseCommit:
        """Step (4)."""
        computed = self._computed
        if computed is None:
            raise ChainCorrupt("CometBFT commits a block that it has not finalised")
        self.store.persist(computed.block, computed.comet_height)
        self._computed = None
        self._results.update(computed.results)
        while len(self._results) > REMEMBERED_PACKS:
            self._results.popitem(last=False)
        return abci.ResponseCommit()

    def _validator_updates(self, block: BlockResult) -> Iterator[abci.ValidatorUpdate]:
        """Yield what the block changes about the validators, by key: removed ones get the power 0."""
        if "validators" not in block.changes:
            return
        before, after = _powers(self.store.ledger.get("validators")), _powers(block.changes["validators"])
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                yield abci.ValidatorUpdate(PublicKey(ed25519=key), after.get(key, 0))


def app_state(store: ReplicaStore) -> dict[str, Any]:
    """Return what CometBFT's genesis file says of the ledger that it begins with: genesis, and how far it had come."""
    head = store.ledger.head
    return {
        "genesis": store.genesis.digest.hex(),
        "height": head.height,
        "size": head.log.size,
        "app_hash": store.app_hash.hex(),
    }


def check_app_state(store: ReplicaStore, content: bytes) -> None:
    """Raise ``ChainCorrupt`` unless CometBFT's genesis file begins with the ledger that this replica holds."""
    try:
        given = orjson.loads(content)
    except orjson.JSONDecodeError:
        given = None
    own = app_state(store)
    if given == own:
        return
    if isinstance(given, dict) and given.get("genesis") == own["genesis"] and given.get("size") != own["size"]:
        raise ChainCorrupt(
            f"CometBFT begins after {given.get('size')} transactions and this replica holds {own['size']}: "
            "import the ledger's history first"
        )
    raise ChainCorrupt("CometBFT's genesis begins with another ledger than this replica holds")


def _envelopes(tx: bytes) -> list[bytes]:
    """Return a pack's envelopes, none for what is no pack."""
    try:
        return unpack(tx)
    except FormatError:
        return []


def _tx_result(results: Sequence[TransactionResult]) -> abci.ExecTxResult:
    """Say what became of a pack. ``data``, the codes in order, is hashed by every node: they are part of the format."""
    if not results:
        return abci.ExecTxResult(code=MALFORMED)
    codes = [each.code for each in results]
    all_accepted = all(each.ok for each in results)
    return abci.ExecTxResult(code=0 if all_accepted else SOME_REFUSED, data=orjson.dumps(codes))


def _powers(value: Mapping[str, Any] | None) -> dict[bytes, int]:
    """Return the validators' powers by key from the state value ``validators``."""
    return {} if value is None else {bytes.fromhex(each["key"]): each["power"] for each in value["set"]}
