"""A requests adapter that connects only where a member's node may live.

A member's address comes from the ledger, that is, from another institution. The guard resolves the name itself, refuses
addresses that a member must not make this node talk to (server-side request forgery), and connects to the very address
it checked, so that a name that resolves differently the second time gains nothing.

Never allowed: link-local (cloud metadata services live there), multicast, unspecified, reserved. Loopback and private
addresses only with ``allow_local``, for a demo on one machine and for consortia on a private network.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError


def refusal(address: str, *, allow_local: bool) -> str | None:
    """Return why a member's node may not live at an IP address, or None when it may."""
    ip = ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return "the address is of a kind no node may have"
    if ip.is_loopback or ip.is_private:
        return None if allow_local else "the address is local to a network, which this node's settings do not allow"
    return "the address is reserved" if ip.is_reserved else None


def _checked_address(connection: Any, *, allow_local: bool) -> str:
    """Resolve a connection's host and return one address that is allowed; all of them must be."""
    try:
        found = socket.getaddrinfo(connection.host, connection.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NewConnectionError(connection, "the name does not resolve") from error
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        problem = refusal(address, allow_local=allow_local)
        if problem is not None:
            raise NewConnectionError(connection, problem)
    return addresses[0]


def _guarded(kind: type[HTTPConnection], allow_local: bool) -> type[HTTPConnection]:
    """Return a connection class that dials only checked addresses; the TLS name stays the host's own."""

    class Guarded(kind):  # type: ignore[misc, valid-type]
        """A connection whose address was checked before dialling."""

        def _new_conn(self) -> socket.socket:
            name: str = self._dns_host
            self._dns_host: str = _checked_address(self, allow_local=allow_local)
            try:
                connected: socket.socket = super()._new_conn()
                return connected
            finally:
                self._dns_host = name

    return Guarded


class GuardedAdapter(HTTPAdapter):
    """Mount this for http:// and https:// on a session whose addresses come from others."""

    def __init__(self, *, allow_local: bool) -> None:
        self._allow_local = allow_local
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Build the pool manager with guarded connections."""
        super().init_poolmanager(*args, **kwargs)
        manager: PoolManager = self.poolmanager
        allow_local = self._allow_local

        class Plain(HTTPConnectionPool):
            """HTTP over guarded connections."""

            ConnectionCls = _guarded(HTTPConnection, allow_local)

        class Secure(HTTPSConnectionPool):
            """HTTPS over guarded connections."""

            ConnectionCls = _guarded(HTTPSConnection, allow_local)  # type: ignore[assignment]

        manager.pool_classes_by_scheme = {"http": Plain, "https": Secure}
