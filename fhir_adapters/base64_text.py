"""Base64 as FHIR takes it (RFC 4648, section 4): whole groups of four, padded."""

import base64
import binascii

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_GROUP = 4


def as_base64(text: str) -> str | None:
    """Base64 without blanks as FHIR has it; None when the text is none.

    Padding that a sender left away is put back, where what lacked it is what its bytes are encoded as: a word of six
    letters is no base64. Python's decoder alone is no judge: it takes more padding than there is room for.
    """
    data = "".join(text.split())
    bare = data.rstrip("=")
    padding = len(data) - len(bare)
    if not bare.isascii() or bare.encode().translate(None, _ALPHABET):
        return None
    if len(data) % _GROUP == 0 and padding <= 2:
        return data
    padded = bare + "=" * (-len(bare) % _GROUP)
    try:
        return padded if padding <= 2 and base64.b64encode(base64.b64decode(padded)).decode() == padded else None
    except binascii.Error:
        return None
