"""All message families, by message type."""

from types import MappingProxyType

from fhir_adapters.errors import UnsupportedMessage
from fhir_adapters.hl7v2.families import (
    adt,
    answers,
    financial,
    master_files,
    medical_documents,
    orders,
    pharmacy,
    problem_lists,
    referrals,
    results,
    scheduling,
    vaccinations,
)
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.header import Header

FAMILIES = (
    adt.FAMILY,
    results.FAMILY,
    orders.FAMILY,
    pharmacy.ORDERS,
    pharmacy.DEEDS,
    vaccinations.FAMILY,
    scheduling.FAMILY,
    medical_documents.FAMILY,
    financial.DFT,
    financial.BAR,
    referrals.FAMILY,
    problem_lists.FAMILY,
    answers.FAMILY,
    master_files.FAMILY,
)

BY_TYPE: MappingProxyType[str, tuple[Family, frozenset[str]]] = MappingProxyType(
    {kind: (family, triggers) for family in FAMILIES for kind, triggers in family.triggers.items()}
)
"""Message type (MSH-9.1) -> its family and the events (MSH-9.2) that it has a mapping for."""


def family_of(header: Header) -> Family:
    """The family of a message. Raises UnsupportedMessage for a type or event without a mapping."""
    found = BY_TYPE.get(header.type)
    if found is None:
        raise UnsupportedMessage(f"no mapping for messages of type {_shown(header.type)}", "MSH-9")
    family, triggers = found
    if header.trigger not in triggers:
        raise UnsupportedMessage(f"no mapping for event {_shown(header.type)}^{_shown(header.trigger)}", "MSH-9")
    return family


def _shown(code: str) -> str:
    """A type or event as an error may repeat it: codes only, never what a broken header holds in their place."""
    return code if len(code) <= 3 and code.isascii() and code.isalnum() else "(not a code)"
