"""The offline verifier: a receipt and the consortium's trust file, nothing else. Run it with ``python -m
anchor.verify``.

It opens no network connection and no database, and imports neither. A record receipt is checked in these steps, each by
its stable name (``anchor.report.STEP_TEXT``):

(1) trust, (2) format: both files can be read. (3) chain: they speak of one consortium.
(4) resource, where the record is at hand: its canonical bytes have the digest the receipt names.
(5) entry: the institution's log holds the entry, under the root of the institution's checkpoint.
(6) institution: that checkpoint is of the institution's own log, and signed by it.
(7) transaction, publication: the institution published that very checkpoint on the ledger.
(8) checkpoint, inclusion, quorum: the ledger holds that transaction, and enough members have cosigned the ledger's
    head.
(9) timestamp, where there is one: a time-stamping authority that the trust file names has stamped the ledger's head.
    finality, where there is one: validators that the trust file names have committed it.
(10) state: the receipt has come as far as it claims, and as far as was asked for.

A receipt that is not on the ledger yet ("pending") has (6) only: the institution's own word. What the caller still
has to do: know that the trust file is the consortium's (compare ``Report.trust``, its fingerprint, over another
channel).

Everything here raises ``StepFailed`` or ``InputUnreadable``, both naming the step, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anchor import canonical, merkle
from anchor.checkpoint import SignedCheckpoint, log_origin
from anchor.errors import VerificationError
from anchor.gm import sm3
from anchor.receipt import (
    MAX_RECEIPT_BYTES,
    STATES,
    Committed,
    Receipt,
    RecordReceipt,
    State,
    parse_receipt,
    read_receipt,
)
from anchor.report import InputUnreadable, Report, StepFailed, Steps, failure_json, failure_text, utc
from anchor.trust import MAX_TRUST_BYTES, Trust
from anchor.verify_disclosure import verify_disclosure
from anchor.verify_ledger import (
    CheckedLedger,
    CheckedTransaction,
    TrustedParts,
    take_finality_step,
    take_ledger_steps,
    take_timestamp_step,
)

__all__ = ["InputUnreadable", "ReceiptVerifier", "Report", "StepFailed", "main", "run", "verify_receipt"]

PUBLISH = "checkpoint.publish"


class ReceiptVerifier:
    """Checks receipts against one trust file: for many of them faster than ``verify_receipt``, with the same verdicts.

    Raises ``InputUnreadable`` for a trust file that cannot be read. Threads may share it.
    """

    def __init__(self, trust_bytes: bytes) -> None:
        with Steps().step("trust"):
            self._parts = TrustedParts(Trust.parse(trust_bytes))

    def verify(self, receipt_bytes: bytes, *, resource: bytes | None = None, minimum: State = "witnessed") -> Report:
        """Check one receipt; parameters, result and errors are those of ``verify_receipt``."""
        return self._verify(lambda: parse_receipt(receipt_bytes), resource, minimum)

    def verify_value(self, value: Any, *, resource: bytes | None = None, minimum: State = "witnessed") -> Report:
        """Check one receipt given as the JSON values that ``canonical.load`` makes of it; otherwise as ``verify``."""
        return self._verify(lambda: read_receipt(value), resource, minimum)

    def _verify(self, read: Callable[[], Receipt], resource: bytes | None, minimum: State) -> Report:
        steps, trust = Steps(), self._parts.trust
        with steps.step("trust"):
            pass  # read already
        with steps.step("format"):
            receipt = read()
        with steps.step("chain") as details:
            if receipt.chain != trust.chain:
                raise VerificationError("the receipt is of another chain than the trust file")
            details.append(trust.chain)
        if isinstance(receipt, RecordReceipt):
            return _verify_record(steps, receipt, self._parts, resource, minimum)
        return verify_disclosure(steps, receipt, self._parts, resource, minimum)


def verify_receipt(
    receipt_bytes: bytes, trust_bytes: bytes, *, resource: bytes | None = None, minimum: State = "witnessed"
) -> Report:
    """Check a receipt against a trust file and return what it proves.

    ``resource`` is the record itself (JSON, any white space and key order), checked against the receipt when given.
    ``minimum`` is how far the receipt must have come: below "witnessed" the word of fewer members than the trust file's
    quorum is taken for it, which a caller has to ask for. Raises ``StepFailed`` (a ``VerificationError``) or
    ``InputUnreadable`` (a ``FormatError``), each with the failing ``step``.
    """
    return ReceiptVerifier(trust_bytes).verify(receipt_bytes, resource=resource, minimum=minimum)


def _verify_record(
    steps: Steps, receipt: RecordReceipt, parts: TrustedParts, resource: bytes | None, minimum: State
) -> Report:
    entry = receipt.entry
    if resource is not None:
        with steps.step("resource") as details:
            if sm3(canonical.canonicalize(resource)) != entry.digest:
                raise VerificationError("the record's digest is not the one the receipt names")
            details.append(f"SM3 {entry.digest.hex()}")
    published: CheckedTransaction | None = None
    ledger: CheckedLedger | None = None
    stamped: dict[str, Any] = {}
    if receipt.publication is None or receipt.ledger is None:
        note = _take_entry_steps(steps, receipt, receipt.log.checkpoint or b"", parts, None)
    else:
        published = _take_publication_step(steps, receipt.publication, receipt, parts)
        body_note = published.body["note"].encode("utf-8")
        note = _take_entry_steps(steps, receipt, body_note, parts, published.time)
        pairs = [(receipt.publication, published)]
        ledger = take_ledger_steps(steps, parts, pairs, receipt.ledger, receipt.state)
        stamped = take_timestamp_step(steps, parts.trust, ledger, receipt.timestamp)
        stamped |= take_finality_step(steps, parts.trust, ledger, receipt.finality)
    state: State = "pending" if ledger is None else ledger.state
    _take_state_step(steps, receipt.state, state, minimum)
    facts = {
        "source": entry.source.hex(),
        "adapter": entry.adapter,
        "log": note.checkpoint.origin,
        "log index": receipt.log.index,
        "log size": note.checkpoint.size,
        "signed by the institution": utc(note.signatures[0].time),
    }
    if published is not None:
        facts |= {"transaction": published.transaction.tx_id, "block": published.height, **stamped}
    return Report(
        kind="record",
        state=state,
        chain=parts.trust.chain,
        org=entry.org,
        subject=entry.ref,
        digest=entry.digest.hex(),
        time=None if published is None else published.time,
        witnessed=None if ledger is None else ledger.quorum_time,
        cosignatures=() if ledger is None else ledger.cosignatures,
        trust=parts.trust.fingerprint(),
        steps=steps.taken,
        facts=facts,
    )


def _take_publication_step(
    steps: Steps, committed: Committed, receipt: RecordReceipt, parts: TrustedParts
) -> CheckedTransaction:
    """Step (7): the transaction is the institution's own publication of a checkpoint."""
    with steps.step("transaction") as details:
        checked = parts.transaction(committed)
        details.append(f"{checked.transaction.type} by {checked.transaction.sender}")
    with steps.step("publication") as details:
        transaction = checked.transaction
        if transaction.type != PUBLISH or transaction.sender != receipt.entry.org:
            raise VerificationError("the transaction is not a checkpoint published by the record's institution")
        if not isinstance(transaction.body.get("note"), str):
            raise VerificationError("the transaction carries no checkpoint")
        details.append(f"at {utc(checked.time)}")
    return checked


def _take_entry_steps(
    steps: Steps, receipt: RecordReceipt, note: bytes, parts: TrustedParts, time: int | None
) -> SignedCheckpoint:
    """Steps (5) and (6). ``time`` is when the institution's key must have been valid; None: when it signed."""
    org = receipt.entry.org
    with steps.step("institution") as details:
        signed = parts.note(note, time)
        origin = signed.checkpoint.origin
        if origin != log_origin(org, origin.rpartition("/")[2]):
            raise VerificationError("the checkpoint is not of a log of the record's institution")
        if [signature.org for signature in signed.signatures] != [org]:
            raise VerificationError("the log's checkpoint carries the institution's signature and no other")
        details.append(f"{parts.trust.member(org).name} {org}")
    with steps.step("entry") as details:
        merkle.verify_inclusion(
            index=receipt.log.index,
            size=signed.checkpoint.size,
            leaf_hash=merkle.leaf_hash(receipt.entry.dump()),
            proof=list(receipt.log.proof),
            root=signed.checkpoint.root,
        )
        details.append(f"entry {receipt.log.index} of {signed.checkpoint.size}")
    return signed


def _take_state_step(steps: Steps, claimed: State, proven: State, minimum: State) -> None:
    """Step (10)."""
    with steps.step("state") as details:
        if STATES.index(proven) < STATES.index(claimed):
            raise VerificationError(f"the receipt claims to be {claimed} and proves only {proven}")
        if STATES.index(proven) < STATES.index(minimum):
            raise VerificationError(f"the receipt is {proven}, and {minimum} was asked for; renew it later")
        details.append(proven)


def run(
    receipt_file: Path, trust_file: Path, resource_file: Path | None, minimum: State, as_json: bool
) -> tuple[int, str]:
    """Verify files and return the exit code (0 verified, 1 not) and the text to print. Raises ``OSError`` only."""
    receipt = _read(receipt_file, MAX_RECEIPT_BYTES)
    trust = _read(trust_file, MAX_TRUST_BYTES)
    resource = None if resource_file is None else _read(resource_file, canonical.MAX_BYTES)
    try:
        report = verify_receipt(receipt, trust, resource=resource, minimum=minimum)
    except (StepFailed, InputUnreadable) as error:
        return 1, json.dumps(failure_json(error), ensure_ascii=False) if as_json else failure_text(error)
    return 0, json.dumps(report.to_json(), ensure_ascii=False) if as_json else report.to_text()


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m anchor.verify``; exit code 0 verified, 1 not verified, 2 wrong usage or unreadable file."""
    parser = argparse.ArgumentParser(
        prog="python -m anchor.verify",
        description="Check a Yiqiao receipt offline. / 离线验证医桥回执。",
        epilog="example: python -m anchor.verify receipt.json --trust trust.json --resource observation.json",
    )
    parser.add_argument("receipt", type=Path, help="the receipt file / 回执文件")
    parser.add_argument("--trust", type=Path, required=True, help="the consortium's trust file / 联盟信任文件")
    parser.add_argument("--resource", type=Path, help="the record itself, to be checked as well / 记录原文")
    parser.add_argument("--minimum", choices=STATES, default="witnessed", help="what to insist on / 最低状态")
    parser.add_argument("--json", action="store_true", help="for programs / 机器可读输出")
    options = parser.parse_args(arguments)
    try:
        code, text = run(options.receipt, options.trust, options.resource, options.minimum, options.json)
    except OSError as error:
        print(f"{error.filename}: {error.strerror} / 无法读取文件", file=sys.stderr)  # noqa: T201
        return 2
    print(text)  # noqa: T201
    return code


def _read(path: Path, limit: int) -> bytes:
    """Read at most one byte more than ``limit``: enough for the parser to refuse it."""
    with path.open("rb") as file:
        return file.read(limit + 1)


if __name__ == "__main__":
    sys.exit(main())
