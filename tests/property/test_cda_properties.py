"""Documents that nobody should send: only the adapter's own errors come out, in bounded time, and name no content."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fhir_adapters import cda
from fhir_adapters.errors import AdapterError
from fhir_adapters.xml.tree import MAX_DEPTH
from tests.cda_samples import document, observation, section

GOLDEN = Path(__file__).parents[1] / "golden" / "cda"
SAMPLES = {
    path.stem: path.read_bytes() for path in sorted(GOLDEN.glob("c0005*.xml")) + sorted(GOLDEN.glob("c0049*.xml"))
}
SECRET = "S3CR3T"
PROFILE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def converted(raw: bytes) -> bytes | None:
    """The Bundle's bytes; None for a refusal, whose text repeats nothing of the document."""
    try:
        return cda.convert(raw).to_json()
    except AdapterError as error:
        refusal = str(error)
    assert SECRET not in refusal
    return None


@PROFILE
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    edits=st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=6), st.integers(0, 8)), min_size=1, max_size=8),
)
def test_bytes_changed_anywhere(name: str, edits: list[tuple[int, bytes, int]]) -> None:
    raw = SAMPLES[name]
    for at, more, less in edits:
        at %= len(raw)
        raw = raw[:at] + more + raw[at + less :]
    converted(raw)


@PROFILE
@given(name=st.sampled_from(sorted(SAMPLES)), cut=st.integers(0, 2**16))
def test_a_document_cut_off_is_refused(name: str, cut: int) -> None:
    raw = SAMPLES[name].rstrip()
    assert converted(raw[: cut % (len(raw) - 1)]) is None


ENTITIES = st.lists(st.integers(1, 50), min_size=1, max_size=12)


@PROFILE
@given(widths=ENTITIES, subset=st.booleans(), blanks=st.text(" \t\r\n", max_size=5))
def test_entities_never_expand(widths: list[int], subset: bool, blanks: str) -> None:
    levels = [f'<!ENTITY e0 "{SECRET}">']
    levels += [f'<!ENTITY e{n} "{f"&e{n - 1};" * width}">' for n, width in enumerate(widths, start=1)]
    dtd = f"<!DOCTYPE x [{''.join(levels)}]>" if subset else '<!DOCTYPE x SYSTEM "file:///etc/passwd">'
    body = document(section(observation(f"<text>&e{len(widths)};</text>")))
    assert converted((blanks + dtd + body).encode()) is None
    assert converted(body.encode()) is None


@PROFILE
@given(
    charset=st.sampled_from(["utf-8", "gb18030", "utf-16", "big5", "latin-1", "cp1252"]),
    declared=st.sampled_from(
        ["utf-8", "GB2312", "GBK", "utf-16", "ascii", "Big5", "EBCDIC-CP-US", "utf-7", "x" * 40, ""]
    ),
    text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30),
)
def test_any_encoding_under_any_name(charset: str, declared: str, text: str) -> None:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("]]>", "")
    body = document(section(observation(f"<text>{escaped}</text>")))
    said = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    converted((said + body).encode(charset, "replace"))


ABOVE = 7  # ClinicalDocument, component, structuredBody, component, section, entry, observation


@PROFILE
@given(depth=st.integers(1, 400), tag=st.sampled_from(["entryRelationship", "section", "content", "a"]))
@example(depth=MAX_DEPTH - ABOVE, tag="a")
@example(depth=MAX_DEPTH - ABOVE + 1, tag="a")
def test_depth_is_bounded(depth: int, tag: str) -> None:
    nested = f"<{tag}>" * depth + f"</{tag}>" * depth
    made = converted(document(section(observation(nested))).encode())
    assert (made is None) == (depth > MAX_DEPTH - ABOVE)


@pytest.mark.parametrize("size", [65_000, 66_000, 1_000_000])
def test_an_attribute_is_bounded(size: int) -> None:
    made = converted(document(section(observation(f'<value value="{"9" * size}"/>'))).encode())
    assert (made is None) == (size > 65_536)


VALUES = st.text(st.characters(codec="utf-8", exclude_characters='<&"', exclude_categories=["Cs", "Cc"]), max_size=20)


@PROFILE
@given(
    name=st.sampled_from(
        ["effectiveTime", "value", "id", "code", "statusCode", "repeatNumber", "methodCode", "author"]
    ),
    attribute=st.sampled_from(
        ["value", "code", "root", "extension", "codeSystem", "unit", "nullFlavor", "displayName"]
    ),
    kind=st.sampled_from(
        ["PQ", "CD", "TS", "IVL_PQ", "IVL_TS", "ST", "INT", "REAL", "BL", "RTO", "ED", "MO", "nonsense"]
    ),
    value=VALUES,
    inner=st.sampled_from(["", "<low value='x'/>", "<numerator value='1'/><denominator value='0'/>", "<translation/>"]),
)
def test_any_value_in_any_attribute(name: str, attribute: str, kind: str, value: str, inner: str) -> None:
    typed = f' xsi:type="{kind}"' if name == "value" else ""
    own = "" if name == "value" and attribute == "nullFlavor" else f' {attribute}="{value}"'
    made = converted(document(section(observation(f"<{name}{typed}{own}>{inner}</{name}>"))).encode())
    assert made is not None
