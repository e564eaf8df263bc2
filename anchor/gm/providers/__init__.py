"""Implementations of the national algorithms, all under the one contract of ``contract``.

``native``  gmssl-pyx and ``cryptography``: the default for everything that touches a secret.
``pure``    the ``gmssl`` package with nonces from ``secrets``: the independent second opinion, and the fallback.
``tables``  verification only, with precomputed tables per public key.
"""

from __future__ import annotations

from anchor.gm.providers.contract import Provider, Verifier
from anchor.gm.providers.native import NativeProvider

__all__ = ["Provider", "Verifier", "default"]

_DEFAULT: Provider = NativeProvider()


def default() -> Provider:
    """Return the provider used when none is named."""
    return _DEFAULT
