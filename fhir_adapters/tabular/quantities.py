"""Numbers with units as laboratories and wards write them, to FHIR Quantity; nothing is converted."""

import re

from fhir_adapters.identifiers import full_width_to_ascii
from fhir_adapters.json_lexeme import from_source
from fhir_adapters.tabular.rows import Json, Row
from fhir_adapters.units import UCUM, ucum_code

_COMPARED = re.compile(r"(<=|>=|<|>|≤|≥)?\s*([+-]?[0-9.][0-9.eE+-]*)")
_COMPARATORS = {"≤": "<=", "≥": ">="}
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"


def put_value(row: Row, observation: Json, column: str = "result", unit_column: str = "unit") -> None:
    """Put a result: a Quantity for a number, text for anything else, the reason of absence for nothing."""
    text = row.text(column)
    if not text:
        observation["dataAbsentReason"] = {"coding": [{"system": _ABSENT, "code": "unknown"}]}
        return
    made = quantity(text, row.text(unit_column))
    if made is not None:
        observation["valueQuantity"] = made
    else:
        observation["valueString"] = f"{text} {row.text(unit_column)}".strip()


def quantity(text: str, unit: str) -> Json | None:
    """The Quantity of a number with or without a comparator; None for any other text."""
    match = _COMPARED.fullmatch(full_width_to_ascii(text).strip())
    number = from_source(match[2]) if match else None
    if match is None or number is None:
        return None
    built: Json = {"value": number}
    if match[1]:
        built["comparator"] = _COMPARATORS.get(match[1], match[1])
    return built | units(unit)


def units(unit: str) -> Json:
    """The unit part of a Quantity: as sent, with the UCUM code that it is or plainly means."""
    if not unit:
        return {}
    ucum = ucum_code(unit)
    return {"unit": unit, "system": UCUM, "code": ucum} if ucum else {"unit": unit}


def put_amount(row: Row, target: Json, element: str, column: str, unit_column: str) -> bool:
    """Put a plain number with its unit into ``target[element]``; a text that is no number is reported."""
    text = row.text(column)
    if not text:
        return False
    made = quantity(text, row.text(unit_column))
    if made is None:
        row.remark("warning", "bad-value", column, "not a number; it is left out of the quantity")
        return False
    target[element] = made
    return True
