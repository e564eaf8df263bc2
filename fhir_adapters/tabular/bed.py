"""A row of V_IOP_BED as a Location of kind bed. Who lies in it, the visits say: a place holds no patient data."""

from fhir_adapters.identifiers import full_width_to_ascii, identifier
from fhir_adapters.tabular.actors import department, places
from fhir_adapters.tabular.batch import Batch
from fhir_adapters.tabular.concepts import site_concept
from fhir_adapters.tabular.rows import Json, Row

_EXTENSIONS = "https://yiqiao.example/fhir/StructureDefinition/"
BED_RESERVED = _EXTENSIONS + "bed-reserved"
"""Extension of Location: unoccupied, but promised (预占). HL7 table 0116 has no word for it."""
BED_LENT_TO = _EXTENSIONS + "bed-lent-to"
"""Extension of Location: the department that a bed of another one is lent to."""
BED_SEX_LIMIT = _EXTENSIONS + "bed-sex-limit"
"""Extension of Location: an administrative gender; only such patients may have the bed."""

_RESERVED = frozenset({"RESERVED", "预占", "预约"})


def convert_bed(row: Row, batch: Batch) -> list[str]:
    """Put the bed of a row with the places it is in; returns the references put."""
    campus, ward, room, number = (row.text(name) for name in ("facility", "ward_code", "room_no", "bed_no"))
    references = places(row, batch, campus, ward, room, number, row.text("ward_name"))
    bed = batch.get(references[-1])
    assert bed is not None
    bed["identifier"] = [identifier("/".join(filter(None, (ward, room, number))), system=row.local_system("bed"))]
    _status(row, bed)
    kind = site_concept(row, "bed-kind", "bed_kind", "bed-kind")
    if kind is not None:
        bed["type"] = [kind]
    if row.text("description"):
        bed["description"] = row.text("description")
    owner = department(row, batch)
    institution = batch.institution()
    if owner or institution:
        bed["managingOrganization"] = {"reference": owner} if owner else institution
    borrower = department(row, batch, "lent_dept_code", "lent_dept_name")
    if borrower:
        _extend(bed, BED_LENT_TO, {"valueReference": {"reference": borrower}})
    limit = row.concept("sex", "sex_limit")
    if limit is not None and limit.code in ("male", "female"):
        _extend(bed, BED_SEX_LIMIT, {"valueCode": limit.code})
    others = [each for each in (owner, borrower, institution["reference"] if institution else "") if each]
    return [batch.put(bed, owner=True), *references[:-1], *dict.fromkeys(others)]


def _status(row: Row, bed: Json) -> None:
    found = row.concept("bed-status", "bed_status")
    bed["status"] = "inactive" if row.flag("active_flag") is False else "active"
    if found is None:
        return
    bed["operationalStatus"] = found.coding()
    if found.code == "C" and bed["status"] == "active":
        bed["status"] = "suspended"
    if full_width_to_ascii(row.text("bed_status")).upper() in _RESERVED:
        _extend(bed, BED_RESERVED, {"valueBoolean": True})


def _extend(bed: Json, url: str, value: Json) -> None:
    bed.setdefault("extension", []).append({"url": url, **value})
