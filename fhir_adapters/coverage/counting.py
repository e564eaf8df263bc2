"""Samples converted one after the other, and what was met added up."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fhir_adapters import convert
from fhir_adapters.coverage.masking import said_of_people, shown
from fhir_adapters.coverage.report import CodeCount, CoverageReport, Fault, FieldCount, Remark, State
from fhir_adapters.coverage.samples import Sample, empty_sample, sample_of, without_indices
from fhir_adapters.errors import AdapterError
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import ConversionResult, Issue
from fhir_adapters.validation import validate

MAX_PLACES = 5_000
"""Most places, codes and faults of a kind that are listed; a report of more is read by nobody."""

_STEPS = re.compile(r"(\D*)(\d{1,9}|$)")
_CONCEPT = re.compile(r"no map for this code of ([^;]+);")
_NO_LOINC = "no LOINC is known for this vital sign"


@dataclass
class _First:
    """How often something was met, and in which sample first."""

    sample: int
    count: int = 0


@dataclass
class Coverage:
    """Adds up samples. Codes are masked when the report is made, when every name of the samples is known."""

    messages: int = 0
    converted: int = 0
    _seen: Counter[str] = field(default_factory=Counter)
    _unused: Counter[str] = field(default_factory=Counter)
    _parts: Counter[str] = field(default_factory=Counter)
    _kept: set[str] = field(default_factory=set)
    _codes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _refused: dict[tuple[str, str], _First] = field(default_factory=dict)
    _invalid: dict[tuple[str, str], _First] = field(default_factory=dict)
    _remarks: dict[tuple[str, str, str], _First] = field(default_factory=dict)
    _resources: Counter[str] = field(default_factory=Counter)
    _people: set[str] = field(default_factory=set)

    def convert(self, raw: bytes, format: str, profile: SourceProfile, number: int) -> None:
        """Convert a message, document or file; ``number`` says which sample it is of. Raises nothing of its content."""
        self.messages += 1
        try:
            result = convert(raw, format, replace(profile, validate=False))
        except AdapterError as error:
            self.refuse(error, number)
            return
        try:
            sample = sample_of(raw, format, profile)
        except (AdapterError, KeyError):
            sample = empty_sample()
        self.add(result, sample, number)

    def refuse(self, error: AdapterError, number: int) -> None:
        """Count a sample that could not be converted."""
        text = str(error).removeprefix(f"{error.location}: ") if error.location else str(error)
        self._fault(self._refused, without_indices(error.location), text, number)

    def add(self, result: ConversionResult, sample: Sample, number: int) -> None:
        """Count what was converted of a sample, and what was said about it."""
        self.converted += 1
        self._seen.update(sample.seen)
        for issue in result.issues:
            self._issue(issue, sample, number)
        for entry in result.bundle.get("entry", ()):
            self._resource(entry["resource"], number)

    def unused(self, places: Iterable[str]) -> None:
        """Count places that hold something and that the profile does not name (columns of a HIS's own tables)."""
        for place in places:
            self._unused[place] += self._seen.get(place, 0) or 1

    def saw(self, places: Mapping[str, int]) -> None:
        """Count places that hold something."""
        self._seen.update(places)

    def _resource(self, resource: Mapping[str, Any], number: int) -> None:
        self._resources[str(resource.get("resourceType"))] += 1
        self._people.update(said_of_people(resource))
        for issue in validate(dict(resource)):
            self._fault(self._invalid, without_indices(issue.location), issue.text, number)

    def _issue(self, issue: Issue, sample: Sample, number: int) -> None:
        place = sample.place(issue.location)
        if issue.code == "not-mapped":
            for each in sample.places(issue.location):
                part = each not in sample.seen and each.partition(".")[0] in sample.seen
                (self._parts if part else self._unused)[each] += 1
        elif issue.code == "unmapped-code":
            match = _CONCEPT.match(issue.text)
            concept = match[1] if match else "vital-sign" if issue.text == _NO_LOINC else issue.text
            self._codes[concept, sample.value(issue.location), place] += 1
        elif issue.code == "local-segment":
            self._kept.add(place)
        elif issue.severity == "error":
            self._fault(self._refused, place, issue.text, number)
        else:
            self._remarks.setdefault((issue.code, place, issue.text), _First(number)).count += 1

    @staticmethod
    def _fault(faults: dict[tuple[str, str], _First], place: str, text: str, number: int) -> None:
        faults.setdefault((place, text), _First(number)).count += 1

    def report(self) -> CoverageReport:
        """The sums."""
        people = frozenset(self._people)
        codes: Counter[tuple[str, str, str]] = Counter()
        for (concept, code, place), count in self._codes.items():
            codes[concept, shown(code, people), place] += count
        fields = sorted(self._fields(people), key=lambda each: _order(each.place))
        remarks = [Remark(*key, count=met.count, sample=met.sample) for key, met in sorted(self._remarks.items())]
        refused, invalid = _faults(self._refused), _faults(self._invalid)
        listed = [CodeCount(*key, count) for key, count in sorted(codes.items())]
        lists: tuple[Sequence[object], ...] = (fields, listed, remarks, refused, invalid)
        more = sum(max(0, len(each) - MAX_PLACES) for each in lists)
        return CoverageReport(
            self.messages,
            self.converted,
            dict(sorted(self._resources.items())),
            tuple(fields[:MAX_PLACES]),
            tuple(listed[:MAX_PLACES]),
            tuple(refused[:MAX_PLACES]),
            tuple(invalid[:MAX_PLACES]),
            tuple(remarks[:MAX_PLACES]),
            more,
        )

    def _fields(self, people: frozenset[str]) -> list[FieldCount]:
        partly = {place.partition(".")[0] for place in self._parts}
        made: list[FieldCount] = []
        for place in self._seen | self._unused:
            seen, unused = max(self._seen[place], self._unused[place]), self._unused[place]
            state: State = "mapped"
            if unused >= seen:
                state = "unused"
            elif unused or place in partly:
                state = "partly"
            elif place.partition("-")[0] in self._kept:
                state = "kept"
            made.append(FieldCount(_named(place, people), seen, unused, state))
        made += [FieldCount(place, count, count, "unused") for place, count in self._parts.items()]
        return made


def _faults(met: Mapping[tuple[str, str], _First]) -> list[Fault]:
    return [Fault(*key, count=each.count, sample=each.sample) for key, each in sorted(met.items())]


def _order(place: str) -> tuple[tuple[str, int], ...]:
    """Places as people count: PID-2 before PID-10."""
    return tuple((words, int(digits or 0)) for words, digits in _STEPS.findall(place))


def _named(place: str, people: frozenset[str]) -> str:
    """A place whose last step a file's header gave: a file without a header gives data there."""
    view, dot, column = place.partition(".")
    return f"{view}.{shown(column, people)}" if dot and not place.startswith("/") else place
