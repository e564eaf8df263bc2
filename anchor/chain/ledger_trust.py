"""The trust file of a ledger as it stands: its members, and every set of validators there has been."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anchor.chain.client import ChainClient, StateReading
from anchor.errors import ChainCorrupt
from anchor.trust import Trust, majority

MAX_MEMBERS = 1_000
"""Members of one consortium, suspended ones included: what one question to a ledger returns at most."""
MEMBERS, VALIDATORS, VALIDATOR_SETS = "member/", "validators", "validators/"
KEYS, PREFIXES = (VALIDATORS,), (MEMBERS, VALIDATOR_SETS)
"""What a trust file is made of."""


def trust_of(
    chain: ChainClient,
    chain_id: str,
    quorum: int = 0,
    mandatory: tuple[str, ...] = (),
    timestamping: tuple[bytes, ...] = (),
) -> Trust:
    """Return what receipts of a ledger are checked with.

    Parameters and errors are those of ``trust_in``; raises ``ChainError`` as well.
    """
    return trust_in(chain, chain.states(KEYS, PREFIXES), chain_id, quorum, mandatory, timestamping)


def trust_in(
    chain: ChainClient,
    reading: StateReading,
    chain_id: str,
    quorum: int = 0,
    mandatory: tuple[str, ...] = (),
    timestamping: tuple[bytes, ...] = (),
) -> Trust:
    """Return what receipts are checked with, from a reading of its state that has ``KEYS`` and ``PREFIXES``.

    ``quorum``: cosignatures that make a checkpoint witnessed, 0 for a majority of the members; ``mandatory``: members
    whose cosignature must be among them; ``timestamping``: DER certificates of the time-stamping authorities that the
    consortium trusts. ``chain`` is asked for what the reading has not. Raises ``ChainError``, and ``FormatError`` for a
    mandatory signer that is no member.
    """
    members = list(reading.prefixed[MEMBERS].values())
    sets = list(_validator_sets(chain, reading))
    return Trust.from_members(chain_id, quorum or majority(members), mandatory, members, timestamping, sets)


def _validator_sets(chain: ChainClient, reading: StateReading) -> Iterator[dict[str, Any]]:
    """Yield every set of validators there has been, in order; none on a ledger that no one votes on."""
    newest = reading.values[VALIDATORS]
    keys = [f"{VALIDATOR_SETS}{number}" for number in range(1, (newest["number"] if newest else 0) + 1)]
    found = reading.prefixed[VALIDATOR_SETS]
    missing = [key for key in keys if key not in found]  # of more sets than one question returns
    later = chain.states(missing).values if missing else {}
    for key in keys:
        one = found.get(key) or later.get(key)
        if one is None:
            raise ChainCorrupt(f"the ledger's state lacks the set of {key}")
        yield one
