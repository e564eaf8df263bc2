"""The consortium's members as a care services directory (IHE mCSD 4.0 shapes), made from the ledger alone.

A member is an Organization (its id: the org id), a membership an OrganizationAffiliation with the authority, the
address of its node an Endpoint. Nothing is stored: what the ledger says now is what is answered. Pure functions of
member records (``anchor.contracts.members``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridge.errors import NotFound, SearchParameterError
from bridge.services.audit_event import USCC_SYSTEM

Member = Mapping[str, Any]

MCSD = "https://profiles.ihe.net/ITI/mCSD/StructureDefinition/IHE.mCSD."
ROLE_SYSTEM = "urn:yiqiao:member-role"
CONNECTION_SYSTEM = "urn:yiqiao:connection"
CONNECTION = "exchange-v1"  # signed requests to /exchange/v1 (ADR 0009)
MAX_MEMBERS = 1_000  # members of a consortium that are listed; the ledger's own bound is lower
PARAMETERS: Mapping[str, frozenset[str]] = {
    "Organization": frozenset({"_id", "identifier", "name", "active", "type"}),
    "OrganizationAffiliation": frozenset(
        {"_id", "active", "role", "primary-organization", "participating-organization"}
    ),
    "Endpoint": frozenset({"_id", "status", "organization", "connection-type"}),
}
"""The search parameters of each type; mCSD's ITI-90 asks for more, which have nothing to search here."""


@dataclass(frozen=True, slots=True)
class MemberResources:
    """The members as resources. ``authority``: the org id of the authority that they are affiliated with."""

    authority: str
    members: Sequence[Member]

    def read(self, type: str, id: str) -> dict[str, Any]:
        """Return one resource; raises ``NotFound``."""
        for resource in self._all(type):
            if resource["id"] == id:
                return resource
        raise NotFound("the directory has no such resource / 目录中没有该资源")

    def search(self, type: str, parameters: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
        """Return the resources that fit all parameters, by org id; raises ``NotFound``, ``SearchParameterError``."""
        found = self._all(type)
        for name, value in parameters:
            if name not in PARAMETERS[type]:
                raise SearchParameterError(f"{name} is no search parameter of {type} here", name)
            found = [each for each in found if any(_fits(each, name, one) for one in value.split(","))]
        return found

    def _all(self, type: str) -> list[dict[str, Any]]:
        if type not in PARAMETERS:
            raise NotFound("the directory has Organization, OrganizationAffiliation and Endpoint / 目录只有这三类资源")
        members = sorted(self.members, key=lambda each: str(each["org"]))
        if type == "Organization":
            return [organization(each) for each in members]
        if type == "Endpoint":
            return [endpoint(each) for each in members if each["endpoint"]]
        return [affiliation(each, self.authority) for each in members]


def organization(member: Member) -> dict[str, Any]:
    """Return a member as Organization."""
    resource: dict[str, Any] = {
        "resourceType": "Organization",
        "id": member["org"],
        "meta": {"profile": [MCSD + "Organization"]},
        "identifier": [{"system": USCC_SYSTEM, "value": member["org"]}],
        "active": member["status"] == "active",
        "type": [_role(role) for role in sorted(member["roles"])],
        "name": member["name"],
    }
    if member["endpoint"]:
        resource["endpoint"] = [{"reference": f"Endpoint/{member['org']}"}]
    return resource


def affiliation(member: Member, authority: str) -> dict[str, Any]:
    """Return a membership as OrganizationAffiliation: the member takes part, the authority is primary."""
    resource: dict[str, Any] = {
        "resourceType": "OrganizationAffiliation",
        "id": member["org"],
        "meta": {"profile": [MCSD + "OrganizationAffiliation"]},
        "active": member["status"] == "active",
        "organization": {"reference": f"Organization/{authority}"},
        "participatingOrganization": {"reference": f"Organization/{member['org']}"},
        "code": [_role(role) for role in sorted(member["roles"])],
    }
    if member["endpoint"]:
        resource["endpoint"] = [{"reference": f"Endpoint/{member['org']}"}]
    return resource


def endpoint(member: Member) -> dict[str, Any]:
    """Return the address of a member's node as Endpoint; its period is that of the keys it signs with."""
    live = [key for key in member["keys"] if key["use"] == "sign" and key["until"] is None]
    resource: dict[str, Any] = {
        "resourceType": "Endpoint",
        "id": member["org"],
        "meta": {"profile": [MCSD + "Endpoint"]},
        "status": "active" if member["status"] == "active" else "suspended",
        "connectionType": {"system": CONNECTION_SYSTEM, "code": CONNECTION},
        "managingOrganization": {"reference": f"Organization/{member['org']}"},
        "payloadType": [{"text": "FHIR R4 Bundle, signed and sealed / 已签名加密的 FHIR R4 数据包"}],
        "payloadMimeType": ["application/fhir+json"],
        "address": member["endpoint"],
    }
    if live:
        since = datetime.fromtimestamp(min(key["from"] for key in live), UTC)
        resource["period"] = {"start": since.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return resource


def _role(role: str) -> dict[str, Any]:
    return {"coding": [{"system": ROLE_SYSTEM, "code": role}]}


def _fits(resource: Mapping[str, Any], name: str, value: str) -> bool:
    """Whether a resource has a parameter's value (http://hl7.org/fhir/R4/search.html: token, string, reference)."""
    if name == "_id":
        return bool(resource["id"] == value)
    if name == "name":
        return str(resource["name"]).casefold().startswith(value.casefold())
    if name in ("active", "status"):
        return str(resource[name]).lower() == value
    if name == "identifier":
        return _token(value, USCC_SYSTEM, (str(each["value"]) for each in resource["identifier"]))
    if name in ("type", "role"):
        codes = (each["coding"][0]["code"] for each in resource["type" if name == "type" else "code"])
        return _token(value, ROLE_SYSTEM, codes)
    if name == "connection-type":
        return _token(value, CONNECTION_SYSTEM, [CONNECTION])
    element = {"organization": "managingOrganization", "primary-organization": "organization"}
    reference = resource[element.get(name, "participatingOrganization")]["reference"]
    return reference in (value, f"Organization/{value}")


def _token(value: str, system: str, codes: Iterable[str]) -> bool:
    given, separator, code = value.rpartition("|")
    return (not separator or given == system) and code in codes
