"""What the package knows of a message family: which messages it reads, and of what it speaks with authority."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fhir_adapters.bundle_entry import ACTORS_AND_PLACES
from fhir_adapters.hl7v2.context import Conversion
from fhir_adapters.hl7v2.message import Message

SHARED_TYPES = ACTORS_AND_PLACES | {
    "Account",
    "Coverage",
    "Device",
    "Encounter",
    "Medication",
    "Patient",
    "PractitionerRole",
    "RelatedPerson",
}
"""Types of resources that messages of many kinds name, most of them in passing."""


@dataclass(frozen=True)
class Family:
    """One family of messages.

    ``triggers`` are the events by message type. ``owns`` are those of the shared types of which such a message says all
    there is to say; it mentions the others, and ``names`` besides: a laboratory knows less of a patient than admission
    does. ``amends`` are
    elements of a type that it adds to what another family said (a result completes an order). ``needs`` are segments
    without which it is refused.
    """

    convert: Callable[[Conversion, Message], None]
    triggers: Mapping[str, frozenset[str]]
    owns: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    amends: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs: tuple[str, ...] = ("PID",)

    @cached_property
    def mentions(self) -> frozenset[str]:
        """Types of which such a message says no more than it happens to know."""
        return (SHARED_TYPES - self.owns) | self.names
