"""Observations: results, vital signs, social history, status and everything else that is a code and a value."""

from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, quantities, times
from fhir_adapters.cda.datatypes.nulls import absent_concept
from fhir_adapters.cda.datatypes.values import put_value
from fhir_adapters.cda.entries.devices import device
from fhir_adapters.cda.entries.specimens import specimens
from fhir_adapters.cda.entries.statement import Section, Statement, add_note, comment, nested
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.node import XSI_TYPE, Node, child, said
from fhir_adapters.xml.tree import Element

_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_CATEGORIES = MappingProxyType(
    {
        "laboratory": "Laboratory",
        "vital-signs": "Vital Signs",
        "social-history": "Social History",
        "survey": "Survey",
        "exam": "Exam",
        "imaging": "Imaging",
        "procedure": "Procedure",
    }
)
_STATUS = MappingProxyType(
    {
        "completed": "final",
        "active": "preliminary",
        "held": "registered",
        "new": "registered",
        "suspended": "registered",
        "aborted": "cancelled",
        "cancelled": "cancelled",
        "nullified": "entered-in-error",
        "obsolete": "entered-in-error",
    }
)
_INTERPRETATIONS = MappingProxyType({"LX": "<", "HX": ">"})
_RANGE_MEANING = "http://terminology.hl7.org/CodeSystem/referencerange-meaning"


def observation(conv: Conversion, el: Element, section: Section, category: str = "") -> list[Json]:
    """Make the Observation of an observation; returns a Reference to it and to what stands inside and apart."""
    statement = Statement(conv, el, section)
    resource = statement.resource("Observation", status="")
    category = category or section.category
    if category:
        resource["category"] = [category_concept(category)]
    code = statement.node.first("code")
    resource["subject"] = conv.subject
    encounter_of(conv, resource)
    resource["code"] = concepts.required(conv, code, el)
    statement.effective_into(resource, "effective")
    _values(conv, resource, statement)
    _describe(conv, resource, statement)
    resource["status"] = _STATUS.get(statement.status(), "final")
    if statement.negated:
        _deny(conv, resource, statement)
    apart = _inside(statement, resource)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def encounter_of(conv: Conversion, resource: Json) -> None:
    """Say in which visit it was, when the document belongs to one."""
    if conv.encounter is not None:
        resource["encounter"] = {"reference": f"Encounter/{conv.encounter['id']}"}


def category_concept(code: str) -> Json:
    """The CodeableConcept of an observation category."""
    return {"coding": [{"system": _CATEGORY, "code": code, "display": _CATEGORIES[code]}]}


def _deny(conv: Conversion, resource: Json, statement: Statement) -> None:
    """negationInd: what stands as value was not found, and must not be read as found; without one it was not done."""
    value = {name: resource.pop(name) for name in [*resource] if name.startswith(("value", "_value"))}
    resource.pop("dataAbsentReason", None)
    denied = value.get("valueCodeableConcept")
    if denied is not None:
        resource["component"] = [{"code": denied, "valueBoolean": False}]
    elif value:
        resource["valueBoolean"] = False
        conv.issue("warning", "negated", statement.el, "the value of a negated observation is left out")
    else:
        resource["dataAbsentReason"] = absent_concept("not-performed")


def _values(conv: Conversion, resource: Json, statement: Statement) -> None:
    elements = statement.node.take("value")
    if len(elements) == 1:
        put_value(conv, resource, elements[0])
        return
    components = []
    for el in elements:
        part: Json = {"code": resource["code"]}
        if put_value(conv, part, el):
            components.append(part)
    if len(components) == 1:
        resource.update({name: value for name, value in components[0].items() if name != "code"})
    elif components:  # obs-7: several values of one code are components
        resource["component"] = components


def _describe(conv: Conversion, resource: Json, statement: Statement) -> None:
    node = statement.node
    found = [made for el in node.take("interpretationCode") if (made := _interpretation(conv, el)) is not None]
    if found:
        resource["interpretation"] = found
    for name, element in (("methodCode", "method"), ("targetSiteCode", "bodySite")):
        codes = statement.codes(name)
        if codes:
            resource[element] = codes[0]
        for extra in codes[1:]:
            resource.setdefault("note", []).append({"text": extra.get("text") or concepts.spellings(extra)[-1]})
    performers = statement.authors(resource, "issued", _may_perform)
    performers += [who for who, _, _ in statement.performers()]
    if performers:
        resource["performer"] = [each for number, each in enumerate(performers) if each not in performers[:number]]
    ranges = [made for el in node.take("referenceRange") if (made := _range(conv, el))]
    if ranges:
        resource["referenceRange"] = ranges
    sent_specimens = node.take("specimen")
    made_specimens = specimens(conv, sent_specimens)
    if made_specimens:
        resource["specimen"] = made_specimens[0]
    if any(each != made_specimens[0] for each in made_specimens):
        text = "an Observation is of one specimen: the others are resources beside it"
        conv.issue("information", "relation-lost", sent_specimens[-1], text)
    text = statement.text()
    if text and _says_more(resource, text):
        add_note(resource, text)
    for type_code, role, el in statement.participants():
        _participant(conv, resource, type_code, role, el)


def _may_perform(who: Json) -> bool:
    return not str(who["reference"]).startswith("Device/")


def _says_more(resource: Json, text: str) -> bool:
    """Whether a statement's text says anything that its code and value do not."""
    known = [resource["code"].get("text", ""), resource.get("valueString", "")]
    known += concepts.spellings(resource.get("valueCodeableConcept", {})) + concepts.spellings(resource["code"])
    return text not in known


def _participant(conv: Conversion, resource: Json, type_code: str, role: Element, el: Element) -> None:
    if type_code in ("DEV", "PRD") or role.get("classCode") == "MANU":
        made = device(conv, role)
        if made is not None and "device" not in resource:
            resource["device"] = made
            return
    elif type_code in ("VRF", "AUT", "PRF", "PPRF", "RESP", "ATND"):
        who = actors.actor(conv, role)
        if who is not None and _may_perform(who):
            if who not in resource.setdefault("performer", []):
                resource["performer"].append(who)
            return
    conv.not_mapped(el)


def _interpretation(conv: Conversion, el: Element) -> Json | None:
    """An interpretation with R4's codes: LX and HX became ``<`` and ``>``."""
    made = concepts.concept(conv, el)
    for each in made.get("coding", ()) if made else ():
        if each.get("system", "").endswith("v3-ObservationInterpretation") and each["code"] in _INTERPRETATIONS:
            each["code"] = _INTERPRETATIONS[each["code"]]
            each.pop("display", None)
    return made


def _range(conv: Conversion, el: Element) -> Json:
    inner = child(el, "observationRange")
    if inner is None:
        return {}
    node = Node(inner)
    made: Json = {}
    text = node.first("text")
    if text is not None:
        words = concepts.text_of(conv, text)
        if words:
            made["text"] = words
    value = node.first("value")
    if value is not None:
        _range_value(conv, made, value)
    meaning = node.first("interpretationCode")
    if meaning is not None and meaning.get("code") == "N":
        made["type"] = {"coding": [{"system": _RANGE_MEANING, "code": "normal", "display": "Normal Range"}]}
    elif meaning is not None:
        kind = concepts.concept(conv, meaning)
        if kind:
            made["type"] = kind
    applies = concepts.concept(conv, node.first("code"))
    if applies:
        made["appliesTo"] = [applies]
    node.drop("templateId")
    conv.left(node)
    return made if made.keys() & {"low", "high", "text"} else {}


def _range_value(conv: Conversion, made: Json, el: Element) -> None:
    kind = el.get(XSI_TYPE, "").rpartition(":")[2]
    if kind in ("ST", "ED", "CD", "CE"):
        words = concepts.text_of(conv, el) or el.get("displayName", "")
        if words:
            made["text"] = words if "text" not in made else f"{made['text']}; {words}"
        return
    if kind in ("PQ", "INT", "REAL"):
        one = quantities.quantity(conv, el)
        if one:
            made["low"] = made["high"] = one
        return
    for name, value in quantities.range_of(conv, el).items():
        made[name] = value


def _inside(statement: Statement, resource: Json) -> list[Json]:
    """Statements inside an observation: notes, members and what else they become."""
    apart: list[Json] = []
    for relation in statement.relations():
        if comment(statement, resource, relation):
            continue
        made = nested(statement, relation)
        apart += made
        members = [each for each in made[:1] if each["reference"].startswith(("Observation/",))]
        if members:
            _relate(resource, members[0], relation.type_code)
        elif made:
            text = "converted as a resource of its own; its relation to the observation is not carried over"
            statement.conv.issue("information", "relation-lost", relation.el, text)
    return apart


def _relate(resource: Json, member: Json, type_code: str) -> None:
    element = "derivedFrom" if type_code in ("SPRT", "XCRPT", "DRIV") else "hasMember"
    if member not in resource.setdefault(element, []):
        resource[element].append(member)


def vital_sign(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """An observation of vital signs."""
    return observation(conv, el, section, "vital-signs")


def social(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """An observation of social history."""
    return observation(conv, el, section, "social-history")


def result(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """A result; of a laboratory unless its section is another's."""
    return observation(conv, el, section, section.category or "laboratory")


def survey(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """A status that was asked or assessed."""
    return observation(conv, el, section, "survey")


def assertion_time(conv: Conversion, el: Element | None) -> str:
    """The one time of an effectiveTime, "" when there is none."""
    holder: Json = {}
    times.put(conv, holder, "when", el)
    return str(holder.get("when", ""))


def unsaid(el: Element) -> bool:
    """Whether an observation says nothing: no value, no text, an empty form field."""
    return not any(said(each) for each in el if each.tag.rpartition("}")[2] not in ("code", "templateId"))
