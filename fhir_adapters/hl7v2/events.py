"""What a trigger event says about the encounter and the person (HL7 table 0003, chapter 3): data, not code.

The guide maps no event to a status (it uses PV1-2 and PV1-45 only); a discharge without a date or a cancelled admission
would then stay in progress, so the event decides first here.
"""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Event:
    """One ADT event: the Encounter status it brings ("" to ask PV1), and what it does to the person.

    ``person`` is one of "" (nothing), "merge" (MRG-1 is replaced by PID), "link" (the PIDs are one person), "delete".
    """

    display: str
    status: str = ""
    person: str = ""


ADT_EVENTS = MappingProxyType(
    {
        "A01": Event("admit", "in-progress"),
        "A02": Event("transfer", "in-progress"),
        "A03": Event("discharge", "finished"),
        "A04": Event("register", "in-progress"),
        "A05": Event("pre-admit", "planned"),
        "A06": Event("outpatient to inpatient", "in-progress"),
        "A07": Event("inpatient to outpatient", "in-progress"),
        "A08": Event("update"),
        "A09": Event("patient departing", "in-progress"),
        "A10": Event("patient arriving", "in-progress"),
        "A11": Event("cancel admit", "cancelled"),
        "A12": Event("cancel transfer", "in-progress"),
        "A13": Event("cancel discharge", "in-progress"),
        "A14": Event("pending admit", "planned"),
        "A15": Event("pending transfer", "in-progress"),
        "A16": Event("pending discharge", "in-progress"),
        "A17": Event("swap patients", "in-progress"),
        "A18": Event("merge patient information", "", "merge"),
        "A21": Event("leave of absence out", "onleave"),
        "A22": Event("leave of absence in", "in-progress"),
        "A23": Event("delete patient record", "entered-in-error"),
        "A24": Event("link patients", "", "link"),
        "A25": Event("cancel pending discharge", "in-progress"),
        "A26": Event("cancel pending transfer", "in-progress"),
        "A27": Event("cancel pending admit", "cancelled"),
        "A28": Event("add person"),
        "A29": Event("delete person", "", "delete"),
        "A30": Event("merge person information", "", "merge"),
        "A31": Event("update person"),
        "A32": Event("cancel patient arriving", "in-progress"),
        "A33": Event("cancel patient departing", "in-progress"),
        "A34": Event("merge patient information, id only", "", "merge"),
        "A36": Event("merge patient and account", "", "merge"),
        "A38": Event("cancel pre-admit", "cancelled"),
        "A39": Event("merge person, external id", "", "merge"),
        "A40": Event("merge patient, id list", "", "merge"),
        "A41": Event("merge account"),
        "A42": Event("merge visit"),
        "A43": Event("move patient information"),
        "A44": Event("move account information"),
        "A45": Event("move visit information"),
        "A46": Event("change patient id", "", "merge"),
        "A47": Event("change patient identifier list", "", "merge"),
        "A49": Event("change account number"),
        "A50": Event("change visit number"),
        "A51": Event("change alternate visit id"),
        "A52": Event("cancel leave of absence", "in-progress"),
        "A53": Event("cancel return from leave", "onleave"),
        "A54": Event("change attending doctor"),
        "A55": Event("cancel change of attending doctor"),
        "A60": Event("update allergies"),
        "A61": Event("change consulting doctor"),
        "A62": Event("cancel change of consulting doctor"),
    }
)
"""Events with a patient in PID. Not among them: A19 (a query's answer), A20 (a bed without a patient), A37 (unlink)."""

ORU_EVENTS = frozenset({"R01", "R30", "R31", "R32", "R40", "W01", ""})
"""Triggers of unsolicited results: one structure. Before v2.3 senders left the trigger out."""
