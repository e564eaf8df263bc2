"""How a node gets its certificates: a request signed by its ledger key, and the answer, each one JSON file.

The ledger key says which member asks; so the request may travel by any way, and so may the answer, which holds nothing
secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anchor import canonical
from anchor.errors import AnchorError
from anchor.gm import PrivateKey
from bridge.errors import CertificateInvalid
from bridge.peer_signature import live_key

MAX_FILE_BYTES = 256 * 1024
MAX_AGE_SECONDS = 30 * 86_400  # by file and by hand: a month
CLOCK_SKEW_SECONDS = 300


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A PKCS#10 request (PEM) with the member's SM2 signature over it. ``time`` is Unix seconds."""

    org: str
    csr: str
    time: int
    key: str
    sig: str

    @classmethod
    def make(cls, *, org: str, csr: bytes, key: PrivateKey, now: int) -> CertificateRequest:
        """Sign a request as a member."""
        text = csr.decode("ascii")
        return cls(org, text, now, key.public_key.key_id, key.sign(_statement(org, text, now)).hex())

    def check(self, member: Mapping[str, Any] | None, now: int) -> None:
        """Raise ``CertificateInvalid`` unless an active member's live key signed this, not long ago."""
        if member is None or member.get("status") != "active":
            raise CertificateInvalid("not-a-member", "the request is not of an active member / 非在册成员")
        if not now - MAX_AGE_SECONDS <= self.time <= now + CLOCK_SKEW_SECONDS:
            raise CertificateInvalid("stale", "the request is older than a month; make a new one / 请求已过期")
        public = live_key(member, "sign", now, self.key)
        try:
            if public is None or member.get("org") != self.org:
                raise CertificateInvalid("unknown-key", "the request is not signed by a live key of the member")
            public.verify(_statement(self.org, self.csr, self.time), bytes.fromhex(self.sig))
        except (AnchorError, ValueError) as error:
            raise CertificateInvalid("bad-signature", "the request's signature does not hold / 签名无效") from error

    def write(self, file: Path) -> None:
        """Write the request to a file."""
        file.write_text(json.dumps({"v": 1, **asdict(self)}, indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, file: Path) -> CertificateRequest:
        """Read a request; raises ``CertificateInvalid``."""
        value = _read(file, {"org": str, "csr": str, "time": int, "key": str, "sig": str})
        if not value["csr"].isascii():
            raise CertificateInvalid("malformed", f"{file} is no certificate request / 文件不是证书请求")
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the authority answers: PEM texts. ``gm``: the member's SM2 certificates, the issuing one last."""

    org: str
    tls: str
    authorities: str
    revoked: str
    gm_authority: str
    gm: tuple[str, ...]

    def write(self, file: Path) -> None:
        """Write the certificates to a file."""
        file.write_text(json.dumps({"v": 1, **asdict(self)}, indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, file: Path) -> Certificates:
        """Read certificates; raises ``CertificateInvalid``."""
        names = {"org": str, "tls": str, "authorities": str, "revoked": str, "gm_authority": str, "gm": list}
        value = _read(file, names)
        if not all(isinstance(each, str) for each in value["gm"]):
            raise CertificateInvalid("malformed", f"{file} holds no certificates / 文件不是证书文件")
        return cls(**{**value, "gm": tuple(value["gm"])})


def _statement(org: str, csr: str, time: int) -> bytes:
    return canonical.dump({"purpose": "yiqiao/certificate-request/v1", "org": org, "csr": csr, "time": time})


def _read(file: Path, fields: Mapping[str, type]) -> dict[str, Any]:
    try:
        content = file.read_bytes()
        value = json.loads(content) if len(content) <= MAX_FILE_BYTES else None
    except (OSError, ValueError) as error:
        raise CertificateInvalid("malformed", f"{file} cannot be read / 无法读取文件") from error
    if not isinstance(value, dict) or value.pop("v", None) != 1 or set(value) != set(fields):
        raise CertificateInvalid("malformed", f"{file} is not of its form / 文件格式错误")
    if any(type(value[name]) is not kind for name, kind in fields.items()):
        raise CertificateInvalid("malformed", f"{file} is not of its form / 文件格式错误")
    return value
