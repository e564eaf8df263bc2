"""Takes FHIR that clients write: checked, kept in the inbox, stored by a worker like everything that arrives.

The client waits a little for the worker, so that it usually hears what became of its resources; when it takes longer,
it is told where to ask. What is wrong is said at once and nothing of it is kept: the client still has it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from anchor.gm import sm3
from bridge.errors import NotFound
from bridge.services.conversion import FHIR_FORMAT
from bridge.services.fhir_resolution import MATCHED
from bridge.storage.inbox import DEAD, FAILED, STORED, Accepted, Delivery, Inbox, InboxDetail
from fhir_adapters import SourceProfile, fhir_json

LOOK_SECONDS = 0.05  # how often the waiting client's message is looked at
MANY_WAITING = 1_000  # messages waiting beyond which a client is not kept waiting for its turn
_KEY_BYTES = 12
_CONTROL_ID_CHARACTERS = 32
_MAX_KEY_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a request, as far as is known.

    ``references``: where each entry was to go, in order ("Type/id"); empty when it is asked for later.
    ``versions``: what is stored, as "Type/id/_history/n"; ``existing``: what was there already and was not created.
    ``problems``: place and text of entries of a batch that were left out. ``refusal``, ``code`` and ``place``: why and
    where it was refused.
    """

    number: int
    state: str
    references: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    existing: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    code: str = ""
    refusal: str = ""
    place: str = ""
    received: int = 0

    @property
    def done(self) -> bool:
        """Whether it was processed, well or not."""
        return self.state in (STORED, FAILED, DEAD)


class FhirIntake:
    """Receives FHIR from clients."""

    def __init__(
        self,
        inbox: Inbox,
        profile_of: Callable[[str], SourceProfile],
        wait_seconds: float,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inbox = inbox
        self._profile_of = profile_of
        self._wait_seconds = wait_seconds
        self._pause = pause

    def submit(self, source: str, client: str, raw: bytes, *, event: str, key: str = "", wait: bool = True) -> Written:
        """Check and keep a Bundle; return what became of it, or that it still waits.

        ``key`` is the client's own name of the request: the same bytes under the same key are one request. Raises
        AdapterError for what cannot be taken, ``Overloaded`` and ``StorageError`` when it could not be kept.
        """
        return self._finish(*self._take(source, client, raw, event, key), wait=wait)

    def _take(self, source: str, client: str, raw: bytes, event: str, key: str) -> tuple[int, tuple[str, ...]]:
        """Keep a Bundle in the inbox; return its number and where each entry is to go."""
        result = fhir_json.convert(raw, self._profile_of(source))
        entries = result.bundle.get("entry", ())
        references = tuple(each["request"]["url"] for each in entries[:-1])  # the last is our Provenance
        delivery = Delivery(
            source=source,
            raw=raw,
            format=FHIR_FORMAT,
            control_id=f"{client}:{key[:_MAX_KEY_CHARACTERS] or secrets.token_hex(_KEY_BYTES)}",
            event=event,
            patient=_order(source),
        )
        return self._inbox.accept(delivery).id, references

    def receive(self, source: str, raw: bytes, event: str = "file") -> Accepted:
        """Keep what a file holds. The same content again is the same message. Raises as ``submit``."""
        fhir_json.convert(raw, self._profile_of(source))
        name = sm3(raw).hex()[:_CONTROL_ID_CHARACTERS]
        return self._inbox.accept(
            Delivery(source=source, raw=raw, format=FHIR_FORMAT, control_id=name, event=event, patient=_order(source))
        )

    def _finish(self, number: int, references: tuple[str, ...], *, wait: bool) -> Written:
        """Wait a little for the worker."""
        written = self._look(number, references)
        if wait and self._inbox.backlog().messages < MANY_WAITING:
            for _ in range(int(self._wait_seconds / LOOK_SECONDS)):
                if written.done:
                    break
                self._pause(LOOK_SECONDS)
                written = self._look(number, references)
        return written

    def ask(self, client: str, number: int) -> Written:
        """Return what became of a client's own request. Raises ``NotFound`` for anybody else's."""
        entry = self._inbox.show(number).entry
        if entry.format != FHIR_FORMAT or not entry.control_id.startswith(f"{client}:"):
            raise NotFound
        return self._look(number, ())

    def _look(self, number: int, references: tuple[str, ...]) -> Written:
        detail: InboxDetail = self._inbox.show(number)
        entry = detail.entry
        refused = entry.state != STORED
        versions = (
            each
            for each in detail.versions
            if not each.startswith("Provenance/") or each.rpartition("/_history/")[0] in references
        )
        return Written(
            number,
            entry.state,
            references,
            tuple(versions),
            tuple(issue["location"] for issue in detail.issues if issue["code"] == MATCHED),
            tuple((issue["location"], issue["text"]) for issue in detail.issues if issue["severity"] == "error"),
            entry.code if refused else "",
            entry.reason if refused else "",
            entry.location if refused else "",
            entry.received,
        )


def _order(source: str) -> str:
    """The key of the order in which the inbox gives messages out: FHIR of one source refers to what it sent before."""
    return f"fhir:{source}"
