"""Resource ids that a re-run finds again.

``id = UUIDv8(HMAC-SM3(id_key, "yiqiao/rid/v1" 00 type 00 len(system) ":" system value)[:16])``

The same business identifier gives the same id in every adapter of a node, so a redelivery updates instead of
doubling. The key is the node's secret: without it an id cannot be found by trying all identity numbers.
The form is RFC 9562 section 5.8 (version 8, variant 10), which satisfies the FHIR id pattern.
"""

from functools import lru_cache

from cryptography.hazmat.primitives.hashes import SM3
from cryptography.hazmat.primitives.hmac import HMAC

_DOMAIN = "yiqiao/rid/v1"

KEYED_STATES = 64
"""Prepared HMAC states kept, one per key and resource type. A node has one key and some twenty types."""

CACHED_IDS = 8192
"""Ids kept: wards, beds, departments and staff come back in every message, patients do not (about 2 MB)."""


@lru_cache(maxsize=CACHED_IDS)
def resource_id(id_key: bytes, type: str, system: str, value: str) -> str:
    """The id of the resource of ``type`` that ``value`` in ``system`` names, 36 characters.

    The system's length stands before it, so no two (system, value) pairs give the same input.
    """
    mac = _prepared(id_key, type).copy()
    mac.update(f"{len(system)}:{system}{value}".encode("utf-8", "surrogatepass"))
    digest = mac.finalize()
    raw = bytearray(digest[:16])
    raw[6] = 0x80 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=KEYED_STATES)
def _prepared(id_key: bytes, type: str) -> HMAC:
    mac = HMAC(id_key, SM3())
    mac.update(f"{_DOMAIN}\0{type}\0".encode())
    return mac
