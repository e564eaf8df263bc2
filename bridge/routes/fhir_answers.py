"""How FHIR answers look on the wire: headers, Bundles, paging links; the resource bytes are the stored ones."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import Response, request
from werkzeug.exceptions import NotAcceptable

from bridge.errors import SealBroken, SearchParameterError
from bridge.outcomes import FHIR_JSON
from bridge.services.search import PAGE_PARAMETER
from bridge.storage.keyring import DataKey
from bridge.storage.record_versions import StoredVersion

PAGE_AAD = b"yiqiao/page/v1"
JSON_TYPES = ("application/fhir+json", "application/json", "text/json")
JSON_FORMATS = frozenset({"json", *JSON_TYPES})
MAX_TOKEN_CHARACTERS = 16_384  # parameters of a search, sealed

Parameters = list[tuple[str, str]]


def check_accept() -> None:
    """Refuse a request that takes no JSON (http://hl7.org/fhir/R4/http.html#mime-type); ``_format`` beats Accept."""
    wanted = request.args.get("_format")
    if wanted is not None and wanted.partition(";")[0].strip().replace(" ", "+") not in JSON_FORMATS:
        raise NotAcceptable
    if wanted is None and request.accept_mimetypes and not request.accept_mimetypes.best_match(JSON_TYPES):
        raise NotAcceptable


def resource_answer(found: StoredVersion) -> Response:
    """Return one version, or 304 when the caller has it: ETag is the version, Last-Modified its time."""
    response = Response(found.content, content_type=FHIR_JSON)
    response.set_etag(str(found.version), weak=True)
    response.last_modified = _moment(found)
    response.headers["Cache-Control"] = "private, no-cache"  # kept only by the caller, asked again every time
    response.make_conditional(request)
    return response


def search_bundle(base: str, entries: Iterable[StoredVersion], total: int | None, links: dict[str, str]) -> Response:
    """Return a searchset Bundle."""
    items = [
        {
            "fullUrl": f"{base}/{each.type}/{each.id}",
            "resource": orjson.Fragment(each.content),
            "search": {"mode": "match"},
        }
        for each in entries
    ]
    return _bundle("searchset", items, total, links)


def history_bundle(base: str, entries: Iterable[StoredVersion], total: int | None, links: dict[str, str]) -> Response:
    """Return a history Bundle; a deletion is an entry without resource."""
    items = []
    for each in entries:
        item: dict[str, Any] = {"fullUrl": f"{base}/{each.type}/{each.id}"}
        if not each.deleted:
            item["resource"] = orjson.Fragment(each.content)
        item["request"] = {"method": "DELETE" if each.deleted else "PUT", "url": f"{each.type}/{each.id}"}
        status = "204" if each.deleted else "201" if each.version == 1 else "200"
        item["response"] = {"status": status, "etag": f'W/"{each.version}"', "lastModified": each.updated}
        items.append(item)
    return _bundle("history", items, total, links)


def _bundle(kind: str, items: Sequence[dict[str, Any]], total: int | None, links: dict[str, str]) -> Response:
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": kind}
    if total is not None:
        bundle["total"] = total
    bundle["link"] = [{"relation": relation, "url": url} for relation, url in links.items()]
    if items:
        bundle["entry"] = items
    return Response(orjson.dumps(bundle), content_type=FHIR_JSON)


def seal_page(key: DataKey, type: str, parameters: Parameters) -> str:
    """Return search parameters as an opaque token: no identifier stands in a link, and then in a proxy's log."""
    sealed = key.seal(orjson.dumps([type, parameters]), PAGE_AAD)
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def open_page(key: DataKey, type: str, token: str) -> Parameters:
    """Return the parameters of a token made for this type. Raises ``SearchParameterError``."""
    try:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise ValueError("too long")
        sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        of_type, parameters = orjson.loads(key.open(sealed, PAGE_AAD))
    except (binascii.Error, ValueError, SealBroken) as error:
        raise SearchParameterError(f"{PAGE_PARAMETER} is no paging token of this server", PAGE_PARAMETER) from error
    if of_type != type:
        raise SearchParameterError(f"{PAGE_PARAMETER} belongs to another search", PAGE_PARAMETER)
    return [(name, value) for name, value in parameters]


def _moment(found: StoredVersion) -> datetime:
    return datetime.fromisoformat(found.updated).astimezone(UTC)
