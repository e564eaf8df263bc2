"""Who is calling, and what they may do.

Three kinds of caller: a *member* of the consortium (SM2-signed request, RFC 9421), a *client* of this institution
(bearer token), and the *operator* (the command line, in-process). A route states the one permission it needs with
``requires``; a route that states none is denied to everybody, so forgetting the decorator closes a door instead of
opening one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from flask import Flask, current_app, g, request

from bridge.errors import AuthenticationRequired, PermissionDenied
from bridge.peer_signature import PeerSignatureError, claimed_org
from bridge.tokens import ROLE_PERMISSIONS, TokenBook

PUBLIC = "public"
PERMISSIONS = frozenset(
    {
        "fhir.read",
        "fhir.search",
        "fhir.write",
        "messages.submit",
        "messages.inspect",
        "ledger.submit",
        "ledger.read",
        "exchange.peer",
        "exchange.lookup",
        "operations.read",
        "audit.read",
        "consent.write",
        "consent.desk",
        "consent.deliver",
        "review.write",
        "patient.view",
    }
)
#: what any live member may do here; what it may do with the ledger's content, the contracts decide
MEMBER_PERMISSIONS = frozenset({"ledger.submit", "ledger.read", "exchange.peer"})

_View = TypeVar("_View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller who proved who it is. ``id``: org id, token id or "operator"; ``name`` is for the audit trail."""

    kind: Literal["member", "client", "operator"]
    id: str
    name: str
    permissions: frozenset[str]
    org: str | None = None


OPERATOR = Principal("operator", "operator", "operator", PERMISSIONS)


def requires(permission: str) -> Callable[[_View], _View]:
    """Declare the permission a view function needs (one of ``PERMISSIONS``, or ``PUBLIC``).

    Goes below the route decorator.
    """
    if permission != PUBLIC and permission not in PERMISSIONS:
        raise ValueError(f"unknown permission {permission}")

    def declare(view: _View) -> _View:
        view.yiqiao_permission = permission  # type: ignore[attr-defined]
        return view

    return declare


def declared_permission(view: Callable[..., Any]) -> str | None:
    """Return the permission a view function declared, or None (which means: denied)."""
    return getattr(view, "yiqiao_permission", None)


def principal() -> Principal:
    """Return the caller of the current request. Raises ``AuthenticationRequired`` on a public route without one."""
    caller: Principal | None = g.get("principal")
    if caller is None:
        raise AuthenticationRequired
    return caller


def guard(app: Flask, node: Any) -> None:
    """Let no request of ``app`` reach a view whose declared permission its caller does not have."""
    book = TokenBook(node.settings.path(node.settings.security.tokens))

    @app.before_request
    def check_permission() -> None:
        if request.endpoint is None:
            return  # no such route: 404 from the router, nothing to protect
        permission = declared_permission(current_app.view_functions[request.endpoint])
        if permission == PUBLIC:
            return
        caller = _authenticate(node, book)
        if permission is None or permission not in caller.permissions:
            raise PermissionDenied
        g.principal = caller


def _authenticate(node: Any, book: TokenBook) -> Principal:
    if "Signature-Input" in request.headers:
        return _member(node)
    text = _token_text()
    if not text:
        raise AuthenticationRequired("a bearer token or a signed request is needed")
    token = book.find(text, int(node.clock()))
    if token is None:
        raise AuthenticationRequired("the token is not known, or has expired")
    return Principal("client", token.id, token.name, ROLE_PERMISSIONS[token.role])


def _token_text() -> str:
    """Return the token that a request brings: as a bearer token, or as the password of Basic authentication.

    The latter is what SOAP clients of older platforms can send; the user name does not matter.
    """
    given = request.authorization
    if given is None:
        return ""
    if given.type == "basic":
        return (given.password or "").strip()
    return (given.token or "").strip() if given.type == "bearer" else ""


def _member(node: Any) -> Principal:
    """Authenticate an SM2-signed request against the keys on the ledger."""
    try:
        org = node.peers.verify(
            method=request.method, url=request.url, headers=request.headers, body=request.get_data(cache=True)
        )
    except PeerSignatureError as error:
        claimed = claimed_org(request.headers.get("Signature-Input", ""))
        node.watch.refused(claimed if node.peers.directory.knows(claimed) else "", error.code)
        raise
    return Principal("member", org, org, MEMBER_PERMISSIONS, org=org)
