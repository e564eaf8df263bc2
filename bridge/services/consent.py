"""Consent: what a patient allows at this node, as a FHIR Consent (IHE PCF), as a grant on the ledger, and as facts.

A grant is committed here before the ledger hears of it. The Consent and the opening of the commitment (patient,
limits, salt) stay at home; the ledger gets the grantees, purposes, times and the salted commitment. A revocation
takes effect here at once, and for everybody with the next block.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, Table, insert, select, update

from anchor import canonical
from anchor.errors import ChainError, ChainUnavailable, TransactionRejected
from anchor.gm import sm3
from anchor.receipt import commitment
from anchor.transaction import Code
from bridge.errors import Conflict, DisclosureRefused, InvalidRequest, NotFound
from bridge.services.audit_event import ACT_REASON, USCC_SYSTEM
from bridge.services.decision import CATEGORIES, CATEGORY_OF_TYPE, CONFIDENTIALITY, PURPOSES, GrantFacts
from bridge.services.pseudonyms import SYSTEMS, normalised
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import ConsentGrant, ReceivedRecord
from bridge.storage.records import Lineage
from bridge.storage.search_query import SearchQuery, TermCriterion
from bridge.storage.search_values import token_terms

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient
    from bridge.services.submission import TransactionSubmitter
    from bridge.storage.keyring import KeyRing
    from bridge.storage.records import RecordStore

SALT_BYTES = 32
GRANT_ID_BYTES = 16
ADAPTER = "yiqiao-consent/1.0"
MAX_PATIENTS = 20  # local records of one person; more means that the identifier is not a person's
GRANT_IDENTIFIER = "urn:yiqiao:grant"

_GRANT: Table = ConsentGrant.__table__  # type: ignore[attr-defined]
_RECEIVED: Table = ReceivedRecord.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class GrantTerms:
    """What a patient grants. Times are Unix seconds; ``categories`` None is everything; ``period`` holds ISO dates."""

    grantees: tuple[str, ...]
    purposes: tuple[str, ...]
    valid_until: int
    valid_from: int
    categories: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    period: tuple[str | None, str | None] = (None, None)

    def check(self) -> None:
        """Raise ``InvalidRequest`` for a purpose or category nobody knows, or times that are never in force."""
        unknown = set(self.purposes) - PURPOSES
        if unknown or not self.purposes:
            raise InvalidRequest(f"purposes are of: {', '.join(sorted(PURPOSES))} / 用途代码无效")
        if self.categories is not None:
            known = CATEGORIES | set(CATEGORY_OF_TYPE)
            if not self.categories or not set(self.categories) <= known:
                raise InvalidRequest(
                    f"categories are of: {', '.join(sorted(CATEGORIES))}, or resource types / 类别无效"
                )
        if self.valid_until <= self.valid_from:
            raise InvalidRequest("the grant would end before it begins / 授权截止时间早于开始时间")
        if not self.grantees:
            raise InvalidRequest("a grant names at least one institution / 未指定被授权机构")


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as this node has it. ``state``: pending, active, revoking, revoked, refused."""

    id: str
    patient: str
    consent: str
    state: str
    tx_id: str | None = None


class ConsentService:
    """Gives, withdraws and explains grants of this node's own patients."""

    def __init__(
        self,
        engine: Engine,
        records: RecordStore,
        keyring: KeyRing,
        submitter: TransactionSubmitter,
        chain: ChainClient,
        org: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._records, self._keyring = engine, records, keyring
        self._submitter, self._chain, self._org, self._clock = submitter, chain, org, clock

    def find_patient(self, system: str, value: str) -> str:
        """Return the id of this node's own patient with an identifier; raises ``NotFound`` or ``Conflict``."""
        values = [value]
        if system in SYSTEMS:
            values.append(normalised(system, value)[1])
        terms = tuple(
            (field, term)
            for each in dict.fromkeys(values)
            for field, term in token_terms("Patient.identifier", system, each)
            if field.endswith("#full")
        )
        page = self._records.search(SearchQuery("Patient", (TermCriterion(terms),), count=MAX_PATIENTS))
        with read_transaction(self._engine) as connection:
            copies = {row.subject for row in connection.execute(select(_RECEIVED.c.subject).distinct())}
        own = [version for version in page.entries if version.subject not in copies]
        own = [version for version in own if version.resource().get("active") is not False]
        if not own:
            raise NotFound("no patient of this node has that identifier / 本节点没有该标识的患者")
        if len(own) > 1:
            raise Conflict(
                "several patients of this node have that identifier; name a record number / 标识对应多名患者"
            )
        return own[0].id

    def grant(self, patient: str, terms: GrantTerms) -> Grant:
        """Record a patient's consent and put the grant on the ledger.

        A ledger that does not answer leaves it "pending"; ``settle`` brings it there. Raises ``InvalidRequest`` for
        terms that make no sense, and ``DisclosureRefused`` when the ledger refuses the grant (its code is the
        ledger's).
        """
        terms.check()
        grant_id, consent_id = secrets.token_hex(GRANT_ID_BYTES), str(uuid.uuid4())
        detail = {
            "v": 1,
            "grant": grant_id,
            "org": self._org,
            "patient": f"Patient/{patient}",
            "consent": f"Consent/{consent_id}",
            "categories": None if terms.categories is None else sorted(terms.categories),
            "labels": sorted(terms.labels),
            "period": list(terms.period),
            "salt": secrets.token_hex(SALT_BYTES),
        }
        with write_transaction(self._engine) as connection:
            self._store(connection, patient, grant_id, consent_id, terms, detail)
        try:
            return self._submit(grant_id)
        except ChainError:
            return Grant(grant_id, patient, f"Consent/{consent_id}", "pending")

    def revoke(self, grant_id: str) -> Grant:
        """End a grant: here at once, on the ledger with the next block.

        A ledger that does not answer leaves it "revoking": here it is over, and ``settle`` tells the ledger. Raises
        ``NotFound``, and ``Conflict`` when it has ended already.
        """
        with write_transaction(self._engine) as connection:
            row = self._row(connection, grant_id)
            if row.state not in ("active", "pending"):
                raise Conflict("the grant has ended already / 授权已终止")
            self._set(connection, grant_id, state="revoking")
            self._end_consent(connection, row)
        try:
            return self._submit_revocation(grant_id)
        except ChainError:
            return Grant(grant_id, row.patient_id, f"Consent/{row.consent_id}", "revoking")

    def settle(self) -> int:
        """Bring grants and revocations that the ledger has not answered for to it; return how many were settled."""
        with read_transaction(self._engine) as connection:
            rows = connection.execute(
                select(_GRANT.c.grant_id, _GRANT.c.state).where(_GRANT.c.state.in_(("pending", "revoking")))
            ).all()
        for row in rows:
            try:
                self._submit(row.grant_id) if row.state == "pending" else self._submit_revocation(row.grant_id)
            except DisclosureRefused:
                continue  # noted as refused
        return len(rows)

    def facts(self, connection: Connection, patients: Sequence[str]) -> list[GrantFacts]:
        """Return the grants of patients, newest first, without what the ledger says of them."""
        if not patients:
            return []
        rows = connection.execute(
            select(_GRANT).where(_GRANT.c.patient_id.in_(list(patients))).order_by(_GRANT.c.updated.desc())
        )
        return [_facts(row) for row in rows]

    def patient_of(self, connection: Connection, grant_id: str) -> str:
        """Return the patient id of a grant."""
        return str(self._row(connection, grant_id).patient_id)

    def _store(
        self,
        connection: Connection,
        patient: str,
        grant_id: str,
        consent_id: str,
        terms: GrantTerms,
        detail: Mapping[str, Any],
    ) -> None:
        now = int(self._clock())
        subject = f"Patient/{patient}"
        consent = _consent(consent_id, grant_id, subject, self._org, terms, now)
        self._records.put(connection, consent, _lineage(self._org, consent), subject)
        sealed = self._keyring.seal(connection, subject, canonical.dump(dict(detail)), f"grant|{grant_id}".encode())
        connection.execute(
            insert(_GRANT).values(
                grant_id=grant_id,
                patient_id=patient,
                consent_id=consent_id,
                grantees=json.dumps(sorted(terms.grantees)),
                purposes=json.dumps(sorted(terms.purposes)),
                categories=None if terms.categories is None else json.dumps(sorted(terms.categories)),
                labels=json.dumps(sorted(terms.labels)),
                date_from=terms.period[0],
                date_until=terms.period[1],
                valid_from=terms.valid_from,
                valid_until=terms.valid_until,
                state="pending",
                commitment=commitment(detail).hex(),
                detail_sealed=sealed,
                updated=now,
            )
        )

    def _submit(self, grant_id: str) -> Grant:
        with read_transaction(self._engine) as connection:
            row = self._row(connection, grant_id)
        body = {
            "grant": grant_id,
            "grantees": json.loads(row.grantees),
            "purposes": json.loads(row.purposes),
            "from": row.valid_from,
            "until": row.valid_until,
            "commitment": row.commitment,
        }
        found = self._chain.state(f"grant/{grant_id}")
        if found is not None:  # an earlier submission whose answer was lost
            return self._settled(grant_id, state="active", tx_id=found["tx"])
        try:
            result = self._submitter.submit("consent.grant", body)
        except TransactionRejected as error:
            self._settled(grant_id, state="refused", tx_id=None)
            raise DisclosureRefused(error.code, f"the ledger refused the grant: {error} / 账本拒绝了授权") from error
        return self._settled(grant_id, state="active", tx_id=result.tx_id)

    def _submit_revocation(self, grant_id: str) -> Grant:
        found = self._chain.state(f"grant/{grant_id}")
        if found is None or found["status"] != "active":  # never got there, or an answer was lost
            return self._settled(grant_id, state="revoked", revoke_tx_id=None if found is None else found["tx"])
        try:
            result = self._submitter.submit("consent.revoke", {"grant": grant_id})
        except TransactionRejected as error:
            if error.code != Code.GRANT_REVOKED:
                raise ChainUnavailable("the ledger did not take the revocation; it is tried again") from error
            return self._settled(grant_id, state="revoked")
        return self._settled(grant_id, state="revoked", revoke_tx_id=result.tx_id)

    def _settled(self, grant_id: str, **values: Any) -> Grant:
        with write_transaction(self._engine) as connection:
            self._set(connection, grant_id, **values)
            row = self._row(connection, grant_id)
        return Grant(grant_id, row.patient_id, f"Consent/{row.consent_id}", row.state, row.revoke_tx_id or row.tx_id)

    def _set(self, connection: Connection, grant_id: str, **values: Any) -> None:
        values["updated"] = int(self._clock())
        connection.execute(update(_GRANT).where(_GRANT.c.grant_id == grant_id).values(**values))

    def _row(self, connection: Connection, grant_id: str) -> Row[Any]:
        row = connection.execute(select(_GRANT).where(_GRANT.c.grant_id == grant_id)).first()
        if row is None:
            raise NotFound("this node has given no grant of that id / 本节点没有该授权")
        return row

    def _end_consent(self, connection: Connection, row: Row[Any]) -> None:
        """Store the Consent's next version, inactive."""
        subject = f"Patient/{row.patient_id}"
        consent = {**self._records.read("Consent", row.consent_id).resource(), "status": "inactive"}
        self._records.put(connection, consent, _lineage(self._org, consent), subject)


def _facts(row: Row[Any]) -> GrantFacts:
    return GrantFacts(
        id=row.grant_id,
        consent=f"Consent/{row.consent_id}",
        grantees=frozenset(json.loads(row.grantees)),
        purposes=frozenset(json.loads(row.purposes)),
        valid_from=row.valid_from,
        valid_until=row.valid_until,
        active=row.state in ("active", "pending"),
        ledger=None,
        categories=None if row.categories is None else frozenset(json.loads(row.categories)),
        labels=frozenset(json.loads(row.labels)),
        period=(row.date_from, row.date_until),
    )


def _lineage(org: str, consent: Mapping[str, Any]) -> Lineage:
    return Lineage(f"consent:{org}", sm3(canonical.dump(dict(consent))), ADAPTER)


def _consent(consent_id: str, grant_id: str, patient: str, org: str, terms: GrantTerms, now: int) -> dict[str, Any]:
    """Return the FHIR Consent (R4; IHE PCF intermediate: one permit provision with its limits)."""
    provision: dict[str, Any] = {
        "type": "permit",
        "period": {"start": _instant(terms.valid_from), "end": _instant(terms.valid_until)},
        "actor": [
            {
                "role": _concept("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "IRCP"),
                "reference": {"type": "Organization", "identifier": {"system": USCC_SYSTEM, "value": grantee}},
            }
            for grantee in sorted(terms.grantees)
        ],
        "action": [_concept("http://terminology.hl7.org/CodeSystem/consentaction", "access")],
        "purpose": [{"system": ACT_REASON, "code": purpose} for purpose in sorted(terms.purposes)],
    }
    if terms.categories is not None:
        types = sorted(set(terms.categories) & set(CATEGORY_OF_TYPE))
        coded = sorted(set(terms.categories) - set(CATEGORY_OF_TYPE))
        if types:
            provision["class"] = [{"system": "http://hl7.org/fhir/resource-types", "code": type} for type in types]
        if coded:
            provision["code"] = [_concept("urn:yiqiao:category", category) for category in coded]
    if terms.labels:
        provision["securityLabel"] = [{"system": CONFIDENTIALITY, "code": label} for label in sorted(terms.labels)]
    period = {name: value for name, value in zip(("start", "end"), terms.period, strict=True) if value}
    if period:
        provision["dataPeriod"] = period
    return {
        "resourceType": "Consent",
        "id": consent_id,
        "meta": {"profile": ["https://profiles.ihe.net/ITI/PCF/StructureDefinition/IHE.PCF.consentIntermediate"]},
        "identifier": [{"system": GRANT_IDENTIFIER, "value": grant_id}],
        "status": "active",
        "scope": _concept("http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy"),
        "category": [_concept("http://loinc.org", "59284-0")],
        "patient": {"reference": patient},
        "dateTime": _instant(now),
        "performer": [{"reference": patient}],
        "organization": [{"type": "Organization", "identifier": {"system": USCC_SYSTEM, "value": org}}],
        "policyRule": _concept("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTOUT"),
        "provision": {"type": "deny", "provision": [provision]},
    }


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
