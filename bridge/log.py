"""The node's log: one JSON object a line on stderr.

Events are names with fields (counts, ids of rows, states, durations). Never in the log: message bodies, resources, HTTP
headers, query strings, identifiers of patients, keys, exception texts from outside our own packages.
"""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from typing import Any

import structlog

FRAMES_LOGGED = 4  # of an unexpected error, innermost first

#: names of fields that must not reach the log whatever a caller passes; a second line of defence, not a licence
FORBIDDEN_FIELDS = frozenset(
    {"body", "raw", "headers", "authorization", "token", "identifier", "patient", "content", "query"}
)


def _on_stderr(*_: Any) -> Any:
    """A logger for processes that configure none, such as one command: stdout is for what a program reads."""
    return structlog.PrintLogger(sys.stderr)


structlog.configure(logger_factory=_on_stderr)


def configure_logging(process: str, level: str = "info") -> None:
    """Send structlog and the standard library's log of this process to stderr as JSON lines."""
    number = getattr(logging, level.upper(), logging.INFO)
    shared: list[Any] = [
        _name_process(process),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_forbidden,
    ]
    renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # libraries whose messages hold URLs, statements or job arguments
    for name in ("urllib3", "sqlalchemy", "apscheduler", "werkzeug"):
        logging.getLogger(name).setLevel(logging.ERROR)


def where(error: BaseException) -> str:
    """Return file, line and function of the innermost frames of an error: places in our code hold no values."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_LOGGED:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def get_logger(name: str) -> Any:
    """Return a logger whose lines carry ``part=name``."""
    return structlog.get_logger(part=name)


def _name_process(process: str) -> Any:
    """Return a processor that adds the process's name; a context variable would be lost in new threads."""

    def add_process(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        event.setdefault("process", process)
        return event

    return add_process


def _drop_forbidden(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    for name in FORBIDDEN_FIELDS & event.keys():
        event[name] = "[removed]"
    event.pop("exc_info", None)  # a traceback's values may hold patient data
    event.pop("exception", None)
    return event
