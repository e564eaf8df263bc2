"""The worker's side of ingest: claimed messages become stored records.

A batch is converted and planned without holding a write transaction (``bridge.storage.record_plan``); then its records,
their outbox rows and the messages' new states are written in one, so that a message takes effect exactly once however
often its worker dies, and the database is held for as long as inserting takes.

What fails: a fault of the message (it cannot be read, mapped or validated) refuses that message and nothing else; a
fault of the node (database, lost race) puts it back with a growing delay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from anchor.errors import AnchorError
from bridge.errors import BridgeError, DatabaseUnavailable, IngestError, LeaseLost, VersionConflict
from bridge.process_identity import is_gone, process_name, process_prefix
from bridge.services.conversion import (
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
from bridge.storage.inbox import Claim, Inbox, Refusal
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
class _Converted:
    """A claimed message and the records it became."""

    claim: Claim
    writes: tuple[PreparedWrite, ...]
    issues: tuple[dict[str, str], ...]
    subject: str | None

    @property
    def errors(self) -> list[Refusal]:
        """The issues of severity "error"."""
        return [
            Refusal(issue["code"], issue["location"], issue["text"])
            for issue in self.issues
            if issue["severity"] == "error"
        ]


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
        total = Processed(claimed=len(claims))
        renewed = self._clock()
        done = 0
        try:
            for portion in _portions(claims):
                if stopping():
                    break
                if self._clock() - renewed > self._inbox.visibility_seconds / 3:
                    self._inbox.renew(claims[done:])
                    renewed = self._clock()
                total = self._process(portion, total)
                done += len(portion)
        finally:
            if done < len(claims):
                with suppress(BridgeError):  # their leases run out by themselves
                    self._inbox.release(claims[done:])
        return total

    def _process(self, claims: Sequence[Claim], total: Processed) -> Processed:
        """Convert messages that fit into memory together, and store them in transactions of a bounded size."""
        loaded = self._inbox.load(claims)
        waiting: list[_Converted] = []
        for claim in claims:
            try:
                result = self._convert(claim, loaded.pop(claim.id, None))
            except (BridgeError, AdapterError, AnchorError) as error:
                total = self._failed(claim, error, total)
            except Exception as error:  # noqa: BLE001 - a fault in a mapping stops its message, never the queue
                total = self._failed(claim, IngestError("the conversion failed", cause=type(error).__name__), total)
            else:
                if result.errors and not result.writes:  # nothing of it could be converted
                    total = self._refused(claim, result.errors[0], total, result.issues)
                    continue
                waiting.append(result)
                if sum(len(each.writes) for each in waiting) >= RECORDS_PER_TRANSACTION:
                    total = self._store(waiting, total)
                    waiting = []
        return self._store(waiting, total) if waiting else total

    def _store(self, converted: Sequence[_Converted], total: Processed) -> Processed:
        """Store messages together, or one by one where that fails, so that each fault finds its message."""
        try:
            return _counted(total, contested(lambda: self._commit(converted)))
        except (BridgeError, AnchorError) as error:
            if len(converted) == 1:
                return self._failed(converted[0].claim, error, total)
        for each in converted:
            total = self._store([each], total)
        return total

    def _commit(self, converted: Sequence[_Converted]) -> list[list[PutResult]]:
        """Store the records of several messages and mark them stored, in one transaction."""
        plan = self._records.plan([write for each in converted for write in each.writes])
        led_to: list[list[PutResult]] = []
        outcomes = []
        position = 0
        for each in converted:
            own = plan.results[position : position + len(each.writes)]
            position += len(each.writes)
            led_to.append(own)
            outcomes.append(
                self._inbox.outcome(
                    each.claim,
                    subject=each.subject,
                    issues=[*each.issues, *_outdated(own), *_contradictions(own)],
                    versions=[result.ref for result in own],
                )
            )

        def write() -> None:
            with write_transaction(self._engine) as connection:
                self._records.apply(connection, plan)
                self._inbox.finish_all(connection, outcomes)

        if self._committer is None:
            write()
        else:
            self._committer.submit(write).result()
        return led_to

    def _convert(self, claim: Claim, loaded: LoadedMessage | None) -> _Converted:
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
        return _Converted(claim, writes, tuple(issue.as_dict() for issue in result.issues), subject)

    def _failed(self, claim: Claim, error: Exception, total: Processed) -> Processed:
        """Record why a message was not stored: for good when the message is at fault, for now when the node is."""
        if isinstance(error, LeaseLost):
            return total
        if isinstance(error, VersionConflict | DatabaseUnavailable):
            with suppress(LeaseLost):
                self._inbox.retry(claim, Refusal("unavailable", "", error.message))
            return replace(total, postponed=total.postponed + 1)
        return self._refused(claim, _refusal(error), total)

    def _refused(
        self, claim: Claim, refusal: Refusal, total: Processed, issues: Sequence[dict[str, str]] = ()
    ) -> Processed:
        try:
            self._inbox.refuse(claim, refusal, issues)
        except LeaseLost:
            return total
        return replace(total, refused=total.refused + 1)

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
    if isinstance(error, AdapterError):
        return refusal_of(error)
    if isinstance(error, BridgeError):
        return Refusal(type(error).__name__, "", " ".join(filter(None, (error.message, error.cause))))
    return Refusal(type(error).__name__, "", str(error))


def _counted(total: Processed, led_to: Sequence[Sequence[PutResult]]) -> Processed:
    changed = sum(result.changed for results in led_to for result in results)
    return replace(total, stored=total.stored + len(led_to), versions=total.versions + changed)
