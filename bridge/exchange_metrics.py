"""The exchange's condition as numbers: what waits for the ledger or a person, what is overdue, what looks like abuse.

Counts, ages and deadlines only; labels are states and members' org ids, never anything of a patient or a practitioner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

CONSENT_STATES = ("draft", "pending", "amending", "revoking", "refused")


def exchange_metrics(node: Any) -> Iterator[Metric]:
    """Yield the metric families of ``node``'s exchange."""
    now = node.clock()
    yield from _gaps(node, now)
    waiting, overdue = node.reviews.counts()
    yield GaugeMetricFamily("yiqiao_emergency_reviews_open", "Emergency accesses that nobody has judged yet.", waiting)
    yield GaugeMetricFamily("yiqiao_emergency_reviews_overdue", "Of these, past their deadline: an alarm.", overdue)
    asked = node.approvals.count()
    yield GaugeMetricFamily("yiqiao_release_approvals_open", "Requests that wait for a person here.", asked)
    consents = GaugeMetricFamily("yiqiao_grants", "Grants that wait for the patient or the ledger.", labels=["state"])
    for state, count in sorted(node.consent.counts(CONSENT_STATES).items()):
        consents.add_metric([state], count)
    yield consents
    alerts = GaugeMetricFamily("yiqiao_peer_alerts", "Members that behave conspicuously.", labels=["kind", "org"])
    for each in node.watch.alerts():
        alerts.add_metric([each.kind, each.org], each.count)
    yield alerts
    ends = node.tls.expires()
    if ends is not None:
        yield GaugeMetricFamily("yiqiao_tls_certificate_seconds", "Time until the TLS certificate ends.", ends - now)


def _gaps(node: Any, now: float) -> Iterator[Metric]:
    """Yield the events that happened before the ledger could take them: the gap report."""
    gaps = node.exchange_parts.events.gaps()
    by_state = GaugeMetricFamily(
        "yiqiao_ledger_gaps", "Events of the exchange that the ledger has not, by state.", labels=["state"]
    )
    for state in ("queued", "refused"):
        by_state.add_metric([state], sum(gap["state"] == state for gap in gaps))
    yield by_state
    queued = [gap["since"] for gap in gaps if gap["state"] == "queued"]
    age = max(0.0, now - min(queued)) if queued else 0.0
    yield GaugeMetricFamily("yiqiao_ledger_gap_oldest_seconds", "Age of the oldest event still queued.", age)
