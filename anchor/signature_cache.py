"""Each signature is verified once: a bounded memory of verdicts, and of the keys that they are verified with.

A verdict is a pure function of key, message and signature, so remembering it changes no outcome; only time is saved,
when a transaction is checked on arrival and again in its block, or replayed from a block that was refused to persist.
"""

from __future__ import annotations

from collections import OrderedDict

from anchor.errors import SignatureInvalid
from anchor.gm import PublicKey
from anchor.transaction import Transaction

MAX_VERDICTS = 65_536
"""Verdicts kept, some 300 bytes each: more than any engine has in flight."""
MAX_KEYS = 512
"""Public keys kept."""


class SignatureCache:
    """Verifies transactions' signatures, each once. Not to be shared between threads without a lock."""

    def __init__(self, max_verdicts: int = MAX_VERDICTS) -> None:
        self._max_verdicts = max_verdicts
        self._verdicts: OrderedDict[tuple[str, bytes, bytes], bool] = OrderedDict()
        self._keys: OrderedDict[str, PublicKey] = OrderedDict()

    def public_key(self, public: str) -> PublicKey:
        """Return a member's public key from its 130 hexadecimal digits."""
        key = self._keys.get(public)
        if key is None:
            key = PublicKey.from_bytes(bytes.fromhex(public))
            self._keys[public] = key
            if len(self._keys) > MAX_KEYS:
                self._keys.popitem(last=False)
        return key

    def verify(self, public: PublicKey, tx: Transaction) -> None:
        """Raise ``SignatureInvalid`` unless ``tx`` is signed by ``public``."""
        # tx_id and signature determine the envelope, which has one encoding.
        entry = (tx.tx_id, tx.signature, public.to_bytes())
        verdict = self._verdicts.get(entry)
        if verdict is None:
            try:
                public.verify(tx.signed_bytes, tx.signature)
                verdict = True
            except SignatureInvalid:
                verdict = False
            self._verdicts[entry] = verdict
            if len(self._verdicts) > self._max_verdicts:
                self._verdicts.popitem(last=False)
        if not verdict:
            raise SignatureInvalid("the signature does not verify")
