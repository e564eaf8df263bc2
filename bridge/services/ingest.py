"""From a source's bytes to stored records: ``receive`` answers and keeps, ``process`` converts and stores.

``receive`` decides only what the sender must know at once: whether the message is kept, readable and of a type that can
be converted at all. It returns after the message is on the disk. ``process`` works off the inbox: it converts without
holding a database transaction, then stores the records, their outbox rows and the message's new state in one, so that a
message takes effect exactly once however often its worker dies.

What fails: a fault of the message (it cannot be read, mapped or validated) refuses that message and nothing else; a
fault of the node (database, lost race) puts it back with a growing delay.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import Connection, Engine

from anchor.errors import AnchorError
from bridge.errors import (
    BridgeError,
    DatabaseUnavailable,
    IngestError,
    LeaseLost,
    Overloaded,
    StorageError,
    VersionConflict,
)
from bridge.process_identity import is_gone, process_name, process_prefix
from bridge.services.identity import subject_of
from bridge.services.reception import Converter, Reception, Verdict, refusal_of
from bridge.storage.database import transact
from bridge.storage.inbox import Accepted, Claim, Delivery, Inbox, Refusal
from bridge.storage.keyring import NODE
from bridge.storage.records import Lineage, PutResult, RecordStore, RecordWrite
from fhir_adapters import ConversionResult, SourceProfile, convert, hl7v2, tabular
from fhir_adapters.errors import AdapterError
from fhir_adapters.tabular.mapped import find_mapping, mapped_row

DEFAULT_PROFILE = "default"
"""Profile of a source that has none of its own, when the node has one of this name."""

ROWS_FORMAT = "rows"
"""Inbox format of rows read from a view: JSON with the view's name and its rows."""

MESSAGES_PER_TRANSACTION = 32
"""Messages stored in one transaction: one fsync for all of them, and little to repeat after a lost race."""

MAX_PLAIN_DIGITS = 40
"""Numbers with more digits before or after the point are written with an exponent."""

RECOVERY_SECONDS = 10.0
"""How often a worker looks for leases of processes of this machine that no longer run."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a sender is answered: ``ack`` the bytes without framing, ``code`` MSA-1.

    ``id`` is the message's number in the inbox, None when it could not be kept; ``replayed`` says that it was there
    before and nothing new was kept, ``conflict`` that its control id was there before with other content.
    """

    ack: bytes
    code: str
    id: int | None = None
    replayed: bool = False
    conflict: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the sender may forget the message."""
        return self.code in {"AA", "CA"}


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
    """A claimed message and the resources it became."""

    claim: Claim
    writes: tuple[RecordWrite, ...]
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
        self._engine = engine
        self._inbox = inbox
        self._records = records
        self._profiles = profiles
        self._clock = clock
        self._worker = process_name(worker)
        self._converter = converter or conversion
        self._reception = Reception(self._converter)
        self._recovered = float("-inf")

    # Taking messages

    def receive(self, source: str, raw: bytes) -> Acknowledgement:
        """Keep an HL7 v2 message and return the answer for its sender, after the commit.

        AA (CA in enhanced mode): kept, the sender may forget it. AE or AR: kept as failed, with the place of the error;
        or not kept because the node is full or its storage does not work, and then the answer says to try again.
        Raises ``IngestError`` for a source without a profile.
        """
        moment = datetime.fromtimestamp(self._clock(), UTC).astimezone(self._profile(source).zone)
        verdict = self._reception.judge(raw, self._profile(source), moment)
        try:
            accepted = self._inbox.accept(verdict.delivery(source, raw))
        except (Overloaded, StorageError) as error:
            refused = verdict.unavailable(error.message)
            return Acknowledgement(refused.acknowledgement, refused.code)
        code = _code_of(accepted, verdict)
        return Acknowledgement(accepted.acknowledgement, code, accepted.id, accepted.replayed, accepted.conflict)

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
        try:
            delivered: dict[str, Any] = {"view": view, "rows": [dict(row) for row in rows]}
            if mapping:
                delivered["mapping"] = mapping
            raw = orjson.dumps(delivered, default=_cell)
        except (orjson.JSONEncodeError, TypeError):
            raise IngestError("a row holds a value that cannot be kept") from None
        delivery = Delivery(
            source=source, raw=raw, format=ROWS_FORMAT, event=view, patient=patient, control_id=control_id
        )
        return self._inbox.accept(delivery)

    def _profile(self, source: str) -> SourceProfile:
        found = self._profiles.get(source) or self._profiles.get(DEFAULT_PROFILE)
        if found is None:
            raise IngestError("this node has no profile for the source")
        return found

    # Working them off

    def process(self, limit: int) -> Processed:
        """Convert and store up to ``limit`` waiting messages; returns what was done.

        Raises ``StorageError`` when the database does not work at all: nothing is lost, claims come back by themselves.
        """
        self._recover()
        claims = self._inbox.claim(self._worker, limit)
        total = Processed(claimed=len(claims))
        renewed = self._clock()
        for start in range(0, len(claims), MESSAGES_PER_TRANSACTION):
            if self._clock() - renewed > self._inbox.visibility_seconds / 3:
                self._inbox.renew(claims[start:])
                renewed = self._clock()
            total = self._process(claims[start : start + MESSAGES_PER_TRANSACTION], total)
        return total

    def _process(self, claims: Sequence[Claim], total: Processed) -> Processed:
        converted: list[_Converted] = []
        for claim in claims:
            try:
                result = self._convert(claim)
                if result.writes or not result.errors:
                    converted.append(result)
                    continue
                self._inbox.refuse(claim, result.errors[0], result.issues)  # nothing of it could be converted
                total = replace(total, refused=total.refused + 1)
            except (BridgeError, AdapterError) as error:
                total = self._failed(claim, error, total)
            except Exception as error:  # noqa: BLE001 - a fault in a mapping stops its message, never the queue
                total = self._failed(claim, IngestError("the conversion failed", cause=type(error).__name__), total)
        if not converted:
            return total
        try:
            return _stored(total, transact(self._engine, lambda connection: self._store(connection, converted)))
        except (BridgeError, AnchorError):
            if len(converted) > 1:
                return self._process_singly(converted, total)
            return self._store_alone(converted[0], total)

    def _process_singly(self, converted: Sequence[_Converted], total: Processed) -> Processed:
        """Store messages one by one, after they could not be stored together."""
        for each in converted:
            total = self._store_alone(each, total)
        return total

    def _store_alone(self, converted: _Converted, total: Processed) -> Processed:
        try:
            return _stored(total, transact(self._engine, lambda connection: self._store(connection, [converted])))
        except (BridgeError, AnchorError) as error:
            return self._failed(converted.claim, error, total)

    def _convert(self, claim: Claim) -> _Converted:
        """Convert one message; no transaction is open meanwhile."""
        raw = self._inbox.raw(claim)
        result = self._converter(raw, claim.format, self._profile(claim.source))
        entries = result.bundle.get("entry", ())
        resources = [entry["resource"] for entry in entries]
        patients = {subject_of(each) for each in resources if each.get("resourceType") == "Patient"}
        named = patients or {subject_of(each) for each in resources} - {NODE}
        subject = named.pop() if len(named) == 1 else None
        lineage = Lineage(claim.source, claim.digest, adapter_of(claim.format))
        writes = tuple(
            RecordWrite(each, lineage, subject_of(each, subject or NODE), mention=is_mention(entry))
            for entry, each in zip(entries, resources, strict=True)
        )
        return _Converted(claim, writes, tuple(issue.as_dict() for issue in result.issues), subject)

    def _store(self, connection: Connection, converted: Sequence[_Converted]) -> list[list[PutResult]]:
        """Store the records of several messages and mark them stored, in the caller's transaction."""
        results = self._records.put_many(connection, [write for each in converted for write in each.writes])
        led_to: list[list[PutResult]] = []
        position = 0
        for each in converted:
            own = results[position : position + len(each.writes)]
            position += len(each.writes)
            self._inbox.finish(
                connection,
                each.claim,
                subject=each.subject,
                issues=each.issues,
                versions=[result.ref for result in own],
            )
            led_to.append(own)
        return led_to

    def _failed(self, claim: Claim, error: Exception, total: Processed) -> Processed:
        """Record why a message was not stored: for good when the message is at fault, for now when the node is."""
        try:
            if isinstance(error, LeaseLost):
                return total
            if isinstance(error, VersionConflict | DatabaseUnavailable):
                self._inbox.retry(claim, Refusal("unavailable", "", error.message))
                return replace(total, postponed=total.postponed + 1)
            self._inbox.refuse(claim, _refusal(error))
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


def is_mention(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a converted Bundle creates its resource only where there is none ("If-None-Match: *")."""
    return bool(entry.get("request", {}).get("ifNoneMatch") == "*")


def adapter_of(format: str) -> str:
    """Return the adapter's name and version as lineage names it."""
    return hl7v2.ADAPTER if format == "hl7v2" else tabular.ADAPTER


def conversion(raw: bytes, format: str, profile: SourceProfile) -> ConversionResult:
    """Convert what the inbox holds: a message or file in a format of the adapters, or rows of a view."""
    if format != ROWS_FORMAT:
        return convert(raw, format, profile)
    delivered = orjson.loads(raw)
    rows = [{name: _value(cell) for name, cell in row.items()} for row in delivered["rows"]]
    if delivered.get("mapping"):
        mapping = find_mapping(profile, delivered["mapping"])
        rows = [mapped_row(mapping, row) for row in rows]
    result: ConversionResult = tabular.convert_rows(delivered["view"], rows, profile)
    return result


def _cell(value: Any) -> Any:
    """Keep in JSON what a driver returned and JSON has no form for; numbers keep their digits."""
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() and abs(value.adjusted()) < MAX_PLAIN_DIGITS else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    raise TypeError


def _value(cell: Any) -> Any:
    return base64.b64decode(cell["base64"]) if isinstance(cell, dict) else cell


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, AdapterError):
        return refusal_of(error)
    if isinstance(error, BridgeError):
        return Refusal(type(error).__name__, "", " ".join(filter(None, (error.message, error.cause))))
    return Refusal(type(error).__name__, "", str(error))


def _stored(total: Processed, led_to: Sequence[Sequence[PutResult]]) -> Processed:
    changed = sum(result.changed for results in led_to for result in results)
    return replace(total, stored=total.stored + len(led_to), versions=total.versions + changed)


def _code_of(accepted: Accepted, verdict: Verdict) -> str:
    return acknowledgement_code(accepted.acknowledgement) if accepted.replayed else verdict.code


def acknowledgement_code(answer: bytes) -> str:
    """Return MSA-1 of an acknowledgement this node wrote earlier; "" when there is none."""
    position = answer.find(b"\rMSA")
    return answer[position + 5 : position + 7].decode("ascii", "replace") if position >= 0 else ""
