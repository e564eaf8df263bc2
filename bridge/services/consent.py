"""Consent: what a patient allows at this node, as a FHIR Consent (IHE PCF), as a grant on the ledger, and as facts.

A grant is committed here before the ledger hears of it. The Consent and the opening of the commitment (patient, all
terms, salt) stay at home; the ledger gets the grantees, purposes, times and the salted commitment. A revocation or a
narrowing takes effect here at once, and for everybody with the next block; what is widened counts only when the ledger
has it.

A draft (``propose``) waits for the patient's confirmation (``bridge.services.confirmation``) and grants nothing until
then.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, Table, select

from anchor import canonical
from anchor.gm import sm3
from anchor.receipt import commitment
from bridge.errors import Conflict, InvalidRequest, KeyDestroyed, NotFound
from bridge.services.confirmation import Confirmations, terms_statement
from bridge.services.consent_resource import consent_resource
from bridge.services.decision import GrantFacts
from bridge.services.grant_settlement import Grant, GrantSettlement, grant_of
from bridge.services.grant_terms import Confirmation, GrantTerms, birth_date
from bridge.services.pseudonyms import SYSTEMS, normalised
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import ReceivedRecord
from bridge.storage.grants import GrantStore
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
LIVE = frozenset({"active", "amending", "pending"})
_CONSENT_STATUS = {"draft": "proposed", "revoking": "inactive", "revoked": "inactive", "refused": "rejected"}

_RECEIVED: Table = ReceivedRecord.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class ConsentRules:
    """``confirmation_required``: no grant without a recorded confirmation. ``age_of_consent``: below it a guardian."""

    confirmation_required: bool = False
    age_of_consent: int = 14


class ConsentService:
    """Gives, confirms, changes, withdraws and explains grants of this node's own patients."""

    def __init__(
        self,
        engine: Engine,
        records: RecordStore,
        keyring: KeyRing,
        submitter: TransactionSubmitter,
        chain: ChainClient,
        org: str,
        clock: Callable[[], float] = time.time,
        *,
        rules: ConsentRules | None = None,
        confirmations: Confirmations | None = None,
    ) -> None:
        self._engine, self._records, self._store = engine, records, GrantStore(engine, keyring)
        self._org, self._clock = org, clock
        self._settlement = GrantSettlement(engine, self._store, submitter, chain, self._reject_consent, clock)
        self.rules = rules or ConsentRules()
        self.confirmations = confirmations or Confirmations(engine, keyring, clock=clock)

    def find_patient(self, system: str, value: str) -> str:
        """Return the id of this node's own patient with an identifier; raises ``NotFound`` or ``Conflict``."""
        own = self.find_patients(system, value)
        if not own:
            raise NotFound("no patient of this node has that identifier / 本节点没有该标识的患者")
        if len(own) > 1:
            raise Conflict(
                "several patients of this node have that identifier; name a record number / 标识对应多名患者"
            )
        return own[0]

    def find_patients(self, system: str, value: str) -> list[str]:
        """Return the ids of this node's own active patients with an identifier; copies from elsewhere are none."""
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
        return [version.id for version in own if version.resource().get("active") is not False]

    # --- giving

    def grant(self, patient: str, terms: GrantTerms) -> Grant:
        """Record a patient's consent and put the grant on the ledger.

        A ledger that does not answer leaves it "pending"; ``settle`` brings it there. Raises ``InvalidRequest`` for
        terms that make no sense or are not confirmed where they must be, and ``DisclosureRefused`` when the ledger
        refuses the grant (its code is the ledger's).
        """
        if self.rules.confirmation_required and terms.confirmation is None:
            raise InvalidRequest("this node takes no grant without the patient's confirmation / 须先由患者确认授权")
        return self._settlement.to_ledger(self._new(patient, terms, "pending"))

    def propose(self, patient: str, terms: GrantTerms) -> Grant:
        """Record a draft and make a one-time code for its confirmation; nothing is granted yet."""
        return self._new(patient, replace(terms, confirmation=None), "draft")

    def remind(self, grant_id: str) -> None:
        """Make another one-time code for a draft; the earlier one no longer counts."""
        with write_transaction(self._engine) as connection:
            row = self._store.row(connection, grant_id)
            if row.state != "draft":
                raise Conflict("only a draft waits for confirmation / 授权不在待确认状态")
            self.confirmations.issue(connection, grant_id, row.consent_id, row.patient_id)

    def confirm(self, grant_id: str, **evidence: str) -> Grant:
        """Confirm a draft by exactly one of ``code``, ``signature`` (base64) and ``paper``; it then goes to the ledger.

        Raises ``NotFound``, ``Conflict``, ``InvalidRequest`` (the code is wrong), ``CertificateInvalid``.
        """
        with read_transaction(self._engine) as connection:
            row = self._store.row(connection, grant_id)
            terms = GrantTerms.read(self._store.detail(connection, row)["terms"])
        if row.state != "draft":
            raise Conflict("only a draft waits for confirmation / 授权不在待确认状态")
        patient = f"Patient/{row.patient_id}"
        statement = terms_statement(grant_id, self._org, patient, terms)
        confirmation = self.confirmations.of_evidence(evidence, grant_id, statement, terms.guardian or patient)
        with write_transaction(self._engine) as connection:
            row = self._store.row(connection, grant_id)
            if row.state != "draft":
                raise Conflict("only a draft waits for confirmation / 授权不在待确认状态")
            self._retell(connection, row, terms.confirmed(confirmation), "pending")
        return self._settlement.to_ledger(Grant(grant_id, row.patient_id, f"Consent/{row.consent_id}", "pending"))

    def statement(self, grant_id: str) -> bytes:
        """Return the bytes that the patient or the guardian signs to confirm a draft; raises ``NotFound``."""
        with read_transaction(self._engine) as connection:
            row = self._store.row(connection, grant_id)
            terms = GrantTerms.read(self._store.detail(connection, row)["terms"])
        return terms_statement(grant_id, self._org, f"Patient/{row.patient_id}", terms)

    def _new(self, patient: str, terms: GrantTerms, state: str) -> Grant:
        terms.check()
        self._check_people(patient, terms)
        grant_id, consent_id = secrets.token_hex(GRANT_ID_BYTES), str(uuid.uuid4())
        now, detail = int(self._clock()), self._detail(grant_id, patient, consent_id, terms)
        with write_transaction(self._engine) as connection:
            self._put_consent(connection, grant_id, patient, consent_id, terms, state)
            self._store.insert(
                connection, grant=grant_id, patient=patient, consent=consent_id, state=state, detail=detail,
                commitment=commitment(detail).hex(), now=now,
            )  # fmt: skip
            if state == "draft":
                self.confirmations.issue(connection, grant_id, consent_id, patient)
        return Grant(grant_id, patient, f"Consent/{consent_id}", state)

    # --- changing and ending

    def amend(self, grant_id: str, terms: GrantTerms) -> Grant:
        """Replace a live grant's terms: here at once, on the ledger with the next block.

        What is narrowed takes effect at once; what is widened needs the patient's confirmation in ``terms`` where this
        node asks for one, and counts when the ledger has it. Raises as ``grant`` does, ``NotFound``, ``Conflict``.
        """
        terms.check()
        with read_transaction(self._engine) as connection:
            row = self._store.row(connection, grant_id)
            before = GrantTerms.read(self._store.detail(connection, row)["terms"])
        if row.state not in ("active", "amending"):
            raise Conflict("only a grant in force can be changed / 仅生效中的授权可变更")
        if terms.valid_from != before.valid_from:
            raise InvalidRequest("a grant's beginning does not change / 授权开始时间不可变更")
        if terms.sensitive != before.sensitive:
            raise InvalidRequest("sensitive information needs a consent of its own / 敏感信息须单独同意")
        if terms.widens(before) and self.rules.confirmation_required and terms.confirmation is None:
            raise InvalidRequest("a wider grant needs the patient's confirmation / 扩大授权须由患者确认")
        self._check_people(row.patient_id, terms)
        with write_transaction(self._engine) as connection:
            row = self._store.row(connection, grant_id)
            if row.state not in ("active", "amending"):
                raise Conflict("only a grant in force can be changed / 仅生效中的授权可变更")
            self._retell(connection, row, terms, "amending")
        return self._settlement.to_ledger(
            Grant(grant_id, row.patient_id, f"Consent/{row.consent_id}", "amending", row.tx_id)
        )

    def revoke(self, grant_id: str) -> Grant:
        """End a grant: here at once, on the ledger with the next block.

        A ledger that does not answer leaves it "revoking": here it is over, and ``settle`` tells the ledger. Raises
        ``NotFound``, and ``Conflict`` when it has ended already.
        """
        with write_transaction(self._engine) as connection:
            row = self._store.row(connection, grant_id)
            if row.state not in ("active", "amending", "pending", "draft"):
                raise Conflict("the grant has ended already / 授权已终止")
            self._store.set(connection, grant_id, int(self._clock()), state="revoking")
            self._end_consent(connection, row)
        return self._settlement.to_ledger(
            Grant(grant_id, row.patient_id, f"Consent/{row.consent_id}", "revoking", row.tx_id)
        )

    def settle(self) -> int:
        """Bring what the ledger has not answered for to it; return how many grants were settled."""
        return self._settlement.settle()

    # --- telling

    def facts(self, connection: Connection, patients: Sequence[str]) -> list[GrantFacts]:
        """Return the grants of patients, newest first, without what the ledger says of them."""
        found = []
        for row in self._store.of_patients(connection, patients):
            with suppress(KeyDestroyed):  # an erased patient grants nothing
                found.append(_facts(row, GrantTerms.read(self._store.detail(connection, row)["terms"])))
        return found

    def terms_of(self, grant_id: str) -> GrantTerms:
        """Return a grant's terms; raises ``NotFound``, ``KeyDestroyed``."""
        with read_transaction(self._engine) as connection:
            return GrantTerms.read(self._store.detail(connection, self._store.row(connection, grant_id))["terms"])

    def grants_of(self, patient: str) -> list[Grant]:
        """Return a patient's grants, newest first."""
        with read_transaction(self._engine) as connection:
            return [grant_of(row) for row in self._store.of_patients(connection, [patient])]

    def of_consent(self, consent_id: str) -> Grant:
        """Return the grant of a Consent; raises ``NotFound``."""
        with read_transaction(self._engine) as connection:
            return grant_of(self._store.of_consent(connection, consent_id))

    def counts(self, states: Sequence[str]) -> dict[str, int]:
        """Return how many grants are in each of these states."""
        return self._store.counts(states)

    def patient_of(self, connection: Connection, grant_id: str) -> str:
        """Return the patient id of a grant."""
        return str(self._store.row(connection, grant_id).patient_id)

    # --- keeping

    def _check_people(self, patient: str, terms: GrantTerms) -> None:
        """Raise ``NotFound`` for a patient or guardian that is not stored here, ``InvalidRequest``
        for the wrong one.
        """
        resource = self._records.read("Patient", patient).resource()
        terms.check_guardian(birth_date(resource), age_of_consent=self.rules.age_of_consent, now=int(self._clock()))
        if terms.guardian is None:
            return
        kind, _, id = terms.guardian.partition("/")
        if kind != "RelatedPerson":
            raise InvalidRequest("a guardian is a RelatedPerson of this node / 监护人须为本节点的关系人记录")
        related = self._records.read("RelatedPerson", id).resource()
        if (related.get("patient") or {}).get("reference") != f"Patient/{patient}" or related.get("active") is False:
            raise InvalidRequest("the guardian is another patient's / 监护人与患者不符")

    def _detail(self, grant_id: str, patient: str, consent_id: str, terms: GrantTerms) -> dict[str, Any]:
        return {
            "v": 1,
            "grant": grant_id,
            "org": self._org,
            "patient": f"Patient/{patient}",
            "consent": f"Consent/{consent_id}",
            "terms": terms.value(),
            "salt": secrets.token_hex(SALT_BYTES),
        }

    def _retell(self, connection: Connection, row: Row[Any], terms: GrantTerms, state: str) -> None:
        """Store new terms: a fresh salt and commitment, and the Consent's next version."""
        detail = self._detail(row.grant_id, row.patient_id, row.consent_id, terms)
        now = int(self._clock())
        self._store.retell(connection, row, detail, commitment(detail).hex(), state, now)
        self._put_consent(connection, row.grant_id, row.patient_id, row.consent_id, terms, state)

    def _put_consent(
        self, connection: Connection, grant_id: str, patient: str, consent_id: str, terms: GrantTerms, state: str
    ) -> None:
        consent = consent_resource(
            id=consent_id, grant=grant_id, patient=f"Patient/{patient}", org=self._org, terms=terms,
            status=_CONSENT_STATUS.get(state, "active"), now=int(self._clock()),
        )  # fmt: skip
        self._records.put(connection, consent, _lineage(self._org, consent), f"Patient/{patient}")

    def _end_consent(self, connection: Connection, row: Row[Any]) -> None:
        """Store the Consent's next version, inactive."""
        self._change_status(connection, row, "inactive")

    def _reject_consent(self, connection: Connection, row: Row[Any]) -> None:
        """Store the Consent's next version, rejected: the ledger took no such grant."""
        with suppress(KeyDestroyed, NotFound):  # of a patient erased meanwhile
            self._change_status(connection, row, "rejected")

    def _change_status(self, connection: Connection, row: Row[Any], status: str) -> None:
        consent = {**self._records.read("Consent", row.consent_id).resource(), "status": status}
        self._records.put(connection, consent, _lineage(self._org, consent), f"Patient/{row.patient_id}")


def _facts(row: Row[Any], terms: GrantTerms) -> GrantFacts:
    return GrantFacts(
        id=row.grant_id,
        consent=f"Consent/{row.consent_id}",
        grantees=frozenset(terms.grantees),
        purposes=frozenset(terms.purposes),
        valid_from=terms.valid_from,
        valid_until=terms.valid_until,
        active=row.state in LIVE,
        ledger=None,
        categories=None if terms.categories is None else frozenset(terms.categories),
        labels=frozenset(terms.labels),
        period=terms.period,
        exclusions=terms.exclusions,
        roles=frozenset(terms.roles),
        sensitive=terms.sensitive,
        copies_days=terms.copies_days,
        on_ledger=row.state == "active",
    )


def _lineage(org: str, consent: Mapping[str, Any]) -> Lineage:
    return Lineage(f"consent:{org}", sm3(canonical.dump(dict(consent))), ADAPTER)


__all__ = ["Confirmation", "ConsentRules", "ConsentService", "Grant", "GrantTerms"]
