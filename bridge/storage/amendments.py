"""A resource put on top of what is stored of it, where a source says one thing about it and not all there is to say.

A merge message says that a patient was merged into another and knows little more than the number; a patient's update
says nothing about earlier merges. ``amended`` gives what is stored afterwards.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from bridge.storage.encounter_stays import completed_period, with_stays

_NOT_ELEMENTS = frozenset({"resourceType", "id", "meta"})


def amended(
    stored: dict[str, Any],
    said: dict[str, Any],
    *,
    elements: Collection[str],
    unlinked: Collection[str] = (),
    later: bool = True,
) -> dict[str, Any]:
    """Return ``stored`` with what is said about it.

    Of the ``elements`` lists are added to (of an Encounter's stays, those told of again are completed) and values
    replaced, periods completed; other elements fill gaps only. ``unlinked`` are patients
    to whom a ``Patient.link`` is taken away first. When what is said is not ``later`` than what is stored, it still
    adds and fills gaps, and replaces and takes away nothing.
    """
    result = dict(stored)
    if unlinked and later and isinstance(result.get("link"), list):
        taken = [each for each in result["link"] if _linked_to(each) in unlinked]
        result["link"] = [each for each in result["link"] if each not in taken]
        if any(_replaced(each) for each in taken) and result.get("active") is False:
            result["active"] = True  # what merged it away is taken back
    for name, value in said.items():
        if name in _NOT_ELEMENTS:
            continue
        held = result.get(name)
        if held is None:
            result[name] = value
        elif name in elements and name == "location" and stored.get("resourceType") == "Encounter" and later:
            result[name] = with_stays(held, value)
        elif name in elements and isinstance(held, list) and isinstance(value, list):
            result[name] = [*held, *(each for each in value if each not in held)]
        elif name in elements and later:
            result[name] = completed_period(held, value) if name == "period" else value
    if not result.get("link", True):
        del result["link"]
    return result


def with_kept(said: dict[str, Any], stored: dict[str, Any], elements: Collection[str]) -> dict[str, Any]:
    """Return ``said`` with lists of ``stored`` that a source of this kind never speaks of, or only ever adds to.

    A patient that was merged into another stays inactive with the link that says so.
    """
    result = said
    for name in elements:
        held = stored.get(name)
        if not isinstance(held, list):
            continue
        own = said.get(name) or []
        result = {**result, name: [*held, *(each for each in own if each not in held)]}
        if "active" in stored and "active" not in said and any(_replaced(each) for each in held):
            result["active"] = stored["active"]
    return result


def _replaced(link: Any) -> bool:
    return isinstance(link, dict) and link.get("type") == "replaced-by"


def _linked_to(link: Any) -> str:
    other = link.get("other") if isinstance(link, dict) else None
    return str(other.get("reference", "")) if isinstance(other, dict) else ""
