"""The patient's view: who asked and who saw, as a search, a page and a file; a copy of the record; corrections."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fhir.resources.R4B import get_fhir_model_class
from flask.testing import FlaskClient

from anchor import canonical
from anchor.chain.ledger_trust import trust_of
from anchor.errors import AnchorError
from anchor.gm import PrivateKey
from bridge.app import create_app
from bridge.cli import yiqiao
from bridge.errors import Conflict, InvalidRequest, NotFound
from bridge.services import patient_file
from bridge.services.access_report import access_of, page
from bridge.services.audit_event import SERIOUS_FAILURE, ExchangeFacts, Party
from bridge.tokens import create_token
from bridge.wiring import Node, open_node
from tests.node_consortium import org_id, store
from tests.node_home import make_home

OTHER = Party(org_id(51), "第二<b>医院")
PORTAL = Party("portal", "患者门户")
REQUESTS = ("1" * 32, "2" * 32, "3" * 32)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with open_node(make_home(tmp_path / "home").home) as opened:
        store(
            opened, "p1", {"resourceType": "Patient", "id": "p1"},
            {"resourceType": "Observation", "id": "o1", "status": "final", "code": {"text": "项目"},
             "subject": {"reference": "Patient/p1"}, "valueQuantity": {"value": 0.40}},
        )  # fmt: skip
        store(opened, "p2", {"resourceType": "Patient", "id": "p2"})
        for request, more in zip(REQUESTS, ({}, {"emergency": True}, {"outcome": SERIOUS_FAILURE}), strict=True):
            facts = ExchangeFacts(
                request=request, purpose="TREAT", holder=opened.audit.node, requester=OTHER, patient="Patient/p1",
                consent="Consent/c1" if not more else None, practitioner="值班医师", role="physician", **more,
            )  # fmt: skip
            opened.audit.record_decision(facts)
        opened.audit.record_release(
            ExchangeFacts(
                request=REQUESTS[0],
                purpose="TREAT",
                holder=opened.audit.node,
                requester=OTHER,
                patient="Patient/p1",
                records=("Observation/o1/_history/1",),
            )
        )
        yield opened


def client(node: Node, role: str) -> FlaskClient:
    _, token = create_token(
        node.settings.path(node.settings.security.tokens), name=role, role=role, now=int(time.time())
    )
    made = create_app(node).test_client()
    made.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return made


def trust(node: Node) -> bytes:
    return trust_of(node.chain, node.settings.ledger.chain, 1, ()).dump()


# --- who asked, who saw


def test_the_report_says_who_what_why_and_under_what(node: Node) -> None:
    found = {(each.request, each.what): each for each in node.patient_view.report("p1", PORTAL)}
    granted = found[REQUESTS[0], "110113"]
    assert (granted.permitted, granted.authorisation, granted.purposes) == (True, "Consent/c1", ("TREAT",))
    assert OTHER.name in granted.who or OTHER.id in granted.who
    assert "值班医师 physician" in granted.who
    assert found[REQUESTS[1], "110113"].authorisation == "emergency"
    assert not found[REQUESTS[2], "110113"].permitted
    assert found[REQUESTS[0], "110106"].records == 1
    (again,) = [each for each in node.patient_view.report("p1", PORTAL) if each.what == "rest"]
    assert again.who == PORTAL.name, "looking is an access as well"
    assert node.patient_view.report("p2", PORTAL) == []


def test_the_search_is_fhir_and_newest_first(node: Node) -> None:
    portal = client(node, "portal")
    bundle = json.loads(portal.get("/patients/v1/p1/accesses").data)
    get_fhir_model_class("Bundle").model_validate(bundle)
    events = [entry["resource"] for entry in bundle["entry"]]
    assert {event["resourceType"] for event in events} == {"AuditEvent"}
    times = [event["recorded"] for event in events]
    assert times == sorted(times, reverse=True)
    refused = json.loads(portal.get("/patients/v1/p1/accesses?outcome=8").data)
    assert [REQUESTS[2] in json.dumps(entry) for entry in refused["entry"]] == [True]
    first = json.loads(portal.get("/patients/v1/p1/accesses?_count=2").data)
    following = next(link["url"] for link in first["link"] if link["relation"] == "next")
    second = json.loads(portal.get(following[following.index("/patients") :] + "&_count=2").data)
    assert not {each["fullUrl"] for each in first["entry"]} & {each["fullUrl"] for each in second["entry"]}


def test_another_patients_accesses_are_not_among_them(node: Node) -> None:
    portal = client(node, "portal")
    bundle = json.loads(portal.get("/patients/v1/p2/accesses?patient=Patient/p1").data)
    assert all("Patient/p1" not in json.dumps(entry) for entry in bundle.get("entry", ()))


def test_a_page_to_print_that_runs_nothing(node: Node) -> None:
    answer = client(node, "portal").get("/patients/v1/p1/accesses.html")
    assert answer.status_code == 200
    assert "script" not in answer.headers["Content-Security-Policy"]
    assert "'none'" in answer.headers["Content-Security-Policy"]
    for text in ("Consent/c1", "紧急调阅", "refused / 拒绝", "treatment / 诊疗", REQUESTS[0]):
        assert text in answer.text
    assert "<b>医院" not in answer.text
    assert "&lt;b&gt;" in answer.text
    assert "Nobody has asked" in page([], institution="x", made="now")


@pytest.mark.parametrize(
    ("role", "status"), [("portal", 200), ("privacy-officer", 200), ("reader", 403), ("sender", 403), ("monitor", 403)]
)
def test_who_may_look(node: Node, role: str, status: int) -> None:
    for path in ("accesses", "accesses.html"):
        assert client(node, role).get(f"/patients/v1/p1/{path}").status_code == status


# --- the files


@pytest.mark.parametrize("kind", ["accesses", "records"])
def test_a_file_is_checked_with_the_trust_file_alone(node: Node, kind: patient_file.Kind) -> None:
    content = node.patient_view.file(kind, "p1", PORTAL)
    found = patient_file.check(content, trust(node), minimum="committed")
    assert (found.kind, found.org, found.missing) == (kind, node.signer.org, ())
    assert found.records == {"accesses": 4, "records": 2}[kind]
    if kind == "records":
        assert b'"value":0.40' in content or b'"value":0.4' in content


def test_it_is_witnessed_once_others_have_signed(node: Node) -> None:
    node.anchoring.run()
    node.witness.run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node.patient_view, "_anchoring", type("Idle", (), {"run": lambda self: None})())
        content = node.patient_view.file("records", "p1", PORTAL)
    assert patient_file.check(content, trust(node)).records == 2


def leave_out(value: dict[str, Any]) -> None:
    del value["bundle"]["entry"][0]
    del value["receipts"][0]


def alter(value: dict[str, Any]) -> None:
    value["bundle"]["entry"][0]["resource"]["outcome"] = "0"
    value["bundle"]["entry"][-1]["resource"]["outcome"] = "12"


def excuse(value: dict[str, Any]) -> None:
    value["missing"] = ["AuditEvent/x/_history/1"]


def swap(value: dict[str, Any]) -> None:
    value["receipts"].reverse()


def later(value: dict[str, Any]) -> None:
    value["time"] += 1


def another(value: dict[str, Any]) -> None:
    value["org"] = OTHER.id


CHANGES = [leave_out, alter, excuse, swap, later, another]


@pytest.mark.parametrize("change", CHANGES, ids=[each.__name__ for each in CHANGES])
@pytest.mark.parametrize("resigned", [False, True], ids=["as it was signed", "signed by another key"])
def test_an_altered_file_does_not_hold(node: Node, change: Callable[[dict[str, Any]], None], resigned: bool) -> None:
    value = json.loads(node.patient_view.file("accesses", "p1", PORTAL))
    change(value)
    if resigned:
        key = PrivateKey.generate()
        value.pop("sig")
        value["key"] = key.public_key.key_id
        value["sig"] = key.sign(canonical.dump(value)).hex()
    with pytest.raises(AnchorError):
        patient_file.check(canonical.dump(value), trust(node), minimum="committed")


def test_the_institution_itself_cannot_swap_a_record(node: Node) -> None:
    """Signed anew with the institution's own key: the receipts still speak of the records as they were logged."""
    value = json.loads(node.patient_view.file("accesses", "p1", PORTAL))
    alter(value)
    value.pop("sig")
    value["sig"] = node.signer.sign.sign(canonical.dump(value)).hex()
    with pytest.raises(AnchorError):
        patient_file.check(canonical.dump(value), trust(node), minimum="committed")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b'{"v":1}', b"\xff" * 10, b"x" * 100],
    ids=["empty", "object", "list", "fields", "bytes", "text"],
)
def test_what_is_no_file_is_said_to_be_none(node: Node, content: bytes) -> None:
    with pytest.raises(AnchorError):
        patient_file.check(content, trust(node))


def test_nothing_is_kept_of_a_stranger(node: Node) -> None:
    for kind in ("accesses", "records"):
        with pytest.raises(NotFound):
            node.patient_view.file(kind, "nobody", PORTAL)  # type: ignore[arg-type]


def test_the_trail_outlives_the_record(node: Node) -> None:
    node.erasure.erase("Patient/p1", "patient-request")
    erased = [each for each in node.patient_view.report("p1", PORTAL) if each.what == "110110"]
    assert len(erased) == 1
    assert node.patient_view.file("accesses", "p1", PORTAL)
    with pytest.raises(NotFound):
        node.patient_view.file("records", "p1", PORTAL)


# --- corrections


def test_a_correction_is_asked_for_and_answered(node: Node) -> None:
    portal, officer = client(node, "portal"), client(node, "privacy-officer")
    body = json.dumps({"about": "Observation/o1", "text": "单位有误"}, ensure_ascii=False)
    made = portal.post("/patients/v1/p1/corrections", data=body)
    assert made.status_code == 201, made.text
    task = json.loads(made.data)
    get_fhir_model_class("Task").model_validate(task)
    assert [each.id for each in node.patient_view.corrections("p1")] == [task["id"]]
    reply = json.dumps({"outcome": "completed", "note": "已在检验系统更正"}, ensure_ascii=False)
    assert portal.post(f"/patients/v1/corrections/{task['id']}", data=reply).status_code == 403
    done = officer.post(f"/patients/v1/corrections/{task['id']}", data=reply)
    assert json.loads(done.data)["status"] == "completed"
    assert node.patient_view.corrections() == []
    assert officer.post(f"/patients/v1/corrections/{task['id']}", data=reply).status_code == 409
    assert {"create", "update"} <= {
        access_of(each.resource()) and each.resource()["subtype"][0]["code"]
        for each in node.records.of_subject("node", ["AuditEvent"])
    }


@pytest.mark.parametrize(
    ("patient", "about", "text", "error"),
    [
        pytest.param("p1", "Observation/none", "x", NotFound, id="no such record"),
        pytest.param("p2", "Observation/o1", "x", NotFound, id="another patient's record"),
        pytest.param("p1", "Observation/o1", " ", InvalidRequest, id="without a word"),
        pytest.param("p1", "Observation/o1", "x" * 5000, InvalidRequest, id="too long"),
    ],
)
def test_corrections_that_make_no_sense(node: Node, patient: str, about: str, text: str, error: Any) -> None:
    with pytest.raises(error):
        node.patient_view.request_correction(patient, about, text, PORTAL)


def test_only_corrections_are_answered_here(node: Node) -> None:
    store(node, "p1", {
        "resourceType": "Task", "id": "t1", "status": "requested", "intent": "order",
        "for": {"reference": "Patient/p1"}, "code": {"coding": [{"code": "emergency-access-review"}]},
    })  # fmt: skip
    with pytest.raises(NotFound):
        node.patient_view.answer_correction("t1", "completed", "x", PORTAL)
    task = node.patient_view.request_correction("p1", "Observation/o1", "x", PORTAL)
    with pytest.raises(InvalidRequest):
        node.patient_view.answer_correction(task.id, "perhaps", "x", PORTAL)  # type: ignore[arg-type]
    node.patient_view.answer_correction(task.id, "rejected", "记录无误", PORTAL)
    with pytest.raises(Conflict):
        node.patient_view.answer_correction(task.id, "rejected", "x", PORTAL)


# --- the commands


def test_the_commands(node: Node, tmp_path: Path) -> None:
    home, runner = node.settings.home, CliRunner()

    def run(*arguments: str, code: int = 0, at: bool = True) -> str:
        done = runner.invoke(yiqiao, ["patient", *arguments, *(["--home", str(home)] if at else [])])
        assert done.exit_code == code, (done.output, done.exception)
        return done.output

    (tmp_path / "trust.json").write_bytes(trust(node))
    files = ["--page", str(tmp_path / "a.html"), "--out", str(tmp_path / "a.json")]
    listed = run("accesses", "--patient", "Patient/p1", *files)
    assert "Consent/c1" in listed
    assert "访问记录" in (tmp_path / "a.html").read_text("utf-8")
    assert json.loads(run("accesses", "--patient", "Patient/p1", "--json"))[-1]["purposes"] == ["TREAT"]
    run("export", "--patient", "Patient/p1", "--out", str(tmp_path / "r.json"))
    options = ["--trust", str(tmp_path / "trust.json"), "--minimum", "committed"]
    for name, count in (("a", "4 accesses"), ("r", "2 records")):
        assert count in run("check", str(tmp_path / f"{name}.json"), *options, at=False)
    task = run("correct", "--patient", "Patient/p1", "--about", "Observation/o1", "--text", "单位有误").strip()
    assert "已答复" in run("answer", task, "--outcome", "rejected", "--note", "记录无误")
    run("accesses", "--patient", "somebody", code=2)
