"""Other converters' Bundles beside ours, value by value, and every kind of difference judged.

    python -m tests.golden.bundle_comparison            the table
    python -m tests.golden.bundle_comparison --write    into docs/converter-comparison.md

A value of theirs is the *same* when a resource of ours of the same type has it at the same path, *elsewhere* when our
Bundle has it at another place, and *absent* when it has it nowhere. Ids, references, narratives, URLs of systems and
the envelope (MessageHeader, Provenance) say how a converter builds its Bundle, not what the message says; they are not
compared. What is elsewhere or absent is judged by the first row of ``JUDGEMENTS`` that fits.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fhir_adapters import convert, messages
from fhir_adapters.errors import AdapterError
from tests.golden.comparison_judgements import JUDGEMENTS, Judgement

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("YIQIAO_SHARED", ROOT.parent / "shared")) / "data"
DOCUMENT = ROOT / "docs" / "converter-comparison.md"

CONVERTERS = {"ms": "Microsoft FHIR-Converter", "rs": "CDC ReportStream", "cda": "Microsoft FHIR-Converter, C-CDA"}
SKIPPED_TYPES = frozenset({"MessageHeader", "Provenance"})
_SKIPPED_NAMES = frozenset({"id", "reference", "resourceType", "meta", "div", "fullUrl", "system", "url"})
_DATE = re.compile(r"\d{4}-\d\d-\d\d(T.*)?")
_PLACES = re.compile(r"<!-- counts -->.*<!-- end -->", re.DOTALL)


@dataclass
class Comparison:
    """What came of comparing. ``judged``: converter and judgement -> how often; ``open``: paths that no rule fits."""

    bundles: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    same: Counter[str] = field(default_factory=Counter)
    judged: dict[tuple[str, Judgement], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    open: Counter[tuple[str, str]] = field(default_factory=Counter)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Path without indices and value as text, of every leaf that says something."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in _SKIPPED_NAMES and not (name == "status" and path.endswith("text")):
                yield from leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    elif value is not None and str(value).strip():
        yield path, normal(value)


def normal(value: Any) -> str:
    """A value as both sides would write it: dates to the day, numbers and words without their form."""
    text = str(value).strip()
    if _DATE.fullmatch(text):
        return text[:10]
    try:
        return f"{float(text):g}"
    except ValueError:
        return " ".join(text.split()).casefold()


def resources(bundle: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in bundle.get("entry", ()):
        resource = entry.get("resource")
        if resource and resource.get("resourceType") not in SKIPPED_TYPES:
            yield resource


def samples() -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Converter, message or document, and expected Bundle of every sample that has one."""
    for expected in sorted(SHARED.glob("hl7v2/*/*-expected*.json")):
        source = "ms" if ".ms-expected" in expected.name else "rs"
        message = expected.parent / (expected.name.partition(f".{source}-expected")[0] + ".hl7")
        if message.is_file():
            yield source, next(iter(messages(message.read_bytes(), "hl7v2"))), json.loads(expected.read_bytes())
    for expected in sorted(SHARED.glob("cda/*/*.ms-expected.json")):
        for document in expected.parent.iterdir():
            if document != expected:
                yield "cda", document.read_bytes(), json.loads(expected.read_bytes())


def compare() -> Comparison:
    found = Comparison()
    for source, raw, expected in samples():
        try:
            bundle = json.loads(convert(raw, "cda" if source == "cda" else "hl7v2").to_json())
        except AdapterError:
            found.refused[source] += 1
            continue
        found.bundles[source] += 1
        ours = {(each["resourceType"], *leaf) for each in resources(bundle) for leaf in leaves(each)}
        values = {value for _, _, value in ours}
        for each in resources(expected):
            for path, value in leaves(each):
                place = f"{each['resourceType']}.{path}"
                if (each["resourceType"], path, value) in ours:
                    found.same[source] += 1
                else:
                    _judge(found, source, place, value, "elsewhere" if value in values else "absent")
    return found


def _judge(found: Comparison, source: str, place: str, value: str, verdict: str) -> None:
    for judgement in JUDGEMENTS:
        if judgement.fits(source, place, value, verdict):
            found.judged[source, judgement][verdict] += 1
            return
    found.open[source, place] += 1


def rendered(found: Comparison) -> str:
    """The counts as Markdown."""
    lines = [
        "<!-- counts -->",
        "| converter | Bundles | refused by ours | same | elsewhere | absent |",
        "|---|---|---|---|---|---|",
    ]
    for source, name in CONVERTERS.items():
        sums: Counter[str] = Counter()
        for (of, _), counts in found.judged.items():
            sums += counts if of == source else Counter()
        lines.append(f"| {name} | {found.bundles[source]} | {found.refused[source]} | {found.same[source]} "
                     f"| {sums['elsewhere']} | {sums['absent']} |")  # fmt: skip
    lines += [
        "",
        "| converter | kind of difference | elsewhere | absent | judgement | why |",
        "|---|---|---|---|---|---|",
    ]
    rows = sorted(found.judged.items(), key=lambda row: (list(CONVERTERS).index(row[0][0]), -sum(row[1].values())))
    for (source, judgement), counts in rows:
        judged = f"{judgement.verdict} | {judgement.why} |"
        lines.append(f"| {source} | {judgement.kind} | {counts['elsewhere']} | {counts['absent']} | {judged}")
    return "\n".join([*lines, "<!-- end -->"])


def main(arguments: list[str]) -> int:
    found = compare()
    table = rendered(found)
    for (source, place), count in found.open.most_common():
        print(f"not judged: {source} {place} {count}", file=sys.stderr)
    if "--write" in arguments:
        DOCUMENT.write_text(_PLACES.sub(lambda _: table, DOCUMENT.read_text("utf-8")), "utf-8")
    else:
        print(table)
    return 1 if found.open else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
