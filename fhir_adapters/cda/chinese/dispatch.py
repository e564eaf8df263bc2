"""Which mapping an entry of a Chinese document gets: by the data elements it holds.

A form field that is not filled in is nothing. What no special mapping takes is an Observation coded with its data
element, so nothing is passed over.
"""

from fhir_adapters.cda.chinese import diagnoses, entries, facts, prescriptions, results
from fhir_adapters.cda.chinese.form import beside, element_code, filled, form_of, members
from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.entries import dispatch
from fhir_adapters.cda.entries.organizers import gathered
from fhir_adapters.cda.entries.statement import Section
from fhir_adapters.cda.node import child, name_of
from fhir_adapters.xml.tree import Element


def convert(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Convert a clinical statement; returns References to what it became, the main one first."""
    if not filled(el):
        return []
    name = name_of(el)
    if name == "organizer" or (name == "observation" and _is_cluster(el)):
        return _cluster(conv, el, section)
    if name == "procedure":
        return entries.procedure(conv, el, section)
    if name == "substanceAdministration":
        return prescriptions.substance(conv, el, section)
    code = element_code(el) if name == "observation" else ""
    if code:
        return _element(conv, code, el, section)
    return dispatch.convert(conv, el, section)


def _is_cluster(el: Element) -> bool:
    """An observation that is an organizer in all but name, as some generators write orders."""
    return el.get("classCode") in ("CLUSTER", "BATTERY") or (
        child(el, "component") is not None and not element_code(el)
    )


def _cluster(conv: Conversion, el: Element, section: Section) -> list[Json]:
    parts = [each for each in members(el) if filled(each)]
    if diagnoses.is_diagnosis(parts):
        beside(conv, el, section)
        return diagnoses.diagnosis(conv, section, parts)
    if prescriptions.is_order(parts):
        beside(conv, el, section)
        return prescriptions.order(conv, section, parts)
    if results.is_item(parts):
        beside(conv, el, section)
        return results.item(conv, el, section, parts)
    if name_of(el) == "observation":
        beside(conv, el, section)
        return [reference for part in parts for reference in conv.dispatch(part, section)]
    code = child(el, "code")
    if code is not None and code.get("code"):
        return dispatch.convert(conv, el, section)
    return gathered(conv, el, section)


def _element(conv: Conversion, code: str, el: Element, section: Section) -> list[Json]:
    inside = [each for each in members(el) if filled(each)]
    if code in diagnoses.CODES | diagnoses.NAMES:
        made = diagnoses.diagnosis(conv, section, [el, *inside])
        return made or entries.plain(conv, el, section)
    if entries.is_allergy(code, section):
        return entries.allergy(conv, el, section)
    if code == prescriptions.HERBAL:
        return prescriptions.herbal(conv, el, section)
    if code == prescriptions.ORDER_CONTENT:
        return prescriptions.order(conv, section, [el])
    if code in results.ITEMS:
        return results.item(conv, el, section, [el])
    if (
        entries.part_of_procedure(conv, code, el)
        or results.follows(conv, code, el, section)
        or results.of_report(conv, code, el)
        or prescriptions.of_prescription(conv, code, el)
        or facts.fact(conv, code, el, section)
    ):
        if code not in results.SEEN_TO:  # which have seen to what stands beside their values
            beside(conv, el, section, *facts.READ.get(code, ()))
        return [each for inner in inside for each in _unless_unit(conv, inner, section)]
    made = entries.plain(conv, el, section)
    results.part_of_report(conv, made)
    _of_consultation(conv, made)
    return made


def _unless_unit(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """What stands inside a data element that was carried over; a unit belongs to the value around it."""
    if element_code(el) in results.RESULTS and form_of(conv).item is not None:
        return []
    return conv.dispatch(el, section)


def _of_consultation(conv: Conversion, made: list[Json]) -> None:
    """An opinion given in a consultation answers the request for it."""
    form = form_of(conv)
    if form.kind != "C0045" or form.request is None:
        return
    for each in made[:1]:
        resource = conv.get(each)
        if resource["resourceType"] == "Observation" and "会诊意见" in resource["code"].get("text", ""):
            resource["basedOn"] = [{"reference": f"ServiceRequest/{form.request['id']}"}]
