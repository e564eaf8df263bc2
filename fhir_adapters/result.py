"""What a conversion yields: a transaction Bundle and everything worth saying about it."""

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from fhir_adapters.errors import AdapterError
from fhir_adapters.json_lexeme import fragment

Severity = Literal["error", "warning", "information"]


@dataclass(frozen=True, slots=True)
class Issue:
    """One remark on a conversion.

    ``code`` is a stable word for machines ("not-mapped", "unmapped-code", "bad-value", "bad-identifier",
    "conflict", "invalid"), ``location`` the place in the source ("OBX[3]-5", "row 3, column birth_date") or in the
    result ("Patient/…: birthDate"). ``text`` never repeats what stood in the source.
    """

    severity: Severity
    code: str
    location: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """The issue as a JSON object with its four fields."""
        return {"severity": self.severity, "code": self.code, "location": self.location, "text": self.text}


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """A FHIR R4 transaction Bundle (numbers as :class:`~fhir_adapters.json_lexeme.Lexeme`) and the issues met."""

    bundle: dict[str, Any]
    issues: tuple[Issue, ...] = ()

    def to_json(self) -> bytes:
        """Canonical bytes of the Bundle (http://hl7.org/fhir/canonicalization/json), number lexemes kept.

        Raises :class:`~fhir_adapters.errors.AdapterError` for text that JSON in UTF-8 cannot carry (a lone surrogate).
        """
        return to_canonical_json(self.bundle)


def to_canonical_json(value: Any) -> bytes:
    """Canonical JSON bytes of a tree of dict, list, str, int, bool, None, float and ``Lexeme``.

    Keys stand in code-point order (orjson sorts by UTF-8 bytes, which is the same order). Raises AdapterError.
    """
    try:
        return orjson.dumps(value, default=fragment, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        # orjson's text can quote the object; ours must not.
        raise AdapterError("the converted resource cannot be written as JSON") from error
