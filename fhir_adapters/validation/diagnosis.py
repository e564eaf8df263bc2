"""Why a resource was refused, place by place, without repeating what stands there.

fhir.resources is asked first; what only the stricter rules of this package refuse is added.
"""

from collections.abc import Iterable
from typing import Any

from pydantic_core import ValidationError

from fhir_adapters.result import Issue
from fhir_adapters.validation.structure import model_class

MAX_ISSUES = 50
"""Issues reported for one resource: the first ones tell what is wrong, a million do not help."""

_TEXTS = {
    "missing": "a required element is missing",
    "model_field_validation.missing": "a required element is missing",
    "extra_forbidden": "no such element",
    "literal_error": "a code outside the required value set",
    "string_pattern_mismatch": "text that its data type does not allow",
    "string_too_long": "text longer than its data type allows",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "too_short": "a list may not be empty",
    "greater_than_equal": "a number below its allowed range",
    "less_than_equal": "a number above its allowed range",
    "choice_many": "only one data type of a choice may stand",
    "choice_missing": "one data type of a required choice must stand",
    "extension_content": "an extension has either a value or extensions",
    "empty_object": "an object may not be empty",
    "resource_type": "not a resource of a known type",
    "recursion_loop": "an element contains itself",
}
_OTHER = "not valid FHIR R4"


def diagnose(type_name: str, resource: dict[str, Any], own: ValidationError) -> list[Issue]:
    """Issues for a resource that the full validator refused; at least one. Locations start with the type."""
    found: dict[str, Issue] = {}
    for errors in (_models_errors(type_name, resource), own.errors(include_url=False, include_input=False)):
        for error in errors:
            location = _location(type_name, error["loc"])
            text = _TEXTS.get(error["type"], _OTHER)
            # The models say "value error" for many things; the own validator's reason is then the better one.
            if location not in found or found[location].text == _OTHER:
                found[location] = Issue("error", "invalid", location, text)
    return list(found.values())[:MAX_ISSUES]


def _models_errors(type_name: str, resource: dict[str, Any]) -> Iterable[Any]:
    try:
        model_class(type_name).model_validate(resource)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False, include_context=False)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        # The models let these through for some malformed input; our own errors still name the place.
        return ()
    return ()


def _location(type_name: str, path: tuple[int | str, ...]) -> str:
    text = type_name
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step[:64]}"
    return text
