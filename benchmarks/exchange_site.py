"""A card authority, a holder and a requester on this machine, and patients whose records the holder may release.

Homes are made, members admitted and records taken in by the command line, as at a hospital. ``served`` runs the nodes
as processes of their own, ``served_here`` in this process, where everything that they do can be seen (each request
over a connection of its own, for that server keeps none open).
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from benchmarks.messages import laboratory_report
from bridge.app import create_app
from bridge.demo.nodes import DemoNode, free_ports, yiqiao
from bridge.services.grant_terms import GrantTerms
from bridge.services.lookup import HolderOutcome
from bridge.wiring import Node, open_node
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from fhir_adapters.identifiers.gb11643 import check_character

CHAIN = "bench"
AUTHORITY_ORG, HOLDER_ORG, REQUESTER_ORG = "12990000MB0000019C", "12990000MB00000277", "12990000MB00000352"
PURPOSE = "TREAT"
OBSERVATIONS = 10
"""Results of a patient's one laboratory report: with patient, visit and report about fourteen records."""
GRANT_SECONDS = 86_400
PEOPLE_OF_A_DAY = 450
CALL_SECONDS = 30.0
PAGE_ENTRIES = 100


def identity_number(number: int) -> str:
    """Return a resident identity number of an invented person: born on 12 July, female, in no region that exists."""
    year, sequence = divmod(number, PEOPLE_OF_A_DAY)
    body = f"110100{1930 + year}0712{2 * sequence + 2:03d}"
    return body + check_character(body)


def report_of(number: int) -> bytes:
    """Return a laboratory report of its own number whose patient has an identity number."""
    message = laboratory_report(OBSERVATIONS, number).decode().replace("ORD-1|LAB-1", f"ORD-{number}|LAB-{number}")
    person = identity_number(number)
    message = message.replace("^MR||", f"^MR~{person}^^^^NNCHN||", 1).replace("19850712", person[6:14], 1)
    return message.encode()


class _Server(ThreadedWSGIServer):
    daemon_threads = True  # a connection that is kept open must not hold up this process's end


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *arguments: Any) -> None:
        pass


class ExchangeSite:
    """The nodes' homes and patients 1 to ``patients``, released by the holder under a grant each."""

    def __init__(self, folder: Path, patients: int) -> None:
        ports = iter(free_ports(6))
        self.authority, self.holder, self.requester = self.nodes = tuple(
            DemoNode(folder / name, org, f"Bench {name}", name, next(ports), next(ports))
            for name, org in (("authority", AUTHORITY_ORG), ("holder", HOLDER_ORG), ("requester", REQUESTER_ORG))
        )
        self._create(self.authority, "authority", "--chain", CHAIN)
        genesis = self.authority.home / "genesis.json"
        for node in (self.holder, self.requester):
            self._create(node, "hospital", "--ledger-url", self.authority.endpoint, "--genesis", genesis)
            card = folder / f"{node.org}.json"
            yiqiao("member", "card", "--home", node.home, "--out", card)
            yiqiao("member", "admit", card, "--home", self.authority.home)
        file = folder / "reports.hl7"
        file.write_bytes(b"".join(report_of(number) for number in range(1, patients + 1)))
        yiqiao("ingest", file, "--home", self.holder.home)
        made = yiqiao("token", "create", "--home", self.holder.home, "--name", "bench", "--role", "reader", "--json")
        self.holder.token = json.loads(made.stdout)["token"]
        with self.served_here() as opened:
            self._prepare(opened, patients)

    @staticmethod
    def _create(node: DemoNode, role: str, *more: str | Path) -> None:
        yiqiao(
            "init", node.home, "--org", node.org, "--name", node.name, "--role", role, "--environment", "demo",
            "--http-port", str(node.http_port), "--mllp-port", str(node.mllp_port), *more,
        )  # fmt: skip

    def _prepare(self, opened: dict[str, Node], patients: int) -> None:
        """Do at once what the nodes' jobs do in time: register, anchor, cosign; give every patient's grant."""
        holder = opened[HOLDER_ORG]
        while holder.exchange_parts.register():
            pass
        now = int(time.time())
        terms = GrantTerms((REQUESTER_ORG,), (PURPOSE,), now + GRANT_SECONDS, now)
        for number in range(1, patients + 1):
            holder.consent.grant(holder.consent.find_patient(ID_CARD_SYSTEM, identity_number(number)), terms)
        while holder.anchoring.run().logged:
            pass
        for node in opened.values():
            node.witness.run()

    @contextmanager
    def served_here(self) -> Iterator[dict[str, Node]]:
        """Serve all three on their ports from threads of this process; gives the nodes by org."""
        with ExitStack() as running:
            opened = {}
            for each in self.nodes:
                node = running.enter_context(open_node(each.home))
                app = create_app(node)
                server = _Server("127.0.0.1", each.http_port, app, _Quiet)
                thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
                thread.start()
                running.callback(server.server_close)
                running.callback(thread.join)
                running.callback(server.shutdown)
                opened[each.org] = node
            yield opened

    @contextmanager
    def served(self) -> Iterator[Node]:
        """Run all three as processes; gives the requester's parts beside its process, as ``yiqiao lookup`` has them."""
        try:
            for each in self.nodes:  # the authority first: it has the ledger
                each.start()
                each.wait_ready()
            with open_node(self.requester.home) as node:
                yield node
        finally:
            for each in reversed(self.nodes):
                each.stop()
                with suppress(ProcessLookupError):
                    each.kill()


@contextmanager
def site(patients: int) -> Iterator[ExchangeSite]:
    """Give a consortium in a folder of its own, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="yiqiao-bench-", ignore_cleanup_errors=True) as folder:
        yield ExchangeSite(Path(folder), patients)


def look_up(node: Node, number: int) -> HolderOutcome:
    """Look a patient up to the end; raises ``RuntimeError`` unless it was received, verified, proven and stored."""
    [outcome] = node.exchange.lookup(ID_CARD_SYSTEM, identity_number(number), PURPOSE).holders
    if outcome.status != "received" or outcome.gap or outcome.receive_tx is None:
        raise RuntimeError(f"a lookup ended as {outcome.status}: {outcome.code} {outcome.message}")
    if not outcome.records or any(record.receipt == "pending" for record in outcome.records):
        raise RuntimeError("a lookup brought records without receipts on the ledger")
    return outcome


class PlainReader:
    """A FHIR client of the holder with a token: what there is without consent, ledger, seals and receipts."""

    def __init__(self, holder: DemoNode, outcome: HolderOutcome) -> None:
        """``outcome`` is a lookup's: its types of records are what is searched for."""
        self._base = f"{holder.endpoint}/fhir"
        self._types = sorted({record.original.split("/")[0] for record in outcome.records})
        self._session = requests.Session()
        self._session.headers.update({"Authorization": f"Bearer {holder.token}", "Accept": "application/fhir+json"})
        self._session.trust_env = False

    def fetch(self, outcome: HolderOutcome) -> set[str]:
        """Read the records of a release again: the patient's by search, what they refer to by reading it.

        Returns their versions' references; raises ``RuntimeError`` when one of the release is missing.
        """
        wanted = {record.original for record in outcome.records}
        patient = next(each.split("/")[1] for each in wanted if each.startswith("Patient/"))
        found = {self._read(f"Patient/{patient}")}
        for type in self._types:
            if type == "Patient":
                continue
            answer = self._session.post(
                f"{self._base}/{type}/_search", data={"patient": patient, "_count": PAGE_ENTRIES}, timeout=CALL_SECONDS
            )
            if answer.ok:  # a type that no patient has (an Organization) is read below
                found |= {_reference(entry["resource"]) for entry in answer.json().get("entry", ())}
        found |= {self._read(each.split("/_history")[0]) for each in wanted - found}
        if not wanted <= found:
            raise RuntimeError("plain FHIR did not give what the release held")
        return found

    def _read(self, reference: str) -> str:
        answer = self._session.get(f"{self._base}/{reference}", timeout=CALL_SECONDS)
        answer.raise_for_status()
        return _reference(answer.json())

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def _reference(resource: dict[str, Any]) -> str:
    return f"{resource['resourceType']}/{resource['id']}/_history/{resource['meta']['versionId']}"
