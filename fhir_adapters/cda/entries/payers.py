"""Payers: coverage activity (4.60) and the policies (4.61) in it, as Coverage."""

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, demographics, ids, times
from fhir_adapters.cda.entries.statement import Relation, Section, Statement, comment, loosely_nested
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.node import Node, child, children
from fhir_adapters.identifiers import identifier_type
from fhir_adapters.xml.tree import Element

_SUBSCRIBER = "http://terminology.hl7.org/CodeSystem/subscriber-relationship"
_RELATIONSHIPS = {
    "SELF": "self",
    "FAMDEP": "other",
    "SPSE": "spouse",
    "CHILD": "child",
    "PAR": "parent",
    "OTH": "other",
}
_STATUS = {"completed": "active", "active": "active", "aborted": "cancelled", "cancelled": "cancelled"}


def coverage(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """The policies of a coverage activity, in the order of preference that it gives them."""
    act = Statement(conv, el, section)
    act.node.drop("code", "statusCode")
    made: list[Json] = []
    for relation in act.relations():
        if relation.name == "act":
            made += policy(conv, relation.el, section, relation)
        else:
            made += loosely_nested(act, relation)
    act.finish()
    return made


def policy(conv: Conversion, el: Element, section: Section, relation: Relation | None = None) -> list[Json]:
    """Make the Coverage of a policy activity."""
    statement = Statement(conv, el, section)
    resource = statement.resource("Coverage")
    resource["status"] = _STATUS.get(statement.status(), "active")
    kind = statement.code()
    if kind:
        resource["type"] = kind
    resource["beneficiary"] = conv.subject
    for _, role, participant in statement.participants():
        if participant.get("typeCode") == "COV":
            _covered(conv, resource, role, participant)
        elif participant.get("typeCode") == "HLD":
            _holder(conv, resource, role)
        else:
            conv.not_mapped(participant)
    payors = []
    for performer in statement.node.take("performer"):
        who = _performer(conv, performer)
        if who is not None:
            payors.append(who)
    resource["payor"] = payors or [conv.subject]
    if not payors:
        conv.issue("information", "missing", el, "no payor is named; the patient stands in")
    number = child(relation.holder, "sequenceNumber") if relation is not None else None
    raw = number.get("value", "") if number is not None else ""
    if raw.isascii() and raw.isdigit() and int(raw[:6]) > 0:
        resource["order"] = int(raw[:6])
    apart: list[Json] = []
    for deeper in statement.relations():
        if not comment(statement, {}, deeper):
            apart += _authorization(conv, statement, deeper)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _authorization(conv: Conversion, statement: Statement, relation: Relation) -> list[Json]:
    if relation.el.get("moodCode") == "DEF":  # the description of the plan
        conv.not_mapped(relation.el)
        return []
    return loosely_nested(statement, relation)


def _performer(conv: Conversion, el: Element) -> Json | None:
    """The payer; a guarantor is someone else."""
    inner = child(el, "assignedEntity")
    templates = Node(el).claimed()
    kind = child(inner, "code") if inner is not None else None
    guarantor = "2.16.840.1.113883.10.20.22.4.88" in templates or (kind is not None and kind.get("code") == "GUAR")
    if inner is None or guarantor:
        conv.not_mapped(el)
        return None
    organization = actors.organization(conv, child(inner, "representedOrganization"))
    who = actors.actor(conv, inner)
    if organization is not None:
        _numbered(conv, organization, inner)
        return organization
    if who is not None and who["reference"].partition("/")[0] in ("Organization", "Patient", "RelatedPerson"):
        return who
    conv.not_mapped(el)
    return None


def _numbered(conv: Conversion, organization: Json, el: Element) -> None:
    """The payer's numbers stand beside its organization, not in it."""
    made = ids.identifiers(conv, children(el, "id"))
    known = conv.get(organization)
    for one in made:
        if one not in known.setdefault("identifier", []):
            known["identifier"].append(one)


def _covered(conv: Conversion, resource: Json, role: Element, participant: Element) -> None:
    node = Node(role)
    node.drop("templateId")
    numbers = ids.identifiers(conv, node.take("id"))
    if numbers:
        resource["subscriberId"] = numbers[0]["value"]
        resource.setdefault("identifier", []).append({"type": identifier_type("MB"), **numbers[0]})
    relation = concepts.concept(conv, node.first("code"))
    for each in relation.get("coding", ()) if relation else ():
        if each["code"] in _RELATIONSHIPS:
            code = _RELATIONSHIPS[each["code"]]
            relation = {"coding": [{"system": _SUBSCRIBER, "code": code}, *relation["coding"]]}  # type: ignore[index]
            break
    if relation:
        resource["relationship"] = relation
    node.drop("playingEntity", "addr", "telecom")  # the patient again
    when = child(participant, "time")
    if when is not None:
        found = times.period(conv, when)
        if found:
            resource["period"] = found
    conv.left(node)


def _holder(conv: Conversion, resource: Json, role: Element) -> None:
    node = Node(role)
    node.drop("templateId")
    numbers = ids.identifiers(conv, node.take("id"))
    playing = child(role, "playingEntity")
    node.drop("playingEntity")
    names = demographics.human_names(conv, children(playing, "name")) if playing is not None else []
    if not numbers and not names:
        conv.left(node)
        return
    holder: Json = {"resourceType": "RelatedPerson", "id": ""}
    if numbers:
        holder["identifier"] = numbers
        holder["id"] = conv.id_of("RelatedPerson", numbers[0]["system"], numbers[0]["value"])
        resource.setdefault("subscriberId", numbers[0]["value"])
    else:
        key = demographics.written(names[0])
        holder["id"] = conv.id_of("RelatedPerson", conv.subject.get("reference", ""), key)
    holder["patient"] = conv.subject
    for element, values in (
        ("name", names),
        ("telecom", demographics.telecoms(conv, node.take("telecom"))),
        ("address", demographics.addresses(conv, node.take("addr"))),
    ):
        if values:
            holder[element] = values
    conv.left(node)
    resource["policyHolder"] = conv.put(holder)
