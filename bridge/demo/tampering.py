"""What the demo does to evidence and storage behind the nodes' backs, and how it looks for traces of private data."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from anchor import canonical
from anchor.gm import sm3
from anchor.light_block import FLAG_ABSENT, CommitSig, parse_light_block
from bridge.demo import sources

DIFFERENCES_SHOWN = 3  # differences quoted in one line


def private_traces(content: bytes) -> list[str]:
    """Return what of the demo's patient stands in ``content``: name, numbers, or a plain hash of them."""
    secrets = {
        "name": sources.PATIENT_NAME.encode(),
        "name in GB18030": sources.PATIENT_NAME.encode("gb18030"),
        "ID number": sources.PATIENT_ID_NUMBER.encode(),
        "patient number": sources.PATIENT_MRN.encode(),
    }
    for what in ("ID number", "patient number", "name"):
        for algorithm, digest in (("SM3", sm3), ("SHA-256", lambda value: hashlib.sha256(value).digest())):
            value = digest(secrets[what])
            secrets[f"{algorithm} of the {what}"] = value
            secrets[f"{algorithm} of the {what}, in hex"] = value.hex().encode()
    return [what for what, trace in secrets.items() if trace in content]


def forgeries(receipt: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield altered copies of a record's receipt, each with what was done to it."""
    text = receipt.decode("utf-8")
    document = json.loads(text)
    entry = document["entry"]
    yield "another record's digest", text.replace(entry["digest"], sm3(b"another record").hex()).encode()
    yield "another institution's record", text.replace(entry["org"], "12990000MB0000043W").encode()
    log = document["log"]
    yield (
        "another place in the log",
        text.replace(f'"index":{log["index"]},"proof"', f'"index":{log["index"] + 1},"proof"').encode(),
    )
    checkpoint: str = document["ledger"]["checkpoint"]
    signature = checkpoint.splitlines()[-1].rsplit(" ", 1)[1]
    bent = signature[:-9] + ("A" if signature[-9] != "A" else "B") + signature[-8:]
    yield "a bent cosignature", text.replace(signature, bent).encode()
    yield "a younger ledger", text.replace("\\nheight ", "\\nheight 9").encode()
    if "finality" in document:
        for what, block in other_commits(base64.b64decode(document["finality"]["light_block"])):
            forged = document | {"finality": document["finality"] | {"light_block": base64.b64encode(block).decode()}}
            yield what, canonical.dump(forged)


def other_commits(light_block: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield altered copies of a final block (``anchor.light_block``), each with what was done to it."""
    block = parse_light_block(light_block)
    block.signed_header.header.app_hash = sm3(b"another state")
    yield "another state in the final block's header", block.encode()
    block = parse_light_block(light_block)
    vote = next(each for each in block.signed_header.commit.signatures if each.signature)
    vote.signature = bytes([vote.signature[0] ^ 1]) + vote.signature[1:]
    yield "a validator's bent signature", block.encode()
    block = parse_light_block(light_block)
    votes = block.signed_header.commit.signatures
    votes[2:] = [CommitSig(FLAG_ABSENT) for _ in votes[2:]]
    yield "the commit of two validators out of four", block.encode()
    block = parse_light_block(light_block)
    block.validator_set.validators[0].voting_power *= 9
    yield "a validator with more power", block.encode()


def other_validators(trust: bytes) -> bytes:
    """Return a trust file in which one validator of every set has another key."""
    document = json.loads(trust)
    for each in document["validators"]:
        each["set"][0]["key"] = sm3(b"another key").hex()
    return canonical.dump(document)


def failing_step(answer: str) -> str:
    """Return the step that ``yiqiao verify --json`` named, and its reason."""
    try:
        document = json.loads(answer)
    except ValueError:
        return answer.strip()
    return f"{document['step']}: {document['reason']}"


def alter_row(database: Path) -> str:
    """Flip one bit of the newest sealed Observation in a node's database; return the record's name."""
    with closing(sqlite3.connect(database)) as connection:
        kind, identity, version, sealed = connection.execute(
            "SELECT type, id, version, sealed FROM resource_version WHERE type = 'Observation'"
            " ORDER BY updated DESC LIMIT 1"
        ).fetchone()
        bent = bytes([*sealed[:-1], sealed[-1] ^ 1])
        connection.execute(
            "UPDATE resource_version SET sealed = ? WHERE type = ? AND id = ? AND version = ?",
            (bent, kind, identity, version),
        )
        connection.commit()
    return f"{kind}/{identity}/_history/{version}"


def differences(answer: str) -> str:
    """Return what ``yiqiao fsck --json`` named, in one line."""
    named = json.loads(answer)["differences"]
    return "; ".join(f"{each['kind']} {each['place']}" for each in named[:DIFFERENCES_SHOWN])
