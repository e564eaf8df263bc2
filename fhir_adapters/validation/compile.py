"""From the shape of a type to a validator that runs in pydantic-core (Rust).

The *lean* validator knows no ``_element`` siblings of primitives and rejects a resource that has any; nearly all
converted resources pass it. The *full* one of each type knows everything and decides. Both refuse: unknown elements,
wrong types and cardinality, empty lists and objects, codes outside a required binding, references to a type that the
element does not allow, two values of one choice.

The lean one is a single schema for all types that adapters emit, in which every data type and pattern stands once: a
Bundle has some twenty types of resources, and twenty trees of their own would each be fetched from memory for a few
resources. Full validators are built when a type is first met (about 1 ms each). All are kept for the process.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic_core import CoreConfig, PydanticCustomError, SchemaValidator, core_schema

from fhir_adapters.validation.bindings import allowed_targets, required_codes
from fhir_adapters.validation.primitives import ID_CHARACTER, MAX_ID_CHARS, MAX_STRING_CHARS, primitive_schema
from fhir_adapters.validation.structure import (
    ANY_RESOURCE,
    EMITTED_TYPES,
    EXTENSION,
    PRIMITIVE_EXTENSION,
    PRIMITIVES,
    Element,
    Structure,
    is_resource,
    structure,
)

_Check = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes a validated object and gives it back (an outer check looks into it), or raises PydanticCustomError."""

KNOWN_SHAPES = 128
"""Valid combinations of names remembered of each type (about 100 bytes each): mappings make some ten of a type."""

_CONFIG = CoreConfig(title="FHIR R4", hide_input_in_errors=True)


@lru_cache(maxsize=1024)
def full_validator(type_name: str) -> SchemaValidator:
    """The validator that decides on a type. Raises KeyError for a type that R4B does not have."""
    return SchemaValidator(_Compiler(False).root(type_name), _CONFIG)


@lru_cache(maxsize=1024)
def lean_validator(type_name: str) -> SchemaValidator:
    """The quick validator of a resource type; one for all that adapters emit. Raises KeyError as ``full_validator``."""
    return _emitted() if type_name in EMITTED_TYPES else SchemaValidator(_Compiler(True).root(type_name), _CONFIG)


@lru_cache(maxsize=1)
def _emitted() -> SchemaValidator:
    return SchemaValidator(_Compiler(True).any_of([name for name in EMITTED_TYPES if is_resource(name)]), _CONFIG)


class _Compiler:
    """Builds one root schema. Full: types met inside it are inlined, and definitions only where they recur, because an
    inlined type is quicker. Lean: every type, pattern and Reference is a definition that all others share."""

    def __init__(self, lean: bool) -> None:
        self._lean = lean
        self._open: list[str] = []
        self._recursive: set[str] = set()
        self._definitions: dict[str, core_schema.CoreSchema] = {}
        self._any_resource = _delegated(_resource_type, lean)

    def root(self, type_name: str) -> core_schema.CoreSchema:
        return self._with_definitions(self._type(type_name, ()))

    def any_of(self, type_names: list[str]) -> core_schema.CoreSchema:
        self._any_resource = core_schema.definition_reference_schema(ANY_RESOURCE)
        choices = {name: self._type(name, ()) for name in type_names}
        self._define(ANY_RESOURCE, core_schema.tagged_union_schema(choices, discriminator="resourceType", strict=True))
        return self._with_definitions(self._any_resource)

    def _with_definitions(self, schema: core_schema.CoreSchema) -> core_schema.CoreSchema:
        return core_schema.definitions_schema(schema, list(self._definitions.values())) if self._definitions else schema

    def _define(self, key: str, schema: core_schema.CoreSchema) -> core_schema.CoreSchema:
        if key not in self._definitions:
            self._definitions[key] = {**schema, "ref": key}
        return core_schema.definition_reference_schema(key)

    def _type(self, name: str, targets: tuple[str, ...]) -> core_schema.CoreSchema:
        key = name + ("|" + "|".join(targets) if targets else "")
        if key in self._open:
            self._recursive.add(key)
            return core_schema.definition_reference_schema(key)
        if key in self._definitions:
            return core_schema.definition_reference_schema(key)
        self._open.append(key)
        schema = self._body(structure(name), targets)
        self._open.pop()
        return self._define(key, schema) if self._lean or key in self._recursive else schema

    def _body(self, shape: Structure, targets: tuple[str, ...]) -> core_schema.CoreSchema:
        fields: dict[str, core_schema.TypedDictField] = {}
        if shape.resource:
            fields["resourceType"] = core_schema.typed_dict_field(
                core_schema.literal_schema([shape.name]), required=True
            )
        demanded: list[str] = []
        for name, element in shape.elements.items():
            if self._lean and name.startswith("_"):
                continue
            primitive = element.kind in PRIMITIVES
            required = element.required and (self._lean or not primitive)
            if element.required and not required:
                demanded.append(name)
            schema = self._element(shape.name, name, element, targets)
            fields[name] = core_schema.typed_dict_field(schema, required=required)
        body: core_schema.CoreSchema = core_schema.typed_dict_schema(fields, strict=True, extra_behavior="forbid")
        return _with_checks(shape, body, demanded, self._lean)

    def _element(self, owner: str, name: str, element: Element, targets: tuple[str, ...]) -> core_schema.CoreSchema:
        codes = required_codes(owner, name, element.codes)
        schema: core_schema.CoreSchema
        if owner == "Reference" and name == "reference":
            schema = self._shared(_reference_text(targets, self._lean))
        elif codes:
            schema = core_schema.literal_schema(list(codes))
        elif element.kind in PRIMITIVES:
            schema = self._shared(primitive_schema(element.kind))
        elif element.kind == EXTENSION and not self._lean and owner != PRIMITIVE_EXTENSION and owner != EXTENSION:
            schema = _delegated(lambda _: EXTENSION)
        elif element.kind == ANY_RESOURCE:
            schema = self._any_resource
        else:
            schema = self._type(element.kind, allowed_targets(owner, name, element.targets))
        if not element.many:
            return schema
        if element.nulls:
            schema = core_schema.nullable_schema(schema)
        return core_schema.list_schema(schema, strict=True, min_length=1)

    def _shared(self, schema: core_schema.CoreSchema) -> core_schema.CoreSchema:
        """A text with its pattern, which takes more memory than all else: in the lean schema each stands once."""
        if not self._lean or "pattern" not in schema:
            return schema
        return self._define(f"{schema['pattern']} {schema.get('max_length')}", schema)


def _with_checks(
    shape: Structure, body: core_schema.CoreSchema, demanded: list[str], lean: bool
) -> core_schema.CoreSchema:
    """Add what a typed dict cannot say; only where the type needs it, because each check is a call into Python."""
    checks: list[_Check] = []
    checks.extend(_choice_check(names, required, lean) for names, required in shape.choices)
    if demanded:
        checks.append(_demand_check(tuple(demanded)))
    if shape.name == EXTENSION:
        checks.append(_extension_check)
    if shape.name == "Reference":
        body = core_schema.with_info_after_validator_function(_collect, body)
    elif checks:
        check = _of_shapes(checks) if lean else _all_of(checks)
        body = core_schema.no_info_after_validator_function(check, body)
    elif not any(each.required for each in shape.elements.values()) and not shape.resource:
        body = _counted(body) if lean else core_schema.no_info_after_validator_function(_not_empty, body)
    return body


def _counted(body: core_schema.CoreSchema) -> core_schema.CoreSchema:
    """As ``_not_empty`` without a call of Python code; what comes out is a number, which only a verdict can do with."""
    number = core_schema.no_info_plain_validator_function(len)
    return core_schema.chain_schema([body, number, core_schema.int_schema(ge=1)])


def _not_empty(value: dict[str, Any]) -> dict[str, Any]:
    # FHIR R4 2.6.2 (JSON): objects are never empty.
    if not value:
        raise PydanticCustomError("empty_object", "an object may not be empty")
    return value


def _all_of(checks: list[_Check]) -> _Check:
    if len(checks) == 1:
        return checks[0]

    def run(value: dict[str, Any]) -> dict[str, Any]:
        for check in checks:
            check(value)
        return value

    return run


def _of_shapes(checks: list[_Check]) -> _Check:
    """The checks of a lean validator look at names alone, and a mapping makes the same names over and over."""
    known: set[tuple[str, ...]] = set()

    def check(value: dict[str, Any]) -> dict[str, Any]:
        shape = tuple(value)
        if shape not in known:
            for each in checks:
                each(value)
            if len(known) < KNOWN_SHAPES:
                known.add(shape)
        return value

    return check


def _choice_check(names: tuple[str, ...], required: bool, lean: bool) -> _Check:
    values = frozenset(names)
    # In the full validator a sibling alone (_valueString without valueString) also makes the choice.
    siblings = frozenset() if lean else frozenset("_" + name for name in names)

    def check(value: dict[str, Any]) -> dict[str, Any]:
        chosen = value.keys() & values
        if required and not chosen:
            raise PydanticCustomError("choice_missing", "one data type of a required choice must stand")
        if siblings:
            chosen |= {name[1:] for name in value.keys() & siblings}
        if len(chosen) > 1:
            raise PydanticCustomError("choice_many", "only one data type of a choice may stand")
        return value

    return check


def _demand_check(names: tuple[str, ...]) -> _Check:
    def check(value: dict[str, Any]) -> dict[str, Any]:
        for name in names:
            # FHIR R4 2.4.0.1: a required primitive may be absent when extensions say why.
            sibling = value.get("_" + name)
            if name not in value and not _has_extension(sibling):
                raise PydanticCustomError("missing", "{element} is required", {"element": name})
        return value

    return check


def _has_extension(sibling: Any) -> bool:
    siblings = sibling if isinstance(sibling, list) else [sibling]
    return any(isinstance(each, dict) and each.get("extension") for each in siblings)


def _extension_check(value: dict[str, Any]) -> dict[str, Any]:
    # ext-1 (FHIR R4 2.4): an extension has either a value or extensions, never both, never neither.
    has_value = any(name.startswith(("value", "_value")) for name in value)
    if has_value == ("extension" in value):
        raise PydanticCustomError("extension_content", "an extension has either a value or extensions")
    return value


def _reference_text(targets: tuple[str, ...], lean: bool = False) -> core_schema.CoreSchema:
    """Text of Reference.reference: relative (to an allowed type), absolute, urn or contained (FHIR R4 2.3.0.1).

    The lean one bounds the id by the length of the whole, and so refuses some that are valid: a pattern that counts has
    a state for every character counted, and some thirty such automata push a document out of the processor's cache.
    """
    types = "|".join(map(re.escape, targets)) if targets else "[A-Z][A-Za-z]{1,63}"
    one_id = rf"{ID_CHARACTER}+" if lean else rf"{ID_CHARACTER}{{1,{MAX_ID_CHARS}}}"
    relative = rf"({types})(/{one_id}(/_history/{one_id})?|\?[^\s\x00-\x1F]+)"
    absolute = r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1F]+"
    shortest_type = min(map(len, targets), default=2)
    longest = shortest_type + len("/") + MAX_ID_CHARS if lean else MAX_STRING_CHARS
    return core_schema.str_schema(
        strict=True, pattern=rf"^({relative}|{absolute}|#[^\s\x00-\x1F]*)$", max_length=longest
    )


def _collect(value: dict[str, Any], info: core_schema.ValidationInfo) -> dict[str, Any]:
    """Check a Reference and note where it points, unless an identifier also says what it means."""
    if not value:
        _not_empty(value)
    found: list[str] | None = info.context
    if found is not None and "reference" in value and "identifier" not in value:
        found.append(value["reference"])
    return value


def _resource_type(value: Any) -> str:
    name = value.get("resourceType") if isinstance(value, dict) else None
    if not isinstance(name, str) or not is_resource(name):
        raise PydanticCustomError("resource_type", "not a resource of a known type")
    return name


def _delegated(type_of: Callable[[Any], str], lean: bool = False) -> core_schema.CoreSchema:
    """A part with a validator of its own: extensions and contained resources, which would pull in every data type."""
    chosen = lean_validator if lean else full_validator

    def check(value: Any, info: core_schema.ValidationInfo) -> Any:
        return chosen(type_of(value)).validate_python(value, context=info.context)

    return core_schema.with_info_plain_validator_function(check)
