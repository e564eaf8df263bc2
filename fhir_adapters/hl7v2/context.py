"""One conversion in progress: the resources made so far, the issues met, and what the site's profile says."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from fhir_adapters.codes import ConceptLookup
from fhir_adapters.hl7v2.escapes import unescape
from fhir_adapters.hl7v2.header import Header
from fhir_adapters.hl7v2.message import NULL, Segment
from fhir_adapters.identifiers import assigning_system
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import Issue, Severity

Json = dict[str, Any]

DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
ORIGINAL_TEXT = "http://hl7.org/fhir/StructureDefinition/originalText"


class Conversion:
    """The state that the mappings of one message share. Not thread-safe, used once."""

    __slots__ = (
        "_local",
        "_systems",
        "_used",
        "agents",
        "amended",
        "charset",
        "find",
        "header",
        "issues",
        "memo",
        "owned",
        "panels",
        "profile",
        "resources",
        "time_zone",
        "unlinked",
    )

    def __init__(self, profile: SourceProfile, header: Header) -> None:
        self.profile = profile
        self.header = header
        self.charset = header.charset
        self.time_zone = profile.time_zone
        self.find = ConceptLookup(profile).find
        """What a source code means, by concept and code; None when neither the site nor a table says."""
        self.issues: list[Issue] = []
        self.resources: dict[str, Json] = {}
        self.memo: dict[tuple[str, str], str | None] = {}
        """Raw field -> reference, by kind: one practitioner, place or organization is mapped once per message."""
        self.agents: dict[tuple[str, str], Json] = {}
        """Who had a hand in what the message says: kind of agent and reference -> reference, for the Provenance."""
        self.amended: dict[str, tuple[str, ...]] = {}
        """References of resources of which the message says no more than these elements."""
        self.owned: set[str] = set()
        """References of resources that the message is about, although its kind usually names such in passing."""
        self.panels: dict[str, list[Json]] = {}
        """Order number -> the Observations of its report, for the results that follow from one of them."""
        self.unlinked: dict[str, list[str]] = {}
        """Patient -> the patients it is no longer linked to."""
        self._systems = profile.memory.systems
        self._local = ""
        self._used: dict[str, int] = {}

    def issue(
        self, severity: Severity, code: str, segment: Segment, number: int, text: str, component: int = 0
    ) -> None:
        """Remark on a field; ``text`` must not repeat what stands in it."""
        where = segment.where(number)
        self.issues.append(Issue(severity, code, f"{where}.{component}" if component else where, text))

    def unmapped_code(self, concept: str, segment: Segment, number: int) -> None:
        """Remark that a code has no map and was kept as the source wrote it."""
        self.issue(
            "warning", "unmapped-code", segment, number, f"no map for this code of {concept}; it is kept as sent"
        )

    def leftover(self, parts: list[str], carried: int, segment: Segment, number: int) -> None:
        """Remark on every component after the first ``carried`` that holds a value."""
        for position in range(carried, len(parts)):
            if parts[position] and parts[position] != NULL:
                self.not_mapped(segment, number, position + 1)

    def not_mapped(self, segment: Segment, number: int, component: int = 0) -> None:
        """Remark that a field or component has no place in the resources made."""
        self.issue("information", "not-mapped", segment, number, "no mapping carries this over", component)

    def text(self, raw: str) -> str:
        """The text of a component: unescaped, blanks at the ends removed, null as ""."""
        if not raw:
            return raw
        if "\\" in raw:
            raw = unescape(raw, self.charset)
        return "" if raw == NULL else raw.strip()

    def system(self, authority: str) -> str:
        """The identifier system of a raw assigning authority (HD as a component: parts divided by ``&``)."""
        found = self._systems.get(authority)
        if found is None:
            namespace, universal, kind = [*(self.text(part) for part in authority.split("&")), "", "", ""][:3]
            found = assigning_system(self.profile, namespace, universal, kind)
            if "\\" not in authority:  # what an escape means depends on the message's character set
                self.profile.memory.keep_system(authority, found)
        return found

    def local_system(self, kind: str) -> str:
        """A system of codes or numbers that mean something only within this message's sender, by kind."""
        if not self._local:
            sender = self.header.sending_facility or self.header.sending_application or self.profile.default_authority
            self._local = f"{self.profile.base_url}/NamingSystem/{quote(self.text(sender), safe='')}/"
        return self._local + kind

    def message_key(self, place: str) -> str:
        """A business key for what nothing but its place in this message names: stable for a redelivery."""
        return f"{self.header.control_id}#{place}"

    def put(self, resource: Json) -> str:
        """Add a resource, or complete the one of the same id with what it lacks; returns its reference."""
        reference = f"{resource['resourceType']}/{resource['id']}"
        known = self.resources.setdefault(reference, resource)
        if known is not resource:
            if self.amended:
                self.amended.pop(reference, None)  # what is put whole is no amendment any more
            for name, value in resource.items():
                if not _said_otherwise(known, name):
                    known.setdefault(name, value)
        return reference

    def mention(self, kind: str, raw: str, make: "Builder", segment: Segment, number: int) -> str | None:
        """The reference to whom or what a raw field names, the last of the resources that ``make`` builds of it.

        Made once a message, and once for all messages of the site unless there was something to remark on or what an
        escape means depends on the message. None when it names nothing.
        """
        key = (kind, raw)
        memo = self.memo
        known = memo.get(key, "")
        if known != "":
            return known
        memory = self.profile.memory
        made = memory.resources(kind, raw)
        if made is None:
            remarks = len(self.issues)
            made = make(self, raw, segment, number)
            if len(self.issues) == remarks and "\\" not in raw:
                memory.keep_resources(kind, raw, made)
        reference: str | None = None
        for resource in made:
            reference = self.put(resource)
        memo[key] = reference
        return reference

    def keep(self, resource: Json) -> Json:
        """As ``put``; returns the resource that is kept, which a mapping may go on to complete."""
        return self.resources[self.put(resource)]

    def amend(self, resource: Json, *elements: str) -> str:
        """Add a resource of which the message says only ``elements``; where more was said already, nothing changes.

        Returns its reference. The other elements are for a store that does not have the resource yet.
        """
        reference = f"{resource['resourceType']}/{resource['id']}"
        before = self.amended.get(reference, ())
        new = reference not in self.resources
        self.put(resource)
        if new or before:
            self.amended[reference] = tuple(dict.fromkeys((*before, *elements)))
        return reference

    def occurrence(self, key: str) -> int:
        """How often a business key was used in this message before: 0 the first time."""
        count = self._used.get(key, 0)
        self._used[key] = count + 1
        return count


Builder = Callable[[Conversion, str, Segment, int], list[Json]]
"""Builds the resources that a raw field names, the larger before the smaller; remarks name segment and field."""

_CHOICES = ("deceased", "multipleBirth", "effective", "value", "onset", "occurrence")
"""Choice elements (``effective[x]``) at the top of the resources made here: of each only one data type may stand."""


def _said_otherwise(known: Json, name: str) -> bool:
    """Whether ``name`` is a choice element that the resource already has, in whatever data type."""
    plain = name.removeprefix("_")
    choice = next((each for each in _CHOICES if plain.startswith(each)), "")
    return bool(choice) and any(each.removeprefix("_").startswith(choice) for each in known)


def keep_original(target: Json, element: str, text: str, reason: str = "error") -> None:
    """Say that a primitive element has no usable value, and keep what the source wrote."""
    kept: list[Json] = [{"url": DATA_ABSENT, "valueCode": reason}]
    if text:
        kept.append({"url": ORIGINAL_TEXT, "valueString": text})
    target["_" + element] = {"extension": kept}


def add_extension(target: Json, url: str, value: str, content: Any) -> None:
    """Append an extension whose ``value[x]`` element is called ``value``."""
    target.setdefault("extension", []).append({"url": url, value: content})
