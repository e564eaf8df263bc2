"""A Bundle as what is to be stored: every entry a resource with an id of this node, references within it resolved.

| type | what becomes of its entries |
|---|---|
| transaction, batch | as their requests say (FHIR R4, 3.1.0.11): POST and PUT; ifNoneExist, ifNoneMatch "*" |
| collection, document | each resource is created, or updated where its identifier is known |

A transaction, a collection and a document are taken whole or not at all; of a batch, entries at fault are left out.
Conditions stay in the request for who stores it: only the store knows what exists.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from fhir_adapters.errors import AdapterError, ParseError, UnsupportedMessage, ValidationError
from fhir_adapters.fhir_json.naming import ID, OWN_ID, assigned_id, keep_own_id, local_id
from fhir_adapters.fhir_json.releases import other_release
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import Issue
from fhir_adapters.validation import validate

MAX_ENTRIES = 5_000
"""Most entries of a Bundle."""

NOT_TAKEN = frozenset({"AuditEvent", "Consent", "Bundle", "Parameters", "OperationOutcome", "CapabilityStatement"})
"""Types that no client writes: the audit trail, what the ledger vouches for, and what is no record."""

WHOLE = ("transaction", "collection", "document")
UNRESOLVED = "unresolved-reference"
"""Issue code of a reference to a resource of the source that the Bundle does not hold."""

_ADDRESS = re.compile(r"([A-Z][A-Za-z]{1,40})/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_ENDING = re.compile(r"(?:^|/)" + _ADDRESS.pattern + "$")
_SERVERS_OWN = frozenset({"versionId", "_versionId", "lastUpdated", "_lastUpdated"})
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,40}")


class NotTaken(UnsupportedMessage):
    """A resource of a type that no client writes. A batch, a collection and a document go without it."""


@dataclass(slots=True)
class Taken:
    """One entry: where it stands, its resource as it will be stored, and the conditions of its creation."""

    place: str
    full_url: str
    own: str
    resource: dict[str, Any]
    if_none_exist: str = ""
    only_new: bool = False

    @property
    def reference(self) -> str:
        """Type and id."""
        return f"{self.resource['resourceType']}/{self.resource['id']}"


@dataclass(slots=True)
class Read:
    """A Bundle that was read. ``issues``: of a batch, the entries left out; references that found nothing."""

    entries: list[Taken] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)


def read_bundle(bundle: dict[str, Any], profile: SourceProfile, prefix: str = "Bundle.") -> Read:
    """Read a Bundle. Raises AdapterError; a batch leaves out the entries that are at fault."""
    kind = bundle.get("type")
    if kind not in (*WHOLE, "batch"):
        raise UnsupportedMessage("only a Bundle of type transaction, batch, collection or document", f"{prefix}type")
    listed = bundle.get("entry", [])
    if not isinstance(listed, list) or len(listed) > MAX_ENTRIES:
        raise ParseError(f"entries are a list of at most {MAX_ENTRIES}", f"{prefix}entry")
    read = Read()
    for number, given in enumerate(listed):
        place = f"{prefix}entry[{number}]"
        try:
            taken = _entry(place, given, profile, requested=kind in ("transaction", "batch"))
            check_valid(taken)
        except NotTaken as error:
            if kind == "transaction":
                raise
            read.issues.append(Issue("warning", "not-taken", error.location, _text(error)))
        except AdapterError as error:
            if kind != "batch":
                raise
            read.issues.append(Issue("error", "invalid", error.location or place, _text(error)))
        else:
            read.entries.append(taken)
    _part(read, profile)
    _resolve(read, profile)
    return read


def single(resource: Any, request: Any, profile: SourceProfile) -> Read:
    """A resource that stands alone, with the request that brought it. Raises AdapterError."""
    taken = _entry("", {"resource": resource, "request": request}, profile, requested=True)
    check_valid(taken)
    read = Read([taken])
    _resolve(read, profile)
    return read


def _entry(place: str, given: Any, profile: SourceProfile, *, requested: bool) -> Taken:
    inner = f"{place}.resource" if place else "Resource"
    resource = given.get("resource") if isinstance(given, dict) else None
    request = given.get("request") if isinstance(given, dict) and requested else {}
    if not isinstance(request, dict) or not isinstance(resource, dict):
        raise ParseError("an entry needs a resource" + (" and a request" if requested else ""), place)
    kind = resource.get("resourceType")
    if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        raise ParseError("not a resource", f"{inner}.resourceType")
    if kind in NOT_TAKEN:
        raise NotTaken("resources of this type are not taken", inner if place else kind)
    full_url, own = given.get("fullUrl", ""), resource.get("id", "")
    if not isinstance(full_url, str) or not isinstance(own, str) or (own and not ID.fullmatch(own)):
        raise ValidationError("not an id", f"{inner}.id")
    taken = Taken(inner if place else kind, full_url, own, _unversioned(resource))
    if requested:
        _request(taken, request, f"{place}.request" if place else "request")
    try:
        taken.resource["id"] = assigned_id(profile, resource, taken.own)
    except AdapterError as error:
        raise ParseError("a resource that cannot be written as JSON", inner) from error
    keep_own_id(profile, taken.resource, taken.own)
    return taken


def _unversioned(resource: dict[str, Any]) -> dict[str, Any]:
    """A resource without the version and time that another server gave it: here the node gives them."""
    meta = resource.get("meta")
    if not isinstance(meta, dict):
        return dict(resource)
    kept = {name: value for name, value in meta.items() if name not in _SERVERS_OWN}
    return {**resource, "meta": kept} if kept else {name: each for name, each in resource.items() if name != "meta"}


def _request(taken: Taken, request: dict[str, Any], place: str) -> None:
    """What is asked for: a creation, whose id is the server's, or an update, which names one (R4 3.1.0.4, 3.1.0.8)."""
    for name in ("ifMatch", "ifModifiedSince"):
        if request.get(name) is not None:
            raise UnsupportedMessage("this condition is not offered", f"{place}.{name}")
    url, method, kind = request.get("url"), request.get("method"), taken.resource["resourceType"]
    if not isinstance(url, str):
        raise ParseError("a request needs a url", f"{place}.url")
    if method == "POST":
        if url != kind:
            raise ParseError("a creation needs a url of the form Type", f"{place}.url")
        taken.own = taken.own if taken.full_url.endswith(f"{kind}/{taken.own}") else ""  # else no name of anything
        if request.get("ifNoneExist") is not None:
            taken.if_none_exist = condition_of(request["ifNoneExist"], f"{place}.ifNoneExist")
    elif method == "PUT":
        named = _ADDRESS.fullmatch(url)
        if named is None or named[1] != kind:
            raise ParseError("an update needs a url of the form Type/id", f"{place}.url")
        if taken.own != named[2]:
            raise ParseError("the resource has another id than its url", f"{taken.place}.id")
    else:
        raise UnsupportedMessage("another method than POST and PUT", f"{place}.method")
    if request.get("ifNoneMatch") is not None:
        if request["ifNoneMatch"] != "*":
            raise UnsupportedMessage('If-None-Match is only offered as "*"', f"{place}.ifNoneMatch")
        taken.only_new = True


def condition_of(given: Any, place: str) -> str:
    """The one condition taken, "identifier=system|value", out of a query. Raises AdapterError."""
    if not isinstance(given, str):
        raise ParseError("a condition is text", place)
    try:
        pairs = parse_qsl(given.removeprefix("?"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        pairs = []
    system, bar, value = pairs[0][1].partition("|") if len(pairs) == 1 else ("", "", "")
    if len(pairs) != 1 or pairs[0][0] != "identifier" or not bar or not system or not value:
        raise UnsupportedMessage("the only condition is identifier=system|value", place)
    return f"identifier={system}|{value}"


def _resolve(read: Read, profile: SourceProfile) -> None:
    """Point references at the ids that resources have now; what finds nothing stays, and is remarked on."""
    addresses: dict[str, str] = {}
    for each in read.entries:
        kind = each.resource["resourceType"]
        if each.own:
            addresses.setdefault(f"{kind}/{each.own}", each.reference)
        if each.full_url:
            addresses[each.full_url] = each.reference
            named = _ENDING.search(each.full_url)
            if named is not None and not each.full_url.startswith("urn:"):
                addresses.setdefault(f"{named[1]}/{named[2]}", each.reference)
    base = profile.base_url + "/"
    for each in read.entries:
        for holder in references_in(each.resource):
            target = str(holder["reference"])
            known = addresses.get(target) or addresses.get(target.removeprefix(base))
            address = _ADDRESS.fullmatch(target.removeprefix(base))
            if known is None and address is not None:
                known = addresses.get(f"{address[1]}/{address[2]}")
            if known is not None:
                holder["reference"] = known
            elif target.startswith("urn:"):
                raise ParseError("a reference that finds no entry", each.place)
            elif address is not None:
                holder["reference"] = f"{address[1]}/{address[2]}"
                if not OWN_ID.fullmatch(address[2]):
                    text = "a reference to a resource of the source that is not in the Bundle"
                    read.issues.append(Issue("information", UNRESOLVED, each.place, text))


def references_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every Reference with a literal reference, at any depth."""
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value
        for member in value.values():
            yield from references_in(member)
    elif isinstance(value, list):
        for member in value:
            yield from references_in(member)


def relative(target: str) -> tuple[str, str] | None:
    """Type and id of a reference that is the source's own: relative, and not of the form that this node gives."""
    match = _ADDRESS.fullmatch(target)
    return (match[1], match[2]) if match is not None and not OWN_ID.fullmatch(match[2]) else None


def conditional_reference(target: str) -> tuple[str, str] | None:
    """Type and condition of a conditional reference ("Patient?identifier=…|…"); None for any other."""
    kind, mark, query = target.partition("?")
    return (kind, query) if mark and _TYPE.fullmatch(kind) else None


def _part(read: Read, profile: SourceProfile) -> None:
    """Tell apart entries that have one business identifier and say different things; the same said twice is one.

    The first keeps the identifier's id, another one gets that of the source's own id or address. Two that cannot be
    told apart are a fault of the Bundle (R4 3.1.0.11.2).
    """
    known: dict[str, Taken] = {}
    for each in read.entries:
        first = known.setdefault(each.reference, each)
        if first is each or first.resource == each.resource:
            continue
        kind, own = each.resource["resourceType"], each.own or each.full_url
        if not own or own in (first.own, first.full_url):
            raise ParseError("two entries are one resource", each.place)
        each.resource["id"] = local_id(profile, kind, own)
        if known.setdefault(each.reference, each) is not each:
            raise ParseError("two entries are one resource", each.place)
        text = "an identifier of an earlier entry that says something else; they are kept apart"
        read.issues.append(Issue("information", "repeated-identifier", each.place, text))


def check_valid(taken: Taken) -> None:
    """Raise ValidationError, with the place in what was sent, for a resource that is not valid FHIR R4."""
    issues = validate(taken.resource)
    if issues:
        more = f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
        kind, dot, path = issues[0].location.partition(".")
        place = f"{taken.place}.{path}" if dot else taken.place if kind == taken.resource["resourceType"] else kind
        release = other_release(taken.resource)
        hint = f"; it looks like FHIR {release}, and R4 (4.0.1) is read" if release else ""
        raise ValidationError(issues[0].text + more + hint, place)


def _text(error: AdapterError) -> str:
    return str(error).removeprefix(f"{error.location}: ") if error.location else str(error)
