"""FHIR R4 over HTTP (http://hl7.org/fhir/R4/http.html): read, vread, history, search.

Records come by way of the inbox; ``fhir_writes`` has what clients may write.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import UnsupportedMediaType

from bridge.auth import principal, requires
from bridge.errors import PermissionDenied
from bridge.routes.fhir_answers import (
    Parameters,
    check_accept,
    history_bundle,
    open_page,
    resource_answer,
    seal_page,
    search_bundle,
)
from bridge.services.audit_event import Party
from bridge.services.reading import count_of, offset_of, since_of
from bridge.services.search import PAGE_PARAMETER, SearchResult

FORM = "application/x-www-form-urlencoded"
AUDIT_TRAIL = "AuditEvent"
OFFSET_PARAMETER = "_offset"


def fhir_blueprint(node: Any) -> Blueprint:
    """Return /fhir of ``node``."""
    blueprint = Blueprint("fhir", __name__, url_prefix="/fhir")
    blueprint.before_request(check_accept)
    base = f"{node.settings.node.endpoint.rstrip('/')}/fhir"
    _add_reads(blueprint, node, base)
    _add_searches(blueprint, node, base)
    return blueprint


def _add_reads(blueprint: Blueprint, node: Any, base: str) -> None:
    @blueprint.get("/<type>/<id>")
    @requires("fhir.read")
    def read(type: str, id: str) -> Response:
        """The current version of a resource."""
        return resource_answer(node.reading.read(_client(type), type, id))

    @blueprint.get("/<type>/<id>/_history/<version>")
    @requires("fhir.read")
    def vread(type: str, id: str, version: str) -> Response:
        """One version of a resource."""
        return resource_answer(node.reading.vread(_client(type), type, id, version))

    @blueprint.get("/<type>/<id>/_history")
    @requires("fhir.read")
    def history(type: str, id: str) -> Response:
        """The versions of a resource, newest first."""
        count, offset = count_of(request.args.get("_count")), offset_of(request.args.get(OFFSET_PARAMETER))
        page = node.reading.history(_client(type), type, id, count, offset)
        more = offset + len(page.entries) < (page.total or 0)
        links = _links(f"{base}/{type}/{id}/_history", count, offset, more)
        return history_bundle(base, page.entries, page.total, links)

    @blueprint.get("/<type>/_history")
    @requires("fhir.read")
    def type_history(type: str) -> Response:
        """The versions of all resources of a type, newest first."""
        count, offset = count_of(request.args.get("_count")), offset_of(request.args.get(OFFSET_PARAMETER))
        since = request.args.get("_since")
        page = node.reading.type_history(_client(type), type, count, offset, since_of(since))
        more = len(page.entries) == count
        return history_bundle(base, page.entries, None, _links(f"{base}/{type}/_history", count, offset, more, since))


def _add_searches(blueprint: Blueprint, node: Any, base: str) -> None:
    @blueprint.get("/<type>")
    @requires("fhir.search")
    def search(type: str) -> Response:
        """Search with the parameters in the URL; a paging link carries them sealed."""
        parameters = list(request.args.items(multi=True))
        token = request.args.get(PAGE_PARAMETER)
        if token is not None:
            parameters = open_page(node.keyring.node_key(), type, token)
        return _found(node, base, type, parameters)

    @blueprint.post("/<type>/_search")
    @requires("fhir.search")
    def search_by_post(type: str) -> Response:
        """Search with the parameters in the body, where no proxy logs them."""
        if request.mimetype != FORM and request.content_length:
            raise UnsupportedMediaType  # parameters that are not read would make an unfiltered answer
        parameters = [*request.args.items(multi=True), *request.form.items(multi=True)]
        return _found(node, base, type, parameters)


def _found(node: Any, base: str, type: str, parameters: Parameters) -> Response:
    """Run a search and render its page with links that can be followed without the parameters in clear."""
    result: SearchResult = node.reading.search(_client(type), type, parameters)
    key, plain = node.keyring.node_key(), [pair for pair in parameters if pair[0] != PAGE_PARAMETER]
    links = {"self": f"{base}/{type}?{PAGE_PARAMETER}={seal_page(key, type, parameters)}"}
    if result.next_token:
        following = seal_page(key, type, [*plain, (PAGE_PARAMETER, result.next_token)])
        links["next"] = f"{base}/{type}?{PAGE_PARAMETER}={following}"
    return search_bundle(base, result.page.entries, result.page.total, links)


def _links(url: str, count: int, offset: int, more: bool, since: str | None = None) -> dict[str, str]:
    """Paging links of a history; ids are the resource's own, never a person's identifier."""
    fixed = f"_count={count}" + (f"&_since={since.replace('+', '%2B')}" if since else "")
    links = {"self": f"{url}?{fixed}&{OFFSET_PARAMETER}={offset}"}
    if more:
        links["next"] = f"{url}?{fixed}&{OFFSET_PARAMETER}={offset + count}"
    return links


def _client(type: str) -> Party:
    """Return the caller for the audit trail; the trail itself is shown to who may see the node's operations."""
    caller = principal()
    if type == AUDIT_TRAIL and "audit.read" not in caller.permissions:
        raise PermissionDenied("the audit trail is shown to operators and privacy officers only")
    return Party(caller.id, caller.name)
