"""The certificates of the TLS channel between nodes: ECDSA on P-384 (authority) and P-256 (nodes), X.509, CRLs.

Python's and rustls' TLS have no SM2 suites, so the channel is ordinary TLS 1.3; what goes through it is signed by SM2
and sealed to SM2 keys all the same (``bridge.peer_signature``, ``bridge.services.envelope``). Where the channel itself
must be of national algorithms, a gateway terminates it (``docs/tlcp.md``).

A node's certificate names its institution twice: as the subject's common name and as the URI ``urn:yiqiao:org:<org
id>``; the latter is what is checked.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bridge.errors import CertificateInvalid
from bridge.pki.gm_certificates import ORG_URI

BACKDATED_SECONDS = 300  # two hospitals' clocks may differ
SERIAL_BYTES = 16
CRL_DAYS = 30
MAX_REQUEST_BYTES = 16 * 1024
_CURVES = (ec.SECP256R1, ec.SECP384R1)

PrivateKey = ec.EllipticCurvePrivateKey


def new_key(curve: ec.EllipticCurve | None = None) -> PrivateKey:
    """Return a fresh private key; P-256 unless told otherwise."""
    return ec.generate_private_key(curve or ec.SECP256R1())


def new_authority(chain: str, number: int, key: PrivateKey, now: float, years: int) -> x509.Certificate:
    """Return a self-signed authority certificate."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, chain),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Yiqiao TLS CA {number}"),
        ]
    )
    builder = _builder(name, name, key.public_key(), now, timedelta(days=366 * years))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    return _signed(builder, key, key.public_key())


def request(org: str, hosts: Sequence[str], key: PrivateKey) -> bytes:
    """Return a PKCS#10 request for a node's certificate, PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, org)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(_alternative_names(org, hosts), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_request(content: bytes) -> x509.CertificateSigningRequest:
    """Read a request and check its signature; raises ``CertificateInvalid``."""
    try:
        if len(content) > MAX_REQUEST_BYTES:
            raise ValueError("too large")
        found = x509.load_pem_x509_csr(content)
        key = found.public_key()
        valid = found.is_signature_valid
    except (ValueError, TypeError, x509.UnsupportedGeneralNameType) as error:
        raise CertificateInvalid("malformed", "the certificate request cannot be read") from error
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise CertificateInvalid("malformed", "the request is not signed by its own P-256 or P-384 key")
    return found


def names_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> tuple[str | None, tuple[str, ...]]:
    """Return the org id and the host names and addresses of a certificate or request."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None, ()
    uris = [uri for uri in found.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(ORG_URI)]
    hosts = [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
    return (uris[0].removeprefix(ORG_URI) if len(uris) == 1 else None), tuple(hosts)


def issue(
    asked: x509.CertificateSigningRequest,
    *,
    org: str,
    name: str,
    hosts: Sequence[str],
    authority: x509.Certificate,
    key: PrivateKey,
    now: float,
    days: int,
) -> x509.Certificate:
    """Return a node's certificate, for both ends of a connection."""
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name[:64]), x509.NameAttribute(NameOID.COMMON_NAME, org)]
    )
    public = asked.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    until = min(timedelta(days=days), authority.not_valid_after_utc - datetime.fromtimestamp(now, UTC))
    builder = _builder(subject, authority.subject, public, now, until)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage("digital_signature"), critical=True)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    builder = builder.add_extension(_alternative_names(org, hosts), critical=False)
    issuer_key = authority.public_key()
    assert isinstance(issuer_key, ec.EllipticCurvePublicKey)
    return _signed(builder, key, issuer_key)


def revocation_list(
    authority: x509.Certificate, key: PrivateKey, revoked: Iterable[tuple[int, int]], number: int, now: float
) -> bytes:
    """Return a CRL, PEM. ``revoked``: serial numbers with the time (Unix seconds) from which each counts."""
    moment = datetime.fromtimestamp(now, UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    builder = builder.last_update(moment - timedelta(seconds=BACKDATED_SECONDS))
    builder = builder.next_update(moment + timedelta(days=CRL_DAYS))
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    issuer_key = authority.public_key()
    assert isinstance(issuer_key, ec.EllipticCurvePublicKey)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key)
    builder = builder.add_extension(identifier, critical=False)
    for serial, since in sorted(revoked):
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(entry.revocation_date(datetime.fromtimestamp(since, UTC)).build())
    return builder.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


def read_bundle(content: bytes) -> list[x509.Certificate]:
    """Read PEM certificates; raises ``CertificateInvalid``."""
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise CertificateInvalid("malformed", "the certificates cannot be read") from error


def read_revocation_lists(content: bytes, authorities: Sequence[x509.Certificate]) -> frozenset[tuple[bytes, int]]:
    """Return (issuer, serial number) of everything revoked; raises ``CertificateInvalid`` for a list that is not
    theirs.

    An outdated list still counts: an unreachable authority must not bring revoked certificates back.
    """
    marker = b"-----BEGIN X509 CRL-----"
    found: set[tuple[bytes, int]] = set()
    for part in content.split(marker)[1:]:
        try:
            listed = x509.load_pem_x509_crl(marker + part)
        except ValueError as error:
            raise CertificateInvalid("malformed", "the revocation list cannot be read") from error
        by = next((each for each in authorities if each.subject == listed.issuer), None)
        key = by.public_key() if by is not None else None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not listed.is_signature_valid(key):
            raise CertificateInvalid("bad-signature", "the revocation list is not the authority's")
        found |= {(listed.issuer.public_bytes(), each.serial_number) for each in listed}
    return frozenset(found)


def issued_by(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    """Whether one of the authorities signed a certificate."""
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: float, life: timedelta
) -> x509.CertificateBuilder:
    moment = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(int.from_bytes(secrets.token_bytes(SERIAL_BYTES), "big") >> 1)
        .not_valid_before(moment - timedelta(seconds=BACKDATED_SECONDS))
        .not_valid_after(moment + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, key: PrivateKey, issuer: ec.EllipticCurvePublicKey) -> x509.Certificate:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)
    return builder.add_extension(identifier, critical=False).sign(key, hashes.SHA384())


def _usage(*names: str) -> x509.KeyUsage:
    bits = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{bit: bit in names for bit in bits})


def _alternative_names(org: str, hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(ORG_URI + org)]
    for host in hosts:
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)
