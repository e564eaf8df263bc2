"""What of a CDA document is carried over: every text, code and value is changed, and something must change with it.

A value is carried over when the Bundle shows it, when the Bundle changes with it, or when an issue names its place (or
that of an element around it). What is left out on purpose stands with its reason in docs/cda-mapping.md. The narrative
goes as a whole into its section; the original is kept in a Binary, which is no carrying over and is not looked at.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lxml import etree

from fhir_adapters import cda
from fhir_adapters.cda.chinese.form import filled
from fhir_adapters.cda.node import name_of, xpath
from fhir_adapters.errors import AdapterError
from fhir_adapters.profile import DEFAULT_PROFILE
from fhir_adapters.result import Issue
from fhir_adapters.xml.tree import Element

DOCUMENT = Path(__file__).parents[2] / "docs" / "cda-mapping.md"
PROFILE = replace(DEFAULT_PROFILE, validate=False)  # what is changed need not be valid; that is other tests' business
SHOWN_CHARACTERS = 3
"""A text as long as this that the Bundle shows did not get there by accident; shorter ones are changed to see."""

_ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
_TIME = re.compile(r"(?:19|20)\d{2,12}(?:\.\d+)?(?:[+-]\d{4})?")
_NUMBER = re.compile(r"[-+]?\d*\.?\d+")
_WHOLE = frozenset({"not-mapped", "relation-lost", "external-reference", "empty-section", "more-issues", "conflict"})
"""Issue codes that speak of an element with all that is in it."""


@dataclass(frozen=True, slots=True)
class Value:
    """One attribute (``name``) or text (``name`` "") of an element."""

    el: Element
    name: str
    text: str

    @property
    def place(self) -> str:
        """Path with the attribute, without numbers: what the patterns of the document are held against."""
        path = re.sub(r"\[\d+\]", "", xpath(self.el))
        return f"{path}/@{self.name}" if self.name else f"{path}/text()"

    def write(self, text: str) -> None:
        """Put another text there."""
        if self.name:
            self.el.set(self.name, text)
        else:
            self.el.text = text


def left_out() -> list[re.Pattern[str]]:
    """The places that docs/cda-mapping.md says are left out on purpose, as patterns of the end of a path."""
    table = DOCUMENT.read_text("utf-8").partition("## Left out on purpose")[2].partition("\n## ")[0]
    rows: list[str] = _ROW.findall(table)
    patterns = [re.escape(row if " = " in row else row + " = *").replace(r"\*", ".*") for row in rows]
    return [re.compile("(?:^|.*/)" + pattern + "$") for pattern in patterns]


def values(root: Element, ignored: Sequence[re.Pattern[str]]) -> Iterator[Value]:
    """Give what a document says, but for its narrative and for what is left out on purpose."""
    for el in root.iter(etree.Element):
        above = [name_of(each) for each in (el, *el.iterancestors())]
        if any(pair == ("text", "section") for pair in itertools.pairwise(above)):
            continue
        found = [Value(el, name, text) for name, text in el.items() if not name.startswith("{") and text.strip()]
        if el.text and not el.text.isspace():
            found.append(Value(el, "", el.text))
        if above[0] == "code" and above[1] == "observation" and not filled(el.getparent()):
            continue  # the label of a form field that is not filled in
        for each in found:
            if not any(pattern.match(f"{each.place} = {each.text.strip()}") for pattern in ignored):
                yield each


def changed(text: str) -> str:
    """Another value of the same kind: a later year, another digit, the other truth, another word."""
    text = text.strip()
    if text in ("true", "false"):
        return "false" if text == "true" else "true"
    if _TIME.fullmatch(text):
        return f"{text[:3]}{(int(text[3]) + 1) % 10}{text[4:]}"
    if _NUMBER.fullmatch(text):
        return f"{text[:-1]}{(int(text[-1]) + 1) % 10}"
    if not text.isascii():
        return "改" if text != "改" else "变"
    return text + ("7" if text[-1].isdigit() else "Z" if text[-1:] != "Z" else "Y")


def shown(bundle: Any) -> Iterator[str]:
    """Every value of a Bundle that says something: no ids, references, narratives."""
    if isinstance(bundle, dict):
        for name, value in bundle.items():
            if name not in ("id", "reference", "fullUrl", "url", "div", "request"):
                yield from shown(value)
    elif isinstance(bundle, list):
        for value in bundle:
            yield from shown(value)
    else:
        yield str(bundle)


class Carried:
    """One document and what became of it."""

    def __init__(self, raw: bytes) -> None:
        self.root = etree.fromstring(
            raw, etree.XMLParser(resolve_entities=False, remove_comments=True, remove_pis=True)
        )
        self.entries, self.issues = self.convert()
        self.shown = "\0".join(shown(self.entries))

    def convert(self) -> tuple[list[Any], tuple[Issue, ...]]:
        """Convert the document as it is now; what speaks of its bytes (digest, size) is left out."""
        result = cda.convert(etree.tostring(self.root.getroottree(), encoding="utf-8", xml_declaration=True), PROFILE)
        entries = [each["resource"] for each in json.loads(result.to_json())["entry"]]
        kept = [each for each in entries if each["resourceType"] not in ("Binary", "Provenance")]
        for each in kept:
            if each["resourceType"] == "DocumentReference":
                for content in each["content"]:
                    if content["attachment"].get("url", "").startswith("Binary/"):
                        content["attachment"] = {}
        return kept, result.issues

    def differs(self, place: str) -> bool:
        """Whether the document as it is now gives other entries, or an issue names a place in it."""
        try:
            entries, issues = self.convert()
        except AdapterError:
            return True  # refused by name
        return entries != self.entries or named(place, issues) or any(f"{place}/" in each.location for each in issues)

    def dropped(self, ignored: Sequence[re.Pattern[str]]) -> list[str]:
        """The values that are neither carried over nor named."""
        found = []
        for each in list(values(self.root, ignored)):
            text = each.text.strip()
            if len(text) >= SHOWN_CHARACTERS and not _NUMBER.fullmatch(text) and text in self.shown:
                continue
            place = xpath(each.el)
            if named(place, self.issues):
                continue
            each.write(changed(text))
            if not self.differs(place):
                found.append(f"{place}{'/@' + each.name if each.name else ''} = {text[:40]}")
            each.write(each.text)
        return found

    def drops_added(self, ignored: Sequence[re.Pattern[str]], parts: Sequence[str]) -> list[str]:
        """The parts that disappear when they are put, one by one, into each class of the document."""
        found = []
        for el in [each for each in self.root.iter(etree.Element) if _is_class(each)]:
            for part in parts:
                added = etree.fromstring(f'<r xmlns="urn:hl7-org:v3" xmlns:xsi="{_XSI}">{part}</r>')[0]
                place = Value(el, "", "").place.removesuffix("text()") + name_of(added)
                if any(pattern.match(f"{place} = ") for pattern in ignored):
                    continue
                el.append(added)
                if not self.differs(xpath(added)):
                    found.append(f"{xpath(el)}: {name_of(added)}")
                el.remove(added)
        return found


_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_CLASSES = frozenset(
    {"patientRole", "patient", "assignedAuthor", "assignedEntity", "assignedPerson", "associatedEntity", "observation",
     "encompassingEncounter", "representedCustodianOrganization", "healthCareFacility", "parentDocument", "procedure",
     "substanceAdministration", "organizer", "act", "encounter", "supply", "manufacturedProduct", "playingEntity",
     "guardian", "serviceEvent", "intendedRecipient", "representedOrganization", "wholeOrganization", "order"}
)  # fmt: skip


def _is_class(el: Element) -> bool:
    """Whether an element stands for a person, a place or something done, which may have parts of many kinds."""
    return name_of(el) in _CLASSES


def named(place: str, issues: Sequence[Issue]) -> bool:
    """Whether an issue is about a place, or about all of an element around it."""
    return any(
        each.location == place or (each.code in _WHOLE and f"{place}/".startswith(each.location.rstrip("/") + "/"))
        for each in issues
    )
