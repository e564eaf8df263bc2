"""One message from end to end: arrived, answered, stored, logged, published, witnessed.

The question a sender has after an acknowledgement is what became of the message. The inbox knows until it is stored;
from there on the record versions it led to are followed into the institution's log and onto the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Engine

from anchor.chain.client import ChainClient
from anchor.checkpoint import parse
from anchor.errors import AnchorError
from bridge.services.ingest import acknowledgement_code
from bridge.storage import evidence
from bridge.storage.database import read_transaction
from bridge.storage.inbox import Inbox, InboxDetail

Stage = Literal["waiting", "logged", "published", "witnessed", "unknown"]
STAGES: tuple[Stage, ...] = ("waiting", "logged", "published", "witnessed")
"""How far a record version's evidence is: not in the log yet, in it, in a checkpoint on the ledger, in one that the
other members have cosigned. "unknown": it is published, and the ledger cannot be asked now whether it is more."""


@dataclass(frozen=True, slots=True)
class Journey:
    """What became of one message. ``answered`` is MSA-1; ``evidence`` counts its record versions by stage."""

    message: InboxDetail
    answered: str
    evidence: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the journey as JSON values, without content."""
        return {
            "entry": asdict(self.message.entry),
            "answered": self.answered,
            "issues": list(self.message.issues),
            "versions": list(self.message.versions),
            "evidence": self.evidence,
        }


class JourneyService:
    """Follows messages of one node."""

    def __init__(self, engine: Engine, inbox: Inbox, chain: ChainClient) -> None:
        self._engine = engine
        self._inbox = inbox
        self._chain = chain

    def of(self, number: int) -> Journey:
        """Return the journey of one message; raises ``NotFound``."""
        detail = self._inbox.show(number)
        return Journey(detail, acknowledgement_code(detail.answered), self._evidence(detail.versions))

    def _evidence(self, refs: Sequence[str]) -> dict[str, int]:
        counts: dict[str, int] = {}
        transactions: dict[str, int] = {}
        with read_transaction(self._engine) as connection:
            for ref in refs:
                entry = evidence.find_entry(connection, ref)
                if entry is None:
                    counts["waiting"] = counts.get("waiting", 0) + 1
                    continue
                covering = evidence.checkpoint_covering(connection, entry.origin, entry.position)
                if covering is None:
                    counts["logged"] = counts.get("logged", 0) + 1
                else:
                    transactions[covering.tx_id] = transactions.get(covering.tx_id, 0) + 1
        for tx_id, count in transactions.items():
            stage = self._stage(tx_id)
            counts[stage] = counts.get(stage, 0) + count
        return counts

    def _stage(self, tx_id: str) -> Stage:
        """Whether the ledger's witnessed checkpoint covers a transaction."""
        try:
            committed = self._chain.transaction(tx_id)
            witnessed = self._chain.witnessed_checkpoint()
        except AnchorError:
            return "unknown"
        covered = committed is not None and witnessed is not None and parse(witnessed).checkpoint.size > committed.index
        return "witnessed" if covered else "published"
