"""kill -9 of a process that commits blocks, over and over: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from anchor import transaction
from anchor.chain.embedded import EmbeddedChain
from anchor.chain.embedded_replay import check_ledger, replay
from anchor.chain.embedded_store import LedgerFile
from anchor.errors import ChainError
from tests.ledger_consortium import AUTHORITY, CHAIN, HOSPITAL_A, HOSPITAL_B, START, genesis_bytes, sign_key

ROUNDS = 20
ROOT = Path(__file__).parents[2]


def open_chain(path: Path) -> EmbeddedChain:
    return EmbeddedChain(
        path,
        genesis=genesis_bytes(),
        host_key=sign_key(AUTHORITY),
        host_org=AUTHORITY,
        clock=lambda: START,
        max_block=8,
    )


def submit_for_ever(path: Path, sender: str, acknowledged: Path) -> None:
    """Submit numbered transactions and append each acknowledged id to a file, until killed (the child's part)."""
    chain = open_chain(path)
    with acknowledged.open("ab", buffering=0) as file:
        while True:
            first = chain.next_seq(sender)
            envelopes = [
                transaction.build(
                    chain=CHAIN,
                    type="membership.endpoint",
                    sender=sender,
                    key=sign_key(sender),
                    seq=first + n,
                    expires=START,
                    body={"endpoint": f"https://moved.invalid/{first + n}"},
                )
                for n in range(20)
            ]
            results = chain.submit(envelopes)
            assert all(one.ok for one in results), results
            file.write("".join(f"{one.tx_id} {one.index}\n" for one in results).encode())


def start(path: Path, sender: str, acknowledged: Path) -> subprocess.Popen[bytes]:
    """Start a child that submits as one member."""
    code = (
        "from pathlib import Path; from tests.fault.test_ledger_killed import submit_for_ever as run;"
        f"run(Path({str(path)!r}), {sender!r}, Path({str(acknowledged)!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)


def open_together(path: Path) -> list[str]:
    """Open a new file in eight threads at once, each with a connection of its own; return what failed."""
    barrier, failed = threading.Barrier(8), []

    def opened() -> None:
        barrier.wait()
        try:
            LedgerFile(path).close()
        except ChainError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=opened) for _ in range(barrier.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_processes_that_begin_a_ledger_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """A node's web workers and its worker open the file in the same moment; SQLite itself does not wait there."""
    assert [open_together(tmp_path / f"{number}.sqlite3") for number in range(30)] == [[]] * 30


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def wait_for_growth(files: list[Path], before: list[int], processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait until every child has had something acknowledged."""
    deadline = time.monotonic() + 30
    while any(len(lines(file)) <= count for file, count in zip(files, before, strict=True)):
        assert all(process.poll() is None for process in processes), "a submitting process failed"
        assert time.monotonic() < deadline, "no transaction was acknowledged"
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_while_committing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    senders = (HOSPITAL_A, HOSPITAL_B)
    files = [tmp_path / sender for sender in senders]
    chance = random.Random(20)
    for _ in range(ROUNDS):
        before = [len(lines(file)) for file in files]
        processes = [start(path, sender, file) for sender, file in zip(senders, files, strict=True)]
        try:
            wait_for_growth(files, before, processes)
            time.sleep(chance.uniform(0, 0.05))
        finally:
            for process in processes:
                process.kill()
                process.wait()
    chain = open_chain(path)
    try:
        everything = collect(chain)
        replayed = replay(genesis_bytes(), blocks(chain))
        assert replayed.head.height == chain.health().height
        assert replayed.tree.root == chain.state_proof("chain").state_root
    finally:
        chain.close()
    assert check_ledger(path, genesis_bytes()) == []
    ids = [one.tx_id for one in everything]
    assert len(set(ids)) == len(ids)
    places = {one.tx_id: one.index for one in everything}
    for file in files:
        told = [line.split() for line in lines(file) if len(line.split()) == 2 and len(line) > 65]
        assert told
        assert all(places.get(tx_id) == int(index) for tx_id, index in told[:-1])
        assert told[-1][0] in places


def collect(chain: EmbeddedChain) -> list[Any]:
    found: list[Any] = []
    while page := chain.transactions(len(found), 1000):
        found += page
    return found


def blocks(chain: EmbeddedChain) -> list[Any]:
    found: list[Any] = []
    while page := chain.blocks(len(found) + 1, 1000):
        found += page
    return found
