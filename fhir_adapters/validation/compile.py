"""From the shape of a type to a validator that runs in pydantic-core (Rust).

Two validators per resource type. The *lean* one knows no ``_element`` siblings of primitives and rejects a resource
that has any; nearly all converted resources pass it. The *full* one knows everything and decides. Both refuse:
unknown elements, wrong types and cardinality, empty lists and objects, codes outside a required binding, references to
a type that the element does not allow, two values of one choice.

Validators are built when a type is first met (about 1 ms each) and kept for the process.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic_core import CoreConfig, PydanticCustomError, SchemaValidator, core_schema

from fhir_adapters.validation.bindings import allowed_targets, required_codes
from fhir_adapters.validation.primitives import MAX_STRING_CHARS, primitive_schema
from fhir_adapters.validation.structure import (
    ANY_RESOURCE,
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

_ID = r"[A-Za-z0-9\-.]{1,64}"
_CONFIG = CoreConfig(title="FHIR R4", hide_input_in_errors=True)


@lru_cache(maxsize=1024)
def validator(type_name: str, lean: bool) -> SchemaValidator:
    """The validator of a type. Raises KeyError for a type that R4B does not have."""
    return SchemaValidator(_Compiler(lean).root(type_name), _CONFIG)


class _Compiler:
    """Builds one root schema; types met inside it are inlined, and shared definitions only where they recur."""

    def __init__(self, lean: bool) -> None:
        self._lean = lean
        self._open: list[str] = []
        self._recursive: set[str] = set()
        self._definitions: dict[str, core_schema.CoreSchema] = {}

    def root(self, type_name: str) -> core_schema.CoreSchema:
        schema = self._type(type_name, ())
        return core_schema.definitions_schema(schema, list(self._definitions.values())) if self._definitions else schema

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
        if key in self._recursive:
            schema["ref"] = key  # type: ignore[index]
            self._definitions[key] = schema
            return core_schema.definition_reference_schema(key)
        return schema

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
            schema = _reference_text(targets)
        elif codes:
            schema = core_schema.literal_schema(list(codes))
        elif element.kind in PRIMITIVES:
            schema = primitive_schema(element.kind)
        elif element.kind == EXTENSION and owner != PRIMITIVE_EXTENSION and owner != EXTENSION:
            schema = _delegated(lambda _: EXTENSION, self._lean)
        elif element.kind == ANY_RESOURCE:
            schema = _delegated(_resource_type, self._lean)
        else:
            schema = self._type(element.kind, allowed_targets(owner, name, element.targets))
        if not element.many:
            return schema
        if element.nulls:
            schema = core_schema.nullable_schema(schema)
        return core_schema.list_schema(schema, strict=True, min_length=1)


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
        body = core_schema.no_info_after_validator_function(_all_of(checks), body)
    elif not any(each.required for each in shape.elements.values()) and not shape.resource:
        body = core_schema.no_info_after_validator_function(_not_empty, body)
    return body


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


def _reference_text(targets: tuple[str, ...]) -> core_schema.CoreSchema:
    """Text of Reference.reference: relative (to an allowed type), absolute, urn or contained (FHIR R4 2.3.0.1)."""
    types = "|".join(map(re.escape, targets)) if targets else "[A-Z][A-Za-z]{1,63}"
    relative = rf"({types})(/{_ID}(/_history/{_ID})?|\?[^\s\x00-\x1F]+)"
    absolute = r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1F]+"
    return core_schema.str_schema(
        strict=True, pattern=rf"^({relative}|{absolute}|#[^\s\x00-\x1F]*)$", max_length=MAX_STRING_CHARS
    )


def _collect(value: dict[str, Any], info: core_schema.ValidationInfo) -> dict[str, Any]:
    """Check a Reference and note where it points, unless an identifier also says what it means."""
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


def _delegated(type_of: Callable[[Any], str], lean: bool) -> core_schema.CoreSchema:
    """A part with a validator of its own: extensions and contained resources, which would pull in every data type."""

    def check(value: Any, info: core_schema.ValidationInfo) -> Any:
        return validator(type_of(value), lean).validate_python(value, context=info.context)

    return core_schema.with_info_plain_validator_function(check)
