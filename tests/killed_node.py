"""A node's ingest in a process of its own, for the tests that kill it: ``python -m tests.killed_node URL FIRST``.

Takes messages from number FIRST on, writes each acknowledged number to stdout, and works the inbox off meanwhile.
"""

from __future__ import annotations

import os
import sys
import time

from bridge.services.ingest import IngestService
from bridge.storage.database import open_database
from fhir_adapters import SourceProfile
from tests.stores import Stores

PATIENTS = 7
MESSAGES_A_TURN = 3
PROCESSED_A_TURN = 8


def message(number: int) -> bytes:
    """A synthetic ADT; every message of a patient says another thing, so that each must leave a version."""
    return (
        f"MSH|^~\\&|HIS|HOSP|YIQIAO|NODE|20260501083000||ADT^A08|K{number}|P|2.5||||||UNICODE UTF-8\r"
        "EVN||20260501083000\r"
        f"PID|1||{number % PATIENTS}^^^HOSP^MR||N{number}||19900517|M\r"
        f"PV1|1|I|W1^{number}^1||||||||||||||||{number % PATIENTS}^^^HOSP^VN\r"
    ).encode()


def ingest_of(node: Stores) -> IngestService:
    """The ingest service over a node's stores."""
    return IngestService(node.engine, node.inbox, node.records, {"his": SourceProfile(name="his")}, node.clock)


def run(url: str, first: int) -> None:
    """Work until killed."""
    ingest = ingest_of(Stores(url, open_database(url), time.time))
    number = first
    while True:
        for _ in range(MESSAGES_A_TURN):
            if ingest.receive("his", message(number)).accepted:
                os.write(1, b"%d\n" % number)
            number += 1
        ingest.process(PROCESSED_A_TURN)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
