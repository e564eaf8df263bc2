"""Transactions per second on the consortium engine: four validators on this machine, and what stands beside them.

The stream is what members do, as in ``bench_ledger``: grant, request, permit, release, receive by pairs of hospitals,
each signed and in sequence. Every node gets the transactions of one pair. *One by one*: each is a CometBFT transaction
of its own. *Packed*: as the ledger's client sends them. All processes, this one included, share the machine; beside
them, in the same run: CometBFT's own kvstore application on four nodes with the same settings, and OpenSSL's bare SM2
verification on an idle core. Lines between cities are made by Toxiproxy (``benchmarks.toxiproxy``).
"""

from __future__ import annotations

import base64
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from anchor import transaction
from anchor.chain.client import TransactionResult
from anchor.chain.cometbft.client import CometChain
from anchor.chain.cometbft.node_files import RPC_BATCH
from anchor.chain.cometbft.packing import pack
from anchor.chain.cometbft.process import find_binary
from anchor.checkpoint import Checkpoint, SignedCheckpoint, log_origin, render, sign
from anchor.contracts.org_id import check_character
from anchor.errors import ChainUnavailable
from anchor.gm import sm3
from anchor.tiles import MemoryTileStore, TileLog
from benchmarks.bench_signatures import openssl_speed
from benchmarks.comet_site import (
    CHAIN,
    FAR,
    POWER,
    VALIDATORS,
    Member,
    Place,
    Site,
    kvstore,
    kvstore_size,
    noise,
    site,
    wait_for,
)
from benchmarks.measure import Comparison, Rate
from benchmarks.toxiproxy import find_toxiproxy, toxiproxy

ROUNDS = 3
SINGLE_TARGET, PACKED_TARGET = 600.0, 1_500.0
"""Transactions per second on the two-core machine that the ledger was designed on."""
SINGLES_PER_SECOND, PACKED_PER_SECOND = 1_200, 3_000
"""Transactions prepared for a second of measurement: enough that a round lasts several blocks."""
WARM_UP = 200
"""Transactions of each node before the clock runs: caches, key tables, mempools."""
IN_FLIGHT = 2_500
"""Transactions on their way at once: half of what a mempool holds."""
LIFE_SECONDS = 800
COMMIT_SECONDS = 300.0
LOOK_SECONDS = 0.1
"""Between two looks at how much is committed: each costs the node an answer."""
BATCH_RECORDS, BATCHES = 5_000, 40
"""Records anchored by one published checkpoint (``anchoring.batch``), and checkpoints published."""
DELAY_MS = 25
"""Each way: 50 ms from one node to another and back."""
SLOW_DELAY_MS, SLOW_KILOBYTES = 100, 250
"""The line of one node: 200 ms there and back, two megabits a second."""


def run(seconds: float = 5.0) -> list[Comparison]:
    """Measure the engine beside its peers; nothing when CometBFT's binary is missing."""
    try:
        find_binary()
    except ChainUnavailable as error:
        print(f"    left out: {error}")
        return []
    speed = openssl_speed(1)
    verification = speed[1] if speed else None
    singles = int(seconds * SINGLES_PER_SECOND / VALIDATORS / ROUNDS)
    packed = int(seconds * PACKED_PER_SECOND / VALIDATORS / ROUNDS)
    peer = _kvstore(singles * VALIDATORS)
    found = _near(singles, packed, seconds, peer, verification)
    found += _far(packed, seconds, found[1].ours)
    return found


# --- the networks


def _near(singles: int, packed: int, seconds: float, peer: Rate, verification: Rate | None) -> list[Comparison]:
    members = _members()
    with site(members) as network:
        streams = _streams(members)
        _packed(network, streams, WARM_UP)
        one_by_one = _rounds(lambda: _one_by_one(network, streams, singles))
        together = _rounds(lambda: _packed(network, streams, packed))
        latency = _latency(network, seconds)
        before = _committed(network.voting[0])
        sizes = [f"{size // before:,} bytes in {what}" for what, size in network.voting[0].sizes().items()]
        anchored = _anchor(network)
        caught_up = _catch_up(network)
        network.voting[-1].kill()
        _packed(network, streams[:-1], WARM_UP)
        without = _rounds(lambda: _packed(network, streams[:-1], packed))
    return [
        Comparison(
            "transactions committed one by one by four validators", one_by_one,
            "CometBFT's kvstore application, transactions of the same size without signatures", peer,
            absolute_target=SINGLE_TARGET,
        ),
        Comparison(
            "transactions committed packed by four validators", together,
            "openssl speed sm2, verification alone, one core for itself", verification,
            absolute_target=PACKED_TARGET,
            note=f"a transaction is at each node {', '.join(sizes)}",
        ),
        Comparison("one at a time at eight submitters, from submitting to final", *latency.comparison()),
        Comparison(
            "records anchored, 5,000 by one published checkpoint", anchored, "", None,
            note=f"{BATCHES} checkpoints with their consistency proofs",
        ),
        Comparison("transactions that a new node takes up, replaying every block", caught_up, "", None),
        Comparison(
            "packed, one validator of four dead", without, "with all four", together, target=0.5,
        ),
    ]  # fmt: skip


def _far(packed: int, seconds: float, near: Rate) -> list[Comparison]:
    program = find_toxiproxy()
    if program is None:
        print("    left out: links between cities; go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0")
        return []
    slow = "one member on a slow line besides"
    return [
        _between_cities(program, "50 ms there and back between all nodes", {}, packed, seconds, near),
        _between_cities(program, f"{slow}: at the others", {"node3": POWER}, packed, seconds, near),
        _between_cities(program, f"{slow}, with power 1 of 31: at the others", {"node3": 1}, packed, seconds, near),
    ]


def _between_cities(
    program: str, what: str, slow: Mapping[str, int], packed: int, seconds: float, near: Rate
) -> Comparison:
    """Measure with lines between cities; ``slow``: the nodes on slow lines and their power."""
    members = _members()
    with toxiproxy(program) as proxy:

        def link(name: str, address: str) -> str:
            if slow.keys().isdisjoint(name.split("-")):
                return proxy.link(name, address, delay_ms=DELAY_MS)
            return proxy.link(name, address, delay_ms=SLOW_DELAY_MS, kilobytes=SLOW_KILOBYTES)

        with site(members, FAR, link, slow) as network:
            streams = _streams(members)
            _packed(network, streams, WARM_UP)
            rounds = [_answered(network, streams, packed) for _ in range(ROUNDS)]
            latency = _latency(network, seconds)
            others = [number for number, node in enumerate(network.voting) if node.folder.name not in slow]
    rate = _rate([len(others) * packed / max(took[number] for number in others) for took in rounds])
    behind = [packed / took[number] for took in rounds for number in range(VALIDATORS) if number not in others]
    note = latency.text
    if behind:
        note += f"; the member on the slow line has its own answers at {statistics.median(behind):,.0f} a second"
    return Comparison(f"packed, {what}", rate, "all on one machine", near, note=note)


def _kvstore(count: int) -> Rate:
    """Return CometBFT's own rate, with transactions as long as ours, one by one from four connections."""
    size = len(pack([next(_pair(_members()[1:3]))], bytes(8)))
    with kvstore() as urls:

        def once() -> float:
            done = kvstore_size(urls[0])
            batches = [[noise(size) for _ in range(count // VALIDATORS)] for _ in urls]
            return _race(urls, batches, lambda: kvstore_size(urls[0]) - done)

        once()
        return _rounds(once)


# --- the load


def _one_by_one(network: Site, streams: Sequence[Iterator[bytes]], count: int) -> float:
    batches = [[pack([next(stream)], os.urandom(8)) for _ in range(count)] for stream in streams]
    client = network.voting[0].client()
    try:
        done = client.health().log_size
        return _race([node.url for node in network.voting], batches, lambda: client.health().log_size - done)
    finally:
        client.close()


def _race(urls: Sequence[str], batches: Sequence[Sequence[bytes]], committed: Callable[[], int]) -> float:
    """Hand each node its transactions, as fast as they are committed; return how many were committed a second.

    They are not waited for one by one: CometBFT passes its application what waits every 20 ms (abci/client), so that
    each connection would submit some fifty a second.
    """
    total = sum(len(each) for each in batches)
    sent = [0] * len(urls)
    done = [0]

    def submit(number: int) -> None:
        with requests.Session() as session:
            session.trust_env = False
            for start in range(0, len(batches[number]), RPC_BATCH):
                while sum(sent) - done[0] > IN_FLIGHT:
                    time.sleep(0.005)
                _hand_over(session, urls[number], batches[number][start : start + RPC_BATCH])
                sent[number] += RPC_BATCH

    started = time.perf_counter()
    with ThreadPoolExecutor(len(urls)) as pool:
        tasks = [pool.submit(submit, number) for number in range(len(urls))]
        deadline = time.monotonic() + COMMIT_SECONDS
        while done[0] < total and not any(task.done() and task.exception() for task in tasks):
            if time.monotonic() > deadline:
                raise AssertionError(f"{done[0]} of {total} transactions were committed in {COMMIT_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)
            done[0] = committed()
        for task in tasks:
            task.result()
    return total / (time.perf_counter() - started)


def _hand_over(session: requests.Session, url: str, transactions: Sequence[bytes]) -> None:
    calls = [
        {
            "jsonrpc": "2.0", "id": number, "method": "broadcast_tx_async",
            "params": {"tx": base64.b64encode(each).decode("ascii")},
        }
        for number, each in enumerate(transactions)
    ]  # fmt: skip
    answers = session.post(url, json=calls, timeout=30).json()
    refused = [each["error"] for each in answers if "error" in each]
    if refused or len(answers) != len(calls):
        raise AssertionError(f"a transaction was not taken: {refused[:1]}")


def _packed(network: Site, streams: Sequence[Iterator[bytes]], count: int) -> float:
    """Submit through the ledger's own client at each node; return transactions committed a second."""
    return len(streams) * count / max(_answered(network, streams, count))


def _answered(network: Site, streams: Sequence[Iterator[bytes]], count: int) -> list[float]:
    """Submit through the ledger's own client at each node; return after how many seconds each had its answers."""
    batches = [[next(stream) for _ in range(count)] for stream in streams]
    clients = [node.client() for node, _ in zip(network.voting, streams, strict=False)]
    try:
        with ThreadPoolExecutor(len(clients)) as pool:
            started = time.perf_counter()

            def submit(client: CometChain, envelopes: Sequence[bytes]) -> tuple[float, list[TransactionResult]]:
                answers = client.submit(envelopes)
                return time.perf_counter() - started, answers

            found = list(pool.map(submit, clients, batches))
    finally:
        for client in clients:
            client.close()
    refused = [one.code for _, answers in found for one in answers if not one.ok]
    if refused:
        raise AssertionError(f"{len(refused)} transactions were refused: {refused[0]}")
    return [took for took, _ in found]


class _Latency:
    """How long single transactions took, in seconds."""

    def __init__(self, times: Sequence[float], seconds: float) -> None:
        ordered = sorted(times)
        self.rate = len(times) / seconds
        at = [ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1_000 for share in (0.5, 0.99)]
        self.text = f"from submitting to final: p50 {at[0]:,.0f} ms, p99 {at[1]:,.0f} ms of {len(times)}"

    def comparison(self) -> tuple[Any, ...]:
        return Rate(self.rate, self.rate, self.rate), "", None, None, None, self.text


def _latency(network: Site, seconds: float) -> _Latency:
    """Let eight members submit one transaction after the other, two at each node."""
    times: list[float] = []
    until = time.monotonic() + seconds

    def submit(number: int) -> None:
        member = network.members[1 + number]
        client = network.voting[number % VALIDATORS].client()
        try:
            while time.monotonic() < until:
                envelope = _signed(member, "membership.endpoint", endpoint=f"https://m{number}.invalid/{member.seq}")
                started = time.perf_counter()
                (answer,) = client.submit([envelope])
                if not answer.ok:
                    raise AssertionError(f"refused: {answer.code}")
                times.append(time.perf_counter() - started)
        finally:
            client.close()

    with ThreadPoolExecutor(2 * VALIDATORS) as pool:
        list(pool.map(submit, range(2 * VALIDATORS)))
    return _Latency(times, seconds)


def _anchor(network: Site) -> Rate:
    """Publish checkpoints of a growing log through one node; return records anchored a second."""
    member, log = network.members[1], TileLog(MemoryTileStore())
    envelopes = []
    for number in range(1, BATCHES + 1):
        before = log.size
        log.append([sm3(b"%d" % record) for record in range(before, before + BATCH_RECORDS)])
        proof = log.consistency_proof(before) if before else []
        now = int(time.time())
        point = Checkpoint(log_origin(member.org, "2026"), log.size, log.root(), (("time", str(now)),))
        note = render(SignedCheckpoint(point, (sign(point, member.org, member.key, now),))).decode()
        proven = [each.hex() for each in proof]
        envelopes.append(_signed(member, "checkpoint.publish", note=note, number=number, proof=proven))
    client = network.voting[0].client()
    try:
        started = time.perf_counter()
        refused = [one.code for one in client.submit(envelopes) if not one.ok]
        took = time.perf_counter() - started
    finally:
        client.close()
    if refused:
        raise AssertionError(f"a checkpoint was refused: {refused[0]}")
    rate = BATCHES * BATCH_RECORDS / took
    return Rate(rate, rate, rate)


def _catch_up(network: Site) -> Rate:
    """Start the follower, which has nothing yet; return transactions taken up a second until it is level."""
    total = _committed(network.voting[0])
    started = time.perf_counter()
    network.follower.start()
    wait_for(lambda: _committed(network.follower) >= total, "the new node at the others' height", COMMIT_SECONDS)
    rate = total / (time.perf_counter() - started)
    return Rate(rate, rate, rate)


# --- the transactions


def _members() -> list[Member]:
    """Return an authority and two hospitals for each node."""
    return [
        Member(f"12990000MB{n:07d}" + check_character(f"12990000MB{n:07d}"), "hospital" if n > 1 else "authority")
        for n in range(1, 2 + 2 * VALIDATORS)
    ]


def _streams(members: Sequence[Member]) -> list[Iterator[bytes]]:
    """Return a stream of each pair of hospitals, one for each node."""
    return [_pair(members[1 + 2 * number : 3 + 2 * number]) for number in range(VALIDATORS)]


def _pair(members: Sequence[Member]) -> Iterator[bytes]:
    """Yield the transactions of one exchange after the other, without end."""
    holder, requester = members
    while True:
        identifier, digest, now = os.urandom(16).hex(), sm3(os.urandom(8)).hex(), int(time.time())
        yield _signed(
            holder, "consent.grant", grant=identifier, grantees=[requester.org], purposes=["TREAT"],
            until=now + 86_400, commitment=digest, **{"from": now - 60},
        )  # fmt: skip
        yield _signed(
            requester, "access.request", request=identifier, holder=holder.org, purpose="TREAT", commitment=digest
        )
        yield _signed(holder, "access.permit", request=identifier, grant=identifier)
        yield _signed(
            holder, "access.release", request=identifier, grant=identifier, disclosed=digest, count=12,
            commitment=digest,
        )  # fmt: skip
        yield _signed(requester, "access.receive", request=identifier, disclosed=digest, status="verified")


def _signed(member: Member, type: str, **body: Any) -> bytes:
    member.seq += 1
    return transaction.build(
        chain=CHAIN, type=type, sender=member.org, key=member.key, seq=member.seq,
        expires=int(time.time()) + LIFE_SECONDS, body=body,
    )  # fmt: skip


def _committed(node: Place) -> int:
    """Return how many transactions a node's ledger holds."""
    client = node.client()
    try:
        return client.health().log_size
    finally:
        client.close()


def _rounds(once: Callable[[], float]) -> Rate:
    return _rate([once() for _ in range(ROUNDS)])


def _rate(rates: Sequence[float]) -> Rate:
    return Rate(statistics.median(rates), min(rates), max(rates))
