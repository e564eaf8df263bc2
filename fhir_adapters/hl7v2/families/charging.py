"""What is charged: FT1 under a message or an order, and the account that BLG or the message names."""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import business_ids
from fhir_adapters.hl7v2.families.patient_group import Setting
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import accounts, charges
from fhir_adapters.hl7v2.structures import Node


def charged(conv: Conversion, at: Setting, group: Node, order: Json | None = None) -> list[Json]:
    """The ChargeItems of the FT1 segments of a group; ``order`` is what they are charged for."""
    if "BLG" in group.names:
        for blg in group.all("BLG"):
            _billed(conv, at, blg)
    if "FT1" not in group.names:
        return []
    made = [charge(conv, at, ft1) for ft1 in group.all("FT1")]
    for each in made if order is not None else ():
        assert order is not None
        reference = {"reference": f"{order['resourceType']}/{order['id']}"}
        each.setdefault("service" if order["resourceType"] == "Procedure" else "supportingInformation", []).append(
            reference
        )
    return made


def charge(conv: Conversion, at: Setting, ft1: Segment) -> Json:
    """The ChargeItem of one FT1, on the message's account."""
    if at.account is None:
        at.account = accounts.for_charges(conv, at.patient, at.visit)
        accounts.charge_visit(at.account, at.visit)
    return charges.charge(conv, at.patient, at.visit, at.account, ft1)


def _billed(conv: Conversion, at: Setting, blg: Segment) -> None:
    """BLG-3: the account to be charged. BLG-1 and 2, when to and with what, say nothing that FHIR keeps."""
    found = business_ids.identifiers(conv, blg, 3) if blg.peek(3) else []
    if found:
        made = conv.keep(accounts.account(conv, at.patient, found[0]))
        if at.account is None:
            at.account = made
            accounts.charge_visit(made, at.visit)
