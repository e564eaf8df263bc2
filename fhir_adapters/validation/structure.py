"""The shape of FHIR types, read off the installed fhir.resources R4B models.

A :class:`Structure` says what one type may hold: element names, primitive kind or complex type, cardinality, the
codes of required bindings, the targets of references and the groups of which at most (or exactly) one may stand.
``structures.json`` holds those of the types that the adapters emit, so that a start-up need not import the models
(0.4 s); types outside it are read from the models when first met. A test makes the file again and compares.
"""

import json
import typing
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

_PRIMITIVE_KINDS = """boolean string base64Binary code id decimal integer unsignedInt positiveInt uri canonical oid uuid
url markdown xhtml date dateTime instant time"""
PRIMITIVES = frozenset(_PRIMITIVE_KINDS.split())
ANY_RESOURCE = "Resource"
EXTENSION = "Extension"
PRIMITIVE_EXTENSION = "FHIRPrimitiveExtension"
_SKIPPED_FIELDS = frozenset({"fhir_comments"})  # FHIR R4 removed comments from JSON

_EMITTED = """Account AllergyIntolerance Appointment AuditEvent Binary Bundle CarePlan CareTeam ChargeItem
Communication Composition Condition Consent Coverage Device DeviceUseStatement DiagnosticReport DocumentReference
Encounter Extension FamilyMemberHistory Flag Goal Immunization Location Media Medication MedicationAdministration
MedicationDispense MedicationRequest MedicationStatement MessageHeader NutritionOrder Observation OperationOutcome
Organization Patient Practitioner PractitionerRole Procedure Provenance RelatedPerson Schedule ServiceRequest Slot
Specimen SupplyDelivery SupplyRequest Task"""
EMITTED_TYPES = tuple(_EMITTED.split())
"""Resource types (and Extension) whose structures are kept in ``structures.json``, with every type they contain."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element. ``kind`` is a primitive kind or a type name; ``codes`` and ``targets`` are () for "any"."""

    kind: str
    many: bool = False
    required: bool = False
    codes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    nulls: bool = False


@dataclass(frozen=True, slots=True)
class Structure:
    """One type. ``choices`` are (element names, one of them required) for each choice of data types."""

    name: str
    resource: bool
    elements: dict[str, Element]
    choices: tuple[tuple[tuple[str, ...], bool], ...] = ()


@lru_cache(maxsize=2048)
def structure(name: str) -> Structure:
    """The structure of a type by its FHIR name. Raises KeyError for a name that R4B does not have."""
    packed = _packed().get(name)
    if packed is None:
        return derive(name)
    elements = {
        key: Element(**{**value, "codes": tuple(value.get("codes", ())), "targets": tuple(value.get("targets", ()))})
        for key, value in packed["elements"].items()
    }
    choices = tuple((tuple(group), required) for group, required in packed.get("choices", ()))
    return Structure(name, packed.get("resource", False), elements, choices)


def is_resource(name: str) -> bool:
    """Whether R4B has a resource type of this name."""
    try:
        return name.isalnum() and structure(name).resource
    except KeyError:
        return False


def derive(name: str) -> Structure:
    """Read a type's structure off its fhir.resources R4B model. Raises KeyError for an unknown name."""
    model = model_class(name)
    required = {field for field, _ in model.get_required_fields(model)}
    groups = model.get_one_of_many_fields(model)
    elements = {
        (field.alias or key): _element(field, (field.alias or key) in required or key in required)
        for key, field in model.model_fields.items()
        if key not in _SKIPPED_FIELDS and key != "resource_type"
    }
    aliases = {key: field.alias or key for key, field in model.model_fields.items()}
    choices = tuple(
        (
            tuple(aliases[key] for key in keys),
            bool(model.model_fields[keys[0]].json_schema_extra["one_of_many_required"]),
        )
        for keys in groups.values()
    )
    return Structure(name, model.has_resource_base(), elements, choices)


def _choice_required(field: Any) -> bool:
    return bool(field.json_schema_extra["one_of_many_required"])


def model_class(name: str) -> Any:
    """The fhir.resources R4B model of a type. Raises KeyError for an unknown name."""
    registry = import_module("fhir_core.constraints").FHIR_TYPES_MAPS
    import_module("fhir.resources.R4B.fhirtypes")  # fills the registry, under "R4." without the B
    module, _, attribute = str(registry[f"R4.{name}Type"]).rpartition(".")
    return getattr(import_module(module), attribute)


def pack(names: typing.Iterable[str]) -> dict[str, Any]:
    """What ``structures.json`` holds: the structures of ``names`` and of every type inside them, defaults left out."""
    packed: dict[str, Any] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in packed or name == ANY_RESOURCE:
            continue
        shape = derive(name)
        waiting.extend(each.kind for each in shape.elements.values() if each.kind not in PRIMITIVES)
        entry: dict[str, Any] = {"elements": {key: _sparse(each) for key, each in sorted(shape.elements.items())}}
        if shape.resource:
            entry["resource"] = True
        if shape.choices:
            entry["choices"] = [[list(group), required] for group, required in shape.choices]
        packed[name] = entry
    return dict(sorted(packed.items()))


def _sparse(element: Element) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(element).items() if value}


@lru_cache(maxsize=1)
def _packed() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(files("fhir_adapters.validation").joinpath("structures.json").read_bytes())
    return content


def _element(field: Any, listed_required: bool) -> Element:
    extra = field.json_schema_extra or {}
    many, nulls, kind = False, False, ""
    for part in _alternatives(field.annotation):
        if typing.get_origin(part) is list:
            many = True
            inner = list(_alternatives(typing.get_args(part)[0]))
            nulls = type(None) in inner
            kind = next(_kind(each) for each in inner if each is not type(None))
        elif part is not type(None):
            kind = _kind(part) if not field.metadata else _kind(part, field.metadata)
    enumerable = kind == "code" and "enum_values" in extra
    return Element(
        kind,
        many,
        listed_required or field.is_required(),
        tuple(extra["enum_values"]) if enumerable else (),
        _targets(extra.get("enum_reference_types", ())) if kind == "Reference" else (),
        nulls,
    )


def _targets(types: typing.Iterable[str]) -> tuple[str, ...]:
    named = tuple(types)
    return () if ANY_RESOURCE in named or "Any" in named else named


def _alternatives(annotation: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Union or str(origin) == "<class 'types.UnionType'>":
        yield from typing.get_args(annotation)
    else:
        yield annotation


def _kind(annotation: Any, metadata: typing.Iterable[Any] = ()) -> str:
    if hasattr(annotation, "get_model_klass"):
        return str(annotation.__name__).removesuffix("Type")
    if annotation is bool:
        return "boolean"
    for mark in (*getattr(annotation, "__metadata__", ()), *metadata):
        visit_name = getattr(mark, "__visit_name__", None)
        if visit_name in PRIMITIVES:
            return str(visit_name)
        if type(mark).__name__ == "UuidVersion":
            return "uuid"
    if annotation is str:
        return "string"
    raise KeyError(str(annotation))


def _write() -> None:
    """Make ``structures.json`` again: ``python -m fhir_adapters.validation.structure``."""
    lines = (
        f"{json.dumps(name)}: {json.dumps(shape, separators=(',', ':'), sort_keys=True)}"
        for name, shape in pack(EMITTED_TYPES).items()
    )
    Path(__file__).with_name("structures.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    _write()
