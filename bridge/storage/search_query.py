"""A search as the store runs it: parsed, checked, without query-string syntax (``bridge.services.search`` parses)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bridge.storage.search_values import Span, Term

DEFAULT_COUNT = 20
MAX_COUNT = 200
"""Resources of one page: each is opened and held in memory, 2 KB to 70 KB."""

DatePrefix = Literal["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"]


@dataclass(frozen=True, slots=True)
class TermCriterion:
    """Resources that have at least one of these terms."""

    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class DateCriterion:
    """Resources whose range in ``parameter`` stands in at least one of these relations; ``_lastUpdated`` included."""

    parameter: str
    alternatives: tuple[tuple[DatePrefix, Span], ...]


@dataclass(frozen=True, slots=True)
class IdCriterion:
    """Resources with one of these ids."""

    ids: tuple[str, ...]


Criterion = TermCriterion | DateCriterion | IdCriterion


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page begins: after the resource with this sort value (Unix milliseconds; None for no value) and id."""

    value: int | None
    id: str


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search of one type. All criteria must hold.

    ``sort`` is ``_lastUpdated``, ``_id`` or a date parameter of the type; ``after`` continues an earlier page;
    ``count_only`` asks for the total alone (``_summary=count``), ``with_total`` for both.
    """

    type: str
    criteria: tuple[Criterion, ...] = ()
    sort: str = "_lastUpdated"
    descending: bool = True
    count: int = DEFAULT_COUNT
    after: Position | None = None
    count_only: bool = False
    with_total: bool = False
