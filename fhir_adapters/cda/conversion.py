"""One document from bytes to Bundle."""

from dataclasses import dataclass

from fhir_adapters.bundle_entry import entry
from fhir_adapters.cda import original
from fhir_adapters.cda.chinese import dispatch as chinese
from fhir_adapters.cda.chinese import documents as chinese_documents
from fhir_adapters.cda.context import MENTIONED, Conversion, Json
from fhir_adapters.cda.datatypes import times
from fhir_adapters.cda.document_header import Opened, document_key, issuer_of, kind_of, read
from fhir_adapters.cda.entries import dispatch
from fhir_adapters.cda.entries.notes import attachment
from fhir_adapters.cda.entries.statement import STATEMENTS, Section
from fhir_adapters.cda.header import actors, composition, encounters, history, patients
from fhir_adapters.cda.narrative import Narratives
from fhir_adapters.cda.node import Node, child, name_of
from fhir_adapters.cda.sections import section, sections
from fhir_adapters.errors import UnsupportedMessage, ValidationError
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.result import ConversionResult, Issue
from fhir_adapters.source_digest import source_digest
from fhir_adapters.validation import require_valid, validate
from fhir_adapters.xml.tree import Element

ADAPTER = "cda/1.0"
"""Name and version of this adapter, for lineage. The version changes when the same bytes give another Bundle."""

_NOT_IN_DOCUMENTS = ("DocumentReference", "Binary", "Provenance")


def convert(raw: bytes, profile: SourceProfile | None = None) -> ConversionResult:
    """Convert one CDA document to a transaction Bundle.

    A piece of a document (a section, an entry, a recordTarget, with or without its namespace) is converted too; its
    resources then name no patient but the piece's digest, and an issue says so.

    Args:
        raw: the document's bytes, in any encoding that :mod:`fhir_adapters.xml.text` reads.
        profile: the site's; the default profile when None.

    Raises:
        DecodeError: the bytes are not text in the declared or the site's character set.
        ParseError: not well-formed XML, or XML that nobody should open (DTD, bombs); names line or XPath.
        UnsupportedMessage: XML that is not CDA.
        ValidationError: a resource made is not valid FHIR R4 and the profile asks for validation.
    """
    chosen = profile or DEFAULT_PROFILE
    made = _converted(raw, chosen)
    bundle = _transaction(made.conv)
    if chosen.validate:
        _require_valid(bundle)
    return ConversionResult(bundle, made.conv.issues)


def document_bundle(raw: bytes, profile: SourceProfile | None = None) -> ConversionResult:
    """Convert one CDA document to a Bundle of type document: the Composition first, then what it refers to.

    Raises as :func:`convert`, and UnsupportedMessage for a piece of a document.
    """
    chosen = profile or DEFAULT_PROFILE
    made = _converted(raw, chosen)
    if made.composition is None:
        raise UnsupportedMessage("a piece of a document makes no document", "/" + name_of(made.root))
    conv = made.conv
    system, value = conv.document
    bundle: Json = {"resourceType": "Bundle", "type": "document", "identifier": {"system": system, "value": value}}
    moment = _first_moment(conv)
    if moment:
        bundle["timestamp"] = moment
    kept = [
        (reference, resource)
        for reference, resource in conv.resources.items()
        if resource["resourceType"] not in _NOT_IN_DOCUMENTS or resource["id"] not in made.apart
    ]
    base = conv.profile.base_url
    bundle["entry"] = [{"fullUrl": f"{base}/{reference}", "resource": resource} for reference, resource in kept]
    if chosen.validate:
        _require_valid_document(bundle)
    return ConversionResult(bundle, conv.issues)


@dataclass(frozen=True, slots=True)
class _Converted:
    conv: Conversion
    root: Element
    composition: Json | None
    apart: frozenset[str]
    """Ids of the resources about the document as a file."""


def _converted(raw: bytes, profile: SourceProfile) -> _Converted:
    opened = read(raw, profile)
    conv = Conversion(profile, source_digest(raw))
    conv.document = (original.SOURCE_DIGEST, conv.digest)
    conv.hold(opened.root)
    for doubt in opened.text.doubts:
        conv.issue("warning", "charset", "/", doubt)
    if opened.whole:
        return _whole(conv, opened, raw)
    return _piece(conv, opened, raw)


def _whole(conv: Conversion, opened: Opened, raw: bytes) -> _Converted:
    root = opened.root
    conv.kind = kind_of(root)
    conv.issuer = issuer_of(root, conv.profile)
    conv.dispatcher = chinese.convert if conv.chinese else dispatch.convert
    document = document_key(conv, root)
    node = Node(root)
    template = _template(node)
    node.drop("realmCode", "typeId", "templateId", "id")
    patient = _subject(conv, node)
    numbers = chinese_documents.begin(conv, patient) if conv.chinese and patient is not None else None
    _visit(conv, node, patient)
    made = composition.composition(conv, node, document)
    composition.surroundings(conv, made, node)
    if numbers is not None:
        chinese_documents.prepare(conv, numbers, made)
    found = sections(conv, root, Narratives(root))
    _unstructured(conv, made, root)
    node.drop("component")
    if found:
        made["section"] = found
    if numbers is not None:
        chinese_documents.finish(conv, numbers, made)
    conv.settle()
    encounters.settle_status(conv)
    history.part_from_visit(conv)
    if patient is not None:
        conv.left(patient)
    conv.left(node)
    before = frozenset(conv.resources)
    original.keep(conv, raw, made, document, template)
    original.provenance(conv, made, ADAPTER)
    _first(conv, f"Composition/{made['id']}")
    apart = frozenset(reference.partition("/")[2] for reference in conv.resources if reference not in before)
    return _Converted(conv, root, made, apart)


def _template(node: Node) -> str:
    return next((each.get("root", "") for each in node.kids.get("templateId", ()) if each.get("root")), "")


def _subject(conv: Conversion, node: Node) -> Node | None:
    target = node.first("recordTarget")
    for other in node.take("recordTarget"):
        conv.issue("warning", "not-mapped", other, "only the first patient has a place")
    role = child(target, "patientRole") if target is not None else None
    if role is None:
        _nobody(conv, node.el, "the document names no patient")
        return None
    return patients.patient(conv, role)


def _nobody(conv: Conversion, place: Element, text: str) -> None:
    conv.issue("error", "no-patient", place, text)
    identifier = {"system": original.SOURCE_DIGEST, "value": conv.digest}
    conv.subject = {"type": "Patient", "identifier": identifier, "display": "not named"}


def _visit(conv: Conversion, node: Node, patient: Node | None) -> None:
    component = node.first("componentOf")
    encompassing = child(component, "encompassingEncounter") if component is not None else None
    if patient is not None:
        encounters.of_document(conv, patient, encompassing)
    elif component is not None:
        conv.not_mapped(component)


def _unstructured(conv: Conversion, made: Json, root: Element) -> None:
    """A body that is a file: its content as a document of its own, which a section of the Composition names."""
    body = child(root, "component", "nonXMLBody")
    text = child(body, "text") if body is not None else None
    if text is None:
        return
    content = attachment(conv, text)
    if not content:
        conv.not_mapped(text)
        return
    resource: Json = {
        "resourceType": "DocumentReference",
        "id": conv.place_id("DocumentReference", text),
        "status": "current",
        "type": made["type"],
        "subject": conv.subject,
        "content": [{"attachment": content}],
    }
    made["section"] = [{"title": made["title"], "code": made["type"], "entry": [conv.put(resource)]}]


def _piece(conv: Conversion, opened: Opened, raw: bytes) -> _Converted:
    root = opened.root
    name = name_of(root)
    conv.dispatcher = dispatch.convert
    text = f"a piece of a document ({name}); it names no patient"
    if name == "recordTarget":
        role = child(root, "patientRole")
        if role is not None:
            node = patients.patient(conv, role)
            conv.left(node)
    else:
        _nobody(conv, root, text)
        _convert_piece(conv, root, name)
    conv.settle()
    before = frozenset(conv.resources)
    header: Json = {
        "status": "final",
        "type": {"text": f"CDA {name}"},
        "title": f"CDA {name}",
        "author": [{"display": conv.profile.organization.name or conv.profile.name}],
    }
    original.keep(conv, raw, header, [], "")
    original.provenance(conv, header, ADAPTER)
    apart = frozenset(reference.partition("/")[2] for reference in conv.resources if reference not in before)
    return _Converted(conv, root, None, apart)


def _convert_piece(conv: Conversion, root: Element, name: str) -> None:
    if name in STATEMENTS:
        conv.dispatch(root, Section())
    elif name == "section":
        section(conv, root, Narratives(root))
    elif name in ("component", "entry"):
        for el in root:
            if name_of(el) in STATEMENTS or name_of(el) == "section":
                _convert_piece(conv, el, name_of(el))
            elif name_of(el) == "structuredBody":
                for part in el:
                    _convert_piece(conv, part, "component")
    elif name in ("documentationOf", "participant", "informationRecipient", "informant", "dataEnterer"):
        holder: Json = {}
        node = Node(root)
        node.kids = {name: [root]}
        composition.surroundings(conv, holder, node)
    else:
        who, _ = actors.author(conv, root)
        if who is None:
            conv.not_mapped(root)


def _first(conv: Conversion, reference: str) -> None:
    """Put a resource before all others."""
    resource = conv.resources.pop(reference)
    conv.resources = {reference: resource, **conv.resources}


def _transaction(conv: Conversion) -> Json:
    bundle: Json = {"resourceType": "Bundle", "type": "transaction"}
    moment = times.instant(conv.recorded)
    if moment:
        bundle["timestamp"] = moment
    base = conv.profile.base_url
    bundle["entry"] = [
        entry(base, reference, resource, mention=resource["resourceType"] in MENTIONED)
        for reference, resource in conv.resources.items()
    ]
    return bundle


def _first_moment(conv: Conversion) -> str:
    """The document's time as an instant; a date alone is its first moment (bdl-10 wants one)."""
    if len(conv.recorded) > 10:
        return conv.recorded
    if len(conv.recorded) == 10:
        return times.parse(conv.recorded.replace("-", "") + "000000", conv.profile.time_zone) or ""
    return ""


def _require_valid(bundle: Json) -> None:
    """Raise ValidationError for an invalid entry.

    The original is base64 by its making and as long as all the rest: it is validated with its content left out.
    """
    entries = [_without_content(each) if "data" in each["resource"] else each for each in bundle["entry"]]
    require_valid({**bundle, "entry": entries})


def _without_content(entry: Json) -> Json:
    return {**entry, "resource": {name: value for name, value in entry["resource"].items() if name != "data"}}


def _require_valid_document(bundle: Json) -> None:
    issues: list[Issue] = []
    for each in bundle["entry"]:
        issues += validate(each["resource"])
    envelope = {**bundle, "entry": [{"fullUrl": each["fullUrl"]} for each in bundle["entry"]]}
    issues += validate(envelope)
    if issues:
        raise ValidationError(issues[0].text, issues[0].location)
