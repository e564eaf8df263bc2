"""An action message: a header that names it, and rows of the standard views as XML elements (docs/soap.md).

    <Request>
      <Header><MessageId>1</MessageId><Action>InPatientInfoAdd</Action></Header>
      <Body>
        <Encounter><visit_no>ZY1</visit_no><patient_no>00012</patient_no><start_at>20260101080000</start_at></Encounter>
      </Body>
    </Request>

A row is a child of Body; its leaves are columns. A row may hold groups of further rows (the results of a report): each
of these takes over the columns of the row it stands in.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from lxml import etree

from fhir_adapters.actions.catalogue import ACTIONS, Action
from fhir_adapters.errors import ParseError, UnsupportedMessage
from fhir_adapters.view_contract import LINEAGE, VIEWS, View

MAX_MESSAGE_ROWS = 10_000
"""Most rows of one message: a report has hundreds of results, a register thousands of departments."""

MAX_ID_CHARS = 128
"""Longest message id, in characters."""

_FLAT_DEPTH = 3
"""How deep rows may hold rows: report, items, item."""


@dataclass(frozen=True, slots=True)
class ActionRow:
    """One row: its view, its cells, and where it stands ("Body/Encounter[1]")."""

    view: View
    cells: Mapping[str, str]
    place: str


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """A message as read: what its sender calls it, the action, and its rows."""

    message_id: str
    action: Action
    sender: str
    rows: tuple[ActionRow, ...]

    @property
    def patient(self) -> str:
        """Number and authority of the patient that the message is about, "" for none or several."""
        found = {
            f"{row.cells.get('patient_no', '').strip()}^{row.cells.get('assigning_authority', '').strip()}"
            for row in self.rows
            if row.view.of_patients
        }
        return found.pop() if len(found) == 1 else ""


def read_request(root: etree._Element, called: str = "") -> ActionRequest:
    """Read a message. ``called``: the action that the envelope names; a header may name it instead, or agree.

    Raises ParseError with the path of what is wrong, and UnsupportedMessage for an action that does not exist.
    """
    header, body = _part(root, "header"), _part(root, "body")
    if body is None:
        raise ParseError("a message without a Body", "Request/Body")
    named = _leaf(header, "action")
    action = _find(called or named)
    if called and named and _find(named) is not action:
        raise ParseError("another action than the envelope names", "Header/Action")
    message_id = _leaf(header, "messageid")
    if not message_id or len(message_id) > MAX_ID_CHARS:
        raise ParseError(f"a message id of 1 to {MAX_ID_CHARS} characters is needed", "Header/MessageId")
    made_at = _leaf(header, "createdat") or _leaf(header, "creationtime")
    rows: list[ActionRow] = []
    counts: dict[str, int] = {}
    for element in body.iterchildren("*"):
        name = _name(element)
        counts[name] = counts.get(name, 0) + 1
        for cells, place in _cells(element, {"updated_at": made_at}, f"Body/{name}[{counts[name]}]", 0):
            if len(rows) >= MAX_MESSAGE_ROWS:
                raise ParseError(f"more than {MAX_MESSAGE_ROWS} rows", "Body")
            rows.append(_row(action, cells, place))
    if not rows:
        raise ParseError("a Body without anything in it", "Request/Body")
    return ActionRequest(message_id, action, _leaf(header, "sender"), tuple(rows))


def _find(name: str) -> Action:
    if not name:
        raise ParseError("no action is named", "Header/Action")
    action = ACTIONS.get(name.strip().lower())
    if action is None:
        raise UnsupportedMessage("no such action; one of " + ", ".join(each.name for each in ACTIONS.values()))
    return action


def _cells(
    element: etree._Element, outer: Mapping[str, str], place: str, depth: int
) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of an element: itself, or the rows it holds with its own columns."""
    own = dict(outer)
    groups: list[etree._Element] = []
    for child in element.iterchildren("*"):
        if len(child):
            groups.append(child)
        else:
            own[_name(child)] = child.text or ""
    if not groups:
        yield own, place
        return
    if depth >= _FLAT_DEPTH:
        raise ParseError("rows within rows too deep", place)
    number = 0
    for group in groups:
        # <items><item>…</item></items> and <item>…</item> directly in the row are the same
        held = [each for each in group.iterchildren("*") if len(each)] or [group]
        for each in held:
            number += 1
            where = f"{place}/{_name(group)}" + (f"/{_name(each)}[{number}]" if each is not group else f"[{number}]")
            yield from _cells(each, own, where, depth + 1)


def _row(action: Action, given: Mapping[str, str], place: str) -> ActionRow:
    views = [VIEWS[name] for name in action.views]
    best = max(views, key=lambda view: sum(_plain(name) in _columns(view.name) for name in given))
    known = _columns(best.name)
    cells = dict(action.defaults)
    for name, value in given.items():
        column = known.get(_plain(name), name)
        if value.strip() or column not in cells:
            cells[column] = value
    needed = (best.required - LINEAGE) | set(action.requires)
    for column in sorted(needed):
        if not cells.get(column, "").strip():
            raise ParseError(f"{action.name} needs {column}", f"{place}/{column}")
    return ActionRow(best, MappingProxyType(cells), place)


@lru_cache(maxsize=64)
def _columns(view: str) -> Mapping[str, str]:
    """Columns by their names without case and underscores: PatientNo, patientNo and patient_no are one."""
    return MappingProxyType({_plain(name): name for name in VIEWS[view].columns})


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _part(element: etree._Element, name: str) -> etree._Element | None:
    return next((each for each in element.iterchildren("*") if _name(each).lower() == name), None)


def _leaf(element: etree._Element | None, name: str) -> str:
    if element is None:
        return ""
    found = next((each for each in element.iterchildren("*") if _plain(_name(each)) == name), None)
    return "" if found is None else (found.text or "").strip()


def _name(element: etree._Element) -> str:
    return etree.QName(element).localname
