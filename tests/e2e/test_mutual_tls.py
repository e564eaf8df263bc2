"""Mutual TLS between real nodes: who gets in, who does not, and what a suspension, a renewal and a wrong peer do."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import PeerUnavailable
from bridge.node_keys import load_signer
from bridge.peer_signature import sign_headers
from bridge.pki import tls_certificates as tls
from bridge.pki.tls_identity import AUTHORITIES, CERTIFICATE, KEY, TlsIdentity
from tests.node_consortium import NodeConsortium, ServedNode, wait_for

pytestmark = pytest.mark.slow

LISTENING_SECONDS = 60.0
NOBODYS_PAGE = f"/exchange/v1/requests/{'0' * 32}/pages/0"  # 403 to a member, 401 to anybody else


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeConsortium]:
    made = NodeConsortium(tmp_path_factory.mktemp("tls"), ["a"], quorum=1)
    made.nodes["s"] = member = ServedNode(made.directory, 950, "hospital", "s")  # admitted, never served
    made._make_member(member)
    try:
        made.start(["authority", "a"])
        yield made
    finally:
        made.close()


def context(identity: TlsIdentity | None, trusted: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(trusted)
    if identity is not None:
        made.load_cert_chain(identity.directory / CERTIFICATE, identity.directory / KEY, password=identity.password)
    return made


def answers(node: ServedNode, tls_context: ssl.SSLContext, path: str = "/healthz") -> str:
    """Return the status line of a GET over TLS, or the name of what went wrong.

    While a busy machine changes a node's only worker nobody listens; that says nothing of certificates: asked again.
    """
    deadline = time.monotonic() + LISTENING_SECONDS
    while True:
        try:
            with (
                socket.create_connection(("127.0.0.1", node.peer_port), timeout=10) as plain,
                tls_context.wrap_socket(plain, server_hostname="127.0.0.1") as channel,
            ):
                channel.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                return channel.recv(4096).split(b"\r\n")[0].decode()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"{node.name} does not listen"
            time.sleep(0.2)
        except (ssl.SSLError, ConnectionError) as error:
            return type(error).__name__


def test_a_member_with_its_certificate_gets_in(consortium: NodeConsortium) -> None:
    for client, server in (("s", "authority"), ("s", "a"), ("a", "authority"), ("authority", "a")):
        identity = consortium[client].settings.tls_identity()
        assert "200" in answers(consortium[server], context(identity, identity.directory / AUTHORITIES))


def test_nobody_else_gets_in(consortium: NodeConsortium, tmp_path: Path) -> None:
    trusted = consortium["a"].settings.tls_identity().directory / AUTHORITIES
    without = answers(consortium["a"], context(None, trusted))
    assert "200" not in without
    key = tls.new_key()
    forged = tls.new_authority("scenario", 1, key, consortium["a"].home.stat().st_mtime, 1)
    (tmp_path / "forged.pem").write_bytes(
        tls.pem(forged)
        + key.private_bytes(
            tls.serialization.Encoding.PEM,
            tls.serialization.PrivateFormat.PKCS8,
            tls.serialization.NoEncryption(),
        )
    )
    made = context(None, trusted)
    made.load_cert_chain(tmp_path / "forged.pem")
    assert "200" not in answers(consortium["a"], made)


def test_older_tls_is_refused(consortium: NodeConsortium) -> None:
    identity = consortium["s"].settings.tls_identity()
    made = context(identity, identity.directory / AUTHORITIES)
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "200" not in answers(consortium["a"], made)


def test_the_exchange_and_the_ledger_are_on_the_members_listener_alone(consortium: NodeConsortium) -> None:
    authority = consortium.authority
    assert authority.get("/ledger/v1/health").status_code == 404
    assert authority.get("/exchange/v1/locate").status_code == 404
    identity = consortium["s"].settings.tls_identity()
    made = context(identity, identity.directory / AUTHORITIES)
    assert "401" in answers(authority, made, "/ledger/v1/checkpoint")  # a certificate is no signed request
    assert "404" in answers(authority, made, "/fhir/Patient")


def test_members_talk_and_a_wrong_peer_is_noticed(consortium: NodeConsortium) -> None:
    with consortium["s"].opened() as node:
        assert b"BEGIN CERTIFICATE" in node.peers.get(consortium.authority.org, "/certificates/v1/authorities")
        from anchor.transaction import build

        envelope = build(
            chain="scenario", type="membership.endpoint", sender=node.signer.org, key=node.signer.sign,
            seq=node.chain.next_seq(node.signer.org), expires=int(node.clock()) + 60,
            body={"endpoint": consortium["a"].endpoint},
        )  # fmt: skip
        assert node.chain.submit([envelope])[0].ok  # s claims a's address as its own
    with consortium.authority.opened() as node:
        with pytest.raises(PeerUnavailable) as caught:
            node.peers.get(consortium["s"].org, "/healthz")
        assert "does not answer" in str(caught.value)
        assert node.peers.get(consortium["a"].org, "/healthz")


def test_a_renewed_certificate_is_taken_up_without_a_restart(consortium: NodeConsortium) -> None:
    node = consortium["a"]
    identity = node.settings.tls_identity()
    before = (identity.directory / CERTIFICATE).read_bytes()
    request, answer = consortium.directory / "renew.json", consortium.directory / "renewed.json"
    node.run("pki", "request", "--out", request)
    consortium.authority.run("pki", "issue", request, "--out", answer)
    node.run("pki", "install", answer)
    assert (identity.directory / CERTIFICATE).read_bytes() != before
    (renewed,) = tls.read_bundle((identity.directory / CERTIFICATE).read_bytes())
    client = consortium["s"].settings.tls_identity()

    def served() -> bool:
        try:
            with (
                socket.create_connection(("127.0.0.1", node.peer_port), timeout=5) as plain,
                context(client, client.directory / AUTHORITIES).wrap_socket(
                    plain, server_hostname="127.0.0.1"
                ) as channel,
            ):
                der = channel.getpeercert(binary_form=True)
        except (ssl.SSLError, ConnectionError):
            return False
        return der == renewed.public_bytes(tls.serialization.Encoding.DER)

    wait_for(served, "the renewed certificate", 60)


class OpenConnection:
    """One TLS connection of a member to another's node, which is never opened again."""

    def __init__(self, client: ServedNode, server: ServedNode) -> None:
        identity = client.settings.tls_identity()
        self._client, self._server = client, server
        self._http = http.client.HTTPSConnection(
            "127.0.0.1", server.peer_port, timeout=30, context=context(identity, identity.directory / AUTHORITIES)
        )
        self._http.connect()
        self._http.auto_open = 0

    def ask(self) -> int | None:
        """Send a freshly signed request; return the answer's status, None when the connection is closed."""
        headers = sign_headers(
            "GET", self._server.endpoint + NOBODYS_PAGE, b"", org=self._client.org,
            key=load_signer(self._client.settings).sign, audience=self._server.org, now=int(time.time()),
        )  # fmt: skip
        try:
            self._http.request("GET", NOBODYS_PAGE, headers=headers)
            answer = self._http.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return None
        return answer.status

    def close(self) -> None:
        self._http.close()


def opened(consortium: NodeConsortium, name: str) -> OpenConnection:
    """Return a connection of "s" on which a node has answered; one that changes its workers is waited for."""

    def look() -> OpenConnection | None:
        try:
            connection = OpenConnection(consortium["s"], consortium[name])
        except OSError:
            return None
        if connection.ask() == connection.ask() == 403:
            return connection
        connection.close()
        return None

    found: OpenConnection = wait_for(look, f"{name} taking requests of s", 60)
    return found


def test_a_suspension_ends_the_connections_that_are_open(consortium: NodeConsortium) -> None:
    """Each request is checked against the ledger, so the next one is refused; the channel itself is cut after it."""
    names = ("authority", "a")
    connections = {name: opened(consortium, name) for name in names}
    try:
        consortium.suspend("s")
        for connection in connections.values():
            assert connection.ask() in (401, None)
        for name, connection in connections.items():
            wait_for(lambda connection=connection: connection.ask() is None, f"the end of the connection to {name}", 90)
    finally:
        for connection in connections.values():
            connection.close()
        consortium.reinstate("s")
    for name in names:
        opened(consortium, name).close()


def test_a_suspended_members_certificate_is_refused_until_it_is_reinstated(consortium: NodeConsortium) -> None:
    identity = consortium["s"].settings.tls_identity()
    made = context(identity, identity.directory / AUTHORITIES)
    for name in ("authority", "a"):
        wait_for(lambda name=name: "200" in answers(consortium[name], made), f"{name} listening", 60)
    consortium.suspend("s")
    for name in ("authority", "a"):
        wait_for(lambda name=name: "200" not in answers(consortium[name], made), f"the refusal by {name}", 60)
    other = consortium["a"].settings.tls_identity()
    with_others = context(other, other.directory / AUTHORITIES)
    wait_for(lambda: "200" in answers(consortium.authority, with_others), "another member getting in", 60)
    consortium.reinstate("s")
    wait_for(lambda: "200" in answers(consortium["a"], made), "the return", 60)
    listed = consortium.authority.run("pki", "list").stdout
    assert consortium["s"].org in listed
