"""HTTP message signatures between members: RFC 9421 with SM2 and SM3.

One shape only, so that there is one thing to check. Every request carries

* ``Content-Digest: sm3=:<base64>:`` over the exact body bytes, empty ones too (RFC 9530; ``sm3`` is a name of ours),
* ``X-Yiqiao-Audience: <org>``: who the request is meant for,
* ``Signature-Input: yiqiao=(<the components of COVERED, in that order>);created=…;expires=…;nonce="…";
  keyid="<org>/<key id>";alg="sm2-sm3"``,
* ``Signature: yiqiao=:<base64 of the 64-byte r||s>:``.

What the receiver checks, in this order (the numbers stand beside the code):

1. the fields are there and have exactly this form; anything else is refused, a second label included;
2. the audience is this node;
3. ``created``/``expires`` bound the request to ``MAX_LIFETIME_SECONDS`` and to now, within ``CLOCK_SKEW_SECONDS``;
4. the body has the digest that was signed;
5. the signer is an active member of the ledger and the key is one of its live signing keys;
6. the SM2 signature holds over the signature base (RFC 9421 section 2.5);
7. the nonce was not seen before. Last, so that only a member can fill the replay cache.

What it does not do: decide whether that member may do what it asks. Confidentiality is TLS's task.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import requests
from requests.auth import AuthBase

from anchor import gm
from anchor.errors import AnchorError, SignatureInvalid
from bridge.errors import AuthenticationRequired

COVERED = ("@method", "@authority", "@path", "@query", "content-digest", "x-yiqiao-audience")
LABEL = "yiqiao"
ALGORITHM = "sm2-sm3"
AUDIENCE_HEADER = "X-Yiqiao-Audience"
CHECKPOINT_HEADER = "X-Yiqiao-Checkpoint"

MAX_LIFETIME_SECONDS = 60  # longest ``expires - created`` accepted: long enough for one round trip, short for the cache
CLOCK_SKEW_SECONDS = 30  # how far two hospitals' clocks may differ; both ends of the life time are widened by it
MAX_FIELD_CHARACTERS = 1024  # a Signature-Input of ours has about 260 characters
NONCE_BYTES = 16  # 128 bits: no two honest requests ever share one

MemberLookup = Callable[[str], Mapping[str, Any] | None]

_COMPONENTS = " ".join(f'"{name}"' for name in COVERED)
_INPUT = re.compile(
    rf"{LABEL}=(?P<params>\({re.escape(_COMPONENTS)}\)"
    r";created=(?P<created>[0-9]{1,12});expires=(?P<expires>[0-9]{1,12})"
    r';nonce="(?P<nonce>[A-Za-z0-9_-]{16,64})"'
    r';keyid="(?P<org>[0-9A-Z]{18})/(?P<key>[0-9a-f]{16})"'
    rf';alg="{ALGORITHM}")'
)
_SIGNATURE = re.compile(rf"{LABEL}=:([A-Za-z0-9+/]{{86}}==):")
_DIGEST = re.compile(r"sm3=:([A-Za-z0-9+/]{43}=):")
_FIELDS = frozenset({"signature-input", "signature", "content-digest", AUDIENCE_HEADER.lower()})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PATH_SAFE = "/:@!$&'()*+,;=~-._"


class PeerSignatureError(AuthenticationRequired):
    """A request between members that is not accepted as that member's.

    ``code`` is stable: malformed, wrong-audience, stale, altered-body, unknown-member, suspended-member, unknown-key,
    bad-signature, replayed.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NonceStore(Protocol):
    """Remembers nonces until they cannot be replayed any more; shared by all workers of a node."""

    def remember(self, nonce: str, expires: int, now: int) -> bool:
        """Keep ``nonce`` until ``expires`` (Unix seconds); False when it was already there."""

    def keeping(self, nonce: str, expires: int) -> AbstractContextManager[Any]:
        """Give the database transaction that keeps ``nonce``; None when it was already there."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A request whose signature holds under a key of ``org``; whether it came before is not known yet.

    ``nonce`` is the sender's with its org, to be kept until ``keep_until`` (Unix seconds).
    """

    org: str
    key_id: str
    nonce: str
    keep_until: int

    def confirm(self, member: Mapping[str, Any] | None, now: float) -> None:
        """Raise ``PeerSignatureError`` unless ``member``, the sender's record, is active and the key live in it."""
        _signing_key(member, self.key_id, int(now))


def content_digest(body: bytes) -> str:
    """Return the Content-Digest field value of a body (RFC 9530 section 2)."""
    return f"sm3=:{base64.b64encode(gm.sm3(body)).decode()}:"


def signature_base(method: str, url: str, digest: str, audience: str, params: str) -> bytes:
    """Return the bytes that are signed (RFC 9421 section 2.5).

    ``params`` is the Signature-Input member value: the component list and its parameters. Path and query are
    normalised, because servers and frameworks hand them over with another percent-encoding than the client wrote
    (section 2.2.6); two queries are signed alike only if they have the same names and values in the same order.
    """
    values = (
        method.upper(),
        _authority(url),
        quote(unquote(urlsplit(url).path or "/"), safe=_PATH_SAFE),
        "?" + _query(url),
        digest,
        audience,
    )
    lines = [f'"{name}": {value}' for name, value in zip(COVERED, values, strict=True)]
    lines.append(f'"@signature-params": {params}')
    return "\n".join(lines).encode()


def _authority(url: str) -> str:
    """Return host and, unless it is the scheme's default, port, in lower case (RFC 9421 section 2.2.3)."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise PeerSignatureError("malformed", "the request's address cannot be read") from error
    if ":" in host:
        host = f"[{host}]"
    return host if port is None or port == _DEFAULT_PORTS.get(parts.scheme) else f"{host}:{port}"


def _query(url: str) -> str:
    """Return the query in one percent-encoding."""
    try:
        pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True, errors="surrogateescape")
    except ValueError as error:
        raise PeerSignatureError("malformed", "the request's query cannot be read") from error
    return urlencode(pairs, quote_via=quote, errors="surrogateescape")


def sign_headers(
    method: str,
    url: str,
    body: bytes,
    *,
    org: str,
    key: gm.PrivateKey,
    audience: str,
    now: int,
    nonce: str | None = None,
) -> dict[str, str]:
    """Return the four header fields that make a request this member's own, valid for ``MAX_LIFETIME_SECONDS``."""
    nonce = nonce or secrets.token_urlsafe(NONCE_BYTES)
    params = (
        f"({_COMPONENTS});created={now};expires={now + MAX_LIFETIME_SECONDS}"
        f';nonce="{nonce}";keyid="{org}/{key.public_key.key_id}";alg="{ALGORITHM}"'
    )
    digest = content_digest(body)
    signature = key.sign(signature_base(method, url, digest, audience, params))
    return {
        "Content-Digest": digest,
        AUDIENCE_HEADER: audience,
        "Signature-Input": f"{LABEL}={params}",
        "Signature": f"{LABEL}=:{base64.b64encode(signature).decode()}:",
    }


class PeerAuth(AuthBase):
    """Signs every request of a ``requests`` session as one member for one audience.

    ``checkpoint`` gives what goes along in ``X-Yiqiao-Checkpoint`` (``bridge.services.gossip``), None for nothing. It
    is not covered by the signature: it carries its own.
    """

    def __init__(
        self,
        *,
        org: str,
        key: gm.PrivateKey,
        audience: str,
        clock: Callable[[], float] = time.time,
        checkpoint: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._org, self._key, self._audience, self._clock = org, key, audience, clock
        self._checkpoint = checkpoint

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign the prepared request; a body that is a stream is refused because it cannot be digested here."""
        body = request.body if request.body is not None else b""
        if isinstance(body, str):
            body = body.encode()
        if not isinstance(body, bytes):
            raise TypeError("a signed request's body must be bytes or text")
        request.headers.update(
            sign_headers(
                request.method or "GET",
                request.url or "",
                body,
                org=self._org,
                key=self._key,
                audience=self._audience,
                now=int(self._clock()),
            )
        )
        newest = self._checkpoint()
        if newest is not None:
            request.headers[CHECKPOINT_HEADER] = newest
        return request


def claimed_org(signature_input: str) -> str:
    """Return the org that a Signature-Input field names, nothing of it proven; "" when it has not this form."""
    found = _INPUT.fullmatch(signature_input) if len(signature_input) <= MAX_FIELD_CHARACTERS else None
    return found["org"] if found else ""


def verify_request(
    method: str,
    url: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    body: bytes,
    *,
    member_lookup: MemberLookup,
    audience: str,
    nonces: NonceStore,
    now: float,
) -> str:
    """Return the org that signed a request, or raise ``PeerSignatureError``; the steps are the module's.

    Arguments as of ``check_signature``.
    """
    signed = check_signature(method, url, headers, body, member_lookup=member_lookup, audience=audience, now=now)
    if not nonces.remember(signed.nonce, signed.keep_until, int(now)):  # (7)
        raise replayed()
    return signed.org


def replayed() -> PeerSignatureError:
    """Return the refusal of a request that came before."""
    return PeerSignatureError("replayed", "this request was already received")


def check_signature(
    method: str,
    url: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    body: bytes,
    *,
    member_lookup: MemberLookup,
    audience: str,
    now: float,
) -> Signed:
    """Return a request's signature after every step but the last, or raise ``PeerSignatureError``.

    ``url`` is the full address as received (scheme, host, path, query); ``headers`` a mapping or the field lines.
    ``member_lookup`` gives the ledger's member record.
    """
    values = _Fields(headers)  # (1)
    if not hmac.compare_digest(values.audience.encode(), audience.encode()):  # (2)
        raise PeerSignatureError("wrong-audience", "the request is meant for another member")
    now = int(now)
    if not 0 < values.expires - values.created <= MAX_LIFETIME_SECONDS:  # (3)
        raise PeerSignatureError("stale", "the request's life time is longer than allowed")
    if values.created > now + CLOCK_SKEW_SECONDS or values.expires < now - CLOCK_SKEW_SECONDS:
        raise PeerSignatureError("stale", "the request is out of date; check both clocks")
    if not hmac.compare_digest(values.digest, content_digest(body)):  # (4)
        raise PeerSignatureError("altered-body", "the body is not the one that was signed")
    key = _signing_key(member_lookup(values.org), values.key_id, now)  # (5)
    try:  # (6)
        key.verify(signature_base(method, url, values.digest, values.audience, values.params), values.signature)
    except SignatureInvalid as error:
        raise PeerSignatureError("bad-signature", "the request's signature does not hold") from error
    keep_until = values.expires + CLOCK_SKEW_SECONDS + 1
    return Signed(values.org, values.key_id, f"{values.org}:{values.nonce}", keep_until)


class _Fields:
    """The signature's fields of one request, read in their one accepted form."""

    def __init__(self, headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        lines: dict[str, str] = {}
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            name = name.lower()
            if name in lines and name in _FIELDS:  # two lines of one field: which one was meant?
                raise PeerSignatureError("malformed", "a field of the signature is there twice")
            lines[name] = value
        given = _match(_INPUT, lines.get("signature-input"))
        self.params = given["params"]
        self.created, self.expires = int(given["created"]), int(given["expires"])
        self.nonce, self.org, self.key_id = given["nonce"], given["org"], given["key"]
        self.signature = base64.b64decode(_match(_SIGNATURE, lines.get("signature"))[1])
        self.digest = _match(_DIGEST, lines.get("content-digest"))[0]
        self.audience = lines.get(AUDIENCE_HEADER.lower(), "")


def _match(pattern: re.Pattern[str], value: str | None) -> re.Match[str]:
    found = pattern.fullmatch(value) if value is not None and len(value) <= MAX_FIELD_CHARACTERS else None
    if found is None:
        raise PeerSignatureError("malformed", "the request carries no signature of the accepted form")
    return found


def _signing_key(member: Mapping[str, Any] | None, key_id: str, now: int) -> gm.PublicKey:
    if member is None:
        raise PeerSignatureError("unknown-member", "the sender is no member of this consortium")
    if member.get("status") != "active":
        raise PeerSignatureError("suspended-member", "the sender's membership is suspended")
    public = live_key(member, "sign", now, key_id)
    if public is None:
        raise PeerSignatureError("unknown-key", "the signing key is not one of the sender's live keys")
    return public


def live_key(member: Mapping[str, Any], use: str, now: int, key_id: str | None = None) -> gm.PublicKey | None:
    """Return a member's public key for ``use`` ("sign" or "encrypt") that is valid at ``now``.

    With ``key_id`` only that key will do; without it the one whose validity began last. None when there is none.
    """
    live = [
        key
        for key in member.get("keys", ())
        if key["use"] == use
        and key_id in (None, key["id"])
        and key["from"] <= now + CLOCK_SKEW_SECONDS
        and (key["until"] is None or now < key["until"])
    ]
    if not live:
        return None
    try:
        return public_key(max(live, key=lambda key: key["from"])["public"])
    except AnchorError:
        return None


@lru_cache(maxsize=512)  # a consortium has few keys, and checking a point and its tables costs more than a signature
def public_key(hex65: str) -> gm.PublicKey:
    """Return the key object of ``04||X||Y`` in hex; raises ``KeyFormatError`` when it is no point of the curve."""
    return gm.PublicKey.from_bytes(bytes.fromhex(hex65))
