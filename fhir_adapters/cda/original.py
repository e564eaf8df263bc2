"""The document as it came, and where everything came from: DocumentReference, Binary, Provenance."""

import base64

from fhir_adapters.cda.context import PROJECT_EXTENSIONS, Conversion, Json, absent
from fhir_adapters.cda.datatypes import times
from fhir_adapters.identifiers import binary_id, document_id, identifier, is_valid_uscc, provenance_id
from fhir_adapters.identifiers.build import PROJECT_SYSTEMS

ATTACHMENT_SM3 = PROJECT_EXTENSIONS + "attachment-sm3"
"""Extension of Attachment: hex SM3 of the bytes it points to (Attachment.hash is SHA-1 by definition)."""

SOURCE_DIGEST = PROJECT_SYSTEMS + "source-digest-sm3"
CONTENT_TYPE = "application/cda+xml"  # IANA, registered by HL7
_AGENT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"


def keep(conv: Conversion, raw: bytes, composition: Json, document: list[Json], template: str) -> None:
    """Put the bytes as a Binary, and a DocumentReference that says what they are."""
    system, value = conv.document
    binary: Json = {"resourceType": "Binary", "id": binary_id(conv.profile, system, value), "contentType": CONTENT_TYPE}
    if conv.subject.get("reference"):
        binary["securityContext"] = conv.subject
    binary["data"] = base64.b64encode(raw).decode()
    held = conv.put(binary)
    resource: Json = {"resourceType": "DocumentReference", "id": document_id(conv.profile, system, value)}
    if document:
        resource["masterIdentifier"] = document[0]
    own = composition.get("identifier")
    if own is not None and own not in document:
        resource["identifier"] = [own]
    resource["status"] = "current"
    resource["docStatus"] = composition["status"]
    resource["type"] = composition["type"]
    resource["subject"] = conv.subject
    if times.instant(conv.recorded):
        resource["date"] = conv.recorded
    resource["author"] = [each for each in composition["author"] if "reference" in each]
    if not resource["author"]:
        del resource["author"]
    if "custodian" in composition:
        resource["custodian"] = composition["custodian"]
    legal = next(
        (each for each in composition.get("attester", ()) if each["mode"] == "legal" and "party" in each), None
    )
    if legal is not None:
        resource["authenticator"] = legal["party"]
    for each in composition.get("relatesTo", ()):
        target = {"type": "DocumentReference", "identifier": each["targetIdentifier"]}
        resource.setdefault("relatesTo", []).append({"code": each["code"], "target": target})
    attachment: Json = {
        "extension": [{"url": ATTACHMENT_SM3, "valueString": conv.digest}],
        "contentType": CONTENT_TYPE,
        "url": held["reference"],
        "size": len(raw),
        "title": composition["title"],
    }
    content: Json = {"attachment": attachment}
    if template:
        content["format"] = {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{template}"}
    resource["content"] = [content]
    if conv.encounter is not None:
        resource["context"] = {"encounter": [{"reference": f"Encounter/{conv.encounter['id']}"}]}
    conv.put(resource)


def provenance(conv: Conversion, composition: Json, adapter: str) -> None:
    """Put the Provenance of everything made so far."""
    resource: Json = {
        "resourceType": "Provenance",
        "id": provenance_id(conv.profile, conv.document[0], conv.document[1]),
        "target": [{"reference": reference} for reference in conv.resources],
    }
    recorded = times.instant(conv.recorded)
    if recorded:
        resource["recorded"] = recorded
    else:
        resource["_recorded"] = absent("unknown", conv.recorded)
    agents = [_agent("author", each) for each in composition["author"]]
    if "custodian" in composition:
        agents.append(_agent("custodian", composition["custodian"]))
    else:
        agents.append(_agent("assembler", _sender(conv)))
    resource["agent"] = agents
    what: Json = {"identifier": {"system": SOURCE_DIGEST, "value": conv.digest}, "display": f"{adapter} CDA"}
    resource["entity"] = [{"role": "source", "what": what}]
    conv.put(resource)


def _agent(kind: str, who: Json) -> Json:
    return {"type": {"coding": [{"system": _AGENT, "code": kind}]}, "who": who}


def _sender(conv: Conversion) -> Json:
    told = conv.profile.organization
    who: Json = {"display": told.name or conv.profile.name}
    if told.identifier:
        who["identifier"] = identifier(told.identifier, "uscc" if is_valid_uscc(told.identifier) else "institution")
    return who
