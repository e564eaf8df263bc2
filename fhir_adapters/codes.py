"""Code tables: what a source's code means in FHIR.

A table is a JSON file in ``fhir_adapters/maps`` with its source and version. A *concept* ("sex", "marital", …) asks one
or more tables in turn, the site profile's own map first. A code without a map gives None: the caller keeps the source's
code and reports it with :func:`unmapped`, it never drops it.

Table file: ``{"name", "source", "version", "source_system", "target_system", "codes": {code: [target, display]}}``;
an entry may have a third element, the system of its target where that differs from the table's.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from fhir_adapters.concepts import CONCEPTS
from fhir_adapters.errors import ProfileError
from fhir_adapters.identifiers.normalize import full_width_to_ascii
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import Issue


@dataclass(frozen=True, slots=True)
class Concept:
    """One meaning in FHIR: a code, the system it is from ("" for a code of a required binding) and its display."""

    code: str
    system: str = ""
    display: str = ""

    def coding(self) -> dict[str, str]:
        """A new FHIR Coding."""
        coding = {"system": self.system} if self.system else {}
        coding["code"] = self.code
        if self.display:
            coding["display"] = self.display
        return coding


@dataclass(frozen=True, slots=True)
class CodeTable:
    """One table with where it comes from. ``codes`` maps a source code to its meaning."""

    name: str
    source: str
    version: str
    source_system: str
    target_system: str
    codes: Mapping[str, Concept]


class ConceptLookup:
    """The code tables as one source's profile sees them. Cheap to make; a table loads once, when first asked."""

    __slots__ = ("_maps", "find")

    def __init__(self, profile: SourceProfile) -> None:
        self._maps = profile.code_maps
        self.find: Callable[[str, str], Concept | None] = self._find if self._maps else _find
        """What a code (second) of a concept (first) means: see ``_find``, which a site without maps has no need of."""

    def _find(self, concept: str, code: str) -> Concept | None:
        """What ``code`` means, None when neither the profile nor a table says. Raises KeyError for an unknown concept.

        A code is looked up as it stands, then with full-width characters as ASCII, blanks off and in upper case.
        """
        own = self._maps.get(concept)
        if own is not None:
            mapped = own.get(code)
            if mapped is not None:
                return _target_concept(concept, mapped)
        return _find(concept, code)

    def code(self, concept: str, code: str) -> str | None:
        """The target code alone, for elements of type ``code``."""
        found = self.find(concept, code)
        return None if found is None else found.code


def check_code_maps(profile: SourceProfile) -> None:
    """Raise ProfileError for the first code of the profile's maps whose target no table knows."""
    lookup = ConceptLookup(profile)
    for concept, codes in profile.code_maps.items():
        for code in codes:
            lookup.find(concept, code)


def unmapped(concept: str, location: str) -> Issue:
    """The remark that a code of ``concept`` at ``location`` has no map (the code itself stays in the resource)."""
    return Issue("warning", "unmapped-code", location, f"no map for this code of {concept}; the source's code is kept")


def spellings(sent: dict[str, Any]) -> list[str]:
    """Codes first, then displays and text: vendors put the word where the code belongs."""
    codings = sent.get("coding", [])
    words = [each["code"] for each in codings] + [each["display"] for each in codings if "display" in each]
    return [*words, sent["text"]] if "text" in sent else words


def with_meaning(meaning: Concept | None, sent: dict[str, Any] | None) -> dict[str, Any] | None:
    """A CodeableConcept with a meaning put before the codings as sent, unless it is already the first of them."""
    if meaning is None or sent is None or not meaning.system:
        return sent
    code, system = meaning.code, meaning.system
    codings: list[dict[str, Any]] = [meaning.coding()]
    for each in sent.get("coding", ()):
        if each["code"] != code or each.get("system", system) != system:
            codings.append(each)
    return {**sent, "coding": codings}


@lru_cache(maxsize=128)
def table(name: str) -> CodeTable:
    """Load a table of ``fhir_adapters/maps``. Raises KeyError when there is none of that name."""
    resource = files("fhir_adapters").joinpath("maps", f"{name}.json")
    if not resource.is_file():
        raise KeyError(name)
    content = json.loads(resource.read_bytes())
    system = content["target_system"]
    codes = {
        code: Concept(entry[0], entry[2] if len(entry) > 2 else system, entry[1])
        for code, entry in content["codes"].items()
    }
    return CodeTable(
        content["name"],
        content["source"],
        content["version"],
        content["source_system"],
        system,
        MappingProxyType(codes),
    )


@lru_cache(maxsize=4096)
def _find(concept: str, code: str) -> Concept | None:
    spellings = dict.fromkeys((code, full_width_to_ascii(code).strip(), full_width_to_ascii(code).strip().upper()))
    for spelling in spellings:
        for name in CONCEPTS[concept]:
            found = table(name).codes.get(spelling)
            if found is not None:
                return found
    return None


@lru_cache(maxsize=1024)
def _target_concept(concept: str, target: str) -> Concept:
    """A profile maps to a target code: one the tables know (its display and system then), or ``system|code``."""
    if "|" in target:
        system, _, code = target.partition("|")
        return Concept(code, system)
    for name in CONCEPTS[concept]:
        for known in table(name).codes.values():
            if known.code == target:
                return known
    raise ProfileError("maps to a code that no table knows; write system|code", f"code_maps.{concept}")
