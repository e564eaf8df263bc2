"""Coded values (CWE, CNE, CE, CF, IS, ID: 2.A.13, 2.A.8) as CodeableConcept and Coding.

Guide: CWE[CodeableConcept]. The local code comes first, the alternates follow as further codings; the original text, or
the description where there is no code, is ``text``. Nothing is translated here.
"""

import re
from functools import lru_cache
from urllib.parse import quote

from fhir_adapters.codes import Concept, table
from fhir_adapters.codes import spellings as spellings
from fhir_adapters.codes import with_meaning as with_meaning
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.message import NULL, Segment

CARRIED = 9
"""Components of a CWE that are always carried: two triplets, two versions, the original text."""

_TABLE = re.compile(r"(?:HL7|HL7-)?0?(\d{4})$")
_OID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+", re.ASCII)
_WELL_KNOWN_OIDS = {
    "2.16.840.1.113883.6.1": "http://loinc.org",
    "2.16.840.1.113883.6.8": "http://unitsofmeasure.org",
    "2.16.840.1.113883.6.96": "http://snomed.info/sct",
    "2.16.840.1.113883.6.3": "http://hl7.org/fhir/sid/icd-10",
    "2.16.840.1.113883.6.90": "http://hl7.org/fhir/sid/icd-10-cm",
}
_LOCAL = frozenset({"", "L", "LOCAL"})


@lru_cache(maxsize=1024)
def code_system(base_url: str, name: str, oid: str = "") -> str:
    """The system URI of a coding system by its name in HL7 table 0396 and its OID; "" when nothing is said.

    Unknown names get a system below the site's base URL: two sites' local codes never meet by accident.
    """
    if oid and _OID.fullmatch(oid):
        return _WELL_KNOWN_OIDS.get(oid, "urn:oid:" + oid)
    known = table("hl7-0396-code-system").codes
    concept = known.get(name) or known.get(name.upper())
    if concept is not None:
        return concept.code
    numbered = _TABLE.fullmatch(name.upper())
    if numbered is not None:
        return f"http://terminology.hl7.org/CodeSystem/v2-{numbered[1]}"
    if name.count(".") >= 3 and _OID.fullmatch(name):
        return _WELL_KNOWN_OIDS.get(name, "urn:oid:" + name)
    if not name:
        return ""
    return f"{base_url}/CodeSystem/{'local' if name.upper() in _LOCAL else quote(name, safe='')}"


def concept(conv: Conversion, segment: Segment, number: int) -> Json | None:
    """Take a field as one CodeableConcept; further repetitions are remarked on."""
    if not segment.fields[number]:
        return None
    raw = segment.take(number)
    if not raw:
        return None
    if "~" in raw:
        raw, *more = raw.split("~")
        if any(more):
            conv.issue("information", "not-mapped", segment, number, "only the first repetition has a place")
    return from_raw(conv, raw, segment, number)


def concepts(conv: Conversion, segment: Segment, number: int) -> list[Json]:
    """Take a repeating field as CodeableConcepts."""
    raw = segment.take(number)
    if not raw:
        return []
    return [made for each in raw.split("~") if each and (made := from_raw(conv, each, segment, number))]


def from_raw(conv: Conversion, raw: str, segment: Segment, number: int, default_system: str = "") -> Json | None:
    """The CodeableConcept of one raw repetition; None when it is empty."""
    if "^" not in raw:
        code = conv.text(raw)
        if " " in code or not code.isprintable():
            code = " ".join(code.split())
        if not code:
            return None
        return {"coding": [{"system": default_system, "code": code} if default_system else {"code": code}]}
    parts = raw.split("^")
    count = len(parts)
    if count < CARRIED:
        parts += [""] * (CARRIED - count)
    codings: list[Json] = []
    first = coding(conv, parts, 0, default_system)
    if first is not None:
        codings.append(first)
    text = conv.text(parts[8]) if count > 8 else ""
    if count > 3:
        second = coding(conv, parts, 3, "")
        if second is not None:
            codings.append(second)
        if count > CARRIED:
            _further(conv, parts, codings, segment, number)
    if not codings:
        # A description without a code is what the sender wrote for people to read.
        described = text or conv.text(parts[1]) or conv.text(parts[4])
        if text and (parts[1] or parts[4]) and conv.text(parts[1] or parts[4]) != text:
            conv.not_mapped(segment, number, 2 if parts[1] else 5)
        return {"text": described} if described else None
    if text:
        return {"coding": codings, "text": text}
    if not parts[0] and parts[1]:
        return {"coding": codings, "text": conv.text(parts[1])}
    return {"coding": codings}


def coding(conv: Conversion, parts: list[str], at: int, default_system: str = "") -> Json | None:
    """The Coding of the triplet at index ``at`` (0, 3 or 9) of a split CWE; None without a code."""
    code = conv.text(parts[at])
    if not code:
        return None
    if " " in code or "\n" in code:
        code = " ".join(code.split())  # FHIR code: single blanks only
    made: Json = {}
    name = parts[at + 2] if at + 2 < len(parts) else ""
    if len(parts) <= CARRIED and not parts[6] and not parts[7]:  # no versions and no OIDs: what most senders send
        system = code_system(conv.profile.base_url, conv.text(name)) if name else default_system
        if system:
            made["system"] = system
    else:
        oid = _component(parts, {0: 13, 3: 16, 9: 20}[at])
        system = code_system(conv.profile.base_url, conv.text(name), conv.text(oid)) if name or oid else default_system
        if system:
            made["system"] = system
        version = conv.text(_component(parts, {0: 6, 3: 7, 9: 12}[at]))
        if version:
            made["version"] = version
    made["code"] = code
    display = conv.text(parts[at + 1]) if at + 1 < len(parts) else ""
    if display:
        made["display"] = display
    return made


def _component(parts: list[str], index: int) -> str:
    return parts[index] if index < len(parts) else ""


# CWE.10-12 second alternate, .13 its version, .14 .17 .21 OIDs of the code systems; the rest names value sets.
_CARRIED_BEYOND = frozenset((9, 10, 11, 12, 13, 16, 20))


def _further(conv: Conversion, parts: list[str], codings: list[Json], segment: Segment, number: int) -> None:
    third = coding(conv, parts, 9)
    if third is not None:
        codings.append(third)
    for index in range(CARRIED, len(parts)):
        if parts[index] and parts[index] != NULL and index not in _CARRIED_BEYOND:
            conv.not_mapped(segment, number, index + 1)


def mapped(conv: Conversion, kind: str, segment: Segment, number: int) -> tuple[Concept | None, Json | None]:
    """Take a coded field: what the tables say of its code, and the concept as sent (for what has no map)."""
    if not segment.fields[number]:
        return None, None
    raw = segment.take(number)
    if not raw:
        return None, None
    if "~" in raw:
        raw, *more = raw.split("~")
        if any(more):
            conv.issue("information", "not-mapped", segment, number, "only the first repetition has a place")
    return mapped_raw(conv, kind, raw, segment, number)


def mapped_raw(
    conv: Conversion, kind: str, raw: str, segment: Segment, number: int
) -> tuple[Concept | None, Json | None]:
    """As ``mapped`` for one repetition already taken. A code without a map is remarked on."""
    if "^" not in raw and "\\" not in raw:  # a code alone, as most senders write it
        code = raw.strip()
        known = conv.find(kind, code) if code else None
        if known is not None:
            return known, {"coding": [{"code": " ".join(code.split()) if " " in code else code}]}
    sent = from_raw(conv, raw, segment, number)
    if sent is None:
        return None, None
    for candidate in spellings(sent):
        found = conv.find(kind, candidate)
        if found is not None:
            return found, sent
    conv.unmapped_code(kind, segment, number)
    return None, sent


def translated(conv: Conversion, kind: str, segment: Segment, number: int) -> Json | None:
    """Take a coded field as a CodeableConcept that leads with the tables' meaning and keeps the code as sent."""
    if not segment.fields[number]:
        return None
    meaning, sent = mapped(conv, kind, segment, number)
    return with_meaning(meaning, sent)
