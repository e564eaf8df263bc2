"""Business identifiers (CX, EI, HD: 2.A.14, 2.A.28, 2.A.33) as FHIR Identifiers.

Guide: CX[Identifier], EI[Identifier]. Chinese identity numbers are recognised by their type code, their assigning
authority or, where neither is said, by their own check digit; a number that fails the check is kept, flagged and
remarked on. Passports and the papers that foreigners and residents of Hong Kong, Macao and Taiwan show have systems of
their own: the same digits of two countries are two people.
"""

from fhir_adapters.extensions import IDENTIFIER_CHECK
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import timestamps
from fhir_adapters.hl7v2.message import NULL, Segment
from fhir_adapters.identifiers import ID_CARD_SYSTEM, check_resident_id, identifier_type
from fhir_adapters.identifiers.build import PROJECT_SYSTEMS
from fhir_adapters.identifiers.countries import COUNTRIES

CHECK_DIGIT = "http://hl7.org/fhir/StructureDefinition/identifier-checkDigit"
CHECK_DIGIT_SCHEME = "http://hl7.org/fhir/StructureDefinition/namingsystem-checkDigit"
CX_CARRIED = 5
_ID_CARD_TYPE = "NNCHN"
_PASSPORT = "PPN"
_ID_CARD_WORDS = frozenset({"NNCHN", "SFZ", "IDCARD", "ID_CARD", "身份证", "身份证号", "居民身份证", "公民身份号码"})


def identifiers(conv: Conversion, segment: Segment, number: int, default_type: str = "") -> list[Json]:
    """Take a field of CX repetitions as Identifiers, each (system, value) once."""
    if not segment.fields[number]:
        return []
    raw = segment.take(number)
    return [made for each in raw.split("~") if each and (made := identifier(conv, each, segment, number, default_type))]


def identifier(conv: Conversion, raw: str, segment: Segment, number: int, default_type: str = "") -> Json | None:
    """The Identifier of one CX; None without a value (its other components are remarked on)."""
    parts = raw.split("^")
    if len(parts) < CX_CARRIED:
        parts += [""] * (CX_CARRIED - len(parts))
    value = conv.text(parts[0])
    if not value:
        conv.leftover(parts, 1, segment, number)
        return None
    kind = conv.text(parts[4])
    if _is_id_card(conv, kind, parts[3], value):
        return _id_card(conv, value, parts, segment, number)
    built: Json = {}
    if kind:
        known = conv.find("identifier-type", kind)
        if known is not None:
            built["type"] = {"coding": [known.coding()]}
        else:
            built["type"] = {"text": kind}
            conv.unmapped_code("identifier-type", segment, number)
    elif default_type:
        built["type"] = identifier_type(default_type)
    built["system"] = _paper_system(conv, built, kind, parts) or conv.system(parts[3])
    built["value"] = value
    _further(conv, built, parts, segment, number)
    return built


def _paper_system(conv: Conversion, built: Json, kind: str, parts: list[str]) -> str:
    """The system of a number that an authority outside the hospital gave; "" when the message says whose it is.

    A passport's is its country's (CX-4, CX-6 or CX-9, ISO 3166); others are told apart by their type in CV02.01.101.
    """
    codings = built.get("type", {}).get("coding")
    if not codings:
        return ""
    if codings[0]["code"] == _PASSPORT:
        for index in (8, 3, 5):
            country = conv.text(parts[index].split("&")[0]) if index < len(parts) else ""
            if country in COUNTRIES:
                return f"http://hl7.org/fhir/sid/passport-{country}"
        return "" if parts[3] else PROJECT_SYSTEMS + "passport"
    if kind.isdigit() and not parts[3]:
        return f"{PROJECT_SYSTEMS}id-type-{kind}"
    return ""


def _is_id_card(conv: Conversion, kind: str, authority: str, value: str) -> bool:
    if kind:
        if kind.upper() in _ID_CARD_WORDS:
            return True
        known = conv.find("identifier-type", kind)
        if known is not None and known.code == _ID_CARD_TYPE:
            return True
        if kind in ("NI", "NNxxx", "SS") and len(value) == 18:
            return check_resident_id(value).valid
    if authority and conv.system(authority) == ID_CARD_SYSTEM:
        return True
    # Neither type nor authority: 18 characters with a right check digit, birth date and region are one by nature.
    return not kind and not authority and len(value) == 18 and check_resident_id(value).valid


def _id_card(conv: Conversion, value: str, parts: list[str], segment: Segment, number: int) -> Json:
    checked = check_resident_id(value)
    if not checked.valid:
        text = f"not a valid resident identity number ({checked.problem}); it is kept as sent"
        conv.issue("warning", "bad-identifier", segment, number, text)
    elif checked.upgraded:
        conv.issue("information", "identifier-form", segment, number, "a number of 15 digits was brought to 18")
    built: Json = {
        "type": identifier_type(_ID_CARD_TYPE),
        "system": ID_CARD_SYSTEM,
        "value": checked.value if checked.valid else value,
    }
    if not checked.valid:
        flag(built, checked.problem)
    _further(conv, built, parts, segment, number)
    return built


def flag(built: Json, problem: str) -> None:
    """Say in an Identifier which rule of its standard the number breaks."""
    built.setdefault("extension", []).append({"url": IDENTIFIER_CHECK, "valueCode": problem})


def is_flagged(built: Json) -> bool:
    """Whether an Identifier's number breaks its standard."""
    return any(each["url"] == IDENTIFIER_CHECK for each in built.get("extension", ()))


def _further(conv: Conversion, built: Json, parts: list[str], segment: Segment, number: int) -> None:
    """CX-2 check digit, CX-6 facility, CX-7 and 8 validity, CX-9 and 10 jurisdiction and agency (the assigner)."""
    check_digit = conv.text(parts[1])
    if check_digit:
        built.setdefault("extension", []).append({"url": CHECK_DIGIT, "valueString": check_digit})
    scheme = conv.text(parts[2])
    if scheme:
        built.setdefault("extension", []).append({"url": CHECK_DIGIT_SCHEME, "valueCode": " ".join(scheme.split())})
    if len(parts) == CX_CARRIED:
        return
    period: Json = {}
    for index in range(CX_CARRIED, len(parts)):
        raw = parts[index]
        if not raw or raw == NULL:
            continue
        if index in (6, 7):
            timestamps.put_raw(conv, period, "start" if index == 6 else "end", raw, segment, number)
        elif index in (5, 8, 9) and "assigner" not in built:
            names = [text for piece in raw.split("&") if (text := conv.text(piece))]
            if names:
                built["assigner"] = {"display": names[0]}
        else:
            conv.not_mapped(segment, number, index + 1)
    if period:
        timestamps.check_period(conv, period, segment, number)
        built["period"] = period


def entity(conv: Conversion, raw: str, type_code: str = "") -> Json | None:
    """The Identifier of an EI (entity, namespace, universal id, its type); None without a value.

    ``raw`` is one repetition with ``^`` between its components; replace ``&`` first in an EI that is a component.
    """
    parts = raw.split("^")
    value = conv.text(parts[0])
    if not value:
        return None
    built: Json = {}
    if type_code:
        built["type"] = identifier_type(type_code)
    built["system"] = conv.system("&".join(parts[1:4]))
    built["value"] = value
    return built


def add_identifier(resource: Json, made: Json | None) -> None:
    """Append an Identifier unless the resource has one of the same system and value."""
    if made is None:
        return
    known = resource.setdefault("identifier", [])
    for each in known:
        if each["value"] == made["value"] and each["system"] == made["system"]:
            return
    known.append(made)


def key_of(made: Json) -> tuple[str, str]:
    """System and value: what a resource id is made of."""
    return made["system"], made["value"]
