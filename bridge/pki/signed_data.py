"""Detached signatures in the structure of GM/T 0010-2012 SignedData, DER: one signer, the content kept elsewhere.

``SEQUENCE { signedData OID, [0] { version 1, digestAlgorithms {SM3}, contentInfo {data}, certificates, signerInfos }
}``. Without authenticated attributes: the signature is over the content itself, by SM2 with SM3 and the default signer
id. Certificates of the signer may go along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asn1crypto import core, x509

from anchor.errors import AnchorError
from anchor.gm import PrivateKey, PublicKey
from bridge.errors import CertificateInvalid
from bridge.pki.gm_certificates import GmCertificate, parse
from bridge.pki.gm_structures import (
    OID_DATA,
    OID_SIGNED,
    SM3_ALGORITHM,
    VERSION_1,
    SignedInfo,
    object_id,
    raw_signature,
    sequence,
    set_of,
    signer_info,
    tagged,
)

MAX_SIGNED_DATA_BYTES = 64 * 1024
MAX_CERTIFICATES = 4

_SIGNED_DATA, _CONTENT_INFO = object_id(OID_SIGNED), sequence(object_id(OID_DATA))


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
    name = sequence(parts.issuer.dump(), core.Integer(parts.serial).dump())
    certificates = b"".join(sorted(each.der for each in parts.certificates))  # the order that DER gives a SET OF
    data = sequence(
        VERSION_1,
        set_of(SM3_ALGORITHM),
        _CONTENT_INFO,
        tagged(0, certificates, constructed=True) if certificates else b"",
        set_of(signer_info(name, parts.signature)),
    )
    return sequence(_SIGNED_DATA, tagged(0, data, constructed=True))
