"""The patient's view over HTTP, for a portal that has authenticated the patient, and for the privacy officer.

/patients/v1/<id>/accesses (FHIR Bundle of AuditEvents), accesses.html (a page to print), accesses.json and records.json
(signed files with receipts), corrections. ``<id>`` is the local Patient id: no identifier of a person stands in a URL.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from flask import Blueprint, Response, request

from bridge.auth import requires
from bridge.outcomes import FHIR_JSON
from bridge.routes.fhir_answers import search_bundle
from bridge.routes.reviews import caller, texts
from bridge.services.access_report import STYLE
from bridge.services.search import PAGE_PARAMETER

JSON_TYPE = "application/json"
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
PAGE_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; frame-ancestors 'none'"
PASSED_ON = ("date", "type", "subtype", "action", "outcome", "_count", "_sort", PAGE_PARAMETER)


def patients_blueprint(node: Any) -> Blueprint:
    """Return /patients/v1 over ``node.patient_view``."""
    blueprint = Blueprint("patients", __name__, url_prefix="/patients/v1")
    _add_accesses(blueprint, node)
    _add_corrections(blueprint, node)
    return blueprint


def _add_accesses(blueprint: Blueprint, node: Any) -> None:
    base = f"{node.settings.node.endpoint.rstrip('/')}/fhir"

    @blueprint.get("/<id>/accesses")
    @requires("patient.view")
    def accesses(id: str) -> Response:
        """The AuditEvents about the patient, newest first."""
        given = [pair for pair in request.args.items(multi=True) if pair[0] in PASSED_ON]
        found = node.patient_view.accesses(id, caller(), given)
        here = f"{node.settings.node.endpoint.rstrip('/')}/patients/v1/{id}/accesses"
        links = {"self": here}
        if found.next_token:
            links["next"] = f"{here}?{PAGE_PARAMETER}={found.next_token}"
        return search_bundle(base, found.page.entries, found.page.total, links)

    @blueprint.get("/<id>/accesses.html")
    @requires("patient.view")
    def page(id: str) -> Response:
        """The same for people, to be printed."""
        response = Response(node.patient_view.page(id, caller()), content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = PAGE_POLICY
        return response

    @blueprint.get("/<id>/accesses.json")
    @requires("patient.view")
    def accesses_file(id: str) -> Response:
        """The same as a signed file with receipts."""
        return Response(node.patient_view.file("accesses", id, caller()), content_type=JSON_TYPE)

    @blueprint.get("/<id>/records.json")
    @requires("patient.view")
    def records_file(id: str) -> Response:
        """A copy of all records of the patient, as a signed file with receipts."""
        return Response(node.patient_view.file("records", id, caller()), content_type=JSON_TYPE)


def _add_corrections(blueprint: Blueprint, node: Any) -> None:
    @blueprint.post("/<id>/corrections")
    @requires("consent.write")
    def correction(id: str) -> Response:
        """Ask for a correction: {"about": "Type/id", "text"}."""
        body = texts("about", "text")
        task = node.patient_view.request_correction(id, body["about"], body["text"], caller())
        return Response(task.content, 201, content_type=FHIR_JSON)

    @blueprint.post("/corrections/<task>")
    @requires("review.write")
    def answer(task: str) -> Response:
        """Answer one: {"outcome": "completed" | "rejected", "note"}."""
        body = texts("outcome", "note")
        done = node.patient_view.answer_correction(task, body["outcome"], body["note"], caller())
        return Response(done.content, content_type=FHIR_JSON)
