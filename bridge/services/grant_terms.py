"""What a patient grants, as values: the limits, the exceptions, who confirmed it, and the rules any grant must keep.

Rules of this module (``GrantTerms.check``):

* purposes, categories and labels are of the known ones, and the grant is in force at some time;
* sensitive information (v3 sensitivity codes such as HIV or PSY) needs a consent of its own (PIPL article 29): a grant
  that names such a label names nothing else, and then covers only records that carry it;
* for a child below the age of consent (PIPL article 31: fourteen) a guardian consents, and no longer than until that
  age.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Literal

from bridge.errors import InvalidRequest
from bridge.services.decision import CATEGORIES, CATEGORY_OF_TYPE, PURPOSES, ROLES, Exclusion
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from fhir_adapters.identifiers.gb11643 import check_resident_id

CHINA_TIME = timezone(timedelta(hours=8))
CONFIDENTIALITY_LABELS = frozenset("ULMNRV")
SENSITIVE_LABELS = frozenset({"ETH", "GDIS", "HIV", "PSY", "SCA", "SDV", "SEX", "SPI", "STD", "SUD"})
"""v3-ActCode, InformationSensitivityPolicy: substance use, genetic disease, HIV, psychiatry, sickle
cell, violence, …
"""
MAX_EXCLUSIONS = 32
MAX_COPIES_DAYS = 3660

Period = tuple[str | None, str | None]
Method = Literal["code", "signature", "paper"]


@dataclass(frozen=True, slots=True)
class Confirmation:
    """How somebody confirmed: ``by`` is a local reference, ``reference`` names the evidence, ``when`` Unix seconds."""

    method: Method
    reference: str
    by: str
    when: int


@dataclass(frozen=True, slots=True)
class GrantTerms:
    """What a patient grants. Times are Unix seconds; ``categories`` None is everything; ``period`` holds ISO dates.

    ``roles``: practitioner roles that may ask, empty for any. ``copies_days``: how long a recipient may keep copies,
    None for no limit. ``guardian``: a "RelatedPerson/…" of this node who consents for the patient.
    """

    grantees: tuple[str, ...]
    purposes: tuple[str, ...]
    valid_until: int
    valid_from: int
    categories: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    period: Period = (None, None)
    exclusions: tuple[Exclusion, ...] = field(default=())
    roles: tuple[str, ...] = ()
    copies_days: int | None = None
    guardian: str | None = None
    confirmation: Confirmation | None = None

    @property
    def sensitive(self) -> bool:
        """Whether this is a consent for sensitive information, and for nothing else."""
        return bool(SENSITIVE_LABELS & set(self.labels))

    def check(self) -> None:
        """Raise ``InvalidRequest`` for what no grant may say."""
        if not self.grantees:
            raise InvalidRequest("a grant names at least one institution / 未指定被授权机构")
        if not self.purposes or set(self.purposes) - PURPOSES:
            raise InvalidRequest(f"purposes are of: {', '.join(sorted(PURPOSES))} / 用途代码无效")
        _check_categories(self.categories)
        _check_labels(self.labels)
        if self.sensitive and not set(self.labels) <= SENSITIVE_LABELS:
            raise InvalidRequest(
                "sensitive information needs a consent of its own: name its labels and no others / 敏感信息须单独同意"
            )
        if set(self.roles) - ROLES:
            raise InvalidRequest(f"roles are of: {', '.join(sorted(ROLES))} / 角色代码无效")
        if self.valid_until <= self.valid_from:
            raise InvalidRequest("the grant would end before it begins / 授权截止时间早于开始时间")
        if self.copies_days is not None and not 0 < self.copies_days <= MAX_COPIES_DAYS:
            raise InvalidRequest(f"copies are kept for 1 to {MAX_COPIES_DAYS} days / 副本保存天数无效")
        _check_period(self.period)
        if len(self.exclusions) > MAX_EXCLUSIONS:
            raise InvalidRequest(f"a grant has at most {MAX_EXCLUSIONS} exceptions / 例外过多")
        for exclusion in self.exclusions:
            _check_exclusion(exclusion, self.grantees)

    def check_guardian(self, birth: str | None, *, age_of_consent: int, now: int) -> None:
        """Raise ``InvalidRequest`` when a child's consent is not its guardian's, or outlasts the guardian's say.

        ``birth`` is the patient's birth date as far as it is known; an unknown one is taken as an adult's.
        """
        grown = _grown(birth, age_of_consent)
        if grown is None or grown <= now:
            return
        if self.guardian is None:
            raise InvalidRequest(
                f"the patient is below {age_of_consent}: a guardian consents / 未满{age_of_consent}周岁须监护人同意"
            )
        if self.valid_until > grown:
            raise InvalidRequest(
                f"a guardian's consent ends when the patient is {age_of_consent} / 监护人授权至{age_of_consent}周岁止"
            )

    def widens(self, before: GrantTerms) -> bool:
        """Whether this allows anything that ``before`` did not."""
        narrower = (
            set(self.grantees) <= set(before.grantees)
            and set(self.purposes) <= set(before.purposes)
            and self.valid_until <= before.valid_until
            and self.valid_from >= before.valid_from
            and _within(self.categories, before.categories)
            and set(self.labels) <= set(before.labels)
            and set(before.exclusions) <= set(self.exclusions)
            and _period_within(self.period, before.period)
            and _roles_within(self.roles, before.roles)
            and (before.copies_days is None or (self.copies_days or MAX_COPIES_DAYS + 1) <= before.copies_days)
        )
        return not narrower

    def value(self) -> dict[str, Any]:
        """Return the terms as JSON values: what the ledger's commitment opens to, beside patient and salt."""
        return {
            "grantees": sorted(self.grantees),
            "purposes": sorted(self.purposes),
            "from": self.valid_from,
            "until": self.valid_until,
            "categories": None if self.categories is None else sorted(self.categories),
            "labels": sorted(self.labels),
            "period": list(self.period),
            "exclusions": [_exclusion_value(each) for each in self.exclusions],
            "roles": sorted(self.roles),
            "copies_days": self.copies_days,
            "guardian": self.guardian,
            "confirmation": None if self.confirmation is None else _confirmation_value(self.confirmation),
        }

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> GrantTerms:
        """Read what ``value`` gave."""
        confirmation = value["confirmation"]
        return cls(
            grantees=tuple(value["grantees"]),
            purposes=tuple(value["purposes"]),
            valid_from=value["from"],
            valid_until=value["until"],
            categories=None if value["categories"] is None else tuple(value["categories"]),
            labels=tuple(value["labels"]),
            period=(value["period"][0], value["period"][1]),
            exclusions=tuple(_read_exclusion(each) for each in value["exclusions"]),
            roles=tuple(value["roles"]),
            copies_days=value["copies_days"],
            guardian=value["guardian"],
            confirmation=None if confirmation is None else Confirmation(**confirmation),
        )

    def confirmed(self, confirmation: Confirmation) -> GrantTerms:
        """Return the same terms with the confirmation in them."""
        return replace(self, confirmation=confirmation)


def birth_date(patient: Mapping[str, Any]) -> str | None:
    """Return a Patient's birth date as far as it is known: the record's, or else the identity card number's."""
    if patient.get("birthDate"):
        return str(patient["birthDate"])
    for identifier in patient.get("identifier", ()):
        if identifier.get("system") == ID_CARD_SYSTEM:
            read = check_resident_id(str(identifier.get("value", "")))
            if read.valid:
                return read.birth_date
    return None


def end_of_day(day: date) -> int:
    """Return the Unix second at which a day ends, in China."""
    following = day + timedelta(days=1)
    return int(datetime(following.year, following.month, following.day, tzinfo=CHINA_TIME).timestamp())


def instant(seconds: int) -> str:
    """Return a FHIR instant."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_categories(categories: tuple[str, ...] | None) -> None:
    if categories is not None and (not categories or not set(categories) <= CATEGORIES | set(CATEGORY_OF_TYPE)):
        raise InvalidRequest(f"categories are of: {', '.join(sorted(CATEGORIES))}, or resource types / 类别无效")


def _check_labels(labels: tuple[str, ...]) -> None:
    if not set(labels) <= CONFIDENTIALITY_LABELS | SENSITIVE_LABELS:
        known = ", ".join(sorted(CONFIDENTIALITY_LABELS | SENSITIVE_LABELS))
        raise InvalidRequest(f"labels are of: {known} / 安全标签无效")


def _check_period(period: Period) -> None:
    for day in period:
        try:
            if day is not None and date.fromisoformat(day).isoformat() != day:
                raise ValueError
        except (ValueError, TypeError) as error:
            raise InvalidRequest("a period is of days as 2026-12-31 / 日期格式错误") from error


def _check_exclusion(exclusion: Exclusion, grantees: tuple[str, ...]) -> None:
    _check_categories(exclusion.categories)
    _check_labels(exclusion.labels)
    _check_period(exclusion.period)
    if exclusion == Exclusion(grantees=exclusion.grantees):
        raise InvalidRequest("an exception names what it leaves out / 例外未指明内容")
    if not set(exclusion.grantees) <= set(grantees):
        raise InvalidRequest("an exception is for an institution that the grant names / 例外机构不在授权范围内")


def _grown(birth: str | None, years: int) -> int | None:
    """Return the Unix second at which somebody reaches an age; of a year or month alone, the latest day counts."""
    if birth is None:
        return None
    parts = [int(part) for part in birth.split("-")]
    year, month, day = (*parts, *(12, 31)[len(parts) - 1 :])[:3] if len(parts) < 3 else parts
    try:
        reached = date(year + years, month, day)
    except ValueError:  # 29 February, or the 31st of a shorter month
        reached = date(year + years, month, 28)
    return end_of_day(reached) - 86_400


def _within(mine: tuple[str, ...] | None, theirs: tuple[str, ...] | None) -> bool:
    return theirs is None or (mine is not None and set(mine) <= set(theirs))


def _roles_within(mine: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    return not theirs or (bool(mine) and set(mine) <= set(theirs))


def _period_within(mine: Period, theirs: Period) -> bool:
    later = theirs[0] is None or (mine[0] is not None and mine[0] >= theirs[0])
    return later and (theirs[1] is None or (mine[1] is not None and mine[1] <= theirs[1]))


def _exclusion_value(exclusion: Exclusion) -> dict[str, Any]:
    return {
        "categories": None if exclusion.categories is None else sorted(exclusion.categories),
        "labels": sorted(exclusion.labels),
        "period": list(exclusion.period),
        "grantees": sorted(exclusion.grantees),
    }


def _read_exclusion(value: Mapping[str, Any]) -> Exclusion:
    categories = value["categories"]
    return Exclusion(
        None if categories is None else tuple(categories),
        tuple(value["labels"]),
        (value["period"][0], value["period"][1]),
        tuple(value["grantees"]),
    )


def _confirmation_value(confirmation: Confirmation) -> dict[str, Any]:
    names = ("method", "reference", "by", "when")
    return {name: getattr(confirmation, name) for name in names}
