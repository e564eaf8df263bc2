"""Elements as the mappings read them: by name, taken once; what nobody took is reported.

CDA R2 is one namespace with another (sdtc) put through it, so names here are local ones, ``sdtc:`` before the others.
"""

import re
from collections.abc import Iterator

from fhir_adapters.cda.xml_tree import SDTC, V3, XSI, Element

_V3 = "{" + V3 + "}"
_SDTC = "{" + SDTC + "}"
XSI_TYPE = "{" + XSI + "}type"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.ASCII)
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
    if tag.startswith(_V3):
        return str(tag[len(_V3) :])
    if tag.startswith(_SDTC):
        return "sdtc:" + tag[len(_SDTC) :]
    return "other:" + tag.rpartition("}")[2]


class Node:
    """An element's children by name. ``take`` and ``first`` remove them; :meth:`left` is what nobody removed."""

    __slots__ = ("el", "kids")

    def __init__(self, el: Element) -> None:
        self.el = el
        kids: dict[str, list[Element]] = {}
        for child in el:
            tag = child.tag
            # name_of, in place: this runs for every element that a mapping reads
            name = tag[16:] if tag[:16] == _V3 else name_of(child)
            if name in kids:
                kids[name].append(child)
            else:
                kids[name] = [child]
        self.kids = kids

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

    def templates(self) -> frozenset[str]:
        """The root OIDs of the templates the element claims, which are then taken."""
        return frozenset(each.get("root", "") for each in self.kids.pop("templateId", ()))


def child(el: Element, *path: str) -> Element | None:
    """The first descendant by a path of local names of CDA's namespace."""
    found: Element | None = el
    for name in path:
        if found is None:
            return None
        found = found.find(_V3 + name)
    return found


def children(el: Element, name: str) -> list[Element]:
    """The children of a local name of CDA's namespace."""
    return el.findall(_V3 + name)


def said(el: Element) -> bool:
    """Whether an element or anything below it says something: text, a code, a value, an identifier."""
    for each in el.iter():
        if each.text and not each.text.isspace():
            return True
        for name, value in each.items():
            if name in _STRUCTURAL or not value.strip():
                continue
            if name == "root" and (str(value).startswith(_ARC) or "templateId" in each.tag):
                continue
            if name == "extension" and "templateId" in each.tag:
                continue
            return True
    return False


def xpath(el: Element) -> str:
    """Where an element stands: its path of names, numbered from 1 among siblings of one name.

    A name that is no plain ASCII name is written ``*``: content can hide in names.
    """
    steps: list[str] = []
    step: Element | None = el
    while step is not None:
        name = name_of(step)
        shown = name if _NAME.fullmatch(name.rpartition(":")[2]) else "*"
        parent = step.getparent()
        if parent is not None and name == "fragment" and parent.getparent() is None:
            break
        number = _number(step)
        steps.append(f"{shown}[{number}]" if number else shown)
        step = parent
    if steps and steps[-1] == "fragment":
        steps.pop()
    return "/" + "/".join(reversed(steps))


def _number(el: Element) -> int:
    before = sum(1 for _ in el.itersiblings(el.tag, preceding=True))
    if before:
        return before + 1
    return 1 if next(el.itersiblings(el.tag), None) is not None else 0
