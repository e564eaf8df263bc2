"""What the consensus engine's log says, and what follows: a contradiction is for good, an obstacle is tried again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from anchor.chain.cometbft.process import CometProcess, find_binary
from anchor.errors import ChainUnavailable

SECONDS = 20


def line(message: str, reason: str) -> str:
    return json.dumps({"level": "error", "_msg": message, "err": reason})


def run(folder: Path, printed: str, then: str) -> tuple[CometProcess, list[tuple[str, str, str]]]:
    """Run a program that prints a line as CometBFT logs it, and return it when it has ended."""
    binary = folder / "cometbft"
    (folder / "printed").write_text(printed + "\n")
    binary.write_text(f'#!/bin/sh\ncat "{folder}/printed"\n{then}\n')
    binary.chmod(0o755)
    ended, seen = threading.Event(), []
    process = CometProcess(str(binary), folder, [], on_log=lambda *each: seen.append(each), on_end=ended.set)
    assert ended.wait(SECONDS)
    process.close()
    return process, seen


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        pytest.param(
            line("CONSENSUS FAILURE!!!", "+2/3 committed an invalid block: x"), "invalid block", id="consensus"
        ),
        pytest.param(line("CONSENSUS FAILURE!!!", ""), "CONSENSUS FAILURE", id="without-a-reason"),
        pytest.param(
            line("Error in validation", "wrong Block.Header.AppHash.  Expected 00, got 01"), "AppHash", id="catching-up"
        ),
        pytest.param(
            line("Error in validation", "wrong Block.Header.LastResultsHash.  Expected 00, got 01"),
            "LastResultsHash", id="other-results",
        ),
        pytest.param(
            "panic: block.AppHash does not match AppHash after replay. Got 00, expected 01.", "after replay",
            id="replay",
        ),
    ],
)  # fmt: skip
def test_a_contradiction_ends_the_process_for_good(tmp_path: Path, printed: str, words: str) -> None:
    process, seen = run(tmp_path, printed, "exec sleep 600")  # CometBFT stays up: it is ended here
    assert words in process.contradiction
    assert process.failure == process.contradiction
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("printed", "then", "words"),
    [
        pytest.param(
            line("CONSENSUS FAILURE!!!", "write wal: no space left on device"), "exec sleep 600", "no space left",
            id="a-full-disk",
        ),
        pytest.param(
            line("Error in validation", "invalid commit -- wrong signature (0): 00"), "exit 1", "wrong signature",
            id="a-peers-bad-block",
        ),
        pytest.param(line("Error dialing peer", "connection refused"), "exit 1", "refused", id="the-last-line"),
        pytest.param("panic: failed to open the database", "exit 2", "failed to open", id="a-panic"),
        pytest.param('["not", "an", "object"]', "exit 1", "not", id="json-of-another-form"),
    ],
)  # fmt: skip
def test_an_obstacle_is_no_contradiction(tmp_path: Path, printed: str, then: str, words: str) -> None:
    process, _ = run(tmp_path, printed, then)
    assert process.contradiction == ""
    assert words in process.failure


def test_a_missing_program_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ChainUnavailable, match=r"go install github\.com/cometbft/cometbft"):
        find_binary()
