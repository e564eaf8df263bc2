"""NK1, IN1, AL1, DG1 and NTE: what an ADT message says around the patient and the visit.

Guide: NK1[RelatedPerson], IN1[Coverage], AL1[AllergyIntolerance], DG1[Condition].
"""

import re

from fhir_adapters.hl7v2.context import Conversion, Json, keep_original
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.identifiers import condition_id, related_id

_CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"
_CONDITION_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
_CONDITION_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
ICD10_WHO = "http://hl7.org/fhir/sid/icd-10"
ICD10_CHINA = "urn:oid:2.16.156.10011.2.3.3.11"
_CHINESE_ICD10 = re.compile(r"([A-Z][0-9]{2})(\.[0-9]|\.x)[0-9x]{2,5}[+*]?", re.ASCII)
_DIAGNOSIS_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0052"


def next_of_kin(conv: Conversion, patient: Json, nk1: Segment) -> None:
    """NK1: a RelatedPerson (an organization in NK1-13 is remarked on as not mapped)."""
    nk1.take(1)
    resource: Json = {
        "resourceType": "RelatedPerson",
        "id": "",
        "active": True,
        "patient": {"reference": f"Patient/{patient['id']}"},
    }
    for made in business_ids.identifiers(conv, nk1, 33) if nk1.peek(33) else ():
        business_ids.add_identifier(resource, made)
    found = demographics.names(conv, nk1, 2)
    if nk1.peek(30):
        found += demographics.names(conv, nk1, 30)
    if found:
        resource["name"] = found
    kin = [concepts.translated(conv, kind, nk1, number) for number, kind in ((3, "relationship"), (7, "contact-role"))]
    kinds = [each for each in kin if each is not None]
    if kinds:
        resource["relationship"] = kinds
    _reach(conv, resource, nk1)
    meaning, _ = concepts.mapped(conv, "sex", nk1, 15)
    if meaning is not None:
        resource["gender"] = meaning.code
    if nk1.peek(16):
        _birth_date(conv, resource, nk1)
    language = concepts.concept(conv, nk1, 20)
    if language is not None:
        resource["communication"] = [{"language": language}]
    if len(resource) == 4:
        return  # an empty NK1 names nobody
    resource["id"] = _kin_id(conv, patient, resource)
    conv.put(resource)


def _kin_id(conv: Conversion, patient: Json, resource: Json) -> str:
    made = resource.get("identifier")
    if made:
        return related_id(conv.profile, "RelatedPerson", patient["id"], *business_ids.key_of(made[0]))
    human = (resource.get("name") or [{}])[0]
    written = "^".join((human.get("text", ""), human.get("family", ""), *human.get("given", ())))
    kinds = resource.get("relationship") or [{}]
    code = kinds[0].get("coding", ({"code": kinds[0].get("text", "")},))[0]["code"]
    key = f"{written}|{code}"
    return related_id(
        conv.profile, "RelatedPerson", patient["id"], key, str(conv.occurrence("NK1" + patient["id"] + key))
    )


def _reach(conv: Conversion, resource: Json, nk1: Segment) -> None:
    where = demographics.addresses(conv, nk1, 4) + (demographics.addresses(conv, nk1, 32) if nk1.peek(32) else [])
    if where:
        resource["address"] = where
    points = demographics.telecoms(conv, nk1, 5, "home")
    for number, use in ((6, "work"), (31, ""), (40, ""), (41, "")):
        if nk1.peek(number):
            points += demographics.telecoms(conv, nk1, number, use)
    if points:
        resource["telecom"] = points
    period: Json = {}
    timestamps.put_date_time(conv, period, "start", nk1, 8)
    timestamps.put_date_time(conv, period, "end", nk1, 9)
    if period:
        timestamps.check_period(conv, period, nk1, 9)
        resource["period"] = period


def _birth_date(conv: Conversion, resource: Json, segment: Segment) -> None:
    raw = segment.take(16).split("^")[0].strip()
    value = timestamps.read(conv, raw, segment, 16) if raw else None
    if value is not None:
        resource["birthDate"] = value[:10]
    elif raw:
        keep_original(resource, "birthDate", conv.text(raw))


def coverage(conv: Conversion, patient: Json, in1: Segment) -> None:
    """IN1: a Coverage. Status is active unless the plan ended before the message was sent."""
    set_id = conv.text(in1.take(1))
    beneficiary = {"reference": f"Patient/{patient['id']}"}
    resource: Json = {"resourceType": "Coverage", "id": "", "status": "active", "beneficiary": beneficiary}
    plan = concepts.concept(conv, in1, 2)
    payor = _payor(conv, in1)
    policy, member = conv.text(in1.take(36)), business_ids.identifiers(conv, in1, 49)
    if policy:
        business_ids.add_identifier(resource, {"system": conv.system(""), "value": policy})
    for made in member:
        business_ids.add_identifier(resource, made)
    if member:
        resource["subscriberId"] = member[0]["value"]
    kind = concepts.concept(conv, in1, 15)
    if kind is not None:
        resource["type"] = kind
    _plan_classes(conv, resource, plan, in1)
    period: Json = {}
    timestamps.put_date_time(conv, period, "start", in1, 12)
    timestamps.put_date_time(conv, period, "end", in1, 13)
    if period:
        timestamps.check_period(conv, period, in1, 13)
        resource["period"] = period
        _expire(conv, resource)
    _insured(conv, resource, patient, in1)
    if payor is None and plan is not None:
        payor = {"display": plan.get("text") or plan["coding"][0].get("display") or plan["coding"][0]["code"]}
    resource["payor"] = [payor or beneficiary]
    if payor is None:
        conv.issue("warning", "missing", in1, 4, "no insurer is named; FHIR requires a payor, the patient stands in")
    code = plan["coding"][0]["code"] if plan and plan.get("coding") else (plan or {}).get("text", "")
    parts = (code, resource["payor"][0].get("reference", ""), policy or resource.get("subscriberId", "") or set_id)
    resource["id"] = related_id(conv.profile, "Coverage", patient["id"], *parts)
    conv.put(resource)


def _payor(conv: Conversion, in1: Segment) -> Json | None:
    where = demographics.addresses(conv, in1, 5)
    numbers = in1.take(3).split("~")[0].split("^")
    title = in1.take(4).split("~")[0]
    if not conv.text(numbers[0]) and not title:
        return None
    numbers += [""] * (6 - len(numbers))
    name = title.split("^")
    name += [""] * (10 - len(name))
    if conv.text(numbers[0]):
        name[9], name[5], name[6] = numbers[0], numbers[3] or name[5], numbers[4] or name[6]
    return actors.organization_raw(conv, "^".join(name), in1, 4, where or None)


def _plan_classes(conv: Conversion, resource: Json, plan: Json | None, in1: Segment) -> None:
    system = "http://terminology.hl7.org/CodeSystem/coverage-class"
    classes: list[Json] = []
    group, title = conv.text(in1.take(8)), conv.text(in1.take(9).split("^")[0])
    if plan is not None:
        own = plan.get("coding", ({"code": plan.get("text", "")},))[0]
        classes.append(_class(system, "plan", own["code"], own.get("display") or plan.get("text", "")))
    if group or title:
        classes.append(_class(system, "group", group or title, title))
    if classes:
        resource["class"] = classes


def _class(system: str, code: str, value: str, title: str) -> Json:
    made: Json = {"type": {"coding": [{"system": system, "code": code}]}, "value": value}
    if title and title != value:
        made["name"] = title
    return made


def _expire(conv: Conversion, resource: Json) -> None:
    sent = timestamps.parse(conv.header.timestamp.split("^")[0].strip(), conv.time_zone)
    end = resource["period"].get("end")
    # Compared at the precision both have: a plan that ends in 2024 is still active in that year.
    if sent and end:
        length = min(len(sent[0]), len(end), 10)
        if end[:length] < sent[0][:length]:
            resource["status"] = "cancelled"


def _insured(conv: Conversion, resource: Json, patient: Json, in1: Segment) -> None:
    relationship = concepts.concept(conv, in1, 17)
    if relationship is not None:
        resource["relationship"] = relationship
    codes = {each["code"].upper() for each in (relationship or {}).get("coding", ())}
    found = demographics.names(conv, in1, 16)
    if codes & {"SEL", "01", "18", "0", "本人", "SELF"} or (relationship is None and not found):
        resource["subscriber"] = {"reference": f"Patient/{patient['id']}"}
    elif found:
        human = found[0]
        written = human.get("text") or " ".join([*human.get("given", ()), human.get("family", "")]).strip()
        if written:
            resource["subscriber"] = {"display": written}


def allergy(conv: Conversion, patient: Json, al1: Segment) -> None:
    """AL1: an AllergyIntolerance."""
    al1.take(1)
    resource: Json = {
        "resourceType": "AllergyIntolerance",
        "id": "",
        "clinicalStatus": {"coding": [{"system": _CLINICAL, "code": "active"}]},
        "verificationStatus": {"coding": [{"system": _VERIFICATION, "code": "unconfirmed"}]},
        "patient": {"reference": f"Patient/{patient['id']}"},
    }
    kind, sent = concepts.mapped(conv, "allergy-category", al1, 2)
    if kind is not None:
        resource["category"] = [kind.code]
    code = concepts.concept(conv, al1, 3)
    if code is not None:
        resource["code"] = code
    else:
        conv.issue("warning", "missing", al1, 3, "no allergen is named")
        resource["code"] = sent or {"text": "unknown"}
    _reaction(conv, resource, al1)
    timestamps.put_date_time(conv, resource, "onsetDateTime", al1, 6)
    key = _key_of(resource["code"])
    resource["id"] = related_id(conv.profile, "AllergyIntolerance", patient["id"], key)
    conv.put(resource)


def _reaction(conv: Conversion, resource: Json, al1: Segment) -> None:
    severity, _ = concepts.mapped(conv, "allergy-severity", al1, 4)
    symptoms = [text for raw in al1.take(5).split("~") if (text := conv.text(raw.split("^")[-1] or raw.split("^")[0]))]
    if symptoms:
        reaction: Json = {"manifestation": [{"text": each} for each in symptoms]}
        if severity is not None:
            reaction["severity"] = severity.code
        resource["reaction"] = [reaction]
    elif severity is not None:
        # A severity needs a manifestation in FHIR; without one it says how much the allergy is to be feared.
        resource["criticality"] = {"severe": "high", "moderate": "low", "mild": "low"}[severity.code]


def _key_of(code: Json) -> str:
    return str(code["coding"][0]["code"] if code.get("coding") else code.get("text", ""))


def diagnosis(conv: Conversion, patient: Json, encounter: Json | None, dg1: Segment) -> None:
    """DG1: a Condition, listed among the diagnoses of the encounter with its role and rank."""
    set_id = conv.text(dg1.take(1))
    dg1.take(2)  # coding method: deprecated, said again by DG1-3.3
    resource: Json = {
        "resourceType": "Condition",
        "id": "",
        "category": [{"coding": [{"system": _CONDITION_CATEGORY, "code": "encounter-diagnosis"}]}],
        "subject": {"reference": f"Patient/{patient['id']}"},
    }
    if encounter is not None:
        resource["encounter"] = {"reference": f"Encounter/{encounter['id']}"}
    code = concepts.concept(conv, dg1, 3)
    described = conv.text(dg1.take(4))
    if code is None and described:
        code = {"text": described}
    elif code is not None and described and "text" not in code:
        code["text"] = described
    if code is None:
        conv.issue("warning", "missing", dg1, 3, "no diagnosis is named")
        return
    resource["code"] = code = _with_who_code(code)
    timestamps.put_date_time(conv, resource, "onsetDateTime", dg1, 5)
    role = _diagnosis_role(conv, resource, dg1)
    for made in [business_ids.entity(conv, dg1.take(20), "")] if dg1.peek(20) else ():
        business_ids.add_identifier(resource, made)
    asserted = actors.practitioner(conv, dg1, 16)
    if asserted is not None:
        resource["asserter"] = asserted
    timestamps.put_date_time(conv, resource, "recordedDate", dg1, 19)
    owner = encounter["id"] if encounter is not None else patient["id"]
    kind = role["coding"][0]["code"] if role else ""
    resource["id"] = condition_id(conv.profile, owner, _key_of(code), kind)
    reference = conv.put(resource)
    if encounter is not None:
        _list_diagnosis(conv, encounter, reference, role, dg1, set_id)


def _with_who_code(code: Json) -> Json:
    """A Chinese ICD-10 code (J18.900, I10.x00: the characters of the WHO and an extension) with both its codings."""
    codings = code.get("coding", ())
    for number, each in enumerate(codings):
        extended = _CHINESE_ICD10.fullmatch(each["code"])
        if extended is None or each.get("system", ICD10_WHO) not in (ICD10_WHO, ICD10_CHINA):
            continue
        own = {**each, "system": ICD10_CHINA}
        who = {"system": ICD10_WHO, "code": extended[1] + extended[2].removesuffix(".x")}
        return {**code, "coding": [*codings[:number], own, who, *codings[number + 1 :]]}
    return code


def _diagnosis_role(conv: Conversion, resource: Json, dg1: Segment) -> Json | None:
    raw = conv.text(dg1.peek(6).split("^")[0])
    meaning, sent = concepts.mapped(conv, "diagnosis-use", dg1, 6) if raw else (None, None)
    if raw == "W":  # working
        status = "provisional"
    elif raw == "F":
        status = "confirmed"
    else:
        status = ""
    if status:
        resource["verificationStatus"] = {"coding": [{"system": _CONDITION_VERIFICATION, "code": status}]}
    if sent is not None and sent.get("coding"):
        sent["coding"][0].setdefault("system", _DIAGNOSIS_TYPE)
    return concepts.with_meaning(meaning, sent) if sent and sent.get("coding") else None


def _list_diagnosis(
    conv: Conversion, encounter: Json, reference: str, role: Json | None, dg1: Segment, set_id: str
) -> None:
    entry: Json = {"condition": {"reference": reference}}
    if role is not None:
        entry["use"] = role
    rank = conv.text(dg1.take(15)) or set_id
    if rank.isascii() and rank.isdigit() and 0 < int(rank[:6]) < 1000:
        entry["rank"] = int(rank)
    listed = encounter.setdefault("diagnosis", [])
    if not any(each["condition"]["reference"] == reference for each in listed):
        listed.append(entry)


def note(conv: Conversion, nte: Segment) -> Json | None:
    """NTE: an Annotation of its comment, repetitions on lines of their own."""
    nte.take(1)
    text = "\n".join(conv.text(part) for part in nte.take(3).split("~")).strip()
    if not text:
        return None
    made: Json = {"text": text}
    author = actors.practitioner(conv, nte, 5)
    if author is not None:
        made["authorReference"] = author
    if nte.peek(6):
        timestamps.put_date_time(conv, made, "time", nte, 6)
    return made
