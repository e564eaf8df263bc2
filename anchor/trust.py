"""The trust file: the one thing that an outsider needs, besides a receipt, to check what a consortium says.

It names the chain, the members with their public keys and the time each key is good for, how many members must have
cosigned a ledger checkpoint (``quorum``), and which of them must be among those (``mandatory``, for example the health
authority)::

    {"v":1,"chain":"yiqiao-demo","quorum":2,"mandatory":[],
     "members":[{"org":"…","name":"…","roles":["hospital"],"status":"active",
                 "keys":[{"id":"…","use":"sign","public":"04…","from":1767225600,"until":null}]}]}

Where the consortium uses time-stamping authorities (RFC 3161), ``timestamping`` lists their certificates, as base64;
old ones stay in the list, so that what they stamped stays checkable. Where the members replicate the ledger,
``validators`` lists every set of validators there has been (``anchor.finality``), for the engine's proof of finality.

How the file reaches the outsider (a court's file, a printed fingerprint) is outside this program; everything else about
a receipt follows from it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from anchor import canonical
from anchor.checkpoint import SignedCheckpoint, key_hash, verify_signature
from anchor.errors import CanonicalError, FormatError, KeyFormatError, SignatureInvalid, VerificationError
from anchor.finality import MAX_SETS, ValidatorSet, read_sets
from anchor.gm import PublicKey, sm3
from anchor.timestamp import MAX_CERTIFICATE_BYTES, read_certificate

MAX_TRUST_BYTES = 8 * 1024 * 1024
"""Bytes: 256 members with as many keys as the ledger keeps of one are about 7 MB."""
MAX_MEMBERS = 256
"""Members: as many as one checkpoint may carry signatures."""
MAX_KEYS = 128
"""Keys a member may have had, as the ledger bounds them."""
MAX_CERTIFICATES = 16
"""Time-stamping certificates, past ones included: one renewed every year."""
MAX_TIME = 253_402_300_799
"""Unix seconds: the end of year 9999."""

_FIELDS = frozenset({"v", "chain", "quorum", "mandatory", "members"})
_OPTIONAL = frozenset({"timestamping", "validators"})
_ORG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")
_CHAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_HEX_KEY = re.compile(r"04[0-9a-f]{128}\Z")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True)
class MemberKey:
    """One public key of a member, good from ``start`` to before ``until`` (Unix seconds or None)."""

    id: str
    use: str
    public_hex: str
    start: int
    until: int | None

    @cached_property
    def public(self) -> PublicKey:
        """The key itself; ``FormatError`` when the bytes are no point of the curve."""
        try:
            return PublicKey.from_bytes(bytes.fromhex(self.public_hex))
        except KeyFormatError:
            raise FormatError(f"key {self.id} is not a point of the SM2 curve") from None

    def good_at(self, time: int) -> bool:
        """Whether a signature made at ``time`` (Unix seconds) by this key counts."""
        return self.start <= time and (self.until is None or time < self.until)


@dataclass(frozen=True)
class Member:
    """One institution of the consortium."""

    org: str
    name: str
    roles: tuple[str, ...]
    status: str
    keys: tuple[MemberKey, ...]

    @property
    def active(self) -> bool:
        """Whether the member is in good standing; a suspended member's past transactions stay valid."""
        return self.status == "active"

    def signing_key(self, key_id: str, time: int) -> MemberKey:
        """Return the signing key of that id if it was good at ``time``; raises ``VerificationError``."""
        for key in self.keys:
            if key.id == key_id and key.use == "sign":
                if not key.good_at(time):
                    raise VerificationError(f"key {key_id} of {self.org} was not valid at that time")
                return key
        raise VerificationError(f"the trust file has no signing key {key_id} of {self.org}")


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A checkpoint signature that verified; ``counted`` says whether it counts towards the quorum."""

    org: str
    name: str
    time: int
    counted: bool


@dataclass(frozen=True)
class Trust:
    """A parsed trust file; see the module's docstring for its fields."""

    chain: str
    quorum: int
    mandatory: tuple[str, ...]
    members: Mapping[str, Member]
    timestamping: tuple[bytes, ...] = ()
    validators: tuple[ValidatorSet, ...] = ()

    @classmethod
    def parse(cls, content: bytes) -> Trust:
        """Read a trust file; raises ``FormatError``."""
        if len(content) > MAX_TRUST_BYTES:
            raise FormatError(f"a trust file is at most {MAX_TRUST_BYTES} bytes")
        try:
            value = canonical.load(content)
        except CanonicalError as error:
            raise FormatError(f"the trust file is not JSON: {error}") from None
        fields = _object(value, _FIELDS, "the trust file", optional=_OPTIONAL)
        if fields["v"] != 1 or isinstance(fields["v"], bool):
            raise FormatError("the trust file is of another version than 1")
        members = _list(fields["members"], MAX_MEMBERS, "members")
        mandatory = [_text(org, _ORG, "mandatory") for org in _list(fields["mandatory"], MAX_MEMBERS, "mandatory")]
        stamping = [
            _certificate(each) for each in _list(fields.get("timestamping", []), MAX_CERTIFICATES, "timestamping")
        ]
        return cls.from_members(
            _text(fields["chain"], _CHAIN, "chain"),
            _integer(fields["quorum"], "quorum"),
            mandatory,
            members,
            stamping,
            _list(fields.get("validators", []), MAX_SETS, "validators"),
        )

    @classmethod
    def from_members(
        cls,
        chain: str,
        quorum: int,
        mandatory: Iterable[str],
        members: Iterable[Mapping[str, Any]],
        timestamping: Iterable[bytes] = (),
        validators: Iterable[Mapping[str, Any]] = (),
    ) -> Trust:
        """Build from member objects, as a trust file or the ledger's state ``member/<org>`` holds them.

        ``timestamping``: DER certificates of time-stamping authorities. ``validators``: sets of validators as the
        state ``validators/<n>`` holds them, in their order. Raises ``FormatError`` for members of another
        shape, for a quorum that nobody could reach, for a mandatory organisation that is no member, and for a
        certificate that is not made for time stamps.
        """
        parsed = [_member(member) for member in members]
        by_org = {member.org: member for member in parsed}
        if len(by_org) != len(parsed):
            raise FormatError("the trust file names a member twice")
        if not 1 <= quorum <= max(1, len(parsed)):
            raise FormatError("the quorum is at least 1 and at most the number of members")
        required = tuple(dict.fromkeys(mandatory))
        if not set(required) <= set(by_org):
            raise FormatError("a mandatory cosigner is not a member")
        certificates = tuple(dict.fromkeys(timestamping))
        for certificate in certificates:
            read_certificate(certificate)
        return cls(chain, quorum, required, by_org, certificates, read_sets(validators))

    def dump(self) -> bytes:
        """Return the trust file, canonical JSON."""
        members = [
            {
                "org": member.org,
                "name": member.name,
                "roles": list(member.roles),
                "status": member.status,
                "keys": [
                    {"id": key.id, "use": key.use, "public": key.public_hex, "from": key.start, "until": key.until}
                    for key in member.keys
                ],
            }
            for member in sorted(self.members.values(), key=lambda member: member.org)
        ]
        value = {
            "v": 1,
            "chain": self.chain,
            "quorum": self.quorum,
            "mandatory": list(self.mandatory),
            "members": members,
        }
        if self.timestamping:
            value["timestamping"] = [base64.b64encode(each).decode("ascii") for each in self.timestamping]
        if self.validators:
            value["validators"] = [each.value() for each in self.validators]
        return canonical.dump(value)

    def fingerprint(self) -> str:
        """Return the SM3 of the canonical trust file in hexadecimal, to be compared over another channel."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return sm3(self.dump()).hex()

    def member(self, org: str) -> Member:
        """Return a member; raises ``VerificationError`` when the trust file does not name it."""
        found = self.members.get(org)
        if found is None:
            raise VerificationError(f"the trust file has no member {org}")
        return found

    def verify_signatures(self, signed: SignedCheckpoint, at: int | None = None) -> tuple[Cosignature, ...]:
        """Check every signature under a checkpoint and return them in order.

        Raises ``VerificationError`` at the first signature by an unknown organisation or key, by a key that was not
        valid at ``at`` (Unix seconds; the signature's own time when None, for want of a better witness of it), or
        that does not verify (``SignatureInvalid``): a checkpoint with a signature
        that cannot be checked is refused as a whole, so that nothing in it is there unverified. One organisation
        counts once, and a suspended one not at all.
        """
        result: list[Cosignature] = []
        counted: set[str] = set()
        for signature in signed.signatures:
            member = self.member(signature.org)
            key = self._key_by_hash(member, signature.key_hash)
            if not key.good_at(signature.time if at is None else at):
                raise VerificationError(f"a key of {member.org} was not valid when it signed the checkpoint")
            try:
                verify_signature(signed.checkpoint, signature, key.public)
            except SignatureInvalid:
                raise SignatureInvalid(f"the checkpoint's signature by {member.org} does not verify") from None
            counts = member.active and member.org not in counted
            counted.add(member.org)
            result.append(Cosignature(member.org, member.name, signature.time, counts))
        return tuple(result)

    def quorum_missing(self, cosignatures: Iterable[Cosignature]) -> str | None:
        """Return what is missing for a quorum in one phrase, or None when nothing is."""
        orgs = {cosignature.org for cosignature in cosignatures if cosignature.counted}
        absent = [org for org in self.mandatory if org not in orgs]
        if absent:
            return f"the mandatory cosignature of {absent[0]}"
        if len(orgs) < self.quorum:
            return f"{self.quorum - len(orgs)} of {self.quorum} cosignatures"
        return None

    @staticmethod
    def _key_by_hash(member: Member, digest: bytes) -> MemberKey:
        for key in member.keys:
            if key.use == "sign" and key_hash(member.org, bytes.fromhex(key.public_hex)) == digest:
                return key
        raise VerificationError(f"a checkpoint is signed by a key of {member.org} that the trust file does not name")


def _member(value: Any) -> Member:
    if not isinstance(value, Mapping):
        raise FormatError("a member is an object")
    missing = {"org", "name", "roles", "status", "keys"} - set(value)
    if missing:
        raise FormatError(f"a member lacks {sorted(missing)[0]}")
    name = value["name"]
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        raise FormatError("a member's name has 1 to 200 characters")
    if value["status"] not in ("active", "suspended"):
        raise FormatError("a member's status is active or suspended")
    return Member(
        org=_text(value["org"], _ORG, "org"),
        name=name,
        roles=tuple(_text(role, _WORD, "role") for role in _list(value["roles"], 16, "roles")),
        status=value["status"],
        keys=tuple(_key(key) for key in _list(value["keys"], MAX_KEYS, "keys")),
    )


def _key(value: Any) -> MemberKey:
    if not isinstance(value, Mapping) or not {"id", "use", "public", "from", "until"} <= set(value):
        raise FormatError("a key has an id, a use, a public part, a time from and a time until")
    if value["use"] not in ("sign", "encrypt"):
        raise FormatError("a key's use is sign or encrypt")
    until = value["until"]
    return MemberKey(
        id=_text(value["id"], _WORD, "key id"),
        use=value["use"],
        public_hex=_text(value["public"], _HEX_KEY, "public key"),
        start=_integer(value["from"], "from"),
        until=None if until is None else _integer(until, "until"),
    )


def _certificate(value: Any) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * MAX_CERTIFICATE_BYTES:
        raise FormatError("a certificate is DER in base64")
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("a certificate is DER in base64") from None
    if base64.b64encode(content).decode("ascii") != value:
        raise FormatError("a certificate is not in its one base64 encoding")
    return content


def _object(value: Any, names: frozenset[str], what: str, optional: frozenset[str] = frozenset()) -> Mapping[str, Any]:
    if not isinstance(value, dict) or set(value) - optional != names:
        raise FormatError(f"{what} is an object of {', '.join(sorted(names))}")
    return value


def _list(value: Any, limit: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        raise FormatError(f"{what} is a list of at most {limit}")
    return value


def _text(value: Any, form: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not form.match(value):
        raise FormatError(f"the trust file's {what} is not of the form it should have")
    return value


def _integer(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TIME:
        raise FormatError(f"{what} is a whole number")
    return value


def majority(members: Iterable[Mapping[str, Any]]) -> int:
    """Return how many signatures are a majority of the active members, the host's own included; at least 1."""
    return len([member for member in members if member["status"] == "active"]) // 2 + 1
