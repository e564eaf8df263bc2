"""Rows of V_IOP_STAFF and V_IOP_DEPARTMENT: who works here, and in what."""

from fhir_adapters.identifiers import identifier, organization_id, practitioner_id, related_id
from fhir_adapters.identifiers.build import PROJECT_SYSTEMS
from fhir_adapters.tabular.actors import department, department_resource
from fhir_adapters.tabular.batch import Batch
from fhir_adapters.tabular.concepts import site_concept
from fhir_adapters.tabular.rows import Json, Row, absent

_ORGANIZATION_TYPE = "http://terminology.hl7.org/CodeSystem/organization-type"
_LICENCE = PROJECT_SYSTEMS + "practising-licence"


def convert_staff(row: Row, batch: Batch) -> list[str]:
    """Put the Practitioner of a row and the role in the row's department; returns the references put."""
    system, number = row.system(), row.text("staff_no")
    person: Json = {
        "resourceType": "Practitioner",
        "id": practitioner_id(row.profile, system, number),
        "identifier": [identifier(number, "staff", system=system)],
        "active": row.flag("active_flag") is not False,
        "name": [{"text": row.text("name")}],
    }
    telecom = _telecom(row)
    if telecom:
        person["telecom"] = telecom
    sex = row.concept("sex", "sex")
    if sex is not None:
        person["gender"] = sex.code
    elif row.text("sex"):
        person["_gender"] = absent("error", row.text("sex"))
    row.date("birth_date", person, "birthDate")
    qualification = _qualification(row)
    if qualification:
        person["qualification"] = [qualification]
    reference = batch.put(person, owner=True)
    return [reference, *_role(row, batch, reference, person)]


def _role(row: Row, batch: Batch, reference: str, person: Json) -> list[str]:
    where = department(row, batch)
    role = site_concept(row, "staff-role", "role", "staff-role")
    if not where and role is None:
        return []
    institution = batch.institution()
    made: Json = {
        "resourceType": "PractitionerRole",
        "id": related_id(row.profile, "PractitionerRole", person["id"], row.text("dept_code") or row.text("dept_name")),
        "active": person["active"],
        "practitioner": {"reference": reference},
    }
    if where:
        made["organization"] = {"reference": where}
    elif institution:
        made["organization"] = institution
    if role is not None:
        made["code"] = [role]
    if row.text("specialty"):
        made["specialty"] = [{"text": row.text("specialty")}]
    period: Json = {}
    row.datetime("start_at", period, "start")
    row.datetime("end_at", period, "end")
    if period:
        made["period"] = period
    return [batch.put(made, owner=True), *([where] if where else [])]


def _qualification(row: Row) -> Json:
    title, licence = row.text("title"), row.text("license_no")
    if not title and not licence:
        return {}
    built: Json = {"code": site_concept(row, "staff-title", "title", "staff-title") or {"text": "执业证书"}}
    if licence:
        built["identifier"] = [identifier(licence, system=_LICENCE)]
    return built


def _telecom(row: Row) -> list[Json]:
    made: list[Json] = []
    for column, use in (("phone", "work"), ("mobile", "mobile")):
        if column in row.view.columns and row.text(column):
            made.append({"system": "phone", "value": row.text(column), "use": use})
    return made


def convert_department(row: Row, batch: Batch) -> list[str]:
    """Put the Organization of a department, part of another one or of the institution; returns the references put."""
    made = department_resource(row, row.text("dept_code"), row.text("dept_name"))
    made["active"] = row.flag("active_flag") is not False
    kind = site_concept(row, "department-kind", "dept_kind", "department-kind")
    standard: Json = {"coding": [{"system": _ORGANIZATION_TYPE, "code": "dept", "display": "Hospital Department"}]}
    made["type"] = [standard, *([kind] if kind is not None else [])]
    if row.text("short_name"):
        made["alias"] = [row.text("short_name")]
    telecom = _telecom(row)
    if telecom:
        made["telecom"] = telecom
    if row.text("address"):
        made["address"] = [{"use": "work", "text": row.text("address")}]
    institution = batch.institution()
    parent = row.text("parent_code")
    if parent and parent != row.text("dept_code"):
        system = row.system()
        whole = f"Organization/{organization_id(row.profile, system, parent)}"
        # Named by its number too: its own row may come later, or in another batch.
        made["partOf"] = {"reference": whole, "identifier": {"system": system, "value": parent}}
    elif institution:
        made["partOf"] = institution
    return [batch.put(made, owner=True), *([institution["reference"]] if institution else [])]
