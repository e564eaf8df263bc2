"""Resource versions as values: what goes into the record store, what comes out, and the bytes in between."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson

from anchor import canonical
from bridge.errors import InvalidRequest
from bridge.storage.keyring import KeyRing
from bridge.storage.search_query import Position

_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII)
_REF = re.compile(r"([^/]+)/([^/]+)/_history/([0-9]{1,9})", re.ASCII)
_PLACE = secrets.token_hex(16)
_WRITTEN_PLACE = f'"meta":"{_PLACE}"'.encode()
"""Stands for "meta" while a resource is written; chosen anew in each process, so that no resource can hold it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a version comes from: source name, SM3 of the source bytes, adapter name and version ("hl7v2/1.0")."""

    source: str
    source_digest: bytes
    adapter: str


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """A resource to be stored, for whose data key: ``subject`` is "Patient/<id>" or "node".

    ``mention``: the source speaks of something else and merely names this resource (``bridge.storage.mentions``).
    ``amends``: the source speaks of these elements only, and ``unlinks`` takes the links to these patients away; what
    is stored of the others stays. ``keeps``: lists that a source of this kind only adds to (``storage.amendments``).
    ``arrival``: the number of the message it comes from in the inbox, None for what did not come by a message. What a
    later message wrote is not replaced by an earlier one.
    """

    resource: dict[str, Any] | bytes = field(repr=False)
    lineage: Lineage
    subject: str
    mention: bool = False
    arrival: int | None = None
    amends: tuple[str, ...] = ()
    unlinks: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version as stored: ``content`` is its canonical JSON, ``digest`` the SM3 of exactly these bytes."""

    type: str
    id: str
    version: int
    updated: str
    content: bytes = field(repr=False)  # a repr may end in a log
    digest: bytes
    subject: str
    deleted: bool
    lineage: Lineage

    @property
    def ref(self) -> str:
        """Versioned reference, "Type/id/_history/version"."""
        return f"{self.type}/{self.id}/_history/{self.version}"

    def resource(self) -> dict[str, Any]:
        """Return the content parsed; numbers keep their lexemes."""
        parsed: dict[str, Any] = canonical.load(self.content)
        return parsed

    def values(self) -> dict[str, Any]:
        """Return the content parsed quickly, to be looked at: numbers are floats, so it must not be written again."""
        parsed: dict[str, Any] = orjson.loads(self.content)
        return parsed


@dataclass(frozen=True, slots=True)
class PutResult:
    """What a write led to: the current version number, and the new version, or None when there is none.

    ``outdated``: nothing was written because a message that arrived later had written the resource before.
    ``contradicts``: elements of a Patient in which what was said cannot be true of whom is stored
    (``bridge.storage.contradictions``).
    """

    type: str
    id: str
    version: int
    changed: bool
    stored: StoredVersion | None
    outdated: bool = False
    contradicts: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """Versioned reference, "Type/id/_history/version"."""
        return f"{self.type}/{self.id}/_history/{self.version}"


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of a search or history; ``total`` is None when it was not counted, ``after`` continues it."""

    entries: tuple[StoredVersion, ...]
    total: int | None = None
    after: Position | None = None


@dataclass(frozen=True, slots=True)
class PreparedWrite:
    """A checked ``RecordWrite``: parsed and never changed.

    ``meta`` is the resource's without version and time; ``head`` and ``tail`` are the canonical members before and
    after "meta", so that a version's bytes are put together without writing the resource a second time.
    ``content_key`` is the keyed hash of everything but version and time.
    """

    type: str
    id: str
    resource: dict[str, Any] = field(repr=False)
    meta: dict[str, Any] = field(repr=False)
    head: bytes = field(repr=False)
    tail: bytes = field(repr=False)
    content_key: bytes
    given: RecordWrite

    @property
    def lineage(self) -> Lineage:
        """Where the version comes from."""
        return self.given.lineage

    @property
    def subject(self) -> str:
        """Whose data key seals it."""
        return self.given.subject

    @property
    def mention(self) -> bool:
        """Whether the source merely names the resource."""
        return self.given.mention

    @property
    def arrival(self) -> int | None:
        """The number of the message it comes from."""
        return self.given.arrival

    @property
    def builds_on_stored(self) -> bool:
        """Whether what is stored becomes a part of what is written."""
        return bool(self.given.amends or self.given.unlinks or self.given.keeps)

    def content(self, version: int, updated: str) -> bytes:
        """Return the canonical bytes of a version; ``updated`` is a FHIR instant."""
        meta = {**self.meta, "versionId": str(version), "lastUpdated": updated}
        return _joined(self.head, meta, self.tail)


def version_place(ref: str) -> tuple[str, str, int] | None:
    """Return type, id and version of a reference such as "Observation/123/_history/2"; None for any other text."""
    found = _REF.fullmatch(ref)
    return None if found is None else (found[1], found[2], int(found[3]))


def prepared(write: RecordWrite, keyring: KeyRing) -> PreparedWrite:
    """Check a resource to be stored. Raises ``InvalidRequest``, or ``anchor.errors.CanonicalError``."""
    resource = canonical.load(write.resource) if isinstance(write.resource, bytes) else write.resource
    if not isinstance(resource, dict):
        raise InvalidRequest("a resource is a JSON object")
    kind, id = resource.get("resourceType"), resource.get("id")
    if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        raise InvalidRequest("resourceType is missing or is no FHIR type name")
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise InvalidRequest("id is missing or is no FHIR id (1 to 64 letters, digits, - and .)")
    given = resource.get("meta", {})
    if not isinstance(given, Mapping):
        raise InvalidRequest("meta is not a JSON object")
    meta = {name: value for name, value in given.items() if name not in {"versionId", "lastUpdated"}}
    meta.setdefault("source", f"urn:yiqiao:source:{quote(write.lineage.source, safe='')}")
    head, tail = _around_meta(resource)
    mark = keyring.blind("resource.content", _joined(head, meta, tail))
    return PreparedWrite(kind, id, resource, meta, head, tail, mark, write)


def _joined(head: bytes, meta: dict[str, Any], tail: bytes) -> bytes:
    return b'%b"meta":%b%b' % (head, canonical.dump(meta), tail)


def _around_meta(resource: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return the canonical bytes before the member "meta" and those after it, brackets and commas included."""
    head, _, tail = canonical.dump({**resource, "meta": _PLACE}).partition(_WRITTEN_PLACE)
    return head, tail


@lru_cache(maxsize=1024)  # all versions of a plan have one time
def instant(milliseconds: int) -> str:
    """Return Unix milliseconds as a FHIR instant in UTC, always with three decimals."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def associated_data(type: str, id: str, version: int) -> bytes:
    """Return what binds a sealed version to its place."""
    return f"{type}|{id}|{version}".encode()
