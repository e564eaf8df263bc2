"""Is this valid FHIR R4? Fast for what is, exact for what is not.

    validate(resource)          one resource (dict) -> issues, [] when valid
    validate_bundle(bundle)     a converted transaction Bundle: every entry, and every reference resolves inside it
    require_valid(bundle)       the same, raising ValidationError

Each accepts only what fhir.resources (R4B models) accepts, and less: see docs/adr/0006-validation.md.
Checked here is structure. Invariants in FHIRPath and bindings to external code systems are not.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic_core import ValidationError as _SchemaError

from fhir_adapters.errors import ValidationError
from fhir_adapters.result import Issue
from fhir_adapters.validation.compile import full_validator, lean_validator
from fhir_adapters.validation.diagnosis import diagnose
from fhir_adapters.validation.structure import is_resource

__all__ = ["require_valid", "validate", "validate_bundle"]


def validate(resource: dict[str, Any]) -> list[Issue]:
    """Issues of one resource, [] when it is valid FHIR R4. Never raises, whatever the JSON value is."""
    return _check(resource, None)


def validate_bundle(bundle: dict[str, Any]) -> list[Issue]:
    """Issues of a transaction Bundle made by an adapter.

    Every entry has a valid resource, a fullUrl and a PUT to ``Type/id`` that agree, no two entries are one resource,
    and every relative or ``urn:uuid`` reference finds its target among the entries. References that carry an identifier
    (the row of a lab view names its patient, it does not bring it), absolute ones to other servers and those to
    contained resources are left alone.
    """
    entries = bundle.get("entry", [])
    envelope = {key: value for key, value in bundle.items() if key != "entry"}
    issues = _check(envelope, None)
    references: list[str] = []
    known: set[str] = set()
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        if not _is_plainly_valid(entry, known, references):
            issues.extend(_check_entry(number, entry, known, references))
    for target in dict.fromkeys(references):
        if target not in known and not _is_elsewhere(target, known):
            issues.append(Issue("error", "dangling-reference", "Bundle", "a reference finds no entry of the Bundle"))
    return issues


def require_valid(bundle: dict[str, Any]) -> None:
    """Raise :class:`~fhir_adapters.errors.ValidationError` with the first issue of a transaction Bundle, if any."""
    issues = validate_bundle(bundle)
    if issues:
        more = f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
        raise ValidationError(issues[0].text + more, issues[0].location)


def _is_plainly_valid(entry: Any, known: set[str], references: list[str]) -> bool:
    """The quick answer for an entry as adapters make them; False only means that a closer look is needed."""
    before = len(references)
    try:
        resource, request, url = entry["resource"], entry["request"], entry["fullUrl"]
        type_name = resource["resourceType"]
        address = f"{type_name}/{resource['id']}"
        if (
            request["url"] == address
            and request["method"] == "PUT"
            and url.endswith("/" + address)
            and address not in known
            and _lean_check(type_name)(resource, context=references)
        ):
            known.add(address)
            known.add(url)
            return True
    except (KeyError, TypeError, AttributeError, RecursionError):
        pass
    del references[before:]
    return False


@lru_cache(maxsize=256)
def _lean_check(type_name: str) -> Callable[..., bool]:
    """The bound check of a resource type. Raises KeyError for anything else."""
    if not isinstance(type_name, str) or not is_resource(type_name):
        raise KeyError("not a resource type")
    return lean_validator(type_name).isinstance_python


def _check(resource: Any, references: list[str] | None, lean: bool = True) -> list[Issue]:
    type_name = resource.get("resourceType") if isinstance(resource, dict) else None
    if not isinstance(type_name, str) or not is_resource(type_name):
        return [Issue("error", "invalid", "resourceType", "not a resource of a type that FHIR R4 has")]
    try:
        if lean:
            if lean_validator(type_name).isinstance_python(resource, context=references):
                return []
            if references is not None:
                references.clear()
        full_validator(type_name).validate_python(resource, context=references)
    except _SchemaError as error:
        return diagnose(type_name, resource, error)
    except RecursionError:
        return [Issue("error", "invalid", type_name, "nested too deeply")]
    return []


def _check_entry(number: int, entry: Any, known: set[str], references: list[str]) -> list[Issue]:
    place = f"Bundle.entry[{number}]"
    resource = entry.get("resource") if isinstance(entry, dict) else None
    if not isinstance(resource, dict):
        return [Issue("error", "invalid", place, "an entry without a resource")]
    own: list[str] = []
    issues = _check(resource, own, lean=False)
    references.extend(own)
    address = f"{resource.get('resourceType')}/{resource.get('id')}"
    url = entry.get("fullUrl")
    request = entry.get("request")
    if not isinstance(url, str) or not (url.startswith("urn:uuid:") or url.endswith("/" + address)):
        issues.append(Issue("error", "invalid", place, "fullUrl does not name the resource"))
    elif url in known or address in known:
        issues.append(Issue("error", "invalid", place, "two entries are one resource"))
    if not isinstance(request, dict) or request.get("url") != address or request.get("method") != "PUT":
        issues.append(Issue("error", "invalid", place, "request is not a PUT to the resource"))
    known.add(address)
    if isinstance(url, str):
        known.add(url)
    return issues


def _is_elsewhere(target: str, known: set[str]) -> bool:
    if target.startswith("#"):
        return True
    if target.startswith("urn:uuid:"):
        return False
    relative, _, _ = target.partition("/_history/")
    return ":" in target or relative in known
