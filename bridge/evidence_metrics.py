"""The condition of a node's evidence as metrics and as alarms (``bridge.services.evidence_status``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from anchor.errors import AnchorError
from bridge.errors import BridgeError
from bridge.services.evidence_status import EvidenceStatus

_GAUGES = {
    "yiqiao_anchoring_unpublished": ("Log entries that no published checkpoint covers.", "unpublished"),
    "yiqiao_anchoring_lag_seconds": ("How long the oldest record version has waited for the ledger.", "lag"),
    "yiqiao_checkpoint_age_seconds": ("Age of this institution's newest published checkpoint.", "checkpoint_age"),
    "yiqiao_ledger_head_age_seconds": ("Age of the ledger's newest block.", "ledger_age"),
    "yiqiao_ledger_witnesses": ("Members that have signed the ledger's newest checkpoint.", "witnesses"),
    "yiqiao_ledger_quorum": ("Members that must have signed it.", "quorum"),
    "yiqiao_ledger_witnessed_size": ("Size of the newest checkpoint that a quorum has signed.", "witnessed_size"),
    "yiqiao_witness_look_age_seconds": ("Since this node last looked at the ledger as its witness.", "looked_age"),
    "yiqiao_ledger_conflicts": ("Contradicting signed checkpoints that nobody has acknowledged.", "conflicts"),
    "yiqiao_ledger_unproven": ("Checkpoints shown by members that the ledger does not prove.", "unproven"),
    "yiqiao_observer_replayed_size": ("Ledger entries this observer has computed for itself.", "replayed_size"),
    "yiqiao_timestamp_age_seconds": ("Age of the newest RFC 3161 time stamp.", "timestamp_age"),
}
"""Metric name to its help text and the field of the status; nothing is told where there is nothing to measure."""


def evidence_metrics(node: Any) -> Iterator[Metric]:
    """Yield the metric families of a node's evidence."""
    status: EvidenceStatus = node.evidence_status.read()
    for name, (text, field) in _GAUGES.items():
        value = getattr(status, field)
        if value is not None:
            yield GaugeMetricFamily(name, text, value=value)
    alarms = GaugeMetricFamily("yiqiao_evidence_alarm", "1 for each alarm that is raised.", labels=["alarm"])
    for alarm in status.alarms:
        alarms.add_metric([alarm], 1)
    yield alarms


def evidence_alarms(node: Any) -> tuple[str, ...]:
    """Return the alarms that are raised; none where the database cannot tell, which is told elsewhere."""
    try:
        alarms: tuple[str, ...] = node.evidence_status.read().alarms
    except (BridgeError, AnchorError):
        return ()
    return alarms
