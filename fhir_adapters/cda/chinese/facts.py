"""Data elements that say something about the visit: when, how it ended, who and which department was responsible."""

from collections.abc import Callable
from types import MappingProxyType

from fhir_adapters.cda.chinese.form import TRANSFER, form_of, title_of, value_of, value_text
from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, quantities, times
from fhir_adapters.cda.entries.statement import Section
from fhir_adapters.cda.header.encounters import act_class
from fhir_adapters.cda.node import child
from fhir_adapters.identifiers import (
    encounter_id,
    identifier,
    location_id,
    organization_id,
    practitioner_id,
)
from fhir_adapters.xml.tree import Element

_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_PHYSICAL = "http://terminology.hl7.org/CodeSystem/location-physical-type"
_PATIENT_TYPES = MappingProxyType({"1": "AMB", "2": "EMER", "3": "IMP", "4": "AMB"})

SUMMARY = "C0001"
_BEFORE_THE_NUMBER = frozenset({"DE02.01.060.00", "DE08.10.026.00"})
"""What the summary states of a visit before the number of that visit."""

Fact = Callable[[Conversion, Element, Section], bool]
"""Takes an observation; False when what it says has no place in the visit and it must be kept as an Observation."""


def fact(conv: Conversion, code: str, el: Element, section: Section) -> bool:
    """Whether a data element was carried over into the visit."""
    taken = _FACTS.get(code)
    if taken is None:
        return False
    if conv.encounter is None and code in _BEFORE_THE_NUMBER and form_of(conv).kind == SUMMARY:
        form_of(conv).waiting.append((code, el, section))
        return True
    return taken(conv, el, section)


def _bound(conv: Conversion, el: Element, bound: str) -> bool:
    if conv.encounter is None:
        return False
    value = value_of(el)
    moment = times.read(conv, value)
    if not moment:
        return False
    period = conv.encounter.setdefault("period", {})
    known = period.get(bound)
    if known is None:
        period[bound] = moment
        times.checked(conv, period, el)
        return True
    if known[: len(moment)] == moment or moment[: len(known)] == known:
        return True
    conv.issue("warning", "conflict", el, "another time than in the header of the document")
    return False


def _admitted(conv: Conversion, el: Element, _: Section) -> bool:
    return _bound(conv, el, "start")


def _discharged(conv: Conversion, el: Element, _: Section) -> bool:
    return _bound(conv, el, "end")


def _length(conv: Conversion, el: Element, _: Section) -> bool:
    made = quantities.quantity(conv, value_of(el))
    if conv.encounter is None or made.get("code") not in ("d", "h"):
        return False
    conv.encounter["length"] = made
    return True


def _left(conv: Conversion, el: Element, _: Section) -> bool:
    if conv.encounter is None or (child(el, "entryRelationship") is not None and _more(el)):
        return False
    made = concepts.translated(conv, "leaving", value_of(el))
    if made is None:
        return False
    conv.encounter.setdefault("hospitalization", {})["dischargeDisposition"] = made
    return True


def _more(el: Element) -> bool:
    inner = child(el, "entryRelationship", "observation")
    return inner is not None and bool(value_text(inner))


def _number(kind: str, visit_class: str) -> Fact:
    """A visit's number in the body: the summary C0001 has its visits there and none in the header."""

    def take(conv: Conversion, el: Element, _: Section) -> bool:
        value = value_text(el)
        if not value:
            return False
        system = conv.issuer_system()
        if conv.encounter is not None:
            return any(each["value"] == value for each in conv.encounter.get("identifier", ()))
        resource: Json = {
            "resourceType": "Encounter",
            "id": encounter_id(conv.profile, system, value),
            "identifier": [identifier(value, kind, system=system)],
            "status": "",
            "class": act_class(visit_class),
            "subject": conv.subject,
        }
        conv.put(resource)
        conv.encounter = resource
        _catch_up(conv)
        return True

    return take


def _catch_up(conv: Conversion) -> None:
    """What was said of the visit before its number was."""
    waiting, form_of(conv).waiting = form_of(conv).waiting, []
    for code, el, section in waiting:
        if not fact(conv, code, el, section):
            conv.not_mapped(el)


def _kind_of_visit(conv: Conversion, el: Element, _: Section) -> bool:
    value = value_of(el)
    code = _PATIENT_TYPES.get(value.get("code", "")) if value is not None else None
    if conv.encounter is None or code is None:
        return False
    conv.encounter["class"] = act_class(code)
    return True


def _reason(conv: Conversion, el: Element, _: Section) -> bool:
    text = value_text(el)
    if conv.encounter is None or not text:
        return False
    conv.encounter.setdefault("reasonCode", []).append({"text": text})
    when = child(el, "effectiveTime")
    start = times.read(conv, when)
    if start and when is not None and conv.encounter.setdefault("period", {}).setdefault("start", start) != start:
        conv.issue("warning", "conflict", when, "another time than the visit's")
    return True


def _physician(conv: Conversion, el: Element, _: Section) -> bool:
    name = value_text(el)
    if conv.encounter is None or not name:
        return False
    resource: Json = {
        "resourceType": "Practitioner",
        "id": practitioner_id(conv.profile, conv.issuer_system(), "name:" + name),
        "name": [{"text": name}],
    }
    coding = {"system": _PARTICIPATION, "code": "ATND", "display": "attender"}
    entry = {"type": [{"coding": [coding]}], "individual": conv.put(resource)}
    if entry not in conv.encounter.setdefault("participant", []):
        conv.encounter["participant"].append(entry)
    return True


def _department(conv: Conversion, el: Element, section: Section) -> bool:
    """A department's name: of the visit, of the report, or of a transfer from one to the other."""
    name, title = value_text(el), title_of(el)
    if not name:
        return False
    form = form_of(conv)
    if form.report is not None and "报告" in title:
        return _performer(conv, form.report, name)
    if conv.encounter is None:
        return False
    if form.kind == TRANSFER and ("转出" in title or "转入" in title):
        _moved(conv, name, entering="转入" in title)
        return True
    if "转" in title or "会诊" in title or section.code:
        return False
    conv.encounter.setdefault("serviceProvider", _organization(conv, name))
    return True


def _organization(conv: Conversion, name: str) -> Json:
    return conv.put(
        {
            "resourceType": "Organization",
            "id": organization_id(conv.profile, conv.issuer_system(), "name:" + name),
            "name": name,
        }
    )


def _performer(conv: Conversion, report: Json, name: str) -> bool:
    made = _organization(conv, name)
    if made not in report.setdefault("performer", []):
        report["performer"].append(made)
    return True


def _institution(conv: Conversion, el: Element, _: Section) -> bool:
    """An institution's name: of the report; one that is to receive the patient stays an observation."""
    name, form = value_text(el), form_of(conv)
    return bool(name) and form.report is not None and "报告" in title_of(el) and _performer(conv, form.report, name)


def _moved(conv: Conversion, name: str, *, entering: bool) -> None:
    """A transfer: the department left and the one entered, as places the visit was and is at."""
    assert conv.encounter is not None
    place: Json = {
        "resourceType": "Location",
        "id": location_id(conv.profile, "", "", name),
        "name": name,
        "mode": "instance",
        "physicalType": {"coding": [{"system": _PHYSICAL, "code": "wa", "display": "Ward"}]},
    }
    entry: Json = {"location": conv.put(place), "status": "active" if entering else "completed"}
    conv.encounter.setdefault("location", []).append(entry)
    if entering:
        conv.encounter["serviceProvider"] = _organization(conv, name)


_FACTS: MappingProxyType[str, Fact] = MappingProxyType(
    {
        "DE06.00.092.00": _admitted,
        "DE06.00.017.00": _discharged,
        "DE06.00.310.00": _length,
        "DE06.00.223.00": _left,
        "DE01.00.014.00": _number("inpatient", "IMP"),
        "DE01.00.010.00": _number("outpatient", "AMB"),
        "DE02.01.060.00": _kind_of_visit,
        "DE05.10.053.00": _reason,
        "DE02.01.039.00": _physician,
        "DE08.10.026.00": _department,
        "DE08.10.013.00": _institution,
    }
)

READ: MappingProxyType[str, tuple[str, ...]] = MappingProxyType({"DE05.10.053.00": ("effectiveTime",)})
"""Parts of a data element that its mapping reads beside the value, by code."""
