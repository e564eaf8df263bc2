"""SPM, and OBR-15 of earlier versions: the Specimen (guide: SPM[Specimen], OBR[Specimen])."""

from fhir_adapters.extensions import SPECIMEN_ROLE
from fhir_adapters.hl7v2.context import Conversion, Json, add_extension
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, quantities, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.identifiers import specimen_id

_V2_ROLE = "http://terminology.hl7.org/CodeSystem/v2-0369"
_AVAILABLE = {"Y": "available", "N": "unavailable"}


def specimen(conv: Conversion, subject: Json, spm: Segment, order_key: tuple[str, str]) -> Json:
    """Make the Specimen of an SPM and return it (already added).

    ``order_key`` (system and value of the order) names a specimen that has no number of its own.
    """
    spm.take(1)
    resource: Json = {"resourceType": "Specimen", "id": "", "subject": subject}
    _identify(conv, resource, spm, order_key)
    _describe(conv, resource, spm)
    _collection(conv, resource, spm)
    return conv.keep(resource)


def _identify(conv: Conversion, resource: Json, spm: Segment, order_key: tuple[str, str]) -> None:
    placer, filler, *_ = [*spm.take(2).split("~")[0].split("^"), ""]
    # EIP: each half is an EI whose parts are subcomponents. The filler's number is the laboratory's own.
    for raw, kind in ((filler, "FILL"), (placer, "PLAC")):
        made = business_ids.entity(conv, raw.replace("&", "^"), kind) if raw else None
        business_ids.add_identifier(resource, made)
    for made in business_ids.identifiers(conv, spm, 31) if spm.peek(31) else ():
        business_ids.add_identifier(resource, made)
    accession = business_ids.identifiers(conv, spm, 30) if spm.peek(30) else []
    if accession:
        resource["accessionIdentifier"] = accession[0]
    known = resource.get("identifier") or accession
    if known:
        resource["id"] = specimen_id(conv.profile, *business_ids.key_of(known[0]))
    else:
        system, value = order_key
        times = conv.occurrence("SPM" + value)
        resource["id"] = specimen_id(conv.profile, system, f"{value}#specimen{times}")


def _describe(conv: Conversion, resource: Json, spm: Segment) -> None:
    kind = concepts.concept(conv, spm, 4)
    if kind is not None:
        resource["type"] = kind
    flag = conv.text(spm.take(20))
    if flag in _AVAILABLE:
        resource["status"] = _AVAILABLE[flag]
    elif flag:
        conv.issue("warning", "unmapped-code", spm, 20, "neither yes nor no")
    timestamps.put_date_time(conv, resource, "receivedTime", spm, 18)
    conditions = concepts.concepts(conv, spm, 24)
    if conditions:
        resource["condition"] = conditions
    if spm.peek(11):
        _role(conv, resource, spm)
    remarks = [{"text": text} for raw in spm.take(14).split("~") if (text := conv.text(raw))]
    if remarks:
        resource["note"] = remarks
    container: Json = {}
    vessel = concepts.concept(conv, spm, 27)
    if vessel is not None:
        container["type"] = vessel
    additive = concepts.concept(conv, spm, 6)
    if additive is not None:
        container["additiveCodeableConcept"] = additive
    if container:
        resource["container"] = [container]


def _role(conv: Conversion, resource: Json, spm: Segment) -> None:
    """SPM-11: what the specimen is for (table 0369); P, of the patient, is every specimen's."""
    roles = [
        each
        for each in concepts.concepts(conv, spm, 11)
        if not any(coding["code"] == "P" for coding in each.get("coding", ()))
    ]
    for each in roles:
        for coding in each.get("coding", ()):
            coding.setdefault("system", _V2_ROLE)
        add_extension(resource, SPECIMEN_ROLE, "valueCodeableConcept", each)


def container(conv: Conversion, resource: Json, sac: Segment) -> None:
    """SAC: the container that the specimen is in: its numbers (3, 4), the accession (2), additive (27)."""
    made: Json = {}
    for number in (3, 4):
        identified = business_ids.entity(conv, sac.take(number)) if sac.peek(number) else None
        business_ids.add_identifier(made, identified)
    accession = business_ids.entity(conv, sac.take(2), "ACSN") if sac.peek(2) else None
    if accession is not None:
        resource.setdefault("accessionIdentifier", accession)
    additive = concepts.concept(conv, sac, 27) if sac.peek(27) else None
    if additive is not None:
        made["additiveCodeableConcept"] = additive
    if made and made not in resource.get("container", ()):
        resource.setdefault("container", []).append(made)


def _collection(conv: Conversion, resource: Json, spm: Segment) -> None:
    collection: Json = {}
    for number, element in ((7, "method"), (8, "bodySite")):
        value = concepts.concept(conv, spm, number)
        if value is not None:
            collection[element] = value
    amount = spm.take(12)
    if amount:
        _amount(conv, collection, amount, spm, 12)
    when = spm.take(17)
    if when:
        start, end, *_ = [*when.split("^"), ""]
        if end.strip():
            timestamps.put_period(conv, collection, "collectedPeriod", when, spm, 17)
        else:
            timestamps.put_raw(conv, collection, "collectedDateTime", start, spm, 17)
    if collection:
        resource["collection"] = collection


def _amount(conv: Conversion, collection: Json, raw: str, segment: Segment, number: int) -> None:
    """CQ: a number and its units."""
    made = quantities.composite(conv, raw)
    if made is not None:
        collection["quantity"] = made
    elif conv.text(raw.split("^")[0]):
        conv.issue("warning", "bad-value", segment, number, "not a quantity")


def collected_by(conv: Conversion, resource: Json, obr: Segment) -> None:
    """OBR-10 beside an SPM: who collected; volume, receipt and source are in the SPM itself."""
    collector = actors.practitioner(conv, obr, 10)
    if collector is not None:
        resource.setdefault("collection", {})["collector"] = collector
    if "receivedTime" not in resource:
        timestamps.put_date_time(conv, resource, "receivedTime", obr, 14)


def from_order(conv: Conversion, subject: Json, obr: Segment, order_key: tuple[str, str]) -> Json | None:
    """The Specimen that OBR-9, 10, 14 and 15 describe where no SPM is sent; None when they say nothing."""
    source, received, volume = obr.take(15), obr.peek(14), obr.take(9)
    if not source and not received and not volume and not obr.peek(10):
        return None
    resource: Json = {"resourceType": "Specimen", "id": "", "subject": subject}
    # SPS: code (a CWE in subcomponents), additives, text, body site, ...
    parts = source.split("^")
    kind = concepts.from_raw(conv, parts[0].replace("&", "^"), obr, 15) if parts[0] else None
    described = conv.text(parts[2]) if len(parts) > 2 else ""
    if kind is not None or described:
        resource["type"] = kind or {"text": described}
    collection: Json = {}
    site = concepts.from_raw(conv, parts[3].replace("&", "^"), obr, 15) if len(parts) > 3 and parts[3] else None
    if site is not None:
        collection["bodySite"] = site
    for index in (1, *range(4, len(parts))):
        if index < len(parts) and parts[index]:
            conv.not_mapped(obr, 15, index + 1)
    if described and kind is not None:
        resource["note"] = [{"text": described}]
    if volume:
        _amount(conv, collection, volume, obr, 9)
    collector = actors.practitioner(conv, obr, 10)
    if collector is not None:
        collection["collector"] = collector
    timestamps.put_date_time(conv, resource, "receivedTime", obr, 14)
    if collection:
        resource["collection"] = collection
    system, value = order_key
    resource["id"] = specimen_id(conv.profile, system, f"{value}#specimen")
    return conv.keep(resource)
