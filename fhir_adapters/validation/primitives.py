"""Schemas of the FHIR R4 primitive types (http://hl7.org/fhir/R4/datatypes.html#primitive), all strict.

What fhir.resources takes and FHIR does not (numbers as text, "true" for true, empty text, ids over 64 characters) is
refused. Dates are checked to the day by the pattern alone, so that no Python code runs for them.
"""

from functools import lru_cache
from typing import Any

from pydantic_core import core_schema

MAX_STRING_CHARS = 1024 * 1024
"""Longest string, in characters (FHIR R4, data type string)."""

MAX_ID_CHARS = 64
"""Longest logical id, in characters (FHIR R4, data type id)."""

ID_CHARACTER = r"[A-Za-z0-9\-.]"

_YEAR = "([0-9]([0-9]([0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)"
_LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DAY = (
    f"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,9})?"
_ZONE = r"(Z|[+-]((0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_PARTIAL = f"{_YEAR}(-(0[1-9]|1[0-2]))?"

# Text holds at least one character that is neither a blank (U+3000 is one) nor a control character, and no control
# character but tab, line feed and carriage return. The syntax is that of Rust's regex.
_TEXT = r"^[\s--[\x0B\x0C]]*[^\s\x00-\x1F][^\x00-\x08\x0B\x0C\x0E-\x1F]*$"

_PATTERNS = {
    "string": _TEXT,
    "markdown": _TEXT,
    "xhtml": r"^\s*<div[\s>][^\x00-\x08\x0B\x0C\x0E-\x1F]*</div>\s*$",
    "code": r"^[^\s\x00-\x1F]+(\s[^\s\x00-\x1F]+)*$",
    "id": f"^{ID_CHARACTER}+$",  # no count: see compile._reference_text
    "uri": r"^[^\s\x00-\x1F]+$",
    "canonical": r"^[^\s\x00-\x1F]+$",
    "oid": r"^urn:oid:[0-2](\.(0|[1-9][0-9]*))+$",
    "date": f"^({_PARTIAL}|{_DAY})$",
    "dateTime": f"^({_PARTIAL}|{_DAY}(T{_CLOCK}{_ZONE})?)$",
    "instant": f"^{_DAY}T{_CLOCK}{_ZONE}$",
    "time": f"^{_CLOCK}$",
}
_INTEGERS = {"integer": (-(2**31), 2**31 - 1), "unsignedInt": (0, 2**31 - 1), "positiveInt": (1, 2**31 - 1)}


@lru_cache(maxsize=64)
def primitive_schema(kind: str) -> core_schema.CoreSchema:
    """The pydantic-core schema of a primitive kind. Raises KeyError for an unknown one."""
    if kind in _PATTERNS:
        longest = MAX_ID_CHARS if kind == "id" else MAX_STRING_CHARS
        return core_schema.str_schema(strict=True, pattern=_PATTERNS[kind], max_length=longest)
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        return core_schema.int_schema(strict=True, ge=low, le=high)
    if kind == "boolean":
        return core_schema.bool_schema(strict=True)
    if kind == "decimal":
        return core_schema.float_schema(strict=True, allow_inf_nan=False)
    if kind in ("url", "uuid", "base64Binary"):
        return _borrowed(kind)
    raise KeyError(kind)


def _borrowed(kind: str) -> core_schema.CoreSchema:
    """Rare kinds whose rule is more than a pattern: fhir.resources' own check, on text only."""

    def check(value: str) -> str:
        _models_check(kind).validate_python(value)
        if kind == "base64Binary" and len("".join(value.split())) % 4:
            raise ValueError("base64 comes in groups of four")
        return value

    text = core_schema.str_schema(strict=True, min_length=1, pattern=r"^[^\x00-\x08\x0B\x0C\x0E-\x1F]+$")
    return core_schema.no_info_after_validator_function(check, text)


@lru_cache(maxsize=8)
def _models_check(kind: str) -> Any:
    from fhir_core import types
    from pydantic import TypeAdapter

    annotations: dict[str, Any] = {"url": types.UrlType, "uuid": types.UuidType, "base64Binary": types.Base64BinaryType}
    return TypeAdapter(annotations[kind])
