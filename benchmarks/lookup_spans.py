"""Where the time of a lookup goes: spans around what is waited for, and every cryptographic operation.

What is recorded runs with wrappers around it, so rates are measured without them. Spans of one lookup at a time nest,
across threads as well: each instant belongs to the span that began last.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from types import FunctionType, ModuleType
from typing import Any
from urllib.parse import urlsplit

import requests
from flask import Flask
from sqlalchemy import Connection, Engine, event
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from anchor.chain.embedded_writer import BlockWriter
from anchor.gm import PrivateKey, PublicKey, hmac_sm3, sm3
from anchor.gm.providers.native import NativeProvider
from bridge.storage.database import READ_ONLY

CRYPTOGRAPHY, DATABASE, BLOCK, HTTP = "SM2 and SM4", "database", "making the ledger's blocks", "HTTP and TCP"
OWN, SERVING = "the requester's own code", "the servers' own code"
WAITING = (
    ("/ledger/v1/transactions", "waiting for the ledger's blocks"),
    ("/ledger/v1/", "asking the ledger's state"),
    ("/exchange/v1/requests", "waiting for the holder"),
    ("/exchange/v1/", "waiting for the card authority"),
)
"""What a request waits for, by the beginning of its path; the first that fits."""

OPERATIONS: tuple[tuple[type, str, str], ...] = (
    (PrivateKey, "sign", "SM2 sign"),
    (PublicKey, "verify", "SM2 verify"),
    (PublicKey, "encrypt", "SM2 encrypt"),
    (PrivateKey, "decrypt", "SM2 decrypt"),
    (NativeProvider, "sm4_gcm_encrypt", "SM4-GCM encrypt"),
    (NativeProvider, "sm4_gcm_decrypt", "SM4-GCM decrypt"),
)
HASHES: tuple[tuple[Callable[..., bytes], str], ...] = ((sm3, "SM3"), (hmac_sm3, "HMAC-SM3"))
STATEMENTS = ("do_execute", "do_executemany", "do_execute_no_params", "do_commit", "do_rollback")

Call = tuple[str, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]


class Recording:
    """What was recorded. ``spans`` are (began, ended, label) by ``time.perf_counter``; ``calls`` the cryptography.

    ``requests``: HTTP requests; ``commits``: transactions of the nodes' databases that write, and wait for the disk.
    """

    def __init__(self) -> None:
        self.spans: list[tuple[float, float, str]] = []
        self.calls: list[Call] = []
        self.requests = self.commits = 0
        self._inside = threading.local()

    def counts(self) -> dict[str, int]:
        """Return how many operations of each kind there were, in the order of the tables above."""
        found = Counter(label for label, *_ in self.calls)
        return {label: found[label] for label in [*(each[2] for each in OPERATIONS), *(each[1] for each in HASHES)]}

    def committed(self, connection: Connection) -> None:
        """Count a transaction unless it only reads."""
        self.commits += not connection.get_execution_options().get(READ_ONLY, False)

    def replay(self) -> None:
        """Do the recorded cryptography again, bare, one operation after the other."""
        for _, operation, arguments, options in self.calls:
            operation(*arguments, **options)

    def timed(self, function: Callable[..., Any], label: Callable[..., str]) -> Callable[..., Any]:
        """Return ``function`` with a span around each call, named by ``label`` of its arguments."""

        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.spans.append((began, time.perf_counter(), label(*arguments, **options)))

        return call

    def counted(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        """Return a cryptographic ``function`` that is timed and kept; what it calls itself is part of it."""
        timed = self.timed(function, lambda *_, **__: CRYPTOGRAPHY)

        def call(*arguments: Any, **options: Any) -> Any:
            if getattr(self._inside, "operation", False):
                return function(*arguments, **options)
            self._inside.operation = True
            try:
                self.calls.append((label, function, arguments, options))
                return timed(*arguments, **options)
            finally:
                self._inside.operation = False

        return call


@contextmanager
def recording(*, serving: bool = False, hashes: bool = True) -> Iterator[Recording]:
    """Record what this process does meanwhile.

    ``serving``: it is all the nodes, so HTTP is no waiting for others. Without ``hashes`` they are part of what hashes:
    there are thousands, and to time one takes longer than the hash.
    """
    made = Recording()

    def path_label(_session: object, request: requests.PreparedRequest, **_: Any) -> str:
        made.requests += 1
        path = urlsplit(request.url or "").path
        return HTTP if serving else next((label for start, label in WAITING if path.startswith(start)), HTTP)

    with ExitStack() as undo:

        def replace(owner: Any, name: str, value: Any) -> None:
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)

        for owner, name, label in OPERATIONS:
            replace(owner, name, made.counted(getattr(owner, name), label))
        for function, label in HASHES if hashes else ():
            counted = made.counted(function, label)
            for module in [each for key, each in sys.modules.items() if key.startswith(("anchor", "bridge"))]:
                for name in [name for name, value in vars(module).items() if value is function]:
                    replace(module, name, counted)
                for each in _functions(module):
                    defaults, named = each.__defaults__ or (), each.__kwdefaults__ or {}
                    if function in defaults:
                        replace(each, "__defaults__", tuple(_swapped(defaults, function, counted)))
                    if function in named.values():
                        values = _swapped(named.values(), function, counted)
                        replace(each, "__kwdefaults__", dict(zip(named, values, strict=True)))
        for name in STATEMENTS:
            replace(SQLiteDialect_pysqlite, name, made.timed(getattr(SQLiteDialect_pysqlite, name), _always(DATABASE)))
        event.listen(Engine, "commit", made.committed)
        undo.callback(event.remove, Engine, "commit", made.committed)
        replace(requests.Session, "send", made.timed(requests.Session.send, path_label))
        if serving:
            replace(BlockWriter, "make_block", made.timed(BlockWriter.make_block, _always(BLOCK)))
            replace(Flask, "__call__", made.timed(Flask.__call__, _always(SERVING)))
        yield made


def _functions(module: ModuleType) -> list[FunctionType]:
    """Return the functions of a module and of its classes: a hash can be the default of a parameter."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    inner = [value for each in own if isinstance(each, type) for value in vars(each).values()]
    return [each for each in own + inner if isinstance(each, FunctionType)]


def _swapped(values: Iterable[Any], old: Any, new: Any) -> list[Any]:
    return [new if value is old else value for value in values]


def _always(label: str) -> Callable[..., str]:
    return lambda *_, **__: label


def divide(spans: Sequence[tuple[float, float, str]], began: float, ended: float) -> dict[str, float]:
    """Return the seconds between two moments by label, each instant given to the span that began last."""
    moments = sorted({began, ended, *(min(max(each, began), ended) for span in spans for each in span[:2])})
    waiting = sorted(spans)
    active: list[tuple[float, float, str]] = []
    shares: dict[str, float] = {}
    taken = 0
    for start, end in pairwise(moments):
        while taken < len(waiting) and waiting[taken][0] <= start:
            active.append(waiting[taken])
            taken += 1
        active = [span for span in active if span[1] > start]
        label = max(active)[2] if active else OWN
        shares[label] = shares.get(label, 0.0) + end - start
    return shares
