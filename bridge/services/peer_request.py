"""A member's signed request whose nonce is stored together with the first thing that the request does.

A nonce must outlive a crash before its request has any effect. Where the request's first effect is a row of the
database, one transaction makes both durable, and a replay finds the nonce and does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bridge.peer_signature import NonceStore, Signed, replayed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.services.peers import MemberDirectory


class PeerRequest:
    """One request; made by ``Peers.admit``. ``org``: whose signature it carries."""

    def __init__(
        self,
        signed: Signed,
        directory: MemberDirectory,
        nonces: NonceStore,
        clock: Callable[[], float],
        *,
        confirmed: bool,
    ) -> None:
        """``confirmed``: the signature was checked by the record that the ledger has now."""
        self._signed, self._directory, self._nonces, self._clock = signed, directory, nonces, clock
        self._confirmed, self._kept = confirmed, False
        self.org = signed.org

    def confirm(self, member: Mapping[str, Any] | None) -> None:
        """Check the sender against its record as the ledger has it now; raises ``PeerSignatureError``."""
        self._signed.confirm(member, self._clock())
        self._confirmed = True

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give the transaction that keeps the nonce, for the request's first writes; to be used once.

        Asks the ledger for the sender where nobody has. Raises ``PeerSignatureError``, "replayed" among others.
        """
        if self._kept:
            raise replayed()
        if not self._confirmed:
            self.confirm(self._directory.member(self.org, fresh=True))
        with self._nonces.keeping(self._signed.nonce, self._signed.keep_until) as connection:
            if connection is None:
                raise replayed()
            yield connection
        self._kept = True

    def settle(self) -> None:
        """Keep the nonce of a request that has ended before its first transaction; raises as ``transaction`` does."""
        if not self._kept:
            with self.transaction():
                pass
