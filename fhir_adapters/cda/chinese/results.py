"""Laboratory and examination reports (C0007, C0006): items with their results, specimens, findings and conclusions."""

from collections.abc import Iterator
from typing import Any

from fhir_adapters.cda.chinese.form import (
    EXAM_REPORT,
    LAB_REPORT,
    REPORTS,
    Form,
    beside,
    element_code,
    form_of,
    members,
    title_of,
    value_of,
    value_text,
)
from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, quantities, times
from fhir_adapters.cda.datatypes.values import put_value
from fhir_adapters.cda.entries.observations import category_concept, encounter_of
from fhir_adapters.cda.entries.statement import Section, add_note
from fhir_adapters.cda.node import child, children
from fhir_adapters.identifiers import observation_id, specimen_id
from fhir_adapters.xml.tree import Element

ITEMS = frozenset({"DE04.30.019.00", "DE04.50.019.00"})
_RESULT_CODE, _QUANTITY, _UNIT = "DE04.30.017.00", "DE04.30.015.00", "DE04.30.016.00"
_METHOD, _CATEGORY = "DE02.10.027.00", "DE04.30.018.00"
_SPECIMEN, _SPECIMEN_STATE, _FIXATIVE = "DE04.50.134.00", "DE04.50.135.00", "DE08.50.027.00"
_LAB_CONCLUSION, _EXAM_RESULT = "DE04.50.130.00", "DE04.50.131.00"
RESULTS = frozenset({_RESULT_CODE, _QUANTITY, _UNIT})
SEEN_TO = RESULTS
"""Data elements whose mapping sees to everything that stands beside their values."""

_READ = {
    _QUANTITY: ("referenceRange", "interpretationCode"),
    **dict.fromkeys((_SPECIMEN, _SPECIMEN_STATE, _FIXATIVE), ("effectiveTime",)),
}
"""Parts of a data element that are read beside its value, by code."""


def is_item(elements: list[Element]) -> bool:
    """Whether observations stand for one item of a report."""
    return any(element_code(each) in ITEMS for each in elements)


def item(conv: Conversion, el: Element, section: Section, parts: list[Element]) -> list[Json]:
    """Make the Observation of one item: the observation that holds its code and those beside it."""
    coded = next(each for each in parts if element_code(each) in ITEMS)
    code = value_text(coded).replace(" ", "")
    name = next((value_text(each) for each in parts if title_of(each).endswith("项目名称")), "")
    if not code and not name:
        return [each for part in parts for each in conv.dispatch(part, section)] if coded is not el else []
    resource = _observation(conv, code, name, coded)
    form = form_of(conv)
    form.item, form.item_section = resource, section.code
    beside(conv, coded, section, "effectiveTime")
    for holder in children(coded, "entryRelationship"):
        for inner in children(holder, "observation"):
            _add(conv, resource, inner, section)
    for part in parts:
        if part is not coded and not title_of(part).endswith("项目名称"):
            _add(conv, resource, part, section)
        elif part is not coded:
            beside(conv, part, section)
            for inner in members(part):
                _add(conv, resource, inner, section)
    reference = conv.put(resource)
    if form.report is not None:
        form.report.setdefault("result", []).append(reference)
    return [reference]


def _observation(conv: Conversion, code: str, name: str, coded: Element) -> Json:
    form = form_of(conv)
    number = form.numbers.get("33") or form.numbers.get("32")
    system = number["system"] if number else conv.document[0]
    report = number["value"] if number else conv.document[1]
    count = form.occurrence(f"item:{code or name}")
    concept: Json = {}
    if code:
        coding: Json = {"system": conv.local_system("lab-item"), "code": code}
        if name:
            coding["display"] = name
        concept["coding"] = [coding]
    concept["text"] = name or code
    exam = form.kind == EXAM_REPORT
    resource: Json = {
        "resourceType": "Observation",
        "id": observation_id(conv.profile, system, report, code or name, "", count),
        "status": "final",
        "category": [category_concept("exam" if exam else "laboratory")],
        "code": concept,
        "subject": conv.subject,
    }
    encounter_of(conv, resource)
    times.put_moment_or_period(conv, resource, "effective", child(coded, "effectiveTime"))
    return resource


def follows(conv: Conversion, code: str, el: Element, section: Section) -> bool:
    """Whether a result that stands by itself was added to the item before it."""
    form = form_of(conv)
    if form.kind not in REPORTS or form.item is None or form.item_section != section.code or code not in RESULTS:
        return False
    return _add(conv, form.item, el, section)


def _add(conv: Conversion, resource: Json, el: Element, section: Section) -> bool:
    """Add to an item what a data element beside or inside it says."""
    code, value = element_code(el), value_of(el)
    if code == _QUANTITY:
        _quantity(conv, resource, el)
    elif code == _RESULT_CODE:
        made = concepts.concept(conv, value)
        if made is not None:
            resource.setdefault("interpretation", []).append(made)
    elif code == _UNIT:
        if "valueQuantity" in resource:
            resource["valueQuantity"] |= quantities.unit(value_text(el))
        else:
            conv.not_mapped(el)
    elif code in (_SPECIMEN, _SPECIMEN_STATE, _FIXATIVE):
        resource["specimen"] = _specimen(conv, el, code, resource)
    elif code == _METHOD:
        resource["method"] = {"text": value_text(el)}
    elif code == "DE06.00.179.00":
        add_note(resource, value_text(el))
    else:
        for each in conv.dispatch(el, section):
            if each["reference"].startswith("Observation/") and each not in resource.setdefault("hasMember", []):
                resource["hasMember"].append(each)
        return True
    beside(conv, el, section, *_READ.get(code, ()))
    for holder in children(el, "entryRelationship"):
        for inner in children(holder, "observation"):
            if element_code(inner) != _UNIT:
                _add(conv, resource, inner, section)
    return True


def _quantity(conv: Conversion, resource: Json, el: Element) -> None:
    value = value_of(el)
    if value is None:
        return
    put_value(conv, resource, value)
    unit = next((each for each in members(el) if element_code(each) == _UNIT), None)
    if unit is not None:
        beside(conv, unit, Section())
        for each in members(unit):
            conv.dispatch(each, Section())
    if unit is not None and "valueQuantity" in resource:
        resource["valueQuantity"] |= quantities.unit(value_text(unit))
    elif unit is not None and "valueInteger" in resource:
        made = quantities.quantity(conv, value)
        del resource["valueInteger"]
        resource["valueQuantity"] = made | quantities.unit(value_text(unit))
    for each in children(el, "referenceRange"):
        text = child(each, "observationRange", "text")
        words = concepts.text_of(conv, text) if text is not None else ""
        limits = child(each, "observationRange", "value")
        made = quantities.range_of(conv, limits) if limits is not None else {}
        if words:
            made["text"] = words
        if made:
            resource.setdefault("referenceRange", []).append(made)
    for each in children(el, "interpretationCode"):
        said = concepts.concept(conv, each)
        if said is not None:
            resource.setdefault("interpretation", []).append(said)


def _specimen(conv: Conversion, el: Element, code: str, item: Json) -> Json:
    """The specimen of an item: the first of the report's that nothing said of this one contradicts, or one more.

    The document's number names the first. Kind, state and times are data elements of the items.
    """
    form = form_of(conv)
    text = value_text(el)
    known = form.specimen_facts.setdefault(item["id"], {})
    for element, value, place in _specimen_facts(conv, el, code, text):
        if known.setdefault(element, value) != value:
            conv.issue("warning", "conflict", place, "the item says otherwise of its specimen before")
    fitting = (each for each in form.specimens if all(each.get(name, fact) == fact for name, fact in known.items()))
    specimen = next(fitting, None) or _one_more(conv, form)
    specimen |= known
    if text and code not in (_SPECIMEN, _SPECIMEN_STATE):
        add_note(specimen, text)
    return conv.put(specimen)


def _specimen_facts(conv: Conversion, el: Element, code: str, text: str) -> Iterator[tuple[str, Any, Element]]:
    """What a data element says of a specimen, each with its place.

    low of its time is when it was taken (DE04.50.137.00), high when it was received (DE04.50.141.00).
    """
    if code == _SPECIMEN and text:
        yield "type", concepts.translated(conv, "specimen", value_of(el)) or {"text": text}, el
    elif code == _SPECIMEN_STATE and text:
        yield "condition", [{"text": text}], el
    time = child(el, "effectiveTime")
    if time is None:
        return
    low, received = child(time, "low"), child(time, "high")
    taken = low if low is not None else time
    if when := times.read(conv, taken):
        yield "collection", {"collectedDateTime": when}, taken
    if received is not None and (arrived := times.read(conv, received)):
        yield "receivedTime", arrived, received


def _one_more(conv: Conversion, form: Form) -> Json:
    number = form.numbers.get("14")
    report = form.numbers.get("33") or form.numbers.get("32")
    system = (number or report or {}).get("system", conv.document[0])
    value = number["value"] if number else f"report:{report['value'] if report else conv.document[1]}"
    count = len(form.specimens)
    specimen: Json = {
        "resourceType": "Specimen",
        "id": specimen_id(conv.profile, system, f"{value}:{count + 1}" if count else value),
        "subject": conv.subject,
    }
    if number and not count:
        specimen["identifier"] = [number]
    form.specimens.append(specimen)
    return specimen


def of_report(conv: Conversion, code: str, el: Element) -> bool:
    """Whether a data element was carried over into the document's report."""
    form = form_of(conv)
    report, text = form.report, value_text(el)
    if report is None or not text:
        return False
    if code == _CATEGORY:
        report["code"] = {"text": text, **({"coding": report["code"]["coding"]} if "coding" in report["code"] else {})}
        return True
    if code == _METHOD and form.kind == LAB_REPORT:
        form.method = text
        return True
    subjective = code == _EXAM_RESULT and ("主观" in title_of(el) or "提示" in title_of(el))
    if code == _LAB_CONCLUSION or subjective:
        report["conclusion"] = f"{report['conclusion']}\n{text}" if "conclusion" in report else text
        return True
    return False


def part_of_report(conv: Conversion, made: list[Json]) -> None:
    """An observation of a report's document that is no item is one of its results too."""
    form = form_of(conv)
    if form.report is None:
        return
    for each in made[:1]:
        if each["reference"].startswith("Observation/") and each not in form.report.setdefault("result", []):
            form.report["result"].append(each)
