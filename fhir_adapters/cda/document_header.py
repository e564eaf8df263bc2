"""What a document says of itself before anything is converted: kind, identifier, whose it is."""

from dataclasses import dataclass

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import ids
from fhir_adapters.cda.node import child, children, name_of
from fhir_adapters.errors import ParseError, UnsupportedMessage
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.xml.text import XmlText, decode
from fhir_adapters.xml.tree import FHIR, UNDECLARED_PREFIX, V3, Element, check_size, parse, parse_fragment

TEMPLATE_ARC = "2.16.156.10011.2.1.1."
"""Templates of WS/T 500: the last arc is 20 and the document's number (C0007 is …27)."""

KIND_SYSTEM = "2.16.156.10011.2.4"
_FIRST_TEMPLATE = 20
_DOCUMENT = "ClinicalDocument"
_NAMES = """component section entry act observation organizer procedure substanceAdministration supply encounter
observationMedia recordTarget author custodian legalAuthenticator authenticator dataEnterer informant participant
performer documentationOf informationRecipient componentOf inFulfillmentOf relatedDocument"""
_PIECES = frozenset(_NAMES.split())


@dataclass(frozen=True, slots=True)
class Opened:
    """A parsed document or piece of one: its root, whether it is a whole document, and what was odd about its text."""

    root: Element
    whole: bool
    text: XmlText


@dataclass(frozen=True, slots=True)
class DocumentHeader:
    """What a queue needs to know: ``control_id`` tells documents apart, ``patient_key`` keeps a patient's in order.

    ``type`` is the document's code (C0007, 34133-9).
    """

    control_id: str
    type: str
    patient_key: str
    charset: str


def read(raw: bytes, profile: SourceProfile) -> Opened:
    """Decode and parse; raises DecodeError, ParseError, and UnsupportedMessage for XML that is not CDA."""
    check_size(raw)
    text = decode(raw, profile.charset)
    try:
        root = parse(text.text)
    except ParseError as error:
        # A piece cut out of a document has its prefixes declared around it, in the part that was left.
        if UNDECLARED_PREFIX not in str(error):
            raise
        root = parse_fragment(text.text)
    if "}" not in root.tag:
        if root.tag != _DOCUMENT and root.tag not in _PIECES:
            raise UnsupportedMessage("not a document of HL7 CDA", "/*")
        root = parse_fragment(text.text)
    if not root.tag.startswith("{" + V3 + "}"):
        if root.tag.startswith("{" + FHIR + "}"):
            raise UnsupportedMessage("FHIR in XML, which is not read; give it as JSON", "/*")
        raise UnsupportedMessage("the root element is not in the namespace of HL7 V3", "/*")
    name = name_of(root)
    if name != _DOCUMENT and name not in _PIECES:
        if "_IN" in name:
            raise UnsupportedMessage("an interaction of HL7 V3, not a document of HL7 CDA", "/*")
        raise UnsupportedMessage("not a document of HL7 CDA", "/*")
    return Opened(root, name == _DOCUMENT, text)


def kind_of(root: Element) -> str:
    """The number of a Chinese shared document, "" for any other."""
    for each in children(root, "templateId"):
        oid = each.get("root", "")
        number = oid[len(TEMPLATE_ARC) :] if oid.startswith(TEMPLATE_ARC) else ""
        if number.isascii() and number.isdigit() and len(number) <= 4 and int(number) > _FIRST_TEMPLATE:
            return f"C{int(number) - _FIRST_TEMPLATE:04d}"
    code = child(root, "code")
    if code is not None and code.get("codeSystem") == KIND_SYSTEM and code.get("code", "").isalnum():
        return code.get("code", "")
    return ""


def issuer_of(root: Element, profile: SourceProfile) -> str:
    """The institution whose numbers a document uses: "" for the profile's own, else the custodian's code."""
    own = profile.organization.identifier
    el = child(root, "custodian", "assignedCustodian", "representedCustodianOrganization", "id")
    code = el.get("extension", "").strip() if el is not None else ""
    return code if own and code and code != own else ""


def document_key(conv: Conversion, root: Element) -> list[Json]:
    """Read the document's identifier into the conversion; [] when it has none and its digest stands in."""
    made = ids.identifiers(conv, children(root, "id"))
    if made:
        conv.document = (made[0]["system"], made[0]["value"])
    return made


def read_header(raw: bytes, profile: SourceProfile | None = None) -> DocumentHeader:
    """The header of a whole document that names its patient.

    Raises:
        DecodeError, ParseError: it cannot be read, or has no patient.
        UnsupportedMessage: not CDA, or only a piece of a document.
    """
    chosen = profile or DEFAULT_PROFILE
    opened = read(raw, chosen)
    if not opened.whole:
        raise UnsupportedMessage("a piece of a document, which names no patient", "/" + name_of(opened.root))
    role = child(opened.root, "recordTarget", "patientRole")
    if role is None:
        raise ParseError("the document names no patient", "/ClinicalDocument/recordTarget")
    conv = Conversion(chosen, "")
    conv.issuer = issuer_of(opened.root, chosen)
    made = document_key(conv, opened.root)
    patient = child(role, "patient")
    numbers = [*children(role, "id"), *(children(patient, "id") if patient is not None else [])]
    key = next((found for each in _ordered(numbers) if (found := ids.key(conv, each)) is not None), None)
    code = child(opened.root, "code")
    kind = code.get("code", "").strip() if code is not None else ""
    return DocumentHeader(
        control_id="|".join((made[0]["system"], made[0]["value"])) if made else "",
        type=kind if kind.replace("-", "").isalnum() and kind.isascii() and len(kind) <= 20 else "",
        patient_key="|".join(key) if key else "",
        charset=opened.text.charset,
    )


def _ordered(numbers: list[Element]) -> list[Element]:
    """A patient's numbers: the record's first, then the nation's, the visit's last; as the Patient's id is chosen."""
    order = {"13": 0, "2": 1, "": 2, "3": 3, "19": 4, "12": 5, "11": 6}
    return sorted((each for each in numbers if ids.kind_of(each) in order), key=lambda each: order[ids.kind_of(each)])
