"""Copies of other institutions' records, and their end: where a grant limits it, they are removed when it is reached.

Copies with a limit are kept by themselves, under a data key of their own (``bridge.services.local_copy``). Removing
them is the erasure of that key's subject: content and originals are gone for good, an AuditEvent records it, and what
was logged of them stays checkable as opaque leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import Engine, Table, select

from bridge.log import get_logger
from bridge.storage.database import read_transaction
from bridge.storage.exchange import ReceivedRecord

if TYPE_CHECKING:
    from bridge.services.erasure import ErasureService

BATCH = 200  # patients whose copies one run removes
REASON = "retention-ended"

_RECEIVED: Table = ReceivedRecord.__table__  # type: ignore[attr-defined]


class ReceivedCopies:
    """The copies that one node received."""

    def __init__(self, engine: Engine, erasure: ErasureService, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._erasure, self._clock = engine, erasure, clock

    def expire(self) -> int:
        """Remove copies whose time is over, each patient's recorded; return of how many patients."""
        over = (_RECEIVED.c.expires <= int(self._clock())) & (_RECEIVED.c.digest != "")
        with read_transaction(self._engine) as connection:
            wanted = select(_RECEIVED.c.subject).where(over).distinct().order_by(_RECEIVED.c.subject).limit(BATCH)
            subjects = list(connection.execute(wanted).scalars())
        for subject in subjects:
            done = self._erasure.erase(subject, REASON)
            get_logger("exchange").info(
                "copies removed, their time is over", audit_event=done.event, versions=done.versions
            )
        return len(subjects)
