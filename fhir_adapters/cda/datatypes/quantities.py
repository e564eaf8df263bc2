"""Quantities, ranges and ratios (PQ, INT, REAL, MO, IVL_PQ, RTO: HL7 V3 data types R1) as FHIR data types.

Numbers keep their digits. A unit gets a UCUM code only when it is UCUM or plainly means a UCUM unit (``℃``,
``次/min``); as sent it always stays. Nothing is converted.
"""

from fhir_adapters.cda.context import ORIGINAL_TEXT, Conversion, Json, plain_text
from fhir_adapters.cda.node import child, children, said
from fhir_adapters.json_lexeme import from_source
from fhir_adapters.units import UCUM, ucum_code
from fhir_adapters.xml.tree import Element

PQ_TRANSLATION = "http://hl7.org/fhir/StructureDefinition/iso21090-PQ-translation"
CURRENCY = "urn:iso:std:iso:4217"
# Units of Chinese documents that the table of laboratories does not hold.
_CHINESE_UNITS = {
    "℃": "Cel",
    "摄氏度": "Cel",
    "天": "d",
    "日": "d",
    "岁": "a",
    "月": "mo",
    "周": "wk",
    "小时": "h",
    "分钟": "min",
} | {
    "次": "{times}",
    "剂": "{dose}",
    "付": "{dose}",
    "贴": "{dose}",
    "克": "g",
    "片": "{tbl}",
    "粒": "{caps}",
    "支": "{ampule}",
    "盒": "{box}",
    "袋": "{bag}",
    "瓶": "{bottle}",
    "次/天": "/d",
    "次/日": "/d",
    "次/min": "/min",
    "次/分": "/min",
    "次/分钟": "/min",
}
_YUAN = frozenset({"元", "CNY", "RMB", "人民币", "￥", "¥"})


def unit(text: str) -> Json:
    """The unit elements of a Quantity for a unit as sent; {} for none, and for UCUM's unity."""
    text = " ".join(text.split())
    if not text or text == "1":
        return {}
    code = _CHINESE_UNITS.get(text) or ucum_code(text)
    return {"unit": text, "system": UCUM, "code": code} if code else {"unit": text}


def quantity(conv: Conversion, el: Element | None) -> Json:
    """The Quantity of a PQ, INT, REAL or MO; {} without a number. A value that is none is remarked on."""
    if el is None:
        return {}
    raw = el.get("value", "").strip()
    if not raw:
        return {}
    number = from_source(raw)
    if number is None:
        conv.issue("warning", "bad-value", el, "not a number")
        return {}
    made: Json = {"value": number}
    if "currency" in el.attrib:
        currency = el.get("currency", "").strip()
        code = "CNY" if currency in _YUAN else currency
        if code:
            made |= {"unit": currency, "system": CURRENCY, "code": code}
        return made
    made |= unit(el.get("unit", ""))
    if len(el):
        _describe(conv, made, el)
    return made


def _describe(conv: Conversion, made: Json, el: Element) -> None:
    for each in el:
        name = each.tag.rpartition("}")[2]
        if name == "translation":
            other = from_source(each.get("value", "").strip())
            if other is not None:
                code = each.get("code", "").strip() or each.get("unit", "").strip()
                content: Json = {"value": other} | unit(code)
                made.setdefault("extension", []).append({"url": PQ_TRANSLATION, "valueQuantity": content})
                continue
            if plain_text(each):
                made.setdefault("extension", []).append({"url": ORIGINAL_TEXT, "valueString": plain_text(each)})
                continue
        elif name == "originalText":
            text = plain_text(each)
            if text:
                made.setdefault("extension", []).append({"url": ORIGINAL_TEXT, "valueString": text})
            continue
        if said(each):
            conv.not_mapped(each)


def bounds(conv: Conversion, el: Element) -> tuple[Json, Json]:
    """The low and the high Quantity of an IVL_PQ or IVL_INT, {} for what is not said; a centre is both."""
    low, high = child(el, "low"), child(el, "high")
    centre = child(el, "center")
    if low is None and high is None and centre is not None:
        value = quantity(conv, centre)
        return value, value
    for each in children(el, "width"):
        conv.not_mapped(each)
    return quantity(conv, low), quantity(conv, high)


def compared(conv: Conversion, el: Element) -> Json:
    """The Quantity of an IVL_PQ with one bound: "at least 5" is ``>= 5``. {} when it says nothing."""
    low, high = bounds(conv, el)
    for made, name, inclusive, exclusive in ((low, "low", ">=", ">"), (high, "high", "<=", "<")):
        if made:
            bound = child(el, name)
            open_end = bound is not None and bound.get("inclusive") == "false"
            return {**made, "comparator": exclusive if open_end else inclusive}
    return {}


def range_of(conv: Conversion, el: Element) -> Json:
    """The Range of an IVL_PQ (rng-2: low is not above high; one that breaks it is remarked on). {} when empty."""
    low, high = bounds(conv, el)
    made = {name: value for name, value in (("low", low), ("high", high)) if value}
    same = low and high and low.get("code", low.get("unit")) == high.get("code", high.get("unit"))
    if same and low["value"] > high["value"]:
        conv.issue("warning", "bad-value", el, "the low end is above the high one, which is left out")
        return {"low": low}
    return made


def ratio(conv: Conversion, el: Element) -> Json:
    """The Ratio of an RTO; {} unless it has both terms (rat-1)."""
    numerator = quantity(conv, child(el, "numerator"))
    denominator = quantity(conv, child(el, "denominator"))
    if not numerator or not denominator:
        if said(el):
            conv.not_mapped(el)
        return {}
    return {"numerator": numerator, "denominator": denominator}
