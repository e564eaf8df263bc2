"""The embedded engine's one SQLite file: what is in it, and how a block is read from and written to it.

======== ==========================================================================================
table    content
======== ==========================================================================================
meta     the genesis file, the version of this layout, the size of the newest witnessed checkpoint, whether it is an
         observer's copy
block    each block's canonical header, state root, log frontier, changed buckets, and the host's signed checkpoint;
         row 0 is the genesis, its header being the genesis file
tx       each accepted transaction's envelope at its log index
tile     the ledger log's tiles (anchor.tiles)
state    state key -> canonical JSON
bucket   the state tree's buckets (anchor.state_tree)
cosignature  the members' cosignatures by checkpoint size
======== ==========================================================================================

Everything but the transactions, headers and cosignatures can be recomputed from them (``embedded_replay``).
"""

from __future__ import annotations

import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from anchor.contracts.view import Changes, Value
from anchor.errors import ChainCorrupt, ChainUnavailable
from anchor.ledger import BlockResult
from anchor.merkle import FrontierTree

LAYOUT = b"1"
FOLLOWED = "followed"
"""Name of the meta value that marks an observer's copy: nobody signed its checkpoints, and no block is made in it."""
BUSY_SECONDS = 30.0
"""How long a process waits for another one's block: blocks take milliseconds, folding the log in below a second."""
BUSY_PAUSE_SECONDS = 0.01
"""Between two attempts where SQLite itself does not wait."""
CACHED_VALUES = 20_000
"""State values kept decoded: members, their sequence numbers and logs, and the grants and requests in motion."""
CHECKPOINT_PAGES = 8192
"""Pages (32 MiB) of write-ahead log before it is folded into the file."""

_TILE_LEVEL_BITS = 48
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE block (
    height INTEGER PRIMARY KEY, time INTEGER NOT NULL, log_size INTEGER NOT NULL UNIQUE, header BLOB NOT NULL,
    state_root BLOB NOT NULL, frontier BLOB NOT NULL, buckets BLOB NOT NULL, note BLOB NOT NULL);
CREATE TABLE tx (idx INTEGER PRIMARY KEY, tx_id BLOB NOT NULL UNIQUE, height INTEGER NOT NULL, envelope BLOB NOT NULL);
CREATE TABLE tile (position INTEGER PRIMARY KEY, hashes BLOB NOT NULL);
CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE bucket (number INTEGER PRIMARY KEY, pairs BLOB NOT NULL);
CREATE TABLE cosignature (
    log_size INTEGER NOT NULL, org TEXT NOT NULL, key_hash BLOB NOT NULL, time INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (log_size, org)) WITHOUT ROWID;
"""
_AFTER = "\x7f"
"""Sorts after every character of a state key: keys are made of ids, organisation codes and origins, all ASCII."""
_BLOCK_TYPES = (int, int, int, bytes, bytes, bytes, bytes, bytes)
_TRANSACTION_TYPES = (int, bytes, int, bytes, int)
_COSIGNATURE_TYPES = (str, bytes, int, bytes)
_BLOCK_COLUMNS = "height, time, log_size, header, state_root, frontier, buckets, note"


@dataclass(frozen=True, slots=True)
class BlockRow:
    """One row of the block table. ``buckets``: numbers of the buckets this block changed, two bytes each."""

    height: int
    time: int
    log_size: int
    header: bytes
    state_root: bytes
    frontier: bytes
    buckets: bytes
    note: bytes

    def log(self) -> FrontierTree:
        """Return the compact form of the log after this block."""
        hashes = [self.frontier[start : start + 32] for start in range(0, len(self.frontier), 32)]
        return FrontierTree(self.log_size, hashes)


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """One accepted transaction with the time of its block."""

    index: int
    tx_id: bytes
    height: int
    envelope: bytes
    time: int


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn SQLite's errors into the package's: what may pass is ``ChainUnavailable``, else ``ChainCorrupt``."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise ChainUnavailable("the ledger is closed") from error
    except sqlite3.OperationalError as error:
        raise ChainUnavailable(f"the ledger file cannot be used now ({error.sqlite_errorname})") from error
    except sqlite3.DatabaseError as error:
        raise ChainCorrupt("the ledger file is not a sound database") from error


class LedgerFile:
    """One connection to the ledger's file. Not for use by two threads at once."""

    def __init__(self, path: str | Path, *, durable: bool = True) -> None:
        """Open or create the file; raises ``ChainUnavailable`` or ``ChainCorrupt``.

        ``durable`` False is for files that can be made again: a commit then waits for no disk.
        """
        with storage_errors():
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._use_write_ahead_log()
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    def _use_write_ahead_log(self) -> None:
        """Set the journal's mode, which a new file keeps; SQLite does not wait where two processes do so at once."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(BUSY_PAUSE_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the file's one write lock; commit at the end, or undo everything when an error leaves the block."""
        yield from self._within("BEGIN IMMEDIATE")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See one state of the file throughout."""
        yield from self._within("BEGIN")

    def _within(self, begin: str) -> Iterator[None]:
        with storage_errors():
            self._db.execute(begin)
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def is_new(self) -> bool:
        """Whether nothing has been written to the file."""
        return self._db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None

    def is_replica(self) -> bool:
        """Whether CometBFT orders the file's blocks (``anchor.chain.cometbft``): a member's own copy of the ledger."""
        return self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'replica'").fetchone() is not None

    def is_followed(self) -> bool:
        """Whether an observer computed the file from another member's ledger (``anchor.chain.followed``)."""
        return self.meta(FOLLOWED) is not None

    def create(self, genesis: bytes) -> None:
        """Create the tables, within ``writing``."""
        for statement in _SCHEMA.split(";"):
            self._db.execute(statement)
        self._db.execute("INSERT INTO meta VALUES ('layout', ?), ('genesis', ?)", (LAYOUT, genesis))

    def meta(self, name: str) -> bytes | None:
        """Return a meta value, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_meta(self, name: str, value: bytes) -> None:
        """Set a meta value, within ``writing``."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def head(self) -> BlockRow:
        """Return the last block; raises ``ChainCorrupt`` when there is none."""
        row = self._db.execute(f"SELECT {_BLOCK_COLUMNS} FROM block ORDER BY height DESC LIMIT 1").fetchone()  # noqa: S608
        if row is None:
            raise ChainCorrupt("the ledger file has no blocks")
        return BlockRow(*_typed(row, _BLOCK_TYPES))

    def height(self) -> int:
        """Return the last block's height."""
        return int(self._db.execute("SELECT max(height) FROM block").fetchone()[0])

    def blocks(self, start: int, limit: int) -> list[BlockRow]:
        """Return up to ``limit`` blocks from a height on."""
        statement = f"SELECT {_BLOCK_COLUMNS} FROM block WHERE height >= ? ORDER BY height LIMIT ?"  # noqa: S608
        return [BlockRow(*_typed(row, _BLOCK_TYPES)) for row in self._db.execute(statement, (start, limit))]

    def block_of_size(self, log_size: int) -> BlockRow | None:
        """Return the block after which the log had a size, or None."""
        row = self._db.execute(f"SELECT {_BLOCK_COLUMNS} FROM block WHERE log_size = ?", (log_size,)).fetchone()  # noqa: S608
        return None if row is None else BlockRow(*_typed(row, _BLOCK_TYPES))

    def log_size_before(self, height: int) -> int:
        """Return the log's size before a block."""
        row = self._db.execute("SELECT log_size FROM block WHERE height = ?", (height - 1,)).fetchone()
        if row is None:
            raise ChainCorrupt(f"block {height - 1} is missing")
        return int(row[0])

    def touched_buckets(self, after: int) -> set[int]:
        """Return the numbers of the buckets that blocks above a height have changed."""
        numbers: set[int] = set()
        for (packed,) in self._db.execute("SELECT buckets FROM block WHERE height > ?", (after,)):
            numbers.update(int.from_bytes(packed[at : at + 2], "big") for at in range(0, len(packed), 2))
        return numbers

    def transaction(self, tx_id: bytes) -> TransactionRow | None:
        """Return an accepted transaction by id, or None."""
        row = self._db.execute(
            "SELECT idx, tx_id, t.height, envelope, time FROM tx t JOIN block b ON b.height = t.height WHERE tx_id = ?",
            (tx_id,),
        ).fetchone()
        return None if row is None else TransactionRow(*_typed(row, _TRANSACTION_TYPES))

    def transactions(self, start: int, limit: int) -> list[TransactionRow]:
        """Return up to ``limit`` accepted transactions from a log index on."""
        rows = self._db.execute(
            "SELECT idx, tx_id, t.height, envelope, time FROM tx t JOIN block b ON b.height = t.height"
            " WHERE idx >= ? ORDER BY idx LIMIT ?",
            (start, limit),
        )
        return [TransactionRow(*_typed(row, _TRANSACTION_TYPES)) for row in rows]

    def state(self, key: str) -> bytes | None:
        """Return a state value's canonical bytes, or None."""
        row = self._db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(_typed(row, (bytes,))[0])

    def states(self, prefix: str, limit: int) -> list[tuple[str, bytes]]:
        """Return up to ``limit`` state values whose keys start with ``prefix``, in key order."""
        rows = self._db.execute(
            "SELECT key, value FROM state WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
            (prefix, prefix + _AFTER, limit),
        )
        return [(key, value) for key, value in (_typed(row, (str, bytes)) for row in rows)]

    def all_states(self) -> Iterator[tuple[str, bytes]]:
        """Yield every state value in key order."""
        yield from self._db.execute("SELECT key, value FROM state ORDER BY key")

    def transaction_count(self) -> int:
        """Return the number of transaction rows."""
        return int(self._db.execute("SELECT count(*) FROM tx").fetchone()[0])

    def transaction_end(self) -> int:
        """Return the log index after the last transaction row."""
        return int(self._db.execute("SELECT coalesce(max(idx) + 1, 0) FROM tx").fetchone()[0])

    def read_bucket(self, index: int) -> bytes:
        """Return a bucket's pairs (``anchor.state_tree.BucketStore``)."""
        row = self._db.execute("SELECT pairs FROM bucket WHERE number = ?", (index,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def buckets(self) -> Iterator[tuple[int, bytes]]:
        """Yield every bucket that is not empty."""
        yield from self._db.execute("SELECT number, pairs FROM bucket ORDER BY number")

    def read(self, level: int, index: int) -> bytes | None:
        """Return a tile (``anchor.tiles.TileStore``)."""
        position = level << _TILE_LEVEL_BITS | index
        row = self._db.execute("SELECT hashes FROM tile WHERE position = ?", (position,)).fetchone()
        return None if row is None else bytes(row[0])

    def all_tiles(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield level, index and hashes of every tile."""
        for position, hashes in self._db.execute("SELECT position, hashes FROM tile ORDER BY position"):
            yield position >> _TILE_LEVEL_BITS, position & ((1 << _TILE_LEVEL_BITS) - 1), hashes

    def write(self, level: int, index: int, data: bytes) -> None:
        """Keep a tile, within ``writing``."""
        self._db.execute("INSERT OR REPLACE INTO tile VALUES (?, ?)", (level << _TILE_LEVEL_BITS | index, data))

    def append(self, block: BlockResult, header: bytes, note: bytes) -> None:
        """Write a computed block, within ``writing``. Its tiles are written by the caller's ``TileLog`` over this."""
        rows = [(one.index, bytes.fromhex(one.transaction.tx_id), block.height, one.envelope) for one in block.accepted]
        self._db.executemany("INSERT INTO tx VALUES (?, ?, ?, ?)", rows)
        self.write_state(block.values, block.tree.buckets)
        row = BlockRow(
            height=block.height,
            time=block.time,
            log_size=block.log.size,
            header=header,
            state_root=block.state_root,
            frontier=b"".join(block.log.frontier),
            buckets=pack_buckets(block.tree.buckets),
            note=note,
        )
        self.write_block(row)

    def write_block(self, row: BlockRow) -> None:
        """Write a block's row, within ``writing``."""
        self._db.execute(
            "INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.height,
                row.time,
                row.log_size,
                row.header,
                row.state_root,
                row.frontier,
                row.buckets,
                row.note,
            ),
        )

    def write_state(self, values: Mapping[str, bytes], buckets: Mapping[int, bytes]) -> None:
        """Write state values and the buckets that hold their hashes, within ``writing``."""
        self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", values.items())
        self._db.executemany("INSERT OR REPLACE INTO bucket VALUES (?, ?)", buckets.items())

    def cosignatures(self, log_size: int) -> list[tuple[str, bytes, int, bytes]]:
        """Return (organisation, key hash, time, signature) of the cosignatures kept for a size."""
        statement = "SELECT org, key_hash, time, value FROM cosignature WHERE log_size = ? ORDER BY org"
        rows = self._db.execute(statement, (log_size,)).fetchall()
        return [
            (org, key_hash, time, value) for org, key_hash, time, value in (_typed(r, _COSIGNATURE_TYPES) for r in rows)
        ]

    def cosigned_sizes(self) -> list[int]:
        """Return the sizes that cosignatures are kept for, in order."""
        return [
            int(size) for (size,) in self._db.execute("SELECT DISTINCT log_size FROM cosignature ORDER BY log_size")
        ]

    def add_cosignatures(self, log_size: int, rows: Iterable[tuple[str, bytes, int, bytes]]) -> None:
        """Keep cosignatures, within ``writing``; an organisation's first one for a size stays."""
        self._db.executemany(
            "INSERT OR IGNORE INTO cosignature VALUES (?, ?, ?, ?, ?)", [(log_size, *row) for row in rows]
        )


class CachedState:
    """State values as the state machine reads them: from the file, with those in use kept decoded."""

    def __init__(self, file: LedgerFile, capacity: int = CACHED_VALUES) -> None:
        self._file = file
        self._capacity = capacity
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str) -> Value | None:
        """Return a committed value, or None. It must not be altered."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
            return value
        content = self._file.state(key)
        if content is None:
            return None
        decoded = decode_state(content)
        self._keep({key: decoded})
        return decoded

    def install(self, changes: Changes, buckets: Mapping[int, bytes]) -> None:  # noqa: ARG002 - already in the file
        """Keep the values of a block that was written to the file."""
        self._keep(changes)

    def forget(self) -> None:
        """Drop everything kept: another process has written to the file."""
        self._values.clear()

    def _keep(self, values: Changes) -> None:
        for key, value in values.items():
            self._values[key] = value
            self._values.move_to_end(key)
        while len(self._values) > self._capacity:
            self._values.popitem(last=False)


def decode_state(content: bytes) -> Value:
    """Return a stored state value; raises ``ChainCorrupt`` for bytes that are no JSON object."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        value = None
    if type(value) is not dict:
        raise ChainCorrupt("a state value in the ledger file is not what was written")
    return value


def pack_buckets(numbers: Iterable[int]) -> bytes:
    """Return bucket numbers as two bytes each, in order."""
    return b"".join(number.to_bytes(2, "big") for number in sorted(numbers))


def _typed(row: Sequence[Any], types: tuple[type, ...]) -> Sequence[Any]:
    """Return a row whose values have their types; SQLite itself keeps whatever it is given in any column."""
    if tuple(type(value) for value in row) != types:
        raise ChainCorrupt("a row of the ledger file holds values of other types than were written")
    return row
