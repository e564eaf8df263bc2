"""While load runs on four real validators: a member is admitted and votes, one changes its keys, one is suspended."""

from __future__ import annotations

import base64
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from anchor import checkpoint, genesis, transaction
from anchor.chain.cometbft import node_files
from anchor.chain.cometbft.client import CometChain
from anchor.chain.cometbft.packing import unpack
from anchor.chain.embedded_replay import check_ledger
from anchor.contracts import member_keys, nodes
from anchor.light_block import validator_address
from anchor.transaction import Code
from tests.comet_load import Load, check_acknowledged, headers, say, settle, tell
from tests.comet_network import WAIT_SECONDS, Network, Node, registration, require_cometbft, wait_until
from tests.ledger_consortium import (
    AUTHORITY,
    CHAIN,
    HOSPITAL_A,
    HOSPITAL_B,
    OBSERVER,
    PAYER,
    START,
    STRANGER,
    admit,
    member,
    sign_key,
)

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(900)]

ORGS = (AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER, OBSERVER)
OVERLAP_SECONDS = 30
"""For which a replaced signing key stays good: longer than its replacement takes to be committed."""


def founded(nodes: Sequence[Node]) -> bytes:
    """Return a genesis in which all but the observer vote."""
    named = [{"org": node.org, "power": 0 if node.org == OBSERVER else 10, **registration(node)} for node in nodes]
    members = [member(org) for org in ORGS]
    return genesis.build(chain=CHAIN, time=START, threshold=1, members=members, nodes=named, minimum=4)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    require_cometbft()
    voting = [org for org in ORGS if org != OBSERVER]
    with Network(tmp_path / "net", founded, ORGS, validators=voting) as five:
        for node in five.nodes:
            node.settings["bootstrap"] = []  # only whom the ledger names is let in
        five.start()
        five.wait_for_height(2)
        yield five


def proposal(action: dict[str, Any]) -> dict[str, Any]:
    return {"proposal": secrets.token_hex(16), "action": action}


def decide(network: Network, action: dict[str, Any]) -> str:
    """Have the authority's decision committed; return its transaction's id."""
    return say(network.nodes[0], AUTHORITY, "membership.propose", proposal(action)).tx_id


def validators(node: Node, height: int | None = None) -> dict[str, int]:
    """Return the power of each validator, by its key in hexadecimal, in CometBFT's newest block or another."""
    rpc = node.rpc()
    try:
        place = {} if height is None else {"height": str(height)}
        found = rpc.call("validators", {"per_page": "100", **place})["validators"]
        keys = [base64.b64decode(each["pub_key"]["value"]).hex() for each in found]
        return {key: int(each["voting_power"]) for key, each in zip(keys, found, strict=True)}
    finally:
        rpc.close()


def decided_at(node: Node, tx_id: str) -> int:
    """Return the height of the CometBFT block that holds a transaction."""
    rpc = node.rpc()
    try:
        for height in range(node.height(), 0, -1):
            txs = rpc.call("block", {"height": str(height)})["block"]["data"]["txs"]
            held = [one for tx in txs for one in unpack(base64.b64decode(tx))]
            if tx_id in [transaction.parse(one).tx_id for one in held]:
                return height
    finally:
        rpc.close()
    raise AssertionError("the transaction is in no block")


def signs(node: Node, at: Node) -> bool:
    """Whether a validator's vote is in the newest commit."""
    rpc = at.rpc()
    try:
        votes = rpc.call("commit")["signed_header"]["commit"]["signatures"]
        own = validator_address(node.identity.key).hex().upper()
        return own in [vote["validator_address"] for vote in votes if vote["block_id_flag"] == 2]
    finally:
        rpc.close()


def peers(node: Node) -> set[str]:
    rpc = node.rpc()
    try:
        return {str(each["node_info"]["id"]) for each in rpc.call("net_info")["peers"]}
    finally:
        rpc.close()


def test_admission_new_keys_and_suspension_under_load(network: Network) -> None:
    first, second, third, payer, observer = network.nodes
    loads = [Load(second), Load(third, OBSERVER)]
    try:
        assert observer.identity.key.hex() not in validators(first)

        newcomer = network.add(STRANGER, bootstrap=[])
        newcomer.start()
        decide(network, {"kind": "admit", **admit(STRANGER)["action"]})
        assert newcomer.identity.node not in peers(first)  # a member, and its node not yet named
        say(first, STRANGER, "node.register", registration(newcomer))
        wait_until(lambda: newcomer.identity.node in peers(first), "the newcomer let in")
        network.wait_for_height(first.height(), [newcomer])
        decision = decide(network, {"kind": "validator", "org": STRANGER, "power": 10})
        wait_until(
            lambda: validators(first).get(newcomer.identity.key.hex()) == 10, "the newcomer among the validators"
        )
        decided = decided_at(first, decision)
        votes_at = [newcomer.identity.key.hex() in validators(first, decided + later) for later in (0, 1, 2)]
        assert votes_at == [False, False, True]
        wait_until(lambda: signs(newcomer, first), "a vote of the newcomer")

        rotate_signing_key(second, loads[0])
        wait_until(lambda: signs(second, first), "a vote of the member with the new signing key")

        before = third.identity
        rotate(third)
        wait_until(lambda: validators(first).get(third.identity.key.hex()) == 10, "the new key among the validators")
        assert before.key.hex() not in validators(first)
        third.kill()
        third.start()
        wait_until(lambda: signs(third, first), "a vote with the new key")

        decide(network, {"kind": "suspend", "org": PAYER})
        wait_until(lambda: payer.identity.key.hex() not in validators(first), "the suspended member gone")
        assert sorted(validators(first).values()) == [10, 10, 10, 10]
        for action, why in (
            ({"kind": "suspend", "org": STRANGER}, "fewer than 4"),
            ({"kind": "validator", "org": HOSPITAL_A, "power": 40}, "more than a third"),
        ):
            outcome = tell(first, AUTHORITY, "membership.propose", proposal(action))
            assert (outcome.code, why in outcome.message) == (Code.CONFLICT, True), outcome
        network.wait_for_height(first.height() + 5, [first, second, third, newcomer])
        payer.kill()
        payer.start()  # it dials again, and is not let in
        wait_until(lambda: payer.identity.node not in peers(first), "the suspended member shut out")

        check_bound(second, loads[0])
    finally:
        for load in loads:
            load.stop()
    payer.kill()
    histories = settle(network)
    assert all(one == histories[0] for one in histories)
    assert headers(payer) == headers(first)[: len(headers(payer))]
    for node in (first, observer, newcomer):
        assert check_acknowledged(node, loads) > 0
    assert check_ledger(newcomer.ledger, network.genesis) == []


def rotate_signing_key(node: Node, load: Load) -> None:
    """Replace a member's SM2 key: on the ledger, in the hands of its load, for its validator's key and its replica."""
    old, new = sign_key(node.org), sign_key(node.org, 2)
    with load.between_batches():  # the others' load goes on
        now = int(time.time())
        record = member_keys.key_record(new.public_key, "sign", since=now)
        proof = member_keys.prove_possession(CHAIN, node.org, [record], new)
        retire = {"id": old.public_key.key_id, "until": now + OVERLAP_SECONDS}
        say(node, node.org, "membership.rotate-key", {"key": record, "proof": proof, "retire": retire})
        load.key = new
    say(node, node.org, "node.register", registration(node), new)
    node.settings["sign_key"] = 2
    node.kill()
    node.start()


def check_bound(node: Node, load: Load) -> None:
    """The new SM2 key vouches for the validator's key and that for the member; the old one is good for nothing."""
    old, new = sign_key(node.org), sign_key(node.org, 2)

    def refused() -> bool:
        outcome = tell(node, node.org, "membership.endpoint", {"endpoint": "https://old.invalid"}, old)
        return outcome.code == Code.UNKNOWN_KEY

    wait_until(refused, "the end of the old key", OVERLAP_SECONDS + WAIT_SECONDS)
    acknowledged = len(load.acknowledged)
    wait_until(lambda: len(load.acknowledged) > acknowledged, "the load under the new key")
    chain = CometChain(node.url)
    try:
        bound = chain.state(f"node/{node.org}")
        assert bound is not None
        assert bound["key"] == node.identity.key.hex()
        assert chain.state(f"node-key/{bound['key']}") == {"org": node.org}
        committed = chain.transaction(bound["tx"])
        assert committed is not None
        tx = transaction.parse(committed.envelope)
        assert tx.key == new.public_key.key_id
        new.public_key.verify(tx.signed_bytes, tx.signature)
        nodes.check_registration(CHAIN, node.org, tx.body)
        assert {"org": node.org, "key": bound["key"], "power": 10} in (chain.state("validators") or {})["set"]
        newest = checkpoint.parse(chain.checkpoint())
        (own,) = newest.by(node.org)
        checkpoint.verify_signature(newest.checkpoint, own, new.public_key)
    finally:
        chain.close()


def rotate(node: Node) -> None:
    """Register a new validator key through the running node, and lay it where the next start finds it."""
    fresh = node.folder / "fresh"
    node_files.create_keys(fresh)
    shutil.copy(node.home / "config/node_key.json", fresh / "config/node_key.json")
    node.identity = node_files.read_identity(fresh)
    say(node, node.org, "node.register", registration(node, fresh))
    shutil.copy(fresh / "config/priv_validator_key.json", node.home / "config/priv_validator_key.json")
