"""What the embedded engine checks on every opening: the last blocks, and that the log's root is the one they left."""

from __future__ import annotations

from itertools import pairwise

from anchor import checkpoint
from anchor.chain.embedded_store import BlockRow, LedgerFile
from anchor.errors import ChainCorrupt, FormatError, TransactionRejected
from anchor.gm import sm3
from anchor.ledger import Head, app_hash, block_header, ledger_checkpoint, log_entry
from anchor.merkle import leaf_hash
from anchor.tiles import TileLog
from anchor.transaction import parse

TAIL_BLOCKS = 8
"""Blocks checked on every opening: what a torn write or a careless copy could have damaged last."""


def check_tail(file: LedgerFile, chain: str) -> None:
    """Check, on opening, the last blocks and the log's root; raises ``ChainCorrupt``. The writer checks the state."""
    with file.reading():
        head = file.head()
        if file.transaction_end() != head.log_size:
            raise ChainCorrupt("the stored transactions are not those that the last block counts")
        log = TileLog(file, head.log_size)
        try:
            if log.root() != head.log().root():
                raise ChainCorrupt("the stored log is not the one that the last block left")
            rows = file.blocks(max(head.height - TAIL_BLOCKS, 0), TAIL_BLOCKS + 1)
            for before, row in pairwise(rows):
                _check_tail_block(file, chain, before, row, log)
        except FormatError as error:
            raise ChainCorrupt(f"the ledger's log cannot be read: {error}") from error


def _check_tail_block(file: LedgerFile, chain: str, before: BlockRow, row: BlockRow, log: TileLog) -> None:
    """Check that a stored block follows the one before it and that its transactions are in the log."""
    transactions = file.transactions(before.log_size, row.log_size - before.log_size)
    head = Head(row.height, row.time, row.log())
    expected = block_header(
        chain=chain,
        height=before.height + 1,
        time=max(row.time, before.time),
        previous=sm3(before.header),
        tx_ids=[one.tx_id.hex() for one in transactions],
        app_hash=app_hash(row.state_root, head.log.root()),
        log_size=before.log_size + len(transactions),
    )
    if row.header != expected:
        raise ChainCorrupt(f"block {row.height} does not follow from what is stored")
    if checkpoint.parse(row.note).checkpoint != ledger_checkpoint(chain, head, row.state_root):
        raise ChainCorrupt(f"the checkpoint after block {row.height} is not that of the block")
    for one in transactions:
        try:
            tx = parse(one.envelope)
        except TransactionRejected:
            raise ChainCorrupt(f"transaction {one.index} cannot be read") from None
        entry = log_entry(tx, row.height, row.time, one.index)
        if tx.tx_id != one.tx_id.hex() or log.leaf(one.index) != leaf_hash(entry):
            raise ChainCorrupt(f"transaction {one.index} is not the one that is in the log")
