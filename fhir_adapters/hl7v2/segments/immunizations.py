"""RXA, RXR and OBX of a vaccination: the Immunization (guide: RXA[Immunization], ORC[Immunization], RXR[Immunization]).

What the guide leaves to implementation guides follows that of the immunization registries (CDC, HL7 v2.5.1, release
1.5), which every sender of VXU seen here uses: RXA-9 says who reports, and certain OBX say funding, eligibility and
education. Every OBX is an Observation as well, part of the Immunization.
"""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, places, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import measured
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import dosage, order_control
from fhir_adapters.hl7v2.segments.allergies import key_of
from fhir_adapters.hl7v2.segments.medicines import manufacturer
from fhir_adapters.identifiers import numbered_id

_FUNCTION = "http://terminology.hl7.org/CodeSystem/v2-0443"
# Guide: table 0322 Completion Status.
_STATUS = {"CP": "completed", "PA": "completed", "RE": "not-done", "NA": "not-done"}
_NEW_RECORD = frozenset({"00", "0"})
"""RXA-9 of the registries (NIP001): 00 a new record, 01 to 08 a historical one and where it was read."""
_REGISTRY_REPORTS = frozenset({"NIP001", "2.16.840.1.114222.4.5.274"})
_UNKNOWN_AMOUNTS = frozenset({"999", "9999"})
"""RXA-6 of the registries: the amount is not known, or it was not given."""
_PLACEHOLDERS = frozenset({"9999", "0000"})
"""ORC-3 of the registries for what was not given and so has no number."""

# LOINC codes of OBX under RXA, by the element of Immunization that holds the same.
ELIGIBILITY, FUNDING, REACTION = "64994-7", "30963-3", "31044-1"
DOSE_NUMBER, SERIES_DOSES, SERIES = "30973-2", "59782-3", "59779-9"
_EDUCATION = {
    "69764-9": "documentType",
    "30956-7": "documentType",
    "29768-9": "publicationDate",
    "29769-7": "presentationDate",
}


def immunization(conv: Conversion, patient: Json, encounter: Json | None, orc: Segment | None, rxa: Segment) -> Json:
    """Make the Immunization of an RXA (added); its route and observations are put in by the caller."""
    rxa.take(1)
    rxa.take(2)
    resource: Json = {"resourceType": "Immunization", "id": "", "status": _status(conv, rxa)}
    code = concepts.concept(conv, rxa, 5)
    if code is None:
        conv.issue("warning", "missing", rxa, 5, "no vaccine is named")
        code = {"text": "unknown"}
    resource["vaccineCode"] = code
    resource["patient"] = {"reference": f"Patient/{patient['id']}"}
    if encounter is not None:
        resource["encounter"] = encounter
    when = _when(conv, resource, rxa)
    _product(conv, resource, rxa)
    _source(conv, resource, rxa)
    _reasons(conv, resource, rxa)
    where = places.location(conv, rxa, 27) if rxa.peek(27) else _old_place(conv, rxa)
    if where is not None:
        resource["location"] = where
    performers = [
        {"function": _function("AP", "Administering Provider"), "actor": each}
        for each in (actors.practitioners(conv, rxa, 10) if rxa.peek(10) else ())
    ]
    _identify(conv, patient, resource, orc, when)
    if orc is not None:
        ordering = order_control.requester(conv, orc, None)
        if ordering is not None:
            performers.append({"function": _function("OP", "Ordering Provider"), "actor": ordering})
        order_control.describe(conv, resource, orc, "recorded")
    if performers:
        resource["performer"] = performers
    timestamps.put_date_time(conv, resource, "recorded", rxa, 22)
    return conv.keep(resource)


def _function(code: str, display: str) -> Json:
    return {"coding": [{"system": _FUNCTION, "code": code, "display": display}]}


def _status(conv: Conversion, rxa: Segment) -> str:
    action, raw = conv.text(rxa.take(21)), conv.text(rxa.take(20))
    if action == "D":
        return "entered-in-error"
    if raw and raw not in _STATUS:
        conv.unmapped_code("completion status", rxa, 20)
    return _STATUS.get(raw, "completed")


def _when(conv: Conversion, resource: Json, rxa: Segment) -> str:
    written = conv.text(rxa.peek(3).split("^")[0])
    when = timestamps.put_date_time(conv, resource, "occurrenceDateTime", rxa, 3)
    if rxa.peek(4)[:8] == (when or "").replace("-", "")[:8] or not rxa.peek(4):
        rxa.take(4)  # an injection begins and ends together
    if when is None:
        # FHIR requires one: what was written instead of a date, else that it is not known
        resource.pop("_occurrenceDateTime", None)
        resource["occurrenceString"] = written or "unknown"
        if not written:
            conv.issue("warning", "missing", rxa, 3, "no time of vaccination; FHIR requires one")
    return when or ""


def _product(conv: Conversion, resource: Json, rxa: Segment) -> None:
    if conv.text(rxa.peek(6)) in _UNKNOWN_AMOUNTS:
        rxa.take(6)
    amount = measured(conv, rxa.take(6), rxa.take(7)) if rxa.peek(6) else None
    if amount is not None:
        resource["doseQuantity"] = amount
    lot = conv.text(rxa.take(15).split("~")[0])
    if lot:
        resource["lotNumber"] = lot
    raw = rxa.take(16).split("~")[0]
    expires = timestamps.put_raw(conv, resource, "expirationDate", raw, rxa, 16) if raw else None
    if expires is not None:
        resource["expirationDate"] = expires[:10]
    maker = manufacturer(conv, rxa, 17) if rxa.peek(17) else None
    if maker is not None:
        resource["manufacturer"] = maker


def _source(conv: Conversion, resource: Json, rxa: Segment) -> None:
    """RXA-9: who reports, in the registries' code; anything else is a note."""
    for each in concepts.concepts(conv, rxa, 9) if rxa.peek(9) else ():
        own = each.get("coding", ({},))[0]
        if any(str(own.get("system", "")).endswith(name) for name in _REGISTRY_REPORTS):
            resource["primarySource"] = own["code"] in _NEW_RECORD
            if not resource["primarySource"]:
                resource["reportOrigin"] = each
        else:
            text = each.get("text") or own.get("display") or own["code"]
            resource.setdefault("note", []).append({"text": text})


def _reasons(conv: Conversion, resource: Json, rxa: Segment) -> None:
    refusals = concepts.concepts(conv, rxa, 18) if rxa.peek(18) else []
    if refusals:
        resource["statusReason"] = refusals[0]
        if len(refusals) > 1:
            conv.issue("information", "not-mapped", rxa, 18, "only the first repetition has a place")
    reasons = concepts.concepts(conv, rxa, 19) if rxa.peek(19) else []
    if reasons:
        resource["reasonCode"] = reasons


def _old_place(conv: Conversion, rxa: Segment) -> Json | None:
    """RXA-11 (LA2, before v2.6): point of care, room, bed, facility; the rest is an address."""
    raw = rxa.peek(11)
    if not raw:
        return None
    parts = raw.split("^")
    place = "^".join(parts[:4]).rstrip("^")
    if not place:
        return None
    rxa.take(11)
    conv.leftover(parts, 4, rxa, 11)
    return places.location_raw(conv, place, rxa, 11)


def _identify(conv: Conversion, patient: Json, resource: Json, orc: Segment | None, when: str) -> None:
    numbers = []
    for number, kind in ((2, "PLAC"), (3, "FILL")) if orc is not None else ():
        assert orc is not None
        made = business_ids.entity(conv, orc.take(number).split("~")[0], kind)
        if made is not None and made["value"] not in _PLACEHOLDERS:
            numbers.append(made)
    if numbers:
        resource["identifier"] = numbers
    code = key_of(resource["vaccineCode"])
    # The filler's number names one vaccination; without it the patient, the vaccine and the day do.
    parts = business_ids.key_of(numbers[-1]) if numbers else (patient["id"], when[:10])
    key = "\x1f".join((*parts, code))
    times = conv.occurrence("RXA" + key)
    resource["id"] = numbered_id(conv.profile, "Immunization", parts[0], parts[1], code, str(times))
    if orc is not None:
        orc.take(1)
        orc.take(5)


def applied(conv: Conversion, resource: Json, rxr: Segment) -> None:
    """RXR: route and site."""
    made: Json = {}
    dosage.route(conv, made, rxr)
    for element in ("route", "site"):
        if element in made and element not in resource:
            resource[element] = made[element]


def told_by(resource: Json, observation: Json) -> None:
    """Put into the Immunization what an Observation under it says, where it has an element for that."""
    observation["partOf"] = [{"reference": f"Immunization/{resource['id']}"}]
    code = observation["code"].get("coding", ({"code": ""},))[0]["code"]
    value = observation.get("valueCodeableConcept")
    if code == ELIGIBILITY and value is not None:
        _append(resource, "programEligibility", value)
    elif code == FUNDING and value is not None:
        resource.setdefault("fundingSource", value)
    elif code in _EDUCATION:
        _educate(resource, observation, _EDUCATION[code])
    elif code == REACTION:
        _append(resource, "reaction", {"detail": {"reference": f"Observation/{observation['id']}"}})
    elif code in (DOSE_NUMBER, SERIES_DOSES, SERIES):
        _protocol(resource, observation, code)


def _append(resource: Json, element: str, value: Json) -> None:
    known = resource.setdefault(element, [])
    if value not in known:
        known.append(value)


def _educate(resource: Json, observation: Json, element: str) -> None:
    """What the patient was given to read: its kind, when it was published, when it was handed over."""
    concept = observation.get("valueCodeableConcept", {})
    own = concept.get("coding", ({},))[0]
    value = observation.get("valueDateTime") if element != "documentType" else concept.get("text") or own.get("display")
    value = value or own.get("code") if element == "documentType" else value
    if not value:
        return
    known = resource.setdefault("education", [])
    if not known or element in known[-1]:
        known.append({})
    known[-1][element] = value


def _protocol(resource: Json, observation: Json, code: str) -> None:
    """Which dose of which series it was. FHIR requires the dose's number, so a series alone stays an Observation."""
    quantity = observation.get("valueQuantity")
    whole = int(quantity["value"]) if quantity is not None and 0 < float(quantity["value"]) < 100 else 0
    known = resource.setdefault("protocolApplied", [{}])
    if code == DOSE_NUMBER and whole:
        known[0]["doseNumberPositiveInt"] = whole
    elif code == SERIES_DOSES and whole:
        known[0]["seriesDosesPositiveInt"] = whole
    elif code == SERIES:
        own = observation.get("valueCodeableConcept", {}).get("coding", ({},))[0]
        title = own.get("display") or own.get("code")
        if title:
            known[0]["series"] = title


def tidy(resource: Json) -> None:
    """Drop a protocol without a dose number, which FHIR does not allow; the Observations have what it said."""
    if "doseNumberPositiveInt" not in resource.get("protocolApplied", [{"doseNumberPositiveInt": 1}])[0]:
        del resource["protocolApplied"]
