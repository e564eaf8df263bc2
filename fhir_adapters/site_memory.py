"""What adapters remember of a source from one message to the next: its wards, beds, staff, departments and authorities.

They come back in every message, spelled alike, so what was made of a spelling is made once. Patients and what happens
to them are never kept. A memory belongs to one profile: what a spelling becomes depends on nothing else.
"""

import marshal
from typing import Any

REMEMBERED = 4096
"""Spellings kept of each kind (about 4 MB in all): a large hospital has some 3,000 staff and 2,000 beds. When they are
more, all are forgotten and learnt again, which costs less than keeping account of their use."""


class SiteMemory:
    """Spelling -> what was made of it. Threads may share one: each step is one operation of a dict."""

    __slots__ = ("_made", "systems")

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], bytes] = {}
        self.systems: dict[str, str] = {}
        """Assigning authority as it is spelled -> its identifier system; to be read only."""

    def resources(self, kind: str, raw: str) -> list[dict[str, Any]] | None:
        """The resources made of a spelling, as new objects that the caller may change; None when it is not known."""
        packed = self._made.get((kind, raw))
        return None if packed is None else marshal.loads(packed)  # noqa: S302 - bytes of this very process

    def keep_resources(self, kind: str, raw: str, made: list[dict[str, Any]]) -> None:
        """Remember resources of text, truth values and whole numbers, as they are now."""
        if len(self._made) >= REMEMBERED:
            self._made.clear()
        self._made[kind, raw] = marshal.dumps(made)

    def keep_system(self, authority: str, system: str) -> None:
        """Remember the identifier system of an assigning authority."""
        if len(self.systems) >= REMEMBERED:
            self.systems.clear()
        self.systems[authority] = system
