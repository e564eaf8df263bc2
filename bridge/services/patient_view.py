"""The patient's own view: accesses to the record, a copy of it with receipts, and requests for its correction.

Whoever acts for a patient here (a portal, the privacy officer) is in the audit trail as well, and so in the next
report. Erasure is ``bridge.services.erasure``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from anchor import canonical
from anchor.errors import ChainError
from anchor.gm import PrivateKey, sm3
from bridge.errors import Conflict, InvalidRequest, NotFound
from bridge.services import patient_file
from bridge.services.access_report import Access, access_of, page
from bridge.services.audit_event import USCC_SYSTEM, Party
from bridge.services.review import TASK_SYSTEM, instant
from bridge.storage.database import write_transaction
from bridge.storage.record_versions import StoredVersion
from bridge.storage.records import Lineage

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from bridge.services.anchoring import AnchoringService
    from bridge.services.audit import AuditService
    from bridge.services.receipts import ReceiptService
    from bridge.services.search import SearchResult, SearchService
    from bridge.storage.records import RecordStore

ADAPTER = "yiqiao-correction/1.0"
CORRECTION_CODE = "correction-request"
MAX_TEXT_CHARACTERS = 4_000
PAGE_COUNT = 100  # AuditEvents read at a time
MAX_ACCESSES = 10_000  # of one report: a chronic patient's decades

Answer = Literal["completed", "rejected"]


class PatientView:
    """What one node shows its own patients."""

    def __init__(
        self,
        engine: Engine,
        records: RecordStore,
        search: SearchService,
        receipts: ReceiptService,
        anchoring: AnchoringService,
        audit: AuditService,
        *,
        chain_id: str,
        key: PrivateKey,
        base_url: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._records, self._search, self._receipts = engine, records, search, receipts
        self._anchoring, self._audit, self._clock = anchoring, audit, clock
        self._chain_id, self._key, self._base_url = chain_id, key, base_url

    def accesses(self, patient: str, by: Party, parameters: Iterable[tuple[str, str]] = ()) -> SearchResult:
        """Search the AuditEvents about a patient (its local id); newest first unless ``parameters`` sort otherwise.

        ``parameters``: further FHIR search parameters of AuditEvent. Raises ``SearchParameterError``.
        """
        given = [pair for pair in parameters if pair[0].partition(":")[0] != "patient"]
        order = [] if any(name == "_sort" for name, _ in given) else [("_sort", "-date")]
        found = self._search.search("AuditEvent", [("patient", f"Patient/{patient}"), *given, *order])
        self._audit.record("search-type", client=by, patient=f"Patient/{patient}", query=b"AuditEvent?patient")
        return found

    def report(self, patient: str, by: Party) -> list[Access]:
        """Return every access to a patient's record, newest first."""
        return [access_of(version.resource()) for version in self._events(patient, by)]

    def page(self, patient: str, by: Party) -> str:
        """Return the report as a printable page (HTML, English and Chinese)."""
        made = instant(int(self._clock()))
        return page(self.report(patient, by), institution=self._audit.node.name or self._audit.node.id, made=made)

    def file(self, kind: patient_file.Kind, patient: str, by: Party) -> bytes:
        """Return the accesses, or a copy of all records, as a signed file with receipts (``patient_file``).

        What is not in the log yet is put there first. Raises ``NotFound`` where nothing is kept of the patient, and
        ``ChainError`` when the ledger does not answer.
        """
        with suppress(ChainError):  # drained all the same; receipts then are "pending"
            self._anchoring.run()
        if kind == "records":
            versions = list(self._records.of_subject(f"Patient/{patient}"))
            self._audit.record("operation", client=by, patient=f"Patient/{patient}", resource=f"Patient/{patient}")
        else:
            versions = self._events(patient, by)
        if not versions:
            raise NotFound("this node keeps nothing of that patient / 本节点没有该患者的数据")
        receipts, missing = [], []
        for each in versions:
            try:
                receipts.append(canonical.load(self._receipts.for_record(each.type, each.id, each.version)))
            except Conflict:  # stored since
                missing.append(each.ref)
        now = int(self._clock())
        entries = [
            {"fullUrl": f"{self._base_url}/{each.type}/{each.id}", "resource": each.resource()} for each in versions
        ]
        bundle = {"resourceType": "Bundle", "type": "collection", "timestamp": instant(now), "entry": entries}
        return patient_file.build(
            kind, chain=self._chain_id, org=self._audit.node.id, key=self._key, time=now, bundle=bundle,
            receipts=receipts, missing=missing,
        )  # fmt: skip

    def _events(self, patient: str, by: Party) -> list[StoredVersion]:
        result = self.accesses(patient, by, [("_count", str(PAGE_COUNT))])
        found = list(result.page.entries)
        while result.next_token and len(found) < MAX_ACCESSES:
            more = [("patient", f"Patient/{patient}"), ("_count", str(PAGE_COUNT)), ("_sort", "-date")]
            result = self._search.search("AuditEvent", [*more, ("_page", result.next_token)])
            found += result.page.entries
        return found

    # --- corrections

    def request_correction(self, patient: str, about: str, text: str, by: Party) -> StoredVersion:
        """Keep a patient's request that a record be corrected, as a Task for the institution; return the Task.

        ``about``: "Type/id" of a record of this very patient. Raises ``NotFound``, ``InvalidRequest``.
        """
        type, _, id = about.partition("/")
        if not 0 < len(text.strip()) <= MAX_TEXT_CHARACTERS:
            raise InvalidRequest("say in words what is wrong / 请说明需更正的内容")
        subject = f"Patient/{patient}"
        if self._records.read(type, id).subject != subject:
            raise NotFound("the patient has no such record here / 该患者没有该记录")
        task = {
            "resourceType": "Task",
            "id": f"correction-{uuid.uuid4()}",
            "status": "requested",
            "intent": "proposal",
            "code": {"coding": [{"system": TASK_SYSTEM, "code": CORRECTION_CODE}], "text": "更正申请"},
            "description": text.strip(),
            "focus": {"reference": about},
            "for": {"reference": subject},
            "authoredOn": instant(int(self._clock())),
            "requester": {"reference": subject},
            "owner": {
                "type": "Organization",
                "identifier": {"system": USCC_SYSTEM, "value": self._audit.node.id},
            },
        }
        return self._put(task, subject, "create", by)

    def answer_correction(self, task: str, outcome: Answer, note: str, by: Party) -> StoredVersion:
        """Answer a request for correction, once: "completed" (the source system was corrected) or "rejected".

        The record itself changes only by way of its source system. Raises ``NotFound``, ``Conflict``,
        ``InvalidRequest``.
        """
        if outcome not in ("completed", "rejected") or not 0 < len(note.strip()) <= MAX_TEXT_CHARACTERS:
            raise InvalidRequest("a request is completed or rejected, and the answer says why / 须有结论与理由")
        found = self._records.read("Task", task)
        value = found.resource()
        if CORRECTION_CODE not in [str(each.get("code")) for each in value["code"].get("coding", ())]:
            raise NotFound("there is no request for correction of that id / 没有该更正申请")
        if value["status"] != "requested":
            raise Conflict("that request has been answered / 该更正申请已答复")
        output = [{"type": {"text": "answer"}, "valueString": note.strip()}]
        done = {**value, "status": outcome, "lastModified": instant(int(self._clock())), "output": output}
        return self._put(done, found.subject, "update", by)

    def corrections(self, patient: str | None = None) -> list[StoredVersion]:
        """Return requests for correction that wait for an answer, of one patient or of all."""
        wanted = [("code", f"{TASK_SYSTEM}|{CORRECTION_CODE}"), ("status", "requested"), ("_count", str(PAGE_COUNT))]
        wanted += [] if patient is None else [("patient", f"Patient/{patient}")]
        return list(self._search.search("Task", wanted).page.entries)

    def _put(self, task: dict[str, Any], subject: str, interaction: str, by: Party) -> StoredVersion:
        lineage = Lineage(f"correction:{self._audit.node.id}", sm3(canonical.dump(task)), ADAPTER)
        with write_transaction(self._engine) as connection:
            self._records.put(connection, task, lineage, subject)
        self._audit.record(interaction, client=by, patient=subject, resource=f"Task/{task['id']}")
        return self._records.read("Task", str(task["id"]))
