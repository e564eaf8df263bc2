"""A consortium of real node processes for tests: every node its own `yiqiao serve`, mutual TLS between all of them.

Homes are made and members admitted in-process, which is quick; what is tested then runs in the nodes' own processes.
All people and numbers are made up.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from anchor.contracts import members
from anchor.contracts.org_id import check_character
from anchor.gm import sm3
from bridge.demo.nodes import free_ports
from bridge.home import HomePlan, create_home
from bridge.node_keys import load_signer
from bridge.pki.enrolment import CertificateRequest
from bridge.settings import Settings, load_settings
from bridge.storage.records import Lineage
from bridge.tokens import create_token
from bridge.wiring import Node, open_node, prepare_database

CHAIN = "scenario"
READY_SECONDS = 120.0
QUICK_JOBS = """
[anchoring]
period_seconds = 1.0
[witness]
period_seconds = 1.0
quorum = {quorum}
[worker]
idle_seconds = 0.1
drain_seconds = 5.0
"""
LINEAGE = Lineage("his", sm3(b"source message"), "hl7v2/1.0")


def org_id(number: int) -> str:
    body = f"12330000{number:09d}"
    return body + check_character(body)


class ServedNode:
    """One institution: a home, ports, and a process while it is served."""

    def __init__(self, directory: Path, number: int, role: str, name: str) -> None:
        self.org, self.role, self.name = org_id(number), role, name
        self.home = directory / f"{name}"
        self.http_port, self.peer_port = free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None
        self.token = ""
        self.environment: dict[str, str] = {}

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.peer_port}"

    @property
    def log(self) -> Path:
        return self.home / "serve.log"

    @property
    def settings(self) -> Settings:
        return load_settings(self.home)

    @contextmanager
    def opened(self) -> Iterator[Node]:
        """Give this node's parts in the test's own process, beside the served one."""
        with open_node(self.home) as node:
            yield node

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "bridge.cli", "serve", "--home", str(self.home)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True,
                                            env={**os.environ, **self.environment})  # fmt: skip

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            with suppress(requests.RequestException, OSError):
                if requests.get(f"http://127.0.0.1:{self.http_port}/readyz", timeout=2).ok and self._listens():
                    return
            time.sleep(0.1)
        raise AssertionError(f"{self.name} did not become ready: {self.log.read_text()[-3000:]}")

    def _listens(self) -> bool:
        import socket

        with socket.create_connection(("127.0.0.1", self.peer_port), timeout=1):
            return True

    def get(self, path: str) -> requests.Response:
        return requests.get(
            f"http://127.0.0.1:{self.http_port}{path}", headers={"Authorization": f"Bearer {self.token}"}, timeout=20
        )

    def post(self, path: str, content: bytes | str, content_type: str = "application/fhir+json") -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        body = content.encode() if isinstance(content, str) else content
        return requests.post(f"http://127.0.0.1:{self.http_port}{path}", data=body, headers=headers, timeout=20)

    def run(self, *arguments: object, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run `yiqiao` for this home in a process of its own."""
        command = [sys.executable, "-m", "bridge.cli", *map(str, arguments), "--home", str(self.home)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False,
                              env={**os.environ, **self.environment})  # fmt: skip
        assert expect is None or done.returncode == expect, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
        return done

    def pause(self) -> None:
        """Stop every process of the node where it stands (SIGSTOP): it neither answers nor hangs up."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class NodeConsortium:
    """An authority and hospitals; ``close`` kills whatever still runs."""

    def __init__(
        self,
        directory: Path,
        hospitals: Sequence[str],
        *,
        quorum: int = 2,
        extra: str = "",
        observers: Sequence[str] = (),
    ) -> None:
        self.directory, self._extra, self._quorum = directory, extra, quorum
        self.authority = ServedNode(directory, 900, "authority", "authority")
        self.nodes: dict[str, ServedNode] = {"authority": self.authority}
        self._make_authority()
        for number, name in enumerate([*hospitals, *observers], start=901):
            role = "observer" if name in observers else "hospital"
            self.nodes[name] = ServedNode(directory, number, role, name)
            self._make_member(self.nodes[name])

    def __getitem__(self, name: str) -> ServedNode:
        return self.nodes[name]

    def _make_authority(self) -> None:
        node = self.authority
        self._home(node, None)
        with node.opened() as opened:
            opened.certificates.create()
            self._enrol(opened, node)

    def _make_member(self, node: ServedNode) -> None:
        self._home(node, self.authority.home / "genesis.json")
        settings = node.settings
        signer = load_signer(settings)
        card = members.card(
            chain=CHAIN, org=node.org, name=node.name, roles=[node.role], endpoint=node.endpoint,
            signing=signer.sign, encryption=signer.decrypt, since=int(time.time()) - 1,
        )  # fmt: skip
        action = {"kind": "admit", "member": members.admission(card)}
        with self.authority.opened() as authority:
            self.propose(authority, action)
            self._enrol(authority, node)

    @staticmethod
    def propose(authority: Node, action: dict[str, Any]) -> None:
        authority.submitter.submit("membership.propose", {"proposal": secrets.token_hex(16), "action": action})

    def _home(self, node: ServedNode, genesis: Path | None) -> None:
        plan = HomePlan(
            org=node.org, name=node.name, roles=(node.role,), endpoint=node.endpoint, environment="test",
            http_host="127.0.0.1", http_port=node.http_port, mllp_port=2575, mllp=False, chain=CHAIN,
            database="sqlite:///node.sqlite3", genesis=genesis,
            ledger_url=self.authority.endpoint if genesis else "",
        )  # fmt: skip
        settings = create_home(node.home, plan)
        prepare_database(settings)
        config = node.home / "config.toml"
        text = config.read_text("utf-8") + QUICK_JOBS.format(quorum=self._quorum) + self._extra
        text = text.replace("[exchange]", "[exchange]\nregister_seconds = 1.0\nsettle_seconds = 1.0", 1)
        config.write_text(text.replace("[http]", "[http]\nworkers = 1", 1), "utf-8")
        file = settings.path(settings.security.tokens)
        _, node.token = create_token(file, name="test", role="operator", now=int(time.time()))

    def _enrol(self, authority: Node, node: ServedNode) -> None:
        settings = node.settings
        identity, signer = settings.tls_identity(), load_signer(settings)
        csr = identity.request(node.org, ("127.0.0.1",))
        asked = CertificateRequest.make(org=node.org, csr=csr, key=signer.sign, now=int(time.time()))
        found = authority.certificates.issue(asked, authority.chain.state(f"member/{node.org}"))
        identity.install(found, node.org, signer.sign.public_key.to_bytes())
        with (node.home / "config.toml").open("a", encoding="utf-8") as config:
            config.write(f"\n[peer_tls]\nenabled = true\nport = {node.peer_port}\nrefresh_seconds = 1.0\n")

    def start(self, names: Iterable[str] | None = None) -> None:
        wanted = list(names or self.nodes)
        if "authority" in wanted:
            self.authority.start()
            self.authority.wait_ready()
        rest = [self.nodes[name] for name in wanted if name != "authority"]
        for node in rest:
            node.start()
        for node in rest:
            node.wait_ready()

    def suspend(self, name: str) -> None:
        with self.authority.opened() as authority:
            self.propose(authority, {"kind": "suspend", "org": self[name].org})

    def reinstate(self, name: str) -> None:
        with self.authority.opened() as authority:
            self.propose(authority, {"kind": "reinstate", "org": self[name].org})

    def close(self) -> None:
        for node in self.nodes.values():
            node.kill()


def wait_for(look: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    """Call ``look`` until it gives something true; fails naming ``what``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")


def store(node: Node, patient: str, *resources: dict[str, Any]) -> None:
    """Put resources into a node's record store, as a source would have."""
    with node.engine.begin() as connection:
        for resource in resources:
            node.records.put(connection, json.dumps(resource).encode(), LINEAGE, f"Patient/{patient}")
