"""Our own messages give exactly the Bundles and issues recorded beside them.

After a wanted change: ``YIQIAO_REGENERATE_GOLDEN=1 pytest tests/golden/test_hl7v2_golden.py`` and read the diff.
"""

import json
import os
from pathlib import Path

import orjson
import pytest

from fhir_adapters import hl7v2
from fhir_adapters.json_lexeme import fragment
from fhir_adapters.profile import SourceProfile
from fhir_adapters.validation import validate_bundle

FOLDER = Path(__file__).parent / "hl7v2"
REGENERATE = os.environ.get("YIQIAO_REGENERATE_GOLDEN") == "1"
PROFILE = SourceProfile(name="golden", base_url="https://golden.example/fhir")
MESSAGES = sorted(FOLDER.glob("*.hl7"))


def rendered(path: Path) -> bytes:
    result = hl7v2.convert(path.read_bytes(), PROFILE)
    issues = [f"{each.severity} {each.code} {each.location}: {each.text}" for each in result.issues]
    shown = {"bundle": result.bundle, "issues": issues}
    return orjson.dumps(shown, default=fragment, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_message_gives_the_recorded_bundle(path: Path) -> None:
    made = rendered(path)
    recorded = path.with_suffix(".json")
    if REGENERATE:
        recorded.write_bytes(made)
    assert made.decode() == recorded.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_recorded_bundle_is_valid(path: Path) -> None:
    bundle = json.loads(path.with_suffix(".json").read_bytes())["bundle"]
    assert validate_bundle(bundle) == []


def test_a_character_set_does_not_show_in_the_resources() -> None:
    utf8, gb18030 = (
        hl7v2.convert((FOLDER / f"oru_r01_lab_{name}.hl7").read_bytes(), PROFILE) for name in ("utf8", "gb18030")
    )

    def results(bundle: dict) -> list[dict]:
        return [each["resource"] for each in bundle["entry"] if each["resource"]["resourceType"] != "Provenance"]

    assert results(utf8.bundle) == results(gb18030.bundle)
