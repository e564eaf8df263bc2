"""MLLP as senders speak it: original and enhanced acknowledgement, redelivery, a full inbox, TLS with certificates."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.errors import SettingsError
from bridge.mllp_tls import tls_context
from bridge.services.ingest import IngestService
from bridge.storage.inbox import Inbox, InboxBounds, Refusal
from fhir_adapters import SourceProfile
from tests.certificates import Identity, TestAuthority
from tests.mllp_listener import mllp_listener
from tests.stores import Stores

VT, END = b"\x0b", b"\x1c\r"
UNMAPPABLE = "ADT^Z99"
LACKING = "ADT^A40"  # a merge without MRG


def message(control_id: str, event: str = "ADT^A01", accept: str = "", application: str = "") -> bytes:
    return (
        f"MSH|^~\\&|HIS|HOSP|YIQIAO|NODE|20260501083000||{event}|{control_id}|P|2.5|||{accept}|{application}||"
        "UNICODE UTF-8\r"
        "EVN||20260501083000\r"
        f"PID|1||{control_id}^^^HOSP^MR||张^三||19900517|M\r"
        "PV1|1|I|W1^101^1\r"
    ).encode()


def ingest_of(stores: Stores, **bounds: Any) -> IngestService:
    inbox = stores.inbox
    if bounds:
        inbox = Inbox(stores.engine, stores.keyring, stores.clock, bounds=InboxBounds(**bounds))
    profiles = {"mllp": SourceProfile(name="mllp")}
    return IngestService(stores.engine, inbox, stores.records, profiles, stores.clock)


@contextmanager
def worked_off(ingest: IngestService) -> Iterator[None]:
    """A worker that processes what arrives."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            ingest.process(10)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        yield connection


def answers(connection: socket.socket, count: int) -> list[tuple[str, str]]:
    """Read so many acknowledgements; give MSA-1 and MSA-2 of each."""
    received = b""
    while received.count(END) < count:
        chunk = connection.recv(65536)
        assert chunk, f"closed after {received.count(END)} of {count} answers"
        received += chunk
    return [(code.decode(), control.decode()) for code, control in re.findall(rb"\rMSA\|(\w\w)\|([^|\r]*)", received)]


def more(connection: socket.socket, seconds: float = 0.6) -> bytes:
    """What else arrives within a time."""
    connection.settimeout(seconds)
    try:
        return connection.recv(65536)
    except TimeoutError:
        return b""


MODES = [
    # MSH-15, MSH-16, event, answers before and after processing
    pytest.param("", "", "ADT^A01", ["AA"], id="original mode: one answer"),
    pytest.param("", "", UNMAPPABLE, ["AR"], id="original mode: a type that is not taken"),
    pytest.param("", "", LACKING, ["AE"], id="original mode: a message that lacks something"),
    pytest.param("AL", "", "ADT^A01", ["CA"], id="commit only"),
    pytest.param("AL", "NE", "ADT^A01", ["CA"], id="commit, application never"),
    pytest.param("AL", "AL", "ADT^A01", ["CA", "AA"], id="both"),
    pytest.param("AL", "SU", "ADT^A01", ["CA", "AA"], id="application on success, and it is one"),
    pytest.param("AL", "ER", "ADT^A01", ["CA"], id="application on error, and there is none"),
    pytest.param("NE", "AL", "ADT^A01", ["AA"], id="application only"),
    pytest.param("", "AL", "ADT^A01", ["AA"], id="application only, MSH-15 empty"),
    pytest.param("ER", "NE", "ADT^A01", [], id="commit on error, and there is none"),
    pytest.param("NE", "NE", "ADT^A01", [], id="nothing wanted"),
    pytest.param("AL", "AL", UNMAPPABLE, ["CR"], id="refused at once: no application answer follows"),
    pytest.param("ER", "AL", LACKING, ["CE"], id="refused at once, errors wanted"),
    pytest.param("NE", "AL", UNMAPPABLE, ["AR"], id="refused at once, told by the application"),
    pytest.param("SU", "ER", LACKING, ["AE"], id="commit on success only, application on error"),
    pytest.param("NE", "SU", UNMAPPABLE, [], id="an error, and only success wanted"),
    pytest.param("XX", "al", "ADT^A01", ["CA", "AA"], id="an unknown word is always, case does not matter"),
    pytest.param("", "0", "ADT^A01", ["AA"], id="words of no table: original mode"),
]


@pytest.mark.parametrize(("accept", "application", "event", "expected"), MODES)
def test_a_sender_gets_the_answers_it_asked_for(
    sqlite_stores: Stores, accept: str, application: str, event: str, expected: list[str]
) -> None:
    ingest = ingest_of(sqlite_stores)
    with mllp_listener(ingest) as (port, _), worked_off(ingest), connected(port) as connection:
        connection.sendall(VT + message("1", event, accept, application) + END)
        assert [code for code, control in answers(connection, len(expected)) if control == "1"] == expected
        # the connection goes on, and nothing else is said of the first message
        connection.sendall(VT + message("2") + END)
        assert answers(connection, 1) == [("AA", "2")]
        assert more(connection, 0.4) == b""
    assert sqlite_stores.inbox.counts()["received"] == 0


def test_the_commit_answer_does_not_wait_for_the_processing(sqlite_stores: Stores) -> None:
    ingest = ingest_of(sqlite_stores)
    with mllp_listener(ingest) as (port, _), connected(port) as connection:
        for number in range(5):
            connection.sendall(VT + message(f"{number}", accept="AL", application="AL") + END)
            assert answers(connection, 1) == [("CA", f"{number}")]
        assert more(connection) == b"", "nothing is processed yet"
        connection.settimeout(10)
        with worked_off(ingest):
            told = answers(connection, 5)
    assert sorted(told) == [("AA", f"{number}") for number in range(5)]


def test_what_fails_in_processing_is_told_with_its_place(sqlite_stores: Stores) -> None:
    ingest = ingest_of(sqlite_stores)
    with mllp_listener(ingest) as (port, _), connected(port) as connection:
        connection.sendall(VT + message("1", accept="AL", application="ER") + END)
        assert answers(connection, 1) == [("CA", "1")]
        [claim] = sqlite_stores.inbox.claim("w", 1)
        sqlite_stores.inbox.refuse(claim, Refusal("invalid", "PID-8", "not valid"))
        answer = b""
        while END not in answer:
            answer += connection.recv(65536)
    assert b"\rMSA|AE|1|not valid\r" in answer
    assert b"\rERR||PID^1^8|" in answer


def test_a_redelivery_is_answered_as_the_first_and_told_its_outcome(sqlite_stores: Stores) -> None:
    ingest = ingest_of(sqlite_stores)
    raw = message("1", accept="AL", application="AL")
    with mllp_listener(ingest) as (port, _):
        with connected(port) as first:
            first.sendall(VT + raw + END)
            assert answers(first, 1) == [("CA", "1")]
        while ingest.process(10):
            pass
        with connected(port) as again:
            again.sendall(VT + raw + END)
            assert answers(again, 2) == [("CA", "1"), ("AA", "1")]
    assert sqlite_stores.inbox.counts()["stored"] == 1


def test_a_full_inbox_answers_and_takes_again_by_itself(sqlite_stores: Stores) -> None:
    ingest = ingest_of(sqlite_stores, max_messages=20)
    ingest._inbox.gate._monotonic = lambda: moment[0]
    moment = [0.0]
    with mllp_listener(ingest) as (port, _), connected(port) as connection:
        for number in range(20):
            connection.sendall(VT + message(f"{number}") + END)
            assert answers(connection, 1) == [("AA", f"{number}")]
        connection.sendall(VT + message("20") + END)
        received = b""
        while END not in received:
            received += connection.recv(65536)
        assert b"\rMSA|AE|20|the node takes no more messages at the moment (inbox.max_messages is reached)" in received
        connection.sendall(VT + message("3") + END)
        assert answers(connection, 1) == [("AA", "3")], "a redelivery is answered as ever"
        assert ingest.process(10).stored == 10
        moment[0] += 1
        connection.sendall(VT + message("20") + END)
        assert answers(connection, 1) == [("AA", "20")]
        # who wants to hear of nothing hears by losing the connection
        for number in range(21, 40):
            ingest.receive("mllp", message(f"{number}"))
        connection.sendall(VT + message("99", accept="NE", application="NE") + END)
        assert more(connection) == b""
    ingest._inbox.close()
    assert all(entry.control_id != "99" for entry in sqlite_stores.inbox.list())


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def listener_identity(authority: TestAuthority) -> Identity:
    return authority.issue("listener")


def settings_of(identity: Identity | None, client_ca: Path | None = None) -> Any:
    mllp = SimpleNamespace(
        tls_certificate=str(identity.certificate) if identity else "",
        tls_key=str(identity.key) if identity else "",
        tls_client_ca=str(client_ca) if client_ca else "",
    )
    return SimpleNamespace(mllp=mllp, path=Path)


def client_context(authority: TestAuthority, identity: Identity | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


@contextmanager
def secured(port: int, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with connected(port) as plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
        yield connection


def test_tls_with_a_client_certificate(
    sqlite_stores: Stores, authority: TestAuthority, listener_identity: Identity
) -> None:
    tls = tls_context(settings_of(listener_identity, authority.certificate))
    sender = client_context(authority, authority.issue("his"))
    ingest = ingest_of(sqlite_stores)
    with mllp_listener(ingest, tls=tls) as (port, _), worked_off(ingest), secured(port, sender) as connection:
        assert connection.version() in ("TLSv1.2", "TLSv1.3")
        connection.sendall(VT + message("1", accept="AL", application="AL") + END)
        assert answers(connection, 2) == [("CA", "1"), ("AA", "1")]
        connection.sendall(b"".join(VT + message(f"n{number}") + END for number in range(50)))
        assert [code for code, _ in answers(connection, 50)] == ["AA"] * 50


def send_and_hear(port: int, context: ssl.SSLContext) -> None:
    """Send a message; an error when it is not answered (with TLS 1.3 a refusal comes after the client's handshake)."""
    with secured(port, context) as connection:
        connection.sendall(VT + message("1") + END)
        if not connection.recv(1):
            raise ConnectionError


@pytest.mark.parametrize("who", ["nobody", "stranger", "expired"])
def test_a_sender_without_a_certificate_of_the_authority_sends_nothing(
    sqlite_stores: Stores, tmp_path: Path, authority: TestAuthority, listener_identity: Identity, who: str
) -> None:
    tls = tls_context(settings_of(listener_identity, authority.certificate))
    identity = {
        "nobody": lambda: None,
        "stranger": lambda: TestAuthority(tmp_path, "other").issue("his"),
        "expired": lambda: authority.issue("old", expired=True),
    }[who]()
    with mllp_listener(ingest_of(sqlite_stores), tls=tls) as (port, server):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            send_and_hear(port, client_context(authority, identity))
        with secured(port, client_context(authority, authority.issue("his"))) as connection:
            connection.sendall(VT + message("2") + END)
            assert answers(connection, 1) == [("AA", "2")]
        assert not server.stopping
    assert [entry.control_id for entry in sqlite_stores.inbox.list()] == ["2"]


def test_plain_senders_and_old_tls_get_nowhere(
    sqlite_stores: Stores, authority: TestAuthority, listener_identity: Identity
) -> None:
    tls = tls_context(settings_of(listener_identity))
    assert tls is not None
    assert tls.minimum_version == ssl.TLSVersion.TLSv1_2
    with mllp_listener(ingest_of(sqlite_stores), tls=tls) as (port, _):
        with connected(port) as connection:
            connection.sendall(VT + message("1") + END)
            with suppress(ConnectionError):
                assert b"MSA" not in connection.recv(65536)
        with connected(port) as silent:  # a handshake that does not come keeps nobody else waiting
            with secured(port, client_context(authority)) as connection:
                connection.sendall(VT + message("2") + END)
                assert answers(connection, 1) == [("AA", "2")]
            silent.close()
    assert [entry.control_id for entry in sqlite_stores.inbox.list()] == ["2"]


def test_without_a_certificate_the_listener_is_plain() -> None:
    assert tls_context(settings_of(None)) is None


@pytest.mark.parametrize("broken", ["key", "certificate", "client_ca"])
def test_files_that_are_no_certificates_are_refused_by_name(
    tmp_path: Path, authority: TestAuthority, listener_identity: Identity, broken: str
) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nothing of the kind")
    settings = {
        "key": settings_of(Identity(listener_identity.certificate, authority.issue("other").key)),
        "certificate": settings_of(Identity(nonsense, listener_identity.key)),
        "client_ca": settings_of(listener_identity, nonsense),
    }[broken]
    with pytest.raises(SettingsError, match=r"mllp\.tls_"):
        tls_context(settings)


def test_the_answer_comes_soon_after_the_processing(sqlite_stores: Stores) -> None:
    ingest = ingest_of(sqlite_stores)
    with mllp_listener(ingest) as (port, _), connected(port) as connection:
        connection.sendall(VT + message("1", accept="NE", application="AL") + END)
        while not sqlite_stores.inbox.counts()["received"]:
            time.sleep(0.01)
        ingest.process(1)
        began = time.monotonic()
        assert answers(connection, 1) == [("AA", "1")]
        assert time.monotonic() - began < 10
