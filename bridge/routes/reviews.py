"""The privacy officer's desk over HTTP: emergency accesses to judge."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, request

from anchor import canonical
from bridge.auth import principal, requires
from bridge.errors import InvalidRequest
from bridge.services.audit_event import Party

JSON_TYPE = "application/json"


def reviews_blueprint(node: Any) -> Blueprint:
    """Return /reviews/v1 over ``node.reviews``."""
    blueprint = Blueprint("reviews", __name__, url_prefix="/reviews/v1")

    @blueprint.get("/emergencies")
    @requires("review.write")
    def emergencies() -> Response:
        """Emergency accesses that wait to be judged, the next due first."""
        now = node.clock()
        return answer([{**asdict(each), "overdue": each.overdue(now)} for each in node.reviews.here()])

    @blueprint.post("/emergencies/<id>")
    @requires("review.write")
    def judge(id: str) -> Response:
        """Judge one: {"outcome": "justified" | "unjustified", "note"}."""
        body = texts("outcome", "note")
        return answer(asdict(node.reviews.close(id, body["outcome"], body["note"], caller())))

    return blueprint


def caller() -> Party:
    """Return who is calling, for the audit trail."""
    found = principal()
    return Party(found.id, found.name)


def texts(*names: str) -> dict[str, str]:
    """Read a JSON body of exactly these texts; raises ``InvalidRequest``."""
    value = canonical.load(request.get_data())
    if not isinstance(value, dict) or set(value) != set(names) or not all(isinstance(v, str) for v in value.values()):
        raise InvalidRequest(f"the body has exactly the texts {', '.join(names)}")
    return value


def answer(value: Any) -> Response:
    """Return JSON."""
    return Response(canonical.dump({"items": value} if isinstance(value, list) else value), content_type=JSON_TYPE)
