"""Receipts: what they hold, and how they are read and written. What they prove is ``anchor.verify``'s matter.

A receipt is one JSON file. It is read in canonical form (``anchor.canonical``), so white space and key order do not
matter and everything else does; fields that are not described in ``docs/receipt-format.md`` are refused. Every size is
bounded before anything is computed. Reading raises ``FormatError`` only.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from anchor import canonical, merkle
from anchor.errors import FormatError
from anchor.finality import ENGINE
from anchor.gm import sm3
from anchor.light_block import MAX_LIGHT_BLOCK_BYTES
from anchor.receipt_fields import (
    HEX32,
    MAX_PROOF,
    VERSION,
    base64_octets,
    fields_of,
    index,
    items,
    load,
    note,
    octets,
    proof,
    text,
    version,
)
from anchor.timestamp import MAX_TOKEN_BYTES

State = Literal["pending", "committed", "witnessed"]
STATES: tuple[State, ...] = ("pending", "committed", "witnessed")
"""How far a receipt has come, weakest first: the institution's word, on the ledger, cosigned by a quorum."""
MAX_RECEIPT_BYTES = 8 * 1024 * 1024
"""Bytes: a disclosure of 20,000 records (the largest release) with its seven transactions."""
MAX_DISCLOSED = 24_096
"""Digests named in one disclosure receipt: of 20,000 records, and of the signatures of up to 4,096 pages."""
MAX_STATE_PAIRS = 8192
"""Pairs in one bucket of the state tree: reached at 500 million values."""

GRANT, REQUEST, PERMIT, RELEASE, RECEIVE, REVOKE = "grant", "request", "permit", "release", "receive", "revoke"
ROLES = (GRANT, REQUEST, PERMIT, RELEASE, RECEIVE, REVOKE)
"""What a disclosure's transactions are there for; ``request`` is an emergency where there is no grant."""
MAX_ENTRY_BYTES = 4096
"""Bytes of a log entry: its fields' bounds together, with room to spare."""
MAX_AMENDMENTS = 256
"""Changes of one grant: one a fortnight for the ten years a grant may last."""

_HEX16 = re.compile(r"[0-9a-f]{32}\Z")
_HEX64 = re.compile(r"[0-9a-f]{128}\Z")
_SALT = re.compile(r"(?:[0-9a-f]{2}){16,64}\Z")
_ORG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")
_CHAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_REF = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}/[A-Za-z0-9._:/-]{1,200}\Z")
_SOURCE = re.compile(r"(?:[0-9a-f]{64})?\Z")
_ADAPTER = re.compile(r"[!-~]{1,100}\Z")
_PLAIN_ENTRY = re.compile(  # a log entry's one encoding where no text needs an escape: read four times as fast as JSON
    rb'\{"adapter":"([!#-\[\]-~]{1,100})","digest":"([0-9a-f]{64})","org":"([A-Za-z0-9][A-Za-z0-9._:-]{0,63})",'
    rb'"ref":"([A-Za-z][A-Za-z0-9]{0,63}/[A-Za-z0-9._:/-]{1,200})",'
    rb'"salt":"((?:[0-9a-f]{2}){16,64})","source":"((?:[0-9a-f]{64})?)","v":1\}'
)
_STATE_KEY = re.compile(r"[!-~]{1,200}\Z")
_RECORD_FIELDS = ("v", "kind", "chain", "state", "ledger", "entry", "log", "publication")
_OPTIONAL = ("timestamp", "finality")
_DISCLOSURE_FIELDS = (
    *("v", "kind", "chain", "state", "ledger"),
    *("request", "statement", "transactions", "amendments", "disclosed", "grant"),
)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry of an institution's log; digests are 32 bytes, the salt has 16 to 64.

    ``ref`` is the record version ("Observation/123/_history/2"), ``digest`` the SM3 of its canonical bytes, ``source``
    the SM3 of the bytes it was converted from (empty for what the node wrote itself), ``adapter`` what converted
    them. The salt keeps the leaf from revealing anything.
    """

    org: str
    ref: str
    digest: bytes
    source: bytes
    adapter: str
    salt: bytes

    def dump(self) -> bytes:
        """Return the entry's bytes as they are hashed: canonical JSON.

        Where nothing needs an escape (always, for entries that ``read`` takes with a plain adapter), they are put
        together here: four times as fast as a JSON writer, once for every record that is anchored.
        """
        texts = f"{self.org}{self.ref}{self.adapter}"
        if not (texts.isascii() and texts.isprintable()) or '"' in texts or "\\" in texts:
            return canonical.dump(self.value())
        return (
            f'{{"adapter":"{self.adapter}","digest":"{self.digest.hex()}","org":"{self.org}","ref":"{self.ref}",'
            f'"salt":"{self.salt.hex()}","source":"{self.source.hex()}","v":{VERSION}}}'
        ).encode("ascii")

    def value(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        return {
            "v": VERSION,
            "org": self.org,
            "ref": self.ref,
            "digest": self.digest.hex(),
            "source": self.source.hex(),
            "adapter": self.adapter,
            "salt": self.salt.hex(),
        }

    @classmethod
    def parse(cls, content: bytes) -> LogEntry:
        """Read an entry's bytes; raises ``FormatError`` for anything but the one encoding that ``dump`` gives."""
        plain = _PLAIN_ENTRY.fullmatch(content) if len(content) <= MAX_ENTRY_BYTES else None
        if plain is not None:
            adapter, digest, org, ref, salt, source = (part.decode("ascii") for part in plain.groups())
            return cls(org, ref, bytes.fromhex(digest), bytes.fromhex(source), adapter, bytes.fromhex(salt))
        entry = cls.read(load(content, MAX_ENTRY_BYTES, "the log entry"))
        if entry.dump() != content:
            raise FormatError("the log entry is not canonical JSON")
        return entry

    @classmethod
    def read(cls, value: Any) -> LogEntry:
        """Read an entry from JSON values; raises ``FormatError``."""
        fields = fields_of(value, ("v", "org", "ref", "digest", "source", "adapter", "salt"), "entry")
        version(fields["v"], "entry")
        return cls(
            org=text(fields["org"], _ORG, "entry.org"),
            ref=text(fields["ref"], _REF, "entry.ref"),
            digest=octets(fields["digest"], HEX32, "entry.digest"),
            source=octets(fields["source"], _SOURCE, "entry.source"),
            adapter=text(fields["adapter"], _ADAPTER, "entry.adapter"),
            salt=octets(fields["salt"], _SALT, "entry.salt"),
        )


@dataclass(frozen=True, slots=True)
class Committed:
    """A ledger transaction and its place: ``entry`` is leaf ``index`` of the ledger's log, ``proof`` leads to its root.

    ``envelope`` and ``entry`` are canonical JSON bytes (the signed transaction; the ledger's log entry).
    """

    envelope: bytes
    entry: bytes
    index: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LogProof:
    """Where an entry stands in its institution's log; ``checkpoint`` is the signed head while the ledger has none."""

    index: int
    proof: tuple[bytes, ...]
    checkpoint: bytes | None


@dataclass(frozen=True, slots=True)
class StateEvidence:
    """A value of the ledger's state; ``proof`` (canonical JSON) leads to the state root of the checkpoint."""

    key: str
    value: dict[str, Any] | None
    proof: bytes


@dataclass(frozen=True, slots=True)
class TimestampEvidence:
    """An RFC 3161 token over the text of a ledger checkpoint that extends the receipt's own.

    ``proof``: the consistency proof from the receipt's ledger checkpoint to it, empty when both have one size.
    """

    text: bytes
    proof: tuple[bytes, ...]
    token: bytes


@dataclass(frozen=True, slots=True)
class RecordReceipt:
    """That one record version was logged by its institution, and when. Holds nothing of any other record."""

    chain: str
    state: State
    entry: LogEntry
    log: LogProof
    publication: Committed | None
    ledger: bytes | None
    timestamp: TimestampEvidence | None = None
    finality: bytes | None = None

    kind: Literal["record"] = "record"


@dataclass(frozen=True, slots=True)
class DisclosureReceipt:
    """That records were disclosed to one requester on one request, under which grant or emergency, in which order.

    ``disclosed``: the records' digests in the order of the release's Merkle tree. ``amendments``: every change of the
    grant, in ledger order. ``statement``: the object whose canonical bytes the request's commitment is the SM3 of (salt
    included), or None when the receipt does not open it.
    """

    chain: str
    state: State
    request: str
    statement: dict[str, Any] | None
    transactions: Mapping[str, Committed]
    amendments: tuple[Committed, ...]
    disclosed: tuple[bytes, ...]
    grant: StateEvidence | None
    ledger: bytes
    timestamp: TimestampEvidence | None = None
    finality: bytes | None = None

    kind: Literal["disclosure"] = "disclosure"


Receipt = RecordReceipt | DisclosureReceipt


def parse_receipt(content: bytes) -> Receipt:
    """Read a receipt file; raises ``FormatError`` naming the field that is not of its form."""
    return read_receipt(load(content, MAX_RECEIPT_BYTES, "the receipt"))


def read_receipt(value: Any) -> Receipt:
    """Read a receipt from the JSON values that ``canonical.load`` gives; raises ``FormatError`` as ``parse_receipt``.

    How many bytes there were is for the caller to bound (``MAX_RECEIPT_BYTES``).
    """
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == "record":
        return _record(value)
    if kind == "disclosure":
        return _disclosure(value)
    raise FormatError("the receipt's kind is neither record nor disclosure")


def commitment(statement: Mapping[str, Any]) -> bytes:
    """Return the 32-byte commitment to a statement: the SM3 of its canonical bytes.

    The statement holds a random ``salt`` of at least 32 hexadecimal digits, or guessing it would open it; raises
    ``FormatError`` without one.
    """
    salt = statement.get("salt")
    if not isinstance(salt, str) or not _SALT.match(salt):
        raise FormatError("a statement that is committed to has a salt of 16 to 64 bytes in hexadecimal")
    return sm3(canonical.dump(dict(statement)))


def disclosed_root(digests: Iterable[bytes]) -> bytes:
    """Return the root that a release names: the RFC 6962 tree whose entries are the records' digests, in order."""
    return merkle.root_from_leaves([merkle.leaf_hash(digest) for digest in digests])


def canonical_receipt(content: bytes) -> bytes:
    """Return the receipt's canonical bytes: two files are the same receipt when these are equal."""
    return dump_receipt(parse_receipt(content))


def dump_receipt(receipt: Receipt) -> bytes:
    """Return the receipt's canonical JSON bytes."""
    return canonical.dump(receipt_value(receipt))


def receipt_value(receipt: Receipt) -> dict[str, Any]:
    """Return the receipt as what ``canonical.dump`` writes; parts that many receipts share are written already."""
    value: dict[str, Any] = {
        "v": VERSION,
        "kind": receipt.kind,
        "chain": receipt.chain,
        "state": receipt.state,
        "ledger": None if receipt.ledger is None else {"checkpoint": receipt.ledger.decode("utf-8")},
    }
    if receipt.timestamp is not None:
        value["timestamp"] = {
            "text": receipt.timestamp.text.decode("utf-8"),
            "proof": [node.hex() for node in receipt.timestamp.proof],
            "token": base64.b64encode(receipt.timestamp.token).decode("ascii"),
        }
    if receipt.finality is not None:
        light_block = base64.b64encode(receipt.finality).decode("ascii")
        value["finality"] = {"engine": ENGINE, "light_block": light_block}
    if isinstance(receipt, RecordReceipt):
        checkpoint = receipt.log.checkpoint
        value["entry"] = canonical.Verbatim(receipt.entry.dump())
        value["log"] = {
            "index": receipt.log.index,
            "proof": [node.hex() for node in receipt.log.proof],
            "checkpoint": None if checkpoint is None else checkpoint.decode("utf-8"),
        }
        value["publication"] = None if receipt.publication is None else _committed_value(receipt.publication)
    else:
        value["request"] = receipt.request
        value["statement"] = receipt.statement
        value["transactions"] = {role: _committed_value(tx) for role, tx in receipt.transactions.items()}
        value["amendments"] = [_committed_value(tx) for tx in receipt.amendments]
        value["disclosed"] = [digest.hex() for digest in receipt.disclosed]
        value["grant"] = None if receipt.grant is None else _state_value(receipt.grant)
    return value


@lru_cache(maxsize=16)  # the receipts of one release share few publications; each is some kilobytes
def _committed_value(committed: Committed) -> canonical.Verbatim:
    value = {
        "envelope": canonical.load(committed.envelope),
        "entry": canonical.load(committed.entry),
        "index": committed.index,
        "proof": [node.hex() for node in committed.proof],
    }
    return canonical.Verbatim(canonical.dump(value))


def _state_value(state: StateEvidence) -> dict[str, Any]:
    return {"key": state.key, "value": state.value, "proof": canonical.load(state.proof)}


def _record(value: dict[str, Any]) -> RecordReceipt:
    fields = fields_of(value, _RECORD_FIELDS, "receipt", _OPTIONAL)
    version(fields["v"], "receipt")
    log = fields_of(fields["log"], ("index", "proof", "checkpoint"), "log")
    publication = fields["publication"]
    receipt = RecordReceipt(
        chain=text(fields["chain"], _CHAIN, "chain"),
        state=_state(fields["state"]),
        entry=LogEntry.read(fields["entry"]),
        log=LogProof(
            index=index(log["index"], "log.index"),
            proof=proof(log["proof"], "log.proof"),
            checkpoint=None if log["checkpoint"] is None else note(log["checkpoint"], "log.checkpoint"),
        ),
        publication=None if publication is None else _committed(publication, "publication"),
        ledger=_ledger(fields["ledger"]),
        timestamp=_timestamp(fields),
        finality=_finality(fields),
    )
    pending = receipt.state == "pending"
    if (receipt.publication is None) != pending or (receipt.ledger is None) != pending:
        raise FormatError("a receipt has a publication and a ledger checkpoint unless it is pending")
    if (receipt.log.checkpoint is None) == pending:
        raise FormatError("a receipt has the log's own checkpoint only while it is pending")
    if pending and not (receipt.timestamp is None and receipt.finality is None):
        raise FormatError("a pending receipt has no time stamp and is not final: both are about the ledger")
    return receipt


def _disclosure(value: dict[str, Any]) -> DisclosureReceipt:
    fields = fields_of(value, _DISCLOSURE_FIELDS, "receipt", _OPTIONAL)
    version(fields["v"], "receipt")
    transactions = fields["transactions"]
    if not isinstance(transactions, dict) or not set(transactions) <= set(ROLES):
        raise FormatError(f"transactions are named {', '.join(ROLES)}")
    if not {REQUEST, RELEASE} <= set(transactions):
        raise FormatError("a disclosure has a request and a release")
    state, ledger = _state(fields["state"]), _ledger(fields["ledger"])
    if state == "pending" or ledger is None:
        raise FormatError("a disclosure is on the ledger or has no receipt")
    statement = fields["statement"]
    if statement is not None and not isinstance(statement, dict):
        raise FormatError("statement is an object or null")
    return DisclosureReceipt(
        chain=text(fields["chain"], _CHAIN, "chain"),
        state=state,
        request=text(fields["request"], _HEX16, "request"),
        statement=statement,
        transactions={role: _committed(transactions[role], role) for role in ROLES if role in transactions},
        amendments=tuple(_committed(item, "amendments") for item in items(fields["amendments"], MAX_AMENDMENTS)),
        disclosed=tuple(octets(item, HEX32, "disclosed") for item in items(fields["disclosed"], MAX_DISCLOSED)),
        grant=None if fields["grant"] is None else _grant(fields["grant"]),
        ledger=ledger,
        timestamp=_timestamp(fields),
        finality=_finality(fields),
    )


def _timestamp(fields: dict[str, Any]) -> TimestampEvidence | None:
    if "timestamp" not in fields:
        return None
    stamp = fields_of(fields["timestamp"], ("text", "proof", "token"), "timestamp")
    return TimestampEvidence(
        text=note(stamp["text"], "timestamp.text"),
        proof=proof(stamp["proof"], "timestamp.proof"),
        token=base64_octets(stamp["token"], MAX_TOKEN_BYTES, "timestamp.token"),
    )


def _finality(fields: dict[str, Any]) -> bytes | None:
    if "finality" not in fields:
        return None
    proof = fields_of(fields["finality"], ("engine", "light_block"), "finality")
    if proof["engine"] != ENGINE:
        raise FormatError(f"finality is proven by {ENGINE} or not at all")
    return base64_octets(proof["light_block"], MAX_LIGHT_BLOCK_BYTES, "finality.light_block")


def _grant(value: Any) -> StateEvidence:
    fields = fields_of(value, ("key", "value", "proof"), "grant")
    if fields["value"] is not None and not isinstance(fields["value"], dict):
        raise FormatError("grant.value is an object or null")
    proof = fields_of(fields["proof"], ("v", "pairs", "path"), "grant.proof")
    version(proof["v"], "grant.proof")
    for pair in items(proof["pairs"], MAX_STATE_PAIRS):
        text(pair, _HEX64, "grant.proof.pairs")
    for node in items(proof["path"], MAX_PROOF):
        text(node, HEX32, "grant.proof.path")
    return StateEvidence(text(fields["key"], _STATE_KEY, "grant.key"), fields["value"], canonical.dump(proof))


def _committed(value: Any, what: str) -> Committed:
    fields_of(value, ("envelope", "entry", "index", "proof"), what)
    return _read_committed(canonical.dump(value), what)


@lru_cache(maxsize=16)  # as for ``_committed_value``: the receipts of one release are read as they were written
def _read_committed(content: bytes, what: str) -> Committed:
    fields = canonical.load(content)
    if not isinstance(fields["envelope"], dict) or not isinstance(fields["entry"], dict):
        raise FormatError(f"{what}.envelope and {what}.entry are objects")
    return Committed(
        envelope=canonical.dump(fields["envelope"]),
        entry=canonical.dump(fields["entry"]),
        index=index(fields["index"], f"{what}.index"),
        proof=proof(fields["proof"], f"{what}.proof"),
    )


def _ledger(value: Any) -> bytes | None:
    if value is None:
        return None
    return note(fields_of(value, ("checkpoint",), "ledger")["checkpoint"], "ledger.checkpoint")


def _state(value: Any) -> State:
    for state in STATES:
        if value == state:
            return state
    raise FormatError("state is pending, committed or witnessed")
