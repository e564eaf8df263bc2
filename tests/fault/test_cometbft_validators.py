"""Four real validators in processes of their own: one history, and the same one as the embedded engine's."""

from __future__ import annotations

import base64
import calendar
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from anchor import transaction
from anchor.chain.cometbft.packing import pack, packs, unpack
from anchor.chain.embedded import EmbeddedChain
from anchor.chain.embedded_replay import check_ledger
from anchor.chain.embedded_store import LedgerFile
from tests.comet_network import Network, Node, require_cometbft, wait_until
from tests.ledger_consortium import (
    AUTHORITY,
    CHAIN,
    HOSPITAL_A,
    HOSPITAL_B,
    PAYER,
    emergency_body,
    genesis_bytes,
    grant_body,
    sign_key,
)

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

ORGS = (AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    require_cometbft()
    with Network(tmp_path / "net", genesis_bytes(), ORGS) as four:
        four.start()
        four.wait_for_height(2)
        yield four


def mixed_stream(count: int, seed: int) -> dict[str, list[bytes]]:
    """Return signed transactions by sender, right and wrong ones, of several types."""
    rng, now = random.Random(seed), int(time.time())
    stream: dict[str, list[bytes]] = {}
    for sender in ORGS:
        sequence = 0
        for number in range(count):
            sequence += 1
            type, body = kinds(sender, 1000 * ORGS.index(sender) + number, now)[rng.randrange(3)]
            wrong = rng.random() < 0.15
            changes: dict[str, Any] = {"chain": "another"} if wrong else {}
            if wrong or type == "refused":
                sequence -= 1
            envelope = transaction.build(
                **{
                    "chain": CHAIN, "type": type, "sender": sender, "key": sign_key(sender),
                    "seq": sequence + (wrong or type == "refused"), "expires": now + 600, "body": body, **changes,
                }
            )  # fmt: skip
            stream.setdefault(sender, []).append(envelope)
    return stream


def kinds(sender: str, number: int, now: int) -> list[tuple[str, dict[str, Any]]]:
    endpoint = ("membership.endpoint", {"endpoint": f"https://{sender.lower()}.invalid/{number}"})
    if sender in (AUTHORITY, PAYER):
        return [endpoint, endpoint, ("refused", {})]
    other = HOSPITAL_B if sender == HOSPITAL_A else HOSPITAL_A
    grant = grant_body(number, grantees=[other], **{"from": now, "until": now + 86_400})
    return [endpoint, ("consent.grant", grant), ("access.emergency", emergency_body(number, holder=other))]


def recorded_blocks(node: Node) -> list[tuple[int, list[bytes]]]:
    """Return time and envelopes of every CometBFT block that holds some, refused ones included."""
    rpc = node.rpc()
    try:
        blocks = []
        for height in range(1, node.height() + 1):
            block = rpc.call("block", {"height": str(height)})["block"]
            envelopes = [one for tx in block["data"]["txs"] for one in unpack(base64.b64decode(tx))]
            moment = time.strptime(block["header"]["time"][:19], "%Y-%m-%dT%H:%M:%S")
            if envelopes:
                blocks.append((calendar.timegm(moment), envelopes))
        return blocks
    finally:
        rpc.close()


def headers(path: Path) -> list[bytes]:
    file = LedgerFile(path)
    try:
        return [row.header for row in file.blocks(1, 10_000)]
    finally:
        file.close()


def submit(node: Node, envelopes: Sequence[bytes], size: int) -> None:
    """Hand envelopes to one node in packs of at most ``size``."""
    parts = [list(envelopes[start : start + size]) for start in range(0, len(envelopes), size)]
    rpc = node.rpc()
    try:
        answers = rpc.broadcast([pack(fitting, os.urandom(8)) for part in parts for fitting in packs(part)])
        assert all(isinstance(one, dict) for one in answers), answers
    finally:
        rpc.close()


def test_four_validators_and_the_embedded_engine_give_the_same_hashes_at_every_height(
    network: Network, tmp_path: Path
) -> None:
    stream = mixed_stream(120, seed=7)
    reader, total = network.nodes[0], 0
    for start in range(0, 120, 24):  # several blocks, from all four nodes at once
        for node in network.nodes:
            part = stream[node.org][start : start + 24]
            submit(node, part, size=random.Random(start).randrange(5, 20))
            total += len(part)
        count = total
        wait_until(lambda: sum(len(e) for _, e in recorded_blocks(reader)) == count, "the stream in blocks")  # noqa: B023
    assert total == sum(len(each) for each in stream.values())
    last = reader.height() + 1
    network.wait_for_height(last)
    blocks = recorded_blocks(reader)
    for node in network.nodes:
        assert node.stop() == 0
    histories = [headers(node.ledger) for node in network.nodes]
    assert histories[0] == histories[1] == histories[2] == histories[3]
    assert len(histories[0]) > 3

    now = [0.0]
    path = tmp_path / "embedded.sqlite3"
    chain = EmbeddedChain(
        path, genesis=genesis_bytes(), host_key=sign_key(AUTHORITY), host_org=AUTHORITY, clock=lambda: now[0],
        max_block=100_000,
    )  # fmt: skip
    codes: set[str] = set()
    try:
        for moment, envelopes in blocks:
            now[0] = moment
            codes |= {one.code for one in chain.submit(envelopes)}
    finally:
        chain.close()
    assert headers(path) == histories[0]
    assert [json.loads(one)["app_hash"] for one in headers(path)] == [
        json.loads(one)["app_hash"] for one in histories[0]
    ]
    assert {"ok", "wrong-chain"} <= codes
    for node in network.nodes:
        assert check_ledger(node.ledger, genesis_bytes()) == []
