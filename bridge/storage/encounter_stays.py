"""The places of an Encounter, when a message tells of a move or an end and not of all that was before.

A transfer names the place left and the place reached; a discharge the place where the patient lay at the end. What is
stored of earlier stays remains, a stay that is told of again is completed, and a patient is in one place at a time.
"""

from __future__ import annotations

from typing import Any

Stay = dict[str, Any]


def with_stays(stored: list[Stay], said: list[Stay]) -> list[Stay]:
    """Return the stored stays with those that a message tells of, oldest first as they were."""
    result = [dict(each) for each in stored]
    for stay in said:
        known = next((index for index, each in enumerate(result) if _is_same(each, stay)), None)
        if known is None:
            result.append(stay)
        else:
            period = {**result[known].get("period", {}), **stay.get("period", {})}
            result[known] = {**result[known], **stay, **({"period": period} if period else {})}
    current = [each for each in said if each.get("status") == "active"]
    if current:
        begun = current[-1].get("period", {}).get("start")
        result = [_left(each, begun) if _goes_on(each) and not _is_same(each, current[-1]) else each for each in result]
    return result


def completed_period(stored: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """Return a period with the ends that a message knows: a discharge need not repeat when the stay began."""
    return {**stored, **said}


def _goes_on(stay: Stay) -> bool:
    return stay.get("status") == "active"


def _left(stay: Stay, moment: str | None) -> Stay:
    period = dict(stay.get("period", {}))
    if moment:
        period.setdefault("end", moment)
    return {**stay, "status": "completed", **({"period": period} if period else {})}


def _is_same(one: Stay, other: Stay) -> bool:
    """Whether two stays are one: the same place, and not begun at two different times.

    A stay that has ended and one without a beginning are two: the patient came back.
    """
    if _place(one) != _place(other):
        return False
    begun = [each.get("period", {}).get("start") for each in (one, other)]
    if all(begun):
        return bool(begun[0] == begun[1])
    return "end" not in one.get("period", {}) or bool(one.get("period") == other.get("period"))


def _place(stay: Stay) -> str:
    location = stay.get("location")
    return str(location.get("reference", "")) if isinstance(location, dict) else ""
