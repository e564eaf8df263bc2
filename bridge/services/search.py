"""Parses FHIR search parameters (R4 3.1.1) into what the record store runs, and runs it.

Handling is strict: an unknown parameter, modifier, prefix or value is an error and never an unfiltered answer. Which
parameters a type has is data (``bridge.storage.search_parameters``), shared with the CapabilityStatement.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import orjson

from bridge.errors import SearchParameterError
from bridge.storage.records import RecordStore, SearchPage
from bridge.storage.search_parameters import SearchParameter, parameters_of
from bridge.storage.search_query import (
    MAX_COUNT,
    Criterion,
    DateCriterion,
    DatePrefix,
    IdCriterion,
    Position,
    SearchQuery,
    TermCriterion,
)
from bridge.storage.search_values import Span, Term, birth_range, normalised, parse_span, reference_form, token_terms

PAGE_PARAMETER = "_page"
"""Parameter that carries the paging token; it stands in the "next" link and means nothing to anybody else."""

MAX_PARAMETERS = 50
MAX_ALTERNATIVES = 100
"""Most parameters of one search, and most comma-separated values of one parameter."""

IGNORED_PARAMETERS = frozenset({"_format", "_pretty"})
"""About the form of the answer, which the route sees to."""

_PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII)
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d)?)?", re.ASCII)
_LARGEST = 2**63 - 1

Parameters = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A page, and the token that continues it ("" at the end)."""

    page: SearchPage
    next_token: str


class SearchService:
    """Searches the record store by FHIR parameters."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    def search(self, type: str, parameters: Iterable[tuple[str, str]]) -> SearchResult:
        """Run a search; ``parameters`` are decoded name and value pairs, in order. Raises ``SearchParameterError``."""
        query = parse_search(type, list(parameters))
        page = self._records.search(query)
        return SearchResult(page, page_token(query, page.after) if page.after else "")


def parse_search(type: str, parameters: Parameters) -> SearchQuery:
    """Return the query that decoded name and value pairs mean. Raises ``SearchParameterError`` naming the parameter."""
    if len(parameters) > MAX_PARAMETERS:
        raise SearchParameterError(f"a search has at most {MAX_PARAMETERS} parameters")
    query = SearchQuery(type)
    criteria: list[Criterion] = []
    token = ""
    for name, value in parameters:
        if name in IGNORED_PARAMETERS:
            continue
        if name == PAGE_PARAMETER:
            token = value
        elif name in {"_count", "_sort", "_summary", "_total"}:
            query = _with_control(query, name, value)
        else:
            criteria.append(_criterion(type, name, value))
    query = replace(query, criteria=tuple(criteria))
    return replace(query, after=_position(query, token)) if token else query


def page_token(query: SearchQuery, after: Position) -> str:
    """Return the opaque token for the page that begins after a position; it holds no patient data."""
    order = ("-" if query.descending else "") + query.sort
    return base64.urlsafe_b64encode(orjson.dumps([order, after.value, after.id])).decode().rstrip("=")


def _position(query: SearchQuery, token: str) -> Position:
    try:
        order, value, id = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError, TypeError):
        raise _error(PAGE_PARAMETER, "is no paging token of this server") from None
    whole = value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST)
    if not (whole and isinstance(id, str) and _ID.fullmatch(id)):
        raise _error(PAGE_PARAMETER, "is no paging token of this server")
    if order != ("-" if query.descending else "") + query.sort or (value is None) != (query.sort == "_id"):
        raise _error(PAGE_PARAMETER, "belongs to a search with another order")
    return Position(value, id)


def _with_control(query: SearchQuery, name: str, value: str) -> SearchQuery:
    """Apply one of the parameters that say how much is returned and in which order."""
    if name == "_count":
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise _error(name, "is not a number of resources")
        count = int(value)
        return replace(query, count=min(count, MAX_COUNT)) if count else replace(query, count_only=True)
    if name == "_sort":
        descending = value.startswith("-")
        key = value.removeprefix("-")
        parameter = parameters_of(query.type).get(key)
        if key not in {"_lastUpdated", "_id"} and (parameter is None or parameter.kind != "date"):
            raise _error(name, "takes one of _lastUpdated, _id or a date parameter of the type")
        return replace(query, sort=key, descending=descending)
    if name == "_summary":
        if value not in {"count", "false"}:
            raise _error(name, "takes count or false here")
        return replace(query, count_only=value == "count" or query.count_only)
    if value not in {"none", "estimate", "accurate"}:
        raise _error(name, "takes none, estimate or accurate")
    return replace(query, with_total=value != "none")


def _criterion(type: str, name: str, value: str) -> Criterion:
    plain, _, modifier = name.partition(":")
    values = _alternatives(name, value)
    if plain == "_id" and not modifier:
        if not all(_ID.fullmatch(each) for each in values):
            raise _error(name, "is not a FHIR id")
        return IdCriterion(tuple(values))
    if plain == "_lastUpdated" and not modifier:
        return DateCriterion(plain, tuple(_date_value(name, each) for each in values))
    parameter = parameters_of(type).get(plain)
    if parameter is None:
        raise _error(name, f"is not a search parameter of {type} here")
    field = f"{type}.{plain}"
    if parameter.kind == "reference":
        return TermCriterion(_all(_reference_terms(field, name, parameter, modifier, each) for each in values))
    if modifier and not (modifier == "exact" and parameter.kind == "string"):
        raise _error(name, "has a modifier that is not supported")
    if parameter.kind == "date":
        return DateCriterion(plain, tuple(_date_value(name, each) for each in values))
    if parameter.kind == "token":
        return TermCriterion(tuple(_token_term(field, name, each) for each in values))
    if parameter.kind == "string":
        terms = tuple((field, normalised(each)) for each in values)
        if not all(text for _, text in terms):
            raise _error(name, "is empty")
        return TermCriterion(terms)
    return TermCriterion(_all(_birth_terms(field, name, each) for each in values))


def _all(groups: Iterable[Iterable[Term]]) -> tuple[Term, ...]:
    return tuple(term for group in groups for term in group)


def _alternatives(name: str, value: str) -> list[str]:
    """Split at commas that are not escaped, and undo the escapes except for the bar, which a token still needs."""
    parts: list[str] = []
    current: list[str] = []
    characters = iter(value)
    for character in characters:
        if character == "\\":
            current.append(character + next(characters, ""))
        elif character == ",":
            parts.append("".join(current))
            current = []
        else:
            current.append(character)
    parts.append("".join(current))
    if len(parts) > MAX_ALTERNATIVES:
        raise _error(name, f"has more than {MAX_ALTERNATIVES} values")
    if not all(parts):
        raise _error(name, "has an empty value")
    return [re.sub(r"\\([,$\\])", r"\1", part) for part in parts]


def _token_term(field: str, name: str, value: str) -> Term:
    """Take ``code``, ``system|code`` or ``|code``; a bar inside a system or code is written with a backslash."""
    parts = [part.replace("\\|", "|") for part in re.split(r"(?<!\\)\|", value, maxsplit=1)]
    if len(parts) == 1:
        found = dict(token_terms(field, None, parts[0]))
        form = f"{field}#code"
    else:
        found = dict(token_terms(field, parts[0], parts[1]))
        form = f"{field}#full"
    if form not in found:
        raise _error(name, "needs a code: a whole system cannot be asked for")
    return form, found[form]


def _reference_terms(field: str, name: str, parameter: SearchParameter, modifier: str, value: str) -> Iterable[Term]:
    """Take ``id``, ``Type/id`` or an absolute URL; the modifier names the type."""
    if modifier and parameter.targets and modifier not in parameter.targets:
        raise _error(name, "names a type that this reference cannot have")
    if "://" in value or value.startswith("urn:"):
        return [(field, reference_form(value))]
    kind, separator, id = value.partition("/")
    if separator:
        if not (kind.isascii() and kind.isalpha() and _ID.fullmatch(reference_form(id))):
            raise _error(name, "is not a reference")
        if modifier and kind != modifier:
            raise _error(name, "names two different types")
        return [(field, reference_form(value))]
    if not _ID.fullmatch(value):
        raise _error(name, "is not a reference")
    targets = (modifier,) if modifier else parameter.targets
    if not targets:
        raise _error(name, "needs a type, as in Patient/123")
    return [(field, f"{target}/{value}") for target in targets]


def _prefixed(value: str) -> tuple[DatePrefix, str]:
    if value[:2] in _PREFIXES:
        return cast(DatePrefix, value[:2]), value[2:]
    return "eq", value


def _date_value(name: str, value: str) -> tuple[DatePrefix, Span]:
    prefix, text = _prefixed(value)
    span = parse_span(text.replace(" ", "+"))  # a plus sign that a client forgot to encode
    if span is None:
        raise _error(name, "is not a date, a date and time, or has an unknown prefix")
    return prefix, span


def _birth_terms(field: str, name: str, value: str) -> Iterable[Term]:
    prefix, text = _prefixed(value)
    if not _DATE.fullmatch(text) or parse_span(text) is None:
        raise _error(name, "is not a date, or has an unknown prefix")
    if prefix == "ne":
        raise _error(name, "cannot be asked with ne")
    found = [(field, each) for each in birth_range(prefix, text)]
    return found or [(field, "")]


def _error(name: str, text: str) -> SearchParameterError:
    shown = name if re.fullmatch(r"[A-Za-z_][A-Za-z_.:-]{0,60}", name, re.ASCII) else "a parameter"
    return SearchParameterError(f"{shown} {text}", shown)


__all__ = ["PAGE_PARAMETER", "SearchResult", "SearchService", "page_token", "parse_search"]
