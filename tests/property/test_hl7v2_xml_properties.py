"""Any message in ER7 and its XML form become the same Bundle; any bytes that look like XML raise AdapterErrors only."""

import contextlib
import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fhir_adapters import hl7v2
from fhir_adapters.errors import AdapterError
from fhir_adapters.hl7v2.escapes import escape
from fhir_adapters.source_digest import source_digest
from tests.hl7v2_samples import PROFILE, msh, obr, obx, pid
from tests.hl7v2_xml import NAMESPACE, xml_of

TEXT = st.text(alphabet=st.sampled_from("ab01.^~&\\|\"'-<>: +张FSTRE"), max_size=10).map(str.strip).map(escape)
# XML cannot say that a delimiter stands at the end with nothing after it.
COMPONENT = st.lists(TEXT, min_size=1, max_size=3).map(lambda parts: "&".join(parts).rstrip("&"))
FIELD = st.lists(COMPONENT, max_size=4).map(lambda parts: "^".join(parts).rstrip("^"))
SEGMENT = st.tuples(
    st.sampled_from(["PD1", "PV1", "NK1", "AL1", "DG1", "IN1", "NTE", "ZZZ", "SPM"]),
    st.lists(st.lists(FIELD, min_size=1, max_size=2).map("~".join), max_size=12),
).map(lambda found: "|".join([found[0], *found[1]]))


@given(st.lists(SEGMENT, max_size=5), FIELD, st.sampled_from(["", "h:"]))
@settings(max_examples=100, deadline=None)
def test_both_encodings_give_the_same_bundle(segments: list[str], value: str, prefix: str) -> None:
    lines = [msh("ORU^R01^ORU_R01"), pid(), obr(), obx("CWE", value), *segments]
    er7 = "\r".join(lines)
    found = []
    for form in (er7.encode(), xml_of(er7, "ORU_R01", group="PATIENT_RESULT", prefix=prefix).encode()):
        try:
            result = hl7v2.convert(form, PROFILE)
        except AdapterError as error:
            found.append((type(error), error.location))
            continue
        text = result.to_json().decode().replace(source_digest(form), "digest")
        found.append((json.loads(text), result.issues))
    assert found[0] == found[1]


NAMES = st.sampled_from(["MSH", "PID", "PID.3", "CX.1", "HD.0", "PID.999", "escape", "ORU_R01.PATIENT", "x"])
XML = st.recursive(
    st.text(alphabet=st.sampled_from('a|^&;<"\n'), max_size=4),
    lambda inner: st.tuples(NAMES, st.lists(inner, max_size=3)).map(
        lambda found: f"<{found[0]}>{''.join(found[1])}</{found[0]}>"
    ),
    max_leaves=12,
)


@given(XML, st.binary(max_size=20))
@example("", b"\xff\xfe<\x00")
@example("<MSH/>", b"")
@settings(max_examples=200, deadline=None)
def test_only_adapter_errors_leave(content: str, more: bytes) -> None:
    whole = f'<ORU_R01 xmlns="{NAMESPACE}">{content}</ORU_R01>'.encode()
    for candidate in (whole, whole + more, b"<" + more, more + whole):
        with contextlib.suppress(AdapterError):
            hl7v2.convert(candidate, PROFILE)
        with contextlib.suppress(AdapterError):
            hl7v2.read_header(candidate)
        with contextlib.suppress(AdapterError):
            list(hl7v2.messages(candidate))
