"""Checkpoints of the institutions' logs: no institution rewrites, shortens or forks what it has published.

``checkpoint.publish`` {"note", "number", "proof"}: the note is the institution's signed checkpoint
(``anchor.checkpoint``), ``number`` counts its checkpoints of that log from 1 without a gap, and ``proof`` is the
RFC 6962 2.1.2 consistency proof from the checkpoint before it (empty for the first).
"""

from __future__ import annotations

import re

from anchor import merkle
from anchor.checkpoint import Checkpoint, SignedCheckpoint, key_hash, log_origin, parse, verify_signature
from anchor.contracts import member_keys, schema
from anchor.contracts.schema import bad_body, check_body
from anchor.contracts.view import WRITERS, Changes, Value, View, member_of, refuse, require_role
from anchor.errors import FormatError, SignatureInvalid, VerificationError
from anchor.transaction import Code, Transaction

MAX_PROOF_HASHES = 64
"""A consistency proof between trees of at most 2^53 entries has at most 54 hashes."""
MAX_NOTE_CHARACTERS = 4096
"""A checkpoint with its publisher's one signature takes about 300."""

_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,31}\Z")


def publish(tx: Transaction, view: View) -> Changes:
    """Accept the next checkpoint of one of the sender's logs."""
    check_body(
        tx.body,
        {
            "note": lambda value: type(value) is str and len(value) <= MAX_NOTE_CHARACTERS,
            "number": schema.positive,
            "proof": lambda value: (
                type(value) is list and len(value) <= MAX_PROOF_HASHES and all(schema.digest(item) for item in value)
            ),
        },
    )
    require_role(view, tx.sender, WRITERS)
    signed = _read_note(tx.body["note"])
    checkpoint = signed.checkpoint
    shard = checkpoint.origin.rpartition("/")[2]
    if not _SHARD.match(shard) or checkpoint.origin != log_origin(tx.sender, shard):
        refuse(Code.NOT_AUTHORISED, "the checkpoint is not of a log of the sender's")
    _check_signature(signed, tx.sender, view)
    key = f"log/{checkpoint.origin}"
    _check_succession(view.get(key), checkpoint, tx)
    return {
        key: {
            "org": tx.sender,
            "origin": checkpoint.origin,
            "number": tx.body["number"],
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "time": view.time,
            "tx": tx.tx_id,
        }
    }


def _read_note(note: str) -> SignedCheckpoint:
    try:
        signed = parse(note.encode("utf-8"))
        signed.checkpoint.integer("time")
    except (FormatError, UnicodeEncodeError):
        raise bad_body("the note is not a checkpoint with its time") from None
    return signed


def _check_signature(signed: SignedCheckpoint, sender: str, view: View) -> None:
    """Refuse ("bad-signature") unless the note carries exactly the sender's signature, by a live signing key."""
    if [signature.org for signature in signed.signatures] != [sender]:
        refuse(Code.BAD_SIGNATURE, "the note carries the sender's signature and no other")
    signature = signed.signatures[0]
    for key in member_keys.live_keys(member_of(view, sender), "sign", view.time):
        if key_hash(sender, bytes.fromhex(key["public"])) == signature.key_hash:
            try:
                verify_signature(signed.checkpoint, signature, view.public_key(key["public"]))
            except SignatureInvalid:
                refuse(Code.BAD_SIGNATURE, "the note's signature does not verify")
            return
    refuse(Code.BAD_SIGNATURE, "the note is not signed by a live key of the sender's")


def _check_succession(previous: Value | None, checkpoint: Checkpoint, tx: Transaction) -> None:
    """Refuse unless the checkpoint follows the previous one of its log: next number, larger, and consistent with it."""
    number = 1 if previous is None else previous["number"] + 1
    if tx.body["number"] != number:
        refuse(Code.CONFLICT, f"the next checkpoint of this log is number {number}")
    if checkpoint.size <= (0 if previous is None else previous["size"]):
        refuse(Code.CONFLICT, "a checkpoint holds more entries than the one before it")
    proof = [bytes.fromhex(item) for item in tx.body["proof"]]
    if previous is None:
        if proof:
            refuse(Code.BAD_PROOF, "the first checkpoint of a log has an empty proof")
        return
    try:
        merkle.verify_consistency(
            size1=previous["size"],
            size2=checkpoint.size,
            root1=bytes.fromhex(previous["root"]),
            root2=checkpoint.root,
            proof=proof,
        )
    except VerificationError:
        refuse(Code.BAD_PROOF, "the log is not an extension of what was published before")


RULES = {"checkpoint.publish": publish}
