"""Grants as FHIR Consent (R4; IHE PCF basic and intermediate), written and read (pure).

Written in one shape: a denial of everything with one permitting provision inside it, and inside that one denying
provision for each exception. Read are both shapes that PCF knows: that one, and a permitting provision at the top with
denials inside.

What is read is enforced, and what cannot be enforced is refused by name: a Consent that this node would only half keep
must not look accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from bridge.errors import InvalidRequest
from bridge.services.audit_event import ACT_REASON, USCC_SYSTEM
from bridge.services.decision import CATEGORY_OF_TYPE, CONFIDENTIALITY, SENSITIVITY, Exclusion
from bridge.services.grant_terms import (
    CHINA_TIME,
    CONFIDENTIALITY_LABELS,
    Confirmation,
    GrantTerms,
    end_of_day,
    instant,
)

GRANT_IDENTIFIER = "urn:yiqiao:grant"
CATEGORY_SYSTEM = "urn:yiqiao:category"
CONFIRMATION_EXTENSION = "urn:yiqiao:consent-confirmation"
COPIES_EXTENSION = "urn:yiqiao:copies-days"
ROLE_EXTENSION = "urn:yiqiao:practitioner-role"
RESOURCE_TYPES = "http://hl7.org/fhir/resource-types"
PROFILE = "https://profiles.ihe.net/ITI/PCF/StructureDefinition/IHE.PCF.consent"
DEFAULT_DAYS = 365
_ACTIONS = frozenset({"access", "disclose"})
_ROOT = frozenset({"type", "period", "actor", "action", "purpose", "class", "code", "securityLabel", "dataPeriod",
                   "provision", "extension", "id"})  # fmt: skip
_CONSENT = frozenset({"resourceType", "id", "meta", "identifier", "status", "scope", "category", "patient", "dateTime",
                      "performer", "organization", "policy", "policyRule", "verification", "provision", "text",
                      "language", "extension", "sourceAttachment", "sourceReference"})  # fmt: skip


def consent_resource(
    *, id: str, grant: str, patient: str, org: str, terms: GrantTerms, status: str, now: int
) -> dict[str, Any]:
    """Return the Consent of a grant. ``patient`` is "Patient/…", ``status`` a consent-state code."""
    performer = terms.guardian or patient
    intermediate = bool(terms.categories or terms.labels or terms.exclusions or any(terms.period))
    consent: dict[str, Any] = {
        "resourceType": "Consent",
        "id": id,
        "meta": {"profile": [PROFILE + ("Intermediate" if intermediate else "Basic")]},
        "identifier": [{"system": GRANT_IDENTIFIER, "value": grant}],
        "status": status,
        "scope": _concept("http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy"),
        "category": [_concept("http://loinc.org", "59284-0")],
        "patient": {"reference": patient},
        "dateTime": instant(now),
        "performer": [{"reference": performer}],
        "organization": [{"type": "Organization", "identifier": {"system": USCC_SYSTEM, "value": org}}],
        "policyRule": _concept("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTOUT"),
        "provision": {"type": "deny", "provision": [_permit(terms)]},
    }
    extensions = []
    if terms.copies_days is not None:
        extensions.append({"url": COPIES_EXTENSION, "valuePositiveInt": terms.copies_days})
    extensions += [{"url": ROLE_EXTENSION, "valueCode": role} for role in sorted(terms.roles)]
    if terms.confirmation is not None:
        extensions.append(_confirmation_extension(terms.confirmation))
        by, when = {"reference": terms.confirmation.by}, instant(terms.confirmation.when)
        consent["verification"] = [{"verified": True, "verifiedWith": by, "verificationDate": when}]
    if extensions:
        consent["extension"] = extensions
    return consent


def read_consent(value: Mapping[str, Any], now: int) -> tuple[str, GrantTerms]:
    """Return the patient's id and the terms of a Consent; raises ``InvalidRequest`` naming what cannot be kept.

    Verification and confirmation in it are the sender's claims and are not taken over: this node confirms itself.
    """
    _only(value, _CONSENT, "Consent")
    scopes = _codes(value.get("scope"), "http://terminology.hl7.org/CodeSystem/consentscope")
    if scopes != ["patient-privacy"]:
        raise InvalidRequest("Consent.scope must be patient-privacy / 仅支持隐私授权")
    patient = _reference(value.get("patient"), "Patient", "Consent.patient")
    performers = value.get("performer") or []
    guardian = None
    if performers:
        performer = str((performers[0] or {}).get("reference", ""))
        if performer.startswith("RelatedPerson/"):
            guardian = performer
        elif performer != f"Patient/{patient}":
            raise InvalidRequest("Consent.performer is the patient or a RelatedPerson / 同意人须为患者或监护人")
    permit, denials = _provisions(value.get("provision"))
    return patient, replace(_terms(permit, denials, value, now), guardian=guardian)


def _provisions(root: Any) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """Return the one permitting provision and the denying ones inside or beside it."""
    root = _provision(root, "Consent.provision")
    inner = [_provision(each, "Consent.provision.provision") for each in root.get("provision", ())]
    if root.get("type") == "permit":
        permit, denials = root, inner
    else:
        limits = set(root) - {"type", "provision", "period", "id"}
        if limits:
            raise InvalidRequest(f"a denial of everything has no limits of its own: {', '.join(sorted(limits))}")
        permits = [each for each in inner if each.get("type") == "permit"]
        if len(permits) != 1:
            raise InvalidRequest(
                "a Consent permits exactly one thing; make one Consent for each / 每份授权只含一条许可"
            )
        permit = permits[0]
        denials = [each for each in inner if each is not permit]
        denials += [_provision(each, "provision.provision.provision") for each in permit.get("provision", ())]
    if any(each.get("type") != "deny" or each.get("provision") for each in denials):
        raise InvalidRequest("exceptions deny, and have none of their own / 例外须为拒绝且不可嵌套")
    return permit, denials


def _terms(
    permit: Mapping[str, Any], denials: list[Mapping[str, Any]], consent: Mapping[str, Any], now: int
) -> GrantTerms:
    period = permit.get("period") or (consent.get("provision") or {}).get("period") or {}
    begin = _moment(period["start"], last=False) if period.get("start") else now
    until = _moment(period["end"], last=True) if period.get("end") else begin + DEFAULT_DAYS * 86_400
    extensions = consent.get("extension") or []
    known = (COPIES_EXTENSION, ROLE_EXTENSION, CONFIRMATION_EXTENSION)
    if any(each.get("url") not in known for each in extensions):
        raise InvalidRequest("Consent.extension holds something that this node cannot keep / 含有无法执行的扩展")
    purposes = [str(each.get("code")) for each in permit.get("purpose", ())]
    if any(each.get("system") not in (None, ACT_REASON) for each in permit.get("purpose", ())):
        raise InvalidRequest(f"provision.purpose is of {ACT_REASON} / 用途编码体系不支持")
    return GrantTerms(
        grantees=_actors(permit, "Consent.provision.actor"),
        purposes=tuple(dict.fromkeys(purposes)),
        valid_from=begin,
        valid_until=until,
        categories=_categories(permit),
        labels=_labels(permit),
        period=_days(permit.get("dataPeriod")),
        exclusions=tuple(
            Exclusion(_categories(each), _labels(each), _days(each.get("dataPeriod")), _actors(each, "", optional=True))
            for each in denials
        ),
        roles=tuple(str(each.get("valueCode")) for each in extensions if each.get("url") == ROLE_EXTENSION),
        copies_days=next(
            (each.get("valuePositiveInt") for each in extensions if each["url"] == COPIES_EXTENSION), None
        ),
    )


def _provision(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or value.get("type") not in ("permit", "deny"):
        raise InvalidRequest(f"{place} says permit or deny / 缺少授权规则")
    _only(value, _ROOT, place)
    if value.get("extension"):
        raise InvalidRequest(f"{place}.extension cannot be kept here / 含有无法执行的扩展")
    actions = _codes_of(value.get("action", ()), None)
    if not set(actions) <= _ACTIONS:
        raise InvalidRequest(f"{place}.action other than access and disclose cannot be kept here / 不支持的操作类型")
    return value


def _actors(provision: Mapping[str, Any], place: str, *, optional: bool = False) -> tuple[str, ...]:
    found = []
    for actor in provision.get("actor", ()):
        identifier = ((actor or {}).get("reference") or {}).get("identifier") or {}
        if identifier.get("system") != USCC_SYSTEM or not identifier.get("value"):
            raise InvalidRequest(f"{place or 'an actor'} names institutions by their credit code ({USCC_SYSTEM})")
        found.append(str(identifier["value"]))
    if not found and not optional:
        raise InvalidRequest(f"{place} names at least one institution / 未指定被授权机构")
    return tuple(dict.fromkeys(found))


def _categories(provision: Mapping[str, Any]) -> tuple[str, ...] | None:
    types = [str(each.get("code")) for each in provision.get("class", ())]
    codes = [
        str(coding.get("code"))
        for concept in provision.get("code", ())
        for coding in concept.get("coding", ())
        if _known_system(coding, CATEGORY_SYSTEM, "provision.code")
    ]
    named = tuple(dict.fromkeys([*types, *codes]))
    return named or None


def _labels(provision: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    for coding in provision.get("securityLabel", ()):
        if coding.get("system") not in (None, CONFIDENTIALITY, SENSITIVITY):
            raise InvalidRequest("provision.securityLabel is of v3-Confidentiality or v3-ActCode / 安全标签体系不支持")
        found.append(str(coding.get("code")))
    return tuple(dict.fromkeys(found))


def _known_system(coding: Mapping[str, Any], system: str, place: str) -> bool:
    if coding.get("system") != system:
        raise InvalidRequest(f"{place} is of {system} / 编码体系不支持")
    return True


def _days(period: Any) -> tuple[str | None, str | None]:
    if not period:
        return None, None
    first, last = (str(period[name])[:10] if period.get(name) else None for name in ("start", "end"))
    return first, last


def _moment(text: Any, *, last: bool) -> int:
    """Read a FHIR date or dateTime; of a date, the whole day counts, in China."""
    try:
        if len(str(text)) == 10:
            day = date.fromisoformat(str(text))
            return end_of_day(day) if last else end_of_day(day) - 86_400
        moment = datetime.fromisoformat(str(text))
        return int((moment if moment.tzinfo else moment.replace(tzinfo=CHINA_TIME)).timestamp())
    except (ValueError, OverflowError) as error:
        raise InvalidRequest("provision.period is of dates or times with day / 授权期限格式错误") from error


def _permit(terms: GrantTerms) -> dict[str, Any]:
    provision: dict[str, Any] = {
        "type": "permit",
        "period": {"start": instant(terms.valid_from), "end": instant(terms.valid_until)},
        "actor": _actor_elements(terms.grantees),
        "action": [_concept("http://terminology.hl7.org/CodeSystem/consentaction", "access")],
        "purpose": [{"system": ACT_REASON, "code": purpose} for purpose in sorted(terms.purposes)],
        **_limits(terms.categories, terms.labels, terms.period),
    }
    if terms.exclusions:
        provision["provision"] = [
            {
                "type": "deny",
                **({"actor": _actor_elements(each.grantees)} if each.grantees else {}),
                **_limits(each.categories, each.labels, each.period),
            }
            for each in terms.exclusions
        ]
    return provision


def _limits(
    categories: tuple[str, ...] | None, labels: tuple[str, ...], period: tuple[str | None, str | None]
) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if categories is not None:
        types = sorted(set(categories) & set(CATEGORY_OF_TYPE))
        coded = sorted(set(categories) - set(CATEGORY_OF_TYPE))
        if types:
            limits["class"] = [{"system": RESOURCE_TYPES, "code": type} for type in types]
        if coded:
            limits["code"] = [_concept(CATEGORY_SYSTEM, category) for category in coded]
    if labels:
        limits["securityLabel"] = [
            {"system": CONFIDENTIALITY if label in CONFIDENTIALITY_LABELS else SENSITIVITY, "code": label}
            for label in sorted(labels)
        ]
    days = {name: value for name, value in zip(("start", "end"), period, strict=True) if value}
    if days:
        limits["dataPeriod"] = days
    return limits


def _actor_elements(grantees: tuple[str, ...]) -> list[dict[str, Any]]:
    role = _concept("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "IRCP")
    return [
        {"role": role, "reference": {"type": "Organization", "identifier": {"system": USCC_SYSTEM, "value": grantee}}}
        for grantee in sorted(grantees)
    ]


def _confirmation_extension(confirmation: Confirmation) -> dict[str, Any]:
    return {
        "url": CONFIRMATION_EXTENSION,
        "extension": [
            {"url": "method", "valueCode": confirmation.method},
            {"url": "reference", "valueString": confirmation.reference},
        ],
    }


def _reference(value: Any, type: str, place: str) -> str:
    reference = str((value or {}).get("reference", "")) if isinstance(value, Mapping) else ""
    kind, _, id = reference.partition("/")
    if kind != type or not id:
        raise InvalidRequest(f"{place} is a reference {type}/id / 引用格式错误")
    return id


def _only(value: Mapping[str, Any], known: frozenset[str], place: str) -> None:
    unknown = sorted(name for name in value if name.lstrip("_") not in known)
    if unknown:
        raise InvalidRequest(f"{place}.{unknown[0]} cannot be kept by this node / 含有无法执行的内容")


def _codes(concept: Any, system: str | None) -> list[str]:
    return _codes_of([concept] if concept else [], system)


def _codes_of(concepts: Any, system: str | None) -> list[str]:
    return [
        str(coding.get("code"))
        for concept in concepts
        for coding in concept.get("coding", ())
        if system is None or coding.get("system") == system
    ]


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}
