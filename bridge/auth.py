"""Who is calling, and what they may do.

Three kinds of caller: a *member* of the consortium (SM2-signed request, RFC 9421), a *client* of this institution
(bearer token), and the *operator* (the command line, in-process). A route states the one permission it needs with
``requires``; a route that states none is denied to everybody, so forgetting the decorator closes a door instead of
opening one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from flask import Flask, current_app, g, request

from bridge.errors import AuthenticationRequired, PermissionDenied
from bridge.peer_signature import PeerSignatureError, claimed_org
from bridge.tokens import ROLE_PERMISSIONS, TokenBook

if TYPE_CHECKING:
    from bridge.services.peer_request import PeerRequest

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


def requires(permission: str, *, admits: bool = False) -> Callable[[_View], _View]:
    """Declare the permission a view function needs (one of ``PERMISSIONS``, or ``PUBLIC``).

    Goes below the route decorator. ``admits``: the view is for members only and keeps the request's nonce itself, in
    its first transaction (``peer_request``); what it leaves undone of that is done before the answer leaves.
    """
    if permission != PUBLIC and permission not in PERMISSIONS:
        raise ValueError(f"unknown permission {permission}")

    def declare(view: _View) -> _View:
        declared: Any = _admitting(view) if admits else view
        declared.yiqiao_permission, declared.yiqiao_admits = permission, admits
        return cast(_View, declared)

    return declare


def _admitting(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def settled(*arguments: Any, **named: Any) -> Any:
        asked = peer_request()
        try:
            try:
                return view(*arguments, **named)
            finally:
                asked.settle()
        except PeerSignatureError as error:
            g.refused(asked.org, error)
            raise

    return settled


def peer_request() -> PeerRequest:
    """Return the signed request of a view that ``admits``; raises ``AuthenticationRequired`` elsewhere."""
    asked: PeerRequest | None = g.get("peer_request")
    if asked is None:
        raise AuthenticationRequired
    return asked


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
        view = current_app.view_functions[request.endpoint]
        permission = declared_permission(view)
        if permission == PUBLIC:
            return
        caller = _authenticate(node, book, admits=getattr(view, "yiqiao_admits", False))
        if permission is None or permission not in caller.permissions:
            raise PermissionDenied
        g.principal = caller


def _authenticate(node: Any, book: TokenBook, *, admits: bool) -> Principal:
    if "Signature-Input" in request.headers:
        return _member(node, admits=admits)
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


def _member(node: Any, *, admits: bool) -> Principal:
    """Authenticate an SM2-signed request against the keys on the ledger."""

    def refused(claimed: str, error: PeerSignatureError) -> None:
        node.watch.refused(claimed if node.peers.directory.knows(claimed) else "", error.code)

    check = node.peers.admit if admits else node.peers.verify
    try:
        found = check(
            method=request.method, url=request.url, headers=request.headers, body=request.get_data(cache=True)
        )
    except PeerSignatureError as error:
        refused(claimed_org(request.headers.get("Signature-Input", "")), error)
        raise
    if admits:
        g.peer_request, g.refused = found, refused
    org = found.org if admits else found
    return Principal("member", org, org, MEMBER_PERMISSIONS, org=org)
