"""A patient named to one holder alone: the identifier, sealed to that holder's encryption key.

It stands in a request in the place of the pseudonym when the holder is known from elsewhere (a referral, a card) and
the card authority is not asked, or cannot be. Form: ``sealed.<key id>.<hex of the GM/T 0009 ciphertext>``; the
plaintext is the canonical JSON of ``holder``, ``system`` and ``value``. The holder's name in it keeps the text from
being handed on to another. What the ledger holds of a request is a salted commitment in either case.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from anchor import canonical, gm
from anchor.errors import AnchorError
from bridge.errors import InvalidRequest
from bridge.services.pseudonyms import Identifier, normalised

if TYPE_CHECKING:
    from bridge.keys.decryption import DecryptionKeys

MAX_SEALED_CHARACTERS = 800  # SM2 seals up to 255 bytes here: 2 * (255 + about 110) hexadecimal digits
SEALED = rf"sealed\.(?:[0-9a-f]{{16}})\.(?:[0-9a-f]{{2}}){{100,{MAX_SEALED_CHARACTERS // 2}}}"

_SEALED = re.compile(SEALED)


def seal_subject(key: gm.PublicKey, holder: str, identifier: Identifier) -> str:
    """Return a person's identifier sealed for ``holder``; raises ``InvalidRequest`` for one that means nobody there."""
    system, value = normalised(*identifier)
    plaintext = canonical.dump({"holder": holder, "system": system, "value": value})
    return f"sealed.{key.key_id}.{key.encrypt(plaintext).hex()}"


def open_subject(text: str, keys: DecryptionKeys, holder: str) -> Identifier | None:
    """Return the identifier that was sealed for this holder; None for whatever does not open as one."""
    if _SEALED.fullmatch(text) is None:
        return None
    _, key_id, sealed = text.split(".")
    key = keys.find(key_id)
    if key is None:
        return None
    try:
        value = canonical.load(key.decrypt(bytes.fromhex(sealed)))
        if not isinstance(value, dict) or set(value) != {"holder", "system", "value"} or value["holder"] != holder:
            return None
        return normalised(value["system"], value["value"])
    except (AnchorError, InvalidRequest):
        return None
