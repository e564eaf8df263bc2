"""An MLLP listener on a loop of its own, for tests that speak to it over real sockets."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bridge.mllp import MllpServer
from bridge.mllp_follow_up import FollowUps
from bridge.settings import MllpSettings

SETTINGS: dict[str, object] = {
    "enabled": True,
    "host": "127.0.0.1",
    "source": "mllp",
    "max_frame_bytes": 1024 * 1024,
    "idle_seconds": 5.0,
    "frame_seconds": 5.0,
    "max_connections": 50,
    "plain_network": False,
    "tls_certificate": "",
    "tls_key": "",
    "tls_client_ca": "",
}


@contextmanager
def mllp_listener(
    receiver: Any, *, tls: ssl.SSLContext | None = None, **changes: object
) -> Iterator[tuple[int, MllpServer]]:
    """Serve ``receiver`` on a free port; gives the port and the server. ``changes`` are settings of their own."""
    settings = MllpSettings.model_construct(**{**SETTINGS, **changes, "port": 0})  # type: ignore[arg-type]
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    follow_ups = FollowUps(receiver.completed) if hasattr(receiver, "completed") else None
    server = MllpServer(settings, receiver, follow_ups=follow_ups, tls=tls)
    try:
        yield asyncio.run_coroutine_threadsafe(server.start(), loop).result(5), server
    finally:
        if not server.stopping:
            asyncio.run_coroutine_threadsafe(server.stop(2), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
