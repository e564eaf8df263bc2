"""recordTarget: the Patient (C-CDA on FHIR, US Realm Header; WS/T 482 for Chinese documents)."""

from types import MappingProxyType

from fhir_adapters.cda.context import PROJECT_EXTENSIONS, Conversion, Json, absent, add_extension
from fhir_adapters.cda.datatypes import concepts, demographics, ids, times
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.node import Node, child
from fhir_adapters.extensions import ETHNIC_GROUP, RACE, SOURCE_SEX
from fhir_adapters.identifiers import (
    ID_CARD_SYSTEM,
    check_resident_id,
    choose_patient_identifier,
    patient_id,
)
from fhir_adapters.xml.tree import Element

_CORE = "http://hl7.org/fhir/StructureDefinition/"
_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
_CDC = "urn:oid:2.16.840.1.113883.6.238"
_OMB = MappingProxyType(
    {
        "race": frozenset(["1002-5", "2028-9", "2054-5", "2076-8", "2106-3"]),
        "ethnicity": frozenset(("2135-2", "2186-5")),
    }
)
_CONTACT_ROLE = "http://terminology.hl7.org/CodeSystem/v2-0131"
OCCUPATION = PROJECT_EXTENSIONS + "patient-occupation"
NATIVE_PLACE = PROJECT_EXTENSIONS + "patient-native-place"
ADDRESS_KIND = PROJECT_EXTENSIONS + "address-kind"

# Numbers of the visit and of the document that WS/T 500 puts among the patient's.
VISIT_KINDS = frozenset({"11", "12"})
NOT_THE_PATIENTS = VISIT_KINDS | {"14", "20", "24", "32", "33", "34", "1", "8"}
_SS = "SS"


def patient(conv: Conversion, role: Element) -> Node:
    """Make the Patient of a patientRole and the reference to it; returns the role's node for the visit's numbers."""
    node = Node(role)
    node.drop("templateId", "realmCode", "typeId")
    person = Node(node.kids["patient"][0]) if "patient" in node.kids else None
    node.first("patient")
    own = [each for each in node.kids.get("id", ()) if ids.kind_of(each) not in NOT_THE_PATIENTS]
    node.kids["id"] = [each for each in node.kids.get("id", ()) if ids.kind_of(each) in NOT_THE_PATIENTS]
    more = [*person.take("id"), *person.take("sdtc:id")] if person else []
    made = ids.identifiers(conv, [*own, *more])
    resource: Json = {"resourceType": "Patient", "id": _resource_id(conv, made, node)}
    if made:
        resource["identifier"] = made
    conv.subject = {"reference": f"Patient/{resource['id']}"}
    conv.put(resource)
    if person is not None:
        _person(conv, resource, person)
        conv.left(person)
    _reach(conv, resource, node)
    provider = actors.organization(conv, node.first("providerOrganization"))
    if provider:
        resource["managingOrganization"] = provider
    return node


def _resource_id(conv: Conversion, made: list[Json], node: Node) -> str:
    chosen = choose_patient_identifier(each for each in made if _type_code(each) != _SS)
    chosen = chosen or choose_patient_identifier(made)
    if chosen is not None:
        return patient_id(conv.profile, chosen["system"], chosen["value"])
    for el in node.kids["id"]:
        visit = ids.key(conv, el) if ids.kind_of(el) in VISIT_KINDS else None
        if visit is not None:
            conv.issue("warning", "no-identifier", el, "no identifier of the patient; the visit's number stands in")
            return patient_id(conv.profile, visit[0], "visit:" + visit[1])
    conv.issue("warning", "no-identifier", node.el, "no identifier; the patient's id holds for this document only")
    return patient_id(conv.profile, conv.document[0], "document:" + conv.document[1])


def _type_code(made: Json) -> str:
    codings = made.get("type", {}).get("coding")
    return str(codings[0]["code"]) if codings else ""


def _reach(conv: Conversion, resource: Json, node: Node) -> None:
    places = demographics.addresses(conv, node.take("addr"))
    if places:
        resource["address"] = [*places, *resource.get("address", ())]
    points = demographics.telecoms(conv, node.take("telecom"))
    if points:
        resource["telecom"] = points


def _person(conv: Conversion, resource: Json, person: Node) -> None:
    person.drop("templateId", "realmCode", "typeId")
    names = demographics.human_names(conv, person.take("name"))
    if names:
        resource["name"] = names
    _sex(conv, resource, person.first("administrativeGenderCode"))
    _birth(conv, resource, person)
    _death(conv, resource, person)
    marital = concepts.translated(conv, "marital", person.first("maritalStatusCode"))
    if marital:
        resource["maritalStatus"] = marital
    _origin(conv, resource, person)
    _ties(conv, resource, person)
    _chinese(conv, resource, person)
    for el in person.take("languageCommunication"):
        _language(conv, resource, el)


def _sex(conv: Conversion, resource: Json, el: Element | None) -> None:
    meaning, sent = concepts.mapped(conv, "sex", el)
    if sent is None or el is None:
        return
    code = concepts.spellings(sent)[0]
    if meaning is None:
        resource["_gender"] = absent("error", code)
        return
    resource["gender"] = meaning.code
    # GB/T 2261.1 knows more than FHIR does: 0 unknown, 9 not stated. The code as sent is kept where FHIR's says less.
    if (code, meaning.code) not in (("M", "male"), ("F", "female"), ("1", "male"), ("2", "female")):
        resource["_gender"] = {"extension": [{"url": SOURCE_SEX, "valueString": code}]}
    checked = _checked_number(resource)
    if checked is not None and meaning.code in ("male", "female") and checked.gender != meaning.code:
        conv.issue("warning", "conflict", el, "the sex differs from that in the identity number")


def _checked_number(resource: Json):  # type: ignore[no-untyped-def]
    for made in resource.get("identifier", ()):
        if made["system"] == ID_CARD_SYSTEM:
            checked = check_resident_id(made["value"])
            if checked.valid:
                return checked
    return None


def _birth(conv: Conversion, resource: Json, person: Node) -> None:
    el = person.first("birthTime")
    value = times.put_date(conv, resource, "birthDate", el)
    if len(value) > 10:
        resource["_birthDate"] = {"extension": [{"url": _CORE + "patient-birthTime", "valueDateTime": value}]}
    checked = _checked_number(resource)
    if el is not None and value and checked is not None and not checked.birth_date.startswith(value[:10]):
        conv.issue("warning", "conflict", el, "the birth date differs from that in the identity number")
    if value:  # the age is the birth date's, and of the day of writing
        person.drop("age")
    flag = person.first("sdtc:multipleBirthInd")
    order = person.first("sdtc:multipleBirthOrderNumber")
    number = order.get("value", "") if order is not None else ""
    if number.isascii() and number.isdigit() and 0 < int(number[:6]) < 100:
        resource["multipleBirthInteger"] = int(number)
    elif flag is not None and flag.get("value") in ("true", "false"):
        resource["multipleBirthBoolean"] = flag.get("value") == "true"
        if order is not None:
            conv.not_mapped(order)
    else:
        conv.all_not_mapped(flag, order)


def _death(conv: Conversion, resource: Json, person: Node) -> None:
    flag, when = person.first("sdtc:deceasedInd"), person.first("sdtc:deceasedTime")
    if when is not None and when.get("value"):
        times.put(conv, resource, "deceasedDateTime", when)
    elif flag is not None and flag.get("value") in ("true", "false"):
        resource["deceasedBoolean"] = flag.get("value") == "true"
    else:
        conv.all_not_mapped(flag, when)


def _origin(conv: Conversion, resource: Json, person: Node) -> None:
    religion = concepts.concept(conv, person.first("religiousAffiliationCode"))
    if religion:
        add_extension(resource, _CORE + "patient-religion", "valueCodeableConcept", religion)
    races = [*person.take("raceCode"), *person.take("sdtc:raceCode")]
    _heritage(conv, resource, "race", races)
    _heritage(conv, resource, "ethnicity", [*person.take("ethnicGroupCode"), *person.take("sdtc:ethnicGroupCode")])
    for el in person.take("birthplace"):
        place = child(el, "place", "addr")
        born = demographics.address(conv, place) if place is not None else None
        if born:
            add_extension(resource, _CORE + "patient-birthPlace", "valueAddress", born)
        else:
            conv.not_mapped(el)


def _heritage(conv: Conversion, resource: Json, kind: str, elements: list[Element]) -> None:
    """Race and ethnic group: GB 3304 as a Coding, the CDC's codes as US Core has them, anything else as sent."""
    parts: list[Json] = []
    texts: list[str] = []
    for el in elements:
        sent = concepts.concept(conv, el)
        if sent is None:
            continue
        group = next((found for word in concepts.spellings(sent) if (found := conv.find("ethnic", word))), None)
        cdc = concepts.code_in(sent, _CDC)
        if cdc:
            own = next(each for each in sent["coding"] if each["code"] == cdc)
            parts.append({"url": "ombCategory" if cdc in _OMB[kind] else "detailed", "valueCoding": own})
            texts.append(own.get("display", cdc))
        elif group is not None:
            add_extension(resource, ETHNIC_GROUP, "valueCoding", group.coding())
        else:
            add_extension(resource, RACE, "valueCodeableConcept", sent)
    if parts:
        parts.append({"url": "text", "valueString": ", ".join(texts)})
        resource.setdefault("extension", []).append({"url": _US_CORE + kind, "extension": parts})


def _ties(conv: Conversion, resource: Json, person: Node) -> None:
    for el in person.take("guardian"):
        contact = contact_of(conv, el, "guardianPerson", "guardianOrganization")
        if contact:
            contact.setdefault("relationship", [_role("GUARD", "guardian")])
            resource.setdefault("contact", []).append(contact)
    for el in person.take("employerOrganization"):
        employer = actors.organization(conv, el)
        if employer:
            coding = {"system": _CONTACT_ROLE, "code": "E", "display": "Employer"}
            contact = {"relationship": [{"coding": [coding]}], "organization": employer}
            resource.setdefault("contact", []).append(contact)


def _role(code: str, display: str) -> Json:
    system = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
    return {"coding": [{"system": system, "code": code, "display": display}]}


def contact_of(conv: Conversion, el: Element, person: str, organization: str) -> Json:
    """The Patient.contact of a guardian or contact person; {} when it says nothing (pat-1)."""
    node = Node(el)
    node.drop("templateId")
    contact: Json = {}
    relation = concepts.translated_if_chinese(conv, "relationship", node.first("code"))
    if relation:
        contact["relationship"] = [relation]
    for one in node.take(person):
        inner = Node(one)
        inner.drop("templateId")
        names = demographics.human_names(conv, inner.kids.get("name", []))
        if names:
            inner.first("name")
            contact["name"] = names[0]
        conv.left(inner)
    points = demographics.telecoms(conv, node.take("telecom"))
    if points:
        contact["telecom"] = points
    places = demographics.addresses(conv, [each] if (each := node.first("addr")) is not None else [])
    if places:
        contact["address"] = places[0]
    for one in node.take(organization):
        made = actors.organization(conv, one)
        if made:
            contact["organization"] = made
    conv.left(node)
    if contact.keys() - {"relationship"}:
        return contact
    conv.not_mapped(el)
    return {}


def _chinese(conv: Conversion, resource: Json, person: Node) -> None:
    """What WS/T 482 adds to the person: nationality, occupation, registered residence and native place."""
    for el in person.take("nationality"):
        value = concepts.concept(conv, el)
        if value:
            nested = {
                "url": _CORE + "patient-nationality",
                "extension": [{"url": "code", "valueCodeableConcept": value}],
            }
            resource.setdefault("extension", []).append(nested)
        else:
            conv.not_mapped(el)
    for el in person.take("occupation"):
        value = concepts.concept(conv, child(el, "occupationCode"))
        if value:
            add_extension(resource, OCCUPATION, "valueCodeableConcept", value)
        else:
            conv.not_mapped(el)
    for name, kind in (("household", "户籍地址"), ("nativePlace", "籍贯")):
        for el in person.take(name):
            place = child(el, "place", "addr")
            found = demographics.address(conv, place) if place is not None else None
            if not found:
                conv.not_mapped(el)
                continue
            if name == "nativePlace":
                add_extension(resource, NATIVE_PLACE, "valueAddress", found)
            else:
                found["extension"] = [{"url": ADDRESS_KIND, "valueString": kind}]
                resource.setdefault("address", []).append(found)


def _language(conv: Conversion, resource: Json, el: Element) -> None:
    node = Node(el)
    node.drop("templateId")
    code_el = node.first("languageCode")
    code = code_el.get("code", "").strip() if code_el is not None else ""
    if code:
        made: Json = {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": code}]}}
        preferred = node.first("preferenceInd")
        if preferred is not None and preferred.get("value") in ("true", "false"):
            made["preferred"] = preferred.get("value") == "true"
        details = [
            {"url": url, "valueCoding": coding}
            for name, url in (("proficiencyLevelCode", "level"), ("modeCode", "type"))
            for part in node.take(name)
            if (coding := concepts.coding(conv, part))
        ]
        if details:
            made["extension"] = [{"url": _CORE + "patient-proficiency", "extension": details}]
        resource.setdefault("communication", []).append(made)
    conv.left(node)
