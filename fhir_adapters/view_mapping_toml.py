"""Reads the ``[[views]]`` of a source profile (``fhir_adapters.view_mapping`` shows the form), checked."""

import codecs
import re
from collections.abc import Mapping
from datetime import date, datetime
from types import MappingProxyType
from typing import Any

from fhir_adapters.errors import ProfileError
from fhir_adapters.spelling import refuse_unknown, suggestion
from fhir_adapters.view_mapping import ColumnRef, Condition, Expression, Join, ViewMapping

MAX_IDENTIFIER_CHARS = 128
"""Longest name of a table or column, in characters: what SQL Server and Oracle allow."""

MAX_MAPPINGS = 100
"""Most queries of one profile."""

_SHAPE_KEYS = {"view", "name", "from", "schema", "as", "join", "key", "columns", "where"}
_READING_KEYS = {"watermark", "overlap", "since", "every"}
_ENTRY_KEYS = _SHAPE_KEYS | _READING_KEYS
_FORM = re.compile(r"(?:%[YmdHMS]|[-/:. T])*")
_SOURCES = ("column", "value", "join", "first")


def view_mappings(entries: Any) -> tuple[ViewMapping, ...]:
    """The mappings of a profile. Raises ProfileError naming the key that is wrong."""
    if not isinstance(entries, list):
        raise ProfileError("must be a list of tables ([[views]])", "views")
    if len(entries) > MAX_MAPPINGS:
        raise ProfileError(f"more than {MAX_MAPPINGS} queries", "views")
    made = tuple(_mapping(entry, f"views[{number}]") for number, entry in enumerate(entries))
    names = [each.name for each in made]
    for name in names:
        if names.count(name) > 1:
            raise ProfileError("two queries of one name; give each its own", f"views.{name}")
    return made


def _mapping(entry: Any, place: str) -> ViewMapping:
    table = _table(entry, place)
    refuse_unknown(table, _ENTRY_KEYS, place)
    alias = _text(table.get("as", "t"), f"{place}.as")
    joins = tuple(_join(each, f"{place}.join[{n}]") for n, each in enumerate(_list(table, "join", place)))
    aliases = (alias, *(join.alias for join in joins))
    for each in aliases:
        if not (each.isidentifier() and each.isascii() and aliases.count(each) == 1):
            raise ProfileError("an alias is a short ASCII word, one for each table", f"{place}.as")
    mapping = ViewMapping(
        view=_view_name(table, place),
        name=_text(table.get("name", table.get("view")), f"{place}.name"),
        table=_text(table.get("from"), f"{place}.from"),
        schema=_text(table.get("schema", ""), f"{place}.schema", empty=True),
        alias=alias,
        key=tuple(_column(each, f"{place}.key") for each in _list(table, "key", place)),
        watermark=_watermark(table.get("watermark"), f"{place}.watermark"),
        columns=_columns(table.get("columns"), f"{place}.columns"),
        joins=joins,
        where=_conditions(table, place),
        overlap=_seconds(table, "overlap", place),
        since=_since(table.get("since"), f"{place}.since"),
        every=_seconds(table, "every", place) or 3600.0,
    )
    _check(mapping, aliases, place)
    return mapping


def _check(mapping: ViewMapping, aliases: tuple[str, ...], place: str) -> None:
    from fhir_adapters.view_contract import LINEAGE, VIEWS

    view = VIEWS[mapping.view]
    if not mapping.key:
        raise ProfileError("name the columns that tell rows apart", f"{place}.key")
    refuse_unknown(mapping.columns, view.columns, f"{place}.columns", f"{mapping.view} has no such column")
    for name in sorted(view.required - LINEAGE - mapping.columns.keys()):
        raise ProfileError(f"{mapping.view} requires this column", f"{place}.columns.{name}")
    used = [*mapping.source_columns, *(each.column for each in mapping.where)]
    for join in mapping.joins:
        used += [each for pair in join.on for each in pair]
        used += [each.column for each in join.where]
    for each in used:
        if each.alias not in aliases:
            raise ProfileError(f"no table is called {each.alias} here", place)
    if any(each.alias != mapping.alias for each in mapping.key):
        raise ProfileError("the key is made of columns of the first table", f"{place}.key")


def _view_name(table: Mapping[str, Any], place: str) -> str:
    from fhir_adapters.view_contract import VIEWS

    name = _text(table.get("view"), f"{place}.view").upper()
    if name not in VIEWS:
        raise ProfileError(
            "no such view" + (suggestion(name, VIEWS) or "; one of " + ", ".join(VIEWS)), f"{place}.view"
        )
    return name


def _columns(table: Any, place: str) -> Mapping[str, Expression]:
    return MappingProxyType(
        {name: _expression(value, f"{place}.{name}") for name, value in _table(table, place).items()}
    )


def _expression(value: Any, place: str) -> Expression:
    if isinstance(value, str):
        return Expression("column", (_column(value, place),))
    table = _table(value, place)
    kinds = [name for name in _SOURCES if name in table]
    if len(kinds) != 1:
        raise ProfileError("say one of column, value, join, first", place)
    refuse_unknown(table, (kinds[0], "with", "charset", "stored_as", "codes", "form"), place)
    kind = kinds[0]
    if kind == "value":
        return Expression("value", value=_text(table["value"], place))
    listed = [table["column"]] if kind == "column" else _list(table, kind, place)
    if not listed:
        raise ProfileError("name at least one column", place)
    codes = table.get("codes", {})
    if not isinstance(codes, Mapping) or not all(isinstance(each, str) for each in codes.values()):
        raise ProfileError("must be a table of text", f"{place}.codes")
    return Expression(
        "column" if kind == "column" else "join" if kind == "join" else "first",
        tuple(_column(each, place) for each in listed),
        separator=_raw_text(table.get("with", ""), f"{place}.with"),
        charset=_charset(table.get("charset", ""), f"{place}.charset"),
        stored_as=_charset(table.get("stored_as", ""), f"{place}.stored_as"),
        form=_form(table.get("form", ""), f"{place}.form"),
        codes=MappingProxyType(dict(codes)),
    )


def _join(value: Any, place: str) -> Join:
    table = _table(value, place)
    refuse_unknown(table, ("table", "schema", "as", "on", "where"), place)
    pairs = _table(table.get("on"), f"{place}.on")
    if not pairs:
        raise ProfileError("name the columns that are equal", f"{place}.on")
    return Join(
        _text(table.get("table"), f"{place}.table"),
        _text(table.get("schema", ""), f"{place}.schema", empty=True),
        _text(table.get("as"), f"{place}.as"),
        tuple((_column(left, f"{place}.on"), _column(right, f"{place}.on")) for left, right in pairs.items()),
        _conditions(table, place),
    )


def _conditions(table: Mapping[str, Any], place: str) -> tuple[Condition, ...]:
    made: list[Condition] = []
    for number, each in enumerate(_list(table, "where", place)):
        where = f"{place}.where[{number}]"
        entry = _table(each, where)
        column = _column(entry.get("column"), where)
        rest = {key: value for key, value in entry.items() if key != "column"}
        if set(rest) == {"equals"} and _is_plain(rest["equals"]):
            made.append(Condition(column, "equals", (rest["equals"],)))
        elif set(rest) == {"not"} and _is_plain(rest["not"]):
            made.append(Condition(column, "not", (rest["not"],)))
        elif set(rest) == {"null"} and isinstance(rest["null"], bool):
            made.append(Condition(column, "null", (rest["null"],)))
        elif set(rest) == {"in"} and isinstance(rest["in"], list) and rest["in"] and all(map(_is_plain, rest["in"])):
            made.append(Condition(column, "in", tuple(rest["in"])))
        else:
            raise ProfileError("say equals, not, in or null, and a value", where)
    return tuple(made)


def _watermark(value: Any, place: str) -> tuple[ColumnRef, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (_column(value, place),)
    table = _table(value, place)
    if set(table) != {"latest"} or not _list(table, "latest", place):
        raise ProfileError("must be a column, or { latest = [columns] }", place)
    return tuple(_column(each, place) for each in table["latest"])


def _since(value: Any, place: str) -> datetime | date | str | int | None:
    if value is None or isinstance(value, datetime | date | str) or type(value) is int:
        return value
    raise ProfileError("must be a time, a text or a number, as the watermark is", place)


def _seconds(table: Mapping[str, Any], key: str, place: str) -> float | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e10:
        raise ProfileError("must be a number of seconds", f"{place}.{key}")
    return float(value)


def _column(value: Any, place: str) -> ColumnRef:
    text = _text(value, place)
    alias, dot, name = text.partition(".")
    if not dot or not alias or not name.strip():
        raise ProfileError('must be a column as "alias.column"', place)
    return ColumnRef(alias, name)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | datetime | date) and not isinstance(value, bool)


def _text(value: Any, place: str, empty: bool = False) -> str:
    if not isinstance(value, str) or (not value.strip() and not empty):
        raise ProfileError("must be text", place)
    if len(value) > MAX_IDENTIFIER_CHARS or any(ord(character) < 32 for character in value):
        raise ProfileError(f"longer than {MAX_IDENTIFIER_CHARS} characters, or with control characters", place)
    return value.strip()


def _raw_text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ProfileError("must be text", place)
    return value


def _form(value: Any, place: str) -> str:
    form = _raw_text(value, place)
    if not _FORM.fullmatch(form):
        raise ProfileError("must be made of %Y %m %d %H %M %S and signs between them", place)
    return form


def _charset(value: Any, place: str) -> str:
    name = _raw_text(value, place)
    if name:
        try:
            known = codecs.lookup(name)
        except (LookupError, ValueError) as error:
            raise ProfileError("no such character set", place) from error
        if not getattr(known, "_is_text_encoding", True):
            raise ProfileError("not a character set of text", place)
    return name


def _table(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ProfileError("must be a table", place)
    return value


def _list(table: Mapping[str, Any], key: str, place: str) -> list[Any]:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise ProfileError("must be a list", f"{place}.{key}")
    return value
