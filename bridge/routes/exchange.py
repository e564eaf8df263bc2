"""The exchange between members: /exchange/v1. Every caller is a live member by its SM2-signed request.

``pseudonyms`` and ``pseudonyms/held``, ``locate``, ``localisations`` and its ``withdrawals`` are the card authority's;
``requests`` is every holder's. Bodies and answers are JSON; where records are held is said in FHIR List resources;
refusals tell nothing about whether a patient exists.
"""

from __future__ import annotations

import base64
from typing import Any

from flask import Blueprint, Response, request

from anchor import canonical
from bridge.auth import peer_request, principal, requires
from bridge.errors import InvalidRequest, NotFound, PermissionDenied
from bridge.services.held_records import HeldRecords
from bridge.services.localisation_list import lists_bundle, localisations

JSON_TYPE = "application/json"
FHIR_TYPE = "application/fhir+json"
ENVELOPE_TYPE = "application/pkcs7-mime"
AUTHORITY_ROLES = frozenset({"authority", "card-issuer"})


def exchange_blueprint(node: Any) -> Blueprint:
    """Return /exchange/v1 over ``node.pseudonyms``, ``node.localisation`` (the index) and ``node.exchange``."""
    blueprint = Blueprint("exchange", __name__, url_prefix="/exchange/v1")
    _add_authority(blueprint, node)

    @blueprint.post("/requests")
    @requires("exchange.peer", admits=True)
    def requests_() -> Response:
        """Answer a signed request with the first page of a sealed release, or say that a person is asked."""
        answer = node.exchange.answer(request.get_data(), _member(), peer_request())
        value = answer.value()
        return _json(value if answer.release is None else _with_envelope(value, answer.envelope))

    @blueprint.get("/requests/<id>/pages/<int:number>")
    @requires("exchange.peer")
    def page(id: str, number: int) -> Response:
        """Give a further page of a release, as it was sealed."""
        return Response(node.exchange.page(id, number, _member()), content_type=ENVELOPE_TYPE)

    return blueprint


def _with_envelope(value: dict[str, Any], envelope: bytes) -> dict[str, Any]:
    return {**value, "envelope": base64.b64encode(envelope).decode()}


def _add_authority(blueprint: Blueprint, node: Any) -> None:
    held_records = HeldRecords(node.pseudonyms, node.localisation)

    @blueprint.post("/pseudonyms")
    @requires("exchange.peer")
    def pseudonyms() -> Response:
        """Compute pseudonyms."""
        _only_authority(node)
        return _json({"pids": node.pseudonyms.compute(_member(), *_identifiers())})

    @blueprint.post("/pseudonyms/held")
    @requires("exchange.peer", admits=True)
    def held() -> Response:
        """Say who holds records of a person under any pseudonym that is served, newest first: Lists, for a lookup."""
        _only_authority(node)
        scope, identifiers = _identifiers()
        if len(identifiers) != 1:
            raise InvalidRequest("a lookup is of one person")
        found = held_records.of(_member(), scope, identifiers[0], peer_request().transaction)
        return _json(lists_bundle("searchset", found), FHIR_TYPE)

    @blueprint.post("/locate")
    @requires("exchange.peer")
    def locate() -> Response:
        """Say which members hold records for a pseudonym: a searchset of Lists."""
        _only_authority(node)
        pid = _text(_body("pid")["pid"])
        held = node.localisation.locate(_member(), pid)
        return _json(lists_bundle("searchset", [(each["org"], pid, each["categories"]) for each in held]), FHIR_TYPE)

    @blueprint.post("/localisations")
    @requires("exchange.peer")
    def register() -> Response:
        """Note that the caller holds records: a Bundle of Lists, all of its own."""
        _only_authority(node)
        held = localisations(canonical.load(request.get_data()))
        if any(org != _member() for org, _ in held):
            raise PermissionDenied("an institution registers only what it holds itself")
        entries = [{"pid": pid, "categories": categories} for (_, pid), categories in held.items()]
        return _json({"registered": node.localisation.register(_member(), entries)})

    @blueprint.post("/localisations/withdrawals")
    @requires("exchange.peer")
    def withdraw() -> Response:
        """Forget what the caller had registered."""
        _only_authority(node)
        return _json({"withdrawn": node.localisation.withdraw(_member(), _list(_body("pids")["pids"]))})


def _only_authority(node: Any) -> None:
    if AUTHORITY_ROLES.isdisjoint(node.settings.node.roles):
        raise NotFound("this node is not the card authority")


def _member() -> str:
    org = principal().org
    if org is None:
        raise PermissionDenied("only a member of the consortium may ask this")
    return org


def _body(*names: str) -> dict[str, Any]:
    value = canonical.load(request.get_data())
    if not isinstance(value, dict) or set(value) != set(names):
        raise InvalidRequest(f"the body has exactly the fields {', '.join(names)}")
    return value


def _identifiers() -> tuple[str, list[tuple[str, str]]]:
    body = _body("scope", "identifiers")
    return _text(body["scope"]), [
        (_field(each, "system"), _field(each, "value")) for each in _list(body["identifiers"])
    ]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidRequest("a field that is a list is not one")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidRequest("a field that is a text is not one")
    return value


def _field(value: Any, name: str) -> str:
    if not isinstance(value, dict):
        raise InvalidRequest("an identifier has a system and a value")
    return _text(value.get(name))


def _json(value: dict[str, Any], content_type: str = JSON_TYPE) -> Response:
    return Response(canonical.dump(value), content_type=content_type)
