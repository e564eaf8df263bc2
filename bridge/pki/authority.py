"""The consortium's certificate authority, run by a health authority beside its node.

It issues to members only, on requests signed by a member's ledger key, for the host that the ledger has as the member's
address. Its private keys lie among the node's keys (``tls-ca-<n>.key``, ``gm-ca.key``), so whatever protects those
protects them. A second TLS authority may be begun while the first still counts: nodes trust all that are in force.

Revocation follows the ledger: a certificate whose member is not active, or whose serial number was revoked by hand, is
on the list (CRL) that every node fetches; a member that is reinstated is off it again.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from anchor.errors import KeyFormatError
from anchor.gm import PrivateKey, PublicKey
from bridge.errors import CertificateInvalid, Conflict, NotFound, SettingsError
from bridge.keys.store import KeyStore, in_turn
from bridge.pki import gm_certificates as gm
from bridge.pki import tls_certificates as tls
from bridge.pki.enrolment import CertificateRequest, Certificates
from bridge.pki.gm_structures import gm_ca_name

REGISTER = "issued.jsonl"
REVOKED = "revoked.json"
CRL, CRL_STATE = "crl.pem", "crl-state.json"
CA_YEARS = 10
NODE_DAYS = 397  # what browsers accept at most from public authorities; a year and a month to overlap
MAX_NODE_DAYS = 825
CRL_REFRESH_SECONDS = 86_400  # a list is signed anew this often although nothing changed
SECONDS_PER_DAY = 86_400

Member = Mapping[str, Any]
_ACTIVE: Member = {"status": "active"}


class CertificateAuthority:
    """Issues, lists and revokes; ``directory`` holds what is public, ``keys`` the private keys."""

    def __init__(self, directory: Path, keys: KeyStore, chain: str, clock: Callable[[], float] = time.time) -> None:
        self._directory, self._keys, self._chain, self._clock = directory, keys, chain, clock

    @property
    def exists(self) -> bool:
        """Whether this node has been made the consortium's certificate authority."""
        return (self._directory / "ca-1.crt").is_file()

    def create(self, years: int = CA_YEARS, *, another: bool = False) -> int:
        """Begin the authority, or ``another`` TLS authority beside it; return its number."""
        with self._locked():
            number = len(self._authority_files()) + 1
            if number > 1 and not another:
                raise Conflict("this node is the certificate authority already; --new begins another / 已建立证书机构")
            now = self._clock()
            key = tls.new_key(ec.SECP384R1())
            if not self._keys.write(f"tls-ca-{number}.key", _dump_key(key)):
                raise Conflict("there is a key of that authority already / 密钥文件已存在")
            certificate = tls.new_authority(self._chain, number, key, now, years)
            self._write(f"ca-{number}.crt", tls.pem(certificate))
            if not (self._directory / "gm-ca.crt").exists():
                self._write("gm-ca.crt", self._new_gm_root(int(now), years).pem().encode())
        self.revocation_list(lambda _: _ACTIVE, force=True)
        return number

    def issue(self, asked: CertificateRequest, member: Member | None, *, days: int = NODE_DAYS,
              more_hosts: tuple[str, ...] = ()) -> Certificates:  # fmt: skip
        """Return a member's certificates.

        ``member`` is the ledger's record of the institution that the request names. Raises ``CertificateInvalid`` when
        the request is not that member's own or names a host that is not the member's.
        """
        now = int(self._clock())
        asked.check(member, now)
        assert member is not None
        request = tls.read_request(asked.csr.encode("ascii"))
        org, hosts = tls.names_of(request)
        allowed = {str(urlsplit(member["endpoint"]).hostname), *more_hosts}
        if org != asked.org or not hosts or not set(hosts) <= allowed:
            raise CertificateInvalid("wrong-name", f"the request names other hosts than {', '.join(sorted(allowed))}")
        with self._locked():
            authority, key = self._newest()
            certificate = tls.issue(
                request, org=org, name=member["name"], hosts=hosts, authority=authority, key=key, now=now, days=days
            )
            self._note("tls", org, certificate.serial_number, certificate, tls.pem(certificate).decode())
            issued = [self._issue_gm(member, each, now, days) for each in _live_keys(member, now)]
            issuing = self._issuing(member, now, days)
        return Certificates(
            org=org,
            tls=tls.pem(certificate).decode(),
            authorities=self.bundle().decode(),
            revoked=(self._directory / CRL).read_text("ascii"),
            gm_authority=self._gm_root().pem(),
            gm=tuple(each.pem() for each in (*issued, issuing)),
        )

    def bundle(self) -> bytes:
        """Return the certificates of all TLS authorities in force, PEM, the newest last."""
        return b"".join(file.read_bytes() for file in self._authority_files())

    def issued(self) -> list[dict[str, Any]]:
        """Return what was issued, oldest first: kind, org, serial (hex), from, until (Unix seconds), pem, revoked."""
        revoked = self._revoked()
        file = self._directory / REGISTER
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        entries = [json.loads(line) for line in lines]
        return [{**entry, "revoked": revoked.get(entry["serial"])} for entry in entries]

    def revoke(self, serial: str) -> None:
        """Put one certificate on the list for good; raises ``NotFound`` for one that was not issued here."""
        with self._locked():
            if serial not in {entry["serial"] for entry in self.issued()}:
                raise NotFound("no certificate of that serial number was issued here / 没有该序列号的证书")
            revoked = self._revoked()
            revoked.setdefault(serial, int(self._clock()))
            self._write(REVOKED, json.dumps(revoked, sort_keys=True).encode())

    def revocation_list(self, member: Callable[[str], Member | None], *, force: bool = False) -> bytes:
        """Return the list, signed anew when who is active has changed since, or it is a day old."""
        with self._locked():
            now = int(self._clock())
            since: dict[str, int] = self._state().get("since", {})
            standing: dict[str, bool] = {}
            serials: dict[str, int] = {}
            for entry in self.issued():
                if entry["kind"] != "tls" or entry["until"] < now:
                    continue
                org = entry["org"]
                if org not in standing:
                    standing[org] = (member(org) or {}).get("status") == "active"
                if entry["revoked"] or not standing[org]:
                    when = entry["revoked"] or since.setdefault(entry["serial"], now)
                    serials[entry["serial"]] = when
                else:
                    since.pop(entry["serial"], None)
            return self._signed_list(serials, since, now, force=force)

    def _signed_list(self, serials: dict[str, int], since: dict[str, int], now: int, *, force: bool) -> bytes:
        state = self._state()
        fresh = now < state.get("signed", 0) + CRL_REFRESH_SECONDS
        if fresh and state.get("listed") == serials and not force:
            return (self._directory / CRL).read_bytes()
        number = state.get("number", 0) + 1
        by = {entry["serial"]: entry["authority"] for entry in self.issued()}
        content = b""
        for index, file in enumerate(self._authority_files(), start=1):
            (authority,) = tls.read_bundle(file.read_bytes())
            mine = [(int(serial, 16), when) for serial, when in serials.items() if by[serial] == index]
            content += tls.revocation_list(authority, self._tls_key(index), mine, number, now)
        self._write(CRL, content)
        state = {"number": number, "signed": now, "listed": serials, "since": since}
        self._write(CRL_STATE, json.dumps(state, sort_keys=True).encode())
        return content

    # --- SM2

    def _new_gm_root(self, now: int, years: int) -> gm.GmCertificate:
        key = self._gm_key()
        name = gm_ca_name(self._chain)
        return gm.issue(
            subject=name, public=key.public_key, profile=gm.ROOT, issuer=name, issuer_key=key,
            serial=int(key.public_key.key_id, 16), not_before=now - tls.BACKDATED_SECONDS,
            not_after=now + years * 366 * SECONDS_PER_DAY,
        )  # fmt: skip

    def _issue_gm(self, member: Member, key: Mapping[str, Any], now: int, days: int) -> gm.GmCertificate:
        """Certify one ledger key; its serial number is its id, so it is issued again with the same one."""
        profile = gm.SIGNING if key["use"] == "sign" else gm.ENCRYPTION
        certificate = self._gm(member, key, profile, int(key["id"], 16), now, days)
        self._note(f"gm-{key['use']}", member["org"], certificate.serial, certificate, certificate.pem())
        return certificate

    def _issuing(self, member: Member, now: int, days: int) -> gm.GmCertificate:
        """Certify the institution as the issuer of its practitioners' certificates."""
        signing = [each for each in _live_keys(member, now) if each["use"] == "sign"]
        key = max(reversed(signing), key=lambda each: each["from"])  # of two of the same second, the one added last
        serial = int.from_bytes(secrets.token_bytes(tls.SERIAL_BYTES), "big") >> 1
        certificate = self._gm(member, key, gm.ISSUING, serial, now, days)
        self._note("gm-issuing", member["org"], certificate.serial, certificate, certificate.pem())
        return certificate

    def _gm(
        self, member: Member, key: Mapping[str, Any], profile: gm.Profile, serial: int, now: int, days: int
    ) -> gm.GmCertificate:
        """Issue over one ledger key, for no longer than the ledger has the key as good."""
        last, until = min(now + days * SECONDS_PER_DAY, self._gm_root().not_after), key["until"]
        return gm.issue(
            subject=gm.member_subject(member["name"], member["org"]),
            public=PublicKey.from_bytes(bytes.fromhex(key["public"])), profile=profile, issuer=gm_ca_name(self._chain),
            issuer_key=self._gm_key(), serial=serial,
            not_before=max(now - tls.BACKDATED_SECONDS, key["from"]),
            not_after=last if until is None else min(last, until), uris=(gm.ORG_URI + member["org"],),
        )  # fmt: skip

    def _gm_root(self) -> gm.GmCertificate:
        return gm.parse((self._directory / "gm-ca.crt").read_bytes())

    def _gm_key(self) -> PrivateKey:
        try:
            return PrivateKey.from_bytes(in_turn(self._keys, "gm-ca.key", lambda: PrivateKey.generate().to_bytes()))
        except KeyFormatError as error:
            raise SettingsError("gm-ca.key is not a key / 密钥文件损坏") from error

    # --- files

    def _newest(self) -> tuple[x509.Certificate, tls.PrivateKey]:
        files = self._authority_files()
        if not files:
            raise SettingsError("this node is no certificate authority; run: yiqiao pki init / 本节点未建立证书机构")
        return tls.read_bundle(files[-1].read_bytes())[0], self._tls_key(len(files))

    def _tls_key(self, number: int) -> tls.PrivateKey:
        try:
            key = serialization.load_der_private_key(self._keys.read(f"tls-ca-{number}.key"), None)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"tls-ca-{number}.key is not a key / 密钥文件损坏") from error
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def _authority_files(self) -> list[Path]:
        files = [self._directory / f"ca-{number}.crt" for number in range(1, 100)]
        return [file for file in files if file.is_file()]

    def _note(self, kind: str, org: str, serial: int, certificate: Any, pem: str) -> None:
        """Add a line to the register of what was issued; durable before the certificate leaves."""
        if isinstance(certificate, gm.GmCertificate):
            since, until = certificate.not_before, certificate.not_after
        else:
            since = int(certificate.not_valid_before_utc.timestamp())
            until = int(certificate.not_valid_after_utc.timestamp())
        entry = {"kind": kind, "org": org, "serial": f"{serial:x}", "from": since, "until": until, "pem": pem,
                 "authority": len(self._authority_files())}  # fmt: skip
        descriptor = os.open(self._directory / REGISTER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, sort_keys=True) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _revoked(self) -> dict[str, int]:
        return self._json(REVOKED)

    def _state(self) -> dict[str, Any]:
        return self._json(CRL_STATE)

    def _json(self, name: str) -> dict[str, Any]:
        file = self._directory / name
        found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        return found

    def _write(self, name: str, content: bytes) -> None:
        temporary = self._directory / f".{name}.{secrets.token_hex(4)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._directory / name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time change what is issued and listed."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _live_keys(member: Member, now: int) -> list[Mapping[str, Any]]:
    return [key for key in member["keys"] if key["from"] <= now and (key["until"] is None or now < key["until"])]


def _dump_key(key: tls.PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
