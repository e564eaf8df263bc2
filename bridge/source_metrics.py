"""The condition of the databases that this node reads, for ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from bridge.storage.database import read_transaction
from bridge.storage.source_health import SourceHealth, read_health

_CIRCUITS = {"closed": 0.0, "half-open": 0.5, "open": 1.0}
_FAMILIES = (
    ("circuit_open", "1 while a source is left alone, 0.5 when it is about to be tried, 0 when it is read."),
    ("failures", "Failures of a source in a row."),
    ("last_success_timestamp_seconds", "When a source was last read; 0 for never."),
    ("future_rows", "Rows not read because they are dated later than now."),
)


def source_healths(node: Any) -> list[SourceHealth]:
    """Return what is known of each database that is read."""
    names = [source.name for source in node.settings.sources if source.kind == "view"]
    if not names:
        return []
    with read_transaction(node.engine) as connection:
        return [read_health(connection, name) for name in names]


def circuit_states(node: Any) -> dict[str, str]:
    """Return the state of the circuit towards each database, by source: closed, open or half-open."""
    now = node.clock()
    return {each.source: each.circuit(now) for each in source_healths(node)}


def source_metrics(node: Any) -> Iterator[Metric]:
    """Yield a family for each figure, labelled by the name that the settings give a source."""
    families = [GaugeMetricFamily(f"yiqiao_source_{name}", text, labels=["source"]) for name, text in _FAMILIES]
    for each in source_healths(node):
        figures = (_CIRCUITS[each.circuit(node.clock())], each.failures, each.last_success, each.future_rows)
        for family, value in zip(families, figures, strict=True):
            family.add_metric([each.source], value)
    yield from families
