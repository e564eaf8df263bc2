"""FHIR R4 writes over HTTP: create, update, Bundles (http://hl7.org/fhir/R4/http.html).

What arrives goes through the inbox like everything else; it is on the disk before anything is answered. Answers hold no
resource: who may write may not for that read what is stored.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import UnsupportedMediaType

from bridge.auth import principal, requires
from bridge.errors import InvalidRequest
from bridge.outcomes import FHIR_JSON, Outcome, operation_outcome
from bridge.routes.fhir_answers import check_accept
from bridge.routes.sources import source_of
from bridge.services.fhir_intake import Written
from bridge.storage.records import StoredVersion
from fhir_adapters.errors import AdapterError, ValidationError
from fhir_adapters.fhir_json import REQUEST

DEFAULT_SOURCE = "fhir"
ASYNC_PATH = "_async"
_JSON = frozenset({"application/fhir+json", "application/json"})
_NOT_OFFERED = ("If-Match", "If-Modified-Since", "If-Unmodified-Since")
_REFUSALS = {"PreconditionFailed": (412, "conflict"), "Conflict": (409, "conflict"), "KeyDestroyed": (410, "deleted")}
_WAITING = Outcome(202, "informational", "kept, and not yet processed; ask at Content-Location / 已接收，处理中")


def fhir_write_blueprint(node: Any) -> Blueprint:
    """Return the writes of /fhir of ``node``."""
    blueprint = Blueprint("fhir_writes", __name__, url_prefix="/fhir")
    blueprint.before_request(check_accept)

    @blueprint.errorhandler(AdapterError)
    def refused(error: AdapterError) -> Response:
        """What is wrong with the content, and the FHIRPath of where; never what stands there."""
        status = 422 if isinstance(error, ValidationError) else 400
        return _outcome_at(status, "invalid" if status == 422 else "structure", str(error), error.location)

    @blueprint.post("", strict_slashes=False)
    @requires("fhir.write")
    def bundle() -> Response:
        """A transaction, batch, collection or document."""
        return _bundle_answer(node, _submit(node, _body(), "Bundle"))

    @blueprint.post("/<type>")
    @requires("fhir.write")
    def create(type: str) -> Response:
        """A new resource; If-None-Exist: identifier=system|value creates only what is not there."""
        wanted = {"method": "POST", "url": type}
        if "If-None-Exist" in request.headers:
            wanted["ifNoneExist"] = request.headers["If-None-Exist"]
        return _one_answer(node, _submit(node, _wrapped(wanted), f"create {type}"))

    @blueprint.put("/<type>/<id>")
    @requires("fhir.write")
    def update(type: str, id: str) -> Response:
        """A resource under the id that its source gives it, new or not; If-None-Match: * only when it is new."""
        wanted = {"method": "PUT", "url": f"{type}/{id}"}
        if "If-None-Match" in request.headers:
            wanted["ifNoneMatch"] = request.headers["If-None-Match"]
        return _one_answer(node, _submit(node, _wrapped(wanted), f"update {type}"))

    @blueprint.get(f"/{ASYNC_PATH}/<int:number>")
    @requires("fhir.write")
    def ask(number: int) -> Response:
        """What became of a request that took longer than its client could wait."""
        return _bundle_answer(node, node.fhir_intake.ask(principal().id, number))

    return blueprint


def _submit(node: Any, raw: bytes, event: str) -> Written:
    return node.fhir_intake.submit(  # type: ignore[no-any-return]
        source_of(node, "fhir", DEFAULT_SOURCE),
        principal().id,
        raw,
        event=event,
        key=request.headers.get("X-Request-Id", ""),
        wait="respond-async" not in request.headers.get("Prefer", ""),
    )


def _body() -> bytes:
    if request.mimetype not in _JSON:
        raise UnsupportedMediaType
    for name in _NOT_OFFERED:
        if name in request.headers:
            raise InvalidRequest(f"{name} is not offered")
    return request.get_data()


def _wrapped(wanted: dict[str, str]) -> bytes:
    """Put a single resource beside its request, its bytes as they came."""
    raw = _body().strip()
    if not raw.startswith(b"{"):
        raise InvalidRequest("the body is not a JSON object")
    head = orjson.dumps({"resourceType": "Bundle", "type": REQUEST, "request": wanted})[:-1]
    return head + b',"resource":' + raw + b"}"


def _base(node: Any) -> str:
    return f"{node.settings.node.endpoint.rstrip('/')}/fhir"


def _one_answer(node: Any, written: Written) -> Response:
    """The answer to a single create or update: where the resource is, and in which version."""
    if not written.done or written.state != "stored":
        return _other_answer(node, written)
    [(found, created)] = _stored(node, written)
    response = Response(b"", 201 if created else 200, content_type=FHIR_JSON)
    response.headers["Location"] = f"{_base(node)}/{found.ref}"
    response.set_etag(str(found.version), weak=True)
    response.last_modified = datetime.fromisoformat(found.updated)
    return response


def _bundle_answer(node: Any, written: Written) -> Response:
    """The answer to a Bundle: of each entry what became of it (R4 3.1.0.11.3)."""
    if not written.done or written.state != "stored":
        return _other_answer(node, written)
    entries: list[dict[str, Any]] = []
    for found, created in _stored(node, written):
        answer = {
            "status": "201 Created" if created else "200 OK",
            "location": f"{_base(node)}/{found.ref}",
            "etag": f'W/"{found.version}"',
            "lastModified": found.updated,
        }
        entries.append({"response": answer})
    for location, text in written.problems:
        outcome = orjson.loads(_outcome_at(422, "invalid", text, location).get_data())
        entries.append({"response": {"status": "422 Unprocessable Entity", "outcome": outcome}})
    kind = "batch-response" if written.problems else "transaction-response"
    body: dict[str, Any] = {"resourceType": "Bundle", "type": kind}
    if entries:
        body["entry"] = entries
    return Response(orjson.dumps(body), 200, content_type=FHIR_JSON)


def _stored(node: Any, written: Written) -> list[tuple[StoredVersion, bool]]:
    """Each entry's resource as it is stored, and whether the request created it."""
    versions = {each.rpartition("/_history/")[0]: each for each in written.versions}
    existing = list(written.existing)
    made: list[tuple[StoredVersion, bool]] = []
    for reference in written.references or versions:
        is_new = reference in versions
        if not is_new and not existing:
            continue
        found = node.records.read(*(reference if is_new else existing.pop(0)).split("/"))
        moment = int(datetime.fromisoformat(found.updated).timestamp() * 1000)
        made.append((found, is_new and found.version == 1 and moment >= written.received))
    return made


def _other_answer(node: Any, written: Written) -> Response:
    """The answer while it waits, and to what was refused by the store."""
    if not written.done:
        response = Response(operation_outcome(_WAITING, "information"), 202, content_type=FHIR_JSON)
        response.headers["Content-Location"] = f"{_base(node)}/{ASYNC_PATH}/{written.number}"
        return response
    status, code = _REFUSALS.get(written.code, (422, "processing"))
    return _outcome_at(status, code, written.refusal, written.place)


def _outcome_at(status: int, code: str, text: str, place: str) -> Response:
    outcome = orjson.loads(operation_outcome(Outcome(status, code, text)))
    if place:
        outcome["issue"][0]["expression"] = [place]
    return Response(orjson.dumps(outcome), status, content_type=FHIR_JSON)
