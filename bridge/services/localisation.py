"""Who holds records of a patient: the authority's index, and the job by which holders register.

The index says, per pseudonym, which members hold records and of which categories: no identifiers, no counts, no dates
of care. It is off the ledger, because a patient must be able to disappear from it.

A holder registers its patients that have an identifier of ``bridge.services.pseudonyms.SYSTEMS``. Copies received from
other members are not registered: one asks the source.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from anchor import canonical
from bridge.errors import InvalidRequest, NotFound, PeerRejected
from bridge.services.audit_event import Party
from bridge.services.decision import CATEGORIES, CATEGORY_OF_TYPE
from bridge.services.localisation_list import lists_bundle, localisations
from bridge.services.pseudonyms import SYSTEMS, Identifier, normalised
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import Localisation, LocalisedPatient, LocalPseudonym, ReceivedRecord
from bridge.storage.record_tables import RESOURCE

if TYPE_CHECKING:
    from bridge.services.audit import AuditService
    from bridge.services.peers import Peers
    from bridge.services.pseudonyms import PseudonymClient
    from bridge.storage.keyring import KeyRing
    from bridge.storage.records import RecordStore

MAX_ENTRIES = 500  # pseudonyms of one registration: with twenty categories each some 5 MB, a third of a request's bound
REREGISTERED_PATIENTS = 200  # patients registered anew at a time after a rotation: one request for their pseudonyms
RUN_PATIENTS = 2_000  # patients of one run of the job; the next run takes the next ones
OVERLAP_MILLISECONDS = 60_000  # a transaction may commit this much later than the time it wrote
SETTLING_MILLISECONDS = 1_000  # how long after its time a version may still be joined by another of the same time
LOCATE = b"locate"  # what the audit trail says of a question to the index
HELD_PATH = "/exchange/v1/pseudonyms/held"
REGISTER_PATH = "/exchange/v1/localisations"
WITHDRAW_PATH = "/exchange/v1/localisations/withdrawals"

_INDEX: Table = Localisation.__table__  # type: ignore[attr-defined]
_LOCALISED: Table = LocalisedPatient.__table__  # type: ignore[attr-defined]
_PSEUDONYM: Table = LocalPseudonym.__table__  # type: ignore[attr-defined]
_RECEIVED: Table = ReceivedRecord.__table__  # type: ignore[attr-defined]

Entry = Mapping[str, Any]


class LocalisationIndex:
    """The authority's side."""

    def __init__(
        self,
        engine: Engine,
        audit: AuditService,
        clock: Callable[[], float] = time.time,
        sought: Callable[[Connection, str, bool], None] = lambda _connection, _org, _found: None,
    ) -> None:
        """``sought`` is told of every question in its transaction: who asked, and whether anybody was known."""
        self._engine, self._audit, self._clock, self._sought = engine, audit, clock, sought

    def register(self, org: str, entries: Sequence[Entry]) -> int:
        """Note that a member holds records; an entry ``{"pid","categories"}`` replaces its earlier one."""
        if not 0 < len(entries) <= MAX_ENTRIES:
            raise InvalidRequest(f"a registration is for 1 to {MAX_ENTRIES} pseudonyms")
        now = int(self._clock())
        rows = [
            {"pid": _pid(entry), "org": org, "categories": _categories(entry), "registered": now} for entry in entries
        ]
        with write_transaction(self._engine) as connection:
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            statement = insert(_INDEX)
            changed = {name: getattr(statement.excluded, name) for name in ("categories", "registered")}
            connection.execute(statement.on_conflict_do_update(index_elements=["pid", "org"], set_=changed), rows)
        self._audit.record("operation", client=Party(org), query=f"register count={len(rows)}".encode())
        return len(rows)

    def withdraw(self, org: str, pids: Sequence[str]) -> int:
        """Forget what a member had registered for these pseudonyms; return how many there were."""
        if not 0 < len(pids) <= MAX_ENTRIES:
            raise InvalidRequest(f"a withdrawal is for 1 to {MAX_ENTRIES} pseudonyms")
        with write_transaction(self._engine) as connection:
            mine = (_INDEX.c.org == org) & _INDEX.c.pid.in_([_pid({"pid": pid}) for pid in pids])
            count = connection.execute(delete(_INDEX).where(mine)).rowcount
        self._audit.record("operation", client=Party(org), query=f"withdraw count={count}".encode())
        return count

    def locate(self, org: str, pid: str) -> list[dict[str, Any]]:
        """Return the members other than the asking one that hold records, each with its categories."""
        pid = _pid({"pid": pid})
        with write_transaction(self._engine) as connection:
            self._audit.record_operations([LOCATE], client=Party(org), conn=connection)
            return self.find(connection, org, pid)

    def find(self, connection: Connection, org: str, pid: str) -> list[dict[str, Any]]:
        """Return what ``locate`` does, in the caller's transaction, which has recorded it (``LOCATE``)."""
        wanted = select(_INDEX.c.org, _INDEX.c.categories).where(_INDEX.c.pid == pid, _INDEX.c.org != org)
        rows = connection.execute(wanted.order_by(_INDEX.c.org)).all()
        self._sought(connection, org, bool(rows))
        return [{"org": row.org, "categories": json.loads(row.categories)} for row in rows]


def _pid(entry: Entry) -> str:
    pid = entry.get("pid") if isinstance(entry, Mapping) else None
    version, _, digest = pid.partition(".") if isinstance(pid, str) else ("", "", "")
    if not version.isascii() or not version.isdigit() or len(digest) != 64 or len(version) > 6:
        raise InvalidRequest("a pseudonym is not of its form")
    return f"{version}.{digest}"


def _categories(entry: Entry) -> str:
    categories = entry.get("categories")
    if not isinstance(categories, list) or not all(category in CATEGORIES for category in categories):
        raise InvalidRequest("categories are not of the known ones")
    return json.dumps(sorted(set(categories)))


class LocalisationClient:
    """A member's side: asks and registers at the authority, or at its own index when it is the authority."""

    def __init__(self, peers: Peers, org: str, authority: str, own: LocalisationIndex | None) -> None:
        self._peers, self._org, self._authority, self._own = peers, org, authority, own

    def holders(self, pseudonyms: PseudonymClient, identifier: Identifier) -> dict[str, str]:
        """Return the other members that hold records of a person: org -> the newest pseudonym it registered.

        Pseudonyms and their holders come in one answer. Raises ``InvalidRequest`` for an identifier that has none, or
        ``PeerError``.
        """
        if self._own is not None:
            pids = pseudonyms.served(identifier)
            held = [(each["org"], pid) for pid in pids for each in self._own.locate(self._org, pid)]
        else:
            answer = self._post(HELD_PATH, pseudonyms.question([identifier]))
            try:
                held = list(localisations(answer))
            except InvalidRequest:
                raise PeerRejected("bad-answer", "the authority's answer cannot be understood") from None
        found: dict[str, str] = {}
        for org, pid in held:  # the newest pseudonym's first
            found.setdefault(org, pid)
        return found

    def register(self, entries: Sequence[Entry]) -> None:
        """Register pseudonyms, in as many requests as it takes."""
        for start in range(0, len(entries), MAX_ENTRIES):
            batch = entries[start : start + MAX_ENTRIES]
            if self._own is not None:
                self._own.register(self._org, batch)
            else:
                held = [(self._org, entry["pid"], entry["categories"]) for entry in batch]
                self._post(REGISTER_PATH, lists_bundle("collection", held))

    def withdraw(self, pids: Sequence[str]) -> None:
        """Withdraw pseudonyms."""
        for start in range(0, len(pids), MAX_ENTRIES):
            batch = list(pids[start : start + MAX_ENTRIES])
            if self._own is not None:
                self._own.withdraw(self._org, batch)
            else:
                self._post(WITHDRAW_PATH, {"pids": batch})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = canonical.load(self._peers.post(self._authority, path, canonical.dump(body)))
        if not isinstance(answer, dict):
            raise PeerRejected("bad-answer", "the authority's answer cannot be understood")
        return answer


class LocalPatients:
    """Which of this node's own patients a request is about: by pseudonym, or by an identifier sealed to this node."""

    def __init__(
        self,
        keyring: KeyRing,
        unseal: Callable[[str], Identifier | None] = lambda _: None,
        find: Callable[[str, str], list[str]] = lambda _system, _value: [],
    ) -> None:
        """``unseal`` opens a sealed identifier (``bridge.services.sealed_subject``), ``find`` gives its patients."""
        self._keyring, self._unseal, self._find = keyring, unseal, find

    def of(self, connection: Connection, pid: str) -> list[str]:
        """Return the ids of the patients that a request's ``pid`` stands for, oldest registration first."""
        if pid.startswith("sealed."):
            identifier = self._unseal(pid)
            return [] if identifier is None else self._find(*identifier)
        rows = connection.execute(
            select(_PSEUDONYM.c.patient_id)
            .where(_PSEUDONYM.c.pid_blind == self._keyring.blind("pid", pid), _PSEUDONYM.c.state == "registered")
            .order_by(_PSEUDONYM.c.id)
        )
        return [row.patient_id for row in rows]


class LocalisationRegistrar:
    """The job of a holder: registers what was stored or changed since the last run."""

    def __init__(
        self,
        engine: Engine,
        records: RecordStore,
        keyring: KeyRing,
        pseudonyms: PseudonymClient,
        index: LocalisationClient,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._records, self._keyring = engine, records, keyring
        self._pseudonyms, self._index, self._clock = pseudonyms, index, clock

    def run(self) -> int:
        """Register changed patients and return how many; what could not be registered is taken up by the next run."""
        with read_transaction(self._engine) as connection:
            changed = self._changed(connection)
            newest = connection.execute(select(func.max(_PSEUDONYM.c.version))).scalar()
            room = max(0, REREGISTERED_PATIENTS - len(changed))  # the authority's key was replaced: move on with it
            changed += [] if newest is None else self._stale(connection, newest, room, changed)
        return self._register(changed)

    def reregister(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> int:
        """Register every patient that stands under an earlier version of the authority's key anew; return how many.

        Interrupted, it goes on where it was: a patient's row says under which version it stands. ``progress`` is told
        how many are done of how many.
        """
        done, total = 0, 1
        with read_transaction(self._engine) as connection:
            oldest = connection.execute(select(func.min(_PSEUDONYM.c.version))).scalar()
            batch = [] if oldest is None else self._stale(connection, oldest + 1, REREGISTERED_PATIENTS)
        while batch:  # what the authority answers to the first batch says what the newest version is
            self._register(batch)
            with read_transaction(self._engine) as connection:
                newest = connection.execute(select(func.max(_PSEUDONYM.c.version))).scalar() or 0
                if newest == oldest:
                    return 0
                done += len(batch)
                total = done + self._count_stale(connection, newest)
                batch = self._stale(connection, newest, REREGISTERED_PATIENTS)
            progress(done, total)
        return done

    def _stale(
        self, connection: Connection, newest: int, count: int, but: Sequence[tuple[str, int]] = ()
    ) -> list[tuple[str, int]]:
        """Return (patient id, newest update) of patients registered under a version before ``newest``."""
        rows = connection.execute(
            select(_PSEUDONYM.c.patient_id, func.max(_LOCALISED.c.updated).label("updated"))
            .join_from(_PSEUDONYM, _LOCALISED, _PSEUDONYM.c.patient_id == _LOCALISED.c.patient_id)
            .where(_PSEUDONYM.c.version < newest, _PSEUDONYM.c.patient_id.not_in([patient for patient, _ in but]))
            .group_by(_PSEUDONYM.c.patient_id)
            .order_by(_PSEUDONYM.c.patient_id)
            .limit(count)
        )
        return [(row.patient_id, row.updated) for row in rows]

    @staticmethod
    def _count_stale(connection: Connection, newest: int) -> int:
        stale = select(func.count(_PSEUDONYM.c.patient_id.distinct())).where(_PSEUDONYM.c.version < newest)
        return int(connection.execute(stale).scalar_one())

    def _register(self, changed: Sequence[tuple[str, int]]) -> int:
        """Register patients, withdraw what they no longer are, and note both."""
        with read_transaction(self._engine) as connection:
            known = self._known(connection, [patient for patient, _ in changed])
            facts = [(patient, newest, self._types(connection, patient)) for patient, newest in changed]
        work = [self._registration(patient, newest, types, known.get(patient)) for patient, newest, types in facts]
        entries = [
            {"pid": pid, "categories": sorted(item["categories"])}
            for item, pids in zip(work, self._pids(work), strict=True)
            for pid in item.setdefault("pids", pids)
        ]
        if entries:
            self._index.register(entries)
        gone = [pid for item in work for pid in item["gone"] if pid not in item["pids"]]
        if gone:
            self._index.withdraw(gone)
        if work:
            with write_transaction(self._engine) as connection:
                for item in work:
                    self._note(connection, item)
        return len(work)

    def _changed(self, connection: Connection) -> list[tuple[str, int]]:
        """Return (patient id, newest update) of patients with records newer than registered, oldest first."""
        watermark = connection.execute(select(func.max(_LOCALISED.c.updated))).scalar() or 0
        newest: dict[str, int] = {}
        for type in CATEGORY_OF_TYPE:  # by type, for the index is by type and time
            rows = connection.execute(
                select(RESOURCE.c.subject, func.max(RESOURCE.c.updated).label("newest"))
                .where(
                    RESOURCE.c.type == type,
                    RESOURCE.c.updated >= watermark - OVERLAP_MILLISECONDS,
                    RESOURCE.c.subject.like("Patient/%"),
                    RESOURCE.c.subject.not_in(select(_RECEIVED.c.subject)),
                )
                .group_by(RESOURCE.c.subject)
            )
            for row in rows:
                patient = row.subject.removeprefix("Patient/")
                newest[patient] = max(newest.get(patient, 0), row.newest)
        seen = {}
        if newest:
            recent = select(_LOCALISED.c.patient_id, _LOCALISED.c.updated)
            recent = recent.where(_LOCALISED.c.updated >= watermark - OVERLAP_MILLISECONDS)
            seen = {row.patient_id: row.updated for row in connection.execute(recent)}
        waiting = [(patient, moment) for patient, moment in newest.items() if seen.get(patient, -1) < moment]
        return sorted(waiting, key=lambda item: (item[1], item[0]))[:RUN_PATIENTS]

    def _known(self, connection: Connection, patients: Sequence[str]) -> dict[str, list[str]]:
        """Return the pseudonyms registered so far, opened, by patient."""
        known: dict[str, list[str]] = {}
        for patient in patients:
            rows = connection.execute(
                select(_PSEUDONYM).where(_PSEUDONYM.c.patient_id == patient, _PSEUDONYM.c.state == "registered")
            )
            for row in rows:
                pid = self._keyring.open(connection, f"Patient/{patient}", row.pid_sealed, _aad(patient))
                known.setdefault(patient, []).append(pid.decode())
        return known

    def _types(self, connection: Connection, patient: str) -> set[str]:
        rows = connection.execute(
            select(RESOURCE.c.type)
            .where(RESOURCE.c.subject == f"Patient/{patient}", RESOURCE.c.deleted.is_(False))
            .distinct()
        )
        return {row.type for row in rows}

    def _registration(self, patient: str, newest: int, types: Iterable[str], known: list[str] | None) -> dict[str, Any]:
        """Return what is to be registered for one patient; ``identifiers`` are those whose pseudonyms are needed."""
        item: dict[str, Any] = {
            "patient": patient,
            "newest": newest,
            "version": 0,
            "categories": {CATEGORY_OF_TYPE[type] for type in types if type in CATEGORY_OF_TYPE},
            "identifiers": [],
            "gone": known or [],
        }
        try:
            version = self._records.read("Patient", patient)
        except NotFound:  # deleted, or its records came before the patient itself
            return item
        item["version"] = version.version
        item["identifiers"] = _shared_identifiers(version.resource())
        return item

    def _pids(self, work: Sequence[Mapping[str, Any]]) -> list[list[str]]:
        """Return the pseudonyms of each item's identifiers, asked for together."""
        wanted = [identifier for item in work for identifier in item["identifiers"]]
        found = iter(self._pseudonyms.pids(wanted) if wanted else ())
        return [[next(found) for _ in item["identifiers"]] for item in work]

    def _note(self, connection: Connection, item: Mapping[str, Any]) -> None:
        patient, now = item["patient"], int(self._clock())
        categories = json.dumps(sorted(item["categories"]))
        connection.execute(delete(_PSEUDONYM).where(_PSEUDONYM.c.patient_id == patient))
        for pid in dict.fromkeys(item["pids"]):
            row = {
                "patient_id": patient,
                "pid_blind": self._keyring.blind("pid", pid),
                "pid_sealed": self._keyring.seal(connection, f"Patient/{patient}", pid.encode(), _aad(patient)),
                "version": int(pid.partition(".")[0]),
                "categories": categories,
                "state": "registered",
                "updated": now,
            }
            connection.execute(_PSEUDONYM.insert().values(**row))
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        newest = item["newest"]
        if newest > self._clock() * 1000 - SETTLING_MILLISECONDS:
            newest -= 1  # another version may yet get this very time: the next run looks once more
        values = {"version": item["version"], "categories": categories, "updated": newest}
        statement = insert(_LOCALISED).values(patient_id=patient, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["patient_id"], set_=values))


def _shared_identifiers(patient: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a Patient's identifiers that mean the person elsewhere too; ones that are no valid number are left out."""
    found: dict[tuple[str, str], None] = {}
    for identifier in patient.get("identifier", ()):
        if identifier.get("system") not in SYSTEMS or identifier.get("use") == "old":
            continue
        try:
            found[normalised(identifier["system"], identifier.get("value"))] = None
        except InvalidRequest:
            continue
    return list(found)


def _aad(patient: str) -> bytes:
    return f"yiqiao/pid|{patient}".encode()
