"""The signed request for a patient's records: what a requester states, signs and commits to on the ledger.

``{"key":"<key id>","sig":"<128 hex>","statement":{…}}``, canonical JSON; the signature is SM2 over the statement's
canonical bytes. The statement holds a salt of 32 random bytes; its SM3 is the commitment that ``access.request`` or
``access.emergency`` puts on the ledger before the request is sent, so that neither side can later tell another story.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anchor import canonical, gm
from anchor.errors import AnchorError, CanonicalError
from anchor.receipt import commitment
from bridge.errors import DisclosureRefused, InvalidRequest
from bridge.peer_signature import live_key
from bridge.services.sealed_subject import SEALED

MAX_REQUEST_BYTES = 64 * 1024  # a statement with every field full has about 4 kB
MAX_AGE_SECONDS = 900  # a request is answered, or repeated with the same id, within a quarter of an hour
KNOWN_SECONDS = 8 * 86_400  # one that was taken in time may be repeated until a person had a week to answer, and a day
CLOCK_SKEW_SECONDS = 30
SALT_BYTES = 32
MAX_CATEGORIES = 64
MAX_TEXT_CHARACTERS = 500

_ID = re.compile(r"[0-9a-f]{32}")
_ORG = re.compile(r"[0-9A-Z]{18}")
_PID = re.compile(rf"[0-9]{{1,6}}\.[0-9a-f]{{64}}|{SEALED}")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_SALT = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[0-9a-f]{16}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
UNDECIDED = frozenset({"wrong-party", "stale", "unknown-key", "bad-signature", "not-on-ledger", "conflict"})
"""Codes of refusals without a decision: it is not proven who asks for what (``check_authentic``), or under which id."""
NOT_ASKED: Mapping[str, Any] = {}
"""Stands for the ledger's state of a request where the ledger does not answer and that may be lived with."""
_FIELDS = frozenset(
    {
        *("v", "chain", "request", "requester", "holder", "pid", "purpose", "grant", "emergency"),
        *("reason", "practitioner", "role", "categories", "time", "salt"),
    }
)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request in its one form. ``statement`` is read-only by convention; its fields are described in ADR 0009."""

    statement: Mapping[str, Any]
    key: str
    signature: bytes

    def dump(self) -> bytes:
        """Return the bytes that are sent."""
        return canonical.dump({"key": self.key, "sig": self.signature.hex(), "statement": dict(self.statement)})

    @property
    def id(self) -> str:
        """The request id."""
        return str(self.statement["request"])

    @property
    def commitment(self) -> str:
        """What stands for this request on the ledger, hex."""
        return commitment(self.statement).hex()

    @property
    def treatment(self) -> bool:
        """Whether care depends on it: such a release need not wait for the ledger (design section 7)."""
        return self.statement["emergency"] is not None or self.statement["purpose"] in ("TREAT", "ETREAT", "BTG")


def build(
    *,
    chain: str,
    requester: str,
    key: gm.PrivateKey,
    holder: str,
    pid: str,
    purpose: str,
    now: int,
    grant: str | None = None,
    emergency: str | None = None,
    reason: str = "",
    practitioner: str | None = None,
    role: str = "",
    categories: frozenset[str] | None = None,
) -> SignedRequest:
    """Return a new signed request with a fresh id and salt; raises ``InvalidRequest`` for a value of the wrong form."""
    statement = {
        "v": 1,
        "chain": chain,
        "request": secrets.token_hex(16),
        "requester": requester,
        "holder": holder,
        "pid": pid,
        "purpose": purpose,
        "grant": grant,
        "emergency": emergency,
        "reason": reason,
        "practitioner": practitioner,
        "role": role,
        "categories": None if categories is None else sorted(categories),
        "time": now,
        "salt": secrets.token_hex(SALT_BYTES),
    }
    _check(statement)
    return SignedRequest(statement, key.public_key.key_id, key.sign(canonical.dump(statement)))


def parse(raw: bytes) -> SignedRequest:
    """Read a request; raises ``InvalidRequest`` naming the field that is not of its form."""
    if len(raw) > MAX_REQUEST_BYTES:
        raise InvalidRequest("the request is larger than any request is")
    try:
        value = canonical.load(raw)
    except CanonicalError as error:
        raise InvalidRequest("the request is not canonical JSON") from error
    if not isinstance(value, dict) or set(value) != {"key", "sig", "statement"}:
        raise InvalidRequest("a request has a statement, a key and a signature")
    _text(value["key"], _KEY, "key")
    _text(value["sig"], _SIGNATURE, "sig")
    _check(value["statement"])
    signed = SignedRequest(value["statement"], value["key"], bytes.fromhex(value["sig"]))
    if signed.dump() != raw:
        raise InvalidRequest("the request is not in canonical form")
    return signed


def check_authentic(
    signed: SignedRequest,
    *,
    caller: str,
    holder: str,
    chain: str,
    member: Mapping[str, Any] | None,
    ledger: Mapping[str, Any] | None,
    now: int,
    max_age: int = MAX_AGE_SECONDS,
) -> None:
    """Raise ``DisclosureRefused`` unless the request is the caller's, for this holder, and on the ledger as stated.

    ``member`` is the ledger's record of the caller, ``ledger`` its state ``request/<id>`` or ``NOT_ASKED``, ``max_age``
    how many seconds ago it may have been made.
    """
    statement = signed.statement
    if statement["requester"] != caller or statement["holder"] != holder or statement["chain"] != chain:
        raise DisclosureRefused("wrong-party", "the request names another requester, holder or chain")
    if not statement["time"] - CLOCK_SKEW_SECONDS <= now <= statement["time"] + max_age:
        raise DisclosureRefused("stale", "the request is out of date")
    public = live_key(member or {}, "sign", statement["time"], signed.key)
    try:
        if public is None:
            raise DisclosureRefused("unknown-key", "the request is not signed by a live key of the requester")
        public.verify(canonical.dump(dict(statement)), signed.signature)
    except AnchorError as error:
        raise DisclosureRefused("bad-signature", "the request's signature does not hold") from error
    if ledger is NOT_ASKED:
        return
    expected = {"requester": caller, "holder": holder, "commitment": signed.commitment}
    if ledger is None or any(ledger.get(name) != value for name, value in expected.items()):
        raise DisclosureRefused("not-on-ledger", "the ledger holds no such request")
    kind = "request" if statement["emergency"] is None else "emergency"
    if ledger.get("kind") != kind or (kind == "request" and ledger.get("purpose") != statement["purpose"]):
        raise DisclosureRefused("not-on-ledger", "the ledger holds another kind of request")


def _check(statement: Any) -> None:
    if not isinstance(statement, dict) or set(statement) != _FIELDS or statement["v"] != 1:
        raise InvalidRequest("the statement has other fields than a request has")
    _text(statement["request"], _ID, "request")
    _text(statement["requester"], _ORG, "requester")
    _text(statement["holder"], _ORG, "holder")
    _text(statement["pid"], _PID, "pid")
    _text(statement["purpose"], _CODE, "purpose")
    _text(statement["salt"], _SALT, "salt")
    for name, form in (("grant", _ID), ("emergency", _CODE)):
        if statement[name] is not None:
            _text(statement[name], form, name)
    for name in ("chain", "reason", "role"):
        if not isinstance(statement[name], str) or len(statement[name]) > MAX_TEXT_CHARACTERS:
            raise InvalidRequest(f"{name} is not a text of at most {MAX_TEXT_CHARACTERS} characters")
    practitioner = statement["practitioner"]
    if practitioner is not None and (not isinstance(practitioner, str) or len(practitioner) > MAX_TEXT_CHARACTERS):
        raise InvalidRequest("practitioner is not a text")
    if type(statement["time"]) is not int or statement["time"] < 0:
        raise InvalidRequest("time is not a whole number of seconds")
    categories = statement["categories"]
    if categories is not None:
        if not isinstance(categories, list) or not 0 < len(categories) <= MAX_CATEGORIES:
            raise InvalidRequest("categories is not a list of categories")
        for category in categories:
            _text(category, _CODE, "categories")


def _text(value: Any, form: re.Pattern[str], name: str) -> None:
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise InvalidRequest(f"{name} is not of its form")
