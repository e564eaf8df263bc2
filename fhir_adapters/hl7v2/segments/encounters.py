"""PV1 and PV2: the Encounter (guide: PV1[Encounter], PV2[Encounter])."""

from fhir_adapters.extensions import FINANCIAL_CLASS
from fhir_adapters.hl7v2.context import Conversion, Json, add_extension
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, places, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.identifiers import encounter_id, identifier_type
from fhir_adapters.json_lexeme import from_source

_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_V2_CLASS = "http://terminology.hl7.org/CodeSystem/v2-0004"
TEMPORARY_LOCATION = "http://hl7.org/fhir/uv/v2mappings/StructureDefinition/temporary-location"
PLANNED_START = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Encounter.plannedStartDate"
PLANNED_END = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Encounter.plannedEndDate"
MODE_OF_ARRIVAL = "http://hl7.org/fhir/StructureDefinition/encounter-modeOfArrival"

VISIT_COUNTER_DIGITS = 3
"""Visit numbers of up to this many digits are a counter per patient (the first stay, the second) in the 军卫 family,
not a number of their own: they name a visit only together with the patient."""

_PARTICIPANTS = (
    (7, "ATND", "attender"),
    (8, "REF", "referrer"),
    (9, "CON", "consultant"),
    (17, "ADM", "admitter"),
    (52, "PART", "Participation"),
)
# Field, status, whether temporary; PV1-3 comes first and has its own rule.
_PLACES = ((6, "completed", False), (11, "active", True), (42, "planned", False), (43, "completed", True))


NO_CLASS = frozenset({"", "N", "U"})
"""Patient classes (table 0004) that say nothing: not applicable, unknown."""


def worth_mapping(pv1: Segment) -> bool:
    """Whether PV1 says anything: person events (A28, A31) carry one that holds a class and nothing else."""
    return any(number > 2 for number in pv1.left())


def encounter(conv: Conversion, patient: Json, pv1: Segment, status: str) -> Json:
    """Make the Encounter of a PV1; ``status`` is what the event says ("" when it says nothing)."""
    pv1.take(1)
    subject = {"reference": f"Patient/{patient['id']}"}
    resource: Json = {"resourceType": "Encounter", "id": "", "status": "", "class": {}, "subject": subject}
    _identify(conv, resource, patient, pv1)
    class_code = _class(conv, resource, pv1)
    _period(conv, resource, pv1)
    ended = "end" in resource.get("period", {})
    resource["status"] = status or ("finished" if ended else "planned" if class_code == "PRENC" else "in-progress")
    _locations(conv, resource, pv1)
    _participants(conv, resource, pv1)
    _hospitalization(conv, resource, pv1)
    kinds = [concepts.translated(conv, "admission-type", pv1, 4)]
    if pv1.peek(18):
        kinds.append(concepts.concept(conv, pv1, 18))
    found = [each for each in kinds if each is not None]
    if found:
        resource["type"] = found
    service = concepts.concept(conv, pv1, 10)
    if service is not None:
        resource["serviceType"] = service
    _servicing(conv, resource, pv1)
    if pv1.peek(20):
        for raw in pv1.take(20).split("~"):
            first, *rest = raw.split("^")
            conv.leftover(["", *rest], 1, pv1, 20)
            value = concepts.from_raw(conv, first.replace("&", "^"), pv1, 20, conv.local_system("financial-class"))
            if value is not None:
                add_extension(resource, FINANCIAL_CLASS, "valueCodeableConcept", value)
    return conv.keep(resource)


def stub(conv: Conversion, patient: Json, made: Json, former: Json) -> Json:
    """The Encounter of a visit number, of which nothing else is known but whose it is and was (not added)."""
    return {
        "resourceType": "Encounter",
        "id": encounter_id(conv.profile, *_visit_key(former, made)),
        "identifier": [{**made, "type": identifier_type("VN")}],
        "status": "unknown",
        "class": {"system": _NULL_FLAVOR, "code": "UNK", "display": "unknown"},
        "subject": {"reference": f"Patient/{patient['id']}"},
    }


def _visit_key(patient: Json, made: Json) -> tuple[str, str]:
    system, value = business_ids.key_of(made)
    return system, f"{patient['id']}#{value}" if len(value) <= VISIT_COUNTER_DIGITS else value


def _servicing(conv: Conversion, resource: Json, pv1: Segment) -> None:
    """PV1-39 who serves, PV1-40 the bed's status, PV1-53 and 54 the episode that the visit belongs to."""
    facility = concepts.concept(conv, pv1, 39) if pv1.peek(39) else None
    if facility is not None:
        own = facility.get("coding", ({"code": facility.get("text", "")},))[0]
        system = own.get("system") or conv.system("")
        provider = actors.coded_organization(conv, own["code"], own.get("display", ""), system)
        if provider is not None:
            resource["serviceProvider"] = provider
    status = conv.find("bed-status", conv.text(pv1.peek(40).split("^")[0])) if pv1.peek(40) else None
    where = resource.get("location")
    if status is not None and where:
        pv1.take(40)
        conv.resources[where[0]["location"]["reference"]].setdefault("operationalStatus", status.coding())
    episode = business_ids.identifiers(conv, pv1, 54) if pv1.peek(54) else []
    if episode:
        reference: Json = {"type": "EpisodeOfCare", "identifier": episode[0]}
        title = conv.text(pv1.take(53))
        if title:
            reference["display"] = title
        resource["episodeOfCare"] = [reference]


def _identify(conv: Conversion, resource: Json, patient: Json, pv1: Segment) -> None:
    numbers = business_ids.identifiers(conv, pv1, 19)
    for made in numbers:
        made["type"] = identifier_type("VN")
        business_ids.add_identifier(resource, made)
    for made in business_ids.identifiers(conv, pv1, 50) if pv1.peek(50) else ():
        business_ids.add_identifier(resource, made)
    known = resource.get("identifier")
    if known:
        resource["id"] = encounter_id(conv.profile, *_visit_key(patient, known[0]))
        return
    admitted = pv1.peek(44)
    if admitted:
        value = f"{patient['id']}#{admitted}"
        conv.issue("information", "no-identifier", pv1, 19, "no visit number; the admission time names the visit")
    else:
        value = conv.message_key(pv1.where(19))
        conv.issue(
            "warning",
            "no-identifier",
            pv1,
            19,
            "no visit number and no admission time; the id holds for this message only",
        )
    resource["id"] = encounter_id(conv.profile, conv.local_system("visit"), value)


def _class(conv: Conversion, resource: Json, pv1: Segment) -> str:
    meaning, sent = concepts.mapped(conv, "encounter-class", pv1, 2)
    if meaning is not None:
        resource["class"] = meaning.coding()
        return meaning.code
    if sent is None:
        resource["class"] = {"system": _NULL_FLAVOR, "code": "UNK", "display": "unknown"}
        conv.issue("warning", "missing", pv1, 2, "no patient class; FHIR requires one")
        return ""
    own = sent.get("coding")
    resource["class"] = (
        {"system": _V2_CLASS, **own[0]} if own else {"system": _NULL_FLAVOR, "code": "UNK", "display": sent["text"]}
    )
    return ""


def _period(conv: Conversion, resource: Json, pv1: Segment) -> None:
    period: Json = {}
    timestamps.put_date_time(conv, period, "start", pv1, 44)
    raw = pv1.take(45)
    if raw:
        first, *more = raw.split("~")
        if any(more):
            conv.issue("information", "not-mapped", pv1, 45, "only the first repetition has a place")
        timestamps.put_raw(conv, period, "end", first, pv1, 45)
    if period:
        timestamps.check_period(conv, period, pv1, 45)
        resource["period"] = period


def _locations(conv: Conversion, resource: Json, pv1: Segment) -> None:
    history: list[Json] = []
    current = places.location(conv, pv1, 3)
    if current is not None:
        status = resource["status"]
        history.append(
            {"location": current, "status": {"planned": "planned", "finished": "completed"}.get(status, "active")}
        )
    for number, status, temporary in _PLACES:
        found = places.location(conv, pv1, number) if pv1.fields[number] else None
        if found is not None:
            entry: Json = {"location": found, "status": status}
            if temporary:
                entry = {"extension": [{"url": TEMPORARY_LOCATION, "valueBoolean": True}], **entry}
            history.append(entry)
    if history:
        resource["location"] = history


def _participants(conv: Conversion, resource: Json, pv1: Segment) -> None:
    people: list[Json] = []
    for number, code, display in _PARTICIPANTS:
        if not pv1.fields[number]:
            continue
        for reference in actors.practitioners(conv, pv1, number):
            people.append(_participant(code, display, reference))
    if people:
        resource["participant"] = people


def _participant(code: str, display: str, reference: Json) -> Json:
    return {
        "type": [{"coding": [{"system": _PARTICIPATION, "code": code, "display": display}]}],
        "individual": reference,
    }


def _hospitalization(conv: Conversion, resource: Json, pv1: Segment) -> None:
    stay: Json = {}
    before = business_ids.identifiers(conv, pv1, 5)
    if before:
        stay["preAdmissionIdentifier"] = before[0]
    for number, element, kind in (
        (13, "reAdmission", ""),
        (14, "admitSource", "admit-source"),
        (36, "dischargeDisposition", "discharge-disposition"),
    ):
        if pv1.peek(number):
            value = concepts.translated(conv, kind, pv1, number) if kind else concepts.concept(conv, pv1, number)
            if value is not None:
                stay[element] = value
    for number, element in ((15, "specialArrangement"), (16, "specialCourtesy"), (38, "dietPreference")):
        if pv1.peek(number):
            values = concepts.concepts(conv, pv1, number)
            if values:
                stay[element] = values
    destination = places.discharge_destination(conv, pv1, 37)
    if destination is not None:
        stay["destination"] = destination
    if stay:
        resource["hospitalization"] = stay


def additional(conv: Conversion, resource: Json, pv2: Segment) -> None:
    """PV2: reasons, expected times, priority, length of stay."""
    former = places.location(conv, pv2, 1)
    if former is not None:
        resource.setdefault("location", []).append({"location": former, "status": "planned"})
    reason = concepts.concept(conv, pv2, 3)
    if reason is not None:
        resource.setdefault("reasonCode", []).append(reason)
    for number, url in ((8, PLANNED_START), (9, PLANNED_END)):
        if pv2.peek(number):
            timestamps.put_extension(conv, resource, url, pv2, number)
    _length(conv, resource, pv2)
    for reference in actors.practitioners(conv, pv2, 13) if pv2.peek(13) else ():
        resource.setdefault("participant", []).append(_participant("REF", "referrer", reference))
    priority = concepts.translated(conv, "visit-priority", pv2, 25)
    if priority is not None:
        resource["priority"] = priority
    arrival = concepts.concept(conv, pv2, 38)
    if arrival is not None and arrival.get("coding"):
        add_extension(resource, MODE_OF_ARRIVAL, "valueCoding", arrival["coding"][0])


def _length(conv: Conversion, resource: Json, pv2: Segment) -> None:
    raw = conv.text(pv2.take(11))
    if not raw:
        return
    days = from_source(raw)
    if days is None:
        conv.issue("warning", "bad-value", pv2, 11, "not a number of days")
    else:
        resource["length"] = {"value": days, "unit": "d", "system": "http://unitsofmeasure.org", "code": "d"}
