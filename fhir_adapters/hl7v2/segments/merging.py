"""MRG: patients, accounts and visits that turn out to be one (guide: MRG[Patient], MRG[Account]; FHIR Patient.link).

MRG says little more of what it merges than a number. What is stored of the prior record stays: the entry amends it, it
does not replace it. The record that PID names is told whole and gets the link back.
"""

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import business_ids, demographics
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import accounts, encounters
from fhir_adapters.identifiers import choose_patient_identifier, patient_id


def merge(
    conv: Conversion, survivor: Json, account: Json | None, visit: Json | None, mrg: Segment, *, people: bool
) -> None:
    """Join what MRG names to the patient, the account and the visit that the message is about.

    ``people``: the event merges patients; otherwise MRG-1 only says whose the account or visit was.

    Raises:
        ParseError: patients are to be merged and MRG-1 names nobody, so that it is not known who was.
    """
    prior = _prior_patient(conv, mrg)
    if people:
        _merge_patients(conv, survivor, prior, mrg)
    _merge_account(conv, survivor, account, mrg)
    _merge_visit(conv, survivor, prior or survivor, visit, account, mrg)


def _prior_patient(conv: Conversion, mrg: Segment) -> Json | None:
    """The Patient that MRG-1 (4 and 2 in earlier versions) names, not added; None when none does."""
    prior: Json = {"resourceType": "Patient", "id": ""}
    for number in (1, 4, 2):
        for made in business_ids.identifiers(conv, mrg, number) if mrg.peek(number) else ():
            business_ids.add_identifier(prior, made)
    chosen = choose_patient_identifier(prior.get("identifier", ()))
    if chosen is None:
        return None
    prior["id"] = patient_id(conv.profile, *business_ids.key_of(chosen))
    found = demographics.names(conv, mrg, 7)
    if found:
        prior["name"] = found
    return prior


def _merge_patients(conv: Conversion, survivor: Json, prior: Json | None, mrg: Segment) -> None:
    if prior is None:
        raise ParseError("the patient to merge has no identifier", "MRG-1")
    if prior["id"] == survivor["id"]:
        conv.issue(
            "warning", "conflict", mrg, 1, "the prior identifier names the surviving patient itself; nothing to merge"
        )
        return
    prior["active"] = False
    prior["link"] = [{"other": {"reference": f"Patient/{survivor['id']}"}, "type": "replaced-by"}]
    add_link(survivor, conv.amend(prior, "active", "link", "identifier"), "replaces")


def add_link(patient: Json, other: str, kind: str) -> None:
    """Link a Patient to another, once."""
    entry = {"other": {"reference": other}, "type": kind}
    links = patient.setdefault("link", [])
    if entry not in links:
        links.append(entry)


def _merge_account(conv: Conversion, patient: Json, survivor: Json | None, mrg: Segment) -> None:
    """MRG-3: the prior account is closed and part of the one that PID-18 names; it is moved when it is the same."""
    found = business_ids.identifiers(conv, mrg, 3) if mrg.peek(3) else []
    if not found:
        return
    prior = accounts.account(conv, patient, found[0], "inactive")
    if survivor is None:
        prior["status"] = "unknown"  # its number is all that is said of it, and that it is this patient's
        conv.amend(prior, "subject")
    elif prior["id"] != survivor["id"]:
        prior["partOf"] = {"reference": f"Account/{survivor['id']}"}
        conv.amend(prior, "status", "subject", "partOf")


def _merge_visit(
    conv: Conversion, patient: Json, former: Json, survivor: Json | None, account: Json | None, mrg: Segment
) -> None:
    """MRG-5: the prior visit is now this patient's; where PV1-19 has another number it is part of that one.

    ``former``: whose it was; a visit number that is a counter counts with that patient.
    """
    numbers = business_ids.identifiers(conv, mrg, 5) if mrg.peek(5) else []
    alternates = business_ids.identifiers(conv, mrg, 6) if mrg.peek(6) else []
    if not numbers:
        for made in alternates if survivor is not None else ():
            # A51: only the alternate number changed; PV1-50 has the new one
            assert survivor is not None
            business_ids.add_identifier(survivor, {**made, "use": "old"})
        return
    prior = encounters.stub(conv, patient, numbers[0], former)
    for made in alternates:
        business_ids.add_identifier(prior, made)
    if survivor is not None and survivor["id"] == prior["id"]:
        return  # PV1 tells it whole, with its new patient
    accounts.charge_visit(account, prior)
    moved = ["subject", "account"] if account is not None else ["subject"]
    if survivor is not None:
        prior["partOf"] = {"reference": f"Encounter/{survivor['id']}"}
        moved.append("partOf")
    conv.amend(prior, *moved)
