"""Where a member's node may live: addresses, schemes, redirects, and names that resolve to something local."""

from __future__ import annotations

import http.server
import socket
import threading
from ipaddress import ip_network
from typing import Any

import pytest
import requests

from anchor.gm import PrivateKey
from bridge.errors import PeerError, PeerRejected, PeerUnavailable
from bridge.services.dial_guard import Dialling, GuardedAdapter, refusal
from bridge.services.peers import MemberDirectory, PeerRules, Peers

ORG, OTHER = "12330000000000012G", "12330000000000013E"


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"])
def test_local_addresses_only_where_allowed(address: str) -> None:
    assert refusal(address, allow_local=False)
    assert refusal(address, allow_local=True) is None


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:169.254.169.254"])
def test_addresses_no_member_has(address: str) -> None:
    assert refusal(address, allow_local=True)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("10.1.2.3", True), ("10.2.0.1", False), ("192.168.7.9", True), ("127.0.0.1", False), ("169.254.169.254", False)],
)
def test_private_networks_that_the_settings_name(address: str, allowed: bool) -> None:
    networks = (ip_network("10.1.0.0/16"), ip_network("192.168.7.0/24"), ip_network("169.254.0.0/16"))
    assert (refusal(address, allow_local=False, networks=networks) is None) == allowed


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888"])
def test_public_addresses(address: str) -> None:
    assert refusal(address, allow_local=False) is None


class Chain:
    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def state(self, key: str) -> dict[str, Any] | None:
        return {"endpoint": self.endpoint, "status": "active"} if key == f"member/{OTHER}" else None


class Server:
    """Answers every request alike and remembers whether one came."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                asked.append(self.headers["Signature"])
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.asked = asked
        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def post(endpoint: str, *, https_only: bool = False, allow_local: bool = True) -> bytes:
    rules = PeerRules(https_only=https_only, allow_local=allow_local, timeout_seconds=5)
    peers = Peers(
        directory=MemberDirectory(Chain(endpoint)), org=ORG, key=PrivateKey.generate(), nonces=None, rules=rules
    )
    try:
        return peers.post(OTHER, "/x", b"{}")
    finally:
        peers.close()


def test_a_signed_request_arrives() -> None:
    with Server(200, {}, b'{"ok":1}') as server:
        assert post(server.url + "/") == b'{"ok":1}'
        assert server.asked[0].startswith("yiqiao=:")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "not-authenticated"),
        (403, "not-permitted"),
        (404, "not-offered"),
        (429, "quota-exceeded"),
        (418, "refused"),
    ],
)
def test_refusals_have_a_code(status: int, code: str) -> None:
    with Server(status, {}, b"secret text of the other side") as server, pytest.raises(PeerRejected) as caught:
        post(server.url)
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [500, 503])
def test_failures_of_the_other_side(status: int) -> None:
    with Server(status, {}, b"") as server, pytest.raises(PeerUnavailable):
        post(server.url)


def test_a_redirect_is_not_followed() -> None:
    with Server(200, {}, b"{}") as target, Server(307, {"Location": target.url}, b"") as server:
        with pytest.raises(PeerError):
            post(server.url)
        assert target.asked == []


def test_loopback_is_refused_where_not_allowed() -> None:
    with Server(200, {}, b"{}") as server:
        with pytest.raises(PeerUnavailable):
            post(server.url, allow_local=False)
        assert server.asked == []


def test_a_name_is_checked_at_the_moment_of_dialling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first resolution says a public address, the one used for dialling must be the one that was checked."""
    answers = iter([[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: next(answers))
    with requests.Session() as session:
        session.mount("http://", GuardedAdapter(Dialling(allow_local=True)))
        with pytest.raises(requests.ConnectionError, match="no node may have"):
            session.get("http://rebinding.example/", timeout=2)


@pytest.mark.parametrize(
    "endpoint",
    ["", "ftp://h/x", "file:///etc/passwd", "http://user:secret@h/", "http:///x"],
    ids=["none", "ftp", "file", "credentials", "no host"],
)
def test_endpoints_that_are_not_used(endpoint: str) -> None:
    with pytest.raises(PeerUnavailable, match="no address"):
        post(endpoint)


def test_production_speaks_https_only() -> None:
    with Server(200, {}, b"{}") as server:
        with pytest.raises(PeerUnavailable, match="no address"):
            post(server.url, https_only=True)
        assert server.asked == []
