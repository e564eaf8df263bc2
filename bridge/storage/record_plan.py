"""What a set of writes will do to the record store, worked out before the transaction that does it.

All that costs time (canonical bytes, hashes, sealing, the terms of the index) happens here, over the rows as they were
read; ``RecordStore.apply`` then only writes rows, and fails with ``VersionConflict`` where one of them is no longer
what was read. So a worker holds the database for as long as inserting takes, and no longer.

Which write wins is decided here too:

- equal content makes no version;
- a message that arrived earlier does not replace what a later one wrote (it was run again after a fix, or another
  process was quicker): ``PutResult.outdated``;
- an amendment is put on top of what is stored, whenever it arrives (``bridge.storage.amendments``);
- a mere mention replaces only what it says at least as much about (``bridge.storage.mentions``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from anchor import canonical
from anchor.gm import sm3
from bridge.storage.amendments import amended, with_kept
from bridge.storage.contradictions import contradicted
from bridge.storage.keyring import NODE, DataKey, KeyRing
from bridge.storage.mentions import says_as_much
from bridge.storage.record_versions import (
    PreparedWrite,
    PutResult,
    StoredVersion,
    associated_data,
    instant,
    prepared,
)
from bridge.storage.search_index import IndexEntry, index_entry

Place = tuple[str, str]
"""Type and id of a resource."""


@dataclass(frozen=True, slots=True)
class CurrentState:
    """The ``resource`` row of a place; ``content`` only where this plan itself wrote it."""

    version: int
    updated: int
    content_key: bytes
    deleted: bool
    terms: bytes
    arrival: int | None
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one place: ``before`` is the row to replace (None: a new one), ``subject`` whose key seals it."""

    place: Place
    subject: str
    before: CurrentState | None
    after: CurrentState
    index: IndexEntry


@dataclass(slots=True)
class WritePlan:
    """Rows ready to be written.

    ``results`` are in the order of the writes; ``versions`` are new versions with their sealed content; ``arrivals``
    are places whose content stays and whose last word is now a later message: (arrival, type, id, version).
    """

    results: list[PutResult]
    versions: list[tuple[StoredVersion, bytes]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    arrivals: list[tuple[int, str, str, int]] = field(default_factory=list)
    new_keys: Mapping[str, DataKey] = field(default_factory=dict)
    subjects: frozenset[str] = frozenset()
    updated: dict[str, int] = field(default_factory=dict)


class Planner:
    """Works out one plan; ``current`` are the rows there are, ``milliseconds`` the time of the new versions."""

    def __init__(
        self,
        keyring: KeyRing,
        keys: Mapping[str, DataKey],
        current: Mapping[Place, CurrentState],
        contents: Mapping[tuple[Place, int], bytes],
        milliseconds: int,
    ) -> None:
        self._keyring = keyring
        self._keys = keys
        self._now = milliseconds
        self._before = current
        self._state: dict[Place, CurrentState] = dict(current)
        self._contents = contents
        self._last: dict[Place, PreparedWrite] = {}

    def plan(self, writes: Sequence[PreparedWrite], deleted: bool = False) -> WritePlan:
        """Return what the writes lead to, taken in order."""
        plan = WritePlan(results=[])
        arrivals: dict[Place, int] = {}
        for each in writes:
            place = (each.type, each.id)
            state = self._state.get(place)
            write = self._on_top(each, state)
            contradicts = self._contradictions(each, state)
            verdict = self._verdict(write, state, deleted)
            if verdict is not None:
                plan.results.append(replace(verdict, contradicts=contradicts) if contradicts else verdict)
                if not verdict.outdated and _is_last_word(write, state):
                    assert write.arrival is not None
                    assert state is not None
                    arrivals[place] = write.arrival
                    self._state[place] = replace(state, arrival=write.arrival)
                continue
            arrivals.pop(place, None)
            result = self._written(plan, write, state, deleted)
            plan.results.append(replace(result, contradicts=contradicts) if contradicts else result)
        self._settle(plan, deleted)
        changed = {change.place for change in plan.changes}
        plan.arrivals = [
            (arrival, *place, self._before[place].version)
            for place, arrival in sorted(arrivals.items())
            if place not in changed
        ]
        return plan

    def _verdict(self, write: PreparedWrite, state: CurrentState | None, deleted: bool) -> PutResult | None:
        """Return the result of a write that changes nothing; None for one that makes a version."""
        if state is None:
            return None
        unchanged = PutResult(write.type, write.id, state.version, False, None)
        if _is_outdated(write, state) and not write.given.amends:
            same = state.content_key == write.content_key and state.deleted == deleted
            return unchanged if same else replace(unchanged, outdated=True)
        if state.content_key == write.content_key and state.deleted == deleted:
            return unchanged
        if write.mention and not state.deleted and not self._may_replace(write, state):
            return unchanged
        return None

    def _may_replace(self, write: PreparedWrite, state: CurrentState) -> bool:
        """Whether a mention says at least as much as the current version."""
        return says_as_much(write.resource, _parsed(self._content(write, state)))

    def _contradictions(self, write: PreparedWrite, state: CurrentState | None) -> tuple[str, ...]:
        """Return where a source contradicts what is stored of a patient; a merge says that a record is another's."""
        if write.type != "Patient" or state is None or state.deleted or write.given.amends:
            return ()
        if write.content_key == state.content_key or not (write.mention or write.builds_on_stored):
            return ()
        return contradicted(_parsed(self._content(write, state)), write.resource)

    def _on_top(self, write: PreparedWrite, state: CurrentState | None) -> PreparedWrite:
        """Return the write with what it leaves of the stored version, where it does not say all there is to say."""
        given = write.given
        if state is None or state.deleted or not write.builds_on_stored or write.content_key == state.content_key:
            return write
        stored = canonical.load(self._content(write, state))
        if given.amends or given.unlinks:
            whole = amended(
                stored,
                write.resource,
                elements=given.amends,
                unlinked=given.unlinks,
                later=not _is_outdated(write, state),
            )
        else:
            whole = with_kept(write.resource, stored, given.keeps)
            if whole is write.resource:
                return write
        return prepared(replace(given, resource=whole), self._keyring)

    def _content(self, write: PreparedWrite, state: CurrentState) -> bytes:
        return self._contents[(write.type, write.id), state.version] if state.content is None else state.content

    def _written(self, plan: WritePlan, write: PreparedWrite, state: CurrentState | None, deleted: bool) -> PutResult:
        number = 1 if state is None else state.version + 1
        # a clock set back must not make a later version look older
        updated = max(self._now, 0 if state is None else state.updated)
        content = write.content(number, instant(updated))
        version = StoredVersion(
            write.type, write.id, number, instant(updated), content, sm3(content), write.subject, deleted, write.lineage
        )
        sealed = self._keys[write.subject].seal(content, associated_data(write.type, write.id, number))
        plan.versions.append((version, sealed))
        plan.updated[version.ref] = updated
        place = (write.type, write.id)
        arrival = write.arrival
        if state is not None and state.arrival is not None:
            arrival = state.arrival if arrival is None else max(arrival, state.arrival)
        # the terms are settled at the end, once for each place
        self._state[place] = CurrentState(number, updated, write.content_key, deleted, b"", arrival, content)
        self._last[place] = write
        return PutResult(write.type, write.id, number, True, version)

    def _settle(self, plan: WritePlan, deleted: bool) -> None:
        """Say what becomes of each place that has new versions, in one order for all writers."""
        for place in sorted(self._last):
            write = self._last[place]
            index = index_entry(self._keyring, write.resource, deleted)
            after = replace(self._state[place], terms=index.terms)
            plan.changes.append(Change(place, write.subject, self._before.get(place), after, index))
        plan.versions.sort(key=lambda each: (each[0].type, each[0].id, each[0].version))


def _is_outdated(write: PreparedWrite, state: CurrentState) -> bool:
    """Whether a message that arrived later than this write's said what stands there."""
    return write.arrival is not None and state.arrival is not None and write.arrival < state.arrival


def _is_last_word(write: PreparedWrite, state: CurrentState | None) -> bool:
    """Whether an unchanged resource is to remember that a later message said the same.

    Not for what belongs to no patient: every message names the hospital and its departments, and noting it would have
    all workers wait for one row.
    """
    return (
        write.arrival is not None
        and not write.mention
        and write.subject != NODE
        and state is not None
        and (state.arrival is None or state.arrival < write.arrival)
    )


def _parsed(content: bytes) -> dict[str, Any]:
    """Parse what this node wrote; only its shape is looked at, so numbers may lose their lexemes."""
    try:
        parsed: dict[str, Any] = orjson.loads(content)
    except orjson.JSONDecodeError:  # a number beyond a float's range, which is canonical all the same
        parsed = canonical.load(content)
    return parsed
