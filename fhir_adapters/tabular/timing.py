"""When something is to happen: frequencies and the times between which they hold."""

from datetime import datetime

from fhir_adapters.tabular.rows import Json, Row


def timing_of(row: Row) -> Json:
    """The Timing of the columns frequency, start_at and stop_at; {} without a frequency."""
    code = row.text("frequency")
    if not code:
        return {}
    found = row.lookup.find("frequency", code)
    timing: Json = {"code": {"coding": [found.coding()], "text": code} if found else {"text": code}}
    period = period_of(row)
    if period:
        timing["repeat"] = {"boundsPeriod": period}
    return timing


def period_of(row: Row, start: str = "start_at", end: str = "stop_at") -> Json:
    """The Period of two columns; an end before the start is reported and left out (FHIR invariant per-1)."""
    period: Json = {}
    row.datetime(start, period, "start")
    row.datetime(end, period, "end")
    first, last = period.get("start", ""), period.get("end", "")
    if "T" in first and "T" in last and datetime.fromisoformat(last) < datetime.fromisoformat(first):
        row.remark("warning", "conflict", end, f"before {start}; it is left out")
        del period["end"]
    return period
