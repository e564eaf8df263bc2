"""DG1: the Condition, and its place among the diagnoses of the visit (guide: DG1[Condition], DG1[Encounter])."""

import re

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments.allergies import key_of
from fhir_adapters.identifiers import condition_id

CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
ICD10_WHO = "http://hl7.org/fhir/sid/icd-10"
ICD10_CHINA = "urn:oid:2.16.156.10011.2.3.3.11"
_CHINESE_ICD10 = re.compile(r"([A-Z][0-9]{2})(\.[0-9]|\.x)[0-9x]{2,5}[+*]?", re.ASCII)
_DIAGNOSIS_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0052"


def diagnosis(conv: Conversion, patient: Json, encounter: Json | None, dg1: Segment) -> str:
    """DG1: a Condition, listed among the diagnoses of the encounter with its role and rank.

    Returns its reference, "" when no diagnosis is named. DG1-21 D takes an earlier one back.
    """
    set_id = conv.text(dg1.take(1))
    dg1.take(2)  # coding method: deprecated, said again by DG1-3.3
    resource: Json = {
        "resourceType": "Condition",
        "id": "",
        "category": [{"coding": [{"system": CATEGORY, "code": "encounter-diagnosis"}]}],
        "subject": {"reference": f"Patient/{patient['id']}"},
    }
    if encounter is not None:
        resource["encounter"] = {"reference": f"Encounter/{encounter['id']}"}
    code = _code(conv, dg1)
    if code is None:
        conv.issue("warning", "missing", dg1, 3, "no diagnosis is named")
        return ""
    resource["code"] = code
    timestamps.put_date_time(conv, resource, "onsetDateTime", dg1, 5)
    role = _diagnosis_role(conv, resource, dg1)
    if dg1.peek(20):
        business_ids.add_identifier(resource, business_ids.entity(conv, dg1.take(20)))
    asserted = actors.practitioner(conv, dg1, 16)
    if asserted is not None:
        resource["asserter"] = asserted
    timestamps.put_date_time(conv, resource, "recordedDate", dg1, 19)
    action = conv.text(dg1.take(21))
    if action == "D":
        resource["verificationStatus"] = {"coding": [{"system": VERIFICATION, "code": "entered-in-error"}]}
    owner = encounter["id"] if encounter is not None else patient["id"]
    kind = role["coding"][0]["code"] if role else ""
    resource["id"] = condition_id(conv.profile, owner, key_of(code), kind)
    reference = conv.put(resource)
    if encounter is not None and action != "D":
        _list_diagnosis(conv, encounter, reference, role, dg1, set_id)
    return reference


def _code(conv: Conversion, dg1: Segment) -> Json | None:
    code = concepts.concept(conv, dg1, 3)
    described = conv.text(dg1.take(4))
    if code is None:
        return {"text": described} if described else None
    if described and "text" not in code:
        code["text"] = described
    return with_who_code(code)


def with_who_code(code: Json) -> Json:
    """A Chinese ICD-10 code (J18.900, I10.x00: the characters of the WHO and an extension) with both its codings."""
    codings = code.get("coding", ())
    for number, each in enumerate(codings):
        extended = _CHINESE_ICD10.fullmatch(each["code"])
        if extended is None or each.get("system", ICD10_WHO) not in (ICD10_WHO, ICD10_CHINA):
            continue
        own = {**each, "system": ICD10_CHINA}
        who = {"system": ICD10_WHO, "code": extended[1] + extended[2].removesuffix(".x")}
        return {**code, "coding": [*codings[:number], own, who, *codings[number + 1 :]]}
    return code


def _diagnosis_role(conv: Conversion, resource: Json, dg1: Segment) -> Json | None:
    raw = conv.text(dg1.peek(6).split("^")[0])
    meaning, sent = concepts.mapped(conv, "diagnosis-use", dg1, 6) if raw else (None, None)
    if raw == "W":  # working
        status = "provisional"
    elif raw == "F":
        status = "confirmed"
    else:
        status = ""
    if status:
        resource["verificationStatus"] = {"coding": [{"system": VERIFICATION, "code": status}]}
    if sent is not None and sent.get("coding"):
        sent["coding"][0].setdefault("system", _DIAGNOSIS_TYPE)
    return concepts.with_meaning(meaning, sent) if sent and sent.get("coding") else None


def _list_diagnosis(
    conv: Conversion, encounter: Json, reference: str, role: Json | None, dg1: Segment, set_id: str
) -> None:
    entry: Json = {"condition": {"reference": reference}}
    if role is not None:
        entry["use"] = role
    rank = conv.text(dg1.take(15)) or set_id
    if rank.isascii() and rank.isdigit() and 0 < int(rank[:6]) < 1000:
        entry["rank"] = int(rank)
    listed = encounter.setdefault("diagnosis", [])
    if not any(each["condition"]["reference"] == reference for each in listed):
        listed.append(entry)
