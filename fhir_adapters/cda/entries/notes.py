"""Notes (4.202) and media inside a document: DocumentReference and Media."""

import base64
import re

from fhir_adapters.base64_text import as_base64
from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, times
from fhir_adapters.cda.datatypes.nulls import absent_concept
from fhir_adapters.cda.entries.observations import encounter_of
from fhir_adapters.cda.entries.statement import Section, Statement, comment, loosely_nested
from fhir_adapters.cda.node import child
from fhir_adapters.xml.tree import Element, text_in

_MIME = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_ABSOLUTE = re.compile(r"(?:https?://|urn:)[^\s\"<>\\^`{|}]+")


def attachment(conv: Conversion, el: Element) -> Json:
    """The Attachment of an ED: base64 content, text, or the name of a file elsewhere; {} when it holds nothing."""
    made: Json = {}
    kind = el.get("mediaType", "").strip()
    if _MIME.fullmatch(kind):
        made["contentType"] = kind
    if el.get("language"):
        made["language"] = el.get("language", "").strip()
    if el.get("representation") == "B64":
        data = as_base64(text_in(el))
        if data is not None:
            return {**made, "data": data} if data else {}
        conv.issue("warning", "bad-value", el, "not base64, as its representation says; left out")
        return {}
    text = concepts.text_of(conv, el)
    if text:
        made.setdefault("contentType", "text/plain")
        made["data"] = base64.b64encode(text.encode("utf-8")).decode()
        return made
    reference = child(el, "reference")
    target = reference.get("value", "").strip() if reference is not None else ""
    if not target or target.startswith("#"):
        return {}
    # A file beside the document: never fetched; its name is all that is known here.
    if _ABSOLUTE.fullmatch(target):
        made["url"] = target
    else:
        made["title"] = target
    conv.issue("information", "external-reference", reference if reference is not None else el, "named, not fetched")
    return made


def note(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the DocumentReference of a note activity."""
    statement = Statement(conv, el, section)
    text_el = statement.node.first("text")
    content = attachment(conv, text_el) if text_el is not None else {}
    resource = statement.resource("DocumentReference")
    status = statement.status()
    resource["status"] = "current"
    resource["docStatus"] = "final" if status in ("completed", "") else "preliminary"
    resource["type"] = statement.code() or absent_concept("unknown")
    resource["subject"] = conv.subject
    authors = statement.authors(resource, "date")
    if authors:
        resource["author"] = authors
    for _, _, el_participant in statement.participants():
        conv.not_mapped(el_participant)
    context: Json = {}
    when_el = statement.effective()
    if when_el is not None:
        found = times.period(conv, when_el)
        if found:
            context["period"] = found
    if conv.encounter is not None:
        context["encounter"] = [{"reference": f"Encounter/{conv.encounter['id']}"}]
    resource["content"] = [{"attachment": content or {"title": "no content"}}]
    if context:
        resource["context"] = context
    apart: list[Json] = []
    for relation in statement.relations():
        if not comment(statement, {}, relation):
            apart += loosely_nested(statement, relation)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def media(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """Make the Media of an observationMedia."""
    statement = Statement(conv, el, section)
    value = statement.node.first("value")
    content = attachment(conv, value) if value is not None else {}
    for _, _, participant in statement.participants():
        conv.not_mapped(participant)
    if not content:
        statement.finish()
        return []
    resource = statement.resource("Media", status="completed", subject=conv.subject)
    encounter_of(conv, resource)
    resource["content"] = content
    apart: list[Json] = []
    for relation in statement.relations():
        if not comment(statement, resource, relation):
            apart += loosely_nested(statement, relation)
    statement.node.drop("languageCode")
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]
