"""What fault tests do to a network of replicas: transactions without pause, and a look at the histories at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from anchor import transaction
from anchor.chain.client import TransactionResult
from anchor.chain.cometbft.client import CometChain
from anchor.chain.embedded_store import LedgerFile
from anchor.errors import ChainError
from anchor.gm import PrivateKey
from tests.comet_network import RPC_SECONDS, Network, Node, wait_until
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
    chain = CometChain(through.url, timeout_seconds=RPC_SECONDS)
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
    """Wait until all nodes have the newest block with one hash, stop them, and return their histories."""
    nodes = [node for node in network.nodes if node.process is not None]
    newest = wait_until(lambda: max(node.height() for node in nodes), "the height of every node")
    network.wait_for_height(newest, nodes)
    assert len({header_hash(node, newest) for node in nodes}) == 1
    for node in nodes:
        assert node.stop() == 0
    shortest = min(len(headers(node)) for node in nodes)
    return [headers(node)[:shortest] for node in nodes]


def header_hash(node: Node, height: int) -> str:
    """Return the app_hash that a node's block of a height carries, which commits to everything before it."""
    rpc = node.rpc()
    try:
        return str(rpc.call("commit", {"height": str(height)})["signed_header"]["header"]["app_hash"])
    finally:
        rpc.close()


def endure_partition(network: Network, split: Callable[[], None], mend: Callable[[], None], seconds: float) -> None:
    """Split two nodes from two while load runs on both sides: no progress for ``seconds``, and afterwards no fork.

    One block may be made after the split: that whose votes were on their way. The next would need votes from across.
    """
    loads = [Load(network.nodes[0]), Load(network.nodes[3])]
    try:
        network.wait_for_height(5)
        wait_until(lambda: all(load.acknowledged for load in loads), "an acknowledgement on each side")
        split()
        before = max(node.height() for node in network.nodes)
        time.sleep(seconds)
        during = [node.height() for node in network.nodes]
        assert max(during) <= before + 1
        mend()
        network.wait_for_height(before + 3)
    finally:
        for load in loads:
            load.stop()
    submit_one(network.nodes[2])
    histories = settle(network)
    assert all(one == histories[0] for one in histories)
    for node in network.nodes:
        assert check_acknowledged(node, loads) > 0


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
