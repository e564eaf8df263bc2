"""What a lookup asks, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.errors import InvalidRequest
from bridge.services.decision import EMERGENCY_REASONS, PURPOSES
from bridge.services.receive import ReceivedItem

DEFAULT_ROLE = "physician"


@dataclass(frozen=True, slots=True)
class HolderOutcome:
    """What one holder's answer came to.

    ``status``: received, denied, rejected (it did not hold), waiting (a person there is asked), interrupted (some pages
    are here, the others are fetched later), unavailable. ``collect`` goes on with the last three.
    """

    holder: str
    name: str
    status: str
    request: str | None = None
    code: str | None = None
    message: str = ""
    records: tuple[ReceivedItem, ...] = ()
    disclosed: str | None = None
    release_tx: str | None = None
    receive_tx: str | None = None
    gap: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LookupResult:
    """What a lookup came to, per holder; no holder at all means that nobody has registered the patient."""

    holders: tuple[HolderOutcome, ...]

    @property
    def received(self) -> bool:
        """Whether anything was received and verified."""
        return any(outcome.status == "received" for outcome in self.holders)


@dataclass(frozen=True, slots=True)
class Asking:
    """Why a lookup is made, as the requester states it."""

    purpose: str
    grant: str | None = None
    emergency: str | None = None
    reason: str = ""
    practitioner: str | None = None
    role: str = DEFAULT_ROLE
    categories: frozenset[str] | None = None

    def check(self) -> None:
        """Raise ``InvalidRequest`` for what no holder would take."""
        if self.purpose not in PURPOSES:
            raise InvalidRequest(f"purposes are of: {', '.join(sorted(PURPOSES))} / 用途代码无效")
        if self.emergency is not None:
            if self.emergency not in EMERGENCY_REASONS:
                names = ", ".join(sorted(EMERGENCY_REASONS))
                raise InvalidRequest(f"emergency codes are of: {names} / 紧急原因代码无效")
            if not self.reason.strip():
                raise InvalidRequest("an emergency needs a reason in words / 紧急调阅须说明理由")
            if self.grant is not None:
                raise InvalidRequest("an emergency names no grant / 紧急调阅不使用授权")
