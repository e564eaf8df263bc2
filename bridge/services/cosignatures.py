"""Cosignatures on a replicated ledger: every member signs each checkpoint it has computed; this brings them together.

A replica signs the checkpoint after every block it computes, so the members' signatures for one size exist at once,
each at its own member. This job asks the others for theirs, for a size that they have had time to reach, and keeps
those that verify (``ChainClient.cosign`` checks each against the members' keys on the ledger).
"""

from __future__ import annotations

from dataclasses import dataclass

from anchor.chain.cometbft.client import CometChain
from anchor.checkpoint import parse
from anchor.errors import FormatError, VerificationError
from bridge.errors import PeerRejected, PeerUnavailable
from bridge.services.peers import Peers

MAX_MEMBERS = 256
ASK_SECONDS = 5.0
"""How long one member is waited for: the others' signatures make the quorum."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What one run brought: for which size, from how many members, and from how many there was none."""

    size: int
    signers: int
    missing: int


class CosignatureExchange:
    """Collects the other members' signatures for this replica's newest checkpoint."""

    def __init__(self, chain: CometChain, peers: Peers, org: str) -> None:
        self._chain = chain
        self._peers = peers
        self._org = org
        self._complete = -1
        self._asking: int | None = None

    def run(self) -> Collected | None:
        """Collect for the checkpoint that was newest a run ago; None when there is nothing to ask for.

        Raises ``ChainError`` when this member's own replica does not answer.
        """
        newest = parse(self._chain.checkpoint()).checkpoint.size
        size, self._asking = (newest if self._asking is None else self._asking), newest
        if size <= self._complete or size == 0:
            return None
        with_replica = {str(node["org"]) for node in self._chain.state_with_prefix("node/", MAX_MEMBERS).values()}
        others = [
            str(member["org"])
            for member in self._chain.state_with_prefix("member/", MAX_MEMBERS).values()
            if member["status"] == "active" and member["org"] in with_replica - {self._org}
        ]
        signed = {one.org for one in parse(self._chain.checkpoint_of(size)).signatures}
        missing = [org for org in others if org not in signed and not self._ask(org, size)]
        if not missing:
            self._complete = size
        return Collected(size, len(others) - len(missing), len(missing))

    def _ask(self, org: str, size: int) -> bool:
        """Take a member's signatures for a size; returns whether its own is there now."""
        try:
            note = self._peers.get(org, f"/ledger/v1/checkpoint?size={size}", timeout_seconds=ASK_SECONDS)
            offered = parse(note)
            self._chain.cosign(note)
        except (PeerUnavailable, PeerRejected, FormatError, VerificationError):
            return False  # away, or behind: it is asked again
        return bool(offered.by(org))
