"""Which source a request's messages are of."""

from __future__ import annotations

from typing import Any

from flask import request

from bridge.errors import InvalidRequest


def source_of(node: Any, kind: str, default: str) -> str:
    """Return the source that ?source= names, one declared with this kind, or ``default``: nobody makes up sources."""
    name = request.args.get("source", default)
    if name != default and name not in {each.name for each in node.settings.sources if each.kind == kind}:
        raise InvalidRequest(f"source is none of this node's sources of kind {kind}")
    return name
