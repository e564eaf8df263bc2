"""History handed on: chunks that are checked by themselves, state sync between applications, and lying senders."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchor import transaction
from anchor.chain.cometbft import history
from anchor.chain.cometbft.packing import pack, packs
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.embedded import EmbeddedChain
from anchor.chain.embedded_replay import check_ledger
from anchor.errors import FormatError, VerificationError
from anchor.gm import sm3
from tests.fake_consensus import FakeConsensus
from tests.ledger_consortium import AUTHORITY, CHAIN, HOSPITAL_A, HOSPITAL_B, START, genesis_bytes, sign_key

SMALL_CHUNK = 512
"""Entries of a chunk in these tests: two tiles."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "CHUNK_ENTRIES", SMALL_CHUNK)


def envelopes(count: int, sender: str = HOSPITAL_A) -> list[bytes]:
    return [
        transaction.build(
            chain=CHAIN, type="membership.endpoint", sender=sender, key=sign_key(sender), seq=n,
            expires=START + 800, body={"endpoint": f"https://moved.invalid/{n}"},
        )
        for n in range(1, count + 1)
    ]  # fmt: skip


ENVELOPES = envelopes(1200)


def filled(folder: Path, count: int = 1200) -> FakeConsensus:
    """Return a chain with ``count`` transactions in blocks of uneven size, some of which span chunks."""
    folder.mkdir()
    store = ReplicaStore(folder / "ledger.sqlite3", genesis=genesis_bytes(), org=AUTHORITY, key=sign_key(AUTHORITY))
    chain = FakeConsensus(store, folder, snapshot_interval=4)
    chain.handshake()
    position, number = 0, 0
    while position < count:
        size = min((150, 37, 300)[number % 3], count - position)
        txs = [pack(part, bytes(8)) for part in packs(ENVELOPES[position : position + size])]
        chain.block(txs, START + number)
        position, number = position + size, number + 1
    return chain


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeConsensus]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "CHUNK_ENTRIES", SMALL_CHUNK)
        chain = filled(tmp_path_factory.mktemp("source") / "chain")
        for _ in range(5):  # so that the newest snapshot is of the whole
            chain.block([], START + 100)
        yield chain
        chain.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[FakeConsensus]:
    store = ReplicaStore(tmp_path / "ledger.sqlite3", genesis=genesis_bytes(), org=HOSPITAL_B, key=sign_key(HOSPITAL_B))
    chain = FakeConsensus(store, tmp_path, snapshot_interval=4)
    yield chain
    chain.close()


def offered(source: FakeConsensus) -> Any:
    snapshots = source.queries.call("list_snapshots").snapshots
    return max(snapshots, key=lambda one: one.height)


def chunk(source: FakeConsensus, snapshot: Any, number: int) -> bytes:
    answer = source.queries.call("load_snapshot_chunk", height=snapshot.height, format=snapshot.format, chunk=number)
    return bytes(answer.chunk)


def described(source: FakeConsensus) -> history.Description:
    return history.Description.parse(bytes(offered(source).metadata))


def offer(target: FakeConsensus, snapshot: Any, app_hash: bytes) -> int:
    return int(target.queries.call("offer_snapshot", snapshot=snapshot, app_hash=app_hash).result)


def apply(target: FakeConsensus, number: int, content: bytes, sender: str = "peer") -> Any:
    return target.queries.call("apply_snapshot_chunk", index=number, chunk=content, sender=sender)


class TestStateSync:
    def test_a_new_replica_takes_over_the_history_and_goes_on(
        self, source: FakeConsensus, target: FakeConsensus, tmp_path: Path
    ) -> None:
        snapshot = offered(source)
        assert (snapshot.chunks, snapshot.height % 4) == (3, 0)
        assert offer(target, snapshot, source.store.app_hash) == 1
        for number in range(3):
            assert apply(target, number, chunk(source, snapshot, number)).result == 1
        assert target.handshake() == source.store.app_hash
        assert target.height == snapshot.height
        fresh = target.application.store
        assert fresh.ledger.head.log.size == 1200
        target.block([], START + 200)
        other = envelopes(1, HOSPITAL_B)
        assert target.block([pack(other, bytes(8))], START + 201).tx_results[0].code == 0
        assert check_ledger(tmp_path / "ledger.sqlite3", genesis_bytes()) == []
        assert not list(tmp_path.glob("*.restoring*"))

    def test_the_same_snapshot_is_offered_by_every_node(self, source: FakeConsensus, target: FakeConsensus) -> None:
        snapshot = offered(source)
        offer(target, snapshot, source.store.app_hash)
        for number in range(3):
            apply(target, number, chunk(source, snapshot, number))
        target.handshake()
        for _ in range(4):
            target.block([], START + 200)
        theirs = target.queries.call("list_snapshots").snapshots
        assert snapshot in theirs
        assert zlib.decompress(chunk(target, snapshot, 1)) == zlib.decompress(chunk(source, snapshot, 1))

    def test_nothing_is_offered_of_an_empty_ledger(self, target: FakeConsensus) -> None:
        target.handshake()
        for _ in range(3):
            target.block([], START)
        assert list(target.queries.call("list_snapshots").snapshots) == []

    @pytest.mark.parametrize(("height", "format", "number"), [(8, 2, 0), (8, 1, 99), (10_000, 1, 0)])
    def test_what_there_is_not_is_served_empty(
        self, source: FakeConsensus, height: int, format: int, number: int
    ) -> None:
        answer = source.queries.call("load_snapshot_chunk", height=height, format=format, chunk=number)
        assert answer.chunk == b""

    def test_a_hash_that_the_validators_did_not_sign_is_refused(
        self, source: FakeConsensus, target: FakeConsensus
    ) -> None:
        assert offer(target, offered(source), b"x" * 32) == 3

    def test_another_format_and_a_description_that_is_none_are_refused(
        self, source: FakeConsensus, target: FakeConsensus
    ) -> None:
        snapshot = offered(source)
        snapshot.format = 2
        assert offer(target, snapshot, source.store.app_hash) == 4
        snapshot = offered(source)
        snapshot.metadata = b"{}"
        assert offer(target, snapshot, source.store.app_hash) == 3

    def test_a_replica_with_blocks_of_its_own_takes_none(self, source: FakeConsensus, target: FakeConsensus) -> None:
        target.handshake()
        target.block([], START)
        assert offer(target, offered(source), source.store.app_hash) == 2

    def test_a_chunk_without_an_accepted_offer_ends_the_sync(self, target: FakeConsensus) -> None:
        assert apply(target, 0, b"x").result == 2

    def test_a_forged_chunk_is_fetched_again_from_somebody_else(
        self, source: FakeConsensus, target: FakeConsensus
    ) -> None:
        snapshot = offered(source)
        offer(target, snapshot, source.store.app_hash)
        forged = zlib.compress(zlib.decompress(chunk(source, snapshot, 0)).replace(b"moved", b"taken", 1))
        for wrong in (forged, b"garbage", chunk(source, snapshot, 1)):
            answer = apply(target, 0, wrong, "liar")
            assert (answer.result, list(answer.refetch_chunks), list(answer.reject_senders)) == (3, [0], ["liar"])
        for number in range(3):
            assert apply(target, number, chunk(source, snapshot, number)).result == 1
        assert target.handshake() == source.store.app_hash

    def test_an_interrupted_sync_leaves_the_replica_as_it_was(
        self, source: FakeConsensus, target: FakeConsensus, tmp_path: Path
    ) -> None:
        snapshot = offered(source)
        offer(target, snapshot, source.store.app_hash)
        apply(target, 0, chunk(source, snapshot, 0))
        assert target.application.store.ledger.head.height == 0
        assert offer(target, snapshot, source.store.app_hash) == 1  # from the start again
        target.close()
        assert not list(tmp_path.glob("*.restoring*"))


class TestChunks:
    @pytest.mark.parametrize(
        ("content", "error"),
        [
            pytest.param(b"", FormatError, id="nothing"),
            pytest.param(b"not zlib", FormatError, id="not-zlib"),
            pytest.param(zlib.compress(b"\x01\x01\x00"), FormatError, id="empty-run"),
            pytest.param(zlib.compress(b"\x01\x01\x01\x05ab"), FormatError, id="cut"),
            pytest.param(zlib.compress(b"\x01\x01\xff\xff\x7f"), FormatError, id="too-many"),
            pytest.param(zlib.compress(b""), VerificationError, id="no-transactions"),
            pytest.param(zlib.compress(b"\x01\x01\x01\x01x"), VerificationError, id="too-few"),
            pytest.param(zlib.compress(b"x")[:-2], FormatError, id="no-end"),
            pytest.param(zlib.compress(b"x") + b"more", FormatError, id="something-behind"),
            pytest.param(zlib.compress(b"\x00" * (40 << 20)), FormatError, id="bomb"),
        ],
    )
    def test_what_is_no_chunk_of_the_log_is_refused(
        self, source: FakeConsensus, content: bytes, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            history.open_chunk(content, 0, described(source))

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda value: value.replace(b'"size":1200', b'"size":1201'), id="size-beyond-its-chunks"),
            pytest.param(lambda value: value.replace(b'"size":1200', b'"size":-1'), id="negative"),
            pytest.param(lambda value: value.replace(b'"v":1', b'"v":2'), id="version"),
            pytest.param(lambda value: value + b" ", id="white-space"),
            pytest.param(lambda value: b"[]", id="another-value"),
            pytest.param(lambda value: b"\xff", id="not-json"),
        ],
    )
    def test_a_description_has_one_form(self, source: FakeConsensus, change: Any) -> None:
        content = described(source).encode()
        changed = change(content)
        if b'"size":1201' in changed:  # three chunks all the same: shown by the last chunk
            with pytest.raises(VerificationError):
                history.open_chunk(chunk(source, offered(source), 2), 2, history.Description.parse(changed))
            return
        with pytest.raises(FormatError):
            history.Description.parse(changed)

    def test_the_description_leads_to_the_hash_that_was_signed(self, source: FakeConsensus) -> None:
        assert described(source).app_hash == source.store.app_hash
        assert sm3(described(source).encode()) == bytes(offered(source).hash)


class TestMovingAPilot:
    """The embedded engine's ledger, handed on to replicas that CometBFT goes on with."""

    @pytest.fixture
    def pilot(self, tmp_path: Path) -> Path:
        path = tmp_path / "pilot.sqlite3"
        chain = EmbeddedChain(
            path, genesis=genesis_bytes(), host_key=sign_key(AUTHORITY), host_org=AUTHORITY, clock=lambda: START
        )
        assert all(one.ok for one in chain.submit(ENVELOPES[:700]))
        chain.close()
        return path

    def hand_on(self, pilot: Path, target: Path, change: Any = lambda chunks: chunks) -> history.Description:
        file = history.LedgerFile(pilot)
        try:
            description = history.describe(file, file.height())
            chunks = [history.read_chunk(file, number, 700) for number in range(len(description.chunks))]
        finally:
            file.close()
        history.restore(
            target, description, iter(change(chunks)), genesis=genesis_bytes(), org=HOSPITAL_B, key=sign_key(HOSPITAL_B)
        )
        return description

    def test_a_member_builds_the_same_ledger_and_cometbft_begins_after_it(self, pilot: Path, tmp_path: Path) -> None:
        target = tmp_path / "member" / "ledger.sqlite3"
        target.parent.mkdir()
        description = self.hand_on(pilot, target)
        assert check_ledger(target, genesis_bytes()) == []
        stores = [
            ReplicaStore(pilot, genesis=genesis_bytes(), org=AUTHORITY, key=sign_key(AUTHORITY)),
            ReplicaStore(target, genesis=genesis_bytes(), org=HOSPITAL_B, key=sign_key(HOSPITAL_B)),
        ]
        hashes = []
        for number, store in enumerate(stores):
            folder = tmp_path / str(number)
            folder.mkdir()
            chain = FakeConsensus(store, folder)
            assert chain.handshake() == description.app_hash
            answer = chain.block([pack(ENVELOPES[700:720], bytes(8))], START + 5)
            assert answer.tx_results[0].code == 0
            assert store.ledger.head.log.size == 720
            place = store.file.place_of_size(700)
            assert place is not None
            assert place.comet_height == 0
            hashes.append(answer.app_hash)
            chain.close()
        assert hashes[0] == hashes[1]
        for path in (pilot, target):
            assert check_ledger(path, genesis_bytes()) == []

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            pytest.param(lambda chunks: chunks[:1], FormatError, id="chunk-missing"),
            pytest.param(lambda chunks: [*chunks, chunks[0]], FormatError, id="chunk-too-many"),
            pytest.param(lambda chunks: chunks[::-1], VerificationError, id="wrong-order"),
        ],
    )
    def test_a_history_that_is_not_whole_is_refused(
        self, pilot: Path, tmp_path: Path, change: Any, error: type[Exception]
    ) -> None:
        target = tmp_path / "ledger.sqlite3"
        with pytest.raises(error):
            self.hand_on(pilot, target, change)
        assert not list(tmp_path.glob("ledger.sqlite3*"))
