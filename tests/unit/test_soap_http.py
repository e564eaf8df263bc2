"""/soap: kept before it is answered, once; refusals name their place; who may send."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from lxml import etree

from bridge.app import create_app
from bridge.errors import Overloaded
from bridge.tokens import create_token
from bridge.wiring import Node, build_node
from tests.node_home import make_home
from tests.unit.test_action_messages import PATIENT, request, soap

V3 = "{urn:hl7-org:v3}"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    settings = make_home(tmp_path_factory.mktemp("soap") / "home", http_port=18085)
    with build_node(settings) as built:
        yield built


@pytest.fixture(scope="module")
def token(node: Node) -> str:
    _, text = create_token(node.settings.path("tokens.json"), name="platform", role="sender", now=0)
    return text


class Sender:
    """Posts messages, and reads the acknowledgement out of the answer."""

    def __init__(self, node: Node, token: str) -> None:
        self.client = create_app(node).test_client()
        self.headers = {"Authorization": f"Bearer {token}"}

    def post(self, text: str | bytes, content_type: str = "text/xml; charset=utf-8", **named: Any) -> Any:
        body = text.encode() if isinstance(text, str) else text
        return self.client.post("/soap", data=body, content_type=content_type, headers=self.headers, **named)

    def acknowledged(self, answer: Any) -> tuple[str, str, str]:
        """The code, whose message, and where something is wrong."""
        envelope = etree.fromstring(answer.data)
        inner = etree.fromstring("".join(envelope.itertext()).encode())
        code = inner.find(f"{V3}acknowledgement").get("typeCode")
        message = inner.find(f".//{V3}targetMessage/{V3}id/{V3}item").get("extension")
        return code, message, inner.findtext(f".//{V3}location", "")


@pytest.fixture
def sender(node: Node, token: str) -> Sender:
    return Sender(node, token)


def states(node: Node) -> dict[str, int]:
    return dict(node.inbox.counts())


def test_a_message_is_kept_and_answered(sender: Sender, node: Node) -> None:
    answer = sender.post(soap(request("PatientInfoRegister", PATIENT, "m1")))
    assert (answer.status_code, answer.content_type) == (200, "text/xml; charset=UTF-8")
    assert sender.acknowledged(answer) == ("AA", "m1", "")
    kept = node.inbox.show(int(answer.headers["X-Message-Number"])).entry
    assert (kept.source, kept.format, kept.event, kept.control_id) == ("soap", "action", "PatientInfoRegister", "m1")
    while node.ingest.process(10):
        pass
    detail = node.inbox.show(kept.id)
    assert detail.entry.state == "stored"
    assert any(version.startswith("Patient/") for version in detail.versions)
    stored = node.records.read("Patient", next(v for v in detail.versions if v.startswith("Patient/")).split("/")[1])
    assert stored.lineage.adapter == "action/1.0"


def test_a_stay_from_admission_to_discharge_is_one_encounter(sender: Sender, node: Node) -> None:
    visit = "<visit_no>ZY9</visit_no><patient_no>00012</patient_no>"
    steps = (
        ("InPatientInfoAdd", "<start_at>20260101080000</start_at><ward_code>W1</ward_code><bed_no>12</bed_no>"
                             "<reason>胸痛</reason><attending_code>1001</attending_code>"),
        ("TransferInfoAdd", "<moved_at>20260102090000</moved_at><ward_code>W2</ward_code><bed_no>5</bed_no>"
                            "<prior_ward_code>W1</prior_ward_code><prior_bed_no>12</prior_bed_no>"),
        ("DischargeInfoAdd", "<end_at>20260103100000</end_at><ward_code>W2</ward_code><bed_no>5</bed_no>"),
    )  # fmt: skip
    for number, (action, columns) in enumerate(steps):
        body = f"<Encounter>{visit}{columns}</Encounter>"
        assert sender.acknowledged(sender.post(soap(request(action, body, f"stay-{number}"))))[0] == "AA"
    while node.ingest.process(10):
        pass
    newest = node.inbox.list(limit=1)[0]
    reference = next(each for each in node.inbox.show(newest.id).versions if each.startswith("Encounter/"))
    encounter = node.records.read("Encounter", reference.split("/")[1]).resource()
    assert encounter["status"] == "finished"
    assert encounter["period"] == {"start": "2026-01-01T08:00:00+08:00", "end": "2026-01-03T10:00:00+08:00"}
    assert encounter["reasonCode"] == [{"text": "胸痛"}]
    assert encounter["participant"]
    stays = [(each["status"], each["period"].get("start"), each["period"].get("end")) for each in encounter["location"]]
    assert stays == [
        ("completed", "2026-01-01T08:00:00+08:00", "2026-01-02T09:00:00+08:00"),
        ("completed", "2026-01-02T09:00:00+08:00", "2026-01-03T10:00:00+08:00"),
    ]


def test_the_same_message_again_gets_the_same_answer_and_creates_nothing(sender: Sender, node: Node) -> None:
    text = soap(request("PatientInfoRegister", PATIENT, "m2"))
    first = sender.post(text)
    before = states(node)
    again = sender.post(text)
    assert again.data == first.data
    assert states(node) == before


def test_old_clients_speak_gbk_and_soap_12_and_are_answered_so(sender: Sender) -> None:
    text = '<?xml version="1.0" encoding="GBK"?>' + soap(
        request("PatientInfoRegister", PATIENT, "m3"), "", "http://www.w3.org/2003/05/soap-envelope"
    )
    answer = sender.post(text.encode("gbk"), "application/soap+xml")
    assert answer.content_type == "application/soap+xml; charset=GBK"
    assert sender.acknowledged(answer)[0] == "AA"


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        pytest.param(request("PatientInfoRegister", "<Patient><name>x</name></Patient>", "e1"), "AE",
                     "Body/Patient[1]/patient_no", id="a required column is missing"),
        pytest.param(request("PatientInfoQuery", PATIENT, "e2"), "AE", "", id="no such action"),
        pytest.param(request("PatientInfoRegister", PATIENT, ""), "AE", "Header/MessageId", id="no message id"),
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_converted_is_kept_and_answered_ae(
    sender: Sender, node: Node, text: str, code: str, place: str
) -> None:
    before = states(node).get("failed", 0)
    answer = sender.post(soap(text))
    assert answer.status_code == 200
    assert sender.acknowledged(answer)[::2] == (code, place)
    assert states(node)["failed"] == before + 1


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"<x/>", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', b"\xff\xff"], ids=repr
)
def test_what_is_no_envelope_is_kept_and_answered_by_a_fault(sender: Sender, node: Node, body: bytes) -> None:
    before = states(node).get("failed", 0)
    answer = sender.post(body)
    assert answer.status_code == 500
    assert b"Fault" in answer.data
    assert b"s:Client" in answer.data
    assert states(node)["failed"] == before + 1


def test_what_could_not_be_kept_is_to_be_sent_again(
    sender: Sender, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Overloaded

    monkeypatch.setattr(node.inbox, "accept", full)
    answer = sender.post(soap(request("PatientInfoRegister", PATIENT, "m9")))
    assert answer.status_code == 503
    assert b"s:Server" in answer.data


def test_a_token_may_come_as_a_password(sender: Sender, token: str) -> None:
    credentials = base64.b64encode(f"platform:{token}".encode()).decode()
    sender.headers = {"Authorization": f"Basic {credentials}"}
    assert sender.post(soap(request("PatientInfoRegister", PATIENT, "m4"))).status_code == 200
    for wrong in ("", "Basic", "Basic !!!", "Basic " + base64.b64encode(b"platform:wrong").decode(), "Bearer wrong"):
        sender.headers = {"Authorization": wrong}
        assert sender.post(soap(request("PatientInfoRegister", PATIENT, "m5"))).status_code == 401


def test_a_reader_may_not_send(node: Node, sender: Sender) -> None:
    _, text = create_token(node.settings.path("tokens.json"), name="app", role="reader", now=0)
    sender.headers = {"Authorization": f"Bearer {text}"}
    assert sender.post(soap(request("PatientInfoRegister", PATIENT, "m6"))).status_code == 403


def test_sources_are_not_made_up(sender: Sender) -> None:
    answer = sender.post(soap(request("PatientInfoRegister", PATIENT, "m7")), query_string={"source": "other"})
    assert answer.status_code == 400


def test_other_types_are_refused(sender: Sender) -> None:
    assert sender.post("{}", "application/json").status_code == 415


def test_the_wsdl_says_where_and_how(sender: Sender, node: Node) -> None:
    answer = sender.client.get("/soap?wsdl")
    assert answer.status_code == 200
    root = etree.fromstring(answer.data)
    addresses = {each.get("location") for each in root.iter("{*}address")}
    assert addresses == {f"{node.settings.node.endpoint}/soap"}
    parts = {each.get("name") for each in root.iter("{http://www.w3.org/2001/XMLSchema}element")}
    assert {"invoke", "action", "message", "invokeResult"} <= parts
