"""A ledger client that asks each question once: for receipts, which share most answers.

What it remembers cannot change (a committed transaction, a proof between two sizes), but for the ledger's checkpoints:
those are asked for again after ``CHECKPOINT_SECONDS``, and as soon as a transaction was asked for that they may not
cover. So a receipt may for that long lead to an older checkpoint than the newest, which holds as well.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient

CHECKPOINT_SECONDS = 10.0
"""For how long a checkpoint is used again: some rounds of cosigning at most, after which a newer one is witnessed."""
MAX_ANSWERS = 2048
"""Answers kept, the newest used: a transaction and its entry take some kilobytes, a proof about one."""

_LASTING = frozenset({"transaction", "inclusion_proof", "consistency_proof", "finality"})
_CHECKPOINTS = frozenset({"checkpoint", "witnessed_checkpoint", "finality"})


class MemoChain:
    """Wraps a ``ChainClient``; methods that are not remembered go through unchanged. Threads may share it."""

    def __init__(self, chain: ChainClient) -> None:
        self._chain = chain
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[Any, ...], tuple[float, Any]] = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._chain, name)
        if name not in _LASTING | _CHECKPOINTS:
            return method

        def remembered(*arguments: Any) -> Any:
            place = (name, *arguments)
            with self._lock:
                kept = self._answers.get(place)
                if kept is not None and time.monotonic() < kept[0]:
                    self._answers.move_to_end(place)
                    return kept[1]
            asked = time.monotonic()
            answer = method(*arguments)
            with self._lock:
                self._keep(place, answer, asked)
            return answer

        return remembered

    def _keep(self, place: tuple[Any, ...], answer: Any, asked: float) -> None:
        """Remember an answer: for good, or, of checkpoints and of what is not there yet, for a while."""
        lasts = place[0] in _LASTING and answer is not None
        self._answers[place] = (float("inf") if lasts else asked + CHECKPOINT_SECONDS, answer)
        self._answers.move_to_end(place)
        if place[0] == "transaction":  # the checkpoints at hand may be older than it
            for name in ("checkpoint", "witnessed_checkpoint"):
                self._answers.pop((name,), None)
        while len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
