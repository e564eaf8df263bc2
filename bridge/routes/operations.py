"""Is the node alive, is it ready, how much work is where: for orchestrators and metrics collectors."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from bridge.auth import PUBLIC, requires
from bridge.metrics import CONTENT_TYPE, readiness, render_metrics


def operations_blueprint(node: Any) -> Blueprint:
    """Return /healthz, /readyz and /metrics of ``node``."""
    blueprint = Blueprint("operations", __name__)

    @blueprint.get("/healthz")
    @requires(PUBLIC)
    def healthz() -> Response:
        """The process answers."""
        return jsonify(status="ok")

    @blueprint.get("/readyz")
    @requires(PUBLIC)
    def readyz() -> tuple[Response, int]:
        """The node can take work: its database answers. "degraded": it works, and the ledger or the anchoring lags."""
        state = readiness(node)
        return jsonify(status=state), 503 if state == "unavailable" else 200

    @blueprint.get("/metrics")
    @requires("operations.read")
    def metrics() -> Response:
        """Counts by state in the Prometheus text format."""
        return Response(render_metrics(node), content_type=CONTENT_TYPE)

    return blueprint
