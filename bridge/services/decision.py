"""The holder's decision on a request from another member: pure, default deny, explained.

A request is permitted only by a rule of this module; whatever no rule permits is denied. The facts come in: who asks
and what the ledger says of that member, the grants given by this patient as the ledger *and* this node know them, what
time it is. The rules, in order:

1. the requester is an active member, and the purpose is one of ``PURPOSES``;
2. an emergency: a coded reason, a text, and a practitioner role that may break the glass. It opens a review afterwards;
3. otherwise a grant: live on the ledger and here, names the requester, the purpose and (where limited) the categories.

``Decision.rule`` is for the holder's own audit. A requester is only ever told "not permitted": the answer is the same
whether there is no such patient, no grant, or the wrong one.

What is then released follows from ``Scope``: categories, clinical period, and security labels. Labels up to
confidentiality "N" are covered by any grant; higher ones and sensitivity codes (v3-ActCode, such as HIV or PSY) only
where the grant names them. A grant for sensitive information covers that and nothing else. What a grant excepts is left
out. An emergency covers up to "R" and every sensitivity code, never "V".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

PURPOSES = frozenset(
    {"TREAT", "ETREAT", "BTG", "CAREMGT", "PATRQT", "HPAYMT", "COVERAGE", "HOPERAT", "PUBHLTH", "HRESCH"}
)
"""v3-PurposeOfUse (v3-ActReason) codes that a request or a grant may name."""
EMERGENCY_PURPOSES = frozenset({"TREAT", "ETREAT", "BTG"})
EMERGENCY_REASONS = frozenset({"ETREAT", "BTG", "UNCONSCIOUS", "LIFE-THREATENING", "MASS-CASUALTY"})
"""Why the patient could not be asked; the first two are v3-ActReason codes, the others this consortium's."""
EMERGENCY_ROLES = frozenset({"physician", "nurse", "emergency-physician"})
EMERGENCY_COPIES_DAYS = 30  # until the review of an emergency is long over, and the patient could be asked
ROLES = EMERGENCY_ROLES | {
    *("pharmacist", "technician", "midwife", "therapist", "clerk", "administrator", "researcher", "payer-clerk"),
    *("public-health", "patient", "system"),
}
"""Roles of whoever asks at the requesting institution, which signs for it. Others are not known here."""
MIN_REASON_CHARACTERS = 4  # "急诊抢救" is a reason; an empty or one-letter text is not
MAX_REASON_CHARACTERS = 500

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
SENSITIVITY = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
MAX_EXPLAINED = 10  # grants told of in one AuditEvent
_LEVELS = {level: rank for rank, level in enumerate("ULMNRV")}
_NORMAL, _RESTRICTED = _LEVELS["N"], _LEVELS["R"]

CATEGORY_OF_TYPE: Mapping[str, str] = {
    "Patient": "demographics",
    "RelatedPerson": "demographics",
    "Coverage": "coverage",
    "Encounter": "encounter",
    "EpisodeOfCare": "encounter",
    "Condition": "condition",
    "AllergyIntolerance": "allergy",
    "Immunization": "immunization",
    "Procedure": "procedure",
    "MedicationRequest": "medication",
    "MedicationStatement": "medication",
    "MedicationAdministration": "medication",
    "MedicationDispense": "medication",
    "Observation": "observation",
    "DiagnosticReport": "report",
    "Specimen": "laboratory",
    "ServiceRequest": "order",
    "ImagingStudy": "imaging",
    "DocumentReference": "document",
    "Composition": "document",
    "CarePlan": "careplan",
}
"""What a resource type is, for grants and the localisation index. A type that is not here is never released."""
_CATEGORY_CODES = {"laboratory": "laboratory", "LAB": "laboratory", "vital-signs": "vital-signs", "imaging": "imaging"}
CATEGORIES = frozenset(CATEGORY_OF_TYPE.values()) | frozenset(_CATEGORY_CODES.values())

_DATE_ELEMENTS = (
    "effectiveDateTime",
    "effectivePeriod",
    "effectiveInstant",
    "period",
    "occurrenceDateTime",
    "performedDateTime",
    "performedPeriod",
    "authoredOn",
    "onsetDateTime",
    "recordedDate",
    "started",
    "date",
    "issued",
)


@dataclass(frozen=True, slots=True)
class AskedFor:
    """What a requester asks. ``categories`` None means whatever is allowed; ``emergency`` is a coded reason."""

    requester: str
    purpose: str
    grant: str | None = None
    emergency: str | None = None
    reason: str = ""
    role: str = ""
    categories: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Exclusion:
    """What a grant leaves out: records for which every condition given here holds. Empty and None: no condition."""

    categories: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    period: tuple[str | None, str | None] = (None, None)
    grantees: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """One grant of the patient: what this node recorded, and ``ledger``, the ledger's state ``grant/<id>`` or None.

    ``on_ledger``: this node, which alone can change it there, knows that the ledger has it with these very terms. Times
    are Unix seconds; ``period`` limits the clinical date of what may be released, as ISO dates. ``sensitive``: it
    covers records with its labels and no others. ``copies_days``: how long the recipient may keep copies.
    """

    id: str
    consent: str
    grantees: frozenset[str]
    purposes: frozenset[str]
    valid_from: int
    valid_until: int
    active: bool
    ledger: Mapping[str, Any] | None
    categories: frozenset[str] | None = None
    labels: frozenset[str] = frozenset()
    period: tuple[str | None, str | None] = (None, None)
    exclusions: tuple[Exclusion, ...] = ()
    roles: frozenset[str] = frozenset()
    sensitive: bool = False
    copies_days: int | None = None
    on_ledger: bool = False

    def as_on_ledger(self) -> dict[str, Any]:
        """Return what the ledger's state of this grant is, for one that is there with these terms."""
        return {
            "status": "active",
            "grantees": sorted(self.grantees),
            "purposes": sorted(self.purposes),
            "from": self.valid_from,
            "until": self.valid_until,
        }


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be released (see the module). ``categories`` holds categories or resource types; None is all."""

    categories: frozenset[str] | None
    labels: frozenset[str]
    period: tuple[str | None, str | None] = (None, None)
    emergency: bool = False
    exclusions: tuple[Exclusion, ...] = ()
    sensitive: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome. ``rule`` names what decided, for the holder's audit; ``scope`` is set when permitted.

    ``considered`` lists each grant that was looked at with what it lacked ("covers" for the one that permits).
    ``copies_days``: how long the recipient may keep copies; None for as long as its own rules say.
    """

    permit: bool
    rule: str
    basis: Literal["grant", "emergency"] | None = None
    grant: GrantFacts | None = None
    scope: Scope | None = None
    considered: tuple[tuple[str, str], ...] = ()
    copies_days: int | None = None

    def explained(self) -> str:
        """Return the decision in one line for the audit trail: the rule, and what became of each grant."""
        looked = "; ".join(f"grant {grant}: {lacking}" for grant, lacking in self.considered[:MAX_EXPLAINED])
        return f"{'permitted' if self.permit else 'denied'}: {self.rule}" + (f" ({looked})" if looked else "")


@dataclass(frozen=True, slots=True)
class EmergencyRules:
    """Emergency access at this holder: the roles that may, and how many days copies may be kept (None: no limit)."""

    roles: frozenset[str] = EMERGENCY_ROLES
    copies_days: int | None = EMERGENCY_COPIES_DAYS


@dataclass(frozen=True, slots=True)
class ApprovalRules:
    """When a person at the holder is asked before a permitted request is answered; never in an emergency.

    ``purposes``: for these purposes of use; ``sensitive``: when the grant is for sensitive information.
    """

    purposes: frozenset[str] = frozenset()
    sensitive: bool = False

    def asks(self, asked: AskedFor, decision: Decision) -> str | None:
        """Return the rule by which a person is asked, or None."""
        if decision.basis != "grant" or decision.grant is None:
            return None
        if asked.purpose in self.purposes:
            return f"approval-for-{asked.purpose}"
        return "approval-for-sensitive" if self.sensitive and decision.grant.sensitive else None


def decide(
    asked: AskedFor,
    *,
    member: Mapping[str, Any] | None,
    holds_records: bool,
    grants: Sequence[GrantFacts],
    now: int,
    emergency: EmergencyRules | None = None,
) -> Decision:
    """Decide a request. ``member`` is the ledger's record of the requester, ``now`` Unix seconds (the newest known)."""
    if member is None:
        return _deny("member-unknown")
    if member.get("status") != "active":
        return _deny("member-suspended")
    if asked.purpose not in PURPOSES:
        return _deny("purpose-unknown")
    if not holds_records:
        return _deny("no-patient")
    if asked.role and asked.role not in ROLES:
        return _deny("role-unknown")
    if asked.emergency is not None:
        return _decide_emergency(asked, emergency or EmergencyRules())
    return _decide_by_grant(asked, grants, now)


def _decide_emergency(asked: AskedFor, rules: EmergencyRules) -> Decision:
    if asked.emergency not in EMERGENCY_REASONS:
        return _deny("emergency-reason-unknown")
    if asked.purpose not in EMERGENCY_PURPOSES:
        return _deny("emergency-purpose")
    if not MIN_REASON_CHARACTERS <= len(asked.reason.strip()) <= MAX_REASON_CHARACTERS:
        return _deny("emergency-text")
    if asked.role not in rules.roles:
        return _deny("emergency-role")
    scope = Scope(asked.categories, frozenset(), emergency=True)
    return Decision(True, "emergency", "emergency", scope=scope, copies_days=rules.copies_days)


def _decide_by_grant(asked: AskedFor, grants: Sequence[GrantFacts], now: int) -> Decision:
    """Permit by the first grant that covers everything; otherwise name what the nearest one lacked."""
    nearest, rank = "no-grant", -1
    considered: list[tuple[str, str]] = []
    for grant in sorted(grants, key=lambda each: each.sensitive):  # those for sensitive information last
        if asked.grant is not None and grant.id != asked.grant:
            continue
        lacking, passed = _lacking(asked, grant, now)
        considered.append((grant.id, lacking or "covers"))
        if lacking is None:
            scope = _scope(asked, grant)
            return Decision(True, "grant", "grant", grant, scope, tuple(considered), grant.copies_days)
        if passed > rank:
            nearest, rank = lacking, passed
    return Decision(False, nearest, considered=tuple(considered))


def _scope(asked: AskedFor, grant: GrantFacts) -> Scope:
    """Return what a covering grant lets this requester have of what it asked for."""
    categories = grant.categories
    if asked.categories is not None:
        categories = asked.categories if categories is None else _common(asked.categories, categories)
    excluded = tuple(each for each in grant.exclusions if not each.grantees or asked.requester in each.grantees)
    return Scope(categories, grant.labels, grant.period, exclusions=excluded, sensitive=grant.sensitive)


def _lacking(asked: AskedFor, grant: GrantFacts, now: int) -> tuple[str | None, int]:
    """Return the first condition that a grant fails (None when it holds) and how many it passed before.

    What this node knows comes first, then what the ledger says.
    """
    ledger = grant.ledger or {}
    conditions = (
        ("wrong-grantee", asked.requester in grant.grantees),
        ("wrong-purpose", asked.purpose in grant.purposes),
        ("wrong-role", not grant.roles or asked.role in grant.roles),
        ("grant-revoked", grant.active),
        ("grant-not-on-ledger", grant.ledger is not None),
        ("wrong-grantee", asked.requester in ledger.get("grantees", ())),
        ("wrong-purpose", asked.purpose in ledger.get("purposes", ())),
        ("grant-revoked", ledger.get("status") == "active"),
        ("grant-not-yet-valid", max(grant.valid_from, ledger.get("from", now + 1)) <= now),
        ("grant-expired", now < min(grant.valid_until, ledger.get("until", 0))),
        (
            "wrong-category",
            asked.categories is None or grant.categories is None or bool(_common(asked.categories, grant.categories)),
        ),
    )
    for passed, (name, holds) in enumerate(conditions):
        if not holds:
            return name, passed
    return None, len(conditions)


def _common(asked: frozenset[str], allowed: frozenset[str]) -> frozenset[str]:
    """Return what both name; a resource type asked for is within its category, and the other way round."""
    within = {name for name in asked if CATEGORY_OF_TYPE.get(name) in allowed}
    return frozenset(asked & allowed | within | {name for name in allowed if CATEGORY_OF_TYPE.get(name) in asked})


def _deny(rule: str) -> Decision:
    return Decision(False, rule)


def categories_of(resource: Mapping[str, Any]) -> frozenset[str]:
    """Return the categories a resource belongs to; empty for a type that is never released."""
    own = CATEGORY_OF_TYPE.get(resource.get("resourceType", ""))
    if own is None:
        return frozenset()
    coded = {_CATEGORY_CODES[code] for code in _codes(resource.get("category", ())) if code in _CATEGORY_CODES}
    return frozenset({own} | coded)


def covers(scope: Scope, resource: Mapping[str, Any]) -> bool:
    """Whether a resource of the patient may be released under a scope. The Patient itself goes with every release."""
    categories = categories_of(resource)
    if not categories or not _labels_allow(scope, resource):
        return False
    if resource["resourceType"] == "Patient":
        return True
    if scope.sensitive and not scope.labels & _labels(resource):
        return False
    allowed = scope.categories
    if allowed is not None and resource["resourceType"] not in allowed and not categories & allowed:
        return False
    if any(_excluded(each, resource, categories) for each in scope.exclusions):
        return False
    return _within(scope.period, resource)


def _excluded(exclusion: Exclusion, resource: Mapping[str, Any], categories: frozenset[str]) -> bool:
    """Whether an exception leaves a resource out; one without a date is left out by any period."""
    named = exclusion.categories
    if named is not None and resource["resourceType"] not in named and not categories & set(named):
        return False
    if exclusion.labels and not set(exclusion.labels) & _labels(resource):
        return False
    if exclusion.period == (None, None):
        return True
    begin, _ = _clinical_days(resource)
    return begin is None or _within(exclusion.period, resource)


def _labels(resource: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(str(each.get("code", "")) for each in (resource.get("meta") or {}).get("security", ()))


def _labels_allow(scope: Scope, resource: Mapping[str, Any]) -> bool:
    for label in (resource.get("meta") or {}).get("security", ()):
        system, code = label.get("system"), label.get("code", "")
        if code in scope.labels:
            continue
        if system == CONFIDENTIALITY:
            if _LEVELS.get(code, _LEVELS["V"]) > (_RESTRICTED if scope.emergency else _NORMAL):
                return False
        elif system == SENSITIVITY and not scope.emergency:
            return False
    return True


def _within(period: tuple[str | None, str | None], resource: Mapping[str, Any]) -> bool:
    """Whether the clinical date lies in the period, by whole days; a resource without a date is outside any limit."""
    first, last = period
    if first is None and last is None:
        return True
    begin, end = _clinical_days(resource)
    if begin is None or end is None:
        return False
    return (first is None or end >= first[: len(end)]) and (last is None or begin <= last[: len(begin)])


def _clinical_days(resource: Mapping[str, Any]) -> tuple[str | None, str | None]:
    for name in _DATE_ELEMENTS:
        value = resource.get(name)
        if isinstance(value, str):
            return value[:10], value[:10]
        if isinstance(value, Mapping) and (value.get("start") or value.get("end")):
            begin, end = value.get("start") or value["end"], value.get("end") or "9999-12-31"
            return str(begin)[:10], str(end)[:10]
    return None, None


def _codes(concepts: Any) -> Iterable[str]:
    for concept in concepts if isinstance(concepts, list) else [concepts]:
        for coding in concept.get("coding", ()) if isinstance(concept, Mapping) else ():
            yield coding.get("code", "")
