"""TXA and its OBX: the DocumentReference and its content (guide: TXA[DocumentReference], OBX[DocumentReference]).

The content is a Binary of its own, referred to by the attachment: a search over documents does not carry their pages.
"""

import base64

from fhir_adapters.extensions import DOCUMENT_AVAILABILITY
from fhir_adapters.hl7v2.context import Conversion, Json, add_extension, keep_original
from fhir_adapters.hl7v2.datatypes import actors, attachments, business_ids, concepts, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments.allergies import key_of
from fhir_adapters.identifiers import binary_id, document_id

# TXA-17, table 0271, as DocumentReference.docStatus.
_DOC_STATUS = {
    "DI": "preliminary",
    "DO": "preliminary",
    "IP": "preliminary",
    "IN": "preliminary",
    "PA": "preliminary",
    "AU": "final",
    "LA": "final",
    "DOC": "final",
    "F": "final",
}
# TXA-19, table 0273: what can be had, what cannot any more, what was taken back.
_STATUS = {"AV": "current", "OB": "superseded", "CA": "entered-in-error", "UN": "current"}
# TXA-18, table 0272, as v3 Confidentiality.
_CONFIDENTIALITY = {"V": ("V", "very restricted"), "R": ("R", "restricted"), "U": ("N", "normal")}
_SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_AVAILABILITY = "http://terminology.hl7.org/CodeSystem/v2-0273"
# TXA-3, table 0191.
_PRESENTATION = {"TX": "text/plain", "TEXT": "text/plain", "FT": "text/plain", "MT": "multipart/related"}
TEXTS = frozenset({"TX", "FT", "ST", ""})
CONTENTS = TEXTS | {"ED", "RP"}
"""OBX-2 of what is the document itself; any other type under a TXA is an Observation."""


def document(conv: Conversion, txa: Segment, subject: Json, encounter: Json | None, status: str) -> Json:
    """Make the DocumentReference of a TXA (not added: it needs its content); ``status`` is the event's, "" for none."""
    txa.take(1)
    resource: Json = {"resourceType": "DocumentReference", "id": ""}
    _identify(conv, resource, txa)
    _status(conv, resource, txa, status)
    kind = concepts.concept(conv, txa, 2)
    if kind is not None:
        resource["type"] = kind
    resource["subject"] = subject
    _when(conv, resource, txa)
    _people(conv, resource, txa)
    confidential = conv.text(txa.peek(18))
    if confidential in _CONFIDENTIALITY:
        txa.take(18)
        code, display = _CONFIDENTIALITY[confidential]
        coding = {"system": _SYSTEM, "code": code, "display": display}
        resource["securityLabel"] = [{"coding": [coding]}]
    title = "\n".join(text for raw in txa.take(25).split("~") if (text := conv.text(raw)))
    if title:
        resource["description"] = title
    folder = concepts.concepts(conv, txa, 24) if txa.peek(24) else []
    if folder:
        resource["category"] = folder
    _context(conv, resource, txa, encounter)
    return resource


def _identify(conv: Conversion, resource: Json, txa: Segment) -> None:
    made = business_ids.entity(conv, txa.take(12))
    file = conv.text(txa.take(16))
    if made is not None:
        resource["masterIdentifier"] = made
        resource["id"] = document_id(conv.profile, *business_ids.key_of(made))
    elif file:
        resource["id"] = document_id(conv.profile, conv.local_system("file"), file)
    else:
        conv.issue("warning", "no-identifier", txa, 12, "no document number; the id holds for this message only")
        resource["id"] = document_id(conv.profile, conv.local_system("message"), conv.message_key(txa.where(12)))
    if file:
        resource["identifier"] = [{"system": conv.local_system("file"), "value": file}]


def _status(conv: Conversion, resource: Json, txa: Segment, status: str) -> None:
    raw = conv.text(txa.take(19))
    resource["status"] = status or _STATUS.get(raw, "current")
    if raw and raw not in _STATUS:
        conv.unmapped_code("availability status", txa, 19)
    elif raw == "UN":  # not to be had now, but current
        coding = {"system": _AVAILABILITY, "code": "UN", "display": "Unavailable for patient care"}
        add_extension(resource, DOCUMENT_AVAILABILITY, "valueCoding", coding)
    done = conv.text(txa.peek(17))
    if done in _DOC_STATUS:
        txa.take(17)
        resource["docStatus"] = _DOC_STATUS[done]
    elif done:
        conv.unmapped_code("completion status", txa, 17)


def _when(conv: Conversion, resource: Json, txa: Segment) -> None:
    """TXA-6 when it was written, else TXA-4 when what it tells of happened, TXA-7 when it was typed."""
    for number in (6, 4, 7):
        if txa.peek(number) and "date" not in resource:
            resource.pop("_date", None)
            timestamps.put_instant(conv, resource, "date", txa, number)


def _people(conv: Conversion, resource: Json, txa: Segment) -> None:
    authors: list[Json] = []
    for number in (9, 5):
        for reference in actors.practitioners(conv, txa, number) if txa.peek(number) else ():
            if reference not in authors:
                authors.append(reference)
    if authors:
        resource["author"] = authors
    signed = _authenticator(conv, txa)
    if signed is not None:
        resource["authenticator"] = signed
    typist = actors.practitioners(conv, txa, 11) if txa.peek(11) else []
    for reference in typist:
        conv.agents.setdefault(("composer", str(reference["reference"])), reference)


def _authenticator(conv: Conversion, txa: Segment) -> Json | None:
    """TXA-22: who signed, in a PPN with the time as its 15th component; TXA-10 who is to."""
    raw = txa.take(22).split("~")[0]
    if raw:
        parts = raw.split("^")
        reference = actors.practitioner_raw(conv, "^".join(parts[:14]), txa, 22)
        if len(parts) > 14 and any(parts[14:]):
            conv.not_mapped(txa, 22, 15)
        if reference is not None:
            return reference
    return actors.practitioner(conv, txa, 10) if txa.peek(10) else None


def _context(conv: Conversion, resource: Json, txa: Segment, encounter: Json | None) -> None:
    context: Json = {}
    if encounter is not None:
        context["encounter"] = [encounter]
    for number, kind in ((14, "PLAC"), (15, "FILL")):
        for raw in txa.take(number).split("~") if txa.peek(number) else ():
            made = business_ids.entity(conv, raw, kind)
            if made is not None:
                context.setdefault("related", []).append({"type": "ServiceRequest", "identifier": made})
    if context:
        resource["context"] = context


def relate(conv: Conversion, resource: Json, txa: Segment, code: str) -> None:
    """TXA-13: the document that this one replaces (T09, T10) or appends (T05, T06)."""
    parent = business_ids.entity(conv, txa.take(13)) if txa.peek(13) else None
    if parent is not None and code:
        target = {"type": "DocumentReference", "identifier": parent}
        resource["relatesTo"] = [{"code": code, "target": target}]
        if code == "replaces":
            superseded(conv, parent, resource["subject"])
    elif parent is not None:
        resource.setdefault("context", {}).setdefault("related", []).append(
            {"type": "DocumentReference", "identifier": parent}
        )


def contents(conv: Conversion, resource: Json, txa: Segment, lines: list[Segment]) -> None:
    """Put the OBX of a document into its content: text lines joined as one, every ED and RP on its own.

    FHIR requires content: a document of which only the notice came (T01) says so.
    """
    presentation = _PRESENTATION.get(conv.text(txa.take(3)).upper(), "")
    found: list[Json] = []
    text: list[str] = []
    title: Json | None = None
    for obx in lines:
        kind = obx.peek(2).strip()
        if kind in TEXTS:
            title = title or concepts.concept(conv, obx, 3)
            obx.take(3)  # one heading for all the lines
            text += _text_of(conv, obx)
            continue
        found += _attached(conv, obx, kind)
    if text:
        body = "\n".join(text)
        made = {"contentType": "text/plain; charset=utf-8", "data": base64.b64encode(body.encode()).decode()}
        found.insert(0, _titled(made, title))
    resource["content"] = [{"attachment": _stored(conv, resource, each, at)} for at, each in enumerate(found)]
    if not found:
        empty: Json = {"contentType": presentation} if presentation else {}
        keep_original(empty, "url", "", "unknown")
        resource["content"] = [{"attachment": empty}]
    for segment in lines:
        for number in (1, 4, 11, 14):  # place, sub-id, status and time of a line are the document's own
            segment.take(number)


def superseded(conv: Conversion, parent: Json, subject: Json) -> None:
    """The document of a number that another one replaces (amended: what is stored of it stays)."""
    resource: Json = {
        "resourceType": "DocumentReference",
        "id": document_id(conv.profile, *business_ids.key_of(parent)),
        "masterIdentifier": parent,
        "status": "superseded",
        "subject": subject,
    }
    empty: Json = {}
    keep_original(empty, "url", "", "unknown")
    resource["content"] = [{"attachment": empty}]
    conv.amend(resource, "status")


def _text_of(conv: Conversion, obx: Segment) -> list[str]:
    obx.take(2)
    return [conv.text(repetition) for repetition in obx.take(5).split("~")]


def _attached(conv: Conversion, obx: Segment, kind: str) -> list[Json]:
    """The attachments of an ED or RP, one for each repetition."""
    title = concepts.concept(conv, obx, 3)
    found: list[Json] = []
    obx.take(2)
    for raw in obx.take(5).split("~"):
        made = attachments.encapsulated(conv, raw) if kind == "ED" else attachments.pointer(conv, raw)
        if made is None:
            conv.issue(
                "warning", "bad-value", obx, 5, "encapsulated data does not have the encoding it names; kept as text"
            )
            made = attachments.text_attachment(conv.text(raw))
        if made:
            found.append(_titled(made, title))
    return found


def _titled(made: Json, title: Json | None) -> Json:
    if title is not None and "title" not in made:
        made["title"] = title.get("text") or title["coding"][0].get("display") or key_of(title)
    return made


def _stored(conv: Conversion, resource: Json, made: Json, number: int) -> Json:
    """Move the data of an attachment into a Binary (added), which it then points to."""
    data = made.pop("data", None)
    if data is None:
        return made
    binary: Json = {
        "resourceType": "Binary",
        "id": binary_id(conv.profile, "DocumentReference", f"{resource['id']}#{number}"),
        "contentType": made.get("contentType", "application/octet-stream"),
        "securityContext": {"reference": f"DocumentReference/{resource['id']}"},
        "data": data,
    }
    made.setdefault("contentType", binary["contentType"])
    made["url"] = conv.put(binary)
    made["size"] = len(data) // 4 * 3 - data[-2:].count("=")
    return made
