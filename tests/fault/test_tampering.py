"""The tampering suite: something stored is altered behind the node's back, and fsck names it.

Real SQLite files, the real embedded ledger. Each case says what was done and which kind of difference must be named.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from anchor.checkpoint import log_origin
from anchor.errors import ChainCorrupt
from anchor.merkle import leaf_hash
from anchor.receipt import LogEntry
from bridge.services.anchoring import LogDiverged
from bridge.services.integrity import IntegrityReport
from bridge.storage import evidence
from bridge.storage.database import read_transaction, transact
from tests.evidence_world import HOSPITAL_A, World

ORIGIN = log_origin(HOSPITAL_A, "2026")
REF = "Observation/o1/_history/1"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.anchored(6)
    for number in range(3):
        world.store(number, "0.41")
    world.clock.now += 1
    world.anchoring.run()
    world.witness.run()
    world.store(99)  # one version that still waits
    yield world
    world.close()


def flip(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def flip_column(world: World, table: str, column: str, where: str, at: int = -1) -> None:
    with world.engine.begin() as conn:
        value = conn.exec_driver_sql(f"SELECT {column} FROM {table} WHERE {where}").scalar_one()
        conn.exec_driver_sql(f"UPDATE {table} SET {column} = ? WHERE {where}", (flip(value, at),))


def of_record(id: str = "o1", version: int = 1) -> str:
    return f"type = 'Observation' AND id = '{id}' AND version = {version}"


def _reseal_record(world: World) -> None:
    """An insider with the node's keys seals other content in the row, and corrects the digest column."""
    from anchor.gm import sm3
    from bridge.storage.record_versions import associated_data

    content = world.content(REF).replace(b"0.40", b"9.90")
    aad = associated_data("Observation", "o1", 1)
    sealed = transact(world.engine, lambda conn: world.keyring.seal(conn, "Patient/p1", content, aad))
    world.sql(f"UPDATE resource_version SET sealed = ?, digest = ? WHERE {of_record()}", sealed, sm3(content))


def _swap_sealed(world: World) -> None:
    with world.engine.begin() as conn:
        rows = conn.exec_driver_sql(
            "SELECT id, sealed FROM resource_version WHERE type = 'Observation' AND version = 1 AND id IN ('o1', 'o2')"
        ).all()
        (first, one), (second, two) = rows
        for id, sealed in ((first, two), (second, one)):
            conn.exec_driver_sql(f"UPDATE resource_version SET sealed = ? WHERE {of_record(id)}", (sealed,))


def _reseal_entry(world: World) -> LogEntry:
    """An insider replaces an entry by one with another digest, sealed in its own place."""
    with read_transaction(world.engine) as conn:
        stored = evidence.find_entry(conn, REF)
        assert stored is not None
        aad = evidence.entry_aad(stored.origin, stored.position)
        entry = LogEntry.parse(world.keyring.open(conn, stored.subject, stored.sealed, aad))
    forged = LogEntry(entry.org, entry.ref, b"\x01" * 32, entry.source, entry.adapter, entry.salt)
    sealed = transact(world.engine, lambda conn: world.keyring.seal(conn, stored.subject, forged.dump(), aad))
    world.sql("UPDATE evidence_entry SET sealed = ? WHERE ref = ?", sealed, REF)
    return forged


def _reseal_entry_and_leaf(world: World) -> None:
    forged = _reseal_entry(world)
    world.sql("UPDATE evidence_entry SET leaf = ? WHERE ref = ?", leaf_hash(forged.dump()), REF)


def _rewrite_log(world: World) -> None:
    """The thorough insider: record, entry, leaf, tiles, head and the local checkpoint all fit together again."""
    from anchor.tiles import TileLog
    from bridge.storage.evidence import DatabaseTiles

    _reseal_entry_and_leaf(world)
    with world.engine.begin() as conn:
        leaves = [bytes(row[0]) for row in conn.exec_driver_sql("SELECT leaf FROM evidence_entry ORDER BY position")]
        conn.exec_driver_sql("DELETE FROM evidence_tile")
        log = TileLog(DatabaseTiles(conn, ORIGIN))
        log.append(leaves)
        conn.exec_driver_sql("UPDATE evidence_log SET root = ?", (log.root(),))
        for size in (6, 9):
            conn.exec_driver_sql("UPDATE evidence_checkpoint SET root = ? WHERE size = ?", (log.root(size), size))


def _cut_tail(world: World) -> None:
    world.sql("DELETE FROM evidence_entry WHERE position >= 7")


def _cut_tail_and_head(world: World) -> None:
    """The last two entries, their hashes in the tile, the head: all say seven."""
    from anchor.tiles import TileLog
    from bridge.storage.evidence import DatabaseTiles

    _cut_tail(world)
    with world.engine.begin() as conn:
        root = TileLog(DatabaseTiles(conn, ORIGIN), 9).root(7)
        conn.exec_driver_sql("UPDATE evidence_log SET size = 7, root = ?", (root,))
        conn.exec_driver_sql("UPDATE evidence_tile SET hashes = substr(hashes, 1, ?)", (7 * 32,))


def _swap_entries(world: World) -> None:
    world.sql("UPDATE evidence_entry SET position = 100 WHERE position = 1")
    world.sql("UPDATE evidence_entry SET position = 1 WHERE position = 2")
    world.sql("UPDATE evidence_entry SET position = 2 WHERE position = 100")


def _log_twice(world: World) -> None:
    """Somebody puts a version that is logged into the outbox once more, as if it were another one."""
    columns = "subject, digest, source_digest, adapter, stored"
    world.sql(f"INSERT INTO outbox (ref, {columns}) SELECT ?, {columns} FROM outbox", REF)
    assert world.anchoring.drain() == 2


def _swap_numbers(world: World) -> None:
    """Each of two versions leads to the other's log entry."""
    with world.engine.begin() as conn:
        first, second = (
            conn.exec_driver_sql(f"SELECT outbox_id FROM resource_version WHERE {of_record(id)}").scalar_one()
            for id in ("o1", "o2")
        )
        for id, number in (("o1", second), ("o2", first)):
            conn.exec_driver_sql(f"UPDATE resource_version SET outbox_id = ? WHERE {of_record(id)}", (number,))


def _older_current(world: World) -> None:
    world.sql("UPDATE resource SET version = 1 WHERE type = 'Observation' AND id = 'o1'")


CASES = [
    pytest.param(
        lambda w: flip_column(w, "resource_version", "sealed", of_record()), f"record-altered {REF}", id="record bit"
    ),
    pytest.param(
        lambda w: flip_column(w, "resource_version", "digest", of_record()), f"record-altered {REF}", id="digest bit"
    ),
    pytest.param(
        lambda w: flip_column(w, "resource_version", "source_digest", of_record()),
        f"record-altered {REF}",
        id="source digest bit",
    ),
    pytest.param(_reseal_record, f"record-altered {REF}", id="record replaced with the node's own keys"),
    pytest.param(_swap_sealed, f"record-altered {REF}", id="two records swapped"),
    pytest.param(
        lambda w: w.sql(f"DELETE FROM resource_version WHERE {of_record()}"),
        f"record-missing {REF}",
        id="record row gone",
    ),
    pytest.param(
        lambda w: flip_column(w, "resource_version", "sealed", of_record("o99")),
        "record-altered Observation/o99/_history/1",
        id="bit of a record that still waits",
    ),
    pytest.param(
        lambda w: w.sql("DELETE FROM outbox"), "entry-missing Observation/o99/_history/1", id="outbox row dropped"
    ),
    pytest.param(_older_current, "current-differs Observation/o1", id="older version made the current one"),
    pytest.param(
        lambda w: flip_column(w, "evidence_entry", "sealed", "position = 1"),
        f"entry-altered {ORIGIN} entry 1 ({REF})",
        id="entry or salt bit",
    ),
    pytest.param(_reseal_entry, f"entry-altered {ORIGIN} entry 1 ({REF})", id="entry replaced with the node's keys"),
    pytest.param(_reseal_entry_and_leaf, f"tile-altered {ORIGIN} tile 0/0", id="entry and leaf replaced"),
    pytest.param(
        lambda w: flip_column(w, "evidence_entry", "leaf", "position = 1"),
        f"leaf-altered {ORIGIN} entry 1 ({REF})",
        id="leaf bit",
    ),
    pytest.param(
        lambda w: w.sql("DELETE FROM evidence_entry WHERE position = 1"),
        f"entry-missing {ORIGIN} entry 1",
        id="entry dropped",
    ),
    pytest.param(
        lambda w: w.sql("DELETE FROM evidence_entry WHERE position BETWEEN 2 AND 5"),
        f"entry-missing {ORIGIN} entry 5",
        id="batch dropped",
    ),
    pytest.param(
        _swap_entries, f"entry-altered {ORIGIN} entry 1 (Observation/o2/_history/1)", id="two entries swapped"
    ),
    pytest.param(_log_twice, f"entry-altered {ORIGIN} entry 10 ({REF})", id="version logged twice"),
    pytest.param(
        lambda w: w.sql("UPDATE evidence_entry SET outbox_id = 99 WHERE position = 1"),
        f"entry-altered {ORIGIN} entry 1 ({REF})",
        id="entry under another number",
    ),
    pytest.param(
        lambda w: w.sql(f"UPDATE resource_version SET outbox_id = 99 WHERE {of_record()}"),
        f"entry-missing {REF}",
        id="record with a number of no entry",
    ),
    pytest.param(_swap_numbers, f"entry-missing {REF}", id="two records' numbers swapped"),
    pytest.param(
        lambda w: flip_column(w, "evidence_tile", "hashes", "level = 0", 40),
        f"tile-altered {ORIGIN} tile 0/0",
        id="tile bit",
    ),
    pytest.param(lambda w: w.sql("DELETE FROM evidence_tile"), f"tile-missing {ORIGIN} tile 0/0", id="tile gone"),
    pytest.param(lambda w: flip_column(w, "evidence_log", "root", "1"), f"root-differs {ORIGIN} head", id="root bit"),
    pytest.param(lambda w: w.sql("DELETE FROM evidence_log"), f"root-differs {ORIGIN} head", id="head gone"),
    pytest.param(
        lambda w: w.sql("UPDATE evidence_log SET size = 8"), f"tail-cut {ORIGIN} from entry 8", id="head set back"
    ),
    pytest.param(_cut_tail, f"entry-missing {ORIGIN} entry 7", id="tail entries dropped"),
    pytest.param(_cut_tail_and_head, f"tail-cut {ORIGIN} from entry 7", id="tail cut with tile and head"),
    pytest.param(
        lambda w: flip_column(w, "evidence_checkpoint", "note", "number = 1"),
        f"checkpoint-altered {ORIGIN} checkpoint 1",
        id="checkpoint or its signature bit",
    ),
    pytest.param(
        lambda w: w.sql("UPDATE evidence_checkpoint SET size = 5 WHERE number = 1"),
        f"checkpoint-altered {ORIGIN} checkpoint 1",
        id="checkpoint row says another size",
    ),
    pytest.param(
        lambda w: w.sql("UPDATE evidence_checkpoint SET tx_id = ? WHERE number = 1", "0" * 64),
        f"checkpoint-not-on-ledger {ORIGIN} checkpoint 1",
        id="checkpoint with a transaction of nowhere",
    ),
    pytest.param(
        lambda w: w.sql("DELETE FROM evidence_checkpoint WHERE number = 1"),
        f"checkpoint-missing {ORIGIN} checkpoint 1",
        id="checkpoint row gone",
    ),
    pytest.param(
        lambda w: w.sql("UPDATE evidence_entry SET leaf = 'text', sealed = 'text' WHERE position = 1"),
        f"entry-altered {ORIGIN} entry 1 ({REF})",
        id="columns of another type",
    ),
    pytest.param(
        lambda w: w.sql("UPDATE evidence_checkpoint SET size = 'many' WHERE number = 1"),
        f"log-altered {ORIGIN}",
        id="a size that is no number",
    ),
    pytest.param(_rewrite_log, f"checkpoint-altered {ORIGIN} checkpoint 2", id="the whole log rewritten to fit"),
]


@pytest.mark.parametrize(("tamper", "named"), CASES)
def test_tampering_is_named(world: World, tamper: Callable[[World], None], named: str) -> None:
    assert world.places() == set(), "the untouched node has no differences"
    tamper(world)
    assert named in world.places()


def test_yesterdays_database_is_recognised(world: World, tmp_path: Path) -> None:
    yesterday = tmp_path / "yesterday.sqlite3"
    _copy_database(world.database, yesterday)
    world.store(50)
    world.clock.now += 86_400
    world.anchoring.run()
    assert world.kinds() == set()
    world.engine.dispose()
    _put_back(yesterday, world.database)
    assert "old-state-restored" in world.kinds()
    world.store(51)
    with pytest.raises(LogDiverged):
        world.anchoring.run()  # nothing is published on top of a forgotten past


def test_a_log_that_the_ledger_never_saw_is_named(world: World, tmp_path: Path) -> None:
    """The ledger is replaced by a fresh one of the same chain: the node's checkpoints are not on it."""
    world.chain.close()
    world.ledger_path = tmp_path / "other.sqlite3"
    world.chain = world.open_chain()
    world.build_services()
    kinds = world.kinds()
    assert {"checkpoint-not-on-ledger", "ledger-rolled-back"} <= kinds
    world.store(60)
    with pytest.raises(LogDiverged):
        world.anchoring.run()


def _ledger_tables(path: Path) -> dict[str, list[str]]:
    """Table -> columns of bytes that hold something, of the ledger's file."""
    with closing(sqlite3.connect(path)) as file:
        names = [row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found: dict[str, list[str]] = {}
        for name in names:
            for _, column, *_ in file.execute(f"PRAGMA table_info({name})").fetchall():
                row = file.execute(
                    f"SELECT {column} FROM {name} WHERE typeof({column}) = 'blob' AND length({column}) > 0 LIMIT 1"
                ).fetchone()
                if row is not None:
                    found.setdefault(name, []).append(column)
    return found


def _places(table: str, column: str) -> list[str]:
    """Return the rows whose bytes are altered: of each block every one, elsewhere the first."""
    if table == "block":
        return [f"rowid = {height}" for height in range(4)]
    return [f"typeof({column}) = 'blob' AND length({column}) > 0"]


def test_any_altered_byte_string_of_the_ledgers_file_is_named(world: World, tmp_path: Path) -> None:
    """Block, transaction, signature, state, bucket, tile: one bit of each kind of stored bytes, one at a time."""
    world.chain.close()
    original = tmp_path / "original.sqlite3"
    _copy_database(world.ledger_path, original)
    unnoticed, tables = [], _ledger_tables(original)
    assert len(tables) >= 4
    everywhere = [(t, c, place) for t, columns in tables.items() for c in columns for place in _places(t, c)]
    for table, column, place in everywhere:
        _put_back(original, world.ledger_path)
        with closing(sqlite3.connect(world.ledger_path)) as file, file:
            row = file.execute(f"SELECT {column} FROM {table} WHERE {place} LIMIT 1").fetchone()
            if row is None or not row[0]:
                continue  # the genesis block has no frontier and no changed buckets
            file.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ? AND {place}", (flip(row[0]), row[0]))
        if not _ledger_differences(world):
            unnoticed.append(f"{table}.{column} {place}")
    _put_back(original, world.ledger_path)
    world.chain = world.open_chain()
    assert unnoticed == []


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database nobody has open, with everything its write-ahead log holds."""
    with closing(sqlite3.connect(source)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(source, target)


def _put_back(copy: Path, place: Path) -> None:
    """Put a copy in a database's place, without the log of what came after."""
    for suffix in ("-wal", "-shm"):
        Path(f"{place}{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, place)


def _ledger_differences(world: World) -> bool:
    """Whether opening the altered ledger or running fsck over it says that something differs."""
    try:
        chain = world.open_chain()
    except ChainCorrupt:
        return True
    try:
        world.build_services(chain)
        report: IntegrityReport = world.integrity.check()
        return not report.ok
    finally:
        chain.close()


def test_a_truncated_ledger_is_named(world: World, tmp_path: Path) -> None:
    """The host restores an older copy of the ledger: shorter than what this node has cosigned."""
    world.chain.close()
    older = tmp_path / "older.sqlite3"
    _copy_database(world.ledger_path, older)
    world.chain = world.open_chain()
    world.build_services()
    world.clock.now += 1
    world.anchoring.run()
    world.witness.run()
    assert world.kinds() == set()
    world.chain.close()
    _put_back(older, world.ledger_path)
    world.chain = world.open_chain()
    world.build_services()
    assert "ledger-rolled-back" in world.kinds()
    assert world.witness.run().outcome == "shrunk"
