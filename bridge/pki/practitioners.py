"""Practitioners' signing keys: certified by their institution, kept in a file under a passphrase, or on a card of
their own.

The institution issues with its ledger signing key, under the certificate that the consortium gave it for this. What
was issued and revoked is kept in ``HOME/pki/practitioners.jsonl``.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asn1crypto import x509

from anchor.errors import KeyFormatError
from anchor.gm import PrivateKey, PublicKey
from bridge.errors import CertificateInvalid, InvalidRequest, NotFound, SettingsError
from bridge.keys.provider import PassphraseProvider
from bridge.pki import gm_certificates as gm
from bridge.pki.tls_identity import GM_ISSUING

REGISTER = "practitioners.jsonl"
SECONDS_PER_DAY = 86_400
DEFAULT_DAYS = 365
SERIAL_BYTES = 16
BACKDATED_SECONDS = 300
MAX_FILE_BYTES = 64 * 1024
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class PractitionerKey:
    """A practitioner's signing key with the certificates that go along: their own, and the
    institution's issuing one.
    """

    id: str
    name: str
    key: PrivateKey
    certificate: gm.GmCertificate
    issuing: gm.GmCertificate


class PractitionerRegister:
    """Issues practitioners' certificates for one institution, and knows which were revoked."""

    def __init__(self, directory: Path, org: str, key: PrivateKey, clock: Callable[[], float] = time.time) -> None:
        self._directory, self._org, self._key, self._clock = directory, org, key, clock

    def issue(self, id: str, name: str, role: str, public: PublicKey, days: int = DEFAULT_DAYS) -> gm.GmCertificate:
        """Return a certificate over a practitioner's public key; raises ``InvalidRequest``, ``SettingsError``."""
        if not _ID.fullmatch(id) or not name.strip() or not role.strip():
            raise InvalidRequest(
                "a practitioner has an identifier of letters and digits, a name and a role / 人员信息有误"
            )
        issuing, now = self.issuing(), int(self._clock())
        certificate = gm.issue(
            subject=x509.Name.build(
                {"organization_name": self._org, "organizational_unit_name": role[:64], "common_name": name[:64]}
            ),
            public=public,
            profile=gm.SIGNING,
            issuer=issuing.subject,
            issuer_key=self._key,
            serial=int.from_bytes(secrets.token_bytes(SERIAL_BYTES), "big") >> 1,
            not_before=max(now - BACKDATED_SECONDS, issuing.not_before),
            not_after=min(now + days * SECONDS_PER_DAY, issuing.not_after),
            uris=(gm.PRACTITIONER_URI + id, gm.ORG_URI + self._org),
        )
        self._append({"id": id, "name": name, "role": role, "serial": f"{certificate.serial:x}",
                      "from": certificate.not_before, "until": certificate.not_after})  # fmt: skip
        return certificate

    def issuing(self) -> gm.GmCertificate:
        """Return the institution's issuing certificate; raises ``SettingsError`` without one over the current key."""
        file = self._directory / GM_ISSUING
        if not file.is_file():
            raise SettingsError("this node has no issuing certificate; run: yiqiao pki request / 缺少签发证书")
        certificate = gm.parse(file.read_bytes())
        if certificate.public != self._key.public_key:
            raise SettingsError(
                "the issuing certificate is over an older key; run: yiqiao pki request / 签发证书已过期"
            )
        return certificate

    def issued(self) -> list[dict[str, Any]]:
        """Return what was issued, oldest first, each with ``revoked`` (Unix seconds or None)."""
        file = self._directory / REGISTER
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
        revoked = {line["revoked"]: line["time"] for line in lines if "revoked" in line}
        return [{**line, "revoked": revoked.get(line["serial"])} for line in lines if "serial" in line]

    def revoke(self, serial: str) -> None:
        """Revoke a certificate: nothing is signed with it here any more; raises ``NotFound``."""
        if serial not in {each["serial"] for each in self.issued()}:
            raise NotFound("no certificate of that serial number was issued here / 没有该序列号的证书")
        self._append({"revoked": serial, "time": int(self._clock())})

    def check(self, key: PractitionerKey) -> None:
        """Raise ``CertificateInvalid`` for a key that this institution did not certify, or does not any more."""
        found = next((each for each in self.issued() if each["serial"] == f"{key.certificate.serial:x}"), None)
        if found is None or found["revoked"] is not None:
            raise CertificateInvalid(
                "revoked", "the practitioner's certificate is not in force here / 证书已吊销或未登记"
            )
        if not key.certificate.not_before <= self._clock() <= key.certificate.not_after:
            raise CertificateInvalid("not-in-force", "the practitioner's certificate has ended / 证书已过期")

    def _append(self, entry: dict[str, Any]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._directory / REGISTER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, sort_keys=True, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def write_key_file(file: Path, key: PractitionerKey, passphrase: str) -> None:
    """Write a practitioner's key, sealed under a passphrase, with the certificates; mode 0600."""
    value = {
        "v": 1,
        "id": key.id,
        "name": key.name,
        "certificate": key.certificate.pem(),
        "issuing": key.issuing.pem(),
        "key": PassphraseProvider(passphrase).seal(key.key.to_bytes()),
    }
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1, ensure_ascii=False)


def read_key_file(file: Path, passphrase: str) -> PractitionerKey:
    """Read a practitioner's key; raises ``CertificateInvalid`` for another file, ``SettingsError``
    for the passphrase.
    """
    try:
        content = file.read_bytes()
        value = json.loads(content) if len(content) <= MAX_FILE_BYTES else {}
        certificate, issuing = (gm.parse(value[name].encode()) for name in ("certificate", "issuing"))
        secret = PassphraseProvider(passphrase).open(value["key"])
        key = PrivateKey.from_bytes(secret)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, KeyFormatError) as error:
        raise CertificateInvalid("malformed", f"{file} is no practitioner's key / 文件不是人员密钥") from error
    if certificate.public != key.public_key or certificate.practitioner != value.get("id"):
        raise CertificateInvalid("wrong-key", f"{file}: key and certificate do not belong together / 密钥与证书不匹配")
    return PractitionerKey(value["id"], str(value.get("name", "")), key, certificate, issuing)
