"""What a contract may see and do: read the state, know the block, and return the values to change.

A rule is a function of a transaction and a ``View``. It returns a ``Changes`` mapping, or raises
``TransactionRejected`` and has then changed nothing, because a rule has no other way to change anything. Values read
are shared: a rule builds new ones and never alters what it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

from anchor.errors import TransactionRejected
from anchor.gm import PublicKey
from anchor.transaction import Code, Transaction

Value = dict[str, Any]
"""One value of the state: a JSON object."""
Changes = Mapping[str, Value]
"""State key to its new value. Nothing is ever removed from the state."""

ROLES = ("authority", "hospital", "payer", "card-issuer", "device-gateway", "observer")
WRITERS = frozenset(ROLES) - {"observer"}
"""Roles that may write about records; an observer replays and cosigns, and manages only its own keys and endpoint."""
HOLDERS = frozenset({"hospital", "payer", "card-issuer", "device-gateway"})
"""Roles that keep records of patients, so that there is something to grant."""


class View(Protocol):
    """The state as of this transaction, and the block it is in."""

    @property
    def chain(self) -> str:
        """The chain's id."""

    @property
    def time(self) -> int:
        """The block's time, Unix seconds."""

    @property
    def height(self) -> int:
        """The block's height."""

    def get(self, key: str) -> Value | None:
        """Return a value of the state, or None. It must not be altered."""

    def public_key(self, public: str) -> PublicKey:
        """Return the public key of 130 hexadecimal digits (04‖X‖Y); raises ``KeyFormatError``."""


Rule = Callable[[Transaction, View], Changes]


def refuse(code: str, message: str) -> NoReturn:
    """Refuse the transaction at hand."""
    raise TransactionRejected(code, message)


def member_of(view: View, org: str) -> Value:
    """Return a member's record; refused with "not-found" when there is none."""
    member = view.get(f"member/{org}")
    if member is None:
        refuse(Code.NOT_FOUND, "the ledger has no such member")
    return member


def active_member(view: View, org: str) -> Value:
    """Return the record of a member that is not suspended; refused with "not-found" or "conflict"."""
    member = member_of(view, org)
    if member["status"] != "active":
        refuse(Code.CONFLICT, "that member is suspended")
    return member


def require_role(view: View, org: str, roles: frozenset[str]) -> None:
    """Refuse with "not-authorised" unless the member has one of ``roles``."""
    if roles.isdisjoint(member_of(view, org)["roles"]):
        refuse(Code.NOT_AUTHORISED, "the sender's roles do not allow this transaction")
