"""The worker's side of the inbox: claims messages, and says what became of each.

A claim is a lease: it ends by time, and every later step requires that the lease is still the claim's own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, Select, bindparam, literal_column, or_, select, update

from bridge.errors import KeyDestroyed, LeaseLost
from bridge.storage.bulk import execute_rows
from bridge.storage.database import read_transaction, transact, write_transaction
from bridge.storage.inbox_desk import RECEIVED_ONLY, SELECT_CHUNK, InboxDesk, sealed_place
from bridge.storage.inbox_tables import DEAD, INBOX, RECEIVED, Claim, Refusal, State
from bridge.storage.keyring import KeyRing

MILLISECONDS = 1000

VISIBILITY_SECONDS = 60.0
"""How long a claim lasts: many times what a batch takes, short enough to wait for after a crash."""

MAX_ATTEMPTS = 8
"""Attempts of a message that fails for reasons of the node (database, lock); with the backoff some four minutes."""

BACKOFF_BASE_SECONDS = 1.0
BACKOFF_MAX_SECONDS = 300.0

SOLO_CRASHES = 2
"""Lost leases after which a message is claimed alone, so that no neighbour pays for what it does to its worker."""

MAX_CRASHES = 10
"""Lost leases after which a message is dead."""

FOLLOWERS_WITHIN = 2000
"""Numbers after the oldest claim among which its patients' next messages are looked for: a patient with a hundred
thousand waiting messages must not make each claim read them all."""

_FINISH = (
    "UPDATE inbox SET state = 'stored', lease = NULL, code = '', location = '', reason = '', "
    "finished = ?, attempts = ?, subject = ?, report = ? WHERE id = ? AND lease = ? AND state = 'received'"
)

_REFUSE = (
    "UPDATE inbox SET state = 'failed', lease = NULL, code = ?, location = ?, reason = ?, "
    "finished = ?, attempts = ?, report = ? WHERE id = ? AND lease = ? AND state = 'received'"
)

_LEASE = "UPDATE inbox SET lease = ?, lease_until = ?, crashes = ? WHERE id = ?"

_CLAIMED = (
    *("id", "source", "format", "event", "control_id", "digest", "attempts", "crashes", "lease", "size"),
    "patient_key",
)

_EARLIER = INBOX.alias("earlier")

_DUE: Select[Any] = (
    select(literal_column("1"))
    .where(INBOX.c.state == RECEIVED_ONLY, INBOX.c.finished.is_(None), INBOX.c.available <= bindparam("now"))
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class LoadedMessage:
    """A message's bytes as they lie in the inbox."""

    message_key: bytes
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stored message is marked with; ``report`` is sealed."""

    claim: Claim
    subject: str | None
    report: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """What a failed message is marked with; ``report`` is sealed."""

    claim: Claim
    refusal: Refusal
    report: bytes = field(repr=False)


class InboxClaims(InboxDesk):
    """The part of the inbox that workers use."""

    def __init__(self, engine: Engine, keyring: KeyRing, clock: Callable[[], float], visibility_seconds: float) -> None:
        super().__init__(engine, keyring, clock)
        self.visibility_seconds = visibility_seconds

    def claim(self, worker: str, limit: int) -> list[Claim]:
        """Lease up to ``limit`` messages to a worker, oldest first.

        At first at most one of each patient; where these are fewer than the limit, those that follow them directly.
        Claims of one patient are in order and must be stored, or given back, in it.
        """
        with read_transaction(self._engine) as connection:  # who only looks holds up no sender
            if connection.execute(_DUE, {"now": self._now()}).first() is None:
                return []
        return transact(self._engine, lambda connection: self._claim(connection, worker, limit))

    def _claim(self, connection: Connection, worker: str, limit: int) -> list[Claim]:
        now = self._now()
        lease = f"{worker[:180]}#{secrets.token_hex(8)}"
        taken: list[tuple[Row[Any], int]] = []
        alone = False
        for row in connection.execute(_claimable(now, limit)).all():
            crashes = row.crashes + (row.lease is not None)  # a lease that nobody gave back
            if crashes >= MAX_CRASHES:
                self._close(connection, row.id, DEAD, Refusal("crash", "", "processing it ended the worker repeatedly"))
            elif crashes < SOLO_CRASHES:
                taken.append((row, crashes))
            elif not taken:
                taken.append((row, crashes))
                alone = True
                break
        if taken and not alone and len(taken) < limit:
            followers = _followers(connection, [row for row, _ in taken], now, limit - len(taken))
            taken = sorted(taken + [(row, 0) for row in followers], key=lambda each: each[0].id)
        if taken:
            until = self._lease_end(now)
            execute_rows(connection, _LEASE, [(lease, until, crashes, row.id) for row, crashes in taken])
        return [
            Claim(
                row.id,
                lease,
                row.source,
                row.format,
                row.event,
                row.control_id,
                row.digest,
                row.attempts,
                row.size,
                row.patient_key,
            )
            for row, _ in taken
        ]

    def load(self, claims: Sequence[Claim]) -> dict[int, LoadedMessage]:
        """Return the sealed bytes of claimed messages by their number, with one statement; ``open`` opens one."""
        found: dict[int, LoadedMessage] = {}
        with read_transaction(self._engine) as connection:
            for start in range(0, len(claims), SELECT_CHUNK):
                ids = [claim.id for claim in claims[start : start + SELECT_CHUNK]]
                statement = select(INBOX.c.id, INBOX.c.message_key, INBOX.c.raw).where(INBOX.c.id.in_(ids))
                for row in connection.execute(statement):
                    found[row.id] = LoadedMessage(row.message_key, row.raw)
        return found

    def open(self, loaded: LoadedMessage | None) -> bytes:
        """Return a message's bytes; raises ``SealBroken``, ``KeyDestroyed`` or ``LeaseLost`` (it is gone)."""
        if loaded is None:
            raise LeaseLost
        if not loaded.sealed:
            raise KeyDestroyed
        return self._keyring.node_key().open(loaded.sealed, sealed_place("raw", loaded.message_key))

    def raw(self, claim: Claim) -> bytes:
        """Return one claimed message's bytes; raises as ``open``."""
        return self.open(self.load([claim]).get(claim.id))

    def outcome(
        self,
        claim: Claim,
        *,
        subject: str | None = None,
        issues: Iterable[dict[str, str]] = (),
        versions: Iterable[str] = (),
    ) -> Outcome:
        """Return what a stored message is marked with, its report sealed, for ``finish_all``."""
        return Outcome(claim, subject, self._sealed_report(claim, issues, versions))

    def finish(self, connection: Connection, claim: Claim, **told: Any) -> None:
        """Mark one message stored; ``told`` as ``outcome`` takes it. Raises ``LeaseLost``: roll back."""
        self.finish_all(connection, [self.outcome(claim, **told)])

    def finish_all(self, connection: Connection, outcomes: Sequence[Outcome]) -> None:
        """Mark messages stored, in the transaction that stores their effects.

        Raises ``LeaseLost`` when one of them is no longer its claim's: roll back.
        """
        now = self._now()
        rows = [
            (now, each.claim.attempts + 1, each.subject, each.report, each.claim.id, each.claim.lease)
            for each in outcomes
        ]
        if execute_rows(connection, _FINISH, rows) != len(rows):
            raise LeaseLost

    def _sealed_report(self, claim: Claim, issues: Iterable[dict[str, str]], versions: Iterable[str]) -> bytes:
        report = orjson.dumps({"issues": list(issues), "versions": list(versions)})
        return self._keyring.node_key().seal(report, sealed_place("report", claim.id))

    def refuse(self, claim: Claim, refusal: Refusal, issues: Iterable[dict[str, str]] = ()) -> None:
        """Mark one message failed, in a transaction of its own; as ``refuse_all``."""
        refused = self.refused(claim, refusal, issues)
        with write_transaction(self._engine) as connection:
            self.refuse_all(connection, [refused])

    def refused(self, claim: Claim, refusal: Refusal, issues: Iterable[dict[str, str]] = ()) -> Refused:
        """Return what a failed message is marked with, its report sealed, for ``refuse_all``."""
        return Refused(claim, refusal, self._sealed_report(claim, issues, ()))

    def refuse_all(self, connection: Connection, refused: Sequence[Refused]) -> None:
        """Mark messages failed for reasons of their own; later messages of their patients go on.

        Raises ``LeaseLost`` when one of them is no longer its claim's: roll back.
        """
        now = self._now()
        rows = []
        for each in refused:
            why = refusal_columns(each.refusal)
            told = (why["code"], why["location"], why["reason"])
            rows.append((*told, now, each.claim.attempts + 1, each.report, each.claim.id, each.claim.lease))
        if execute_rows(connection, _REFUSE, rows) != len(rows):
            raise LeaseLost

    def refuse_erased(self, claim: Claim, refusal: Refusal, subject: str) -> None:
        """Mark a message about an erased subject failed and keep nothing of what it says; as ``refuse`` otherwise."""
        refused = self.refused(claim, refusal)
        with write_transaction(self._engine) as connection:
            self.refuse_all(connection, [refused])
            connection.execute(update(INBOX).where(INBOX.c.id == claim.id).values(subject=subject))
            self.erase(connection, subject)

    def retry(self, claim: Claim, refusal: Refusal) -> State:
        """Put a message back after a fault that is not its own, later each time; dead after ``MAX_ATTEMPTS``.

        Returns the state it is now in. Raises ``LeaseLost``.
        """
        attempts = claim.attempts + 1
        with write_transaction(self._engine) as connection:
            if attempts >= MAX_ATTEMPTS:
                self._close(connection, claim.id, DEAD, refusal, claim, attempts=attempts)
                return DEAD
            wait = min(BACKOFF_BASE_SECONDS * 2 ** (attempts - 1), BACKOFF_MAX_SECONDS)
            spread = 0.75 + (claim.id % 64) / 128  # rows that failed together do not come back together
            done = connection.execute(
                update(INBOX)
                .where(INBOX.c.id == claim.id, INBOX.c.lease == claim.lease)
                .values(
                    lease=None,
                    attempts=attempts,
                    available=self._now() + int(wait * spread * MILLISECONDS),
                    **refusal_columns(refusal),
                )
            )
            if done.rowcount != 1:
                raise LeaseLost
        return RECEIVED

    def renew(self, claims: Sequence[Claim]) -> None:
        """Prolong the leases of messages still in work."""
        if claims:
            with write_transaction(self._engine) as connection:
                connection.execute(
                    update(INBOX)
                    .where(INBOX.c.id.in_([claim.id for claim in claims]), INBOX.c.lease == claims[0].lease)
                    .values(lease_until=self._lease_end(self._now()))
                )

    def release(self, claims: Sequence[Claim]) -> None:
        """Give back messages that were claimed and not worked on."""
        if claims:
            with write_transaction(self._engine) as connection:
                connection.execute(
                    update(INBOX)
                    .where(INBOX.c.id.in_([claim.id for claim in claims]), INBOX.c.lease == claims[0].lease)
                    .values(lease=None, lease_until=0)
                )

    def lease_holders(self) -> set[str]:
        """Return the names of the workers that hold messages now."""
        statement = select(INBOX.c.lease).distinct().where(INBOX.c.state == RECEIVED_ONLY, INBOX.c.lease.is_not(None))
        with read_transaction(self._engine) as connection:
            return {str(lease).rpartition("#")[0] for lease in connection.execute(statement).scalars()}

    def recover(self, worker_prefix: str) -> int:
        """End the leases of workers that are known to be gone, by the beginning of their name; say how many."""
        with write_transaction(self._engine) as connection:
            done = connection.execute(
                update(INBOX)
                .where(INBOX.c.state == RECEIVED, INBOX.c.lease.startswith(worker_prefix, autoescape=True))
                .values(lease_until=0)
            )
            return done.rowcount

    def _lease_end(self, now: int) -> int:
        return now + int(self.visibility_seconds * MILLISECONDS)

    def _close(
        self,
        connection: Connection,
        row_id: int,
        state: State,
        refusal: Refusal,
        claim: Claim | None = None,
        **more: Any,
    ) -> None:
        values = {"state": state, "finished": self._now(), "lease": None, **refusal_columns(refusal), **more}
        statement = update(INBOX).where(INBOX.c.id == row_id, INBOX.c.state == RECEIVED)
        if claim is not None:
            statement = statement.where(INBOX.c.lease == claim.lease)
            values.setdefault("attempts", claim.attempts + 1)
        if connection.execute(statement.values(**values)).rowcount != 1:
            raise LeaseLost


def _claimable(now: int, limit: int) -> Select[Any]:
    """Select messages that may be taken up: due, not leased, and the first of their patient that still waits."""
    earlier = (
        select(literal_column("1"))
        .select_from(_EARLIER)
        .where(
            _EARLIER.c.patient_key == INBOX.c.patient_key, _EARLIER.c.state == RECEIVED_ONLY, _EARLIER.c.id < INBOX.c.id
        )
        .correlate(INBOX)
        .exists()
    )
    return (
        select(*(INBOX.c[name] for name in _CLAIMED))
        .where(
            INBOX.c.state == RECEIVED_ONLY,
            INBOX.c.finished.is_(None),
            INBOX.c.available <= now,
            or_(INBOX.c.lease.is_(None), INBOX.c.lease_until <= now),
            or_(INBOX.c.patient_key.is_(None), ~earlier),
        )
        .order_by(INBOX.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=INBOX)
    )


def _followers(connection: Connection, heads: Sequence[Row[Any]], now: int, limit: int) -> list[Row[Any]]:
    """Return messages that directly follow the ``heads`` of their patients and may be taken up with them."""
    first = {row.patient_key: row.id for row in heads if row.patient_key is not None}
    keys = list(first)
    last = min(first.values(), default=0) + FOLLOWERS_WITHIN
    found: list[Row[Any]] = []
    for start in range(0, len(keys), SELECT_CHUNK):
        of_patients = (INBOX.c.state == RECEIVED_ONLY, INBOX.c.patient_key.in_(keys[start : start + SELECT_CHUNK]))
        statement = (
            select(*(INBOX.c[name] for name in _CLAIMED), INBOX.c.available)
            .where(*of_patients, INBOX.c.id <= last)
            .order_by(INBOX.c.id)
            .limit(limit + len(heads))
        )
        stopped: set[bytes] = set()
        rows: Any = connection.execute(statement).all()
        for row in rows:
            if row.id <= first[row.patient_key]:
                continue
            if row.patient_key in stopped or row.available > now or row.lease is not None or row.crashes:
                stopped.add(row.patient_key)  # what comes after it must not overtake it
            elif len(found) < limit:
                found.append(row)
    return found


def refusal_columns(refusal: Refusal | None) -> dict[str, str]:
    """Return the columns that say why a message was not stored; empty texts for none."""
    if refusal is None:
        return {"code": "", "location": "", "reason": ""}
    return {"code": refusal.code[:60], "location": refusal.location[:200], "reason": refusal.text[:500]}
