"""componentOf: the Encounter that a document belongs to, and where it takes place.

In Chinese documents the visit's number stands among the patient's (1.11 门急诊号, 1.12 住院号) and the place is a chain
of organizations, bed within room within department within ward within hospital; wards, rooms and beds become Locations,
departments and hospitals Organizations.
"""

from itertools import pairwise
from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, demographics, ids, times
from fhir_adapters.cda.datatypes.nulls import NULL_FLAVOR
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.header.patients import VISIT_KINDS
from fhir_adapters.cda.node import Node, child, children, said
from fhir_adapters.identifiers import encounter_id, location_id, organization_id
from fhir_adapters.xml.tree import Element

ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_PHYSICAL = "http://terminology.hl7.org/CodeSystem/location-physical-type"
ADMIT_SOURCE_SYSTEM = "urn:oid:2.16.156.10011.2.3.1.270"  # 入院途径代码
_CLASSES = MappingProxyType(
    {
        "AMB": "ambulatory",
        "EMER": "emergency",
        "IMP": "inpatient encounter",
        "ACUTE": "inpatient acute",
        "NONAC": "inpatient non-acute",
        "OBSENC": "observation encounter",
        "PRENC": "pre-admission",
        "SS": "short stay",
        "HH": "home health",
        "VR": "virtual",
        "FLD": "field",
    }
)
# CV09.00.404 患者类型代码 (2.16.156.10011.2.3.1.271)
_PATIENT_TYPES = MappingProxyType({"1": "AMB", "2": "EMER", "3": "IMP", "4": "AMB"})
_LEVELS = MappingProxyType({"22": ("bd", "Bed"), "21": ("ro", "Room"), "27": ("wa", "Ward")})


def of_document(conv: Conversion, patient: Node, encompassing: Element | None) -> None:
    """Make the Encounter of the document, where its header names one, and remember it."""
    numbers = [each for each in patient.kids.get("id", ()) if ids.kind_of(each) in VISIT_KINDS]
    patient.kids["id"] = [each for each in patient.kids.get("id", ()) if each not in numbers]
    kind = patient.first("patientType")
    made = ids.identifiers(conv, numbers)
    if encompassing is None and not made:
        return
    node = Node(encompassing) if encompassing is not None else None
    if node is not None:
        node.drop("templateId")
        made = [*ids.identifiers(conv, node.take("id")), *made]
    resource: Json = {"resourceType": "Encounter", "id": "", "status": "", "class": {}, "subject": conv.subject}
    # 住院号 before 门急诊号: a stay that began in the emergency room is one stay.
    made.sort(key=lambda each: _is_outpatient_number(each))
    if made:
        resource["identifier"] = made
        resource["id"] = encounter_id(conv.profile, made[0]["system"], made[0]["value"])
    elif encompassing is None or not said(encompassing):
        return
    else:
        resource["id"] = conv.place_id("Encounter", encompassing)
    resource["class"] = _class(conv, kind, made)
    if node is not None:
        _describe(conv, resource, node)
        conv.left(node)
    # The status waits until the body has been read: an admission note's visit goes on, a discharge record's is over.
    conv.put(resource)
    conv.encounter = resource


def _is_outpatient_number(made: Json) -> bool:
    return any(each.get("code", "").endswith(".1.11") for each in made.get("type", {}).get("coding", ()))


def _class(conv: Conversion, kind: Element | None, made: list[Json]) -> Json:
    code_el = next(iter(kind), None) if kind is not None else None
    code = _PATIENT_TYPES.get(code_el.get("code", "")) if code_el is not None else None
    if code is None and code_el is not None and code_el.get("code"):
        conv.unmapped_code("encounter-class", code_el)
    if code is None and conv.chinese and made:
        code = "AMB" if _is_outpatient_number(made[0]) else "IMP"
    return act_class(code or "")


def act_class(code: str) -> Json:
    """An Encounter.class of v3-ActCode; "unknown" for a code that is none."""
    if code in _CLASSES:
        return {"system": ACT_CODE, "code": code, "display": _CLASSES[code]}
    return {"system": NULL_FLAVOR, "code": "UNK", "display": "unknown"}


def classify(resource: Json, sent: Json | None) -> None:
    """Take the class out of an encounter's code and its translations; what else it says is the type."""
    code = concepts.code_in(sent, ACT_CODE)
    if code in _CLASSES:
        resource["class"] = act_class(code)
    elif not resource.get("class"):
        resource["class"] = act_class("")
    if sent and (len(sent.get("coding", ())) > (1 if code else 0) or ("coding" not in sent)):
        resource["type"] = [sent]


def settle_status(conv: Conversion) -> None:
    """Say how far the document's visit is, by its period, when everything about it has been read."""
    resource = conv.encounter
    if resource is None or resource["status"]:
        return
    period = resource.get("period", {})
    ended = "end" in period or "_end" in period
    if ended or (resource["class"]["code"] == "AMB" and "start" in period):
        resource["status"] = "finished"
    else:
        resource["status"] = "in-progress" if "start" in period else "unknown"
    for place in resource.get("location", ()):
        place.setdefault("status", "completed" if ended else "active")


def _describe(conv: Conversion, resource: Json, node: Node) -> None:
    code = node.first("code")
    sent = concepts.concept(conv, code)
    if sent and concepts.code_in(sent, ADMIT_SOURCE_SYSTEM):
        resource["hospitalization"] = {"admitSource": sent}
    elif not (conv.chinese and sent and "coding" not in sent):  # there the code holds the title of the time beside it
        had = resource["class"]
        resource["class"] = {}
        classify(resource, sent)
        if resource["class"]["code"] == "UNK":
            resource["class"] = had
    el = node.first("effectiveTime")
    if el is not None:
        _period(conv, resource, el)
    disposition = concepts.translated_if_chinese(conv, "discharge-disposition", node.first("dischargeDispositionCode"))
    if disposition:
        resource.setdefault("hospitalization", {})["dischargeDisposition"] = disposition
    for name, kind, display in (
        ("responsibleParty", "PPRF", "primary performer"),
        ("encounterParticipant", "", ""),
    ):
        for each in node.take(name):
            _participant(conv, resource, each, kind, display)
    for each in node.take("location"):
        facility = child(each, "healthCareFacility")
        if facility is not None:
            _facility(conv, resource, facility)
        else:
            conv.not_mapped(each)


def _period(conv: Conversion, resource: Json, el: Element) -> None:
    if el.get("value"):  # one time is when it began; WS/T 500 writes the admission so
        start = times.read(conv, el)
        if start:
            resource["period"] = {"start": start}
        return
    found = times.period(conv, el)
    if found:
        resource["period"] = found


def _participant(conv: Conversion, resource: Json, el: Element, kind: str, display: str) -> None:
    who = actors.actor(conv, inner) if (inner := child(el, "assignedEntity")) is not None else None
    if who is None:
        conv.not_mapped(el)
        return
    code = kind or el.get("typeCode", "PART")
    coding = {"system": _PARTICIPATION, "code": code}
    if display:
        coding["display"] = display
    entry: Json = {"type": [{"coding": [coding]}], "individual": who}
    when = child(el, "time")
    if when is not None:
        found = times.period(conv, when)
        if found:
            entry["period"] = found
    resource.setdefault("participant", []).append(entry)


def _facility(conv: Conversion, resource: Json, el: Element) -> None:
    node = Node(el)
    node.drop("templateId")
    provider = node.first("serviceProviderOrganization")
    chain = _chain(provider) if provider is not None else []
    if any(ids.kind_of(number) in _LEVELS for each in chain for number in children(each, "id")):
        _chinese_place(conv, resource, chain)
    elif provider is not None:
        made = actors.organization(conv, provider)
        if made:
            resource["serviceProvider"] = made
    place = _location(conv, node)
    if place:
        resource.setdefault("location", []).append({"location": place})
    conv.left(node)


def _location(conv: Conversion, node: Node) -> Json | None:
    """The Location of a healthCareFacility's own id, code, name and address; None when it says nothing."""
    inner = node.first("location")
    place = Node(inner) if inner is not None else None
    made = ids.identifiers(conv, node.take("id"))
    kind = concepts.concept(conv, node.first("code"))
    name = demographics.organization_name(one) if place and (one := place.first("name")) is not None else ""
    where = demographics.addresses(conv, place.take("addr")) if place else []
    if place is not None:
        conv.left(place)
    if not made and not name and not where:
        return None
    resource: Json = {"resourceType": "Location", "id": ""}
    if made:
        resource["identifier"] = made
        resource["id"] = conv.id_of("Location", made[0]["system"], made[0]["value"])
    else:
        resource["id"] = location_id(conv.profile, name or where[0].get("text", "") or str(where[0]))
    if name:
        resource["name"] = name
    resource["mode"] = "instance"
    if kind:
        resource["type"] = [kind]
    if where:
        resource["address"] = where[0]
    return conv.put(resource)


def _chain(el: Element) -> list[Element]:
    """An organization and those it is part of, the smallest first."""
    chain = [el]
    while True:
        whole = child(chain[-1], "asOrganizationPartOf", "wholeOrganization")
        if whole is None:
            return chain
        chain.append(whole)


def _chinese_place(conv: Conversion, resource: Json, chain: list[Element]) -> None:
    """Bed, room, department, ward and hospital: the place, and who is responsible for it."""
    names: dict[str, str] = {}
    responsible: list[tuple[str, Json]] = []
    for el in chain:
        numbers = children(el, "id")
        kind = next((ids.kind_of(each) for each in numbers if ids.kind_of(each)), "")
        title = next((text for each in children(el, "name") if (text := demographics.organization_name(each))), "")
        value = next((each.get("extension", "").strip() for each in numbers), "")
        if kind in _LEVELS or not (value or title):
            _beside_number(conv, el)
        if kind in _LEVELS:
            # The number names a bed; what is written beside it is the same or a title.
            names[kind] = value or title
            if title and title != names[kind]:
                names[kind + " title"] = title
        elif value or title:
            responsible.append((kind, _unit(conv, el, numbers, title)))
    for (_, smaller), (_, larger) in pairwise(responsible):
        smaller.setdefault("partOf", {"reference": f"Organization/{larger['id']}"})
    if responsible:
        resource["serviceProvider"] = {"reference": f"Organization/{responsible[0][1]['id']}"}
    ward, room, bed = names.get("27", ""), names.get("21", ""), names.get("22", "")
    parent: Json | None = None
    for value, level, path in ((ward, "27", (ward,)), (room, "21", (ward, room)), (bed, "22", (ward, room, bed))):
        if not value:
            continue
        code, display = _LEVELS[level]
        place: Json = {
            "resourceType": "Location",
            "id": location_id(conv.profile, "", "", *path),
            "name": names.get("27 title", value) if level == "27" else value,
            "mode": "instance",
            "physicalType": {"coding": [{"system": _PHYSICAL, "code": code, "display": display}]},
        }
        written = names.get(level + " title")
        if written and level != "27":
            place["alias"] = [written]
        if parent is not None:
            place["partOf"] = parent
        parent = conv.put(place)
    if parent is not None:
        resource.setdefault("location", []).append({"location": parent})


def _beside_number(conv: Conversion, el: Element) -> None:
    """Remark on what is said of a bed, room or ward beside its number and its name."""
    node = Node(el)
    node.drop("templateId", "realmCode", "typeId", "asOrganizationPartOf")
    node.first("id")
    node.first("name")
    conv.left(node)


def _unit(conv: Conversion, el: Element, numbers: list[Element], title: str) -> Json:
    made = ids.identifiers(conv, numbers)
    resource: Json = {"resourceType": "Organization", "id": ""}
    if made:
        resource["identifier"] = made
        resource["id"] = organization_id(conv.profile, made[0]["system"], made[0]["value"])
    else:
        resource["id"] = organization_id(conv.profile, conv.issuer_system(), "name:" + title)
    if title:
        resource["name"] = title
    node = Node(el)
    node.drop("templateId", "realmCode", "typeId", "asOrganizationPartOf", "id")
    node.first("name")
    conv.left(node)
    return conv.get(conv.put(resource))
