"""Source messages over HTTP: hand in, look at what became of them, run again. Content is never shown.

A patient's identifier is asked for in a body and not in the address, which proxies write down:
``POST /messages/search``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request, url_for

from bridge.auth import requires
from bridge.errors import InvalidRequest
from bridge.outcomes import RETRY_AFTER_SECONDS
from bridge.storage.inbox import InboxFilter, RerunProgress

HL7V2_TYPES = frozenset({"application/hl7-v2", "application/hl7-v2+er7", "x-application/hl7-v2+er7", "text/plain",
                         "application/octet-stream", ""})  # fmt: skip
ACK_TYPE = "application/hl7-v2"
DEFAULT_LIST = 100
MAX_LIST = 500
MAX_NUMBER = 10**15  # of messages, and of milliseconds in the next thirty thousand years
DEFAULT_SOURCE = "http"
#: acknowledgement code -> HTTP status: AE asks for a corrected message, AR will never be taken, unkept is our fault
_STATUS = {"AA": 200, "CA": 200, "AE": 422, "CE": 422, "AR": 422, "CR": 422}
#: what an address may name; a body may also name the patient
_PLAIN = ("state", "source", "code", "event", "control_id", "subject", "since", "until")
_TIMES = frozenset({"since", "until"})


def messages_blueprint(node: Any) -> Blueprint:
    """Return /messages of ``node``."""
    blueprint = Blueprint("messages", __name__, url_prefix="/messages")
    _add_intake(blueprint, node)
    _add_inbox(blueprint, node)
    _add_reruns(blueprint, node)
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
        if answer.id is None:
            return Response(answer.ack, 503, content_type=ACK_TYPE, headers={"Retry-After": RETRY_AFTER_SECONDS})
        headers = {"X-Message-Number": str(answer.id)}
        return Response(answer.ack, _STATUS.get(answer.code, 422), content_type=ACK_TYPE, headers=headers)


def _add_inbox(blueprint: Blueprint, node: Any) -> None:
    @blueprint.get("")
    @requires("messages.inspect")
    def list_messages() -> Response:
        """Messages newest first, without content; the query chooses, ``limit`` and ``before`` turn pages."""
        return _page(node, request.args, _PLAIN)

    @blueprint.post("/search")
    @requires("messages.inspect")
    def search_messages() -> Response:
        """As the list, with the choice as a JSON body, which may name a patient."""
        return _page(node, _body(), (*_PLAIN, "patient"))

    @blueprint.get("/<int:number>")
    @requires("messages.inspect")
    def show(number: int) -> Response:
        """One message from its arrival to its evidence, without content."""
        return jsonify(node.journeys.of(number).as_dict())


def _add_reruns(blueprint: Blueprint, node: Any) -> None:
    @blueprint.post("/<int:number>/rerun")
    @requires("messages.inspect")
    def rerun(number: int) -> tuple[Response, int]:
        """Process a message again, after a mapping was fixed."""
        node.inbox.rerun(number)
        return jsonify(status="received"), 202

    @blueprint.post("/rerun")
    @requires("messages.inspect")
    def rerun_many() -> tuple[Response, int, dict[str, str]]:
        """Process the failed and dead messages again that a JSON body chooses; answers where to follow it."""
        progress = node.inbox.rerun_all(_chosen(_body(), (*_PLAIN, "patient")))
        place = url_for("messages.rerun_progress", number=progress.id)
        return jsonify(_progress(progress)), 202, {"Location": place}

    @blueprint.get("/reruns/<int:number>")
    @requires("messages.inspect")
    def rerun_progress(number: int) -> Response:
        """How far a bulk re-run is."""
        return jsonify(_progress(node.inbox.rerun_progress(number)))


def _progress(progress: RerunProgress) -> dict[str, Any]:
    return {**asdict(progress), "waiting": progress.waiting}


def _page(node: Any, asked: Mapping[str, Any], names: tuple[str, ...]) -> Response:
    limit = min(max(_number(asked, "limit", DEFAULT_LIST), 1), MAX_LIST)
    paging = {name: asked[name] for name in asked if name not in ("limit", "before")}
    entries = node.inbox.list(_chosen(paging, names), limit, _number(asked, "before", 0) or None)
    following = entries[-1].id if len(entries) == limit else None
    return jsonify(messages=[asdict(entry) for entry in entries], counts=node.inbox.counts(), before=following)


def _chosen(asked: Mapping[str, Any], names: tuple[str, ...]) -> InboxFilter:
    """Read what messages are meant; an unknown name is an error, for it would choose more than was meant."""
    values: dict[str, Any] = {}
    for name in asked:
        if name not in names:
            raise InvalidRequest("messages are chosen by " + ", ".join(names))
        if name in _TIMES:
            values[name] = _number(asked, name, 0)
        elif not isinstance(asked[name], str):
            raise InvalidRequest(f"{name} is not text")
        else:
            values[name] = asked[name]
    return InboxFilter(**values)


def _body() -> dict[str, Any]:
    asked = request.get_json(force=True, silent=True) if request.get_data() else {}
    if not isinstance(asked, dict):
        raise InvalidRequest("send a JSON object")
    return asked


def _source(node: Any, name: str) -> str:
    """Return a declared HL7 v2 source, or the default one: a caller may not make up sources."""
    declared = {each.name for each in node.settings.sources if each.kind == "hl7v2"}
    if name != DEFAULT_SOURCE and name not in declared:
        raise InvalidRequest("source is none of this node's HL7 v2 sources")
    return name


def _number(asked: Mapping[str, Any], name: str, default: int) -> int:
    value = asked.get(name)
    if value is None:
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_NUMBER:
        raise InvalidRequest(f"{name} is not a number")
    return value
