"""The demo's story: what is done, in which order, and what is checked after each step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.demo import sources, tampering
from bridge.demo.nodes import DemoFailed, DemoNode, free_ports, yiqiao
from bridge.demo.report import Report

CHAIN = "yiqiao-demo"
AUTHORITY_ORG, HOSPITAL_A_ORG, HOSPITAL_B_ORG = "12990000MB0000019C", "12990000MB00000277", "12990000MB00000352"
PATIENT = f"{sources.ID_NUMBER_SYSTEM}|{sources.PATIENT_ID_NUMBER}"
APPEARS_WITHIN_SECONDS = 45.0  # conversion, polling and anchoring are jobs of about a second in the demo's settings
LOOK_EVERY_SECONDS = 0.2

# Short periods, so that a spectator need not wait for what a hospital would do every minute.
FAST_JOBS = """
[anchoring]
period_seconds = 1.0

[witness]
period_seconds = 1.0

[worker]
idle_seconds = 0.05
"""


NUMBER_WORDS = {3: "three", 4: "four"}


class Scenario:
    """Three nodes below one folder, and the steps that use them. The authority hosts the ledger."""

    founding = ("An authority founds a consortium and admits two hospitals", "主管机构建立联盟，接纳两家医院")

    def __init__(self, folder: Path, report: Report) -> None:
        self.folder = folder
        self.report = report
        ports = iter(free_ports(6))
        self.authority = DemoNode(
            folder / "authority", AUTHORITY_ORG, "Demo Health Authority", "authority", next(ports), next(ports)
        )
        self.a = DemoNode(
            folder / "hospital-a", HOSPITAL_A_ORG, "Demo Hospital A", "hospital", next(ports), next(ports)
        )
        self.b = DemoNode(
            folder / "hospital-b", HOSPITAL_B_ORG, "Demo Hospital B", "hospital", next(ports), next(ports)
        )
        self.nodes: tuple[DemoNode, ...] = (self.authority, self.a, self.b)
        self.his = folder / "his.sqlite3"
        self.trust = folder / "trust.json"
        self.grant = ""
        self.request = ""

    def run(self) -> None:
        """Carry out every step up to the tampering; raises ``DemoFailed`` where going on makes no sense."""
        for step in self.steps():
            step()

    def steps(self) -> tuple[Callable[[], None], ...]:
        """Return the steps in their order."""
        return (
            self.found_consortium,
            self.take_messages,
            self.poll_view,
            self.anchor,
            self.refuse_without_grant,
            self.release_under_grant,
            self.prove_disclosure,
            self.refuse_after_revocation,
            self.look_for_private_data,
            self.refuse_forgeries,
            self.name_alterations,
        )

    def found_consortium(self) -> None:
        """Initialise the nodes, make them members of one ledger, start everything."""
        self.report.step(*self.founding)
        self.start_nodes()
        for node in self.nodes:
            created = yiqiao("token", "create", "--home", node.home, "--name", "demo", "--role", "operator", "--json")
            node.token = json.loads(created.stdout)["token"]
        yiqiao("trust", "--home", self.authority.home, "--out", self.trust)
        members = {member["org"] for member in json.loads(self.trust.read_text("utf-8"))["members"]}
        number = NUMBER_WORDS[len(self.nodes)]
        self.report.check(f"{number} members on the ledger, keys proven", members == {n.org for n in self.nodes}, CHAIN)
        pids = {node.process.pid for node in self.nodes if node.process}
        self.report.check(
            f"{number} separate node processes serve", len(pids) == len(self.nodes), f"pids {sorted(pids)}"
        )

    def start_nodes(self) -> None:
        """The authority hosts the ledger and admits the two hospitals."""
        self.init_node(self.authority, "--chain", CHAIN)
        genesis = self.authority.home / "genesis.json"
        for hospital in (self.a, self.b):
            self.init_node(hospital, "--ledger-url", self.authority.endpoint, "--genesis", genesis)
        self.add_his()
        self.authority.start()
        self.authority.wait_ready()
        for hospital in (self.a, self.b):
            card = self.folder / f"card-{hospital.org}.json"
            yiqiao("member", "card", "--home", hospital.home, "--out", card)
            yiqiao("member", "admit", card, "--home", self.authority.home)
        for hospital in (self.a, self.b):
            hospital.start()
        for hospital in (self.a, self.b):
            hospital.wait_ready()

    def add_his(self) -> None:
        """Give hospital A a HIS database and name it in its settings."""
        sources.create_his_database(self.his)
        self._append(self.a, f'\n[[sources]]\nname = "his"\nkind = "view"\nurl = "sqlite:///{self.his}"\n'
                             'views = ["V_IOP_LAB"]\npoll_seconds = 1.0\n')  # fmt: skip

    def take_messages(self) -> None:
        """Send an ADT in GB18030 and an ORU in UTF-8 over MLLP; look at the FHIR that came of them."""
        self.report.step("Hospital A's systems send HL7 v2 over MLLP", "医院A的系统经 MLLP 发送 HL7 v2")
        admission = sources.admission()
        first = self.a.send_mllp(admission)
        self.report.check("ADT^A01 in GB18030 acknowledged after a durable commit", b"|AA|DEMO-ADT-1" in first)
        self.report.check("the same message again gets the same answer", self.a.send_mllp(admission) == first)
        self.report.check("ORU^R01 acknowledged", b"|AA|DEMO-ORU-1" in self.a.send_mllp(sources.laboratory_report()))
        broken = self.a.send_mllp(admission.replace(b"DEMO-ADT-1", b"DEMO-ADT-2").replace(b"PID|", b"P_D|"))
        self.report.check("a message without a patient is refused by name", b"|AE|" in broken or b"|AR|" in broken)
        patient = self._one("Patient", identifier=PATIENT)
        name = patient["name"][0]
        self.report.check(
            "the Patient's rare character survived", sources.PATIENT_NAME in json.dumps(name, ensure_ascii=False), "㐂"
        )
        self.report.check("re-delivery made no second version", patient["meta"]["versionId"] == "1")
        wait_for(
            lambda: len(self._entries(self.a, "Observation", patient=patient["id"])) >= 5 or None,
            "conversion of the ORU",
        )
        raw = self._served("Observation", code="http://loinc.org|1988-5")
        self.report.check("a result of 0.40 is served as 0.40", '"value":0.40' in raw)
        kinds = ("Patient", "Encounter", "Observation", "DiagnosticReport", "Condition", "AllergyIntolerance")
        counts = {kind: len(self._entries(self.a, kind)) for kind in kinds}
        self.report.check("the records are FHIR R4 at hospital A", all(counts.values()), _listed(counts))

    def poll_view(self) -> None:
        """Add a result to the HIS database and wait for the poller to bring it."""
        self.report.step(
            "Hospital A's node polls a standard view of the HIS database, read-only", "节点只读轮询 HIS 标准视图"
        )
        sources.add_his_result(self.his)
        found = wait_for(
            lambda: self._entries(self.a, "Observation", code="http://loinc.org|2823-3") or None, "polling the view"
        )
        patient = self._one("Patient", identifier=PATIENT)
        self.report.check("the row became one Observation", len(found) == 1)
        subject = found[0]["resource"]["subject"]["reference"]
        self.report.check("of the same Patient as the HL7 v2 messages", subject == f"Patient/{patient['id']}")

    def anchor(self) -> None:
        """Wait for the scheduled job; verify a receipt offline."""
        self.report.step("The scheduled job anchors the records on the ledger", "定时任务把记录哈希锚定到账本")
        patient = self._one("Patient", identifier=PATIENT)
        receipt, state = self.folder / "patient-receipt.json", ""

        def witnessed() -> bool | None:
            nonlocal state
            state = self.a.command_json("receipt", f"Patient/{patient['id']}", "--out", receipt)["state"]
            return True if state == "witnessed" else None

        wait_for(witnessed, "a witnessed receipt")
        self.report.check("the Patient's receipt is witnessed by the other members", state == "witnessed")
        resource = self.folder / "patient.json"
        resource.write_bytes(self._read_bytes(f"Patient/{patient['id']}"))
        verdict = yiqiao("verify", receipt, "--trust", self.trust, "--resource", resource, expect=None)
        self.report.check("yiqiao verify, offline: record, receipt and trust file agree", verdict.returncode == 0)

    def refuse_without_grant(self) -> None:
        """Hospital B asks without a grant."""
        self.report.step("Hospital B asks without the patient's grant", "医院B未获授权即请求")
        wait_for(lambda: self._holders_known() or None, "registration in the localisation index")
        outcome, code = self._lookup()
        self.report.check("B located A by a keyed pseudonym", [h["holder"] for h in outcome["holders"]] == [self.a.org])
        self.report.check(
            "A refused", code != 0 and not _received(outcome), outcome["holders"][0]["message"].split(" / ")[0]
        )

    def release_under_grant(self) -> None:
        """The patient grants; B asks, receives, verifies and stores."""
        self.report.step("The patient grants hospital B access; B asks again", "患者授权医院B，B再次请求")
        until = time.strftime("%Y-%m-%d", time.localtime(time.time() + 86_400))
        self.grant = self.a.command_json(
            "grant", "--patient", PATIENT, "--to", self.b.org, "--purpose", "TREAT", "--until", until
        )["id"]
        started = time.monotonic()
        outcome, code = self._lookup("--grant", self.grant)
        elapsed = time.monotonic() - started
        received = _received(outcome)
        self.request = outcome["holders"][0]["request"] or ""
        self.report.check(
            "B received, opened and verified a sealed release", code == 0 and bool(received), f"{elapsed:.1f} s"
        )
        proven = [record for record in received if record["receipt"] != "pending"]
        self.report.check(
            "every record's receipt held before it was stored",
            len(proven) == len(received) > 0,
            f"{len(received)} records",
        )
        kinds: dict[str, int] = {}
        for record in received:
            kind = record["local"].split("/")[0]
            kinds[kind] = kinds.get(kind, 0) + 1
        stored = sum(1 for r in received if self.b.fhir(r["local"].split("/_history")[0]))
        self.report.check("stored at B under identities of their own", stored == len(received), _listed(kinds))
        provenance = (
            self._entries(self.b, "Provenance", target=received[0]["local"].split("/_history")[0]) if received else []
        )
        self.report.check("with provenance that names hospital A", self.a.org in json.dumps(provenance))
        for node in (self.a, self.b):
            self.report.check(f"{node.name} has its AuditEvents", bool(self._entries(node, "AuditEvent")))
        self.report.count("records exchanged", len(received))

    def prove_disclosure(self) -> None:
        """Both sides hold the proof of what was disclosed under which authorisation."""
        self.report.step("Both sides prove the disclosure offline", "双方离线证明此次披露")
        for node in (self.a, self.b):
            file = self.folder / f"disclosure-{node.org}.json"

            def proven(node: DemoNode = node, file: Path = file) -> bool | None:
                done = node.command("receipt", self.request, "--out", file, expect=None)
                if done.returncode:
                    return None
                return yiqiao("verify", file, "--trust", self.trust, expect=None).returncode == 0 or None

            self.report.check(
                f"{node.name}: request, grant, permit and release in order, under one cosigned ledger",
                bool(wait_for(proven, f"a verifiable disclosure receipt of {node.name}")),
            )

    def refuse_after_revocation(self) -> None:
        """The grant is revoked and B asks again."""
        self.report.step("The patient revokes the grant; B asks once more", "患者撤销授权，B再次请求")
        self.a.command("revoke", self.grant)
        outcome, code = self._lookup("--grant", self.grant)
        self.report.check("A refused", code != 0 and not _received(outcome))

    def look_for_private_data(self) -> None:
        """Search every byte of the ledger and of the logs for what must not be there."""
        self.report.step("Nothing private is on the ledger or in a log", "账本与运行日志中没有隐私数据")
        ledger = b"".join(path.read_bytes() for path in self.ledger_files())
        logs = b"".join((node.home / "serve.log").read_bytes() for node in self.nodes)
        for place, content in (("ledger", ledger), ("logs", logs)):
            found = tampering.private_traces(content)
            self.report.check(
                f"no name, number or unsalted hash in {len(content):,} bytes of {place}", not found, ", ".join(found)
            )

    def ledger_files(self) -> list[Path]:
        """Return the files in which the ledger is kept."""
        return sorted(self.authority.home.glob("ledger.sqlite3*"))

    def refuse_forgeries(self) -> None:
        """Alter a receipt in several ways; none may verify."""
        self.report.step("Forged receipts are refused", "伪造的收据被拒绝")
        original = (self.folder / "patient-receipt.json").read_bytes()
        for what, forged in tampering.forgeries(original):
            file = self.folder / "forged.json"
            file.write_bytes(forged)
            verdict = yiqiao("verify", file, "--trust", self.trust, "--json", expect=None)
            self.report.check(what, verdict.returncode == 1, tampering.failing_step(verdict.stdout or verdict.stderr))

    def name_alterations(self) -> None:
        """Alter a row of A's database behind its back; fsck must name it."""
        self.report.step("A row of hospital A's database is altered behind its back", "绕过节点改动医院A数据库的一行")
        before = self.a.command("fsck", "--json", expect=None)
        self.report.check("fsck finds nothing before", before.returncode == 0, tampering.differences(before.stdout))
        altered = tampering.alter_row(self.a.home / "node.sqlite3")
        after = self.a.command("fsck", "--json", expect=None)
        named = tampering.differences(after.stdout)
        self.report.check("fsck names the altered row", after.returncode == 1 and altered in named, named)
        self.report.count("record versions at A", json.loads(before.stdout)["checked"]["records"])
        self.report.count("ledger blocks", self._ledger_blocks())

    def stop(self) -> None:
        """Stop every node and check that no process is left."""
        self.report.step("Everything stops", "全部停止")
        codes = [node.stop() for node in reversed(self.nodes)]
        self.report.check("each node drained and exited with 0", set(codes) == {0}, str(codes))
        deadline = time.monotonic() + LOOK_EVERY_SECONDS * 10
        while not all(node.group_is_gone() for node in self.nodes) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_SECONDS)
        self.report.check("no process is left", all(node.group_is_gone() for node in self.nodes))

    def init_node(self, node: DemoNode, *more: str | Path) -> None:
        """Make a node's home, with jobs that run every second."""
        yiqiao(
            "init", node.home, "--org", node.org, "--name", node.name, "--role", node.role, "--environment", "demo",
            "--http-port", str(node.http_port), "--mllp-port", str(node.mllp_port), *more,
        )  # fmt: skip
        self._append(node, FAST_JOBS)
        config = node.home / "config.toml"
        config.write_text(
            config.read_text("utf-8").replace("[exchange]", "[exchange]\nregister_seconds = 1.0"), "utf-8"
        )

    @staticmethod
    def _append(node: DemoNode, text: str) -> None:
        with (node.home / "config.toml").open("a", encoding="utf-8") as config:
            config.write(text)

    def _lookup(self, *more: str) -> tuple[dict[str, Any], int]:
        done = self.b.command("lookup", "--identifier", PATIENT, "--purpose", "TREAT", *more, "--json", expect=None)
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            raise DemoFailed(f"yiqiao lookup printed no JSON: {done.stderr.strip()[-500:]}") from error
        return answer, done.returncode

    def _holders_known(self) -> bool:
        return bool(self._lookup()[0]["holders"])

    def _one(self, kind: str, **parameters: str) -> dict[str, Any]:
        found = wait_for(lambda: self._entries(self.a, kind, **parameters) or None, f"a {kind}")
        resource: dict[str, Any] = found[0]["resource"]
        return resource

    @staticmethod
    def _entries(node: DemoNode, kind: str, **parameters: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = node.search_by_post(kind, **parameters).get("entry", [])
        return entries

    def _served(self, kind: str, **parameters: str) -> str:
        """Return the bytes of a search's first match as served, as text: JSON parsers lose a number's form."""
        entry = wait_for(lambda: self._entries(self.a, kind, **parameters) or None, f"an {kind}")[0]
        return self._read_bytes(f"{kind}/{entry['resource']['id']}").decode("utf-8")

    def _read_bytes(self, path: str) -> bytes:
        return self.a.get(f"fhir/{path}").content

    def _ledger_blocks(self) -> int:
        answer = self.authority.command_json("fsck")
        blocks: int = answer["checked"]["blocks"]
        return blocks


def wait_for(look: Callable[[], Any], what: str) -> Any:
    """Call ``look`` until it returns something other than None; raise ``DemoFailed`` when that takes too long."""
    deadline = time.monotonic() + APPEARS_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(LOOK_EVERY_SECONDS)
    raise DemoFailed(f"{what} did not happen within {APPEARS_WITHIN_SECONDS:.0f} s")


def _received(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    return [record for holder in outcome["holders"] if holder["status"] == "received" for record in holder["records"]]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())
