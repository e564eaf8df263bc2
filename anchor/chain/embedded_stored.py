"""A block as the embedded engine stores it, with its transactions: what a replay starts from."""

from __future__ import annotations

from dataclasses import dataclass

from anchor.chain.embedded_store import BlockRow, LedgerFile


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block as stored: its header and the envelopes of its transactions, and what the host signed after it."""

    height: int
    time: int
    log_size: int
    header: bytes
    state_root: bytes
    note: bytes
    envelopes: tuple[bytes, ...]
    tx_ids: tuple[str, ...]

    @classmethod
    def read(cls, file: LedgerFile, row: BlockRow) -> StoredBlock:
        """Return a block with its transactions."""
        before = file.log_size_before(row.height)
        rows = file.transactions(before, max(row.log_size - before, 0))
        return cls(
            height=row.height,
            time=row.time,
            log_size=row.log_size,
            header=row.header,
            state_root=row.state_root,
            note=row.note,
            envelopes=tuple(one.envelope for one in rows),
            tx_ids=tuple(one.tx_id.hex() for one in rows),
        )
