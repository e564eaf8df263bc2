"""CometBFT's side of ABCI for tests, without CometBFT: it decides blocks at once, at times that the test sets.

It speaks the real socket protocol to a real server, in messages of Google's protobuf runtime (``cometbft_oracle``),
so that neither the codec nor the declarations of the package under test are used to talk to it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anchor.chain.cometbft.application import Application, app_state
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.cometbft.server import AbciServer
from anchor.errors import AnchorError
from tests.cometbft_oracle import oracle

Request, Response = oracle("tendermint.abci.Request"), oracle("tendermint.abci.Response")


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


class Connection:
    """One of the connections that CometBFT opens."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rb")

    def send(self, requests: Sequence[Any]) -> None:
        contents = [one.SerializeToString() for one in requests]
        self._socket.sendall(b"".join(varint(len(content)) + content for content in contents))

    def receive(self) -> Any:
        length = shift = 0
        while True:
            (byte,) = self._stream.read(1) or (None,)
            if byte is None:
                raise ConnectionError("the application closed the connection")
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return Response.FromString(self._stream.read(length))

    def call(self, kind: str, **fields: Any) -> Any:
        """Send one request and a flush, as CometBFT does, and return the answer's message."""
        request = Request()
        getattr(request, kind).SetInParent()
        for name, value in fields.items():
            target = getattr(request, kind)
            if isinstance(value, list):
                getattr(target, name).extend(value)
            elif hasattr(value, "DESCRIPTOR"):
                getattr(target, name).CopyFrom(value)
            else:
                setattr(target, name, value)
        flush = Request()
        flush.flush.SetInParent()
        self.send([request, flush])
        answer = self.receive()
        if answer.WhichOneof("value") == "exception":
            raise ApplicationFailed(answer.exception.error)
        assert answer.WhichOneof("value") == kind
        assert self.receive().WhichOneof("value") == "flush"
        return getattr(answer, kind)

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


class ApplicationFailed(Exception):
    """The application answered with an exception: CometBFT would stop."""


def timestamp(seconds: int, nanos: int = 0) -> Any:
    return oracle("google.protobuf.Timestamp")(seconds=seconds, nanos=nanos)


class FakeConsensus:
    """A chain of one application: handshake, blocks, queries."""

    def __init__(self, store: ReplicaStore, folder: Path, **options: Any) -> None:
        self.store = store
        self.application = Application(store, **options)
        self.error: AnchorError | None = None
        path = folder / "abci.sock"
        self.server = AbciServer(path, self.application)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.consensus, self.mempool, self.queries = Connection(path), Connection(path), Connection(path)
        self.height = 0

    def _serve(self) -> None:
        try:
            self.server.run()
        except AnchorError as error:
            self.error = error
        self.server.close()

    def handshake(self, *, validators: Sequence[Any] = (), state: bytes | None = None) -> bytes:
        """Do what CometBFT does on starting, as far as the height the application has; return its app hash."""
        info = self.consensus.call("info", version="0.38.25", abci_version="2.0.0", block_version=11, p2p_version=8)
        self.height = info.last_block_height
        if self.height:
            return bytes(info.last_block_app_hash)
        answer = self.consensus.call(
            "init_chain",
            time=timestamp(self.store.genesis.time),
            chain_id=self.store.genesis.chain,
            validators=list(validators),
            app_state_bytes=encoded_state(self.store) if state is None else state,
            initial_height=1,
        )
        return bytes(answer.app_hash)

    def finalize(self, txs: Sequence[bytes], time: int, **more: Any) -> Any:
        return self.consensus.call(
            "finalize_block", txs=list(txs), height=self.height + 1, time=timestamp(time, 500), hash=b"h" * 32, **more
        )

    def block(self, txs: Sequence[bytes], time: int, **more: Any) -> Any:
        """Decide a block of ``txs`` at ``time`` and return what the application made of it."""
        proposed = self.consensus.call(
            "prepare_proposal", max_tx_bytes=1 << 23, txs=list(txs), height=self.height + 1, time=timestamp(time)
        )
        chosen = list(proposed.txs)
        status = self.consensus.call("process_proposal", txs=chosen, height=self.height + 1, time=timestamp(time))
        assert status.status == 1
        answer = self.finalize(chosen, time, **more)
        self.consensus.call("commit")
        self.height += 1
        return answer

    def check(self, tx: bytes, *, again: bool = False) -> Any:
        return self.mempool.call("check_tx", tx=tx, type=int(again))

    def query(self, path: str, data: bytes = b"", *, prove: bool = False) -> Any:
        return self.queries.call("query", path=path, data=data, prove=prove)

    def close(self) -> None:
        self.server.stop()
        for each in (self.consensus, self.mempool, self.queries):
            each.close()
        self._thread.join()
        self.application.close()


def encoded_state(store: ReplicaStore) -> bytes:
    """Return what stands for the ledger in CometBFT's genesis file."""
    import json

    return json.dumps(app_state(store)).encode()
