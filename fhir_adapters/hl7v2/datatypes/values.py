"""OBX-5 by OBX-2: every value type to the Observation value that fits it (guide: OBX[Observation], condition column).

A value that is not what OBX-2 says stays as text and is remarked on.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from fhir_adapters.hl7v2.context import ORIGINAL_TEXT, Conversion, Json
from fhir_adapters.hl7v2.datatypes import attachments, concepts, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import UNIT_SYSTEMS, Unit, named_unit, quantity, unit_of
from fhir_adapters.hl7v2.message import NULL, Segment

VALUE = 5
ATTACHMENT = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.value"
"""R5 lets an Observation have an attachment; its cross-version extension carries one in R4 (guide: ED[Attachment])."""

_COMPARATORS = {
    "<": "<",
    ">": ">",
    "<=": "<=",
    ">=": ">=",
    "≤": "<=",
    "≥": ">=",
    "＜": "<",
    "＞": ">",
    "=<": "<=",
    "=>": ">=",
}
_UNESCAPED_POWER = re.compile(r"\s*[×xX*·]?\s*10(\^)\d{1,2}(?=$|[\s/^(*.])")
_COMPARED = re.compile(r"(<=|>=|=<|=>|[<>≤≥＜＞])\s*(.+)")
_CURRENCY = "urn:iso:std:iso:4217"


def unit(conv: Conversion, obx: Segment) -> Unit:
    """Take OBX-6: unit, and system and code when it is UCUM or coded in a named system."""
    raw = obx.take(6)
    if not raw:
        return {}
    if "^" not in raw and "&" not in raw and "~" not in raw:
        return unit_of(conv.text(raw))
    raw = raw.split("~")[0]
    power = _UNESCAPED_POWER.match(raw)
    if power is not None:
        # 10^9/L with its ^ not escaped is the most common unit of Chinese laboratories: two components by the letter,
        # a power of ten in truth. Read by the letter it would be the unit "10".
        conv.issue("information", "unit-form", obx, 6, "the ^ of a power of ten was not escaped")
        raw = raw[: power.start(1)] + "\\S\\" + raw[power.end(1) :]
    parts = raw.split("^")
    parts += [""] * (6 - len(parts))
    code, title, system = (conv.text(part) for part in parts[:3])
    if code and system and system.upper() not in UNIT_SYSTEMS:
        made = {"unit": title or code, "system": concepts.code_system(conv.profile.base_url, system), "code": code}
    else:
        made = named_unit(conv, code, title)
    for index in (3, 4):
        if parts[index] and parts[index] != NULL and conv.text(parts[index]) not in (code, title):
            conv.not_mapped(obx, 6, index + 1)
    return made


@dataclass(slots=True)
class Field:
    """The OBX-5 being read: its conversion, its segment and the unit of OBX-6."""

    conv: Conversion
    obx: Segment
    unit: Unit


def set_value(at: Field, target: Json, kind: str, raw: str) -> None:
    """Set ``value[x]`` of an Observation (or component) from one repetition of OBX-5."""
    read = _READERS.get(kind)
    if read is None:
        at.conv.issue(
            "warning", "unknown-value-type", at.obx, 2, "a value type without a mapping; the value is kept as text"
        )
        read = _text
    read(at, target, raw)


def _number(at: Field, target: Json, raw: str) -> None:
    first, *rest = raw.split("^")
    text = at.conv.text(first)
    made = quantity(text, at.unit)
    if made is None:
        compared = _COMPARED.fullmatch(text)
        if compared is not None:
            made = quantity(compared[2].strip(), at.unit, _COMPARATORS[compared[1]])
        if made is None:
            at.conv.issue("warning", "bad-value", at.obx, VALUE, "OBX-2 says a number, it is none; kept as text")
            _written(at, target, raw)
            return
        at.conv.issue(
            "information", "value-form", at.obx, VALUE, "a number with a comparator where OBX-2 says a plain number"
        )
    if rest:
        at.conv.leftover(["", *rest], 1, at.obx, VALUE)
    target["valueQuantity"] = made


def _structured(at: Field, target: Json, raw: str) -> None:
    """SN: comparator, number, separator or suffix, number (2.A.69)."""
    parts = [at.conv.text(part) for part in raw.split("^")]
    parts += [""] * (4 - len(parts))
    sign, first, separator, second = parts[:4]
    comparator = _COMPARATORS.get(sign, "")
    understood = sign in ("", "=") or comparator
    one, two = quantity(first, at.unit, comparator), quantity(second, at.unit)
    if understood and one is not None and not separator and not second:
        target["valueQuantity"] = one
    elif (
        understood
        and separator == "-"
        and (one or two)
        and not comparator
        and bool(first) == bool(one)
        and bool(second) == bool(two)
    ):
        target["valueRange"] = {name: each for name, each in (("low", one), ("high", two)) if each}
    elif understood and separator in (":", "/") and one is not None and two is not None:
        target["valueRatio"] = {"numerator": one, "denominator": two}
    else:
        if not (separator == "+" and one is not None):
            at.conv.issue(
                "information", "value-form", at.obx, VALUE, "a structured number without a FHIR form; kept as text"
            )
        _written(at, target, raw)


def _coded(at: Field, target: Json, raw: str) -> None:
    value = concepts.from_raw(at.conv, raw, at.obx, VALUE)
    if value is not None:
        target["valueCodeableConcept"] = value
        if at.unit:
            at.conv.not_mapped(at.obx, 6)


def _text(at: Field, target: Json, raw: str) -> None:
    """ST, TX, FT. A component separator here is the sender's own character: the text is kept whole."""
    text = at.conv.text(raw)
    if text:
        target["valueString"] = text
        if at.unit:
            _unit_beside(target, at.unit)


def _unit_beside(target: Json, own_unit: Unit) -> None:
    """A text value has no unit in FHIR; what OBX-6 said stays as an extension of the value."""
    holder = target.setdefault("_valueString", {})
    url = "http://hl7.org/fhir/StructureDefinition/iso21090-PQ-translation"
    quantity_of_text = {key: value for key, value in own_unit.items() if key != "value"}
    holder.setdefault("extension", []).append({"url": url, "valueQuantity": quantity_of_text})


def _written(at: Field, target: Json, raw: str) -> None:
    """A composite value as text: its components with blanks between, and the encoded form beside when several."""
    pieces = [text for part in re.split(r"[\^&]", raw) if (text := at.conv.text(part))]
    if not pieces:
        return
    target["valueString"] = " ".join(pieces)
    if len(pieces) > 1:
        target["_valueString"] = {"extension": [{"url": ORIGINAL_TEXT, "valueString": raw}]}
    if at.unit:
        _unit_beside(target, at.unit)


def _composite(at: Field, target: Json, raw: str) -> None:
    _written(at, target, raw)


def _date(at: Field, target: Json, raw: str) -> None:
    text = raw.split("^")[0].strip()
    value = timestamps.read(at.conv, text, at.obx, VALUE) if text else None
    if value is None:
        _written(at, target, raw)
        return
    target["valueDateTime"] = value
    at.conv.leftover(raw.split("^"), 1, at.obx, VALUE)


def _time(at: Field, target: Json, raw: str) -> None:
    parsed = timestamps.read_time(raw.strip())
    if parsed is None:
        at.conv.issue("warning", "bad-value", at.obx, VALUE, "not a time of day; kept as text")
        _written(at, target, raw)
        return
    target["valueTime"], has_offset = parsed
    if has_offset:
        at.conv.issue("information", "not-mapped", at.obx, VALUE, "a FHIR time has no offset")
        target["_valueTime"] = {"extension": [{"url": ORIGINAL_TEXT, "valueString": raw.strip()}]}


def _range_of_dates(at: Field, target: Json, raw: str) -> None:
    timestamps.put_period(at.conv, target, "valuePeriod", raw, at.obx, VALUE)
    if "valuePeriod" not in target:
        _written(at, target, raw)


def _composite_quantity(at: Field, target: Json, raw: str) -> None:
    """CQ: quantity and its own units, OBX-6 where it has none."""
    amount, *rest = raw.split("^")
    own = unit_of(at.conv.text(rest[0].split("&")[0])) if rest else {}
    made = quantity(at.conv.text(amount), own or at.unit)
    if made is None:
        at.conv.issue("warning", "bad-value", at.obx, VALUE, "OBX-2 says a number, it is none; kept as text")
        _written(at, target, raw)
    else:
        target["valueQuantity"] = made
        at.conv.leftover(["", "", *rest[1:]], 2, at.obx, VALUE)


def _price(at: Field, target: Json, raw: str) -> None:
    """CP and MO: an amount of money in its currency."""
    first, *rest = raw.split("^")
    amount, _, currency = first.partition("&")
    made = quantity(at.conv.text(amount), {})
    if made is None:
        at.conv.issue("warning", "bad-value", at.obx, VALUE, "OBX-2 says a price, it is none; kept as text")
        _written(at, target, raw)
        return
    code = at.conv.text(currency)
    if code:
        made.update(unit=code, system=_CURRENCY, code=code)
    elif at.unit:
        made.update(at.unit)
    target["valueQuantity"] = made
    at.conv.leftover(["", *rest], 1, at.obx, VALUE)


def _numeric_range(at: Field, target: Json, raw: str) -> None:
    """NR: low and high."""
    low, high, *_ = [*(at.conv.text(part) for part in raw.split("^")), ""]
    ends = {name: quantity(text, at.unit) for name, text in (("low", low), ("high", high)) if text}
    if ends and all(each is not None for each in ends.values()):
        target["valueRange"] = ends
    else:
        _written(at, target, raw)


def _attachment(at: Field, target: Json, raw: str) -> None:
    """ED: the data as an attachment."""
    made = attachments.encapsulated(at.conv, raw)
    if made is None:
        at.conv.issue(
            "warning", "bad-value", at.obx, VALUE, "encapsulated data does not have the encoding it names; kept as text"
        )
        data = raw.split("^")[4:5]
        target["valueString"] = (at.conv.text(data[0]) if data else "") or at.conv.text(raw)
        return
    source = raw.split("^")[0]
    if source and source != NULL:
        at.conv.not_mapped(at.obx, VALUE, 1)
    if made:
        target.setdefault("extension", []).append({"url": ATTACHMENT, "valueAttachment": made})


def _pointer(at: Field, target: Json, raw: str) -> None:
    """RP: where the data is."""
    made = attachments.pointer(at.conv, raw)
    if made:
        target.setdefault("extension", []).append({"url": ATTACHMENT, "valueAttachment": made})


Reader = Callable[[Field, Json, str], None]

_READERS: dict[str, Reader] = {
    "NM": _number,
    "SI": _number,
    "SN": _structured,
    "NR": _numeric_range,
    **dict.fromkeys(("CE", "CWE", "CNE", "CF", "IS", "ID"), _coded),
    **dict.fromkeys(("ST", "TX", "FT", "GTS", "VR"), _text),
    **dict.fromkeys(("TS", "DTM", "DT"), _date),
    "TM": _time,
    "DR": _range_of_dates,
    "CQ": _composite_quantity,
    **dict.fromkeys(("CP", "MO"), _price),
    "ED": _attachment,
    "RP": _pointer,
    **dict.fromkeys(
        ("HD", "CX", "CK", "EI", "EIP", "XAD", "AD", "XCN", "CN", "XPN", "PN", "XON", "XTN", "TN", "PL"), _composite
    ),
}
"""OBX-2 -> how to read one repetition of OBX-5. NA is a list of numbers and handled by the Observation itself."""

JOINED = frozenset({"ST", "TX", "FT"})
"""Types whose repetitions are lines of one text."""
