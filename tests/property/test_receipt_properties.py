"""Receipts, checkpoints and trust files as an adversary sends them: refused by name, or the very same receipt."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor import canonical, checkpoint
from anchor.checkpoint import Checkpoint, SignedCheckpoint
from anchor.errors import AnchorError, FormatError
from anchor.receipt import LogEntry, canonical_receipt, parse_receipt
from anchor.report import InputUnreadable, StepFailed
from anchor.trust import Trust
from anchor.verify import verify_receipt
from tests.evidence_world import AUTHORITY, Disclosure, World, keys

STRIDE = 7
"""Every 7th bit is flipped (all bits of a byte have their turn); with 1 it takes a while and says the same."""


@cache
def samples() -> tuple[bytes, bytes, bytes, bytes]:
    """Return a pending, a record and a disclosure receipt and the trust file, made once."""
    with TemporaryDirectory() as directory:
        world = World(Path(directory))
        try:
            world.store(0)
            world.anchoring.drain()
            pending = world.receipts.for_record("Observation", "o0", 1)
            refs = world.anchored(5)
            disclosure = Disclosure.begin(world)
            disclosure.release(refs)
            disclosure.receive()
            disclosure.revoke()
            world.witness.run()
            record = world.receipts.for_record("Observation", "o2", 1)
            disclosed = world.receipts.for_disclosure(disclosure.request, disclosure.statement)
            return pending, record, disclosed, world.trust()
        finally:
            world.close()


def verdict(receipt: bytes, trust: bytes) -> str:
    """Return "refused", or "verified" for a receipt that verifies; anything but the two named errors escapes."""
    try:
        verify_receipt(receipt, trust, minimum="pending")
    except (StepFailed, InputUnreadable):
        return "refused"
    return "verified"


@pytest.mark.parametrize(
    "which", [pytest.param(0, id="pending"), pytest.param(1, id="record"), pytest.param(2, id="disclosure")]
)
def test_every_flipped_bit_is_refused_or_changes_nothing(which: int) -> None:
    receipt, trust = samples()[which], samples()[3]
    assert verdict(receipt, trust) == "verified"
    unchanged = canonical_receipt(receipt)
    accepted = []
    for bit in range(which, 8 * len(receipt), STRIDE):
        changed = bytearray(receipt)
        changed[bit // 8] ^= 1 << bit % 8
        if verdict(bytes(changed), trust) == "verified" and canonical_receipt(bytes(changed)) != unchanged:
            accepted.append(bit)
    assert accepted == []


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutations_of_a_receipt_are_refused_or_change_nothing(data: st.DataObject) -> None:
    receipt = samples()[data.draw(st.integers(0, 2), label="receipt")]
    start = data.draw(st.integers(0, len(receipt)), label="start")
    end = data.draw(st.integers(start, min(len(receipt), start + 64)), label="end")
    inserted = data.draw(st.binary(max_size=16) | st.sampled_from([b'"', b"}", b"0", b"null", receipt[:200]]))
    changed = receipt[:start] + inserted + receipt[end:]
    if verdict(changed, samples()[3]) == "verified":
        assert canonical_receipt(changed) == canonical_receipt(receipt)


STRANGE = [
    *(b"1.5", b"-0", b"1E5", b"123456789012345678901234567890", b"-1", b"9007199254740993", b"true", b"null", b"{}"),
    *(b"[]", b'"\\u4e2d"', b'{"x":0.40}', b"[[[[[1.0]]]]]", b'"' + b"0" * 64 + b'"', b'"2026-01-01"'),
]


def replaced(value: Any, path: list[int], new: Any) -> Any:
    """Return JSON values with the one that ``path`` leads to (a child's number at each level) replaced."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    if isinstance(value, dict):
        name = sorted(value)[path[0] % len(value)]
        return {**value, name: replaced(value[name], path[1:], new)}
    place = path[0] % len(value)
    return [*value[:place], replaced(value[place], path[1:], new), *value[place + 1 :]]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2), st.lists(st.integers(0, 20), min_size=1, max_size=6), st.sampled_from(STRANGE))
def test_a_strange_value_in_any_place_is_refused_or_changes_nothing(which: int, path: list[int], new: bytes) -> None:
    """Fractions, huge integers, booleans for numbers: also where a field is hashed and not read.

    A whole part may be left out (null): the receipt then proves less and says so.
    """
    receipt, trust = samples()[which], samples()[3]
    changed = canonical.dump(replaced(canonical.load(receipt), path, canonical.load(new)))
    if verdict(changed, trust) == "verified" and not (new == b"null" and len(path) == 1):
        assert canonical_receipt(changed) == canonical_receipt(receipt)
    strange_trust = canonical.dump(replaced(canonical.load(trust), path, canonical.load(new)))
    verdict(receipt, strange_trust)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400) | st.recursive(st.none() | st.integers() | st.text(max_size=5),
       lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
           ["v", "kind", "chain", "state", "entry", "log", "members", "ledger"]), inner), max_leaves=12)
       .map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_parsers_raise_their_own_errors_only(content: bytes) -> None:
    parsers: list[Callable[[bytes], object]] = [parse_receipt, Trust.parse, checkpoint.parse, LogEntry.parse]
    for parse in parsers:
        try:
            parse(content)
        except FormatError:
            continue
    assert verdict(content, samples()[3]) == "refused"
    with pytest.raises(InputUnreadable):
        verify_receipt(samples()[1], content)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_checkpoints_are_refused_or_the_same(data: st.DataObject) -> None:
    point = Checkpoint("yiqiao/ledger/c", 7, b"\x01" * 32, (("height", "3"), ("time", "1790000000")))
    key = keys(AUTHORITY)[0]
    note = checkpoint.render(SignedCheckpoint(point, (checkpoint.sign(point, AUTHORITY, key, 1_790_000_001),)))
    at = data.draw(st.integers(0, len(note) - 1))
    changed = bytearray(note)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        signed = checkpoint.parse(bytes(changed))
        for signature in signed.signatures:
            checkpoint.verify_signature(signed.checkpoint, signature, key.public_key)
    except AnchorError:
        return
    pytest.fail("a changed checkpoint was accepted")


@settings(max_examples=100)
@given(
    st.integers(0, 2**53 - 1),
    st.binary(min_size=32, max_size=32),
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True), st.from_regex(r"[!-~]{1,20}", fullmatch=True), max_size=4
    ),
)
def test_a_checkpoint_comes_back_from_its_note(size: int, root: bytes, extensions: dict[str, str]) -> None:
    point = Checkpoint("yiqiao/log/x/2026", size, root, tuple(extensions.items()))
    assert checkpoint.parse(checkpoint.render(SignedCheckpoint(point))).checkpoint == point


@given(
    st.text(max_size=40),
    st.one_of(
        st.text(alphabet=st.characters(codec="ascii"), max_size=40), st.sampled_from(['a"b', "a\\b", "a\x7fb", "a\nb"])
    ),
    st.binary(max_size=64),
)
def test_an_entry_is_written_as_canonical_json_writes_it(org: str, adapter: str, salt: bytes) -> None:
    """The quick form must never differ from the general one by a byte: the leaf hash is made of it."""
    entry = LogEntry(org, f"Patient/{adapter}", bytes(32), b"", adapter, salt)
    assert entry.dump() == canonical.dump(entry.value())


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.booleans(), st.text(st.characters(min_codepoint=33, max_codepoint=126),
       min_size=1, max_size=100), st.binary(min_size=16, max_size=64))  # fmt: skip
def test_an_entry_is_read_as_it_was_written(digest: bytes, converted: bool, adapter: str, salt: bytes) -> None:
    entry = LogEntry(AUTHORITY, "Patient/1/_history/2", digest, digest if converted else b"", adapter, salt)
    assert LogEntry.parse(entry.dump()) == entry


@pytest.mark.parametrize(
    ("old", "new"),
    [(b":1}", b":2}"), (b":1}", b":1} "), (b'"v":', b'"v": '), (b"aa", b"AA"), (b"Patient/1", b"9atient/1"),
     (b'"source":""', b'"source":"00"'), (b'"salt":"', b'"salt":"0'), (b'"hl7v2/1.0"', b'"hl7\\u0076"')],
)  # fmt: skip
def test_an_entry_of_another_form_is_refused(old: bytes, new: bytes) -> None:
    content = LogEntry(AUTHORITY, "Patient/1/_history/2", b"\xaa" * 32, b"", "hl7v2/1.0", bytes(16)).dump()
    assert old in content
    with pytest.raises(FormatError):
        LogEntry.parse(content.replace(old, new))
