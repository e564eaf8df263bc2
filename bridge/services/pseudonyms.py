"""Pseudonyms of patients: computed by the card authority alone, because every Chinese ID number can be enumerated.

``pid = "<version>." + hex(HMAC-SM3(K[scope, version], "yiqiao/pid/v1" 00 scope 00 identifier))`` where the identifier
is the canonical JSON of its system and normalised value (full-width to ASCII, spaces removed, upper case; a resident
number of 15 digits becomes one of 18, and one with a wrong check digit has no pseudonym). Names are left out: they
change and are written in several ways.

The keys stay with the authority's other keys (``pseudonym-<scope>-<version>.key``, made on demand). A keyed
function does not stop a member from asking for many numbers; the daily quota and the audit trail do.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Table, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from anchor import canonical, gm
from bridge.errors import Conflict, InvalidRequest, PeerRejected, QuotaExceeded, SettingsError
from bridge.keys.store import KeyStore, in_turn
from bridge.services.audit_event import SUCCESS, Party
from bridge.storage.database import read_transaction, transact
from bridge.storage.exchange import Localisation, PseudonymUse
from fhir_adapters.identifiers import IDENTIFIER_KINDS, check_resident_id, full_width_to_ascii

if TYPE_CHECKING:
    from bridge.services.audit import AuditService
    from bridge.services.peers import Peers

KEY_BYTES = 32
MAX_BATCH = 200  # identifiers of one request: some 30 kB
DAILY_QUOTA = (
    100_000  # pseudonyms a member may ask for in a day: a large hospital's patients, and not a county's numbers
)
MAX_VALUE_CHARACTERS = 64
SECONDS_A_DAY = 86_400
PATH = "/exchange/v1/pseudonyms"
RETIRED = "retired"  # the mark of a key file that is no longer served

ID_CARD_SYSTEM = IDENTIFIER_KINDS["id-card"].system
HEALTH_CARD_SYSTEM = IDENTIFIER_KINDS["health-card"].system
SYSTEMS = (ID_CARD_SYSTEM, HEALTH_CARD_SYSTEM, IDENTIFIER_KINDS["ehc-id"].system)
"""Identifiers that mean one person across institutions; a record number of one hospital has no pseudonym."""

_SCOPE = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}")
_VALUE = re.compile(r"[0-9A-Z-]{4,64}")
_USE: Table = PseudonymUse.__table__  # type: ignore[attr-defined]
_INDEX: Table = Localisation.__table__  # type: ignore[attr-defined]

Identifier = tuple[str, str]


def normalised(system: str, value: str) -> Identifier:
    """Return an identifier as pseudonyms are computed from it; raises ``InvalidRequest``, never naming it."""
    if system not in SYSTEMS:
        raise InvalidRequest("identifiers of this system are not used between institutions")
    if not isinstance(value, str) or len(value) > MAX_VALUE_CHARACTERS:
        raise InvalidRequest("the identifier is not of its form")
    if system == ID_CARD_SYSTEM:
        checked = check_resident_id(value)
        if not checked.valid:
            raise InvalidRequest(f"the resident number is not valid: {checked.problem}")
        return system, checked.value
    text = "".join(full_width_to_ascii(value).split()).upper()
    if not _VALUE.fullmatch(text):
        raise InvalidRequest("the identifier is not of its form")
    return system, text


def pseudonym(key: bytes, scope: str, version: int, identifier: Identifier) -> str:
    """Return the pseudonym of a normalised identifier under one key."""
    system, value = identifier
    subject = canonical.dump({"system": system, "value": value})
    digest = gm.hmac_sm3(key, b"\x00".join((b"yiqiao/pid/v1", scope.encode(), subject)))
    return f"{version}.{digest.hex()}"


class PseudonymService:
    """The authority's side: holds the keys, counts and records what each member asks."""

    def __init__(
        self,
        engine: Engine,
        keys: KeyStore,
        audit: AuditService,
        clock: Callable[[], float] = time.time,
        daily_quota: int = DAILY_QUOTA,
    ) -> None:
        self._engine, self._keys, self._audit, self._clock, self._quota = engine, keys, audit, clock, daily_quota

    def compute(self, org: str, scope: str, identifiers: Sequence[Identifier]) -> list[str]:
        """Return the current pseudonyms of identifiers for a member.

        Raises ``InvalidRequest`` for an identifier that has none and ``QuotaExceeded`` when the member's quota of the
        day is used up; both are recorded, without the identifiers.
        """
        return [pids[0] for pids in self.compute_served(org, scope, identifiers)]

    def compute_served(self, org: str, scope: str, identifiers: Sequence[Identifier]) -> list[list[str]]:
        """Return each identifier's pseudonyms under every version of the key that is served, newest first.

        While holders register anew after a rotation, a lookup has to know both. Raises as ``compute`` does.
        """
        computed = self.served(scope, identifiers)
        if not transact(self._engine, lambda connection: self.charge(connection, org, scope, len(computed))):
            raise over_quota()
        return computed

    def served(self, scope: str, identifiers: Sequence[Identifier]) -> list[list[str]]:
        """Return what ``compute_served`` does, for a caller that charges for it before anybody gets it."""
        if not _SCOPE.fullmatch(scope):
            raise InvalidRequest("scope is not of its form")
        if not 0 < len(identifiers) <= MAX_BATCH:
            raise InvalidRequest(f"a request is for 1 to {MAX_BATCH} identifiers")
        wanted = [normalised(system, value) for system, value in identifiers]
        keys = [(version, self._key(scope, version)) for version in self.versions(scope)]
        return [[pseudonym(key, scope, version, identifier) for version, key in keys] for identifier in wanted]

    def charge(self, connection: Connection, org: str, scope: str, count: int, further: Sequence[bytes] = ()) -> bool:
        """Charge a member for so many identifiers, recorded; False, also recorded, when that is beyond its quota.

        ``further``: operations that are recorded as well when it is not.
        """
        within = self._within(connection, org, count)
        notes = [f"pseudonyms scope={scope} count={count}".encode(), *(further if within else ())]
        self._audit.record_operations(notes, client=Party(org), conn=connection, outcome=SUCCESS if within else "4")
        return within

    def versions(self, scope: str) -> list[int]:
        """Return the versions of a scope's key that are served, newest first; version 1 when there is none yet."""
        pattern = re.compile(rf"pseudonym-{re.escape(scope)}-([0-9]{{1,6}})\.key")
        found = [pattern.fullmatch(name) for name in self._keys.names(f"pseudonym-{scope}-*.key")]
        return sorted((int(match[1]) for match in found if match), reverse=True) or [1]

    def rotate(self, scope: str) -> int:
        """Make the next key of a scope and return its version.

        The earlier versions stay served until they are retired: holders register their patients anew meanwhile.
        """
        if not _SCOPE.fullmatch(scope):
            raise InvalidRequest("scope is not of its form")
        newest = self.versions(scope)[0]
        self._key(scope, newest)
        self._key(scope, newest + 1)
        return newest + 1

    def registered(self, version: int) -> int:
        """Return how many registrations of the localisation index stand under a version of the key."""
        under = select(func.count()).select_from(_INDEX).where(_INDEX.c.pid.startswith(f"{version}.", autoescape=True))
        with read_transaction(self._engine) as connection:
            return int(connection.execute(under).scalar_one())

    def retire(self, scope: str, version: int) -> None:
        """Stop serving a version; the newest one, and one that holders still use, are refused with ``Conflict``."""
        versions = self.versions(scope)
        if version == versions[0] or version not in versions:
            raise Conflict("only an earlier version that is still served can be retired / 只能停用仍在使用的旧版本")
        if waiting := self.registered(version):
            raise Conflict(
                f"{waiting} registrations stand under version {version}; their holders register them anew first "
                f"(yiqiao pseudonyms reregister) / 仍有 {waiting} 条登记使用该版本"
            )
        self._keys.retire(f"pseudonym-{scope}-{version}.key", RETIRED)

    def _key(self, scope: str, version: int) -> bytes:
        """Return a key, made now when it is not there; two processes that make it at once get the same."""
        name = f"pseudonym-{scope}-{version}.key"
        key = in_turn(self._keys, name, lambda: secrets.token_bytes(KEY_BYTES))
        if len(key) != KEY_BYTES:
            raise SettingsError(f"{self._keys.directory / name} is not a pseudonym key / 密钥文件格式错误")
        return key

    def _within(self, connection: Connection, org: str, count: int) -> bool:
        """Add to what a member has used today; False, and nothing added, when the quota does not hold it."""
        day = int(self._clock()) // SECONDS_A_DAY
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        connection.execute(insert(_USE).values(org=org, day=day, count=0).on_conflict_do_nothing())
        fits = (_USE.c.org == org) & (_USE.c.day == day) & (_USE.c.count + count <= self._quota)
        return connection.execute(update(_USE).where(fits).values(count=_USE.c.count + count)).rowcount == 1


def over_quota() -> QuotaExceeded:
    """Return the refusal of a member that has used up its pseudonyms of the day."""
    return QuotaExceeded("this member's quota of pseudonyms for today is used up / 今日假名配额已用完")


class PseudonymClient:
    """A member's side: asks the authority, or the service beside it when this node is the authority."""

    def __init__(self, peers: Peers, org: str, authority: str, scope: str, own: PseudonymService | None) -> None:
        self._peers, self._org, self._authority, self._scope, self._own = peers, org, authority, scope, own

    def pids(self, identifiers: Sequence[Identifier]) -> list[str]:
        """Return the current pseudonyms of identifiers; raises ``InvalidRequest`` or ``PeerError``."""
        wanted = [normalised(system, value) for system, value in identifiers]
        found: list[str] = []
        for start in range(0, len(wanted), MAX_BATCH):
            batch = wanted[start : start + MAX_BATCH]
            found += self._own.compute(self._org, self._scope, batch) if self._own else self._ask(batch)
        return found

    def served(self, identifier: Identifier) -> list[str]:
        """Return the pseudonyms of one identifier under every served version of the key, newest first.

        For the authority itself; another member asks who holds records at once (``LocalisationClient.holders``).
        """
        if self._own is None:
            raise SettingsError("this node is not the card authority / 本节点不是主管机构")
        return self._own.compute_served(self._org, self._scope, [normalised(*identifier)])[0]

    def question(self, identifiers: Sequence[Identifier]) -> dict[str, Any]:
        """Return what the authority is asked about identifiers; raises ``InvalidRequest`` for one that has none."""
        if not self._authority:
            raise SettingsError("exchange.authority is not set: this node has no pseudonym service / 未配置主管机构")
        wanted = [normalised(system, value) for system, value in identifiers]
        return {
            "scope": self._scope,
            "identifiers": [{"system": system, "value": value} for system, value in wanted],
        }

    def _ask(self, batch: Sequence[Identifier]) -> list[str]:
        """Ask the authority for one pseudonym of each identifier."""
        answer = canonical.load(self._peers.post(self._authority, PATH, canonical.dump(self.question(batch))))
        pids = answer.get("pids") if isinstance(answer, dict) else None
        if not isinstance(pids, list) or len(pids) != len(batch) or not all(isinstance(pid, str) for pid in pids):
            raise PeerRejected("bad-answer", "the authority's answer cannot be understood")
        return pids
