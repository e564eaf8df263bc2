"""How long the pages of a release are kept at the holder, and what of releases is not settled: the gap report.

Pages are kept so that a broken transfer goes on. They go when the requester has confirmed on the ledger what arrived,
and a week after their last use in any case; a repetition is refused then, so nothing is disclosed a second time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from anchor.errors import ChainError
from bridge.storage.database import write_transaction
from bridge.storage.disclosures import DisclosureStore
from bridge.storage.pages import ReleasePages

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient

KEPT_SECONDS = 8 * 86_400  # as long as a request may be repeated (``access_request.KNOWN_SECONDS``)
CONFIRMED_SECONDS = 3600  # after a confirmation: the requester may have died before it noted what it stored
UNCONFIRMED_SECONDS = 900  # a release that nobody has confirmed for so long is reported


@dataclass(frozen=True, slots=True)
class OpenEvent:
    """Something of an exchange that has no end yet. ``since`` is in Unix seconds."""

    kind: str
    request: str
    other: str
    since: int
    detail: str = ""


class ReleaseKeeping:
    """Tidies up and reports on the releases of one holder."""

    def __init__(
        self,
        engine: Engine,
        store: DisclosureStore,
        pages: ReleasePages,
        chain: ChainClient,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._store, self._pages = engine, store, pages
        self._chain, self._clock = chain, clock

    def purge(self) -> int:
        """Throw away the pages of releases that are done with; return of how many."""
        now = self._clock()
        gone = 0
        for row in self._store.with_pages(now - CONFIRMED_SECONDS):
            if row.updated > now - KEPT_SECONDS and not self._confirmed(row):
                continue
            with write_transaction(self._engine) as connection:
                self._pages.drop(connection, row.request_id)
                self._store.set(connection, row.request_id, int(row.updated), pages=0)
            gone += 1
        return gone

    def unconfirmed(self) -> list[OpenEvent]:
        """Return the releases of this holder that the ledger has no reception of, or a rejected one.

        A ledger that does not answer leaves them all unknown, which is reported as such.
        """
        now, found = self._clock(), []
        for row in self._store.unconfirmed(now - UNCONFIRMED_SECONDS):
            if row.received == "rejected":
                found.append(OpenEvent("release-rejected", row.request_id, row.requester, row.updated))
                continue
            try:
                receive = (self._chain.state(f"request/{row.request_id}") or {}).get("receive")
            except ChainError:
                found.append(OpenEvent("release-unknown", row.request_id, row.requester, row.updated))
                continue
            if receive is None:
                found.append(OpenEvent("release-without-receive", row.request_id, row.requester, row.updated))
            elif receive["status"] == "rejected":
                found.append(OpenEvent("release-rejected", row.request_id, row.requester, row.updated))
                self._note(row, "rejected")
            else:
                self._note(row, "verified")
        return found

    def _note(self, row: Any, status: str) -> None:
        """Keep how a release ended, so that the ledger is asked of it no more."""
        with write_transaction(self._engine) as connection:
            self._store.set(connection, row.request_id, int(row.updated), received=status)

    def _confirmed(self, row: Any) -> bool:
        with suppress(ChainError):
            return bool((self._chain.state(f"request/{row.request_id}") or {}).get("receive"))
        return False
