"""What the mappings of one Chinese shared document share: its numbers, and the resources that its entries add to."""

from dataclasses import dataclass, field

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes.concepts import DATA_ELEMENTS
from fhir_adapters.cda.entries.statement import STATEMENTS, Section
from fhir_adapters.cda.node import Node, child, children, name_of, said
from fhir_adapters.xml.tree import Element, text_in

FRONT_PAGE = "urn:oid:2.16.156.10011.2.2.4"
"""住院病案首页基本数据集, whose codes (HDSD00.11.142) the front page uses beside data elements."""

LAB_REPORT, EXAM_REPORT, CONSULTATION, TRANSFER = "C0007", "C0006", "C0045", "C0042"
PRESCRIPTIONS = frozenset({"C0004", "C0005"})
REPORTS = frozenset({LAB_REPORT, EXAM_REPORT})
TIME = "effectiveTime"
_CATALOGUES = ("2.16.156.10011.2.2.",)


@dataclass
class Form:
    """One document's state. ``numbers`` are the Identifiers that stand among the patient's, by kind ("33")."""

    kind: str
    numbers: dict[str, Json] = field(default_factory=dict)
    number_places: dict[str, Element] = field(default_factory=dict)
    report: Json | None = None
    request: Json | None = None
    specimens: list[Json] = field(default_factory=list)
    specimen_facts: dict[str, Json] = field(default_factory=dict)
    """What each item said of its specimen, by the item's id."""
    item: Json | None = None
    """The result that values following it in the same section belong to."""
    item_section: str = ""
    method: str = ""
    """How a laboratory's items were measured, where one method is said for all."""
    medicines: list[Json] = field(default_factory=list)
    reasons: list[Json] = field(default_factory=list)
    procedures: list[dict[str, str]] = field(default_factory=list)
    """What data elements say of the procedures being mapped, innermost last: name, site, device, note."""
    waiting: list[tuple[str, Element, Section]] = field(default_factory=list)
    """What was said of a visit before its number was."""
    repeats: dict[str, int] = field(default_factory=dict)

    def occurrence(self, key: str) -> int:
        """How often a business key was used before in this document."""
        count = self.repeats.get(key, 0)
        self.repeats[key] = count + 1
        return count


def form_of(conv: Conversion) -> Form:
    """The form of the document being converted."""
    assert isinstance(conv.form, Form)
    return conv.form


def element_code(el: Element) -> str:
    """The data element (DE04.01.119.00) or data set item (HDSD00.11.142) of an observation; "" for another code."""
    code = child(el, "code")
    if code is None:
        return ""
    value = code.get("code", "").strip()
    known = code.get("codeSystem", "").startswith(_CATALOGUES) or value.startswith(("DE", "HDSD"))
    return value if known else ""


def title_of(el: Element) -> str:
    """What an observation is called: the display of its code, and the name in its qualifier."""
    code = child(el, "code")
    if code is None:
        return ""
    names = [each for qualifier in children(code, "qualifier") for each in children(qualifier, "name")]
    return " ".join(part for part in (code.get("displayName", ""), *(n.get("displayName", "") for n in names)) if part)


def code_concept(conv: Conversion, el: Element) -> Json | None:
    """The code of an observation: LOINC's where the data element has one, the data element, and its name."""
    code = child(el, "code")
    value = element_code(el)
    if code is None or not value:
        return None
    system = FRONT_PAGE if value.startswith("HDSD") else DATA_ELEMENTS
    own: Json = {"system": system, "code": value}
    title = " ".join(code.get("displayName", "").split())
    if title:
        own["display"] = title
    known = conv.find("data-element", value)
    made: Json = {"coding": [known.coding(), own] if known is not None else [own]}
    if title:
        made["text"] = title
    return made


def value_of(el: Element) -> Element | None:
    """The value element of an observation."""
    return child(el, "value")


def value_text(el: Element) -> str:
    """The text of an observation's value: written, or its code or value."""
    value = child(el, "value")
    if value is None:
        return ""
    text = " ".join(text_in(value).split())
    return (
        text or value.get("displayName", "").strip() or value.get("code", "").strip() or value.get("value", "").strip()
    )


def filled(el: Element) -> bool:
    """Whether a form field is filled in: anything but its label and its structure says something."""
    for each in el:
        name = each.tag.rpartition("}")[2]
        if name in ("code", "templateId", "statusCode", "realmCode"):
            if (
                name == "code"
                and not element_code(el)
                and el.tag.rpartition("}")[2] != "observation"
                and each.get("code")
            ):
                return True
            continue
        if name in ("entryRelationship", "component"):
            if any(filled(inner) for inner in each):
                return True
        elif said(each):
            return True
    return False


def members(el: Element) -> list[Element]:
    """The observations inside an organizer (or an observation that is one in disguise), however deep the nesting."""
    found: list[Element] = []
    for name in ("component", "entryRelationship"):
        for holder in children(el, name):
            found += children(holder, "observation")
    return found


def beside(conv: Conversion, el: Element, section: Section, *read: str) -> None:
    """See to what a data element says beside its value: statements in it are mapped, the rest is remarked on.

    ``read`` are the parts that its own mapping has read; observations in it (:func:`members`) are its mapping's too.
    """
    node = Node(el)
    node.drop(
        "templateId", "realmCode", "typeId", "code", "value", "statusCode", *(name for name in read if name != TIME)
    )
    if TIME in read:
        node.first(TIME)
    text = node.first("text")
    if text is not None and text_in(text).strip():
        conv.not_mapped(text)
    for name in ("entryRelationship", "component"):
        for holder in node.take(name):
            for inner in holder:
                kind = name_of(inner)
                if kind in STATEMENTS and kind != "observation":
                    conv.dispatch(inner, section)
                elif kind not in STATEMENTS and said(inner):
                    conv.not_mapped(inner)
    conv.left(node)
