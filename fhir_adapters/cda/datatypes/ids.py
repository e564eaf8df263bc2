"""Instance identifiers (II: HL7 V3 data types R1, 2.7) as FHIR Identifiers, and the keys of resources.

National OIDs (WS/T 682, arc 2.16.156.10011.1) are of two sorts. Some number people for the whole country (identity
number, health record, health card): the OID is the system. The others only say what kind of number it is (record,
visit, order, report, specimen, staff): the same digits mean another patient in the next hospital, so their system is
that of the institution that issued them, as it is in the other adapters, and the kind goes into the type. A site
overrides either by a line ``"2.16.156.10011.1.13" = "…"`` in its profile's ``assigning_authorities``.
"""

import re
from functools import lru_cache
from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.identifiers import (
    ID_CARD_SYSTEM,
    IDENTIFIER_KINDS,
    assigning_system,
    check_resident_id,
    identifier_type,
    is_valid_uscc,
)
from fhir_adapters.profile import SourceProfile
from fhir_adapters.xml.tree import Element

ARC = "2.16.156.10011.1."
RFC_3986 = "urn:ietf:rfc:3986"
SSN_OID, NPI_OID = "2.16.840.1.113883.4.1", "2.16.840.1.113883.4.6"
_WELL_KNOWN = MappingProxyType({SSN_OID: "http://hl7.org/fhir/sid/us-ssn", NPI_OID: "http://hl7.org/fhir/sid/us-npi"})
_KINDS = MappingProxyType(
    {
        "2": "health-record",
        "3": "id-card",
        "4": "staff",
        "5": "institution",
        "7": "staff",
        "11": "outpatient",
        "12": "inpatient",
        "13": "case-record",
        "14": "specimen",
        "19": "health-card",
        "20": "prescription",
        "21": "room",
        "22": "bed",
        "24": "request-form",
        "26": "department",
        "27": "ward",
        "32": "exam-report",
        "33": "lab-report",
    }
)
NATIONAL = frozenset({"2", "3", "5", "19"})
"""Kinds whose numbers are issued once for the country."""

_OID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


def kind_of(el: Element) -> str:
    """The last arc of a national identifier OID ("12" for 住院号), "" for another root."""
    root = el.get("root", "")
    return root[len(ARC) :] if root.startswith(ARC) else ""


def key(conv: Conversion, el: Element) -> tuple[str, str] | None:
    """System and value that an II names; None when it names nothing."""
    root, extension = el.get("root", "").strip(), " ".join(el.get("extension", "").split())
    if extension:
        kind = kind_of(el)
        if kind:
            return _national_system(conv.profile, conv.issuer, root, kind), extension
        return _system(conv.profile, el.get("assigningAuthorityName", "").strip(), root), extension
    if not root or kind_of(el) or el.get("nullFlavor"):
        return None
    if _UUID.fullmatch(root):
        return RFC_3986, "urn:uuid:" + root.lower()
    return (RFC_3986, "urn:oid:" + root) if _OID.fullmatch(root) else None


def _national_system(profile: SourceProfile, issuer: str, root: str, kind: str) -> str:
    own = profile.assigning_authorities.get(root)
    if own is not None:
        return own
    return "urn:oid:" + root if kind in NATIONAL else assigning_system(profile, issuer)


def _system(profile: SourceProfile, name: str, root: str) -> str:
    for known in (name, root):
        if known and known in profile.assigning_authorities:
            return profile.assigning_authorities[known]
    well_known = _WELL_KNOWN.get(root)
    return well_known or assigning_system(profile, "" if root else name, root)


def identifier(conv: Conversion, el: Element) -> Json | None:
    """The Identifier of an II; None when it names nothing. Identity numbers are checked."""
    found = key(conv, el)
    if found is None:
        return None
    system, value = found
    kind = kind_of(el)
    if kind == "3" or system == ID_CARD_SYSTEM:
        return _id_card(conv, el, value)
    made: Json = {}
    if kind:
        typed = _kind_type(kind)
        if kind == "5" and is_valid_uscc(value):
            return {"type": identifier_type("XX"), "system": IDENTIFIER_KINDS["uscc"].system, "value": value}
        if typed:
            made["type"] = _copy(typed)
    elif el.get("root") == SSN_OID:
        made["type"] = identifier_type("SS")
    made["system"] = system
    made["value"] = value
    return made


@lru_cache(maxsize=64)
def _kind_type(kind: str) -> Json:
    """The type of a national kind of number: its v2-0203 code, where there is one, and the OID itself."""
    known = IDENTIFIER_KINDS.get(_KINDS.get(kind, ""))
    if known is None:
        return {}
    codings = identifier_type(known.type_code)["coding"] if known.type_code else []
    if kind not in NATIONAL:
        codings = [*codings, {"system": RFC_3986, "code": f"urn:oid:{ARC}{kind}", "display": known.display}]
    return {"coding": codings} if codings else {"text": known.display}


def _copy(typed: Json) -> Json:
    return {name: [dict(each) for each in value] if name == "coding" else value for name, value in typed.items()}


def _id_card(conv: Conversion, el: Element, value: str) -> Json:
    checked = check_resident_id(value)
    if not checked.valid:
        text = f"not a valid resident identity number ({checked.problem}); it is kept as sent"
        conv.issue("warning", "bad-identifier", el, text)
    return {
        "type": identifier_type("NNCHN"),
        "system": ID_CARD_SYSTEM,
        "value": checked.value if checked.valid else value,
    }


def identifiers(conv: Conversion, elements: list[Element]) -> list[Json]:
    """The Identifiers of several II, each (system, value) once."""
    if len(elements) == 1:
        one = identifier(conv, elements[0])
        return [] if one is None else [one]
    made: list[Json] = []
    for el in elements:
        one = identifier(conv, el)
        if one is not None and all((one["system"], one["value"]) != (k["system"], k["value"]) for k in made):
            made.append(one)
    return made


def resource_key(conv: Conversion, type_name: str, made: list[Json], el: Element) -> str:
    """The id of a clinical resource: by its first identifier or business key, else by its place in the document."""
    if made:
        return conv.claim(type_name, made[0]["system"], made[0]["value"], el)
    named = conv.keys.get(el)
    if named is not None:
        return conv.claim(type_name, *named, el)
    return conv.place_id(type_name, el)
