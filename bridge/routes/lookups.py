"""Lookups for the institution's own applications: an EMR asks here what other institutions know of the patient.

``POST /lookups/v1`` finds, asks, receives and verifies, and answers what each institution's answer came to, as `yiqiao
lookup --json` does; copies are then read at /fhir. ``GET /lookups/v1/<request>`` says how a request stands that waits
for a person or broke off. The identifier is in the body, never in an address.

The application names the practitioner and the role; this institution signs for both, and its audit trail has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson
from flask import Blueprint, Response, request

from anchor import canonical
from bridge.auth import requires
from bridge.errors import InvalidRequest
from bridge.routes.reviews import JSON_TYPE, caller
from bridge.services.decision import CATEGORIES, CATEGORY_OF_TYPE, ROLES

NEEDED = ("system", "value", "purpose", "practitioner", "role")
OPTIONAL = ("grant", "emergency", "reason", "holder", "categories")
MAX_LOOKUP_BYTES = 16 * 1024  # a body with every field full has about 3 kB
MAX_CATEGORIES = 64


def lookups_blueprint(node: Any) -> Blueprint:
    """Return /lookups/v1 over ``node.exchange``."""
    blueprint = Blueprint("lookups", __name__, url_prefix="/lookups/v1")

    @blueprint.post("")
    @requires("exchange.lookup")
    def lookup() -> Response:
        """Look a patient up."""
        asked = read_lookup(request.get_data())
        node.audit.record("operation", client=caller(), query=b"lookup")  # there may be nobody to ask: no request then
        result = node.exchange.lookup(**asked)
        return _answer({"holders": [asdict(each) for each in result.holders]})

    @blueprint.get("/<id>")
    @requires("exchange.lookup")
    def status(id: str) -> Response:
        """How one institution's request stands, and the copies that came."""
        return _answer(node.exchange.status(id))

    return blueprint


def read_lookup(raw: bytes) -> dict[str, Any]:
    """Return the arguments of ``ExchangeService.lookup``; raises ``InvalidRequest`` naming the field.

    ``raw`` is a JSON object of texts with exactly ``NEEDED`` and any of ``OPTIONAL``; "categories" is a list of texts.
    """
    value = canonical.load(raw) if len(raw) <= MAX_LOOKUP_BYTES else None
    if not isinstance(value, dict):
        raise InvalidRequest("the body is a JSON object / 请求体须为 JSON 对象")
    unknown = sorted(set(value) - {*NEEDED, *OPTIONAL})
    if unknown:
        raise InvalidRequest(f"a lookup has no field {unknown[0][:40]}; there are {', '.join((*NEEDED, *OPTIONAL))}")
    for name in (*NEEDED, *OPTIONAL):
        if name != "categories" and (name in value or name in NEEDED):
            _check_text(value, name)
    if value["role"] not in ROLES:
        raise InvalidRequest(f"roles are of: {', '.join(sorted(ROLES))} / 角色代码无效")
    return {**value, "categories": _categories(value.get("categories"))}


def _check_text(value: Mapping[str, Any], name: str) -> None:
    text = value.get(name)
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest(f"{name} is a text and not empty / 字段 {name} 须为非空文本")


def _categories(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    known = CATEGORIES | set(CATEGORY_OF_TYPE)
    texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
    if not texts or not 0 < len(value) <= MAX_CATEGORIES or not set(value) <= known:
        raise InvalidRequest(f"categories are a list of: {', '.join(sorted(CATEGORIES))}, or resource types / 类别无效")
    return frozenset(value)


def _answer(value: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(value), content_type=JSON_TYPE)
