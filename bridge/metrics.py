"""The node's condition as numbers: read from the database when asked for, so that every process tells the same.

Counts by state and ages only; no label ever holds an identifier of a patient, a resource or a message.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from anchor.chain.client import Health
from bridge.errors import BridgeError
from bridge.evidence_metrics import evidence_alarms, evidence_metrics
from bridge.exchange_metrics import exchange_metrics
from bridge.source_metrics import circuit_states, source_metrics
from bridge.storage.database import read_transaction
from bridge.storage.inbox_desk import backlog

CONTENT_TYPE = CONTENT_TYPE_LATEST
HEALTH_CACHE_SECONDS = 5.0  # a health check may ask another institution; probes come every second

State = Literal["ok", "degraded", "unavailable"]


class LedgerHealth:
    """The ledger's health, asked for at most every ``HEALTH_CACHE_SECONDS``."""

    def __init__(self, chain: Any) -> None:
        self._chain = chain
        self._lock = threading.Lock()
        self._read = 0.0
        self._health: Health | None = None

    def get(self) -> Health:
        """Return the health, at most a few seconds old."""
        with self._lock:
            if self._health is None or time.monotonic() - self._read > HEALTH_CACHE_SECONDS:
                self._health = self._chain.health()
                self._read = time.monotonic()
            return self._health


def readiness(node: Any) -> State:
    """Return whether the node can take work.

    "degraded": the ledger is away, anchoring lags beyond its bound, the inbox takes no more messages, or a source is
    left alone because it is in trouble.
    """
    try:
        with read_transaction(node.engine) as connection:
            oldest = node.outbox.oldest(connection)
            full = node.inbox.gate.judge(backlog(connection))
        away = any(circuit != "closed" for circuit in circuit_states(node).values())
    except BridgeError:
        return "unavailable"
    late = bool(evidence_alarms(node)) or (
        oldest is not None and _age_seconds(node, oldest) > node.settings.anchoring.max_age_seconds
    )
    return "degraded" if late or full or away or not node.ledger_health.get().ok else "ok"


def render_metrics(node: Any) -> bytes:
    """Return all metrics in the Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(_NodeCollector(node))
    return generate_latest(registry)


class _NodeCollector:
    """Reads one node's gauges at the moment of the scrape."""

    def __init__(self, node: Any) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        node = self._node
        messages = GaugeMetricFamily("yiqiao_inbox_messages", "Messages in the inbox by state.", labels=["state"])
        for state, count in sorted(node.inbox.counts().items()):
            messages.add_metric([state], count)
        yield messages
        yield from self._backlog()
        with read_transaction(node.engine) as connection:
            pending, oldest = node.outbox.count(connection), node.outbox.oldest(connection)
        yield GaugeMetricFamily("yiqiao_outbox_pending", "Record versions not yet in the log.", value=pending)
        age = 0.0 if oldest is None else _age_seconds(node, oldest)
        yield GaugeMetricFamily(
            "yiqiao_outbox_oldest_seconds", "Age of the oldest version not yet in the log.", value=age
        )
        yield from source_metrics(node)
        health = node.ledger_health.get()
        yield GaugeMetricFamily("yiqiao_ledger_up", "1 when the ledger takes transactions.", value=int(health.ok))
        yield GaugeMetricFamily("yiqiao_ledger_height", "Newest block of the ledger seen.", value=health.height)
        yield GaugeMetricFamily("yiqiao_ledger_log_size", "Transactions in the ledger's log.", value=health.log_size)
        yield from evidence_metrics(node)
        yield from exchange_metrics(node)

    def _backlog(self) -> Iterator[Metric]:
        """Yield what waits to be processed, and whether the inbox is so full that it takes no more."""
        node = self._node
        waiting = node.inbox.backlog()
        age = 0.0 if waiting.oldest is None else _age_seconds(node, waiting.oldest)
        full = int(bool(node.inbox.gate.judge(waiting)))
        yield GaugeMetricFamily("yiqiao_inbox_backlog_bytes", "Bytes of messages not yet processed.", waiting.bytes)
        yield GaugeMetricFamily("yiqiao_inbox_oldest_seconds", "Age of the oldest message not yet processed.", age)
        yield GaugeMetricFamily("yiqiao_inbox_full", "1 when senders are told to try again later.", full)


def _age_seconds(node: Any, milliseconds: int) -> float:
    """Age of a moment in Unix milliseconds by the node's clock."""
    return max(0.0, float(node.clock()) - milliseconds / 1000)
