"""Organizers: a result battery is a DiagnosticReport, vital signs and clusters are Observations that have members."""

from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts
from fhir_adapters.cda.entries.observations import category_concept, encounter_of
from fhir_adapters.cda.entries.specimens import specimens
from fhir_adapters.cda.entries.statement import Section, Statement, add_note, comment, nested
from fhir_adapters.cda.node import children
from fhir_adapters.xml.tree import Element

_SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
_REPORT_STATUS = MappingProxyType(
    {
        "completed": "final",
        "active": "preliminary",
        "held": "registered",
        "new": "registered",
        "suspended": "registered",
        "aborted": "cancelled",
        "cancelled": "cancelled",
        "nullified": "entered-in-error",
    }
)
_OBSERVATION_STATUS = MappingProxyType({**_REPORT_STATUS, "active": "preliminary"})
_IMAGING = frozenset({"18782-3", "18748-4", "55115-0", "18726-0", "55111-9"})


def report(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the DiagnosticReport of a result organizer (4.1); its observations are its results."""
    statement = Statement(conv, el, section)
    resource = statement.resource("DiagnosticReport")
    resource["status"] = _REPORT_STATUS.get(statement.status(), "final")
    imaging = section.category == "imaging" or section.code in _IMAGING
    coding = {"code": "RAD", "display": "Radiology"} if imaging else {"code": "LAB", "display": "Laboratory"}
    resource["category"] = [{"coding": [{"system": _SECTION, **coding}]}]
    resource["code"] = statement.required_code()
    resource["subject"] = conv.subject
    encounter_of(conv, resource)
    statement.effective_into(resource, "effective")
    performers = statement.authors(resource, "issued", _is_no_device)
    performers += [who for who, _, _ in statement.performers()]
    if performers:
        resource["performer"] = performers
    made_specimens = specimens(conv, statement.node.take("specimen"))
    if made_specimens:
        resource["specimen"] = made_specimens
    apart: list[Json] = [*made_specimens]
    for relation in statement.relations():
        holder: Json = {}
        if comment(statement, holder, relation):
            words = "\n".join(note["text"] for note in holder["note"]) if "note" in holder else ""
            if words:
                resource["conclusion"] = f"{resource['conclusion']}\n{words}" if "conclusion" in resource else words
            continue
        made = nested(statement, relation)
        apart += made
        results = [each for each in made[:1] if each["reference"].startswith("Observation/")]
        resource.setdefault("result", []).extend(results)
    if not resource.get("result"):
        resource.pop("result", None)
    text = statement.text()
    if text and text not in concepts.spellings(resource["code"]):
        resource.setdefault("conclusion", text)
    _of_results(conv, resource)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _of_results(conv: Conversion, resource: Json) -> None:
    """A report's specimen is that of its results where they say none."""
    if len(resource.get("specimen", ())) != 1:
        return
    for each in resource.get("result", ()):
        conv.get(each).setdefault("specimen", resource["specimen"][0])


def panel(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the Observation of an organizer that groups observations; a cluster without a code only passes them on."""
    return _panel(conv, el, section, section.category)


def vital_signs(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the Observation of a vital signs organizer (4.26)."""
    return _panel(conv, el, section, "vital-signs")


def status_panel(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the Observation of a functional or mental status organizer (4.66, 4.75)."""
    return _panel(conv, el, section, "survey")


def _panel(conv: Conversion, el: Element, section: Section, category: str) -> list[Json]:
    statement = Statement(conv, el, section)
    code = statement.code()
    if code is None:
        return _members(statement)
    resource = statement.resource("Observation")
    resource["status"] = _OBSERVATION_STATUS.get(statement.status(), "final")
    if category:
        resource["category"] = [category_concept(category)]
    resource["code"] = code
    resource["subject"] = conv.subject
    encounter_of(conv, resource)
    statement.effective_into(resource, "effective")
    performers = statement.authors(resource, "issued", _is_no_device)
    if performers:
        resource["performer"] = performers
    apart: list[Json] = []
    for relation in statement.relations():
        if comment(statement, resource, relation):
            continue
        made = nested(statement, relation)
        apart += made
        for each in made[:1]:
            if each["reference"].startswith("Observation/"):
                resource.setdefault("hasMember", []).append(each)
    add_note(resource, statement.text())
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _members(statement: Statement) -> list[Json]:
    made: list[Json] = []
    statement.node.drop("statusCode")
    holder: Json = {}
    for relation in statement.relations():
        if not comment(statement, holder, relation):
            made += nested(statement, relation)
    statement.finish()
    return made


def gathered(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """An organizer or act that only holds others together; what it says itself is remarked on."""
    conv.all_not_mapped(*children(el, "id"))
    return _members(Statement(conv, el, section))


def _is_no_device(who: Json) -> bool:
    return not who["reference"].startswith("Device/")
