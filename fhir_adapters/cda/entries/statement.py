"""What all clinical statements have in common: templates, identity, code, status, people, statements inside."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, ids, times
from fhir_adapters.cda.header import actors
from fhir_adapters.cda.node import child, children, extension_child, name_of, said
from fhir_adapters.xml.tree import Element

_PEOPLE = ("Practitioner", "PractitionerRole", "Patient", "RelatedPerson")
_WITH_ORGANIZATIONS = (*_PEOPLE, "Organization")
_MAY_BE = {
    **dict.fromkeys(("recorder", "asserter", "source", "expressedBy"), _PEOPLE),
    "informationSource": _WITH_ORGANIZATIONS,
    "requester": (*_WITH_ORGANIZATIONS, "Device"),
}
"""What a reference to whoever recorded or asked may be to, by element (FHIR R4 resource definitions)."""

STATEMENTS = frozenset(
    [
        "act",
        "observation",
        "organizer",
        "procedure",
        "substanceAdministration",
        "supply",
        "encounter",
        "observationMedia",
        "regionOfInterest",
    ]
)
_BESIDE_STATEMENTS = frozenset({"templateId", "seperatableInd", "sequenceNumber", "realmCode"})
COMMENT = "2.16.840.1.113883.10.20.22.4.64"


@dataclass(frozen=True, slots=True)
class Section:
    """What an entry's section says about it: its LOINC code, its templates and the category of observations in it."""

    code: str = ""
    templates: frozenset[str] = frozenset()
    category: str = ""


class Relation(NamedTuple):
    """A statement inside another: how they are related, the statement's name and templates."""

    type_code: str
    inverted: bool
    el: Element
    name: str
    templates: frozenset[str]
    holder: Element


class Statement:
    """One clinical statement being mapped. Parts are taken; :meth:`finish` reports what nobody took."""

    __slots__ = ("conv", "el", "identifiers", "mood", "negated", "node", "section", "templates")

    def __init__(self, conv: Conversion, el: Element, section: Section) -> None:
        self.conv = conv
        self.el = el
        self.section = section
        node = self.node = conv.opened(el)
        self.templates = node.templates()
        node.drop("realmCode", "typeId")
        self.mood = el.get("moodCode", "EVN")
        self.negated = el.get("negationInd") == "true"
        self.identifiers = ids.identifiers(conv, node.take("id"))

    def resource(self, type_name: str, **elements: Any) -> Json:
        """A new resource of this statement with its id and identifiers; it is not yet added."""
        made: Json = {
            "resourceType": type_name,
            "id": ids.resource_key(self.conv, type_name, self.identifiers, self.el),
        }
        if self.identifiers:
            made["identifier"] = self.identifiers
        made.update(elements)
        return made

    def put(self, resource: Json) -> Json:
        """Add the resource and remember which source identifier it answers to; returns a Reference."""
        reference = self.conv.put(resource)
        for made in self.identifiers:
            self.conv.by_source_id.setdefault((made["system"], made["value"]), reference["reference"])
        return reference

    def status(self) -> str:
        """The code of statusCode, "" when there is none."""
        el = self.node.first("statusCode")
        return el.get("code", "").strip() if el is not None else ""

    def code(self, name: str = "code") -> Json | None:
        """A coded part as a CodeableConcept."""
        return concepts.concept(self.conv, self.node.first(name))

    def required_code(self) -> Json:
        """The code where FHIR requires one."""
        return concepts.required(self.conv, self.node.first("code"), self.el)

    def codes(self, name: str) -> list[Json]:
        """All coded parts of a name."""
        if name not in self.node.kids:
            return []
        return [made for el in self.node.take(name) if (made := concepts.concept(self.conv, el)) is not None]

    def text(self) -> str:
        """The statement's text: its own or that of the narrative it refers to."""
        if "text" not in self.node.kids:
            return ""
        el = self.node.first("text")
        return concepts.text_of(self.conv, el) if el is not None else ""

    def effective(self) -> Element | None:
        """The first effectiveTime."""
        return self.node.first("effectiveTime")

    def authors(self, resource: Json, when: str, fits: Callable[[Json], bool] = lambda _: True) -> list[Json]:
        """Who authored the statement, of those that fit; ``when`` is the element for the first time, an instant.

        What has no place of it is remarked on.
        """
        found = []
        for el in self.node.take("author"):
            who, moment = actors.author(self.conv, el)
            if who is not None and fits(who):
                found.append(who)
            elif said(el):
                self.conv.issue("information", "not-mapped", el, "no place for an author of this kind")
                continue
            if moment and times.instant(moment):
                resource.setdefault(when, moment)
            if moment and resource.get(when) != moment:
                self.untimed(el)
        return found

    def recorder(self, resource: Json, who: str = "recorder", when: str = "recordedDate") -> None:
        """Set who recorded it and when, from the first author; further authors have no place and are remarked on."""
        for el in self.node.take("author"):
            reference, moment = actors.author(self.conv, el)
            if reference is not None and who:
                if who in resource:
                    self.conv.issue("information", "not-mapped", el, "only the first author has a place")
                elif may_be(who, reference):
                    resource[who] = reference
                else:
                    self.conv.issue("information", "not-mapped", el, "no place for an author of this kind")
            if moment and when:
                resource.setdefault(when, moment)
            if moment and (not when or resource[when] != moment):
                self.untimed(el)

    def lent(self, holder: Json, made: list[Json]) -> None:
        """Remark on the author of an act, or its time, that nothing of what the act gathers was given.

        ``holder`` is what :meth:`recorder` set, to be taken over where a statement has none of its own.
        """
        resources = [self.conv.get(each) for each in made]
        unused = {name for name, content in holder.items() if all(each.get(name) != content for each in resources)}
        for el in children(self.el, "author") if unused else ():
            if "recorder" in unused:
                self.conv.not_mapped(el)
            else:
                self.untimed(el)

    def untimed(self, el: Element) -> None:
        """Remark on the time of a participation that has no place."""
        self.conv.all_not_mapped(*children(el, "time"))

    def informant(self, resource: Json, element: str) -> None:
        """Set ``element`` to the first informant."""
        for el in self.node.take("informant"):
            reference, _ = actors.author(self.conv, el)
            if reference is not None and element not in resource and may_be(element, reference):
                resource[element] = reference
            elif said(el):
                self.conv.not_mapped(el)

    def performers(self) -> Iterator[tuple[Json, Json | None, Element]]:
        """Who performed it: reference, function, and the participation."""
        for el in self.node.take("performer"):
            inner = child(el, "assignedEntity")
            function = concepts.concept(self.conv, child(el, "functionCode"))
            if function is None:
                function = concepts.concept(self.conv, extension_child(el, "functionCode"))
            who = actors.actor(self.conv, inner) if inner is not None else None
            if who is not None:
                yield who, function, el
            else:
                self.conv.not_mapped(el)

    def participants(self) -> Iterator[tuple[str, Element, Element]]:
        """The participants: type code, participantRole, and the participation."""
        for el in self.node.take("participant"):
            role = child(el, "participantRole")
            if role is not None:
                yield el.get("typeCode", ""), role, el
            else:
                self.conv.not_mapped(el)

    def relations(self) -> Iterator[Relation]:
        """The statements inside this one (entryRelationship, component)."""
        for name in ("entryRelationship", "component"):
            for holder in self.node.take(name):
                for el in holder:
                    inner = name_of(el)
                    if inner in STATEMENTS:
                        inverted = holder.get("inversionInd") == "true"
                        templates = frozenset(self.conv.open(el).claimed())
                        yield Relation(holder.get("typeCode", ""), inverted, el, inner, templates, holder)
                    elif inner not in _BESIDE_STATEMENTS and said(el):
                        self.conv.not_mapped(el)

    def effective_into(self, resource: Json, stem: str) -> None:
        """Set ``<stem>DateTime`` or ``<stem>Period`` from effectiveTime."""
        times.put_moment_or_period(self.conv, resource, stem, self.effective())

    def finish(self) -> None:
        """Report every part that nobody took."""
        self.node.drop("sdtc:category", "sdtc:text", "languageCode")
        self.conv.left(self.node)


def may_be(element: str, reference: Json) -> bool:
    """Whether an element may refer to a resource of this type."""
    return reference["reference"].partition("/")[0] in _MAY_BE[element]


def add_note(resource: Json, text: str, who: Json | None = None, when: str = "") -> None:
    """Append an Annotation; a text that only repeats the name of what the resource is about adds nothing."""
    if not text or text in concepts.names(resource.get("code")):
        return
    note: Json = {}
    if who and who["reference"].partition("/")[0] in ("Practitioner", "Patient", "RelatedPerson", "Organization"):
        note["authorReference"] = who
    if when:
        note["time"] = when
    note["text"] = text
    if note not in resource.setdefault("note", []):
        resource["note"].append(note)


def comment(statement: Statement, resource: Json, relation: Relation) -> bool:
    """Take a comment activity as a note of the resource it stands in."""
    if COMMENT not in relation.templates:
        return False
    inner = Statement(statement.conv, relation.el, statement.section)
    inner.node.drop("code", "statusCode", "effectiveTime")
    first = inner.node.first("author")
    who, when = actors.author(inner.conv, first) if first is not None else (None, "")
    add_note(resource, inner.text(), who, when)
    inner.finish()
    return True


def nested(statement: Statement, relation: Relation) -> list[Json]:
    """Convert a statement inside another as resources of its own; returns References to them."""
    return statement.conv.dispatch(relation.el, statement.section)


_SUPPORT = {
    "MedicationStatement": "derivedFrom",
    "MedicationRequest": "supportingInformation",
    "ServiceRequest": "supportingInfo",
    "Condition": "evidence",
}
"""Where a resource refers to whatever supports it; elsewhere a relation has no place."""


def loosely_nested(statement: Statement, relation: Relation, parent: Json | None = None) -> list[Json]:
    """As ``nested`` for a relation that FHIR has no element of its own for.

    ``parent`` refers to what was made as supporting information where it can; where not, that is remarked on.
    """
    made = nested(statement, relation)
    element = _SUPPORT.get(parent["resourceType"]) if parent is not None else None
    if made and parent is not None and element is not None:
        content = {"detail": [made[0]]} if element == "evidence" else made[0]
        parent.setdefault(element, []).append(content)
    elif made:
        text = "converted as a resource of its own; its relation to the statement around it is not carried over"
        statement.conv.issue("information", "relation-lost", relation.el, text)
    return made
