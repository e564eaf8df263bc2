"""How each kind of difference from other converters' Bundles is judged; the first row that fits counts."""

from __future__ import annotations

import re
from dataclasses import dataclass

OURS, EQUIVALENT, THEIRS, APART, OPEN = "ours", "equivalent", "theirs", "not mapped", "not judged"
"""Ours says it better; both say it; theirs says it better (a known gap of ours); ours leaves it out; nobody looked."""


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
        "single values",
        OPEN,
        "a handful each, of sample messages that fill every field of v2.8; not looked at one by one",
        r".",
        absent=True,
    ),
)
