"""A ledger client that remembers: what cannot change for good, checkpoints for a while, never behind a transaction."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.services import memo_chain
from bridge.services.memo_chain import CHECKPOINT_SECONDS, MemoChain


class Ledger:
    """Counts what it is asked; ``height`` is told by each answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.height = 1

    def __getattr__(self, name: str) -> Any:
        def answer(*arguments: Any) -> Any:
            self.asked.append(name)
            return None if arguments == ("missing",) else (name, arguments, self.height)

        return answer


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def memo(ledger: Ledger) -> Any:
    return MemoChain(ledger)  # type: ignore[arg-type]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [1000.0]
    monkeypatch.setattr(memo_chain.time, "monotonic", lambda: moment[0])
    return moment


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("transaction", ("aa",)),
        ("inclusion_proof", (3, 7)),
        ("consistency_proof", (3, 7)),
        ("finality", (7,)),
    ],
)
def test_what_cannot_change_is_asked_for_once(
    ledger: Ledger, memo: Any, now: list[float], name: str, arguments: tuple[Any, ...]
) -> None:
    first = getattr(memo, name)(*arguments)
    ledger.height, now[0] = 2, now[0] + 10 * CHECKPOINT_SECONDS
    assert getattr(memo, name)(*arguments) == first
    assert ledger.asked == [name]


@pytest.mark.parametrize("name", ["checkpoint", "witnessed_checkpoint"])
def test_a_checkpoint_is_used_again_for_a_while(ledger: Ledger, memo: Any, now: list[float], name: str) -> None:
    first = getattr(memo, name)()
    ledger.height, now[0] = 2, now[0] + CHECKPOINT_SECONDS - 1
    assert getattr(memo, name)() == first
    now[0] += 1
    assert getattr(memo, name)() == (name, (), 2)


@pytest.mark.parametrize("name", ["checkpoint", "witnessed_checkpoint"])
def test_no_checkpoint_is_older_than_a_transaction_that_was_asked_for(ledger: Ledger, memo: Any, name: str) -> None:
    memo.transaction("aa")
    getattr(memo, name)()
    ledger.height = 2
    memo.transaction("aa")  # as it is remembered
    assert getattr(memo, name)() == (name, (), 1)
    memo.transaction("bb")
    assert getattr(memo, name)() == (name, (), 2)


@pytest.mark.parametrize("name", ["transaction", "finality"])
def test_what_is_not_there_yet_is_asked_for_again(ledger: Ledger, memo: Any, now: list[float], name: str) -> None:
    assert getattr(memo, name)("missing") is None
    now[0] += CHECKPOINT_SECONDS
    assert getattr(memo, name)("missing") is None
    assert ledger.asked == [name, name]


def test_state_is_asked_for_each_time(ledger: Ledger, memo: Any) -> None:
    memo.state("grant/1")
    memo.state("grant/1")
    assert ledger.asked == ["state", "state"]


def test_no_more_answers_are_kept_than_the_bound(ledger: Ledger, memo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo_chain, "MAX_ANSWERS", 3)
    for id in ("a", "b", "c", "a", "d", "a", "b"):  # b was used longest ago when d came
        memo.transaction(id)
    assert len(ledger.asked) == 5
