"""/soap: action messages of a hospital's platform in SOAP envelopes, and the WSDL that describes them."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import UnsupportedMediaType

from bridge.auth import PUBLIC, requires
from bridge.routes.sources import source_of

SOAP_TYPES = frozenset({"text/xml", "application/soap+xml", "application/xml", ""})
DEFAULT_SOURCE = "soap"


def soap_blueprint(node: Any) -> Blueprint:
    """Return /soap of ``node``."""
    blueprint = Blueprint("soap", __name__)

    @blueprint.post("/soap")
    @requires("messages.submit")
    def submit() -> Response:
        """Take one message; answers AA or AE in its envelope, after it is on the disk."""
        if request.mimetype not in SOAP_TYPES:
            raise UnsupportedMediaType
        source = source_of(node, "soap", DEFAULT_SOURCE)
        charset = request.mimetype_params.get("charset", "").strip('"')
        answer = node.actions.receive(source, request.get_data(), charset)
        headers = {"X-Message-Number": str(answer.id or "")}
        return Response(answer.body, answer.status, content_type=answer.content_type, headers=headers)

    @blueprint.get("/soap")
    @requires(PUBLIC)
    def wsdl() -> Response:
        """The WSDL 1.1 description, with this node's address; it holds nothing that is not in the documentation."""
        text = files("fhir_adapters.actions").joinpath("action.wsdl").read_text("utf-8")
        address = f"{node.settings.node.endpoint.rstrip('/')}/soap"
        return Response(text.replace("{address}", address), content_type="text/xml; charset=utf-8")

    return blueprint
