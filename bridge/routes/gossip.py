"""The newest ledger checkpoint on every call between nodes: heard with a member's request, given with the answer."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, g, request

from bridge.peer_signature import CHECKPOINT_HEADER


def carry_checkpoints(app: Flask, gossip: Any) -> None:
    """Let every answer of ``app`` to a member carry what this node has cosigned last, and hear what the member has."""

    @app.after_request
    def exchange_checkpoints(response: Response) -> Response:
        caller = g.get("principal")
        if caller is not None and caller.org is not None:
            gossip.hear(request.headers.get(CHECKPOINT_HEADER), caller.org)
            newest = gossip.newest()
            if newest is not None:
                response.headers[CHECKPOINT_HEADER] = newest
        return response
