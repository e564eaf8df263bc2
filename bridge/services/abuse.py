"""What members' requests add up to: quotas, signs of enumeration, refused signatures; counted per hour in the database.

| counted | when | what follows |
|---|---|---|
| asked | a signed request for records arrives | beyond the member's or the practitioner's quota: ``QuotaExceeded`` |
| denied | it was denied | many, and most of what was asked: alert "denials" |
| sought, missed | the localisation index is asked; knows nobody | many misses, most of all: alert "unknown-patients" |
| refused | a request's signature is not accepted | many: alert "refused-signatures"; the first ones are audited |

The card authority's daily counts of pseudonyms (``pseudonym_use``) give the alert "pseudonyms": far more in a day than
this member's days had. Counters hold org ids and, for a practitioner, a keyed hash; nothing of patients. An alert stays
for as long as its hour and the next one last. Alerts are metrics, in ``/status`` and in the log; they refuse nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from bridge.errors import QuotaExceeded
from bridge.log import get_logger
from bridge.services.audit_event import Party
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import PeerActivity, PseudonymUse

if TYPE_CHECKING:
    from bridge.services.audit import AuditService
    from bridge.storage.keyring import KeyRing

HOUR_SECONDS = 3600
KEPT_HOURS = 24 * 30  # counters are a month's memory of how members behave
AUDITED_REFUSALS = 100  # refused signatures an hour and member that become AuditEvents; the rest are only counted
REFUSALS = 20  # refused signatures in two hours: clocks that drift make a few, an attacker makes many
MOSTLY = 0.5  # the part of what was asked that must have failed before failures look like guessing
HISTORY_DAYS = 14
USUAL_TIMES = 5  # as many pseudonyms in a day as this many of the member's usual days
FEW_PSEUDONYMS = 1_000  # a day below this is never conspicuous

_ACTIVITY: Table = PeerActivity.__table__  # type: ignore[attr-defined]
_USE: Table = PseudonymUse.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Limits:
    """Per hour: requests of a member, of one of its practitioners; and failures (two hours) that raise an alert."""

    member: int = 10_000
    practitioner: int = 200
    failures: int = 100


@dataclass(frozen=True, slots=True)
class Alert:
    """What is conspicuous about a member: "denials", "unknown-patients", "refused-signatures" or "pseudonyms"."""

    kind: str
    org: str
    count: int


class AbuseWatch:
    """Counts what members do at this node; all its processes share the counters."""

    def __init__(
        self,
        engine: Engine,
        keyring: KeyRing,
        audit: AuditService,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._keyring, self._audit, self._clock = engine, keyring, audit, clock
        self._limits = limits or Limits()
        self._told: frozenset[tuple[str, str]] = frozenset()
        insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        key, more = ["kind", "org", "who", "hour"], {"count": _ACTIVITY.c.count + 1}
        self._add = insert(_ACTIVITY).on_conflict_do_update(index_elements=key, set_=more).returning(_ACTIVITY.c.count)

    def charge(self, org: str, practitioner: str | None) -> None:
        """Count a request for records; raises ``QuotaExceeded`` beyond the quota of the member or the practitioner.

        A member that leaves the practitioner out, or invents names, stays within its own quota all the same.
        """
        with write_transaction(self._engine) as connection:
            within = self.asked(connection, org, practitioner)
        if not within:
            raise over_quota()

    def asked(self, connection: Connection, org: str, practitioner: str | None) -> bool:
        """Count a request for records in the caller's transaction; False when it is beyond a quota (``charge``)."""
        within = self._count("asked", org, connection=connection) <= self._limits.member
        if practitioner:
            who = self._keyring.blind("practitioner", f"{org}|{practitioner}").hex()[:32]
            within &= self._count("asked", org, who, connection=connection) <= self._limits.practitioner
        return within

    def denied(self, org: str) -> None:
        """Count a request that was denied."""
        self._count("denied", org)

    def sought(self, connection: Connection, org: str, *, found: bool) -> None:
        """Count a question to the localisation index in the caller's transaction."""
        self._count("sought", org, connection=connection)
        if not found:
            self._count("missed", org, connection=connection)

    def refused(self, org: str, code: str) -> None:
        """Count a request whose signature is not accepted as ``org``'s ("" for an unknown one), and audit the first."""
        if self._count("refused", org) <= AUDITED_REFUSALS:
            self._audit.record_refusal(Party(org or "unknown"), code)

    def alerts(self) -> tuple[Alert, ...]:
        """Return what is conspicuous now, by kind and member."""
        first = int(self._clock()) // HOUR_SECONDS - 1
        totals = select(_ACTIVITY.c.kind, _ACTIVITY.c.org, func.sum(_ACTIVITY.c.count).label("total"))
        totals = totals.where(_ACTIVITY.c.hour >= first, _ACTIVITY.c.who == "")
        with read_transaction(self._engine) as connection:
            rows = connection.execute(totals.group_by(_ACTIVITY.c.kind, _ACTIVITY.c.org)).all()
        count = {(row.kind, row.org): int(row.total) for row in rows}
        found = [Alert("refused-signatures", org, n) for (kind, org), n in count.items() if kind == "refused"]
        found = [each for each in found if each.count > REFUSALS]
        for failure, of, name in (("denied", "asked", "denials"), ("missed", "sought", "unknown-patients")):
            for (kind, org), n in count.items():
                if kind == failure and n > max(self._limits.failures, MOSTLY * count.get((of, org), 0)):
                    found.append(Alert(name, org, n))
        found += self._pseudonyms()
        return tuple(sorted(found, key=lambda each: (each.kind, each.org)))

    def _pseudonyms(self) -> list[Alert]:
        """Return the members that had far more pseudonyms computed today than on their usual days."""
        today = int(self._clock()) // (24 * HOUR_SECONDS)
        wanted = select(_USE.c.org, _USE.c.day, _USE.c.count.label("used")).where(_USE.c.day >= today - HISTORY_DAYS)
        with read_transaction(self._engine) as connection:
            rows = connection.execute(wanted).all()
        usual: dict[str, list[int]] = {}
        for row in rows:
            if row.day < today:
                usual.setdefault(row.org, []).append(row.used)
        return [
            Alert("pseudonyms", row.org, row.used)
            for row in rows
            if row.day == today
            and row.org in usual  # on its first day a member registers all its patients
            and row.used > max(FEW_PSEUDONYMS, USUAL_TIMES * sum(usual[row.org]) / len(usual[row.org]))
        ]

    def watch(self) -> int:
        """Log alerts that were not there before, and forget old counters; return how many alerts are new."""
        alerts = self.alerts()
        new = [each for each in alerts if (each.kind, each.org) not in self._told]
        self._told = frozenset((each.kind, each.org) for each in alerts)
        for each in new:
            get_logger("exchange").error("conspicuous member", kind=each.kind, org=each.org, count=each.count)
        with write_transaction(self._engine) as connection:
            oldest = int(self._clock()) // HOUR_SECONDS - KEPT_HOURS
            connection.execute(delete(_ACTIVITY).where(_ACTIVITY.c.hour < oldest))
        return len(new)

    def _count(self, kind: str, org: str, who: str = "", *, connection: Connection | None = None) -> int:
        """Add one and return this hour's count."""
        if connection is None:
            with write_transaction(self._engine) as own:
                return self._count(kind, org, who, connection=own)
        row = {"kind": kind, "org": org, "who": who, "hour": int(self._clock()) // HOUR_SECONDS, "count": 1}
        return int(connection.execute(self._add, row).scalar_one())


def over_quota() -> QuotaExceeded:
    """Return the refusal of a request beyond its quota."""
    return QuotaExceeded("the quota of requests for this hour is used up / 本小时请求配额已用完")
