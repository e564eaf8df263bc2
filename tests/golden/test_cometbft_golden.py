"""The pinned stream through the ABCI application: the same app hash at every height as on every other engine."""

from __future__ import annotations

import json
from pathlib import Path

from anchor.chain.cometbft.packing import pack
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.embedded_replay import check_ledger
from anchor.gm import sm3
from tests.fake_consensus import FakeConsensus
from tests.ledger_consortium import AUTHORITY, sign_key

FILE = Path(__file__).parent / "ledger" / "stream.json"


def test_the_pinned_stream_gives_the_pinned_hashes_in_cometbft_blocks_among_empty_ones(tmp_path: Path) -> None:
    golden = json.loads(FILE.read_text(encoding="utf-8"))
    content = golden["genesis"].encode()
    path = tmp_path / "ledger.sqlite3"
    store = ReplicaStore(path, genesis=content, org=AUTHORITY, key=sign_key(AUTHORITY))
    chain = FakeConsensus(store, tmp_path)
    try:
        before = chain.handshake()
        for number, pinned in enumerate(golden["blocks"]):
            assert chain.block([], pinned["time"]).app_hash == before  # a heartbeat in between
            envelopes = [one.encode() for one in pinned["envelopes"]]
            halves = (envelopes[: len(envelopes) // 2], envelopes[len(envelopes) // 2 :])
            packs = [pack(part, number.to_bytes(8, "big")) for part in halves if part]
            answer = chain.block(packs, pinned["time"])
            codes = [code for result in answer.tx_results for code in json.loads(result.data)]
            assert codes == [one["code"] for one in pinned["expected"]["results"]]
            assert answer.app_hash.hex() == pinned["expected"]["app_hash"]
            before = answer.app_hash
        stored = store.file.blocks(1, 100)
    finally:
        chain.close()
    expected = [block["expected"]["block_hash"] for block in golden["blocks"] if block["envelopes"]]
    assert [sm3(one.header).hex() for one in stored] == expected
    assert check_ledger(path, content) == []
