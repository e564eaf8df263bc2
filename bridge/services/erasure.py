"""Erasing a patient (crypto-shredding): keys and salts destroyed, the fact recorded, the evidence left checkable.

In order, each step safe to repeat after a failure:

(1) live grants are revoked: what is erased cannot be granted;
(2) the authority's localisation index forgets the patient's pseudonyms; where it does not answer that is reported, and
    the index names an institution that then has nothing to show;
(3) in one transaction: the data key is destroyed, and with it every sealed row and every salt; index terms, digests,
    messages and what exchanges left are removed; an AuditEvent and a row of ``erasure`` record it;
(4) the AuditEvent is logged and anchored like any record: its receipt is the receipt about the erasure.

Receipts made before stay valid, for they hold their entry themselves. Copies on backups of the database are erased with
the key only where the key is not on them: ``docs/operations.md``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, select

from anchor.errors import AnchorError
from bridge.errors import BridgeError, Conflict, InvalidRequest, NotFound
from bridge.services.anchoring import AnchoringService
from bridge.services.audit import AuditService
from bridge.services.consent import ConsentService
from bridge.services.localisation import LocalisationClient
from bridge.storage.database import read_transaction, transact
from bridge.storage.erasure import Erasure, erase_exchanged, erase_subject, find_erasure, record_erasure
from bridge.storage.exchange import ConsentGrant, LocalPseudonym
from bridge.storage.inbox import Inbox
from bridge.storage.keyring import SUBJECT_KEY, KeyRing
from bridge.storage.record_tables import VERSION

REASONS = ("patient-request", "retention-ended", "court-order", "stored-in-error")
"""Why a patient is erased: coded, because the reason stays readable for good."""

_PATIENT = re.compile(r"Patient/[A-Za-z0-9\-.]{1,64}\Z")
_GRANT: Table = ConsentGrant.__table__  # type: ignore[attr-defined]
_PSEUDONYM: Table = LocalPseudonym.__table__  # type: ignore[attr-defined]
_LIVE = ("pending", "active", "amending", "draft")


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """What was erased. ``event``: the AuditEvent's id. ``problems``: what could not be told to others, in sentences."""

    subject: str
    event: str
    versions: int
    grants: int
    exchanges: int
    anchored: bool
    problems: tuple[str, ...]


class ErasureService:
    """Erases patients of one node."""

    def __init__(
        self,
        engine: Engine,
        keyring: KeyRing,
        inbox: Inbox,
        *,
        consent: ConsentService,
        localisation: LocalisationClient | None,
        audit: AuditService,
        anchoring: AnchoringService,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._keyring, self._inbox = engine, keyring, inbox
        self._consent, self._localisation, self._audit = consent, localisation, audit
        self._anchoring, self._clock = anchoring, clock

    def resolve(self, patient: str) -> str:
        """Return the subject, "Patient/<id>", of that or of "SYSTEM|VALUE"; raises ``NotFound``, ``Conflict``."""
        if _PATIENT.match(patient):
            subject = patient
        else:
            system, separator, value = patient.partition("|")
            if not separator or not system.strip() or not value.strip():
                raise InvalidRequest("name the patient as Patient/id or SYSTEM|VALUE / 患者写法不对")
            subject = f"Patient/{self._consent.find_patient(system.strip(), value.strip())}"
        with read_transaction(self._engine) as conn:
            if find_erasure(conn, subject) is not None:
                raise Conflict(f"{subject} was erased before / 该患者数据已销毁")
            known = select(SUBJECT_KEY.c.subject).where(SUBJECT_KEY.c.subject == subject)
            if conn.execute(known).first() is None:
                raise NotFound("this node keeps nothing of that patient / 本节点没有该患者的数据")
        return subject

    def count(self, subject: str) -> int:
        """Return how many record versions a subject has: what an operator is asked to confirm."""
        held = select(func.count()).select_from(VERSION).where(VERSION.c.subject == subject)
        with read_transaction(self._engine) as conn:
            return int(conn.execute(held).scalar_one())

    def erase(self, subject: str, reason: str) -> ErasureResult:
        """Erase a patient; ``reason`` is one of ``REASONS``. There is no way back."""
        if reason not in REASONS:
            raise InvalidRequest(f"the reason is one of: {', '.join(REASONS)} / 原因代码无效")
        problems: list[str] = []
        grants = self._revoke(subject, problems)  # (1)
        self._withdraw(subject, problems)  # (2)
        erasure, exchanges = transact(self._engine, lambda conn: self._destroy(conn, subject, reason))  # (3)
        anchored = self._anchor(problems)  # (4)
        return ErasureResult(subject, erasure.event, erasure.versions, grants, exchanges, anchored, tuple(problems))

    def _revoke(self, subject: str, problems: list[str]) -> int:
        patient = subject.removeprefix("Patient/")
        live = select(_GRANT.c.grant_id).where(_GRANT.c.patient_id == patient, _GRANT.c.state.in_(_LIVE))
        with read_transaction(self._engine) as conn:
            grants = list(conn.execute(live).scalars())
        for grant in grants:
            try:
                self._consent.revoke(grant)
            except (BridgeError, AnchorError) as error:
                problems.append(f"grant {grant} is not revoked yet ({type(error).__name__}); revoke it by hand")
        return len(grants)

    def _withdraw(self, subject: str, problems: list[str]) -> None:
        if self._localisation is None:
            return
        patient = subject.removeprefix("Patient/")
        place = f"yiqiao/pid|{patient}".encode()
        with read_transaction(self._engine) as conn:
            rows = conn.execute(select(_PSEUDONYM.c.pid_sealed).where(_PSEUDONYM.c.patient_id == patient)).scalars()
            pids = [self._keyring.open(conn, subject, bytes(sealed), place).decode() for sealed in rows]
        try:
            if pids:
                self._localisation.withdraw(pids)
        except BridgeError as error:
            problems.append(
                f"the localisation index still names this institution for the patient ({type(error).__name__})"
            )

    def _destroy(self, conn: Connection, subject: str, reason: str) -> tuple[Erasure, int]:
        exchanges = erase_exchanged(conn, subject)
        versions = erase_subject(conn, self._keyring, self._inbox, subject)
        description = f"erased: {reason}; {versions} record versions"
        event = self._audit.record_erasure(subject, description, conn)
        erasure = Erasure(subject, event, versions, int(self._clock()))
        record_erasure(conn, erasure)
        return erasure, exchanges

    def _anchor(self, problems: list[str]) -> bool:
        try:
            return not self._anchoring.run().skipped
        except (BridgeError, AnchorError) as error:
            problems.append(f"the event waits to be anchored ({type(error).__name__}); the next run does it")
            return False


def as_json(result: ErasureResult) -> dict[str, Any]:
    """Return an erasure's result as JSON values."""
    return {name: getattr(result, name) for name in ErasureResult.__slots__} | {"problems": list(result.problems)}
