"""The body: sections, their narrative and their entries, as sections of the Composition."""

from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts
from fhir_adapters.cda.datatypes.nulls import reason_of
from fhir_adapters.cda.entries.statement import STATEMENTS, Section
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.narrative import Narratives, generated
from fhir_adapters.cda.node import Node, child, children, name_of, said
from fhir_adapters.xml.tree import Element

_EMPTY = "http://terminology.hl7.org/CodeSystem/list-empty-reason"
LOINC = "http://loinc.org"
# What an observation without a template of its own is an observation of, by its section
_CATEGORIES = MappingProxyType(
    {
        "8716-3": "vital-signs",
        "30954-2": "laboratory",
        "26436-6": "laboratory",
        "18725-2": "laboratory",
        "29762-2": "social-history",
        "29545-1": "exam",
        "10210-3": "exam",
        "47420-5": "survey",
        "10190-7": "survey",
        "18782-3": "imaging",
        "18748-4": "imaging",
        "121070": "imaging",
    }
)
_EMPTY_REASONS = MappingProxyType({"NASK": "notasked", "NA": "unavailable", "NAV": "unavailable", "MSK": "withheld"})


def sections(conv: Conversion, root: Element, narratives: Narratives) -> list[Json]:
    """The Composition's sections of a document: those of its structured body, or directly under its component."""
    made: list[Json] = []
    for component in _components(root):
        for el in component:
            if name_of(el) == "section":
                made.append(section(conv, el, narratives))
            elif name_of(el) != "structuredBody" and name_of(el) != "nonXMLBody" and said(el):
                conv.not_mapped(el)
    return made


def _components(root: Element) -> list[Element]:
    found: list[Element] = []
    for component in children(root, "component"):
        body = child(component, "structuredBody")
        found += children(body, "component") if body is not None else [component]
    return found


def section(conv: Conversion, el: Element, narratives: Narratives) -> Json:
    """One section with everything in it."""
    node = Node(el)
    templates = node.templates()
    node.drop("realmCode", "typeId", "id")
    made: Json = {}
    code_el = node.first("code")
    code = concepts.concept(conv, code_el)
    title_el = node.first("title")
    title = concepts.text_of(conv, title_el) if title_el is not None else ""
    if not title and code is not None:
        title = concepts.spellings(code)[-1] if "text" in code or conv.chinese else code["coding"][0].get("display", "")
    if title:
        made["title"] = title
    if code is not None:
        made["code"] = code
    authors = [who for each in node.take("author") if (who := actors.author(conv, each)[0]) is not None]
    if authors:
        made["author"] = authors
    loinc = concepts.code_in(code, LOINC)
    about = Section(loinc, templates, _CATEGORIES.get(loinc, ""))
    text = narratives.of(conv, node.first("text"))
    if text is not None:
        made["text"] = text
    entries = _entries(conv, node.take("entry"), about)
    inner = [
        section(conv, sub, narratives) for part in node.take("component") if (sub := child(part, "section")) is not None
    ]
    if entries:
        made["entry"] = entries
    if inner:
        made["section"] = inner
    _complete(conv, made, el, entries)
    node.drop("confidentialityCode", "languageCode")
    conv.left(node)
    return made


def _entries(conv: Conversion, elements: list[Element], about: Section) -> list[Json]:
    found: dict[str, Json] = {}
    for entry in elements:
        for el in entry:
            if name_of(el) in STATEMENTS:
                for reference in conv.dispatch(el, about):
                    found.setdefault(reference["reference"], reference)
            elif name_of(el) not in ("templateId", "realmCode", "typeId") and said(el):
                conv.not_mapped(el)
    return list(found.values())


def _complete(conv: Conversion, made: Json, el: Element, entries: list[Json]) -> None:
    """cmp-1: a section has text, entries or sections; a text is made of the entries where the sender left it empty."""
    if "text" not in made and entries:
        text = generated(_lines(conv, entries))
        if text is not None:
            made["text"] = text
    if made.keys() & {"text", "entry", "section"}:
        return
    flavor = el.get("nullFlavor") or ""
    reason = _EMPTY_REASONS.get(flavor, "unavailable")
    made["text"] = generated([(made.get("title", "section"), "—")])
    made["text"]["status"] = "empty"
    made["emptyReason"] = {"coding": [{"system": _EMPTY, "code": reason}]}
    if not flavor and not reason_of(el):
        conv.issue("information", "empty-section", el, "neither text nor entries")


def _lines(conv: Conversion, entries: list[Json]) -> list[tuple[str, str]]:
    """Title and text of the Observations and Conditions among a section's entries."""
    lines = []
    for reference in entries:
        resource = conv.get(reference)
        held = resource["contained"][0]["code"] if "contained" in resource else None
        title = _words(resource.get("code") or resource.get("medicationCodeableConcept") or held)
        if title:
            lines.append((title, value_text(resource)))
    return lines


def _words(concept: Json | None) -> str:
    if not concept:
        return ""
    shown = [each["display"] for each in concept.get("coding", ()) if "display" in each]
    return concept.get("text") or (shown[-1] if shown else "")


def value_text(resource: Json) -> str:
    """The value of an Observation as people read it, "" for another kind of value or none."""
    if "valueString" in resource:
        return str(resource["valueString"])
    quantity = resource.get("valueQuantity")
    if quantity:
        number = quantity["value"].lexeme
        return f"{quantity.get('comparator', '')}{number} {quantity.get('unit', '')}".strip()
    if "valueCodeableConcept" in resource:
        return _words(resource["valueCodeableConcept"])
    if "valueBoolean" in resource:
        return "是" if resource["valueBoolean"] else "否"
    return str(resource.get("valueDateTime", resource.get("valueInteger", "")))
