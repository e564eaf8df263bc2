"""Published test vectors, read where they lie: ``YIQIAO_SHARED`` or ``../shared``. A test without them skips."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[1]


def vectors_directory() -> Path:
    """Return the directory of the vector files, which may not exist."""
    return Path(os.environ.get("YIQIAO_SHARED", _ROOT.parent / "shared")) / "data" / "vectors"


def vector_files(pattern: str) -> list[Any]:
    """Return one pytest parameter per file of that name, or one that skips."""
    found = sorted(vectors_directory().glob(pattern))
    if not found:
        skip = pytest.mark.skip(reason=f"the published vectors {pattern} are not on this machine")
        return [pytest.param(Path(pattern), marks=skip, id="absent")]
    return [pytest.param(path, id=path.stem) for path in found]


def read_json(path: Path) -> Any:
    """Return the parsed file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_openssl_tests(path: Path) -> list[dict[str, str]]:
    """Return the stanzas of an OpenSSL ``evp_test`` file: blank-line separated ``Name = value`` lines."""
    stanzas: list[dict[str, str]] = [{}]
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            stanzas.append({})
        elif not line.startswith("#") and " = " in line:
            name, value = line.split(" = ", 1)
            stanzas[-1][name] = value
    return [stanza for stanza in stanzas if stanza]


def openssl_bytes(value: str) -> bytes:
    """Return a value of such a file: quoted text or hex."""
    return value[1:-1].encode() if value.startswith('"') else bytes.fromhex(value)
