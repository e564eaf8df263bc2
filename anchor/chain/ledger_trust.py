"""The trust file of a ledger as it stands: its members, and every set of validators there has been."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anchor.chain.client import ChainClient
from anchor.errors import ChainCorrupt
from anchor.trust import Trust, majority

MAX_MEMBERS = 1_000
"""Members of one consortium, suspended ones included: what one question to a ledger returns at most."""


def trust_of(
    chain: ChainClient,
    chain_id: str,
    quorum: int = 0,
    mandatory: tuple[str, ...] = (),
    timestamping: tuple[bytes, ...] = (),
) -> Trust:
    """Return what receipts of a ledger are checked with.

    ``quorum``: cosignatures that make a checkpoint witnessed, 0 for a majority of the members; ``mandatory``: members
    whose cosignature must be among them; ``timestamping``: DER certificates of the time-stamping authorities that the
    consortium trusts. Raises ``ChainError``, and ``FormatError`` for a mandatory signer that is no member.
    """
    members = list(chain.state_with_prefix("member/", MAX_MEMBERS).values())
    sets = list(_validator_sets(chain))
    return Trust.from_members(chain_id, quorum or majority(members), mandatory, members, timestamping, sets)


def _validator_sets(chain: ChainClient) -> Iterator[dict[str, Any]]:
    """Yield every set of validators there has been, in order; none on a ledger that no one votes on."""
    newest = chain.state("validators")
    for number in range(1, (newest["number"] if newest else 0) + 1):
        found = chain.state(f"validators/{number}")
        if found is None:
            raise ChainCorrupt(f"the ledger's state lacks the set of validators {number}")
        yield found
