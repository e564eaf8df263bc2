"""How this node's evidence stands: what waits for the ledger, who has cosigned, what contradicts, and what is alarming.

Read by ``yiqiao status``, ``/readyz``, ``/status`` and the metrics. Alarms are stable names:

=================== ===================================================================================
anchoring-late      something has waited for the ledger longer than ``anchoring.max_age_seconds``
ledger-away         the ledger does not answer
too-few-witnesses   the ledger's head has had no quorum for longer than ``witness.max_age_seconds``
witness-late        this node has not looked at the ledger for that long
ledger-conflict     two signed histories of the ledger; an operator has to acknowledge it
ledger-unproven     another member was shown what the ledger does not prove here
ledger-rules        this observer's replay gives something else than the ledger's host has signed
ledger-invalid      the ledger shows what nobody signed, a shorter log, or a time that cannot be
timestamp-late      no time stamp for three of its periods
=================== ===================================================================================
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anchor.chain.client import ChainClient
from anchor.chain.followed import FollowedLedger, Progress
from anchor.checkpoint import parse
from anchor.errors import AnchorError
from anchor.trust import majority
from bridge.services.anchoring import AnchoringService
from bridge.services.witnessing import ALARMS, BROKEN_RULES, UNPROVEN, WitnessService

LEDGER_CACHE_SECONDS = 5.0
"""How long what the ledger said of its head is reused: scrapes and probes come every second."""
LATE_PERIODS = 3
"""Periods without a time stamp after which something is wrong."""


@dataclass(frozen=True, slots=True)
class EvidenceStatus:
    """Counts and ages; ages are seconds, None where there is nothing to measure.

    ``lag``: how long the oldest version has waited for the ledger. ``checkpoint_age``: since this node's newest
    published checkpoint. ``ledger_size``, ``ledger_age``: the ledger's head; ``witnesses``: how many members have
    signed it, of the ``quorum`` needed; ``witnessed_size``: the newest head with a quorum. ``cosigned_size``:
    what this node cosigned last, ``looked_age`` since it last looked. ``conflicts`` counts those not acknowledged.
    ``replayed_size``, ``replayed_height``: how far an observer has computed the ledger for itself, None elsewhere.
    """

    pending: int
    unpublished: int
    lag: float
    checkpoint_age: float | None
    ledger_ok: bool
    ledger_size: int
    ledger_age: float | None
    witnesses: int
    quorum: int
    witnessed_size: int
    cosigned_size: int
    looked_age: float | None
    look: str
    conflicts: int
    unproven: int
    timestamp_age: float | None
    replayed_size: int | None
    replayed_height: int | None
    alarms: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values, with stable names."""
        return {name: getattr(self, name) for name in self.__slots__} | {"alarms": list(self.alarms)}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Seconds: how long versions may wait, how long a head may lack its quorum; a time stamp's period, 0 for none."""

    anchoring: float
    witness: float
    timestamp: float = 0.0


@dataclass(frozen=True, slots=True)
class _Head:
    """What the ledger said of its head, when asked."""

    ok: bool
    size: int
    time: int | None
    witnesses: int
    quorum: int
    witnessed_size: int
    unwitnessed_since: int | None


class EvidenceStatusService:
    """Reads the status; asks the ledger at most every ``LEDGER_CACHE_SECONDS``. Threads may share it."""

    def __init__(
        self,
        anchoring: AnchoringService,
        witness: WitnessService,
        chain: ChainClient,
        *,
        thresholds: Thresholds,
        quorum: int = 0,
        witnessing: bool = True,
        last_timestamp: Callable[[], int | None] = lambda: None,
        replay: FollowedLedger | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``quorum``: 0 for a majority of the active members; ``witnessing``: whether this node is to look at all."""
        self._anchoring, self._witness, self._chain = anchoring, witness, chain
        self._thresholds, self._quorum, self._witnessing = thresholds, quorum, witnessing
        self._last_timestamp, self._replay, self._clock = last_timestamp, replay, clock
        self._lock = threading.Lock()
        self._head: tuple[float, _Head] | None = None

    def read(self) -> EvidenceStatus:
        """Return how the node's evidence stands; raises ``StorageError``, ``ChainError`` for an observer's own copy."""
        now = float(self._clock())
        anchoring, witness, head = self._anchoring.status(), self._witness.status(), self._ledger()
        since, look, stamped = anchoring.waiting_since, witness.look, self._last_timestamp()
        replayed = self._replayed()
        conflicts = sum(each.acknowledged is None for each in witness.conflicts)
        values: dict[str, Any] = {
            "pending": anchoring.pending,
            "unpublished": anchoring.unpublished,
            "lag": 0.0 if since is None else max(0.0, now - since),
            "checkpoint_age": _age(now, anchoring.published),
            "ledger_ok": head.ok,
            "ledger_size": head.size,
            "ledger_age": _age(now, head.time),
            "witnesses": head.witnesses,
            "quorum": head.quorum,
            "witnessed_size": head.witnessed_size,
            "cosigned_size": witness.size,
            "looked_age": None if look is None else _age(now, look.looked),
            "look": "" if look is None else look.outcome,
            "conflicts": conflicts,
            "unproven": len(witness.unproven),
            "timestamp_age": _age(now, stamped),
            "replayed_size": None if replayed is None else replayed.size,
            "replayed_height": None if replayed is None else replayed.height,
        }
        return EvidenceStatus(**values, alarms=self._alarms(values, head, now))

    def _replayed(self) -> Progress | None:
        if self._replay is None:
            return None
        return self._replay.progress() or Progress(0, 0, 0)

    def _alarms(self, values: dict[str, Any], head: _Head, now: float) -> tuple[str, ...]:
        limits = self._thresholds
        looked, look = values["looked_age"], values["look"]
        unsigned = None if head.unwitnessed_since is None else now - head.unwitnessed_since
        rules = {
            "anchoring-late": values["lag"] > limits.anchoring,
            "ledger-away": not head.ok,
            "too-few-witnesses": unsigned is not None and unsigned > limits.witness,
            "witness-late": self._witnessing and head.ok and looked is not None and looked > limits.witness,
            "ledger-conflict": values["conflicts"] > 0,
            "ledger-unproven": values["unproven"] > 0 or look == UNPROVEN,
            "ledger-rules": look == BROKEN_RULES,
            "ledger-invalid": look in ALARMS - {"conflict", UNPROVEN, BROKEN_RULES},
            "timestamp-late": bool(limits.timestamp)
            and values["timestamp_age"] is not None
            and values["timestamp_age"] > LATE_PERIODS * limits.timestamp,
        }
        return tuple(name for name, raised in rules.items() if raised)

    def _ledger(self) -> _Head:
        with self._lock:
            if self._head is None or time.monotonic() - self._head[0] > LEDGER_CACHE_SECONDS:
                self._head = (time.monotonic(), self._ask())
            return self._head[1]

    def _ask(self) -> _Head:
        try:
            note, witnessed = parse(self._chain.checkpoint()), self._chain.witnessed_checkpoint()
            quorum = self._quorum or majority(self._chain.state_with_prefix("member/").values())
            covered = 0 if witnessed is None else parse(witnessed).checkpoint.size
            first = self._chain.transactions(covered, 1)
        except AnchorError:
            return _Head(False, 0, None, 0, self._quorum, 0, None)
        return _Head(
            ok=True,
            size=note.checkpoint.size,
            time=note.checkpoint.integer("time"),
            witnesses=len({signature.org for signature in note.signatures}),
            quorum=quorum,
            witnessed_size=covered,
            unwitnessed_since=first[0].block_time if first else None,
        )


def _age(now: float, then: float | None) -> float | None:
    return None if then is None else max(0.0, now - then)
