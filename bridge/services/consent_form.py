"""A consent as the fields of a form: read into terms, and terms written back into fields (pure).

Fields are named as in ``FIELDS``; those of the exceptions carry a row number ("except-0-category"). What a form does
not have is refused by name, so that nothing that somebody meant to limit gets lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from bridge.errors import InvalidRequest
from bridge.services.decision import Exclusion
from bridge.services.grant_terms import CHINA_TIME, MAX_EXCLUSIONS, GrantTerms, Period, end_of_day

FIELDS = frozenset({"grantee", "purpose", "until", "category", "label", "records-from", "records-until", "role",
                    "copies-days", "guardian"})  # fmt: skip
MAX_VALUE_CHARACTERS = 200
EMPTY_ROWS = 2
"""Rows for exceptions that a form has beyond those in use."""
_ROW_FIELDS = ("category", "label", "from", "until", "grantee")
_ROW = re.compile(rf"except-([0-9]{{1,2}})-({'|'.join(_ROW_FIELDS)})")

Fields = Mapping[str, Sequence[str]]


def read_terms(fields: Fields, *, now: int, before: GrantTerms | None = None) -> GrantTerms:
    """Return the terms of a filled form; raises ``InvalidRequest`` naming the field that cannot be kept.

    ``now``: Unix seconds, from when on a new consent holds. ``before``: the terms that are changed; their beginning
    stays, and so does their end where the form shows the same day. Whether the terms make sense is
    ``GrantTerms.check``'s.
    """
    given = {name: tuple(value.strip() for value in values if value.strip()) for name, values in fields.items()}
    for name, values in given.items():
        if name not in FIELDS and not _ROW.fullmatch(name):
            raise InvalidRequest(f"the form has no field {name[:40]} / 表单字段无效")
        if any(len(value) > MAX_VALUE_CHARACTERS for value in values):
            raise InvalidRequest(f"{name} is longer than any value is / 内容过长")
    until = _one(given, "until")
    if until is None:
        raise InvalidRequest("name the last day of the consent / 请填写授权截止日期")
    ends = end_of_day(_day(until, "until"))
    if before is not None and [until] == fields_of(before)["until"]:
        ends = before.valid_until
    copies = _one(given, "copies-days")
    return GrantTerms(
        grantees=_all(given, "grantee"),
        purposes=_all(given, "purpose"),
        valid_until=ends,
        valid_from=now if before is None else before.valid_from,
        categories=_all(given, "category") or None,
        labels=_all(given, "label"),
        period=_period(given, "records-from", "records-until"),
        exclusions=_exclusions(given),
        roles=_all(given, "role"),
        copies_days=None if copies is None else _days(copies),
        guardian=_one(given, "guardian"),
    )


def fields_of(terms: GrantTerms) -> dict[str, Any]:
    """Return what a form shows of terms: field name -> texts, and "exceptions", a list of such for each row."""
    shown: dict[str, Any] = {
        "grantee": list(terms.grantees),
        "purpose": list(terms.purposes),
        "until": [datetime.fromtimestamp(terms.valid_until - 1, CHINA_TIME).date().isoformat()],
        "category": list(terms.categories or ()),
        "label": list(terms.labels),
        "records-from": _shown(terms.period[0]),
        "records-until": _shown(terms.period[1]),
        "role": list(terms.roles),
        "copies-days": [] if terms.copies_days is None else [str(terms.copies_days)],
        "guardian": _shown(terms.guardian),
    }
    shown["exceptions"] = [
        {
            "category": list(each.categories or ()),
            "label": list(each.labels),
            "from": _shown(each.period[0]),
            "until": _shown(each.period[1]),
            "grantee": list(each.grantees),
        }
        for each in terms.exclusions
    ]
    return shown


def rows(shown: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the exceptions of ``fields_of`` with empty rows after them; "filled" says which is which."""
    filled = [{**row, "filled": True} for row in shown.get("exceptions", ())]
    empty: dict[str, Any] = {**{name: [] for name in _ROW_FIELDS}, "filled": False}
    return filled + [empty] * min(EMPTY_ROWS, MAX_EXCLUSIONS - len(filled))


def _exclusions(given: Fields) -> tuple[Exclusion, ...]:
    """Return the exceptions of the rows that are filled, in the order of their numbers."""
    found: dict[int, dict[str, tuple[str, ...]]] = {}
    for name, values in given.items():
        row = _ROW.fullmatch(name)
        if row is not None and values:
            found.setdefault(int(row[1]), {})[row[2]] = tuple(dict.fromkeys(values))
    return tuple(
        Exclusion(
            row.get("category") or None, row.get("label", ()), _period(row, "from", "until"), row.get("grantee", ())
        )
        for _, row in sorted(found.items())
    )


def _all(given: Fields, name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(given.get(name, ())))


def _one(given: Fields, name: str) -> str | None:
    values = _all(given, name)
    if len(values) > 1:
        raise InvalidRequest(f"{name} has one value / {name} 只能有一个值")
    return values[0] if values else None


def _period(given: Fields, first: str, last: str) -> Period:
    days = [_one(given, name) for name in (first, last)]
    for name, day in zip((first, last), days, strict=True):
        if day is not None:
            _day(day, name)
    return days[0], days[1]


def _day(text: str, name: str) -> date:
    try:
        day = date.fromisoformat(text)
        if day.isoformat() != text or day.year > 9000:  # the end of the last years cannot be counted in seconds
            raise ValueError
    except ValueError as error:
        raise InvalidRequest(f"{name} is a day as 2026-12-31 / 日期格式错误") from error
    return day


def _days(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise InvalidRequest("copies-days is a number of days / 副本保存天数无效")
    return int(text)


def _shown(text: str | None) -> list[str]:
    return [] if text is None else [text]
