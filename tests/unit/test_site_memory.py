"""What adapters remember of a source: as if made anew, bounded, and nothing that a message changed comes back."""

from dataclasses import replace
from pathlib import Path

import pytest

import fhir_adapters
from fhir_adapters import site_memory
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.site_memory import SiteMemory

GOLDEN = Path(__file__).parents[1] / "golden" / "hl7v2"
WARD = "W03^301^02^HOSPITAL_A"


@pytest.fixture(scope="module")
def warm() -> SourceProfile:
    """A profile that remembers every golden message."""
    profile = replace(DEFAULT_PROFILE)
    for path in GOLDEN.glob("*.hl7"):
        fhir_adapters.convert(path.read_bytes(), profile=profile)
    return profile


def visit(place: str, doctor: str = "D001^DOCTOR^TEST", declared: str = "") -> bytes:
    head = f"MSH|^~\\&|HIS|H|Y|H|20260301083000+0800||ADT^A01|1|P|2.5||||||{declared}\r"
    return f"{head}PID|1||P1^^^H^MR\rPV1|1|I|{place}||||{doctor}||||||||||||V1^^^H^VN\r".encode("gb18030")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.hl7")), ids=lambda path: path.stem)
def test_a_later_message_becomes_what_it_would_become_alone(path: Path, warm: SourceProfile) -> None:
    later, alone = (fhir_adapters.convert(path.read_bytes(), profile=each) for each in (warm, replace(DEFAULT_PROFILE)))
    assert later.to_json() == alone.to_json()
    assert later.issues == alone.issues


def test_a_change_to_a_result_does_not_come_back() -> None:
    profile = replace(DEFAULT_PROFILE)
    first = fhir_adapters.convert(visit(WARD), profile=profile)
    before = first.to_json()
    for entry in first.bundle["entry"]:
        resource = entry["resource"]
        if resource["resourceType"] in ("Location", "Practitioner"):
            resource["name"] = "changed"
            for nested in ("physicalType", "partOf"):
                resource.get(nested, {}).clear()
    assert fhir_adapters.convert(visit(WARD), profile=profile).to_json() == before


def test_remarks_on_a_remembered_spelling_are_made_for_every_message() -> None:
    profile = replace(DEFAULT_PROFILE)
    odd = visit(WARD + "^^^^^^^^^local")  # PL-13 has no place
    first, second = (fhir_adapters.convert(odd, profile=profile).issues for _ in range(2))
    assert [each.location for each in first if each.location == "PV1[1]-3.13"]
    assert first == second


def test_an_escape_is_read_in_each_messages_own_character_set() -> None:
    profile = replace(DEFAULT_PROFILE)
    ward = r"\XB9C7\^301"  # 骨 in GB 18030, no text in UTF-8
    chinese = fhir_adapters.convert(visit(ward, declared="GB 18030-2000"), profile=profile)
    other = fhir_adapters.convert(visit(ward, declared="UNICODE UTF-8"), profile=profile)
    assert "骨".encode() in chinese.to_json()
    assert "骨".encode() not in other.to_json()


def test_two_sites_do_not_share_what_they_remember() -> None:
    one = replace(DEFAULT_PROFILE, base_url="https://a.example/fhir")
    other = replace(DEFAULT_PROFILE, base_url="https://b.example/fhir")
    fhir_adapters.convert(visit(WARD), profile=one)
    assert b"a.example" not in fhir_adapters.convert(visit(WARD), profile=other).to_json()


def test_no_patient_is_remembered() -> None:
    profile = replace(DEFAULT_PROFILE)
    fhir_adapters.convert(visit(WARD).replace(b"P1^^^H^MR", b"P1^^^H^MR||FAMILY^GIVEN||19500101"), profile=profile)
    kept = b"".join(profile.memory._made.values()) + "".join(profile.memory.systems).encode()
    assert b"DOCTOR" in kept
    assert b"FAMILY" not in kept
    assert b"P1" not in kept


@pytest.mark.parametrize("limit", [1, 3])
def test_it_forgets_before_it_grows(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(site_memory, "REMEMBERED", limit)
    memory = SiteMemory()
    for number in range(10):
        memory.keep_resources("PL", str(number), [{"id": str(number)}])
        memory.keep_system(str(number), "urn:x")
        assert memory.resources("PL", str(number)) == [{"id": str(number)}]
        assert len(memory._made) <= limit
        assert len(memory.systems) <= limit
