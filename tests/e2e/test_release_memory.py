"""The memory of a large release: processes of a holder and a requester, a patient with thousands of records.

``YIQIAO_TEST_LARGE_RELEASE=20000`` (the largest release) runs it with so many records, beside a tenth of them, which is
several pages already (some minutes): what both processes need at most may hardly grow with the record.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchor.gm import sm3
from benchmarks.exchange_site import HOLDER_ORG, PURPOSE, REQUESTER_ORG, ExchangeSite, identity_number, site
from bridge.services.grant_terms import GrantTerms
from bridge.storage.database import transact
from bridge.storage.records import Lineage, RecordWrite
from bridge.wiring import Node
from fhir_adapters.identifiers import ID_CARD_SYSTEM

RECORDS = int(os.environ.get("YIQIAO_TEST_LARGE_RELEASE", "0"))
BATCH = 1_000  # records stored in one transaction
MAY_GROW = 2.0  # of ten times the records a line each stays in memory, and SQLite's page cache (64 MiB) fills
LINEAGE = Lineage("his", sm3(b"source message"), "hl7v2/1.0")

pytestmark = pytest.mark.skipif(not RECORDS, reason="YIQIAO_TEST_LARGE_RELEASE is not set: it takes minutes")


@pytest.fixture(scope="module")
def consortium() -> Iterator[ExchangeSite]:
    with site(1) as made:
        yield made


def store(node: Node, person: str, count: int) -> str:
    """Store a patient with so many results, anchored and released to the requester; return the patient's id."""
    id = f"large-{count}"
    subject = f"Patient/{id}"
    patient = {"resourceType": "Patient", "id": id, "identifier": [{"system": ID_CARD_SYSTEM, "value": person}]}
    results = [result(f"{id}-{number}", subject, number) for number in range(count - 1)]
    for start in range(0, count, BATCH):
        part = [RecordWrite(each, LINEAGE, subject) for each in [patient, *results][start : start + BATCH]]
        transact(node.engine, lambda connection, part=part: node.records.put_many(connection, part))
    now = int(time.time())
    node.consent.grant(id, GrantTerms((REQUESTER_ORG,), (PURPOSE,), now + 86_400, now))
    return id


def result(id: str, subject: str, number: int) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7", "display": "Glucose"}]},
        "subject": {"reference": subject},
        "effectiveDateTime": f"2026-03-{number % 28 + 1:02}T08:00:00+08:00",
        "valueQuantity": {"value": number, "unit": "mmol/L", "system": "http://unitsofmeasure.org", "code": "mmol/L"},
        "note": [{"text": "x" * 200}],
    }


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    tasks = Path(f"/proc/{pid}/task")
    children = [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
    return [pid, *(each for child in children for each in tree(child))]


def peak(pid: int) -> int:
    """Return the most memory that a process had at once since it began, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def looked_up(consortium: ExchangeSite, person: str) -> tuple[int, dict[str, Any]]:
    """Look a patient up by the command line; return its process's most memory in KiB, and the holder's outcome."""
    command = ["lookup", "--home", str(consortium.requester.home), "--identifier", f"{ID_CARD_SYSTEM}|{person}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", *command, "--purpose", PURPOSE, "--json"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    answer = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    [outcome] = json.loads(answer)["holders"]
    return usage.ru_maxrss, outcome


def measured(consortium: ExchangeSite, count: int) -> tuple[int, int]:
    """Return the most memory of the holder's and of the requester's process, in KiB, for a record of that size."""
    person = identity_number(count % 997 + 2)
    with consortium.served_here() as opened:
        holder = opened[HOLDER_ORG]
        store(holder, person, count)
        while holder.exchange_parts.register():
            pass
        while holder.anchoring.run().logged:
            pass
        for node in opened.values():
            node.witness.run()
    with consortium.served():
        process = consortium.holder.process
        assert process is not None
        requester, outcome = looked_up(consortium, person)
        holders = max(peak(pid) for pid in tree(process.pid))
    assert outcome["status"] == "received", outcome
    assert len(outcome["records"]) == count
    return holders, requester


def test_memory_hardly_grows_with_the_record(consortium: ExchangeSite) -> None:
    few, many = (measured(consortium, count) for count in (RECORDS // 10, RECORDS))
    print(f"\nKiB at holder and requester: {few} for {RECORDS // 10} records, {many} for {RECORDS}")
    for small, large in zip(few, many, strict=True):
        assert large <= MAY_GROW * small, (few, many)
