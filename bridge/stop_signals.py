"""How a process hears that it shall end: SIGTERM and SIGINT, told by a thread of their own.

A handler runs in the main thread between two of its instructions, wherever it is. Were it to set a ``threading.Event``
that the main thread is about to wait for, both would want the event's lock, which is not re-entrant: the process would
stand still for good, a moment of microseconds that a busy machine makes long. ``SimpleQueue.put`` is the standard
library's one way of telling that may be called from anywhere ("reentrant", so "for use in destructors").
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_stop_signal(action: Callable[[], None]) -> None:
    """Call ``action`` for each SIGTERM and SIGINT, on a thread beside the main one. Call it in the main thread."""
    asked: SimpleQueue[None] = SimpleQueue()

    def wait() -> None:
        while True:
            asked.get()
            action()

    threading.Thread(target=wait, name="stop signals", daemon=True).start()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: asked.put(None))
