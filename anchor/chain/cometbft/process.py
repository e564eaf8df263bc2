"""CometBFT's own process: started as a child that dies with its parent, its log read for the reason when it fails."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anchor.errors import ChainUnavailable

BINARY = "cometbft"
STOP_SECONDS = 10.0
"""How long CometBFT may take to close its files before it is killed; it takes well below one."""
CONSENSUS_FAILURE = "CONSENSUS FAILURE!!!"
"""What CometBFT logs when it cannot go on (consensus/state.go); its process stays up, making no blocks."""
BLOCK_REFUSED, OTHER_RESULT = "Error in validation", "wrong Block.Header."
"""What it logs, while it catches up, of a block that two thirds of the power have signed and whose header is not what
this node's application makes of the chain (blocksync/reactor.go, state/validation.go): it blames the peers and would
ask one after the other for ever."""
DISK_FULL = "no space left on device"
REPLAY_DIFFERS = "AppHash does not match AppHash after replay"
"""In its panic when the application computes another hash of its own stored blocks (consensus/replay.go)."""
MAX_REASON_CHARACTERS = 500

_PR_SET_PDEATHSIG = 1

OnLog = Callable[[str, str, str], None]
"""Called with level, message and the rest of each line of CometBFT's log."""


def find_binary(name: str = BINARY) -> str:
    """Return the path of CometBFT's binary; raises ``ChainUnavailable`` saying how to get it."""
    found = shutil.which(name) or shutil.which(str(Path.home() / "go" / "bin" / name))
    if found is None:
        raise ChainUnavailable(
            f"the program {name} is not installed: "
            "go install github.com/cometbft/cometbft/cmd/cometbft@v0.38.25, or name its path in the settings"
        )
    return str(Path(found).absolute())


class CometProcess:
    """One running CometBFT node, with ``home`` as its working directory.

    ``on_end`` is called, from a thread of this class, when it has ended or failed. Afterwards ``failure`` says why, and
    ``contradiction`` is not empty when trying again cannot help: what this node computes is not what the validators
    have signed.
    """

    def __init__(self, binary: str, home: Path, arguments: Sequence[str], *, on_log: OnLog, on_end: Callable[[], None]):
        self._on_log = on_log
        self._on_end = on_end
        self.failure = ""
        self.contradiction = ""
        self._process = subprocess.Popen(  # noqa: S603 - the operator's own binary, no shell
            [binary, "start", "--home", str(home.absolute()), *arguments],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        self._reader = threading.Thread(target=self._read, name="cometbft-log", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Ask CometBFT to end, and kill it when it has not within its bound; returns at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            timer = threading.Timer(STOP_SECONDS, self._process.kill)
            timer.daemon = True
            timer.start()

    def close(self) -> None:
        """Wait for the end; kills what is still there."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(STOP_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        """Pass the log on until the process ends; kill it when it says that it contradicts the others."""
        assert self._process.stdout is not None
        last = ""
        for line in self._process.stdout:
            level, message, rest = _understood(line)
            self._on_log(level, message, rest)
            if not self.contradiction and (found := contradiction(message, rest)):
                self.contradiction = found[:MAX_REASON_CHARACTERS]
                self._process.kill()
            elif message == CONSENSUS_FAILURE:
                self.failure = rest[:MAX_REASON_CHARACTERS]
                self._process.kill()
            last = f"{message} {rest}".strip() or last
        self.failure = self.contradiction or self.failure or last[:MAX_REASON_CHARACTERS]
        self._on_end()


def contradiction(message: str, reason: str) -> str:
    """Return what a line of the log says of this node and the others differing for good, "" for any other line."""
    if message == CONSENSUS_FAILURE:
        return "" if DISK_FULL in reason else reason or message
    if message == BLOCK_REFUSED and reason.startswith(OTHER_RESULT):
        return f"a block that the validators have signed is refused here: {reason}"
    return message if REPLAY_DIFFERS in message else ""


def _understood(line: bytes) -> tuple[str, str, str]:
    """Return level, message and reason of a line of the log; what is not JSON (a panic) is its own message."""
    text = line.decode("utf-8", "replace").strip()
    try:
        value: Any = json.loads(text)
    except ValueError:
        return "error", text[:MAX_REASON_CHARACTERS], ""
    if not isinstance(value, dict):
        return "error", text[:MAX_REASON_CHARACTERS], ""
    reason = value.get("err") or value.get("error") or value.get("reason") or ""
    return str(value.get("level", "error")), str(value.get("_msg", "")), str(reason)


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Have the kernel end CometBFT when the thread that started it ends, even by SIGKILL (Linux)."""
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == 1:
        os._exit(1)
