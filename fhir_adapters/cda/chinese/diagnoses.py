"""Diagnoses: data elements that hold a code or a name, alone, nested in each other or side by side in a cluster."""

import re

from fhir_adapters.cda.chinese.form import beside, element_code, form_of, members, title_of, value_of, value_text
from fhir_adapters.cda.context import PROJECT_EXTENSIONS, Conversion, Json, add_extension
from fhir_adapters.cda.datatypes import concepts, times
from fhir_adapters.cda.entries.observations import encounter_of
from fhir_adapters.cda.entries.problems import category_concept
from fhir_adapters.cda.entries.statement import Section, add_note, may_be
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.node import child, children, said
from fhir_adapters.identifiers import condition_id
from fhir_adapters.xml.tree import Element

ICD10_CHINA = "urn:oid:2.16.156.10011.2.3.3.11"
ICD10_WHO = "http://hl7.org/fhir/sid/icd-10"
TCM = "urn:oid:2.16.156.10011.2.3.3.14"
_ROLE = "http://terminology.hl7.org/CodeSystem/diagnosis-role"
PRESENT_ON_ADMISSION = PROJECT_EXTENSIONS + "condition-present-on-admission"
OUTCOME = PROJECT_EXTENSIONS + "condition-outcome"
CODES = frozenset({"DE05.01.024.00", "DE05.10.130.00", "DE05.01.078.00", "DE05.01.021.00"})
NAMES = frozenset({"DE05.01.025.00", "DE05.10.025.00", "DE05.10.172.00", "DE05.10.152.00"})
_TCM_ELEMENTS = frozenset({"DE05.10.130.00", "DE05.10.172.00"})
_ON_ADMISSION, _OUTCOME = "DE09.00.104.00", "DE05.10.113.00"
# The WHO's category is what stands before the national extension: J18.900 -> J18.9, I10.x00 -> I10
_CHINESE_CODE = re.compile(r"([A-TV-Z]\d\d)(\.(?:\d|x))?[0-9A-Za-z+*]*")
_ADMISSION, _DISCHARGE = "46241-6", "11535-2"
_ROLES = {"AD": "Admission diagnosis", "DD": "Discharge diagnosis"}


def is_diagnosis(elements: list[Element]) -> bool:
    """Whether observations hold a diagnosis."""
    return any(element_code(each) in CODES | NAMES for each in elements)


def diagnosis(conv: Conversion, section: Section, parts: list[Element]) -> list[Json]:
    """Make the Condition that a statement's observations name together.

    A code and a name side by side are one diagnosis; two codes are two (a disease of Chinese medicine and its pattern).
    """
    groups: list[list[Element]] = []
    for part in parts:
        code = element_code(part)
        family = "tcm" if code in _TCM_ELEMENTS else "west"
        place = next(
            (
                group
                for group in groups
                if _family(group[0]) == family and not any((element_code(e) in CODES) == (code in CODES) for e in group)
            ),
            None,
        )
        if code in CODES | NAMES and place is None:
            groups.append([part])
        elif code in CODES | NAMES and place is not None:
            place.append(part)
    rest = [part for part in parts if element_code(part) not in CODES | NAMES]
    made: list[Json] = []
    for number, group in enumerate(groups):
        reference = _condition(conv, section, group, rest if number == 0 else [])
        if reference is not None:
            made.append(reference)
    own = {id(part) for part in parts}
    for part in parts if made else ():
        for inner in members(part):
            if id(inner) not in own:
                made += conv.dispatch(inner, section)
    return made


def _family(part: Element) -> str:
    return "tcm" if element_code(part) in _TCM_ELEMENTS else "west"


def _condition(conv: Conversion, section: Section, group: list[Element], rest: list[Element]) -> Json | None:
    coded = next((each for each in group if element_code(each) in CODES), None)
    named = next((each for each in group if element_code(each) in NAMES), None)
    what = _code(conv, coded, named)
    if what is None:
        return None
    title = " ".join(title_of(each) for each in group)
    role = _role(title, section)
    owner = conv.encounter["id"] if conv.encounter is not None else conv.subject.get("reference", conv.digest)
    resource: Json = {
        "resourceType": "Condition",
        "id": condition_id(conv.profile, owner.rpartition("/")[2], concepts.spellings(what)[0], role),
        "category": [category_concept("encounter-diagnosis")],
        "code": what,
        "subject": conv.subject,
    }
    encounter_of(conv, resource)
    apart: list[Element] = []
    for each in group:
        _asserted(conv, resource, each)
        beside(conv, each, section, "effectiveTime", "performer")
    for each in rest:
        if _describe(conv, resource, each):
            beside(conv, each, section)
        else:
            apart.append(each)
    for each in apart:
        conv.dispatch(each, section)
    reference = conv.put(resource)
    _list(conv, reference, role, title)
    form_of(conv).reasons.append(reference)
    return reference


def _code(conv: Conversion, coded: Element | None, named: Element | None) -> Json | None:
    name = value_text(named) if named is not None else ""
    made: Json | None = None
    if coded is not None:
        value = value_of(coded)
        made = concepts.concept(conv, value)
        system = TCM if element_code(coded) in _TCM_ELEMENTS else ICD10_CHINA
        if made is not None and "coding" not in made:  # the code written as text
            made = {"coding": [{"system": system, "code": value_text(coded).replace(" ", "")}]}
        if made is not None:
            made["coding"] = _with_who(made["coding"], system)
    if made is None:
        return {"text": name} if name else None
    if name:
        made["text"] = name
    return made


def _with_who(codings: list[Json], system: str) -> list[Json]:
    """The code in the system that its data element says, and the WHO's category it extends."""
    first = codings[0]
    extended = _CHINESE_CODE.fullmatch(first["code"])
    if system == TCM:
        return [{**first, "system": TCM}, *codings[1:]]
    if extended is None:
        return codings
    # Templates disagree on the OID (variants of .11, even that of Chinese medicine); the data element does not.
    own = {**first, "system": ICD10_CHINA}
    who = {"system": ICD10_WHO, "code": extended[1] + (extended[2] or "").removesuffix(".x")}
    return [own, who, *codings[1:]]


def _role(title: str, section: Section) -> str:
    if "入院" in title and "病情" not in title:
        return "AD"
    if "出院" in title or section.code == _DISCHARGE or "主要诊断" in title or "其他诊断" in title:
        return "DD"
    return "AD" if section.code == _ADMISSION else ""


def _asserted(conv: Conversion, resource: Json, el: Element) -> None:
    """When and by whom a diagnosis was made."""
    when = times.read(conv, child(el, "effectiveTime"))
    if when:
        resource["recordedDate"] = when
    for each in children(el, "performer"):
        inner = child(each, "assignedEntity")
        who = actors.actor(conv, inner) if inner is not None else None
        if who is not None and may_be("asserter", who):
            resource["asserter"] = who
        elif said(each):
            conv.not_mapped(each)


def _describe(conv: Conversion, resource: Json, el: Element) -> bool:
    code = element_code(el)
    url = {_ON_ADMISSION: PRESENT_ON_ADMISSION, _OUTCOME: OUTCOME}.get(code)
    if url is None:
        return False
    value = concepts.concept(conv, value_of(el))
    if value is not None:
        add_extension(resource, url, "valueCodeableConcept", value)
    else:
        add_note(resource, value_text(el))
    return True


def _list(conv: Conversion, reference: Json, role: str, title: str) -> None:
    if conv.encounter is None:
        return
    entry: Json = {"condition": reference}
    if role:
        entry["use"] = {"coding": [{"system": _ROLE, "code": role, "display": _ROLES[role]}]}
    elif "门急诊" in title or "门诊" in title or "门(急)诊" in title:
        entry["use"] = {"text": "门(急)诊诊断"}
    elif "病理" in title:
        entry["use"] = {"text": "病理诊断"}
    if "主要诊断" in title:
        entry["rank"] = 1
    listed = conv.encounter.setdefault("diagnosis", [])
    if all(each["condition"] != reference for each in listed):
        listed.append(entry)
