"""Whether a message that merely mentions a resource may change what is stored of it.

A laboratory report names the patient, the visit and the doctors with what the laboratory knows of them, which is less
than what admission said. Such an entry creates a resource that is not there yet; one that is there it replaces only
when it says at least as much, so that a mention may correct and add but never takes away.
"""

from __future__ import annotations

from typing import Any

_OF_THE_VERSION = frozenset({"meta", "text"})  # differ with every version and say nothing about the resource itself


def says_as_much(mentioned: dict[str, Any], stored: dict[str, Any]) -> bool:
    """Whether every element of ``stored``, at any depth, is in ``mentioned`` too; values may differ."""
    return all(
        name in mentioned and _covers(mentioned[name], value)
        for name, value in stored.items()
        if name not in _OF_THE_VERSION
    )


def _covers(mentioned: Any, stored: Any) -> bool:
    if isinstance(stored, dict):
        return isinstance(mentioned, dict) and all(
            name in mentioned and _covers(mentioned[name], value) for name, value in stored.items()
        )
    if isinstance(stored, list):
        return (
            isinstance(mentioned, list)
            and len(mentioned) >= len(stored)
            and all(_covers(new, old) for new, old in zip(mentioned, stored, strict=False))
        )
    return True
