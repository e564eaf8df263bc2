"""The composition root: from Settings to a Node whose parts are built in the order in which they depend on each other.

Nothing else constructs a service. Whatever is missing or contradictory stops the node here, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # types only: a node's parts are many, and a command that needs three of them must not wait for all
    from sqlalchemy import Engine

    from anchor.chain.client import ChainClient
    from anchor.gm import PrivateKey
    from bridge.settings import Settings


@dataclass(frozen=True, slots=True)
class Signer:
    """This node's identity on the ledger.

    ``sign`` signs transactions, checkpoints and requests; ``decrypt`` opens releases.
    """

    org: str
    sign: PrivateKey
    decrypt: PrivateKey


@dataclass(kw_only=True)
class Node:
    """Everything one node is made of. Built by ``build_node``; ``close`` lets go in reverse order.

    The card authority's own services (``pseudonyms``, ``localisation`` as index) are there on every node; the
    routes that serve others refuse where the node does not have the role.
    """

    settings: Settings
    clock: Callable[[], float]
    engine: Engine
    keyring: Any
    inbox: Any
    records: Any
    outbox: Any
    leases: Any
    nonces: Any
    profiles: Mapping[str, Any]
    chain: ChainClient
    signer: Signer
    ingest: Any
    search: Any
    audit: Any
    anchoring: Any
    witness: Any
    receipts: Any
    integrity: Any
    pseudonyms: Any = None
    localisation: Any = None
    consent: Any = None
    exchange: Any = None
    closers: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        """Let go of connections, files and threads, last opened first."""
        while self.closers:
            self.closers.pop()()
