"""The sums of a check, as data: what the text, the JSON and the page are made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["mapped", "partly", "kept", "unused"]
"""Of a field: all of it is mapped; some of what stands in it is; it is kept as an extension; it is not carried over."""


@dataclass(frozen=True, slots=True)
class FieldCount:
    """A field that the samples have: in how many places it holds a value, and in how many of these it is not used."""

    place: str
    seen: int
    unused: int
    state: State


@dataclass(frozen=True, slots=True)
class CodeCount:
    """A code without a map: of which concept, where it stands, how often. ``code`` may be masked."""

    concept: str
    code: str
    place: str
    count: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What could not be converted (a message, a row), or is not valid FHIR R4, and where it was first met."""

    place: str
    text: str
    count: int
    sample: int


@dataclass(frozen=True, slots=True)
class Remark:
    """A doubt of a conversion: its code and place, how often, and in which sample first."""

    code: str
    place: str
    text: str
    count: int
    sample: int


@dataclass(frozen=True, slots=True)
class CoverageReport:
    """What a profile makes of samples. Every tuple is sorted; ``more`` counts places that were not listed."""

    messages: int
    converted: int
    resources: Mapping[str, int]
    fields: tuple[FieldCount, ...]
    codes: tuple[CodeCount, ...]
    refused: tuple[Fault, ...]
    invalid: tuple[Fault, ...]
    remarks: tuple[Remark, ...]
    more: int = 0

    @property
    def clean(self) -> bool:
        """Whether everything was converted, every resource is valid and every code has a map."""
        return bool(self.messages) and not (self.refused or self.invalid or self.codes)

    def as_dict(self) -> dict[str, Any]:
        """The report as a JSON object."""
        made = asdict(self)
        made["resources"] = dict(self.resources)
        return {"clean": self.clean, **made}
