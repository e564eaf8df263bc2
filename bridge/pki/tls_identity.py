"""A node's own end of the TLS channel: its key and certificate, whom it trusts, and whom it is talking to.

Files below HOME/pki: ``tls.crt`` (the node's chain), ``tls.key`` (PKCS#8, encrypted with a password that lies among the
node's keys), ``ca.crt`` (the consortium's TLS authorities), ``crl.pem`` (revoked certificates), ``gm-*.crt`` (SM2).

They are read again when they change, so a renewed certificate needs no restart on the client side.
"""

from __future__ import annotations

import os
import secrets
import shutil
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from anchor.gm import sm3
from bridge.errors import CertificateInvalid, SettingsError
from bridge.keys.store import KeyStore
from bridge.pki import gm_certificates as gm
from bridge.pki import tls_certificates as tls
from bridge.pki.enrolment import Certificates

KEY, NEW_KEY, CERTIFICATE, AUTHORITIES, REVOKED = "tls.key", "tls.key.new", "tls.crt", "ca.crt", "crl.pem"
GM_AUTHORITY, GM_SIGN, GM_ENCRYPT, GM_ISSUING = "gm-ca.crt", "gm-sign.crt", "gm-encrypt.crt", "gm-issuing.crt"
PASSWORD = "tls-password.key"  # noqa: S105 - the name of a key file
PASSWORD_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Loaded:
    stamp: tuple[int, ...]
    context: ssl.SSLContext
    authorities: tuple[x509.Certificate, ...]
    revoked: frozenset[tuple[bytes, int]]


class TlsIdentity:
    """One node's certificates; ``exists`` says whether there are any."""

    def __init__(self, directory: Path, keys: KeyStore) -> None:
        self.directory = directory
        self._keys = keys
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def exists(self) -> bool:
        """Whether a certificate has been installed."""
        return all((self.directory / name).is_file() for name in (KEY, CERTIFICATE, AUTHORITIES))

    @property
    def password(self) -> str:
        """The password of ``tls.key``."""
        return self._keys.read(PASSWORD).hex()

    def request(self, org: str, hosts: Sequence[str]) -> bytes:
        """Make a new key, kept beside the current one until a certificate for it is installed; return the PKCS#10."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._keys.exists(PASSWORD):
            self._keys.write(PASSWORD, secrets.token_bytes(PASSWORD_BYTES))
        key = tls.new_key()
        encryption = serialization.BestAvailableEncryption(self.password.encode())
        content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        _write(self.directory / NEW_KEY, content)
        return tls.request(org, hosts, key)

    def install(self, found: Certificates, org: str, signing: bytes) -> None:
        """Put certificates in place; raises ``CertificateInvalid`` unless they are this node's and hang together.

        ``signing`` is the public ledger key (65 bytes) that the SM2 signing certificate must be over.
        """
        authorities = tls.read_bundle(found.authorities.encode("ascii"))
        (certificate, *_) = tls.read_bundle(found.tls.encode("ascii"))
        if found.org != org or tls.names_of(certificate)[0] != org:
            raise CertificateInvalid("wrong-name", "the certificate is another institution's / 证书不属于本机构")
        if not tls.issued_by(certificate, authorities):
            raise CertificateInvalid("bad-signature", "the certificate is not of its authority / 证书链无效")
        tls.read_revocation_lists(found.revoked.encode("ascii"), authorities)
        gm_files = _gm_files(found, signing)
        key = self._key_of(certificate)
        for name, text in {**gm_files, AUTHORITIES: found.authorities, REVOKED: found.revoked}.items():
            _write(self.directory / name, text.encode("ascii"))
        if key == NEW_KEY:
            (self.directory / NEW_KEY).replace(self.directory / KEY)
        _write(self.directory / CERTIFICATE, found.tls.encode("ascii"))

    def replace_revoked(self, content: bytes) -> bool:
        """Keep a newer revocation list; False when it is the one that is there. Raises ``CertificateInvalid``."""
        file = self.directory / REVOKED
        if file.is_file() and file.read_bytes() == content:
            return False
        tls.read_revocation_lists(content, self._load().authorities)
        _write(file, content)
        return True

    def expires(self) -> int | None:
        """Return when the node's TLS certificate ends (Unix seconds), None without one."""
        if not self.exists:
            return None
        (certificate, *_) = tls.read_bundle((self.directory / CERTIFICATE).read_bytes())
        return int(certificate.not_valid_after_utc.timestamp())

    @contextmanager
    def clear_key(self) -> Iterator[Path]:
        """Give a file with the private key in clear, for a server that cannot open ours; ``refresh_clear`` renews it.

        It lies in memory (/dev/shm) where there is such a place, mode 0600, and goes when the server ends.
        """
        base = Path("/dev/shm")  # noqa: S108 - in a directory of our own
        place = (base if base.is_dir() else self.directory) / f"yiqiao-{os.getuid()}-{self._name()}"
        place.mkdir(mode=0o700, exist_ok=True)
        if place.stat().st_uid != os.getuid() or place.is_symlink():
            raise SettingsError(f"{place} is another user's / 目录属于其他用户")
        place.chmod(0o700)
        file = place / KEY
        try:
            self.refresh_clear(file)
            yield file
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def refresh_clear(self, file: Path) -> None:
        """Write the current private key into the file that ``clear_key`` gave."""
        try:
            content = (self.directory / KEY).read_bytes()
            key = serialization.load_pem_private_key(content, self.password.encode())
        except (OSError, ValueError) as error:
            raise SettingsError(f"{self.directory / KEY} cannot be used / TLS 私钥不可用") from error
        plain = serialization.NoEncryption()
        _write(file, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))

    def _name(self) -> str:
        return sm3(str(self.directory.resolve()).encode()).hex()[:16]

    def stamp(self) -> tuple[int, ...]:
        """Return what changes when the files do."""
        found = []
        for name in (CERTIFICATE, KEY, AUTHORITIES, REVOKED):
            try:
                found.append((self.directory / name).stat().st_mtime_ns)
            except FileNotFoundError:
                found.append(0)
        return tuple(found)

    def context(self) -> ssl.SSLContext:
        """Return the client side's TLS: version 1.3, the node's certificate, the consortium's authorities only."""
        return self._load().context

    def check_peer(self, der: bytes, org: str) -> None:
        """Raise ``CertificateInvalid`` unless a peer's certificate is of that institution and not revoked."""
        certificate = x509.load_der_x509_certificate(der)
        if tls.names_of(certificate)[0] != org:
            raise CertificateInvalid("wrong-name", "the node at that address is another institution's")
        if (certificate.issuer.public_bytes(), certificate.serial_number) in self._load().revoked:
            raise CertificateInvalid("revoked", "the certificate of the node at that address is revoked")

    def _load(self) -> _Loaded:
        stamp = self.stamp()
        with self._lock:
            if self._loaded is None or self._loaded.stamp != stamp:
                self._loaded = self._read(stamp)
            return self._loaded

    def _read(self, stamp: tuple[int, ...]) -> _Loaded:
        try:
            authorities = tuple(tls.read_bundle((self.directory / AUTHORITIES).read_bytes()))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_verify_locations(self.directory / AUTHORITIES)
            context.load_cert_chain(self.directory / CERTIFICATE, self.directory / KEY, password=self.password)
            revoked: frozenset[tuple[bytes, int]] = frozenset()
            with suppress(FileNotFoundError):
                content = (self.directory / REVOKED).read_bytes()
                revoked = tls.read_revocation_lists(content, authorities)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"the TLS certificate below {self.directory} cannot be used ({type(error).__name__}); run: "
                "yiqiao pki request / TLS 证书不可用"
            ) from error
        return _Loaded(stamp, context, authorities, revoked)

    def _key_of(self, certificate: x509.Certificate) -> str:
        """Return which of the two key files a certificate is for."""
        public = certificate.public_key()
        for name in (NEW_KEY, KEY):
            try:
                content = (self.directory / name).read_bytes()
                key = serialization.load_pem_private_key(content, self.password.encode())
            except (OSError, ValueError):
                continue
            if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == public:
                return name
        raise CertificateInvalid("wrong-key", "the certificate is not for a key of this node / 证书与私钥不匹配")


def _gm_files(found: Certificates, signing: bytes) -> dict[str, str]:
    """Return the SM2 certificates by file name, after verifying each."""
    anchor = gm.parse(found.gm_authority.encode("ascii"))
    files = {GM_AUTHORITY: found.gm_authority}
    for text in found.gm:
        certificate = gm.parse(text.encode("ascii"))
        usage = next(iter(sorted(certificate.usages)))
        gm.verify_chain(certificate, (), (anchor,), at=certificate.not_before, usage=usage)
        if certificate.org != found.org:
            raise CertificateInvalid("wrong-name", "an SM2 certificate is another institution's / 证书不属于本机构")
        if certificate.ca:
            files[GM_ISSUING] = text
        elif "digital_signature" in certificate.usages:
            if certificate.public.to_bytes() == signing:
                files[GM_SIGN] = text
        else:
            files[GM_ENCRYPT] = text  # the newest key comes last
    if GM_SIGN not in files:
        raise CertificateInvalid("wrong-key", "no SM2 certificate is over this node's signing key / 缺少签名证书")
    return files


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
