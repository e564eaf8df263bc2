"""A CometBFT node for tests without CometBFT: its JSON-RPC over HTTP, a mempool, and blocks at times the test sets."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from anchor.chain.cometbft.replica_store import ReplicaStore
from tests.cometbft_oracle import oracle
from tests.fake_consensus import FakeConsensus


class FakeNode:
    """Serves the RPC methods that the client uses over one real application."""

    def __init__(
        self,
        store: ReplicaStore,
        folder: Path,
        now: Callable[[], float],
        validators: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """``validators``: those of a genesis file with nodes ("key", "power")."""
        self.consensus = FakeConsensus(store, folder)
        self.consensus.handshake(validators=[_update(each) for each in validators])
        self.paused = threading.Event()  # set: blocks are not made, transactions wait
        self.refuses = ""  # what the mempool says to every transaction, when it takes none
        self._now = now
        self._lock = threading.Lock()
        self._mempool: list[bytes] = []
        self._seen: set[bytes] = set()
        self._arrived = threading.Condition(self._lock)
        self._closing = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self._threads = [
            threading.Thread(target=self.server.serve_forever, args=(0.01,)),
            threading.Thread(target=self._make_blocks),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        with self._arrived:
            self._closing = True
            self._arrived.notify_all()
        for thread in self._threads:
            thread.join()
        self.server.server_close()
        self.consensus.close()

    def lose_mempool(self) -> None:
        """Forget everything that waits, as a restarted node does."""
        with self._lock:
            self._mempool.clear()
            self._seen.clear()

    def _make_blocks(self) -> None:
        while True:
            with self._arrived:
                while not self._closing and (not self._mempool or self.paused.is_set()):
                    self._arrived.wait(0.01)
                if self._closing:
                    return
                txs, self._mempool = self._mempool, []
                self.consensus.block(txs, int(self._now()))

    def answer(self, call: dict[str, Any]) -> dict[str, Any]:
        parameters = call.get("params") or {}
        try:
            result = getattr(self, f"_rpc_{call['method']}")(parameters)
        except RefusedCall as error:
            return {
                "jsonrpc": "2.0",
                "id": call["id"],
                "error": {"code": -32603, "message": "Internal error", "data": str(error)},
            }
        return {"jsonrpc": "2.0", "id": call["id"], "result": result}

    def _rpc_broadcast_tx_sync(self, parameters: dict[str, Any]) -> dict[str, Any]:
        tx = base64.b64decode(parameters["tx"])
        with self._arrived:
            if self.refuses:
                raise RefusedCall(self.refuses)
            if tx in self._seen:
                raise RefusedCall("tx already exists in cache")
            found = self.consensus.check(tx)
            if not found.code:
                self._seen.add(tx)
                self._mempool.append(tx)
                self._arrived.notify_all()
        return {
            "code": found.code,
            "data": found.data.hex().upper(),
            "log": found.log,
            "hash": hashlib.sha256(tx).hexdigest().upper(),
        }

    def _rpc_abci_query(self, parameters: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            found = self.consensus.query(parameters["path"], bytes.fromhex(parameters["data"]))
        value = base64.b64encode(found.value).decode() or None
        return {"response": {"code": found.code, "log": found.log, "value": value, "height": str(found.height)}}

    def _rpc_status(self, _parameters: dict[str, Any]) -> dict[str, Any]:
        import time

        moment = time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime(self._now()))
        height = str(self.consensus.height)
        return {"sync_info": {"latest_block_height": height, "latest_block_time": moment, "catching_up": False}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                calls = body if isinstance(body, list) else [body]
                answers = [node.answer(call) for call in calls]
                content = json.dumps(answers if isinstance(body, list) else answers[0]).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


class RefusedCall(Exception):
    """Answered as CometBFT answers what it refuses."""


def _update(validator: Mapping[str, Any]) -> Any:
    update = oracle("tendermint.abci.ValidatorUpdate")(power=validator["power"])
    update.pub_key.ed25519 = bytes.fromhex(validator["key"])
    return update
