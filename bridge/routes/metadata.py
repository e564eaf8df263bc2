"""What this server can do: GET /fhir/metadata (http://hl7.org/fhir/R4/http.html#capabilities)."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response

from bridge.auth import PUBLIC, requires
from bridge.outcomes import FHIR_JSON
from bridge.routes.capability import capability_statement


def metadata_blueprint(node: Any) -> Blueprint:
    """Return /fhir/metadata of ``node``."""
    blueprint = Blueprint("metadata", __name__)
    statement = orjson.dumps(capability_statement(node.settings))

    @blueprint.get("/fhir/metadata")
    @requires(PUBLIC)
    def metadata() -> Response:
        """The CapabilityStatement; public, as the FHIR specification asks."""
        return Response(statement, content_type=FHIR_JSON)

    return blueprint
