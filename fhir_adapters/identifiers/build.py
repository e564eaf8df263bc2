"""FHIR Identifiers: which system and which type a number gets.

Numbers with a national OID (WS/T 682, arc 2.16.156.10011.1) use it as ``urn:oid:``; numbers that one
institution issues (record, visit, order numbers) get the system of their assigning authority, because the same digits
mean another patient elsewhere.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from fhir_adapters.profile import SourceProfile

V2_IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
PROJECT_SYSTEMS = "https://yiqiao.example/fhir/NamingSystem/"
"""Systems of numbers without an OID or an issuing institution (a reserved domain: it names, it does not resolve)."""

_OID_ARC = "urn:oid:2.16.156.10011.1."
_OID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*))+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ABSOLUTE_URI = re.compile(r"(?:https?://|urn:)[^\s\"<>\\^`{|}]+")


@dataclass(frozen=True, slots=True)
class IdentifierKind:
    """A kind of number: system ("" when an institution issues it), v2-0203 type code ("" for none), Chinese name."""

    system: str
    type_code: str
    display: str


IDENTIFIER_KINDS: MappingProxyType[str, IdentifierKind] = MappingProxyType(
    {
        "id-card": IdentifierKind(_OID_ARC + "3", "NNCHN", "居民身份证号"),
        "health-record": IdentifierKind(_OID_ARC + "2", "PI", "城乡居民健康档案编号"),
        "staff": IdentifierKind(_OID_ARC + "4", "EI", "医务人员编号"),
        "institution": IdentifierKind(_OID_ARC + "5", "XX", "医疗机构代码"),
        "outpatient": IdentifierKind(_OID_ARC + "11", "VN", "门诊号"),
        "inpatient": IdentifierKind(_OID_ARC + "12", "VN", "住院号"),
        "case-record": IdentifierKind(_OID_ARC + "13", "MR", "病案号"),
        "specimen": IdentifierKind(_OID_ARC + "14", "", "标本号"),
        "health-card": IdentifierKind(_OID_ARC + "19", "HC", "居民健康卡号"),
        "prescription": IdentifierKind(_OID_ARC + "20", "", "处方编号"),
        "request-form": IdentifierKind(_OID_ARC + "24", "PLAC", "电子申请单编号"),
        "exam-report": IdentifierKind(_OID_ARC + "32", "FILL", "检查报告单号"),
        "lab-report": IdentifierKind(_OID_ARC + "33", "FILL", "检验报告单号"),
        "room": IdentifierKind(_OID_ARC + "21", "", "病房号"),
        "bed": IdentifierKind(_OID_ARC + "22", "", "病床号"),
        "department": IdentifierKind(_OID_ARC + "26", "", "科室"),
        "ward": IdentifierKind(_OID_ARC + "27", "", "病区"),
        "uscc": IdentifierKind(PROJECT_SYSTEMS + "uscc", "XX", "统一社会信用代码"),
        "passport": IdentifierKind("http://hl7.org/fhir/sid/passport-CHN", "PPN", "护照号"),
        "ehc-id": IdentifierKind(PROJECT_SYSTEMS + "ehc-id", "HC", "电子健康卡ID"),
        "insurance": IdentifierKind(PROJECT_SYSTEMS + "nhsa-person", "SS", "医保个人编号"),
        "medical-record": IdentifierKind("", "MR", "病历号"),
        "visit": IdentifierKind("", "VN", "就诊号"),
    }
)
"""The kinds by short name; OIDs as found in working WS/T 500 code."""

ID_CARD_SYSTEM = IDENTIFIER_KINDS["id-card"].system

_TYPE_DISPLAY = MappingProxyType(
    {
        "MR": "Medical record number",
        "PI": "Patient internal identifier",
        "PT": "Patient external identifier",
        "VN": "Visit number",
        "AN": "Account number",
        "NNCHN": "National Person Identifier (China)",
        "HC": "Health Card Number",
        "EI": "Employee number",
        "XX": "Organization identifier",
        "PLAC": "Placer Identifier",
        "FILL": "Filler Identifier",
        "PPN": "Passport number",
        "SS": "Social Security number",
        "NI": "National unique individual identifier",
        "DL": "Driver's license number",
    }
)

# The order in which a patient's identifiers are asked for the one that the Patient's id is made of: what the
# institution itself issues comes first, because cards are shared, lost and entered late (A40 then joins the rest).
_PATIENT_PREFERENCE = ("MR", "PI", "PT", "PE", "")


def identifier(
    value: str,
    kind: str = "",
    *,
    system: str = "",
    type_code: str = "",
    use: str = "",
    period: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A FHIR Identifier. ``kind`` is a key of :data:`IDENTIFIER_KINDS`; ``system`` and ``type_code`` override it."""
    known = IDENTIFIER_KINDS.get(kind)
    system = system or (known.system if known else "")
    type_code = type_code or (known.type_code if known else "")
    built: dict[str, Any] = {}
    if use:
        built["use"] = use
    if type_code:
        built["type"] = identifier_type(type_code)
    if system:
        built["system"] = system
    built["value"] = value
    if period:
        built["period"] = period
    return built


def identifier_type(code: str) -> dict[str, Any]:
    """The CodeableConcept of a v2-0203 identifier type; codes without a known display carry none."""
    coding = {"system": V2_IDENTIFIER_TYPE, "code": code}
    display = _TYPE_DISPLAY.get(code)
    if display:
        coding["display"] = display
    return {"coding": [coding]}


def kind_system(profile: SourceProfile, kind: str) -> str:
    """The system of a kind of number: the national one, else that of the profile's default authority."""
    known = IDENTIFIER_KINDS.get(kind)
    return known.system if known and known.system else assigning_system(profile, "")


def assigning_system(
    profile: SourceProfile, namespace: str, universal_id: str = "", universal_id_type: str = ""
) -> str:
    """The identifier system of an assigning authority (HL7 v2 HD, 2.A.33, or a database's own name for it).

    In this order: the profile's map by namespace, then by universal id; a universal id that is an OID, UUID or URI; a
    namespace that is one; else a system below the node's own base URL. An empty authority is the profile's default one.
    """
    return _assigning_system(
        profile.base_url,
        _frozen(profile),
        namespace.strip() or ("" if universal_id.strip() else profile.default_authority),
        universal_id.strip(),
        universal_id_type.strip().upper(),
    )


def choose_patient_identifier(identifiers: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The Identifier (with system and value) that names the Patient: MR, then PI, PT, PE, untyped, then the first.

    Both adapters use it, so that one patient gets one id whichever way the record comes in.
    """
    usable = [each for each in identifiers if each.get("system") and each.get("value")]
    for wanted in _PATIENT_PREFERENCE:
        for each in usable:
            codings = each.get("type", {}).get("coding", ({},))
            if codings[0].get("code", "") == wanted and each.get("use") != "old":
                return each
    return usable[0] if usable else None


def _frozen(profile: SourceProfile) -> tuple[tuple[str, str], ...]:
    return tuple(profile.assigning_authorities.items())


@lru_cache(maxsize=1024)
def _assigning_system(
    base_url: str, authorities: tuple[tuple[str, str], ...], namespace: str, universal_id: str, universal_type: str
) -> str:
    known = dict(authorities)
    for name in (namespace, universal_id):
        if name and name in known:
            return known[name]
    for name, kind in ((universal_id, universal_type), (namespace, "")):
        uri = _as_uri(name, kind)
        if uri:
            return uri
    return f"{base_url}/NamingSystem/{quote(namespace or universal_id, safe='')}"


def _as_uri(name: str, kind: str) -> str:
    if kind in ("ISO", "") and name.count(".") >= 3 and _OID.fullmatch(name):
        return "urn:oid:" + name
    if kind in ("UUID", "GUID", "") and _UUID.fullmatch(name):
        return "urn:uuid:" + name.lower()
    return name if _ABSOLUTE_URI.fullmatch(name) else ""
