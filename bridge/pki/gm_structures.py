"""The ASN.1 of national cryptography that this package writes and reads: GM/T 0009, GM/T 0010, RFC 5084.

The classes are the structures as the standards have them, for reading. What is written for each release and each signed
request is put together of encoded elements (``sequence``, ``octets`` and so on), whose constant parts are encoded once:
building the objects first takes fifty times as long. Tests hold both to the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from asn1crypto import cms, core, parser, x509

OID_DATA = "1.2.156.10197.6.1.4.2.1"
OID_SIGNED = "1.2.156.10197.6.1.4.2.2"
OID_SIGNED_AND_ENVELOPED = "1.2.156.10197.6.1.4.2.4"
OID_SM3 = "1.2.156.10197.1.401"
OID_SM2_SIGN = "1.2.156.10197.1.301.1"
OID_SM2_ENCRYPT = "1.2.156.10197.1.301.3"
OID_SM4_GCM = "1.2.156.10197.1.104.8"
GM_CA_NAME = "Yiqiao SM2 CA"

_UNIVERSAL, _CONTEXT, _PRIMITIVE, _CONSTRUCTED = 0, 2, 0, 1


def sequence(*parts: bytes) -> bytes:
    """Return the DER of a SEQUENCE of encoded elements."""
    return bytes(parser.emit(_UNIVERSAL, _CONSTRUCTED, core.Sequence.tag, b"".join(parts)))


def set_of(element: bytes) -> bytes:
    """Return the DER of a SET OF one encoded element."""
    return bytes(parser.emit(_UNIVERSAL, _CONSTRUCTED, core.SetOf.tag, element))


def octets(content: bytes) -> bytes:
    """Return the DER of an OCTET STRING."""
    return bytes(parser.emit(_UNIVERSAL, _PRIMITIVE, core.OctetString.tag, content))


def tagged(number: int, content: bytes, *, constructed: bool) -> bytes:
    """Return the DER of a value of the context tag [number]: of an encoded element, or of its content (IMPLICIT)."""
    return bytes(parser.emit(_CONTEXT, _CONSTRUCTED if constructed else _PRIMITIVE, number, content))


def object_id(dotted: str) -> bytes:
    """Return the DER of an OBJECT IDENTIFIER."""
    return bytes(core.ObjectIdentifier(dotted).dump())


VERSION_1 = bytes(core.Integer(1).dump())
SM3_ALGORITHM = sequence(object_id(OID_SM3))
SM2_SIGN_ALGORITHM = sequence(object_id(OID_SM2_SIGN))


class Algorithm(core.Sequence):  # type: ignore[misc]
    """AlgorithmIdentifier with parameters of any kind."""

    _fields = [("algorithm", core.ObjectIdentifier), ("parameters", core.Any, {"optional": True})]  # noqa: RUF012


class Algorithms(core.SetOf):  # type: ignore[misc]
    """The digest algorithms used."""

    _child_spec = Algorithm


class GcmParameters(core.Sequence):  # type: ignore[misc]
    """RFC 5084 section 3.2."""

    _fields = [("nonce", core.OctetString), ("icv_len", core.Integer, {"default": 12})]  # noqa: RUF012


class RecipientInfo(core.Sequence):  # type: ignore[misc]
    """For whom the content key is encrypted; GM/T 0010 section 9."""

    _fields = [  # noqa: RUF012
        ("version", core.Integer),
        ("issuer_and_serial", cms.IssuerAndSerialNumber),
        ("key_encryption_algorithm", Algorithm),
        ("encrypted_key", core.OctetString),
    ]


class RecipientInfos(core.SetOf):  # type: ignore[misc]
    """The recipients; ours has one."""

    _child_spec = RecipientInfo


class EncryptedContentInfo(core.Sequence):  # type: ignore[misc]
    """The encrypted content, its type and its algorithm."""

    _fields = [  # noqa: RUF012
        ("content_type", core.ObjectIdentifier),
        ("content_encryption_algorithm", Algorithm),
        ("encrypted_content", core.OctetString, {"implicit": 0}),
    ]


class SignerInfo(core.Sequence):  # type: ignore[misc]
    """Who signed; without authenticated attributes, so the signature is over the content itself."""

    _fields = [  # noqa: RUF012
        ("version", core.Integer),
        ("issuer_and_serial", cms.IssuerAndSerialNumber),
        ("digest_algorithm", Algorithm),
        ("digest_encryption_algorithm", Algorithm),
        ("encrypted_digest", core.OctetString),
    ]


class SignerInfos(core.SetOf):  # type: ignore[misc]
    """The signers; ours has one."""

    _child_spec = SignerInfo


class SignedAndEnvelopedData(core.Sequence):  # type: ignore[misc]
    """GM/T 0010 section 10; certificates and revocation lists are left out."""

    _fields = [  # noqa: RUF012
        ("version", core.Integer),
        ("recipient_infos", RecipientInfos),
        ("digest_algorithms", Algorithms),
        ("encrypted_content_info", EncryptedContentInfo),
        ("signer_infos", SignerInfos),
    ]


class ContentInfo(core.Sequence):  # type: ignore[misc]
    """The outermost structure."""

    _fields = [  # noqa: RUF012
        ("content_type", core.ObjectIdentifier),
        ("content", SignedAndEnvelopedData, {"explicit": 0}),
    ]


class SignedContent(core.Sequence):  # type: ignore[misc]
    """What a SignedData is over; without the content itself when it is kept elsewhere (a detached signature)."""

    _fields = [("content_type", core.ObjectIdentifier)]  # noqa: RUF012


class CertificateSet(core.SetOf):  # type: ignore[misc]
    """The certificates that go with a signature."""

    _child_spec = x509.Certificate


class SignedData(core.Sequence):  # type: ignore[misc]
    """GM/T 0010 section 8, detached; revocation lists are left out."""

    _fields = [  # noqa: RUF012
        ("version", core.Integer),
        ("digest_algorithms", Algorithms),
        ("content_info", SignedContent),
        ("certificates", CertificateSet, {"implicit": 0, "optional": True}),
        ("signer_infos", SignerInfos),
    ]


class SignedInfo(core.Sequence):  # type: ignore[misc]
    """The outermost structure of a SignedData."""

    _fields = [("content_type", core.ObjectIdentifier), ("content", SignedData, {"explicit": 0})]  # noqa: RUF012


class Sm2Signature(core.Sequence):  # type: ignore[misc]
    """SM2Signature of GM/T 0009."""

    _fields = [("r", core.Integer), ("s", core.Integer)]  # noqa: RUF012


def gm_ca_name(chain: str) -> x509.Name:
    """Return the distinguished name under which a consortium's SM2 certificates are issued."""
    return x509.Name.load(_gm_ca_name_der(chain))


@lru_cache(maxsize=64)  # a node knows few chains; encoding a name that was built takes longer than all the rest
def _gm_ca_name_der(chain: str) -> bytes:
    return bytes(x509.Name.build({"organization_name": chain, "common_name": GM_CA_NAME}).dump())


@dataclass(frozen=True, slots=True)
class KeyName:
    """Which key: chain id and key id (16 hex digits, the serial number of its certificate)."""

    chain: str
    key_id: str

    def der(self) -> bytes:
        """Return the DER of the IssuerAndSerialNumber."""
        return sequence(_gm_ca_name_der(self.chain), core.Integer(int(self.key_id, 16)).dump())

    @staticmethod
    def read(value: cms.IssuerAndSerialNumber) -> KeyName:
        """Read the ASN.1 form; raises KeyError or ValueError when it is not of this kind."""
        return _key_name(value.dump())


@lru_cache(maxsize=512)  # one for each key in use, and what it costs to read a name is more than the rest together
def _key_name(der: bytes) -> KeyName:
    value = cms.IssuerAndSerialNumber.load(der)
    name, serial = value["issuer"].native, value["serial_number"].native
    if name["common_name"] != GM_CA_NAME or not 0 <= serial < 2**64:
        raise ValueError("not the name of a member's key")
    return KeyName(name["organization_name"], f"{serial:016x}")


def der_signature(raw: bytes) -> bytes:
    """Return 64 bytes r||s as the DER of GM/T 0009."""
    return sequence(*(core.Integer(int.from_bytes(half, "big")).dump() for half in (raw[:32], raw[32:])))


def signer_info(name: bytes, signature: bytes) -> bytes:
    """Return the DER of a SignerInfo: ``name`` an encoded IssuerAndSerialNumber, ``signature`` 64 bytes r||s."""
    return sequence(VERSION_1, name, SM3_ALGORITHM, SM2_SIGN_ALGORITHM, octets(der_signature(signature)))


def raw_signature(der: bytes) -> bytes:
    """Return the 64 bytes r||s of a DER signature; raises ValueError or OverflowError for anything else."""
    numbers = Sm2Signature.load(der, strict=True)
    return b"".join(numbers[name].native.to_bytes(32, "big") for name in ("r", "s"))
