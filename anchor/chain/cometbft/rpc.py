"""CometBFT's JSON-RPC over HTTP, as far as the ledger needs it: submitting, asking the application, reading blocks.

RPC has no authentication, so it listens on loopback only and this is its only client. Connections are kept; the server
closes idle ones after ten seconds, so one repetition covers a connection closed meanwhile: everything asked here may be
asked twice.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import requests

from anchor.chain.cometbft.node_files import RPC_BATCH
from anchor.chain.sessions import SessionPool
from anchor.errors import ChainError, ChainUnavailable

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Bytes: a page of transactions in base64 many times over."""
ATTEMPTS = 2
TX_IN_CACHE = "tx already exists in cache"
"""CometBFT's answer to a transaction that it has in its mempool or has just committed (mempool/errors.go)."""


@dataclass(frozen=True, slots=True)
class RpcError(Exception):
    """An answer that says why there is none."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """The application's answer to a query: its code (0: answered), why not, and the value."""

    code: int
    log: str
    value: bytes
    height: int


class CometRpc:
    """Calls one node's RPC at ``url``. Threads may share an instance. All methods raise ``ChainError``."""

    def __init__(self, url: str, timeout_seconds: float = 10) -> None:
        self._url = url
        self._timeout = timeout_seconds
        self._sessions = SessionPool()

    def query(self, path: str, data: bytes) -> QueryAnswer:
        """Ask the application."""
        answer = self.call("abci_query", {"path": path, "data": data.hex()})
        response = _mapping(answer, "response")
        return QueryAnswer(
            code=int(response.get("code", 0)),
            log=str(response.get("log", "")),
            value=_base64(response.get("value")),
            height=int(response.get("height", 0)),
        )

    def broadcast(self, transactions: Sequence[bytes]) -> list[Mapping[str, Any] | RpcError]:
        """Hand transactions to the mempool, in order; each answer is CheckTx's, or why it was not taken at all."""
        answers: list[Mapping[str, Any] | RpcError] = []
        for start in range(0, len(transactions), RPC_BATCH):
            calls = [
                ("broadcast_tx_sync", {"tx": base64.b64encode(each).decode("ascii")})
                for each in transactions[start : start + RPC_BATCH]
            ]
            answers += self._batch(calls)
        return answers

    def call(self, method: str, parameters: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Call one method and return its result; raises ``ChainError`` with CometBFT's own words when it refuses."""
        (answer,) = self._batch([(method, parameters or {})])
        if isinstance(answer, RpcError):
            raise ChainError(f"the consensus engine refused {method}: {answer.text}")
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._sessions.close()

    def _batch(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Mapping[str, Any] | RpcError]:
        body = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
            for number, (method, parameters) in enumerate(calls)
        ]
        content = self._post(orjson.dumps(body if len(body) > 1 else body[0]))
        try:
            value = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise ChainError("the consensus engine's answer is not JSON") from None
        answers = {each["id"]: each for each in (value if isinstance(value, list) else [value]) if "id" in each}
        if answers.keys() != set(range(len(calls))):
            raise ChainError("the consensus engine did not answer every call")
        return [_result(answers[number]) for number in range(len(calls))]

    def _post(self, body: bytes) -> bytes:
        for attempt in range(ATTEMPTS):
            try:
                return self._once(body)
            except requests.ConnectionError as error:
                if attempt + 1 == ATTEMPTS:
                    raise ChainUnavailable("this member's ledger node cannot be reached") from error
            except requests.RequestException as error:
                raise ChainUnavailable(f"this member's ledger node did not answer ({type(error).__name__})") from error
        raise ChainUnavailable("this member's ledger node cannot be reached")

    def _once(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        with (
            self._sessions.lend() as session,
            session.post(
                self._url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False, stream=True
            ) as response,
        ):
            content = response.raw.read(MAX_ANSWER_BYTES + 1, decode_content=True)
        if len(content) > MAX_ANSWER_BYTES:
            raise ChainError("the consensus engine's answer is too large")
        return bytes(content)


def _result(answer: Mapping[str, Any]) -> Mapping[str, Any] | RpcError:
    error = answer.get("error")
    if isinstance(error, dict):
        return RpcError(int(error.get("code", 0)), str(error.get("data") or error.get("message") or ""))
    return _mapping(answer, "result")


def _mapping(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    if not isinstance(found, dict):
        raise ChainError("the consensus engine's answer lacks what was asked for")
    return found


def _base64(value: Any) -> bytes:
    try:
        return base64.b64decode(value or "", validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ChainError("the consensus engine's answer holds bytes that are not base64") from None
