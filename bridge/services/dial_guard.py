"""A requests adapter that connects only where a member's node may live, and knows whom it is talking to.

A member's address comes from the ledger, that is, from another institution. The guard resolves the name itself, refuses
addresses that a member must not make this node talk to (server-side request forgery), and connects to the very address
it checked, so that a name that resolves differently the second time gains nothing.

Never allowed: link-local (cloud metadata services live there), multicast, unspecified, reserved. Loopback and private
addresses only where the settings name their network (``exchange.private_networks``), or with ``allow_local``, for a
demo on one machine.

With a TLS identity the connection is mutual: version 1.3, this node's certificate, the consortium's authorities only,
and the peer's certificate must name the very institution that is meant.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from bridge.errors import CertificateInvalid

if TYPE_CHECKING:
    from bridge.pki.tls_identity import TlsIdentity

Network = IPv4Network | IPv6Network


def refusal(address: str, *, allow_local: bool, networks: Sequence[Network] = ()) -> str | None:
    """Return why a member's node may not live at an IP address, or None when it may."""
    ip = ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return "the address is of a kind no node may have"
    if ip.is_loopback or ip.is_private:
        if allow_local or any(ip in network for network in networks):
            return None
        return "the address is local to a network, which this node's settings do not allow"
    return "the address is reserved" if ip.is_reserved else None


@dataclass(frozen=True, slots=True)
class Dialling:
    """What a connection must keep to. ``tls`` and ``org``: with whose certificate, and who must be at the other end."""

    allow_local: bool
    networks: tuple[Network, ...] = ()
    tls: TlsIdentity | None = None
    org: str = ""


def _checked_address(connection: Any, rules: Dialling) -> str:
    """Resolve a connection's host and return one address that is allowed; all of them must be."""
    try:
        found = socket.getaddrinfo(connection.host, connection.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NewConnectionError(connection, "the name does not resolve") from error
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        problem = refusal(address, allow_local=rules.allow_local, networks=rules.networks)
        if problem is not None:
            raise NewConnectionError(connection, problem)
    return addresses[0]


def _guarded(kind: type[HTTPConnection], rules: Dialling, *, check_address: bool) -> type[HTTPConnection]:
    """Return a connection class that dials only checked addresses; the TLS name stays the host's own."""

    class Guarded(kind):  # type: ignore[misc, valid-type]
        """A connection whose address was checked before dialling, and whose other end after."""

        def _new_conn(self) -> socket.socket:
            name: str = self._dns_host
            if check_address:
                self._dns_host: str = _checked_address(self, rules)
            try:
                connected: socket.socket = super()._new_conn()
                return connected
            finally:
                self._dns_host = name

        def connect(self) -> None:
            super().connect()
            if rules.tls is None or not isinstance(self.sock, ssl.SSLSocket):
                return
            try:
                rules.tls.check_peer(self.sock.getpeercert(binary_form=True) or b"", rules.org)
            except (CertificateInvalid, ValueError) as error:
                self.close()
                raise NewConnectionError(self, "the certificate is not the member's that was meant") from error

    return Guarded


class GuardedAdapter(HTTPAdapter):
    """Mount this for http:// and https:// on a session whose addresses come from others.

    ``check_address`` False is for the operator's own settings: only the other end is checked then.
    """

    def __init__(self, rules: Dialling, *, check_address: bool = True) -> None:
        self._rules, self._check_address = rules, check_address
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Build the pool manager with guarded connections."""
        if self._rules.tls is not None:
            kwargs["ssl_context"] = self._rules.tls.context()
        super().init_poolmanager(*args, **kwargs)
        manager: PoolManager = self.poolmanager
        plain = _guarded(HTTPConnection, self._rules, check_address=self._check_address)
        secure = _guarded(HTTPSConnection, self._rules, check_address=self._check_address)

        class Plain(HTTPConnectionPool):
            """HTTP over guarded connections."""

            ConnectionCls = plain

        class Secure(HTTPSConnectionPool):
            """HTTPS over guarded connections."""

            ConnectionCls = secure  # type: ignore[assignment]

        manager.pool_classes_by_scheme = {"http": Plain, "https": Secure}
