"""What fault tests do to a network of replicas: transactions without pause, and a look at the histories at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anchor import transaction
from anchor.chain.client import TransactionResult
from anchor.chain.cometbft.client import CometChain
from anchor.chain.embedded_store import LedgerFile
from anchor.errors import ChainError
from anchor.gm import PrivateKey
from tests.comet_network import Network, Node, wait_until
from tests.ledger_consortium import CHAIN, sign_key

ATTEMPTS = 50
"""Times a transaction is tried: its sender's number may have been taken by the load, its node may be restarting."""


class Load:
    """One member, the node's own unless another is named, submitting without pause; keeps what was acknowledged."""

    def __init__(self, node: Node, org: str = "") -> None:
        self.node = node
        self.org = org or node.org
        self.acknowledged: dict[str, int] = {}
        self.errors: list[str] = []
        self.key = sign_key(self.org)
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        chain = CometChain(self.node.url, timeout_seconds=5)
        try:
            while not self._stop.is_set():
                try:
                    with self._turn:
                        self._submit(chain)
                except ChainError:
                    self._stop.wait(0.2)
        finally:
            chain.close()

    def _submit(self, chain: CometChain) -> None:
        first = chain.next_seq(self.org)
        results = chain.submit([endpoint(self.org, first + n, self.key) for n in range(5)])
        self.acknowledged |= {one.tx_id: one.index for one in results if one.ok and one.index is not None}
        self.errors += [one.code for one in results if not one.ok and one.code != "bad-sequence"]

    @contextmanager
    def between_batches(self) -> Iterator[None]:
        """Hold the load back while its member does something else; what it had sent has its answer before."""
        with self._turn:
            yield

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def signed(org: str, type: str, seq: int, body: dict[str, Any], key: PrivateKey | None = None) -> bytes:
    expires = int(time.time()) + 300
    return transaction.build(
        chain=CHAIN, type=type, sender=org, key=key or sign_key(org), seq=seq, expires=expires, body=body
    )


def endpoint(org: str, seq: int, key: PrivateKey | None = None) -> bytes:
    return signed(org, "membership.endpoint", seq, {"endpoint": f"https://moved.invalid/{seq}"}, key)


def tell(through: Node, org: str, type: str, body: dict[str, Any], key: PrivateKey | None = None) -> TransactionResult:
    """Submit a member's transaction through a node, beside the load, until it has its number; return the outcome."""
    chain = CometChain(through.url, timeout_seconds=10)
    try:
        for _ in range(ATTEMPTS):
            (result,) = chain.submit([signed(org, type, chain.next_seq(org), body, key)])
            if result.code != "bad-sequence":
                break
        return result
    finally:
        chain.close()


def say(through: Node, org: str, type: str, body: dict[str, Any], key: PrivateKey | None = None) -> TransactionResult:
    """Have a member's transaction committed through a node, beside the load."""
    result = tell(through, org, type, body, key)
    assert result.ok, result
    return result


def submit_one(node: Node) -> None:
    say(node, node.org, "membership.endpoint", {"endpoint": "https://moved.invalid/once"})


def headers(node: Node) -> list[bytes]:
    file = LedgerFile(node.ledger)
    try:
        return [row.header for row in file.blocks(1, 100_000)]
    finally:
        file.close()


def settle(network: Network) -> list[list[bytes]]:
    """Wait until all nodes are at one height with one hash, stop them, and return their histories."""
    nodes = [node for node in network.nodes if node.process is not None]

    def agreed() -> bool:
        found = [node.status()["sync_info"] for node in nodes]
        return len({(one["latest_block_height"], one["latest_app_hash"]) for one in found}) == 1

    wait_until(agreed, "one height and one hash at all nodes", 90)
    for node in nodes:
        assert node.stop() == 0
    shortest = min(len(headers(node)) for node in nodes)
    return [headers(node)[:shortest] for node in nodes]


def places(node: Node) -> dict[str, int]:
    """Return every committed transaction's index in the log, by its id."""
    file = LedgerFile(node.ledger)
    try:
        found: dict[str, int] = {}
        while rows := file.transactions(len(found), 1_000):
            found |= {row.tx_id.hex(): row.index for row in rows}
        return found
    finally:
        file.close()


def check_acknowledged(node: Node, loads: list[Load]) -> int:
    """Check that a stopped node holds everything acknowledged at the place that was named; return how many."""
    committed = places(node)
    acknowledged = {tx: index for load in loads for tx, index in load.acknowledged.items()}
    assert {tx: committed.get(tx) for tx in acknowledged} == acknowledged
    assert not [error for load in loads for error in load.errors]
    return len(acknowledged)
