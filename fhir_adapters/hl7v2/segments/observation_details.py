"""OBX-9 to OBX-33: who observed, how, with what, of what kind (guide: OBX[Observation])."""

from fhir_adapters.hl7v2.context import Conversion, Json, add_extension
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments.participants import ROLE_SYSTEM, practitioner_role

ANALYSIS_TIME = "http://hl7.org/fhir/StructureDefinition/observation-analysis-date-time"
NATURE_OF_ABNORMAL = "http://hl7.org/fhir/StructureDefinition/observation-nature-of-abnormal-test"
STRUCTURE_TYPE = "http://hl7.org/fhir/StructureDefinition/observation-structure-type"
_V2 = "http://terminology.hl7.org/CodeSystem/v2-"
_MEDICAL_DIRECTOR: Json = {"coding": [{"system": ROLE_SYSTEM, "code": "MDIR", "display": "Medical Director"}]}


def performers(conv: Conversion, resource: Json, inherited: list[Json], obx: Segment) -> None:
    """OBX-15, 16, 23 to 25: the producing laboratory, the observer, the performing laboratory and its director."""
    found: list[Json] = []
    fields = obx.fields
    if fields[16]:
        found += actors.practitioners(conv, obx, 16)
    if fields[23] or fields[25]:
        laboratory = _laboratory(conv, obx)
        if laboratory is not None and laboratory not in found:
            found.append(laboratory)
    if fields[15]:
        _producer(conv, found, obx)
    if found:
        resource["performer"] = found
    elif inherited:
        resource["performer"] = inherited


def _laboratory(conv: Conversion, obx: Segment) -> Json | None:
    """The Organization of OBX-23; with a director in OBX-25 the PractitionerRole of both (guide)."""
    where = demographics.addresses(conv, obx, 24) if obx.fields[24] else None
    laboratory = actors.organization(conv, obx, 23, where) if obx.fields[23] else None
    director = actors.practitioner(conv, obx, 25) if obx.fields[25] else None
    if director is None:
        return laboratory
    return practitioner_role(conv, director, laboratory, role=_MEDICAL_DIRECTOR)


def _producer(conv: Conversion, found: list[Json], obx: Segment) -> None:
    """OBX-15 names the producing laboratory, by code and name, where OBX-23 is not sent."""
    producer = concepts.concept(conv, obx, 15)
    if producer is None:
        return
    first = producer.get("coding", ({"code": "", "display": producer.get("text", "")},))[0]
    system = first.get("system") or conv.local_system("producer")
    reference = actors.coded_organization(conv, first["code"], first.get("display", ""), system)
    if reference is not None and reference not in found:
        found.append(reference)


def describe(conv: Conversion, resource: Json, obx: Segment) -> None:
    """Fields most laboratories leave empty."""
    fields = obx.fields
    if fields[10]:
        for raw in obx.take(10).split("~"):
            nature = concepts.from_raw(conv, raw, obx, 10, _V2 + "0080")
            if nature is not None:
                add_extension(resource, NATURE_OF_ABNORMAL, "valueCodeableConcept", nature)
    if obx.sent < 17:
        return
    if fields[17]:
        methods = concepts.concepts(conv, obx, 17)
        if methods:
            resource["method"] = methods[0]
            if len(methods) > 1:
                conv.issue("information", "not-mapped", obx, 17, "only the first repetition has a place")
    if fields[18]:
        _device(conv, resource, obx)
    if fields[19]:
        timestamps.put_extension(conv, resource, ANALYSIS_TIME, obx, 19)
    if fields[20]:
        site = concepts.concept(conv, obx, 20)
        if site is not None:
            resource["bodySite"] = site
    if fields[21]:
        made = business_ids.entity(conv, obx.take(21), "FILL")
        if made is not None:
            resource["identifier"] = [made]
    if obx.sent > 28:
        _kind(conv, resource, obx)


def _kind(conv: Conversion, resource: Json, obx: Segment) -> None:
    """OBX-29 and 30 what kind of observation it is, OBX-32 why there is no value, OBX-33 of which specimen."""
    fields = obx.fields
    if fields[29]:
        for raw in obx.take(29).split("~"):
            kind = concepts.from_raw(conv, raw, obx, 29, _V2 + "0936")
            if kind is not None:
                resource.setdefault("category", []).append(kind)
    if fields[30]:
        kind = concepts.concept(conv, obx, 30)
        if kind is not None:
            for each in kind.get("coding", ()):
                each.setdefault("system", _V2 + "0937")
            add_extension(resource, STRUCTURE_TYPE, "valueCodeableConcept", kind)
    if fields[32] and "dataAbsentReason" in resource:
        reason = concepts.concept(conv, obx, 32)
        if reason is not None:
            resource["dataAbsentReason"] = reason
    if fields[33] and "specimen" not in resource:
        placer, filler, *_ = [*obx.take(33).split("~")[0].split("^"), ""]
        made = business_ids.entity(conv, (filler or placer).replace("&", "^"))
        if made is not None:
            resource["specimen"] = {"type": "Specimen", "identifier": made}


def _device(conv: Conversion, resource: Json, obx: Segment) -> None:
    """OBX-18: the analyser, by its identifier alone (a Device of its own would say nothing more)."""
    first, *more = obx.take(18).split("~")
    if any(more):
        conv.issue("information", "not-mapped", obx, 18, "only the first repetition has a place")
    made = business_ids.entity(conv, first)
    if made is not None:
        resource["device"] = {"identifier": made}
