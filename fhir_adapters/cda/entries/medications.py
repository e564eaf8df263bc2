"""Medicines: taken (MedicationStatement), ordered or planned (MedicationRequest), dispensed (MedicationDispense).

Medication activity (4.16) in mood EVN is a statement, in INT or RQO a request; planned medication (4.42), supply order
(4.17) and dispense (4.18) are what they say.
"""

from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, demographics, quantities, timing
from fhir_adapters.cda.datatypes.nulls import absent_concept
from fhir_adapters.cda.datatypes.times import put_moment_or_period
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
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.node import Node, child
from fhir_adapters.xml.tree import Element

_T = "2.16.840.1.113883.10.20.22.4."
INSTRUCTION, INDICATION, DISPENSE, ORDER, SIG = _T + "20", _T + "19", _T + "18", _T + "17", _T + "147"
_STATEMENT_STATUS = MappingProxyType(
    {
        "active": "active",
        "completed": "completed",
        "aborted": "stopped",
        "suspended": "on-hold",
        "held": "on-hold",
        "cancelled": "stopped",
        "nullified": "entered-in-error",
        "new": "intended",
    }
)
_REQUEST_STATUS = MappingProxyType(
    {
        "active": "active",
        "completed": "completed",
        "aborted": "stopped",
        "suspended": "on-hold",
        "held": "on-hold",
        "cancelled": "cancelled",
        "nullified": "entered-in-error",
        "new": "draft",
    }
)
_DISPENSE_STATUS = MappingProxyType({"completed": "completed", "active": "in-progress", "aborted": "stopped"})
_INTENTS = MappingProxyType({"INT": "plan", "RQO": "order", "PRP": "proposal", "PRMS": "plan", "EVN": "order"})


def medication(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the MedicationStatement or MedicationRequest of a substanceAdministration."""
    statement = Statement(conv, el, section)
    asked = statement.mood != "EVN"
    resource = statement.resource("MedicationRequest" if asked else "MedicationStatement")
    status = statement.status()
    if asked:
        resource["status"] = _REQUEST_STATUS.get(status, "unknown")
        resource["intent"] = _INTENTS.get(statement.mood, "plan")
        if statement.negated:
            resource["doNotPerform"] = True
    else:
        resource["status"] = "not-taken" if statement.negated else _STATEMENT_STATUS.get(status, "unknown")
    product(conv, resource, statement.node.first("consumable"), el)
    resource["subject"] = conv.subject
    encounter_of_medicine(conv, resource)
    dose, period = dosage(conv, statement)
    if asked:
        statement.recorder(resource, "requester", "authoredOn")
        if period:
            dose.setdefault("timing", {}).setdefault("repeat", {})["boundsPeriod"] = period
        _repeats(conv, resource, statement)
    else:
        if period:
            _effective(resource, period)
        statement.recorder(resource, "informationSource", "dateAsserted")
    statement.informant(resource, "informationSource" if not asked else "requester")
    apart = _inside(conv, resource, dose, statement)
    if dose:
        resource["dosageInstruction" if asked else "dosage"] = [dose]
    _performers(conv, resource, statement, asked)
    for _, _, participant in statement.participants():
        conv.not_mapped(participant)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def encounter_of_medicine(conv: Conversion, resource: Json) -> None:
    """Say in which visit it was: ``context`` of a statement, ``encounter`` of a request."""
    if conv.encounter is None:
        return
    element = "encounter" if resource["resourceType"] == "MedicationRequest" else "context"
    resource[element] = {"reference": f"Encounter/{conv.encounter['id']}"}


def _effective(resource: Json, period: Json) -> None:
    if period.get("start") and period.get("start") == period.get("end"):
        resource["effectiveDateTime"] = period["start"]
    else:
        resource["effectivePeriod"] = period


def product(conv: Conversion, resource: Json, consumable: Element | None, place: Element) -> None:
    """Set ``medication[x]``: a concept, or a contained Medication where lot, maker or form are said."""
    made, details = medicine(conv, consumable)
    code = made or concepts.required(conv, None, place)
    if not details:
        resource["medicationCodeableConcept"] = code
        return
    resource["contained"] = [{"resourceType": "Medication", "id": "medication", "code": code, **details}]
    resource["medicationReference"] = {"reference": "#medication"}


def medicine(conv: Conversion, holder: Element | None) -> tuple[Json | None, Json]:
    """The code of a consumable's or product's medicine, and what a Medication says beyond it."""
    if holder is None:
        return None, {}
    outer = Node(holder)
    outer.drop("templateId")
    inner = outer.first("manufacturedProduct")
    conv.left(outer)
    if inner is None:
        return None, {}
    node = Node(inner)
    node.drop("templateId", "id")
    details: Json = {}
    code: Json | None = None
    for name in ("manufacturedMaterial", "manufacturedLabeledDrug"):
        for el in node.take(name):
            code = _material(conv, details, el) or code
    maker = actors.organization(conv, node.first("manufacturerOrganization"))
    if maker:
        details["manufacturer"] = maker
    conv.left(node)
    return code, details


def _material(conv: Conversion, details: Json, el: Element) -> Json | None:
    node = Node(el)
    node.drop("templateId")
    code = concepts.concept(conv, node.first("code"))
    for each in node.take("name"):
        text = demographics.organization_name(each)
        if text and code is None:
            code = {"text": text}
        elif text and code is not None and text not in concepts.spellings(code):
            code.setdefault("text", text)
    lot = node.first("lotNumberText")
    number = concepts.text_of(conv, lot) if lot is not None else ""
    if number:
        details["batch"] = {"lotNumber": number}
    form = concepts.concept(conv, node.first("sdtc:formCode"))
    if form:
        details["form"] = form
    conv.left(node)
    return code


def dosage(conv: Conversion, statement: Statement) -> tuple[Json, Json]:
    """The Dosage of a substanceAdministration, and the time over which it holds."""
    made: Json = {}
    node = statement.node
    text = statement.text()
    if text:
        made["text"] = text
    when, period = timing.timing(conv, node.take("effectiveTime"))
    if when:
        made["timing"] = when
    for el in node.take("precondition"):
        _as_needed(conv, made, el)
    for name, element in (("approachSiteCode", "site"), ("routeCode", "route")):
        found = statement.codes(name)
        if found:
            made[element] = found[0]
    _amounts(conv, made, node)
    for el in node.take("maxDoseQuantity"):
        most = quantities.ratio(conv, el)
        if most:
            made["maxDosePerPeriod"] = most
    unit = concepts.concept(conv, node.first("administrationUnitCode"))
    dose = made.get("doseAndRate", [{}])[0].get("doseQuantity")
    if unit and dose is not None and "unit" not in dose:
        dose["unit"] = unit.get("text") or concepts.spellings(unit)[-1]
    elif unit:
        made.setdefault("additionalInstruction", []).append(unit)
    return made, period


def _amounts(conv: Conversion, made: Json, node: Node) -> None:
    amounts: Json = {}
    for name, stem in (("doseQuantity", "dose"), ("rateQuantity", "rate")):
        for el in node.take(name):
            if el.get("value"):
                one = quantities.quantity(conv, el)
                if one and stem + "Quantity" not in amounts:
                    amounts[stem + "Quantity"] = one
                elif one:
                    conv.not_mapped(el)
                continue
            span = quantities.range_of(conv, el) if len(el) else {}
            if span:
                amounts[stem + "Range"] = span
    if amounts:
        made["doseAndRate"] = [amounts]


def _as_needed(conv: Conversion, made: Json, el: Element) -> None:
    criterion = child(el, "criterion")
    value = concepts.concept(conv, child(criterion, "value")) if criterion is not None else None
    code = concepts.concept(conv, child(criterion, "code")) if criterion is not None else None
    what = value or (code if code and not concepts.has_code(code, frozenset({"ASSERTION"})) else None)
    text = child(criterion, "text") if criterion is not None else None
    words = concepts.text_of(conv, text) if text is not None else ""
    if what is None and words:
        what = {"text": words}
    made.pop("asNeededBoolean", None)
    if what is not None and "asNeededCodeableConcept" not in made:
        made["asNeededCodeableConcept"] = what
    elif what is None and "asNeededCodeableConcept" not in made:
        made["asNeededBoolean"] = True
    else:
        conv.not_mapped(el)


def _repeats(conv: Conversion, resource: Json, statement: Statement) -> None:
    """repeatNumber: how often in all, where a request counts refills after the first."""
    el = statement.node.first("repeatNumber")
    raw = el.get("value", "") if el is not None else ""
    if raw.isascii() and raw.isdigit() and len(raw) < 6 and int(raw) > 0:
        resource.setdefault("dispenseRequest", {})["numberOfRepeatsAllowed"] = int(raw) - 1
    elif el is not None:
        conv.not_mapped(el)


def _performers(conv: Conversion, resource: Json, statement: Statement, asked: bool) -> None:
    for who, _, el in statement.performers():
        if asked and "performer" not in resource:
            resource["performer"] = who
        elif not asked and "informationSource" not in resource and may_be("informationSource", who):
            resource["informationSource"] = who
        else:
            conv.not_mapped(el)


def _inside(conv: Conversion, resource: Json, dose: Json, statement: Statement) -> list[Json]:
    apart: list[Json] = []
    for relation in statement.relations():
        if SIG in relation.templates:
            text = _plain(conv, relation)
            if text:
                dose["text"] = text
        elif INSTRUCTION in relation.templates:
            _instruction(conv, dose, relation)
        elif INDICATION in relation.templates or relation.type_code == "RSON":
            reason(conv, resource, relation)
        elif ORDER in relation.templates or DISPENSE in relation.templates:
            apart += _supplied(conv, relation, statement, resource)
        elif not comment(statement, resource, relation):
            apart += loosely_nested(statement, relation, resource)
    return apart


def _plain(conv: Conversion, relation: Relation) -> str:
    inner = Statement(conv, relation.el, Section())
    inner.node.drop("code", "statusCode", "consumable", "effectiveTime")
    text = inner.text()
    inner.finish()
    return text


def _instruction(conv: Conversion, dose: Json, relation: Relation) -> None:
    inner = Statement(conv, relation.el, Section())
    inner.node.drop("statusCode")
    code = inner.code()
    text = inner.text()
    if text:
        dose["patientInstruction"] = f"{dose['patientInstruction']}\n{text}" if "patientInstruction" in dose else text
    if code:
        dose.setdefault("additionalInstruction", []).append(code)
    inner.finish()


def reason(conv: Conversion, resource: Json, relation: Relation) -> None:
    """An indication as ``reasonCode``: its value, else its code."""
    inner = Statement(conv, relation.el, Section())
    inner.node.drop("statusCode")
    code, value = inner.code(), concepts.concept(conv, inner.node.first("value"))
    text = inner.text()
    what = value or code or ({"text": text} if text else None)
    if what is not None:
        if text:
            what.setdefault("text", text)
        resource.setdefault("reasonCode", []).append(what)
    for deeper in inner.relations():
        loosely_nested(inner, deeper)
    inner.finish()


def _supplied(conv: Conversion, relation: Relation, statement: Statement, parent: Json) -> list[Json]:
    """A supply inside a medication: what it says of the medicine it takes from around it."""
    made = nested(statement, relation)
    for reference in made[:1]:
        resource = conv.get(reference)
        if resource["resourceType"] not in ("MedicationRequest", "MedicationDispense"):
            continue
        if not _names_medicine(resource):
            for name in ("medicationCodeableConcept", "medicationReference", "contained"):
                resource.pop(name, None)
                if name in parent:
                    resource[name] = parent[name]
        kind = parent["resourceType"]
        if resource["resourceType"] == "MedicationDispense" and kind == "MedicationRequest":
            resource["authorizingPrescription"] = [{"reference": f"{kind}/{parent['id']}"}]
        elif kind == "MedicationStatement":
            dispensed = resource["resourceType"] == "MedicationDispense"
            parent.setdefault("derivedFrom" if dispensed else "basedOn", []).append(reference)
    return made


def _names_medicine(resource: Json) -> bool:
    return "medicationReference" in resource or not concepts.has_code(
        resource["medicationCodeableConcept"], frozenset({"unknown"})
    )


def order(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the MedicationRequest of a medication supply order (4.17)."""
    statement = Statement(conv, el, section)
    resource = statement.resource("MedicationRequest")
    resource["status"] = _REQUEST_STATUS.get(statement.status(), "unknown")
    resource["intent"] = "order"
    _product_of_supply(conv, resource, statement)
    resource["subject"] = conv.subject
    encounter_of(conv, resource)
    statement.recorder(resource, "requester", "authoredOn")
    dispense: Json = {}
    when = statement.effective()
    if when is not None:
        holder: Json = {}
        put_moment_or_period(conv, holder, "valid", when)
        if "validPeriod" in holder:
            dispense["validityPeriod"] = holder["validPeriod"]
        elif "validDateTime" in holder:
            dispense["validityPeriod"] = {"start": holder["validDateTime"]}
    amount = quantities.quantity(conv, statement.node.first("quantity"))
    if amount:
        dispense["quantity"] = amount
    if dispense:
        resource["dispenseRequest"] = dispense
    _repeats(conv, resource, statement)
    dose: Json = {}
    apart = _inside(conv, resource, dose, statement)
    if dose:
        resource["dosageInstruction"] = [dose]
    add_note(resource, statement.text())
    _performers(conv, resource, statement, asked=True)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def dispense(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the MedicationDispense of a medication dispense (4.18)."""
    statement = Statement(conv, el, section)
    resource = statement.resource("MedicationDispense")
    status = statement.status()
    resource["status"] = {"completed": "completed", "active": "in-progress", "aborted": "stopped"}.get(
        status, "unknown"
    )
    _product_of_supply(conv, resource, statement)
    resource["subject"] = conv.subject
    encounter_of_medicine(conv, resource)
    for who, _, _ in statement.performers():
        resource.setdefault("performer", []).append({"actor": who})
    amount = quantities.quantity(conv, statement.node.first("quantity"))
    if amount:
        resource["quantity"] = amount
    when = statement.effective()
    if when is not None:
        holder: Json = {}
        put_moment_or_period(conv, holder, "x", when)
        moment = holder.get("xDateTime") or holder.get("xPeriod", {}).get("start")
        if moment:
            resource["whenHandedOver"] = moment
    apart: list[Json] = []
    for relation in statement.relations():
        if not comment(statement, resource, relation):
            apart += loosely_nested(statement, relation, resource)
    add_note(resource, statement.text())
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _product_of_supply(conv: Conversion, resource: Json, statement: Statement) -> None:
    holder = statement.node.first("product")
    code, details = medicine(conv, holder)
    if code is None and holder is None:
        resource["medicationCodeableConcept"] = absent_concept("unknown")
        return
    code = code or concepts.required(conv, None, statement.el)
    if details:
        resource["contained"] = [{"resourceType": "Medication", "id": "medication", "code": code, **details}]
        resource["medicationReference"] = {"reference": "#medication"}
    else:
        resource["medicationCodeableConcept"] = code
