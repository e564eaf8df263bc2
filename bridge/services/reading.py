"""Reading records on somebody's behalf: every interaction is in the audit trail before its answer leaves.

The audit trail comes first because an access that was not recorded must not have happened: when the AuditEvent
cannot be stored, nothing is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlencode

from sqlalchemy import Engine, Row

from bridge.errors import Gone, InvalidRequest, KeyDestroyed, NotFound, SearchParameterError
from bridge.services.audit_event import MINOR_FAILURE, Party
from bridge.storage.database import read_transaction
from bridge.storage.record_tables import VERSION, opened, select_versions
from bridge.storage.record_versions import SearchPage, StoredVersion
from bridge.storage.search_parameters import SEARCH_PARAMETERS

if TYPE_CHECKING:
    from bridge.services.audit import AuditService
    from bridge.services.search import SearchResult, SearchService
    from bridge.storage.keyring import KeyRing
    from bridge.storage.records import RecordStore

HISTORY_COUNT = 20
MAX_HISTORY_COUNT = 200  # versions of one page: each is opened and held in memory
MAX_OFFSET = 1_000_000
VERSION_DIGITS = 9

T = TypeVar("T")
Parameters = Sequence[tuple[str, str]]


class ReadingService:
    """FHIR read, vread, history and search for one caller at a time; records each as an AuditEvent."""

    def __init__(
        self, engine: Engine, keyring: KeyRing, records: RecordStore, search: SearchService, audit: AuditService
    ) -> None:
        self._engine, self._keyring = engine, keyring
        self._records, self._search, self._audit = records, search, audit

    def read(self, client: Party, type: str, id: str) -> StoredVersion:
        """Return the current version. Raises ``NotFound`` or ``Gone``."""
        return self._one(client, "read", f"{type}/{id}", lambda: self._records.read(_known(type), id))

    def vread(self, client: Party, type: str, id: str, version: str) -> StoredVersion:
        """Return one version. Raises ``NotFound``, or ``Gone`` for the version that deletes."""

        def load() -> StoredVersion:
            if not (version.isascii() and version.isdigit() and len(version) <= VERSION_DIGITS):
                raise NotFound
            found = self._records.vread(_known(type), id, int(version))
            if found.deleted:
                raise Gone
            return found

        return self._one(client, "vread", f"{type}/{id}", load)

    def history(self, client: Party, type: str, id: str, count: int, offset: int) -> SearchPage:
        """Return the versions of one resource, newest first. Raises ``NotFound``."""
        reference = f"{type}/{id}"
        page = self._recorded(
            client, "history-instance", reference, lambda: self._records.history(_known(type), id, count, offset)
        )
        patient = _patient(page.entries[0].subject) if page.entries else None
        self._audit.record("history-instance", client=client, resource=reference, patient=patient)
        return page

    def type_history(self, client: Party, type: str, count: int, offset: int, since: int) -> SearchPage:
        """Return the versions of all resources of a type, newest first, from ``since`` (Unix milliseconds) on."""
        statement = (
            select_versions()
            .where(VERSION.c.type == _known(type), VERSION.c.updated >= since)
            .order_by(VERSION.c.updated.desc(), VERSION.c.id, VERSION.c.version.desc())
        )
        with read_transaction(self._engine) as connection:
            rows = connection.execute(statement.limit(count).offset(offset)).all()
        query = f"{type}/_history?{urlencode({'_count': count, '_since': since})}"
        self._audit.record("history-type", client=client, query=query.encode())
        return SearchPage(tuple(self._open(rows)))

    def search(self, client: Party, type: str, parameters: Parameters) -> SearchResult:
        """Run a search by decoded name and value pairs. Raises ``SearchParameterError``."""
        query = f"{type}?{urlencode(parameters)}".encode()
        try:
            result = self._search.search(_known(type), parameters)
        except SearchParameterError:
            self._audit.record("search-type", client=client, query=query, outcome=MINOR_FAILURE)
            raise
        subjects = {entry.subject for entry in result.page.entries}
        patient = _patient(subjects.pop()) if len(subjects) == 1 else None
        self._audit.record("search-type", client=client, query=query, patient=patient)
        return result

    def _one(self, client: Party, interaction: str, reference: str, load: Callable[[], StoredVersion]) -> StoredVersion:
        found = self._recorded(client, interaction, reference, load)
        self._audit.record(interaction, client=client, resource=reference, patient=_patient(found.subject))
        return found

    def _recorded(self, client: Party, interaction: str, reference: str, load: Callable[[], T]) -> T:
        """Load; an attempt at something that is not there is recorded too."""
        try:
            return load()
        except (NotFound, KeyDestroyed):
            self._audit.record(interaction, client=client, resource=reference, outcome=MINOR_FAILURE)
            raise

    def _open(self, rows: Sequence[Row[Any]]) -> Iterator[StoredVersion]:
        """Open rows; versions whose key was destroyed are passed over, for their content is gone."""
        for row in rows:
            with suppress(KeyDestroyed):
                yield opened(self._keyring, row)


def count_of(value: str | None) -> int:
    """Return a history's ``_count``, bounded. Raises ``InvalidRequest``."""
    if value is None:
        return HISTORY_COUNT
    return min(max(_number("_count", value), 1), MAX_HISTORY_COUNT)


def offset_of(value: str | None) -> int:
    """Return the offset that a history's paging link carries. Raises ``InvalidRequest``."""
    return min(_number("_offset", value), MAX_OFFSET) if value is not None else 0


def since_of(value: str | None) -> int:
    """Return ``_since`` (a FHIR instant) in Unix milliseconds; 0 without it. Raises ``InvalidRequest``."""
    if value is None:
        return 0
    try:
        moment = datetime.fromisoformat(value.replace(" ", "+"))
        return int(moment.astimezone(UTC).timestamp() * 1000) if moment.tzinfo else _bad("_since")
    except (ValueError, OverflowError):
        return _bad("_since")


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= VERSION_DIGITS):
        _bad(name)
    return int(value)


def _bad(name: str) -> NoReturn:
    raise InvalidRequest(f"{name} has no meaning here")


def _known(type: str) -> str:
    if type not in SEARCH_PARAMETERS:
        raise NotFound(f"resources of type {type} are not stored here" if type.isalpha() else "")
    return type


def _patient(subject: str) -> str | None:
    return subject if subject.startswith("Patient/") else None
