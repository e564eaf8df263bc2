"""Procedures: what was done (Procedure), and what is planned or asked for (ServiceRequest).

Procedure activities (4.12 act, 4.13 observation, 4.14 procedure) in mood EVN were done; any act, procedure or planned
statement (4.39, 4.41, 4.44, 4.40) in another mood is a request.
"""

from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json, add_extension
from fhir_adapters.cda.datatypes import concepts, demographics, ids, timing
from fhir_adapters.cda.datatypes.nulls import absent_concept
from fhir_adapters.cda.entries import medications
from fhir_adapters.cda.entries.devices import device
from fhir_adapters.cda.entries.observations import encounter_of
from fhir_adapters.cda.entries.specimens import specimens
from fhir_adapters.cda.entries.statement import (
    Section,
    Statement,
    add_note,
    comment,
    nested,
)
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.node import Node, child
from fhir_adapters.identifiers import location_id
from fhir_adapters.xml.tree import Element

METHOD = "http://hl7.org/fhir/StructureDefinition/procedure-method"
_STATUS = MappingProxyType(
    {
        "completed": "completed",
        "active": "in-progress",
        "aborted": "stopped",
        "cancelled": "not-done",
        "suspended": "on-hold",
        "held": "on-hold",
        "new": "preparation",
        "nullified": "entered-in-error",
    }
)
_REQUEST_STATUS = MappingProxyType(
    {
        "active": "active",
        "completed": "completed",
        "aborted": "revoked",
        "cancelled": "revoked",
        "suspended": "on-hold",
        "held": "on-hold",
        "new": "draft",
        "nullified": "entered-in-error",
    }
)
_INTENTS = MappingProxyType({"INT": "plan", "RQO": "order", "PRP": "proposal", "ARQ": "proposal", "PRMS": "directive"})
_PRIORITIES = MappingProxyType({"R": "routine", "UR": "urgent", "A": "asap", "S": "stat", "EM": "stat", "P": "asap"})


def procedure(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the Procedure of something done, or the ServiceRequest of something asked for."""
    if el.get("moodCode", "EVN") != "EVN":
        return request(conv, el, section)
    statement = Statement(conv, el, section)
    resource = statement.resource("Procedure")
    resource["status"] = "not-done" if statement.negated else _STATUS.get(statement.status(), "completed")
    resource["code"] = statement.required_code()
    resource["subject"] = conv.subject
    encounter_of(conv, resource)
    statement.effective_into(resource, "performed")
    sites = statement.codes("targetSiteCode")
    if sites:
        resource["bodySite"] = sites
    for method in statement.codes("methodCode"):
        add_extension(resource, METHOD, "valueCodeableConcept", method)
    _people(resource, statement)
    _outcome(conv, resource, statement)
    apart = [*specimens(conv, statement.node.take("specimen"))]
    for type_code, role, participant in statement.participants():
        apart += _participant(conv, resource, type_code, role, participant)
    apart += inside(conv, resource, statement)
    text = statement.text()
    if text and text not in concepts.spellings(resource["code"]):
        add_note(resource, text)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _people(resource: Json, statement: Statement) -> None:
    statement.recorder(resource, "recorder", "")
    statement.informant(resource, "asserter")
    for who, function, _ in statement.performers():
        entry: Json = {"function": function} if function else {}
        resource.setdefault("performer", []).append({**entry, "actor": who})


def _outcome(conv: Conversion, resource: Json, statement: Statement) -> None:
    for el in statement.node.take("value"):
        found = concepts.concept(conv, el)
        if found and "outcome" not in resource:
            resource["outcome"] = found
        elif found:
            conv.not_mapped(el)


def _participant(conv: Conversion, resource: Json, type_code: str, role: Element, el: Element) -> list[Json]:
    if type_code in ("DEV", "PRD") or role.get("classCode") == "MANU":
        made = device(conv, role)
        if made is not None:
            resource.setdefault("focalDevice", []).append({"manipulated": made})
            return [made]
    elif type_code == "LOC":
        place = service_location(conv, role)
        if place is not None and "location" not in resource:
            resource["location"] = place
            return [place]
    else:
        who = actors.actor(conv, role)
        if who is not None:
            resource.setdefault("performer", []).append({"actor": who})
            return []
    conv.not_mapped(el)
    return []


def service_location(conv: Conversion, role: Element) -> Json | None:
    """A reference to the Location of a service delivery location (4.32); None when it names none."""
    node = Node(role)
    node.drop("templateId")
    made = ids.identifiers(conv, node.take("id"))
    kind = concepts.concept(conv, node.first("code"))
    name_el = child(role, "playingEntity", "name")
    node.drop("playingEntity")
    name = demographics.organization_name(name_el) if name_el is not None else ""
    where = demographics.addresses(conv, node.take("addr"))
    contacts = demographics.telecoms(conv, node.take("telecom"))
    conv.left(node)
    if not (made or name or where or kind):
        return None
    resource: Json = {"resourceType": "Location", "id": ""}
    if made:
        resource["identifier"] = made
        resource["id"] = conv.id_of("Location", made[0]["system"], made[0]["value"])
    else:
        key = name or " ".join((where[0].get("line") or [where[0].get("text", "")]) if where else [])
        resource["id"] = location_id(conv.profile, key or concepts.spellings(kind or {})[0])
    if name:
        resource["name"] = name
    resource["mode"] = "instance"
    if kind:
        resource["type"] = [kind]
    if contacts:
        resource["telecom"] = contacts
    if where:
        resource["address"] = where[0]
    return conv.put(resource)


def inside(conv: Conversion, resource: Json, statement: Statement) -> list[Json]:
    """Statements inside a procedure or request: reasons, notes, observations that are part of it."""
    apart: list[Json] = []
    for relation in statement.relations():
        if medications.INDICATION in relation.templates or relation.type_code == "RSON":
            medications.reason(conv, resource, relation)
            continue
        if comment(statement, resource, relation):
            continue
        if medications.INSTRUCTION in relation.templates:
            _instruction(conv, resource, relation.el)
            continue
        made = nested(statement, relation)
        apart += made
        _relate(conv, resource, made, relation.el)
    return apart


def _instruction(conv: Conversion, resource: Json, el: Element) -> None:
    inner = Statement(conv, el, Section())
    inner.node.drop("statusCode")
    code, text = inner.code(), inner.text()
    words = text or (concepts.spellings(code)[-1] if code else "")
    if resource["resourceType"] == "ServiceRequest" and words and "patientInstruction" not in resource:
        resource["patientInstruction"] = words
    else:
        add_note(resource, words)
    inner.finish()


def _relate(conv: Conversion, resource: Json, made: list[Json], el: Element) -> None:
    """Say of what was made inside a procedure that it is part of it."""
    if not made:
        return
    inner = conv.get(made[0])
    whole = {"reference": f"{resource['resourceType']}/{resource['id']}"}
    kind = inner["resourceType"]
    if resource["resourceType"] == "Procedure" and kind in ("Observation", "Procedure", "MedicationStatement"):
        inner.setdefault("partOf", []).append(whole)
    elif resource["resourceType"] == "ServiceRequest" and kind in ("Observation", "Procedure", "ServiceRequest"):
        inner.setdefault("basedOn", []).append(whole)
    elif resource["resourceType"] == "ServiceRequest":
        resource.setdefault("supportingInfo", []).append(made[0])
    else:
        text = "converted as a resource of its own; its relation to the statement around it is not carried over"
        conv.issue("information", "relation-lost", el, text)


def request(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the ServiceRequest of something planned, ordered or proposed."""
    statement = Statement(conv, el, section)
    resource = statement.resource("ServiceRequest")
    resource["status"] = _REQUEST_STATUS.get(statement.status(), "active")
    resource["intent"] = _INTENTS.get(statement.mood, "plan")
    priority = statement.code("priorityCode")
    for each in priority.get("coding", ()) if priority else ():
        if each["code"] in _PRIORITIES:
            resource["priority"] = _PRIORITIES[each["code"]]
    if priority and "priority" not in resource:
        add_note(resource, priority.get("text") or concepts.spellings(priority)[-1])
    if statement.negated:
        resource["doNotPerform"] = True
    code = statement.code()
    text = statement.text()
    resource["code"] = code or ({"text": text} if text else absent_concept("unknown"))
    resource["subject"] = conv.subject
    encounter_of(conv, resource)
    _occurrence(conv, resource, statement)
    statement.recorder(resource, "requester", "authoredOn")
    performers = [who for who, _, _ in statement.performers()]
    if performers:
        resource["performer"] = performers
    sites = statement.codes("targetSiteCode")
    if sites:
        resource["bodySite"] = sites
    for name in ("methodCode", "value"):
        for part in statement.node.take(name):
            found = concepts.concept(conv, part)
            if found:
                resource.setdefault("orderDetail", []).append(found)
            else:
                conv.not_mapped(part)
    apart: list[Json] = []
    for type_code, role, participant in statement.participants():
        apart += _asked_of(conv, resource, type_code, role, participant)
    apart += inside(conv, resource, statement)
    if text and text not in concepts.spellings(resource["code"]):
        add_note(resource, text)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _occurrence(conv: Conversion, resource: Json, statement: Statement) -> None:
    when, period = timing.timing(conv, statement.node.take("effectiveTime"))
    if when:
        if period:
            when.setdefault("repeat", {})["boundsPeriod"] = period
        resource["occurrenceTiming"] = when
    elif period and period.get("start") and period.get("start") == period.get("end"):
        resource["occurrenceDateTime"] = period["start"]
    elif period:
        resource["occurrencePeriod"] = period


def _asked_of(conv: Conversion, resource: Json, type_code: str, role: Element, el: Element) -> list[Json]:
    if type_code == "LOC":
        place = service_location(conv, role)
        if place is not None:
            resource.setdefault("locationReference", []).append(place)
            return [place]
    elif type_code in ("REFT", "IRCP", "PRF", "PPRF"):
        who = actors.actor(conv, role)
        if who is not None:
            resource.setdefault("performer", []).append(who)
            return []
    elif type_code in ("DEV", "PRD") or role.get("classCode") == "MANU":
        made = device(conv, role)
        if made is not None:
            resource.setdefault("performer", []).append(made)
            return [made]
    conv.not_mapped(el)
    return []
