"""This node's identity on the ledger: its two keys."""

from __future__ import annotations

from dataclasses import dataclass

from anchor.gm import PrivateKey
from bridge.keys.store import KeyStore
from bridge.settings import Settings


@dataclass(frozen=True, slots=True)
class Signer:
    """This node's identity on the ledger.

    ``sign`` signs transactions, checkpoints and requests; ``decrypt`` opens releases.
    """

    org: str
    sign: PrivateKey
    decrypt: PrivateKey


def load_signer(settings: Settings, keys: KeyStore | None = None) -> Signer:
    """Read this node's keys. Raises ``SettingsError``, ``KeyFormatError``."""
    keys = keys or settings.key_store()
    return Signer(
        settings.node.org,
        PrivateKey.from_bytes(keys.read("sign.key")),
        PrivateKey.from_bytes(keys.read("encrypt.key")),
    )
