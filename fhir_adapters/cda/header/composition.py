"""The header as a Composition: what it is, who made, signed and keeps it (C-CDA on FHIR, US Realm Header)."""

from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json, absent, add_extension
from fhir_adapters.cda.datatypes import concepts, demographics, ids, times
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.header.patients import contact_of
from fhir_adapters.cda.node import Node, child, children, extension_child, said
from fhir_adapters.xml.tree import Element

_VERSION = "http://hl7.org/fhir/StructureDefinition/composition-clinicaldocument-versionNumber"
_CCDA = "http://hl7.org/fhir/us/ccda/StructureDefinition/"
_ROLE_CLASS = "http://terminology.hl7.org/CodeSystem/v3-RoleClass"
_RELATIONS = MappingProxyType({"RPLC": "replaces", "APND": "appends", "XFRM": "transforms"})
_DATED_BY_AUTHOR = frozenset({"C0004", "C0005", "C0006", "C0007"})
_CONFIDENTIALITY = frozenset("ULMNRV")
_STATUS = {"completed": "final", "active": "preliminary", "aborted": "entered-in-error"}
_RELATED_CLASSES = MappingProxyType(
    {
        "NOK": "next of kin",
        "PRS": "personal relationship",
        "CAREGIVER": "caregiver",
        "AGNT": "agent",
        "GUARD": "guardian",
        "QUAL": "qualified entity",
        "POLHOLD": "policy holder",
        "ECON": "emergency contact",
    }
)


def composition(conv: Conversion, root: Node, document_id: list[Json]) -> Json:
    """Make the Composition of a header; its sections are added later. It is already put."""
    resource: Json = {"resourceType": "Composition", "id": conv.id_of("Composition", *conv.document)}
    set_id = root.first("setId")
    own = ids.identifier(conv, set_id) if set_id is not None else None
    if own or document_id:
        resource["identifier"] = own or document_id[0]
    status = root.first("sdtc:statusCode")
    resource["status"] = _STATUS.get(status.get("code", ""), "final") if status is not None else "final"
    code_el = root.first("code")
    resource["type"] = _type(conv, concepts.required(conv, code_el, root.el))
    resource["subject"] = conv.subject
    if conv.encounter is not None:
        resource["encounter"] = {"reference": f"Encounter/{conv.encounter['id']}"}
    _date(conv, resource, root)
    _people(conv, resource, root)
    title_el = root.first("title")
    title = concepts.text_of(conv, title_el) if title_el is not None else ""
    resource["title"] = title or concepts.spellings(resource["type"])[-1]
    if conv.chinese and title:
        resource["type"].setdefault("text", title)
    _labels(conv, resource, root)
    return conv.get(conv.put(resource))


def _type(conv: Conversion, sent: Json) -> Json:
    """The kind of document; a Chinese one with LOINC's code for its kind beside it."""
    known = conv.find("document", conv.kind) if conv.chinese else None
    if known is not None and all(each.get("system") != known.system for each in sent.get("coding", ())):
        return {**sent, "coding": [*sent.get("coding", ()), known.coding()]}
    return sent


def _date(conv: Conversion, resource: Json, root: Node) -> None:
    el = root.first("effectiveTime")
    value = times.put(conv, resource, "date", el)
    if not value and "_date" not in resource:
        resource["_date"] = absent("unknown")
        conv.issue("warning", "missing", root.el if el is None else el, "the document does not say when it was made")
    conv.recorded = value


def _labels(conv: Conversion, resource: Json, root: Node) -> None:
    el = root.first("confidentialityCode")
    code = el.get("code", "").strip() if el is not None else ""
    if code in _CONFIDENTIALITY and len(code) == 1:
        resource["confidentiality"] = code
    elif el is not None and code:
        conv.unmapped_code("confidentiality", el)
    language = root.first("languageCode")
    tag = language.get("code", "").strip() if language is not None else ""
    if tag and tag.replace("-", "").isalnum() and tag.isascii():
        resource["language"] = tag
    elif language is not None and tag:
        conv.not_mapped(language)
    version = root.first("versionNumber")
    number = version.get("value", "").strip() if version is not None else ""
    if number:
        add_extension(resource, _VERSION, "valueString", number)
    for el in root.take("relatedDocument"):
        _related(conv, resource, el)


def _related(conv: Conversion, resource: Json, el: Element) -> None:
    parent = child(el, "parentDocument")
    if parent is None or not said(parent):
        return
    code = _RELATIONS.get(el.get("typeCode", ""))
    made = ids.identifiers(conv, children(parent, "id"))
    if code is None or not made:
        conv.not_mapped(el)
        return
    resource.setdefault("relatesTo", []).append({"code": code, "targetIdentifier": made[0]})
    parts = Node(parent)
    parts.drop("templateId", "typeId", "realmCode")
    parts.first("id")
    conv.left(parts)


def _people(conv: Conversion, resource: Json, root: Node) -> None:
    authors: list[Json] = []
    for el in root.take("author"):
        who, when = actors.author(conv, el)
        if who is not None and who not in authors:
            authors.append(who)
        if when and when != (conv.recorded or when) and (authors[1:] or not _author_dates_it(conv)):
            place = child(el, "time")
            conv.issue(
                "information", "not-mapped", el if place is None else place, "only the document's time has a place"
            )
        conv.authored = conv.authored or when
        conv.recorded = conv.recorded or when
    custodian_el = root.first("custodian")
    custodian = _custodian(conv, custodian_el) if custodian_el is not None else None
    if not authors:
        authors = [custodian] if custodian else [_unknown_author(conv, root.el)]
    resource["author"] = authors
    if custodian:
        resource["custodian"] = custodian
    for name, mode in (("legalAuthenticator", "legal"), ("authenticator", "professional")):
        for el in root.take(name):
            _attester(conv, resource, el, mode)


def _author_dates_it(conv: Conversion) -> bool:
    """Whether the first author's time is that of the report or the prescription that the document is."""
    return conv.kind in _DATED_BY_AUTHOR


def _unknown_author(conv: Conversion, place: Element) -> Json:
    conv.issue("warning", "missing", place, "nobody is named as author")
    return {"display": "unknown"}


def _custodian(conv: Conversion, el: Element) -> Json | None:
    made = actors.organization(conv, child(el, "assignedCustodian", "representedCustodianOrganization"))
    if made is None:
        conv.not_mapped(el)
    return made


def _attester(conv: Conversion, resource: Json, el: Element, mode: str) -> None:
    if not said(el):
        return
    who, when = actors.author(conv, el)
    entry: Json = {"mode": mode}
    if when:
        entry["time"] = when
    if who is not None:
        entry["party"] = who
    if who is not None or when:
        resource.setdefault("attester", []).append(entry)
    else:
        conv.not_mapped(el)


def surroundings(conv: Conversion, resource: Json, root: Node) -> None:
    """The rest of the header: who entered, informed and receives it, what it documents, whose contact somebody is."""
    for name, extension in (("dataEnterer", "DataEntererExtension"), ("informant", "InformantExtension")):
        for el in root.take(name):
            who = _informant(conv, el)
            if who is not None:
                add_extension(resource, _CCDA + extension, "valueReference", who)
            else:
                conv.not_mapped(el)
    for el in root.take("informationRecipient"):
        inner = child(el, "intendedRecipient")
        who = actors.actor(conv, inner) if inner is not None else None
        if who is not None:
            add_extension(resource, _CCDA + "InformationRecipientExtension", "valueReference", who)
        else:
            conv.not_mapped(el)
    for el in root.take("documentationOf"):
        service = child(el, "serviceEvent")
        if service is not None:
            _event(conv, resource, service)
        else:
            conv.not_mapped(el)
    for el in root.take("participant"):
        _participant(conv, resource, el)
    for el in root.take("inFulfillmentOf"):
        _order(conv, resource, el)
    for el in root.take("authorization"):
        conv.not_mapped(el)


def _informant(conv: Conversion, el: Element) -> Json | None:
    related = child(el, "relatedEntity")
    if related is not None:
        return related_person(conv, related, "relatedPerson")
    return actors.author(conv, el)[0]


def related_person(conv: Conversion, el: Element, person: str) -> Json | None:
    """A reference to the RelatedPerson of a relatedEntity or associatedEntity; None when it names nobody."""
    node = Node(el)
    node.drop("templateId")
    made = ids.identifiers(conv, node.take("id"))
    relation = concepts.translated_if_chinese(conv, "relationship", node.first("code"))
    names: list[Json] = []
    for one in node.take(person):
        inner = Node(one)
        names += demographics.human_names(conv, inner.take("name"))
        inner.drop("templateId")
        conv.left(inner)
    points = demographics.telecoms(conv, node.take("telecom"))
    places = demographics.addresses(conv, node.take("addr"))
    scoping = actors.organization(conv, node.first("scopingOrganization"))
    conv.left(node)
    if not made and not names:
        return scoping
    resource: Json = {"resourceType": "RelatedPerson", "id": ""}
    if made:
        resource["identifier"] = made
    key = made[0]["value"] if made else demographics.written(names[0])
    resource["id"] = conv.id_of("RelatedPerson", conv.subject.get("reference", conv.document[1]), key)
    resource["patient"] = conv.subject
    roles = [relation] if relation else []
    class_code = el.get("classCode", "")
    if class_code in _RELATED_CLASSES and class_code != "PRS":
        coding = {"system": _ROLE_CLASS, "code": class_code, "display": _RELATED_CLASSES[class_code]}
        roles.append({"coding": [coding]})
    for element, values in (("relationship", roles), ("name", names), ("telecom", points), ("address", places)):
        if values:
            resource[element] = values
    reference = conv.put(resource)
    known = conv.get(reference)
    for role in roles:  # one person may be next of kin and emergency contact in two participations
        if role not in known.setdefault("relationship", []):
            known["relationship"].append(role)
    return reference


def _participant(conv: Conversion, resource: Json, el: Element) -> None:
    entity = child(el, "associatedEntity")
    entity = entity if entity is not None else child(el, "assignedEntity")
    if entity is None or not said(entity):
        return
    class_code = entity.get("classCode", "")
    patient = conv.resources.get(conv.subject.get("reference", ""))
    if class_code == "ECON" and patient is not None:
        person = "associatedPerson" if child(entity, "associatedPerson") is not None else "assignedPerson"
        contact = contact_of(conv, entity, person, "scopingOrganization")
        coding = {
            "system": "http://terminology.hl7.org/CodeSystem/v2-0131",
            "code": "C",
            "display": "Emergency Contact",
        }
        if contact:
            contact["relationship"] = [{"coding": [coding]}, *contact.get("relationship", ())]
            patient.setdefault("contact", []).append(contact)
        else:
            conv.not_mapped(el)
        if (when := child(el, "time")) is not None:
            conv.not_mapped(when)
        return
    if class_code in _RELATED_CLASSES:
        who = related_person(conv, entity, "associatedPerson")
    else:
        who = actors.actor(conv, entity)
    if who is None:
        conv.not_mapped(el)
        return
    add_extension(resource, _CCDA + "ParticipantExtension", "valueReference", who)
    for name in ("functionCode", "time"):
        for part in children(el, name):
            conv.not_mapped(part)


def _event(conv: Conversion, resource: Json, el: Element) -> None:
    """What the document documents: a service, its time, and the team that performed it."""
    node = Node(el)
    node.drop("templateId")
    event: Json = {}
    code = concepts.concept(conv, node.first("code"))
    if code:
        event["code"] = [code]
    when = node.first("effectiveTime")
    found = times.period(conv, when) if when is not None else {}
    if found:
        event["period"] = found
    members = [made for each in node.take("performer") if (made := _member(conv, each))]
    made_ids = ids.identifiers(conv, node.take("id"))
    conv.left(node)
    if members:
        team: Json = {"resourceType": "CareTeam", "id": conv.place_id("CareTeam", el)}
        if made_ids:
            team["identifier"] = made_ids
        team |= {"status": "active", "subject": conv.subject}
        if found:
            team["period"] = found
        team["participant"] = members
        event["detail"] = [conv.put(team)]
    if event:
        resource.setdefault("event", []).append(event)


def _member(conv: Conversion, el: Element) -> Json:
    inner = child(el, "assignedEntity")
    who = actors.actor(conv, inner) if inner is not None else None
    if who is None:
        conv.not_mapped(el)
        return {}
    function = concepts.concept(conv, child(el, "functionCode"))
    function = function or concepts.concept(conv, extension_child(el, "functionCode"))
    entry: Json = {"role": [function]} if function else {}
    entry["member"] = who
    when = child(el, "time")
    found = times.period(conv, when) if when is not None else {}
    if found:
        entry["period"] = found
    return entry


def _order(conv: Conversion, resource: Json, el: Element) -> None:
    order = child(el, "order")
    if order is None or not said(order):
        return
    made = ids.identifiers(conv, children(order, "id"))
    if not made:
        conv.not_mapped(el)
        return
    request: Json = {"type": "ServiceRequest", "identifier": made[0]}
    add_extension(resource, _CCDA + "OrderExtension", "valueReference", request)
    code = child(order, "code")
    if code is not None:
        conv.not_mapped(code)
