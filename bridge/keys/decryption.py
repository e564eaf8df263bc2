"""Finds the private key a release was sealed for, also when the node's encryption key was replaced meanwhile."""

from __future__ import annotations

import threading

from anchor.gm import PrivateKey
from bridge.errors import SettingsError
from bridge.keys.store import KeyStore

ENCRYPT = "encrypt.key"


class DecryptionKeys:
    """The node's encryption keys by id: the current one, the retired ones, and one that came after the start."""

    def __init__(self, store: KeyStore, current: PrivateKey) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known = {current.public_key.key_id: current}

    def find(self, key_id: str) -> PrivateKey | None:
        """Return the private key of that id, or None when this node never had it."""
        with self._lock:
            if key_id not in self._known:
                self._look(key_id)
            return self._known.get(key_id)

    def _look(self, key_id: str) -> None:
        for name in (f"{ENCRYPT}.{key_id}", ENCRYPT):
            if not self._store.exists(name):
                continue
            try:
                key = PrivateKey.from_bytes(self._store.read(name))
            except SettingsError:
                continue
            self._known[key.public_key.key_id] = key
