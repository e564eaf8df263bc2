"""FHIR written to a node as it runs: over real HTTP, through the inbox and a worker process, and read back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from bridge.tokens import create_token
from tests.e2e.test_serving_node import Serving, free_ports
from tests.node_home import make_home

MRN = "urn:oid:2.16.156.10011.1.13"
JSON = "application/fhir+json"


class Clients:
    """A source that writes, and a reader."""

    def __init__(self, node: Serving, writer: str, reader: str) -> None:
        self.node = node
        self.tokens = {"fhir-sender": writer, "reader": reader}

    def call(
        self, method: str, path: str, body: Any = None, role: str = "fhir-sender", **headers: str
    ) -> requests.Response:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {self.tokens[role]}", "Content-Type": JSON, **headers}
        given = {name.replace("_", "-"): value for name, value in given.items()}
        return requests.request(method, self.node.base + path, data=raw, headers=given, timeout=30)

    def stored(self, location: str) -> dict[str, Any]:
        path = location.removeprefix(self.node.base)
        found: dict[str, Any] = self.call("GET", path, role="reader").json()
        return found


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    http, mllp = free_ports(2)
    settings = make_home(tmp_path_factory.mktemp("fhir") / "home", http_port=http, mllp_port=mllp)
    file, now = settings.path(settings.security.tokens), int(time.time())
    tokens = [create_token(file, name=role, role=role, now=now)[1] for role in ("fhir-sender", "reader", "sender")]
    node = Serving(settings, tokens[0])
    node.start()
    made = Clients(node, tokens[0], tokens[1])
    made.tokens["sender"] = tokens[2]
    yield made
    node.end()


def patient(number: str, own: str = "", **more: Any) -> dict[str, Any]:
    made = {"resourceType": "Patient", "identifier": [{"system": MRN, "value": number}], "gender": "female", **more}
    return {**made, "id": own} if own else made


def observation(subject: str, **more: Any) -> dict[str, Any]:
    made = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": subject}}
    return {**made, **more}


def test_a_resource_is_created_and_updated_under_one_id(clients: Clients) -> None:
    first = clients.call("POST", "/fhir/Patient", patient("C1"))
    assert (first.status_code, first.content) == (201, b"")
    again = clients.call("POST", "/fhir/Patient", patient("C1", gender="male"))
    assert again.status_code == 200
    assert again.headers["Location"] == first.headers["Location"].replace("_history/1", "_history/2")
    assert again.headers["ETag"] == 'W/"2"'
    assert clients.stored(again.headers["Location"])["gender"] == "male"


def test_a_sources_own_id_finds_its_resource_again(clients: Clients) -> None:
    put = clients.call("PUT", "/fhir/Patient/p-77", patient("C2", "p-77"))
    assert put.status_code == 201
    sent = clients.call("PUT", "/fhir/Observation/o-1", observation("Patient/p-77", id="o-1"))
    assert sent.status_code == 201
    stored = clients.stored(sent.headers["Location"])
    assert stored["subject"]["reference"] == "/".join(put.headers["Location"].split("/")[-4:-2])
    assert stored["id"] != "o-1"


def test_a_transaction_answers_for_each_entry(clients: Clients) -> None:
    urn = "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"
    entries = [
        {"fullUrl": urn, "resource": patient("C3"), "request": {"method": "POST", "url": "Patient"}},
        {"resource": observation(urn), "request": {"method": "POST", "url": "Observation"}},
    ]
    answer = clients.call("POST", "/fhir", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert answer.status_code == 200
    told = answer.json()
    assert told["type"] == "transaction-response"
    assert [each["response"]["status"] for each in told["entry"]] == ["201 Created", "201 Created"]
    places = [each["response"]["location"] for each in told["entry"]]
    assert clients.stored(places[1])["subject"]["reference"] in places[0]


@pytest.mark.parametrize("kind", ["collection", "document"])
def test_a_collection_and_a_document_are_taken_apart(clients: Clients, kind: str) -> None:
    entries = [{"fullUrl": "https://emr.example/Patient/9", "resource": patient(f"C4-{kind}", "9")},
               {"resource": observation("Patient/9", valueString=kind)}]  # fmt: skip
    answer = clients.call("POST", "/fhir", {"resourceType": "Bundle", "type": kind, "entry": entries})
    assert [each["response"]["status"] for each in answer.json()["entry"]] == ["201 Created", "201 Created"]


def test_a_conditional_creation_creates_once(clients: Clients) -> None:
    condition = {"If_None_Exist": f"identifier={MRN}|C5"}
    first = clients.call("POST", "/fhir/Patient", patient("C5"), **condition)
    second = clients.call("POST", "/fhir/Patient", patient("C5", gender="male"), **condition)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.headers["Location"] == second.headers["Location"]
    assert clients.stored(first.headers["Location"])["gender"] == "female"


def test_of_many_conditional_creations_at_once_one_creates(clients: Clients) -> None:
    def create(number: int) -> requests.Response:
        sent = patient("C12", birthDate=f"19{number:02}-01-01")
        return clients.call("POST", "/fhir/Patient", sent, If_None_Exist=f"identifier={MRN}|C12")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(10, 26)))
    assert sorted(each.status_code for each in answers) == [200] * 15 + [201]
    assert len({each.headers["Location"] for each in answers}) == 1


def test_if_none_match_puts_only_what_is_new(clients: Clients) -> None:
    calls = [clients.call("PUT", "/fhir/Patient/n1", patient("C6", "n1", gender=each), If_None_Match="*")
             for each in ("female", "male")]  # fmt: skip
    assert [each.status_code for each in calls] == [201, 200]
    assert clients.stored(calls[1].headers["Location"])["gender"] == "female"


def test_a_conditional_reference_finds_the_stored_patient(clients: Clients) -> None:
    known = clients.call("POST", "/fhir/Patient", patient("C7")).headers["Location"]
    sent = clients.call("POST", "/fhir/Observation", observation(f"Patient?identifier={MRN}|C7"))
    assert sent.status_code == 201
    assert clients.stored(sent.headers["Location"])["subject"]["reference"] in known
    lost = clients.call("POST", "/fhir/Observation", observation(f"Patient?identifier={MRN}|nobody"))
    assert lost.status_code == 412


@pytest.mark.parametrize(
    ("body", "status", "expression"),
    [
        pytest.param(patient("S", birthDate="SECRET"), 422, "Patient.birthDate", id="not valid"),
        pytest.param({"resourceType": "AuditEvent"}, 400, "AuditEvent", id="a type that nobody writes"),
        pytest.param(observation("Patient/SECRET"), 422, "Observation", id="a patient that is not known"),
        pytest.param(b'{"resourceType":"Patient","a":1,"a":2}', 400, None, id="a property twice"),
        pytest.param(b"SECRET", 400, None, id="no JSON"),
    ],
)
def test_bad_input_is_answered_with_its_fhirpath_and_no_data(
    clients: Clients, body: Any, status: int, expression: str | None
) -> None:
    kind = body.get("resourceType", "Patient") if isinstance(body, dict) else "Patient"
    answer = clients.call("POST", f"/fhir/{kind}", body)
    [issue] = answer.json()["issue"]
    assert answer.status_code == status
    assert issue.get("expression", [None]) == [expression]
    assert "SECRET" not in answer.text


def test_a_batch_keeps_what_is_good(clients: Clients) -> None:
    entries = [{"resource": each, "request": {"method": "POST", "url": "Patient"}}
               for each in (patient("C8"), patient("C9", birthDate="x"))]  # fmt: skip
    told = clients.call("POST", "/fhir", {"resourceType": "Bundle", "type": "batch", "entry": entries}).json()
    assert told["type"] == "batch-response"
    assert [each["response"]["status"][:3] for each in told["entry"]] == ["201", "422"]
    assert told["entry"][1]["response"]["outcome"]["issue"][0]["expression"] == ["Bundle.entry[1].resource.birthDate"]


def test_who_does_not_wait_asks_later(clients: Clients) -> None:
    answer = clients.call("POST", "/fhir/Patient", patient("C10"), Prefer="respond-async")
    if answer.status_code == 202:
        place = answer.headers["Content-Location"].removeprefix(clients.node.base)
        deadline = time.monotonic() + 20
        while (answer := clients.call("GET", place)).status_code == 202 and time.monotonic() < deadline:
            time.sleep(0.1)
    assert answer.status_code in (200, 201)


@pytest.mark.parametrize("role", ["reader", "sender"])
def test_writing_is_a_permission_of_its_own(clients: Clients, role: str) -> None:
    for method, path in (
        ("POST", "/fhir"),
        ("POST", "/fhir/Patient"),
        ("PUT", "/fhir/Patient/1"),
        ("GET", "/fhir/_async/1"),
    ):
        assert clients.call(method, path, patient("N1"), role=role).status_code == 403
    assert clients.call("GET", "/fhir/Patient").status_code == 403  # and who writes reads nothing


def test_what_came_by_hl7_is_the_same_patient(clients: Clients) -> None:
    message = (
        f"MSH|^~\\&|HIS|A|||20260101080000||ADT^A28|X1|P|2.4||||||UNICODE UTF-8\r"
        f"PID|1||C11^^^&{MRN.removeprefix('urn:oid:')}&ISO||甲\r"
    )
    assert b"|AA|" in clients.node.send(message.encode())
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = clients.call("GET", f"/fhir/Patient?identifier={MRN}|C11", role="reader").json()
        if found.get("entry"):
            break
        time.sleep(0.1)
    assert clients.call("POST", "/fhir/Patient", patient("C11")).status_code == 200
