"""Numbers with units and amounts of money (NM, CQ, MO, CP: 2.A.47, 2.A.16, 2.A.41, 2.A.15) as Quantity and Money.

Numbers keep their digits: ``0.40`` stays so; a form that JSON forbids (``.5``, ``+7``, ``007``) is written as JSON
wants it and the sender's own stays beside it.
"""

from fhir_adapters.hl7v2.context import ORIGINAL_TEXT, Conversion, Json
from fhir_adapters.hl7v2.datatypes.concepts import code_system
from fhir_adapters.json_lexeme import Lexeme, from_source
from fhir_adapters.units import UCUM, ucum_code

Unit = Json
"""What a units field says, as the fields a Quantity takes: unit, system, code."""

UNIT_SYSTEMS = frozenset({"UCUM", "ISO", "ISO+", "ANS+", "ANSI+", "L"})
"""Names of coding systems under which UCUM terms are sent (table 0396 and habit); any other names one of its own."""

LOCAL = "L"
"""Name of the sender's own coding system (table 0396)."""

PQ_TRANSLATION = "http://hl7.org/fhir/StructureDefinition/iso21090-PQ-translation"

MAX_UNSIGNED = 2**31 - 1
"""Largest value of FHIR's integer types."""


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


def coded_unit(conv: Conversion, raw: str) -> Unit:
    """The unit fields of a CWE, with ``^`` or, as a component, ``&`` between its parts."""
    if "^" not in raw and "&" not in raw:
        return unit_of(conv.text(raw))
    parts = [conv.text(part) for part in raw.replace("&", "^").split("^")]
    parts += [""] * (3 - len(parts))
    code, title, system = parts[:3]
    if code and system and system.upper() not in UNIT_SYSTEMS:
        return {"unit": title or code, "system": code_system(conv.profile.base_url, system), "code": code}
    return named_unit(conv, code, title)


def named_unit(conv: Conversion, code: str, title: str) -> Unit:
    """The unit fields of a code and its name, where no coding system of units but UCUM is meant."""
    made = unit_of(code or title)
    if not title or not code or title == code:
        return made
    if "code" in made:
        made["unit"] = title
        return made
    named = unit_of(title)  # a number of the sender's own for a unit: what people read is its name
    own = {"system": code_system(conv.profile.base_url, LOCAL), "code": code}
    if "code" in named:
        named["extension"] = [{"url": PQ_TRANSLATION, "valueQuantity": own}]
        return named
    return {**named, **own}


def composite(conv: Conversion, raw: str) -> Json | None:
    """The Quantity of a CQ; None when its first component is no number."""
    text, _, unit = raw.partition("^")
    return quantity(conv.text(text), coded_unit(conv, unit) if unit else {})


def measured(conv: Conversion, amount: str, unit: str) -> Json | None:
    """The Quantity of two fields, a number and its units; None without a number."""
    text = conv.text(amount)
    return quantity(text, coded_unit(conv, unit.split("~")[0]) if unit else {}) if text else None


def money(conv: Conversion, raw: str) -> Json | None:
    """The Money of an MO or CP (amount & currency ^ ...); None when the amount is no number."""
    amount, _, currency = raw.split("~")[0].split("^")[0].partition("&")
    if "^" in raw and not currency:  # MO as a field of its own: amount ^ currency
        second = conv.text(raw.split("^")[1])
        currency = second if len(second) == 3 and second.isalpha() else ""
    made = quantity(conv.text(amount), {})
    if made is None:
        return None
    code = conv.text(currency).upper()
    if len(code) == 3 and code.isalpha():
        made["currency"] = code
    return made


def whole_number(conv: Conversion, raw: str) -> int | None:
    """A number of FHIR's positiveInt and unsignedInt; None for anything else."""
    text = conv.text(raw.split("^")[0])
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MAX_UNSIGNED else None
