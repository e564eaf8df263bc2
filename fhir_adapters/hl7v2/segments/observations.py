"""OBX: one Observation each (guide: OBX[Observation])."""

import re

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import concepts, quantities, timestamps, values
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import observation_details as details
from fhir_adapters.identifiers import observation_id

_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
SUB_ID = "http://hl7.org/fhir/StructureDefinition/observation-v2-subid"
_INTERPRETATION_SYSTEM = "http://terminology.hl7.org/CodeSystem/v2-0078"

# Why there is no value, by OBX-11 (http://terminology.hl7.org/CodeSystem/data-absent-reason).
_ABSENT_BY_STATUS = {
    "X": "not-performed",
    "N": "not-asked",
    "I": "temp-unknown",
    "O": "temp-unknown",
    "P": "temp-unknown",
}

# 3.5-5.1, 3.5--5.1, 3.5～5.1, 3.5 - 5.1
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_WORD = re.compile(r"[^\W\d_]{2}")
_BETWEEN = re.compile(rf"\s*({_NUMBER})\s*(?:-{{1,2}}|~|～|—|–|至|to)\s*({_NUMBER})\s*")
_BOUND = re.compile(rf"\s*(<=|>=|<|>|≤|≥|＜|＞)\s*({_NUMBER})\s*")

_ARRAY_NUMBERS_AT_MOST = 10_000


class Owner:
    """What a group's observations share: patient, encounter, report key, default status, time and performers."""

    __slots__ = ("effective", "encounter", "performers", "report_key", "specimen", "status", "subject", "system")

    def __init__(self, subject: Json, encounter: Json | None, system: str, report_key: str) -> None:
        self.subject = subject
        self.encounter = encounter
        self.system = system
        self.report_key = report_key
        self.status = ""
        self.effective: Json = {}
        self.performers: list[Json] = []
        self.specimen: Json | None = None

    @property
    def key(self) -> tuple[str, str]:
        """System and number of the report that the observations are of."""
        return self.system, self.report_key

    @property
    def patient(self) -> str:
        """Id of the patient."""
        return str(self.subject["reference"]).partition("/")[2]


def observation(conv: Conversion, owner: Owner, obx: Segment, category: str) -> Json:
    """Make the Observation of an OBX and return it (already added)."""
    obx.take(1)
    resource: Json = {"resourceType": "Observation", "id": "", "status": "unknown"}
    if category:
        resource["category"] = [{"coding": [{"system": _CATEGORY, "code": category}]}]
    result_status = _status(conv, resource, owner, obx)
    code = concepts.concept(conv, obx, 3)
    if code is None:
        conv.issue("warning", "missing", obx, 3, "no observation identifier")
        code = {"text": "unknown"}
    resource["code"] = code
    resource["subject"] = owner.subject
    if owner.encounter is not None:
        resource["encounter"] = owner.encounter
    if obx.fields[14]:
        timestamps.put_date_time(conv, resource, "effectiveDateTime", obx, 14)
    if "effectiveDateTime" not in resource and "_effectiveDateTime" not in resource:
        resource.update(owner.effective)
    sub_id = conv.text(obx.take(4))
    if sub_id:
        original = {"url": "original-sub-identifier", "valueString": sub_id}
        resource.setdefault("extension", []).append({"url": SUB_ID, "extension": [original]})
        if "text" not in code and _WORD.search(sub_id) and _is_bare_number(code):
            code["text"] = sub_id
    _value(conv, resource, obx, result_status)
    if obx.fields[7]:
        _reference_range(conv, resource, obx)
    if obx.fields[8]:
        _interpretation(conv, resource, obx)
    if obx.sent > 8:
        details.performers(conv, resource, owner.performers, obx)
        details.describe(conv, resource, obx)
    if owner.specimen is not None:
        resource["specimen"] = owner.specimen
    first = code["coding"][0]["code"] if "coding" in code else code["text"]
    times = conv.occurrence(f"OBX{owner.report_key}\x1f{first}\x1f{sub_id}")
    resource["id"] = observation_id(conv.profile, owner.system, owner.report_key, first, sub_id, times)
    conv.put(resource)
    return resource


def _is_bare_number(code: Json) -> bool:
    """Whether a code says nothing to a reader. Analyzers then name the item in OBX-4 (Mindray's host interface)."""
    codings = code.get("coding", ())
    return (
        len(codings) == 1
        and "display" not in codings[0]
        and "system" not in codings[0]
        and codings[0]["code"].isdigit()
    )


def _status(conv: Conversion, resource: Json, owner: Owner, obx: Segment) -> str:
    raw = conv.text(obx.take(11))
    if raw:
        status = conv.find("observation-status", raw)
        if status is not None:
            resource["status"] = status.code
        else:
            conv.unmapped_code("observation-status", obx, 11)
    elif owner.status:
        resource["status"] = owner.status
    else:
        conv.issue("warning", "missing", obx, 11, "no result status")
    return raw


def _value(conv: Conversion, resource: Json, obx: Segment, result_status: str) -> None:
    kind = obx.take(2).strip()
    raw = obx.take(5)
    own_unit = values.unit(conv, obx)
    if not raw or not raw.strip("^~& "):
        resource["dataAbsentReason"] = _absent(_ABSENT_BY_STATUS.get(result_status, "unknown"))
        if own_unit:
            conv.not_mapped(obx, 6)
        return
    at = values.Field(conv, obx, own_unit)
    before = len(resource)
    if not kind:
        conv.issue("warning", "missing", obx, 2, "no value type; the value is kept as text")
        kind = "ST"
    if kind == "NA":
        _array(at, resource, raw)
    elif "~" not in raw:
        values.set_value(at, resource, kind, raw)
    elif kind in values.JOINED:
        text = "\n".join(conv.text(repetition) for repetition in raw.split("~")).strip()
        if text:
            resource["valueString"] = text
    else:
        _repeated(at, resource, kind, raw.split("~"))
    if len(resource) == before and not _has_attachment(resource):
        resource["dataAbsentReason"] = _absent("unknown")


def _absent(code: str) -> Json:
    return {"coding": [{"system": _ABSENT, "code": code}]}


def _has_attachment(resource: Json) -> bool:
    return any(each["url"] == values.ATTACHMENT for each in resource.get("extension", ()))


def _repeated(at: values.Field, resource: Json, kind: str, repetitions: list[str]) -> None:
    """Several values of one OBX: a component each, with the Observation's own code (obs-7: then no value above)."""
    filled = [each for each in repetitions if each.strip("^& ")]
    if len(filled) == 1:
        values.set_value(at, resource, kind, filled[0])
        return
    components: list[Json] = []
    for repetition in filled:
        component: Json = {"code": resource["code"]}
        values.set_value(at, component, kind, repetition)
        components.append(component)
    if components:
        resource["component"] = components


def _array(at: values.Field, resource: Json, raw: str) -> None:
    """NA: rows of numbers. FHIR's SampledData wants an origin and a period, which v2 lacks, so: a component each."""
    numbers = [number for row in raw.split("~") for number in row.split("^") if number.strip()]
    if len(numbers) > _ARRAY_NUMBERS_AT_MOST:
        at.conv.issue("warning", "too-large", at.obx, 5, "an array of numbers too long for components; kept as text")
        values.set_value(at, resource, "ST", raw.replace("^", " ").replace("~", "\n"))
        return
    _repeated(at, resource, "NM", numbers)


def _reference_range(conv: Conversion, resource: Json, obx: Segment) -> None:
    """OBX-7: always as text, and as numbers when it plainly is a range. ``~`` is a Chinese "to" here, no repetition."""
    text = conv.text(obx.take(7))
    if not text:
        return
    made: Json = {}
    quantity = resource.get("valueQuantity", {})
    own_unit = {key: quantity[key] for key in ("unit", "system", "code") if key in quantity}
    between = _BETWEEN.fullmatch(text)
    if between is not None and between[1].startswith("-") and "--" in text:
        pass  # -2--1 is "from -2 to 1" to some laboratories and "to -1" to others: text alone
    elif between is not None:
        made["low"] = quantities.quantity(between[1], own_unit)
        made["high"] = quantities.quantity(between[2], own_unit)
    else:
        bound = _BOUND.fullmatch(text)
        if bound is not None:
            made["low" if bound[1] in (">", ">=", "≥", "＞") else "high"] = quantities.quantity(bound[2], own_unit)
    made["text"] = text
    resource["referenceRange"] = [made]


def _interpretation(conv: Conversion, resource: Json, obx: Segment) -> None:
    found: list[Json] = []
    for raw in obx.take(8).split("~"):
        if raw:
            if "^" not in raw and (plain := conv.find("interpretation", raw)) is not None and plain.code == raw:
                found.append({"coding": [plain.coding()]})
                continue
            meaning, sent = concepts.mapped_raw(conv, "interpretation", raw, obx, 8)
            if meaning is not None:
                found.append(_meaning(meaning.coding(), sent))
            elif sent is not None:
                for each in sent.get("coding", ()):
                    each.setdefault("system", _INTERPRETATION_SYSTEM)
                found.append(sent)
    if found:
        resource["interpretation"] = found


def _meaning(coding: Json, sent: Json | None) -> Json:
    """The FHIR code; a mark that is written differently (an arrow, a Chinese word) stays as text."""
    codings = (sent or {}).get("coding")
    written = codings[0].get("display") or codings[0]["code"] if codings else (sent or {}).get("text", "")
    if written and written not in (coding["code"], coding.get("display")):
        return {"coding": [coding], "text": written}
    return {"coding": [coding]}


def derive(conv: Conversion, obr: Segment, request: Json, results: list[Json]) -> None:
    """OBR-26: the result that these follow (the organism that sensitivities were tested of) has them as members.

    Its order is the one that OBR-29 names; a result of another message cannot be found here and is remarked on.
    """
    code, sub_id, *_ = [*obr.peek(26).split("^"), ""]
    wanted = conv.text(code.split("&")[0]), conv.text(sub_id)
    numbers = [each.get("identifier", {}).get("value", "") for each in request.get("basedOn", ())]
    for parent in (each for number in numbers for each in conv.panels.get(number, ())):
        first = parent["code"].get("coding", ({"code": parent["code"].get("text", "")},))[0]["code"]
        if (first, _sub_id(parent)) == wanted and results:
            obr.take(26)
            members = parent.setdefault("hasMember", [])
            members += [{"reference": f"Observation/{each['id']}"} for each in results]
            return


def _sub_id(resource: Json) -> str:
    found = (each for each in resource.get("extension", ()) if each["url"] == SUB_ID)
    return next((str(each["extension"][0]["valueString"]) for each in found), "")
