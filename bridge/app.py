"""The Flask application of one node: blueprints, the one guard, the one error handler."""

from __future__ import annotations

import uuid
from typing import Literal

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from bridge.auth import guard
from bridge.errors import BridgeError
from bridge.log import get_logger, where
from bridge.outcomes import FHIR_JSON, INTERNAL_TEXT, RETRY_AFTER_SECONDS, operation_outcome, outcome_for
from bridge.routes.certificates import certificates_blueprint
from bridge.routes.consents import consent_blueprints
from bridge.routes.console import NAME as CONSOLE
from bridge.routes.console import console_blueprint, problem_page
from bridge.routes.directory import directory_blueprint
from bridge.routes.exchange import exchange_blueprint
from bridge.routes.fhir import fhir_blueprint
from bridge.routes.fhir_writes import fhir_write_blueprint
from bridge.routes.gossip import carry_checkpoints
from bridge.routes.ledger import ledger_blueprint
from bridge.routes.lookups import lookups_blueprint
from bridge.routes.messages import messages_blueprint
from bridge.routes.metadata import metadata_blueprint
from bridge.routes.operations import operations_blueprint
from bridge.routes.patients import patients_blueprint
from bridge.routes.releases import releases_blueprint
from bridge.routes.reviews import reviews_blueprint
from bridge.routes.soap import soap_blueprint
from bridge.wiring import Node

#: nothing may frame, sniff, cache or run anything of this service; its few pages name their own style sheet
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
HSTS = "max-age=31536000"


Surface = Literal["web", "peer"]


def create_app(node: Node, surface: Surface = "web") -> Flask:
    """Return the application that serves ``node``.

    Where members have a listener of their own (``peer_tls``), "peer" is what they reach there, and "web" has none of
    it.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = node.settings.http.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = node.settings.http.max_body_bytes
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    guard(app, node)
    carry_checkpoints(app, node.gossip)
    for blueprint in _blueprints(node, surface):
        app.register_blueprint(blueprint)
    app.register_error_handler(Exception, _answer_error)
    _harden(app, https=node.settings.node.endpoint.startswith("https"))
    return app


def _blueprints(node: Node, surface: Surface) -> list:  # type: ignore[type-arg]
    """The surfaces of this node, in the order of the documentation."""
    surfaces = [operations_blueprint(node), metadata_blueprint(node)]
    if surface == "web":
        surfaces += [
            directory_blueprint(node),
            fhir_blueprint(node),
            fhir_write_blueprint(node),
            messages_blueprint(node),
            soap_blueprint(node),
            *consent_blueprints(node),
            console_blueprint(node),
        ]
        surfaces += [lookups_blueprint(node), releases_blueprint(node)]
        surfaces += [reviews_blueprint(node), patients_blueprint(node)]
    if surface == "peer" or not node.settings.peer_tls.enabled:
        surfaces += [exchange_blueprint(node), certificates_blueprint(node)]
        if node.settings.ledger.engine != "remote":
            surfaces.append(ledger_blueprint(node))
    return surfaces


def _answer_error(error: Exception) -> Response:
    """Turn any error into its row of ``bridge.outcomes``; what is our fault is logged by type, without its values."""
    outcome = outcome_for(error)
    if outcome.status >= 500:
        detail = {"cause": error.cause, "detail": error.message} if isinstance(error, BridgeError) else {}
        get_logger("web").error(
            "request failed", status=outcome.status, error=type(error).__name__, request=_request_id(),
            route=str(request.url_rule or ""), at=where(error), **detail,
        )  # fmt: skip
    if request.blueprint == CONSOLE:
        return problem_page(outcome)
    response = Response(operation_outcome(outcome), outcome.status, content_type=FHIR_JSON)
    if outcome.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if outcome.status in (429, 503):
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    if outcome.status == 405 and isinstance(error, HTTPException):
        response.headers["Allow"] = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
    return response


def _harden(app: Flask, *, https: bool) -> None:
    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        if https:
            response.headers["Strict-Transport-Security"] = HSTS
        response.headers["X-Request-Id"] = _request_id()
        return response


def _request_id() -> str:
    """Our own id of the request: a caller's is not taken over, for it would be free text in our log."""
    if "request_id" not in g:
        g.request_id = uuid.uuid4().hex
    request_id: str = g.request_id
    return request_id


__all__ = ["INTERNAL_TEXT", "create_app"]
