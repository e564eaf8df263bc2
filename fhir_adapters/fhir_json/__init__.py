"""What is FHIR already: a Bundle or a resource, checked, and brought to what is stored.

    convert(raw, profile)   JSON bytes -> a transaction Bundle of PUTs: ids of this node, references within it resolved,
                            every resource valid

A resource that stands alone is created, or updated where it is known. The bytes stored are ours: numbers keep their
digits, and of ``meta`` the version and the time are the node's.
"""

from typing import Any

from cryptography.hazmat.primitives.hashes import SM3, Hash

from fhir_adapters.errors import ParseError
from fhir_adapters.fhir_json.bundle import MAX_ENTRIES, Read, Taken, read_bundle, single
from fhir_adapters.fhir_json.reading import MAX_FHIR_BYTES, read_json
from fhir_adapters.identifiers import identifier, is_valid_uscc, provenance_id
from fhir_adapters.identifiers.build import PROJECT_SYSTEMS
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.result import ConversionResult

__all__ = ["ADAPTER", "MAX_ENTRIES", "MAX_FHIR_BYTES", "REQUEST", "convert", "messages", "read"]

ADAPTER = "fhir/1.0"
"""Name and version of this adapter, as lineage records it."""

REQUEST = "Request"
"""The one Bundle type of our own: a single resource with the HTTP request that brought it (``wrapped``)."""

_AGENT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


def convert(raw: bytes, profile: SourceProfile | None = None) -> ConversionResult:
    """Convert JSON bytes. Raises AdapterError with the FHIRPath of what is wrong, never what stands there.

    Of a batch, entries at fault are issues of severity "error" and the others are taken.
    """
    chosen = profile or DEFAULT_PROFILE
    given = read_json(raw)
    taken = read(given, chosen)
    entries = [_entry(each, chosen) for each in _once(taken.entries)]
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "transaction"}
    moment = given.get("timestamp")
    if entries:
        targets = [each["request"]["url"] for each in entries]
        made = _provenance(raw, targets, moment if isinstance(moment, str) else "", chosen)
        entries.append(_put(chosen, f"Provenance/{made['id']}", made))
        bundle["entry"] = entries
    return ConversionResult(bundle, tuple(taken.issues))


def read(given: dict[str, Any], profile: SourceProfile) -> Read:
    """Read a Bundle, a resource, or a resource in its request, and check what it holds. Raises AdapterError."""
    if given.get("resourceType") == "Bundle" and given.get("type") == REQUEST:
        return single(given.get("resource"), given.get("request"), profile)
    if given.get("resourceType") == "Bundle":
        return read_bundle(given, profile)
    kind, own = given.get("resourceType"), given.get("id")
    if not isinstance(kind, str):
        raise ParseError("not a resource", "resourceType")
    request = {"method": "PUT", "url": f"{kind}/{own}"} if own is not None else {"method": "POST", "url": kind}
    return single(given, request, profile)


def messages(raw: bytes) -> list[bytes]:
    """The Bundles and resources of a file: one JSON object, or one a line (NDJSON)."""
    lines = [line for line in raw.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    # In NDJSON every line is an object of its own; what is written over several lines is one.
    if len(lines) > 1 and all(line.strip().startswith(b"{") and line.strip().endswith(b"}") for line in lines):
        return lines
    return [raw]


def _once(entries: list[Taken]) -> list[Taken]:
    return list({each.reference: each for each in reversed(entries)}.values())[::-1]


def _entry(taken: Taken, profile: SourceProfile) -> dict[str, Any]:
    made = _put(profile, taken.reference, taken.resource)
    if taken.if_none_exist:
        made["request"]["ifNoneExist"] = taken.if_none_exist
    if taken.if_none_exist or taken.only_new:
        made["request"]["ifNoneMatch"] = "*"
    return made


def _put(profile: SourceProfile, reference: str, resource: dict[str, Any]) -> dict[str, Any]:
    return {
        "fullUrl": f"{profile.base_url}/{reference}",
        "resource": resource,
        "request": {"method": "PUT", "url": reference},
    }


def _provenance(raw: bytes, targets: list[str], moment: str, profile: SourceProfile) -> dict[str, Any]:
    """Where the resources come from: the source, and the digest of the bytes that it sent."""
    digest = Hash(SM3())
    digest.update(raw)
    source = digest.finalize().hex()
    who: dict[str, Any] = {"display": profile.organization.name or profile.name}
    if profile.organization.identifier:
        value = profile.organization.identifier
        who["identifier"] = identifier(value, "uscc" if is_valid_uscc(value) else "institution")
    what = {"identifier": {"system": PROJECT_SYSTEMS + "source-digest-sm3", "value": source}, "display": ADAPTER}
    made: dict[str, Any] = {
        "resourceType": "Provenance",
        "id": provenance_id(profile, "fhir", source),
        "target": [{"reference": each} for each in targets],
        "agent": [{"type": {"coding": [{"system": _AGENT, "code": "author", "display": "Author"}]}, "who": who}],
        "entity": [{"role": "source", "what": what}],
    }
    if moment:
        made["recorded"] = moment
    else:
        made["_recorded"] = {"extension": [{"url": _DATA_ABSENT, "valueCode": "unknown"}]}
    return made
