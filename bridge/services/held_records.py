"""What a lookup asks the card authority: a person's pseudonyms, and who holds records under them.

Both are charged and recorded as when they are asked for one after the other, in one transaction with the request's
nonce.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from bridge.services.localisation import LOCATE
from bridge.services.pseudonyms import over_quota

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.services.localisation import LocalisationIndex
    from bridge.services.pseudonyms import Identifier, PseudonymService

Transaction = Callable[[], "AbstractContextManager[Connection]"]


class HeldRecords:
    """Answers lookups at the card authority."""

    def __init__(self, pseudonyms: PseudonymService, index: LocalisationIndex) -> None:
        self._pseudonyms, self._index = pseudonyms, index

    def of(
        self, org: str, scope: str, identifier: Identifier, transaction: Transaction
    ) -> list[tuple[str, str, list[str]]]:
        """Return (holder, pseudonym, categories) under every pseudonym that is served, newest first.

        ``transaction``: gives the one to write in. Raises as ``PseudonymService.compute_served`` does.
        """
        (pids,) = self._pseudonyms.served(scope, [identifier])
        with transaction() as connection:
            within = self._pseudonyms.charge(connection, org, scope, 1, [LOCATE] * len(pids))
            found = [(pid, each) for pid in pids for each in self._index.find(connection, org, pid)] if within else []
        if not within:
            raise over_quota()
        return [(each["org"], pid, each["categories"]) for pid, each in found]
