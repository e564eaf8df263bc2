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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from anchor.chain.ledger_trust import KEYS, MAX_MEMBERS, PREFIXES, trust_in
from anchor.errors import ChainError, ChainUnavailable
from bridge.errors import BridgeError
from bridge.services.awaited_state import awaited_state
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import LedgerFact

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient, StateReading

DEFAULT_MAX_AGE_SECONDS = 300.0
REFRESH_SECONDS = 30  # an unchanged fact is noted as seen this often, so that reading writes little
SLOW_SECONDS = 0.5  # a question that failed sooner cost nothing: the ledger is asked again at once
LEFT_ALONE_SECONDS = 10.0
FORGET_SECONDS = 86_400.0
MAX_REMEMBERED = 10_000  # facts that a process knows it has stored; beyond them it stores once more than it must
MEMBERS = "members"
TRUST = "trust"

_FACT: Table = LedgerFact.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Fact:
    """A value of the ledger's state (None: there is none). ``stale``: it is the last one known; ``age`` in seconds."""

    value: Any
    stale: bool = False
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Several facts, asked for together; ``time``: the newest moment known (``LedgerFacts.newest_time``).

    ``fresh``: values that are not remembered, as of now; empty when the ledger did not answer.
    """

    facts: Mapping[str, Fact | ChainError]
    fresh: Mapping[str, Any]
    time: int

    def fact(self, key: str) -> Fact:
        """Return a fact that was asked for; raises ``ChainError`` as ``LedgerFacts.fact`` does."""
        found = self.facts[key]
        if isinstance(found, ChainError):
            raise found
        return found


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

    def read(self, keys: Sequence[str], *, fresh: Sequence[str] = (), trust: tuple[str, int] | None = None) -> Reading:
        """Ask for several facts in one question; what cannot be had raises when it is looked at.

        ``fresh``: keys of values that are not remembered. ``trust``: chain id and quorum of a trust file that is wanted
        as well, the fact ``TRUST``.
        """
        now = int(self._clock())
        wanted = [*keys, *((TRUST,) if trust else ())]
        places = {key: f"trust/{trust[1]}" if trust and key == TRUST else key for key in wanted}
        try:
            if self.silent:
                raise ChainUnavailable("the ledger did not answer a moment ago")
            found, made = self._ask(lambda: self._read([*keys, *fresh], trust))
        except ChainError as error:
            return Reading({key: self._stale(places[key], error) for key in wanted}, {}, now)
        values = {key: made if key == TRUST else found.values[key] for key in wanted}
        self._remember({places[key]: value for key, value in values.items()})
        facts = {key: Fact(value) for key, value in values.items()}
        return Reading(facts, {key: found.values[key] for key in fresh}, max(now, found.block_time))

    def _read(self, keys: Sequence[str], trust: tuple[str, int] | None) -> tuple[StateReading, str | None]:
        if trust is None:
            return self._chain.states(keys), None
        found = self._chain.states([*keys, *KEYS], PREFIXES)
        return found, trust_in(self._chain, found, *trust).dump().decode()

    def _stale(self, key: str, error: ChainError) -> Fact | ChainError:
        try:
            return self._remembered(key, error)
        except ChainError as unknown:
            return unknown

    def fresh(self, key: str, arrived: Callable[[dict[str, Any]], bool] = lambda _: True) -> Any:
        """Return a value of the state as of now, or as soon as it is there and ``arrived`` (``awaited_state``).

        It is not remembered. Raises ``ChainError``.
        """
        if self.silent:
            raise ChainUnavailable("the ledger did not answer a moment ago")
        return self._ask(lambda: awaited_state(self._chain, key, arrived))

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
        self._remember({key: value})
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
        self._remember({MEMBERS: members})
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

    def _remember(self, values: Mapping[str, Any]) -> None:
        """Store what is new or has not been noted as seen for a while, in one transaction."""
        now = int(self._clock())
        rows = {}
        for key, value in values.items():
            with self._lock:
                before = self._seen.get(key)
            if value is None and before is None:
                continue  # names that nobody has must not fill the memory
            text = json.dumps(value, sort_keys=True)
            if before is None or before[0] != text or now - before[1] >= REFRESH_SECONDS:
                rows[key] = text
        if not rows:
            return
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        statement = insert(_FACT)
        renewed = {name: statement.excluded[name] for name in ("value", "seen")}
        statement = statement.on_conflict_do_update(index_elements=["key"], set_=renewed)
        try:
            with write_transaction(self._engine) as connection:
                listed = [{"key": key, "value": text, "seen": now} for key, text in sorted(rows.items())]
                connection.execute(statement, listed)
        except BridgeError:
            return  # what could not be remembered is asked for again
        with self._lock:
            if len(self._seen) >= MAX_REMEMBERED:
                self._seen.clear()
            self._seen |= {key: (text, now) for key, text in rows.items()}
