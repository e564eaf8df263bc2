"""What is handed in by mistake is refused by name with the way out; what is readable after all is read."""

import gzip
import io
import json
import lzma
import tarfile
import zipfile
from typing import Any

import pytest

from fhir_adapters import convert, detect_format, messages
from fhir_adapters.errors import AdapterError, ParseError
from tests.hl7v2_samples import PROFILE, msh, one, pid, pv1, raw, remarks

MESSAGE = raw([msh("ADT^A04"), pid(), pv1(f2="O")])


def zipped(name: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, MESSAGE)
    return made.getvalue()


def tarred() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        member = tarfile.TarInfo("adt.hl7")
        member.size = len(MESSAGE)
        archive.addfile(member, io.BytesIO(MESSAGE))
    return made.getvalue()


def resource(kind: str, **elements: Any) -> bytes:
    return json.dumps({"resourceType": kind, "id": "1", **elements}).encode()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param(gzip.compress(MESSAGE), "a gzip archive", id="gzip"),
        pytest.param(lzma.compress(MESSAGE), "an xz archive", id="xz"),
        pytest.param(zipped("adt.hl7"), "a ZIP archive; unpack it", id="ZIP"),
        pytest.param(tarred(), "a tar archive", id="tar"),
        pytest.param(b"%PDF-1.7\n%\xe2\xe3\n1 0 obj", "a PDF", id="PDF"),
        pytest.param(b"{\\rtf1\\ansi text}", "an RTF text", id="RTF"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0", "a picture (PNG)", id="PNG"),
        pytest.param(b"\0" * 128 + b"DICM\x02\0\0\0UL", "a DICOM object", id="DICOM"),
        pytest.param(b"SQLite format 3\0\x10\0", "an SQLite database", id="SQLite"),
        pytest.param(b"", "an empty file", id="nothing"),
        pytest.param(b"\xef\xbb\xbf \r\n\0\0", "an empty file", id="blanks and a mark"),
        pytest.param(b"H|\\^&|||Maker\rP|1\rL|1|N\r", "ASTM E1394", id="ASTM"),
        pytest.param(b"\x021H|\\^&|||Maker\r\x03", "ASTM E1394", id="ASTM in its frame"),
        pytest.param(b"ISA*00*  *00*  *ZZ*A", "X12", id="X12"),
        pytest.param(b"UNA:+.? 'UNB+UNOA:1", "EDIFACT", id="EDIFACT"),
        pytest.param(b"[\n {}]", "a JSON array", id="a JSON array"),
        pytest.param(b"08:30 received MSH|^~\\&|HIS\r", "behind other text", id="a log"),
        pytest.param(b"<Patient xmlns='http://hl7.org/fhir'/>", "FHIR in XML", id="FHIR XML"),
        pytest.param(b"<PRPA_IN201311UV02 xmlns='urn:hl7-org:v3'/>", "an interaction of HL7 V3", id="V3"),
        pytest.param(resource("Encounter", status="completed", actualPeriod={}), "FHIR R5", id="R5 by an element"),
        pytest.param(resource("Encounter", status="planned", **{"class": [{}]}), "FHIR R5", id="R5 by a list"),
        pytest.param(resource("GenomicStudy"), "FHIR R5", id="R5 by its type"),
        pytest.param(resource("Patient", animal={"species": {"text": "dog"}}), "FHIR STU3", id="STU3 by an element"),
        pytest.param(resource("ReferralRequest"), "FHIR STU3", id="STU3 by its type"),
        pytest.param(resource("MedicationOrder"), "FHIR DSTU2", id="DSTU2 by its type"),
    ],
)
def test_a_mistake_is_told_by_name(given: bytes, told: str) -> None:
    with pytest.raises(AdapterError) as caught:
        convert(next(messages(given, "auto")), "auto", PROFILE)
    assert told in str(caught.value)
    assert caught.value.location


def test_what_is_no_format_of_anybody_is_still_a_table_without_columns() -> None:
    with pytest.raises(ParseError, match="the columns of no standard view"):
        convert(b"dear colleague, thank you", "auto", PROFILE)


def test_a_resource_that_is_only_wrong_is_not_called_another_release() -> None:
    with pytest.raises(AdapterError) as caught:
        convert(resource("Patient", gender=1), "auto", PROFILE)
    assert "looks like" not in str(caught.value)


@pytest.mark.parametrize("end", ["\\r", "\\n", "\\r\\n", "<CR>", "<CR><LF>"])
@pytest.mark.parametrize("last", [True, False], ids=["after the last too", "between only"])
def test_segment_ends_as_source_code_and_browsers_write_them(end: str, last: bool) -> None:
    lines = MESSAGE.decode().strip().split("\r")
    given = (end.join(lines) + (end if last else "")).encode()
    assert detect_format(given) == "hl7v2"
    (piece,) = messages(given, "hl7v2")
    result = convert(piece, "hl7v2", PROFILE)
    assert one(result, "Encounter")["class"]["code"] == "AMB"
    assert ("form", "MSH") in remarks(result)


@pytest.mark.parametrize(
    ("name", "encoding", "read", "doubt"),
    [
        pytest.param("Ångström", "utf-8", "Ångström", True, id="two letters in UTF-8 may be GBK"),
        pytest.param("Łódź-Żółć", "utf-8", "Łódź-Żółć", False, id="UTF-8 that is nothing else"),
        pytest.param("محمد", "utf-8", "محمد", False, id="UTF-8 in Arabic"),
        pytest.param("张伟", "gbk", "张伟", False, id="GBK"),
        pytest.param("欧阳喆", "gbk", "欧阳喆", False, id="GBK with a rare character"),
        pytest.param("Müller", "latin-1", None, True, id="Latin 1"),
        pytest.param("山田太郎", "shift_jis", None, True, id="Shift JIS"),
    ],
)
def test_a_character_set_that_nobody_declares(name: str, encoding: str, read: str | None, doubt: bool) -> None:
    given = raw([msh("ADT^A28", charset=""), pid(f5=f"{name}^X")], encoding)
    result = convert(given, "hl7v2", PROFILE)
    family = one(result, "Patient")["name"][0]["family"]
    assert read is None or doubt or family == read
    assert (("charset", "MSH-18") in remarks(result)) == doubt
