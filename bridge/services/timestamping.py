"""RFC 3161 time stamps over the ledger's checkpoints, where a time-stamping authority (TSA) is configured.

On a schedule the newest checkpoint that this node has cosigned is stamped and the token kept; receipts that ask for one
carry the earliest stamped checkpoint that covers them (``bridge.services.receipts``). One stamp an hour vouches for
everything of that hour, and nothing else waits for the authority: when it is away, the next run catches up, because a
later stamp covers everything before it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Engine

from anchor.checkpoint import ledger_origin
from anchor.errors import AnchorError, FormatError
from anchor.timestamp import MAX_RESPONSE_BYTES, build_request, read_certificate, read_response
from bridge.errors import PeerUnavailable, SettingsError
from bridge.services.witnessing import WitnessService
from bridge.storage import witness_store
from bridge.storage.database import read_transaction, transact
from bridge.storage.witness_store import Timestamped

QUERY_TYPE = "application/timestamp-query"
MAX_PEM_BYTES = 256 * 1024
_PEM = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class TimestampTerms:
    """Where stamps come from: the authority's URL, the digest asked for ("sm3" or "sha256"), its certificates (DER)."""

    url: str
    imprint: str
    certificates: tuple[bytes, ...]
    timeout_seconds: float = 10.0


class TimestampService:
    """Has the ledger's head stamped. Without terms it does nothing, and says so."""

    def __init__(
        self,
        engine: Engine,
        witness: WitnessService,
        chain_id: str,
        terms: TimestampTerms | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._witness, self._terms, self._clock = engine, witness, terms, clock
        self._origin = ledger_origin(chain_id)

    @property
    def configured(self) -> bool:
        """Whether there is an authority to ask."""
        return self._terms is not None

    def run(self) -> Timestamped | None:
        """Stamp the checkpoint cosigned last unless it is stamped; return the new stamp, None when there is none to do.

        Raises ``PeerUnavailable`` when the authority does not answer, ``AnchorError`` when its answer does not hold.
        """
        last = self._witness.last()
        if self._terms is None or last is None:
            return None
        checkpoint = last.checkpoint
        with read_transaction(self._engine) as conn:
            newest = witness_store.last_timestamp(conn, self._origin)
        if newest is not None and newest.size >= checkpoint.size:
            return None
        text, nonce = checkpoint.text(), secrets.randbits(63) | 1 << 62
        answer = self._ask(build_request(text, imprint=self._terms.imprint, nonce=nonce))
        token, stamp = read_response(answer, text, self._terms.certificates, nonce=nonce)
        stamped = Timestamped(checkpoint.size, text, token, stamp.time)
        transact(self._engine, lambda conn: witness_store.add_timestamp(conn, self._origin, stamped))
        return stamped

    def last_time(self) -> int | None:
        """Return the time of the newest stamp (Unix seconds), None when there is none or none is asked for."""
        if self._terms is None:
            return None
        with read_transaction(self._engine) as conn:
            newest = witness_store.last_timestamp(conn, self._origin)
        return None if newest is None else newest.time

    def _ask(self, query: bytes) -> bytes:
        assert self._terms is not None
        timeout = self._terms.timeout_seconds
        try:
            with (
                requests.Session() as session,
                session.post(
                    self._terms.url,
                    data=query,
                    headers={"Content-Type": QUERY_TYPE},
                    timeout=timeout,
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                content = response.raw.read(MAX_RESPONSE_BYTES + 1, decode_content=True)
                status = response.status_code
        except (requests.RequestException, OSError) as error:
            raise PeerUnavailable(
                "the time-stamping authority does not answer / 时间戳机构无响应", cause=type(error).__name__
            ) from error
        if status != requests.codes.ok:
            raise PeerUnavailable(
                "the time-stamping authority does not answer / 时间戳机构无响应", cause=f"HTTP {status}"
            )
        return bytes(content)


def read_certificates(file: Path) -> tuple[bytes, ...]:
    """Return the authority's certificates (DER) from a PEM or DER file; raises ``SettingsError``."""
    try:
        content = file.read_bytes()[:MAX_PEM_BYTES]
        if _PEM in content:
            found: Sequence[bytes] = [
                each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(content)
            ]
        else:
            found = [content]
        for each in found:
            read_certificate(each)
    except OSError as error:
        raise SettingsError(f"{file} cannot be read ({error.strerror}) / 无法读取证书文件") from error
    except (AnchorError, ValueError) as error:
        reason = str(error) if isinstance(error, FormatError) else "it is not a certificate"
        raise SettingsError(f"{file} is not a time-stamping certificate: {reason} / 不是时间戳证书") from error
    return tuple(found)
