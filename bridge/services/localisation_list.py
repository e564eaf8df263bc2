"""The localisation index on the wire: FHIR List resources, one for each institution, pseudonym and category.

A List says that an institution holds records of a category of somebody: ``subject`` is the pseudonym, ``code`` the
category, the custodian an Organization's identifier. It has no entries, and says so with ``emptyReason`` "withheld":
which records there are is the holder's to tell. An institution that holds only what has no category has one List
without a ``code``. Pure functions; the index itself is ``bridge.services.localisation``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bridge.errors import InvalidRequest
from bridge.services.audit_event import USCC_SYSTEM
from fhir_adapters.extensions import LOCALISATION_CUSTODIAN

__all__ = ["CATEGORY_SYSTEM", "PSEUDONYM_SYSTEM", "lists_bundle", "localisations"]

CATEGORY_SYSTEM = "urn:yiqiao:record-category"
PSEUDONYM_SYSTEM = "urn:yiqiao:pseudonym"
_EMPTY_REASON = "http://terminology.hl7.org/CodeSystem/list-empty-reason"


def lists_bundle(type: str, held: Iterable[tuple[str, str, Iterable[str]]]) -> dict[str, Any]:
    """Return a Bundle of Lists; ``held`` gives (institution, pseudonym, categories), ``type`` is the Bundle's."""
    lists: list[dict[str, Any]] = []
    for org, pid, categories in held:
        lists += [_list(org, pid, category) for category in sorted(categories)] or [_list(org, pid, None)]
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": type}
    if type == "searchset":
        bundle["total"] = len(lists)
    if lists:
        bundle["entry"] = [{"resource": each} for each in lists]
    return bundle


def localisations(bundle: Any) -> dict[tuple[str, str], list[str]]:
    """Return the categories of each (institution, pseudonym) that the Lists of a Bundle name, in their order.

    Raises ``InvalidRequest``, which names the place, for anything that is not a Bundle of such Lists.
    """
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        raise InvalidRequest("localisations come as a Bundle of List resources")
    held: dict[tuple[str, str], list[str]] = {}
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        raise InvalidRequest("Bundle.entry is not a list")
    for number, entry in enumerate(entries):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        place = f"Bundle.entry[{number}].resource"
        if not isinstance(resource, dict) or resource.get("resourceType") != "List":
            raise InvalidRequest(f"{place} is not a List")
        if resource.get("status") != "current" or "entry" in resource:
            raise InvalidRequest(f"{place} is not a current List without entries")
        categories = held.setdefault((_custodian(resource, place), _subject(resource, place)), [])
        if "code" in resource:
            categories.append(_coded(resource["code"], f"{place}.code"))
    return held


def _list(org: str, pid: str, category: str | None) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resourceType": "List",
        "extension": [
            {
                "url": LOCALISATION_CUSTODIAN,
                "valueReference": {"type": "Organization", "identifier": {"system": USCC_SYSTEM, "value": org}},
            }
        ],
        "status": "current",
        "mode": "working",
        "subject": {"type": "Patient", "identifier": {"system": PSEUDONYM_SYSTEM, "value": pid}},
        "emptyReason": {"coding": [{"system": _EMPTY_REASON, "code": "withheld"}]},
    }
    if category is not None:
        resource["code"] = {"coding": [{"system": CATEGORY_SYSTEM, "code": category}]}
    return resource


def _custodian(resource: Mapping[str, Any], place: str) -> str:
    extensions = resource.get("extension")
    for extension in extensions if isinstance(extensions, list) else []:
        if isinstance(extension, dict) and extension.get("url") == LOCALISATION_CUSTODIAN:
            return _identified(extension.get("valueReference"), USCC_SYSTEM, f"{place}.extension")
    raise InvalidRequest(f"{place}.extension does not name the custodian")


def _subject(resource: Mapping[str, Any], place: str) -> str:
    return _identified(resource.get("subject"), PSEUDONYM_SYSTEM, f"{place}.subject")


def _identified(reference: Any, system: str, place: str) -> str:
    identifier = reference.get("identifier") if isinstance(reference, dict) else None
    if not isinstance(identifier, dict) or identifier.get("system") != system:
        raise InvalidRequest(f"{place}.identifier is not of its system")
    value = identifier.get("value")
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{place}.identifier.value is missing")
    return value


def _coded(code: Any, place: str) -> str:
    codings = code.get("coding") if isinstance(code, dict) else None
    for coding in codings if isinstance(codings, list) else []:
        if isinstance(coding, dict) and coding.get("system") == CATEGORY_SYSTEM and isinstance(coding.get("code"), str):
            return str(coding["code"])
    raise InvalidRequest(f"{place} has no category")
