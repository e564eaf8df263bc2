"""The value of an observation, by its xsi:type, as ``value[x]`` (C-CDA on FHIR, results)."""

from collections.abc import Callable
from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, ids, quantities, times
from fhir_adapters.cda.datatypes.nulls import absent_concept, reason_of
from fhir_adapters.cda.node import XSI_TYPE, child, said
from fhir_adapters.json_lexeme import from_source
from fhir_adapters.xml.tree import Element

MAX_INTEGER_CHARS = 10
"""Longest integer in characters: FHIR's are 32 bits wide; a longer one is a quantity."""


def put_value(conv: Conversion, target: Json, el: Element) -> bool:
    """Set ``target.value[x]`` from a value element.

    False when it says nothing; then ``dataAbsentReason`` is set if it says why.
    """
    kind = el.get(XSI_TYPE, "").rpartition(":")[2] or _guessed(el)
    setter = _SETTERS.get(kind)
    if setter is None:
        setter = _text
        if kind and said(el):
            conv.issue("warning", "unknown-type", el, "a data type that no mapping exists for; its text is kept")
    if setter(conv, target, el):
        return True
    reason = reason_of(el)
    if reason and "dataAbsentReason" not in target:
        target["dataAbsentReason"] = absent_concept(reason)
    elif not reason and said(el):
        conv.issue("warning", "bad-value", el, "not a value of its data type; kept as text where it has any")
        text = el.get("value", "").strip() or concepts.text_of(conv, el)
        if text:
            target["valueString"] = text
            return True
    return False


def _guessed(el: Element) -> str:
    """The type of a value without xsi:type, by its attributes."""
    if el.get("unit") is not None:
        return "PQ"
    if el.get("code") is not None or el.get("codeSystem") is not None:
        return "CD"
    if child(el, "low") is not None or child(el, "high") is not None:
        return "IVL_PQ"
    if el.get("value") is not None:
        return "REAL" if from_source(el.get("value", "")) is not None else "TS"
    return "ST"


def _quantity(conv: Conversion, target: Json, el: Element) -> bool:
    made = quantities.quantity(conv, el)
    if made:
        target["valueQuantity"] = made
    return bool(made)


def _integer(conv: Conversion, target: Json, el: Element) -> bool:
    raw = el.get("value", "").strip()
    digits = raw.removeprefix("-").removeprefix("+")
    if digits.isascii() and digits.isdigit() and len(raw) < MAX_INTEGER_CHARS:
        target["valueInteger"] = int(raw)
        return True
    return _quantity(conv, target, el)


def _concept(conv: Conversion, target: Json, el: Element) -> bool:
    made = concepts.concept(conv, el)
    if made is not None:
        target["valueCodeableConcept"] = made
    return made is not None


def _text(conv: Conversion, target: Json, el: Element) -> bool:
    text = concepts.text_of(conv, el) or el.get("value", "").strip() or el.get("displayName", "").strip()
    if text:
        target["valueString"] = text
    return bool(text)


def _boolean(_: Conversion, target: Json, el: Element) -> bool:
    raw = el.get("value", "").strip().lower() or (el.text or "").strip().lower()
    if raw in ("true", "1", "是", "有"):
        target["valueBoolean"] = True
    elif raw in ("false", "0", "否", "无"):
        target["valueBoolean"] = False
    else:
        return False
    return True


def _moment(conv: Conversion, target: Json, el: Element) -> bool:
    return bool(times.put(conv, target, "valueDateTime", el)) or "_valueDateTime" in target


def _times(conv: Conversion, target: Json, el: Element) -> bool:
    if el.get("value"):
        return _moment(conv, target, el)
    found = times.period(conv, el)
    if found:
        target["valuePeriod"] = found
    return bool(found)


def _interval(conv: Conversion, target: Json, el: Element) -> bool:
    if el.get("value"):
        return _quantity(conv, target, el)
    low, high = child(el, "low"), child(el, "high")
    both = all(each is not None and each.get("value") for each in (low, high))
    if both or (low is None and high is None):
        made = quantities.range_of(conv, el)
        if made:
            target["valueRange"] = made
        return bool(made)
    made = quantities.compared(conv, el)
    if made:
        target["valueQuantity"] = made
    return bool(made)


def _ratio(conv: Conversion, target: Json, el: Element) -> bool:
    made = quantities.ratio(conv, el)
    if made:
        target["valueRatio"] = made
    return bool(made)


def _identifier(conv: Conversion, target: Json, el: Element) -> bool:
    found = ids.key(conv, el)
    if found is not None:
        target["valueString"] = found[1]
    return found is not None


_Setter = Callable[[Conversion, Json, Element], bool]
_SETTERS: MappingProxyType[str, _Setter] = MappingProxyType(
    {
        **dict.fromkeys(("PQ", "REAL", "MO", "PPD_PQ"), _quantity),
        "INT": _integer,
        **dict.fromkeys(("CD", "CE", "CV", "CS", "CO", "SC", "BXIT_CD"), _concept),
        **dict.fromkeys(("ST", "ED", "ON", "PN", "EN", "AD", "TEL", "URL", "SLIST_PQ", "SLIST_TS"), _text),
        **dict.fromkeys(("BL", "BN"), _boolean),
        **dict.fromkeys(("TS", "DATE", "DATETIME", "SXCM_TS"), _moment),
        **dict.fromkeys(("IVL_TS", "IVXB_TS"), _times),
        **dict.fromkeys(("IVL_PQ", "IVL_INT", "IVL_REAL", "IVL_MO", "IVXB_PQ"), _interval),
        **dict.fromkeys(("RTO", "RTO_PQ_PQ", "RTO_QTY_QTY", "RTO_INT_INT", "RTO_MO_PQ"), _ratio),
        "II": _identifier,
    }
)
