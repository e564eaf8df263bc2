"""Who and where a row mentions: physicians, departments, the tree of places. Each is made once per batch."""

from fhir_adapters.identifiers import identifier, location_id, organization_id, practitioner_id
from fhir_adapters.tabular.batch import Batch
from fhir_adapters.tabular.rows import Json, Row

_PHYSICAL = "http://terminology.hl7.org/CodeSystem/location-physical-type"
_LEVELS = (("si", "Site"), ("wa", "Ward"), ("ro", "Room"), ("bd", "Bed"))


def practitioner(row: Row, batch: Batch, code_column: str, name_column: str) -> str:
    """Put the Practitioner that two columns name; its reference, "" when they are empty."""
    code, name = row.text(code_column), row.text(name_column)
    if not code and not name:
        return ""
    system = row.house_system()
    resource: Json = {
        "resourceType": "Practitioner",
        "id": practitioner_id(row.profile, system, code or "name:" + name),
    }
    if code:
        resource["identifier"] = [identifier(code, "staff", system=system)]
    if name:
        resource["name"] = [{"text": name}]
    return batch.put(resource)


def department(row: Row, batch: Batch, code_column: str = "dept_code", name_column: str = "dept_name") -> str:
    """Put the department that two columns name, part of the institution; its reference, "" when they are empty."""
    code, name = row.text(code_column), row.text(name_column)
    if not code and not name:
        return ""
    resource = department_resource(row, code, name)
    institution = batch.institution()
    if institution:
        resource["partOf"] = institution
    return batch.put(resource)


def department_resource(row: Row, code: str, name: str) -> Json:
    """An Organization of a code or, where there is none, of a name."""
    system = row.house_system()
    resource: Json = {
        "resourceType": "Organization",
        "id": organization_id(row.profile, system, code or "name:" + name),
    }
    if code:
        resource["identifier"] = [identifier(code, system=system)]
    if name:
        resource["name"] = name
    return resource


def places(row: Row, batch: Batch, campus: str, ward: str, room: str, bed: str, ward_name: str = "") -> list[str]:
    """Put campus, ward, room and bed as a tree of Locations; their references, the smallest place last."""
    references: list[str] = []
    paths = (
        (campus, (campus, "", "", "", "")),
        (ward, (campus, "", ward, "", "")),
        (room, (campus, "", ward, room, "")),
        (bed, (campus, "", ward, room, bed)),
    )
    for (title, path), (kind, display) in zip(paths, _LEVELS, strict=True):
        if not title:
            continue
        place: Json = {
            "resourceType": "Location",
            "id": location_id(row.profile, *path),
            "name": (ward_name or title) if kind == "wa" else title,
            "mode": "instance",
            "physicalType": {"coding": [{"system": _PHYSICAL, "code": kind, "display": display}]},
        }
        if references:
            place["partOf"] = {"reference": references[-1]}
        references.append(batch.put(place))
    return references
