"""Is the node alive, is it ready, how much work is where: for orchestrators and metrics collectors."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify

from bridge.auth import PUBLIC, requires
from bridge.evidence_metrics import evidence_alarms
from bridge.metrics import CONTENT_TYPE, readiness, render_metrics
from bridge.source_metrics import circuit_states


def operations_blueprint(node: Any) -> Blueprint:
    """Return /healthz, /readyz, /status and /metrics of ``node``."""
    blueprint = Blueprint("operations", __name__)

    @blueprint.get("/healthz")
    @requires(PUBLIC)
    def healthz() -> Response:
        """The process answers."""
        return jsonify(status="ok")

    @blueprint.get("/readyz")
    @requires(PUBLIC)
    def readyz() -> tuple[Response, int]:
        """The node can take work: its database answers.

        "degraded": it works, and the ledger, the anchoring or a source lags. ``sources``: the circuits to databases.
        """
        state = readiness(node)
        if state == "unavailable":
            return jsonify(status=state), 503
        return jsonify(status=state, sources=circuit_states(node), alarms=evidence_alarms(node)), 200

    @blueprint.get("/status")
    @requires("operations.read")
    def status() -> Response:
        """How the node's evidence stands: lags, witnesses, contradictions, alarms; ``peers``: conspicuous members."""
        return jsonify(
            node.evidence_status.read().to_json() | {"peers": [asdict(each) for each in node.watch.alerts()]}
        )

    @blueprint.get("/metrics")
    @requires("operations.read")
    def metrics() -> Response:
        """Counts by state in the Prometheus text format."""
        return Response(render_metrics(node), content_type=CONTENT_TYPE)

    return blueprint
