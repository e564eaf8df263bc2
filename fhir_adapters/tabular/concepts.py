"""CodeableConcepts that several views make."""

import re

from fhir_adapters.tabular.rows import Json, Row

ICD10_CN = "urn:oid:2.16.156.10011.2.3.3.11"
ICD10_WHO = "http://hl7.org/fhir/sid/icd-10"
_LOINC = "http://loinc.org"
_LOINC_FORM = re.compile(r"[0-9]{1,7}-[0-9]")


def diagnosis_concept(code: str, name: str) -> Json:
    """A diagnosis with the Chinese code and, where it extends one, the WHO's."""
    concept: Json = {}
    if code:
        coding: Json = {"system": ICD10_CN, "code": code}
        if name:
            coding["display"] = name
        concept["coding"] = [coding]
        if len(code) >= 5 and code[3:4] == ".":
            # The Chinese editions extend the WHO's four characters; the first five of "I10.x00" name its category.
            concept["coding"].append({"system": ICD10_WHO, "code": code[:5] if code[4].isdigit() else code[:3]})
    if name:
        concept["text"] = name
    return concept


def local_concept(row: Row, code_column: str, name_column: str, kind: str) -> Json:
    """A code that only this hospital knows, with its name; {} when both columns are empty."""
    code, name = row.text(code_column), row.text(name_column)
    concept: Json = {}
    if code:
        coding: Json = {"system": row.local_system(kind), "code": code}
        if name:
            coding["display"] = name
        concept["coding"] = [coding]
    if name or code:
        concept["text"] = name or code
    return concept


def add_loinc(row: Row, concept: Json, column: str = "item_loinc") -> None:
    """Add the LOINC code of a column to a concept; one that has not its form is reported."""
    loinc = row.text(column)
    if not loinc:
        return
    if _LOINC_FORM.fullmatch(loinc):
        concept.setdefault("coding", []).append({"system": _LOINC, "code": loinc})
    else:
        row.remark("warning", "bad-value", column, "not a LOINC code; it is left out")


def site_concept(row: Row, concept: str, column: str, kind: str) -> Json | None:
    """A concept that the tables know, else the site's own code: a code or name that no table has is not a fault.

    For kinds of things (of beds, orders, departments) that every site names in its own way.
    """
    text = row.text(column)
    if not text:
        return None
    found = row.lookup.find(concept, text)
    if found is not None:
        return {"coding": [found.coding()], "text": found.display or text if text.isascii() else text}
    if text.isascii():
        return {"coding": [{"system": row.local_system(kind), "code": text}], "text": text}
    return {"text": text}
