"""One fixed stream of transactions: every engine, version and language must give these bytes at every height.

SM2 signatures are randomised, so the signed envelopes are part of the golden file. ``YIQIAO_REGENERATE_GOLDEN=1`` in
the environment makes this module sign the stream anew and write the file; the commit then explains the diff.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchor import genesis
from anchor.chain.embedded import EmbeddedChain
from anchor.chain.embedded_replay import check_ledger
from anchor.contracts import member_keys
from anchor.gm import sm3
from anchor.ledger import BlockResult, Ledger
from tests.ledger_consortium import (
    AUTHORITY,
    CHAIN,
    DAY,
    HOSPITAL_A,
    HOSPITAL_B,
    PAYER,
    SECOND_AUTHORITY,
    START,
    STRANGER,
    InstitutionLog,
    Sender,
    admit,
    digest,
    emergency_body,
    genesis_bytes,
    grant_body,
    ident,
    key,
    node_body,
    propose,
    release_body,
    request_body,
    sign_key,
)

FILE = Path(__file__).parent / "ledger" / "stream.json"
REGENERATE = os.environ.get("YIQIAO_REGENERATE_GOLDEN") == "1"


def described(block: BlockResult, header: bytes) -> dict[str, Any]:
    """Return what the golden file pins of a block."""
    return {
        "height": block.height,
        "results": [{"tx_id": one.tx_id, "code": one.code, "index": one.index} for one in block.results],
        "entries": [one.entry.decode() for one in block.accepted],
        "state_root": block.state_root.hex(),
        "log_root": block.log_root.hex(),
        "log_size": block.log.size,
        "app_hash": block.app_hash.hex(),
        "block_hash": sm3(header).hex(),
    }


def header_of(block: BlockResult, previous: bytes) -> bytes:
    return block.header(CHAIN, previous)


def stream() -> Iterator[tuple[int, list[tuple[str, str, dict[str, Any], dict[str, Any]]]]]:
    """Yield blocks as (time, [(sender, type, body, what differs from a right transaction)])."""
    log = InstitutionLog(HOSPITAL_A)
    log.grow(3)
    first = log.body(1, 0)
    log.grow(5)
    second_key = key(HOSPITAL_A, "sign-2")
    record = member_keys.key_record(second_key.public_key, "sign", since=START)
    rotation = {
        "key": record,
        "proof": member_keys.prove_possession(CHAIN, HOSPITAL_A, [record], second_key),
        "retire": {"id": sign_key(HOSPITAL_A).public_key.key_id, "until": START + 5 * DAY},
    }
    yield START, [(HOSPITAL_A, "membership.endpoint", {"endpoint": "https://a.invalid/fhir"}, {})]
    yield (
        START + 1,
        [
            (AUTHORITY, "membership.propose", admit(SECOND_AUTHORITY, 1), {}),
            (AUTHORITY, "membership.propose", propose({"kind": "threshold", "value": 2}, 2), {}),
            (AUTHORITY, "membership.propose", admit(STRANGER, 3), {}),
            (STRANGER, "membership.endpoint", {"endpoint": "https://early.invalid"}, {}),
            (SECOND_AUTHORITY, "membership.approve", {"proposal": ident(3)}, {}),
            (STRANGER, "membership.endpoint", {"endpoint": "https://new.invalid/2"}, {}),
        ],
    )
    yield (
        START + 2,
        [
            (HOSPITAL_A, "checkpoint.publish", first, {}),
            (HOSPITAL_A, "checkpoint.publish", first, {}),
            (HOSPITAL_A, "checkpoint.publish", log.body(2, 3), {}),
            (HOSPITAL_A, "consent.grant", grant_body(1), {}),
            (
                HOSPITAL_A,
                "consent.grant",
                grant_body(2, purposes=["TREAT", "HPAYMT"]),
                {},
            ),
        ],
    )
    yield (
        START + 60,
        [
            (HOSPITAL_B, "access.request", request_body(1), {}),
            (HOSPITAL_A, "access.permit", {"request": ident(1), "grant": ident(1)}, {}),
            (HOSPITAL_A, "access.release", release_body(1), {}),
            (HOSPITAL_A, "access.release", release_body(1), {}),
            (HOSPITAL_B, "access.receive", {"request": ident(1), "disclosed": digest(101), "status": "verified"}, {}),
            (HOSPITAL_A, "consent.amend", {"grant": ident(2), "purposes": ["HPAYMT"]}, {}),
            (HOSPITAL_A, "consent.revoke", {"grant": ident(1)}, {}),
            (HOSPITAL_B, "access.request", request_body(2), {}),
            (HOSPITAL_A, "access.permit", {"request": ident(2), "grant": ident(1)}, {}),
            (HOSPITAL_A, "access.deny", {"request": ident(2), "reason": "NO-CONSENT"}, {}),
        ],
    )
    yield (
        START + 3600,
        [
            (HOSPITAL_B, "access.emergency", emergency_body(3), {}),
            (HOSPITAL_A, "access.release", release_body(3, grant=None), {}),
            (AUTHORITY, "access.review", {"request": ident(3), "outcome": "justified", "commitment": digest(7)}, {}),
            (HOSPITAL_A, "membership.rotate-key", rotation, {}),
            (HOSPITAL_A, "membership.endpoint", {"endpoint": "https://a.invalid/3"}, {"key": second_key}),
            (HOSPITAL_A, "membership.endpoint", {"endpoint": "https://a.invalid/4"}, {"chain": "another"}),
            (HOSPITAL_A, "membership.endpoint", {"endpoint": "https://a.invalid/4"}, {"expires": START}),
            (HOSPITAL_A, "membership.endpoint", {"endpoint": "https://a.invalid/4"}, {"seq": 99}),
        ],
    )
    yield (
        START + 6 * DAY,
        [
            (HOSPITAL_A, "membership.endpoint", {"endpoint": "https://a.invalid/5"}, {}),
            (AUTHORITY, "membership.propose", propose({"kind": "suspend", "org": PAYER}, 4), {}),
            (SECOND_AUTHORITY, "membership.approve", {"proposal": ident(4)}, {}),
            (PAYER, "membership.endpoint", {"endpoint": "https://p.invalid"}, {}),
            (AUTHORITY, "membership.propose", propose({"kind": "reinstate", "org": PAYER}, 5), {}),
        ],
    )
    yield (
        START + 6 * DAY + 60,
        [
            (HOSPITAL_A, "node.register", node_body(HOSPITAL_A), {"key": second_key}),
            (HOSPITAL_B, "node.register", node_body(HOSPITAL_B), {}),
            (HOSPITAL_B, "node.register", node_body(HOSPITAL_B, proof="00" * 64), {}),
            (AUTHORITY, "membership.propose", propose({"kind": "validator", "org": HOSPITAL_A, "power": 10}, 6), {}),
            (SECOND_AUTHORITY, "membership.approve", {"proposal": ident(6)}, {}),
            (AUTHORITY, "membership.propose", propose({"kind": "validator", "org": HOSPITAL_B, "power": 10}, 7), {}),
            (SECOND_AUTHORITY, "membership.approve", {"proposal": ident(7)}, {}),
            (AUTHORITY, "membership.propose", propose({"kind": "validator", "org": PAYER, "power": 10}, 8), {}),
        ],
    )
    yield (
        START + 6 * DAY + 61,
        [
            (HOSPITAL_B, "node.register", node_body(HOSPITAL_B, 2), {}),
            (AUTHORITY, "membership.propose", propose({"kind": "validator", "org": HOSPITAL_B, "power": 9}, 9), {}),
            (AUTHORITY, "membership.propose", propose({"kind": "minimum-validators", "value": 1}, 10), {}),
            (SECOND_AUTHORITY, "membership.approve", {"proposal": ident(10)}, {}),
        ],
    )
    yield START + 7 * DAY, []  # an empty block, which leaves the app_hash as it was


def sign_stream() -> dict[str, Any]:
    """Sign the stream, each transaction with the number its sender then needs, and describe every block."""
    sender, previous, blocks = Sender(), genesis.parse(genesis_bytes()).digest, []
    for time, steps in stream():
        sender.time = time
        envelopes: list[bytes] = []
        for who, type, body, changes in steps:
            trial = sender.ledger.apply_block(envelopes, time)
            last = trial.changes.get(f"seq/{who}") or sender.ledger.get(f"seq/{who}") or {"seq": 0}
            envelopes.append(sender.envelope(who, type, body, **{"seq": last["seq"] + 1, **changes}))
        block = sender.ledger.apply_block(envelopes, time)
        header = header_of(block, previous)
        sender.ledger.commit(block)
        previous = sm3(header)
        blocks.append(
            {"time": time, "envelopes": [one.decode() for one in envelopes], "expected": described(block, header)}
        )
    return {"genesis": genesis_bytes().decode(), "blocks": blocks}


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    if REGENERATE:
        FILE.write_text(json.dumps(sign_stream(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    value: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return value


def test_the_genesis_file_is_the_one_these_keys_make(golden: dict[str, Any]) -> None:
    assert golden["genesis"].encode() == genesis_bytes()


def test_the_state_machine_gives_every_pinned_byte(golden: dict[str, Any]) -> None:
    content = golden["genesis"].encode()
    ledger, previous = Ledger.in_memory(genesis.parse(content)), sm3(content)
    for pinned in golden["blocks"]:
        block = ledger.apply_block([one.encode() for one in pinned["envelopes"]], pinned["time"])
        header = header_of(block, previous)
        assert described(block, header) == pinned["expected"]
        ledger.commit(block)
        previous = sm3(header)


def test_the_stream_visits_every_transaction_type_and_most_refusals(golden: dict[str, Any]) -> None:
    from anchor.ledger import RULES

    seen = {json.loads(one)["tx"]["type"] for block in golden["blocks"] for one in block["envelopes"]}
    codes = {one["code"] for block in golden["blocks"] for one in block["expected"]["results"]}
    assert seen == set(RULES)
    assert {"ok", "unknown-sender", "conflict", "grant-revoked", "already-done", "wrong-chain", "expired"} <= codes
    assert {"bad-sequence", "unknown-key", "suspended-sender"} <= codes


def test_the_embedded_engine_gives_the_same_app_hash_at_every_height(golden: dict[str, Any], tmp_path: Path) -> None:
    content = golden["genesis"].encode()
    now = [START]
    path = tmp_path / "ledger.sqlite3"
    chain = EmbeddedChain(
        path, genesis=content, host_key=sign_key(AUTHORITY), host_org=AUTHORITY, clock=lambda: now[0], max_block=64
    )
    try:
        for pinned in golden["blocks"]:
            now[0] = pinned["time"]
            results = chain.submit([one.encode() for one in pinned["envelopes"]])
            assert [one.code for one in results] == [one["code"] for one in pinned["expected"]["results"]]
        stored = chain.blocks(1, 100)
    finally:
        chain.close()
    expected = [block["expected"] for block in golden["blocks"] if block["envelopes"]]
    assert [sm3(one.header).hex() for one in stored] == [one["block_hash"] for one in expected]
    assert [json.loads(one.header)["app_hash"] for one in stored] == [one["app_hash"] for one in expected]
    assert check_ledger(path, content) == []
