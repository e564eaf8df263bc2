"""The worker's side of ingest: claimed messages become stored records.

A batch is converted and planned without holding a write transaction (``bridge.storage.record_plan``); then its records,
their outbox rows and the messages' new states are written in one, so that a message takes effect exactly once however
often its worker dies, and the database is held for as long as inserting takes. Where another thread commits, the next
messages are converted meanwhile.

What fails: a fault of the message (it cannot be read, mapped or validated) refuses that message and nothing else; a
fault of the node (database, lost race) puts it back with a growing delay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace

from sqlalchemy import Engine

from anchor.errors import AnchorError
from bridge.errors import BridgeError, DatabaseUnavailable, IngestError, KeyDestroyed, LeaseLost, VersionConflict
from bridge.process_identity import is_gone, process_name, process_prefix
from bridge.services.conversion import (
    FHIR_FORMAT,
    Converter,
    adapter_of,
    amended_elements,
    is_mention,
    kept_elements,
    refusal_of,
    unlinked_patients,
)
from bridge.services.identity import subject_of
from bridge.storage.database import contested, write_transaction
from bridge.storage.inbox import RECEIVED, Claim, Inbox, Refusal
from bridge.storage.inbox_claims import LoadedMessage
from bridge.storage.keyring import NODE
from bridge.storage.record_versions import PreparedWrite
from bridge.storage.records import Lineage, PutResult, RecordStore, RecordWrite
from fhir_adapters import SourceProfile
from fhir_adapters.errors import AdapterError

MESSAGES_PER_TRANSACTION = 32
"""Messages stored in one transaction: one fsync for all of them, and little to repeat after a lost race."""

RECORDS_PER_TRANSACTION = 300
"""Records after which a transaction takes no further message: acknowledging waits for it on SQLite, some 30 ms."""

BYTES_PER_LOAD = 16 * 1024 * 1024
"""Message bytes held in memory at once, unless a single message is larger."""

RECOVERY_SECONDS = 10.0
"""How often a worker looks for leases of processes of this machine that no longer run."""

OUTDATED = "outdated"
"""Issue code of a record that a message which arrived later had written before."""

CONFLICT = "conflict"
"""Issue code of a patient of whom another sex, birth date or identity number is stored, or who was merged away."""
ERASED = "patient-erased"
"""Refusal code of a message about a patient whose data were erased here."""
ERASED_TEXT = (
    "this patient's data were erased here, and nothing of the message was kept: new care needs a new patient number "
    "in the source system / 该患者数据已在本节点销毁，消息内容未保留；如重新就诊，请在源系统使用新的患者编号"
)

_TEXTS = {
    "gender": "the sex differs from the one stored for this patient",
    "birthDate": "the birth date differs from the one stored for this patient",
    "identifier": "the identity number differs from the one stored for this patient",
    "link": "the record was merged into another and is used again",
}


@dataclass(frozen=True, slots=True)
class Processed:
    """What one call of ``process`` did, in messages; false when there was nothing to do."""

    claimed: int = 0
    stored: int = 0
    refused: int = 0
    postponed: int = 0
    versions: int = 0

    def __bool__(self) -> bool:
        return self.claimed > 0


@dataclass(frozen=True, slots=True)
class _Decided:
    """A claimed message with the records it became, or with the reason why it became none."""

    claim: Claim
    issues: tuple[dict[str, str], ...] = ()
    writes: tuple[PreparedWrite, ...] = ()
    subject: str | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class _Flight:
    """Messages whose transaction is being written on the committer's thread."""

    decided: Sequence[_Decided]
    versions: int
    written: Future[None]


@dataclass(slots=True)
class _Run:
    """One call of ``process``: what it has done, which patients are held up, and which claims it gives back."""

    done: Processed
    held: set[bytes] = field(default_factory=set)
    back: list[Claim] = field(default_factory=list)
    flight: _Flight | None = None

    def hold(self, claim: Claim) -> None:
        """Let nothing of this message's patient overtake it."""
        if claim.patient is not None:
            self.held.add(claim.patient)

    def may_go(self, claim: Claim) -> bool:
        """Whether nothing of this patient was held up; a claim that may not go is given back."""
        if claim.patient is None or claim.patient not in self.held:
            return True
        self.back.append(claim)
        return False

    def stored(self, decided: Sequence[_Decided], versions: int) -> None:
        """Count messages whose transaction is over."""
        refused = sum(each.refusal is not None for each in decided)
        self.count(stored=len(decided) - refused, refused=refused, versions=versions)

    def count(self, **more: int) -> None:
        """Add to what was done."""
        self.done = replace(self.done, **{name: getattr(self.done, name) + by for name, by in more.items()})


class InboxProcessor:
    """Works off the inbox; ``profiles`` are by source name."""

    def __init__(
        self,
        engine: Engine,
        inbox: Inbox,
        records: RecordStore,
        profile_of: Callable[[str], SourceProfile],
        converter: Converter,
        clock: Callable[[], float] = time.time,
        worker: str = "ingest",
    ) -> None:
        self._engine = engine
        self._inbox = inbox
        self._records = records
        self._profile_of = profile_of
        self._converter = converter
        self._clock = clock
        self._worker = process_name(worker)
        self._committer: Executor | None = None
        self._recovered = float("-inf")

    def commit_with(self, committer: Executor) -> None:
        """Run write transactions on another thread, one that is not slowed down as the converting one is."""
        self._committer = committer

    def process(self, limit: int, stopping: Callable[[], bool] = lambda: False) -> Processed:
        """Convert and store up to ``limit`` waiting messages; returns what was done.

        Ends early once ``stopping`` says so, and gives back what it has not begun. Raises ``StorageError`` when the
        database does not work at all: nothing is lost, claims come back by themselves.
        """
        self._recover()
        claims = self._inbox.claim(self._worker, limit)
        run = _Run(Processed(claimed=len(claims)))
        renewed = self._clock()
        begun = 0
        try:
            for portion in _portions(claims):
                if stopping():
                    break
                if self._clock() - renewed > self._inbox.visibility_seconds / 3:
                    self._inbox.renew(claims[begun:])
                    renewed = self._clock()
                self._process(portion, run)
                begun += len(portion)
            self._land(run)
        finally:
            if run.flight is not None:
                wait([run.flight.written])
            run.back += claims[begun:]
            with suppress(BridgeError):  # their leases run out by themselves
                self._inbox.release(run.back)
        return run.done

    def _process(self, claims: Sequence[Claim], run: _Run) -> None:
        """Convert messages that fit into memory together, and store them in transactions of a bounded size."""
        loaded = self._inbox.load(claims)
        waiting: list[_Decided] = []
        for claim in claims:
            message = loaded.pop(claim.id, None)
            if message is None:
                run.hold(claim)  # its row is gone, so it is nobody's any more
                continue
            if claim.format == FHIR_FORMAT:  # it may refer to what those before it bring
                self._store(waiting, run)
                self._land(run)
                waiting = []
            try:
                waiting.append(self._decided(claim, message))
            except (VersionConflict, DatabaseUnavailable) as error:
                self._failed(_Decided(claim), error, run)
            if sum(len(each.writes) for each in waiting) >= RECORDS_PER_TRANSACTION:
                self._store(waiting, run)
                waiting = []
        if waiting:
            self._store(waiting, run)

    def _decided(self, claim: Claim, message: LoadedMessage) -> _Decided:
        """Convert one message; a fault of its own is the reason to refuse it, one of the database is raised."""
        try:
            return self._converted(claim, message)
        except (VersionConflict, DatabaseUnavailable):
            raise
        except (BridgeError, AdapterError, AnchorError) as error:
            return _Decided(claim, refusal=_refusal(error))
        except Exception as error:  # noqa: BLE001 - a fault in a mapping stops its message, never the queue
            fault = IngestError("the conversion failed", cause=type(error).__name__)
            return _Decided(claim, refusal=_refusal(fault))

    def _store(self, decided: Sequence[_Decided], run: _Run) -> None:
        """Store messages once those before them are stored; with a committer the next are converted meanwhile."""
        self._land(run)
        decided = [each for each in decided if run.may_go(each.claim)]
        if self._committer is None or not decided:
            self._store_now(decided, run)
            return
        try:
            write, versions = self._planned(decided)
        except (BridgeError, AnchorError):
            self._store_now(decided, run)
        else:
            run.flight = _Flight(decided, versions, self._committer.submit(write))

    def _land(self, run: _Run) -> None:
        """Wait for the transaction under way; where it failed, its messages are stored anew."""
        flight, run.flight = run.flight, None
        if flight is None:
            return
        try:
            flight.written.result()
        except (BridgeError, AnchorError):
            self._store_now(flight.decided, run)
        else:
            run.stored(flight.decided, flight.versions)

    def _store_now(self, decided: Sequence[_Decided], run: _Run) -> None:
        """Store messages together, or one by one where that fails, so that each fault finds its message."""
        decided = [each for each in decided if run.may_go(each.claim)]
        if not decided:
            return
        try:
            versions = contested(lambda: self._commit(decided))
        except (BridgeError, AnchorError) as error:
            if len(decided) == 1:
                self._failed(decided[0], error, run)
                return
            for each in decided:
                self._store_now([each], run)
        else:
            run.stored(decided, versions)

    def _commit(self, decided: Sequence[_Decided]) -> int:
        write, versions = self._planned(decided)
        if self._committer is None:
            write()
        else:
            self._committer.submit(write).result()
        return versions

    def _planned(self, decided: Sequence[_Decided]) -> tuple[Callable[[], None], int]:
        """Return what stores the records of several messages and marks these, in one transaction, and how many versions
        that makes."""
        stored = [each for each in decided if each.refusal is None]
        refused = [self._inbox.refused(each.claim, each.refusal, each.issues) for each in decided if each.refusal]
        plan = self._records.plan([write for each in stored for write in each.writes])
        outcomes = []
        position = 0
        for each in stored:
            own = plan.results[position : position + len(each.writes)]
            position += len(each.writes)
            issues = [*each.issues, *_outdated(own), *_contradictions(own)]
            versions = [result.ref for result in own]
            outcomes.append(self._inbox.outcome(each.claim, subject=each.subject, issues=issues, versions=versions))

        def write() -> None:
            with write_transaction(self._engine) as connection:
                self._records.apply(connection, plan)
                self._inbox.finish_all(connection, outcomes)
                self._inbox.refuse_all(connection, refused)

        return write, sum(result.changed for result in plan.results)

    def _converted(self, claim: Claim, loaded: LoadedMessage) -> _Decided:
        """Convert one message; no transaction is open meanwhile."""
        raw = self._inbox.open(loaded)
        result = self._converter(raw, claim.format, self._profile_of(claim.source))
        entries = result.bundle.get("entry", ())
        resources = [entry["resource"] for entry in entries]
        patients = {subject_of(each) for each in resources if each.get("resourceType") == "Patient"}
        named = patients or {subject_of(each) for each in resources} - {NODE}
        subject = named.pop() if len(named) == 1 else None
        lineage = Lineage(claim.source, claim.digest, adapter_of(claim.format))
        writes = tuple(
            self._records.prepare(
                RecordWrite(
                    each,
                    lineage,
                    subject_of(each, subject or NODE),
                    mention=is_mention(entry),
                    arrival=claim.id,
                    amends=amended_elements(entry),
                    unlinks=unlinked_patients(entry),
                    keeps=kept_elements(claim.format, each),
                )
            )
            for entry, each in zip(entries, resources, strict=True)
        )
        issues = tuple(issue.as_dict() for issue in result.issues)
        error = next((each for each in issues if each["severity"] == "error"), None)
        if error is not None and not writes:  # nothing of it could be converted
            return _Decided(claim, issues, refusal=Refusal(error["code"], error["location"], error["text"]))
        return _Decided(claim, issues, writes, subject)

    def _failed(self, decided: _Decided, error: Exception, run: _Run) -> None:
        """Record why a message was not stored: for good when the message is at fault, for now when the node is."""
        claim = decided.claim
        try:
            if isinstance(error, LeaseLost):
                run.hold(claim)
            elif isinstance(error, VersionConflict | DatabaseUnavailable):
                if self._inbox.retry(claim, Refusal("unavailable", "", error.message)) == RECEIVED:
                    run.hold(claim)
                run.count(postponed=1)
            elif isinstance(error, KeyDestroyed) and decided.subject is not None:
                self._inbox.refuse_erased(claim, _refusal(error), decided.subject)
                run.count(refused=1)
            else:
                self._inbox.refuse(claim, _refusal(error), decided.issues)
                run.count(refused=1)
        except LeaseLost:
            run.hold(claim)

    def _recover(self) -> None:
        """End the leases of processes of this machine that are gone, so that nobody waits for them to run out."""
        if self._clock() - self._recovered < RECOVERY_SECONDS:
            return
        self._recovered = self._clock()
        for holder in self._inbox.lease_holders():
            if is_gone(holder):
                self._inbox.recover(process_prefix(holder))


def _portions(claims: Sequence[Claim]) -> Iterator[list[Claim]]:
    """Part claims into portions whose messages fit into memory together, and into one transaction each."""
    portion: list[Claim] = []
    size = 0
    for claim in claims:
        if portion and (len(portion) == MESSAGES_PER_TRANSACTION or size + claim.size > BYTES_PER_LOAD):
            yield portion
            portion, size = [], 0
        portion.append(claim)
        size += claim.size
    if portion:
        yield portion


def _outdated(results: Sequence[PutResult]) -> list[dict[str, str]]:
    """Return a remark for each record that stayed as a later message had left it."""
    text = "a message that arrived later had written this record; it stays as it is"
    return [
        {"severity": "information", "code": OUTDATED, "location": f"{each.type}/{each.id}", "text": text}
        for each in results
        if each.outdated
    ]


def _contradictions(results: Sequence[PutResult]) -> list[dict[str, str]]:
    """Return a remark for each element in which a message contradicts what was stored of a patient."""
    return [
        {
            "severity": "warning",
            "code": CONFLICT,
            "location": f"{each.type}/{each.id}.{element}",
            "text": _TEXTS[element],
        }
        for each in results
        for element in each.contradicts
    ]


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, KeyDestroyed):
        return Refusal(ERASED, "", ERASED_TEXT)
    if isinstance(error, AdapterError):
        return refusal_of(error)
    if isinstance(error, BridgeError):
        return Refusal(type(error).__name__, "", " ".join(filter(None, (error.message, error.cause))))
    return Refusal(type(error).__name__, "", str(error))
