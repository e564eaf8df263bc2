"""A consortium in which lookups are tried one scenario after another: real processes, and links that can be cut.

An authority, three hospitals and a member to be suspended, each its own `yiqiao serve`. The hospitals reach the ledger
by one link and the authority's identity service by another, so that either can fail alone. Every scenario has a patient
of its own, at hospital "a". All people and numbers are made up.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import requests

from bridge.services.grant_terms import GrantTerms
from bridge.wiring import Node, open_node
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from fhir_adapters.identifiers.gb11643 import check_character
from tests.network_link import Link
from tests.node_consortium import NodeConsortium, ServedNode, store, wait_for

BEHIND_SECONDS = 90.0  # how far an event that was queued on a busy machine may come after its request
DAY_SECONDS = 86_400
ACCESS_LOG = Path(__file__).parent / "access_log"
HOSPITALS = ("a", "b", "c", "s")
DECIDED, EXPORTED, IMPORTED = ("110113", "0"), ("110106", "0"), ("110107", "0")  # DICOM audit event type, outcome
DENIED, NOT_IMPORTED, INTERRUPTED = ("110113", "8"), ("110107", "8"), ("110107", "4")
ASKED = [("access.request", "b")]
PERMITTED = [*ASKED, ("access.permit", "a")]
RELEASED = [*PERMITTED, ("access.release", "a"), ("access.receive", "b")]
REFUSED = [*ASKED, ("access.deny", "a")]
BROKEN_GLASS = [("access.emergency", "b"), *RELEASED[1:]]
REASON = "昏迷送医，无法取得同意"
PRACTITIONER = "值班医师欧阳测试"
_SURNAMES = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张"
_STEMS = "甲乙丙丁戊己庚辛壬癸"


class Person:
    """A made-up patient of hospital "a", with what must never be found outside a record."""

    def __init__(self, number: int) -> None:
        self.id = f"p{number:03d}"
        body = f"11010519491231{number:03d}"
        self.number = body + check_character(body)
        self.name = f"{_SURNAMES[number % len(_SURNAMES)]}测试{_STEMS[number // 10 % 10]}{_STEMS[number % 10]}"
        self.value = f"{71000 + number}.0625"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts that stand for this person: number, name, a clinical value and its words."""
        return self.number, self.name, self.value, self.finding

    @property
    def finding(self) -> str:
        return f"虚构所见{self.id}号结节"

    def resources(self) -> list[dict[str, Any]]:
        subject = {"reference": f"Patient/{self.id}"}
        observation: dict[str, Any] = {
            "resourceType": "Observation", "id": f"o-{self.id}", "status": "final", "subject": subject,
            "category": [{"coding": [{"code": "laboratory"}]}], "code": {"text": "虚构项目"},
            "effectiveDateTime": "2026-03-01T08:00:00+08:00", "valueQuantity": {"value": float(self.value)},
        }  # fmt: skip
        condition = {
            "resourceType": "Condition", "id": f"c-{self.id}", "subject": subject, "recordedDate": "2026-03-01",
            "code": {"text": self.finding},
        }  # fmt: skip
        patient = {
            "resourceType": "Patient", "id": self.id, "name": [{"text": self.name}],
            "identifier": [{"system": ID_CARD_SYSTEM, "value": self.number}],
        }  # fmt: skip
        return [patient, observation, condition]


@dataclass(frozen=True)
class Told:
    """What is known of a request afterwards: the ledger's (type, sender), the AuditEvents' (type, outcome) at a and b.

    The ledger's are in its order; AuditEvents are sorted, for two of one millisecond have no order.
    """

    ledger: list[tuple[str, str]]
    a: list[tuple[str, str]] = field(default_factory=list)
    b: list[tuple[str, str]] = field(default_factory=list)


NOTHING = Told([])
HANDED_OVER = Told(RELEASED, a=sorted([DECIDED, EXPORTED]), b=[IMPORTED])
TURNED_DOWN = Told(REFUSED, a=[DENIED], b=[NOT_IMPORTED])


class ScenarioConsortium(NodeConsortium):
    """The consortium; ``urls`` collects the address of every request that a test's own process sends."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, HOSPITALS, quorum=1)
        for node in self.nodes.values():
            node.environment = {"PYTHONPATH": os.pathsep.join([str(ACCESS_LOG), *sys.path])}
        self.urls: list[str] = []
        self.people: list[Person] = []
        self.output: list[str] = []
        self.ledger_link = Link(self.authority.peer_port)
        self.identity_link = Link(self.authority.peer_port)
        for name in HOSPITALS:
            self._through_links(self[name])

    def _through_links(self, node: ServedNode) -> None:
        file, direct = node.home / "config.toml", self.authority.endpoint
        text = file.read_text("utf-8")
        text = text.replace(f'authority_url = "{direct}"', f'authority_url = "{self.identity_link.url}"')
        text = text.replace("[witness]\nperiod_seconds = 1.0", "[witness]\nperiod_seconds = 5.0")
        file.write_text(text.replace(f'\nurl = "{direct}"', f'\nurl = "{self.ledger_link.url}"'), "utf-8")

    def patients(self, count: int) -> list[Person]:
        """Store that many new patients at hospital "a" and wait until they can be found."""
        new = [Person(len(self.people) + number) for number in range(count)]
        self.people += new
        with self["a"].opened() as node:
            for person in new:
                store(node, person.id, *person.resources())
        registered = "SELECT count(DISTINCT patient_id) FROM local_pseudonym WHERE state = 'registered'"
        wait_for(lambda: self.scalar("a", registered) == len(self.people), "the registration")
        return new

    def grant(self, person: Person, *, to: Sequence[str] = ("b",), seconds: int = 3600, **more: Any) -> str:
        """Let a patient permit a lookup; returns the grant's id."""
        with self["a"].opened() as node:
            now = int(node.clock())
            grantees = tuple(self[name].org for name in to)
            terms = GrantTerms(grantees, more.pop("purposes", ("TREAT",)), now + seconds, now - 1, **more)
            made = node.consent.grant(person.id, terms)
        assert made.state == "active", made
        return str(made.id)

    @contextmanager
    def recorded(self, name: str) -> Iterator[Node]:
        """Give a node's parts in this process, and keep the address of every request they send."""
        send = requests.Session.send

        def noting(session: requests.Session, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
            self.urls.append(str(request.url))
            return send(session, request, **settings)

        with mock.patch.object(requests.Session, "send", noting), open_node(self[name].home) as node:
            yield node

    def lookup(self, person: Person, org: str = "b", purpose: str = "TREAT", **more: Any) -> Any:
        """Look a patient up from a hospital; returns the result."""
        with self.recorded(org) as node:
            return node.exchange.lookup(ID_CARD_SYSTEM, person.number, purpose, practitioner=PRACTITIONER, **more)

    @contextmanager
    def asked_once(self) -> Iterator[None]:
        """Let no lookup of this process be taken up again by its node for a day: what it leaves stays as it is."""
        with (
            mock.patch("bridge.services.exchange.SEND_ATTEMPTS", 1),
            mock.patch("bridge.services.exchange.MIN_PAUSE_SECONDS", DAY_SECONDS),
            mock.patch("bridge.services.exchange.MAX_PAUSE_SECONDS", DAY_SECONDS),
        ):
            yield

    def state(self, key: str) -> dict[str, Any] | None:
        """Return a value of the ledger's state, read at the ledger's host."""
        with self.authority.opened() as node:
            return node.chain.state(key)

    def transactions(self, request: str) -> list[tuple[str, str]]:
        """Return (type, sender's name) of every transaction about a request, in the order of the ledger."""
        names = {node.org: name for name, node in self.nodes.items()}
        found = []
        for body in self.ledger():
            if body["body"].get("request") == request:
                found.append((body["type"], names[body["sender"]]))
        return found

    def told(self, request: str) -> Told:
        """Return what the ledger and both sides' audit trails say of a request from b to a."""
        a, b = (sorted((code, outcome) for code, outcome, _ in self.audits(name, request)) for name in ("a", "b"))
        return Told(self.transactions(request), a, b)

    def leaves(self, request: str, expected: Told) -> None:
        """Check what a request left on the ledger and in both audit trails; a ledger that is behind is waited for."""
        deadline = time.monotonic() + BEHIND_SECONDS
        while (found := self.told(request)) != expected and time.monotonic() < deadline:
            time.sleep(0.2)
        assert found == expected

    def kept(self, request: str) -> int:
        """Return how many records b keeps from a request."""
        statement = f"SELECT count(*) FROM received_record WHERE request_id = '{request}'"
        return int(self.scalar("b", statement))

    def refusals(self, name: str) -> list[tuple[str, str]]:
        """Return (claimed org, reason) of every refused signature in a node's audit trail."""
        with self[name].opened() as node:
            events = [version.resource() for version in node.records.of_subject("node", ["AuditEvent"])]
        return [
            (each["agent"][0]["who"]["identifier"]["value"], each["outcomeDesc"].removeprefix("request refused: "))
            for each in events
            if each.get("outcomeDesc", "").startswith("request refused: ")
        ]

    def accesses(self) -> list[str]:
        """Return every access.* transaction as text, to see whether there are more."""
        return [json.dumps(each) for each in self.ledger() if each["type"].startswith("access.")]

    def ledger(self) -> list[dict[str, Any]]:
        """Return every transaction ever committed, read."""
        found: list[dict[str, Any]] = []
        with self.authority.opened() as node:
            while page := node.chain.transactions(len(found), 500):
                found += [json.loads(each.envelope)["tx"] for each in page]
        return found

    def audits(self, name: str, request: str) -> list[tuple[str, str, str]]:
        """Return (type code, outcome, description) of a node's AuditEvents about a request, oldest first."""
        with self[name].opened() as node:
            events = [version.resource() for version in node.records.of_subject("node", ["AuditEvent"])]
        about = [event for event in events if f'"{request}"' in json.dumps(event)]
        return [
            (each["type"]["code"], each["outcome"], each.get("outcomeDesc", ""))
            for each in sorted(about, key=lambda each: str(each["recorded"]))
        ]

    def scalar(self, name: str, statement: str) -> Any:
        """Return one value from a node's database."""
        with self[name].opened() as node, node.engine.connect() as connection:
            return connection.exec_driver_sql(statement).scalar_one()

    def metrics(self, name: str) -> str:
        """Return a served node's metrics."""
        answer = self[name].get("/metrics")
        assert answer.ok, answer.status_code
        return answer.text

    def metric(self, name: str, family: str) -> float:
        """Return the value of a metric without labels, or with the labels as written in ``family``."""
        found = re.search(rf"^{re.escape(family)} ([0-9.e+]+)$", self.metrics(name), re.MULTILINE)
        assert found, family
        return float(found[1])

    def places(self) -> dict[str, bytes]:
        """Return what others may read: the ledger and its files, logs, addresses, metrics, what commands printed."""
        found = {"addresses": "\n".join(self.urls).encode(), "commands": "\n".join(self.output).encode()}
        found["ledger"] = json.dumps(self.ledger(), ensure_ascii=False).encode()
        for file in sorted(self.authority.home.glob("ledger.sqlite3*")):
            found[f"authority: {file.name}"] = file.read_bytes()
        for name, node in self.nodes.items():
            found[f"{name}: log"] = node.log.read_bytes()
            if name != "s":  # which is suspended: its own ledger does not answer it
                found[f"{name}: metrics"] = self.metrics(name).encode()
        return found

    def close(self) -> None:
        super().close()
        self.ledger_link.close()
        self.identity_link.close()


def local_pseudonyms(node: Node) -> list[str]:
    """Return every pseudonym that a node has registered."""
    with node.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT patient_id, pid_sealed FROM local_pseudonym").all()
        return [
            node.keyring.open(
                connection, f"Patient/{row.patient_id}", row.pid_sealed, f"yiqiao/pid|{row.patient_id}".encode()
            ).decode()
            for row in rows
        ]
