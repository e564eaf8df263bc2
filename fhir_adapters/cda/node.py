"""Elements as the mappings read them: by name, taken once; what nobody took is reported.

CDA R2 is one namespace with another (sdtc) put through it, so names here are local ones, ``sdtc:`` before the others.
"""

import re
from collections.abc import Iterator

from fhir_adapters.xml.tree import FRAGMENT, SDTC, V3, XSI, Element

_V3 = "{" + V3 + "}"  # 16 characters
_SDTC = "{" + SDTC + "}"
XSI_TYPE = "{" + XSI + "}type"

_NAME = re.compile(r"(?:sdtc:)?[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_PLAIN_PATH = re.compile(r"(?:/(?:sdtc:)?[A-Za-z_][A-Za-z0-9_.-]{0,63}(?:\[\d+\])?)+", re.ASCII)
_STEPS = re.compile(r"/(?![^{}]*\})")  # not the slashes of a namespace in braces
_ARC = "2.16.156.10011."  # national OIDs: a root of theirs without an extension is an empty form field

# Attributes that say how to read an element, not anything about the patient.
_STRUCTURAL = frozenset(
    [
        "typeCode",
        "classCode",
        "moodCode",
        "determinerCode",
        "nullFlavor",
        "contextControlCode",
        "contextConductionInd",
        "inversionInd",
        "negationInd",
        "assigningAuthorityName",
        "displayable",
        "codeSystem",
        "codeSystemName",
        "codeSystemVersion",
        "use",
        "operator",
        "institutionSpecified",
        "mediaType",
        "ID",
        "unit",
        "currency",
        "inclusive",
        "independentInd",
        "partType",
        "representation",
        "contextConductionId",
        "unsorted",
        "qualifier",
    ]
) | {XSI_TYPE}


def name_of(el: Element) -> str:
    """The local name of an element, ``sdtc:name`` for HL7's extensions, ``other:name`` for other namespaces."""
    tag = el.tag
    if tag[:16] == _V3:
        return tag[16:]
    if tag.startswith(_SDTC):
        return "sdtc:" + tag[len(_SDTC) :]
    return "other:" + tag.rpartition("}")[2]


class Node:
    """An element's children by name. ``take`` and ``first`` remove them; :meth:`left` is what nobody removed."""

    __slots__ = ("el", "kids")

    def __init__(self, el: Element) -> None:
        self.el = el
        self.kids = kids = {}  # type: dict[str, list[Element]]
        for child in el:
            tag = child.tag
            # name_of, in place: this runs for every element that a mapping reads
            name = tag[16:] if tag[:16] == _V3 else name_of(child)
            if name in kids:
                kids[name].append(child)
            else:
                kids[name] = [child]

    def take(self, name: str) -> list[Element]:
        """All children of a name, which are then taken."""
        return self.kids.pop(name, [])

    def first(self, name: str) -> Element | None:
        """The first child of a name; the others stay to be taken or reported."""
        found = self.kids.get(name)
        if found is None:
            return None
        if len(found) == 1:
            del self.kids[name]
        else:
            self.kids[name] = found[1:]
        return found[0]

    def drop(self, *names: str) -> None:
        """Take children that say nothing a resource could carry."""
        for name in names:
            self.kids.pop(name, None)

    def left(self) -> Iterator[Element]:
        """The children nobody took."""
        for found in self.kids.values():
            yield from found

    def claimed(self) -> list[str]:
        """The root OIDs of the templates that the element claims, in their order; they stay to be taken."""
        return [each.get("root", "") for each in self.kids.get("templateId", ())]

    def templates(self) -> frozenset[str]:
        """The root OIDs of the templates the element claims, which are then taken."""
        return frozenset([each.get("root", "") for each in self.kids.pop("templateId", ())])


def child(el: Element, *path: str) -> Element | None:
    """The first descendant by a path of local names of CDA's namespace."""
    for name in path:
        tag = _V3 + name
        for each in el:  # quicker than iterchildren(tag) for the few children that an element has
            if each.tag == tag:
                el = each
                break
        else:
            return None
    return el


def extension_child(el: Element, name: str) -> Element | None:
    """The first child of a local name of HL7's extensions (sdtc)."""
    tag = _SDTC + name
    return next((each for each in el if each.tag == tag), None)


def children(el: Element, name: str) -> list[Element]:
    """The children of a local name of CDA's namespace."""
    tag = _V3 + name
    return [each for each in el if each.tag == tag]


def said(el: Element) -> bool:
    """Whether an element or anything below it says something: text, a code, a value, an identifier."""
    return any(says_itself(each) for each in el.iter())


def says_itself(el: Element) -> bool:
    """Whether an element says something by its own text or attributes."""
    if el.text and not el.text.isspace():
        return True
    for name, value in el.items():
        if name in _STRUCTURAL or not value.strip():
            continue
        if name == "root" and (str(value).startswith(_ARC) or "templateId" in el.tag):
            continue
        if name == "extension" and "templateId" in el.tag:
            continue
        return True
    return False


def xpath(el: Element) -> str:
    """Where an element stands: its path of names, numbered from 1 among siblings of one name where there are several.

    A name that is no plain ASCII name is written ``*``: content can hide in names.
    """
    tree = el.getroottree()
    root = tree.getroot()
    below = tree.getelementpath(el)
    path = below if root.tag == FRAGMENT else root.tag if below == "." else f"{root.tag}/{below}"
    path = "/" + path.replace(_V3, "").replace(_SDTC, "sdtc:")
    return path if _PLAIN_PATH.fullmatch(path) else "/".join(_shown(step) for step in _STEPS.split(path))


def _shown(step: str) -> str:
    name, bracket, number = step.rpartition("}")[2].partition("[")
    return step if _NAME.fullmatch(name) and "{" not in step else "*" + bracket + number
