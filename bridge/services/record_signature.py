"""Signatures over records, as FHIR Provenance: by the institution, and by a practitioner; made and verified (pure).

What is signed is the canonical JSON

    {"purpose":"yiqiao/record-signature/v1","targets":[{"digest","ref"},…],"type","when","who"}

where ``targets`` are the exact record versions and the SM3 of their canonical bytes, in order, and ``who`` is
``org:<org id>`` or ``practitioner:<org id>:<identifier>``. All of it can be rebuilt from the Provenance: the targets
and digests stand in ``entity``, the rest in each ``signature``. The signature itself is GM/T 0010 SignedData, detached
(``Signature.data``).

How one is verified years later, with nothing but the trust file:

(1) the institution's signature is by a key that the trust file has for it, good at ``when``;
(2) a practitioner's is by the key of a certificate that the institution issued: signed by a ledger key that was good
  when it
began, in force at ``when``, and naming practitioner and institution;
(3) the digests are those of the records at hand;
(4) where the Provenance's own receipt is at hand, the keys were still good at the receipt's block time, which is not
  before
``when``: a key that was stolen after it had been retired cannot have made it.

Without a receipt, ``when`` is the signer's word.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from anchor import canonical
from anchor.contracts.member_keys import is_live
from anchor.errors import AnchorError, CanonicalError
from anchor.gm import PrivateKey, PublicKey, sm3
from anchor.trust import MemberKey, Trust
from bridge.errors import CertificateInvalid
from bridge.pki.gm_certificates import GmCertificate
from bridge.pki.gm_structures import gm_ca_name
from bridge.pki.practitioners import PractitionerKey
from bridge.pki.signed_data import DetachedSignature, read_detached, sign_detached
from bridge.services.audit_event import USCC_SYSTEM

PURPOSE = "yiqiao/record-signature/v1"
DIGEST_SYSTEM = "urn:yiqiao:sm3"
PRACTITIONER_SYSTEM = "urn:yiqiao:practitioner:"
SIGNATURE_TYPES = "urn:iso-astm:E1762-95:2013"
AUTHOR, VERIFICATION, SOURCE = "1.2.840.10065.1.12.1.1", "1.2.840.10065.1.12.1.5", "1.2.840.10065.1.12.1.14"
SIG_FORMAT = "application/pkcs7-signature"
TARGET_FORMAT = "application/fhir+json"
RECEIPT_SKEW_SECONDS = 300  # how far the signer's clock may run ahead of the ledger's
MAX_SIGNATURES = 16

Target = tuple[str, str]
"""A record version's reference and the hex SM3 of its canonical bytes."""


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """One signature that holds: ``who`` as in the signed statement, ``when`` in Unix seconds."""

    who: str
    name: str
    when: int
    key: str


@dataclass(frozen=True, slots=True)
class SignatureReport:
    """What a Provenance's signatures prove. ``dated``: the ledger's time by which they existed,
    None without receipt.
    """

    targets: tuple[Target, ...]
    signatures: tuple[VerifiedSignature, ...]
    checked: tuple[str, ...]
    dated: int | None


def signed_provenance(
    targets: Sequence[Target],
    *,
    id: str,
    org: str,
    name: str,
    chain: str,
    key: PrivateKey,
    now: int,
    kind: str = VERIFICATION,
    certificates: Sequence[GmCertificate] = (),
    practitioner: PractitionerKey | None = None,
    activity: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a Provenance over record versions, signed by the institution and, where given, by a practitioner."""
    when = _instant(now)
    institution = {"type": "Organization", "identifier": {"system": USCC_SYSTEM, "value": org}, "display": name}
    agents = [{"type": _participant("verifier"), "who": institution}]
    content = statement(targets, kind=kind, when=when, who=f"org:{org}")
    serial = int(key.public_key.key_id, 16)
    own = sign_detached(content, key=key, issuer=gm_ca_name(chain), serial=serial, certificates=certificates)
    signatures = [_signature(kind, when, institution, own)]
    if practitioner is not None:
        person = {
            "type": "Practitioner",
            "identifier": {"system": PRACTITIONER_SYSTEM + org, "value": practitioner.id},
            "display": practitioner.name,
        }
        agents.append({"type": _participant("author"), "who": person, "onBehalfOf": institution})
        content = statement(targets, kind=AUTHOR, when=when, who=f"practitioner:{org}:{practitioner.id}")
        data = sign_detached(
            content,
            key=practitioner.key,
            issuer=practitioner.certificate.issuer,
            serial=practitioner.certificate.serial,
            certificates=(practitioner.certificate, practitioner.issuing),
        )
        signatures.append({**_signature(AUTHOR, when, person, data), "onBehalfOf": institution})
    provenance: dict[str, Any] = {
        "resourceType": "Provenance",
        "id": id,
        "target": [{"reference": ref} for ref, _ in targets],
        "recorded": when,
        "agent": agents,
        "entity": [
            {"role": "source", "what": {"reference": ref, "identifier": {"system": DIGEST_SYSTEM, "value": digest}}}
            for ref, digest in targets
        ],
        "signature": signatures,
    }
    if activity is not None:
        provenance["activity"] = dict(activity)
    return provenance


def statement(targets: Sequence[Target], *, kind: str, when: str, who: str) -> bytes:
    """Return the bytes that are signed."""
    listed = [{"ref": ref, "digest": digest} for ref, digest in targets]
    return canonical.dump({"purpose": PURPOSE, "targets": listed, "type": kind, "when": when, "who": who})


def targets_of(provenance: Mapping[str, Any]) -> tuple[Target, ...]:
    """Return the record versions a Provenance is about, with their digests; raises ``CertificateInvalid``."""
    try:
        found = tuple(
            (str(each["what"]["reference"]), str(each["what"]["identifier"]["value"]))
            for each in provenance["entity"]
            if each["what"].get("identifier", {}).get("system") == DIGEST_SYSTEM
        )
        if not found or [ref for ref, _ in found] != [each["reference"] for each in provenance["target"]]:
            raise KeyError("targets")
    except (KeyError, TypeError, AttributeError) as error:
        raise CertificateInvalid("malformed", "the Provenance is not of a signed record / 不是签名记录") from error
    return found


def verify_provenance(
    provenance: Mapping[str, Any],
    trust: Trust,
    *,
    resources: Mapping[str, bytes] | None = None,
    dated: int | None = None,
) -> SignatureReport:
    """Verify every signature of a Provenance; raises ``CertificateInvalid`` naming what does not hold.

    ``resources``: record bytes by reference, each of which must be a target; ``dated``: the block time of the verified
    receipt of this very Provenance.
    """
    targets = targets_of(provenance)
    checked = _check_resources(targets, resources or {})
    signatures = provenance.get("signature")
    if not isinstance(signatures, list) or not 0 < len(signatures) <= MAX_SIGNATURES:
        raise CertificateInvalid("unsigned", "the Provenance carries no signature / 没有签名")
    found = tuple(_verify_one(each, targets, trust, dated) for each in signatures)
    return SignatureReport(targets, found, checked, dated)


def verify_institution(
    provenance: Mapping[str, Any], org: str, chain: str, key: Callable[[str], PublicKey | None]
) -> tuple[Target, ...]:
    """Check that a Provenance is signed by one institution; return what it is about.

    ``key`` finds a key of the institution by its id (on the ledger) and returns None for one that does not count.
    """
    targets = targets_of(provenance)
    for each in provenance.get("signature") or ():
        signature, when, who, kind = _read(each)
        if who == f"org:{org}":
            _check_name(signature, chain)
            public = key(f"{signature.serial:016x}")
            if public is None:
                raise CertificateInvalid("unknown-key", "the signer's key is not one of the institution's")
            signature.verify(statement(targets, kind=kind, when=when, who=who), public)
            return targets
    raise CertificateInvalid("unsigned", "the institution that released the records did not sign for them")


def _check_resources(targets: Sequence[Target], resources: Mapping[str, bytes]) -> tuple[str, ...]:
    digests = dict(targets)
    for ref, content in resources.items():
        try:
            digest = sm3(canonical.canonicalize(content)).hex()
        except CanonicalError as error:
            raise CertificateInvalid("malformed", "a record cannot be read / 记录无法读取") from error
        if digests.get(ref) != digest:
            raise CertificateInvalid("record-differs", f"{ref} is not what was signed / 记录与签名不符")
    return tuple(resources)


def _verify_one(value: Any, targets: Sequence[Target], trust: Trust, dated: int | None) -> VerifiedSignature:
    signature, when, who, kind = _read(value)
    moment = _seconds(when)
    if dated is not None and moment > dated + RECEIPT_SKEW_SECONDS:
        raise CertificateInvalid("post-dated", "the signature claims to be later than its record / 签名时间晚于存证")
    content = statement(targets, kind=kind, when=when, who=who)
    place, _, rest = who.partition(":")
    try:
        if place == "org":
            _check_name(signature, trust.chain)
            key = _institution_key(trust, rest, signature.serial, moment, dated)
            signature.verify(content, key.public)
            return VerifiedSignature(who, trust.member(rest).name, moment, key.id)
        org, _, practitioner = rest.partition(":")
        certificate = _practitioner_certificate(trust, org, practitioner, signature, moment, dated)
    except AnchorError as error:
        raise CertificateInvalid("unknown-key", f"the trust file has no such signer: {error} / 签名方不可信") from error
    signature.verify(content, certificate.public)
    name = str(value["who"].get("display", ""))
    return VerifiedSignature(who, name, moment, f"{certificate.serial:x}")


def _check_name(signature: DetachedSignature, chain: str) -> None:
    """Raise ``CertificateInvalid`` unless the signature names a certificate of this consortium's SM2 authority."""
    if signature.issuer.dump() != gm_ca_name(chain).dump():
        raise CertificateInvalid("wrong-name", "the signature names a key of another consortium / 签名属于其他联盟")


def _institution_key(trust: Trust, org: str, serial: int, when: int, dated: int | None) -> MemberKey:
    """Return the ledger key that a serial number names, good when it was used (1) and when the ledger saw it (4)."""
    key = trust.member(org).signing_key(f"{serial:016x}", when)
    if dated is not None and not key.good_at(dated):
        raise CertificateInvalid("retired-key", "the key had been retired when the ledger saw it / 密钥当时已失效")
    return key


def _practitioner_certificate(
    trust: Trust, org: str, practitioner: str, signature: DetachedSignature, when: int, dated: int | None
) -> GmCertificate:
    """Return the practitioner's certificate after checking who issued it (2) and that it was in force (4)."""
    certificate = signature.own_certificate()
    if certificate is None:
        raise CertificateInvalid("unknown-issuer", "the practitioner's certificate did not come along / 缺少证书")
    if (certificate.org, certificate.practitioner) != (org, practitioner):
        raise CertificateInvalid("wrong-name", "the certificate is another person's / 证书不属于该人员")
    if "digital_signature" not in certificate.usages:
        raise CertificateInvalid("wrong-usage", "the certificate is not for signing / 证书用途不符")
    for moment in (when, dated):
        if moment is not None and not certificate.not_before <= moment <= certificate.not_after:
            raise CertificateInvalid("not-in-force", "the certificate was not in force then / 证书当时不在有效期内")
    issuing = [
        key
        for key in trust.member(org).keys
        if key.use == "sign" and is_live({"from": key.start, "until": key.until}, certificate.not_before)
    ]
    for key in issuing:
        try:
            key.public.verify(certificate.signed, certificate.signature)
        except AnchorError:
            continue
        return certificate
    raise CertificateInvalid("unknown-issuer", "the institution did not issue the certificate / 证书非该机构签发")


def _read(value: Any) -> tuple[DetachedSignature, str, str, str]:
    """Return a FHIR Signature's parts: the signature, when, who, type."""
    try:
        if value["sigFormat"] != SIG_FORMAT:
            raise CertificateInvalid("other-algorithm", "a signature is of another format / 签名格式不支持")
        signature = read_detached(base64.b64decode(value["data"], validate=True))
        identifier = value["who"]["identifier"]
        if identifier["system"] == USCC_SYSTEM:
            who = f"org:{identifier['value']}"
        else:
            who = f"practitioner:{identifier['system'].removeprefix(PRACTITIONER_SYSTEM)}:{identifier['value']}"
        return signature, str(value["when"]), who, str(value["type"][0]["code"])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise CertificateInvalid("malformed", "a signature cannot be read / 签名格式错误") from error


def _signature(kind: str, when: str, who: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    return {
        "type": [{"system": SIGNATURE_TYPES, "code": kind}],
        "when": when,
        "who": dict(who),
        "targetFormat": TARGET_FORMAT,
        "sigFormat": SIG_FORMAT,
        "data": base64.b64encode(data).decode("ascii"),
    }


def _participant(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type", "code": code}]}


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(instant: str) -> int:
    try:
        moment = datetime.strptime(instant, "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007 - it is UTC by its form
    except ValueError as error:
        raise CertificateInvalid("malformed", "a signature's time cannot be read / 签名时间格式错误") from error
    return int(moment.replace(tzinfo=UTC).timestamp())
