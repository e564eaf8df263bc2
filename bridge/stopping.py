"""How long work asks whether the process is about to end, so that it ends between two of its steps."""

from __future__ import annotations

from collections.abc import Callable

Stopping = Callable[[], bool]


def never() -> bool:
    """Nobody has asked this process to end."""
    return False
