"""Immunizations (4.52): given, not given and why, and what followed."""

import re

from fhir_adapters.cda.context import Conversion, Json, absent
from fhir_adapters.cda.datatypes import concepts, quantities, times
from fhir_adapters.cda.datatypes.nulls import reason_of
from fhir_adapters.cda.entries import medications
from fhir_adapters.cda.entries.observations import encounter_of
from fhir_adapters.cda.entries.statement import Section, Statement, add_note, comment, loosely_nested, nested
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.node import child
from fhir_adapters.xml.tree import Element

REFUSAL = "2.16.840.1.113883.10.20.22.4.53"
_REACTION = "2.16.840.1.113883.10.20.22.4.9"
_FUNCTION = "http://terminology.hl7.org/CodeSystem/v2-0443"
_DOSE_NUMBER = re.compile(r"0*[1-9]\d{0,5}", re.ASCII)
_STATUS = {"completed": "completed", "active": "completed", "aborted": "not-done", "cancelled": "not-done"}


def immunization(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the Immunization of an immunization activity; one that is planned is a MedicationRequest."""
    if el.get("moodCode", "EVN") != "EVN":
        return medications.medication(conv, el, section)
    statement = Statement(conv, el, section)
    resource = statement.resource("Immunization")
    status = statement.status()
    resource["status"] = "not-done" if statement.negated else _STATUS.get(status, "completed")
    statement.node.drop("code")
    code, details = medications.medicine(conv, statement.node.first("consumable"))
    resource["vaccineCode"] = code or concepts.required(conv, None, el)
    if "batch" in details:
        resource["lotNumber"] = details["batch"]["lotNumber"]
    if "manufacturer" in details:
        resource["manufacturer"] = details["manufacturer"]
    resource["patient"] = conv.subject
    encounter_of(conv, resource)
    _when(conv, resource, statement)
    for name, element in (("approachSiteCode", "site"), ("routeCode", "route")):
        found = statement.codes(name)
        if found:
            resource[element] = found[0]
    for amount in statement.node.take("doseQuantity"):
        dose = quantities.quantity(conv, amount)
        if dose:
            resource["doseQuantity"] = dose
    statement.recorder(resource, "", "recorded")
    if "informant" in statement.node.kids:  # somebody told of it; who that was has no place in R4
        resource["primarySource"] = False
    for who, function, _ in statement.performers():
        resource.setdefault("performer", []).append({"function": function or _administering(), "actor": who})
    for type_code, role, participant in statement.participants():
        named = actors.actor(conv, role) if type_code not in ("LOC", "CSM") else None
        if named is not None:
            resource.setdefault("performer", []).append({"actor": named})
        else:
            conv.not_mapped(participant)
    for number in statement.node.take("repeatNumber"):
        _dose_number(conv, resource, number)
    apart = _inside(conv, resource, statement)
    text = statement.text()
    if text and text not in concepts.spellings(resource["vaccineCode"]):
        add_note(resource, text)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _administering() -> Json:
    return {"coding": [{"system": _FUNCTION, "code": "AP", "display": "Administering Provider"}]}


def _when(conv: Conversion, resource: Json, statement: Statement) -> None:
    el = statement.effective()
    if el is not None and times.put(conv, resource, "occurrenceDateTime", el):
        return
    # occurrence[x] is required, and a data type of it that is absent does not count as there: text then says so.
    kept = resource.pop("_occurrenceDateTime", None)
    reason = (reason_of(el) if el is not None else "") or "unknown"
    resource["occurrenceString"] = "unknown"
    resource["_occurrenceString"] = kept or absent(reason)


def _inside(conv: Conversion, resource: Json, statement: Statement) -> list[Json]:
    apart: list[Json] = []
    for relation in statement.relations():
        if REFUSAL in relation.templates:
            inner = Statement(conv, relation.el, statement.section)
            inner.node.drop("statusCode")
            why = inner.code()
            if why:
                resource["statusReason"] = why
            inner.finish()
        elif medications.INDICATION in relation.templates or relation.type_code == "RSON":
            medications.reason(conv, resource, relation)
        elif _REACTION in relation.templates:
            made = nested(statement, relation)
            for reference in made[:1]:
                resource.setdefault("reaction", []).append({"detail": reference})
            apart += made
        elif medications.INSTRUCTION in relation.templates:
            _education(conv, resource, relation.el)
        elif not comment(statement, resource, relation):
            apart += loosely_nested(statement, relation)
        number = child(relation.holder, "sequenceNumber")
        if number is not None:
            _dose_number(conv, resource, number)
    return apart


def _dose_number(conv: Conversion, resource: Json, el: Element) -> None:
    """Which dose of a series it was (C-CDA on FHIR); remarked on where it is none or contradicts one said before."""
    low = child(el, "low")
    value = (el.get("value") or (low.get("value") if low is not None else "") or "").strip()
    dose = int(value) if _DOSE_NUMBER.fullmatch(value) else 0
    known = resource.get("protocolApplied", [{}])[0].get("doseNumberPositiveInt", dose)
    if dose and known == dose:
        resource["protocolApplied"] = [{"doseNumberPositiveInt": dose}]
    else:
        conv.not_mapped(el)


def _education(conv: Conversion, resource: Json, el: Element) -> None:
    inner = Statement(conv, el, Section())
    inner.node.drop("statusCode")
    code, text = inner.code(), inner.text()
    words = text or (concepts.spellings(code)[-1] if code else "")
    add_note(resource, words)
    inner.finish()
