"""The key files of one node, read and written in one place.

Every file is written durably with mode 0600, in one step. With a provider (``protection.json`` is there) the files hold
SM4-GCM under the protection key, with the file's base name as associated data; without one, the keys themselves.

A key that is being replaced has two companions: ``<name>.new`` (waiting) and ``<name>.<key id>`` (retired, kept because
old records, releases and backups still need it).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from anchor.errors import DecryptionError
from anchor.gm import sm4_gcm_decrypt, sm4_gcm_encrypt
from bridge.errors import Conflict, SettingsError
from bridge.keys.provider import NONCE_BYTES, PROTECTION_KEY_BYTES, KeyAccess, KeyProvider, provider_for

PROTECTION_FILE = "protection.json"
PLAIN = "file"
MAGIC = b"YQK1"  # a sealed key file; no key of ours has its length, so neither form passes for the other
TAG_BYTES = 16
MAX_FILE_BYTES = 64 * 1024  # the largest secret kept here is a PEM key
NEW = ".new"


class KeyStore:
    """Reads and writes the key files below one directory."""

    def __init__(self, directory: Path, access: KeyAccess | None = None) -> None:
        """Opens nothing yet: the provider is asked at the first read of a protected key."""
        self.directory = directory
        self.access = access or KeyAccess()
        self._protection: bytes | None = None

    @property
    def provider(self) -> str:
        """What protects the files: "file", "passphrase" or "pkcs11"."""
        sealed = self._sealed_protection()
        return PLAIN if sealed is None else str(sealed.get("provider"))

    def exists(self, name: str) -> bool:
        """Whether there is a key file of that name."""
        return (self.directory / name).is_file()

    def names(self, pattern: str = "*.key*") -> list[str]:
        """Return the names of the key files that match a glob pattern, sorted."""
        return sorted(file.name for file in self.directory.glob(pattern) if not file.name.startswith("."))

    def read(self, name: str) -> bytes:
        """Return a key; raises ``SettingsError`` naming the file, never its content."""
        file = self.directory / name
        try:
            with file.open("rb") as stream:
                if os.name == "posix" and stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                    raise SettingsError(f"{file} can be read by other users; run: chmod 600 {file} / 密钥文件权限过宽")
                content = stream.read(MAX_FILE_BYTES)
        except OSError as error:
            raise SettingsError(f"keys.directory: {name} cannot be read ({error.strerror}) / 无法读取密钥") from error
        key = self._protection_key()
        if (key is not None) != _is_sealed(content):
            raise SettingsError(f"keys.directory: {name} is not protected as the other keys are / 密钥保护方式不一致")
        return content if key is None else _opened(key, name, content)

    def write(self, name: str, secret: bytes) -> bool:
        """Write a new key file; False, and nothing is changed, when another process was first."""
        return self._put(name, self._form(name, secret), exclusive=True)

    def replace(self, name: str, secret: bytes) -> None:
        """Write a key file over one of the same name."""
        self._put(name, self._form(name, secret), exclusive=False)

    def promote(self, name: str, retired_id: str) -> None:
        """Put ``<name>.new`` in the place of ``name``, whose old content stays as ``<name>.<retired_id>``."""
        waiting, current = self.directory / (name + NEW), self.directory / name
        try:
            with suppress(FileExistsError):  # an interrupted run got this far
                (self.directory / f"{name}.{retired_id}").hardlink_to(current)
            waiting.replace(current)
            _sync(self.directory)
        except OSError as error:
            raise SettingsError(f"{self.directory} cannot be written ({error.strerror}) / 无法写入密钥目录") from error

    def retire(self, name: str, mark: str) -> None:
        """Take a key out of use: its file stays as ``<name>.<mark>``."""
        try:
            (self.directory / name).rename(self.directory / f"{name}.{mark}")
            _sync(self.directory)
        except OSError as error:
            raise SettingsError(f"{self.directory} cannot be written ({error.strerror}) / 无法写入密钥目录") from error

    def retired(self, name: str) -> list[str]:
        """Return the file names of the retired keys of a name."""
        return [each for each in self.names(f"{name}.*") if each != name + NEW]

    def forget(self, name: str) -> None:
        """Delete a retired key file for good; a current one is refused (``Conflict``)."""
        base = _base(name)
        if name == base or not self.exists(name):
            raise Conflict(f"{name} is not a retired key / 该文件不是已退役的密钥")
        (self.directory / name).unlink()
        _sync(self.directory)

    def protect(self, provider: KeyProvider | None) -> int:
        """Put all key files under a provider (None: plain files); return how many files were rewritten.

        A fresh protection key is made when there was none. An interruption is survived: the new form of every file is
        written beside the old one first, and the places are changed only when all of it is durable; a run that was cut
        short while changing them is finished by the next call of anything here (``finish``).
        """
        self.finish()
        names = self.names()
        secrets_ = {name: self.read(name) for name in names}
        had = self._protection_key()
        key = None if provider is None else (had or secrets.token_bytes(PROTECTION_KEY_BYTES))
        if key is not None and key == had:  # only the outermost layer changes
            assert provider is not None
            self._put(PROTECTION_FILE, _dump(provider.seal(key)), exclusive=False)
            return 1
        stage = self.directory / ".protect"
        shutil.rmtree(stage, ignore_errors=True)  # of a run that was interrupted before anything counted
        stage.mkdir(mode=0o700)
        for name, secret in secrets_.items():
            content = secret if key is None else _sealed(key, name, secret)
            _write(stage / name, content)
        if provider is not None and key is not None:
            _write(stage / PROTECTION_FILE, _dump(provider.seal(key)))
        _sync(stage)
        if provider is None:
            _write(stage / PLAIN, b"")
        stage.rename(self.directory / ".protect-ready")
        _sync(self.directory)
        self.finish()
        return len(names)

    def finish(self) -> None:
        """Finish a change of protection that was interrupted after its new files were durable."""
        ready = self.directory / ".protect-ready"
        if not ready.is_dir():
            return
        plain = (ready / PLAIN).exists()
        with suppress(FileNotFoundError):  # another process finishes it at the same time
            for file in sorted(ready.iterdir()):
                if file.name not in (PLAIN, PROTECTION_FILE):
                    file.replace(self.directory / file.name)
            if plain:
                (self.directory / PROTECTION_FILE).unlink(missing_ok=True)
                (ready / PLAIN).unlink()
            elif (ready / PROTECTION_FILE).exists():
                (ready / PROTECTION_FILE).replace(self.directory / PROTECTION_FILE)
            ready.rmdir()
        _sync(self.directory)
        self._protection = None

    def _form(self, name: str, secret: bytes) -> bytes:
        key = self._protection_key()
        return secret if key is None else _sealed(key, name, secret)

    def _put(self, name: str, content: bytes, *, exclusive: bool) -> bool:
        file = self.directory / name
        temporary = self.directory / f".{name}.{secrets.token_hex(4)}"
        try:
            _write(temporary, content)
            if exclusive:
                try:
                    os.link(temporary, file)
                except FileExistsError:
                    return False
                finally:
                    temporary.unlink()
            else:
                temporary.replace(file)
            _sync(self.directory)
        except OSError as error:
            raise SettingsError(f"{file} cannot be written ({error.strerror}) / 无法写入密钥文件") from error
        return True

    def _protection_key(self) -> bytes | None:
        sealed = self._sealed_protection()
        if sealed is None:
            return None
        if self._protection is None:
            provider = provider_for(str(sealed.get("provider")), self.access)
            self._protection = provider.open(sealed)
            if len(self._protection) != PROTECTION_KEY_BYTES:
                raise SettingsError("keys/protection.json is not of its form / 密钥保护文件格式错误")
        return self._protection

    def _sealed_protection(self) -> dict[str, Any] | None:
        file = self.directory / PROTECTION_FILE
        try:
            content = file.read_bytes()[:MAX_FILE_BYTES]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError(f"{file} cannot be read ({error.strerror}) / 无法读取密钥保护文件") from error
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict) or value.get("v") != 1:
            raise SettingsError(f"{file} is not of its form / 密钥保护文件格式错误")
        return value


def in_turn(store: KeyStore, name: str, make: Callable[[], bytes]) -> bytes:
    """Return the key of ``name``, making it first when there is none; two processes at once get the same."""
    if not store.exists(name):
        store.write(name, make())
    return store.read(name)


def retired_keys(store: KeyStore, name: str) -> Iterator[bytes]:
    """Give the retired keys of a name."""
    for each in store.retired(name):
        yield store.read(each)


def _is_sealed(content: bytes) -> bool:
    return content.startswith(MAGIC) and len(content) > len(MAGIC) + NONCE_BYTES + TAG_BYTES


def _base(name: str) -> str:
    """Return the name without the marks of a waiting or retired key: what a sealed file is bound to."""
    head, separator, _ = name.partition(".key")
    return head + separator if separator else name


def _sealed(key: bytes, name: str, secret: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return MAGIC + nonce + sm4_gcm_encrypt(key, nonce, secret, _aad(name))


def _opened(key: bytes, name: str, content: bytes) -> bytes:
    start = len(MAGIC)
    try:
        return sm4_gcm_decrypt(key, content[start : start + NONCE_BYTES], content[start + NONCE_BYTES :], _aad(name))
    except (DecryptionError, ValueError):
        raise SettingsError(
            f"keys.directory: {name} does not open: altered, or another node's / 密钥无法打开"
        ) from None


def _aad(name: str) -> bytes:
    return f"yiqiao/key/v1|{_base(name)}".encode()


def _dump(sealed: dict[str, Any]) -> bytes:
    return json.dumps({"v": 1, **sealed}, sort_keys=True).encode() + b"\n"


def _write(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
