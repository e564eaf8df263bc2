"""The entry of a transaction Bundle: a resource and what is asked of the server that takes it (FHIR R4, 3.1.0.11)."""

from __future__ import annotations

from typing import Any

ACTORS_AND_PLACES = frozenset({"Practitioner", "Organization", "Location"})
"""Types that messages about patients name in passing, with as much as the sender happens to know of them."""


def entry(base_url: str, reference: str, resource: dict[str, Any], *, mention: bool) -> dict[str, Any]:
    """Return the entry that puts ``resource`` at ``reference`` ("Type/id").

    ``mention``: the source speaks of something else and merely names the resource, so the entry asks for its creation
    only ("If-None-Match: *") and must not take anything away from what admission or a master file said.
    """
    request = {"method": "PUT", "url": reference}
    if mention:
        request["ifNoneMatch"] = "*"
    return {"fullUrl": f"{base_url}/{reference}", "resource": resource, "request": request}
