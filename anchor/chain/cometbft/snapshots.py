"""State sync: serving the ledger's history to nodes that join, and joining by it (ABCI's four snapshot methods).

A snapshot needs no file: the log only grows, so its chunks up to any size can be read at any time, and every node makes
the same ones. Offered are CometBFT heights at round intervals, the last two, once the headers that a joining node needs
to trust them are there. A joining node takes a description only when it leads to the ``app_hash`` that its light client
has verified, and then each chunk only when it is that part of the log.
"""

from __future__ import annotations

from collections.abc import Callable

from anchor.chain.cometbft import history
from anchor.chain.cometbft import messages as abci
from anchor.chain.cometbft.replica_file import Place
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.errors import FormatError, VerificationError
from anchor.gm import sm3

FORMAT = 1
INTERVAL = 1_000
"""CometBFT heights between snapshots: some hours at the heartbeat's pace, minutes under load."""
OFFERED = 2
HEADERS_BEHIND = 2
"""Headers after a snapshot's that a joining node asks for (light client at H+1 and H+2)."""


class SnapshotServer:
    """Offers and serves the history of one store."""

    def __init__(self, store: ReplicaStore, interval: int = INTERVAL) -> None:
        self._store = store
        self._interval = interval
        self._described: dict[int, history.Description] = {}

    def list(self) -> abci.ResponseListSnapshots:
        """Return the snapshots that can be had now."""
        newest = (self._store.comet_height - HEADERS_BEHIND) // self._interval * self._interval
        heights = [newest - number * self._interval for number in range(OFFERED)]
        found = [(height, self._place(height)) for height in heights if height > 0]
        return abci.ResponseListSnapshots([self._snapshot(height, place) for height, place in found if place])

    def load(self, request: abci.RequestLoadSnapshotChunk) -> abci.ResponseLoadSnapshotChunk:
        """Return a part of a snapshot, empty when there is none."""
        place = self._place(request.height)
        if request.format != FORMAT or place is None:
            return abci.ResponseLoadSnapshotChunk()
        return abci.ResponseLoadSnapshotChunk(history.read_chunk(self._store.file, request.chunk, place.log_size))

    def _place(self, height: int) -> Place | None:
        """Return how far the ledger was at a CometBFT height; None when it had not begun, or is not there yet."""
        if height > self._store.comet_height:
            return None
        place = self._store.file.place_before(height)
        return place if place is not None and place.log_size else None

    def _snapshot(self, height: int, place: Place) -> abci.Snapshot:
        described = self._described.get(place.height)
        if described is None:
            described = history.describe(self._store.file, place.height)
            self._described = {**dict(list(self._described.items())[-OFFERED:]), place.height: described}
        content = described.encode()
        return abci.Snapshot(height, FORMAT, len(described.chunks), sm3(content), content)


class SnapshotJoiner:
    """Takes the history that other nodes offer; ``begin`` opens a restoration, ``done`` gets it when it is whole."""

    def __init__(
        self,
        begin: Callable[[history.Description], history.Restoration],
        done: Callable[[history.Restoration, int], None],
    ) -> None:
        self._begin = begin
        self._done = done
        self._restoration: history.Restoration | None = None
        self._height = 0

    def offer(self, request: abci.RequestOfferSnapshot, *, empty: bool) -> abci.ResponseOfferSnapshot:
        """Accept a snapshot when it leads to the verified hash; ``empty``: this replica has no blocks of its own."""
        if not empty:
            return abci.ResponseOfferSnapshot(abci.OFFER_ABORT)
        snapshot = request.snapshot
        if snapshot.format != FORMAT:
            return abci.ResponseOfferSnapshot(abci.OFFER_REJECT_FORMAT)
        try:
            description = history.Description.parse(snapshot.metadata)
        except FormatError:
            return abci.ResponseOfferSnapshot(abci.OFFER_REJECT)
        leads = description.app_hash == request.app_hash and snapshot.chunks == len(description.chunks)
        if not leads or sm3(snapshot.metadata) != snapshot.hash or not description.size:
            return abci.ResponseOfferSnapshot(abci.OFFER_REJECT)
        self.close()
        self._restoration = self._begin(description)
        self._height = snapshot.height
        return abci.ResponseOfferSnapshot(abci.OFFER_ACCEPT)

    def apply(self, request: abci.RequestApplySnapshotChunk) -> abci.ResponseApplySnapshotChunk:
        """Take the next chunk; one that is not that part of the log is fetched again from somebody else."""
        restoration = self._restoration
        if restoration is None:
            return abci.ResponseApplySnapshotChunk(abci.CHUNK_ABORT)
        try:
            restoration.add(request.chunk)
            if restoration.complete:
                self._done(restoration, self._height)
                self._restoration = None
        except (FormatError, VerificationError):
            return abci.ResponseApplySnapshotChunk(abci.CHUNK_RETRY, [request.index], [request.sender])
        return abci.ResponseApplySnapshotChunk(abci.CHUNK_ACCEPT)

    def close(self) -> None:
        """Let go of a restoration that was not finished."""
        if self._restoration is not None:
            self._restoration.discard()
            self._restoration = None
