"""The consortium's members as FHIR (IHE mCSD) at /directory: Organization, OrganizationAffiliation, Endpoint.

A base of its own: /fhir has the Organizations of this institution's own records.
"""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response, request

from bridge.auth import requires
from bridge.errors import InvalidRequest
from bridge.outcomes import FHIR_JSON
from bridge.routes.fhir_answers import check_accept
from bridge.services.member_directory import MAX_MEMBERS, MemberResources

FORMAT_PARAMETERS = frozenset({"_format", "_pretty"})
MAX_PARAMETERS = 20


def directory_blueprint(node: Any) -> Blueprint:
    """Return /directory of ``node``: what its ledger says of the members."""
    blueprint = Blueprint("directory", __name__, url_prefix="/directory")
    blueprint.before_request(check_accept)
    base = f"{node.settings.node.endpoint.rstrip('/')}/directory"

    @blueprint.get("/<type>/<id>")
    @requires("fhir.read")
    def read(type: str, id: str) -> Response:
        """One resource."""
        return Response(orjson.dumps(members(node).read(type, id)), content_type=FHIR_JSON)

    @blueprint.get("/<type>")
    @requires("fhir.search")
    def search(type: str) -> Response:
        """All resources of a type that fit the parameters."""
        given = [pair for pair in request.args.items(multi=True) if pair[0] not in FORMAT_PARAMETERS]
        if len(given) > MAX_PARAMETERS:
            raise InvalidRequest(f"a search has at most {MAX_PARAMETERS} parameters / 检索参数过多")
        found = members(node).search(type, given)
        entries = [
            {"fullUrl": f"{base}/{type}/{each['id']}", "resource": each, "search": {"mode": "match"}} for each in found
        ]
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "total": len(found)}
        bundle["link"] = [{"relation": "self", "url": f"{base}/{type}"}]
        if entries:  # FHIR JSON has no empty arrays
            bundle["entry"] = entries
        return Response(orjson.dumps(bundle), content_type=FHIR_JSON)

    return blueprint


def members(node: Any) -> MemberResources:
    """Return the members as the ledger has them now; raises ``ChainError``."""
    found = list(node.chain.state_with_prefix("member/", MAX_MEMBERS).values())
    authorities = sorted(str(each["org"]) for each in found if "authority" in each["roles"])
    return MemberResources(node.settings.exchange.authority or authorities[0], found)
