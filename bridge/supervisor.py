"""Keeps the processes of one node running: web, listener for members, MLLP listener, workers.

Each child is `python -m bridge.child NAME HOME`. A child that dies is started again after a growing pause; one that
keeps dying ends the node, so that an outer supervisor and a person see it. SIGTERM and SIGINT let the children
finish what they have in hand; SIGHUP starts all of them anew, so that new keys and certificates count, and loses
nothing either. When this process is killed outright the children go with it (``bridge.lifeline``).
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bridge.errors import SettingsError
from bridge.lifeline import LIFELINE_VARIABLE
from bridge.log import get_logger
from bridge.settings import Settings

LOCK_FILE = "serve.lock"
RELOADS_ITSELF = frozenset({"web", "peer"})  # granian replaces its workers on SIGHUP and goes on listening
POLL_SECONDS = 0.1  # how late the death of a child or a signal is noticed
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a child that ran this long starts with the first pause again
RAPID_DEATHS_MAX = 5  # deaths in a row without a steady run after which the node gives up
LOCK_WAIT_SECONDS = 10.0  # how long the children of a killed supervisor may take to disappear
KILL_GRACE_SECONDS = 2.0  # beyond the drain bound, before SIGKILL


@dataclass
class _Child:
    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0
    restarting: bool = False


class Supervisor:
    """Runs named commands until told to stop. ``environment`` is added to the children's."""

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        drain_seconds: float,
        environment: Mapping[str, str] | None = None,
        pass_descriptors: Sequence[int] = (),
    ) -> None:
        self._children = [_Child(name, command) for name, command in commands.items()]
        self._drain_seconds = drain_seconds
        self._environment = dict(environment or {})
        self._descriptors = tuple(pass_descriptors)
        self._stopping = False
        self._reloading = False
        self._log = get_logger("supervisor")

    def run(self) -> int:
        """Start the children and watch them until SIGTERM or SIGINT; return the exit code of the node.

        0: stopped and drained; 1: a child kept dying, or had to be killed.
        """
        lifeline, own_end = os.pipe()
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._reload}
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            failed = self._watch(lifeline)
            drained = self._drain()
            return 1 if failed or not drained else 0
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(lifeline)
            os.close(own_end)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reloading = True

    def _start_anew(self) -> None:
        """Let every child come up with what is on the disk now. The web server changes its workers one by one."""
        self._reloading = False
        self._log.info("reloading")
        for child in self._children:
            if child.process is None:
                continue
            with suppress(ProcessLookupError):
                if child.name in RELOADS_ITSELF:
                    child.process.send_signal(signal.SIGHUP)
                else:
                    child.restarting = True
                    child.process.terminate()

    def _watch(self, lifeline: int) -> bool:
        """Start, and start again, until stopped (False) or a child keeps dying (True)."""
        while not self._stopping:
            now = time.monotonic()
            if self._reloading:
                self._start_anew()
            for child in self._children:
                if child.process is None and now >= child.due:
                    self._start(child, lifeline)
                elif child.process is not None and child.process.poll() is not None and self._gave_up(child):
                    return True
            time.sleep(POLL_SECONDS)
        return False

    def _start(self, child: _Child, lifeline: int) -> None:
        child.process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules, no shell
            child.command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self._environment, LIFELINE_VARIABLE: str(lifeline)},
            pass_fds=(lifeline, *self._descriptors),
        )
        child.started = time.monotonic()
        self._log.info("child started", child=child.name, pid=child.process.pid)

    def _gave_up(self, child: _Child) -> bool:
        """Note the death of a child and when it is due again; True when it died too often."""
        assert child.process is not None
        code, child.process = child.process.returncode, None
        now = time.monotonic()
        if child.restarting:
            child.restarting, child.due = False, now
            return False
        child.deaths = 1 if now - child.started >= STEADY_SECONDS else child.deaths + 1
        pause = min(BACKOFF_FIRST_SECONDS * 2 ** (child.deaths - 1), BACKOFF_MAX_SECONDS)
        child.due = now + pause
        self._log.error("child died", child=child.name, exit_code=code, deaths=child.deaths, restart_in_seconds=pause)
        if child.deaths < RAPID_DEATHS_MAX:
            return False
        self._log.error("child keeps dying; the node stops", child=child.name)
        return True

    def _drain(self) -> bool:
        """Ask all children to finish, wait within the bound, kill what is left; True when none had to be killed."""
        running = [child for child in self._children if child.process is not None]
        for child in running:
            assert child.process is not None
            with suppress(ProcessLookupError):
                child.process.terminate()
        deadline = time.monotonic() + self._drain_seconds + KILL_GRACE_SECONDS
        drained = True
        for child in running:
            assert child.process is not None
            try:
                child.process.wait(max(deadline - time.monotonic(), POLL_SECONDS))
            except subprocess.TimeoutExpired:
                self._log.error("child did not finish in time and was killed", child=child.name)
                child.process.kill()
                child.process.wait()
                drained = False
        self._log.info("stopped", drained=drained)
        return drained


@contextmanager
def node_lock(home: Path, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[int]:
    """Hold the lock that makes one node of one home; yields its descriptor, to be inherited by the children.

    The children hold it too, so a home whose supervisor was killed is free only once they are gone; those are
    waited for. Raises ``SettingsError`` when a node of this home is running.
    """
    descriptor = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _locked(descriptor):
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            if _is_alive(owner) or time.monotonic() >= deadline:
                raise SettingsError(
                    f"the node of {home} is already running (process {owner or 'unknown'}); stop it first / "
                    "该节点已在运行，请先停止"
                )
            time.sleep(POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def reload_node(home: Path) -> bool:
    """Tell the node that is served from ``home`` on this machine to take up new keys; False when none is."""
    file = home.expanduser().resolve() / LOCK_FILE
    if not file.is_file():
        return False
    descriptor = os.open(file, os.O_RDWR)
    try:
        if _locked(descriptor):
            return False
        os.kill(int(os.pread(descriptor, 32, 0).decode("ascii").strip()), signal.SIGHUP)
    except (ValueError, ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(descriptor)
    return True


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(owner: str) -> bool:
    try:
        os.kill(int(owner), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def check_port(host: str, port: int, setting: str) -> None:
    """Raise ``SettingsError`` when ``port`` of ``host`` cannot be listened on now.

    Bound without SO_REUSEPORT: the web server sets that option, and two nodes would otherwise share a port in silence.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "not possible"
            raise SettingsError(
                f"{setting}: cannot listen on {host}:{port} ({reason}); free the port or set another in config.toml / "
                f"端口 {port} 无法使用，请释放或修改配置"
            ) from error


def child_commands(settings: Settings) -> dict[str, list[str]]:
    """Return the commands of this node's children by name."""
    names = ["ledger"] if settings.ledger.engine == "cometbft" else []
    names += ["web", *(["peer"] if settings.peer_tls.enabled else []), *(["mllp"] if settings.mllp.enabled else [])]
    names += [f"worker-{number + 1}" for number in range(settings.worker.processes)]
    return {name: [sys.executable, "-m", "bridge.child", name, str(settings.home)] for name in names}
