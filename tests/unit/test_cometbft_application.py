"""The ABCI application over its real socket: handshake, checking, computing apart from persisting, and its refusals."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from anchor import checkpoint, genesis, merkle, transaction
from anchor.chain.cometbft.application import Application
from anchor.chain.cometbft.packing import (
    MAX_PACK_BYTES,
    MAX_PACK_ENVELOPES,
    pack,
    pack_id,
    packs,
    unpack,
)
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.cometbft.server import AbciServer
from anchor.chain.embedded import EmbeddedChain
from anchor.chain.embedded_replay import check_ledger
from anchor.errors import ChainCorrupt, FormatError
from anchor.state_tree import verify_state_proof
from anchor.transaction import MAX_ENVELOPE_BYTES
from tests.cometbft_oracle import oracle
from tests.fake_consensus import ApplicationFailed, Connection, FakeConsensus, encoded_state
from tests.ledger_consortium import (
    AUTHORITY,
    CHAIN,
    HOSPITAL_A,
    HOSPITAL_B,
    PAYER,
    START,
    STRANGER,
    admit,
    genesis_bytes,
    member,
    node_body,
    propose,
    sign_key,
)


def envelope(sender: str = HOSPITAL_A, seq: int = 1, **changes: Any) -> bytes:
    values = {
        "chain": CHAIN,
        "type": "membership.endpoint",
        "sender": sender,
        "key": sign_key(sender),
        "seq": seq,
        "expires": START + 600,
        "body": {"endpoint": f"https://moved.invalid/{seq}"},
    }
    return transaction.build(**{**values, **changes})


def packed(*envelopes: bytes) -> bytes:
    return pack(envelopes, os.urandom(8))


def open_store(folder: Path, genesis: bytes | None = None) -> ReplicaStore:
    content = genesis_bytes() if genesis is None else genesis
    return ReplicaStore(folder / "ledger.sqlite3", genesis=content, org=AUTHORITY, key=sign_key(AUTHORITY))


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[FakeConsensus]:
    consensus = FakeConsensus(open_store(tmp_path), tmp_path)
    try:
        consensus.handshake()
        yield consensus
    finally:
        consensus.close()


def reopened(chain: FakeConsensus, folder: Path) -> FakeConsensus:
    """Stop everything at once, as a crash does, and start over on the same files."""
    chain.close()
    return FakeConsensus(open_store(folder), folder)


class TestPacks:
    def test_envelopes_come_back_in_order(self) -> None:
        assert unpack(pack([b"one", b"2", b"x" * 300], b"12345678")) == [b"one", b"2", b"x" * 300]

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b"\x01" + b"n" * 8, id="no-envelope"),
            pytest.param(b"\x02" + b"n" * 8 + b"\x01a", id="another-version"),
            pytest.param(b"\x01" + b"n" * 8 + b"\x05abc", id="cut"),
            pytest.param(b"\x01" + b"n" * 8 + b"\x00", id="empty-envelope"),
            pytest.param(b"\x01" + b"n" * 8 + b"\x81\x00a", id="length-not-shortest"),
            pytest.param(b"\x01" + b"n" * 8 + b"\xff" * 11, id="endless-length"),
            pytest.param(b"\x01" + b"n" * 8 + b"\x01a" * (MAX_PACK_ENVELOPES + 1), id="too-many"),
            pytest.param(b"\x01" + b"n" * 8 + b"a" * MAX_PACK_BYTES, id="too-large"),
        ],
    )
    def test_what_is_no_pack_is_refused(self, content: bytes) -> None:
        with pytest.raises(FormatError):
            unpack(content)

    def test_an_envelope_of_the_largest_size_fits(self) -> None:
        assert unpack(pack([b"x" * MAX_ENVELOPE_BYTES], b"12345678")) == [b"x" * MAX_ENVELOPE_BYTES]

    def test_envelopes_are_split_by_number_and_size(self) -> None:
        small = [b"%d" % n for n in range(300)]
        assert [len(part) for part in packs(small)] == [128, 128, 44]
        large = [b"x" * MAX_ENVELOPE_BYTES] * 3
        assert [len(part) for part in packs(large)] == [1, 1, 1]
        assert [one for part in packs(small + large) for one in part] == small + large
        assert packs([]) == []


class TestHandshake:
    def test_a_new_replica_begins_with_the_genesis_state(self, tmp_path: Path) -> None:
        consensus = FakeConsensus(open_store(tmp_path), tmp_path)
        try:
            assert consensus.handshake() == consensus.store.app_hash
            assert consensus.height == 0
        finally:
            consensus.close()

    def test_a_replica_is_at_the_height_it_has_committed(self, chain: FakeConsensus, tmp_path: Path) -> None:
        answer = chain.block([packed(envelope())], START)
        again = reopened(chain, tmp_path)
        try:
            assert again.handshake() == answer.app_hash
            assert again.height == 1
            assert again.block([packed(envelope(seq=2))], START + 1).tx_results[0].code == 0
        finally:
            again.close()

    def test_beginning_again_before_the_first_block_is_no_error(self, chain: FakeConsensus) -> None:
        first = chain.handshake()
        assert chain.handshake() == first

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            pytest.param(lambda state: b"{}", "another ledger", id="no-ledger"),
            pytest.param(lambda state: b"nonsense", "another ledger", id="not-json"),
            pytest.param(
                lambda state: state.replace(b'"size": 0', b'"size": 5'), "history first", id="history-missing"
            ),
        ],
    )
    def test_another_beginning_is_refused(self, tmp_path: Path, change: Any, words: str) -> None:
        store = open_store(tmp_path)
        consensus = FakeConsensus(store, tmp_path)
        try:
            with pytest.raises(ApplicationFailed, match=words):
                consensus.handshake(state=change(encoded_state(store)))
        finally:
            consensus.close()
        assert isinstance(consensus.error, ChainCorrupt)

    def test_a_file_of_another_genesis_is_refused(self, tmp_path: Path) -> None:
        open_store(tmp_path).close()
        with pytest.raises(ChainCorrupt):
            open_store(tmp_path, genesis_bytes((AUTHORITY, HOSPITAL_A)))


class TestBlocks:
    def test_each_transaction_of_a_pack_has_its_own_result(self, chain: FakeConsensus) -> None:
        mixed = packed(envelope(seq=1), b"garbage", envelope(seq=9), envelope(HOSPITAL_B))
        answer = chain.block([mixed, packed(envelope(seq=2))], START)
        assert [one.code for one in answer.tx_results] == [1, 0]
        assert json.loads(answer.tx_results[0].data) == ["ok", "bad-encoding", "bad-sequence", "ok"]
        assert json.loads(answer.tx_results[1].data) == ["ok"]
        results = json.loads(chain.query("/results", json.dumps({"packs": [pack_id(mixed), "00"]}).encode()).value)
        assert list(results) == [pack_id(mixed)]
        found = results[pack_id(mixed)]["results"]
        assert [one["index"] for one in found] == [0, None, None, 1]
        assert found[2]["expected_seq"] == 2

    def test_an_empty_block_changes_neither_hash_nor_height_of_the_ledger(self, chain: FakeConsensus) -> None:
        before = chain.block([packed(envelope())], START).app_hash
        assert chain.block([], START + 50).app_hash == before
        refused = chain.block([packed(envelope(seq=7))], START + 60)
        assert refused.app_hash == before
        assert chain.store.ledger.head.height == 1
        assert (chain.store.comet_height, chain.store.ledger.head.time) == (3, START)

    def test_computing_persists_nothing_and_may_be_repeated(self, chain: FakeConsensus, tmp_path: Path) -> None:
        tx = packed(envelope())
        first = chain.finalize([tx], START)
        assert chain.finalize([tx], START) == first
        assert chain.store.file.head().height == 0
        again = reopened(chain, tmp_path)  # a crash between FinalizeBlock and Commit
        try:
            again.handshake()
            assert again.height == 0
            assert again.finalize([tx], START).app_hash == first.app_hash
            again.consensus.call("commit")
            assert again.store.file.head().height == 1
        finally:
            again.close()
        assert check_ledger(tmp_path / "ledger.sqlite3", genesis_bytes()) == []

    def test_a_commit_without_a_computed_block_stops_the_replica(self, chain: FakeConsensus) -> None:
        with pytest.raises(ApplicationFailed):
            chain.consensus.call("commit")

    @pytest.mark.parametrize("height", [0, 2, 7])
    def test_a_block_of_another_height_stops_the_replica(self, chain: FakeConsensus, height: int) -> None:
        chain.height = height - 1
        with pytest.raises(ApplicationFailed, match="not of one copy" if height != 1 else ""):
            chain.finalize([], START)

    def test_a_lying_proposers_block_is_rejected(self, chain: FakeConsensus) -> None:
        good = packed(envelope())
        for txs in ([b"no pack"], [good, b""], [good, b"\x01" + b"n" * 8]):
            status = chain.consensus.call("process_proposal", txs=txs, height=1)
            assert status.status == 2
        assert chain.consensus.call("process_proposal", txs=[good, packed(b"garbage")], height=1).status == 1

    def test_a_malformed_pack_that_was_decided_all_the_same_changes_nothing(self, chain: FakeConsensus) -> None:
        answer = chain.finalize([b"no pack", packed(envelope())], START)
        assert [one.code for one in answer.tx_results] == [2, 0]

    def test_a_proposal_keeps_order_and_bound_and_leaves_out_what_is_no_pack(self, chain: FakeConsensus) -> None:
        txs = [packed(envelope(seq=n)) for n in (1, 2, 3)]
        answer = chain.consensus.call(
            "prepare_proposal", max_tx_bytes=len(txs[0]) * 2 + 50, txs=[txs[0], b"junk", *txs[1:]], height=1
        )
        assert list(answer.txs) == txs[:2]

    def test_the_time_of_a_block_is_consensus_time_and_never_goes_back(self, chain: FakeConsensus) -> None:
        chain.block([packed(envelope())], START + 100)
        chain.block([packed(envelope(seq=2))], START + 50)
        assert [one.time for one in chain.store.file.blocks(1, 9)] == [START + 100, START + 100]


class TestChecking:
    def test_a_pack_waits_when_one_of_its_transactions_may(self, chain: FakeConsensus) -> None:
        assert chain.check(packed(envelope(), b"garbage")).code == 0
        refused = chain.check(packed(b"garbage", envelope(STRANGER)))
        assert (refused.code, json.loads(refused.data)) == (1, ["bad-encoding", "unknown-sender"])
        assert chain.check(b"no pack").code == 2

    def test_a_signature_is_verified_once(self, chain: FakeConsensus, monkeypatch: pytest.MonkeyPatch) -> None:
        from anchor.gm import PublicKey

        calls: list[int] = []
        verify = PublicKey.verify
        monkeypatch.setattr(PublicKey, "verify", lambda *given, **named: (calls.append(1), verify(*given, **named))[1])
        tx = packed(envelope())
        assert chain.check(tx).code == 0
        assert chain.check(tx, again=True).code == 0
        assert chain.block([tx], START).tx_results[0].code == 0
        assert len(calls) == 1

    def test_a_committed_transaction_is_filtered_out(self, chain: FakeConsensus) -> None:
        chain.block([packed(envelope())], START)
        assert json.loads(chain.check(packed(envelope())).data) == ["bad-sequence"]


class TestQueries:
    def test_a_value_is_proven_under_the_state_root(self, chain: FakeConsensus) -> None:
        chain.block([packed(envelope())], START)
        answer = chain.query("/state", json.dumps({"key": f"member/{HOSPITAL_A}"}).encode(), prove=True)
        (op,) = answer.proof_ops.ops
        value = json.loads(answer.value)["value"]
        assert (op.type, answer.height) == ("yiqiao:state/v1", 1)
        verify_state_proof(key=op.key.decode(), value=value, root=chain.store.ledger.tree.root, proof=op.data)

    def test_a_transaction_is_proven_under_the_logs_root(self, chain: FakeConsensus) -> None:
        envelopes = [envelope(seq=n) for n in range(1, 6)]
        chain.block([packed(*envelopes)], START)
        tx_id = transaction.parse(envelopes[3]).tx_id
        answer = chain.query("/transaction", json.dumps({"tx_id": tx_id}).encode(), prove=True)
        proof = json.loads(answer.proof_ops.ops[0].data)
        note = chain.query("/checkpoint", b"{}").value
        import base64

        merkle.verify_inclusion(
            index=proof["index"],
            size=proof["size"],
            leaf_hash=merkle.leaf_hash(base64.b64decode(json.loads(answer.value)["transaction"]["entry"])),
            proof=[bytes.fromhex(one) for one in proof["proof"]],
            root=checkpoint.parse(note).checkpoint.root,
        )

    @pytest.mark.parametrize(
        ("path", "data", "code"),
        [
            pytest.param("/nothing", b"{}", 4, id="unknown"),
            pytest.param("/state", b"{}", 2, id="parameter-missing"),
            pytest.param("/state", b"[]", 2, id="not-an-object"),
            pytest.param("/state", b"\xff", 2, id="not-json"),
            pytest.param("/transactions", b'{"from":-1,"limit":1}', 2, id="negative"),
            pytest.param("/transactions", b'{"from":true,"limit":1}', 2, id="not-a-number"),
            pytest.param("/transactions", b'{"from":18446744073709551615,"limit":1}', 2, id="beyond-64-bits"),
            pytest.param("/proofs/inclusion", b'{"index":0,"size":9}', 3, id="no-such-tree"),
            pytest.param("/checkpoint", b'{"size":9}', 3, id="no-such-checkpoint"),
            pytest.param("/cosign", b"nonsense", 2, id="no-note"),
            pytest.param("/results", b'{"packs":"all"}', 2, id="packs-not-a-list"),
            pytest.param("/results", json.dumps({"packs": ["0"] * 2000}).encode(), 2, id="too-many-packs"),
        ],
    )
    def test_a_question_that_cannot_be_answered_has_a_code(
        self, chain: FakeConsensus, path: str, data: bytes, code: int
    ) -> None:
        answer = chain.query(path, data)
        assert (answer.code, answer.value) == (code, b"")
        assert answer.log

    def test_only_known_nodes_are_let_in(self, tmp_path: Path) -> None:
        consensus = FakeConsensus(open_store(tmp_path), tmp_path, bootstrap=frozenset({"ab" * 20}))
        try:
            assert consensus.query("/p2p/filter/id/" + "ab" * 20).code == 0
            assert consensus.query("/p2p/filter/id/" + "cd" * 20).code == 3
            assert consensus.query("/p2p/filter/addr/127.0.0.1:26656").code == 0
        finally:
            consensus.close()


class TestSocket:
    def test_a_message_that_cannot_be_read_stops_the_replica(self, chain: FakeConsensus) -> None:
        chain.mempool._socket.sendall(b"\x02\xff\xff")
        assert chain.mempool.receive().WhichOneof("value") == "exception"

    def test_a_length_beyond_the_bound_stops_the_replica(self, chain: FakeConsensus) -> None:
        chain.mempool._socket.sendall(b"\xff\xff\xff\xff\x7f")
        assert chain.mempool.receive().WhichOneof("value") == "exception"

    def test_requests_arriving_in_pieces_and_in_crowds_are_answered_in_order(self, chain: FakeConsensus) -> None:
        from tests.fake_consensus import Request, varint

        requests = []
        for number in range(500):
            request = Request()
            request.echo.message = f"{number}" * 50
            requests.append(request)
        flush = Request()
        flush.flush.SetInParent()
        content = b"".join(varint(len(c)) + c for c in (r.SerializeToString() for r in [*requests, flush]))
        for start in range(0, len(content), 997):
            chain.mempool._socket.sendall(content[start : start + 997])
        answers = [chain.mempool.receive() for _ in range(501)]
        assert [one.echo.message for one in answers[:500]] == [f"{n}" * 50 for n in range(500)]
        assert answers[500].WhichOneof("value") == "flush"

    @pytest.mark.parametrize("folder", ["short", "f" * 200])
    def test_the_socket_that_a_killed_replica_left_is_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
    ) -> None:
        home = tmp_path / folder
        home.mkdir()
        monkeypatch.chdir(home)  # as CometBFT is started: it names the socket from there
        left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        left.bind("abci.sock")
        left.close()
        store = open_store(home)
        with AbciServer(home / "abci.sock", Application(store)) as server:
            assert (home / "abci.sock").stat().st_mode & 0o777 == 0o600
            thread = threading.Thread(target=server.run)
            thread.start()
            caller = Connection(Path("abci.sock"))
            assert caller.call("echo", message="here").message == "here"
            caller.close()
            server.stop()
            thread.join()
        store.close()
        assert not (home / "abci.sock").exists()

    def test_a_connection_that_goes_away_disturbs_no_other(self, chain: FakeConsensus) -> None:
        chain.mempool.close()
        assert chain.block([], START).app_hash == chain.store.app_hash


class TestValidators:
    """Decisions of the authorities become validator updates; what they take effect with is CometBFT's H+2 rule."""

    @pytest.fixture
    def four(self, tmp_path: Path) -> Iterator[FakeConsensus]:
        content = genesis_with_validators()
        consensus = FakeConsensus(open_store(tmp_path, content), tmp_path)
        try:
            consensus.handshake(validators=updates(FOUR))
            yield consensus
        finally:
            consensus.close()

    def test_other_validators_than_the_ledgers_are_refused(self, tmp_path: Path) -> None:
        consensus = FakeConsensus(open_store(tmp_path, genesis_with_validators()), tmp_path)
        try:
            with pytest.raises(ApplicationFailed, match="other validators"):
                consensus.handshake(validators=updates(FOUR[:3]))
        finally:
            consensus.close()

    def test_a_rotated_key_is_one_validator_less_and_one_more(self, four: FakeConsensus) -> None:
        answer = four.block([packed(envelope(type="node.register", body=node_body(HOSPITAL_A, 2)))], START)
        changes = {one.pub_key.ed25519.hex(): one.power for one in answer.validator_updates}
        assert changes == {node_body(HOSPITAL_A)["key"]: 0, node_body(HOSPITAL_A, 2)["key"]: 10}
        assert list(four.block([], START + 1).validator_updates) == []

    def test_admission_power_and_suspension(self, four: FakeConsensus) -> None:
        steps = [
            ("membership.propose", admit(STRANGER, 1)),
            ("membership.propose", propose({"kind": "validator", "org": STRANGER, "power": 10}, 2)),
            ("membership.propose", propose({"kind": "suspend", "org": PAYER}, 3)),
        ]
        admitted, given, suspended = (
            envelope(AUTHORITY, number, type=type, body=body) for number, (type, body) in enumerate(steps, 1)
        )
        assert list(four.block([packed(admitted)], START).validator_updates) == []
        registered = envelope(STRANGER, type="node.register", body=node_body(STRANGER))
        (joined,) = four.block([packed(registered, given)], START + 1).validator_updates
        assert (joined.pub_key.ed25519.hex(), joined.power) == (node_body(STRANGER)["key"], 10)
        (left,) = four.block([packed(suspended)], START + 2).validator_updates
        assert (left.pub_key.ed25519.hex(), left.power) == (node_body(PAYER)["key"], 0)

    def test_nodes_of_active_members_are_let_in_and_of_suspended_ones_are_not(self, four: FakeConsensus) -> None:
        path = "/p2p/filter/id/" + node_body(PAYER)["node"]
        assert four.query(path).code == 0
        actions = ({"kind": "minimum-validators", "value": 3}, {"kind": "suspend", "org": PAYER})
        decided = [
            envelope(AUTHORITY, number, type="membership.propose", body=propose(action, number))
            for number, action in enumerate(actions, 1)
        ]
        four.block([packed(*decided)], START)
        assert four.query(path).code == 3


FOUR = (AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER)


def genesis_with_validators() -> bytes:
    nodes = [{"org": org, "power": 10, **node_body(org)} for org in FOUR]
    return genesis.build(chain=CHAIN, time=START, threshold=1, members=[member(one) for one in FOUR], nodes=nodes)


def updates(orgs: Sequence[str]) -> list[Any]:
    made = []
    for org in orgs:
        update = oracle("tendermint.abci.ValidatorUpdate")(power=10)
        update.pub_key.ed25519 = bytes.fromhex(node_body(org)["key"])
        made.append(update)
    return made


class TestLateMember:
    """A replica of a member that was admitted later: it computes the past, and signs only what it may."""

    def test_checkpoints_before_its_admission_are_unsigned_and_the_check_accepts_them(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.sqlite3"
        store = ReplicaStore(path, genesis=genesis_bytes(), org=STRANGER, key=sign_key(STRANGER))
        chain = FakeConsensus(store, tmp_path)
        try:
            chain.handshake()
            chain.block([packed(envelope())], START)
            chain.block([packed(envelope(AUTHORITY, type="membership.propose", body=admit(STRANGER, 1)))], START + 1)
            chain.block([packed(envelope(seq=2))], START + 2)
            notes = [checkpoint.parse(row.note).signatures for row in store.file.blocks(0, 9)]
        finally:
            chain.close()
        assert [[one.org for one in signatures] for signatures in notes] == [[], [], [STRANGER], [STRANGER]]
        assert check_ledger(path, genesis_bytes()) == []

    def test_a_signature_that_was_removed_from_a_hosts_file_is_still_named(self, tmp_path: Path) -> None:
        import sqlite3

        path = tmp_path / "ledger.sqlite3"
        host = EmbeddedChain(
            path, genesis=genesis_bytes(), host_key=sign_key(AUTHORITY), host_org=AUTHORITY, clock=lambda: START
        )
        host.submit([envelope()])
        host.close()
        database = sqlite3.connect(path)
        (note,) = database.execute("SELECT note FROM block WHERE height = 1").fetchone()
        bare = checkpoint.render(checkpoint.SignedCheckpoint(checkpoint.parse(note).checkpoint))
        database.execute("UPDATE block SET note = ? WHERE height = 1", (bare,))
        database.commit()
        database.close()
        assert [one.where for one in check_ledger(path, genesis_bytes())] == ["block 1"]
