"""Rows of a HIS's own tables as rows of the standard views, by a profile's mapping (``fhir_adapters.view_mapping``)."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any

from fhir_adapters.errors import ProfileError
from fhir_adapters.identifiers import full_width_to_ascii, trimmed
from fhir_adapters.profile import SourceProfile
from fhir_adapters.view_mapping import Expression, ViewMapping

_BINARY = (bytes, bytearray, memoryview)


def find_mapping(profile: SourceProfile, name: str) -> ViewMapping:
    """The mapping of a name. Raises ProfileError when the profile has none (any more)."""
    for mapping in profile.views:
        if mapping.name == name:
            return mapping
    raise ProfileError("the profile has no query of this name", f"views.{name[:64]}")


def mapped_row(mapping: ViewMapping, cells: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the standard view for one source row, whose cells stand under the text of their ColumnRef.

    ``row_key`` and ``updated_at`` come from the key and the watermark where the mapping does not say otherwise.
    """
    made = {name: value_of(expression, cells) for name, expression in mapping.columns.items()}
    made.setdefault("row_key", "_".join(_text(cells.get(str(each))) for each in mapping.key))
    if mapping.watermark:
        made.setdefault("updated_at", latest([cells.get(str(each)) for each in mapping.watermark]))
    return made


def value_of(expression: Expression, cells: Mapping[str, Any]) -> Any:
    """What an expression makes of the cells of one source row."""
    if expression.kind == "value":
        return expression.value
    found = [_decoded(expression, cells.get(str(each))) for each in expression.columns]
    if expression.kind == "column":
        made = found[0]
    elif expression.kind == "first":
        made = next((each for each in found if not _is_empty(each)), None)
    else:
        texts = [_text(_formed(each, expression.form)) for each in found]
        made = expression.separator.join(texts) if all(texts) else None
    return expression.codes.get(full_width_to_ascii(_text(made)), made) if expression.codes else made


def latest(values: Sequence[Any]) -> Any:
    """The greatest of some values, None when all are; the first where they do not compare."""
    present = [each for each in values if each is not None]
    with suppress(TypeError):
        return max(present, default=None)
    return present[0]


def _decoded(expression: Expression, value: Any) -> Any:
    """Text of a value in the character set that its column has; what does not decode stays as it is."""
    if not expression.charset:
        return value
    with suppress(UnicodeError, LookupError):
        if isinstance(value, _BINARY):
            return bytes(value).decode(expression.charset)
        if isinstance(value, str) and expression.stored_as:
            return value.encode(expression.stored_as).decode(expression.charset)
    return value


def _formed(value: Any, form: str) -> Any:
    """A time as ``form`` writes it, whether it still is one or was written in ISO 8601 on its way; others unchanged."""
    if not form:
        return value
    with suppress(ValueError):
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, date):
            return moment.strftime(form)
    return value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not trimmed(value))


def _text(value: Any) -> str:
    """A part of a composite value, or a code: trimmed, as people write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime):
        return value.isoformat()  # as it is after its way through JSON
    if isinstance(value, _BINARY):
        return bytes(value).decode("utf-8", "replace")
    return trimmed(str(value))
