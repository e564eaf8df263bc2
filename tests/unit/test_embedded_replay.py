"""What a full check of a ledger file finds, and how it names it; and what the engine does when the file is busy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from anchor import transaction
from anchor.chain import embedded_replay, embedded_sequencer, embedded_store
from anchor.chain.embedded import EmbeddedChain
from anchor.chain.embedded_replay import check_ledger, replay
from anchor.errors import ChainCorrupt, ChainUnavailable
from tests.ledger_consortium import AUTHORITY, CHAIN, HOSPITAL_A, START, genesis_bytes, grant_body, ident, sign_key


def open_chain(path: Path, **changes: Any) -> EmbeddedChain:
    values = {"host_key": sign_key(AUTHORITY), "host_org": AUTHORITY, "clock": lambda: START, "max_block": 4}
    return EmbeddedChain(path, genesis=genesis_bytes(), **{**values, **changes})


def envelope(seq: int) -> bytes:
    return transaction.build(
        chain=CHAIN,
        type="consent.grant",
        sender=HOSPITAL_A,
        key=sign_key(HOSPITAL_A),
        seq=seq,
        expires=START,
        body=grant_body(seq),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger file of three blocks of four grants."""
    file = tmp_path / "ledger.sqlite3"
    chain = open_chain(file)
    assert all(one.ok for one in chain.submit([envelope(seq) for seq in range(1, 13)]))
    chain.close()
    return file


def alter(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(statement)


def test_a_sound_file_has_no_difference_and_progress_reaches_its_end(path: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert check_ledger(path, genesis_bytes(), lambda done, last: seen.append((done, last))) == []
    assert seen[-1] == (3, 3)


class Stopped(Exception):
    pass


def test_an_interrupted_check_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_replay, "_PAGE", 1)
    file, scratch = tmp_path / "ledger.sqlite3", tmp_path / "scratch.sqlite3"
    chain = open_chain(file)
    chain.submit([envelope(seq) for seq in range(1, 21)])
    chain.close()
    alter(file, "UPDATE block SET frontier = zeroblob(length(frontier)) WHERE height = 2")
    reached: list[int] = []

    def stop_at_three(done: int, last: int) -> None:
        reached.append(done)
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        check_ledger(file, genesis_bytes(), stop_at_three, scratch=scratch)
    assert reached == [1, 2, 3]
    alter(file, f"DELETE FROM state WHERE key = 'grant/{ident(2)}'")
    reached.clear()
    differences = check_ledger(file, genesis_bytes(), lambda done, last: reached.append(done), scratch=scratch)
    assert reached == [4, 5, 5], "the first three blocks are not replayed again"
    assert [each.where for each in differences] == ["block 2", f"state grant/{ident(2)}"]
    other, content = tmp_path / "other.sqlite3", genesis_bytes((AUTHORITY,))
    EmbeddedChain(other, genesis=content, host_key=sign_key(AUTHORITY), host_org=AUTHORITY).close()
    with pytest.raises(ChainCorrupt, match="another ledger"):
        check_ledger(other, content, scratch=scratch)


def test_tiles_beyond_the_log_are_named(path: Path) -> None:
    alter(path, "INSERT INTO tile VALUES (7, zeroblob(32))")
    assert [each.where for each in check_ledger(path, genesis_bytes())] == ["tile 0/7"]


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        pytest.param(
            f"UPDATE state SET value = replace(value, 'TREAT', 'HRESCH') WHERE key = 'grant/{ident(2)}'",
            f"state grant/{ident(2)}",
            id="a-grant-rewritten",
        ),
        pytest.param(f"DELETE FROM state WHERE key = 'grant/{ident(3)}'", f"state grant/{ident(3)}", id="a-grant-gone"),
        pytest.param("INSERT INTO state VALUES ('grant/x', '{}')", "state grant/x", id="a-grant-invented"),
        pytest.param("DELETE FROM bucket WHERE number = (SELECT min(number) FROM bucket)", "bucket", id="bucket-gone"),
        pytest.param("UPDATE tile SET hashes = zeroblob(length(hashes))", "tile 0/0", id="tile-zeroed"),
        pytest.param("UPDATE tx SET envelope = x'7b7d' WHERE idx = 0", "block 1, transaction 0", id="envelope"),
        pytest.param("DELETE FROM tx WHERE idx = 5", "block 2", id="a-transaction-dropped"),
        pytest.param(
            "UPDATE tx SET idx = -1 WHERE idx = 1; UPDATE tx SET idx = 1 WHERE idx = 2;"
            "UPDATE tx SET idx = 2 WHERE idx = -1",
            "block 1, transaction 1",
            id="two-swapped",
        ),
        pytest.param("DELETE FROM block WHERE height = 2", "block 2", id="a-block-dropped"),
        pytest.param("UPDATE block SET time = time + 5 WHERE height = 2", "block 2", id="block-time"),
        pytest.param("UPDATE tx SET tx_id = zeroblob(32) WHERE idx = 6", "block 2", id="transaction-id"),
        pytest.param(
            "INSERT INTO cosignature VALUES (8, 'X', zeroblob(4), 1, zeroblob(64))", "cosignature 8/X", id="cosignature"
        ),
        pytest.param(
            "INSERT INTO cosignature VALUES (7, 'X', zeroblob(4), 1, zeroblob(64))", "cosignature 7/X", id="of-no-size"
        ),
        pytest.param(
            "UPDATE block SET note = CAST(substr(CAST(note AS TEXT), 1, length(CAST(note AS TEXT)) - 9)"
            " || 'AAAAAA==' || x'0a' AS BLOB) WHERE height = 3",
            "block 3",
            id="host-signature",
        ),
        pytest.param("UPDATE block SET note = x'00' WHERE height = 3", "block 3", id="checkpoint"),
        pytest.param("UPDATE block SET state_root = zeroblob(32) WHERE height = 3", "block 3", id="state-root"),
        pytest.param("UPDATE block SET buckets = zeroblob(length(buckets)) WHERE height = 2", "block 2", id="buckets"),
        pytest.param(
            "UPDATE block SET frontier = zeroblob(length(frontier)) WHERE height = 2", "block 2", id="frontier"
        ),
        pytest.param("UPDATE block SET time = time - 5 WHERE height = 0", "block 0", id="genesis-time"),
        pytest.param("UPDATE block SET state_root = zeroblob(32) WHERE height = 0", "block 0", id="genesis-state"),
        pytest.param("UPDATE block SET header = x'7b7d' WHERE height = 0", "block 0", id="genesis-header"),
        pytest.param("UPDATE block SET note = x'00' WHERE height = 0", "block 0", id="genesis-checkpoint"),
        pytest.param("DELETE FROM block WHERE height = 0", "block 0", id="genesis-row-dropped"),
        pytest.param(
            "INSERT INTO tx SELECT 12, zeroblob(32), 3, envelope FROM tx WHERE idx = 0", "transactions", id="one-more"
        ),
    ],
)
def test_every_alteration_is_named(path: Path, statement: str, where: str) -> None:
    alter(path, statement)
    differences = check_ledger(path, genesis_bytes())
    assert differences
    assert differences[0].where.startswith(where), differences


def test_a_column_of_another_type_is_corrupt_and_breaks_nothing_else(path: Path) -> None:
    alter(path, "UPDATE block SET note = CAST(note AS TEXT) WHERE height = 2")
    with pytest.raises(ChainCorrupt):
        check_ledger(path, genesis_bytes())
    with pytest.raises(ChainCorrupt):
        open_chain(path)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("CAST('{\"seq\":' AS BLOB)", id="cut-json"),
        pytest.param("CAST('[1]' AS BLOB)", id="no-object"),
        pytest.param("x'ff'", id="no-text"),
        pytest.param("'text'", id="text-column"),
    ],
)
def test_a_state_value_that_cannot_be_read_is_corrupt(path: Path, value: str) -> None:
    """Whichever way it is read: the raw error of a JSON parser never leaves the engine."""
    chain = open_chain(path)
    alter(path, f"UPDATE state SET value = {value} WHERE key = 'seq/{HOSPITAL_A}'")
    try:
        for read in (
            lambda: chain.state(f"seq/{HOSPITAL_A}"),
            lambda: chain.next_seq(HOSPITAL_A),
            lambda: chain.state_with_prefix("seq/"),
            lambda: chain.state_proof(f"seq/{HOSPITAL_A}"),
        ):
            with pytest.raises(ChainCorrupt):
                read()
    finally:
        chain.close()
    assert any(each.where == f"state seq/{HOSPITAL_A}" for each in check_ledger(path, genesis_bytes()))


def test_another_genesis_is_named(path: Path) -> None:
    (difference,) = check_ledger(path, genesis_bytes((AUTHORITY,)))
    assert difference.where == "genesis"


def test_replay_gives_the_state_and_stops_at_the_first_block_that_does_not_follow(path: Path) -> None:
    chain = open_chain(path)
    blocks = chain.blocks(1, 10)
    root = chain.state_proof("chain").state_root
    chain.close()
    ledger = replay(genesis_bytes(), blocks)
    assert (ledger.head.height, ledger.head.log.size, ledger.tree.root) == (3, 12, root)
    with pytest.raises(ChainCorrupt, match="block 3"):
        replay(genesis_bytes(), [blocks[0], blocks[2]])


def test_yesterdays_file_put_in_the_place_of_todays_is_noticed_while_running(path: Path, tmp_path: Path) -> None:
    chain = open_chain(path)
    try:
        alter(path, "DELETE FROM block WHERE height = 3")
        with pytest.raises(ChainCorrupt):
            chain.submit([envelope(13)])
    finally:
        chain.close()


@pytest.fixture
def locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    monkeypatch.setattr(embedded_store, "BUSY_SECONDS", 0.05)
    database = sqlite3.connect(path, isolation_level=None)
    yield database
    database.close()


def test_a_file_that_stays_locked_is_unavailable_and_nothing_is_lost(path: Path, locked: sqlite3.Connection) -> None:
    chain = open_chain(path)
    try:
        locked.execute("BEGIN IMMEDIATE")
        with pytest.raises(ChainUnavailable):
            chain.submit([envelope(13), envelope(14)])
        assert chain.health().ok
        locked.execute("ROLLBACK")
        assert [one.code for one in chain.submit([envelope(13), envelope(14)])] == ["ok", "ok"]
    finally:
        chain.close()


def test_a_full_queue_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_sequencer, "MAX_WAITING", 2)
    chain = open_chain(path)
    try:
        with pytest.raises(ChainUnavailable, match="too many"):
            chain.submit([envelope(13), envelope(14), envelope(15)])
    finally:
        chain.close()


def test_an_unexpected_failure_reaches_whoever_waits(path: Path) -> None:
    def broken_clock() -> float:
        raise RuntimeError("no time")

    chain = open_chain(path, clock=broken_clock)
    try:
        with pytest.raises(ChainCorrupt, match="sequencer stopped"):
            chain.submit([envelope(13)])
        assert not chain.health().ok
        with pytest.raises(ChainUnavailable):
            chain.submit([envelope(13)])
    finally:
        chain.close()
