"""Procedures, allergies and plain data elements of Chinese documents."""

import re
from types import MappingProxyType

from fhir_adapters.cda.chinese.form import (
    beside,
    code_concept,
    element_code,
    form_of,
    members,
    title_of,
    value_of,
    value_text,
)
from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts
from fhir_adapters.cda.entries import observations, procedures
from fhir_adapters.cda.entries.observations import encounter_of
from fhir_adapters.cda.entries.statement import Section, add_note
from fhir_adapters.cda.node import Node, child, children, name_of
from fhir_adapters.identifiers import related_id
from fhir_adapters.xml.tree import Element

ALLERGY_FLAG = "DE02.10.023.00"
ALLERGIES = frozenset({"DE02.10.022.00", "DE05.01.022.00"})
_ALLERGY_SECTION = "48765-2"
_CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
# "否认药物过敏史", "无", "不详": an allergy is asked about and denied, or not known of
_DENIED = re.compile(r"^(?:无|否认|未见|未发现|没有|不详|未知|不清楚|暂无|[-—/]+$)")
_ICD9 = "urn:oid:2.16.156.10011.2.3.3.12"
# What data elements inside a procedure say of it
PROCEDURE_PARTS = MappingProxyType(
    {"DE06.00.094.00": "name", "DE06.00.093.00": "site", "DE08.50.037.00": "device", "DE06.00.251.00": "note"}
)


def procedure(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the Procedure of an operation; its name, site and device are data elements inside it."""
    form = form_of(conv)
    code = child(el, "code")
    when = child(el, "effectiveTime")
    if not children(el, "id") and code is not None and code.get("code"):
        owner = conv.encounter["id"] if conv.encounter is not None else conv.subject.get("reference", "")
        moment = when.get("value", "") if when is not None else ""
        key = f"{owner}\x1f{code.get('code')}\x1f{moment[:8]}"
        conv.keys[el] = (_ICD9, key)
    form.procedures.append({})
    made = procedures.procedure(conv, el, section)
    said = form.procedures.pop()
    resource = conv.get(made[0])
    name = said.get("name", "")
    if name:
        known = resource["code"]
        if known.get("coding", [{}])[0].get("system", "").endswith("data-absent-reason"):
            resource["code"] = {"text": name}
        else:
            known["text"] = name
    if "site" in said:
        sites = resource.setdefault("bodySite", [{}])
        sites[0].setdefault("text", said["site"])
    if "device" in said:
        resource.setdefault("usedCode", []).append({"text": said["device"]})
    add_note(resource, said.get("note", ""))
    return made


def part_of_procedure(conv: Conversion, code: str, el: Element) -> bool:
    """Whether a data element was noted for the procedure around it."""
    form = form_of(conv)
    part = PROCEDURE_PARTS.get(code)
    text = value_text(el)
    if part is None or not form.procedures or not text:
        return False
    form.procedures[-1][part] = text
    return True


def allergy(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """The history of allergies: an AllergyIntolerance where there is one, an Observation where it is denied."""
    texts = [value_text(el)] if element_code(el) in ALLERGIES else []
    texts += [value_text(inner) for inner in members(el) if element_code(inner) in ALLERGIES]
    texts += _substances(conv, el)
    named = [text for text in texts if text and not _DENIED.match(text)]
    flag = value_of(el) if element_code(el) == ALLERGY_FLAG else None
    denied = flag is not None and flag.get("value", "").strip().lower() in ("false", "0")
    if denied or not named:
        if flag is not None and not denied and flag.get("value", "").strip() and not named:
            return [_allergy(conv, "过敏史")]  # there is one, and it is not said what to
        return plain(conv, el, section) if element_code(el) in ALLERGIES or denied or texts else []
    beside(conv, el, section, "participant")
    _beside_substances(conv, el)
    apart: list[Json] = []
    for inner in members(el):
        if element_code(inner) in ALLERGIES:
            beside(conv, inner, section)
            apart += [each for one in members(inner) for each in conv.dispatch(one, section)]
        else:
            apart += conv.dispatch(inner, section)
    return [*(_allergy(conv, text) for text in named), *apart]


def _substances(conv: Conversion, el: Element) -> list[str]:
    """C0032 names the substance as a participant, spelled right or not."""
    found = []
    for participant in children(el, "participant"):
        for role in participant:
            playing = child(role, "playingEntity")
            for name in ("desc", "name"):
                text_el = child(playing, name) if playing is not None else None
                text = concepts.text_of(conv, text_el) if text_el is not None else ""
                if text:
                    found.append(text)
    return found


def _beside_substances(conv: Conversion, el: Element) -> None:
    """Remark on what a participant says beside the name of its substance."""
    for participant in children(el, "participant"):
        for role in participant:
            for part in role:
                if name_of(part) != "playingEntity":
                    conv.not_mapped(part)
                    continue
                node = Node(part)
                node.drop("templateId", "code")
                node.first("desc")
                node.first("name")
                conv.left(node)


def _allergy(conv: Conversion, text: str) -> Json:
    resource: Json = {
        "resourceType": "AllergyIntolerance",
        "id": related_id(conv.profile, "AllergyIntolerance", conv.subject.get("reference", conv.digest), text),
        "clinicalStatus": {"coding": [{"system": _CLINICAL, "code": "active", "display": "Active"}]},
        "code": {"text": text},
        "patient": conv.subject,
    }
    encounter_of(conv, resource)
    return conv.put(resource)


def is_allergy(code: str, section: Section) -> bool:
    """Whether a data element is about allergies. DE02.10.022.00 is elsewhere, by mistake, a history of vaccinations."""
    return code == ALLERGY_FLAG or (code in ALLERGIES and section.code in (_ALLERGY_SECTION, ""))


def plain(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """A data element that is an observation and nothing more: its code, LOINC's beside it, and its value."""
    made = observations.observation(conv, el, section)
    code = code_concept(conv, el)
    if code is not None:
        resource = conv.get(made[0])
        resource["code"] = code
        title = title_of(el)
        if title and "text" not in code:
            code["text"] = title
    return made
