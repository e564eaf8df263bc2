"""Runs a search: which resources have all the terms and ranges asked for, page by page in a stable order.

A frequent term (half of all patients are male) is best answered by walking the resources in the order asked and
looking each one up; a rare one (an identifier) by starting from its few rows. Neither database can know which is
which from a blind value, so the statement is built on a bounded count of each term.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, func, literal, or_, select

from bridge.errors import KeyDestroyed
from bridge.storage.keyring import KeyRing
from bridge.storage.record_tables import CURRENT, RESOURCE, opened, select_versions
from bridge.storage.record_versions import SearchPage, StoredVersion
from bridge.storage.search_index import DATE, TERM, blind_term
from bridge.storage.search_query import DateCriterion, IdCriterion, Position, SearchQuery, TermCriterion
from bridge.storage.search_values import EARLIEST, Span

RARE_ROWS = 500
"""Up to so many rows a term is rare: starting from them costs less than a millisecond or two."""

Condition = ColumnElement[bool]


def run_search(connection: Connection, keyring: KeyRing, query: SearchQuery) -> SearchPage:
    """Return the page that ``query`` asks for; the page's ``after`` continues it, None at the end."""
    criteria, selective = _criteria(connection, keyring, query)
    conditions = [RESOURCE.c.type == query.type, RESOURCE.c.deleted.is_(False), *criteria]
    total = None
    if query.count_only or query.with_total:
        counted = select(func.count()).select_from(RESOURCE).where(*conditions)
        total = int(connection.execute(counted).scalar_one())
        if query.count_only:
            return SearchPage((), total)
    rows = connection.execute(_page(query, conditions, selective)).all()
    shown = rows[: query.count]
    after = None
    if len(rows) > query.count and shown:
        last = shown[-1]
        after = Position(None if query.sort == "_id" else int(last.sort_value), last.id)
    return SearchPage(tuple(_readable(keyring, shown)), total, after)


def _readable(keyring: KeyRing, rows: Sequence[Row[Any]]) -> Iterator[StoredVersion]:
    """Open rows, passing over those whose key was destroyed: their content is gone, the others' is not."""
    for row in rows:
        with suppress(KeyDestroyed):
            yield opened(keyring, row)


def _page(query: SearchQuery, conditions: list[Condition], selective: bool) -> Select[Any]:
    value: ColumnElement[Any]
    statement: Select[Any]
    if query.sort == "_id":
        value = literal(0)
        statement = select_versions(value.label("sort_value")).join(RESOURCE, CURRENT)
        order = [RESOURCE.c.id.desc() if query.descending else RESOURCE.c.id.asc()]
    else:
        if query.sort == "_lastUpdated":
            # few resources are fetched by id and sorted: the sum keeps a planner from walking the index of times
            value = RESOURCE.c.updated + 0 if selective else RESOURCE.c.updated
            statement = select_versions(value.label("sort_value")).join(RESOURCE, CURRENT)
        else:
            value = func.coalesce(DATE.c.low, EARLIEST - 1)
            statement = (
                select_versions(value.label("sort_value"))
                .join(RESOURCE, CURRENT)
                .join(
                    DATE,
                    and_(DATE.c.type == RESOURCE.c.type, DATE.c.id == RESOURCE.c.id, DATE.c.parameter == query.sort),
                    isouter=True,
                )
            )
        order = [value.desc(), RESOURCE.c.id.desc()] if query.descending else [value.asc(), RESOURCE.c.id.asc()]
    if query.after is not None:
        conditions = [*conditions, _beyond(query, value, query.after)]
    return statement.where(*conditions).order_by(*order).limit(query.count + 1)


def _beyond(query: SearchQuery, value: ColumnElement[Any], after: Position) -> Condition:
    identity = RESOURCE.c.id < after.id if query.descending else RESOURCE.c.id > after.id
    if query.sort == "_id" or after.value is None:
        return identity
    further = value < after.value if query.descending else value > after.value
    return or_(further, and_(value == after.value, identity))


def _criteria(connection: Connection, keyring: KeyRing, query: SearchQuery) -> tuple[list[Condition], bool]:
    """Return the conditions, and whether one of them leaves only a few resources."""
    found: list[Condition] = []
    dates: dict[str, list[DateCriterion]] = {}
    selective = False
    for criterion in query.criteria:
        if isinstance(criterion, IdCriterion):
            selective = True
            found.append(RESOURCE.c.id.in_(criterion.ids))
        elif isinstance(criterion, TermCriterion):
            blind = sorted({blind_term(keyring, term) for term in criterion.terms})
            has_one = and_(TERM.c.term.in_(blind), TERM.c.type == query.type)
            rare = _is_rare(connection, TERM, has_one)
            selective = selective or rare
            found.append(_has_row(TERM, has_one, rare))
        elif criterion.parameter == "_lastUpdated":
            found.append(_stands(criterion, RESOURCE.c.updated, RESOURCE.c.updated + 1))
        else:
            dates.setdefault(criterion.parameter, []).append(criterion)
    for parameter, criteria in dates.items():  # a resource has one row for a parameter, so one look answers all of them
        stand = [_stands(criterion, DATE.c.low, DATE.c.high) for criterion in criteria]
        in_range = and_(DATE.c.type == query.type, DATE.c.parameter == parameter, *stand)
        rare = not selective and _is_rare(connection, DATE, in_range)
        selective = selective or rare
        found.append(_has_row(DATE, in_range, rare))
    return found, selective


def _is_rare(connection: Connection, table: Table, condition: Condition) -> bool:
    some = select(literal(1)).select_from(table).where(condition).limit(RARE_ROWS).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one()) < RARE_ROWS


def _has_row(table: Table, condition: Condition, rare: bool) -> Condition:
    """Say that a resource has an index row that fulfils a condition: by starting there, or by looking there."""
    if rare:
        return RESOURCE.c.id.in_(select(table.c.id).where(condition))
    return select(literal(1)).where(condition, table.c.id == RESOURCE.c.id).correlate(RESOURCE).exists()


def _stands(criterion: DateCriterion, low: ColumnElement[Any], high: ColumnElement[Any]) -> Condition:
    return or_(*(_relation(prefix, span, low, high) for prefix, span in criterion.alternatives))


def _relation(prefix: str, span: Span, low: ColumnElement[Any], high: ColumnElement[Any]) -> Condition:
    """Compare the stored range with the one asked for (FHIR R4 3.1.1.4.5), both half-open."""
    inside = and_(low >= span.low, low < span.high, high <= span.high)
    relations: dict[str, Condition] = {
        "eq": inside,
        "ne": or_(low < span.low, high > span.high),
        "gt": high > span.high,
        "lt": low < span.low,
        "ge": or_(high > span.high, inside),
        "le": or_(low < span.low, inside),
        "sa": low >= span.high,
        "eb": high <= span.low,
    }
    return relations[prefix]
