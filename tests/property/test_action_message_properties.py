"""Whatever arrives at /soap is a message or an adapter's error, and every message a valid Bundle."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from fhir_adapters import actions
from fhir_adapters.actions.catalogue import ACTIONS
from fhir_adapters.actions.envelope import answer, open_envelope
from fhir_adapters.errors import AdapterError
from fhir_adapters.profile import SourceProfile
from fhir_adapters.validation import validate_bundle
from fhir_adapters.view_contract import VIEWS
from tests.unit.test_action_messages import PATIENT, request, soap

FEW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PROFILE = SourceProfile(name="platform", charset="GBK")
WHOLE = soap(request("PatientInfoRegister", PATIENT)).encode("gbk")

cells = st.one_of(
    st.text(alphabet="0123456789０１-:/ .年月日TIO男女张<>&'\"]", max_size=12),
    st.sampled_from(["1", "I", "20260101", "2026-01-01 08:00", "NULL", "↑", "6.10", "\u3000"]),
)


@st.composite
def messages(draw: st.DrawFn) -> str:
    action = draw(st.sampled_from(list(ACTIONS.values())))
    view = VIEWS[draw(st.sampled_from(action.views))]
    rows = []
    for _ in range(draw(st.integers(0, 3))):
        row = dict.fromkeys(view.required | set(action.requires), "1") if draw(st.booleans()) else {}
        row |= draw(st.dictionaries(st.sampled_from([*view.columns, "Other"]), cells, max_size=6))
        inner = "".join(f"<{name}>{_escaped(value)}</{name}>" for name, value in row.items())
        rows.append(f"<Row>{inner}</Row>")
    return request(draw(st.sampled_from([action.name, action.name.lower(), "x"])), "".join(rows))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@FEW
@given(messages(), st.sampled_from(["utf-8", "gbk", "utf-16"]))
def test_any_message_is_a_valid_bundle_or_refused(message: str, charset: str) -> None:
    text = f'<?xml version="1.0" encoding="{charset}"?>' + soap(message)
    raw = text.encode(charset, "xmlcharrefreplace")
    with suppress(AdapterError):
        result = actions.convert(raw, PROFILE)
        assert validate_bundle(result.bundle) == []
        assert result.to_json() == actions.convert(raw, PROFILE).to_json()


@FEW
@given(st.binary(max_size=60), st.integers(0, len(WHOLE)), st.integers(0, 100))
def test_any_damage_is_read_or_refused(junk: bytes, place: int, cut: int) -> None:
    with suppress(AdapterError):
        actions.convert(WHOLE[:place] + junk + WHOLE[place + cut :], PROFILE)


@FEW
@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cn", "Cc"]), max_size=60))
def test_any_text_can_be_answered(text: str) -> None:
    body = answer(open_envelope(WHOLE, "gbk"), text)
    assert "".join(etree.fromstring(body).itertext()) == text
