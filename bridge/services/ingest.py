"""From a source's bytes to stored records: ``receive`` answers and keeps, ``process`` converts and stores.

``receive`` decides only what the sender must know at once: whether the message is kept, readable and of a type that can
be converted at all. It returns after the message is on the disk; ``receive_later`` gives a future for the same, and
``judge`` and ``keep`` are its two halves, for a listener that commits the messages of many senders together.
``process`` works off the inbox (``bridge.services.processing``).
``completed`` tells what became of messages, for those whose senders asked to be told (enhanced mode).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from bridge.errors import BridgeError, IngestError, Overloaded, StorageError
from bridge.services.conversion import ROWS_FORMAT, Converter, conversion, rows_as_bytes
from bridge.services.documents import document_delivery
from bridge.services.processing import InboxProcessor, Processed
from bridge.services.reception import AnswerRules, Reception, Verdict, answer
from bridge.storage.inbox import STORED, Accepted, Delivery, Inbox, InboxEntry, PreparedDelivery, Refusal
from bridge.storage.records import RecordStore
from fhir_adapters import SourceProfile
from fhir_adapters.hl7v2.header import Header

__all__ = ["Acknowledgement", "IngestService", "Processed", "acknowledgement_code"]

DEFAULT_PROFILE = "default"
"""Profile of a source that has none of its own, when the node has one of this name."""

UNSUPPORTED = "unsupported"
"""Refusal code that is answered AR, not AE: sending the message again will not help."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a sender is answered: ``ack`` the bytes without framing, ``code`` MSA-1.

    ``id`` is the message's number in the inbox, None when it could not be kept; ``replayed`` says that it was there
    before and nothing new was kept, ``conflict`` that its control id was there before with other content. ``wanted``
    is False when the sender asked for no such answer (MSH-15): a transport that has to answer may send it all the same.
    ``follow_up``: the sender wants to hear when the message has been processed; ``header`` is what answers it.
    """

    ack: bytes
    code: str
    id: int | None = None
    replayed: bool = False
    conflict: bool = False
    wanted: bool = True
    follow_up: bool = False
    header: Header | None = None

    @property
    def accepted(self) -> bool:
        """Whether the sender may forget the message."""
        return self.code in {"AA", "CA"}


@dataclass(frozen=True, slots=True)
class Judged:
    """A message that was looked at: the answer to it, and how it will be kept."""

    verdict: Verdict
    prepared: PreparedDelivery


class IngestService:
    """Takes messages in and works them off; ``profiles`` are by source name."""

    def __init__(
        self,
        engine: Engine,
        inbox: Inbox,
        records: RecordStore,
        profiles: Mapping[str, SourceProfile],
        clock: Callable[[], float] = time.time,
        worker: str = "ingest",
        converter: Converter | None = None,
    ) -> None:
        self._inbox = inbox
        self._profiles = profiles
        self._clock = clock
        self._reception = Reception(converter or conversion)
        self._processor = InboxProcessor(
            engine, inbox, records, self._profile, converter or conversion, clock=clock, worker=worker
        )

    # Taking messages

    def receive(self, source: str, raw: bytes) -> Acknowledgement:
        """Keep an HL7 v2 message and return the answer for its sender, after the commit.

        AA (CA in enhanced mode): kept, the sender may forget it. AE or AR: kept as failed, with the place of the error;
        or not kept because the node is full or its storage does not work, and then the answer says to try again.
        Raises ``IngestError`` for a source without a profile.
        """
        return self.receive_later(source, raw).result()

    def receive_later(self, source: str, raw: bytes) -> Future[Acknowledgement]:
        """As ``receive``, without waiting: the future is done after the commit."""
        moment = self._moment(source)
        verdict = self._reception.judge(raw, self._profile(source), moment)
        answered: Future[Acknowledgement] = Future()
        try:
            kept = self._inbox.accept_later(verdict.delivery(source, raw))
        except (Overloaded, StorageError) as error:
            answered.set_result(_not_kept(verdict, error))
            return answered
        kept.add_done_callback(lambda done: _answer_with(answered, verdict, done))
        return answered

    def receive_document(self, source: str, raw: bytes) -> Acknowledgement:
        """Keep a CDA document, and return after the commit what became of it (``code`` as for a message, no ``ack``).

        A document that cannot be read, is none or names no patient is kept as failed. Raises ``IngestError`` for a
        source without a profile.
        """
        delivery, code = document_delivery(source, raw, self._profile(source))
        try:
            accepted = self._inbox.accept(delivery)
        except (Overloaded, StorageError):
            return Acknowledgement(b"", "AE")
        return Acknowledgement(b"", code, accepted.id, accepted.replayed, accepted.conflict)

    def judge(self, source: str, raw: bytes) -> Judged:
        """Look at one message and make it ready to be kept; ``keep`` does that for many at once.

        Raises ``IngestError`` for a source without a profile, and nothing that a message could cause.
        """
        verdict = self._reception.judge(raw, self._profile(source), self._moment(source))
        return Judged(verdict, self._inbox.prepare(verdict.delivery(source, raw)))

    def keep(self, judged: Sequence[Judged]) -> list[Acknowledgement]:
        """Keep messages in one commit on this thread, in their order, and return the answers for their senders."""
        try:
            kept = self._inbox.accept_prepared([each.prepared for each in judged])
        except StorageError as error:
            return [_not_kept(each.verdict, error) for each in judged]
        return [
            _kept(each.verdict, done) if isinstance(done, Accepted) else _not_kept(each.verdict, done)
            for each, done in zip(judged, kept, strict=True)
        ]

    def receive_rows(
        self,
        source: str,
        view: str,
        rows: Sequence[Mapping[str, Any]],
        patient: str = "",
        *,
        mapping: str = "",
        control_id: str = "",
    ) -> Accepted:
        """Keep rows of a view as one message, and return after the commit.

        The same rows delivered again create nothing. ``patient`` keeps the order among deliveries about one patient.
        With ``mapping`` the cells are those of the source's own tables, and the profile's query of that name makes the
        view's rows of them when they are processed: a re-run uses the profile as it is then.
        Cells are what a driver returns: text, numbers, dates, bytes, None. Raises ``Overloaded``, ``StorageError`` and
        ``IngestError`` (a source without a profile, or a cell that is none of these).
        """
        self._profile(source)
        raw = rows_as_bytes(view, rows, mapping)
        delivery = Delivery(
            source=source, raw=raw, format=ROWS_FORMAT, event=view, patient=patient, control_id=control_id
        )
        return self._inbox.accept(delivery)

    # Working them off, and telling of it

    def process(self, limit: int, stopping: Callable[[], bool] = lambda: False) -> Processed:
        """Convert and store up to ``limit`` waiting messages; returns what was done.

        Ends early once ``stopping`` says so. Raises ``StorageError`` when the database does not work at all: nothing is
        lost, claims come back by themselves.
        """
        return self._processor.process(limit, stopping)

    def commit_with(self, committer: Executor) -> None:
        """Run the write transactions of ``process`` on another thread."""
        self._processor.commit_with(committer)

    def completed(self, waiting: Sequence[Acknowledgement]) -> dict[int, bytes | None]:
        """Return the application acknowledgements of messages that have been processed by now, by number.

        None where the sender wants none for what became of it (MSH-16). What still waits is not in the result.
        """
        entries = self._inbox.finished([each.id for each in waiting if each.id is not None])
        moment = datetime.fromtimestamp(self._clock(), UTC)
        return {
            each.id: application_answer(each.header, entries[each.id], moment)
            for each in waiting
            if each.id is not None and each.id in entries
        }

    def _moment(self, source: str) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC).astimezone(self._profile(source).zone)

    def _profile(self, source: str) -> SourceProfile:
        found = self._profiles.get(source) or self._profiles.get(DEFAULT_PROFILE)
        if found is None:
            raise IngestError("this node has no profile for the source")
        return found


def application_answer(header: Header | None, entry: InboxEntry, moment: datetime) -> bytes | None:
    """Return the application acknowledgement of a message that was processed; None when MSH-16 asks for none."""
    good = entry.state == STORED
    if not AnswerRules.of(header).applies(good):
        return None
    if good:
        return answer(header, "AA", None, moment)
    code = "AR" if entry.code == UNSUPPORTED else "AE"
    return answer(header, code, Refusal(entry.code, entry.location, entry.reason), moment)


def _answer_with(answered: Future[Acknowledgement], verdict: Verdict, done: Future[Accepted]) -> None:
    """Turn what became of the message in the inbox into the sender's answer (on the inbox's writing thread)."""
    error = done.exception()
    if isinstance(error, Overloaded | StorageError):
        answered.set_result(_not_kept(verdict, error))
    elif error is not None:
        answered.set_exception(error)
    else:
        answered.set_result(_kept(verdict, done.result()))


def _kept(verdict: Verdict, accepted: Accepted) -> Acknowledgement:
    rules = verdict.rules
    code = acknowledgement_code(accepted.acknowledgement) if accepted.replayed else verdict.code
    good = code in {"AA", "CA"}
    wanted = rules.accepts(good)
    # What was refused at once and may not be told so by a commit acknowledgement is told by the application's.
    follow_up = rules.applies(True) or rules.applies(False) if good else not wanted and rules.applies(False)
    return Acknowledgement(
        accepted.acknowledgement,
        code,
        accepted.id,
        accepted.replayed,
        accepted.conflict,
        wanted,
        follow_up,
        verdict.header if follow_up else None,
    )


def _not_kept(verdict: Verdict, error: BridgeError) -> Acknowledgement:
    """The answer to a message that is not on the disk: commit error, or the application's where only that is wanted."""
    refused = verdict.unavailable(error.message)
    rules = verdict.rules
    if not rules.accepts(False) and rules.applies(False):
        return Acknowledgement(answer(verdict.header, "AE", refused.refusal, verdict.moment), "AE")
    return Acknowledgement(refused.acknowledgement, refused.code, wanted=rules.accepts(False))


def acknowledgement_code(answer: bytes) -> str:
    """Return MSA-1 of an acknowledgement this node wrote earlier; "" when there is none."""
    position = answer.find(b"\rMSA")
    return answer[position + 5 : position + 7].decode("ascii", "replace") if position >= 0 else ""
