"""One conversion in progress: the resources made so far, the issues met, and who and what the document is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from lxml import etree

from fhir_adapters.bundle_entry import ACTORS_AND_PLACES
from fhir_adapters.cda.node import Node, said, xpath
from fhir_adapters.codes import Concept, ConceptLookup
from fhir_adapters.identifiers import assigning_system
from fhir_adapters.profile import SourceProfile
from fhir_adapters.resource_id import resource_id
from fhir_adapters.result import Issue, Severity
from fhir_adapters.xml.tree import V3, Element, select, text_in

Json = dict[str, Any]

DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
ORIGINAL_TEXT = "http://hl7.org/fhir/StructureDefinition/originalText"
PROJECT_EXTENSIONS = "https://yiqiao.example/fhir/StructureDefinition/"

MENTIONED = ACTORS_AND_PLACES | {"Patient", "Encounter", "PractitionerRole", "RelatedPerson", "Device"}
"""Types that a document names in passing: it knows less of them than admission or a master file does."""

MAX_MENTIONS = 50
"""Names, addresses or telephones of one person or organization in one document: bounds what comparing them costs."""

MAX_ISSUES = 1000
"""Issues kept of one document: the first tell what a mapping lacks; the rest are counted."""

_NAMED = etree.XPath("//v3:section/v3:text/descendant-or-self::*[@ID]", namespaces={"v3": V3})


class Conversion:
    """The state that the mappings of one document share. Not thread-safe, used once."""

    def __init__(self, profile: SourceProfile, digest: str) -> None:
        self.profile = profile
        self.digest = digest
        self.lookup = ConceptLookup(profile)
        self.resources: dict[str, Json] = {}
        self.memo: dict[bytes, Any] = {}
        """Serialised element -> what was made of it: authors and organizations repeat word for word."""
        self.names: dict[str, str] = {}
        self.kind = ""
        """Number of a Chinese shared document ("C0007"), "" for any other."""
        self.form: Any = None
        """What a Chinese document's mappings share (:class:`fhir_adapters.cda.chinese.form.Form`)."""
        self.keys: dict[Element, tuple[str, str]] = {}
        """Statements without an identifier of their own that a business key names: system and value."""
        self.document: tuple[str, str] = ("", digest)
        """System and value of the document's identifier; its digest until one is read."""
        self.issuer = ""
        """Namespace of the institution whose numbers stand here: "" for the profile's own."""
        self.subject: Json = {}
        self.encounter: Json | None = None
        """The visit that the document belongs to."""
        self.authored = ""
        """When the first author wrote it."""
        self.recorded = ""
        """The document's own time, as an instant where it has a time of day."""
        self.dispatcher: Callable[[Conversion, Element, Any], list[Json]] = _nothing
        """Chooses the mapping of a clinical statement. A plain function: a bound one would keep this object alive."""
        self._issues: list[Issue] = []
        self._unsaid = 0
        self._claimed: dict[tuple[str, str, str], list[Element]] = {}
        self._narrative: dict[str, Element] | None = None
        self._root: Element | None = None
        self._deferred: list[Callable[[], None]] = []
        self._opened: Node | None = None
        self.by_source_id: dict[tuple[str, str], str] = {}
        """System and value of an entry's id -> reference of what was made of it."""

    @property
    def chinese(self) -> bool:
        """Whether this is a Chinese shared document: data elements, national code systems."""
        return bool(self.kind)

    # Issues

    @property
    def issues(self) -> tuple[Issue, ...]:
        """What was met, in the order of the document; a last one counts what was not kept."""
        if not self._unsaid:
            return tuple(self._issues)
        text = f"{self._unsaid} further issues are not listed"
        return (*self._issues, Issue("warning", "more-issues", "/", text))

    def issue(self, severity: Severity, code: str, place: Element | str, text: str) -> None:
        """Remark on an element (or a place given as text); ``text`` must not repeat what stands there."""
        if len(self._issues) >= MAX_ISSUES:
            self._unsaid += 1
            return
        where = place if isinstance(place, str) else xpath(place)
        self._issues.append(Issue(severity, code, where, text))

    def not_mapped(self, place: Element) -> None:
        """Remark that an element has no place in the resources made; says nothing about one that says nothing."""
        if said(place):
            self.issue("information", "not-mapped", place, "no mapping carries this over")

    def all_not_mapped(self, *places: Element | None) -> None:
        """Remark on each of several elements that is there and says something."""
        for each in places:
            if each is not None:
                self.not_mapped(each)

    def left(self, node: Node) -> None:
        """Remark on every child of a node that nobody took."""
        if node.kids:
            for each in node.left():
                self.not_mapped(each)

    def unmapped_code(self, concept: str, place: Element) -> None:
        """Remark that a code has no map and was kept as the source wrote it."""
        text = f"no map for this code of {concept}; it is kept as sent"
        self.issue("warning", "unmapped-code", place, text)

    # Codes and numbers

    def find(self, concept: str, code: str) -> Concept | None:
        """What a source code means, None when neither the site nor a table says."""
        return self.lookup.find(concept, code)

    def local_system(self, kind: str) -> str:
        """A system of codes or numbers that mean something only within the document's institution, by kind."""
        sender = self.issuer or self.profile.default_authority
        return f"{self.profile.base_url}/NamingSystem/{quote(sender, safe='')}/{kind}"

    def issuer_system(self) -> str:
        """The system of numbers that the document's institution issues (record, visit, order and report numbers)."""
        return assigning_system(self.profile, self.issuer)

    # Statements

    def open(self, el: Element) -> Node:
        """A statement's children, to look at and not to take: who chooses its mapping looks before the mapping does."""
        opened = self._opened
        if opened is None or opened.el is not el:
            opened = self._opened = Node(el)
        return opened

    def opened(self, el: Element) -> Node:
        """A statement's children to take from: as they were looked at, where that was the last thing opened."""
        opened = self._opened
        if opened is None or opened.el is not el:
            return Node(el)
        self._opened = None
        return opened

    # Resources

    def dispatch(self, el: Element, section: Any) -> list[Json]:
        """Convert a clinical statement of a section; returns References to what it became, the main one first."""
        return self.dispatcher(self, el, section)

    def id_of(self, type_name: str, system: str, value: str) -> str:
        """The id of the resource of a type that a business identifier names."""
        return resource_id(self.profile.id_key, type_name, system, value)

    def claim(self, type_name: str, system: str, value: str, el: Element) -> str:
        """The id for what stands at ``el`` under a business identifier.

        Senders give one identifier to several entries. The same content twice is one resource; other content is another
        resource, told apart by which it is (the first keeps the plain identifier), and remarked on.
        """
        seen = self._claimed.setdefault((type_name, system, value), [])
        if not seen:
            seen.append(el)
            return self.id_of(type_name, system, value)
        content = etree.tostring(el, with_tail=False)
        for number, other in enumerate(seen):
            if etree.tostring(other, with_tail=False) == content:
                return self.id_of(type_name, system, f"{value}#{number}" if number else value)
        seen.append(el)
        text = "an identifier of an earlier entry with other content; they are kept apart"
        self.issue("information", "repeated-identifier", el, text)
        return self.id_of(type_name, system, f"{value}#{len(seen) - 1}")

    def place_id(self, type_name: str, el: Element, suffix: str = "") -> str:
        """The id of what only its place in the document names: stable for the same document."""
        system, value = self.document
        return self.id_of(type_name, system, f"{value}\x1f{xpath(el)}\x1f{suffix}")

    def put(self, resource: Json) -> Json:
        """Add a resource, or complete the one of the same id with what it lacks; returns a Reference to it."""
        reference = f"{resource['resourceType']}/{resource['id']}"
        known = self.resources.setdefault(reference, resource)
        if known is not resource and complete(known, resource):
            text = f"more than {MAX_MENTIONS} names, addresses or numbers of one {resource['resourceType']}"
            self.issue("information", "not-mapped", "/", text)
        return {"reference": reference}

    def get(self, reference: Json) -> Json:
        """The resource of a Reference put before."""
        return self.resources[reference["reference"]]

    # Narrative

    def hold(self, root: Element) -> None:
        """Say which tree references into the narrative point into."""
        self._root = root

    def narrative(self, reference: str) -> str:
        """The text of the element of the narrative that ``#id`` names, blanks evened out; "" when there is none."""
        if self._narrative is None:
            self._narrative = {}
            for holder in select(_NAMED, self._root) if self._root is not None else ():
                self._narrative.setdefault(holder.get("ID", ""), holder)
        found = self._narrative.get(reference.removeprefix("#"))
        return "" if found is None else plain_text(found)

    # What can be known only at the end

    def later(self, action: Callable[[], None]) -> None:
        """Do something when all entries are converted: references to entries that come later."""
        self._deferred.append(action)

    def settle(self) -> None:
        """Do what was put off."""
        waiting, self._deferred = self._deferred, []
        for action in waiting:
            action()


def _nothing(_: Conversion, __: Element, ___: Any) -> list[Json]:
    return []


_ADDED = frozenset({"name", "telecom", "address", "alias"})
"""What a later mention of a person or organization may say otherwise: all of it is kept."""

# Choice elements (effective[x]) of the resources made here: of each only one data type may stand.
_CHOICES = ("deceased", "multipleBirth", "effective", "value", "onset", "abatement", "occurrence", "performed", "born")


def complete(known: Json, more: Json) -> bool:
    """Give a resource the elements that it lacks and another version of it has; True when some did not fit in."""
    full = False
    for name, value in more.items():
        if name in known:
            if name == "identifier" and isinstance(value, list):
                numbers = {(each.get("system"), each.get("value")) for each in known[name]}
                known[name] += [each for each in value if (each.get("system"), each.get("value")) not in numbers]
            elif name == "name" and value != known[name] and known["resourceType"] == "Organization":
                full = complete(known, {"alias": [value]}) or full
            elif name in _ADDED and isinstance(value, list):
                fresh = [each for each in value if each not in known[name]]
                full = full or len(known[name]) + len(fresh) > MAX_MENTIONS
                known[name] += fresh[: max(0, MAX_MENTIONS - len(known[name]))]
            continue
        plain = name.removeprefix("_")
        choice = next((each for each in _CHOICES if plain.startswith(each)), "")
        if choice and any(each.removeprefix("_").startswith(choice) for each in known):
            continue
        known[name] = value
    return full


def plain_text(el: Element) -> str:
    """The text in and below an element, blanks evened out."""
    return " ".join(text_in(el).split())


def absent(reason: str, original: str = "") -> Json:
    """The sibling of a primitive element that has no value: why, and what the source wrote."""
    kept: list[Json] = [{"url": DATA_ABSENT, "valueCode": reason}]
    if original:
        kept.append({"url": ORIGINAL_TEXT, "valueString": original})
    return {"extension": kept}


def add_extension(target: Json, url: str, value: str, content: Any) -> None:
    """Append an extension whose ``value[x]`` element is called ``value``."""
    target.setdefault("extension", []).append({"url": url, value: content})


def joined(parts: Iterable[str], separator: str = " ") -> str:
    """The parts that are not empty, joined."""
    return separator.join(part for part in parts if part)
