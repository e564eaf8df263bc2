"""What this node's own log says of record versions: the entry of each, where it is, and what has published it.

Many versions are answered for at once, which is what a release asks: what they share (the log's tiles, the nodes of
its tree, a checkpoint, a patient's key) is read and computed once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from anchor import merkle
from anchor.checkpoint import Checkpoint, SignedCheckpoint, render, sign
from anchor.receipt import LogEntry, LogProof
from anchor.tiles import TileLog
from bridge.errors import Conflict, StorageError
from bridge.services.anchoring import NodeSigner
from bridge.storage import evidence
from bridge.storage.database import read_transaction
from bridge.storage.evidence import DatabaseTiles, SealedEntry
from bridge.storage.keyring import KeyRing


@dataclass(frozen=True, slots=True)
class Logged:
    """A version's entry and its place. ``tx_id``: the transaction that published the log it is in.

    Without one the place is in the log as it is now, whose checkpoint the node signs itself (``log.checkpoint``).
    """

    entry: LogEntry
    log: LogProof
    tx_id: str | None


class LoggedEntries:
    """Finds record versions in the logs of one node."""

    def __init__(
        self, engine: Engine, keyring: KeyRing, signer: NodeSigner, org: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine, self._keyring, self._signer, self._org, self._clock = engine, keyring, signer, org, clock

    def find(
        self, refs: Sequence[str], known: Mapping[str, LogEntry] | None = None, *, published: bool = True
    ) -> list[Logged]:
        """Return what the log has of the record versions ``refs``, in their order.

        ``known``: entries that the caller has, by ref; the others are opened. ``published`` False: as if nothing had
        been published. Raises ``Conflict`` for a version that is not logged, or not as that entry; ``KeyDestroyed``.
        """
        with read_transaction(self._engine) as conn:
            found = evidence.find_entries(conn, refs)
            missing = next((ref for ref in refs if ref not in found), None)
            if missing is not None:
                raise Conflict(
                    f"{missing} is not in the log: it does not exist, or waits for the next run of `yiqiao anchor` / "
                    "该版本尚未写入日志，请先运行 yiqiao anchor"
                )
            entries = self._entries(conn, found, known or {})
            covering = evidence.checkpoints_covering(conn, found.values()) if published else {}
            sizes = {ref: covering[ref].size for ref in covering}
            heads = self._heads(conn, {each.origin for ref, each in found.items() if ref not in covering})
            sizes |= {ref: heads[each.origin][0] for ref, each in found.items() if ref not in covering}
            proofs = _proofs(conn, found, sizes)
        return [
            Logged(entries[ref], LogProof(found[ref].position, proofs[ref], None), covering[ref].tx_id)
            if ref in covering
            else Logged(entries[ref], LogProof(found[ref].position, proofs[ref], heads[found[ref].origin][1]), None)
            for ref in refs
        ]

    def _entries(
        self, conn: Connection, found: Mapping[str, SealedEntry], known: Mapping[str, LogEntry]
    ) -> dict[str, LogEntry]:
        sealed = {ref: each for ref, each in found.items() if ref not in known}
        keys, _ = self._keyring.keys_for(conn, {each.subject for each in sealed.values()})
        entries = dict(known)
        for ref, each in sealed.items():
            content = keys[each.subject].open(each.sealed, evidence.entry_aad(each.origin, each.position))
            entries[ref] = LogEntry.parse(content)
        for ref, entry in known.items():
            if merkle.leaf_hash(entry.dump()) != found[ref].leaf:
                raise Conflict("the receipt is of another entry than this node's log has / 回执与本节点日志不符")
        return entries

    def _heads(self, conn: Connection, origins: set[str]) -> dict[str, tuple[int, bytes]]:
        """Return size and checkpoint, signed by this node now, of logs that have unpublished entries."""
        heads: dict[str, tuple[int, bytes]] = {}
        for origin in origins:
            head = evidence.log_head(conn, origin)
            if head is None:
                raise StorageError(cause="an entry of a log without a head")
            now = int(self._clock())
            checkpoint = Checkpoint(head.origin, head.size, head.root, (("time", str(now)),))
            note = render(SignedCheckpoint(checkpoint, (sign(checkpoint, self._org, self._signer.sign, now),)))
            heads[origin] = (head.size, note)
        return heads


def _proofs(
    conn: Connection, found: Mapping[str, SealedEntry], sizes: Mapping[str, int]
) -> dict[str, tuple[bytes, ...]]:
    """Return the inclusion proof of each entry in its log's tree of that size."""
    trees: dict[tuple[str, int], list[str]] = {}
    for ref, each in found.items():
        trees.setdefault((each.origin, sizes[ref]), []).append(ref)
    proofs: dict[str, tuple[bytes, ...]] = {}
    for (origin, size), refs in trees.items():
        made = TileLog(DatabaseTiles(conn, origin), size).inclusion_proofs([found[ref].position for ref in refs])
        proofs |= {ref: tuple(proof) for ref, proof in zip(refs, made, strict=True)}
    return proofs
