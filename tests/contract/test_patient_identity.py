"""Who is who within one hospital: merges, moves, links and their undoing, contradictions; from HL7 v2 to the store."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.services.identity import IdentityService
from bridge.services.ingest import IngestService
from bridge.storage.search_query import SearchQuery
from fhir_adapters import SourceProfile
from tests.hl7v2_samples import msh, pid, pv1, raw, segment
from tests.stores import Stores

PROFILES = {"his": SourceProfile(name="his"), "lis": SourceProfile(name="lis")}
SYSTEM = "https://node.invalid/fhir/NamingSystem/HIS"


class Hospital:
    """A node and the messages it gets; each is processed at once."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.ingest = IngestService(stores.engine, stores.inbox, stores.records, PROFILES, stores.clock)
        self.sent = 0

    def sends(self, kind: str, *lines: str, source: str = "his") -> set[tuple[str, str]]:
        """Send a message; returns the codes and the elements of the issues that the store adds."""
        self.sent += 1
        header = msh(kind, f10=f"C{self.sent}")
        answer = self.ingest.receive(source, raw([header, *lines]))
        assert answer.code == "AA", answer.ack
        done = self.ingest.process(10)
        assert done.stored == 1
        issues = self.stores.inbox.show(answer.id).issues
        return {(each["code"], each["location"].rpartition(".")[2]) for each in issues if "/" in each["location"]}

    def patients(self) -> dict[str, dict[str, Any]]:
        """The stored patients by their hospital number."""
        return {
            number["value"]: resource
            for resource in self.all("Patient")
            for number in resource["identifier"]
            if number["system"] == SYSTEM
        }

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [each.resource() for each in self.stores.records.search(SearchQuery(kind, count=100)).entries]

    def visit(self, number: str) -> dict[str, Any]:
        (found,) = (each for each in self.all("Encounter") if each["identifier"][0]["value"] == number)
        return found


def person(number: str, family: str, **fields: str) -> str:
    return pid(f3=f"{number}^^^HIS^MR", f5=f"{family}^三", **fields)


def links(patient: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["type"], each["other"]["reference"]) for each in patient.get("link", ())]


@pytest.fixture
def hospital(stores: Stores) -> Hospital:
    made = Hospital(stores)
    made.sends("ADT^A01", person("100", "王", f13="13000000001"), pv1(f19="V100^^^HIS"))
    made.sends("ADT^A01", person("200", "李"), pv1(f19="V200^^^HIS"))
    return made


@pytest.mark.parametrize("event", ["A18", "A30", "A34", "A36", "A39", "A40", "A46", "A47"])
def test_a_merge_joins_two_records_and_loses_nothing(hospital: Hospital, event: str) -> None:
    hospital.sends(f"ADT^{event}", person("200", "李"), "MRG|100^^^HIS^MR")
    prior, survivor = (hospital.patients()[number] for number in ("100", "200"))
    assert (prior["active"], prior["telecom"][0]["value"]) == (False, "13000000001")
    assert links(prior) == [("replaced-by", f"Patient/{survivor['id']}")]
    assert links(survivor) == [("replaces", f"Patient/{prior['id']}")]
    assert survivor["name"][0]["family"] == "李"
    found = IdentityService(hospital.stores.records).subjects(SYSTEM, "100")
    assert found == [f"Patient/{prior['id']}", f"Patient/{survivor['id']}"]


def test_a_merged_record_stays_merged_when_it_is_updated_and_that_is_reported(hospital: Hospital) -> None:
    hospital.sends("ADT^A40", person("200", "李"), "MRG|100^^^HIS^MR")
    assert hospital.sends("ADT^A08", person("100", "汪")) == {("conflict", "link")}
    prior = hospital.patients()["100"]
    assert (prior["active"], prior["name"][0]["family"]) == (False, "汪")
    assert [kind for kind, _ in links(prior)] == ["replaced-by"]


def test_a_merge_of_a_patient_who_is_not_known_yet(stores: Stores) -> None:
    hospital = Hospital(stores)
    hospital.sends("ADT^A40", person("200", "李"), "MRG|100^^^HIS^MR||||||王^三")
    prior = hospital.patients()["100"]
    assert (prior["active"], prior["name"][0]["family"]) == (False, "王")
    hospital.sends("ADT^A08", person("100", "王", f13="13000000001"))
    told = hospital.patients()["100"]
    assert (told["active"], [kind for kind, _ in links(told)]) == (False, ["replaced-by"])


def test_several_merges_add_up(hospital: Hospital) -> None:
    hospital.sends("ADT^A28", person("300", "赵"))
    hospital.sends("ADT^A40", person("200", "李"), "MRG|100^^^HIS^MR")
    hospital.sends("ADT^A40", person("200", "李"), "MRG|300^^^HIS^MR")
    assert [kind for kind, _ in links(hospital.patients()["200"])] == ["replaces", "replaces"]


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        pytest.param("A40", ["MRG|100^^^HIS^MR||||V100^^^HIS"], id="with the merge"),
        pytest.param("A45", ["MRG|100^^^HIS^MR||||V100^^^HIS", pv1(f19="V100^^^HIS")], id="move visit, told whole"),
        pytest.param("A45", ["MRG|100^^^HIS^MR||||V100^^^HIS"], id="move visit, its number alone"),
    ],
)
def test_a_visit_moves_to_the_other_patient(hospital: Hospital, event: str, lines: list[str]) -> None:
    before = hospital.visit("V100")
    hospital.sends(f"ADT^{event}", person("200", "李"), *lines)
    after = hospital.visit("V100")
    assert after["subject"] == {"reference": f"Patient/{hospital.patients()['200']['id']}"}
    assert (after["id"], after["class"], after["status"]) == (before["id"], before["class"], before["status"])
    assert after["location"] == before["location"]


def test_a_moved_visit_leaves_its_former_patient_active(hospital: Hospital) -> None:
    hospital.sends("ADT^A45", person("200", "李"), "MRG|100^^^HIS^MR||||V100^^^HIS")
    assert "active" not in hospital.patients()["100"]
    assert links(hospital.patients()["100"]) == []


def test_merged_visits_and_accounts_are_part_of_the_surviving_ones(hospital: Hospital) -> None:
    account = {18: "A100^^^HIS"}
    hospital.sends("ADT^A08", person("100", "王", f18=account[18]))
    hospital.sends(
        "ADT^A41",
        person("200", "李", f18="A200^^^HIS"),
        "MRG|100^^^HIS^MR||A100^^^HIS||V100^^^HIS",
        pv1(f19="V200^^^HIS"),
    )
    accounts = {each["identifier"][0]["value"]: each for each in hospital.all("Account")}
    assert accounts["A100"]["status"] == "inactive"
    assert accounts["A100"]["partOf"] == {"reference": f"Account/{accounts['A200']['id']}"}
    visits = {number: hospital.visit(number) for number in ("V100", "V200")}
    assert visits["V100"]["partOf"] == {"reference": f"Encounter/{visits['V200']['id']}"}
    assert visits["V200"]["account"] == [{"reference": f"Account/{accounts['A200']['id']}"}]


def test_links_are_made_and_taken_back(hospital: Hospital) -> None:
    hospital.sends("ADT^A24", person("100", "王"), person("200", "李"))
    assert [links(each)[0][0] for each in hospital.patients().values()] == ["seealso", "seealso"]
    identity = IdentityService(hospital.stores.records)
    assert len(identity.subjects(SYSTEM, "100")) == 2
    hospital.sends("ADT^A08", person("100", "王"))
    assert len(identity.subjects(SYSTEM, "100")) == 2, "an update says nothing about links"
    hospital.sends("ADT^A37", person("100", "王"), person("200", "李"))
    assert [links(each) for each in hospital.patients().values()] == [[], []]
    assert len(identity.subjects(SYSTEM, "100")) == 1


def test_a_merge_is_undone_by_unlinking(hospital: Hospital) -> None:
    hospital.sends("ADT^A40", person("200", "李"), "MRG|100^^^HIS^MR")
    hospital.sends("ADT^A37", person("200", "李"), person("100", "王"))
    prior = hospital.patients()["100"]
    assert (prior["active"], links(prior)) == (True, [])
    assert links(hospital.patients()["200"]) == []


@pytest.mark.parametrize(
    ("fields", "source", "expected"),
    [
        pytest.param({"f8": "M"}, "his", {("conflict", "gender")}, id="sex"),
        pytest.param({"f7": "19800516"}, "his", {("conflict", "birthDate")}, id="birth date"),
        pytest.param({"f7": "1980"}, "his", set(), id="a birth date less exact"),
        pytest.param(
            {"f7": "19790101", "f8": "M"}, "lis", {("conflict", "birthDate"), ("conflict", "gender")}, id="both"
        ),
    ],
)
def test_contradictions_with_what_is_stored_are_reported(
    hospital: Hospital, fields: dict[str, str], source: str, expected: set[tuple[str, str]]
) -> None:
    assert hospital.sends("ADT^A08", person("100", "王", **fields), source=source) == expected


def test_a_laboratory_that_contradicts_changes_nothing_and_is_reported(hospital: Hospital) -> None:
    before = hospital.patients()["100"]
    order = segment("OBR", {1: "1", 2: "R1", 4: "GLU^Glucose^L", 25: "F"})
    result = segment("OBX", {1: "1", 2: "NM", 3: "GLU^Glucose^L", 5: "5.1", 11: "F"})
    found = hospital.sends("ORU^R01", person("100", "王", f7="19900101"), order, result, source="lis")
    assert found == {("conflict", "birthDate")}
    assert hospital.patients()["100"] == before


def test_a_newborn_without_a_number_is_found_again_by_the_mother(stores: Stores) -> None:
    hospital = Hospital(stores)
    child = {3: "", 5: "王某之女", 7: "202405010830", 21: "100^^^HIS^MR", 25: "1"}
    hospital.sends("ADT^A01", segment("PID", {1: "1", **child}), pv1(f19="V9^^^HIS"))
    hospital.sends("ADT^A08", segment("PID", {1: "1", **child, 8: "F"}), pv1(f19="V9^^^HIS"))
    (newborn,) = hospital.all("Patient")
    assert newborn["gender"] == "female"
    (mother,) = hospital.all("RelatedPerson")
    assert mother["identifier"][0]["value"] == "100"
    assert mother["relationship"][0]["coding"][0]["code"] == "MTH"
    twin = {**child, 25: "2"}
    hospital.sends("ADT^A01", segment("PID", {1: "1", **twin}), pv1(f19="V10^^^HIS"))
    assert len(hospital.all("Patient")) == 2
