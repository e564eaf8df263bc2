"""FT1: the ChargeItem (guide: none yet). No Claim is made of it: that says more than FT1 does."""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, places, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import coded_unit, measured, money
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments.allergies import key_of
from fhir_adapters.identifiers import numbered_id

# FT1-6, table 0017: charges are to be billed; credits, reversals and payments are not charged any more.
_STATUS = {"CG": "billable", "CD": "aborted", "CO": "billable", "AJ": "billable", "PY": "billed"}
_PERFORMED = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_PEOPLE = ((20, "PRF", "performer"), (21, "REF", "referrer"))


def charge(conv: Conversion, patient: Json, visit: Json | None, account: Json, ft1: Segment) -> Json:
    """Make the ChargeItem of an FT1 (added)."""
    set_id = conv.text(ft1.take(1))
    resource: Json = {
        "resourceType": "ChargeItem",
        "id": "",
        "status": _status(conv, ft1),
        "subject": {"reference": f"Patient/{patient['id']}"},
        "account": [{"reference": f"Account/{account['id']}"}],
    }
    if visit is not None:
        resource["context"] = {"reference": f"Encounter/{visit['id']}"}
    resource["code"] = _code(conv, ft1)
    _identify(conv, resource, ft1, account, set_id)
    _when(conv, resource, ft1)
    _amounts(conv, resource, ft1)
    _reasons(conv, resource, ft1)
    _people(conv, resource, ft1)
    _places(conv, resource, ft1)
    ordered = business_ids.entity(conv, ft1.take(23), "FILL") if ft1.peek(23) else None
    if ordered is not None:
        resource["supportingInformation"] = [{"type": "ServiceRequest", "identifier": ordered}]
    text = "\n".join(text for number in (8, 9) if (text := conv.text(ft1.take(number))))
    if text:
        resource["note"] = [{"text": text}]
    return conv.keep(resource)


def _status(conv: Conversion, ft1: Segment) -> str:
    raw = conv.text(ft1.take(6).split("^")[0])
    if raw and raw not in _STATUS:
        conv.unmapped_code("transaction type", ft1, 6)
    return _STATUS.get(raw, "unknown")


def _code(conv: Conversion, ft1: Segment) -> Json:
    """FT1-7 the transaction, FT1-25 the procedure that it pays for (with its modifiers)."""
    code = concepts.concept(conv, ft1, 7)
    procedure = concepts.concept(conv, ft1, 25) if ft1.peek(25) else None
    if code is None:
        code = procedure
    elif procedure is not None:
        known = code.setdefault("coding", [])
        known += [each for each in procedure.get("coding", ()) if each not in known]
    for modifier in concepts.concepts(conv, ft1, 26) if ft1.peek(26) else ():
        (code or {}).setdefault("coding", []).extend(modifier.get("coding", ()))
    if code is None:
        conv.issue("warning", "missing", ft1, 7, "no transaction code")
        return {"text": "unknown"}
    return code


def _identify(conv: Conversion, resource: Json, ft1: Segment, account: Json, set_id: str) -> None:
    raw = ft1.take(2)
    made = None
    if raw:
        # ST up to v2.5, CX after: a number within the sender or with its authority
        made = business_ids.identifier(conv, raw.split("~")[0], ft1, 2)
    business_ids.add_identifier(resource, made)
    parts = [account["id"], key_of(resource["code"]), ft1.peek(4), set_id]
    if made is not None:
        parts = [*business_ids.key_of(made), set_id]
    times = conv.occurrence("FT1" + "\x1f".join(parts))
    resource["id"] = numbered_id(conv.profile, "ChargeItem", parts[0], *parts[1:], str(times))


def _when(conv: Conversion, resource: Json, ft1: Segment) -> None:
    raw = ft1.take(4)
    start, end, *_ = [*raw.split("^"), ""]
    if end.strip():
        timestamps.put_period(conv, resource, "occurrencePeriod", raw, ft1, 4)
    elif start:
        timestamps.put_raw(conv, resource, "occurrenceDateTime", start, ft1, 4)
    timestamps.put_date_time(conv, resource, "enteredDate", ft1, 5)


def _amounts(conv: Conversion, resource: Json, ft1: Segment) -> None:
    """FT1-10 how many; FT1-11 the whole price, FT1-12 that of one: an override, as the price list is not known here."""
    count = measured(conv, ft1.take(10), "") if ft1.peek(10) else None
    if count is not None:
        resource["quantity"] = count
    whole = money(conv, ft1.take(11)) if ft1.peek(11) else None
    single = money(conv, ft1.take(12)) if ft1.peek(12) else None
    if whole is not None:
        resource["priceOverride"] = whole
    elif single is not None:
        resource["priceOverride"] = single
    if whole is not None and single is not None and "quantity" not in resource:
        resource["overrideReason"] = f"unit price {single['value']}"
    volume = ft1.peek(44)
    if volume and "quantity" not in resource:
        amount, _, units = ft1.take(44).partition("^")
        resource["quantity"] = {**(measured(conv, amount, "") or {}), **coded_unit(conv, units)}


def _reasons(conv: Conversion, resource: Json, ft1: Segment) -> None:
    reasons = concepts.concepts(conv, ft1, 19) if ft1.peek(19) else []
    if reasons:
        resource["reason"] = reasons
    product = concepts.concept(conv, ft1, 29) if ft1.peek(29) else None
    if product is not None:
        resource["productCodeableConcept"] = product


def _people(conv: Conversion, resource: Json, ft1: Segment) -> None:
    found: list[Json] = []
    for number, code, display in _PEOPLE:
        for actor in actors.practitioners(conv, ft1, number) if ft1.peek(number) else ():
            coding = {"system": _PERFORMED, "code": code, "display": display}
            found.append({"function": {"coding": [coding]}, "actor": actor})
    if found:
        resource["performer"] = found
    enterer = actors.practitioner(conv, ft1, 24) if ft1.peek(24) else None
    if enterer is not None:
        resource["enterer"] = enterer


def _places(conv: Conversion, resource: Json, ft1: Segment) -> None:
    """FT1-13 and 16: who performed it and where; FT1-30 who pays."""
    department = concepts.concept(conv, ft1, 13) if ft1.peek(13) else None
    if department is not None:
        own = department.get("coding", ({"code": "", "display": department.get("text", "")},))[0]
        system = own.get("system") or conv.local_system("department")
        made = actors.coded_organization(conv, own["code"], own.get("display", ""), system)
        if made is not None:
            resource["performingOrganization"] = made
    where = places.location(conv, ft1, 16) if ft1.peek(16) else None
    if where is not None:
        resource.setdefault("supportingInformation", []).append(where)
