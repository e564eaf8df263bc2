"""A node's own key rotation: new key on disk, registered on the ledger, then put in the old one's place.

The order survives an interruption: the new key is written beside the old one and made durable before the ledger learns
of it, and the files change places only after. Run again, it finishes what was begun.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from anchor.contracts import member_keys
from anchor.errors import KeyFormatError
from anchor.gm import PrivateKey
from bridge.errors import SettingsError

if TYPE_CHECKING:
    from bridge.wiring import Node

MIN_OVERLAP_SECONDS = 60
"""Seconds that the old key stays valid at least, so that the ledger's clock may differ from the node's."""

_FILES = {"sign": "sign.key", "encrypt": "encrypt.key"}


def rotate(node: Node, use: str, overlap_seconds: int) -> tuple[str, str]:
    """Replace the node's key of one use; returns the ids of the old and the new key.

    The old key is valid for ``overlap_seconds`` more. Raises ``SettingsError`` when the key files cannot be written,
    ``TransactionRejected`` or ``ChainUnavailable`` when the ledger did not take the new key (nothing has changed then).
    """
    directory = node.settings.path(node.settings.keys.directory)
    current = node.signer.sign if use == "sign" else node.signer.decrypt
    file = directory / _FILES[use]
    waiting = directory / f"{_FILES[use]}.new"
    new = _new_key(waiting)
    member = node.chain.state(f"member/{node.signer.org}") or {"keys": []}
    if member_keys.find_key(member, new.public_key.key_id) is None:
        _register(node, use, current, new, overlap_seconds)
    try:
        (directory / f"{_FILES[use]}.{current.public_key.key_id}").hardlink_to(file)
    except FileExistsError:
        pass  # an interrupted run got this far
    except OSError as error:
        raise SettingsError(f"{directory} cannot be written ({error.strerror}) / 无法写入密钥目录") from error
    waiting.replace(file)
    _sync(directory)
    return current.public_key.key_id, new.public_key.key_id


def _register(node: Node, use: str, current: PrivateKey, new: PrivateKey, overlap_seconds: int) -> None:
    now = int(node.clock())
    record = member_keys.key_record(new.public_key, use, since=now)
    proof = None
    if use == "sign":
        chain_id = node.settings.ledger.chain
        proof = member_keys.prove_possession(chain_id, node.signer.org, [record], new)
    # The block's time may be a little later than this clock: a key is retired at block time or after.
    retire = {"id": current.public_key.key_id, "until": now + max(overlap_seconds, MIN_OVERLAP_SECONDS)}
    node.submitter.submit("membership.rotate-key", {"key": record, "proof": proof, "retire": retire})


def _new_key(file: Path) -> PrivateKey:
    """Return the key that an interrupted rotation left, or a fresh one, durable in ``file``."""
    try:
        if file.exists():
            return PrivateKey.from_bytes(file.read_bytes())
        key = PrivateKey.generate()
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(key.to_bytes())
            stream.flush()
            os.fsync(stream.fileno())
        _sync(file.parent)
    except KeyFormatError:
        raise SettingsError(f"{file} is not a key; remove it and run again / 密钥文件损坏，请删除后重试") from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be written ({error.strerror}) / 无法写入密钥文件") from error
    return key


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
