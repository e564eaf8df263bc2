"""What the consortium's certificate authority makes known: its certificates, and which ones it revoked.

Both are signed and hold nothing confidential, but who is suspended is the members' business: only members are told.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from bridge.auth import requires
from bridge.errors import NotFound

PEM = "application/x-pem-file"


def certificates_blueprint(node: Any) -> Blueprint:
    """Return /certificates/v1 over ``node.certificates``."""
    blueprint = Blueprint("certificates", __name__, url_prefix="/certificates/v1")

    @blueprint.get("/authorities")
    @requires("exchange.peer")
    def authorities() -> Response:
        """The TLS authorities in force."""
        _only_authority(node)
        return Response(node.certificates.bundle(), content_type=PEM)

    @blueprint.get("/revoked")
    @requires("exchange.peer")
    def revoked() -> Response:
        """The list of revoked certificates (CRL), as of the ledger's members now."""
        _only_authority(node)
        listed = node.certificates.revocation_list(lambda org: node.chain.state(f"member/{org}"))
        return Response(listed, content_type=PEM)

    return blueprint


def _only_authority(node: Any) -> None:
    if not node.certificates.exists:
        raise NotFound("this node is not the certificate authority")
