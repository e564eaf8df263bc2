"""What every ledger engine's client must do: the embedded one, the remote one over a real HTTP connection, and
CometBFT's over its real RPC and socket protocols: with a consensus that decides at once, and with the real binary.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, Response
from requests import PreparedRequest
from requests.auth import AuthBase
from werkzeug.serving import make_server

from anchor import checkpoint, merkle, transaction
from anchor.chain.client import ChainClient
from anchor.chain.cometbft.client import CometChain
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.embedded import EmbeddedChain
from anchor.chain.embedded_store import LedgerFile
from anchor.chain.remote import RemoteChain
from anchor.errors import ChainError, ChainUnavailable, FormatError, VerificationError
from anchor.ledger import app_hash
from anchor.state_tree import verify_state_proof
from anchor.transaction import Code
from bridge.outcomes import operation_outcome, outcome_for
from bridge.routes.ledger import ledger_blueprint
from tests.comet_network import require_cometbft, single_replica
from tests.fake_rpc import FakeNode
from tests.ledger_consortium import (
    AUTHORITY,
    CHAIN,
    HOSPITAL_A,
    HOSPITAL_B,
    OBSERVER,
    PAYER,
    START,
    STRANGER,
    genesis_bytes,
    grant_body,
    ident,
    key,
    propose,
    sign_key,
)


class NoAuth(AuthBase):
    """Signs nothing: who may call is tested with the routes' permissions, not here."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        return request


@dataclass
class Setting:
    """A client under test, the engine behind it, and how to make envelopes for it."""

    client: ChainClient
    engine: EmbeddedChain | CometChain
    path: Path
    now: list[float] = field(default_factory=lambda: [START])

    def envelope(self, sender: str = HOSPITAL_A, type: str = "membership.endpoint", **changes: Any) -> bytes:
        values = {
            "chain": CHAIN,
            "type": type,
            "sender": sender,
            "key": sign_key(sender),
            "seq": self.engine.next_seq(sender),
            "expires": START + 900,
            "body": {"endpoint": "https://moved.invalid"},
        }
        return transaction.build(**{**values, **changes})

    def fill(self, count: int) -> list[bytes]:
        """Commit some transactions of hospital A's."""
        first = self.engine.next_seq(HOSPITAL_A)
        envelopes = [self.envelope(seq=first + n) for n in range(count)]
        assert all(one.ok for one in self.client.submit(envelopes))
        return envelopes


def serve(chain: ChainClient) -> Iterator[str]:
    """Serve the ledger's routes over a chain on a loopback port, and yield the base URL."""
    app = Flask(__name__)
    app.register_blueprint(ledger_blueprint(SimpleNamespace(chain=chain)))

    @app.errorhandler(Exception)
    def answer(error: Exception) -> Response:
        outcome = outcome_for(error)
        return Response(operation_outcome(outcome), status=outcome.status)

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def now() -> list[float]:
    return [START]


@pytest.fixture(
    params=[
        "embedded",
        "remote",
        "cometbft",
        pytest.param("cometbft-binary", marks=[pytest.mark.service, pytest.mark.slow]),
    ]
)
def ledger(request: pytest.FixtureRequest, tmp_path: Path, now: list[float]) -> Iterator[Setting]:
    path = tmp_path / "ledger.sqlite3"
    if request.param.startswith("cometbft"):
        yield from cometbft(path, now, binary=request.param == "cometbft-binary")
        return
    engine = embedded(path, lambda: now[0])
    try:
        if request.param == "embedded":
            yield Setting(engine, engine, path, now)
        else:
            server = serve(engine)
            client = RemoteChain(next(server), auth=NoAuth(), timeout_seconds=10)
            yield Setting(client, engine, path, now)
            client.close()
            next(server, None)
    finally:
        engine.close()


def cometbft(path: Path, now: list[float], *, binary: bool) -> Iterator[Setting]:
    """Yield a client of a chain of one validator; ``binary``: with the real CometBFT, else with a fake one."""
    if binary:
        require_cometbft()
        with single_replica(path, genesis_bytes(), AUTHORITY, lambda: now[0]) as url:
            client = CometChain(url)
            yield Setting(client, client, path, now)
            client.close()
        return
    store = ReplicaStore(path, genesis=genesis_bytes(), org=AUTHORITY, key=sign_key(AUTHORITY))
    node = FakeNode(store, path.parent, lambda: now[0])
    client = CometChain(node.url, clock=lambda: now[0])
    try:
        yield Setting(client, client, path, now)
        client.close()
    finally:
        node.close()


def test_a_submission_answers_each_transaction_in_order(ledger: Setting) -> None:
    good = ledger.envelope(seq=1)
    results = ledger.client.submit([good, b"garbage", ledger.envelope(seq=5), ledger.envelope(HOSPITAL_B, seq=1)])
    assert [one.code for one in results] == [Code.OK, Code.BAD_ENCODING, Code.BAD_SEQUENCE, Code.OK]
    assert (results[0].height, results[0].index, results[0].block_time) == (1, 0, START)
    assert (results[2].height, results[2].index, results[2].expected_seq) == (None, None, 2)
    assert (results[3].index, ledger.client.next_seq(HOSPITAL_A)) == (1, 2)


def test_an_empty_submission_is_answered_at_once(ledger: Setting) -> None:
    assert ledger.client.submit([]) == []


def test_more_than_a_block_is_committed_in_order(ledger: Setting) -> None:
    ledger.fill(40)
    found = ledger.client.transactions(0, 100)
    assert [one.index for one in found] == list(range(40))
    assert [one.height for one in found] == sorted(one.height for one in found)
    if isinstance(ledger.engine, EmbeddedChain):  # whose blocks are bounded in these tests
        assert ledger.client.health().height >= 3


def test_a_repeated_submission_answers_its_original_place(ledger: Setting) -> None:
    envelopes = ledger.fill(3)
    ledger.now[0] = START + 100
    again = ledger.client.submit([envelopes[1], envelopes[1]])
    assert [(one.code, one.height, one.index, one.block_time) for one in again] == [(Code.OK, 1, 1, START)] * 2
    assert ledger.client.health().log_size == 3


def test_the_same_transaction_twice_in_one_submission_is_committed_once(ledger: Setting) -> None:
    envelope = ledger.envelope(seq=1)
    first, second = ledger.client.submit([envelope, envelope])
    assert (first.index, second.index, second.code) == (0, 0, Code.OK)
    assert ledger.client.health().log_size == 1


def test_a_repetition_is_answered_even_when_the_sender_is_suspended_or_the_bound_has_passed(ledger: Setting) -> None:
    (envelope,) = ledger.fill(1)
    body = propose({"kind": "suspend", "org": HOSPITAL_A})
    assert ledger.client.submit([ledger.envelope(AUTHORITY, "membership.propose", body=body)])[0].ok
    ledger.now[0] = START + 10_000
    assert ledger.client.submit([envelope])[0].index == 0


def test_a_committed_transaction_is_found_by_id_and_place(ledger: Setting) -> None:
    envelopes = ledger.fill(3)
    tx_id = transaction.parse(envelopes[2]).tx_id
    found = ledger.client.transaction(tx_id)
    assert found is not None
    assert (found.envelope, found.index, found.height, found.block_time) == (envelopes[2], 2, 1, START)
    assert ledger.client.transactions(2, 5) == [found]
    assert ledger.client.transactions(3, 5) == []
    assert ledger.client.transactions(0, 0) == []


@pytest.mark.parametrize("tx_id", ["00" * 32, "nothex", "0"])
def test_an_unknown_transaction_is_none(ledger: Setting, tx_id: str) -> None:
    assert ledger.client.transaction(tx_id) is None


def test_every_entry_is_included_in_the_signed_checkpoint(ledger: Setting) -> None:
    ledger.fill(21)
    signed = checkpoint.parse(ledger.client.checkpoint())
    point = signed.checkpoint
    checkpoint.verify_signature(point, signed.signatures[0], sign_key(AUTHORITY).public_key)
    assert (point.origin, point.size) == (f"yiqiao/ledger/{CHAIN}", 21)
    for one in ledger.client.transactions(0, 100):
        merkle.verify_inclusion(
            index=one.index,
            size=point.size,
            leaf_hash=merkle.leaf_hash(one.entry),
            proof=ledger.client.inclusion_proof(one.index, point.size),
            root=point.root,
        )


def test_a_later_checkpoint_extends_an_earlier_one(ledger: Setting) -> None:
    ledger.fill(3)
    first = checkpoint.parse(ledger.client.checkpoint()).checkpoint
    ledger.now[0] = START + 60
    ledger.fill(20)
    second = checkpoint.parse(ledger.client.checkpoint()).checkpoint
    proof = ledger.client.consistency_proof(first.size, second.size)
    merkle.verify_consistency(size1=first.size, size2=second.size, root1=first.root, root2=second.root, proof=proof)
    assert second.integer("time") == START + 60


@pytest.mark.parametrize(("index", "size"), [(3, 3), (0, 4), (0, 0)])
def test_an_inclusion_proof_that_cannot_be_is_refused(ledger: Setting, index: int, size: int) -> None:
    ledger.fill(3)
    with pytest.raises(VerificationError):
        ledger.client.inclusion_proof(index, size)


@pytest.mark.parametrize(("size1", "size2"), [(2, 1), (1, 4), (5, 5)])
def test_a_consistency_proof_that_cannot_be_is_refused(ledger: Setting, size1: int, size2: int) -> None:
    ledger.fill(3)
    with pytest.raises(VerificationError):
        ledger.client.consistency_proof(size1, size2)


def test_state_is_read_by_key_and_by_prefix(ledger: Setting) -> None:
    body = grant_body()
    assert ledger.client.submit([ledger.envelope(type="consent.grant", body=body)])[0].ok
    value = ledger.client.state(f"grant/{ident(1)}")
    assert value is not None
    assert value["commitment"] == body["commitment"]
    assert ledger.client.state("grant/none") is None
    members = ledger.client.state_with_prefix("member/")
    assert list(members) == sorted(f"member/{org}" for org in (AUTHORITY, HOSPITAL_A, HOSPITAL_B, OBSERVER, PAYER))
    assert len(ledger.client.state_with_prefix("member/", 2)) == 2
    assert ledger.client.state_with_prefix("zzz") == {}


def test_several_values_of_the_state_are_read_at_once(ledger: Setting) -> None:
    assert ledger.client.submit([ledger.envelope(type="consent.grant", body=grant_body())])[0].ok
    keys = [f"grant/{ident(1)}", "grant/none", f"member/{HOSPITAL_A}"]
    read = ledger.client.states(keys, ["member/", "zzz"])
    assert read.values == {key: ledger.client.state(key) for key in keys}
    assert read.values["grant/none"] is None
    assert read.prefixed == {"member/": ledger.client.state_with_prefix("member/"), "zzz": {}}
    assert read.block_time == ledger.client.health().block_time
    assert ledger.client.states([]).values == {}


def test_more_values_than_one_question_holds_are_read(ledger: Setting) -> None:
    keys = [f"member/{HOSPITAL_A}", *(f"grant/{number}" for number in range(300)), f"member/{HOSPITAL_B}"]
    read = ledger.client.states(keys, ["member/"])
    assert list(read.values) == keys
    assert [key for key, value in read.values.items() if value] == [f"member/{HOSPITAL_A}", f"member/{HOSPITAL_B}"]
    assert len(read.prefixed["member/"]) == 5


@pytest.mark.parametrize("key", [f"member/{HOSPITAL_A}", f"member/{STRANGER}", "log/yiqiao/log/x/2026"])
def test_state_proofs_lead_to_the_checkpoints_state_root(ledger: Setting, key: str) -> None:
    ledger.fill(2)
    proof = ledger.client.state_proof(key)
    verify_state_proof(key=key, value=proof.value, root=proof.state_root, proof=proof.proof)
    assert proof.value == ledger.client.state(key)
    point = checkpoint.parse(ledger.client.checkpoint()).checkpoint
    assert point.binary("state") == proof.state_root
    assert point.integer("height") == proof.height
    with pytest.raises(VerificationError):
        verify_state_proof(key=key, value={"forged": 1}, root=proof.state_root, proof=proof.proof)


def test_a_checkpoint_is_witnessed_once_a_majority_has_signed(ledger: Setting) -> None:
    ledger.fill(2)
    assert ledger.client.witnessed_checkpoint() is None
    for member in (HOSPITAL_A, HOSPITAL_B):
        signed = checkpoint.parse(ledger.client.checkpoint())
        mine = checkpoint.sign(signed.checkpoint, member, sign_key(member), START + 5)
        ledger.client.cosign(checkpoint.render(signed.with_signatures([mine])))
    witnessed = ledger.client.witnessed_checkpoint()
    assert witnessed is not None
    assert [one.org for one in checkpoint.parse(witnessed).signatures] == [AUTHORITY, HOSPITAL_A, HOSPITAL_B]
    ledger.fill(1)
    assert ledger.client.witnessed_checkpoint() == witnessed
    assert checkpoint.parse(ledger.client.checkpoint()).checkpoint.size == 3


def unusable_note(case: str, signed: checkpoint.SignedCheckpoint) -> bytes:
    point = signed.checkpoint
    if case == "another-root":
        point = checkpoint.Checkpoint(point.origin, point.size, b"\x01" * 32, point.extensions)
    elif case == "another-size":
        point = checkpoint.Checkpoint(point.origin, point.size + 1, point.root, point.extensions)
    signer, signing, time = HOSPITAL_A, sign_key(HOSPITAL_A), START
    if case == "stranger":
        signer, signing = STRANGER, sign_key(STRANGER)
    elif case == "forged":
        signing = key("forger")
    elif case == "before-the-key":
        time = START - 1
    return checkpoint.render(checkpoint.SignedCheckpoint(point, (checkpoint.sign(point, signer, signing, time),)))


@pytest.mark.parametrize("case", ["another-root", "another-size", "stranger", "forged", "before-the-key"])
def test_a_cosignature_of_no_use_is_refused(ledger: Setting, case: str) -> None:
    ledger.fill(2)
    with pytest.raises(VerificationError):
        ledger.client.cosign(unusable_note(case, checkpoint.parse(ledger.client.checkpoint())))
    assert len(checkpoint.parse(ledger.client.checkpoint()).signatures) == 1


@pytest.mark.parametrize("note", [b"", b"nonsense", b"\xff\xfe", b"a\n1\n\n"])
def test_a_cosigned_note_that_is_none_is_a_format_error(ledger: Setting, note: bytes) -> None:
    with pytest.raises(FormatError):
        ledger.client.cosign(note)


def test_health_says_how_far_the_ledger_is(ledger: Setting) -> None:
    engine = "embedded" if isinstance(ledger.engine, EmbeddedChain) else "cometbft"
    before = ledger.client.health()
    ledger.fill(2)
    after = ledger.client.health()
    assert (before.ok, before.height, before.log_size) == (True, 0, 0)
    assert (after.ok, after.engine, after.height, after.log_size) == (True, engine, 1, 2)


def test_many_threads_submit_at_once(ledger: Setting) -> None:
    senders = (HOSPITAL_A, HOSPITAL_B, PAYER, OBSERVER)
    batches = {one: [ledger.envelope(one, seq=n) for n in range(1, 11)] for one in senders}
    outcomes: dict[str, list[str]] = {}
    run_all([lambda s=one: outcomes.update({s: [r.code for r in ledger.client.submit(batches[s])]}) for one in senders])
    assert outcomes == {one: [Code.OK] * 10 for one in senders}
    assert ledger.client.health().log_size == 40


def run_all(tasks: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_closed_ledger_says_so(ledger: Setting) -> None:
    ledger.fill(1)
    envelope = ledger.envelope()
    ledger.client.close()
    with pytest.raises(ChainUnavailable):
        ledger.client.submit([envelope])
    with pytest.raises(ChainUnavailable):
        ledger.client.state("chain")
    health = ledger.client.health()
    assert not health.ok
    assert health.detail


def test_the_whole_state_is_that_of_the_app_hash(ledger: Setting) -> None:
    ledger.fill(4)
    file = LedgerFile(ledger.path)
    (block,) = file.blocks(1, 10)
    file.close()
    point = checkpoint.parse(ledger.client.checkpoint()).checkpoint
    assert app_hash(block.state_root, point.root).hex() in block.header.decode()


class TestRemote:
    """What can go wrong between the remote client and its host."""

    def test_a_host_that_is_not_there_is_unavailable(self) -> None:
        client = RemoteChain("http://127.0.0.1:9", auth=NoAuth(), timeout_seconds=2)
        try:
            with pytest.raises(ChainUnavailable):
                client.submit([b"x"])
            assert not client.health().ok
        finally:
            client.close()

    @pytest.mark.parametrize(
        ("status", "body", "error"),
        [
            pytest.param(503, b"", ChainUnavailable, id="unavailable"),
            pytest.param(429, b"", ChainUnavailable, id="too-many"),
            pytest.param(500, b"", ChainError, id="broken"),
            pytest.param(401, b"", ChainError, id="not-accepted"),
            pytest.param(404, b"", ChainError, id="another-service"),
            pytest.param(302, b"", ChainError, id="redirect"),
            pytest.param(200, b"<html>", ChainError, id="not-json"),
            pytest.param(200, b"[]", ChainError, id="not-an-object"),
            pytest.param(200, b"{}", ChainError, id="lacks-its-fields"),
            pytest.param(200, b'{"results":[]}', ChainError, id="fewer-answers-than-questions"),
            pytest.param(200, b'{"results":[{"tx_id":1}]}', ChainError, id="field-of-another-type"),
        ],
    )
    def test_an_answer_of_no_use_is_a_chain_error(self, status: int, body: bytes, error: type[Exception]) -> None:
        app = Flask(__name__)

        @app.route("/ledger/v1/<path:path>", methods=["GET", "POST"])
        def answer(path: str) -> Response:
            return Response(body, status=status, headers={"Location": "http://127.0.0.1:9/"} if status == 302 else {})

        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        client = RemoteChain(f"http://127.0.0.1:{server.server_port}", auth=NoAuth())
        try:
            with pytest.raises(error) as raised:
                client.submit([b"x"])
            assert raised.type is error
            with pytest.raises(ChainError):
                client.state("chain")
            assert not client.health().ok
        finally:
            client.close()
            server.shutdown()
            thread.join()
            server.server_close()


class TestEmbedded:
    """What only a client that owns its file can show."""

    def test_two_instances_share_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.sqlite3"
        first, second = embedded(path), embedded(path)
        try:
            one, two = Setting(first, first, path), Setting(second, second, path)
            for _ in range(5):
                one.fill(3)
                two.fill(2)
            assert first.checkpoint() == second.checkpoint()
            assert first.state_proof("chain") == second.state_proof("chain")
            assert first.health().log_size == 25
        finally:
            first.close()
            second.close()

    def test_a_file_of_another_genesis_is_refused(self, tmp_path: Path) -> None:
        embedded(tmp_path / "ledger.sqlite3").close()
        with pytest.raises(ChainError, match="another genesis"):
            EmbeddedChain(
                tmp_path / "ledger.sqlite3",
                genesis=genesis_bytes((AUTHORITY,)),
                host_key=sign_key(AUTHORITY),
                host_org=AUTHORITY,
            )

    def test_closing_finishes_what_waits(self, tmp_path: Path) -> None:
        chain = embedded(tmp_path / "ledger.sqlite3")
        setting = Setting(chain, chain, tmp_path)
        envelopes = [setting.envelope(seq=n) for n in range(1, 101)]
        outcomes: list[str] = []
        thread = threading.Thread(target=lambda: outcomes.extend(one.code for one in chain.submit(envelopes)))
        thread.start()
        while chain.health().height == 0:
            pass
        chain.close()
        thread.join()
        assert outcomes == [Code.OK] * 100

    def test_a_file_that_is_no_database_is_corrupt(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.sqlite3"
        path.write_bytes(b"not a database at all" * 1000)
        with pytest.raises(ChainError):
            embedded(path)

    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param("DELETE FROM tx WHERE idx = (SELECT max(idx) FROM tx)", id="last-transaction-gone"),
            pytest.param("DELETE FROM block WHERE height = (SELECT max(height) FROM block)", id="last-block-gone"),
            pytest.param("UPDATE tx SET envelope = replace(envelope, 'moved', 'taken') WHERE idx = 0", id="envelope"),
            pytest.param("UPDATE state SET value = value WHERE key = 'x'; DELETE FROM bucket", id="buckets-gone"),
            pytest.param("UPDATE tile SET hashes = zeroblob(length(hashes))", id="tiles-zeroed"),
            pytest.param("UPDATE block SET time = time + 1 WHERE height = 1", id="block-time"),
            pytest.param("UPDATE block SET header = x'00' WHERE height = 1", id="header"),
            pytest.param("DELETE FROM block", id="no-blocks"),
        ],
    )
    def test_a_damaged_tail_is_noticed_on_opening(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "ledger.sqlite3"
        chain = embedded(path)
        Setting(chain, chain, path).fill(3)
        chain.close()
        database = sqlite3.connect(path)
        database.executescript(damage)
        database.close()
        with pytest.raises(ChainError):
            embedded(path)


def embedded(path: Path, clock: Callable[[], float] = lambda: START) -> EmbeddedChain:
    return EmbeddedChain(
        path,
        genesis=genesis_bytes(),
        host_key=sign_key(AUTHORITY),
        host_org=AUTHORITY,
        clock=clock,
        max_block=16,
    )
