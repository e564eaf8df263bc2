"""Key providers: what protects the protection key. A port with three sides: plain files, a passphrase, PKCS#11.

A provider seals one 16-byte protection key; the key store (``bridge.keys.store``) seals everything else under that. So
changing the passphrase, or moving into a hardware module, rewrites one small file, and a slow key derivation or a
hardware session happens once per process.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from anchor.errors import DecryptionError
from anchor.gm import sm4_gcm_decrypt, sm4_gcm_encrypt
from bridge.errors import SettingsError

PROTECTION_KEY_BYTES = 16
NONCE_BYTES = 12
SALT_BYTES = 16
MIN_PASSPHRASE_CHARACTERS = 12
MAX_PASSPHRASE_BYTES = 4096
SCRYPT = {"n": 2**16, "r": 8, "p": 1}  # 64 MiB and about 0.2 s a try
PBKDF2_ITERATIONS = 600_000  # about 0.3 s a try; the number of OWASP's cheat sheet of 2023 for a 256-bit hash
MAX_SCRYPT_N, MAX_PBKDF2_ITERATIONS = 2**20, 20_000_000  # a file that asks for more is not ours
AAD = b"yiqiao/protection/v1"

Kdf = Literal["scrypt", "pbkdf2-sm3"]
Sealed = dict[str, Any]


class KeyProvider(Protocol):
    """Seals and opens the protection key of one node."""

    name: str

    def seal(self, secret: bytes) -> Sealed:
        """Return what ``open`` needs to give ``secret`` back, as JSON values without any secret in clear."""

    def open(self, sealed: Mapping[str, Any]) -> bytes:
        """Return the secret; raises ``SettingsError`` (wrong passphrase, no such hardware key, altered file)."""


@dataclass(frozen=True, slots=True)
class KeyAccess:
    """How this process may reach the protection key; from ``[keys]`` of the settings. Empty texts: not given."""

    passphrase_file: Path | None = None
    pkcs11_module: str = ""
    pkcs11_token: str = ""
    pkcs11_label: str = ""
    pin_file: Path | None = None


class PassphraseProvider:
    """A key derived from a passphrase: memory-hard scrypt, or PBKDF2 with SM3 where only national algorithms may be."""

    name = "passphrase"

    def __init__(self, passphrase: str, kdf: Kdf = "scrypt") -> None:
        if len(passphrase) < MIN_PASSPHRASE_CHARACTERS:
            raise SettingsError(f"a passphrase has at least {MIN_PASSPHRASE_CHARACTERS} characters / 口令过短")
        self._passphrase, self._kdf = passphrase.encode(), kdf

    def seal(self, secret: bytes) -> Sealed:
        """Seal under a key derived with a fresh salt."""
        parameters: dict[str, Any] = {"name": self._kdf, "salt": secrets.token_hex(SALT_BYTES)}
        parameters |= SCRYPT if self._kdf == "scrypt" else {"iterations": PBKDF2_ITERATIONS}
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = sm4_gcm_encrypt(self._derived(parameters), nonce, secret, AAD)
        return {"provider": self.name, "kdf": parameters, "nonce": nonce.hex(), "sealed": sealed.hex()}

    def open(self, sealed: Mapping[str, Any]) -> bytes:
        """Open; a wrong passphrase and an altered file look alike."""
        try:
            key = self._derived(sealed["kdf"])
            return sm4_gcm_decrypt(key, bytes.fromhex(sealed["nonce"]), bytes.fromhex(sealed["sealed"]), AAD)
        except DecryptionError:
            raise SettingsError("the passphrase does not open this node's keys / 口令错误，无法打开密钥") from None
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError("keys/protection.json is not of its form / 密钥保护文件格式错误") from error

    def _derived(self, parameters: Mapping[str, Any]) -> bytes:
        salt = bytes.fromhex(parameters["salt"])
        if parameters["name"] == "scrypt":
            n, r, p = (int(parameters[name]) for name in ("n", "r", "p"))
            if not (1 < n <= MAX_SCRYPT_N and 0 < r <= 32 and 0 < p <= 16):
                raise ValueError("scrypt parameters out of bounds")
            return Scrypt(salt=salt, length=PROTECTION_KEY_BYTES, n=n, r=r, p=p).derive(self._passphrase)
        iterations = int(parameters["iterations"])
        if parameters["name"] != "pbkdf2-sm3" or not 0 < iterations <= MAX_PBKDF2_ITERATIONS:
            raise ValueError("no such key derivation")
        derivation = PBKDF2HMAC(hashes.SM3(), PROTECTION_KEY_BYTES, salt, iterations)
        return derivation.derive(self._passphrase)


def read_secret_file(file: Path | None, setting: str) -> str:
    """Return the first line of a file that holds a passphrase or PIN; raises ``SettingsError`` naming the setting."""
    if file is None:
        raise SettingsError(f"{setting} is needed to open this node's keys / 缺少配置 {setting}")
    try:
        with file.open("rb") as stream:
            open_to_others = os.name == "posix" and os.fstat(stream.fileno()).st_mode & 0o077
            content = stream.read(MAX_PASSPHRASE_BYTES)
        text = content.decode("utf-8").splitlines()[0] if content else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{setting}: {file} cannot be read / 无法读取文件") from error
    if open_to_others:
        raise SettingsError(f"{setting}: {file} can be read by other users; run: chmod 600 {file} / 文件权限过宽")
    if not text:
        raise SettingsError(f"{setting}: {file} is empty / 文件为空")
    return text


def provider_for(name: str, access: KeyAccess, kdf: Kdf = "scrypt") -> KeyProvider:
    """Return the provider of that name ("passphrase", "pkcs11"); raises ``SettingsError`` for one it cannot make."""
    if name == "passphrase":
        return PassphraseProvider(read_secret_file(access.passphrase_file, "keys.passphrase_file"), kdf)
    if name == "pkcs11":
        from bridge.keys.pkcs11_provider import Pkcs11Provider

        if not (access.pkcs11_module and access.pkcs11_token and access.pkcs11_label):
            raise SettingsError(
                "keys.pkcs11_module, keys.pkcs11_token and keys.pkcs11_label are needed to open this node's keys / "
                "缺少 PKCS#11 配置"
            )
        pin = read_secret_file(access.pin_file, "keys.pin_file")
        return Pkcs11Provider(access.pkcs11_module, access.pkcs11_token, access.pkcs11_label, pin)
    raise SettingsError(f"there is no key provider {name}: file, passphrase or pkcs11 / 未知的密钥保护方式")
