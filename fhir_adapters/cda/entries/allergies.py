"""Allergies and intolerances: the concern act (4.30) and the allergy observation (4.7) inside it."""

from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, times
from fhir_adapters.cda.entries.observations import encounter_of
from fhir_adapters.cda.entries.statement import Relation, Section, Statement, add_note, comment, loosely_nested
from fhir_adapters.cda.node import child
from fhir_adapters.xml.tree import Element

_SNOMED = "http://snomed.info/sct"
_CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"
REACTION = "2.16.840.1.113883.10.20.22.4.9"
SEVERITY = "2.16.840.1.113883.10.20.22.4.8"
CRITICALITY = "2.16.840.1.113883.10.20.22.4.145"
STATUS = "2.16.840.1.113883.10.20.22.4.28"
ALLERGY = "2.16.840.1.113883.10.20.22.4.7"

# What kind of propensity it is (value) -> type and category
_KINDS: MappingProxyType[str, tuple[str, str]] = MappingProxyType(
    {
        "419199007": ("allergy", ""),
        "416098002": ("allergy", "medication"),
        "414285001": ("allergy", "food"),
        "426232007": ("allergy", "environment"),
        "59037007": ("intolerance", "medication"),
        "235719002": ("intolerance", "food"),
        "420134006": ("", ""),
        "418038007": ("", ""),
        "419511003": ("", "medication"),
        "418471000": ("", "food"),
        "232347008": ("allergy", "environment"),
        "609433001": ("", ""),
    }
)
# A negated kind without a substance: none known
_NONE_KNOWN = MappingProxyType(
    {
        "": ("716186003", "No known allergy"),
        "medication": ("409137002", "No known drug allergy"),
        "food": ("429625007", "No known food allergy"),
        "environment": ("428607008", "No known environmental allergy"),
    }
)
_SEVERITIES = MappingProxyType(
    {
        "255604002": "mild",
        "371923003": "moderate",
        "6736007": "moderate",
        "371924009": "severe",
        "24484000": "severe",
        "399166001": "severe",
    }
)
_CRITICALITIES = MappingProxyType({"CRITL": "low", "CRITH": "high", "CRITU": "unable-to-assess"})
_STATUSES = MappingProxyType({"55561003": "active", "73425007": "inactive", "413322009": "resolved"})
_CONCERN = MappingProxyType({"completed": "resolved", "aborted": "inactive", "suspended": "inactive"})


def concern(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """The act that tracks an allergy: its observations become the resources, it lends them status and author."""
    act = Statement(conv, el, section)
    status = act.status()
    act.node.drop("code")
    holder: Json = {}
    act.recorder(holder)
    made: list[Json] = []
    comments: Json = {}
    for relation in act.relations():
        if ALLERGY in relation.templates or relation.name == "observation":
            made += allergy(conv, relation.el, section, _CONCERN.get(status, "active"), holder)
        elif not comment(act, comments, relation):
            made += loosely_nested(act, relation)
    act.lent(holder, made)
    for reference in made[:1]:
        for note in comments.get("note", ()):
            conv.get(reference).setdefault("note", []).append(note)
    add_to_first(conv, made, act.text())
    act.finish()
    return made


def add_to_first(conv: Conversion, made: list[Json], text: str) -> None:
    """Keep the text of a tracking act as a note of what it tracks, unless that says it already."""
    if made and text:
        resource = conv.get(made[0])
        if text not in (resource.get("code") or {}).get("text", ""):
            add_note(resource, text)


def allergy(
    conv: Conversion, el: Element, section: Section, clinical: str = "active", recorded: Json | None = None
) -> list[Json]:
    """Make the AllergyIntolerance of an allergy observation."""
    statement = Statement(conv, el, section)
    resource = statement.resource("AllergyIntolerance")
    statement.node.drop("code", "statusCode")
    kind, category = "", ""
    value = statement.code("value")
    for each in value.get("coding", ()) if value else ():
        kind, category = _KINDS.get(each["code"], (kind, category))
    if kind:
        resource["type"] = kind
    if category:
        resource["category"] = [category]
    substance = _substance(conv, statement)
    _code(conv, resource, statement, substance, category)
    resource["patient"] = conv.subject
    encounter_of(conv, resource)
    ended = _onset(conv, resource, statement)
    statement.recorder(resource)
    for name, content in (recorded or {}).items():
        resource.setdefault(name, content)
    statement.informant(resource, "asserter")
    apart, status = _inside(conv, resource, statement)
    status = status or ("resolved" if ended else clinical)
    resource["clinicalStatus"] = {"coding": [{"system": _CLINICAL, "code": status, "display": status.capitalize()}]}
    text = statement.text()
    if text and text != resource["code"].get("text", ""):
        add_note(resource, text)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _substance(conv: Conversion, statement: Statement) -> Json | None:
    found: Json | None = None
    for type_code, role, participant in statement.participants():
        playing = child(role, "playingEntity")
        if type_code != "CSM" or playing is None or found is not None:
            conv.not_mapped(participant)
            continue
        code = child(playing, "code")
        found = concepts.concept(conv, code)
        name = child(playing, "name")
        text = concepts.text_of(conv, name) if name is not None else ""
        if text and found is None:
            found = {"text": text}
        elif text and found is not None:
            found.setdefault("text", text)
    return found


def _code(conv: Conversion, resource: Json, statement: Statement, substance: Json | None, category: str) -> None:
    if substance is None and statement.negated:
        code, display = _NONE_KNOWN[category]
        resource["code"] = {"coding": [{"system": _SNOMED, "code": code, "display": display}]}
        return
    resource["code"] = substance or concepts.required(conv, None, statement.el)
    if statement.negated:
        resource["verificationStatus"] = {
            "coding": [{"system": _VERIFICATION, "code": "refuted", "display": "Refuted"}]
        }


def _onset(conv: Conversion, resource: Json, statement: Statement) -> bool:
    el = statement.effective()
    if el is None:
        return False
    if el.get("value"):
        times.put(conv, resource, "onsetDateTime", el)
        return False
    found = times.period(conv, el)
    if "start" in found:
        resource["onsetDateTime"] = found["start"]
    if "end" in found:  # AllergyIntolerance has no end: the status says that it is over, a note since when
        add_note(resource, f"until {found['end']}")
    return "end" in found


def _inside(conv: Conversion, resource: Json, statement: Statement) -> tuple[list[Json], str]:
    apart: list[Json] = []
    status = ""
    severity: tuple[str, Relation] | None = None
    for relation in statement.relations():
        if REACTION in relation.templates or relation.type_code == "MFST":
            apart += _reaction(conv, resource, statement, relation)
        elif SEVERITY in relation.templates:
            severity = (_coded_value(conv, relation, _SEVERITIES), relation)
        elif CRITICALITY in relation.templates:
            level = _coded_value(conv, relation, _CRITICALITIES)
            if level:
                resource["criticality"] = level
        elif STATUS in relation.templates:
            status = _coded_value(conv, relation, _STATUSES)
        elif not comment(statement, resource, relation):
            apart += loosely_nested(statement, relation)
    if severity is not None:
        _whole_severity(conv, resource, *severity)
    return apart, status


def _whole_severity(conv: Conversion, resource: Json, level: str, relation: Relation) -> None:
    """Severity of the allergy as a whole: FHIR knows that of reactions only, so it goes to those without their own."""
    without = [each for each in resource.get("reaction", ()) if "severity" not in each]
    if not level:
        return
    for each in without:
        each["severity"] = level
    if not without:
        conv.not_mapped(relation.el)


def _coded_value(conv: Conversion, relation: Relation, table: MappingProxyType[str, str]) -> str:
    inner = Statement(conv, relation.el, Section())
    inner.node.drop("code", "statusCode", "text")
    el = inner.node.first("value")
    value = concepts.concept(conv, el)
    inner.finish()
    for each in value.get("coding", ()) if value else ():
        if each["code"] in table:
            return table[each["code"]]
    if value is not None and el is not None:
        conv.unmapped_code("allergy status or severity", el)
    return ""


def _reaction(conv: Conversion, resource: Json, statement: Statement, relation: Relation) -> list[Json]:
    inner = Statement(conv, relation.el, statement.section)
    inner.node.drop("code", "statusCode")
    el = inner.node.first("value")
    what = concepts.concept(conv, el)
    reaction: Json = {}
    text = inner.text()
    if what is None and text:
        what = {"text": text}
    elif what is not None and text:
        what.setdefault("text", text)
    apart: list[Json] = []
    for deeper in inner.relations():
        if SEVERITY in deeper.templates:
            level = _coded_value(conv, deeper, _SEVERITIES)
            if level:
                reaction["severity"] = level
        elif not comment(inner, reaction, deeper):
            apart += loosely_nested(inner, deeper)
    when = inner.effective()
    if when is not None:
        times.put(conv, reaction, "onset", when)
    for note in reaction.pop("note", ()):
        resource.setdefault("note", []).append(note)
    inner.finish()
    if what is not None:
        resource.setdefault("reaction", []).append({"manifestation": [what], **reaction})
    return apart
