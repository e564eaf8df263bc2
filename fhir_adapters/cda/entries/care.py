"""Goals (4.121) and care teams (4.500)."""

from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, times
from fhir_adapters.cda.datatypes.values import put_value
from fhir_adapters.cda.entries.statement import Relation, Section, Statement, add_note, comment, loosely_nested
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.node import child, extension_child
from fhir_adapters.xml.tree import Element

_T = "2.16.840.1.113883.10.20.22.4."
MEMBER, TYPE, PRIORITY = _T + "500.1", _T + "500.2", _T + "143"
_LIFECYCLE = MappingProxyType(
    {"active": "active", "completed": "completed", "aborted": "cancelled", "cancelled": "cancelled", "held": "on-hold"}
)
_TEAM_STATUS = MappingProxyType(
    {"active": "active", "completed": "inactive", "suspended": "suspended", "new": "proposed"}
)


def goal(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the Goal of a goal observation."""
    statement = Statement(conv, el, section)
    resource = statement.resource("Goal")
    resource["lifecycleStatus"] = _LIFECYCLE.get(statement.status(), "active")
    code = statement.code()
    text = statement.text()
    value = statement.node.first("value")
    holder: Json = {}
    if value is not None:
        put_value(conv, holder, value)
    resource["description"] = _description(conv, statement, code, text, holder)
    resource["subject"] = conv.subject
    _dates(conv, resource, statement)
    _target(conv, resource, code, holder, value)
    statement.recorder(resource, "expressedBy", "statusDate")
    if "statusDate" in resource:
        resource["statusDate"] = resource["statusDate"][:10]
    apart: list[Json] = []
    for relation in statement.relations():
        if PRIORITY in relation.templates:
            _priority(conv, resource, relation)
        elif not comment(statement, resource, relation):
            apart += loosely_nested(statement, relation)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _description(conv: Conversion, statement: Statement, code: Json | None, text: str, holder: Json) -> Json:
    if "valueCodeableConcept" in holder and code is None:
        return dict(holder["valueCodeableConcept"])
    if text and code is not None:
        return {**code, "text": text}
    if "valueString" in holder and not text:
        return {"text": holder["valueString"]}
    return code or ({"text": text} if text else concepts.required(conv, None, statement.el))


def _dates(conv: Conversion, resource: Json, statement: Statement) -> None:
    el = statement.effective()
    if el is None:
        return
    if el.get("value"):
        times.put_date(conv, resource, "startDate", el)
        return
    found = times.period(conv, el)
    if len(found.get("start", "")) >= 4:
        resource["startDate"] = found["start"][:10]
    if "end" in found:
        resource["target"] = [{"dueDate": found["end"][:10]}]


_DETAILS = MappingProxyType(
    {
        "valueQuantity": "detailQuantity",
        "valueRange": "detailRange",
        "valueCodeableConcept": "detailCodeableConcept",
        "valueString": "detailString",
        "valueBoolean": "detailBoolean",
        "valueInteger": "detailInteger",
        "valueRatio": "detailRatio",
    }
)


def _target(conv: Conversion, resource: Json, code: Json | None, holder: Json, value: Element | None) -> None:
    for name, element in _DETAILS.items():
        if name in holder:
            target = resource.setdefault("target", [{}])[0]
            target["measure"] = code or {"text": "goal"}  # gol-1: a detail is of a measure
            target[element] = holder[name]
            return
    if value is not None and holder.keys() - {"dataAbsentReason"}:
        conv.not_mapped(value)


def _priority(conv: Conversion, resource: Json, relation: Relation) -> None:
    inner = Statement(conv, relation.el, Section())
    inner.node.drop("code", "statusCode", "text")
    value = concepts.concept(conv, inner.node.first("value"))
    if value and "priority" not in resource:
        resource["priority"] = value
    inner.finish()


def care_team(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the CareTeam of a care team organizer."""
    statement = Statement(conv, el, section)
    resource = statement.resource("CareTeam")
    resource["status"] = _TEAM_STATUS.get(statement.status(), "active")
    statement.node.drop("code")
    name_el = statement.node.first("text")
    name = concepts.text_of(conv, name_el) if name_el is not None else ""
    if name:
        resource["name"] = name
    resource["subject"] = conv.subject
    when = statement.effective()
    if when is not None:
        found = times.period(conv, when)
        if found:
            resource["period"] = found
    for _, role, participant in statement.participants():
        who = actors.actor(conv, role)
        if who is None:
            conv.not_mapped(participant)
        else:
            function = concepts.concept(conv, extension_child(participant, "functionCode"))
            entry: Json = {"role": [function]} if function else {}
            resource.setdefault("participant", []).append({**entry, "member": who})
    apart: list[Json] = []
    for relation in statement.relations():
        if MEMBER in relation.templates:
            _member(conv, resource, relation)
        elif TYPE in relation.templates:
            _team_type(conv, resource, relation)
        elif not comment(statement, resource, relation):
            apart += loosely_nested(statement, relation)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _member(conv: Conversion, resource: Json, relation: Relation) -> None:
    inner = Statement(conv, relation.el, Section())
    inner.node.drop("code", "statusCode")
    when = inner.effective()
    found = times.period(conv, when) if when is not None else {}
    for who, function, _ in inner.performers():
        entry: Json = {"role": [function]} if function else {}
        entry["member"] = who
        if found:
            entry["period"] = found
        resource.setdefault("participant", []).append(entry)
    note: Json = {}
    for deeper in inner.relations():
        if not comment(inner, note, deeper):
            loosely_nested(inner, deeper)
    for each in note.get("note", ()):
        add_note(resource, each["text"])
    add_note(resource, inner.text())
    inner.finish()


def _team_type(conv: Conversion, resource: Json, relation: Relation) -> None:
    inner = Statement(conv, relation.el, Section())
    inner.node.drop("code", "statusCode", "text")
    value = concepts.concept(conv, child(relation.el, "value"))
    inner.node.drop("value")
    if value:
        resource.setdefault("category", []).append(value)
    inner.finish()
