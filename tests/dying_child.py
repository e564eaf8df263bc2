"""The node's own child programs, made to die by SIGKILL at a chosen step: ``python -m tests.dying_child HOME``.

A zygote that has loaded the program forks one child for each line on stdin,

    {"child": "mllp" | "worker-1", "step": "...", "pass": 3}

and tells on stdout what it started and what became of it. The child runs ``bridge.child.main``, as under the
supervisor. The steps are wrapped around the program from here: nothing in it knows of them, so nothing of the kind can
be reached in a running node.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

import bridge.child
import bridge.services.processing as processing
import bridge.wiring
from bridge.mllp_connection import Connection
from bridge.services.ingest import IngestService
from bridge.services.processing import InboxProcessor
from bridge.storage.inbox import Inbox
from bridge.storage.records import RecordStore

LISTENER_STEPS = (
    *("receive", "judged", "accept-statement", "accept-commit", "accepted", "acknowledge", "acknowledged"),
)
WORKER_STEPS = (
    *("claim-statement", "claimed", "loaded", "converted", "planned"),
    *("store-statement", "store-commit", "stored"),
)


class Step:
    """Ends this process at the n-th time that it is passed."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self) -> None:
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, step: Step) -> None:
    """Pass the step whenever a method begins."""
    method = getattr(owner, name)

    def wrapped(*values: Any, **named: Any) -> Any:
        step()
        return method(*values, **named)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, step: Step) -> None:
    """Pass the step whenever a method has returned something."""
    method = getattr(owner, name)

    def wrapped(*values: Any, **named: Any) -> Any:
        result = method(*values, **named)
        if result:
            step()
        return result

    setattr(owner, name, wrapped)


def during(owner: Any, name: str, what: str, step: Step) -> None:
    """Pass the step at each statement, or at each commit, of the transaction that a method runs."""
    method = getattr(owner, name)
    inside = [False]

    def wrapped(*values: Any, **named: Any) -> Any:
        inside[0] = True
        try:
            return method(*values, **named)
        finally:
            inside[0] = False

    def passed(*_: Any, **__: Any) -> None:
        if inside[0]:
            step()

    event.listen(Engine, "before_cursor_execute" if what == "statement" else "commit", passed)
    setattr(owner, name, wrapped)


def in_storing(what: str, step: Step) -> None:
    """Pass the step inside the transaction that stores records and marks their messages."""
    begin = processing.write_transaction
    inside = [False]

    @contextmanager
    def wrapped(engine: Any) -> Any:
        inside[0] = True
        try:
            with begin(engine) as connection:
                yield connection
        finally:
            inside[0] = False
        if what == "stored":
            step()

    def passed(*_: Any, **__: Any) -> None:
        if inside[0]:
            step()

    if what != "stored":
        event.listen(Engine, "before_cursor_execute" if what == "statement" else "commit", passed)
    processing.write_transaction = wrapped


STEPS: dict[str, Callable[[Step], None]] = {
    "receive": lambda step: before(Connection, "data_received", step),
    "judged": lambda step: after(IngestService, "judge", step),
    "accept-statement": lambda step: during(Inbox, "_write", "statement", step),
    "accept-commit": lambda step: during(Inbox, "_write", "commit", step),
    "accepted": lambda step: after(Inbox, "_write", step),
    "acknowledge": lambda step: before(Connection, "_flush", step),
    "acknowledged": lambda step: after(Connection, "_flush", _always(step)),
    "claim-statement": lambda step: during(Inbox, "claim", "statement", step),
    "claimed": lambda step: after(Inbox, "claim", step),
    "loaded": lambda step: after(Inbox, "load", step),
    "converted": lambda step: after(InboxProcessor, "_decided", step),
    "planned": lambda step: after(RecordStore, "plan", step),
    "store-statement": lambda step: in_storing("statement", step),
    "store-commit": lambda step: in_storing("commit", step),
    "stored": lambda step: in_storing("stored", step),
}


def _always(step: Step) -> Step:
    """A step after a method that returns nothing."""
    flush = Connection._flush

    def told(connection: Connection) -> bool:
        flush(connection)
        return True

    Connection._flush = told  # type: ignore[assignment, method-assign]
    return step


def run_child(home: str, order: dict[str, Any]) -> None:
    """Become one child of the node, and die at the step, if one is named."""
    if order.get("step"):
        STEPS[order["step"]](Step(order["pass"]))
    os._exit(bridge.child.main([order["child"], home]))


def main(home: str) -> None:
    """Fork as told; end when stdin does, with every child."""
    children: dict[int, str] = {}
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting = selectors.DefaultSelector()
    waiting.register(sys.stdin, selectors.EVENT_READ)
    waiting.register(wake, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:
                line = sys.stdin.readline()
                if not line:
                    for pid in children:
                        os.kill(pid, signal.SIGKILL)
                    return
                order = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    run_child(home, order)
                children[pid] = order["child"]
                say(started=pid, child=order["child"])
            else:
                os.read(wake, 4096)
                bury(children)


def bury(children: dict[int, str]) -> None:
    """Tell of children that have ended."""
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            say(ended=pid, child=children.pop(pid), status=os.waitstatus_to_exitcode(status))


def say(**what: Any) -> None:
    """One line on stdout."""
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
