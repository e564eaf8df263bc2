"""A patient's file: the accesses to the record, or the records themselves, each with its receipt, signed as a whole.

Canonical JSON: ``{"v":1,"kind":"accesses"|"records","chain","org","time","bundle","receipts","missing","key","sig"}``.
``bundle`` is a FHIR Bundle of type collection; ``receipts[i]`` is the receipt of ``bundle.entry[i].resource``. The
institution's SM2 signature is over the canonical bytes of all fields but ``sig``: a line left out afterwards shows.
``missing``: references of records whose receipts are not there yet (not logged when the file was made).

``check`` takes the file and the consortium's trust file and needs nothing else, no network and no node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from anchor import canonical
from anchor.errors import AnchorError, CanonicalError, FormatError, VerificationError
from anchor.trust import Trust
from anchor.verify import ReceiptVerifier

if TYPE_CHECKING:
    from anchor.gm import PrivateKey
    from anchor.receipt import State

Kind = Literal["accesses", "records"]
KINDS: tuple[Kind, ...] = ("accesses", "records")
_FIELDS = frozenset({"v", "kind", "chain", "org", "time", "bundle", "receipts", "missing", "key", "sig"})


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """What a file proves. ``time``: when the institution says it was made, Unix seconds."""

    kind: Kind
    org: str
    institution: str
    time: int
    records: int
    missing: tuple[str, ...]


def build(
    kind: Kind,
    *,
    chain: str,
    org: str,
    key: PrivateKey,
    time: int,
    bundle: Mapping[str, Any],
    receipts: Sequence[Mapping[str, Any]],
    missing: Sequence[str],
) -> bytes:
    """Return the signed file's bytes."""
    value: dict[str, Any] = {
        "v": 1, "kind": kind, "chain": chain, "org": org, "time": time, "bundle": dict(bundle),
        "receipts": list(receipts), "missing": list(missing), "key": key.public_key.key_id,
    }  # fmt: skip
    return canonical.dump({**value, "sig": key.sign(canonical.dump(value)).hex()})


def check(content: bytes, trust_bytes: bytes, *, minimum: State = "witnessed") -> CheckedFile:
    """Check a file against the consortium's trust file.

    Raises ``FormatError`` for what is no such file, ``VerificationError`` (``StepFailed`` for a receipt) for what does
    not hold.
    """
    value = _read(content)
    trust = Trust.parse(trust_bytes)
    if value["chain"] != trust.chain:
        raise VerificationError("the file is of another chain than the trust file")
    member = trust.member(value["org"])
    signed = {name: each for name, each in value.items() if name != "sig"}
    try:
        member.signing_key(value["key"], value["time"]).public.verify(
            canonical.dump(signed), bytes.fromhex(value["sig"])
        )
    except (AnchorError, ValueError) as error:
        raise VerificationError(f"the institution's signature over the file does not hold: {error}") from error
    verifier, without = ReceiptVerifier(trust_bytes), set(value["missing"])
    entries, receipts = value["bundle"].get("entry", []), iter(value["receipts"])
    for entry in entries:
        resource = entry["resource"]
        ref = f"{resource['resourceType']}/{resource['id']}/_history/{resource['meta']['versionId']}"
        if ref in without:
            continue
        receipt = next(receipts, None)
        if receipt is None:
            raise VerificationError("a record of the file has no receipt")
        verifier.verify(canonical.dump(receipt), resource=canonical.dump(resource), minimum=minimum)
        if receipt["entry"]["org"] != value["org"]:
            raise VerificationError("a receipt is another institution's")
    if next(receipts, None) is not None:
        raise VerificationError("the file has receipts without records")
    return CheckedFile(
        value["kind"], value["org"], member.name, value["time"], len(entries), tuple(value["missing"])
    )  # fmt: skip


def _read(content: bytes) -> dict[str, Any]:
    try:
        value = canonical.load(content)
    except CanonicalError as error:
        raise FormatError("the file is not canonical JSON") from error
    if not isinstance(value, dict) or set(value) != _FIELDS or value["v"] != 1 or value["kind"] not in KINDS:
        raise FormatError("the file is not a patient's file of this form")
    texts = all(isinstance(value[name], str) for name in ("chain", "org", "key", "sig"))
    lists = isinstance(value["receipts"], list) and isinstance(value["missing"], list)
    if not texts or not lists or type(value["time"]) is not int or not isinstance(value["bundle"], dict):
        raise FormatError("a field of the file is not of its form")
    for entry in value["bundle"].get("entry", ()):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        named = isinstance(resource, dict) and isinstance(resource.get("meta"), dict)
        if resource is None or not named or not {"resourceType", "id"} <= set(resource):
            raise FormatError("an entry of the file's Bundle is no stored resource")
    return value
