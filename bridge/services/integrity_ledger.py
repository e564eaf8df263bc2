"""fsck, as far as it is about the ledger: are this node's checkpoints there, these and no others?

The ledger is asked first and the node's own table read afterwards, so that a checkpoint published in between is no
difference. One that the ledger has and the node has not noted yet, because it was killed in between, is none either as
long as it agrees with the node's log: the next anchoring run notes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Engine

from anchor.chain.client import ChainClient
from anchor.checkpoint import parse
from anchor.errors import AnchorError, FormatError
from anchor.fsck import Difference
from anchor.tiles import TileLog
from anchor.transaction import parse as parse_transaction
from anchor.trust import Trust
from bridge.storage import evidence
from bridge.storage.database import read_transaction
from bridge.storage.evidence import DatabaseTiles, PublishedCheckpoint

MAX_SHARDS = 1000
"""Logs of one institution: one a year."""


def check_published(engine: Engine, chain: ChainClient, org: str) -> tuple[int, list[Difference]]:
    """Compare this node's published checkpoints with the ledger's; returns how many there are and what differs.

    Raises ``ChainError`` when the ledger cannot be reached.
    """
    on_ledger = chain.state_with_prefix(f"log/yiqiao/log/{org}/", MAX_SHARDS)
    chain_state = chain.state("chain")
    member = chain.state(f"member/{org}")
    with read_transaction(engine) as conn:
        origins = {head.origin for head in evidence.log_heads(conn)} | {key.removeprefix("log/") for key in on_ledger}
        published = {origin: evidence.checkpoints(conn, origin) for origin in origins}
    trust = None
    if chain_state is not None and member is not None:
        trust = Trust.from_members(str(chain_state["chain"]), 1, (), [member])
    differences: list[Difference] = []
    for origin in sorted(origins):
        rows, state = published[origin], on_ledger.get(f"log/{origin}")
        differences += _check_rows(origin, rows, chain, trust)
        differences += _check_newest(engine, origin, rows, state)
    return sum(len(rows) for rows in published.values()), differences


def _check_rows(
    origin: str, rows: list[PublishedCheckpoint], chain: ChainClient, trust: Trust | None
) -> Iterator[Difference]:
    number = 0
    for row in rows:
        number += 1
        while number < row.number:
            yield Difference("checkpoint-missing", f"{origin} checkpoint {number}", "a row for every number")
            number += 1
        yield from _check_row(f"{origin} checkpoint {row.number}", row, chain, trust)


def _check_row(place: str, row: PublishedCheckpoint, chain: ChainClient, trust: Trust | None) -> Iterator[Difference]:
    try:
        signed = parse(row.note)
        if trust is not None:
            trust.verify_signatures(signed, at=row.block_time)
    except AnchorError:
        yield Difference("checkpoint-altered", place, "a note with this node's signature")
        return
    checkpoint = signed.checkpoint
    if (checkpoint.origin, checkpoint.size, checkpoint.root) != (row.origin, row.size, row.root):
        yield Difference("checkpoint-altered", place, "a row that says what its note says")
    committed = chain.transaction(row.tx_id)
    if committed is None:
        yield Difference("checkpoint-not-on-ledger", place, f"transaction {row.tx_id} on the ledger")
        return
    body = parse_transaction(committed.envelope).body
    if body.get("note") != row.note.decode("utf-8") or body.get("number") != row.number:
        yield Difference("checkpoint-altered", place, "the note that is on the ledger")
    elif (committed.height, committed.index, committed.block_time) != (row.height, row.ledger_index, row.block_time):
        yield Difference("checkpoint-altered", place, f"its place on the ledger: entry {committed.index}")


def _check_newest(
    engine: Engine, origin: str, rows: list[PublishedCheckpoint], state: Mapping[str, Any] | None
) -> Iterator[Difference]:
    """Compare the newest checkpoint the ledger has of a log with the newest this node has."""
    last = rows[-1] if rows else None
    if state is None:
        if last is not None:
            place = f"{origin} checkpoint {last.number}"
            yield Difference("checkpoint-not-on-ledger", place, "this log in the ledger's state")
        return
    number = 0 if last is None else last.number
    if state["number"] == number:
        if last is not None and last.root.hex() != state["root"]:
            yield Difference("checkpoint-altered", f"{origin} checkpoint {number}", "the root that is on the ledger")
        return
    if state["number"] < number:
        yield Difference("ledger-rolled-back", f"ledger, log {origin}", f"checkpoint {number} as the newest")
        return
    with read_transaction(engine) as conn:
        head = evidence.log_head(conn, origin)
        size = 0 if head is None else head.size
        if state["size"] > size:
            place = f"{origin} at {size} entries"
            expected = f"the {state['size']} entries of checkpoint {state['number']} on the ledger"
            yield Difference("old-state-restored", place, expected)
            return
        try:
            own = TileLog(DatabaseTiles(conn, origin), size).root(state["size"]).hex()
        except FormatError:
            own = ""  # missing tiles are named where the log itself is checked
    if own and own != state["root"]:
        yield Difference("root-differs", f"{origin} checkpoint {state['number']}", f"the ledger's root {state['root']}")
    for missing in range(number + 1, state["number"]):
        yield Difference("checkpoint-missing", f"{origin} checkpoint {missing}", "a row for every number")
