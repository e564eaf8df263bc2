"""HL7 v2 in XML is read as the same message in ER7: every expected Bundle comes out of both."""

import json
from pathlib import Path

import pytest

from fhir_adapters import convert, detect_format, hl7v2, messages
from fhir_adapters.errors import AdapterError, ParseError, UnsupportedMessage
from fhir_adapters.hl7v2.charset import decode
from fhir_adapters.source_digest import source_digest
from tests.hl7v2_samples import PROFILE, msh, obr, obx, one, pid
from tests.hl7v2_xml import NAMESPACE, xml_of

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "hl7v2").glob("*.hl7"))
ORU = "\r".join([msh("ORU^R01^ORU_R01"), pid(), obr(), obx("NM", "5.40", "mmol/L")])
DECLARED = "<?xml version='1.0'?>" + xml_of(ORU)
HEADER = (
    "<MSH><MSH.1>|</MSH.1><MSH.2>^~\\&amp;</MSH.2><MSH.9><MSG.1>ADT</MSG.1><MSG.2>A01</MSG.2></MSH.9>"
    "<MSH.10>X1</MSH.10></MSH>"
)
PERSON = "<PID><PID.3><CX.1>P1</CX.1></PID.3><PID.5><XPN.1><FN.1>Doe</FN.1></XPN.1></PID.5></PID>"


def document(content: str, root: str = "ADT_A01") -> bytes:
    return f'<{root} xmlns="{NAMESPACE}">{content}</{root}>'.encode()


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_every_expected_bundle_comes_of_xml_too(file: Path) -> None:
    (piece,) = hl7v2.messages(file.read_bytes())
    xml = xml_of(decode(piece, "").text.strip(), "ORU_R01", group="PATIENT_RESULT").encode()
    assert detect_format(xml) == "hl7v2"
    found = []
    for form in (piece, xml):
        result = hl7v2.convert(form, PROFILE)
        text = result.to_json().decode().replace(source_digest(form), "digest")
        found.append((json.loads(text), result.issues))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(lambda xml: xml.encode(), id="bare"),
        pytest.param(lambda xml: b'<?xml version="1.0"?>\r\n<!-- sent -->' + xml.encode(), id="declaration, comment"),
        pytest.param(lambda xml: b"\x0b" + xml.encode() + b"\x1c\r", id="MLLP bytes"),
        pytest.param(lambda xml: b"\xef\xbb\xbf" + xml.encode(), id="byte order mark"),
        pytest.param(lambda xml: ('<?xml version="1.0" encoding="utf-16"?>' + xml).encode("utf-16"), id="UTF-16"),
        pytest.param(lambda xml: ("<?xml version='1.0' encoding='GBK'?>" + xml).encode("gb18030"), id="GBK"),
        pytest.param(lambda xml: xml.replace("><", ">\n  <").encode(), id="indented"),
        pytest.param(lambda xml: f"<batch><part>{xml}</part></batch>".encode(), id="in an envelope"),
    ],
)
def test_one_message_in_any_wrapping(wrapped) -> None:  # type: ignore[no-untyped-def]
    message = ORU.replace("Doe^Jane", "张^三")
    (piece,) = messages(wrapped(xml_of(message, "ORU_R01", prefix="h:")), "hl7v2")
    result = convert(piece, "hl7v2", PROFILE)
    assert one(result, "Patient")["name"][0]["text"] == "张三"
    assert json.loads(result.to_json())["entry"][-1]["resource"]["resourceType"] == "Provenance"
    assert str(one(result, "Observation")["valueQuantity"]["value"]) == "5.40"


@pytest.mark.parametrize(
    ("file", "count"),
    [
        pytest.param(f"<FILE>{xml_of(ORU)}{xml_of(ORU)}</FILE>", 2, id="in one document"),
        pytest.param(f"{DECLARED}\n{DECLARED}", 2, id="one after the other"),
        pytest.param(f"\x0b{DECLARED}\x1c\r\x0b{DECLARED}\x1c\r", 2, id="MLLP blocks"),
        pytest.param("<ADT_A01>", 1, id="what is cut off is refused as one"),
    ],
)
def test_a_file_of_several(file: str, count: int) -> None:
    assert len(list(messages(file.encode(), "hl7v2"))) == count


MIRTH = (
    "<HL7Message><MSH><MSH.1>|</MSH.1><MSH.2>^~\\&amp;</MSH.2><MSH.9><MSH.9.1>ADT</MSH.9.1><MSH.9.2>A04</MSH.9.2></MSH.9>"
    "<MSH.10><MSH.10.1>M1</MSH.10.1></MSH.10></MSH><PID><PID.3><PID.3.1>P1</PID.3.1><PID.3.4><PID.3.4.1>HIS</PID.3.4.1>"
    "</PID.3.4></PID.3><PID.5><PID.5.1>O\\T\\Hara ^ Sons</PID.5.1></PID.5></PID></HL7Message>"
)


def test_the_form_that_mirth_connect_writes_keeps_its_escapes() -> None:
    patient = one(convert(MIRTH.encode(), "auto", PROFILE), "Patient")
    assert patient["name"][0]["family"] == "O&Hara ^ Sons"
    assert patient["identifier"][0]["value"] == "P1"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("one<escape V='.br'/>two", "one\ntwo", id="a line break as an element"),
        pytest.param("one\n      two", "one\n      two", id="a line break as it is"),
        pytest.param("\n   one\n   ", "one", id="indentation around"),
        pytest.param("a|b^c~d\\e&amp;f", "a|b^c~d\\e&f", id="what ER7 takes for delimiters"),
        pytest.param("\\T\\ stays", "\\T\\ stays", id="what ER7 takes for an escape"),
        pytest.param("<![CDATA[<5 & >3]]>", "<5 & >3", id="CDATA"),
        pytest.param("<escape V='X48'/>i", "Hi", id="bytes as an element"),
        pytest.param("<escape V='|^'/>", "|^", id="an element that is no escape sequence"),
    ],
)
def test_text_means_what_it_says(value: str, text: str) -> None:
    xml = xml_of(ORU.replace("5.40", "VALUE").replace("|NM|", "|FT|").replace("mmol/L", ""), "ORU_R01")
    result = hl7v2.convert(xml.replace("VALUE", value).encode(), PROFILE)
    assert one(result, "Observation")["valueString"] == text


def test_deeper_than_er7_goes_the_parts_stay() -> None:
    units = "<TQ.1><CQ.1>1</CQ.1><CQ.2><CE.1>mL</CE.1><CE.3>UCUM</CE.3></CQ.2></TQ.1>"
    text = decode(document(f"{HEADER}{PERSON}<ORC><ORC.7>{units}</ORC.7></ORC>"), "").text
    assert "1&mL\\T\\UCUM" in text


@pytest.mark.parametrize(
    ("xml", "error", "place"),
    [
        pytest.param(document(PERSON), ParseError, "MSH", id="no header"),
        pytest.param(document(""), ParseError, "MSH", id="nothing"),
        pytest.param(document(HEADER + HEADER + PERSON), ParseError, "MSH[2]", id="two headers"),
        pytest.param(document(HEADER + "<PID>P1</PID>"), ParseError, "PID", id="text in a segment"),
        pytest.param(document(HEADER + "<NOTE>P1</NOTE>"), ParseError, "line 1", id="text in a group"),
        pytest.param(document(HEADER + "<PID><name>Doe</name></PID>"), ParseError, "PID", id="a field without number"),
        pytest.param(document(HEADER + "<PID><PID.999/></PID>"), ParseError, "PID", id="a field that is none"),
        pytest.param(document(HEADER + "<PID><PID.3><CX.0/></PID.3></PID>"), ParseError, "PID-3", id="component 0"),
        pytest.param(document(HEADER), ParseError, "PID", id="no patient"),
        pytest.param(document(HEADER.replace("A01", "Q99")), UnsupportedMessage, "MSH-9", id="an unknown event"),
        pytest.param(b"<!DOCTYPE ADT_A01 []>" + document(HEADER), ParseError, "line 1", id="a document type"),
        pytest.param(document(HEADER)[:-4], ParseError, "line 1", id="cut off"),
        pytest.param(document("<G.1>" * 101 + "</G.1>" * 101), ParseError, "line 1", id="too deep"),
    ],
)
def test_what_is_no_message_is_refused_by_place(xml: bytes, error: type[AdapterError], place: str) -> None:
    assert detect_format(xml) == "hl7v2"
    with pytest.raises(error) as caught:
        hl7v2.convert(xml, PROFILE)
    assert caught.value.location == place


@pytest.mark.parametrize(
    ("raw", "format"),
    [
        pytest.param(document(HEADER), "hl7v2", id="by its namespace"),
        pytest.param(b"<ORU_R01><MSH/></ORU_R01>", "hl7v2", id="by its root alone"),
        pytest.param(b"<ack:ACK xmlns:ack='x'>", "hl7v2", id="an acknowledgement"),
        pytest.param(MIRTH.encode(), "hl7v2", id="Mirth Connect"),
        pytest.param(b"<!DOCTYPE a [<!ENTITY b 'c'>]><ADT_A01/>", "hl7v2", id="behind a document type"),
        pytest.param(b"<ClinicalDocument xmlns='urn:hl7-org:v3'/>", "cda", id="CDA"),
        pytest.param(b"<PRPA_IN201311UV02 xmlns='urn:hl7-org:v3'/>", "cda", id="V3"),
        pytest.param(b"<Request><Header/></Request>", "action", id="an action"),
    ],
)
def test_what_xml_is_which(raw: bytes, format: str) -> None:
    assert detect_format(raw) == format
