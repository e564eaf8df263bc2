"""Family history (4.45 organizer, 4.46 observations): a FamilyMemberHistory a relative."""

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, demographics, ids, times
from fhir_adapters.cda.datatypes.nulls import absent_concept
from fhir_adapters.cda.entries.problems import age_of
from fhir_adapters.cda.entries.statement import Relation, Section, Statement, add_note, comment, loosely_nested
from fhir_adapters.cda.node import Node
from fhir_adapters.xml.tree import Element

_T = "2.16.840.1.113883.10.20.22.4."
_AGE, _DEATH = _T + "31", _T + "47"
_STATUS = {"completed": "completed", "active": "partial"}
_GENDER = "http://hl7.org/fhir/administrative-gender"


def family_member(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the FamilyMemberHistory of a family history organizer."""
    statement = Statement(conv, el, section)
    resource = statement.resource("FamilyMemberHistory")
    resource["status"] = _STATUS.get(statement.status(), "completed")
    resource["patient"] = conv.subject
    when = statement.effective()
    if when is not None:
        times.put(conv, resource, "date", when)
    subject = statement.node.first("subject")
    if subject is not None:
        _relative(conv, resource, subject)
    resource.setdefault("relationship", absent_concept("unknown"))
    statement.node.drop("code")
    apart: list[Json] = []
    for relation in statement.relations():
        if relation.name == "observation":
            apart += _condition(conv, resource, statement, relation)
        elif not comment(statement, resource, relation):
            apart += loosely_nested(statement, relation)
    add_note(resource, statement.text())
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _relative(conv: Conversion, resource: Json, el: Element) -> None:
    outer = Node(el)
    related = outer.first("relatedSubject")
    conv.left(outer)
    if related is None:
        return
    node = Node(related)
    relation = concepts.concept(conv, node.first("code"))
    if relation:
        resource["relationship"] = relation
    person = node.first("subject")
    node.drop("templateId")
    if person is not None:
        _person(conv, resource, Node(person))
    conv.left(node)


def _person(conv: Conversion, resource: Json, inner: Node) -> None:
    made = ids.identifiers(conv, [*inner.take("id"), *inner.take("sdtc:id")])
    if made:
        resource["identifier"] = [*resource.get("identifier", []), *made]
    names = demographics.human_names(conv, inner.take("name"))
    if names:
        resource["name"] = demographics.written(names[0])
    sex, sent = concepts.mapped(conv, "sex", inner.first("administrativeGenderCode"))
    if sex is not None:
        resource["sex"] = {"coding": [{"system": _GENDER, "code": sex.code}]}
    elif sent is not None:
        resource["sex"] = sent
    born = inner.first("birthTime")
    if born is not None:
        times.put_date(conv, resource, "bornDate", born)
    died = inner.first("sdtc:deceasedTime")
    flag = inner.first("sdtc:deceasedInd")
    if died is not None and died.get("value"):
        times.put_date(conv, resource, "deceasedDate", died)
    elif flag is not None and flag.get("value") in ("true", "false"):
        resource["deceasedBoolean"] = flag.get("value") == "true"
    conv.left(inner)


def _condition(conv: Conversion, resource: Json, statement: Statement, relation: Relation) -> list[Json]:
    inner = Statement(conv, relation.el, statement.section)
    inner.node.drop("statusCode")
    what = concepts.concept(conv, inner.node.first("value"))
    kind = inner.code()
    text = inner.text()
    code = what or ({"text": text} if text else kind)
    condition: Json = {"code": code or absent_concept("unknown")}
    if what is not None and text:
        what.setdefault("text", text)
    apart: list[Json] = []
    for deeper in inner.relations():
        if _AGE in deeper.templates:
            age = age_of(conv, deeper.el)
            if age:
                condition["onsetAge"] = age
        elif _DEATH in deeper.templates:
            condition["contributedToDeath"] = True
            _forget(conv, deeper, inner)
        elif not comment(inner, condition, deeper):
            apart += loosely_nested(inner, deeper)
    when = inner.effective()
    if when is not None:
        _onset(conv, condition, when)
    if inner.negated:
        add_note(condition, "negated: the relative did not have it")
        conv.issue("warning", "negated", relation.el, "a negated condition of a relative is kept with a note")
    inner.finish()
    resource.setdefault("condition", []).append(condition)
    return apart


def _forget(conv: Conversion, relation: Relation, around: Statement) -> None:
    """The observation of death says only that its cause is the condition around it."""
    inner = Statement(conv, relation.el, around.section)
    inner.node.drop("code", "statusCode", "value", "text", "effectiveTime")
    inner.finish()


def _onset(conv: Conversion, condition: Json, el: Element) -> None:
    """When it was found: FamilyMemberHistory has onset as age, period or text, so one time is text."""
    if "onsetAge" in condition:
        conv.not_mapped(el)
        return
    if el.get("value"):
        value = times.read(conv, el)
        if value:
            condition["onsetString"] = value
        return
    found = times.period(conv, el)
    if found:
        condition["onsetPeriod"] = found
