"""Detached signatures in the structure of GM/T 0010-2012 SignedData, DER: one signer, the content kept elsewhere.

``SEQUENCE { signedData OID, [0] { version 1, digestAlgorithms {SM3}, contentInfo {data}, certificates, signerInfos }
}``. Without authenticated attributes: the signature is over the content itself, by SM2 with SM3 and the default signer
id. Certificates of the signer may go along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asn1crypto import cms, x509

from anchor.errors import AnchorError
from anchor.gm import PrivateKey, PublicKey
from bridge.errors import CertificateInvalid
from bridge.pki.gm_certificates import GmCertificate, parse
from bridge.pki.gm_structures import (
    OID_DATA,
    OID_SIGNED,
    OID_SM2_SIGN,
    OID_SM3,
    SignedInfo,
    der_signature,
    raw_signature,
)

MAX_SIGNED_DATA_BYTES = 64 * 1024
MAX_CERTIFICATES = 4


@dataclass(frozen=True, slots=True)
class DetachedSignature:
    """A signature as read: the name of the signer's certificate, the 64 bytes, and the certificates that came along."""

    issuer: x509.Name
    serial: int
    signature: bytes
    certificates: tuple[GmCertificate, ...]

    def verify(self, content: bytes, public: PublicKey) -> None:
        """Raise ``CertificateInvalid`` ("bad-signature") unless this is ``public``'s signature over ``content``."""
        try:
            public.verify(content, self.signature)
        except AnchorError as error:
            raise CertificateInvalid("bad-signature", "the signature does not hold / 签名无效") from error

    def own_certificate(self) -> GmCertificate | None:
        """Return the signer's certificate if it came along."""
        for each in self.certificates:
            if each.serial == self.serial and each.issuer.dump() == self.issuer.dump():
                return each
        return None


def sign_detached(
    content: bytes, *, key: PrivateKey, issuer: x509.Name, serial: int, certificates: Sequence[GmCertificate] = ()
) -> bytes:
    """Return the signature of ``content`` as DER; ``issuer`` and ``serial`` name the signer's certificate."""
    return _written(DetachedSignature(issuer, serial, key.sign(content), tuple(certificates)))


def read_detached(der: bytes) -> DetachedSignature:
    """Read a signature; raises ``CertificateInvalid`` ("malformed") for anything but what ``sign_detached`` gives."""
    try:
        if len(der) > MAX_SIGNED_DATA_BYTES:
            raise ValueError("too large")
        data = SignedInfo.load(der, strict=True)["content"]
        signer = data["signer_infos"][0]
        place = signer["issuer_and_serial"]
        listed = data["certificates"]
        ders = [each.dump() for each in listed] if listed.native is not None else []
        if len(ders) > MAX_CERTIFICATES:
            raise ValueError("too many certificates")
        signature = DetachedSignature(
            place["issuer"],
            int(place["serial_number"].native),
            raw_signature(signer["encrypted_digest"].native),
            tuple(parse(each) for each in ders),
        )
        if _written(signature) != der:
            raise ValueError("not the one form")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise CertificateInvalid("malformed", "the signature cannot be read / 签名格式错误") from error
    return signature


def _written(parts: DetachedSignature) -> bytes:
    data = {
        "version": 1,
        "digest_algorithms": [{"algorithm": OID_SM3}],
        "content_info": {"content_type": OID_DATA},
        "signer_infos": [
            {
                "version": 1,
                "issuer_and_serial": cms.IssuerAndSerialNumber({"issuer": parts.issuer, "serial_number": parts.serial}),
                "digest_algorithm": {"algorithm": OID_SM3},
                "digest_encryption_algorithm": {"algorithm": OID_SM2_SIGN},
                "encrypted_digest": der_signature(parts.signature),
            }
        ],
    }
    if parts.certificates:
        data["certificates"] = [x509.Certificate.load(each.der) for each in parts.certificates]
    return bytes(SignedInfo({"content_type": OID_SIGNED, "content": data}).dump())
