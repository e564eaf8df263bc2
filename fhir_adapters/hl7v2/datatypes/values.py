"""OBX-5 by OBX-2: every value type to the Observation value that fits it (guide: OBX[Observation], condition column).

A value that is not what OBX-2 says stays as text and is remarked on. Numbers keep their digits: ``0.40`` stays so; a
form that JSON forbids (``.5``, ``+7``, ``007``) is written as JSON wants it and the sender's own stays beside it.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

from fhir_adapters.hl7v2.context import ORIGINAL_TEXT, Conversion, Json
from fhir_adapters.hl7v2.datatypes import concepts, timestamps
from fhir_adapters.hl7v2.message import NULL, Segment
from fhir_adapters.json_lexeme import Lexeme, from_source
from fhir_adapters.units import UCUM, ucum_code

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
_UNIT_SYSTEMS = frozenset({"UCUM", "ISO", "ISO+", "ANS+", "ANSI+", "L"})
"""Names of OBX-6.3 under which UCUM terms are sent (table 0396 and habit); any other names a system of its own."""

_CURRENCY = "urn:iso:std:iso:4217"

Unit = Json
"""What OBX-6 says, as the fields a Quantity takes: unit, system, code."""


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
    if code and system and system.upper() not in _UNIT_SYSTEMS:
        made = {"unit": title or code, "system": concepts.code_system(conv.profile.base_url, system), "code": code}
    else:
        made = unit_of(code or title)
        if "code" in made and title:
            made["unit"] = title
        elif code and title and title != code:
            conv.not_mapped(obx, 6, 2)
    for index in (3, 4):
        if parts[index] and parts[index] != NULL and conv.text(parts[index]) not in (code, title):
            conv.not_mapped(obx, 6, index + 1)
    return made


def unit_of(text: str) -> Unit:
    """The unit fields for a unit as written."""
    code = ucum_code(text)
    if code is not None:
        return {"unit": text, "system": UCUM, "code": code}
    return {"unit": text} if text else {}


def quantity(text: str, own_unit: Unit, comparator: str = "") -> Json | None:
    """A Quantity of a number as written; None when it is not a number."""
    try:
        made: Json = {"value": Lexeme(text)}
    except ValueError:
        number = from_source(text)
        if number is None:
            return None
        made = {"value": number}
        made["_value"] = {"extension": [{"url": ORIGINAL_TEXT, "valueString": text}]}
    if comparator:
        made["comparator"] = comparator
    if own_unit:
        made.update(own_unit)
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
    quantity_of_text = {key: value for key, value in own_unit.items() if key in ("unit", "system", "code")}
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
    """ED: source application, type, subtype, encoding, data (2.A.24)."""
    parts = [*raw.split("^"), "", "", "", "", ""][:5]
    kind, subtype, encoding = (at.conv.text(part) for part in parts[1:4])
    data = _encoded_data(at.conv.text(parts[4]), encoding, at.conv.charset)
    if data is None:
        at.conv.issue(
            "warning", "bad-value", at.obx, VALUE, "encapsulated data does not have the encoding it names; kept as text"
        )
        target["valueString"] = at.conv.text(parts[4]) or at.conv.text(raw)
        return
    if parts[0] and parts[0] != NULL:
        at.conv.not_mapped(at.obx, VALUE, 1)
    if not data:
        return
    made: Json = {"data": data}
    content_type = _content_type(kind, subtype)
    if content_type:
        made["contentType"] = content_type
    target.setdefault("extension", []).append({"url": ATTACHMENT, "valueAttachment": made})


_TYPES = {
    "IM": "image",
    "AP": "application",
    "TEXT": "text",
    "TX": "text",
    "AU": "audio",
    "SD": "",
    "FT": "text",
    "SI": "image",
}
_SUBTYPES = {
    "PDF": "application/pdf",
    "JPEG": "image/jpeg",
    "JPG": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "HTML": "text/html",
    "RTF": "text/rtf",
}
_MEDIA = re.compile(r"[A-Za-z0-9.+-]+")


def _content_type(kind: str, subtype: str) -> str:
    """The media type of ED-2 and ED-3 (tables 0191 and 0291); "" when they do not make one."""
    if "/" in kind:
        return kind
    if subtype.upper() in _SUBTYPES:
        return _SUBTYPES[subtype.upper()]
    major = _TYPES.get(kind.upper(), kind.lower())
    if not subtype:
        return _SUBTYPES.get(kind.upper(), "")
    return f"{major}/{subtype.lower()}" if major and _MEDIA.fullmatch(major) and _MEDIA.fullmatch(subtype) else ""


def _encoded_data(text: str, encoding: str, charset: str) -> str | None:
    """Base64 of ED-5 (table 0299: A text, Hex, Base64); None when the data is not in its encoding."""
    compact = "".join(text.split())
    name = encoding.upper()
    try:
        if name == "HEX":
            return base64.b64encode(bytes.fromhex(compact)).decode()
        if name in ("A", "TEXT", "ASCII"):
            return base64.b64encode(text.encode(charset)).decode()
        base64.b64decode(compact, validate=True)
    except (ValueError, binascii.Error):
        return None
    return compact


def _pointer(at: Field, target: Json, raw: str) -> None:
    """RP: pointer, application, type, subtype (2.A.64)."""
    parts = [at.conv.text(part) for part in [*raw.split("^"), "", "", ""][:4]]
    pointer, application, kind, subtype = parts
    if not pointer:
        return
    made: Json = {"url": pointer} if not re.search(r"\s", pointer) else {"title": pointer}
    content_type = _content_type(kind, subtype)
    if content_type:
        made["contentType"] = content_type
    if application:
        made.setdefault("title", application.split("&")[0])
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
