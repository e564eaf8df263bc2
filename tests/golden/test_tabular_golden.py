"""Files of the standard views and the exact Bundles they become.

After a wanted change: ``YIQIAO_REGENERATE_GOLDEN=1 pytest tests/golden/test_tabular_golden.py`` and read the diff.
"""

import json
import os
from pathlib import Path

import orjson
import pytest

import fhir_adapters
from fhir_adapters.result import ConversionResult
from fhir_adapters.tabular import VIEWS, view_of
from fhir_adapters.validation import validate, validate_bundle
from fhir_adapters.validation.structure import model_class

FOLDER = Path(__file__).parent / "tabular"
PROFILE = fhir_adapters.SourceProfile.from_toml(
    'name = "golden"\ndefault_authority = "HIS"\nbase_url = "https://golden.example/fhir"\n'
    '[organization]\nidentifier = "91350100M000100Y43"\nname = "示例医院"\n'
)


NAMES = sorted(file.stem for file in FOLDER.glob("*.csv"))


def readable(result: ConversionResult) -> bytes:
    issues = [each.as_dict() for each in result.issues]
    # Numbers are written by our own writer, which keeps them; the rest is only indented for people.
    text = json.dumps(
        json.loads(result.to_json(), parse_float=lambda lexeme: f"\0{lexeme}\0"), ensure_ascii=False, indent=1
    )
    bundle = text.replace('"\\u0000', "").replace('\\u0000"', "")
    return f'{{"bundle": {bundle},\n"issues": {json.dumps(issues, ensure_ascii=False, indent=1)}}}\n'.encode()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("charset", ["utf-8", "gb18030"])
def test_golden(name: str, charset: str):
    raw = (FOLDER / f"{name}.csv").read_text("utf-8").encode(charset)
    result = fhir_adapters.convert(raw, "csv", PROFILE)
    expected = FOLDER / f"{name}.json"
    if os.environ.get("YIQIAO_REGENERATE_GOLDEN"):
        expected.write_bytes(readable(result))
    assert readable(result) == expected.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_golden_bundles_are_valid_to_us_and_to_the_models(name: str):
    bundle = orjson.loads(fhir_adapters.convert((FOLDER / f"{name}.csv").read_bytes(), "csv", PROFILE).to_json())
    assert validate_bundle(bundle) == []
    assert validate(bundle) == []
    model_class("Bundle").model_validate(bundle)


def test_every_view_is_here():
    headers = (file.read_text("utf-8").partition("\n")[0].split(",") for file in FOLDER.glob("*.csv"))
    assert {view_of(header).name for header in headers} == set(VIEWS)


def test_the_views_meet():
    bundles = [fhir_adapters.convert((FOLDER / f"{n}.csv").read_bytes(), "csv", PROFILE).bundle for n in NAMES]
    known = {entry["request"]["url"] for bundle in bundles for entry in bundle["entry"]}
    mentioned = {
        entry["resource"][element]["reference"]
        for bundle in bundles
        for entry in bundle["entry"]
        for element in ("subject", "encounter")
        if element in entry["resource"]
    }
    assert mentioned <= known
