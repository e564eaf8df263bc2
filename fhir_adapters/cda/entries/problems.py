"""Problems and diagnoses: concern acts (4.3, 4.132), problem observations (4.4), encounter and hospital diagnoses."""

from types import MappingProxyType

from fhir_adapters.cda.context import DATA_ABSENT, Conversion, Json
from fhir_adapters.cda.datatypes import concepts, quantities, times
from fhir_adapters.cda.datatypes.nulls import reason_of
from fhir_adapters.cda.entries.allergies import add_to_first
from fhir_adapters.cda.entries.observations import encounter_of
from fhir_adapters.cda.entries.statement import (
    Relation,
    Section,
    Statement,
    add_note,
    comment,
    loosely_nested,
    may_be,
    nested,
)
from fhir_adapters.cda.node import child
from fhir_adapters.xml.tree import Element

_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
_US_CATEGORY = "http://hl7.org/fhir/us/core/CodeSystem/condition-category"
_SNOMED = "http://snomed.info/sct"
PROBLEM = "2.16.840.1.113883.10.20.22.4.4"
_STATUS, _SEVERITY, _AGE = (f"2.16.840.1.113883.10.20.22.4.{n}" for n in ("6", "8", "31"))
_STATUSES = MappingProxyType(
    {
        "55561003": "active",
        "73425007": "inactive",
        "413322009": "resolved",
        "246455001": "recurrence",
        "263855007": "relapse",
        "277022003": "remission",
    }
)
_CONCERN = MappingProxyType({"completed": "inactive", "aborted": "inactive", "suspended": "inactive"})
_CATEGORIES = MappingProxyType(
    {
        "problem-list-item": (_CATEGORY, "Problem List Item"),
        "encounter-diagnosis": (_CATEGORY, "Encounter Diagnosis"),
        "health-concern": (_US_CATEGORY, "Health Concern"),
    }
)
# A negated value that names no disease: none known
_NONE_KNOWN = frozenset({"55607006", "404684003", "64572001", "282291009", "409586006", "29308-4"})


def concern(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """A problem concern: what is inside becomes the resources; it lends status and author."""
    return _tracked(conv, el, section, "problem-list-item")


def diagnosis(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """An encounter, admission, discharge or preoperative diagnosis act."""
    return _tracked(conv, el, section, "encounter-diagnosis")


def health_concern(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """A health concern act (4.132): the problems in it; what else it gathers is converted by itself."""
    return _tracked(conv, el, section, "health-concern")


def _tracked(conv: Conversion, el: Element, section: Section, category: str) -> list[Json]:
    act = Statement(conv, el, section)
    clinical = _CONCERN.get(act.status(), "active")
    act.node.drop("code")
    holder: Json = {}
    act.recorder(holder)
    made: list[Json] = []
    comments: Json = {}
    for relation in act.relations():
        if PROBLEM in relation.templates or (relation.name == "observation" and relation.type_code == "SUBJ"):
            made += problem(conv, relation.el, section, category, clinical, holder)
        elif not comment(act, comments, relation):
            made += nested(act, relation)
    act.lent(holder, made)
    for reference in made[:1]:
        for note in comments.get("note", ()):
            conv.get(reference).setdefault("note", []).append(note)
    add_to_first(conv, made, act.text())
    act.finish()
    return made


def problem(
    conv: Conversion,
    el: Element,
    section: Section,
    category: str = "problem-list-item",
    clinical: str = "",
    recorded: Json | None = None,
) -> list[Json]:
    """Make the Condition of a problem observation."""
    statement = Statement(conv, el, section)
    resource = statement.resource("Condition")
    resource["category"] = [category_concept(category)]
    statement.node.drop("statusCode")
    value = statement.node.first("value")
    what = concepts.concept(conv, value)
    kind = statement.code()
    text = statement.text()
    _code(conv, resource, statement, what, kind, text)
    sites = statement.codes("targetSiteCode")
    if sites:
        resource["bodySite"] = sites
    resource["subject"] = conv.subject
    encounter_of(conv, resource)
    over = _course(conv, resource, statement)
    statement.recorder(resource)
    for name, content in (recorded or {}).items():
        resource.setdefault(name, content)
    statement.informant(resource, "asserter")
    for who, _, el_performer in statement.performers():
        if "asserter" not in resource and may_be("asserter", who):
            resource["asserter"] = who
        else:
            conv.not_mapped(el_performer)
    apart, status = _inside(conv, resource, statement)
    if over:
        # con-4: what has abated is not active
        status = status if status in ("inactive", "remission", "resolved") else "resolved"
    status = status or clinical or ("active" if category != "encounter-diagnosis" else "")
    if status:
        coding = {"system": _CLINICAL, "code": status, "display": status.capitalize()}
        resource["clinicalStatus"] = {"coding": [coding]}
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def category_concept(code: str) -> Json:
    """The CodeableConcept of a condition category."""
    system, display = _CATEGORIES[code]
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _code(
    conv: Conversion, resource: Json, statement: Statement, what: Json | None, kind: Json | None, text: str
) -> None:
    if statement.negated:
        named = {each["code"] for each in what.get("coding", ())} if what else set()
        if not named or named <= _NONE_KNOWN:
            coding = {"system": _SNOMED, "code": "160245001", "display": "No current problems or disability"}
            resource["code"] = {"coding": [coding]}
            if text:
                resource["code"]["text"] = text
            return
        resource["verificationStatus"] = {
            "coding": [{"system": _VERIFICATION, "code": "refuted", "display": "Refuted"}]
        }
    if what is None and text:
        what = {"text": text}
    if what is None and kind is not None:
        what = kind
    resource["code"] = what or concepts.required(conv, None, statement.el)
    if text and text not in concepts.spellings(resource["code"]):
        if "text" in resource["code"]:
            add_note(resource, text)
        else:
            resource["code"]["text"] = text


def _course(conv: Conversion, resource: Json, statement: Statement) -> bool:
    """Onset and abatement; whether it is over. A high without a value ("ended, nobody knows when") ends it too."""
    el = statement.effective()
    if el is None:
        return False
    if el.get("value"):
        times.put(conv, resource, "onsetDateTime", el)
        return False
    found = times.period(conv, el)
    for bound, element in (("start", "onsetDateTime"), ("end", "abatementDateTime")):
        for prefix in ("", "_"):
            if prefix + bound in found:
                resource[prefix + element] = found[prefix + bound]
    high = child(el, "high")
    if high is not None and high.get("nullFlavor") == "UNK" and "end" not in found:
        resource["_abatementDateTime"] = {"extension": [{"url": DATA_ABSENT, "valueCode": reason_of(high)}]}
    return "abatementDateTime" in resource or "_abatementDateTime" in resource


def _inside(conv: Conversion, resource: Json, statement: Statement) -> tuple[list[Json], str]:
    apart: list[Json] = []
    status = ""
    for relation in statement.relations():
        if _STATUS in relation.templates:
            status = _value_code(conv, relation)
        elif _SEVERITY in relation.templates:
            severity = _value(conv, relation)
            if severity:
                resource["severity"] = severity
        elif _AGE in relation.templates:
            _age(conv, resource, relation)
        elif not comment(statement, resource, relation):
            apart += loosely_nested(statement, relation, resource)
    return apart, status


def _value(conv: Conversion, relation: Relation) -> Json | None:
    inner = Statement(conv, relation.el, Section())
    inner.node.drop("code", "statusCode", "text")
    value = concepts.concept(conv, inner.node.first("value"))
    inner.finish()
    return value


def _value_code(conv: Conversion, relation: Relation) -> str:
    value = _value(conv, relation)
    for each in value.get("coding", ()) if value else ():
        if each["code"] in _STATUSES:
            return _STATUSES[each["code"]]
    if value is not None:
        conv.unmapped_code("condition status", relation.el)
    return ""


def _age(conv: Conversion, resource: Json, relation: Relation) -> None:
    age = age_of(conv, relation.el)
    if age and not any(name.startswith(("onset", "_onset")) for name in resource):
        resource["onsetAge"] = age
    elif age:
        conv.not_mapped(relation.el)


def age_of(conv: Conversion, el: Element) -> Json:
    """The Age of an age observation (4.31); {} when it says none in a unit of time (age-1)."""
    inner = Statement(conv, el, Section())
    inner.node.drop("code", "statusCode", "text")
    made = quantities.quantity(conv, inner.node.first("value"))
    inner.finish()
    return made if made.get("code") in ("a", "mo", "wk", "d", "h", "min") and made["value"] > 0 else {}
