"""A node process killed with SIGKILL while it takes and works off messages: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge.storage.database import open_database
from bridge.storage.search_query import SearchQuery
from tests.killed_node import PATIENTS, ingest_of
from tests.stores import Stores, _postgres_tables, _sqlite_template, postgres_url, stores

__all__ = ["_postgres_tables", "_sqlite_template", "postgres_url", "stores"]

KILLS = 10
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_or_doubled(stores: Stores) -> None:
    acknowledged: set[int] = set()
    chance = random.Random(20261123)
    following = 0
    for _ in range(KILLS):
        command = [sys.executable, "-m", "tests.killed_node", stores.url, str(following)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
            assert process.stdout is not None
            answered = [int(process.stdout.readline())]
            time.sleep(chance.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
            answered += [int(line) for line in process.stdout.read().splitlines()]
        acknowledged |= set(answered)
        following = answered[-1]  # is delivered again, and perhaps one that was kept and never answered

    node = Stores(stores.url, open_database(stores.url), time.time)
    while ingest_of(node).process(50):  # takes over at once what the dead processes held
        pass
    entries = node.inbox.list(limit=100_000)
    kept = [int(entry.control_id.removeprefix("K")) for entry in entries]
    assert len(kept) == len(set(kept))
    assert acknowledged <= set(kept)
    assert {entry.state for entry in entries} == {"stored"}
    assert len(acknowledged) > KILLS
    _check_records(node, kept)
    node.inbox.close()
    node.engine.dispose()


def _check_records(node: Stores, kept: list[int]) -> None:
    """Every message left one version of its patient, in the order of the messages, and one outbox row for each."""
    found = node.records.search(SearchQuery("Patient", count=100)).entries
    assert len(found) == PATIENTS
    versions: list[int] = []
    for each in found:
        history = node.records.history("Patient", each.id, count=100_000)
        told = [int(version.resource()["name"][0]["family"].removeprefix("N")) for version in history.entries]
        assert told == sorted(told, reverse=True)
        assert len({number % PATIENTS for number in told}) == 1
        versions += told
    assert sorted(versions) == sorted(kept)
    assert node.scalar("SELECT count(*) FROM outbox") == node.scalar("SELECT count(*) FROM resource_version")
    assert node.scalar("SELECT count(DISTINCT ref) FROM outbox") == node.scalar("SELECT count(*) FROM outbox")
