"""A row of V_IOP_PATIENT as a Patient."""

from urllib.parse import quote

from fhir_adapters.extensions import ETHNIC_GROUP
from fhir_adapters.identifiers import (
    IDENTIFIER_KINDS,
    check_resident_id,
    identifier,
    patient_id,
)
from fhir_adapters.identifiers.build import PROJECT_SYSTEMS
from fhir_adapters.tabular.batch import Batch
from fhir_adapters.tabular.rows import Json, Row, absent

_RESIDENT_CARD = "01"  # CV02.01.101
_PASSPORT = "03"


def convert_patient(row: Row, batch: Batch) -> list[str]:
    """Put the Patient of a row; returns the references put."""
    system, number = row.system(), row.text("patient_no")
    patient: Json = {"resourceType": "Patient", "id": patient_id(row.profile, system, number)}
    ethnic = row.concept("ethnic", "nation")
    if ethnic is not None:
        patient["extension"] = [{"url": ETHNIC_GROUP, "valueCoding": ethnic.coding()}]
    patient["identifier"] = [identifier(number, "medical-record", system=system), *_documents(row)]
    active = row.flag("active_flag")
    merged = row.text("merged_into_no")
    patient["active"] = (active is not False) and not merged
    if row.text("name"):
        patient["name"] = [{"use": "official", "text": row.text("name")}]
    telecom = _telecom(row)
    if telecom:
        patient["telecom"] = telecom
    _sex(row, patient)
    row.date("birth_date", patient, "birthDate")
    _deceased(row, patient)
    address = _address(row)
    if address:
        patient["address"] = [address]
    marital = row.codeable("marital", "marital_status")
    if marital:
        patient["maritalStatus"] = marital
    contact = _contact(row)
    if contact:
        patient["contact"] = [contact]
    _conflicts(row, patient)
    references: list[str] = []
    if merged:
        survivor = patient_id(row.profile, system, merged)
        other = {"reference": f"Patient/{survivor}", "identifier": {"system": system, "value": merged}}
        patient["link"] = [{"other": other, "type": "replaced-by"}]
    institution = batch.institution()
    if institution:
        patient["managingOrganization"] = institution
        references.append(institution["reference"])
    return [batch.put(patient, owner=True), *references]


def _documents(row: Row) -> list[Json]:
    made: list[Json] = []
    number = row.text("id_no")
    kind = row.text("id_type") or _RESIDENT_CARD
    if number and kind in (_RESIDENT_CARD, "1"):
        checked = check_resident_id(number)
        if not checked.valid:
            text = f"not a valid resident identity number ({checked.problem}); it is kept as sent"
            row.remark("warning", "bad-identifier", "id_no", text)
        made.append(identifier(checked.value if checked.valid else number, "id-card"))
    elif number and kind in (_PASSPORT, "3"):
        made.append(identifier(number, "passport", system=PROJECT_SYSTEMS + "passport"))
    elif number:
        known = row.concept("identifier-type", "id_type")
        type_code = known.code if known else ""
        made.append(identifier(number, system=f"{PROJECT_SYSTEMS}id-type-{quote(kind, safe='')}", type_code=type_code))
    for column, name in (("health_card_no", "health-card"), ("insurance_no", "insurance")):
        if row.text(column):
            made.append(identifier(row.text(column), name, system=IDENTIFIER_KINDS[name].system))
    return made


def _telecom(row: Row) -> list[Json]:
    made: list[Json] = []
    for column, use in (("phone", ""), ("mobile", "mobile")):
        value = row.text(column)
        if value:
            made.append({"system": "phone", "value": value, **({"use": use} if use else {})})
    return made


def _sex(row: Row, patient: Json) -> None:
    if not row.text("sex"):
        return
    found = row.concept("sex", "sex")
    if found is not None:
        patient["gender"] = found.code
    else:
        patient["_gender"] = absent("error", row.text("sex"))


def _deceased(row: Row, patient: Json) -> None:
    if row.datetime("deceased_at", patient, "deceasedDateTime"):
        return
    flag = row.flag("deceased_flag")
    if flag is not None and "_deceasedDateTime" not in patient:
        patient["deceasedBoolean"] = flag


def _address(row: Row) -> Json:
    built: Json = {}
    parts = [row.text(column) for column in ("province", "city", "county", "address")]
    for element, value in zip(("state", "city", "district"), parts, strict=False):
        if value:
            built[element] = value
    if parts[3]:
        built["line"] = [parts[3]]
    if row.text("postal_code"):
        built["postalCode"] = row.text("postal_code")
    whole = "".join(parts)
    return {"use": "home", **built, **({"text": whole} if whole else {})} if built else {}


def _contact(row: Row) -> Json:
    built: Json = {}
    relation = row.codeable("relationship", "contact_relation")
    if relation:
        built["relationship"] = [relation]
    if row.text("contact_name"):
        built["name"] = {"text": row.text("contact_name")}
    if row.text("contact_phone"):
        built["telecom"] = [{"system": "phone", "value": row.text("contact_phone")}]
    return built


def _conflicts(row: Row, patient: Json) -> None:
    """What the identity number says against what the columns say: reported, and the columns stand."""
    if (row.text("id_type") or _RESIDENT_CARD) not in (_RESIDENT_CARD, "1"):
        return
    checked = check_resident_id(row.text("id_no")) if row.text("id_no") else None
    if checked is None or not checked.valid:
        return
    if patient.get("gender") in ("male", "female") and patient["gender"] != checked.gender:
        row.remark("warning", "conflict", "sex", "differs from the sex in the identity number")
    born = patient.get("birthDate", "")
    if born and not checked.birth_date.startswith(born):
        row.remark("warning", "conflict", "birth_date", "differs from the birth date in the identity number")
