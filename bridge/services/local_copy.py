"""How a record of another institution is kept here: pure functions.

Two hospitals may use one id for two things, so a copy gets an id of its own, made from the holder's org id and the
original id; references inside follow. Copies that may be kept for a limited time only, and copies received after an
earlier set was erased, live in a *space* of their own: their ids, and so their data key, are others, and erasing one
set leaves the others alone. ``meta.source`` names the holder, a tag the original version. The original
bytes and digest are kept beside the copy (``received_record``), since the copy's bytes necessarily differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from bridge.services.audit_event import ACT_REASON, USCC_SYSTEM
from fhir_adapters.extensions import PROJECT
from fhir_adapters.resource_id import resource_id

KEPT_UNTIL = PROJECT + "copies-kept-until"
"""Provenance of received copies: the instant after which they are removed, as the patient's grant asks."""
ORIGINAL_TAG = "urn:yiqiao:original"
_NAMESPACE_KEY = b"yiqiao/received/v1"  # not a secret: original ids are opaque, and the org id is public
_REFERENCE = re.compile(r"([A-Z][A-Za-z]{1,63})/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")
UNLIMITED_TYPES = frozenset({"Organization", "Practitioner", "PractitionerRole", "Location"})
_CONTAINERS = frozenset({dict, list})  # as JSON is parsed to: leaves need no call of their own
_PATIENT_ELEMENTS = ("subject", "patient", "beneficiary", "for", "individual")


def local_id(holder: str, type: str, original_id: str, space: str = "") -> str:
    """Return the id under which a holder's resource is kept here, in the space of that name."""
    namespace = f"urn:yiqiao:org:{holder}" + (f"#{space}" if space else "")
    return resource_id(_NAMESPACE_KEY, type, namespace, original_id)


def local_copy(resource: Mapping[str, Any], *, holder: str, ref: str, space: str = "") -> dict[str, Any]:
    """Return the copy of a resource to be stored here; ``ref`` is the original version's reference.

    Of what is about no patient there is one copy, in no space: a limit is for the patient's records.
    """
    of_patient = "" if resource["resourceType"] in UNLIMITED_TYPES else space
    copy = {name: _moved(value, holder, space) for name, value in resource.items()}
    meta = dict(copy.get("meta") or {})
    tags = [tag for tag in meta.get("tag", ()) if tag.get("system") != ORIGINAL_TAG]
    meta["tag"] = [*tags, {"system": ORIGINAL_TAG, "code": ref}]
    meta["source"] = f"urn:yiqiao:org:{holder}"
    for name in ("versionId", "lastUpdated"):
        meta.pop(name, None)
    return {**copy, "id": local_id(holder, resource["resourceType"], resource["id"], of_patient), "meta": meta}


def subject_of(copy: Mapping[str, Any], patients: Iterable[str]) -> str:
    """Return whose data key seals a copy: its patient's; the node's for resources about no patient."""
    if copy["resourceType"] == "Patient":
        return f"Patient/{copy['id']}"
    known = set(patients)
    for name in _PATIENT_ELEMENTS:
        element = copy.get(name)
        reference = element.get("reference") if isinstance(element, Mapping) else None
        if reference in known:
            return str(reference)
    return "node"


def provenance(
    *,
    request: str,
    page: int,
    holder: str,
    requester: str,
    purpose: str,
    targets: Iterable[str],
    sources: Iterable[str],
    now: int,
    until: int | None,
) -> dict[str, Any]:
    """Return the Provenance of copies received with one page of a release, the holder as agent.

    ``until``: when the copies will be removed (Unix seconds), where the grant limits it.
    """
    participant = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made: dict[str, Any] = {
        "resourceType": "Provenance",
        "id": f"received-{request}" + (f"-{page}" if page else ""),
        "target": [{"reference": target} for target in targets],
        "recorded": moment,
        "reason": [{"coding": [{"system": ACT_REASON, "code": purpose}]}],
        "activity": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle", "code": "receive"}]
        },
        "agent": [
            {
                "type": {"coding": [{"system": participant, "code": code}]},
                "who": {"type": "Organization", "identifier": {"system": USCC_SYSTEM, "value": org}},
            }
            for code, org in (("custodian", holder), ("assembler", requester))
        ],
        "entity": [
            {"role": "source", "what": {"identifier": {"system": f"urn:yiqiao:org:{holder}", "value": source}}}
            for source in sources
        ],
    }
    if until is not None:
        end = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made["extension"] = [{"url": KEPT_UNTIL, "valueInstant": end}]
    return made


def _moved(value: Any, holder: str, space: str) -> Any:
    """Return a value with its literal references led into the holder's namespace."""
    kind = type(value)
    if kind is list:
        return [_moved(child, holder, space) if type(child) in _CONTAINERS else child for child in value]
    if kind is not dict:
        return value
    moved = {
        name: _moved(child, holder, space) if type(child) in _CONTAINERS else child for name, child in value.items()
    }
    reference = moved.get("reference")
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if match:
        there = "" if match[1] in UNLIMITED_TYPES else space
        moved["reference"] = f"{match[1]}/{local_id(holder, match[1], match[2], there)}"
    return moved
