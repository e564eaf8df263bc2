"""Places of HL7 v2 as a site's profile names them: ``PID-3``, ``ZPI-5.2``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fhir_adapters.errors import ProfileError

MAX_FIELD = 199
"""Highest field number of a place; the widest segment of the standard (IN2) has 72 fields."""

MAX_COMPONENT = 99
"""Highest component number of a place; the widest data type (XCN) has 25."""

_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})-([1-9]\d{0,2})(?:\.([1-9]\d?))?")


@dataclass(frozen=True, slots=True)
class FieldPlace:
    """A field of a segment, or one component of it (0: the whole field)."""

    segment: str
    field: int
    component: int = 0

    def __str__(self) -> str:
        return f"{self.segment}-{self.field}" + (f".{self.component}" if self.component else "")


def field_place(text: Any, key: str) -> FieldPlace:
    """Read ``SEG-n`` or ``SEG-n.c``. Raises ProfileError naming ``key``."""
    match = _PLACE.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match[2]) > MAX_FIELD:
        raise ProfileError('must be a place as "PID-3" or "PID-3.4" / 须形如 "PID-3" 或 "PID-3.4"', key)
    return FieldPlace(match[1], int(match[2]), int(match[3] or 0))


def local_fields(table: Mapping[str, Any]) -> Mapping[FieldPlace, FieldPlace]:
    """The ``[local_fields]`` of a profile: standard place -> where the site puts it. Raises ProfileError."""
    made: dict[FieldPlace, FieldPlace] = {}
    for left, right in table.items():
        key = f"local_fields.{left}"
        target, source = field_place(left, key), field_place(right, key)
        if "MSH" in (target.segment, source.segment):
            raise ProfileError("the header is read before the profile is known and cannot be moved / MSH 不可移动", key)
        if target.segment.startswith("Z"):
            raise ProfileError("the place on the left is one of the standard / 左侧须为标准字段", key)
        if target == source:
            raise ProfileError("both places are the same / 两个位置相同", key)
        made[target] = source
    return MappingProxyType(made)
