"""People, organizations and devices that a document names: each made once and referred to wherever it is named.

A person is a Practitioner with a number (or, without one, a name within the institution). Where the document says in
which role or for which organization the person acted, the reference is to a PractitionerRole that says both.
"""

from lxml import etree

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, demographics, ids, times
from fhir_adapters.cda.node import Node, child
from fhir_adapters.identifiers import organization_id, practitioner_id
from fhir_adapters.xml.tree import Element

NUCC = "http://nucc.org/provider-taxonomy"


def actor(conv: Conversion, el: Element) -> Json | None:
    """A reference to whoever an assignedAuthor, assignedEntity or similar names; None when it names nobody."""
    key = b"actor" + etree.tostring(el, with_tail=False)
    if key not in conv.memo:
        conv.memo[key] = _actor(conv, el)
    known = conv.memo[key]
    return dict(known) if known else None


def organization(conv: Conversion, el: Element | None) -> Json | None:
    """A reference to the Organization of a representedOrganization, custodian or similar; None when it names none."""
    if el is None:
        return None
    key = b"organization" + etree.tostring(el, with_tail=False)
    if key not in conv.memo:
        conv.memo[key] = _organization(conv, el)
    known = conv.memo[key]
    return dict(known) if known else None


def _actor(conv: Conversion, el: Element) -> Json | None:
    node = Node(el)
    node.drop("templateId", "realmCode", "typeId", "patient")
    made_ids = ids.identifiers(conv, node.take("id"))
    roles = [made for code in node.take("code") if (made := concepts.concept(conv, code)) is not None]
    person = _first_of(node, "assignedPerson", "relatedPerson", "associatedPerson", "informationRecipient")
    playing = node.first("playingEntity") if person is None else None
    device = _first_of(node, "assignedAuthoringDevice", "playingDevice")
    represented = _first_of(node, "representedOrganization", "scopingOrganization", "receivedOrganization")
    employer = organization(conv, represented)
    if device is not None:
        made = _device(conv, device, made_ids, employer)
    else:
        made = _person(conv, node, made_ids, person if person is not None else playing)
    conv.left(node)
    if made is None:
        return employer if employer is not None or not roles else conv.put(_role(conv, el, None, None, roles))
    if not (roles or employer) or device is not None:
        return made
    return conv.put(_role(conv, el, made, employer, roles))


def _first_of(node: Node, *names: str) -> Element | None:
    for name in names:
        if name in node.kids:
            return node.first(name)
    return None


def _person(conv: Conversion, node: Node, made_ids: list[Json], person: Element | None) -> Json | None:
    names: list[Json] = []
    if person is not None:
        inner = Node(person)
        inner.drop("templateId", "realmCode", "typeId")
        names = demographics.human_names(conv, inner.take("name"))
        conv.left(inner)
    addresses = demographics.addresses(conv, node.take("addr"))
    contacts = demographics.telecoms(conv, node.take("telecom"))
    if not made_ids and not names:
        if addresses or contacts:
            conv.issue("information", "not-mapped", node.el, "addresses of somebody without a name or number")
        return None
    resource: Json = {"resourceType": "Practitioner", "id": ""}
    if made_ids:
        resource["identifier"] = made_ids
        resource["id"] = practitioner_id(conv.profile, made_ids[0]["system"], made_ids[0]["value"])
    else:
        # No number: the name within its institution is all there is; two of one name become one, as in other adapters.
        value = "name:" + demographics.written(names[0])
        resource["id"] = practitioner_id(conv.profile, conv.issuer_system(), value)
    for element, values in (("name", names), ("telecom", contacts), ("address", addresses)):
        if values:
            resource[element] = values
    return conv.put(resource)


def _role(conv: Conversion, el: Element, person: Json | None, employer: Json | None, roles: list[Json]) -> Json:
    resource: Json = {"resourceType": "PractitionerRole", "id": ""}
    key = [person["reference"] if person else conv.place_id("PractitionerRole", el)]
    if person:
        resource["practitioner"] = person
    if employer:
        resource["organization"] = employer
        key.append(employer["reference"])
    specialties = [each for each in roles if concepts.code_in(each, NUCC)]
    others = [each for each in roles if each not in specialties]
    for element, values in (("code", others), ("specialty", specialties)):
        if values:
            resource[element] = values
            key += concepts.spellings(values[0])[:1]
    resource["id"] = conv.id_of("PractitionerRole", conv.issuer_system(), "\x1f".join(key))
    return resource


def _device(conv: Conversion, el: Element, made_ids: list[Json], owner: Json | None) -> Json | None:
    node = Node(el)
    node.drop("templateId")
    names = [
        {"name": text, "type": kind}
        for name, kind in (("manufacturerModelName", "model-name"), ("softwareName", "user-friendly-name"))
        for part in node.take(name)
        if (text := concepts.text_of(conv, part) or part.get("displayName", ""))
    ]
    kind = concepts.concept(conv, node.first("code"))
    conv.left(node)
    if not made_ids and not names and not kind:
        return None
    resource: Json = {"resourceType": "Device", "id": ""}
    if made_ids:
        resource["identifier"] = made_ids
        resource["id"] = conv.id_of("Device", made_ids[0]["system"], made_ids[0]["value"])
    else:
        title = "\x1f".join([each["name"] for each in names] or concepts.spellings(kind)[:1] if kind else [])
        resource["id"] = conv.id_of("Device", conv.issuer_system(), "name:" + (title or names[0]["name"]))
    if names:
        resource["deviceName"] = names
    if kind:
        resource["type"] = kind
    if owner:
        resource["owner"] = owner
    return conv.put(resource)


def _organization(conv: Conversion, el: Element) -> Json | None:
    node = Node(el)
    node.drop("templateId", "realmCode", "typeId")
    made_ids = ids.identifiers(conv, node.take("id"))
    names = [text for each in node.take("name") if (text := demographics.organization_name(each))]
    kind = concepts.concept(conv, node.first("standardIndustryClassCode"))
    contacts = demographics.telecoms(conv, node.take("telecom"))
    places = demographics.addresses(conv, node.take("addr"))
    whole = node.first("asOrganizationPartOf")
    larger = organization(conv, child(whole, "wholeOrganization")) if whole is not None else None
    conv.left(node)
    if not made_ids and not names:
        if contacts or places:
            conv.issue("information", "not-mapped", el, "addresses of an organization without a name or number")
        return larger
    resource: Json = {"resourceType": "Organization", "id": ""}
    if made_ids:
        resource["identifier"] = made_ids
        resource["id"] = organization_id(conv.profile, made_ids[0]["system"], made_ids[0]["value"])
    else:
        resource["id"] = organization_id(conv.profile, conv.issuer_system(), "name:" + names[0])
    if kind:
        resource["type"] = [kind]
    if names:
        resource["name"] = names[0]
        if names[1:]:
            resource["alias"] = names[1:]
    for element, values in (("telecom", contacts), ("address", places)):
        if values:
            resource[element] = values
    if larger and larger["reference"] != f"Organization/{resource['id']}":
        resource["partOf"] = larger
    return conv.put(resource)


def author(conv: Conversion, el: Element) -> tuple[Json | None, str]:
    """Who an author (or informant, performer with the same parts) is, and when: reference and dateTime."""
    key = b"author" + etree.tostring(el, with_tail=False)
    if key not in conv.memo:
        conv.memo[key] = _author(conv, el)
    who, when = conv.memo[key]
    return (dict(who) if who else None), when


def _author(conv: Conversion, el: Element) -> tuple[Json | None, str]:
    node = Node(el)
    node.drop("templateId", "signatureCode")
    when = times.read(conv, _time_of(node.first("time")))
    who: Json | None = None
    for name in ("assignedAuthor", "assignedEntity", "participantRole"):
        inner = node.first(name)
        if inner is not None:
            who = actor(conv, inner)
            break
    if node.kids:
        conv.left(node)
    return who, when


def _time_of(el: Element | None) -> Element | None:
    if el is None or el.get("value"):
        return el
    low = child(el, "low")
    return low if low is not None else el
