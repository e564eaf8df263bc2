"""A table out of a file: the rows of one standard view, and where each of them stands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_adapters.errors import ParseError
from fhir_adapters.tabular.conversion import MAX_ROWS
from fhir_adapters.view_contract import LINEAGE, VIEWS, View

MAX_COLUMNS = 1000
"""Most columns of a table: the widest view has some forty."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one view. ``places`` says of each row which line of the file (or row of the sheet) it is, from 1."""

    name: str
    view: View
    rows: tuple[Mapping[str, Any], ...]
    places: tuple[int, ...]


def view_of(header: Sequence[str], hint: str = "") -> View:
    """The view that a header's columns belong to. Raises ParseError.

    ``hint`` is a name that may tell (of a file or a sheet): a view whose name stands in it is taken when the columns
    allow it. Otherwise the view that knows most of the columns, and of these the one that requires most.
    """
    names = {name.strip().lower() for name in header}
    possible = [view for view in VIEWS.values() if view.required - LINEAGE <= names]
    named = [view for view in possible if view.name in hint.upper()]
    if not possible:
        raise ParseError("the columns of no standard view", "header")
    return max(named or possible, key=lambda view: (len(names & view.columns.keys()), len(view.required)))


def table_of(name: str, header: Sequence[str], lines: Iterable[tuple[int, Sequence[Any]]]) -> Table:
    """The table of a header and numbered lines; empty lines are passed over.

    Raises ParseError for a header that belongs to no view or names a column twice, for a line with more fields than
    there are columns, and for more than ``MAX_ROWS`` rows.
    """
    names = [each.strip() for each in header]
    while names and not names[-1]:
        names.pop()
    if len(names) > MAX_COLUMNS:
        raise ParseError(f"more than {MAX_COLUMNS} columns", "header")
    view = view_of(names, name)
    lowered = [each.lower() for each in names if each]
    twice = next((each for each in lowered if lowered.count(each) > 1), None)
    if twice is not None:
        raise ParseError(f"the column {twice[:64]} stands there twice", "header")
    rows: list[dict[str, Any]] = []
    places: list[int] = []
    for place, fields in lines:
        if all(field is None or field == "" for field in fields):
            continue
        if any(field not in (None, "") for field in fields[len(names) :]):
            raise ParseError(f"{len(fields)} fields under {len(names)} columns", f"line {place}")
        if len(rows) >= MAX_ROWS:
            raise ParseError(f"more than {MAX_ROWS} rows in one table")
        rows.append({title: value for title, value in zip(names, fields, strict=False) if title})
        places.append(place)
    return Table(name, view, tuple(rows), tuple(places))
