"""Erasing a patient: nothing readable is left, the evidence stays checkable, and the erasure is itself evidence."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from anchor.contracts import members
from anchor.gm import PrivateKey
from anchor.trust import Trust
from anchor.verify import verify_receipt
from bridge.cli import yiqiao
from bridge.errors import Conflict, InvalidRequest, KeyDestroyed, NotFound
from bridge.services.erasure import ErasureService
from bridge.services.grant_terms import GrantTerms
from bridge.settings import load_settings
from bridge.storage.database import read_transaction, transact
from bridge.storage.disclosures import DisclosureStore
from bridge.wiring import Node, build_node
from tests.evidence_world import LINEAGE, org_id

SECRET = "张三丰"
PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [{"system": "urn:his", "value": "MRN-1"}],
    "name": [{"text": SECRET}],
}
OBSERVATION = {"resourceType": "Observation", "id": "o1", "status": "final", "code": {"text": SECRET}}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(yiqiao, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "node"
    made = run(
        *("init", home, "--org", org_id(1), "--name", "测试医院", "--role", "authority", "--role", "hospital"),
        *("--environment", "test", "--mllp-port", "0", "--chain", "test-chain"),
    )
    assert made.exit_code == 0, made.output
    return home


@pytest.fixture
def node(home: Path) -> Iterator[Node]:
    with closing(build_node(load_settings(home))) as node:
        store(node, PATIENT)
        store(node, OBSERVATION)
        store(node, {**OBSERVATION, "id": "o2"}, "Patient/p2")
        node.anchoring.run()
        node.witness.run()
        yield node


def store(node: Node, resource: dict[str, Any], subject: str = "Patient/p1") -> None:
    content = json.dumps(resource, ensure_ascii=False).encode()
    transact(node.engine, lambda conn: node.records.put(conn, content, LINEAGE, subject))


def trust(home: Path, tmp_path: Path) -> bytes:
    file = tmp_path / "trust.json"
    assert run("trust", "--home", home, "--out", file).exit_code == 0
    return file.read_bytes()


def kinds(node: Node) -> set[str]:
    return {each.kind for each in node.integrity.check().differences}


def test_what_is_erased_cannot_be_read_and_what_was_proven_still_is(node: Node, home: Path, tmp_path: Path) -> None:
    before = node.receipts.for_record("Observation", "o1", 1)
    result = node.erasure.erase(node.erasure.resolve("urn:his|MRN-1"), "patient-request")
    node.witness.run()
    assert (result.subject, result.versions, result.anchored, result.problems) == ("Patient/p1", 2, True, ())
    for read in (
        lambda: node.records.vread("Observation", "o1", 1),
        lambda: node.records.read("Patient", "p1"),
        lambda: node.receipts.for_record("Observation", "o1", 1),
    ):
        with pytest.raises(KeyDestroyed):
            read()
    assert node.records.read("Observation", "o2").version == 1, "nobody else's"
    trusted = trust(home, tmp_path)
    assert verify_receipt(before, trusted).state == "witnessed"
    assert verify_receipt(node.receipts.upgrade(before), trusted).state == "witnessed"
    assert kinds(node) == set()
    report = node.integrity.check()
    assert report.erased == 2
    event = node.records.read("AuditEvent", result.event).resource()
    assert (event["action"], event["entity"][0]["what"]["reference"]) == ("D", "Patient/p1")
    about = node.receipts.for_record("AuditEvent", result.event)
    proven = verify_receipt(about, trusted, resource=node.records.read("AuditEvent", result.event).content)
    assert proven.subject.startswith(f"AuditEvent/{result.event}/")


def test_nothing_of_the_patient_is_left_in_the_file(node: Node, home: Path) -> None:
    digests = [node.records.vread(kind, id, 1).digest for kind, id in (("Observation", "o1"), ("Patient", "p1"))]
    node.erasure.erase("Patient/p1", "court-order")
    with closing(sqlite3.connect(home / "node.sqlite3")) as file:
        copy = home / "copy.sqlite3"
        file.execute("VACUUM INTO ?", (str(copy),))
    content = copy.read_bytes()
    for trace in (SECRET.encode(), b"MRN-1", *digests, *(digest.hex().encode() for digest in digests)):
        assert trace not in content


def test_versions_that_waited_for_the_log_are_erased_too(node: Node) -> None:
    store(node, {**OBSERVATION, "status": "amended"})
    node.erasure.erase("Patient/p1", "stored-in-error")
    assert kinds(node) == set()
    assert node.integrity.check().erased == 3


def test_a_live_grant_is_revoked_first(node: Node) -> None:
    other, now = org_id(2), int(node.clock())
    card = members.card(
        chain="test-chain",
        org=other,
        name="另一家医院",
        roles=["hospital"],
        endpoint="http://127.0.0.1:1",
        signing=PrivateKey.generate(),
        encryption=PrivateKey.generate(),
        since=now - 10,
    )
    action = {"kind": "admit", "member": members.admission(card)}
    node.submitter.submit("membership.propose", {"proposal": "ab" * 16, "action": action})
    grant = node.consent.grant("p1", GrantTerms((other,), ("TREAT",), now + 3600, now)).id
    assert node.chain.state(f"grant/{grant}")["status"] == "active"  # type: ignore[index]
    result = node.erasure.erase("Patient/p1", "patient-request")
    assert (result.grants, result.problems) == (1, ())
    assert node.chain.state(f"grant/{grant}")["status"] == "revoked"  # type: ignore[index]
    assert kinds(node) == set()


def test_it_happens_once_and_only_to_patients_that_are_there(node: Node) -> None:
    with pytest.raises(NotFound):
        node.erasure.resolve("Patient/nobody")
    with pytest.raises(NotFound):
        node.erasure.resolve("urn:his|MRN-9")
    with pytest.raises(InvalidRequest):
        node.erasure.resolve("p1")
    with pytest.raises(InvalidRequest):
        node.erasure.erase("Patient/p1", "because")
    node.erasure.erase("Patient/p1", "patient-request")
    with pytest.raises(Conflict):
        node.erasure.resolve("Patient/p1")


def test_a_key_taken_away_is_no_erasure(node: Node) -> None:
    with node.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE subject_key SET wrapped = NULL WHERE subject = 'Patient/p1'")
    named = {(each.kind, each.place.split(" ")[-1]) for each in node.integrity.check().differences}
    assert ("key-missing", "(Observation/o1/_history/1)") in named


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("DELETE FROM subject_key WHERE subject = 'Patient/p1'", id="key row deleted"),
        pytest.param(
            "UPDATE subject_key SET wrapped = NULL WHERE subject = 'Patient/p1';"
            "INSERT INTO erasure VALUES ('Patient/p1', 'no-such-event', 2, 1)",
            id="a record of an erasure without its event",
        ),
    ],
)
def test_a_pretended_erasure_is_named(node: Node, statement: str) -> None:
    with node.engine.begin() as conn:
        for each in statement.split(";"):
            conn.exec_driver_sql(each)
    assert kinds(node) & {"key-missing", "entry-altered"}


def test_an_event_of_another_patients_erasure_does_not_count(node: Node) -> None:
    result = node.erasure.erase("Patient/p1", "patient-request")
    with node.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE subject_key SET wrapped = NULL WHERE subject = 'Patient/p2'")
        conn.exec_driver_sql("INSERT INTO erasure VALUES ('Patient/p2', ?, 1, 1)", (result.event,))
    assert "key-missing" in kinds(node)


def test_what_exchanges_left_is_erased(node: Node) -> None:
    disclosures = DisclosureStore(node.engine, node.keyring)
    facts = {"requester": org_id(2), "purpose": "TREAT", "digest": "cd" * 32, "raw": b"request"}
    with node.engine.begin() as conn:
        disclosures.begin(conn, "ab" * 16, **facts, now=1)
        conn.exec_driver_sql("UPDATE disclosure SET patient_id = 'p1'")
        disclosures.add_records(conn, "ab" * 16, 0, [("Observation/o1/_history/1", "ef" * 32)])
    assert node.erasure.erase("Patient/p1", "patient-request").exchanges == 1
    assert disclosures.records("ab" * 16) == []
    row = disclosures.get("ab" * 16)
    assert row is not None
    assert (row.request_sealed, row.request_digest) == (b"", "")
    assert node.receipts.statement_of("ab" * 16) is None


def test_an_index_that_does_not_answer_is_reported_and_stops_nothing(node: Node) -> None:
    from bridge.errors import PeerUnavailable

    class Away:
        def withdraw(self, pids: list[str]) -> None:
            raise PeerUnavailable("away")

    with node.engine.begin() as conn:
        sealed = node.keyring.seal(conn, "Patient/p1", b"1." + b"a" * 64, b"yiqiao/pid|p1")
        conn.exec_driver_sql(
            "INSERT INTO local_pseudonym (patient_id, pid_blind, pid_sealed, version, categories, state, updated)"
            " VALUES ('p1', x'00', ?, 1, '[]', 'registered', 1)",
            (sealed,),
        )
    service = ErasureService(
        node.engine,
        node.keyring,
        node.inbox,
        consent=node.consent,
        localisation=Away(),  # type: ignore[arg-type]
        audit=node.audit,
        anchoring=node.anchoring,
        clock=node.clock,
    )
    result = service.erase("Patient/p1", "patient-request")
    assert len(result.problems) == 1
    with read_transaction(node.engine) as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM local_pseudonym").scalar_one() == 0


def test_the_command_asks_and_writes_the_receipt(node: Node, home: Path, tmp_path: Path) -> None:
    node.close()
    refused = CliRunner().invoke(yiqiao, ["shred", "--home", str(home), "--patient", "Patient/p1"], input="n\n")
    assert refused.exit_code == 1
    receipt = tmp_path / "erasure.json"
    done = run("shred", "--home", home, "--patient", "Patient/p1", "--yes", "--receipt", receipt, "--json")
    answer = json.loads(done.output)
    assert (answer["subject"], answer["versions"]) == ("Patient/p1", 2)
    trusted = trust(home, tmp_path)
    assert verify_receipt(receipt.read_bytes(), trusted, minimum="committed").kind == "record"
    assert run("fsck", "--home", home).exit_code == 0


def adt(control: str, name: str) -> bytes:
    return (
        f"MSH|^~\\&|HIS|A|YQ|A|20260101080000||ADT^A08|{control}|P|2.5||||||UNICODE UTF-8\r"
        f"EVN|A08|20260101080000\rPID|1||77^^^HIS^MR||{name}||19800101|M\rPV1|1|I|W1^101^1\r"
    ).encode()


def test_a_patient_who_returns_after_the_erasure_stays_erased(node: Node) -> None:
    """The HIS repeats an old message and sends a new one: both are refused by name, neither is kept, and the receipt
    from before still verifies."""

    def sent(content: bytes) -> tuple[str, str]:
        answer = node.ingest.receive("his", content)
        assert answer.id is not None
        while node.ingest.process(10).refused:
            pass
        entry = node.inbox.show(answer.id).entry
        return entry.state, entry.code

    first = adt("M1", SECRET)
    assert sent(first) == ("stored", "")
    node.anchoring.run()
    node.witness.run()
    with node.engine.connect() as connection:
        (subject,) = connection.exec_driver_sql(
            "SELECT DISTINCT subject FROM resource_version WHERE type = 'Patient' AND id NOT IN ('p1', 'p2')"
        ).one()
    before = node.receipts.for_record(*subject.split("/"), 1)
    node.erasure.erase(subject, "patient-request")
    assert sent(adt("M2", SECRET)) == ("failed", "patient-erased")
    assert sent(adt("M2", SECRET)) == ("failed", "patient-erased"), "the same again"
    sent(first)
    with node.engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT count(*) FROM inbox WHERE length(raw) > 0").scalar()
        versions = connection.exec_driver_sql(
            "SELECT count(*) FROM resource_version WHERE subject = ? AND length(sealed) > 0", (subject,)
        ).scalar()
    assert (kept, versions) == (0, 0)
    trust = Trust.from_members("test-chain", 1, (), node.chain.state_with_prefix("member/").values()).dump()
    assert verify_receipt(before, trust).state == "witnessed"
    assert [each.kind for each in node.integrity.check().differences] == []
