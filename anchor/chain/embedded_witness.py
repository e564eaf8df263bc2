"""The embedded engine's witnesses: members' cosignatures beside each checkpoint, and when they are a quorum."""

from __future__ import annotations

from anchor import checkpoint
from anchor.chain.embedded_store import BlockRow, LedgerFile, decode_state
from anchor.contracts.member_keys import is_live
from anchor.contracts.view import Value
from anchor.errors import ChainCorrupt, KeyFormatError, SignatureInvalid, VerificationError
from anchor.gm import PublicKey
from anchor.trust import majority

MAX_MEMBERS = 4_096
"""Members read at once: far above what one consortium has."""


def with_cosignatures(file: LedgerFile, row: BlockRow) -> checkpoint.SignedCheckpoint:
    """Return a block's checkpoint with the host's signature and every cosignature kept for it."""
    kept = [checkpoint.Signature(*columns) for columns in file.cosignatures(row.log_size)]
    return checkpoint.parse(row.note).with_signatures(kept)


def accept_cosignatures(file: LedgerFile, note: bytes, quorum: int | None) -> None:
    """Keep the valid cosignatures of a note handed in, within ``file.writing``.

    ``quorum``: members whose signatures make a checkpoint witnessed, a majority of the active ones when None. Raises
    ``FormatError`` for what is no note, and ``VerificationError`` when it is not a checkpoint of this ledger (another
    root at that size is a fork) or carries no valid signature of an active member.
    """
    offered = checkpoint.parse(note)
    row = file.block_of_size(offered.checkpoint.size)
    if row is None:
        raise VerificationError("this ledger has no checkpoint of that size")
    own = checkpoint.parse(row.note)
    if offered.checkpoint.text() != own.checkpoint.text():
        raise VerificationError("the cosigned checkpoint is not this ledger's: two histories of one size")
    members = [decode_state(content) for _, content in file.states("member/", MAX_MEMBERS)]
    active = {member["org"]: member for member in members if member["status"] == "active"}
    valid = [one for one in offered.signatures if _is_valid(offered.checkpoint, one, active)]
    if not valid:
        raise VerificationError("the note carries no valid signature of an active member")
    file.add_cosignatures(row.log_size, [(one.org, one.key_hash, one.time, one.value) for one in valid])
    signed = with_cosignatures(file, row)
    if len(_signers(signed, active)) >= (quorum or majority(members)) and row.log_size > witnessed_size(file):
        file.set_meta("witnessed", str(row.log_size).encode("ascii"))


def witnessed_size(file: LedgerFile) -> int:
    """Return the size of the newest witnessed checkpoint, -1 when there is none."""
    content = file.meta("witnessed")
    if content is not None and not content.isdigit():
        raise ChainCorrupt("the ledger file does not say which checkpoint was witnessed last")
    return -1 if content is None else int(content)


def _signers(signed: checkpoint.SignedCheckpoint, active: dict[str, Value]) -> set[str]:
    """Return the active members with a valid signature on a checkpoint."""
    return {one.org for one in signed.signatures if _is_valid(signed.checkpoint, one, active)}


def _is_valid(point: checkpoint.Checkpoint, signature: checkpoint.Signature, active: dict[str, Value]) -> bool:
    """Whether a signature is by a key of an active member that was live at the time it names."""
    member = active.get(signature.org)
    if member is None:
        return False
    for key in member["keys"]:
        public = bytes.fromhex(key["public"])
        if key["use"] != "sign" or checkpoint.key_hash(signature.org, public) != signature.key_hash:
            continue
        if not is_live(key, signature.time):
            return False
        try:
            checkpoint.verify_signature(point, signature, PublicKey.from_bytes(public))
        except (SignatureInvalid, KeyFormatError):
            return False
        return True
    return False
