"""The pages of one release at the holder: built, sealed and kept one by one, then fetched by the requester.

What the ledger's ``access.release`` commits to is the *manifest*, ``{"v":1,"request","pages":[SM3 of each envelope]}``
in canonical JSON: it binds every page to the request and to its place, so no page can be exchanged, left out or taken
from another release. A page is asked for by request id and number, in a request that the requester signs like any
other.

Pages that were built before a release is committed are thrown away and built anew when the process died in between:
nothing of them has left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine

from anchor import canonical
from anchor.gm import PrivateKey, PublicKey, sm3
from anchor.receipt import disclosed_root
from bridge.errors import DisclosureRefused, PeerUnavailable
from bridge.services.decision import Scope
from bridge.services.envelope import seal
from bridge.services.release_content import MAX_PAGES
from bridge.storage.database import write_transaction
from bridge.storage.disclosures import DisclosureStore
from bridge.storage.pages import ReleasePages

if TYPE_CHECKING:
    from bridge.services.release_content import Collected, ContentBuilder


def manifest_digest(request: str, pages: Sequence[str]) -> str:
    """Return what stands for a release's envelopes on the ledger, hex; ``pages`` are their SM3 digests, hex."""
    return sm3(canonical.dump({"v": 1, "request": request, "pages": list(pages)})).hex()


@dataclass(frozen=True, slots=True)
class Sealed:
    """A release whose pages are ready. ``disclosed``: the Merkle root over all ``count`` digests, hex.

    ``first``: the envelope of the first page, where it was made just now.
    """

    pages: tuple[str, ...]
    manifest: str
    disclosed: str
    count: int
    refs: tuple[str, ...]
    first: bytes | None = None


class PageSealer:
    """Builds the pages of a release and keeps them."""

    def __init__(
        self,
        engine: Engine,
        store: DisclosureStore,
        pages: ReleasePages,
        content: ContentBuilder,
        *,
        chain_id: str,
        key: PrivateKey,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._store, self._pages, self._content = engine, store, pages, content
        self._chain_id, self._key, self._clock = chain_id, key, clock

    def collect(self, patients: Sequence[str], scope: Scope) -> Collected:
        """Begin to collect what a release covers, for ``seal``; what goes wrong shows there."""
        return self._content.collect(patients, scope)

    def seal(
        self,
        header: Mapping[str, Any],
        patient: str,
        collected: Collected,
        recipient_key: PublicKey,
        *,
        pending_allowed: bool,
        note: Callable[[Connection], None],
        anew: bool = True,
    ) -> Sealed:
        """Build, seal and keep every page under a patient's key; the row then is "sealed".

        ``note`` is called in the transaction of the first page, before it. ``anew``: there may be pages of a process
        that died, which are thrown away. ``pending_allowed``: records may leave whose receipts are not on the ledger
        yet. Raises ``DisclosureRefused`` ("too-large"), ``PeerUnavailable`` (receipts are still on their way),
        ``ChainError``.
        """
        request = str(header["request"])
        digests: list[bytes] = []
        refs: list[str] = []
        pages: list[str] = []
        first = b""
        if anew:
            with write_transaction(self._engine) as connection:
                self._pages.drop(connection, request)
                self._store.drop_records(connection, request)
        ended: dict[str, Any] = {}
        for content in self._content.pages(collected, dict(header), int(self._clock())):
            if content.pending and not pending_allowed:
                raise PeerUnavailable("the records' receipts are not on the ledger yet; ask again")
            if len(pages) >= MAX_PAGES:
                raise DisclosureRefused("too-large", "the record is larger than one release may be; limit the request")
            envelope = seal(content.plaintext, chain=self._chain_id, signing_key=self._key, recipient_key=recipient_key)
            first = first or envelope
            start = len(digests)
            pages.append(sm3(envelope).hex())
            digests += content.digests
            refs += content.refs
            if content.last:
                ended = self._ended(request, pages, digests)
            listed = [(ref, each.hex()) for ref, each in zip(content.refs, content.digests, strict=True)]
            with write_transaction(self._engine) as connection:
                if len(pages) == 1:
                    note(connection)
                self._pages.add(connection, request, len(pages) - 1, patient, envelope, pages[-1], len(content.digests))
                self._store.add_records(connection, request, start, listed)
                # the time, so that others see it is in hand
                self._store.set(connection, request, int(self._clock()), **ended)
        return Sealed(tuple(pages), ended["manifest"], ended["disclosed"], ended["count"], tuple(refs), first)

    @staticmethod
    def _ended(request: str, pages: Sequence[str], digests: Sequence[bytes]) -> dict[str, Any]:
        """Return what is noted of a release with its last page."""
        return {
            "state": "sealed",
            "pages": len(pages),
            "manifest": manifest_digest(request, pages),
            "disclosed": disclosed_root(digests).hex(),
            "count": len(digests),
        }

    def sealed(self, row: Any) -> Sealed:
        """Return what was sealed for a request before."""
        refs = tuple(ref for ref, _ in self._store.records(row.request_id))
        return Sealed(self._pages.digests(row.request_id), row.manifest, row.disclosed, row.count, refs)

    def envelope(self, row: Any, number: int) -> bytes:
        """Return the very envelope of a page; raises ``Gone``, ``KeyDestroyed``."""
        return self._pages.envelope(row.request_id, number, row.patient_id)

    def drop(self, connection: Any, request: str) -> None:
        """Throw away what will not leave any more; what was disclosed stays noted."""
        self._pages.drop(connection, request)
        self._store.set(connection, request, int(self._clock()), pages=0)
