"""What only the store can say of FHIR that arrives: does it exist already, and what does a reference mean.

- A creation with a condition (If-None-Exist) of which a resource exists is left out; references go to the one there.
- A conditional reference ("Patient?identifier=system|value") becomes a reference to the one resource it finds.
- A reference by the source's own id becomes one to the resource that was stored of it. A patient must be known; what
  else is not stays as a reference by identifier, with a remark.
- What this node writes itself (copies from other institutions, consents, reviews, signatures) no client overwrites.
"""

from __future__ import annotations

from typing import Any

from bridge.errors import Conflict, NotFound, PreconditionFailed
from bridge.services.conversion import FHIR_FORMAT, Converter
from bridge.storage.keyring import NODE
from bridge.storage.records import RecordStore
from bridge.storage.search_parameters import parameters_of
from bridge.storage.search_query import SearchQuery, TermCriterion
from bridge.storage.search_values import token_terms
from fhir_adapters import ConversionResult, SourceProfile
from fhir_adapters.errors import AdapterError, ParseError
from fhir_adapters.fhir_json.bundle import UNRESOLVED, condition_of, conditional_reference, references_in, relative
from fhir_adapters.fhir_json.naming import local_id, local_system
from fhir_adapters.result import Issue

MATCHED = "matched"
"""Issue code of a creation that was not needed; its location is the resource that exists."""

_OWN_SOURCES = ("org:", "review:", "signature:", "consent:")


def resolving(convert: Converter, resolver: FhirResolver) -> Converter:
    """Return a converter whose results for FHIR are resolved against the records."""

    def converted(raw: bytes, format: str, profile: SourceProfile) -> ConversionResult:
        result = convert(raw, format, profile)
        return resolver.resolved(result, profile) if format == FHIR_FORMAT else result

    return converted


class FhirResolver:
    """Resolves what was converted against the records."""

    def __init__(self, records: RecordStore, own: str = NODE) -> None:
        self._records = records
        self._own = own

    def resolved(self, result: ConversionResult, profile: SourceProfile) -> ConversionResult:
        """Return the result as it is to be stored.

        Raises ``PreconditionFailed`` for a condition that several resources fulfil or a conditional reference that
        none does, ``ParseError`` for a patient that is not known, and ``Conflict`` for a resource that the node writes
        itself.
        """
        kept: list[dict[str, Any]] = []
        issues = [each for each in result.issues if each.code != UNRESOLVED]
        moved: dict[str, str] = {}
        for entry in result.bundle.get("entry", ()):
            request = entry["request"]
            found = self._match(request)
            if found:
                moved[request["url"]] = found
                issues.append(Issue("information", MATCHED, found, "exists already; nothing was created"))
                continue
            self._check_owner(request["url"])
            plain = {name: value for name, value in request.items() if name != "ifNoneExist"}
            kept.append({**entry, "request": plain})
        for entry in kept:
            for holder in references_in(entry["resource"]):
                self._point(holder, moved, profile, entry["resource"], issues)
        if all(entry["request"]["url"].startswith("Provenance/") for entry in kept):
            kept = []  # nothing is left of which it could tell
        return ConversionResult({**result.bundle, "entry": kept}, tuple(issues))

    def _match(self, request: dict[str, Any]) -> str:
        """Return the resource that fulfils the condition of a creation, "" when there is none or no condition."""
        kind, _, id = request["url"].partition("/")
        condition = request.get("ifNoneExist")
        if condition is not None:
            found = self.search(kind, condition)
            if len(found) > 1:
                raise PreconditionFailed("several resources fulfil the condition of a creation")
            if found:
                return found[0]
        if request.get("ifNoneMatch") == "*" and self._is_there(kind, id):
            return str(request["url"])
        return ""

    def _point(
        self,
        holder: dict[str, Any],
        moved: dict[str, str],
        profile: SourceProfile,
        resource: dict[str, Any],
        issues: list[Issue],
    ) -> None:
        """Let one reference point at what is stored."""
        target = holder["reference"]
        if target in moved:
            holder["reference"] = moved[target]
            return
        conditional = conditional_reference(target)
        if conditional is not None:
            found = self.search(*conditional)
            if len(found) != 1:
                raise PreconditionFailed("a conditional reference finds none, or more than one")
            holder["reference"] = found[0]
            return
        named = relative(target)
        if named is None:
            return
        known = self._known(profile, *named)
        place = str(resource["resourceType"])
        if known:
            holder["reference"] = known
        elif named[0] == "Patient":
            raise ParseError("the patient is not known here; send the Patient first, or in the same Bundle", place)
        else:
            del holder["reference"]
            holder.setdefault("type", named[0])
            holder.setdefault("identifier", {"system": local_system(profile, named[0]), "value": named[1]})
            text = f"a {named[0]} that is not known here; the reference is kept by identifier"
            issues.append(Issue("warning", UNRESOLVED, place, text))

    def _known(self, profile: SourceProfile, kind: str, own: str) -> str:
        """Return what was stored of a resource that the source calls ``own``, "" when nothing was."""
        id = local_id(profile, kind, own)
        if self._is_there(kind, id):
            return f"{kind}/{id}"
        if "identifier" not in parameters_of(kind):
            return ""
        found = self._by_identifier(kind, local_system(profile, kind), own)
        return found[0] if len(found) == 1 else ""

    def search(self, kind: str, condition: str) -> list[str]:
        """Return up to two resources with an identifier. Raises ``PreconditionFailed`` where that cannot be asked."""
        if "identifier" not in parameters_of(kind):
            raise PreconditionFailed("resources of this type cannot be found by identifier here")
        try:
            system, _, value = condition_of(condition, "").removeprefix("identifier=").partition("|")
        except AdapterError as error:
            raise PreconditionFailed(str(error)) from error
        return self._by_identifier(kind, system, value)

    def _by_identifier(self, kind: str, system: str, value: str) -> list[str]:
        terms = tuple(term for term in token_terms(f"{kind}.identifier", system, value) if term[0].endswith("#full"))
        if not terms:
            return []
        page = self._records.search(SearchQuery(kind, (TermCriterion(terms),), count=2))
        return [f"{each.type}/{each.id}" for each in page.entries]

    def _is_there(self, kind: str, id: str) -> bool:
        try:
            self._records.read(kind, id)
        except NotFound:
            return False
        return True

    def _check_owner(self, reference: str) -> None:
        kind, _, id = reference.partition("/")
        try:
            lineage = self._records.read(kind, id).lineage
        except NotFound:
            return
        if lineage.source == self._own or lineage.source.startswith(_OWN_SOURCES):
            raise Conflict("this node writes this resource itself; a client cannot change it")
