"""Names, addresses and telecommunication addresses (EN, AD, TEL: HL7 V3 data types R1) as FHIR data types."""

from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json, joined, plain_text
from fhir_adapters.cda.datatypes import times
from fhir_adapters.cda.node import name_of
from fhir_adapters.xml.tree import Element

EN_QUALIFIER = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-qualifier"

# C-CDA on FHIR, name use, address use and telecom use; a use without a counterpart is left out.
_NAME_USES = MappingProxyType(
    {"L": "official", "C": "official", "P": "nickname", "A": "nickname", "ASGN": "usual", "SRCH": "usual"}
)
_ADDRESS_USES = MappingProxyType(
    {
        **dict.fromkeys(("H", "HP", "HV"), "home"),
        **dict.fromkeys(("WP", "DIR", "PUB"), "work"),
        "TMP": "temp",
        "BAD": "old",
        "OLD": "old",
    }
)
_TELECOM_USES = MappingProxyType(
    {**dict.fromkeys(("H", "HP", "HV"), "home"), **dict.fromkeys(("WP", "DIR", "PUB"), "work")}
    | {"MC": "mobile", "TMP": "temp", "BAD": "old"}
)
_SCHEMES = MappingProxyType(
    {"tel": "phone", "fax": "fax", "mailto": "email", "sms": "sms", "pager": "pager"}
    | dict.fromkeys(("http", "https", "ftp", "file", "mllp", "modem", "nfs", "telnet"), "url")
)
# In the order of the parts of a Chinese address: the smaller within the larger.
_LINES = ("township", "streetName", "houseNumber", "houserNumber", "houseNumberNumeric", "buildingNumberSuffix")
_PLACES = MappingProxyType(
    {"state": "state", "city": "city", "county": "district", "postalCode": "postalCode", "country": "country"}
)
_PARTS = MappingProxyType({"given": "given", "family": "family", "prefix": "prefix", "suffix": "suffix"})


def _first_use(el: Element, uses: MappingProxyType[str, str]) -> str:
    """The first of an element's uses (a list divided by blanks) that has a counterpart."""
    sent = el.get("use")
    if sent is None:
        return ""
    return uses[sent] if sent in uses else next((uses[each] for each in sent.split() if each in uses), "")


def human_name(conv: Conversion, el: Element) -> Json | None:
    """The HumanName of a PN; None when it names nobody."""
    if el.get("nullFlavor"):
        return None
    made: Json = {}
    use = _first_use(el, _NAME_USES)
    if use:
        made["use"] = use
    if len(el):
        _name_parts(conv, made, el)
        whole = _loose_text(el)
        if whole:
            made["text"] = whole
    elif el.text and el.text.strip():
        made["text"] = " ".join(el.text.split())
    return made if any(name != "use" for name in made) else None


def _name_parts(conv: Conversion, made: Json, el: Element) -> None:
    qualified: dict[str, list[Json | None]] = {}
    for part in el:
        name = name_of(part)
        if name == "validTime":
            found = times.period(conv, part)
            if found:
                made["period"] = found
            continue
        element = _PARTS.get(name)
        text = plain_text(part)
        if element is None:
            if name != "delimiter" and text:
                conv.not_mapped(part)
            continue
        if not text:
            continue
        qualifier = part.get("qualifier", "").split()
        note = {"extension": [{"url": EN_QUALIFIER, "valueCode": each} for each in qualifier]} if qualifier else None
        if element == "family":
            if "family" in made:
                made["family"] += " " + text
            else:
                made["family"] = text
                if note:
                    made["_family"] = note
        else:
            made.setdefault(element, []).append(text)
            qualified.setdefault(element, []).append(note)
    for element, notes in qualified.items():
        if any(notes):
            made["_" + element] = notes


def human_names(conv: Conversion, elements: list[Element]) -> list[Json]:
    """The HumanNames of several PN."""
    return [made for el in elements if (made := human_name(conv, el)) is not None]


def written(name: Json) -> str:
    """A name as one text."""
    return name.get("text") or joined([*name.get("prefix", ()), *name.get("given", ()), name.get("family", "")])


def organization_name(el: Element) -> str:
    """The text of an ON."""
    return "" if el.get("nullFlavor") else plain_text(el)


def address(conv: Conversion, el: Element) -> Json | None:
    """The Address of an AD; None when it says nothing. Chinese parts are joined into its text as they are written."""
    if el.get("nullFlavor"):
        return None
    made: Json = {}
    use = _first_use(el, _ADDRESS_USES)
    if use:
        made["use"] = use
    western: list[str] = []
    chinese: dict[str, str] = {}
    for part in el:
        name = name_of(part)
        if name == "useablePeriod":
            times_used = times.period(conv, part)
            if times_used:
                made["period"] = times_used
            continue
        text = plain_text(part)
        if not text or name == "delimiter":
            continue
        if name in _PLACES:
            element = _PLACES[name]
            made[element] = f"{made[element]} {text}" if element in made else text
        elif name in _LINES:
            chinese[name] = chinese.get(name, "") + text
        else:
            western.append(text)
    if western or chinese:
        made["line"] = western + [chinese[name] for name in _LINES if name in chinese]
    if chinese:
        places = [made[element] for element in ("state", "city", "district") if element in made]
        made["text"] = "".join(places + [chinese[name] for name in _LINES if name in chinese])
    loose = _loose_text(el)
    if loose:
        made["text"] = loose
    return made if made.keys() - {"use", "period"} else None


def _loose_text(el: Element) -> str:
    """Text of an element that stands outside its parts."""
    whole = el.text or ""
    for part in el:
        tail = part.tail
        if tail:
            whole += tail
    return " ".join(whole.split()) if whole and not whole.isspace() else ""


def addresses(conv: Conversion, elements: list[Element]) -> list[Json]:
    """The Addresses of several AD."""
    return [made for el in elements if (made := address(conv, el)) is not None]


def telecom(conv: Conversion, el: Element) -> Json | None:
    """The ContactPoint of a TEL; None when it says nothing."""
    value = " ".join(el.get("value", "").split())
    if not value or el.get("nullFlavor"):
        return None
    scheme, colon, rest = value.partition(":")
    system = _SCHEMES.get(scheme.lower()) if colon else None
    made: Json = {}
    if system is not None:
        made["system"] = system
        value = value if system == "url" else rest.strip()
    else:
        made["system"] = "email" if "@" in value else "phone"
    if not value:
        return None
    made["value"] = value
    use = _first_use(el, _TELECOM_USES)
    if use:
        made["use"] = use
    for part in el:
        found = times.period(conv, part) if name_of(part) == "useablePeriod" else {}
        if found:
            made["period"] = found
        else:
            conv.not_mapped(part)
    return made


def telecoms(conv: Conversion, elements: list[Element]) -> list[Json]:
    """The ContactPoints of several TEL, each once."""
    made: list[Json] = []
    for el in elements:
        one = telecom(conv, el)
        if one is not None and one not in made:
            made.append(one)
    return made
