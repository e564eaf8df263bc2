"""A row of V_IOP_DOCUMENT as a DocumentReference and the Binary with its content."""

import base64
import hashlib
import re

from fhir_adapters.identifiers import binary_id, document_id, identifier
from fhir_adapters.tabular.actors import department, practitioner
from fhir_adapters.tabular.batch import Batch, patient_reference, visit_reference
from fhir_adapters.tabular.rows import Json, Row

DOCUMENT_TYPES = "urn:oid:2.16.156.10011.2.4"
"""Types of the shared documents of WS/T 500 (C0001 to C0053)."""

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
"""Largest content taken, in bytes: a scanned record of some hundred pages."""

_SHARED_DOCUMENT = re.compile(r"C00[0-5][0-9]")
_MIME = re.compile(r"[a-z0-9][a-z0-9.+-]{0,126}/[a-z0-9][a-z0-9.+-]{0,126}")
_MIME_FOR = {
    "": "text/plain", "TXT": "text/plain", "TEXT": "text/plain", "HTML": "text/html", "HTM": "text/html",
    "XML": "application/xml", "CDA": "application/xml", "PDF": "application/pdf", "RTF": "text/rtf",
    "JPG": "image/jpeg", "JPEG": "image/jpeg", "PNG": "image/png", "TIF": "image/tiff", "TIFF": "image/tiff",
    "DOC": "application/msword",
    "DOCX": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}  # fmt: skip
_OTHER_MIME = "application/octet-stream"


def convert_document(row: Row, batch: Batch) -> list[str]:
    """Put the DocumentReference of a row and its Binary; returns the references put."""
    system, number = row.system(), row.text("document_no")
    written = "signed_at" if row.text("signed_at") else "written_at"
    document: Json = {
        "resourceType": "DocumentReference",
        "id": document_id(row.profile, system, number),
        "masterIdentifier": identifier(number, system=system),
        "status": "current",
        "type": _type(row),
        "subject": patient_reference(row),
    }
    if row.text("version_no"):
        version = identifier(f"{number}/{row.text('version_no')}", system=row.local_system("document-version"))
        document["identifier"] = [version]
    _status(row, document)
    moment = row.instant(written)
    if moment:
        document["date"] = moment
    elif row.text(written):
        row.remark("warning", "bad-value", written, "not a point in time; it is left out")
    references = _actors(row, batch, document)
    visit = visit_reference(row)
    if visit is not None:
        document["context"] = {"encounter": [visit]}
    if row.text("replaces_no"):
        other = row.text("replaces_no")
        target = {
            "reference": f"DocumentReference/{document_id(row.profile, system, other)}",
            "identifier": {"system": system, "value": other},
        }
        document["relatesTo"] = [{"code": "replaces", "target": target}]
    attachment, contents = _content(row, batch, system, number)
    if row.text("title"):
        attachment["title"] = row.text("title")
    row.datetime("written_at", attachment, "creation")
    document["content"] = [{"attachment": attachment}]
    return [batch.put(document, owner=True), *contents, *references]


def _type(row: Row) -> Json:
    code, name = row.text("type_code"), row.text("type_name")
    if not code:
        return {"text": name or "病历文书"}
    shared = _SHARED_DOCUMENT.fullmatch(code.upper())
    coding = {"system": DOCUMENT_TYPES if shared else row.local_system("document-type"), "code": code}
    if name:
        coding["display"] = name
    return {"coding": [coding], "text": name or code}


def _status(row: Row, document: Json) -> None:
    found = row.concept("document-status", "status")
    state = found.code if found else "" if row.text("status") else "final"
    if state:
        document["docStatus"] = state
    if state == "entered-in-error":
        document["status"] = "entered-in-error"


def _actors(row: Row, batch: Batch, document: Json) -> list[str]:
    references: list[str] = []
    author = practitioner(row, batch, "author_code", "author_name")
    if author:
        document["author"] = [{"reference": author}]
        references.append(author)
    where = department(row, batch)
    institution = batch.institution()
    if where:
        document.setdefault("author", []).append({"reference": where})
        references.append(where)
    if institution:
        document["custodian"] = institution
        references.append(institution["reference"])
    return references


def _content(row: Row, batch: Batch, system: str, number: str) -> tuple[Json, list[str]]:
    raw, charset = row.content("content")
    attachment: Json = {"contentType": _mime(row, charset)}
    if not raw:
        row.remark("information", "missing", "content", "the document comes without its content")
        return attachment, []
    if len(raw) > MAX_DOCUMENT_BYTES:
        row.remark("error", "bad-value", "content", f"more than {MAX_DOCUMENT_BYTES} bytes; the content is left out")
        return attachment, []
    content: Json = {
        "resourceType": "Binary",
        "id": binary_id(row.profile, system, number),
        "contentType": attachment["contentType"],
        "securityContext": patient_reference(row),
        "data": base64.b64encode(raw).decode(),
    }
    reference = batch.put(content, owner=True)
    # Attachment.hash is SHA-1 by definition (FHIR R4 2.24.0.7): a checksum for the reader, not evidence.
    digest = hashlib.sha1(raw, usedforsecurity=False).digest()
    attachment |= {"url": reference, "size": len(raw), "hash": base64.b64encode(digest).decode()}
    return attachment, [reference]


def _mime(row: Row, charset: str) -> str:
    told = row.text("content_type")
    mime = told.lower() if _MIME.fullmatch(told.lower()) else _MIME_FOR.get(told.upper().lstrip("."), "")
    if not mime:
        row.remark("warning", "unmapped-code", "content_type", "no MIME type is known for it")
        mime = _OTHER_MIME
    textual = mime.startswith("text/") or mime == "application/xml"
    return f"{mime}; charset={charset}" if charset and textual else mime
