"""Members' signatures on one checkpoint are brought together; what does not verify or does not come is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from anchor import checkpoint, genesis, transaction
from anchor.chain.cometbft.client import CometChain
from anchor.chain.cometbft.replica_store import ReplicaStore
from bridge.errors import PeerUnavailable
from bridge.services.cosignatures import CosignatureExchange
from tests.fake_rpc import FakeNode
from tests.ledger_consortium import (
    AUTHORITY,
    CHAIN,
    HOSPITAL_A,
    HOSPITAL_B,
    OBSERVER,
    PAYER,
    START,
    member,
    node_body,
    sign_key,
)

REPLICAS = (AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER)


class OtherMembers:
    """Stands for ``Peers``: members that answer with a signature, with a lie, or not at all."""

    def __init__(self, chain: CometChain) -> None:
        self._chain = chain
        self.away: set[str] = set()
        self.lying: set[str] = set()
        self.asked: list[str] = []

    def get(self, org: str, path: str, *, timeout_seconds: float | None = None) -> bytes:
        self.asked.append(org)
        if org in self.away:
            raise PeerUnavailable("away")
        size = int(path.rpartition("=")[2])
        point = checkpoint.parse(self._chain.checkpoint_of(size)).checkpoint
        if org in self.lying:
            point = checkpoint.Checkpoint(point.origin, point.size, b"\x01" * 32, point.extensions)
        signature = checkpoint.sign(point, org, sign_key(org), START + 1)
        return checkpoint.render(checkpoint.SignedCheckpoint(point, (signature,)))


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[CometChain]:
    nodes = [{"org": org, "power": 10, **node_body(org)} for org in REPLICAS]
    content = genesis.build(
        chain=CHAIN, time=START, threshold=1, members=[member(org) for org in (*REPLICAS, OBSERVER)], nodes=nodes
    )
    store = ReplicaStore(tmp_path / "l.sqlite3", genesis=content, org=AUTHORITY, key=sign_key(AUTHORITY))
    node = FakeNode(store, tmp_path, lambda: START, validators=nodes)
    client = CometChain(node.url, clock=lambda: START)
    yield client
    client.close()
    node.close()


def fill(chain: CometChain) -> None:
    envelope = transaction.build(
        chain=CHAIN, type="membership.endpoint", sender=HOSPITAL_A, key=sign_key(HOSPITAL_A),
        seq=chain.next_seq(HOSPITAL_A), expires=START + 300, body={"endpoint": "https://a.invalid"},
    )  # fmt: skip
    assert chain.submit([envelope])[0].ok


def test_the_signatures_of_all_replicas_make_a_witnessed_checkpoint(chain: CometChain) -> None:
    others = OtherMembers(chain)
    exchange = CosignatureExchange(chain, others, AUTHORITY)  # type: ignore[arg-type]
    assert exchange.run() is None  # nothing on the ledger yet
    fill(chain)
    assert chain.witnessed_checkpoint() is None
    exchange.run()
    collected = exchange.run()
    assert collected is None or (collected.size, collected.signers, collected.missing) == (1, 3, 0)
    witnessed = chain.witnessed_checkpoint()
    assert witnessed is not None
    assert {one.org for one in checkpoint.parse(witnessed).signatures} == set(REPLICAS)
    assert OBSERVER not in others.asked  # it has no replica


def test_who_is_away_is_asked_again_and_who_lies_is_not_believed(chain: CometChain) -> None:
    others = OtherMembers(chain)
    others.away, others.lying = {PAYER}, {HOSPITAL_B}
    exchange = CosignatureExchange(chain, others, AUTHORITY)  # type: ignore[arg-type]
    fill(chain)
    first = exchange.run()
    assert first is not None
    assert (first.signers, first.missing) == (1, 2)
    assert {one.org for one in checkpoint.parse(chain.checkpoint()).signatures} == {AUTHORITY, HOSPITAL_A}
    others.away, others.lying, others.asked = set(), set(), []
    second = exchange.run()
    assert second is not None
    assert (second.signers, second.missing) == (3, 0)
    assert sorted(others.asked) == sorted([HOSPITAL_B, PAYER])
    assert exchange.run() is None
