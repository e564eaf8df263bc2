"""Prescriptions (C0004, C0005) and the medicines and orders of other documents."""

import re
from datetime import date, timedelta
from types import MappingProxyType

from fhir_adapters.cda.chinese.form import (
    PRESCRIPTIONS,
    beside,
    code_concept,
    element_code,
    form_of,
    members,
    value_of,
    value_text,
)
from fhir_adapters.cda.context import PROJECT_EXTENSIONS, Conversion, Json, add_extension
from fhir_adapters.cda.datatypes import concepts, quantities, times
from fhir_adapters.cda.entries import medications
from fhir_adapters.cda.entries.observations import encounter_of
from fhir_adapters.cda.entries.statement import Section, Statement, add_note, may_be
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.node import child, said
from fhir_adapters.identifiers import medication_request_id
from fhir_adapters.json_lexeme import from_source
from fhir_adapters.xml.tree import Element

SPECIFICATION = PROJECT_EXTENSIONS + "medicine-specification"
HERBAL = "DE08.50.049.00"
_SPECIFICATION, _TOTAL, _USE = "DE08.50.043.00", "DE06.00.135.00", "DE06.00.136.00"
_DOSES, _DECOCTION = "DE08.50.050.00", "DE08.50.047.00"
_VALID_DAYS, _CATEGORY, _REMARK = "DE06.00.294.00", "DE08.50.032.00", "DE06.00.179.00"
_ORDER_TYPE, ORDER_CONTENT, _ORDER_STATUS = "DE06.00.289.00", "DE06.00.288.00", "DE06.00.290.00"
OF_PRESCRIPTION = frozenset({_VALID_DAYS, _CATEGORY, _REMARK})
_MEDICINE_ORDER = frozenset({"01", "1", "药品", "药品类", "药品类医嘱"})  # CV06.00.229 医嘱项目类型代码
_PER = MappingProxyType({"d": "d", "天": "d", "日": "d", "周": "wk", "小时": "h", "h": "h", "次": ""})
_FREQUENCY = re.compile(r"次/(?:(\d+)\s*)?(天|日|d|周|小时|h)")


def substance(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """A medicine: prescribed in a prescription, a statement or request of CDA's own elsewhere."""
    if form_of(conv).kind not in PRESCRIPTIONS:
        return medications.medication(conv, el, section)
    statement = Statement(conv, el, section)
    resource = _request(conv, statement)
    medications.product(conv, resource, statement.node.first("consumable"), el)
    form_el = statement.node.first("administrationUnitCode")  # 药物剂型, here where CDA has the unit of the dose
    form_code = concepts.concept(conv, form_el)
    if form_code:
        _contain(resource, form_code)
    rate = statement.node.first("rateQuantity")
    dose, period = medications.dosage(conv, statement)
    if rate is not None:
        _frequency(conv, dose, rate)
    if period:
        dose.setdefault("timing", {}).setdefault("repeat", {})["boundsPeriod"] = period
    statement.node.drop("statusCode", "code")
    apart: list[Json] = []
    for relation in statement.relations():
        apart += _inside(conv, resource, dose, relation.el, section)
    if dose:
        resource["dosageInstruction"] = [dose]
    reference = statement.put(resource)
    statement.finish()
    form_of(conv).medicines.append(resource)
    return [reference, *apart]


def _request(conv: Conversion, statement: Statement) -> Json:
    form = form_of(conv)
    number = form.numbers.get("20")
    system, value = (number["system"], number["value"]) if number else conv.document
    count = form.occurrence("medicine")
    resource: Json = {
        "resourceType": "MedicationRequest",
        "id": medication_request_id(conv.profile, system, f"{value}#{count + 1}"),
        "status": "active",
        "intent": "order",
    }
    if statement.identifiers:
        resource["identifier"] = statement.identifiers
    if number:
        resource["groupIdentifier"] = number
    resource["subject"] = conv.subject
    encounter_of(conv, resource)
    return resource


def _contain(resource: Json, form_code: Json) -> None:
    """A medicine with a form is a contained Medication."""
    if "contained" not in resource:
        code = resource.pop("medicationCodeableConcept")
        resource["contained"] = [{"resourceType": "Medication", "id": "medication", "code": code}]
        resource["medicationReference"] = {"reference": "#medication"}
    resource["contained"][0]["form"] = form_code


def _frequency(conv: Conversion, dose: Json, el: Element) -> None:
    """用药频率, written as a rate: 3 次/日."""
    raw, unit = el.get("value", "").strip(), el.get("unit", "").strip()
    number = from_source(raw) if raw else None
    match = _FREQUENCY.fullmatch(unit)
    if number is not None and match is not None and float(number).is_integer() and number > 0:
        repeat = dose.setdefault("timing", {}).setdefault("repeat", {})
        repeat["frequency"] = int(number)
        repeat["period"] = int(match[1] or 1)
        repeat["periodUnit"] = _PER[match[2]]
    elif raw or unit:
        dose.setdefault("timing", {})["code"] = {"text": f"{raw} {unit}".strip()}
    if len(el):
        conv.not_mapped(el)


def _inside(conv: Conversion, resource: Json, dose: Json, el: Element, section: Section) -> list[Json]:
    """Map a statement inside a medicine: into it where it is one of its data elements, else apart from it."""
    if not _detail(conv, resource, dose, el):
        return conv.dispatch(el, section)
    beside(conv, el, section)
    return [each for inner in members(el) for each in conv.dispatch(inner, section)]


def _detail(conv: Conversion, resource: Json, dose: Json, el: Element) -> bool:
    """Whether a data element inside a medicine was carried over into it."""
    code, text = element_code(el), value_text(el)
    if code == _SPECIFICATION and text:
        add_extension(resource, SPECIFICATION, "valueString", text)
    elif code in (_TOTAL, _DOSES):
        amount = quantities.quantity(conv, value_of(el))
        if not amount:
            return not text
        resource.setdefault("dispenseRequest", {})["quantity"] = amount
    elif code == _USE and text:
        dose["text"] = f"{dose['text']}；{text}" if "text" in dose else text
    elif code == _DECOCTION and text:
        dose.setdefault("additionalInstruction", []).append({"text": text})
    else:
        return not said_value(el)
    return True


def said_value(el: Element) -> bool:
    """Whether an observation's value says anything."""
    value = value_of(el)
    return value is not None and said(value)


def herbal(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """A prescription of Chinese herbs: one text, so many doses, how to boil and to take them."""
    statement = Statement(conv, el, section)
    resource = _request(conv, statement)
    code = code_concept(conv, el)
    resource["medicationCodeableConcept"] = {**({"coding": code["coding"]} if code else {}), "text": value_text(el)}
    statement.node.drop("code", "value", "statusCode")
    dose: Json = {}
    apart: list[Json] = []
    for relation in statement.relations():
        apart += _inside(conv, resource, dose, relation.el, section)
    if dose:
        resource["dosageInstruction"] = [dose]
    reference = statement.put(resource)
    statement.finish()
    form_of(conv).medicines.append(resource)
    return [reference, *apart]


def of_prescription(conv: Conversion, code: str, el: Element) -> bool:
    """Whether a data element about the prescription as a whole was noted for all its medicines."""
    form = form_of(conv)
    if form.kind not in PRESCRIPTIONS or code not in OF_PRESCRIPTION:
        return False
    conv.later(lambda: _for_all(conv, code, el))
    return True


def _for_all(conv: Conversion, code: str, el: Element) -> None:
    form = form_of(conv)
    value = value_of(el)
    if not form.medicines:
        conv.not_mapped(el)
    for resource in form.medicines:
        if code == _VALID_DAYS:
            _valid(conv, resource, el)
        elif code == _CATEGORY:
            made = concepts.concept(conv, value)
            if made:
                resource.setdefault("category", []).append(made)
        else:
            add_note(resource, value_text(el))


def _valid(conv: Conversion, resource: Json, el: Element) -> None:
    """处方有效天数: from the day it was written, that day included."""
    made = quantities.quantity(conv, value_of(el))
    start = resource.get("authoredOn", "")[:10]
    whole = bool(made) and (made.get("code") == "d" or "unit" not in made) and made["value"] == int(made["value"])
    if not whole or not 0 < made["value"] < 1000 or len(start) != 10:
        conv.not_mapped(el)
        return
    last = date.fromisoformat(start) + timedelta(days=int(made["value"]) - 1)
    resource.setdefault("dispenseRequest", {})["validityPeriod"] = {"start": start, "end": last.isoformat()}


def is_order(elements: list[Element]) -> bool:
    """Whether observations stand for one order."""
    return any(element_code(each) == ORDER_CONTENT for each in elements)


def order(conv: Conversion, section: Section, parts: list[Element]) -> list[Json]:
    """An order (医嘱): its type, content, times and people, as a MedicationRequest or ServiceRequest."""
    content = next(each for each in parts if element_code(each) == ORDER_CONTENT)
    kind_el = next((each for each in parts if element_code(each) == _ORDER_TYPE), None)
    kind = concepts.concept(conv, value_of(kind_el)) if kind_el is not None else None
    text = value_text(content)
    if not text:
        return []
    statement = Statement(conv, content, section)
    is_medicine = any(word in _MEDICINE_ORDER for word in concepts.spellings(kind or {}))
    type_name = "MedicationRequest" if is_medicine else "ServiceRequest"
    resource = statement.resource(type_name, status="active", intent="order")
    if kind:
        resource["category"] = [kind]
    resource["medicationCodeableConcept" if is_medicine else "code"] = {"text": text}
    resource["subject"] = conv.subject
    encounter_of(conv, resource)
    statement.node.drop("code", "value", "statusCode")
    _planned(conv, resource, statement, is_medicine)
    statement.recorder(resource, "requester", "authoredOn")
    for who, _, performer in statement.performers():
        if is_medicine and "performer" not in resource:
            resource["performer"] = who
        elif not is_medicine:
            resource.setdefault("performer", []).append(who)
        else:
            conv.not_mapped(performer)
        if child(performer, "time") is not None:
            conv.not_mapped(child(performer, "time"))  # type: ignore[arg-type]
    for _, role, participant in statement.participants():
        _signed(conv, resource, role, participant)
    apart = _of_order(conv, resource, statement, section)
    if kind_el is not None:
        beside(conv, kind_el, section)
        apart += [each for inner in members(kind_el) for each in conv.dispatch(inner, section)]
    reference = statement.put(resource)
    statement.finish()
    for part in parts:
        if part not in (content, kind_el):
            apart += conv.dispatch(part, section)
    return [reference, *apart]


def _planned(conv: Conversion, resource: Json, statement: Statement, is_medicine: bool) -> None:
    el = statement.effective()
    found = times.period(conv, el) if el is not None else {}
    if not found:
        return
    if is_medicine:
        resource["dosageInstruction"] = [{"timing": {"repeat": {"boundsPeriod": found}}}]
    else:
        resource["occurrencePeriod"] = found


def _signed(conv: Conversion, resource: Json, role: Element, participant: Element) -> None:
    """Who reviewed or cancelled an order: kept as a note, for a request has one requester."""
    code = child(role, "code")
    title = code.get("displayName", "") if code is not None else ""
    who = actors.actor(conv, role)
    if who is None:
        if said(participant):
            conv.not_mapped(participant)
        return
    when = times.read(conv, child(participant, "time"))
    if "取消" in title or "停止" in title:
        resource["status"] = "cancelled" if resource["resourceType"] == "MedicationRequest" else "revoked"
    note: Json = {}
    if may_be("recorder", who) and who["reference"].startswith("Practitioner/"):
        note["authorReference"] = who
    if when:
        note["time"] = when
    resource.setdefault("note", []).append({**note, "text": title or "签名"})


def _of_order(conv: Conversion, resource: Json, statement: Statement, section: Section) -> list[Json]:
    apart: list[Json] = []
    for relation in statement.relations():
        code, text = element_code(relation.el), value_text(relation.el)
        if code in (_REMARK, _ORDER_STATUS):
            beside(conv, relation.el, section)
            apart += [each for inner in members(relation.el) for each in conv.dispatch(inner, section)]
        if not text:
            continue
        if code == _REMARK:
            add_note(resource, text)
        elif code == _ORDER_STATUS:
            done = any(word in text for word in ("完成", "已执行", "执行完"))
            if done and resource["status"] == "active":
                resource["status"] = "completed"
            else:
                add_note(resource, text)
        else:
            apart += conv.dispatch(relation.el, section)
    return apart
