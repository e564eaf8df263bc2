"""Ingest: what a sender is answered, and what becomes of a message."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from anchor.gm import sm3
from bridge.errors import Conflict, DatabaseUnavailable, IngestError, Overloaded, StorageError, VersionConflict
from bridge.process_identity import process_name
from bridge.services.identity import IdentityService, subject_of
from bridge.services.ingest import IngestService, acknowledgement_code
from bridge.storage.database import write_transaction
from bridge.storage.erasure import erase_subject
from bridge.storage.inbox import Inbox, InboxFilter
from bridge.storage.search_query import SearchQuery
from fhir_adapters import ConversionResult, Issue, SourceProfile, hl7v2
from fhir_adapters.errors import ValidationError
from tests.stores import Stores, observation, patient

MOMENT = datetime(2026, 5, 1, 8, 30)  # noqa: DTZ001 - as a driver returns it
PROFILES = {"his": SourceProfile(name="his"), "lis": SourceProfile(name="lis")}


def message(number: int = 1, mrn: str = "100", event: str = "ADT^A01", more: str = "", enhanced: str = "") -> bytes:
    lines = [
        f"MSH|^~\\&|HIS|HOSP|YIQIAO|NODE|2026050108300{number % 10}||{event}|C{number}|P|2.5"
        f"|||{enhanced}|||UNICODE UTF-8",
        "EVN||20260501083000",
        f"PID|1||{mrn}^^^HOSP^MR||张^三丰||19900517|M",
        "PV1|1|I|W1^101^1",
    ]
    return ("\r".join(line for line in lines if line[:3] != more) + "\r").encode()


def service(stores: Stores, converter: Callable[..., ConversionResult] | None = None) -> IngestService:
    return IngestService(stores.engine, stores.inbox, stores.records, PROFILES, stores.clock, converter=converter)


def test_a_message_is_kept_answered_converted_and_stored(stores: Stores) -> None:
    ingest = service(stores)
    answer = ingest.receive("his", message())
    assert (answer.code, answer.accepted, answer.replayed) == ("AA", True, False)
    assert b"MSA|AA|C1" in answer.ack
    done = ingest.process(10)
    assert (done.claimed, done.stored, done.refused) == (1, 1, 0)
    assert not ingest.process(10)
    detail = stores.inbox.show(answer.id)
    assert detail.entry.state == "stored"
    assert done.versions == len(detail.versions) == stores.scalar("SELECT count(*) FROM outbox")
    stored = stores.records.read("Patient", _patient_id(stores))
    assert (stored.lineage.source, stored.lineage.source_digest) == ("his", sm3(message()))
    assert stored.lineage.adapter == hl7v2.ADAPTER
    assert stored.subject == f"Patient/{stored.id}"


def _patient_id(stores: Stores) -> str:
    return str(stores.scalar("SELECT id FROM resource WHERE type = 'Patient'"))


def test_records_of_a_message_are_sealed_for_its_patient(stores: Stores) -> None:
    ingest = service(stores)
    ingest.receive("his", message())
    ingest.process(10)
    reference = f"Patient/{_patient_id(stores)}"
    types = {each.type for each in stores.records.of_subject(reference)}
    assert {"Patient", "Encounter", "Provenance"} <= types
    assert {each.type for each in stores.records.of_subject("node")} <= {"Organization", "Location", "Practitioner"}


def test_a_redelivery_and_a_rerun_create_nothing(stores: Stores) -> None:
    ingest = service(stores)
    first = ingest.receive("his", message())
    ingest.process(10)
    stores.clock.forward(5)
    again = ingest.receive("his", message())
    assert (again.ack, again.code, again.replayed, again.id) == (first.ack, "AA", True, first.id)
    stores.inbox.rerun(first.id)
    done = ingest.process(10)
    assert (done.stored, done.versions) == (1, 0)


def test_the_same_control_id_with_other_content_is_taken_and_flagged(stores: Stores) -> None:
    ingest = service(stores)
    ingest.receive("his", message(1))
    other = ingest.receive("his", message(1, mrn="200"))
    assert (other.code, other.conflict, other.replayed) == ("AA", True, False)
    assert ingest.process(10).stored == 2


@pytest.mark.parametrize(
    ("raw", "code", "state_code", "location"),
    [
        pytest.param(b"", "AE", "malformed", "MSH", id="nothing"),
        pytest.param(b"PID|1||100", "AE", "malformed", "MSH", id="no header"),
        pytest.param(b"\xff\xfe\xff\xff\x00\x80", "AE", None, None, id="bytes that are no text"),
        pytest.param(message(event=""), "AE", "malformed", "MSH-9", id="no type"),
        pytest.param(message(event="QRY^A19"), "AR", "unsupported", "MSH-9", id="unknown type"),
        pytest.param(message(event="ADT^Z99"), "AR", "unsupported", "MSH-9", id="unknown event"),
        pytest.param(message(more="PID"), "AE", "malformed", "PID", id="no patient"),
        pytest.param(message(event="ADT^A40"), "AE", "malformed", "MRG", id="a merge without the merged"),
        pytest.param(message(event="ORU^R01", more="PID"), "AE", "malformed", "PID", id="results of nobody"),
        pytest.param(message(event="QRY^A19", enhanced="AL"), "CR", "unsupported", "MSH-9", id="enhanced mode"),
    ],
)
def test_what_cannot_be_taken_is_answered_with_its_place_and_kept(
    stores: Stores, raw: bytes, code: str, state_code: str | None, location: str | None
) -> None:
    ingest = service(stores)
    answer = ingest.receive("his", raw)
    assert (answer.code, acknowledgement_code(answer.ack), answer.accepted) == (code, code, False)
    entry = stores.inbox.show(answer.id).entry
    assert entry.state == "failed"
    if state_code:
        assert (entry.code, entry.location) == (state_code, location)
    assert "张".encode() not in answer.ack
    again = ingest.receive("his", raw)
    assert (again.replayed, again.code, again.ack) == (True, code, answer.ack)
    assert not ingest.process(10)


def test_enhanced_mode_is_answered_by_commit_codes(stores: Stores) -> None:
    answer = service(stores).receive("his", message(enhanced="AL"))
    assert (answer.code, answer.accepted) == ("CA", True)


def test_a_refused_message_can_be_taken_after_a_fix(stores: Stores) -> None:
    ingest = service(stores)
    answer = ingest.receive("his", message(more="PID"))
    stores.inbox.rerun(answer.id)
    assert ingest.process(10).refused == 1
    fixed = service(stores, lambda raw, format, profile: bundle(patient()))
    assert stores.inbox.rerun_all(InboxFilter("failed")).messages == 1
    assert fixed.process(10).stored == 1


@pytest.mark.parametrize("fault", [Overloaded(), DatabaseUnavailable()])
def test_what_could_not_be_kept_is_answered_with_try_again(stores: Stores, fault: Exception) -> None:
    class Broken(Inbox):
        def accept_later(self, delivery: Any) -> Any:
            raise fault

    inbox = Broken(stores.engine, stores.keyring, stores.clock)
    ingest = IngestService(stores.engine, inbox, stores.records, PROFILES, stores.clock)
    answer = ingest.receive("his", message())
    assert (answer.code, answer.id, answer.accepted) == ("AE", None, False)
    assert stores.inbox.counts()["received"] == 0


class Mapping:
    """A converter with a fault for some messages; a message says the patient's family name in PID-5."""

    def __init__(self) -> None:
        self.broken: set[str] = set()

    def __call__(self, raw: bytes, format: str, profile: SourceProfile) -> ConversionResult:
        control_id = raw.decode().split("|")[9]
        if control_id in self.broken:
            raise ValidationError("not valid", "Patient: gender")
        family = raw.decode().split("PID|1||")[1].split("|")[2].split("^")[0]
        provenance = {"resourceType": "Provenance", "id": control_id, "target": [{"reference": "Patient/p1"}]}
        return bundle(patient(name=[{"family": family}]), provenance)


def family_names(stores: Stores) -> list[str]:
    """What the patient was called, oldest first."""
    history = stores.records.history("Patient", "p1", count=100).entries
    return [each.resource()["name"][0]["family"] for each in reversed(history)]


def named(number: int, family: str) -> bytes:
    return message(number).replace("张".encode(), family.encode())


def test_an_older_message_run_again_replaces_nothing_that_a_later_one_wrote(stores: Stores) -> None:
    mapping = Mapping()
    ingest = service(stores, mapping)
    mapping.broken = {"C1"}
    older = ingest.receive("his", named(1, "旧"))
    ingest.receive("his", named(2, "新"))
    while ingest.process(10):
        pass
    assert stores.inbox.counts()["failed"] == 1
    mapping.broken = set()
    stores.inbox.rerun(older.id)
    assert ingest.process(10).stored == 1
    assert family_names(stores) == ["新"]
    detail = stores.inbox.show(older.id)
    assert detail.versions == ("Patient/p1/_history/1", "Provenance/C1/_history/1")
    assert [(each["code"], each["location"]) for each in detail.issues] == [("outdated", "Patient/p1")]
    assert stores.records.read("Provenance", "C1").version == 1, "what only the older message says is stored"


def test_a_message_run_again_replaces_what_it_wrote_itself(stores: Stores) -> None:
    mapping = Mapping()
    ingest = service(stores, mapping)
    only = ingest.receive("his", named(1, "错"))
    ingest.process(10)
    mended = service(stores, lambda *_: bundle(patient(name=[{"family": "对"}])))
    stores.inbox.rerun(only.id)
    assert mended.process(10).stored == 1
    assert family_names(stores) == ["错", "对"]


def test_a_later_message_that_said_the_same_is_the_last_word_too(stores: Stores) -> None:
    """1 says A, 2 fails, 3 says A again and makes no version: 2, run again, must not bring B back."""
    mapping = Mapping()
    ingest = service(stores, mapping)
    mapping.broken = {"C2"}
    ids = [ingest.receive("his", named(number, family)).id for number, family in ((1, "甲"), (2, "乙"), (3, "甲"))]
    while ingest.process(10):
        pass
    mapping.broken = set()
    stores.inbox.rerun(ids[1])
    ingest.process(10)
    assert family_names(stores) == ["甲"]
    stores.inbox.rerun(ids[0])
    assert ingest.process(10).stored == 1
    assert [each["code"] for each in stores.inbox.show(ids[0]).issues] == [], "it says what stands there"


def test_failed_messages_of_one_patient_are_run_again_in_their_order(stores: Stores) -> None:
    mapping = Mapping()
    ingest = service(stores, mapping)
    mapping.broken = {"C1", "C2", "C3"}
    for number, family in ((1, "甲"), (2, "乙"), (3, "丙")):
        ingest.receive("his", named(number, family))
    while ingest.process(10):
        pass
    mapping.broken = set()
    assert stores.inbox.rerun_all().messages == 3
    while ingest.process(10):
        pass
    assert family_names(stores) == ["甲", "乙", "丙"]


def admitted(number: int, mrn: str, family: str) -> bytes:
    return message(number, mrn).replace("张".encode(), family.encode())


def merged(number: int, survivor: str, prior: str) -> bytes:
    """ADT^A40: ``prior`` is merged into ``survivor``."""
    lines = message(number, survivor, "ADT^A40").decode().split("\r")[:3]
    return "\r".join([*lines, f"MRG|{prior}^^^HOSP^MR", ""]).encode()


def people(stores: Stores) -> dict[str, dict[str, Any]]:
    """The stored patients by their hospital number."""
    found = stores.records.search(SearchQuery("Patient", count=100)).entries
    return {each.resource()["identifier"][0]["value"]: each.resource() for each in found}


def test_a_merge_says_one_thing_about_the_prior_record_and_leaves_the_rest(stores: Stores) -> None:
    ingest = service(stores)
    for each in (admitted(1, "100", "王"), admitted(2, "200", "李"), merged(3, "200", "100")):
        ingest.receive("his", each)
        ingest.process(10)
    prior, survivor = people(stores)["100"], people(stores)["200"]
    assert (prior["active"], prior["name"][0]["family"], prior["birthDate"]) == (False, "王", "1990-05-17")
    assert prior["link"] == [{"other": {"reference": f"Patient/{survivor['id']}"}, "type": "replaced-by"}]
    assert survivor["link"] == [{"other": {"reference": f"Patient/{prior['id']}"}, "type": "replaces"}]
    ingest.receive("his", admitted(4, "200", "理"))
    ingest.process(10)
    told_later = people(stores)["200"]
    assert (told_later["name"][0]["family"], told_later["link"]) == ("理", survivor["link"]), "an update parts nobody"


def test_a_merge_run_again_late_still_joins_the_two(stores: Stores) -> None:
    adapter = service(stores)
    broken = service(stores, lambda *_: (_ for _ in ()).throw(ValidationError("not valid", "MRG-1")))
    adapter.receive("his", admitted(1, "100", "王"))
    adapter.process(10)
    late = broken.receive("his", merged(2, "200", "100"))
    broken.process(10)
    for number, family in ((3, "汪"), (4, "旺")):
        adapter.receive("his", admitted(number, "100", family))
        adapter.process(10)
    stores.inbox.rerun(late.id)
    assert adapter.process(10).stored == 1
    prior = people(stores)["100"]
    assert prior["name"][0]["family"] == "旺"
    assert prior["link"][0]["type"] == "replaced-by"


def test_a_message_stored_late_by_a_slow_process_does_not_undo_a_quicker_one(stores: Stores) -> None:
    """Two sources name one patient differently, so nothing keeps their order but the order of arrival."""
    first = ingest_of_patient(stores, "先")
    second = ingest_of_patient(stores, "后")
    first.receive("his", message(1, mrn="100"))
    second.receive("lis", message(2, mrn="999"))
    [slow] = stores.inbox.claim(process_name("slow"), 1)
    assert second.process(10).stored == 1
    stores.inbox.release([slow])
    assert first.process(10).stored == 1
    assert family_names(stores) == ["后"]


def ingest_of_patient(stores: Stores, family: str) -> IngestService:
    return service(stores, lambda *_: bundle(patient(name=[{"family": family}])))


def test_a_source_without_a_profile_is_refused(stores: Stores) -> None:
    with pytest.raises(IngestError):
        service(stores).receive("nobody", message())


def bundle(*resources: dict[str, Any], issues: tuple[Issue, ...] = ()) -> ConversionResult:
    return ConversionResult({"resourceType": "Bundle", "entry": [{"resource": each} for each in resources]}, issues)


def converter_of(results: dict[str, Any]) -> Callable[..., ConversionResult]:
    """A converter that answers by patient number, with a Bundle or an error."""

    def convert(raw: bytes, format: str, profile: SourceProfile) -> ConversionResult:
        chosen = results.get(raw.decode().split("PID|1||")[1].split("^")[0])
        if isinstance(chosen, Exception):
            raise chosen
        return chosen or bundle(patient("other"))

    return convert


@pytest.mark.parametrize(
    ("poison", "code", "reason"),
    [
        pytest.param(ValidationError("not valid", "Patient: gender"), "invalid", "not valid", id="refused by name"),
        pytest.param(ZeroDivisionError("张三"), "IngestError", "the conversion failed ZeroDivisionError", id="a bug"),
        pytest.param(bundle({"resourceType": "Patient"}), "InvalidRequest", "id is missing or is no FHIR id "
                     "(1 to 64 letters, digits, - and .)", id="no resource"),
        pytest.param(bundle(patient("bad", multipleBirthInteger=1.5)), "CanonicalError", None, id="no canonical form"),
    ],
)  # fmt: skip
def test_a_poison_message_stops_itself_only(stores: Stores, poison: Any, code: str, reason: str | None) -> None:
    ingest = service(stores, converter_of({"100": poison, "200": bundle(patient("p2"))}))
    bad = ingest.receive("his", message(1, "100"))
    for number, mrn in ((2, "100"), (3, "200"), (4, "300")):
        ingest.receive("his", message(number, mrn))
    done = ingest.process(10)
    assert (done.claimed, done.stored, done.refused) == (4, 2, 2), "the patient's next message is as bad"
    entry = stores.inbox.show(bad.id).entry
    assert (entry.state, entry.code) == ("failed", code)
    assert reason is None or entry.reason == reason
    assert "张" not in entry.reason
    assert not ingest.process(10)
    assert stores.records.count("Patient") == 2


def test_issues_and_versions_are_there_for_the_desk(stores: Stores) -> None:
    issue = Issue("warning", "not-mapped", "PID-30", "no mapping reads this field")
    ingest = service(stores, lambda *_: bundle(patient(), observation(), issues=(issue,)))
    answer = ingest.receive("his", message())
    ingest.process(10)
    detail = stores.inbox.show(answer.id)
    assert detail.issues == (issue.as_dict(),)
    assert detail.versions == ("Patient/p1/_history/1", "Observation/o1/_history/1")


@pytest.mark.parametrize("fault", [DatabaseUnavailable(), VersionConflict()], ids=["no database", "lost race"])
def test_a_fault_of_the_node_postpones(stores: Stores, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    ingest = service(stores)
    ingest.receive("his", message())
    with monkeypatch.context() as patched:
        patched.setattr("bridge.services.processing.contested", _raising(fault))
        assert ingest.process(10).postponed == 1
    assert not ingest.process(10)
    stores.clock.forward(2)
    assert ingest.process(10).stored == 1


def _raising(fault: Exception) -> Callable[..., Any]:
    def contested(*_: Any) -> Any:
        raise fault

    return contested


def test_effects_of_a_worker_that_lost_its_lease_are_undone(stores: Stores) -> None:
    def slow(*_: Any) -> ConversionResult:
        stores.inbox.recover("")
        assert len(stores.inbox.claim("another", 10)) == 1
        return bundle(patient())

    ingest = service(stores, slow)
    ingest.receive("his", message())
    done = ingest.process(10)
    assert (done.claimed, done.stored, done.refused) == (1, 0, 0)
    assert stores.records.count() == 0
    assert stores.inbox.counts()["received"] == 1


def test_work_of_a_process_that_is_gone_is_taken_up_at_once(stores: Stores) -> None:
    ingest = service(stores)
    ingest.receive("his", message(1, "100"))
    ingest.receive("his", message(2, "200"))
    machine, _, started, _ = process_name("ingest").split("/")
    stores.inbox.claim(f"{machine}/4194999/{started}/gone", 1)  # above the largest process number
    stores.inbox.claim(process_name("alive"), 1)
    assert ingest.process(10).stored == 1


def erased(stores: Stores) -> IngestService:
    """One patient's message is stored, the patient erased; the service that takes what comes later."""
    ingest = service(stores, lambda *_: bundle(patient()))
    ingest.receive("his", message(1))
    ingest.process(10)
    with write_transaction(stores.engine) as connection:
        erase_subject(connection, stores.keyring, stores.inbox, "Patient/p1")
    return service(stores, lambda *_: bundle(patient(gender="female")))


def kept(stores: Stores) -> list[tuple[str, str, int]]:
    with stores.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT state, code, length(raw) FROM inbox ORDER BY id").all()
    return [(state, code, length) for state, code, length in rows]


def test_a_message_about_an_erased_patient_is_refused_and_not_kept(stores: Stores) -> None:
    ingest = erased(stores)
    answer = ingest.receive("his", message(2))
    assert answer.accepted, "the sender has done its part"
    assert ingest.process(10).refused == 1
    entry = stores.inbox.show(answer.id).entry
    assert (entry.state, entry.code, entry.size) == ("failed", "patient-erased", 0)
    assert "新的患者编号" in entry.reason
    assert kept(stores) == [("stored", "", 0), ("failed", "patient-erased", 0)]
    with stores.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM resource_version").scalar() == 1


def test_a_message_that_was_not_kept_is_not_run_again(stores: Stores) -> None:
    ingest = erased(stores)
    answer = ingest.receive("his", message(2))
    ingest.process(10)
    with pytest.raises(Conflict, match="erased"):
        stores.inbox.rerun(answer.id)


def test_other_patients_go_on_beside_an_erased_one(stores: Stores) -> None:
    ingest = erased(stores)
    ingest.receive("his", message(2, "100"))
    other = service(stores, lambda *_: bundle(patient(id="p2")))
    ingest.process(10)
    other.receive("his", message(3, "200"))
    assert other.process(10).stored == 1


def test_rows_of_a_view_are_kept_once_and_come_back_as_read(stores: Stores) -> None:
    seen: list[Any] = []

    def convert(raw: bytes, format: str, profile: SourceProfile) -> ConversionResult:
        seen.append((format, orjson.loads(raw)))
        return bundle(patient())

    ingest = service(stores, convert)
    row = {
        "patient_id": "1",
        "value": Decimal("0.40"),
        "at": MOMENT,
        "raw": b"\xd5\xc5",
        "none": None,
    }
    first = ingest.receive_rows("his", "V_IOP_LAB", [row], "1")
    assert ingest.receive_rows("his", "V_IOP_LAB", [row], "1").id == first.id
    assert ingest.process(10).stored == 1
    [(format, delivered)] = seen
    assert (format, delivered["view"]) == ("rows", "V_IOP_LAB")
    assert delivered["rows"] == [
        {"patient_id": "1", "value": "0.40", "at": "2026-05-01T08:30:00", "raw": {"base64": "1cU="}, "none": None}
    ]
    assert stores.records.read("Patient", "p1").lineage.adapter == "tabular/1.0"
    with pytest.raises(IngestError):
        ingest.receive_rows("his", "V_IOP_LAB", [{"value": object()}])


def test_rows_of_a_view_become_records(stores: Stores) -> None:
    row = {"row_key": "1", "updated_at": MOMENT, "patient_no": "100", "name": "张三丰", "birth_date": "1990-05-17"}
    ingest = service(stores)
    ingest.receive_rows("his", "V_IOP_PATIENT", [row], "100")
    done = ingest.process(10)
    assert (done.stored, done.refused) == (1, 0)
    assert stores.records.count("Patient") == 1


def test_rows_of_which_nothing_can_be_converted_are_refused_by_name(stores: Stores) -> None:
    ingest = service(stores)
    kept = ingest.receive_rows("his", "V_IOP_PATIENT", [{"row_key": "1", "updated_at": MOMENT}])
    assert ingest.process(10).refused == 1
    detail = stores.inbox.show(kept.id)
    assert detail.entry.state == "failed"
    assert detail.issues[0]["severity"] == "error"
    assert (detail.entry.code, detail.entry.location) == (detail.issues[0]["code"], detail.issues[0]["location"])


def about(element: str, reference: str) -> dict[str, Any]:
    return {"resourceType": "Observation", element: {"reference": reference}}


@pytest.mark.parametrize(
    ("resource", "subject"),
    [
        pytest.param(patient("9"), "Patient/9", id="a patient is its own"),
        pytest.param(observation(), "Patient/p1", id="by subject"),
        pytest.param(about("beneficiary", "Patient/3"), "Patient/3", id="beneficiary"),
        pytest.param(about("subject", "Patient/3/_history/2"), "Patient/3", id="a version"),
        pytest.param(about("subject", "Group/3"), "Patient/d", id="a group is no patient"),
        pytest.param({"resourceType": "Provenance"}, "Patient/d", id="the message's patient"),
        pytest.param({"resourceType": "Organization"}, "node", id="shared"),
    ],
)
def test_whose_key_seals_a_resource(resource: dict[str, Any], subject: str) -> None:
    assert subject_of(resource, "Patient/d") == subject


def test_a_patient_is_found_with_those_merged_into_it(stores: Stores) -> None:
    replaced = [{"other": {"reference": "Patient/p2"}, "type": "replaced-by"}]
    seealso = [
        {"other": {"reference": "Patient/p3"}, "type": "refer"},
        {"other": {"reference": "Patient/p1"}, "type": "replaces"},
    ]
    for each in (patient(link=replaced), patient("p2", link=seealso), patient("p3")):
        stores.put(each, subject=subject_of(each))
    identity = IdentityService(stores.records)
    assert [each.id for each in identity.find("urn:test:mrn", "MRN-p1")] == ["p1"]
    assert identity.subjects("urn:test:mrn", "MRN-p1") == ["Patient/p1", "Patient/p2"]
    assert identity.subjects("urn:test:mrn", "MRN-p3") == ["Patient/p3"]
    assert identity.subjects("urn:test:mrn", "nobody") == []
    assert identity.find("urn:test:mrn", "") == []
    assert [each.type for each in identity.compartment("Patient/p1")] == ["Patient"]


def test_a_report_takes_nothing_away_from_what_admission_said(stores: Stores) -> None:
    full = message(1)
    report = b"\r".join(
        [
            b"MSH|^~\\&|LIS|SITE|YIQIAO|SITE|20260302080000+0800||ORU^R01^ORU_R01|R1|P|2.5.1|||||CHN|UNICODE UTF-8",
            b"PID|1||100^^^HOSP^MR",
            b"OBR|1||L1|CBC^Count^L|||20260302070000+0800||||||||||||||||||F",
            b"OBX|1|NM|WBC^White cells^L||5.10|10*9/L|||||F",
            b"",
        ]
    )
    ingest = service(stores)
    ingest.receive("his", full)
    ingest.process(10)
    before = stores.records.read("Patient", _patient_id(stores))
    ingest.receive("his", report)
    ingest.process(10)
    assert stores.records.read("Patient", _patient_id(stores)) == before
    assert stores.records.count("Observation") == 1


def test_a_postponed_message_holds_its_patient_and_nobody_else(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest = service(stores)
    first = ingest.receive("his", admitted(1, "100", "甲"))
    second = ingest.receive("his", admitted(2, "100", "乙"))
    other = ingest.receive("his", admitted(3, "200", "丙"))
    plan = stores.records.plan

    def broken(writes: Any) -> Any:
        if any(write.arrival == first.id for write in writes):
            raise DatabaseUnavailable
        return plan(writes)

    with monkeypatch.context() as patched:
        patched.setattr(stores.records, "plan", broken)
        done = ingest.process(10)
    assert (done.claimed, done.stored, done.postponed) == (3, 1, 1)
    states = {number: stores.inbox.show(number).entry.state for number in (first.id, second.id, other.id)}
    assert states == {first.id: "received", second.id: "received", other.id: "stored"}
    assert not ingest.process(10), "the second message waits for the first, which waits for its retry"
    stores.clock.forward(2)
    assert ingest.process(10).stored == 2
    assert people(stores)["100"]["name"][0]["family"] == "乙"
    assert stores.scalar("SELECT max(crashes) FROM inbox") == 0, "what was given back was not lost"


@pytest.mark.parametrize(
    ("fault", "states"),
    [
        pytest.param(None, ["stored"] * 6, id="nothing fails"),
        pytest.param(VersionConflict(), ["stored"] * 6, id="a lost race, once"),
        pytest.param(StorageError(), ["stored"] * 6, id="a fault of the transaction, once: each is stored by itself"),
    ],
)
def test_what_is_converted_while_the_last_is_written_keeps_its_order(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, fault: Exception | None, states: list[str]
) -> None:
    monkeypatch.setattr("bridge.services.processing.MESSAGES_PER_TRANSACTION", 2)
    ingest = service(stores)
    numbers = [ingest.receive("his", admitted(number, "100", f"名{number}")).id for number in range(1, 7)]
    apply, faults = stores.records.apply, [fault] if fault else []

    def failing(connection: Any, plan: Any) -> Any:
        if faults:
            raise faults.pop()
        return apply(connection, plan)

    monkeypatch.setattr(stores.records, "apply", failing)
    with ThreadPoolExecutor(1) as committer:
        ingest.commit_with(committer)
        done = ingest.process(10)
    assert (done.claimed, done.stored, done.refused) == (6, 6, 0)
    assert [stores.inbox.show(number).entry.state for number in numbers if number] == states
    versions = stores.records.history("Patient", _patient_id(stores)).entries
    told = [each.resource()["name"][0]["family"] for each in versions]
    assert told == [f"名{number}" for number in range(6, 0, -1)]


def test_the_database_gone_while_a_transaction_is_written_holds_up_its_patients_only(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.services.processing.MESSAGES_PER_TRANSACTION", 1)
    ingest = service(stores)
    first = ingest.receive("his", admitted(1, "100", "甲"))
    second = ingest.receive("his", admitted(2, "100", "乙"))
    other = ingest.receive("his", admitted(3, "200", "丙"))
    apply = stores.records.apply

    def failing(connection: Any, plan: Any) -> Any:
        if any(change.after.arrival == first.id for change in plan.changes):
            raise DatabaseUnavailable
        return apply(connection, plan)

    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as committer:
        patched.setattr(stores.records, "apply", failing)
        ingest.commit_with(committer)
        done = ingest.process(10)
    assert (done.stored, done.postponed) == (1, 1)
    assert stores.inbox.show(second.id).entry.state == "received"
    assert stores.inbox.show(other.id).entry.state == "stored"
    stores.clock.forward(2)
    with ThreadPoolExecutor(1) as committer:
        ingest.commit_with(committer)
        assert ingest.process(10).stored == 2
    assert people(stores)["100"]["name"][0]["family"] == "乙"
