"""What a registrar does for a patient at the consent desk, each step in the audit trail under the registrar's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bridge.errors import NotFound
from bridge.services import consent_words as words
from bridge.services.audit_event import Party
from bridge.services.consent_form import Fields, fields_of, read_terms, rows
from bridge.services.grant_terms import CHINA_TIME, GrantTerms
from bridge.services.pseudonyms import SYSTEMS

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient
    from bridge.services.audit import AuditService
    from bridge.services.consent import ConsentService
    from bridge.services.grant_settlement import Grant
    from bridge.storage.records import RecordStore

MAX_MEMBERS = 1_000  # members to choose from; the ledger's own bound is lower
MAX_GUARDIANS = 50
_SYSTEM_WORDS = ("identity card / 居民身份证", "health card / 居民健康卡", "electronic health card / 电子健康卡")
_GENDERS = {"male": "male / 男", "female": "female / 女"}
_ENDED = frozenset({"revoking", "revoked", "refused"})


class ConsentDesk:
    """The steps behind the pages of ``bridge.routes.console``; each raises as ``ConsentService`` does."""

    def __init__(
        self,
        records: RecordStore,
        consent: ConsentService,
        audit: AuditService,
        chain: ChainClient,
        org: str,
        clock: Callable[[], float],
    ) -> None:
        self._records, self._consent, self._audit = records, consent, audit
        self._chain, self._org, self._clock = chain, org, clock

    @staticmethod
    def systems() -> list[tuple[str, str]]:
        """Return (system, words) of the identifiers by which a patient is found."""
        return list(zip(SYSTEMS, _SYSTEM_WORDS, strict=True))

    def find(self, system: str, value: str, by: Party) -> str:
        """Return the local id of the one patient with an identifier; raises ``NotFound``, ``Conflict``."""
        found = self._consent.find_patient(system, value.strip())
        self._audit.record("search-type", client=by, patient=f"Patient/{found}", query=b"Patient?identifier")
        return found

    def patient(self, patient: str, by: Party) -> dict[str, Any]:
        """Return what the page of a patient shows: who it is, the consents, and an empty form."""
        empty: dict[str, Any] = {name: [] for name in ("grantee", "purpose", "until", "category", "label", "role",
                                                       "records-from", "records-until", "copies-days",
                                                       "guardian")}  # fmt: skip
        told = self._told(patient, by)
        names = dict(told["choose"]["members"])
        grants = [self._shown(each, names) for each in self._consent.grants_of(patient)]
        return {**told, "grants": grants, "shown": empty}

    def grant(self, patient: str, grant: str, by: Party) -> dict[str, Any]:
        """Return what the page of one consent shows: its terms in the form."""
        self._check(patient, grant)
        shown = fields_of(self._consent.terms_of(grant))
        return {**self._told(patient, by, shown), "grant": grant, "shown": shown}

    def statement(self, patient: str, grant: str) -> bytes:
        """Return the bytes that the patient or the guardian signs for a draft."""
        self._check(patient, grant)
        return self._consent.statement(grant)

    def record(self, patient: str, fields: Fields, paper: str, by: Party) -> None:
        """Record a consent: confirmed by a signed form, or a draft that the patient is sent a code for."""
        terms = read_terms(fields, now=int(self._clock()))
        if paper:
            given = self._consent.grant(patient, self._on_paper(patient, terms, paper))
        else:
            given = self._consent.propose(patient, terms)
        self._note("create", given, by)

    def amend(self, patient: str, grant: str, fields: Fields, paper: str, by: Party) -> None:
        """Change a consent."""
        self._check(patient, grant)
        terms = read_terms(fields, now=int(self._clock()), before=self._consent.terms_of(grant))
        confirmed = self._on_paper(patient, terms, paper) if paper else terms
        self._note("update", self._consent.amend(grant, confirmed), by)

    def confirm(self, patient: str, grant: str, evidence: Mapping[str, str], by: Party) -> None:
        """Confirm a draft by exactly one of ``code``, ``signature``, ``paper``."""
        self._check(patient, grant)
        self._note("operation", self._consent.confirm(grant, **evidence), by)

    def remind(self, patient: str, grant: str, by: Party) -> None:
        """Make another one-time code for a draft."""
        found = self._check(patient, grant)
        self._consent.remind(grant)
        self._note("operation", found, by)

    def revoke(self, patient: str, grant: str, by: Party) -> None:
        """End a consent."""
        self._check(patient, grant)
        self._note("update", self._consent.revoke(grant), by)

    def _check(self, patient: str, grant: str) -> Grant:
        """Return a grant; raises ``NotFound`` unless it is this patient's."""
        for each in self._consent.grants_of(patient):
            if each.id == grant:
                return each
        raise NotFound("the patient has given no such consent here / 该患者没有此授权")

    def _on_paper(self, patient: str, terms: GrantTerms, paper: str) -> GrantTerms:
        by = terms.guardian or f"Patient/{patient}"
        return terms.confirmed(self._consent.confirmations.on_paper(paper, by))

    def _note(self, interaction: str, given: Grant, by: Party) -> None:
        self._audit.record(interaction, client=by, patient=f"Patient/{given.patient}", resource=given.consent)

    def _told(self, patient: str, by: Party, shown: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return who the patient is, and what the form offers; the look is recorded."""
        resource = self._records.read("Patient", patient).resource()
        self._audit.record("read", client=by, patient=f"Patient/{patient}", resource=f"Patient/{patient}")
        about = {
            "id": patient,
            "name": _name(resource) or f"Patient/{patient}",
            "gender": _GENDERS.get(resource.get("gender", ""), ""),
            "born": resource.get("birthDate", ""),
        }
        return {"patient": about, "choose": self._choices(patient, shown or {})}

    def _choices(self, patient: str, shown: Mapping[str, Any]) -> dict[str, Any]:
        members = [
            (str(each["org"]), f"{each['name']} ({each['org']})")
            for each in self._chain.state_with_prefix("member/", MAX_MEMBERS).values()
            if each["status"] == "active" and each["org"] != self._org
        ]
        known = {org for org, _ in members}
        members += [(org, org) for org in shown.get("grantee", ()) if org not in known]
        return {
            "members": members,
            "purposes": words.options(words.PURPOSES),
            "categories": words.options(words.CATEGORIES, _present(shown, "category")),
            "labels": words.options({**words.SENSITIVE, **words.CONFIDENTIAL}, _present(shown, "label")),
            "roles": words.options(words.ROLES),
            "rows": rows(shown),
            "guardians": self._guardians(patient),
        }

    def _guardians(self, patient: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for version in self._records.of_subject(f"Patient/{patient}", ["RelatedPerson"]):
            resource = version.resource()
            if resource.get("active") is not False and len(found) < MAX_GUARDIANS:
                relation = ", ".join(_texts(resource.get("relationship", ())))
                found.append((f"RelatedPerson/{version.id}", f"{_name(resource) or version.id} {relation}".strip()))
        return found

    def _shown(self, grant: Grant, names: Mapping[str, str]) -> dict[str, Any]:
        terms = self._consent.terms_of(grant.id)
        until = datetime.fromtimestamp(terms.valid_until, CHINA_TIME).strftime("%Y-%m-%d %H:%M")
        return {
            "id": grant.id,
            "state": words.both(words.STATES, grant.state),
            "waits": grant.state == "draft",
            "live": grant.state not in _ENDED,
            "grantees": "; ".join(names.get(org, org) for org in terms.grantees),
            "purposes": "; ".join(words.both(words.PURPOSES, code) for code in terms.purposes),
            "limits": "; ".join(_limits(terms)),
            "until": until,
        }


def _limits(terms: GrantTerms) -> list[str]:
    """Return what limits terms, a phrase each."""
    labels = {**words.SENSITIVE, **words.CONFIDENTIAL}
    found = [words.both(words.CATEGORIES, code) for code in terms.categories or ()] or ["all information / 全部信息"]
    found += [words.both(labels, code) for code in terms.labels]
    if any(terms.period):
        found.append(f"{terms.period[0] or '…'} – {terms.period[1] or '…'}")
    if terms.exclusions:
        found.append(f"{len(terms.exclusions)} exceptions / 项例外")
    found += [words.both(words.ROLES, role) for role in terms.roles]
    if terms.copies_days is not None:
        found.append(f"copies {terms.copies_days} days / 副本保存{terms.copies_days}天")
    return found


def _present(shown: Mapping[str, Any], name: str) -> list[str]:
    """Return the codes of a field and of the exceptions' fields of that name."""
    inside = [code for row in shown.get("exceptions", ()) for code in row.get(name, ())]
    return list(dict.fromkeys([*shown.get(name, ()), *inside]))


def _name(resource: Mapping[str, Any]) -> str:
    """Return a person's name as one text."""
    for name in resource.get("name", ()):
        parts = [*name.get("given", ()), name.get("family", "")]
        if text := name.get("text") or " ".join(filter(None, reversed(parts))):
            return str(text)
    return ""


def _texts(concepts: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(each.get("text") or (each.get("coding") or [{}])[0].get("display", "")) for each in concepts]
