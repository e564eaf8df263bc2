"""Message structures as data, and the grouping of segments by them.

A structure (each family has its own) says which segments open a group, which belong into it and which groups it holds,
as the chapters of the standard print it. Grouping is lenient where senders are: order inside a group does not matter,
and a segment from its middle opens a group whose first one is missing. Segments outside the tree are read by nobody and
so remarked on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fhir_adapters.hl7v2.message import Segment


@dataclass(frozen=True, slots=True)
class Group:
    """One group of a structure.

    ``opens`` are the segments it begins with, in their order: one that comes again, or after a later one, begins the
    next repetition. ``once`` are those that stand once, anywhere in it; ``many`` those that repeat; ``groups`` are
    nested.
    """

    name: str
    opens: tuple[str, ...]
    once: frozenset[str] = frozenset()
    many: frozenset[str] = frozenset()
    groups: tuple["Group", ...] = ()

    def reach(self) -> frozenset[str]:
        """Every segment that this group or one inside it takes."""
        return (
            frozenset(self.opens)
            | self.once
            | self.many
            | frozenset(name for group in self.groups for name in group.reach())
        )


@dataclass(slots=True)
class Node:
    """One repetition of a group in a message."""

    group: Group
    segments: list[Segment] = field(default_factory=list)
    children: list["Node"] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def first(self, name: str) -> Segment | None:
        """The first segment of a name in this repetition itself."""
        if name in self.names:
            for segment in self.segments:
                if segment.name == name:
                    return segment
        return None

    def all(self, name: str) -> Iterator[Segment]:
        """The segments of a name in this repetition itself."""
        return (segment for segment in self.segments if segment.name == name)

    def groups(self, name: str) -> Iterator["Node"]:
        """The repetitions of a nested group."""
        return (child for child in self.children if child.group.name == name)


def many(*names: str) -> frozenset[str]:
    """The segments of a group that repeat. A participation (PRT) may follow anything since v2.7."""
    return frozenset((*names, "PRT"))


OBSERVATION = Group("OBSERVATION", ("OBX",), many=many("NTE"))
SPECIMEN = Group("SPECIMEN", ("SPM",), many=many("NTE"))
PROCEDURE = Group("PROCEDURE", ("PR1",), many=many("ROL"))
INSURANCE = Group("INSURANCE", ("IN1",), once=frozenset({"IN2"}), many=frozenset({"IN3", "ROL"}))
TIMING = Group("TIMING", ("TQ1",), many=frozenset({"TQ2"}))


def patient(*groups: Group, also: Iterable[str] = (), opens: tuple[str, ...] = ("PID",)) -> Group:
    """The group that every message about a patient has: the person, the visit and what surrounds them."""
    return Group(
        "PATIENT",
        opens,
        once=frozenset({"PD1", "PV1", "PV2", *also}),
        many=many("NK1", "NTE", "AL1", "IAM", "DG1", "GT1", "ROL", "ARV"),
        groups=(*groups, PROCEDURE, INSURANCE),
    )


_REACHES: dict[int, frozenset[str]] = {}
_ROUTES: dict[tuple[int, str], Group | None] = {}


def _reach(group: Group) -> frozenset[str]:
    known = _REACHES.get(id(group))  # groups are module constants: their ids do not come again
    if known is None:
        known = _REACHES[id(group)] = group.reach()
    return known


def _route(group: Group, name: str) -> Group | None:
    """Which group of ``group`` takes a segment: one that has it itself before one that has it further inside."""
    key = (id(group), name)
    if key not in _ROUTES:
        own = (inner for inner in group.groups if name in inner.opens or name in inner.once or name in inner.many)
        _ROUTES[key] = next(own, None) or next((inner for inner in group.groups if name in _reach(inner)), None)
    return _ROUTES[key]


def group_segments(segments: list[Segment], structure: Group) -> Node:
    """Arrange segments by a structure. Those that no group takes (Z-segments among them) stay outside the tree."""
    root = Node(structure)
    path = [root]
    known = _reach(structure)
    for segment in segments:
        if segment.name in known:
            _place(path, segment, segment.name)
    return root


def _place(path: list[Node], segment: Segment, name: str) -> None:
    """Put a segment into the innermost open repetition that takes it, opening and closing groups on the way."""
    depth = len(path) - 1
    while depth >= 0:
        node = path[depth]
        if name in node.group.many or _fits(node, name):
            del path[depth + 1 :]
            node.segments.append(segment)
            node.names.add(name)
            return
        inner = _route(node.group, name)
        if inner is not None:
            del path[depth + 1 :]
            _open(path, inner, segment, name)
            return
        depth -= 1


def _fits(node: Node, name: str) -> bool:
    if name in node.group.once:
        return name not in node.names
    opens = node.group.opens
    if name not in opens or name in node.names or (name == opens[0] and node.children):
        return False  # what has begun without its first segment is over when that comes: it would be another's
    return len(opens) == 1 or not any(later in node.names for later in opens[opens.index(name) + 1 :])


def _open(path: list[Node], group: Group, segment: Segment, name: str) -> None:
    while True:
        node = Node(group)
        path[-1].children.append(node)
        path.append(node)
        if name in group.opens or name in group.once or name in group.many:
            node.segments.append(segment)
            node.names.add(name)
            return
        inner = _route(group, name)
        assert inner is not None
        group = inner
