"""The remote engine: a ``ChainClient`` that asks the member that hosts the ledger, over HTTP.

Nothing the host says is taken on trust where it matters: envelopes carry their own signatures, and whoever keeps
evidence checks proofs and checkpoints (``anchor.merkle``, ``anchor.checkpoint``). Here only form and reachability are
judged. A request that got no answer may be repeated: submissions are safe to repeat, everything else only reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import requests
from requests.auth import AuthBase

from anchor import checkpoint
from anchor.chain import remote_wire as wire
from anchor.chain.client import CommittedTransaction, Health, StateProof, StateReading, TransactionResult
from anchor.chain.sessions import SessionPool
from anchor.errors import ChainError, ChainUnavailable, FormatError, VerificationError

PREFIX = "/ledger/v1"
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Bytes: a page of transactions at their ordinary size many times over; a bound on a host that misbehaves."""
MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""Bytes of base64 in one submission; larger ones are split, in order."""
ATTEMPTS = 2
"""One repetition, for a kept-alive connection that the host had closed meanwhile."""

_Answer = TypeVar("_Answer")
_UNAVAILABLE = frozenset({429, 502, 503, 504})
_REFUSED = frozenset({400, 409, 422})


class RemoteChain:
    """``ChainClient`` of the ledger hosted at ``base_url``.

    ``auth`` signs or authorises every request (for members: SM2-signed requests); ``timeout_seconds`` bounds connecting
    and each wait for data. Threads may share an instance.
    """

    lag_seconds = 0.0

    def __init__(
        self,
        base_url: str,
        *,
        auth: AuthBase,
        timeout_seconds: float = 10,
        session: Callable[[], requests.Session] = requests.Session,
    ) -> None:
        """``session`` makes the HTTP sessions: where the channel is mutual TLS, ones that carry the certificate."""
        self._base = base_url.rstrip("/") + PREFIX
        self._auth = auth
        self._timeout = timeout_seconds
        self._sessions = SessionPool(session)

    def submit(self, envelopes: Sequence[bytes]) -> list[TransactionResult]:
        """Submit signed transactions in order and wait until each is committed or refused; safe to repeat."""
        results: list[TransactionResult] = []
        for part in _parts(envelopes):
            answer = _understood(wire.read_results, self._request("POST", "/transactions", wire.write_submission(part)))
            if len(answer) != len(part):
                raise ChainError("the ledger's host answered another number of transactions than it was sent")
            results += answer
        return results

    def next_seq(self, org: str) -> int:
        """Return the sequence number the ledger expects next from ``org``."""
        content = self._get(f"/next-seq/{_path(org)}")
        return _understood(lambda answer: wire.read_integer(answer, "seq"), content)

    def transaction(self, tx_id: str) -> CommittedTransaction | None:
        """Return a committed transaction, or None when the ledger holds none of that id."""
        content = self._get(f"/transactions/{_path(tx_id)}")
        return _understood(lambda answer: wire.read_transaction(wire.load(answer).get("transaction")), content)

    def transactions(self, start: int, limit: int) -> list[CommittedTransaction]:
        """Return up to ``limit`` committed transactions from log index ``start`` on, in log order."""
        content = self._get("/transactions", {"from": start, "limit": limit})
        items = _understood(lambda answer: wire.read_list(answer, "transactions"), content)
        found = [_understood(wire.read_transaction, item) for item in items]
        return [one for one in found if one is not None]

    def checkpoint(self) -> bytes:
        """Return the newest ledger checkpoint with the cosignatures collected for it."""
        return self._get("/checkpoint")

    def witnessed_checkpoint(self) -> bytes | None:
        """Return the newest ledger checkpoint that a quorum has signed, or None when there is none yet."""
        return self._get("/checkpoint/witnessed") or None

    def cosign(self, note: bytes) -> None:
        """Hand in a cosigned checkpoint; raises ``FormatError`` or ``VerificationError`` for one of no use."""
        checkpoint.parse(note)
        self._request("POST", "/cosignatures", note, refused=VerificationError)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion proof of log entry ``index`` in the tree of ``size``; raises ``VerificationError``."""
        return self._proof("inclusion", {"index": index, "size": size})

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """Return the consistency proof between two sizes of the ledger's log; raises ``VerificationError``."""
        return self._proof("consistency", {"size1": size1, "size2": size2})

    def state(self, key: str) -> dict[str, Any] | None:
        """Return a committed value of the state, or None."""
        content = self._get(f"/state/{_path(key)}")
        return _understood(lambda answer: wire.read_value(wire.load(answer)), content)

    def state_with_prefix(self, prefix: str, limit: int = 1000) -> dict[str, dict[str, Any]]:
        """Return committed values whose keys start with ``prefix``, in key order."""
        return _understood(wire.read_states, self._get("/state", {"prefix": prefix, "limit": limit}))

    def states(self, keys: Sequence[str], prefixes: Sequence[str] = ()) -> StateReading:
        """Return several committed values, and those under prefixes, in one request for ``wire.MAX_ASKED`` of them."""
        read: list[StateReading] = []
        for start in range(0, max(len(keys) + len(prefixes), 1), wire.MAX_ASKED):
            part = slice(start, start + wire.MAX_ASKED)
            rest = slice(max(start - len(keys), 0), max(start + wire.MAX_ASKED - len(keys), 0))
            body = wire.write_question(keys[part], prefixes[rest])
            read.append(_understood(wire.read_reading, self._request("POST", "/state", body)))
        made = StateReading(
            {key: value for each in read for key, value in each.values.items()},
            {prefix: found for each in read for prefix, found in each.prefixed.items()},
            max(each.block_time for each in read),
        )
        if set(made.values) != set(keys) or set(made.prefixed) != set(prefixes):
            raise ChainError("the ledger's host answered another question than it was asked")
        return made

    def state_proof(self, key: str) -> StateProof:
        """Return a value of the latest state with its proof."""
        return _understood(wire.read_state_proof, self._get(f"/state-proof/{_path(key)}"))

    def finality(self, size: int) -> bytes | None:
        """Return the host's engine's own proof of finality of the log of ``size`` entries, None when it has none."""
        return self._get("/finality", {"size": size}) or None

    def health(self) -> Health:
        """Return the host's condition as it says, or that it cannot be asked; does not raise."""
        try:
            return _understood(wire.read_health, self._get("/health"))
        except ChainError as error:
            return Health(False, "remote", 0, 0, 0, str(error))

    def close(self) -> None:
        """Close the connections."""
        self._sessions.close()

    def _proof(self, kind: str, parameters: dict[str, int]) -> list[bytes]:
        content = self._request("GET", f"/proofs/{kind}", parameters=parameters, refused=VerificationError)
        return _understood(wire.read_hashes, content)

    def _get(self, path: str, parameters: dict[str, Any] | None = None) -> bytes:
        return self._request("GET", path, parameters=parameters)

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        parameters: dict[str, Any] | None = None,
        refused: type[VerificationError] | type[ChainError] = ChainError,
    ) -> bytes:
        """Return the body of a successful answer; ``refused`` is raised when the host refuses what was sent."""
        for attempt in range(ATTEMPTS):
            try:
                return self._once(method, path, body, parameters, refused)
            except requests.ConnectionError as error:
                if attempt + 1 == ATTEMPTS:
                    raise ChainUnavailable("the ledger's host cannot be reached") from error
            except requests.Timeout as error:
                raise ChainUnavailable("the ledger's host did not answer in time") from error
            except requests.RequestException as error:
                raise ChainUnavailable(f"the ledger's host cannot be asked ({type(error).__name__})") from error
        raise ChainUnavailable("the ledger's host cannot be reached")

    def _once(
        self,
        method: str,
        path: str,
        body: bytes | None,
        parameters: dict[str, Any] | None,
        refused: type[VerificationError] | type[ChainError],
    ) -> bytes:
        with (
            self._sessions.lend() as session,
            session.request(
                method,
                self._base + path,
                data=body,
                params=parameters,
                auth=self._auth,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            content = _read(response)
        status = response.status_code
        if status in (200, 204):
            return content
        if status in _UNAVAILABLE:
            raise ChainUnavailable(f"the ledger's host is not available now (status {status})")
        if status in (401, 403):
            raise ChainError(f"the ledger's host does not accept this node's requests (status {status})")
        if status in _REFUSED:
            raise refused("the ledger's host refused the request")
        raise ChainError(f"the ledger's host answered with status {status}")


def _understood(read: Callable[[Any], _Answer], content: Any) -> _Answer:
    """Apply a reader of ``remote_wire``; what it cannot read is the host's fault."""
    try:
        return read(content)
    except FormatError as error:
        raise ChainError(f"the answer of the ledger's host cannot be read: {error}") from None


def _read(response: requests.Response) -> bytes:
    """Return an answer's body, at most ``MAX_ANSWER_BYTES``."""
    parts: list[bytes] = []
    total = 0
    for part in response.iter_content(64 * 1024):
        total += len(part)
        if total > MAX_ANSWER_BYTES:
            raise ChainError("the answer of the ledger's host is too large")
        parts.append(part)
    return b"".join(parts)


def _parts(envelopes: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Split envelopes, in order, into requests of bounded number and size."""
    part: list[bytes] = []
    size = 0
    for envelope in envelopes:
        encoded = len(envelope) * 4 // 3 + 8
        if part and (len(part) == wire.MAX_SUBMITTED or size + encoded > MAX_REQUEST_BYTES):
            yield part
            part, size = [], 0
        part.append(envelope)
        size += encoded
    if part:
        yield part


def _path(text: str) -> str:
    return quote(text, safe="/")
