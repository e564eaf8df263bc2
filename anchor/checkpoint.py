"""Checkpoints: the signed heads of the ledger's log and of every institution's log.

The text is the one transparency logs use (C2SP tlog-checkpoint and signed-note), with SM3 roots and an SM2 signature
type of our own, described for implementers in ``docs/receipt-format.md``::

    yiqiao/log/12990000MB00000277/2026      origin: which log
    42                                      size: number of entries
    0bLk…=                                  root: RFC 6962 tree head over SM3, base64
    time 1767225600                         extension lines: a name, a space, a value
                                            blank line
    — 12990000MB00000277 dGhl…=             signatures: em dash, organisation, base64(key hash ‖ time ‖ r‖s)

What is signed is ``cosignature/v1-sm2\\ntime T\\n`` followed by the text up to and including the last line before the
blank one, so that every signature says when its signer saw the log at that size. A note has exactly one encoding: what
``parse`` accepts is byte for byte what ``render`` gives back.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from anchor.errors import FormatError, SignatureInvalid
from anchor.gm import PrivateKey, PublicKey, sm3

MAX_NOTE_BYTES = 64 * 1024
"""Bytes: 256 signature lines of about 170 bytes and the text, with room to spare."""
MAX_SIGNATURES = 256
"""Signature lines: more members than one consortium is meant for."""
MAX_EXTENSIONS = 16
"""Extension lines: ours use at most three."""
MAX_SIZE = 2**53 - 1
"""Entries: the largest integer that every JSON reader keeps exactly."""
MAX_TIME = 253_402_300_799
"""Unix seconds: the end of year 9999, the last instant FHIR can write."""
ROOT_BYTES = 32
SIGNATURE_TYPE = 0xE2
"""Our signature type byte in the key hash; C2SP leaves types above 0x06 that it does not name to their users."""

_DASH = "— "
_ORIGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}\Z")
_ORG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")
_EXTENSION = re.compile(r"([a-z][a-z0-9-]{0,31}) ([!-~]{1,200})\Z")
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,15})\Z")
_BLOB_BYTES = 4 + 8 + 64
_BLOB_CHARACTERS = 4 * -(-_BLOB_BYTES // 3)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of one log: ``size`` entries under ``root`` (32 bytes); ``extensions`` are further lines, in order.

    The ledger's carry ``height``, ``time`` (Unix seconds) and ``state`` (base64 of the state root); an institution's
    carry ``time``. Raises ``FormatError`` when made of values that have no checkpoint text.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not _ORIGIN.match(self.origin):
            raise FormatError("a checkpoint's origin is 1 to 200 letters, digits and ._:/- characters")
        if not 0 <= self.size <= MAX_SIZE:
            raise FormatError("a checkpoint's size is a count of entries")
        if len(self.root) != ROOT_BYTES:
            raise FormatError("a checkpoint's root is 32 bytes")
        if len(self.extensions) > MAX_EXTENSIONS:
            raise FormatError(f"a checkpoint has at most {MAX_EXTENSIONS} extension lines")
        names = [name for name, _ in self.extensions]
        if len(set(names)) != len(names):
            raise FormatError("a checkpoint names an extension twice")
        for name, value in self.extensions:
            if not _EXTENSION.match(f"{name} {value}"):
                raise FormatError("an extension line is a lower-case name, a space and a printable value")

    def text(self) -> bytes:
        """Return the lines before the blank one, each with its line feed."""
        lines = [self.origin, str(self.size), base64.b64encode(self.root).decode("ascii")]
        lines += [f"{name} {value}" for name, value in self.extensions]
        return "".join(line + "\n" for line in lines).encode("ascii")

    def extension(self, name: str) -> str | None:
        """Return the value of an extension line, or None."""
        return dict(self.extensions).get(name)

    def integer(self, name: str) -> int:
        """Return an extension line's value as a whole number; ``FormatError`` when it is missing or something else."""
        value = self.extension(name)
        if value is None or not _DECIMAL.match(value):
            raise FormatError(f"the checkpoint has no whole number on a line {name!r}")
        return int(value)

    def binary(self, name: str) -> bytes:
        """Return the 32 bytes an extension line carries in base64; ``FormatError`` when missing or something else."""
        value = self.extension(name)
        if value is None:
            raise FormatError(f"the checkpoint has no line {name!r}")
        return _decode(value, ROOT_BYTES, f"line {name!r}")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: ``org`` says that it saw this checkpoint at ``time`` (Unix seconds).

    ``key_hash`` (4 bytes) tells the organisation's keys apart; ``value`` is the 64-byte ``r‖s``.
    """

    org: str
    key_hash: bytes
    time: int
    value: bytes

    def __post_init__(self) -> None:
        if not _ORG.match(self.org):
            raise FormatError("a signature line names an organisation of 1 to 64 letters, digits and ._:- characters")
        if len(self.key_hash) != 4 or len(self.value) != 64:
            raise FormatError("a signature line carries a 4-byte key hash and a 64-byte signature")
        if not 0 <= self.time <= MAX_TIME:
            raise FormatError("a signature's time is a count of Unix seconds before the year 10000")

    def line(self) -> str:
        """Return the signature line, without its line feed."""
        blob = self.key_hash + self.time.to_bytes(8, "big") + self.value
        return f"{_DASH}{self.org} {base64.b64encode(blob).decode('ascii')}"


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint and the signatures under it. Their form is checked, their truth is not: see ``verify_signature``."""

    checkpoint: Checkpoint
    signatures: tuple[Signature, ...] = ()

    def __post_init__(self) -> None:
        if len(self.signatures) > MAX_SIGNATURES:
            raise FormatError(f"a checkpoint has at most {MAX_SIGNATURES} signatures")
        seen = {(signature.org, signature.key_hash) for signature in self.signatures}
        if len(seen) != len(self.signatures):
            raise FormatError("a checkpoint carries two signatures by one key")

    def with_signatures(self, signatures: Iterable[Signature]) -> SignedCheckpoint:
        """Return this checkpoint with further signatures; a key that has signed already keeps its first signature."""
        merged = list(self.signatures)
        seen = {(signature.org, signature.key_hash) for signature in merged}
        for signature in signatures:
            if (signature.org, signature.key_hash) not in seen:
                seen.add((signature.org, signature.key_hash))
                merged.append(signature)
        return replace(self, signatures=tuple(merged))

    def by(self, org: str) -> tuple[Signature, ...]:
        """Return the signatures that name ``org`` as their signer."""
        return tuple(signature for signature in self.signatures if signature.org == org)


def ledger_origin(chain: str) -> str:
    """Return the origin line of the ledger's own log."""
    return f"yiqiao/ledger/{chain}"


def log_origin(org: str, shard: str) -> str:
    """Return the origin line of an institution's log; ``shard`` is a string such as "2026"."""
    return f"yiqiao/log/{org}/{shard}"


def key_hash(org: str, public: bytes) -> bytes:
    """Return the 4 bytes that tell an organisation's keys apart: ``SM3(org ‖ "\\n" ‖ 0xE2 ‖ 04‖X‖Y)[:4]``."""
    return sm3(org.encode("utf-8") + b"\n" + bytes([SIGNATURE_TYPE]) + public)[:4]


def signed_message(checkpoint: Checkpoint, time: int) -> bytes:
    """Return the bytes that a signature made at ``time`` (Unix seconds) is over."""
    return b"cosignature/v1-sm2\ntime %d\n" % time + checkpoint.text()


def sign(checkpoint: Checkpoint, org: str, key: PrivateKey, time: int) -> Signature:
    """Sign a checkpoint as ``org`` at ``time`` (Unix seconds)."""
    digest = key_hash(org, key.public_key.to_bytes())
    return Signature(org, digest, time, key.sign(signed_message(checkpoint, time)))


def verify_signature(checkpoint: Checkpoint, signature: Signature, public: PublicKey) -> None:
    """Check one signature against the public key it claims; raises ``SignatureInvalid``.

    The caller chooses ``public`` from what it trusts, and decides whether that key was valid at ``signature.time``.
    """
    if key_hash(signature.org, public.to_bytes()) != signature.key_hash:
        raise SignatureInvalid("the checkpoint's signature line names another key")
    public.verify(signed_message(checkpoint, signature.time), signature.value)


def render(signed: SignedCheckpoint) -> bytes:
    """Return the note: the checkpoint's text, a blank line, the signature lines."""
    lines = "".join(signature.line() + "\n" for signature in signed.signatures)
    return signed.checkpoint.text() + b"\n" + lines.encode("utf-8")


def parse(note: bytes) -> SignedCheckpoint:
    """Read a note; raises ``FormatError`` for anything but the one encoding that ``render`` gives."""
    if len(note) > MAX_NOTE_BYTES:
        raise FormatError(f"a checkpoint is at most {MAX_NOTE_BYTES} bytes")
    return _parsed(bytes(note))


@lru_cache(maxsize=16)  # all receipts of a release lead to the same few notes
def _parsed(note: bytes) -> SignedCheckpoint:
    try:
        text = note.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("a checkpoint is UTF-8 text") from None
    head, blank, tail = text.partition("\n\n")
    if not blank:
        raise FormatError("a checkpoint has a blank line before its signatures")
    lines = head.split("\n")
    if len(lines) < 3:
        raise FormatError("a checkpoint has an origin, a size and a root")
    signatures = tail.split("\n")
    if signatures.pop() != "":
        raise FormatError("a checkpoint ends with a line feed")
    if len(signatures) > MAX_SIGNATURES:
        raise FormatError(f"a checkpoint has at most {MAX_SIGNATURES} signatures")
    checkpoint = Checkpoint(
        origin=lines[0],
        size=_decimal(lines[1]),
        root=_decode(lines[2], ROOT_BYTES, "root"),
        extensions=tuple(_extension(line) for line in lines[3 : 4 + MAX_EXTENSIONS]),
    )
    if len(lines) > 3 + MAX_EXTENSIONS:
        raise FormatError(f"a checkpoint has at most {MAX_EXTENSIONS} extension lines")
    signed = SignedCheckpoint(checkpoint, tuple(_signature(line) for line in signatures))
    if render(signed) != note:
        raise FormatError("the checkpoint is not in its one encoding")
    return signed


def _decimal(text: str) -> int:
    if not _DECIMAL.match(text):
        raise FormatError("a checkpoint's size is a whole number without leading zeros")
    return int(text)


def _extension(line: str) -> tuple[str, str]:
    match = _EXTENSION.match(line)
    if match is None:
        raise FormatError("an extension line is a lower-case name, a space and a printable value")
    return match.group(1), match.group(2)


def _signature(line: str) -> Signature:
    parts = line.removeprefix(_DASH).split(" ")
    if not line.startswith(_DASH) or len(parts) != 2 or len(parts[1]) != _BLOB_CHARACTERS:
        raise FormatError("a signature line is an em dash, an organisation and base64 of 76 bytes")
    blob = _decode(parts[1], _BLOB_BYTES, "signature")
    return Signature(parts[0], blob[:4], int.from_bytes(blob[4:12], "big"), blob[12:])


def _decode(text: str, length: int, what: str) -> bytes:
    """Decode standard base64 with padding, refusing every encoding but the one that decodes back to itself."""
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise FormatError(f"the checkpoint's {what} is not base64") from None
    if len(value) != length or base64.b64encode(value).decode("ascii") != text:
        raise FormatError(f"the checkpoint's {what} is not base64 of {length} bytes")
    return value
