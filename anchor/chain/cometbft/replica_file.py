"""A replica's SQLite file: the embedded engine's, and in which CometBFT block each of the ledger's blocks was made.

The ledger's blocks are those in which something was accepted; CometBFT makes further, empty ones, for its heartbeat and
to carry the application's hash. So the ledger's heights and hashes are the same on every engine, and a file may go
from one engine to the other.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from anchor.chain.embedded_store import LedgerFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replica (
    height INTEGER PRIMARY KEY, comet_height INTEGER NOT NULL UNIQUE, log_size INTEGER NOT NULL)
"""
_HEIGHT = "comet-height"


def is_replica(path: Path) -> bool:
    """Whether a file is a replica's: from then on CometBFT alone decides its order."""
    if not path.is_file():
        return False
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'replica'").fetchone() is not None
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Place:
    """In which CometBFT block (``comet_height``) the ledger's block ``height``, up to ``log_size`` entries, was made.

    ``comet_height`` 0 is where CometBFT began: at genesis, or after the blocks that another engine had made.
    """

    height: int
    comet_height: int
    log_size: int


class ReplicaFile(LedgerFile):
    """The ledger's file with what a replica adds to it."""

    def add_replica_tables(self) -> None:
        """Create what a replica needs beside the embedded engine's tables, within ``writing``."""
        self._db.execute(_SCHEMA)

    def comet_height(self) -> int:
        """Return the last CometBFT height that is in the file; 0 before the first."""
        return int(self.meta(_HEIGHT) or b"0")

    def set_comet_height(self, height: int) -> None:
        """Note the CometBFT height that is in the file now, within ``writing``."""
        self.set_meta(_HEIGHT, b"%d" % height)

    def add_place(self, place: Place) -> None:
        """Note where a block of the ledger was made, within ``writing``."""
        self._db.execute("INSERT INTO replica VALUES (?, ?, ?)", (place.height, place.comet_height, place.log_size))

    def begin_at(self, place: Place) -> None:
        """Note after which block CometBFT begins its chain, within ``writing``."""
        self._db.execute("DELETE FROM replica")
        self.add_place(place)

    def place_of_size(self, log_size: int) -> Place | None:
        """Return where the block that brought the log to a size was made, or None when CometBFT did not make it."""
        row = self._db.execute(
            "SELECT height, comet_height, log_size FROM replica WHERE log_size = ?", (log_size,)
        ).fetchone()
        return None if row is None else Place(*row)

    def place_before(self, comet_height: int) -> Place | None:
        """Return the last block of the ledger made at or before a CometBFT height, or None."""
        row = self._db.execute(
            "SELECT height, comet_height, log_size FROM replica WHERE comet_height <= ?"
            " ORDER BY comet_height DESC LIMIT 1",
            (comet_height,),
        ).fetchone()
        return None if row is None else Place(*row)
