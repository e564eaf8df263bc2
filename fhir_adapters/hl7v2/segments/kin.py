"""People around the patient: NK1, the mother of PID-21, and whoever insures, guarantees or reports (RelatedPerson).

Guide: NK1[RelatedPerson], CX[RelatedPerson-Mother]; an organization in NK1-13 is a contact of the patient, because a
RelatedPerson is a person (guide: NK1[Patient]).
"""

from fhir_adapters.hl7v2.context import Conversion, Json, keep_original
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.identifiers import related_id

_ROLE = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
_BARE = 4
"""Elements of a RelatedPerson that says nothing: type, id, active, patient."""


def blank(patient: Json) -> Json:
    """A RelatedPerson of a patient to be filled in; ``finish`` names it."""
    reference = {"reference": f"Patient/{patient['id']}"}
    return {"resourceType": "RelatedPerson", "id": "", "active": True, "patient": reference}


def finish(conv: Conversion, patient: Json, resource: Json) -> str:
    """Give a filled RelatedPerson its id and add it; returns its reference, "" when it says nothing."""
    if len(resource) == _BARE:
        return ""
    resource["id"] = _kin_id(conv, patient, resource)
    return conv.put(resource)


def _kin_id(conv: Conversion, patient: Json, resource: Json) -> str:
    made = resource.get("identifier")
    if made:
        return related_id(conv.profile, "RelatedPerson", patient["id"], *business_ids.key_of(made[0]))
    human = (resource.get("name") or [{}])[0]
    written = "^".join((human.get("text", ""), human.get("family", ""), *human.get("given", ())))
    kinds = resource.get("relationship") or [{}]
    code = kinds[0].get("coding", ({"code": kinds[0].get("text", "")},))[0]["code"]
    key = f"{written}|{code}"
    # A name with its relation is one person wherever it stands; without a name the place in the message tells apart.
    times = 0 if written else conv.occurrence("kin" + patient["id"] + key)
    return related_id(conv.profile, "RelatedPerson", patient["id"], key, str(times))


def next_of_kin(conv: Conversion, patient: Json, nk1: Segment) -> None:
    """NK1: a RelatedPerson; with NK1-13 a contact of the patient at an organization."""
    nk1.take(1)
    if nk1.peek(13):
        _organization(conv, patient, nk1)
        return
    resource = blank(patient)
    for made in business_ids.identifiers(conv, nk1, 33) if nk1.peek(33) else ():
        business_ids.add_identifier(resource, made)
    found = demographics.names(conv, nk1, 2)
    if nk1.peek(30):
        found += demographics.names(conv, nk1, 30)
    if found:
        resource["name"] = found
    _relationship(conv, resource, nk1)
    _reach(conv, resource, nk1)
    sex(conv, resource, nk1, 15)
    if nk1.peek(16):
        birth_date(conv, resource, nk1, 16)
    language = concepts.translated(conv, "language", nk1, 20)
    if language is not None:
        resource["communication"] = [{"language": language, "preferred": True}]  # it is the primary language
    finish(conv, patient, resource)


def _relationship(conv: Conversion, resource: Json, nk1: Segment) -> None:
    kin = [concepts.translated(conv, kind, nk1, number) for number, kind in ((3, "relationship"), (7, "contact-role"))]
    kinds = [each for each in kin if each is not None]
    if kinds:
        resource["relationship"] = kinds


def _reach(conv: Conversion, resource: Json, nk1: Segment) -> None:
    where = demographics.addresses(conv, nk1, 4) + (demographics.addresses(conv, nk1, 32) if nk1.peek(32) else [])
    if where:
        resource["address"] = where
    points = demographics.telecoms(conv, nk1, 5, "home")
    for number, use in ((6, "work"), (31, ""), (40, ""), (41, "")):
        if nk1.peek(number):
            points += [each for each in demographics.telecoms(conv, nk1, number, use) if each not in points]
    if points:
        resource["telecom"] = points
    period(conv, resource, nk1, 8, 9)


def period(conv: Conversion, resource: Json, segment: Segment, start: int, end: int) -> None:
    """Take two fields as ``resource["period"]``."""
    if not segment.peek(start) and not segment.peek(end):
        return
    made: Json = {}
    timestamps.put_date_time(conv, made, "start", segment, start)
    timestamps.put_date_time(conv, made, "end", segment, end)
    if made:
        timestamps.check_period(conv, made, segment, end)
        resource["period"] = made


def sex(conv: Conversion, resource: Json, segment: Segment, number: int) -> None:
    """Take a field of table 0001 as ``gender``; a code without a map is remarked on."""
    meaning, _ = concepts.mapped(conv, "sex", segment, number)
    if meaning is not None:
        resource["gender"] = meaning.code


def birth_date(conv: Conversion, resource: Json, segment: Segment, number: int) -> None:
    """Take a field as ``birthDate``; what is no date stays as text beside it."""
    raw = segment.take(number).split("^")[0].strip()
    value = timestamps.read(conv, raw, segment, number) if raw else None
    if value is not None:
        resource["birthDate"] = value[:10]
    elif raw:
        keep_original(resource, "birthDate", conv.text(raw))


def _organization(conv: Conversion, patient: Json, nk1: Segment) -> None:
    """An employer, a school, an authority: Patient.contact with its Organization."""
    contact: Json = {}
    _relationship(conv, contact, nk1)
    for number in (30, 2):
        found = demographics.names(conv, nk1, number)
        if found and "name" not in contact:
            contact["name"] = found[0]
    telecom = [point for number in (5, 6, 31) for point in demographics.telecoms(conv, nk1, number, "work")]
    if telecom:
        contact["telecom"] = telecom
    where = [each for number in (4, 32) for each in demographics.addresses(conv, nk1, number)]
    if where:
        contact["address"] = where[0]
    sex(conv, contact, nk1, 15)
    organization = actors.organization(conv, nk1, 13)
    if organization is not None:
        contact["organization"] = organization
    period(conv, contact, nk1, 8, 9)
    if contact:
        patient.setdefault("contact", []).append(contact)


def mother(conv: Conversion, patient: Json, made: Json) -> None:
    """PID-21: the mother, known by her number; her own record has the same one."""
    resource = blank(patient)
    resource["identifier"] = [made]
    coding = {"system": _ROLE, "code": "MTH", "display": "mother"}
    resource["relationship"] = [{"coding": [coding]}]
    finish(conv, patient, resource)
