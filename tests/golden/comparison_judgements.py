"""How each kind of difference from other converters' Bundles is judged; the first row that fits counts."""

from __future__ import annotations

import re
from dataclasses import dataclass

OURS, EQUIVALENT, THEIRS, APART = "ours", "equivalent", "theirs", "not mapped"
"""Ours says it better; both say it; theirs says it better (a known gap of ours); ours leaves it out."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A kind of difference: which converters, paths and values, and only what is absent or elsewhere where so said."""

    kind: str
    verdict: str
    why: str
    path: str
    of: str = "ms rs cda"
    value: str = ""
    absent: bool = False
    elsewhere: bool = False

    def fits(self, source: str, place: str, value: str, verdict: str) -> bool:
        """Whether a difference is of this kind."""
        return (
            source in self.of.split()
            and not (self.absent and verdict != "absent")
            and not (self.elsewhere and verdict != "elsewhere")
            and re.search(self.path, place) is not None
            and (not self.value or re.search(self.value, value) is not None)
        )


JUDGEMENTS = (
    Judgement(
        "extensions that carry v2 fields back to v2",
        EQUIVALENT,
        "they keep every field twice for the way back; ours maps it once, or reports it",
        r"extension",
        "rs",
    ),
    Judgement(
        "extensions", EQUIVALENT, "other URLs for what stands in an element or an extension of ours", r"extension"
    ),
    Judgement(
        "status `unknown`, or one that no field says",
        OURS,
        "the event, the order control and the result status decide here; `unknown` only where nothing says it",
        r"\.(status|intent|clinicalStatus.*|verificationStatus.*)$",
    ),
    Judgement(
        "an Organization for each assigning authority",
        OURS,
        "an authority is the `system` of the identifier; its OID and kind (ISO, HCD, DNS) are no numbers of an organization",
        r"^(Organization|Location|Device)\.identifier\.",
    ),
    Judgement(
        "types of identifiers that are kinds of authority, and their displays",
        EQUIVALENT,
        "the code says it; the display is looked up",
        r"identifier\.(type\.|assigner)",
    ),
    Judgement(
        "places as one text",
        OURS,
        "a place is a chain of Locations (site, building, floor, ward, room, bed) that can be searched",
        r"^Location\.",
    ),
    Judgement(
        "lines of an address",
        EQUIVALENT,
        "street and house number are one line here, as written on an envelope",
        r"address\.line$",
    ),
    Judgement(
        "texts beside codes",
        EQUIVALENT,
        "the code stands in both; the display is theirs or the sender's",
        r"\.(display|text)$",
        value=".",
    ),
    Judgement("versions of code systems", EQUIVALENT, "kept where the message says one", r"coding\.version$"),
    Judgement(
        "what a telephone is for",
        OURS,
        "the equipment type (CP: mobile) says more than the field (PID-13: home)",
        r"telecom\.(use|system|rank)$",
    ),
    Judgement(
        "numbers of telephones put together",
        EQUIVALENT,
        "country and area code are part of the number; theirs leaves them apart",
        r"telecom\.",
    ),
    Judgement(
        "parts of names",
        EQUIVALENT,
        "one Practitioner for one person: what a second mention says otherwise is not added; called-by names are no given names",
        r"\.(name)\.(use|given|family|suffix|prefix|period.*|text)$",
    ),
    Judgement(
        "numbers of persons",
        EQUIVALENT,
        "one person is one resource here; further numbers of later mentions, and names as numbers, are not added",
        r"^(Practitioner|RelatedPerson|Patient|Person)\.identifier\.",
    ),
    Judgement(
        "numbers of orders, specimens, accounts and documents",
        EQUIVALENT,
        "the placer's and the filler's number each once, under the system of their issuer",
        r"\.identifier\.|\.(groupIdentifier|requisition|masterIdentifier|accessionIdentifier|policyHolder|subscriberId)",
    ),
    Judgement(
        "primary language",
        EQUIVALENT,
        "BCP 47 since hl7v2/1.1, after their example, with the code as sent behind it; a display as sent",
        r"communication\.",
    ),
    Judgement(
        "bounds of a repetition",
        OURS,
        "the sender's offset is kept; theirs are moved to the converter's zone, by which days change",
        r"boundsPeriod",
    ),
    Judgement(
        "meals beside times of day",
        OURS,
        "explicit times are kept; FHIR allows no `when` beside them (tim-10)",
        r"\.repeat\.(when|offset)$",
    ),
    Judgement(
        "amounts and names of repetitions",
        THEIRS,
        "a few patterns of periods and durations, and the display of table 0335",
        r"\.repeat\.|[tT]iming\.code",
    ),
    Judgement(
        "`snapshot` as the mode of every section",
        OURS,
        "no document says so",
        r"^Composition\.section\.mode",
    ),
    Judgement(
        "reports and documents as attachments",
        EQUIVALENT,
        "a DocumentReference and a Binary with its digest here: a search does not carry pages",
        r"presentedForm|attachment|^DocumentReference\.|^Composition\.",
    ),
    Judgement(
        "the sender's software as a Device",
        APART,
        "SFT says nothing of the patient; the message's control id and digest name its origin",
        r"^Device\.",
    ),
    Judgement(
        "types that ours makes none of here",
        APART,
        "ClaimResponse, EpisodeOfCare, ResearchStudy, Linkage and Substance are left to billing and trial systems; their fields are reported",
        r"^(ClaimResponse|Claim|EpisodeOfCare|ResearchStudy|Linkage|Substance)\.",
    ),
    Judgement("values elsewhere", EQUIVALENT, "another element or resource of ours has them", r".", elsewhere=True),
    Judgement(
        "addresses and contacts of persons and organizations in several roles",
        EQUIVALENT,
        "one resource for one identifier here: what a later mention of it adds is not merged",
        r"\.(address|contact|telecom|name|period|active|gender|birthDate)\b",
        absent=True,
    ),
    Judgement(
        "codes as sent or of another table",
        EQUIVALENT,
        "ours puts the FHIR code first and keeps the sender's; theirs one of the two",
        r"\.(code|type|category|class|relationship|function|priority|interpretation|outcome|severity|criticality|category|mode|role|kind|use|docStatus|reason|method|route|site)(\.|$)|coding\.code$",
        absent=True,
    ),
    Judgement(
        "values that no field says",
        OURS,
        "`onHold` false, a period from the time of the event, a sentence on why the converter made a Task",
        r"^(Account\.guarantor\.onHold|Account\.servicePeriod\.|Task\.description)",
        absent=True,
    ),
    Judgement(
        "times moved to the converter's zone",
        OURS,
        "the sender's offset is kept; moved to another zone the day changes",
        r"\.(issued|collectedPeriod\.(start|end))$",
        absent=True,
    ),
    Judgement(
        "accidents as Observations",
        APART,
        "ACC says where and how an accident was, for an insurer; its fields are reported",
        r"^Observation\.(effectiveDateTime|valueString)$",
        value=r"^(2014-03-17|vehicle acc?ident)$",
        absent=True,
    ),
    Judgement(
        "times of an allergy",
        OURS,
        "IAM-13, when it was reported, as the mapping guide has it; IAM-24 is reported",
        r"^AllergyIntolerance\.recordedDate$",
        absent=True,
    ),
    Judgement(
        "one diagnosis told twice",
        EQUIVALENT,
        "one Condition for one code of a visit: its first time is kept, where theirs makes two Conditions",
        r"^Condition\.onsetDateTime$",
        absent=True,
    ),
    Judgement(
        "notes put together",
        EQUIVALENT,
        "all notes of an appointment in its one comment; an instruction in the dosage's text",
        r"^(Appointment\.comment|MedicationRequest\.dosageInstruction\.patientInstruction)$",
        absent=True,
    ),
    Judgement(
        "charges as dispenses, timings of vaccinations as orders",
        APART,
        "FT1 is a ChargeItem here, and TQ1 of a vaccination that was given says nothing new; their fields are reported",
        r"^(MedicationDispense\.quantity\.unit|ServiceRequest\.quantityQuantity\.(unit|value))$",
        absent=True,
    ),
    Judgement(
        "the unit of days by its name",
        EQUIVALENT,
        "the code `d` of UCUM stands in both",
        r"dispenseInterval\.unit$",
        absent=True,
    ),
    Judgement(
        "documents as Observations",
        EQUIVALENT,
        "the text of an MDM is the content of its DocumentReference here",
        r"^Observation\.valueString$",
        value=r"^(columnist|toilet)",
        absent=True,
    ),
    Judgement(
        "a ratio with a broken comparator",
        OURS,
        '`"` is no comparator (table 0523): the value is kept as it was sent',
        r"^Observation\.valueRatio\.",
        absent=True,
    ),
    Judgement(
        "the original text of a unit",
        EQUIVALENT,
        "the unit's name is shown; its ninth component says the same",
        r"^Specimen\.collection\.quantity\.unit$",
        absent=True,
    ),
    Judgement(
        "a repetition of a value in another visit's results",
        EQUIVALENT,
        "components of one Observation",
        r"^Observation\.component\.valueQuantity\.value$",
        absent=True,
    ),
)
