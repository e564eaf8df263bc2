"""Client tokens: the file that holds their digests, and the roles they carry.

A token is 256 random bits; the file keeps only SM3 of it, so reading the file gives nobody access. Each token has
one role; the role's permissions are fixed here. The file is re-read when it changes, so creating and revoking take
effect on a running node at once.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from anchor.gm import sm3
from bridge.errors import SettingsError

TOKEN_BYTES = 32
TOKEN_ID_BYTES = 6
MAX_TOKENS_FILE_BYTES = 4 * 1024 * 1024  # about 15,000 tokens: a bigger file is a mistake

#: role -> permissions. "sender" is an interface engine, "reader" an application that reads FHIR, "clinical" one in
#: which clinicians also ask other institutions, "monitor" a metrics collector, "registrar" whoever records consents,
#: "messenger" the system that tells patients their codes, "privacy-officer" whoever reviews emergencies and releases,
#: "portal" an application in which patients see their own, "operator" a person who runs the node.
ROLE_PERMISSIONS: dict[str, frozenset[str]] = {
    "reader": frozenset({"fhir.read", "fhir.search"}),
    "clinical": frozenset({"fhir.read", "fhir.search", "exchange.lookup"}),
    "sender": frozenset({"messages.submit"}),
    "fhir-sender": frozenset({"fhir.write"}),
    "monitor": frozenset({"operations.read"}),
    "registrar": frozenset({"fhir.read", "fhir.search", "consent.write", "consent.desk"}),
    "messenger": frozenset({"consent.deliver"}),
    "privacy-officer": frozenset({"fhir.read", "fhir.search", "review.write", "patient.view", "audit.read"}),
    "portal": frozenset({"patient.view", "consent.write"}),
    "operator": frozenset(
        {
            *("fhir.read", "fhir.search", "messages.submit", "messages.inspect", "operations.read", "ledger.read"),
            *("consent.write", "consent.desk", "review.write", "patient.view", "audit.read"),
        }
    ),
}


@dataclass(frozen=True, slots=True)
class Token:
    """One client token as the file keeps it. ``sm3``: hex digest of the token's text; times are Unix seconds."""

    id: str
    name: str
    role: str
    sm3: str
    created: int
    expires: int | None = None


def read_tokens(file: Path) -> tuple[Token, ...]:
    """Return the tokens of ``file``.

    Raises ``SettingsError`` when it is missing, readable by others, or not a token file.
    """
    try:
        with file.open("rb") as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                raise SettingsError(f"{file} can be read by other users; run: chmod 600 {file} / 权限过宽")
            content = stream.read(MAX_TOKENS_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"the token file {file} cannot be read ({error.strerror}); create it with: yiqiao token create / "
            "无法读取令牌文件"
        ) from error
    try:
        if len(content) > MAX_TOKENS_FILE_BYTES:
            raise ValueError("too large")
        document = json.loads(content)
        tokens = tuple(Token(**entry) for entry in document["tokens"])
        if document["v"] != 1 or any(token.role not in ROLE_PERMISSIONS for token in tokens):
            raise ValueError("unknown version or role")
    except (ValueError, TypeError, KeyError) as error:
        raise SettingsError(f"{file} is not a token file / 令牌文件格式错误") from error
    return tokens


def write_tokens(file: Path, tokens: tuple[Token, ...]) -> None:
    """Replace the token file in one step, mode 0600."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump({"v": 1, "tokens": [asdict(token) for token in tokens]}, stream, indent=1, ensure_ascii=False)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def create_token(file: Path, *, name: str, role: str, now: int, seconds: int | None = None) -> tuple[Token, str]:
    """Add a token to ``file`` and return it with its text, which is kept nowhere else."""
    text = secrets.token_urlsafe(TOKEN_BYTES)
    token = Token(
        id=secrets.token_hex(TOKEN_ID_BYTES),
        name=name,
        role=role,
        sm3=sm3(text.encode()).hex(),
        created=now,
        expires=now + seconds if seconds else None,
    )
    write_tokens(file, (*read_tokens(file), token))
    return token, text


def revoke_token(file: Path, token_id: str) -> None:
    """Remove a token. Raises ``SettingsError`` when there is none of that id."""
    tokens = read_tokens(file)
    left = tuple(token for token in tokens if token.id != token_id)
    if len(left) == len(tokens):
        raise SettingsError(f"there is no token {token_id}; see: yiqiao token list / 没有该令牌")
    write_tokens(file, left)


class TokenBook:
    """The tokens of a running node, re-read when the file changes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()

    def find(self, text: str, now: int) -> Token | None:
        """Return the live token with this text, or None.

        Every stored digest is compared in constant time, so the time taken says nothing about which one was near.
        """
        self._refresh()
        digest = sm3(text.encode("utf-8", "surrogateescape")).hex()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.sm3, digest):
                found = token
        if found is None or (found.expires is not None and now >= found.expires):
            return None
        return found

    def _refresh(self) -> None:
        try:
            status = self._file.stat()
        except OSError:
            self._seen, self._tokens = None, ()  # no file, no tokens: closed, not open
            return
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if seen != self._seen:
            self._tokens = read_tokens(self._file)
            self._seen = seen
