"""PID and PD1: the Patient (guide: PID[Patient], PD1[Patient])."""

from fhir_adapters.extensions import ETHNIC_GROUP, RACE, SOURCE_SEX
from fhir_adapters.hl7v2.context import Conversion, Json, add_extension, keep_original
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import kin
from fhir_adapters.identifiers import ID_CARD_SYSTEM, check_resident_id, choose_patient_identifier, patient_id

_CORE = "http://hl7.org/fhir/StructureDefinition/"
MOTHERS_MAIDEN_NAME = _CORE + "patient-mothersMaidenName"
BIRTH_TIME = _CORE + "patient-birthTime"
BIRTH_PLACE = _CORE + "patient-birthPlace"
RELIGION = _CORE + "patient-religion"
CITIZENSHIP = _CORE + "patient-citizenship"
NATIONALITY = _CORE + "patient-nationality"
ANIMAL = _CORE + "patient-animal"
CONGREGATION = _CORE + "patient-congregation"

_LAST = frozenset({"SS", "DL"})
"""Types of numbers that name a patient only when there is no other."""

_YES = frozenset({"Y", "y", "YES", "1", "是", "TRUE", "true"})
_NO = frozenset({"N", "n", "NO", "0", "否", "FALSE", "false"})


def patient(conv: Conversion, pid: Segment, pv1: Segment | None = None) -> Json:
    """Make the Patient of a PID and return it (already added to the conversion).

    ``pv1`` stands in for a patient without any number: a newborn, somebody found unconscious.
    """
    pid.take(1)
    resource: Json = {"resourceType": "Patient", "id": ""}
    mothers = business_ids.identifiers(conv, pid, 21) if pid.peek(21) else []
    _identify(conv, resource, pid, pv1, mothers)
    found = demographics.names(conv, pid, 5) + demographics.names(conv, pid, 9, "nickname")
    if found:
        resource["name"] = found
    _extensions(conv, resource, pid)
    _birth(conv, resource, pid)
    _sex(conv, resource, pid)
    _contact_points(conv, resource, pid)
    _circumstances(conv, resource, pid)
    kept = conv.keep(resource)
    for made in mothers:
        kin.mother(conv, kept, made)
    return kept


def _identify(conv: Conversion, resource: Json, pid: Segment, pv1: Segment | None, mothers: list[Json]) -> None:
    for number in (3, 2, 4):
        for made in business_ids.identifiers(conv, pid, number):
            business_ids.add_identifier(resource, made)
    if pid.peek(19):
        business_ids.add_identifier(resource, _social_security(conv, pid))
    if pid.peek(20):
        business_ids.add_identifier(resource, _licence(conv, pid))
    known = resource.get("identifier", ())
    chosen = choose_patient_identifier(each for each in known if _type_code(each) not in _LAST) or (
        choose_patient_identifier(known)
    )
    if chosen is not None:
        resource["id"] = patient_id(conv.profile, *business_ids.key_of(chosen))
        return
    system, value, text = _stand_in(conv, pid, pv1, mothers)
    conv.issue("warning", "no-identifier", pid, 3, f"no identifier names the patient; {text}")
    resource["id"] = patient_id(conv.profile, system, value)


def _stand_in(conv: Conversion, pid: Segment, pv1: Segment | None, mothers: list[Json]) -> tuple[str, str, str]:
    """What names a patient without a number, so that the next message about them finds the same record."""
    if mothers:
        system, value = business_ids.key_of(mothers[0])
        # Of one mother: the time of birth tells siblings apart, the birth order twins.
        key = "#".join(("child", value, pid.peek(7).split("^")[0], pid.peek(25)))
        return system, key, "the mother's number, the time and the order of birth do"
    for segment, number, what in ((pv1, 19, "visit"), (pid, 18, "account")):
        raw = segment.peek(number).split("~")[0] if segment is not None else ""
        parts = [*raw.split("^"), "", "", ""]
        value = conv.text(parts[0])
        if value:
            return conv.system(parts[3]), f"{what}#{value}", f"the {what} number does"
    return conv.local_system("message"), conv.message_key(pid.where(3)), "the id holds for this message only"


def _type_code(made: Json) -> str:
    codings = made.get("type", {}).get("coding")
    return str(codings[0]["code"]) if codings else ""


def _social_security(conv: Conversion, pid: Segment) -> Json | None:
    """PID-19: the identity number in China (many HIS put it there), a social security number elsewhere."""
    raw = pid.take(19)
    value = conv.text(raw.split("^")[0])
    if not value:
        return None
    if len(value) in (15, 18) and check_resident_id(value).valid:
        return business_ids.identifier(conv, f"{raw.split('^')[0]}^^^^NNCHN", pid, 19)
    return business_ids.identifier(conv, f"{raw.split('^')[0]}^^^^SS", pid, 19)


def _licence(conv: Conversion, pid: Segment) -> Json | None:
    """PID-20 (DLN): number, issuer, expiry."""
    value, issuer, expiry, *_ = [*pid.take(20).split("^"), "", "", ""]
    return business_ids.identifier(conv, f"{value}^^^{issuer}^DL^^^{expiry}", pid, 20)


def _birth(conv: Conversion, resource: Json, pid: Segment) -> None:
    raw = pid.take(7).split("^")[0].strip()
    if raw and raw != '""':
        value = timestamps.read(conv, raw, pid, 7)
        if value is None:
            keep_original(resource, "birthDate", conv.text(raw))
        else:
            resource["birthDate"] = value[:10]
            if len(value) > 10:
                resource["_birthDate"] = {"extension": [{"url": BIRTH_TIME, "valueDateTime": value}]}
    for made in resource.get("identifier", ()):
        if made["system"] == ID_CARD_SYSTEM:
            _compare(conv, resource, str(made["value"]), pid)


def _compare(conv: Conversion, resource: Json, number: str, pid: Segment) -> None:
    """A valid identity number says when its holder was born; a difference is somebody's mistake."""
    checked = check_resident_id(number)
    born = resource.get("birthDate", "")
    if checked.valid and len(born) == 10 and born != checked.birth_date:
        conv.issue("warning", "conflict", pid, 7, "the birth date differs from that in the identity number")


def _sex(conv: Conversion, resource: Json, pid: Segment) -> None:
    meaning, sent = concepts.mapped(conv, "sex", pid, 8)
    if meaning is not None:
        resource["gender"] = meaning.code
    if sent is None:
        return
    code = sent.get("coding", ({"code": sent.get("text", "")},))[0]["code"]
    if meaning is None:
        keep_original(resource, "gender", code)
    # GB/T 2261.1 knows more than FHIR does: 0 unknown, 9 not stated. The code as sent is kept where FHIR's says less.
    elif (code, meaning.code) not in (("M", "male"), ("F", "female"), ("U", "unknown")):
        resource["_gender"] = {"extension": [{"url": SOURCE_SEX, "valueString": code}]}
    number = next((each["value"] for each in resource.get("identifier", ()) if each["system"] == ID_CARD_SYSTEM), "")
    if number and meaning is not None and meaning.code in ("male", "female"):
        checked = check_resident_id(str(number))
        if checked.valid and checked.gender != meaning.code:
            conv.issue("warning", "conflict", pid, 8, "the sex differs from that in the identity number")


def _contact_points(conv: Conversion, resource: Json, pid: Segment) -> None:
    where = demographics.addresses(conv, pid, 11)
    county = conv.text(pid.take(12))
    if county:
        if len(where) == 1 and "district" not in where[0]:
            where[0]["district"] = county
        elif not any(each.get("district") == county for each in where):
            where.append({"district": county})
    if where:
        resource["address"] = where
    points = demographics.telecoms(conv, pid, 13, "home")
    if pid.peek(14):
        points += demographics.telecoms(conv, pid, 14, "work")
    if pid.peek(40):
        points += [each for each in demographics.telecoms(conv, pid, 40) if each not in points]
    if points:
        resource["telecom"] = points


def _circumstances(conv: Conversion, resource: Json, pid: Segment) -> None:
    language = concepts.translated(conv, "language", pid, 15)
    if language is not None:
        resource["communication"] = [{"language": language, "preferred": True}]  # it is the primary language
    if pid.peek(16):
        marital = concepts.translated(conv, "marital", pid, 16)
        if marital is not None:
            resource["maritalStatus"] = marital
    _multiple_birth(conv, resource, pid)
    _death(conv, resource, pid)


def _multiple_birth(conv: Conversion, resource: Json, pid: Segment) -> None:
    order = conv.text(pid.take(25))
    flag = yes_no(conv, pid, 24)
    if order.isascii() and order.isdigit() and 0 < int(order[:6]) < 100:
        resource["multipleBirthInteger"] = int(order)
    else:
        if order:
            conv.issue("warning", "bad-value", pid, 25, "not a birth order")
        if flag is not None:
            resource["multipleBirthBoolean"] = flag


def _death(conv: Conversion, resource: Json, pid: Segment) -> None:
    flag = yes_no(conv, pid, 30)
    if pid.peek(29):
        timestamps.put_date_time(conv, resource, "deceasedDateTime", pid, 29)
    elif flag is not None:
        resource["deceasedBoolean"] = flag


def yes_no(conv: Conversion, segment: Segment, number: int) -> bool | None:
    """Take an ID of table 0136; a value that is neither yes nor no is remarked on."""
    raw = segment.take(number)
    if not raw:
        return None
    value = conv.text(raw.split("^")[0])
    if value in _YES:
        return True
    if value in _NO:
        return False
    if value:
        conv.issue("warning", "unmapped-code", segment, number, "neither yes nor no")
    return None


def _extensions(conv: Conversion, resource: Json, pid: Segment) -> None:
    mother = demographics.names(conv, pid, 6)
    if mother:
        first = mother[0]
        written = first.get("text") or " ".join([*first.get("given", ()), first.get("family", "")]).strip()
        if written:
            add_extension(resource, MOTHERS_MAIDEN_NAME, "valueString", written)
    _ethnic_group(conv, resource, pid)
    religion = concepts.concept(conv, pid, 17)
    if religion is not None:
        add_extension(resource, RELIGION, "valueCodeableConcept", religion)
    if pid.peek(23):
        place = " ".join(text for part in pid.take(23).split("^") if (text := conv.text(part)))
        if place:
            add_extension(resource, BIRTH_PLACE, "valueAddress", {"text": place})
    _animal(conv, resource, pid)
    for number, url in ((26, CITIZENSHIP), (39, CITIZENSHIP), (28, NATIONALITY)):
        for value in concepts.concepts(conv, pid, number) if pid.peek(number) else ():
            nested = {"url": url, "extension": [{"url": "code", "valueCodeableConcept": value}]}
            resource.setdefault("extension", []).append(nested)


def _animal(conv: Conversion, resource: Json, pid: Segment) -> None:
    """PID-35 and 36: species and breed of a patient that is not human."""
    parts: list[Json] = []
    for number, url in ((35, "species"), (36, "breed")):
        value = concepts.concept(conv, pid, number) if pid.peek(number) else None
        if value is not None:
            parts.append({"url": url, "valueCodeableConcept": value})
    if parts:
        resource.setdefault("extension", []).append({"url": ANIMAL, "extension": parts})


def _ethnic_group(conv: Conversion, resource: Json, pid: Segment) -> None:
    """PID-22, and PID-10: Chinese HIS put the GB 3304 code into either; what is none there is a race as elsewhere."""
    for raw in pid.take(22).split("~") if pid.peek(22) else ():
        meaning, sent = concepts.mapped_raw(conv, "ethnic", raw, pid, 22)
        if meaning is not None:
            add_extension(resource, ETHNIC_GROUP, "valueCoding", meaning.coding())
        elif sent is not None:
            own = sent["coding"][0] if "coding" in sent else {"display": sent["text"]}
            add_extension(resource, ETHNIC_GROUP, "valueCoding", own)
    for raw in pid.take(10).split("~") if pid.peek(10) else ():
        sent = concepts.from_raw(conv, raw, pid, 10)
        if sent is None:
            continue
        found = next((each for word in concepts.spellings(sent) if (each := conv.find("ethnic", word))), None)
        if found is None:
            add_extension(resource, RACE, "valueCodeableConcept", sent)
        elif all(each["url"] != ETHNIC_GROUP for each in resource.get("extension", ())):
            add_extension(resource, ETHNIC_GROUP, "valueCoding", found.coding())


def additional(conv: Conversion, resource: Json, pd1: Segment) -> None:
    """PD1: PD1-3 primary facility and PD1-4 primary care provider are the general practitioners."""
    found = []
    facility = actors.organization(conv, pd1, 3)
    if facility is not None:
        found.append(facility)
    found += actors.practitioners(conv, pd1, 4)
    if found:
        resource["generalPractitioner"] = found
    if pd1.peek(14):
        congregation = conv.text(pd1.take(14).split("~")[0].split("^")[0])
        if congregation:
            add_extension(resource, CONGREGATION, "valueString", congregation)
