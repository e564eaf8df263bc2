"""One process of a node: `python -m bridge.child web|peer|mllp|worker-N HOME`, started by ``bridge.supervisor``.

Each child builds its own node from its home: nothing is shared between processes but the database, the ledger and
the files.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from bridge.lifeline import end_with_supervisor
from bridge.log import configure_logging, get_logger, where
from bridge.pki.tls_identity import AUTHORITIES, CERTIFICATE, REVOKED
from bridge.process_identity import process_name
from bridge.settings import Settings, load_settings
from bridge.stop_signals import on_stop_signal

if TYPE_CHECKING:
    from flask import Flask

    from bridge.pki.tls_identity import TlsIdentity

HOME_VARIABLE = "YIQIAO_HOME"
DEBUG_VARIABLE = "YIQIAO_DEBUG"
CERTIFICATES_LOOKED_AT_SECONDS = 2.0
NEW_WORKER_SECONDS = 3.0  # from a worker's start to the end of the one it replaces: it builds its node in about one
SERVED_BY_GRANIAN = frozenset({"web", "peer"})


def web_application() -> Flask:
    """Build the WSGI application in a web worker from the home named by ``YIQIAO_HOME`` (granian's target)."""
    return _application("web")


def peer_application() -> Flask:
    """Build the application that only members reach, by mutual TLS."""
    return _application("peer")


def _application(surface: Literal["web", "peer"]) -> Flask:
    from bridge.app import create_app
    from bridge.wiring import open_node

    end_with_supervisor()
    configure_logging(surface)
    try:
        return create_app(open_node(os.environ[HOME_VARIABLE]), surface)
    except Exception as error:  # noqa: BLE001 - the process boundary; a traceback's values could hold patient data
        _log_failure(error)
        raise SystemExit(1) from None


def run_web(settings: Settings) -> None:
    """Serve HTTP with granian until SIGTERM; its own process only watches the workers."""
    from granian import Granian
    from granian.constants import Interfaces
    from granian.log import LogLevels

    import bridge.app  # noqa: F401 - loaded once, before the workers are forked from this process

    os.environ[HOME_VARIABLE] = str(settings.home)
    http = settings.http
    tls = http.tls_certificate and http.tls_key
    Granian(
        "bridge.child:web_application",
        factory=True,
        address=http.host,
        port=http.port,
        interface=Interfaces.WSGI,
        workers=http.workers,
        blocking_threads=http.threads,
        respawn_failed_workers=False,  # the supervisor restarts, with growing pauses and an end
        workers_kill_timeout=max(1, int(settings.worker.drain_seconds)),
        log_level=LogLevels.warning,
        ssl_cert=settings.path(http.tls_certificate) if tls else None,
        ssl_key=settings.path(http.tls_key) if tls else None,
    ).serve()


def run_peer(settings: Settings) -> None:
    """Serve the other members over mutual TLS 1.3 with granian until SIGTERM.

    Certificate, authorities and revocation list are read when a worker starts: a change of one of them changes the
    workers, one by one, while the listener goes on.
    """
    from granian import Granian
    from granian.constants import Interfaces, SSLProtocols
    from granian.log import LogLevels

    import bridge.app  # noqa: F401 - loaded once, before the workers are forked from this process

    os.environ[HOME_VARIABLE] = str(settings.home)
    tls, identity = settings.peer_tls, settings.tls_identity()
    directory = identity.directory
    with identity.clear_key() as key:  # granian 2.8 does not read the encrypted form that other software writes
        watch = threading.Thread(target=_reload_on_change, args=(identity, key), name="certificates", daemon=True)
        watch.start()
        Granian(
            "bridge.child:peer_application",
            factory=True,
            address=tls.host,
            port=tls.port,
            interface=Interfaces.WSGI,
            workers=settings.http.workers,
            blocking_threads=settings.http.threads,
            respawn_failed_workers=False,
            respawn_interval=NEW_WORKER_SECONDS,
            workers_kill_timeout=max(1, int(settings.worker.drain_seconds)),
            log_level=LogLevels.warning,
            ssl_protocol_min=SSLProtocols.tls13,
            ssl_cert=directory / CERTIFICATE,
            ssl_key=key,
            ssl_ca=directory / AUTHORITIES,
            ssl_crl=[directory / REVOKED],
            ssl_client_verify=True,
        ).serve()


def _reload_on_change(identity: TlsIdentity, key: Path) -> None:
    """Tell this process's web server to change its workers when a certificate or the revocation list has changed."""
    seen = identity.stamp()
    while True:
        time.sleep(CERTIFICATES_LOOKED_AT_SECONDS)
        now = identity.stamp()
        if now != seen:
            get_logger("peer").info("certificates changed")
            seen = now
            identity.refresh_clear(key)
            os.kill(os.getpid(), signal.SIGHUP)


def run_mllp(settings: Settings) -> None:
    """Take HL7 v2 messages over MLLP until SIGTERM, then finish the frames that are in hand."""
    from bridge.mllp import MllpServer
    from bridge.mllp_follow_up import FollowUps
    from bridge.mllp_tls import tls_context
    from bridge.wiring import open_node

    with open_node(settings.home) as node:
        server = MllpServer(
            settings.mllp,
            node.ingest,
            follow_ups=FollowUps(node.ingest.completed),
            tls=tls_context(settings),
        )
        asyncio.run(server.run(settings.worker.drain_seconds))


def run_ledger(settings: Settings) -> None:
    """Run this node's replica of the ledger until SIGTERM."""
    from bridge.node_keys import load_signer
    from bridge.replica_process import run_replica

    run_replica(settings, load_signer(settings).sign)


def run_worker(settings: Settings, name: str) -> None:
    """Process the inbox and run the scheduled jobs until SIGTERM, then finish the batch that is in hand."""
    stop = threading.Event()
    on_stop_signal(stop.set)

    from bridge.jobs import Worker
    from bridge.wiring import open_node

    with open_node(settings.home, stop.is_set) as node:
        if not stop.is_set():
            Worker(node, process_name(name), stop).run()


def main(arguments: list[str]) -> int:
    """Run the child named by the first argument for the home named by the second."""
    name, home = arguments
    end_with_supervisor()
    configure_logging(name)
    settings = load_settings(Path(home))
    try:
        if name == "web":
            run_web(settings)
        elif name == "peer":
            run_peer(settings)
        elif name == "mllp":
            run_mllp(settings)
        elif name == "ledger":
            run_ledger(settings)
        else:
            run_worker(settings, name)
    except Exception as error:  # noqa: BLE001 - the process boundary; a traceback's values could hold patient data
        _log_failure(error)
        return 1
    return 0


def _log_failure(error: Exception) -> None:
    """Log why a child ends; the text only when it is one of ours, which hold nothing confidential."""
    ours = type(error).__module__.partition(".")[0] in ("anchor", "bridge", "fhir_adapters")
    detail = f"{error} {getattr(error, 'cause', '')}".strip() if ours else ""
    get_logger("child").error("child failed", error=type(error).__name__, detail=detail, at=where(error))
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()


def leave(name: str, code: int) -> NoReturn:
    """End this process. What it had open is closed; taking the interpreter apart object by object costs a worker a
    second of processor time, and on a busy machine the rest of the time that a node gives its children to end.
    """
    if name in SERVED_BY_GRANIAN:  # which has processes of its own to see to
        sys.exit(code)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(sys.argv[1], main(sys.argv[1:]))
