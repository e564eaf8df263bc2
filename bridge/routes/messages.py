"""Source messages over HTTP: hand in, look at what became of them, run again. Content is never shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request

from bridge.auth import requires
from bridge.errors import InvalidRequest

HL7V2_TYPES = frozenset({"application/hl7-v2", "application/hl7-v2+er7", "x-application/hl7-v2+er7", "text/plain",
                         "application/octet-stream", ""})  # fmt: skip
ACK_TYPE = "application/hl7-v2"
MAX_LIST = 500
DEFAULT_SOURCE = "http"
#: acknowledgement code -> HTTP status: AE asks for a corrected message, AR will never be taken, unkept is our fault
_STATUS = {"AA": 200, "CA": 200, "AE": 422, "CE": 422, "AR": 422, "CR": 422}


def messages_blueprint(node: Any) -> Blueprint:
    """Return /messages of ``node``."""
    blueprint = Blueprint("messages", __name__, url_prefix="/messages")
    _add_intake(blueprint, node)
    _add_inbox(blueprint, node)
    return blueprint


def _add_intake(blueprint: Blueprint, node: Any) -> None:
    @blueprint.post("/hl7v2")
    @requires("messages.submit")
    def submit() -> Response:
        """Take one HL7 v2 message as the body; answers its acknowledgement, after it is on the disk."""
        if request.mimetype not in HL7V2_TYPES:
            raise InvalidRequest("send the message as application/hl7-v2 or text/plain")
        source = _source(node, request.args.get("source", DEFAULT_SOURCE))
        answer = node.ingest.receive(source, request.get_data())
        status = _STATUS.get(answer.code, 422) if answer.id is not None else 503
        return Response(answer.ack, status, content_type=ACK_TYPE, headers={"X-Message-Number": str(answer.id or "")})


def _add_inbox(blueprint: Blueprint, node: Any) -> None:
    @blueprint.get("")
    @requires("messages.inspect")
    def list_messages() -> Response:
        """Messages newest first, without content; ``state``, ``source``, ``limit`` and ``before`` choose."""
        choice = {name: request.args.get(name, "") for name in ("state", "source")}
        limit, before = _number("limit", 100), _number("before", 0)
        entries = node.inbox.list(**choice, limit=min(max(limit, 1), MAX_LIST), before=before or None)
        return jsonify(messages=[asdict(entry) for entry in entries], counts=node.inbox.counts())

    @blueprint.get("/<int:number>")
    @requires("messages.inspect")
    def show(number: int) -> Response:
        """One message, without content: its state, the issues of its conversion, the versions it led to."""
        return jsonify(asdict(node.inbox.show(number)))

    @blueprint.post("/<int:number>/rerun")
    @requires("messages.inspect")
    def rerun(number: int) -> tuple[Response, int]:
        """Process a message again, after a mapping was fixed."""
        node.inbox.rerun(number)
        return jsonify(status="received"), 202


def _source(node: Any, name: str) -> str:
    """Return a declared HL7 v2 source, or the default one: a caller may not make up sources."""
    declared = {each.name for each in node.settings.sources if each.kind == "hl7v2"}
    if name != DEFAULT_SOURCE and name not in declared:
        raise InvalidRequest("source is none of this node's HL7 v2 sources")
    return name


def _number(name: str, default: int) -> int:
    value = request.args.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise InvalidRequest(f"{name} is not a number")
    return int(value)
