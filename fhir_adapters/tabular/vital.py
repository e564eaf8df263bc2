"""A row of V_IOP_VITAL as an Observation of the category vital-signs, with LOINC where the sign is one of the known."""

import re

from fhir_adapters.identifiers import full_width_to_ascii, identifier, observation_id
from fhir_adapters.json_lexeme import from_source
from fhir_adapters.tabular.actors import practitioner
from fhir_adapters.tabular.batch import Batch, patient_reference, visit_reference
from fhir_adapters.tabular.concepts import add_loinc, local_concept
from fhir_adapters.tabular.quantities import put_value, units
from fhir_adapters.tabular.rows import Json, Row

_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_LOINC = "http://loinc.org"
BLOOD_PRESSURE = "85354-9"
_SYSTOLIC = ("8480-6", "Systolic blood pressure")
_DIASTOLIC = ("8462-4", "Diastolic blood pressure")
_PRESSURES = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,2})?)\s*/\s*([0-9]{1,3}(?:\.[0-9]{1,2})?)\s*")


def convert_vital(row: Row, batch: Batch) -> list[str]:
    """Put the Observation of a row; returns the references put."""
    found = row.concept("observation-status", "item_status")
    observation: Json = {
        "resourceType": "Observation",
        "id": "",
        "status": found.code if found else "unknown" if row.text("item_status") else "final",
        "category": [{"coding": [{"system": _CATEGORY, "code": "vital-signs", "display": "Vital Signs"}]}],
        "code": _code(row),
        "subject": patient_reference(row),
    }
    system, number = row.system(), row.text("record_no")
    visit = visit_reference(row)
    if visit is not None:
        observation["encounter"] = visit
    measured = row.datetime("measured_at", observation, "effectiveDateTime")
    if number:
        observation["identifier"] = [identifier(number, system=row.local_system("vital"))]
    # Without a number the measurement is what was measured of whom and when.
    key = number or "\x1f".join((row.text("patient_no"), measured or row.text("measured_at")))
    observation["id"] = observation_id(row.profile, system, "vital:" + key, row.text("item_code"))
    _value(row, observation)
    flag = row.codeable("interpretation", "flag")
    if flag is not None:
        observation["interpretation"] = [flag]
    if row.text("method"):
        observation["method"] = {"text": row.text("method")}
    if row.text("comment_text"):
        observation["note"] = [{"text": row.text("comment_text")}]
    performer = practitioner(row, batch, "performer_code", "performer_name")
    if performer:
        observation["performer"] = [{"reference": performer}]
    return [batch.put(observation, owner=True), *([performer] if performer else [])]


def _code(row: Row) -> Json:
    """The LOINC code of a known sign first, as the vital signs profiles ask, then the site's own."""
    concept = local_concept(row, "item_code", "item_name", "vital-item")
    known = row.lookup.find("vital-sign", row.text("item_code"))
    if known is None and row.text("item_name"):
        known = row.lookup.find("vital-sign", row.text("item_name"))
    if known is not None:
        concept["coding"].insert(0, known.coding())
    elif row.text("item_loinc"):
        add_loinc(row, concept)
    else:
        row.remark("information", "unmapped-code", "item_code", "no LOINC is known for this vital sign")
    return concept


def _value(row: Row, observation: Json) -> None:
    pressures = _PRESSURES.fullmatch(full_width_to_ascii(row.text("result")))
    if pressures is None or observation["code"]["coding"][0]["code"] != BLOOD_PRESSURE:
        put_value(row, observation)
        return
    parts: list[Json] = []
    for (code, display), text in zip((_SYSTOLIC, _DIASTOLIC), pressures.groups(), strict=True):
        coding = {"system": _LOINC, "code": code, "display": display}
        value: Json = {"value": from_source(text)} | units(row.text("unit"))
        parts.append({"code": {"coding": [coding]}, "valueQuantity": value})
    observation["component"] = parts
