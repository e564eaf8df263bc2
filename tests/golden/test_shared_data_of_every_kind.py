"""Every file of others, of every kind, goes through the converter: converted, or refused by place and name."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from fhir_adapters import convert, detect_format, messages
from fhir_adapters.errors import AdapterError, DecodeError

SHARED = Path(os.environ.get("YIQIAO_SHARED", Path(__file__).parents[2].parent / "shared"))
MIN_FILES = 900


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"no third-party inputs in {SHARED / 'data'}")
def test_every_file_is_converted_or_refused_by_name() -> None:
    outcomes: Counter[tuple[str, str]] = Counter()
    nameless: list[str] = []
    files = [file for file in sorted((SHARED / "data").rglob("*")) if file.is_file()]
    for file in files:
        raw = file.read_bytes()
        kind = detect_format(raw)
        for number, piece in enumerate(messages(raw, "auto"), start=1):
            try:
                convert(piece, "auto").to_json()
                outcomes[kind, "converted"] += 1
            except AdapterError as error:
                outcomes[kind, "refused"] += 1
                if not error.location and not isinstance(error, DecodeError):  # what is no text has no places
                    nameless.append(f"{file.name}, message {number}: {error}")
    print(f"\n{len(files)} files:", ", ".join(f"{kind} {count} {what}" for (kind, what), count in outcomes.items()))
    assert len(files) >= MIN_FILES
    assert nameless == []
    assert outcomes["hl7v2", "converted"] >= 290
    assert outcomes["cda", "converted"] >= 50
