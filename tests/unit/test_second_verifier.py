"""The second verifier, written from docs/receipt-format.md alone, and ours come to the same verdicts on real receipts.

Whole receipts of every kind are accepted by both; each of them with any one value changed is refused by both.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anchor.errors import AnchorError
from anchor.trust import Trust
from anchor.verify import verify_receipt
from bridge.services.timestamping import TimestampService, TimestampTerms
from tests import independent_verifier
from tests.evidence_world import CHAIN, HOSPITAL_B, Disclosure, World
from tests.independent_verifier import Refused, Verifier
from tests.local_tsa import LocalTsa, needs_openssl, serving

pytestmark = [
    pytest.mark.skipif("sm3" not in hashlib.algorithms_available, reason="this OpenSSL has no SM3"),
    needs_openssl,
]
CHANGES = 12
"""Values changed of each receipt, drawn from all there are: one change costs the second verifier some 0.1 s."""
STATES = {"pending record": "pending", "committed record": "committed"}
KINDS = [
    "pending record", "committed record", "record", "stamped record", "release", "amended release",
    "release revoked afterwards", "emergency", "stamped release",
]  # fmt: skip


@dataclass
class Papers:
    """What an outsider is given."""

    trust: bytes
    receipts: dict[str, bytes]


def _disclosures(world: World, refs: list[str]) -> dict[str, Disclosure]:
    made = {}
    for name in ("release", "amended release", "release revoked afterwards", "emergency"):
        each = made[name] = Disclosure.begin(world, emergency=name == "emergency")
        if name == "amended release":
            until = int(world.clock()) + 3600
            each.hold("consent.amend", grant=each.grant, grantees=[HOSPITAL_B], purposes=["TREAT"], until=until,
                      commitment="ab" * 32)  # fmt: skip
        each.release(refs, grant=name != "emergency", permit=name != "emergency")
        each.receive()
        if name == "release revoked afterwards":
            each.revoke()
    return made


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    directory = tmp_path_factory.mktemp("second")
    tsa, world = LocalTsa(directory / "tsa"), World(directory)
    try:
        refs = world.anchored(3)
        receipts = {"committed record": world.receipts.for_record("Observation", "o2", 1)}
        disclosures = _disclosures(world, refs)
        world.witness.run()
        with serving(tsa) as url:
            terms = TimestampTerms(url, "sm3", (tsa.certificate,), 5.0)
            assert TimestampService(world.engine, world.witness, CHAIN, terms, world.clock).run() is not None
        receipts["record"] = world.receipts.for_record("Observation", "o1", 1)
        receipts["stamped record"] = world.receipts.for_record("Observation", "o1", 1, stamped=True)
        for name, each in disclosures.items():
            receipts[name] = world.receipts.for_disclosure(each.request, each.statement)
        first = disclosures["release"]
        receipts["stamped release"] = world.receipts.for_disclosure(first.request, first.statement, stamped=True)
        world.store(9)
        world.anchoring.drain()
        receipts["pending record"] = world.receipts.for_record("Observation", "o9", 1)
        members = world.chain.state_with_prefix("member/").values()
        trust = Trust.from_members(CHAIN, 2, (), members, (tsa.certificate,)).dump()
    finally:
        world.close()
    return Papers(trust, receipts)


def ours(receipt: bytes, trust: bytes, minimum: Any) -> str | None:
    try:
        return verify_receipt(receipt, trust, minimum=minimum).state
    except AnchorError:
        return None


def theirs(receipt: bytes, trust: bytes, minimum: str) -> str | None:
    try:
        return Verifier(trust).verify(receipt, minimum)
    except Refused:
        return None


def test_it_shares_nothing_with_the_product() -> None:
    tree = ast.parse(Path(independent_verifier.__file__).read_text("utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert not imported & {"anchor", "bridge", "fhir_adapters", "tests", "gmssl", "gmssl_pyx", "asn1crypto"}


@pytest.mark.parametrize("kind", KINDS)
def test_both_accept_a_real_receipt(papers: Papers, kind: str) -> None:
    state = STATES.get(kind, "witnessed")
    receipt = papers.receipts[kind]
    assert ours(receipt, papers.trust, state) == theirs(receipt, papers.trust, state) == state
    if kind.startswith("stamped"):
        assert "timestamp" in json.loads(receipt)


@pytest.mark.parametrize("kind", KINDS)
def test_both_refuse_it_with_any_one_value_changed(papers: Papers, kind: str) -> None:
    state = STATES.get(kind, "witnessed")
    value = json.loads(papers.receipts[kind])
    places = list(_places(value))
    for place in random.Random(kind).sample(places, min(CHANGES, len(places))):
        changed = json.dumps(_changed(value, place)).encode()
        verdicts = (ours(changed, papers.trust, state), theirs(changed, papers.trust, state))
        assert verdicts == (None, None), place


@pytest.mark.parametrize(
    ("change", "step"),
    [
        pytest.param(lambda t: t | {"quorum": 3}, "quorum", id="a larger quorum"),
        pytest.param(lambda t: t | {"mandatory": [HOSPITAL_B]}, "quorum", id="a mandatory member that is missing"),
        pytest.param(lambda t: t | {"chain": "other"}, "chain", id="another chain"),
        pytest.param(lambda t: t | {"timestamping": []}, "timestamp", id="no time-stamping authority"),
        pytest.param(lambda t: t | {"members": t["members"][1:]}, "checkpoint", id="the host is no member"),
    ],
)
def test_both_refuse_it_under_another_trust_file(papers: Papers, change: Any, step: str) -> None:
    trust = json.dumps(change(json.loads(papers.trust)), sort_keys=True, separators=(",", ":")).encode()
    receipt = papers.receipts["stamped record"]
    assert ours(receipt, trust, "witnessed") is None
    with pytest.raises(Refused, match=f"^{step}$"):
        Verifier(trust).verify(receipt)


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inside in items:
        yield from _places(inside, (*place, name))
    if not isinstance(value, dict | list):
        yield place


def _changed(value: Any, place: tuple[Any, ...]) -> Any:
    """Return a deep copy with the value at ``place`` altered."""
    made = copy.deepcopy(value)
    inside = made
    for name in place[:-1]:
        inside = inside[name]
    old = inside[place[-1]]
    if isinstance(old, bool) or old is None:
        inside[place[-1]] = "x"
    elif isinstance(old, int):
        inside[place[-1]] = old + 1
    else:
        middle = len(old) // 2
        inside[place[-1]] = old[:middle] + ("1" if old[middle : middle + 1] == "0" else "0") + old[middle + 1 :]
    return made
