"""Which mapping a clinical statement gets: by the templates it claims, else by its class and mood.

Another template is an entry here. A statement without a known template is what its class says: an observation an
Observation, a procedure or act a Procedure (done) or ServiceRequest (not yet), and so on; nothing is passed over.
"""

from collections.abc import Callable
from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.entries import (
    allergies,
    care,
    devices,
    family,
    immunizations,
    medications,
    notes,
    observations,
    organizers,
    payers,
    problems,
    procedures,
    visits,
)
from fhir_adapters.cda.entries.statement import Section, Statement
from fhir_adapters.cda.node import child, name_of, said
from fhir_adapters.xml.tree import Element

Mapping = Callable[[Conversion, Element, Section], list[Json]]

_T = "2.16.840.1.113883.10.20.22.4."
_TEMPLATES: MappingProxyType[str, Mapping] = MappingProxyType(
    {
        _T + "30": allergies.concern,
        _T + "7": allergies.allergy,
        _T + "3": problems.concern,
        _T + "4": problems.problem,
        _T + "80": problems.diagnosis,
        _T + "33": problems.diagnosis,  # hospital discharge diagnosis
        _T + "34": problems.diagnosis,  # hospital admission diagnosis
        _T + "65": problems.diagnosis,  # preoperative diagnosis
        _T + "51": problems.diagnosis,  # postprocedure diagnosis
        _T + "132": problems.health_concern,
        _T + "136": problems.health_concern,  # risk concern
        _T + "16": medications.medication,
        _T + "42": medications.medication,
        _T + "35": organizers.gathered,  # discharge medication
        _T + "36": organizers.gathered,  # admission medication
        _T + "17": medications.order,
        _T + "18": medications.dispense,
        _T + "52": immunizations.immunization,
        _T + "120": immunizations.immunization,
        _T + "12": procedures.procedure,
        _T + "13": procedures.procedure,
        _T + "14": procedures.procedure,
        _T + "131": procedures.procedure,  # intervention act
        _T + "146": procedures.procedure,  # planned intervention act
        _T + "20": procedures.procedure,  # instruction
        _T + "39": procedures.procedure,
        _T + "41": procedures.procedure,
        _T + "44": procedures.request,
        _T + "40": procedures.request,
        _T + "140": procedures.procedure,  # patient referral act
        _T + "43": devices.supply,
        _T + "50": devices.supply,
        _T + "135": organizers.gathered,  # medical equipment organizer
        _T + "1": organizers.report,
        _T + "2": observations.result,
        _T + "26": organizers.vital_signs,
        _T + "27": observations.vital_sign,
        _T + "38": observations.social,
        _T + "78": observations.social,
        _T + "85": observations.social,
        _T + "200": observations.social,  # birth sex
        _T + "293": observations.social,  # pregnancy
        "2.16.840.1.113883.10.20.15.3.8": observations.social,  # pregnancy observation
        _T + "66": organizers.status_panel,
        _T + "75": organizers.status_panel,
        _T + "67": observations.survey,
        _T + "74": observations.survey,
        _T + "69": observations.survey,  # assessment scale
        _T + "86": observations.survey,
        _T + "128": observations.survey,  # self-care activities
        _T + "45": family.family_member,
        _T + "49": visits.encounter,
        _T + "60": payers.coverage,
        _T + "61": payers.policy,
        _T + "121": care.goal,
        _T + "500": care.care_team,
        _T + "202": notes.note,
    }
)
_REFERENCE = _T + "122"
# Templates that say more than others that stand beside them come first.
_BEFORE = (_T + "132", _T + "136", _T + "42", _T + "120", _T + "146", _T + "78", _T + "85", _T + "26")


def convert(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Convert a clinical statement; returns References to what it became, the main one first."""
    claimed = conv.open(el).claimed()
    if _REFERENCE in claimed:
        return _referred(conv, el, section)
    known = [each for each in claimed if each in _TEMPLATES]
    if not known:
        return by_class(conv, el, section)
    chosen = known[0]
    if len(known) > 1:
        chosen = next((each for each in _BEFORE if each in known), chosen)
    return _TEMPLATES[chosen](conv, el, section)


def by_class(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """The mapping of a statement that claims no known template."""
    name = name_of(el)
    mood = el.get("moodCode", "EVN")
    if name == "observation":
        if mood == "GOL":
            return care.goal(conv, el, section)
        if mood in ("EVN", "DEF", ""):
            return observations.observation(conv, el, section) if said(el) else []
        return procedures.request(conv, el, section)
    mapping = _CLASSES.get(name)
    if mapping is None or not said(el):
        conv.not_mapped(el)
        return []
    return mapping(conv, el, section)


def _act(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """An act without a code only holds others together."""
    code = child(el, "code")
    if code is None or code.get("nullFlavor"):
        return organizers.gathered(conv, el, section)
    return procedures.procedure(conv, el, section)


def _organizer(conv: Conversion, el: Element, section: Section) -> list[Json]:
    battery = el.get("classCode") == "BATTERY" and section.category in ("laboratory", "imaging")
    return organizers.report(conv, el, section) if battery else organizers.panel(conv, el, section)


_CLASSES: MappingProxyType[str, Mapping] = MappingProxyType(
    {
        "act": _act,
        "organizer": _organizer,
        "procedure": procedures.procedure,
        "substanceAdministration": medications.medication,
        "supply": devices.supply,
        "encounter": visits.encounter,
        "observationMedia": notes.media,
    }
)


def _referred(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """An entry reference (4.122): the resource of the entry with that identifier, found when all are converted."""
    statement = Statement(conv, el, section)
    keys = [(made["system"], made["value"]) for made in statement.identifiers]
    known = next((conv.by_source_id[key] for key in keys if key in conv.by_source_id), None)
    if known is not None:
        return [{"reference": known}]

    def report() -> None:
        if not any(key in conv.by_source_id for key in keys):
            conv.issue("information", "not-mapped", el, "a reference to an entry that the document does not hold")
        else:
            conv.issue("information", "relation-lost", el, "a reference to a later entry is not carried over")

    conv.later(report)
    return []
