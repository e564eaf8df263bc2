"""Specimens of results and procedures."""

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, ids
from fhir_adapters.cda.node import Node, child, said
from fhir_adapters.identifiers import specimen_id
from fhir_adapters.xml.tree import Element


def specimens(conv: Conversion, elements: list[Element]) -> list[Json]:
    """References to the Specimens that ``specimen`` elements name."""
    return [made for el in elements if (made := _specimen(conv, el)) is not None]


def _specimen(conv: Conversion, el: Element) -> Json | None:
    role = child(el, "specimenRole")
    if role is None or not said(role):
        return None
    node = Node(role)
    node.drop("templateId")
    made = ids.identifiers(conv, node.take("id"))
    playing = node.first("specimenPlayingEntity")
    resource: Json = {"resourceType": "Specimen", "id": "", "subject": conv.subject}
    if made:
        resource["identifier"] = made
        resource["id"] = specimen_id(conv.profile, made[0]["system"], made[0]["value"])
    else:
        resource["id"] = conv.place_id("Specimen", role)
    if playing is not None:
        inner = Node(playing)
        kind = concepts.concept(conv, inner.first("code"))
        name = inner.first("name")
        if kind is None and name is not None:
            text = concepts.text_of(conv, name)
            kind = {"text": text} if text else None
        if kind:
            resource["type"] = kind
        for desc in inner.take("desc"):
            text = concepts.text_of(conv, desc)
            if text:
                resource["note"] = [{"text": text}]
        conv.left(inner)
    conv.left(node)
    return conv.put(resource)
