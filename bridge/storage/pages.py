"""Pages of releases: those that wait to be fetched at the holder, those that have arrived at the requester."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, Table, delete, insert, select

from bridge.errors import Gone
from bridge.storage.database import read_transaction
from bridge.storage.exchange import ReceivedPage, ReleasePage
from bridge.storage.keyring import KeyRing

_PAGE: Table = ReleasePage.__table__  # type: ignore[attr-defined]
_ARRIVED: Table = ReceivedPage.__table__  # type: ignore[attr-defined]


class ReleasePages:
    """The holder's pages; each is the very envelope that leaves, sealed here under the patient's key."""

    def __init__(self, engine: Engine, keyring: KeyRing) -> None:
        self._engine, self._keyring = engine, keyring

    def add(
        self, connection: Connection, request: str, number: int, patient: str, envelope: bytes, digest: str, count: int
    ) -> None:
        """Keep one page of ``count`` digests."""
        sealed = self._keyring.seal(connection, f"Patient/{patient}", envelope, _aad(request, number))
        row = {"request_id": request, "number": number, "envelope_sealed": sealed, "digest": digest, "count": count}
        connection.execute(insert(_PAGE).values(**row))

    @staticmethod
    def drop(connection: Connection, request: str) -> None:
        """Throw a request's pages away."""
        connection.execute(delete(_PAGE).where(_PAGE.c.request_id == request))

    def digests(self, request: str) -> tuple[str, ...]:
        """Return the digests of a request's pages in order."""
        wanted = select(_PAGE.c.digest).where(_PAGE.c.request_id == request).order_by(_PAGE.c.number)
        with read_transaction(self._engine) as connection:
            return tuple(connection.execute(wanted).scalars())

    def envelope(self, request: str, number: int, patient: str) -> bytes:
        """Return the envelope of one page; raises ``Gone``, and ``KeyDestroyed`` after the patient's erasure."""
        place = (_PAGE.c.request_id == request) & (_PAGE.c.number == number)
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(_PAGE).where(place)).first()
            if row is None:
                raise Gone("the release has no such page, or it is kept no longer / 没有该分页或已过期")
            return self._keyring.open(connection, f"Patient/{patient}", row.envelope_sealed, _aad(request, number))


class ArrivedPages:
    """The requester's pages of a release that is not complete yet."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @staticmethod
    def keep(connection: Connection, request: str, number: int, envelope: bytes, digest: str, count: int) -> None:
        """Keep a page that was checked; one of the same number is replaced."""
        place = (_ARRIVED.c.request_id == request) & (_ARRIVED.c.number == number)
        connection.execute(delete(_ARRIVED).where(place))
        row = {"request_id": request, "number": number, "envelope": envelope, "digest": digest, "count": count}
        connection.execute(insert(_ARRIVED).values(**row))

    def here(self, request: str) -> list[tuple[str, int]]:
        """Return (digest, count) of the pages that have arrived: the first ones, in order, without a gap."""
        wanted = select(_ARRIVED.c.number, _ARRIVED.c.digest, _ARRIVED.c.count).where(_ARRIVED.c.request_id == request)
        with read_transaction(self._engine) as connection:
            rows = connection.execute(wanted.order_by(_ARRIVED.c.number)).all()
        return [(digest, count) for place, (number, digest, count) in enumerate(rows) if number == place]

    def envelope(self, request: str, number: int) -> bytes:
        """Return the envelope of a page that has arrived."""
        place = (_ARRIVED.c.request_id == request) & (_ARRIVED.c.number == number)
        with read_transaction(self._engine) as connection:
            return bytes(connection.execute(select(_ARRIVED.c.envelope).where(place)).scalar_one())

    @staticmethod
    def drop(connection: Connection, request: str) -> None:
        """Throw a request's pages away: stored, or rejected."""
        connection.execute(delete(_ARRIVED).where(_ARRIVED.c.request_id == request))


def _aad(request: str, number: int) -> bytes:
    return f"page|{request}|{number}".encode()
