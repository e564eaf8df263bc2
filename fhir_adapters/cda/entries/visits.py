"""Encounters in the body: past and present visits (4.49); planned ones are requests."""

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, times
from fhir_adapters.cda.entries import medications, problems
from fhir_adapters.cda.entries.procedures import request, service_location
from fhir_adapters.cda.entries.statement import Section, Statement, comment, loosely_nested
from fhir_adapters.cda.header.encounters import classify
from fhir_adapters.identifiers import encounter_id
from fhir_adapters.xml.tree import Element

DIAGNOSIS = "2.16.840.1.113883.10.20.22.4.80"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_STATUS = {"completed": "finished", "active": "in-progress", "aborted": "cancelled", "cancelled": "cancelled"}


def encounter(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the Encounter of an encounter activity."""
    if el.get("moodCode", "EVN") != "EVN":
        return request(conv, el, section)
    statement = Statement(conv, el, section)
    resource = statement.resource("Encounter")
    if statement.identifiers:  # a visit's number names it in every adapter and in the header of this document
        first = statement.identifiers[0]
        resource["id"] = encounter_id(conv.profile, first["system"], first["value"])
    status = statement.status()
    resource["status"] = _STATUS.get(status, "finished" if not status else "unknown")
    classify(resource, statement.code())
    resource["subject"] = conv.subject
    when = statement.effective()
    if when is not None:
        found = times.period(conv, when)
        if found:
            resource["period"] = found
    for who, function, performer in statement.performers():
        _participant(conv, resource, who, function, performer)
    disposition = concepts.translated_if_chinese(
        conv, "discharge-disposition", statement.node.first("sdtc:dischargeDispositionCode")
    )
    if disposition:
        resource["hospitalization"] = {"dischargeDisposition": disposition}
    priority = statement.code("priorityCode")
    if priority:
        resource["priority"] = priority
    apart: list[Json] = []
    for type_code, role, participant in statement.participants():
        place = service_location(conv, role) if type_code == "LOC" else None
        if place is None:
            conv.not_mapped(participant)
        else:
            resource.setdefault("location", []).append({"location": place})
            apart.append(place)
    reference = statement.put(resource)
    apart += _inside(conv, resource, statement)
    statement.finish()
    return [reference, *apart]


def _participant(conv: Conversion, resource: Json, who: Json, function: Json | None, el: Element) -> None:
    if who["reference"].partition("/")[0] not in ("Practitioner", "PractitionerRole", "RelatedPerson"):
        conv.not_mapped(el)
        return
    kind = function or {
        "coding": [{"system": _PARTICIPATION, "code": "PART" if el.get("typeCode") is None else el.get("typeCode")}]
    }
    resource.setdefault("participant", []).append({"type": [kind], "individual": who})


def _inside(conv: Conversion, resource: Json, statement: Statement) -> list[Json]:
    apart: list[Json] = []
    for relation in statement.relations():
        if DIAGNOSIS in relation.templates:
            made = problems.diagnosis(conv, relation.el, statement.section)
            for each in made:
                if each["reference"].startswith("Condition/"):
                    resource.setdefault("diagnosis", []).append({"condition": each})
                    conv.get(each)["encounter"] = {"reference": f"Encounter/{resource['id']}"}
            apart += made
        elif medications.INDICATION in relation.templates or relation.type_code == "RSON":
            medications.reason(conv, resource, relation)
        else:
            holder: Json = {}
            if comment(statement, holder, relation):
                conv.issue("information", "not-mapped", relation.el, "Encounter has no place for notes")
            else:
                apart += loosely_nested(statement, relation)
    return apart
