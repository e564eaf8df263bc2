"""Every file of others, of every kind, goes through the converter: converted, or refused by place and name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_adapters import convert, detect_format, messages
from fhir_adapters.errors import AdapterError, DecodeError

SHARED = Path(os.environ.get("YIQIAO_SHARED", Path(__file__).parents[2].parent / "shared"))
MIN_FILES = 900


def refusals(raw: bytes, kind: str) -> Iterator[AdapterError | None]:
    """Why each message of a file was refused; None for each that was converted."""
    try:
        pieces = list(messages(raw, kind))
    except AdapterError as error:
        yield error
        return
    for piece in pieces:
        try:
            convert(piece, kind).to_json()
        except AdapterError as error:
            yield error
        else:
            yield None


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"no third-party inputs in {SHARED / 'data'}")
def test_every_file_is_converted_or_refused_by_name() -> None:
    outcomes: Counter[tuple[str, str]] = Counter()
    nameless: list[str] = []
    files = [file for file in sorted((SHARED / "data").rglob("*")) if file.is_file()]
    for file in files:
        raw = file.read_bytes()
        kind = detect_format(raw)
        for refusal in refusals(raw, kind):
            outcomes[kind, "converted" if refusal is None else "refused"] += 1
            # what is no text has no places
            if refusal is not None and not refusal.location and not isinstance(refusal, DecodeError):
                nameless.append(f"{file.name}: {refusal}")
    print(f"\n{len(files)} files:", ", ".join(f"{kind} {count} {what}" for (kind, what), count in outcomes.items()))
    assert len(files) >= MIN_FILES
    assert nameless == []
    assert outcomes["hl7v2", "converted"] >= 290
    assert outcomes["cda", "converted"] >= 50
