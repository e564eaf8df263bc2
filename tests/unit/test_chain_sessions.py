"""Connections to the ledger are kept from one thread to the next, as many as were needed at once."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
import requests
from requests.auth import AuthBase

from anchor.chain.cometbft.rpc import CometRpc
from anchor.chain.remote import RemoteChain
from anchor.chain.sessions import SessionPool
from anchor.errors import ChainUnavailable


class _Host(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    ports: ClassVar[list[int]] = []

    def _answer(self, content: bytes) -> None:
        self.ports.append(self.client_address[1])
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self._answer(b'{"seq":1}')

    def do_POST(self) -> None:
        self._answer(b'{"id":0,"result":{"seq":1}}')

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _NoAuth(AuthBase):
    def __call__(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        return prepared


@pytest.fixture
def host() -> Iterator[tuple[str, list[int]]]:
    """A host that answers everything and notes from which port it was asked."""
    ports: list[int] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Host", (_Host,), {"ports": ports}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", ports
    server.shutdown()
    thread.join()
    server.server_close()


def ask_ledger(url: str) -> tuple[Callable[[], object], Callable[[], None]]:
    client = RemoteChain(url, auth=_NoAuth())
    return lambda: client.next_seq("org"), client.close


def ask_engine(url: str) -> tuple[Callable[[], object], Callable[[], None]]:
    client = CometRpc(url)
    return lambda: client.call("status"), client.close


@pytest.mark.parametrize("client", [ask_ledger, ask_engine])
def test_threads_that_come_and_go_share_one_connection(host: tuple[str, list[int]], client: Any) -> None:
    url, ports = host
    ask, close = client(url)
    try:
        for _ in range(12):
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
    finally:
        close()
    assert len(ports) == 12
    assert len(set(ports)) == 1


def test_a_session_is_lent_to_one_at_a_time() -> None:
    pool = SessionPool()
    with pool.lend() as first, pool.lend() as second:
        assert first is not second
        assert not first.trust_env
    with pool.lend() as again, pool.lend() as other:
        assert {id(again), id(other)} == {id(first), id(second)}
    pool.close()


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        pytest.param(requests.ConnectionError, False, id="connection"),
        pytest.param(requests.Timeout, False, id="timeout"),
        pytest.param(ValueError, True, id="not of the connection"),
    ],
)
def test_after_a_failed_request_connections_are_new(error: type[Exception], kept: bool) -> None:
    pool = SessionPool()
    with pool.lend() as first, pool.lend() as second:
        pass
    with pytest.raises(error), pool.lend():
        raise error
    with pool.lend() as again, pool.lend() as other:
        assert ({id(again), id(other)} == {id(first), id(second)}) is kept
    pool.close()


def test_what_is_lent_while_the_pool_closes_is_closed_when_it_comes_back() -> None:
    closed: list[requests.Session] = []

    class Session(requests.Session):
        def close(self) -> None:
            closed.append(self)
            super().close()

    pool = SessionPool(Session)
    with pool.lend() as lent:
        with pool.lend() as idle:
            pass
        pool.close()
        assert closed == [idle]
    assert closed == [idle, lent]
    with pytest.raises(ChainUnavailable), pool.lend():
        pass
