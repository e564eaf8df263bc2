"""Arbitrary bytes and arbitrary messages: only AdapterError leaves, what converts is valid and the same each time."""

import contextlib
import json
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fhir_adapters import hl7v2
from fhir_adapters.errors import AdapterError, ParseError
from fhir_adapters.hl7v2.escapes import escape, unescape
from fhir_adapters.hl7v2.framing import Frame, FrameDecoder, frame
from fhir_adapters.json_lexeme import from_source
from fhir_adapters.validation import validate_bundle
from tests.hl7v2_samples import PROFILE, adt, msh, obr, obx, oru, pid, pv1, raw, resources

HEADER = msh("ADT^A01^ADT_A01").encode() + b"\r"


@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbfMSH")
@example(b"\xff\xfeM\x00S\x00H\x00|\x00")
@settings(max_examples=200)
def test_only_adapter_errors_leave_on_any_bytes(data: bytes) -> None:
    for candidate in (data, b"MSH" + data, b"MSH|^~\\&" + data, HEADER + data, HEADER + b"PID|1||1\r" + data):
        with contextlib.suppress(AdapterError):
            hl7v2.convert(candidate, PROFILE)
        with contextlib.suppress(AdapterError):
            hl7v2.read_header(candidate)
        with contextlib.suppress(AdapterError):
            list(hl7v2.messages(candidate))


TEXT = st.text(alphabet=st.sampled_from('ab01.^~&\\|"-<>: +张\nFSTREXH'), max_size=12)
NAMES = st.sampled_from(
    ["PID", "PD1", "PV1", "PV2", "MRG", "NK1", "AL1", "DG1", "IN1", "ORC", "OBR", "OBX", "NTE", "SPM", "ZZZ", "EVN"]
)
KINDS = st.sampled_from(
    ["NM", "SN", "CE", "CWE", "ST", "TX", "DT", "TM", "TS", "DR", "CQ", "CP", "ED", "RP", "NA", "NR", "XPN", "ID", "QQ"]
)


@st.composite
def segments(draw: st.DrawFn) -> str:
    name = draw(NAMES)
    fields = draw(st.lists(TEXT, max_size=30))
    if name == "OBX" and len(fields) > 2:
        fields[1] = draw(KINDS)
    return "|".join([name, *(field.replace("|", "").replace("\n", "") for field in fields)])


@given(st.sampled_from(["ADT^A01", "ADT^A40", "ADT^A24", "ORU^R01"]), st.lists(segments(), max_size=8))
@settings(max_examples=200)
def test_any_segments_convert_validly_or_are_refused(kind: str, lines: list[str]) -> None:
    message = raw([msh(kind), pid(), *lines])
    try:
        first = hl7v2.convert(message, PROFILE)  # validates
    except ParseError:
        return
    assert first.to_json() == hl7v2.convert(message, PROFILE).to_json()
    assert validate_bundle(first.bundle) == []
    assert all(re.fullmatch(r"[A-Z][A-Z0-9]{2}(\[\d+\])?(-\d+(\.\d+)?)?", each.location) for each in first.issues)


@given(
    st.lists(st.binary(max_size=60).map(lambda data: data.replace(b"\x1c", b"").replace(b"\x0b", b"")), max_size=5),
    st.integers(1, 9),
)
@settings(max_examples=100)
def test_frames_come_out_as_they_went_in(contents: list[bytes], size: int) -> None:
    stream = b"".join(frame(each) for each in contents)
    decoder = FrameDecoder()
    found = [each for at in range(0, len(stream), size) for each in decoder.feed(stream[at : at + size])]
    assert [each.content for each in found if isinstance(each, Frame)] == contents
    assert decoder.close() == []


@given(st.binary(max_size=200), st.integers(1, 50), st.integers(1, 100))
@settings(max_examples=150)
def test_any_stream_is_framed_or_faulted(stream: bytes, size: int, limit: int) -> None:
    whole = FrameDecoder(limit)
    together = [each for each in whole.feed(stream) + whole.close() if isinstance(each, Frame)]
    decoder = FrameDecoder(limit)
    found = [each for at in range(0, len(stream), size) for each in decoder.feed(stream[at : at + size])]
    assert [each for each in found + decoder.close() if isinstance(each, Frame)] == together


@given(st.text(max_size=80))
@settings(max_examples=100)
def test_escaped_text_comes_back(text: str) -> None:
    assert unescape(escape(text)) == re.sub(r"\r\n|\r", "\n", text)


@given(st.from_regex(r"[+-]?[0-9]{0,12}\.?[0-9]{0,8}", fullmatch=True))
@settings(max_examples=150)
def test_no_number_is_rewritten_or_lost(number: str) -> None:
    (found,) = resources(oru(pid(), obr(), obx("NM", number or "0")), "Observation")
    if from_source(number or "0") is None:
        assert found["valueString"] == number
        return
    quantity = found["valueQuantity"]
    kept = quantity["_value"]["extension"][0]["valueString"] if "_value" in quantity else quantity["value"].lexeme
    assert kept == (number or "0")
    assert json.loads(json.dumps(float(quantity["value"]))) == float(number or "0")


@given(
    st.permutations(
        ["PD1|||Clinic^^C1", pv1(), "NK1|1|Doe^J|MTH", "AL1|1|DA|X", "DG1|1||I10^H^I10", "IN1|1|P^Plan^L|I1|Co"]
    )
)
@settings(max_examples=30)
def test_the_order_of_segments_in_a_group_does_not_matter(lines: list[str]) -> None:
    result = adt("A01", pid(), *lines)
    kinds = {entry["resource"]["resourceType"] for entry in result.bundle["entry"]}
    assert {"Encounter", "RelatedPerson", "AllergyIntolerance", "Condition", "Coverage"} <= kinds
    assert result.issues == ()
