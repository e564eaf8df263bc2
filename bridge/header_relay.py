"""Headers for a state sync: CometBFT's light client asks on loopback, and other members' nodes answer over HTTPS.

CometBFT's binary cannot sign our members' requests and its RPC is on loopback everywhere, so each member that is asked
is a small server here that passes on three read-only calls. The light client verifies what it gets: it needs two
members that agree with the header the operator trusts, which both must have named at the start.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import requests

from anchor import genesis as chain_genesis
from anchor.errors import ChainError, ChainUnavailable
from bridge.peer_signature import PeerAuth
from bridge.routes.ledger import HEADER_CALLS
from bridge.services.peers import open_session
from bridge.settings import Settings

if TYPE_CHECKING:
    from types import TracebackType

    from anchor.gm import PrivateKey

MEMBERS_ASKED = 2
MAX_CALL_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 4 * 1024 * 1024
ANSWER_SECONDS = 20.0
_PARAMETERS = ("height", "page", "per_page")


class MemberHeaders:
    """One member's headers, asked for with this node's signature."""

    def __init__(self, url: str, org: str, session: requests.Session, auth: PeerAuth) -> None:
        self.org = org
        self._base = url.rstrip("/") + "/ledger/v1/headers/"
        self._session = session
        self._auth = auth

    def call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the member's answer; raises ``ChainError``."""
        if method not in HEADER_CALLS:
            raise ChainError("only headers are relayed")
        query = urlencode({name: str(parameters[name]) for name in _PARAMETERS if parameters.get(name) is not None})
        try:
            with self._session.get(
                f"{self._base}{method}?{query}",
                auth=self._auth,
                timeout=ANSWER_SECONDS,
                allow_redirects=False,
                stream=True,
            ) as answer:
                content = answer.raw.read(MAX_ANSWER_BYTES + 1, decode_content=True)
                status = answer.status_code
        except (requests.RequestException, OSError) as error:
            raise ChainUnavailable(f"{self.org} does not answer") from error
        if status != requests.codes.ok or len(content) > MAX_ANSWER_BYTES:
            raise ChainError(f"{self.org} gave no header (status {status})")
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ChainError(f"{self.org} gave no header")
        return value


class HeaderRelay:
    """Loopback servers, one for each member that is asked, while a state sync runs."""

    def __init__(self, members: Sequence[MemberHeaders]) -> None:
        self._members = members
        self._resources = ExitStack()
        self.servers: tuple[str, ...] = ()

    @classmethod
    def between(cls, settings: Settings, key: PrivateKey) -> HeaderRelay:
        """Return a relay to two members: the authority, and another of the genesis file."""
        from bridge.ledger_wiring import peer_rules

        genesis = chain_genesis.parse(settings.path(settings.ledger.genesis).read_bytes())
        addresses = {str(each["org"]): str(each["endpoint"]) for each in genesis.members}
        addresses[settings.exchange.authority] = settings.exchange.authority_url
        addresses.pop(settings.node.org, None)
        first = [settings.exchange.authority] if settings.exchange.authority in addresses else []
        orgs = [*first, *(org for org in sorted(addresses) if org not in first)][:MEMBERS_ASKED]
        if len(orgs) < MEMBERS_ASKED:
            raise ChainError("a state sync needs two other members to ask; set cometbft.state_sync = false")
        rules, tls = peer_rules(settings), settings.tls_identity()
        return cls(
            [
                MemberHeaders(
                    addresses[org],
                    org,
                    open_session(rules, tls, org, check_address=False),
                    PeerAuth(org=settings.node.org, key=key, audience=org),
                )
                for org in orgs
            ]
        )

    def trust(self) -> tuple[int, str]:
        """Return height and hash of a recent header that the members asked agree on; raises ``ChainError``."""
        first, *others = self._members
        height, digest = _header(first.call("commit", {}))
        for other in others:
            if _header(other.call("commit", {"height": height})) != (height, digest):
                raise ChainError(
                    f"{first.org} and {other.org} name different headers of height {height}: a fork, ask both"
                )
        return height, digest

    def __enter__(self) -> HeaderRelay:
        try:
            self.servers = tuple(self._serve(member) for member in self._members)
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._resources.close()

    def _serve(self, member: MemberHeaders) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(member))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="header-relay", daemon=True)
        thread.start()
        self._resources.callback(server.server_close)
        self._resources.callback(thread.join)
        self._resources.callback(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"


def _header(answer: dict[str, Any]) -> tuple[int, str]:
    try:
        signed = answer["signed_header"]
        return int(signed["header"]["height"]), str(signed["commit"]["block_id"]["hash"])
    except (KeyError, TypeError, ValueError):
        raise ChainError("a member's header cannot be read") from None


def _handler(member: MemberHeaders) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers CometBFT's JSON-RPC calls."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Relay one call."""
            length = int(self.headers.get("Content-Length") or 0)
            answer: dict[str, Any] = {"jsonrpc": "2.0", "id": -1}
            try:
                call = json.loads(self.rfile.read(min(length, MAX_CALL_BYTES)))
                answer["id"] = call["id"]
                answer["result"] = member.call(str(call["method"]), dict(call.get("params") or {}))
            except (ValueError, KeyError, TypeError, ChainError) as error:
                reason = str(error) if isinstance(error, ChainError) else "the call cannot be read"
                answer["error"] = {"code": -32603, "message": "Internal error", "data": reason}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
