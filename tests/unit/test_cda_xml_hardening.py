"""XML that is a weapon is refused with the place and never with what stands there; nothing is fetched."""

import socket
from pathlib import Path

import pytest

from fhir_adapters import cda
from fhir_adapters.errors import AdapterError, ParseError, UnsupportedMessage
from fhir_adapters.xml import tree as xml_tree
from tests.cda_samples import NAMESPACES, PATIENT, convert, document, observation, resources, section

SECRET = "s3cret-name"


def refused(text: str | bytes) -> AdapterError:
    raw = text.encode() if isinstance(text, str) else text
    with pytest.raises(AdapterError) as caught:
        cda.convert(raw)
    assert SECRET not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "prolog",
    [
        "<!DOCTYPE ClinicalDocument>",
        '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE r SYSTEM "http://127.0.0.1:1/x.dtd">',
        '<!DOCTYPE r PUBLIC "-//X//Y" "http://127.0.0.1:1/x.dtd">',
        '<!DOCTYPE r [<!ENTITY % p SYSTEM "http://127.0.0.1:1/p"> %p;]>',
        '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;">]>',
        "<!-- a comment first -->\n<?pi x?>\n <!DOCTYPE r []>",
        "<!doctype r>",
        "<!ENTITY x 'y'>",
    ],
)
def test_a_document_type_declaration_is_refused_before_it_is_parsed(prolog: str, monkeypatch) -> None:
    parsed = []
    monkeypatch.setattr(xml_tree.etree, "fromstring", lambda *a: parsed.append(a))
    error = refused(f'<?xml version="1.0"?>\n{prolog}{document()}')
    assert isinstance(error, ParseError)
    assert error.location.startswith("line ")
    assert "document type declaration" in str(error)
    assert parsed == []


def test_entities_without_a_declaration_are_refused_by_line() -> None:
    error = refused(f"<ClinicalDocument {NAMESPACES}>\n\n<title>&{SECRET};</title></ClinicalDocument>")
    assert (type(error), error.location) == (ParseError, "line 3")


def test_nothing_is_fetched(monkeypatch, tmp_path: Path) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", never)
    monkeypatch.setattr(socket, "create_connection", never)
    monkeypatch.setattr(socket, "getaddrinfo", never)
    held = tmp_path / "held"
    held.write_text(SECRET)
    text = document(
        section(
            text='<text><linkHtml href="http://127.0.0.1:1/x">seen</linkHtml>'
            '<renderMultiMedia referencedObject="M"/></text>'
        )
    )
    text = text.replace(
        "<ClinicalDocument ",
        '<?xml-stylesheet type="text/xsl" href="http://127.0.0.1:1/x.xsl"?><ClinicalDocument '
        'xsi:schemaLocation="urn:hl7-org:v3 http://127.0.0.1:1/CDA.xsd" '
        'xmlns:xi="http://www.w3.org/2001/XInclude" ',
    ).replace("<title>S</title>", f'<title>S<xi:include href="file://{held}" parse="text"/></title>')
    assert SECRET.encode() not in convert(text).to_json()


def test_depth_is_limited() -> None:
    deep = "<component>" * 200 + "</component>" * 200
    error = refused(f"<ClinicalDocument {NAMESPACES}>\n{deep}</ClinicalDocument>")
    assert (type(error), error.location) == (ParseError, "line 2")


def test_depth_beyond_the_parser_is_refused() -> None:
    assert isinstance(refused(f"<ClinicalDocument {NAMESPACES}>" + "<a>" * 120_000), ParseError)


@pytest.mark.parametrize("quote", ['"', "'"])
def test_an_attribute_as_long_as_a_document_is_refused(quote: str) -> None:
    long = "x" * (xml_tree.MAX_ATTRIBUTE_CHARS + 1)
    error = refused(f"<ClinicalDocument {NAMESPACES}>\n\n<title a={quote}{long}{quote}/></ClinicalDocument>")
    assert (type(error), error.location) == (ParseError, "line 3")
    fits = "x" * xml_tree.MAX_ATTRIBUTE_CHARS
    assert convert(document().replace("<title>", f"<title a={quote}{fits}{quote}>"))


def test_a_text_longer_than_the_parser_takes_is_refused() -> None:
    assert isinstance(refused(document().replace("<title>T", "<title>" + "x" * 11_000_000)), ParseError)


def test_elements_attributes_and_bytes_are_limited(monkeypatch) -> None:
    monkeypatch.setattr(xml_tree, "MAX_ELEMENTS", 1000)
    assert "elements" in str(refused(document("<a/>" * 2500)))
    monkeypatch.undo()
    monkeypatch.setattr(xml_tree, "MAX_ATTRIBUTES", 100)
    assert "attributes" in str(refused(document('<a b=""/>' * 200)))
    monkeypatch.undo()
    monkeypatch.setattr(xml_tree, "MAX_CDA_BYTES", 100)
    assert "larger" in str(refused(document()))


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"", "line 1"),
        (b"  \n ", "line 1"),
        (b"not XML", "line 1"),
        (b"<!-- unfinished", "line 1"),
        (b"<ClinicalDocument>\n<a></b></ClinicalDocument>", "line 2"),
        (b"<ClinicalDocument", "line 1"),
        (b"<ClinicalDocument/>trailing", "line 1"),
        (b"<ClinicalDocument a='1' a='2'/>", "line 1"),
        (b"<a xmlns='urn:hl7-org:v3'>&#0;</a>", "line 1"),
    ],
)
def test_what_is_not_well_formed_is_refused_by_line(raw: bytes, place: str) -> None:
    error = refused(raw)
    assert isinstance(error, ParseError)
    assert error.location == place


@pytest.mark.parametrize(
    "text",
    [
        '<StructureDefinition xmlns="http://hl7.org/fhir"/>',
        '<Bundle xmlns="http://hl7.org/fhir"/>',
        '<ClinicalDocument xmlns="urn:other"/>',
        '<PRPA_IN201301UV02 xmlns="urn:hl7-org:v3"/>',
        "<html><body/></html>",
    ],
)
def test_other_xml_is_refused_by_name(text: str) -> None:
    error = refused(text)
    assert isinstance(error, UnsupportedMessage)
    assert error.location == "/*"


def test_comments_and_instructions_are_read_over() -> None:
    hidden = f"<!-- {SECRET} --><?x {SECRET}?>"
    result = convert("<!-- first -->" + document(hidden + section(observation(hidden))) + "<!-- last -->")
    assert len(resources(result, "Observation")) == 1
    assert SECRET not in str([issue.as_dict() for issue in result.issues])


def test_issues_name_paths_and_never_content() -> None:
    text = document(section(observation(f'<value xsi:type="PQ" value="{SECRET}"/><foo>{SECRET}</foo>')))
    issues = convert(text).issues
    assert {issue.location.rpartition("/")[2] for issue in issues} >= {"value", "foo"}
    assert all(issue.location.startswith("/ClinicalDocument/") for issue in issues)
    assert SECRET not in str([issue.as_dict() for issue in issues])


def test_issues_are_counted_beyond_the_limit() -> None:
    last = convert(document("<foo>x</foo>" + section(observation("<foo>x</foo>" * 1500)))).issues[-1]
    assert last.code == "more-issues"


def test_a_fragment_cannot_close_what_is_put_around_it() -> None:
    refused(f"<section/></fragment><fragment>{PATIENT}")
