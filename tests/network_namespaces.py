"""Machines of their own for processes under test: network namespaces, each with one line to a switch that can be split.

The switch is two bridges in a namespace of its own, so that nothing of it is seen on this machine's network and equal
addresses disturb nobody. A split network drops what is sent across without a word, as a broken line does: nobody is
signalled, no connection is closed. Needs root and iproute2.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pytest

NAMESPACES = Path("/run/netns")
PREFIX = "yiqiao-test"
SUBNET = "10.77.0"
_CLONE_NEWNET = 0x40000000


def require_namespaces() -> None:
    """Skip where network namespaces cannot be made."""
    if shutil.which("ip") is None:
        pytest.skip("the program ip (iproute2) is missing")
    name = f"{PREFIX}-{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"network namespaces cannot be made here, which needs root: {tried.stderr.strip()}")
    ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def enter(namespace: str) -> None:
    """Move the calling thread into a namespace: what sockets it opens from now on are there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (NAMESPACES / namespace).open() as there:
        if libc.setns(there.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "a network namespace cannot be entered", namespace)


class Switch:
    """``count`` namespaces on one switch; ``names`` and ``addresses`` by number. A context manager."""

    def __init__(self, count: int) -> None:
        own = f"{PREFIX}-{os.getpid()}"
        self.names = [f"{own}-{number}" for number in range(count)]
        self.addresses = [f"{SUBNET}.{1 + number}" for number in range(count)]
        self._switch = f"{own}-switch"

    def __enter__(self) -> Switch:
        _remove_leftovers()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def split(self, away: Iterable[int]) -> None:
        """Put some of the namespaces on the other bridge: they reach one another, and nobody else does."""
        for number in away:
            ip("-n", self._switch, "link", "set", f"line{number}", "master", "right")

    def unplug(self, number: int) -> None:
        """Take one namespace's line down."""
        ip("-n", self._switch, "link", "set", f"line{number}", "down")

    def mend(self) -> None:
        """Put every namespace on one bridge, its line up."""
        for number in range(len(self.names)):
            ip("-n", self._switch, "link", "set", f"line{number}", "up", "master", "left")

    def close(self) -> None:
        """Delete the namespaces, and with them what is in them; whose processes still run go on without a network."""
        for name in (*self.names, self._switch):
            with suppress(subprocess.CalledProcessError):
                ip("netns", "delete", name)

    def _build(self) -> None:
        ip("netns", "add", self._switch)
        for bridge in ("left", "right"):
            ip("-n", self._switch, "link", "add", bridge, "type", "bridge")
            ip("-n", self._switch, "link", "set", bridge, "up")
        for number, (name, address) in enumerate(zip(self.names, self.addresses, strict=True)):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            line = f"line{number}"
            ip("-n", self._switch, "link", "add", line, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        self.mend()


def _remove_leftovers() -> None:
    """Delete the namespaces of test processes that were killed."""
    for file in NAMESPACES.glob(f"{PREFIX}-*"):
        process = file.name.split("-")[2]
        if not Path("/proc", process).exists():
            with suppress(subprocess.CalledProcessError):
                ip("netns", "delete", file.name)
