"""Hands rows to the inbox: the rows of one record together, those of one patient in order, many patients at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import orjson

from anchor.gm import sm3
from bridge.services.view_queries import Row, ViewQuery

MAX_SEEN = 200_000  # deliveries remembered to spare the inbox the question; some 10 MB
SENDERS = 16  # deliveries that share one commit of the inbox

Blind = Callable[[str, bytes], bytes]
"""``KeyRing.blind``: a keyed mark of a value, 32 bytes."""


class RowReceiver(Protocol):
    """The inbox's door for rows: returns after the commit; the same rows again create nothing."""

    def receive_rows(
        self,
        source: str,
        view: str,
        rows: Sequence[Mapping[str, Any]],
        patient: str = "",
        *,
        mapping: str = "",
        control_id: str = "",
    ) -> Any:
        """Keep rows as one message; ``mapping`` names the profile's query whose cells they are."""


@dataclass(frozen=True, slots=True)
class Record:
    """The rows of one report, visit, bed or patient; ``patient`` "" where none is meant."""

    patient: str
    key: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def content(self) -> bytes:
        """The rows in a fixed form."""
        return orjson.dumps([dict(row) for row in self.rows], default=str, option=orjson.OPT_SORT_KEYS)


class RowDelivery:
    """Delivers the rows of one source."""

    def __init__(self, source: str, receiver: RowReceiver) -> None:
        self._source = source
        self._receiver = receiver
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def deliver(self, query: ViewQuery, rows: Sequence[Row]) -> int:
        """Deliver rows that may have been delivered before; return how many records were not known to be."""
        fresh: list[tuple[Record, bytes]] = []
        for record in records_of(query, rows):
            mark = sm3(query.name.encode() + b"\x00" + record.content)
            if mark not in self._seen:
                fresh.append((record, mark))
        self.send(query, [(record, "") for record, _ in fresh])
        for _, mark in fresh:
            self._seen[mark] = None
        while len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return len(fresh)

    def send(self, query: ViewQuery, records: Sequence[tuple[Record, str]]) -> list[Any]:
        """Hand over records, each with its control id; return what the inbox says of them once all are on the disk."""

        def of_patient(each: tuple[Record, str]) -> str:
            return each[0].patient

        waiting = [list(group) for _, group in groupby(sorted(records, key=of_patient), key=of_patient)]
        if not waiting:
            return []
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="rows") as pool:
            return [each for group in pool.map(lambda group: self._send(query, group), waiting) for each in group]

    def _send(self, query: ViewQuery, group: Sequence[tuple[Record, str]]) -> list[Any]:
        return [
            self._receiver.receive_rows(
                self._source, query.view.name, record.rows, record.patient,
                mapping=query.mapping, control_id=control_id,
            )
            for record, control_id in group
        ]  # fmt: skip


def records_of(query: ViewQuery, rows: Sequence[Row]) -> list[Record]:
    """Return the records that rows belong to, in the order of their first rows."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    patients: dict[tuple[str, ...], str] = {}
    for row in rows:
        standard = query.standard(row)
        key = tuple(_text(standard.get(name)) for name in ("assigning_authority", *query.view.record))
        groups.setdefault(key, []).append(row)
        if query.view.of_patients:
            patients.setdefault(key, f"{_text(standard.get('patient_no'))}^{key[0]}")
    return [Record(patients.get(key, ""), key, tuple(group)) for key, group in groups.items()]


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
