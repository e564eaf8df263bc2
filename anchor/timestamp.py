"""RFC 3161 time stamps over checkpoints: the request, the token in an answer, and what a token proves.

A time-stamping authority (TSA) is a party outside the consortium: its token says that the bytes it stamped existed at
its time, whoever of the members colludes. What is stamped is a checkpoint's text (``Checkpoint.text``), by its SM3 or
SHA-256.

A token is kept and shown *bare*: without embedded certificates, revocation lists and unsigned attributes, in one DER
encoding. So every byte of it is signed or has one possible value, and it is checked against certificates that the
verifier has already (``anchor.trust``), which are pinned: no chains are built. Verification (RFC 3161 2.4.2, RFC 5652
5.4 and 5.6):

(1) the token is one SignedData over one TSTInfo, with one signer, and has its one encoding;
(2) the signer is one of the given certificates, made for time stamping alone and valid at the token's time;
(3) the signed attributes name the content's type, its digest and that certificate (ESSCertID), and the signature holds;
(4) the message imprint is the digest of the bytes that were to be stamped.

Everything raises ``FormatError`` or ``VerificationError``, on any bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from asn1crypto import cms, core, tsp, x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from anchor.errors import FormatError, KeyFormatError, SignatureInvalid, VerificationError
from anchor.gm import PublicKey, sm3
from anchor.gm.der import decode_signature

MAX_TOKEN_BYTES = 16 * 1024
"""A bare token takes about 600 bytes with an elliptic curve and 1,000 with RSA-4096."""
MAX_RESPONSE_BYTES = 256 * 1024
"""An authority's answer with its whole chain of certificates."""
MAX_CERTIFICATE_BYTES = 16 * 1024

_SM3 = "1.2.156.10197.1.401"
_SM2_WITH_SM3 = "1.2.156.10197.1.501"
_SM2_CURVE = "1.2.156.10197.1.301"
_SHA256 = "2.16.840.1.101.3.4.2.1"
_SIGNED_DATA, _TST_INFO = "1.2.840.113549.1.7.2", "1.2.840.113549.1.9.16.1.4"
_CONTENT_TYPE, _MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
_CERTIFICATE_V1, _CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.12", "1.2.840.113549.1.9.16.2.47"
_RSA = "1.2.840.113549.1.1.1"
_ECDSA = {
    _SHA256: "1.2.840.10045.4.3.2",
    "2.16.840.1.101.3.4.2.2": "1.2.840.10045.4.3.3",
    "2.16.840.1.101.3.4.2.3": "1.2.840.10045.4.3.4",
}
_RSA_KINDS = {_RSA, "1.2.840.113549.1.1.11", "1.2.840.113549.1.1.12", "1.2.840.113549.1.1.13"}
_SEQUENCE, _SET, _INTEGER, _OCTETS, _NULL, _TAG_0 = 0x30, 0x31, 0x02, 0x04, b"\x05\x00", 0xA0
_IMPRINTS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    _SM3: ("sm3", sm3),
    _SHA256: ("sha256", lambda data: hashlib.sha256(data).digest()),
}
IMPRINTS = ("sm3", "sha256")
"""Digests that a request may be made with."""
_DIGESTS: dict[str, tuple[Callable[[bytes], bytes], hashes.HashAlgorithm | None]] = {
    _SM3: (sm3, None),
    _SHA256: (lambda data: hashlib.sha256(data).digest(), hashes.SHA256()),
    "2.16.840.1.101.3.4.2.2": (lambda data: hashlib.sha384(data).digest(), hashes.SHA384()),
    "2.16.840.1.101.3.4.2.3": (lambda data: hashlib.sha512(data).digest(), hashes.SHA512()),
}
_MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
"""What asn1crypto raises on bytes that are not what they should be, on reading or on first use of a field."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a token proves. ``time``: Unix seconds by the authority's clock; ``imprint``: the digest's name."""

    time: int
    authority: str
    imprint: str
    serial: int


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a token says, apart from its encoding. ``signer``: DER of issuer and serial number, or the key's id."""

    content: bytes
    signer: bytes
    digest: str
    attributes: bytes
    algorithm: str
    signature: bytes


class _Response(core.Sequence):  # type: ignore[misc]  # asn1crypto has no types
    """TimeStampResp (RFC 3161 2.4.2); asn1crypto's own forgets that a refusal brings no token."""

    _fields = [  # noqa: RUF012 - asn1crypto's way
        ("status", tsp.PKIStatusInfo),
        ("time_stamp_token", cms.ContentInfo, {"optional": True}),
    ]


def build_request(content: bytes, *, imprint: str = "sm3", nonce: int) -> bytes:
    """Return the DER request for a stamp over ``content``; ``nonce`` is a random positive integer."""
    oid = next((each for each, (name, _) in _IMPRINTS.items() if name == imprint), None)
    if oid is None:
        raise FormatError(f"a time stamp's digest is one of: {', '.join(IMPRINTS)}")
    request = tsp.TimeStampReq(
        {
            "version": "v1",
            "message_imprint": {
                "hash_algorithm": {"algorithm": oid},
                "hashed_message": _IMPRINTS[oid][1](content),
            },
            "nonce": nonce,
            "cert_req": False,  # the certificate is known already, or the answer is of no use
        }
    )
    encoded: bytes = request.dump()
    return encoded


def read_response(response: bytes, content: bytes, certificates: Sequence[bytes], *, nonce: int) -> tuple[bytes, Stamp]:
    """Return the bare token of an authority's answer and what it proves.

    Raises ``VerificationError`` when the authority refused, answered another request, or is none of ``certificates``.
    """
    if len(response) > MAX_RESPONSE_BYTES:
        raise FormatError("the time-stamping authority's answer is too large")
    with _reading("the time-stamping authority's answer"):
        answer = _Response.load(response, strict=True)
        status = answer["status"]["status"].native
        if status not in ("granted", "granted_with_mods"):
            raise VerificationError(f"the time-stamping authority refused ({status})")
        parts = _parts(answer["time_stamp_token"])
        if tsp.TSTInfo.load(parts.content, strict=True)["nonce"].native != nonce:
            raise VerificationError("the time-stamping authority answered another request")
    token = _assembled(parts)
    return token, verify_token(token, content, certificates)


def verify_token(token: bytes, content: bytes, certificates: Sequence[bytes]) -> Stamp:
    """Return what a bare token proves about ``content``; ``certificates`` are the authorities' in DER."""
    if len(token) > MAX_TOKEN_BYTES:
        raise FormatError(f"a time-stamp token is at most {MAX_TOKEN_BYTES} bytes")
    with _reading("the time-stamp token"):
        parts = _parts(cms.ContentInfo.load(token, strict=True))  # (1)
        if _assembled(parts) != token:
            raise FormatError("the time-stamp token is not bare, or not in its one encoding")
        info = tsp.TSTInfo.load(parts.content, strict=True)
        if info["version"].native != "v1":
            raise FormatError("the time stamp is of another version")
        time = int(info["gen_time"].native.timestamp())
        certificate = _certificate(parts, certificates, time)  # (2)
        _check_attributes(parts, certificate.dump())  # (3)
        _check_signature(parts, certificate)
        imprint = info["message_imprint"]
        name, digest = _IMPRINTS.get(imprint["hash_algorithm"]["algorithm"].dotted, ("", None))
        if digest is None or imprint["hashed_message"].native != digest(content):  # (4)
            raise VerificationError("the time stamp is over something else")
        return Stamp(time, _name(certificate), name, int(info["serial_number"].native))


def read_certificate(content: bytes) -> str:
    """Return the name in an authority's DER certificate; raises ``FormatError`` when it is not made for time stamps."""
    if len(content) > MAX_CERTIFICATE_BYTES:
        raise FormatError("the certificate is too large")
    with _reading("the certificate"):
        certificate = x509.Certificate.load(content, strict=True)
        if not _is_for_stamping(certificate):
            raise FormatError("the certificate is not one for time stamping alone (RFC 3161 2.3)")
        return _name(certificate)


def _parts(outer: Any) -> _Parts:
    """Read a token, bare or not."""
    if outer["content_type"].dotted != _SIGNED_DATA:
        raise FormatError("the time-stamp token is no SignedData")
    signed = outer["content"]
    signers, inner = signed["signer_infos"], signed["encap_content_info"]
    if len(signers) != 1 or inner["content_type"].dotted != _TST_INFO:
        raise FormatError("the time-stamp token is not one time stamp by one signer")
    signer = signers[0]
    sid = signer["sid"]
    if sid.name == "issuer_and_serial_number":
        named = _signer(sid.chosen["issuer"].dump(), sid.chosen["serial_number"].native)
    else:
        named = _tlv(0x80, sid.chosen.native)
    digest = signer["digest_algorithm"]["algorithm"].dotted
    kind = signer["signature_algorithm"]["algorithm"].dotted
    return _Parts(
        content=inner["content"].contents,
        signer=named,
        digest=digest,
        attributes=signer["signed_attrs"].contents,
        algorithm=_RSA if kind in _RSA_KINDS else kind,
        signature=signer["signature"].native,
    )


def _assembled(parts: _Parts) -> bytes:
    """Return the one encoding of a bare token."""
    by_key = parts.signer[0] == 0x80
    digest = _tlv(_SEQUENCE, _oid(parts.digest))
    algorithm = _tlv(_SEQUENCE, _oid(parts.algorithm), _NULL if parts.algorithm == _RSA else b"")
    signer = _tlv(
        _SEQUENCE,
        _tlv(_INTEGER, b"\x03" if by_key else b"\x01"),
        parts.signer,
        digest,
        _tlv(_TAG_0, parts.attributes),
        algorithm,
        _tlv(_OCTETS, parts.signature),
    )
    content = _tlv(_SEQUENCE, _oid(_TST_INFO), _tlv(_TAG_0, _tlv(_OCTETS, parts.content)))
    signed = _tlv(_SEQUENCE, _tlv(_INTEGER, b"\x03"), _tlv(_SET, digest), content, _tlv(_SET, signer))
    return _tlv(_SEQUENCE, _oid(_SIGNED_DATA), _tlv(_TAG_0, signed))


def _signer(issuer: bytes, serial: int) -> bytes:
    """Return the DER of issuer and serial number."""
    number: bytes = core.Integer(serial).dump()
    return _tlv(_SEQUENCE, issuer, number)


def _oid(dotted: str) -> bytes:
    encoded: bytes = core.ObjectIdentifier(dotted).dump()
    return encoded


def _tlv(tag: int, *parts: bytes) -> bytes:
    """Return a DER element."""
    content = b"".join(parts)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _certificate(parts: _Parts, certificates: Sequence[bytes], time: int) -> Any:
    """Step (2): return the given certificate that the signer names."""
    for content in certificates:
        certificate = x509.Certificate.load(content, strict=True)
        names = [_signer(certificate.issuer.dump(), certificate.serial_number)]
        if certificate.key_identifier is not None:
            names.append(_tlv(0x80, certificate.key_identifier))
        if parts.signer not in names:
            continue
        if not _is_for_stamping(certificate):
            raise VerificationError("the authority's certificate is not one for time stamping")
        if not certificate.not_valid_before.timestamp() <= time <= certificate.not_valid_after.timestamp():
            raise VerificationError("the authority's certificate was not valid at the time it stamped")
        return certificate
    raise VerificationError("the time stamp is by an authority that is not trusted here")


def _is_for_stamping(certificate: Any) -> bool:
    usage = certificate.extended_key_usage_value
    critical = "extended_key_usage" in certificate.critical_extensions
    return usage is not None and critical and list(usage.native) == ["time_stamping"]


def _name(certificate: Any) -> str:
    """Return the certificate's common name, or all of its subject."""
    names = certificate.subject.native
    return str(names.get("common_name") or certificate.subject.human_friendly)


def _check_attributes(parts: _Parts, certificate: bytes) -> None:
    """Step (3), what the signed attributes have to say."""
    if parts.digest not in _DIGESTS:
        raise VerificationError("the time stamp is signed with a digest that is not accepted")
    attributes: dict[str, Any] = {}
    for each in cms.CMSAttributes.load(_tlv(_SET, parts.attributes), strict=True):
        if each["type"].dotted in attributes or len(each["values"]) != 1:
            raise VerificationError("the time stamp has a signed attribute twice")
        attributes[each["type"].dotted] = each["values"][0]
    if attributes[_CONTENT_TYPE].dotted != _TST_INFO:
        raise VerificationError("the time stamp's signature is over another type of content")
    if attributes[_MESSAGE_DIGEST].native != _DIGESTS[parts.digest][0](parts.content):
        raise VerificationError("the time stamp's signature is over another content")
    if _CERTIFICATE_V2 in attributes:
        named = attributes[_CERTIFICATE_V2]["certs"][0]
        digest = _DIGESTS.get(named["hash_algorithm"]["algorithm"].dotted)
        same = digest is not None and named["cert_hash"].native == digest[0](certificate)
    else:  # SHA-1 by definition (RFC 2634); what it names is pinned, and the signature covers the rest
        named = attributes[_CERTIFICATE_V1]["certs"][0]
        same = named["cert_hash"].native == hashlib.sha1(certificate).digest()  # noqa: S324
    if not same:
        raise VerificationError("the time stamp names another certificate than its signer's")


def _check_signature(parts: _Parts, certificate: Any) -> None:
    """Step (3), the signature: over the attributes as a SET OF (RFC 5652 5.4)."""
    message, key_info = _tlv(_SET, parts.attributes), certificate.public_key
    algorithm = _DIGESTS[parts.digest][1]
    try:
        if key_info.algorithm == "ec" and key_info["algorithm"]["parameters"].chosen.dotted == _SM2_CURVE:
            if (parts.algorithm, parts.digest) != (_SM2_WITH_SM3, _SM3):
                raise VerificationError("the time stamp's signature algorithm is not its key's")
            r, s = decode_signature(parts.signature)
            raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
            PublicKey.from_bytes(bytes(key_info["public_key"])).verify(message, raw)
            return
        key = load_der_public_key(key_info.dump())
        if algorithm is not None and isinstance(key, rsa.RSAPublicKey) and parts.algorithm == _RSA:
            key.verify(parts.signature, message, padding.PKCS1v15(), algorithm)
        elif (
            algorithm is not None
            and isinstance(key, ec.EllipticCurvePublicKey)
            and parts.algorithm == _ECDSA.get(parts.digest)
        ):
            key.verify(parts.signature, message, ec.ECDSA(algorithm))
        else:
            raise VerificationError("the time stamp's signature algorithm is not its key's, or not accepted")
    except (InvalidSignature, UnsupportedAlgorithm, KeyFormatError, SignatureInvalid):
        raise VerificationError("the time stamp's signature does not verify") from None


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except _MALFORMED:
        raise FormatError(f"{what} cannot be read") from None
