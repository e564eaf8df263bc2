"""IN1, IN2 and IN3: the Coverage, its subscriber and its payor (guide: IN1[Coverage]).

One insurance group is one Coverage. The guide leaves IN2 and most of IN3 open: the numbers by which a payor knows the
insured become identifiers of the Coverage, the insured person a RelatedPerson, a certification an extension.
"""

from fhir_adapters.extensions import COVERAGE_CERTIFICATION
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import money
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import kin
from fhir_adapters.identifiers import identifier_type, related_id

_CLASS = "http://terminology.hl7.org/CodeSystem/coverage-class"
_COPAY = "http://terminology.hl7.org/CodeSystem/coverage-copay-type"
_SELF = frozenset({"SEL", "01", "18", "0", "本人", "SELF"})
# IN2 fields that hold a number by which some payor knows the insured, and its type in table 0203.
_MEMBER_NUMBERS = ((6, "MC"), (8, "MA"), (10, "MI"), (26, "MB"))


def coverage(conv: Conversion, patient: Json, in1: Segment, in2: Segment | None, in3: list[Segment]) -> str:
    """The Coverage of an insurance group; returns its reference.

    Status is active unless the plan ended before the message was sent.
    """
    set_id = conv.text(in1.take(1))
    beneficiary = {"reference": f"Patient/{patient['id']}"}
    resource: Json = {"resourceType": "Coverage", "id": "", "status": "active", "beneficiary": beneficiary}
    plan = concepts.concept(conv, in1, 2)
    payor = _payor(conv, in1)
    policy = _numbers(conv, resource, in1, in2)
    kind = concepts.concept(conv, in1, 15)
    if kind is not None:
        resource["type"] = kind
    _plan_classes(conv, resource, plan, in1)
    _period(conv, resource, in1)
    _insured(conv, resource, patient, in1, in2)
    _policy_holder(conv, resource, in1)
    _terms(conv, resource, in1)
    for each in in3:
        _certification(conv, resource, each)
    if payor is None and plan is not None:
        payor = {"display": plan.get("text") or plan["coding"][0].get("display") or plan["coding"][0]["code"]}
    resource["payor"] = [payor or beneficiary]
    if payor is None:
        conv.issue("warning", "missing", in1, 4, "no insurer is named; FHIR requires a payor, the patient stands in")
    code = plan["coding"][0]["code"] if plan and plan.get("coding") else (plan or {}).get("text", "")
    parts = (code, resource["payor"][0].get("reference", ""), policy or resource.get("subscriberId", "") or set_id)
    resource["id"] = related_id(conv.profile, "Coverage", patient["id"], *parts)
    return conv.put(resource)


def _numbers(conv: Conversion, resource: Json, in1: Segment, in2: Segment | None) -> str:
    """IN1-36 and 49, IN2: the numbers of the policy and of the insured; returns the policy's."""
    policy = conv.text(in1.take(36))
    if policy:
        business_ids.add_identifier(resource, {"system": conv.system(""), "value": policy})
    member = business_ids.identifiers(conv, in1, 49)
    if in2 is not None and in2.peek(61):
        member += business_ids.identifiers(conv, in2, 61, "MB")
    for made in member:
        business_ids.add_identifier(resource, made)
    if member:
        resource["subscriberId"] = member[0]["value"]
    for number, kind in _MEMBER_NUMBERS if in2 is not None else ():
        assert in2 is not None
        value = conv.text(in2.take(number).split("^")[0]) if in2.peek(number) else ""
        if value:
            made = {"type": identifier_type(kind), "system": conv.system(""), "value": value}
            business_ids.add_identifier(resource, made)
    return policy


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
    reference = actors.organization_raw(conv, "^".join(name), in1, 4, where or None)
    if reference is not None and (in1.peek(6) or in1.peek(7)):
        organization = conv.resources[reference["reference"]]
        contact: Json = {}
        people = demographics.names(conv, in1, 6)
        if people:
            contact["name"] = people[0]
        points = demographics.telecoms(conv, in1, 7, "work")
        if points and not people:
            organization.setdefault("telecom", points)
        elif points:
            contact["telecom"] = points
        if contact:
            organization.setdefault("contact", [contact])
    return reference


def _plan_classes(conv: Conversion, resource: Json, plan: Json | None, in1: Segment) -> None:
    classes: list[Json] = []
    group, title = conv.text(in1.take(8)), conv.text(in1.take(9).split("^")[0])
    if plan is not None:
        own = plan.get("coding", ({"code": plan.get("text", "")},))[0]
        classes.append(_class("plan", own["code"], own.get("display") or plan.get("text", "")))
    if group or title:
        classes.append(_class("group", group or title, title))
    company = concepts.concept(conv, in1, 35) if in1.peek(35) else None
    if company is not None:
        own = company.get("coding", ({"code": company.get("text", "")},))[0]
        classes.append(_class("subplan", own["code"], own.get("display", "")))
    if classes:
        resource["class"] = classes


def _class(code: str, value: str, title: str) -> Json:
    made: Json = {"type": {"coding": [{"system": _CLASS, "code": code}]}, "value": value}
    if title and title != value:
        made["name"] = title
    return made


def _period(conv: Conversion, resource: Json, in1: Segment) -> None:
    kin.period(conv, resource, in1, 12, 13)
    sent = timestamps.parse(conv.header.timestamp.split("^")[0].strip(), conv.time_zone)
    end = resource.get("period", {}).get("end")
    # Compared at the precision both have: a plan that ends in 2024 is still active in that year.
    if sent and end:
        length = min(len(sent[0]), len(end), 10)
        if end[:length] < sent[0][:length]:
            resource["status"] = "cancelled"


def _insured(conv: Conversion, resource: Json, patient: Json, in1: Segment, in2: Segment | None) -> None:
    relationship = concepts.translated(conv, "subscriber-relationship", in1, 17)
    if relationship is None and in2 is not None and in2.peek(72):
        relationship = concepts.translated(conv, "subscriber-relationship", in2, 72)
    if relationship is not None:
        resource["relationship"] = relationship
    codes = {each["code"].upper() for each in (relationship or {}).get("coding", ())}
    if codes & _SELF or (relationship is None and not in1.peek(16)):
        resource["subscriber"] = {"reference": f"Patient/{patient['id']}"}
        return
    person = kin.blank(patient)
    found = demographics.names(conv, in1, 16)
    if not found:
        return
    if in2 is not None:
        _from_in2(conv, person, in2)
    person["name"] = found
    if relationship is not None:
        person["relationship"] = [relationship]
    where = demographics.addresses(conv, in1, 19) if in1.peek(19) else []
    if where:
        person["address"] = where
    if in1.peek(18):
        kin.birth_date(conv, person, in1, 18)
    if in1.peek(43):
        kin.sex(conv, person, in1, 43)
    resource["subscriber"] = {"reference": kin.finish(conv, patient, person)}


def _from_in2(conv: Conversion, person: Json, in2: Segment) -> None:
    """What IN2 says of the insured person: numbers, telephones, language."""
    for made in business_ids.identifiers(conv, in2, 1, "EI") if in2.peek(1) else ():
        business_ids.add_identifier(person, made)
    social = conv.text(in2.take(2)) if in2.peek(2) else ""
    if social:
        business_ids.add_identifier(person, business_ids.identifier(conv, f"{social}^^^^SS", in2, 2))
    points = [
        point
        for number, use in ((63, "home"), (64, "work"))
        if in2.peek(number)
        for point in demographics.telecoms(conv, in2, number, use)
    ]
    if points:
        person["telecom"] = points
    language = concepts.translated(conv, "language", in2, 34) if in2.peek(34) else None
    if language is not None:
        person["communication"] = [{"language": language}]


def _policy_holder(conv: Conversion, resource: Json, in1: Segment) -> None:
    """IN1-10 and 11: the employer or group that holds the policy."""
    if not in1.peek(11):
        return
    number = in1.take(10).split("~")[0].split("^")
    number += [""] * (4 - len(number))
    name = in1.take(11).split("~")[0].split("^")
    name += [""] * (10 - len(name))
    if conv.text(number[0]) and not name[9]:
        name[9], name[5] = number[0], number[3] or name[5]
    holder = actors.organization_raw(conv, "^".join(name), in1, 11)
    if holder is not None:
        resource["policyHolder"] = holder


def _terms(conv: Conversion, resource: Json, in1: Segment) -> None:
    """IN1-22 priority among several, IN1-37 deductible."""
    rank = conv.text(in1.peek(22))
    if rank.isascii() and rank.isdigit() and 0 < int(rank[:6]) < 1000:
        in1.take(22)
        resource["order"] = int(rank)
    if in1.peek(37):
        amount = money(conv, in1.peek(37))
        if amount is not None:
            in1.take(37)
            kind = {"coding": [{"system": _COPAY, "code": "deductible", "display": "Deductible"}]}
            resource["costToBeneficiary"] = [{"type": kind, "valueMoney": amount}]


def _certification(conv: Conversion, resource: Json, in3: Segment) -> None:
    """IN3: that the payor certified a stay: number, who certified, from when to when, for how long."""
    in3.take(1)
    parts: list[Json] = []
    number = business_ids.identifiers(conv, in3, 2)
    if number:
        parts.append({"url": "number", "valueIdentifier": number[0]})
    by = actors.practitioner(conv, in3, 3) if in3.peek(3) else None
    if by is not None:
        parts.append({"url": "certifiedBy", "valueReference": by})
    required = conv.text(in3.take(4))
    if required in ("Y", "N"):
        parts.append({"url": "required", "valueBoolean": required == "Y"})
    holder: Json = {}
    timestamps.put_date_time(conv, holder, "date", in3, 6)
    if "date" in holder:
        parts.append({"url": "date", "valueDateTime": holder["date"]})
    kin.period(conv, holder, in3, 9, 10)
    if "period" in holder:
        parts.append({"url": "period", "valuePeriod": holder["period"]})
    if parts:
        made = {"url": COVERAGE_CERTIFICATION, "extension": parts}
        resource.setdefault("extension", []).append(made)
