"""Action messages: envelopes and character sets, what each action becomes, what is refused and where it says so."""

# ruff: noqa: E501 - a message is one line

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

import pytest

import fhir_adapters
from fhir_adapters import actions
from fhir_adapters.actions.catalogue import ACTIONS
from fhir_adapters.actions.envelope import SOAP_11, SOAP_12, answer, content_type, fault, open_envelope
from fhir_adapters.errors import AdapterError, DecodeError, ParseError, UnsupportedMessage
from fhir_adapters.profile import SourceProfile
from fhir_adapters.tabular import convert_rows
from fhir_adapters.validation import validate_bundle
from fhir_adapters.view_contract import VIEWS
from fhir_adapters.xml.tree import parse

PROFILE = SourceProfile.from_toml('name = "platform"\ndefault_authority = "HIS"\n')
PATIENT = "<Patient><patient_no>00012</patient_no><name>张三</name><sex>男</sex></Patient>"
VISIT = "<visit_no>ZY1</visit_no><patient_no>00012</patient_no>"


def request(action: str, body: str, message_id: str = "1") -> str:
    return (
        f"<Request><Header><MessageId>{message_id}</MessageId><Action>{action}</Action><Sender>HIS</Sender>"
        f"<CreatedAt>20260101080000</CreatedAt></Header><Body>{body}</Body></Request>"
    )


def soap(message: str, action: str = "", version: str = SOAP_11, how: str = "cdata") -> str:
    """An envelope around a message, put into it as senders do."""
    inside = {
        "cdata": f"<message><![CDATA[{message}]]></message>",
        "declared": f'<message><![CDATA[<?xml version="1.0" encoding="GBK"?>{message}]]></message>',
        "escaped": f"<message>{escape(message)}</message>",
        "elements": f"<message>{message}</message>",
        "bare": message,
        "other names": f'<ns:payload xmlns:ns="urn:x"><![CDATA[{message}]]></ns:payload>',
    }[how]
    named = f"<action>{action}</action>" if action else ""
    return (
        f'<s:Envelope xmlns:s="{version}"><s:Header/><s:Body><invoke xmlns="urn:yiqiao:action:1">{named}{inside}'
        "</invoke></s:Body></s:Envelope>"
    )


def convert(action: str, body: str) -> fhir_adapters.ConversionResult:
    result = fhir_adapters.convert(request(action, body).encode(), "action", PROFILE)
    assert validate_bundle(result.bundle) == []
    return result


def only(result: fhir_adapters.ConversionResult, type_name: str) -> dict[str, Any]:
    found = [e["resource"] for e in result.bundle["entry"] if e["resource"]["resourceType"] == type_name]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("version", [SOAP_11, SOAP_12])
@pytest.mark.parametrize("how", ["cdata", "declared", "escaped", "elements", "bare", "other names"])
@pytest.mark.parametrize("charset", ["utf-8", "gbk", "utf-16"])
def test_a_message_is_found_however_it_was_put_in(version: str, how: str, charset: str) -> None:
    text = f'<?xml version="1.0" encoding="{charset}"?>' + soap(
        request("PatientInfoRegister", PATIENT), "", version, how
    )
    message = actions.read(text.encode(charset), PROFILE)
    assert message.envelope.version == version
    assert message.request.message_id == "1"
    assert message.request.rows[0].cells["name"] == "张三"
    assert message.request.patient == "00012^"


def test_the_character_set_of_http_counts_where_the_xml_says_nothing() -> None:
    raw = soap(request("PatientInfoRegister", PATIENT)).encode("gbk")
    assert actions.read(raw, PROFILE).request.rows[0].cells["name"] == "张三"
    assert open_envelope(raw, "gbk").charset == "gbk"


def test_the_action_may_be_named_by_the_envelope_or_the_header() -> None:
    without = request("", PATIENT)
    assert actions.read(soap(without, "PatientInfoRegister").encode()).request.action.name == "PatientInfoRegister"
    assert actions.read(soap(request("patientinforegister", PATIENT)).encode()).request.action.name
    with pytest.raises(ParseError, match="envelope names"):
        actions.read(soap(request("PatientInfoUpdate", PATIENT), "PatientInfoRegister").encode())


BODIES = {
    "PatientInfoRegister": (PATIENT, {"Patient"}),
    "PatientInfoUpdate": (PATIENT, {"Patient"}),
    "PatientInfoMerge": ("<Patient><patient_no>1</patient_no><merged_into_no>2</merged_into_no></Patient>", {"Patient"}),
    "OutPatientInfoAdd": (f"<Encounter>{VISIT}</Encounter>", {"Encounter"}),
    "OutPatientInfoUpdate": (f"<Encounter>{VISIT}</Encounter>", {"Encounter"}),
    "InPatientInfoAdd": (f"<Encounter>{VISIT}<bed_no>12</bed_no></Encounter>", {"Encounter", "Location"}),
    "InPatientInfoUpdate": (f"<Encounter>{VISIT}</Encounter>", {"Encounter"}),
    "TransferInfoAdd": (f"<Encounter>{VISIT}<moved_at>20260102</moved_at><bed_no>5</bed_no></Encounter>", {"Encounter"}),
    "DischargeInfoAdd": (f"<Encounter>{VISIT}<end_at>20260103</end_at></Encounter>", {"Encounter"}),
    "OrderInfoAdd": (f"<Order>{VISIT}<order_no>1</order_no><item_name>CT</item_name></Order>", {"ServiceRequest"}),
    "OrderInfoUpdate": (f"<Order>{VISIT}<order_no>1</order_no><drug_name>X</drug_name></Order>", {"MedicationRequest"}),
    "ExamReportAdd": (f"<Report>{VISIT}<report_no>1</report_no><conclusion>x</conclusion></Report>", {"DiagnosticReport"}),
    "ExamReportUpdate": (f"<Report>{VISIT}<report_no>1</report_no><findings>x</findings></Report>", {"DiagnosticReport"}),
    "CheckReportAdd": (
        f"<Report>{VISIT}<report_no>1</report_no><items><item><item_code>K</item_code><result>4</result></item>"
        "</items></Report>", {"DiagnosticReport", "Observation"}),
    "CheckReportUpdate": (
        f"<Report>{VISIT}<report_no>1</report_no><item_code>K</item_code><result>4</result></Report>", {"Observation"}),
    "VitalSignsAdd": (
        f"<Vital>{VISIT}<measured_at>20260101</measured_at><item_code>T</item_code><result>37</result></Vital>",
        {"Observation"}),
    "CriticalValueAdd": (
        f"<Critical>{VISIT}<critical_no>1</critical_no><item_name>钾</item_name></Critical>",
        {"Flag", "Communication", "Task"}),
    "CriticalValueConfirm": (
        f"<Critical>{VISIT}<critical_no>1</critical_no><item_name>钾</item_name><confirmed_at>20260101</confirmed_at>"
        "</Critical>", {"Task"}),
    "CriticalValueDeal": (
        f"<Critical>{VISIT}<critical_no>1</critical_no><item_name>钾</item_name><handled_at>20260101</handled_at>"
        "</Critical>", {"Task"}),
    "DiagnosisInfoAdd": (f"<Diagnosis>{VISIT}<diagnosis_name>肺炎</diagnosis_name></Diagnosis>", {"Condition"}),
    "DocumentRegister": (
        f"<Document>{VISIT}<document_no>1</document_no><content>x</content></Document>",
        {"DocumentReference", "Binary"}),
    "BedInfoUpdate": ("<Bed><ward_code>W1</ward_code><bed_no>12</bed_no></Bed>", {"Location"}),
    "ProviderInfoRegister": ("<Staff><staff_no>1</staff_no><name>赵</name></Staff>", {"Practitioner"}),
    "ProviderInfoUpdate": ("<Staff><staff_no>1</staff_no><name>赵</name></Staff>", {"Practitioner"}),
    "OrganizationInfoRegister": ("<Dept><dept_code>1</dept_code><dept_name>内科</dept_name></Dept>", {"Organization"}),
    "OrganizationInfoUpdate": ("<Dept><dept_code>1</dept_code><dept_name>内科</dept_name></Dept>", {"Organization"}),
}  # fmt: skip


@pytest.mark.parametrize("action", [each.name for each in ACTIONS.values()])
def test_every_action_becomes_what_it_is_about(action: str) -> None:
    body, types = BODIES[action]
    made = {entry["resource"]["resourceType"] for entry in convert(action, body).bundle["entry"]}
    assert types <= made


def test_a_message_and_a_view_name_the_same_resource() -> None:
    rows = [{"patient_no": "00012", "name": "张三", "sex": "男"}]
    view = convert_rows("V_IOP_PATIENT", rows, PROFILE)
    assert only(convert("PatientInfoRegister", PATIENT), "Patient") == only(view, "Patient")


@pytest.mark.parametrize("name", ["patient_no", "PatientNo", "patientNo", "PATIENT_NO"])
def test_columns_are_known_in_any_spelling(name: str) -> None:
    body = PATIENT.replace("patient_no", name)
    assert only(convert("PatientInfoRegister", body), "Patient")["identifier"][0]["value"] == "00012"


def test_the_results_of_a_report_take_over_its_columns() -> None:
    body = (
        f"<Report>{VISIT}<report_no>R1</report_no><panel_name>电解质</panel_name><items>"
        "<item><item_code>K</item_code><result>4.0</result></item>"
        "<item><item_code>NA</item_code><result>140</result></item></items></Report>"
    )
    result = convert("CheckReportAdd", body)
    report = only(result, "DiagnosticReport")
    assert (len(report["result"]), report["code"]["text"]) == (2, "电解质")


def test_rows_without_a_wrapper_are_rows_too() -> None:
    body = f"<Report>{VISIT}<report_no>R1</report_no><item><item_code>K</item_code></item><item><item_code>NA</item_code></item></Report>"
    assert len(only(convert("CheckReportAdd", body), "DiagnosticReport")["result"]) == 2


def test_a_merge_and_a_discharge_say_one_thing_and_leave_the_rest() -> None:
    for action in ("PatientInfoMerge", "DischargeInfoAdd", "TransferInfoAdd"):
        result = convert(action, BODIES[action][0])
        entry = next(e for e in result.bundle["entry"] if e["resource"]["resourceType"] in ("Patient", "Encounter"))
        said = {each["valueString"] for each in entry["request"]["modifierExtension"]}
        assert (
            said
            == {
                "PatientInfoMerge": {"active", "link"},
                "DischargeInfoAdd": {"status", "period"},
                "TransferInfoAdd": {"status", "location"},
            }[action]
        )


def test_the_provenance_has_the_time_of_the_message() -> None:
    result = convert("PatientInfoRegister", PATIENT)
    assert only(result, "Provenance")["recorded"] == result.bundle["timestamp"] == "2026-01-01T08:00:00+08:00"
    assert [each.code for each in result.issues] == []


def test_remarks_name_the_place_in_the_message() -> None:
    body = PATIENT + PATIENT.replace("00012", "00013").replace("男", "??").replace("<name>", "<shoes>1</shoes><name>")
    places = [(each.code, each.location) for each in convert("PatientInfoRegister", body).issues]
    assert places == [("unmapped-code", "Body/Patient[2]/sex"), ("not-mapped", "column shoes")]


@pytest.mark.parametrize(
    ("text", "kind", "place"),
    [
        pytest.param("", ParseError, "", id="nothing"),
        pytest.param("<Request", ParseError, "line 1", id="no XML"),
        pytest.param("<Other/>", ParseError, "line 1", id="another root"),
        pytest.param('<!DOCTYPE x [<!ENTITY a "b">]><Request/>', ParseError, "line 1", id="document type"),
        pytest.param(soap('<!DOCTYPE x SYSTEM "file:///etc/passwd"><Request/>'), ParseError, "line 1",
                     id="document type inside the CDATA"),
        pytest.param(f'<s:Envelope xmlns:s="{SOAP_11}"/>', ParseError, "Envelope/Body", id="no body"),
        pytest.param(f'<s:Envelope xmlns:s="{SOAP_11}"><s:Body/></s:Envelope>', ParseError, "Envelope/Body", id="no operation"),
        pytest.param(soap("plain text"), ParseError, "Envelope/Body", id="no message"),
        pytest.param(soap("<Other/>"), ParseError, "message", id="another root in the CDATA"),
        pytest.param('<s:Envelope xmlns:s="urn:other"><s:Body/></s:Envelope>', ParseError, "line 1", id="another SOAP"),
        pytest.param("<Request/>", ParseError, "Request/Body", id="no Body"),
        pytest.param("<Request><Header/><Body/></Request>", ParseError, "Header/Action", id="no action"),
        pytest.param(request("PatientInfoRegister", ""), ParseError, "Request/Body", id="an empty Body"),
        pytest.param(request("PatientInfoRegister", PATIENT, ""), ParseError, "Header/MessageId", id="no message id"),
        pytest.param(request("PatientInfoRegister", PATIENT, "x" * 200), ParseError, "Header/MessageId", id="id too long"),
        pytest.param(request("PatientInfoQuery", PATIENT), UnsupportedMessage, "", id="an action that does not exist"),
        pytest.param(request("PatientInfoRegister", "<Patient><name>x</name></Patient>"), ParseError,
                     "Body/Patient[1]/patient_no", id="a column that the view requires"),
        pytest.param(request("PatientInfoMerge", PATIENT), ParseError, "Body/Patient[1]/merged_into_no",
                     id="a column that the action requires"),
        pytest.param(request("DischargeInfoAdd", f"<Encounter>{VISIT}</Encounter>"), ParseError,
                     "Body/Encounter[1]/end_at", id="a discharge without its time"),
        pytest.param(request("VitalSignsAdd", "<a><b><c><d><e><f>1</f></e></d></c></b></a>"), ParseError, "Body/a[1]",
                     id="rows too deep"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_its_place(text: str, kind: type[AdapterError], place: str) -> None:
    with pytest.raises(kind) as refusal:
        actions.convert(text.encode(), PROFILE)
    assert place in refusal.value.location


def test_bytes_of_no_character_set_are_refused() -> None:
    with pytest.raises(DecodeError):
        actions.read(b"<Request>\xff\xff\xff</Request>", PROFILE)


def test_an_answer_goes_back_as_the_question_came() -> None:
    for version, charset, declared in ((SOAP_11, "gbk", "GBK"), (SOAP_12, "utf-8", "UTF-8")):
        text = f'<?xml version="1.0" encoding="{charset}"?>' + soap(
            request("PatientInfoRegister", PATIENT), "", version
        )
        envelope = open_envelope(text.encode(charset))
        back = answer(envelope, "<a>错误 ]]> 一</a>")
        assert f'encoding="{declared}"'.encode() in back
        assert content_type(envelope).endswith(f"charset={declared}")
        root = parse(back.decode(charset).partition("?>")[2])
        assert root.tag == f"{{{version}}}Envelope"
        assert "".join(root.itertext()) == "<a>错误 ]]> 一</a>"
        assert parse(fault(envelope, "client", "a<b").decode(charset).partition("?>")[2]) is not None


def test_formats_are_told_apart() -> None:
    assert fhir_adapters.detect_format(soap(request("PatientInfoRegister", PATIENT)).encode()) == "action"
    declared = '<?xml version="1.0"?>\n<!-- x -->\n' + request("PatientInfoRegister", PATIENT)
    assert fhir_adapters.detect_format(declared.encode()) == "action"
    assert fhir_adapters.detect_format(b'<?xml version="1.0"?><ClinicalDocument/>') == "cda"


def test_every_action_is_of_views_that_exist() -> None:
    for action in ACTIONS.values():
        for view in action.views:
            assert set(action.requires) | set(action.defaults) <= VIEWS[view].columns.keys()
