"""PID-18, GT1 and the account fields of PV1 and MRG: the Account (guide: PID[Account], MRG[Account]).

An account is what a stay is charged to. It is named by its number; charges and a guarantor without one belong to the
patient's visit, and failing that to the patient.
"""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import kin
from fhir_adapters.identifiers import account_id, identifier_type

_SELF = frozenset({"SEL", "SELF", "O", "本人"})
_ACCOUNT_TYPE = "AN"


def account(conv: Conversion, patient: Json, made: Json, status: str = "active") -> Json:
    """The Account of an account number (an Identifier), not yet added."""
    return {
        "resourceType": "Account",
        "id": account_id(conv.profile, *business_ids.key_of(made)),
        "identifier": [{"type": identifier_type(_ACCOUNT_TYPE), **made}],
        "status": status,
        "subject": [{"reference": f"Patient/{patient['id']}"}],
    }


def of_patient(conv: Conversion, patient: Json, pid: Segment) -> Json | None:
    """Take PID-18 as the Account it names (added); None without a number."""
    found = business_ids.identifiers(conv, pid, 18) if pid.peek(18) else []
    if not found:
        return None
    resource = conv.keep(account(conv, patient, found[0]))
    for more in found[1:]:
        business_ids.add_identifier(resource, more)
    return resource


def for_charges(conv: Conversion, patient: Json, visit: Json | None) -> Json:
    """The Account of a patient whose message names none, by the visit or by the patient (added)."""
    owner = f"Encounter/{visit['id']}" if visit is not None else f"Patient/{patient['id']}"
    resource: Json = {
        "resourceType": "Account",
        "id": account_id(conv.profile, conv.local_system("account"), owner),
        "status": "active",
        "subject": [{"reference": f"Patient/{patient['id']}"}],
    }
    return conv.keep(resource)


def charge_visit(resource: Json | None, visit: Json | None) -> None:
    """Say in the Encounter which Account it is charged to."""
    if resource is not None and visit is not None:
        reference = {"reference": f"Account/{resource['id']}"}
        known = visit.setdefault("account", [])
        if reference not in known:
            known.append(reference)


def guarantor(conv: Conversion, patient: Json, resource: Json, gt1: Segment) -> None:
    """GT1: who answers for the account: the patient, an organization (GT1-21) or a RelatedPerson."""
    gt1.take(1)
    party = _party(conv, patient, gt1)
    if not party:
        return
    entry: Json = {"party": {"reference": party}}
    kin.period(conv, entry, gt1, 13, 14)
    listed = resource.setdefault("guarantor", [])
    if entry not in listed:
        listed.append(entry)


def _party(conv: Conversion, patient: Json, gt1: Segment) -> str:
    relation = conv.text(gt1.peek(11).split("^")[0])
    person = kin.blank(patient)
    found = demographics.names(conv, gt1, 3)
    if relation.upper() in _SELF:
        gt1.take(11)
        return f"Patient/{patient['id']}"
    if not found and gt1.peek(21):
        organization = actors.organization(conv, gt1, 21)
        return str(organization["reference"]) if organization is not None else ""
    for made in business_ids.identifiers(conv, gt1, 2) if gt1.peek(2) else ():
        business_ids.add_identifier(person, made)
    social = conv.text(gt1.take(12)) if gt1.peek(12) else ""
    if social:
        business_ids.add_identifier(person, business_ids.identifier(conv, f"{social}^^^^SS", gt1, 12))
    if found:
        person["name"] = found
    kind = concepts.translated(conv, "relationship", gt1, 11) if relation else None
    if kind is not None:
        person["relationship"] = [kind]
    _describe(conv, person, gt1)
    return kin.finish(conv, patient, person)


def _describe(conv: Conversion, person: Json, gt1: Segment) -> None:
    where = demographics.addresses(conv, gt1, 5) if gt1.peek(5) else []
    if where:
        person["address"] = where
    points = [
        point
        for number, use in ((6, "home"), (7, "work"), (18, "work"))
        if gt1.peek(number)
        for point in demographics.telecoms(conv, gt1, number, use)
    ]
    if points:
        person["telecom"] = points
    if gt1.peek(8):
        kin.birth_date(conv, person, gt1, 8)
    if gt1.peek(9):
        kin.sex(conv, person, gt1, 9)
    language = concepts.translated(conv, "language", gt1, 36) if gt1.peek(36) else None
    if language is not None:
        person["communication"] = [{"language": language}]
