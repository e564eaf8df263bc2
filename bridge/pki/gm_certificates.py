"""SM2 certificates (GM/T 0015, GB/T 20518): issued, read, and verified along their chain.

X.509 version 3 with signature algorithm SM2-with-SM3 (1.2.156.10197.1.501) and signer id ``1234567812345678``; keys are
``id-ecPublicKey`` on the curve 1.2.156.10197.1.301. Members have two, as GM/T 0015 asks: one to sign with, one to
encrypt to.

The chain has at most three links: the consortium's SM2 authority, an institution (whose issuing certificate is over its
ledger signing key), a practitioner. A member's certificate has as serial number the id of its key, so that an
envelope's issuer-and-serial names both.

OpenSSL before 4.0 verifies them with ``-vfyopt distid:1234567812345678`` only: its default id is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asn1crypto import core, keys, pem, x509

from anchor.errors import AnchorError
from anchor.gm import PrivateKey, PublicKey, sm3
from bridge.errors import CertificateInvalid, SettingsError
from bridge.pki.gm_structures import der_signature, raw_signature

OID_SM2_WITH_SM3 = "1.2.156.10197.1.501"
OID_SM2_CURVE = "1.2.156.10197.1.301"
MAX_CERTIFICATE_BYTES = 16 * 1024
MAX_CHAIN = 4
ORG_URI = "urn:yiqiao:org:"
PRACTITIONER_URI = "urn:yiqiao:practitioner:"
_KNOWN_CRITICAL = frozenset({"key_usage", "basic_constraints"})
_KEY_ID_BYTES = 20


@dataclass(frozen=True, slots=True)
class GmCertificate:
    """A certificate as read. Times are Unix seconds; ``uris`` are its subject alternative names of that kind."""

    der: bytes
    issuer: x509.Name
    subject: x509.Name
    serial: int
    not_before: int
    not_after: int
    public: PublicKey
    usages: frozenset[str]
    ca: bool
    path_length: int | None
    uris: tuple[str, ...]
    signed: bytes
    signature: bytes

    @property
    def org(self) -> str | None:
        """The org id it speaks of, or None."""
        return next((uri.removeprefix(ORG_URI) for uri in self.uris if uri.startswith(ORG_URI)), None)

    @property
    def practitioner(self) -> str | None:
        """The practitioner's identifier it speaks of, or None."""
        found = (uri.removeprefix(PRACTITIONER_URI) for uri in self.uris if uri.startswith(PRACTITIONER_URI))
        return next(found, None)

    def pem(self) -> str:
        """Return the certificate as PEM text."""
        return str(pem.armor("CERTIFICATE", self.der), "ascii")


@dataclass(frozen=True, slots=True)
class Profile:
    """What a certificate is for. ``usages`` are asn1crypto's names of the keyUsage bits."""

    usages: frozenset[str]
    ca: bool = False
    path_length: int | None = None


ROOT = Profile(frozenset({"key_cert_sign", "crl_sign"}), ca=True, path_length=1)
ISSUING = Profile(frozenset({"key_cert_sign", "crl_sign"}), ca=True, path_length=0)
SIGNING = Profile(frozenset({"digital_signature", "non_repudiation"}))
ENCRYPTION = Profile(frozenset({"key_encipherment", "data_encipherment", "key_agreement"}))


def issue(
    *,
    subject: x509.Name,
    public: PublicKey,
    profile: Profile,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    serial: int,
    not_before: int,
    not_after: int,
    uris: Iterable[str] = (),
) -> GmCertificate:
    """Return a new certificate over ``public``, signed by ``issuer_key``."""
    extensions = _extensions(profile, public, issuer_key.public_key, tuple(uris))
    algorithm = {"algorithm": OID_SM2_WITH_SM3}
    body = x509.TbsCertificate(
        {
            "version": "v3",
            "serial_number": serial,
            "signature": algorithm,
            "issuer": issuer,
            "validity": {"not_before": _time(not_before), "not_after": _time(not_after)},
            "subject": subject,
            "subject_public_key_info": {
                "algorithm": {"algorithm": "ec", "parameters": keys.ECDomainParameters("named", OID_SM2_CURVE)},
                "public_key": keys.ECPointBitString(public.to_bytes()),
            },
            "extensions": extensions,
        }
    )
    signature = der_signature(issuer_key.sign(body.dump()))
    certificate = x509.Certificate(
        {"tbs_certificate": body, "signature_algorithm": algorithm, "signature_value": signature}
    )
    return parse(certificate.dump())


def parse(content: bytes) -> GmCertificate:
    """Read a certificate, DER or PEM; raises ``CertificateInvalid`` ("malformed", "other-algorithm")."""
    try:
        if len(content) > MAX_CERTIFICATE_BYTES:
            raise ValueError("too large")
        der = pem.unarmor(content)[2] if pem.detect(content) else content
        certificate = x509.Certificate.load(der, strict=True)
        body = certificate["tbs_certificate"]
        if certificate.dump(force=True) != der:
            raise ValueError("not DER")
        algorithms = (certificate["signature_algorithm"], body["signature"])
        info = body["subject_public_key_info"]
        curve = info["algorithm"]["parameters"].chosen.dotted if info.algorithm == "ec" else ""
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise CertificateInvalid("malformed", "the certificate cannot be read") from error
    if any(each["algorithm"].dotted != OID_SM2_WITH_SM3 for each in algorithms) or curve != OID_SM2_CURVE:
        raise CertificateInvalid("other-algorithm", "the certificate is not of SM2 with SM3")
    try:
        return _read(der, certificate, body)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, AnchorError) as error:
        raise CertificateInvalid("malformed", "the certificate cannot be read") from error


def read_anchors(file: Path) -> tuple[GmCertificate, ...]:
    """Read a file of PEM certificates to trust; raises ``SettingsError`` when it cannot be used."""
    try:
        content = file.read_bytes()
        return tuple(parse(pem.armor("CERTIFICATE", der)) for _, _, der in pem.unarmor(content, multiple=True))
    except (OSError, ValueError, CertificateInvalid) as error:
        raise SettingsError(f"{file} holds no certificates that can be used / 证书文件不可用") from error


def verify_chain(
    leaf: GmCertificate, issuers: Sequence[GmCertificate], anchors: Sequence[GmCertificate], *, at: int, usage: str
) -> tuple[GmCertificate, ...]:
    """Return the chain from ``leaf`` to one of ``anchors``, all of it in force at ``at`` (Unix seconds).

    Raises ``CertificateInvalid``: "wrong-usage", "not-in-force", "unknown-issuer", "bad-signature", "not-an-issuer",
    "chain-too-long". Revocation is the ledger's: whoever calls looks the members' keys up there.
    """
    if usage not in leaf.usages:
        raise CertificateInvalid("wrong-usage", "the certificate is not for this use")
    chain = [leaf]
    while True:
        current = chain[-1]
        if not current.not_before <= at <= current.not_after:
            raise CertificateInvalid("not-in-force", "a certificate is not in force at that time")
        anchor = next((each for each in anchors if each.der == current.der), None)
        if anchor is not None:
            return tuple(chain)
        chain.append(_issuer_of(current, [*issuers, *anchors], depth=len(chain)))


def _issuer_of(current: GmCertificate, candidates: Sequence[GmCertificate], depth: int) -> GmCertificate:
    if depth >= MAX_CHAIN:
        raise CertificateInvalid("chain-too-long", "the chain is longer than any of ours")
    named = [each for each in candidates if each.subject.dump() == current.issuer.dump() and each.der != current.der]
    if not named:
        raise CertificateInvalid("unknown-issuer", "the issuer of a certificate is not known")
    able = [
        each
        for each in named
        if each.ca and "key_cert_sign" in each.usages and (each.path_length is None or each.path_length >= depth - 1)
    ]
    if not able:
        raise CertificateInvalid("not-an-issuer", "a certificate was issued by one that may not issue")
    for each in able:
        try:
            each.public.verify(current.signed, current.signature)
        except AnchorError:
            continue
        return each
    raise CertificateInvalid("bad-signature", "a certificate's signature does not hold")


def _read(der: bytes, certificate: x509.Certificate, body: x509.TbsCertificate) -> GmCertificate:
    usages: frozenset[str] = frozenset()
    ca, path_length = False, None
    uris: tuple[str, ...] = ()
    for extension in body["extensions"]:
        name, value = extension["extn_id"].native, extension["extn_value"].parsed
        if name == "key_usage":
            usages = frozenset(value.native)
        elif name == "basic_constraints":
            ca, path_length = value["ca"].native, value["path_len_constraint"].native
        elif name == "subject_alt_name":
            uris = tuple(str(each.native) for each in value if each.name == "uniform_resource_identifier")
        elif extension["critical"].native and name not in _KNOWN_CRITICAL:
            raise ValueError("a critical extension that is not known here")
    signature = raw_signature(certificate["signature_value"].native)
    return GmCertificate(
        der=der,
        issuer=body["issuer"],
        subject=body["subject"],
        serial=int(body["serial_number"].native),
        not_before=int(body["validity"]["not_before"].native.timestamp()),
        not_after=int(body["validity"]["not_after"].native.timestamp()),
        public=PublicKey.from_bytes(body["subject_public_key_info"]["public_key"].native),
        usages=usages,
        ca=bool(ca),
        path_length=path_length,
        uris=uris,
        signed=body.dump(),
        signature=signature,
    )


def _extensions(profile: Profile, public: PublicKey, issuer: PublicKey, uris: tuple[str, ...]) -> list[dict[str, Any]]:
    constraints: dict[str, Any] = {"ca": profile.ca}
    if profile.path_length is not None:
        constraints["path_len_constraint"] = profile.path_length
    found: list[dict[str, Any]] = [
        {"extn_id": "basic_constraints", "critical": True, "extn_value": x509.BasicConstraints(constraints)},
        {"extn_id": "key_usage", "critical": True, "extn_value": x509.KeyUsage(set(profile.usages))},
        {"extn_id": "key_identifier", "extn_value": core.OctetString(_key_identifier(public))},
        {
            "extn_id": "authority_key_identifier",
            "extn_value": x509.AuthorityKeyIdentifier({"key_identifier": _key_identifier(issuer)}),
        },
    ]
    if uris:
        names = x509.GeneralNames([x509.GeneralName("uniform_resource_identifier", uri) for uri in uris])
        found.append({"extn_id": "subject_alt_name", "extn_value": names})
    return found


def _key_identifier(public: PublicKey) -> bytes:
    return sm3(public.to_bytes())[:_KEY_ID_BYTES]


def _time(seconds: int) -> x509.Time:
    moment = datetime.fromtimestamp(seconds, UTC)
    kind = "utc_time" if moment.year < 2050 else "general_time"  # RFC 5280, 4.1.2.5
    return x509.Time(kind, moment)


def member_subject(name: str, org: str) -> x509.Name:
    """Return the subject of a member's certificates: C=CN, O=name, organizationIdentifier and CN = org id."""
    parts = {"country_name": "CN", "organization_name": name[:64], "organization_identifier": org, "common_name": org}
    return x509.Name.build(parts)
