"""Implementations of the national algorithms, all under the one contract of ``contract``.

``native``  gmssl-pyx and ``cryptography``: the default for everything that touches a secret.
``pure``    the ``gmssl`` package with nonces from ``secrets``: the independent second opinion, and the fallback.
``tables``  verification only, with precomputed tables per public key; takes over keys that are verified often.
"""

from __future__ import annotations

from anchor.errors import AnchorError
from anchor.gm.providers.contract import Provider, Verifier
from anchor.gm.providers.native import NativeProvider
from anchor.gm.providers.pure import PureProvider
from anchor.gm.providers.tables import TableVerifier

__all__ = ["PROVIDERS", "TABLES", "Provider", "Verifier", "default", "use"]

PROVIDERS: dict[str, Provider] = {"native": NativeProvider(), "pure": PureProvider()}
"""The full implementations by name."""

TABLES = TableVerifier()
"""The tables of this process, shared by all ``PublicKey`` objects."""

_selected = PROVIDERS["native"]


def default() -> Provider:
    """Return the provider behind ``anchor.gm``'s keys and cipher."""
    return _selected


def use(name: str) -> None:
    """Select the provider for keys and cipher, for the whole process; ``sm3`` and ``hmac_sm3`` stay native.

    Raises ``AnchorError`` for an unknown name.
    """
    global _selected
    if name not in PROVIDERS:
        raise AnchorError(f"there is no cryptographic provider of that name; known are {', '.join(sorted(PROVIDERS))}")
    _selected = PROVIDERS[name]
