"""An observer's node beside a hosting authority and a hospital, each a process of its own, over mutual TLS.

It computes the ledger for itself, goes on after kill -9, writes nothing, and finds out a host that broke the rules and
signed everything anew, which the hospital's witness cannot.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchor import checkpoint, transaction
from anchor.chain.embedded import EmbeddedChain
from bridge.ledger_wiring import read_genesis
from bridge.node_keys import load_signer
from tests.crooked_host import CrookedHost
from tests.node_consortium import CHAIN, NodeConsortium, ServedNode, store, wait_for


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[NodeConsortium]:
    made = NodeConsortium(tmp_path, ["a"], observers=["observer"])
    made.start()
    yield made
    made.close()


def status(node: ServedNode) -> dict[str, Any]:
    found: dict[str, Any] = node.get("/status").json()
    return found


def caught_up(node: ServedNode) -> dict[str, Any] | None:
    """The status once everything there is has been computed and cosigned here."""
    found = status(node)
    done = found["replayed_size"] == found["cosigned_size"] == found["ledger_size"] > 0
    return found if done and found["ledger_ok"] else None


def grow(consortium: NodeConsortium, count: int) -> None:
    """Hospital A stores records, which its node anchors."""
    for number in range(count):
        with consortium["a"].opened() as node:
            store(node, "p1", {"resourceType": "Patient", "id": f"p{number}-{time.monotonic_ns()}", "active": True})
            node.anchoring.run()


def rewrite(authority: ServedNode) -> None:
    """The host makes the hospital an authority by hand, hashes everything anew and signs it."""
    settings = authority.settings
    signer, path, genesis = load_signer(settings), settings.path(settings.ledger.path), read_genesis(settings)
    chain = EmbeddedChain(path, genesis=genesis, host_key=signer.sign, host_org=signer.org)
    seq, members = chain.next_seq(signer.org), chain.state_with_prefix("member/")
    chain.close()
    envelope = transaction.build(
        chain=CHAIN, type="membership.endpoint", sender=signer.org, key=signer.sign, seq=seq,
        expires=int(time.time()) + 60, body={"endpoint": settings.node.endpoint},
    )  # fmt: skip
    (key,) = (name for name, member in members.items() if member["roles"] == ["hospital"])
    changes = {key: {**members[key], "roles": ["authority", "hospital"]}}
    CrookedHost(path, genesis, signer.org, signer.sign, time.time).append(envelope, changes=lambda _: changes)


def test_an_observer_follows_resumes_and_finds_the_host_out(consortium: NodeConsortium, tmp_path: Path) -> None:
    observer, hospital = consortium["observer"], consortium["a"]
    grow(consortium, 2)
    first = wait_for(lambda: caught_up(observer), "the observer's replay")
    assert first["alarms"] == []
    told = json.loads(observer.run("status", "--json").stdout)
    assert told["replayed_height"] >= first["replayed_height"] > 0

    observer.kill()  # SIGKILL
    grow(consortium, 2)
    observer.start()
    observer.wait_ready()
    second = wait_for(lambda: caught_up(observer), "going on after kill -9")
    assert second["replayed_size"] > first["replayed_size"]

    refused = observer.run("member", "threshold", 2, expect=None)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert "observer" in refused.stderr

    consortium.authority.kill()
    rewrite(consortium.authority)
    consortium.authority.start()
    consortium.authority.wait_ready()
    wait_for(lambda: "ledger-rules" in status(observer)["alarms"], "the observer's alarm")
    size = status(observer)["ledger_size"]
    wait_for(lambda: status(hospital)["cosigned_size"] == size, "the hospital's witness, which cannot tell")
    assert status(observer)["cosigned_size"] < size, "the observer has not cosigned it"
    assert "ledger-rules" in observer.get("/readyz").json()["alarms"]
    with consortium.authority.opened() as authority:
        signers = {one.org for one in checkpoint.parse(authority.chain.checkpoint()).signatures}
    assert observer.org not in signers

    found = observer.run("status", "--evidence", tmp_path / "evidence", expect=1)
    assert "broken-rules" in found.stdout
    assert "computed here" in found.stdout
    notes = sorted((tmp_path / "evidence").glob("*.note"))
    own, shown = (checkpoint.parse(note.read_bytes()) for note in notes)
    assert (own.checkpoint.size, own.checkpoint.root) == (shown.checkpoint.size, shown.checkpoint.root)
    assert own.checkpoint.binary("state") != shown.checkpoint.binary("state")
    assert "ledger-breaks-rules" in observer.run("fsck", expect=1).stdout
