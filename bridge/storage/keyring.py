"""Keys of what lies at rest: one data key per patient, wrapped by the node's key-encryption key (KEK).

- A data key is 16 random bytes for SM4-GCM. It is stored only wrapped (SM4-GCM under the KEK, the subject in the
  associated data) and destroyed by forgetting the wrapped form: what it sealed is then gone for good, in every process
  at once, because the wrapped form is read in each transaction and only its unwrapping is cached.
- A KEK is replaced without stopping the node: ``kek_state`` says which one wraps from now on (asked in the transaction
  that makes a key, so that no process goes on with an old one), ``rewrap`` brings the rest over in small transactions,
  and meanwhile every KEK that a key may still be wrapped with opens it.
- The blind index is HMAC-SM3 under the index key with the field's name in the input, so that equal values of different
  fields do not meet, and nothing can be tested against the index without the key.

Sealed form: ``01 || nonce (12) || ciphertext || tag (16)``.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    LargeBinary,
    String,
    Table,
    bindparam,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, SQLModel

from anchor.errors import DecryptionError
from anchor.gm import hmac_sm3, sm3, sm4_gcm_decrypt, sm4_gcm_encrypt
from bridge.errors import Conflict, KeyDestroyed, SealBroken, SettingsError, VersionConflict
from bridge.storage.database import read_transaction, transact, write_transaction
from bridge.storage.randomness import RANDOM

NODE = "node"
"""Subject of everything that belongs to no patient: organisations, practitioners, messages not yet converted."""

KEY_BYTES = 16
INDEX_KEY_BYTES = 32
NONCE_BYTES = 12
SEAL_VERSION = b"\x01"
SEALED_BYTES = 1 + NONCE_BYTES + 16
"""Length of the sealed empty string; nothing shorter can be one."""

UNWRAPPED_KEYS = 20_000
"""Unwrapped data keys kept per process: about the patients of a busy day, some 5 MB."""

BLIND_VALUES = 20_000
"""Blind values of frequent field values (codes, statuses, days) kept per process, some 5 MB."""

BLIND_CACHED_CHARACTERS = 80
"""Longer values are not worth remembering."""

SELECT_CHUNK = 500
"""Subjects a query names at once: below SQLite's limit of bound variables on every build."""


REWRAP_ROWS = 500
"""Data keys wrapped anew in one transaction: some ten milliseconds, so that nobody waits for it."""


class KekState(SQLModel, table=True):
    """Which KEK wraps new data keys: one row (``id`` 1), its ``kek`` an id as in ``subject_key``."""

    __tablename__ = "kek_state"

    id: int = Field(primary_key=True)
    kek: str = Field(max_length=16)
    changed: int = Field(sa_type=BigInteger)


class SubjectKey(SQLModel, table=True):
    """The wrapped data key of one subject; ``wrapped`` is None once destroyed. Times are Unix seconds."""

    __tablename__ = "subject_key"

    subject: str = Field(sa_column=Column(String(200), primary_key=True))
    wrapped: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    kek: str = Field(sa_column=Column(String(16), nullable=False))
    created: int = Field(sa_column=Column(BigInteger, nullable=False))
    destroyed: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))


SUBJECT_KEY: Table = SubjectKey.__table__  # type: ignore[attr-defined]
# Built once: building it takes longer than running it, and every sealing and opening does.
_WRAPPED = select(SUBJECT_KEY.c.subject, SUBJECT_KEY.c.wrapped).where(
    SUBJECT_KEY.c.subject.in_(bindparam("subjects", expanding=True))
)
_STATE: Table = KekState.__table__  # type: ignore[attr-defined]


def kek_id(kek: bytes) -> str:
    """Return the public name of a KEK: 16 hex digits."""
    return sm3(b"yiqiao/kek-id/v1" + kek).hex()[:16]


@dataclass(frozen=True, slots=True, repr=False)
class DataKey:
    """An unwrapped data key; seals and opens, and does not show itself."""

    key: bytes

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt with a fresh nonce; ``aad`` binds the result to its place."""
        nonce = RANDOM.take(NONCE_BYTES)
        return SEAL_VERSION + nonce + sm4_gcm_encrypt(self.key, nonce, plaintext, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Decrypt; raises ``SealBroken`` when the bytes, their place or their key are not what they were."""
        if sealed[:1] != SEAL_VERSION or len(sealed) < SEALED_BYTES:
            raise SealBroken
        try:
            return sm4_gcm_decrypt(self.key, sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], aad)
        except DecryptionError:
            raise SealBroken from None


class KeyRing:
    """Data keys and blind index of one node; safe to share between threads."""

    def __init__(
        self,
        engine: Engine,
        kek: bytes,
        index_key: bytes,
        clock: Callable[[], float] = time.time,
        *,
        keks: Callable[[], Sequence[bytes]] | None = None,
    ) -> None:
        """``keks`` reads the KEKs at hand, the current one first; it is called again when one is met that is not known.

        Without it there is only ``kek``.
        """
        if len(kek) != KEY_BYTES:
            raise SettingsError("the key-encryption key must be 16 bytes")
        if len(index_key) != INDEX_KEY_BYTES:
            raise SettingsError("the index key must be 32 bytes")
        self._engine = engine
        self._read_keks = keks or (lambda: (kek,))
        self._keks = {kek_id(kek): kek}
        self._newest = kek_id(kek)
        self._index_key = index_key
        self._clock = clock
        self._lock = threading.Lock()
        self._unwrapped: OrderedDict[tuple[str, bytes], DataKey] = OrderedDict()
        self._blind: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._node_key: DataKey | None = None

    def data_key(self, connection: Connection, subject: str) -> DataKey:
        """Return the subject's data key, made on first use; raises ``KeyDestroyed``."""
        return self.data_keys(connection, [subject])[subject]

    def data_keys(self, connection: Connection, subjects: Iterable[str]) -> dict[str, DataKey]:
        """Return the data keys of several subjects with few statements, making those that are missing."""
        wanted = sorted(set(subjects))
        found = self._select(connection, wanted)
        missing = [subject for subject in wanted if subject not in found]
        if missing:
            self._create(connection, missing)
            found |= self._select(connection, missing)
        return {subject: self.unwrap(subject, found[subject]) for subject in wanted}

    def keys_for(
        self, connection: Connection, subjects: Iterable[str]
    ) -> tuple[dict[str, DataKey], dict[str, DataKey]]:
        """Return data keys for work that is prepared before its transaction, and those of them that are new.

        In the transaction that uses them ``store_new`` must store the new ones and ``confirm`` look after the others.
        Raises ``KeyDestroyed``.
        """
        wanted = sorted(set(subjects))
        found = self._select(connection, wanted)
        keys = {subject: self.unwrap(subject, found[subject]) for subject in wanted if subject in found}
        new = {subject: DataKey(secrets.token_bytes(KEY_BYTES)) for subject in wanted if subject not in found}
        return keys | new, new

    def store_new(self, connection: Connection, new: Mapping[str, DataKey]) -> None:
        """Store keys made by ``keys_for``; ``VersionConflict`` when another process made one for the subject first."""
        if new:
            rows = self._rows({subject: key.key for subject, key in new.items()}, self._wrapping(connection))
            connection.execute(SUBJECT_KEY.insert(), rows)

    def confirm(self, connection: Connection, subjects: Iterable[str]) -> None:
        """Make sure that no key of ``keys_for`` was destroyed since, nor will be before this transaction ends.

        Raises ``VersionConflict``: the work is to be prepared again.
        """
        wanted = sorted(set(subjects) - {NODE})
        for start in range(0, len(wanted), SELECT_CHUNK):
            chunk = wanted[start : start + SELECT_CHUNK]
            living = select(SUBJECT_KEY.c.subject).where(
                SUBJECT_KEY.c.subject.in_(chunk), SUBJECT_KEY.c.wrapped.is_not(None)
            )
            if len(connection.execute(living.with_for_update(read=True)).all()) != len(chunk):
                raise VersionConflict

    def node_key(self) -> DataKey:
        """Return the key of subject "node", which is never destroyed, without a transaction of the caller's."""
        if self._node_key is None:
            self._node_key = transact(self._engine, lambda connection: self.data_key(connection, NODE))
        return self._node_key

    def unwrap(self, subject: str, wrapped: bytes | None) -> DataKey:
        """Return the data key whose wrapped form was just read; raises ``KeyDestroyed`` or ``SealBroken``."""
        if wrapped is None:
            raise KeyDestroyed
        place = (subject, wrapped)
        with self._lock:
            key = self._unwrapped.get(place)
            if key is not None:
                self._unwrapped.move_to_end(place)
                return key
        key = DataKey(self._open_wrapped(subject, wrapped))
        with self._lock:
            self._unwrapped[place] = key
            if len(self._unwrapped) > UNWRAPPED_KEYS:
                self._unwrapped.popitem(last=False)
        return key

    def seal(self, connection: Connection, subject: str, plaintext: bytes, aad: bytes) -> bytes:
        """Seal under the subject's data key; raises ``KeyDestroyed``."""
        return self.data_key(connection, subject).seal(plaintext, aad)

    def open(self, connection: Connection, subject: str, sealed: bytes, aad: bytes) -> bytes:
        """Open what ``seal`` made; raises ``KeyDestroyed`` after ``destroy`` and ``SealBroken`` when altered."""
        found = self._select(connection, [subject])
        if subject not in found:
            raise SealBroken
        return self.unwrap(subject, found[subject]).open(sealed, aad)

    def destroy(self, connection: Connection, subject: str) -> bool:
        """Forget a subject's data key for ever; False when it had none. The subject "node" is refused."""
        if subject == NODE:
            raise Conflict("the node's own data key cannot be destroyed")
        done = connection.execute(
            update(SUBJECT_KEY)
            .where(SUBJECT_KEY.c.subject == subject, SUBJECT_KEY.c.wrapped.is_not(None))
            .values(wrapped=None, destroyed=int(self._clock()))
        )
        with self._lock:
            for place in [place for place in self._unwrapped if place[0] == subject]:
                del self._unwrapped[place]
        return done.rowcount == 1

    def blind(self, field: str, value: str | bytes) -> bytes:
        """Return the 32-byte blind index value of ``value`` in ``field``; equal inputs give equal outputs."""
        if isinstance(value, bytes) or len(value) > BLIND_CACHED_CHARACTERS:
            raw = value if isinstance(value, bytes) else value.encode(errors="surrogatepass")
            return self._hmac(field, raw)
        place = (field, value)
        cached = self._blind.get(place)
        if cached is None:
            cached = self._hmac(field, value.encode(errors="surrogatepass"))
            with self._lock:
                self._blind[place] = cached
                if len(self._blind) > BLIND_VALUES:
                    self._blind.popitem(last=False)
        return cached

    def _hmac(self, field: str, value: bytes) -> bytes:
        name = field.encode()
        return hmac_sm3(self._index_key, b"yiqiao/blind/v1\x00%d:%s\x00%s" % (len(name), name, value))

    # --- replacing the key-encryption key

    def use(self, kek: bytes) -> None:
        """Wrap new data keys with ``kek`` from now on, in every process of the node; old ones stay as they are."""
        name = kek_id(kek)
        self._reload()
        if name not in self._keks:
            raise SettingsError("the new key-encryption key is not among the node's key files")
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        values = {"kek": name, "changed": int(self._clock())}
        with write_transaction(self._engine) as connection:
            statement = insert(_STATE).values(id=1, **values)
            connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    def rewrap(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Wrap every data key that is under another KEK with the current one; return how many.

        May be interrupted and run again, and runs beside a working node: each step changes some hundred rows in a
        transaction of its own. ``progress`` is told (done, of how many).
        """
        done, total = 0, sum(count for name, count in self.wrapped_keys().items() if name != self._current())
        while True:
            changed = transact(self._engine, self._rewrap_some)
            done += changed
            if progress is not None:
                progress(done, max(total, done))
            if not changed:
                return done

    def wrapped_keys(self) -> dict[str, int]:
        """Return how many data keys each KEK wraps, by the KEK's id."""
        counted = select(SUBJECT_KEY.c.kek, func.count()).where(SUBJECT_KEY.c.wrapped.is_not(None))
        with read_transaction(self._engine) as connection:
            return {row[0]: int(row[1]) for row in connection.execute(counted.group_by(SUBJECT_KEY.c.kek))}

    def current_kek(self) -> str:
        """Return the id of the KEK that wraps new data keys."""
        return self._current()

    def _current(self) -> str:
        with read_transaction(self._engine) as connection:
            return self._wrapping(connection)

    def _wrapping(self, connection: Connection) -> str:
        """Return which KEK wraps new data keys; the key files' own choice while the database says nothing."""
        name = connection.execute(select(_STATE.c.kek).where(_STATE.c.id == 1)).scalar()
        if name is None:
            return self._newest
        if name not in self._keks:
            self._reload()
        if name not in self._keks:
            raise SettingsError("the key-encryption key that wraps this node's data keys is missing; restore kek.key")
        return str(name)

    def _reload(self) -> None:
        found = self._read_keks()
        with self._lock:
            self._keks = {kek_id(kek): kek for kek in found}
            self._newest = kek_id(found[0])

    def _rewrap_some(self, connection: Connection) -> int:
        name = self._wrapping(connection)
        old = (SUBJECT_KEY.c.kek != name) & SUBJECT_KEY.c.wrapped.is_not(None)
        rows = connection.execute(select(SUBJECT_KEY).where(old).limit(REWRAP_ROWS).with_for_update()).all()
        for row in rows:
            key = self._open_wrapped(row.subject, row.wrapped)
            values = {"wrapped": self._wrap(name, row.subject, key), "kek": name}
            connection.execute(update(SUBJECT_KEY).where(SUBJECT_KEY.c.subject == row.subject).values(**values))
        return len(rows)

    def _wrap(self, name: str, subject: str, key: bytes) -> bytes:
        return DataKey(self._keks[name]).seal(key, _wrap_aad(name, subject))

    def _open_wrapped(self, subject: str, wrapped: bytes) -> bytes:
        """Open a wrapped data key with whichever KEK it is under, the key files being read again if none fits."""
        for attempt in (1, 2):
            for name, kek in tuple(self._keks.items()):
                try:
                    return DataKey(kek).open(wrapped, _wrap_aad(name, subject))
                except SealBroken:
                    continue
            if attempt == 1:
                self._reload()
        raise SealBroken

    def _select(self, connection: Connection, subjects: list[str]) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for start in range(0, len(subjects), SELECT_CHUNK):
            chunk = subjects[start : start + SELECT_CHUNK]
            rows = connection.execute(_WRAPPED, {"subjects": chunk})
            found.update({row.subject: row.wrapped for row in rows})
        return found

    def _create(self, connection: Connection, subjects: list[str]) -> None:
        """Insert keys for subjects that have none; another process that was first keeps its own."""
        made = {subject: secrets.token_bytes(KEY_BYTES) for subject in subjects}
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        rows = self._rows(made, self._wrapping(connection))
        connection.execute(insert(SUBJECT_KEY).on_conflict_do_nothing(), rows)

    def _rows(self, keys: Mapping[str, bytes], name: str) -> list[dict[str, Any]]:
        """Return the rows of new data keys, wrapped with the KEK of that name."""
        made = int(self._clock())
        return [
            {"subject": subject, "wrapped": self._wrap(name, subject, key), "kek": name, "created": made}
            for subject, key in keys.items()
        ]


def _wrap_aad(name: str, subject: str) -> bytes:
    return f"yiqiao/wrap/v1|{name}|{subject}".encode()
