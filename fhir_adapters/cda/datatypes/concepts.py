"""Coded values (CD, CE, CV, CS: HL7 V3 data types R1, 2.5) as CodeableConcept and Coding.

The code comes first, its translations follow as further codings, and the original text, found in the narrative where
it is a reference, is ``text``. A nullFlavor with translations or text keeps these; one with nothing gives None.
"""

import re
from functools import lru_cache
from urllib.parse import quote

from fhir_adapters.cda.context import Conversion, Json, plain_text
from fhir_adapters.cda.datatypes.nulls import absent_concept, reason_of
from fhir_adapters.cda.node import child, children, said
from fhir_adapters.codes import Concept, table, with_meaning
from fhir_adapters.codes import spellings as spellings
from fhir_adapters.xml.tree import V3, Element

_OID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_ORIGINAL, _TRANSLATION = f"{{{V3}}}originalText", f"{{{V3}}}translation"
# Code systems by the names that stand where an OID is missing.
_NAMED = {
    "LOINC": "http://loinc.org",
    "SNOMED CT": "http://snomed.info/sct",
    "SNOMED-CT": "http://snomed.info/sct",
    "RXNORM": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "CVX": "http://hl7.org/fhir/sid/cvx",
    "ICD-10-CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "UCUM": "http://unitsofmeasure.org",
}
DATA_ELEMENTS = "urn:oid:2.16.156.10011.2.2.1"
"""卫生信息数据元目录, the catalogue whose codes (DE04.01.119.00) say what a Chinese entry is about."""


@lru_cache(maxsize=2048)
def system_of(base_url: str, oid: str, name: str) -> str:
    """The system URI of a code system by its OID (or UUID), else by its name; "" when nothing is said."""
    oid = oid.strip()
    if oid:
        known = table("oid-code-system").codes.get(oid)
        if known is not None:
            return known.code
        if _OID.fullmatch(oid):
            return "urn:oid:" + oid
        if _UUID.fullmatch(oid):
            return "urn:uuid:" + oid.lower()
        if ":" in oid and not any(character.isspace() for character in oid):
            return oid
    name = name.strip()
    if not name and not oid:
        return ""
    return _NAMED.get(name.upper()) or f"{base_url}/CodeSystem/{quote(name or oid, safe='')}"


def coding(conv: Conversion, el: Element) -> Json | None:
    """The Coding of an element's own attributes; None without a code."""
    code = el.get("code")
    if not code:
        return None
    code = " ".join(code.split())
    if not code:
        return None
    made: Json = {}
    system = system_of(conv.profile.base_url, el.get("codeSystem", ""), el.get("codeSystemName", ""))
    if system:
        made["system"] = system
    version = el.get("codeSystemVersion", "").strip()
    if version:
        made["version"] = version
    made["code"] = code
    display = " ".join(el.get("displayName", "").split())
    if display:
        made["display"] = display
    return made


def concept(conv: Conversion, el: Element | None) -> Json | None:
    """The CodeableConcept of a coded element; None when it says nothing."""
    if el is None:
        return None
    own = coding(conv, el)
    codings = [own] if own is not None else []
    text = ""
    if len(el):
        text = _children(conv, el, codings)
    elif el.text and not el.text.isspace():  # the name written into the element, as WS/T 500 generators do
        text = " ".join(el.text.split())
    if not codings:
        text = text or " ".join(el.get("displayName", "").split())
        return {"text": text} if text else None
    if text:
        return {"coding": codings, "text": text}
    return {"coding": codings}


def _children(conv: Conversion, el: Element, codings: list[Json]) -> str:
    text = ""
    for each in el:
        tag = each.tag
        if tag == _TRANSLATION:
            other = coding(conv, each)
            if other is not None and all(
                other["code"] != known["code"] or other.get("system") != known.get("system") for known in codings
            ):
                codings.append(other)
            elif other is None and said(each):
                conv.not_mapped(each)
        elif tag == _ORIGINAL:
            text = text_of(conv, each)
        elif tag.endswith("}qualifier") and _only_names(each):
            text = text or " ".join(next(iter(children(each, "name"))).get("displayName", "").split())
        elif said(each):
            conv.not_mapped(each)
    return text


def _only_names(qualifier: Element) -> bool:
    """WS/T 500 puts the name of a data element into a qualifier without codes."""
    names = children(qualifier, "name")
    return len(qualifier) == 1 and len(names) == 1 and not names[0].get("code")


def text_of(conv: Conversion, el: Element) -> str:
    """The text of an ED: its own, else that of the narrative its reference names."""
    own = plain_text(el)
    if own:
        return own
    reference = child(el, "reference")
    return conv.narrative(reference.get("value", "")) if reference is not None else ""


def required(conv: Conversion, el: Element | None, place: Element) -> Json:
    """As ``concept`` where FHIR wants one: a missing code says why it is missing."""
    made = concept(conv, el)
    if made is not None:
        return made
    conv.issue("warning", "missing", place if el is None else el, "no code where FHIR requires one")
    return absent_concept((reason_of(el) if el is not None else "") or "unknown")


def mapped(conv: Conversion, kind: str, el: Element | None) -> tuple[Concept | None, Json | None]:
    """What the tables say of a coded element, and the concept as sent. A code without a map is remarked on."""
    sent = concept(conv, el)
    if sent is None or el is None:
        return None, None
    for word in spellings(sent):
        found = conv.find(kind, word)
        if found is not None:
            return found, sent
    conv.unmapped_code(kind, el)
    return None, sent


def names(concept: Json | None) -> list[str]:
    """The text and the displays of a CodeableConcept."""
    if not concept:
        return []
    return [concept.get("text", ""), *(each.get("display", "") for each in concept.get("coding", ()))]


def translated(conv: Conversion, kind: str, el: Element | None) -> Json | None:
    """A coded element as a CodeableConcept that leads with the tables' meaning and keeps the code as sent."""
    return with_meaning(*mapped(conv, kind, el))


def translated_if_chinese(conv: Conversion, kind: str, el: Element | None) -> Json | None:
    """As ``translated`` for national and local codes; a code of HL7's own systems needs no translation."""
    system = el.get("codeSystem", "") if el is not None else ""
    if system.startswith("2.16.840.1.113883."):
        return concept(conv, el)
    return translated(conv, kind, el)


def code_in(sent: Json | None, system: str) -> str:
    """The code that a concept has in a system, "" when it has none."""
    for each in sent.get("coding", ()) if sent else ():
        if each.get("system") == system:
            return str(each["code"])
    return ""


def has_code(sent: Json | None, codes: frozenset[str]) -> bool:
    """Whether a concept has one of some codes, in whatever system."""
    return bool(sent) and any(each["code"] in codes for each in (sent or {}).get("coding", ()))
