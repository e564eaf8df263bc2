"""Gossip between members: the newest ledger checkpoint that a node has cosigned travels on every call between nodes.

Requests and answers between members carry it in ``X-Yiqiao-Checkpoint``: a note (``anchor.checkpoint``) in base64, with
the node's own cosignature and one of the others. So a host that shows two members different ledgers is found out by the
first call between them. Here is only what a call has to do, which is little: give the newest, keep what is new of what
was shown. Comparing it is the witness job's matter (``bridge.services.witnessing``); no call waits for the ledger.

The header authenticates itself: a note that no member signed is dropped when it is compared, and proves nothing.
"""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Callable
from typing import Any

import requests
from sqlalchemy import Engine

from anchor.checkpoint import SignedCheckpoint, ledger_origin, parse, render
from anchor.errors import FormatError
from bridge.errors import BridgeError
from bridge.peer_signature import CHECKPOINT_HEADER
from bridge.storage import witness_store
from bridge.storage.database import read_transaction, transact
from bridge.storage.witness_store import Heard

MAX_HEADER_CHARACTERS = 4096
"""Characters of the header: a note with two signatures takes about 900; more is not read."""
NEWEST_CACHE_SECONDS = 1.0
"""How long the own header is reused: as often as a busy ledger makes a checkpoint worth cosigning."""
REMEMBERED_SOURCES = 512
"""Members whose last header is remembered, so that saying the same again costs nothing; more than a consortium has."""


class CheckpointGossip:
    """What one process of a node says and hears of the ledger's newest checkpoint. Threads may share it."""

    def __init__(self, engine: Engine, chain_id: str, org: str, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._origin = ledger_origin(chain_id)
        self._org = org
        self._clock = clock
        self._lock = threading.Lock()
        self._newest: tuple[float, str | None] = (-NEWEST_CACHE_SECONDS, None)
        self._heard: dict[str, str] = {}

    def newest(self) -> str | None:
        """Return the header's value: what this node has cosigned last, None before the first; does not raise."""
        now = time.monotonic()
        with self._lock:
            read, value = self._newest
            if now - read < NEWEST_CACHE_SECONDS:
                return value
        try:
            with read_transaction(self._engine) as conn:
                note = witness_store.witnessed(conn, self._origin)
        except BridgeError:
            return value  # the call goes on without, or with what was newest before
        fresh = None if note is None else self._value(note)
        with self._lock:
            self._newest = (now, fresh)
        return fresh

    def hear(self, value: str | None, source: str) -> bool:
        """Take what a member's call or answer carried; says whether it is kept to be compared. Does not raise."""
        if not value or len(value) > MAX_HEADER_CHARACTERS or value == self._newest[1]:
            return False
        with self._lock:
            if self._heard.get(source) == value:
                return False
            if len(self._heard) >= REMEMBERED_SOURCES:
                self._heard.clear()
            self._heard[source] = value
        try:
            note = base64.b64decode(value, validate=True)
            checkpoint = parse(note).checkpoint
        except (binascii.Error, ValueError, FormatError):
            return False
        if checkpoint.origin != self._origin:
            return False
        heard = Heard(source[:64], checkpoint.size, note, int(self._clock()), "")
        try:
            return transact(self._engine, lambda conn: witness_store.hear(conn, self._origin, heard))
        except BridgeError:
            return False

    def listen(self, session: requests.Session, source: str) -> requests.Session:
        """Let every answer that ``session`` gets be heard as ``source``'s; returns the session."""

        def hear(answer: requests.Response, **_: Any) -> None:
            self.hear(answer.headers.get(CHECKPOINT_HEADER), source)

        session.hooks["response"].append(hear)
        return session

    def _value(self, note: bytes) -> str:
        """Return a note in base64, with its own signature and one other: two say as much as twenty here."""
        signed = parse(note)
        others = [each for each in signed.signatures if each.org != self._org]
        kept = (*others[:1], *signed.by(self._org)[:1])
        return base64.b64encode(render(SignedCheckpoint(signed.checkpoint, kept))).decode("ascii")
