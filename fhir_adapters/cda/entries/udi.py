"""A unique device identifier as people read it (GS1: ``(01)...(17)291231(10)LOT``) taken apart."""

import datetime
import re
from types import MappingProxyType

from fhir_adapters.cda.context import Json

_PARTS = re.compile(r"\((01|10|11|17|21)\)([^()]{1,30})")  # GS1 General Specifications, 3.2
_ELEMENTS = MappingProxyType({"10": "lotNumber", "11": "manufactureDate", "17": "expirationDate", "21": "serialNumber"})
_DATES = frozenset({"11", "17"})


def carrier(text: str) -> Json:
    """The Device.udiCarrier of the human readable form."""
    made: Json = {"carrierHRF": text}
    model = next((value for part, value in _PARTS.findall(text) if part == "01"), "")
    if model:
        made |= {"deviceIdentifier": model, "issuer": "http://hl7.org/fhir/NamingSystem/gs1-di"}
    return made


def production(text: str) -> Json:
    """Lot, serial number and dates that the identifier holds; a date that is none is left out."""
    made: Json = {}
    for part, value in _PARTS.findall(text):
        content = _date(value) if part in _DATES else value
        if part in _ELEMENTS and content:
            made[_ELEMENTS[part]] = content
    return made


def _date(text: str) -> str:
    """YYMMDD, with day 00 for the month; identifiers of devices are of this century."""
    if len(text) != len("YYMMDD") or not text.isascii() or not text.isdigit():
        return ""
    year, month, day = 2000 + int(text[:2]), int(text[2:4]), int(text[4:])
    try:
        whole = datetime.date(year, month, day or 1).isoformat()
    except ValueError:
        return ""
    return whole if day else whole[: len("YYYY-MM")]
