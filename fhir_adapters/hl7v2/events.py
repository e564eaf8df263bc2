"""What a trigger event says about the encounter and the person (HL7 table 0003, chapter 3): data, not code.

The guide maps no event to a status (it uses PV1-2 and PV1-45 only); a discharge without a date or a cancelled admission
would then stay in progress, so the event decides first here.
"""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Event:
    """One ADT event: the Encounter status it brings ("" to ask PV1), and what it does to the person.

    ``person`` is one of "" (nothing), "merge" (the patient of MRG-1 is replaced by that of PID), "move" (an account or
    a visit of the patient of MRG-1 becomes that of PID), "link" and "unlink" (the PIDs are one person, or are not),
    "delete". ``place``: the event is about a bed and has no patient.
    """

    display: str
    status: str = ""
    person: str = ""
    place: bool = False


ADT_EVENTS = MappingProxyType(
    {
        "A01": Event("admit", "in-progress"),
        "A02": Event("transfer", "in-progress"),
        "A03": Event("discharge", "finished"),
        "A04": Event("register", "in-progress"),
        "A05": Event("pre-admit", "planned"),
        "A06": Event("outpatient to inpatient", "in-progress", "move"),
        "A07": Event("inpatient to outpatient", "in-progress", "move"),
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
        "A20": Event("bed status update", place=True),
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
        "A35": Event("merge patient information, account only", "", "move"),
        "A36": Event("merge patient and account", "", "merge"),
        "A37": Event("unlink patients", "", "unlink"),
        "A38": Event("cancel pre-admit", "cancelled"),
        "A39": Event("merge person, external id", "", "merge"),
        "A40": Event("merge patient, id list", "", "merge"),
        "A41": Event("merge account", "", "move"),
        "A42": Event("merge visit", "", "move"),
        "A43": Event("move patient information", "", "move"),
        "A44": Event("move account information", "", "move"),
        "A45": Event("move visit information", "", "move"),
        "A46": Event("change patient id", "", "merge"),
        "A47": Event("change patient identifier list", "", "merge"),
        "A48": Event("change alternate patient id", "", "move"),
        "A49": Event("change account number", "", "move"),
        "A50": Event("change visit number", "", "move"),
        "A51": Event("change alternate visit id", "", "move"),
        "A52": Event("cancel leave of absence", "in-progress"),
        "A53": Event("cancel return from leave", "onleave"),
        "A54": Event("change attending doctor"),
        "A55": Event("cancel change of attending doctor"),
        "A60": Event("update allergies"),
        "A61": Event("change consulting doctor"),
        "A62": Event("cancel change of consulting doctor"),
    }
)
"""Every event of ADT in v2.3 to v2.8. A19, the answer to a query, is an ADR message."""
