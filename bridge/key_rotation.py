"""A node's own key rotation: new key on disk, made known, then put in the old one's place.

The order survives an interruption: the new key is written beside the old one and made durable before the ledger (or,
for the key-encryption key, the database) learns of it. Run again, a rotation finishes what was begun. Retired keys are
kept: signatures, releases on their way and backups still need them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from anchor.contracts import member_keys
from anchor.errors import KeyFormatError
from anchor.gm import PrivateKey
from bridge.errors import Conflict, SettingsError
from bridge.keys.store import NEW
from bridge.storage.keyring import KEY_BYTES, kek_id

if TYPE_CHECKING:
    from bridge.keys.store import KeyStore
    from bridge.wiring import Node

MIN_OVERLAP_SECONDS = 60
"""Seconds that the old key stays valid at least, so that the ledger's clock may differ from the node's."""

_FILES = {"sign": "sign.key", "encrypt": "encrypt.key"}
KEK_FILE = "kek.key"


def rotate(node: Node, use: str, overlap_seconds: int) -> tuple[str, str]:
    """Replace the node's key of one use; returns the ids of the old and the new key.

    The old key is valid for ``overlap_seconds`` more. Raises ``SettingsError`` when the key files cannot be written,
    ``TransactionRejected`` or ``ChainUnavailable`` when the ledger did not take the new key (nothing has changed then).
    """
    current = node.signer.sign if use == "sign" else node.signer.decrypt
    new = _waiting_key(node.keys, _FILES[use])
    member = node.chain.state(f"member/{node.signer.org}") or {"keys": []}
    if member_keys.find_key(member, new.public_key.key_id) is None:
        _register(node, use, current, new, overlap_seconds)
    node.keys.promote(_FILES[use], current.public_key.key_id)
    return current.public_key.key_id, new.public_key.key_id


def rotate_kek(node: Node, progress: Callable[[int, int], None] | None = None) -> tuple[str, str, int]:
    """Replace the key-encryption key and wrap every data key anew; returns old id, new id and how many were wrapped.

    Works beside a served node, whose processes take the new key up with the next data key they make.
    """
    old = node.keys.read(KEK_FILE)
    waiting = KEK_FILE + NEW
    if not node.keys.exists(waiting):
        node.keys.write(waiting, secrets.token_bytes(KEY_BYTES))
    new = node.keys.read(waiting)
    node.keys.promote(KEK_FILE, kek_id(old))
    node.keyring.use(new)
    return kek_id(old), kek_id(new), node.keyring.rewrap(progress)


def finish_kek(node: Node, progress: Callable[[int, int], None] | None = None) -> int:
    """Wrap what an interrupted rotation left under an older key; returns how many data keys."""
    node.keyring.use(node.keys.read(KEK_FILE))
    return node.keyring.rewrap(progress)


def forget_kek(node: Node, name: str) -> None:
    """Delete a retired key-encryption key; refused (``Conflict``) while a data key is still wrapped with it."""
    if node.keyring.wrapped_keys().get(name):
        raise Conflict("data keys are still under that key; run: yiqiao keys rotate kek --finish / 该密钥仍在使用")
    node.keys.forget(f"{KEK_FILE}.{name}")


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


def _waiting_key(keys: KeyStore, name: str) -> PrivateKey:
    """Return the key that an interrupted rotation left, or a fresh one, durable in its file."""
    waiting = name + NEW
    if not keys.exists(waiting):
        keys.write(waiting, PrivateKey.generate().to_bytes())
    try:
        return PrivateKey.from_bytes(keys.read(waiting))
    except KeyFormatError:
        file = keys.directory / waiting
        raise SettingsError(f"{file} is not a key; remove it and run again / 密钥文件损坏，请删除后重试") from None
