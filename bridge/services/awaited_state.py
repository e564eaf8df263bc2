"""Values of the ledger's state that another member has just put there.

Where the members replicate the ledger, each reads its own replica, and what one has been told is committed reaches the
next a moment later. Whoever is sent somewhere by another member's word waits that long before finding it wanting.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from anchor.chain.client import ChainClient

POLL_SECONDS = 0.05


def awaited_state(
    chain: ChainClient, key: str, arrived: Callable[[dict[str, Any]], bool] = lambda _: True
) -> dict[str, Any] | None:
    """Return a value as soon as it is there and ``arrived`` says so, or else as it is after ``chain.lag_seconds``.

    Raises ``ChainError``.
    """
    deadline = time.monotonic() + chain.lag_seconds
    while True:
        value = chain.state(key)
        if (value is not None and arrived(value)) or time.monotonic() >= deadline:
            return value
        time.sleep(POLL_SECONDS)
