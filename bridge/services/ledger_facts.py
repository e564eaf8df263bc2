"""What the ledger says, remembered for the moment when it does not answer.

Care must not wait for the ledger, and a revocation must not be missed for long: between the two stands a bound
(``exchange.ledger_cache_seconds``). A fact is always asked for; only when the ledger does not answer is the last answer
taken, if it is not older than the bound, and then it is marked as stale. Who may rest on stale facts is decided where
they are used: treatment and emergencies, nothing else.

A ledger that lets one wait is left alone for a few seconds, so that one request does not wait for it ten times.
A holder's own grants are changed by nobody else: for them its own record stands in, within the same bound.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from anchor.chain.ledger_trust import MAX_MEMBERS, trust_of
from anchor.errors import ChainError, ChainUnavailable
from bridge.errors import BridgeError
from bridge.services.awaited_state import awaited_state
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import LedgerFact

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient

DEFAULT_MAX_AGE_SECONDS = 300.0
REFRESH_SECONDS = 30  # an unchanged fact is noted as seen this often, so that reading writes little
SLOW_SECONDS = 0.5  # a question that failed sooner cost nothing: the ledger is asked again at once
LEFT_ALONE_SECONDS = 10.0
FORGET_SECONDS = 86_400.0
MAX_REMEMBERED = 10_000  # facts that a process knows it has stored; beyond them it stores once more than it must
MEMBERS = "members"

_FACT: Table = LedgerFact.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Fact:
    """A value of the ledger's state (None: there is none). ``stale``: it is the last one known; ``age`` in seconds."""

    value: Any
    stale: bool = False
    age: float = 0.0


class LedgerFacts:
    """Reads the ledger's state through a memory of bounded age that all processes of a node share."""

    def __init__(
        self,
        engine: Engine,
        chain: ChainClient,
        *,
        max_age_seconds: float = DEFAULT_MAX_AGE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._chain, self._max_age, self._clock = engine, chain, max_age_seconds, clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[str, int]] = {}
        self._silent_until = 0.0

    @property
    def silent(self) -> bool:
        """Whether the ledger did not answer a moment ago."""
        return time.monotonic() < self._silent_until

    def went_silent(self) -> None:
        """Leave the ledger alone for a moment: it let somebody wait."""
        self._silent_until = time.monotonic() + LEFT_ALONE_SECONDS

    def state(self, key: str) -> Any:
        """Return a value of the state, the last one known if need be; raises ``ChainError`` as ``fact`` does."""
        return self.fact(key).value

    def fact(self, key: str) -> Fact:
        """Return a value of the state; raises ``ChainError`` when neither ledger nor a recent memory has it."""
        return self._fact(key, lambda: self._chain.state(key))

    def fresh(self, key: str, arrived: Callable[[dict[str, Any]], bool] = lambda _: True) -> Any:
        """Return a value of the state as of now, or as soon as it is there and ``arrived`` (``awaited_state``).

        It is not remembered. Raises ``ChainError``.
        """
        if self.silent:
            raise ChainUnavailable("the ledger did not answer a moment ago")
        return self._ask(lambda: awaited_state(self._chain, key, arrived))

    def trust(self, chain_id: str, quorum: int) -> Fact:
        """Return the trust file of the ledger as it stands, as text (``trust_of``); raises as ``fact`` does."""
        return self._fact(f"trust/{quorum}", lambda: trust_of(self._chain, chain_id, quorum).dump().decode())

    def newest_time(self) -> int:
        """Return the newest moment known: this node's clock, or the ledger's newest block where that is later."""
        now = int(self._clock())
        if self.silent:
            return now
        health = self._chain.health()
        return max(now, health.block_time) if health.ok else now

    def forget(self) -> int:
        """Forget facts that nobody has asked for in a day; return how many."""
        with write_transaction(self._engine) as connection:
            old = delete(_FACT).where(_FACT.c.seen < int(self._clock() - max(FORGET_SECONDS, self._max_age)))
            return connection.execute(old).rowcount

    def _fact(self, key: str, ask: Callable[[], Any]) -> Fact:
        if self.silent:
            return self._remembered(key, ChainUnavailable("the ledger did not answer a moment ago"))
        try:
            value = self._ask(ask)
        except ChainError as error:
            return self._remembered(key, error)
        self._remember(key, value)
        return Fact(value)

    def _ask(self, ask: Callable[[], Any]) -> Any:
        began = time.monotonic()
        try:
            return ask()
        except ChainError:
            if time.monotonic() - began > SLOW_SECONDS:
                self.went_silent()
            raise

    def heard_of(self) -> None:
        """Raise ``ChainUnavailable`` when the ledger has last answered longer ago than the bound."""
        with read_transaction(self._engine) as connection:
            newest = connection.execute(select(func.max(_FACT.c.seen))).scalar()
        if newest is None or self._clock() - newest > self._max_age:
            raise ChainUnavailable("the ledger has not answered for too long")

    def refresh(self) -> int:
        """Remember all members' records as of now; return how many there are. Raises ``ChainError``."""
        members = self._ask(lambda: list(self._chain.state_with_prefix("member/", MAX_MEMBERS).values()))
        self._remember(MEMBERS, members)
        return len(members)

    def _remembered(self, key: str, error: ChainError) -> Fact:
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(_FACT).where(_FACT.c.key == key)).first()
        age = 0.0 if row is None else max(0.0, self._clock() - row.seen)
        if row is None or age > self._max_age:
            if not key.startswith("member/"):
                raise error
            known = self._remembered(MEMBERS, error)
            found = [each for each in known.value if key == f"member/{each['org']}"]
            return Fact(found[0] if found else None, stale=True, age=known.age)
        return Fact(json.loads(row.value), stale=True, age=age)

    def _remember(self, key: str, value: Any) -> None:
        with self._lock:
            before = self._seen.get(key)
        if value is None and before is None:
            return  # names that nobody has must not fill the memory
        text, now = json.dumps(value, sort_keys=True), int(self._clock())
        if before is not None and before[0] == text and now - before[1] < REFRESH_SECONDS:
            return
        values = {"value": text, "seen": now}
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        statement = insert(_FACT).values(key=key, **values)
        try:
            with write_transaction(self._engine) as connection:
                connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_=values))
        except BridgeError:
            return  # what could not be remembered is asked for again
        with self._lock:
            if len(self._seen) >= MAX_REMEMBERED:
                self._seen.clear()
            self._seen[key] = (text, now)
