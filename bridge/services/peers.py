"""Talking with other members: their requests are authenticated here, and ours leave from here.

Members, keys and endpoints are the ledger's. Requests to a member go only to the endpoint it has on the ledger: http or
https, https alone in production, no redirects, no proxies of the environment, only addresses that
``bridge.services.dial_guard`` allows, and answers of bounded size. The authority's address is this node's own setting
and is taken as it is. Where this node has a certificate of the consortium's, TLS is mutual.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import requests

from anchor.errors import ChainError
from bridge.errors import PeerRejected, PeerUnavailable
from bridge.peer_signature import (
    CHECKPOINT_HEADER,
    NonceStore,
    PeerAuth,
    PeerSignatureError,
    Signed,
    check_signature,
    verify_request,
)
from bridge.pki.tls_identity import AUTHORITIES
from bridge.services.dial_guard import Dialling, GuardedAdapter, Network
from bridge.services.peer_request import PeerRequest

if TYPE_CHECKING:
    from anchor import gm
    from bridge.pki.tls_identity import TlsIdentity
    from bridge.services.gossip import CheckpointGossip

MEMBER_CACHE_SECONDS = 2.0  # an endpoint changes rarely; keys and standing are always read afresh
MAX_ANSWER_BYTES = 96 * 1024 * 1024  # a release of 64 MiB in base64
CONNECT_SECONDS = 5.0
CHUNK_BYTES = 64 * 1024
_CODES = {401: "not-authenticated", 403: "not-permitted", 404: "not-offered", 409: "conflict", 429: "quota-exceeded"}


class StateReader(Protocol):
    """Knows values of the ledger's state."""

    def state(self, key: str) -> dict[str, Any] | None:
        """Return a value or None; raises ``ChainError``."""


class MemberDirectory:
    """The ledger's member records, remembered for ``MEMBER_CACHE_SECONDS`` per process."""

    def __init__(self, chain: StateReader) -> None:
        """``chain``: the ledger, or what remembers it for a while (``bridge.services.ledger_facts``)."""
        self._chain = chain
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, dict[str, Any] | None]] = {}

    def member(self, org: str, *, fresh: bool = False) -> dict[str, Any] | None:
        """Return the ledger's record of a member or None; ``fresh`` asks the ledger in any case."""
        now = time.monotonic()
        with self._lock:
            found = self._seen.get(org)
        if found is not None and not fresh and now - found[0] < MEMBER_CACHE_SECONDS:
            return found[1]
        record = self._chain.state(f"member/{org}")
        with self._lock:
            if record is not None or org in self._seen:  # unknown names must not fill the memory
                self._seen[org] = (now, record)
        return record

    def last_known(self, org: str) -> dict[str, Any] | None:
        """Return the record that this process read last, however old; None when it has read none."""
        with self._lock:
            found = self._seen.get(org)
        return None if found is None else found[1]

    def knows(self, org: str) -> bool:
        """Whether an org id is a member's, active or not; False as well when the ledger does not answer."""
        try:
            return bool(org) and self.member(org) is not None
        except ChainError:
            return False


@dataclass(frozen=True, slots=True)
class PeerRules:
    """What endpoints are acceptable.

    ``allow_local`` permits loopback and all private addresses, ``networks`` the private ones inside them.
    """

    https_only: bool
    allow_local: bool
    timeout_seconds: float = 30.0
    networks: tuple[Network, ...] = ()


def open_session(
    rules: PeerRules, tls: TlsIdentity | None, org: str, *, check_address: bool = True
) -> requests.Session:
    """Return a session that reaches one member, with this node's certificate where it has one.

    ``check_address`` False is for an address of the operator's own settings.
    """
    session = requests.Session()
    session.trust_env = False  # no proxy or netrc of the environment on the way to a member
    own = tls if tls is not None and tls.exists else None
    if own is not None:
        session.verify = str(own.directory / AUTHORITIES)  # no authority but the consortium's
    dialling = Dialling(rules.allow_local, rules.networks, own, org)
    for scheme in ("http://", "https://"):
        session.mount(scheme, GuardedAdapter(dialling, check_address=check_address))
    return session


class Peers:
    """One node's side of the conversation between members."""

    def __init__(
        self,
        *,
        directory: MemberDirectory,
        org: str,
        key: gm.PrivateKey,
        nonces: NonceStore,
        rules: PeerRules,
        addresses: Mapping[str, str] | None = None,
        tls: TlsIdentity | None = None,
        gossip: CheckpointGossip | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``addresses``: org -> base URL that goes before the ledger's endpoint; of the operator's own settings.

        ``tls``: this node's certificates; with them, every https connection is mutual and to the member that is meant.
        ``gossip``: carries the ledger's newest checkpoint along, both ways.
        """
        self.directory = directory
        self._org, self._key, self._nonces, self._rules, self._clock = org, key, nonces, rules, clock
        self._addresses = dict(addresses or {})
        self._tls = tls
        self._gossip = gossip
        self._lock = threading.Lock()
        self._sessions: dict[str, requests.Session] = {}

    def verify(
        self, *, method: str, url: str, headers: Mapping[str, str] | Iterable[tuple[str, str]], body: bytes
    ) -> str:
        """Return the member that signed a request to this node; raises ``PeerSignatureError``."""
        return verify_request(
            method,
            url,
            headers,
            body,
            member_lookup=lambda org: self.directory.member(org, fresh=True),
            audience=self._org,
            nonces=self._nonces,
            now=self._clock(),
        )

    def admit(
        self, *, method: str, url: str, headers: Mapping[str, str] | Iterable[tuple[str, str]], body: bytes
    ) -> PeerRequest:
        """Return a request whose signature holds, as ``verify`` but for two things that the caller does later.

        The signature may have been checked by a record that this process remembers: before anything else the sender is
        to be confirmed by what the ledger says now (``PeerRequest.confirm``). And the nonce is kept in the first
        transaction (``PeerRequest.transaction``). Raises ``PeerSignatureError``.
        """
        checked = partial(check_signature, method, url, headers, body, audience=self._org, now=self._clock())
        with suppress(PeerSignatureError):  # a key or a standing that has changed since: the ledger is asked
            return self._admitted(checked(member_lookup=self.directory.last_known), confirmed=False)
        signed = checked(member_lookup=lambda org: self.directory.member(org, fresh=True))
        return self._admitted(signed, confirmed=True)

    def _admitted(self, signed: Signed, *, confirmed: bool) -> PeerRequest:
        return PeerRequest(signed, self.directory, self._nonces, self._clock, confirmed=confirmed)

    def endpoint(self, org: str) -> str:
        """Return a member's base URL without a slash at the end; ``PeerUnavailable`` when it may not be used."""
        if self._addresses.get(org):
            return self._addresses[org].rstrip("/")  # checked with the settings, and no other member's word
        try:
            member = self.directory.member(org)
        except ChainError as error:
            raise PeerUnavailable("the ledger, which knows the members' addresses, does not answer") from error
        address = (member or {}).get("endpoint")
        if (member or {}).get("status") == "suspended":
            raise PeerUnavailable("the member is suspended")
        parts = urlsplit(address or "")
        allowed = {"https"} if self._rules.https_only else {"https", "http"}
        if not address or parts.scheme not in allowed or not parts.hostname or parts.username is not None:
            raise PeerUnavailable("the member has no address that this node may use")
        return str(address).rstrip("/")

    def post(self, org: str, path: str, body: bytes, *, timeout_seconds: float | None = None) -> bytes:
        """Send JSON bytes to ``path`` of a member, signed, and return the answer's bytes.

        Raises ``PeerUnavailable`` without an answer in time or for a failure on its side, ``PeerRejected`` with a
        stable code when the member refused.
        """
        return self._call("POST", org, path, body, timeout_seconds or self._rules.timeout_seconds)

    def get(self, org: str, path: str, *, timeout_seconds: float | None = None) -> bytes:
        """Fetch ``path`` of a member, signed; raises as ``post`` does."""
        return self._call("GET", org, path, None, timeout_seconds or self._rules.timeout_seconds)

    def _call(self, method: str, org: str, path: str, body: bytes | None, seconds: float) -> bytes:
        url, timeout = self.endpoint(org) + path, (CONNECT_SECONDS, seconds)
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body is not None else {})
        try:
            with self._session(org).request(
                method,
                url,
                data=body,
                headers=headers,
                auth=self._auth(org),
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                content = _bounded(response)
                status = response.status_code
                if self._gossip is not None:
                    self._gossip.hear(response.headers.get(CHECKPOINT_HEADER), org)
        except (requests.RequestException, OSError) as error:
            raise PeerUnavailable("the other institution does not answer", cause=type(error).__name__) from error
        if status == 200:
            return content
        if status >= 500:
            raise PeerUnavailable("the other institution could not answer", cause=f"HTTP {status}")
        code = _CODES.get(status, "refused")
        raise PeerRejected(code, _MESSAGES.get(code, "the other institution refused"), cause=f"HTTP {status}")

    def _auth(self, org: str) -> PeerAuth:
        newest = (lambda: None) if self._gossip is None else self._gossip.newest
        return PeerAuth(org=self._org, key=self._key, audience=org, clock=self._clock, checkpoint=newest)

    def _session(self, org: str) -> requests.Session:
        with self._lock:
            if org not in self._sessions:
                foreign = not self._addresses.get(org)
                self._sessions[org] = open_session(self._rules, self._tls, org, check_address=foreign)
            return self._sessions[org]

    def close(self) -> None:
        """Close the connections kept open."""
        with self._lock:
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()


_MESSAGES = {
    "not-permitted": "the other institution does not permit it, or has nothing to show",
    "quota-exceeded": "this member's quota at the other institution is used up",
    "not-authenticated": "the other institution did not accept this node's signature",
}


def _bounded(response: requests.Response) -> bytes:
    """Read an answer up to ``MAX_ANSWER_BYTES``."""
    chunks, size = [], 0
    for chunk in response.iter_content(CHUNK_BYTES):
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise PeerUnavailable("the other institution's answer is larger than this node accepts")
        chunks.append(chunk)
    return b"".join(chunks)
