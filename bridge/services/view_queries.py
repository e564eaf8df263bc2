"""The statements that read a source: a standard view, or a HIS's own tables as a profile maps them.

Names are quoted by SQLAlchemy and values bound; nothing from a profile or a row is ever put into the text of a
statement. The order is watermark, then key, and a place in it is where the next statement goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    case,
    column,
    literal,
    literal_column,
    or_,
    select,
    table,
)
from sqlalchemy.sql.elements import quoted_name

from bridge.services.poll_places import Place
from fhir_adapters.tabular.mapped import latest, mapped_row
from fhir_adapters.view_contract import VIEWS
from fhir_adapters.view_contract.columns import View
from fhir_adapters.view_mapping import ColumnRef, Condition, ViewMapping

Row = Mapping[str, Any]


class ViewQuery(Protocol):
    """One query of a source."""

    @property
    def name(self) -> str:
        """Its name; progress is kept under it."""

    @property
    def view(self) -> View:
        """The standard view whose rows it gives."""

    @property
    def mapping(self) -> str:
        """The name of the profile's mapping that its rows need; "" for rows of a standard view."""

    @property
    def has_watermark(self) -> bool:
        """Whether its rows say when they changed; otherwise the whole is read again and again."""

    @property
    def beginning(self) -> Place | None:
        """Where the first reading begins; None for the start."""

    def select(self, place: Place | None, limit: int, *, tie: bool = False) -> Select[Any]:
        """Up to ``limit`` rows after a place; with ``tie`` only those of the place's watermark."""

    def cells(self, row: Sequence[Any], names: Sequence[str]) -> Row:
        """One row as it is delivered."""

    def place(self, cells: Row) -> Place:
        """Where a row stands in the order."""

    def standard(self, cells: Row) -> Row:
        """A row as the standard view has it."""


class StandardQuery:
    """A view of the contract, as the DBA made it."""

    mapping = ""
    has_watermark = True
    beginning: Place | None = None

    def __init__(self, name: str, view: View) -> None:
        self.name = name
        self.view = view

    def select(self, place: Place | None, limit: int, *, tie: bool = False) -> Select[Any]:
        """Every column there is: a view may leave some out."""
        schema, _, plain = self.name.rpartition(".")
        # Unquoted: a DBA writes the contract's names in whatever case the database folds them to.
        source = table(quoted_name(plain, quote=False), schema=quoted_name(schema, quote=False) if schema else None)
        statement: Select[Any] = select(literal_column("*")).select_from(source)
        return _in_order(statement, column("updated_at"), [column("row_key")], place, limit, tie)

    def cells(self, row: Sequence[Any], names: Sequence[str]) -> Row:
        """Names of columns in lower case, whatever the database makes of them."""
        return {name.lower(): value for name, value in zip(names, row, strict=True)}

    def place(self, cells: Row) -> Place:
        """By updated_at and row_key."""
        return Place(cells["updated_at"], (cells["row_key"],))

    def standard(self, cells: Row) -> Row:
        """The row itself."""
        return cells


class MappedQuery:
    """Tables of a HIS as a profile maps them."""

    def __init__(self, mapping: ViewMapping) -> None:
        self._mapping = mapping
        self.name = self.mapping = mapping.name
        self.view = VIEWS[mapping.view]
        self.has_watermark = bool(mapping.watermark)
        self.overlap = mapping.overlap
        self.every = mapping.every
        self.beginning = None if mapping.since is None else Place(mapping.since)
        self._columns = mapping.source_columns
        self._tables = {mapping.alias: _table(mapping.table, mapping.schema, mapping.alias)}
        for join in mapping.joins:
            self._tables[join.alias] = _table(join.table, join.schema, join.alias)

    def select(self, place: Place | None, limit: int, *, tie: bool = False) -> Select[Any]:
        """The columns that the mapping uses, and only them."""
        labels = {each: f"c{number}" for number, each in enumerate(self._columns)}
        statement = select(*(self._column(each).label(label) for each, label in labels.items()))
        statement = statement.select_from(self._joined())
        conditions = [self._condition(each) for each in self._mapping.where]
        if conditions:
            statement = statement.where(*conditions)
        named = [self._column(each) for each in self._mapping.watermark]
        keys = [self._column(each) for each in self._mapping.key]
        if len(named) < 2:
            return _in_order(statement, named[0] if named else None, keys, place, limit, tie)
        # The latest of several columns is worked out once, inside, and compared outside.
        inner = statement.add_columns(_greatest(named).label("w")).subquery("s")
        outer = select(*(inner.c[label] for label in labels.values()))
        return _in_order(outer, inner.c.w, [inner.c[labels[each]] for each in self._mapping.key], place, limit, tie)

    def cells(self, row: Sequence[Any], names: Sequence[str]) -> Row:  # noqa: ARG002 - the order is known
        """Cells under the names that the mapping gives them ("v.病人ID"), as they were read."""
        return {str(name): value for name, value in zip(self._columns, row, strict=True)}

    def place(self, cells: Row) -> Place:
        """By the watermark and the key."""
        key = tuple(cells[str(each)] for each in self._mapping.key)
        return Place(latest([cells[str(each)] for each in self._mapping.watermark]), key)

    def standard(self, cells: Row) -> Row:
        """The row that the mapping makes."""
        return mapped_row(self._mapping, cells)

    def _column(self, reference: ColumnRef) -> ColumnElement[Any]:
        named: ColumnElement[Any] = column(
            quoted_name(reference.name, quote=True),
            _selectable=self._tables[reference.alias],
        )
        return named

    def _joined(self) -> FromClause:
        joined = self._tables[self._mapping.alias]
        for join in self._mapping.joins:
            equal = [self._column(left) == self._column(right) for left, right in join.on]
            further = [self._condition(each) for each in join.where]
            joined = joined.outerjoin(self._tables[join.alias], and_(*equal, *further))
        return joined

    def _condition(self, condition: Condition) -> ColumnElement[bool]:
        named = self._column(condition.column)
        if condition.operator == "null":
            return named.is_(None) if condition.values[0] else named.is_not(None)
        if condition.operator == "in":
            return named.in_([literal(each) for each in condition.values])
        if condition.operator == "not":
            # NULL is not that value either, which SQL's own <> does not say
            return or_(named.is_(None), named != literal(condition.values[0]))
        return named == literal(condition.values[0])


def _table(name: str, schema: str, alias: str) -> FromClause:
    plain = table(quoted_name(name, quote=True), schema=quoted_name(schema, quote=True) if schema else None)
    return plain.alias(quoted_name(alias, quote=True))


def _greatest(columns: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
    """The latest of some columns. Written out: GREATEST is missing or treats NULL differently among the databases."""
    found = columns[-1]
    for position in range(len(columns) - 2, -1, -1):
        this, rest = columns[position], columns[position + 1 :]
        no_later = [or_(other.is_(None), this >= other) for other in rest]
        found = case((and_(this.is_not(None), *no_later), this), else_=found)
    return found


def _in_order(
    statement: Select[Any],
    watermark: ColumnElement[Any] | None,
    keys: Sequence[ColumnElement[Any]],
    place: Place | None,
    limit: int,
    tie: bool,
) -> Select[Any]:
    """Order and bound a statement, and let it begin after a place."""
    order = [*([watermark] if watermark is not None else []), *keys]
    statement = statement.order_by(*order).limit(limit)
    if watermark is None:
        return statement.where(_after(keys, place.key)) if place is not None and place.key else statement
    if place is None:
        return statement.where(watermark.is_not(None))
    reached = literal(place.watermark)
    if place.key is None:
        return statement.where(watermark >= reached)
    following = _after(keys, place.key)
    if tie:
        return statement.where(watermark == reached, following)
    # The first condition says nothing new; it is the one for which databases use an index.
    return statement.where(watermark >= reached, or_(watermark > reached, and_(watermark == reached, following)))


def _after(keys: Sequence[ColumnElement[Any]], values: Sequence[Any]) -> ColumnElement[bool]:
    """Whether a composite key comes after some values; SQL Server has no comparison of rows."""
    bound = [literal(value) for value in values]
    alternatives = []
    for position, (key, value) in enumerate(zip(keys, bound, strict=True)):
        same = [left == right for left, right in zip(keys[:position], bound[:position], strict=True)]
        alternatives.append(and_(*same, key > value))
    return or_(*alternatives)
