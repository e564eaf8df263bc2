"""The privacy officer's desk over HTTP: requests of other institutions that a person here is asked about."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response

from bridge.auth import requires
from bridge.errors import InvalidRequest
from bridge.routes.reviews import answer, caller, texts


def releases_blueprint(node: Any) -> Blueprint:
    """Return /releases/v1 over ``node.approvals`` and ``node.exchange_parts``."""
    blueprint = Blueprint("releases", __name__, url_prefix="/releases/v1")

    @blueprint.get("/requests")
    @requires("review.write")
    def waiting() -> Response:
        """Requests that wait for a person here, the next due first."""
        return answer([asdict(each) for each in node.approvals.waiting()])

    @blueprint.post("/requests/<id>")
    @requires("review.write")
    def decide(id: str) -> Response:
        """Answer one: {"decision": "approve" | "refuse", "note"}."""
        body = texts("decision", "note")
        if body["decision"] not in ("approve", "refuse"):
            raise InvalidRequest("the decision is approve or refuse / 决定须为批准或拒绝")
        approve = body["decision"] == "approve"
        return answer(asdict(node.approvals.decide(id, approve=approve, note=body["note"], by=caller())))

    @blueprint.get("/gaps")
    @requires("review.write")
    def gaps() -> Response:
        """What of exchanges has no end yet, oldest first."""
        return answer([asdict(each) for each in node.exchange_parts.gaps()])

    return blueprint
