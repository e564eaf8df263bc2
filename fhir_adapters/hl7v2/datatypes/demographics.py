"""Names, addresses and numbers to call (XPN, XAD, XTN: 2.A.88, 2.A.1, 2.A.89).

Chinese names often come whole in the family name, or as family and given; either way ``text`` holds the name as it is
read, without a blank. Addresses likewise: ``text`` runs from the province to the house.
"""

import re

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import timestamps
from fhir_adapters.hl7v2.message import NULL, Segment

_HAN = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]")
_DIGITS = re.compile(r"\D+")
_ADDRESS_TYPES = {"M": "postal", "SH": "postal", "P": "physical", "O": "physical", "H": "physical"}

XPN_CARRIED = 7
XAD_CARRIED = 9


def names(conv: Conversion, segment: Segment, number: int, use: str = "") -> list[Json]:
    """Take a field of XPN repetitions as HumanNames; ``use`` is what they have when XPN-7 says nothing."""
    if not segment.fields[number]:
        return []
    raw = segment.take(number)
    return [made for each in raw.split("~") if each and (made := name(conv, each, segment, number, use))]


def name(conv: Conversion, raw: str, segment: Segment, number: int, use: str = "") -> Json | None:
    """The HumanName of one XPN."""
    parts = raw.split("^")
    if len(parts) < XPN_CARRIED:
        parts += [""] * (XPN_CARRIED - len(parts))
    built = from_parts(conv, parts[0], parts[1], parts[2], prefix=parts[4], suffixes=(parts[3], parts[5]))
    kind = parts[6]
    if kind and kind != NULL:
        known = conv.find("name-use", conv.text(kind))
        if known is None:
            conv.unmapped_code("name-use", segment, number)
        else:
            use = known.code
    if use and built:
        built = {"use": use, **built}
    if len(parts) > XPN_CARRIED:
        _rest_of_name(conv, parts, built, segment, number)
    return built or None


def from_parts(
    conv: Conversion, family: str, given: str, middle: str = "", *, prefix: str = "", suffixes: tuple[str, ...] = ()
) -> Json:
    """HumanName of raw components; {} when all are empty."""
    built: Json = {}
    # FN: the surname is the first subcomponent or, where that is missing, made of own and spouse's parts.
    if "&" in family:
        pieces = [conv.text(piece) for piece in family.split("&")]
        surname = pieces[0] or " ".join(piece for piece in pieces[1:] if piece)
    else:
        surname = conv.text(family)
    first = conv.text(given) if given else ""
    second = conv.text(middle) if middle else ""
    han = not surname.isascii() and _HAN.search(surname) is not None
    if han and not first and len(surname) > 1:
        built["text"] = surname  # a whole name: which part is the family name is not ours to guess
    else:
        if surname:
            if first and han:
                built["text"] = surname + first + second
            built["family"] = surname
        if first or second:
            built["given"] = [each for each in (first, second) if each]
    if prefix and (text := conv.text(prefix)):
        built["prefix"] = [text]
    if any(suffixes):
        kept = [text for each in suffixes if each and (text := conv.text(each))]
        if kept:
            built["suffix"] = kept
    return built


def _rest_of_name(conv: Conversion, parts: list[str], built: Json, segment: Segment, number: int) -> None:
    """XPN-10 validity range (DR), XPN-12 and 13 effective and expiration date, XPN-14 professional suffix."""
    period: Json = {}
    for index in range(XPN_CARRIED, len(parts)):
        raw = parts[index]
        if not raw or raw == NULL:
            continue
        if index == 9:
            start, end = [*raw.split("&"), ""][:2]
            timestamps.put_raw(conv, period, "start", start, segment, number)
            timestamps.put_raw(conv, period, "end", end, segment, number)
        elif index in (11, 12):
            timestamps.put_raw(conv, period, "start" if index == 11 else "end", raw, segment, number)
        elif index == 13:
            built.setdefault("suffix", []).append(conv.text(raw))
        else:
            conv.not_mapped(segment, number, index + 1)
    if period:
        timestamps.check_period(conv, period, segment, number)
        built["period"] = period


def addresses(conv: Conversion, segment: Segment, number: int) -> list[Json]:
    """Take a field of XAD repetitions as Addresses."""
    if not segment.fields[number]:
        return []
    raw = segment.take(number)
    return [made for each in raw.split("~") if each and (made := address(conv, each, segment, number))]


def address(conv: Conversion, raw: str, segment: Segment, number: int) -> Json | None:
    """The Address of one XAD (or of the AD of earlier versions)."""
    parts = raw.split("^")
    count = len(parts)
    if count < XAD_CARRIED:
        parts += [""] * (XAD_CARRIED - count)
    built: Json = {}
    kind = conv.text(parts[6]) if parts[6] else ""
    if kind:
        known = conv.find("address-use", kind)
        if known is not None:
            built["use"] = known.code
        if kind in _ADDRESS_TYPES:
            built["type"] = _ADDRESS_TYPES[kind]
        elif known is None:
            conv.unmapped_code("address-use", segment, number)
    street = _street(conv, parts[0])
    lines = [street] if street else []
    if parts[1] or parts[7]:
        lines += [each for each in (conv.text(parts[1]), conv.text(parts[7])) if each]
    if lines:
        built["line"] = lines
    for element, index in (("city", 2), ("district", 8), ("state", 3), ("postalCode", 4), ("country", 5)):
        # XAD-9 is a CWE since v2.9: code and name
        if parts[index] and (value := _joined(conv, parts[index])):
            built[element] = value
    if built and not raw.isascii() and _HAN.search(raw):
        built["text"] = "".join(
            piece for piece in (built.get("state"), built.get("city"), built.get("district"), *lines) if piece
        )
    if count > XAD_CARRIED:
        _rest_of_address(conv, parts, built, segment, number)
    return built or None


def _street(conv: Conversion, component: str) -> str:
    """SAD: the whole line, and beside or instead of it the street's name and the house number."""
    if "&" not in component:
        return conv.text(component)
    whole, *pieces = (conv.text(piece) for piece in component.split("&"))
    return " ".join(each for each in (whole, *(piece for piece in pieces if piece not in whole)) if each)


def _joined(conv: Conversion, component: str) -> str:
    """The subcomponents of a component as one text."""
    if "&" not in component:
        return conv.text(component)
    return " ".join(text for piece in component.split("&") if (text := conv.text(piece)))


def _rest_of_address(conv: Conversion, parts: list[str], built: Json, segment: Segment, number: int) -> None:
    period: Json = {}
    for index in range(XAD_CARRIED, len(parts)):
        raw = parts[index]
        if not raw or raw == NULL:
            continue
        if index == 11:
            start, end = [*raw.split("&"), ""][:2]
            timestamps.put_raw(conv, period, "start", start, segment, number)
            timestamps.put_raw(conv, period, "end", end, segment, number)
        elif index in (12, 13):
            timestamps.put_raw(conv, period, "start" if index == 12 else "end", raw, segment, number)
        else:
            conv.not_mapped(segment, number, index + 1)
    if period:
        timestamps.check_period(conv, period, segment, number)
        built["period"] = period


def telecoms(conv: Conversion, segment: Segment, number: int, use: str = "") -> list[Json]:
    """Take a field of XTN repetitions as ContactPoints; ``use`` is what they have when XTN-2 says nothing."""
    if not segment.fields[number]:
        return []
    raw = segment.take(number)
    made: list[Json] = []
    for repetition in raw.split("~"):
        made += telecom(conv, repetition, segment, number, use)
    return made


def telecom(conv: Conversion, raw: str, segment: Segment, number: int, use: str = "") -> list[Json]:
    """The ContactPoints of one XTN: a number, an address, or both when it holds both."""
    if "^" not in raw:
        value = conv.text(raw)
        return [_point("email" if "@" in value else "phone", value, use)] if value else []
    parts = [conv.text(part) for part in raw.split("^")]
    parts += [""] * (12 - len(parts))
    kind, equipment = parts[1], parts[2]
    known_use = conv.find("telecom-use", kind) if kind else None
    known_system = conv.find("telecom-system", equipment) if equipment else None
    if known_use is not None:
        use = known_use.code
    elif kind and kind != "NET":
        conv.unmapped_code("telecom-use", segment, number)
    if equipment and known_system is None:
        conv.unmapped_code("telecom-system", segment, number)
    if equipment == "CP":
        use = "mobile"
    system = known_system.code if known_system else "phone"
    made: list[Json] = []
    electronic = parts[3]
    composed = _composed(parts)
    written = parts[11] or parts[0]
    if "@" in written and electronic in ("", written):
        electronic, written = written, ""
    if written:
        made.append(_point("phone" if system == "email" else system, written, use))
    # XTN-1 is deprecated beside the parts of the number: where the two differ both are kept.
    if composed and _DIGITS.sub("", parts[6]) not in _DIGITS.sub("", written):
        made.append(_point("phone" if system == "email" else system, composed, use))
    if electronic:
        made.append(
            _point("email" if "@" in electronic else "url" if "://" in electronic else "other", electronic, use)
        )
    _rest_of_telecom(conv, parts, made, segment, number)
    return made


def _composed(parts: list[str]) -> str:
    country, area, local, extension = parts[4:8]
    if not local:
        return ""
    number = f"({area}) {local}" if area else local
    if country:
        number = f"+{country.lstrip('+')} {number}"
    return f"{number} ext. {extension}" if extension else number


def _rest_of_telecom(conv: Conversion, parts: list[str], made: list[Json], segment: Segment, number: int) -> None:
    period: Json = {}
    for index, value in enumerate(parts):
        if not value or index in (0, 1, 2, 3, 6, 11):
            continue
        if index in (4, 5, 7):
            if not parts[6]:
                conv.not_mapped(segment, number, index + 1)
        elif index in (12, 13):
            timestamps.put_raw(conv, period, "start" if index == 12 else "end", value, segment, number)
        elif index == 17 and value.isascii() and value.isdigit() and int(value[:9]) > 0 and made:
            made[0]["rank"] = int(value[:9])
        else:
            conv.not_mapped(segment, number, index + 1)
    if period and made:
        timestamps.check_period(conv, period, segment, number)
        made[0]["period"] = period


def _point(system: str, value: str, use: str) -> Json:
    point: Json = {"system": system, "value": value}
    if use:
        point["use"] = use
    return point
