"""The entry of a transaction Bundle: a resource and what is asked of the server that takes it (FHIR R4, 3.1.0.11).

Three manners, because a source does not always say all that there is to say of a resource:

- a plain PUT: the source speaks of the resource itself, and what it does not say is gone;
- a mention ("If-None-Match: *"): it speaks of something else and names the resource in passing;
- an amendment (modifier extensions): it says one thing about the resource, such as that it was merged into another.
  What is stored stays; the named elements are put on top of it (lists are added to), the others fill gaps only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fhir_adapters.extensions import AMENDS, UNLINKS

ACTORS_AND_PLACES = frozenset({"Practitioner", "Organization", "Location"})
"""Types that messages about patients name in passing, with as much as the sender happens to know of them."""


def entry(
    base_url: str,
    reference: str,
    resource: dict[str, Any],
    *,
    mention: bool,
    amends: Sequence[str] = (),
    unlinks: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the entry that puts ``resource`` at ``reference`` ("Type/id").

    ``mention``: the source speaks of something else and merely names the resource, so the entry asks for its creation
    only ("If-None-Match: *") and must not take anything away from what admission or a master file said.
    ``amends``: the elements that the source speaks of; the stored version keeps all its others. ``unlinks``: references
    of the patients to whom a stored ``Patient.link`` is to be taken away.
    """
    request: dict[str, Any] = {"method": "PUT", "url": reference}
    if not amends and not unlinks:
        if mention:
            request["ifNoneMatch"] = "*"
        return {"fullUrl": f"{base_url}/{reference}", "resource": resource, "request": request}
    changes: list[dict[str, Any]] = [{"url": AMENDS, "valueString": element} for element in amends]
    changes += [{"url": UNLINKS, "valueReference": {"reference": other}} for other in unlinks]
    request["modifierExtension"] = changes
    return {"fullUrl": f"{base_url}/{reference}", "resource": resource, "request": request}
