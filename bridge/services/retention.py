"""Lets old messages go: stored ones after some days, those that failed after longer, and sooner where room is short.

What a stored message said is in the records, so its own copy may go first; what failed is the only copy there is, and
stays as long as somebody may want to mend its mapping. Waiting messages never go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bridge.storage.inbox import DEAD, FAILED, STORED, Inbox

SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class RetentionTerms:
    """How long messages stay, in days, and how many bytes stored ones may take (0: any number)."""

    stored_days: float
    failed_days: float
    stored_max_bytes: int


class RetentionService:
    """Removes what has run its course."""

    def __init__(self, inbox: Inbox, terms: RetentionTerms, clock: Callable[[], float]) -> None:
        self._inbox = inbox
        self._terms = terms
        self._clock = clock

    def run(self) -> int:
        """Remove messages past their time or beyond the room they may take; return how many."""
        now, terms = self._clock(), self._terms
        removed = self._inbox.purge(now - terms.stored_days * SECONDS_PER_DAY, [STORED])
        removed += self._inbox.purge(now - terms.failed_days * SECONDS_PER_DAY, [FAILED, DEAD])
        if terms.stored_max_bytes:
            removed += self._inbox.purge_to_size(terms.stored_max_bytes)
        return removed
