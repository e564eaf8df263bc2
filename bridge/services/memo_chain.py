"""A ledger client that asks each question once: for the many receipts of one release, which share most answers.

It lives for one release. What it remembers cannot change (a committed transaction, a proof between two sizes) or must
not change within one release (the checkpoint that its receipts are proved against).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient

_REMEMBERED = frozenset(
    {"transaction", "checkpoint", "witnessed_checkpoint", "inclusion_proof", "consistency_proof", "finality"}
)


class MemoChain:
    """Wraps a ``ChainClient``; methods that are not remembered go through unchanged."""

    def __init__(self, chain: ChainClient) -> None:
        self._chain = chain
        self._answers: dict[tuple[Any, ...], Any] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._chain, name)
        if name not in _REMEMBERED:
            return method

        def remembered(*arguments: Any) -> Any:
            place = (name, *arguments)
            if place not in self._answers:
                self._answers[place] = method(*arguments)
            return self._answers[place]

        return remembered
