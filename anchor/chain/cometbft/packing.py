"""Packs: several signed ledger transactions in one CometBFT transaction.

CometBFT's cost is per transaction (four CheckTx round trips, gossip, one result), not per signature, so waiting
transactions travel together. Each keeps its own signature, sequence number and result; a pack is no unit of anything.

    pack = 01 ‖ nonce (8 bytes) ‖ (uvarint length ‖ envelope) …

The nonce makes two submissions of the same envelopes different CometBFT transactions, so that the mempool's memory of
transactions seen never stands in the way of trying again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from anchor.errors import FormatError
from anchor.protobuf import read_varint, varint
from anchor.transaction import MAX_ENVELOPE_BYTES

MAX_PACK_ENVELOPES = 128
"""Transactions of one pack: some 80 KB at their ordinary size, checked in about 15 ms."""
MAX_PACK_BYTES = 512 * 1024
"""Bytes: any one envelope fits, and a pack is well below CometBFT's bound for a transaction (1 MiB)."""
NONCE_BYTES = 8

_VERSION = b"\x01"
_START = len(_VERSION) + NONCE_BYTES


def pack(envelopes: Sequence[bytes], nonce: bytes) -> bytes:
    """Return the pack of 1 to 128 envelopes; ``nonce`` is 8 random bytes. Raises ``FormatError`` beyond the bounds."""
    content = _VERSION + nonce + b"".join(varint(len(envelope)) + envelope for envelope in envelopes)
    unpack(content)
    return content


def unpack(content: bytes) -> list[bytes]:
    """Return a pack's envelopes in order; raises ``FormatError`` for all but the one encoding within the bounds."""
    if not content.startswith(_VERSION) or len(content) <= _START or len(content) > MAX_PACK_BYTES:
        raise FormatError(f"a pack begins with its version and has at most {MAX_PACK_BYTES} bytes")
    envelopes: list[bytes] = []
    position = _START
    while position < len(content):
        begin = position
        length, position = read_varint(content, position)
        if varint(length) != content[begin:position]:
            raise FormatError("a length in the pack is not in its shortest form")
        if not 0 < length <= MAX_ENVELOPE_BYTES or position + length > len(content):
            raise FormatError("a pack holds whole envelopes of permitted size")
        if len(envelopes) == MAX_PACK_ENVELOPES:
            raise FormatError(f"a pack holds at most {MAX_PACK_ENVELOPES} envelopes")
        envelopes.append(content[position : position + length])
        position += length
    return envelopes


def pack_id(content: bytes) -> str:
    """Return the name CometBFT gives a transaction: its SHA-256 in hexadecimal."""
    return sha256(content).hexdigest()


def packs(envelopes: Sequence[bytes]) -> list[list[bytes]]:
    """Split envelopes, in order, into lists that each fit one pack."""
    lists: list[list[bytes]] = []
    size = 0
    for envelope in envelopes:
        added = len(envelope) + len(varint(len(envelope)))
        if not lists or len(lists[-1]) == MAX_PACK_ENVELOPES or size + added > MAX_PACK_BYTES:
            lists.append([])
            size = _START
        lists[-1].append(envelope)
        size += added
    return lists
