"""Where what a source says of a patient cannot be true of the person who is stored: two people, or a mistake.

A birth date that becomes more exact is no contradiction, nor is a sex that was not known. The newer word is stored all
the same (which of the two is wrong is not known here); the contradiction is reported with the message that brought it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_adapters.identifiers import ID_CARD_SYSTEM

_KNOWN_SEXES = frozenset({"male", "female"})


def contradicted(stored: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the elements of a Patient that two versions contradict each other in: sex, birth date, identity number.

    "link" stands for a record that was merged into another and is spoken of as if it were in use.
    """
    found: list[str] = []
    sexes = {stored.get("gender"), said.get("gender")}
    if sexes == _KNOWN_SEXES:
        found.append("gender")
    born, other = str(stored.get("birthDate", "")), str(said.get("birthDate", ""))
    shared = min(len(born), len(other))
    if shared and born[:shared] != other[:shared]:
        found.append("birthDate")
    numbers, others = _identity_numbers(stored), _identity_numbers(said)
    if numbers and others and not numbers & others:
        found.append("identifier")
    if any(each.get("type") == "replaced-by" for each in _links(stored)) and said.get("active") is not False:
        found.append("link")
    return tuple(found)


def _identity_numbers(patient: Mapping[str, Any]) -> frozenset[str]:
    identifiers = patient.get("identifier")
    if not isinstance(identifiers, list):
        return frozenset()
    return frozenset(
        str(each.get("value"))
        for each in identifiers
        if isinstance(each, Mapping) and each.get("system") == ID_CARD_SYSTEM and each.get("use") != "old"
    )


def _links(patient: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    links = patient.get("link")
    return [each for each in links if isinstance(each, Mapping)] if isinstance(links, list) else []
