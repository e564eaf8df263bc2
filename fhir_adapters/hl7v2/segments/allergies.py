"""AL1 and IAM: the AllergyIntolerance (guide: AL1[AllergyIntolerance], IAM[AllergyIntolerance])."""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import kin
from fhir_adapters.identifiers import related_id

_CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"

# IAM-17, table 0438, as verification; what the allergy turned out not to be keeps no clinical status (ait-1, ait-2).
_VERIFIED = {"U": "unconfirmed", "P": "unconfirmed", "S": "unconfirmed", "C": "confirmed", "I": "confirmed"}
_WITHDRAWN = {"D": "refuted", "E": "entered-in-error"}
# IAM-9, table 0436, as type.
_TYPES = {"AL": "allergy", "CT": "intolerance", "IN": "intolerance", "SE": "intolerance", "AD": "intolerance"}
_CRITICALITY = {"severe": "high", "moderate": "low", "mild": "low"}


def allergy(conv: Conversion, patient: Json, al1: Segment) -> None:
    """AL1: what is on record about the patient; no more than unconfirmed, as AL1 says nothing of it."""
    al1.take(1)
    resource = _blank(patient, "unconfirmed")
    _allergen(conv, resource, al1)
    _reaction(conv, resource, al1)
    timestamps.put_date_time(conv, resource, "onsetDateTime", al1, 6)
    resource["id"] = related_id(conv.profile, "AllergyIntolerance", patient["id"], key_of(resource["code"]))
    conv.put(resource)


def _blank(patient: Json, verification: str) -> Json:
    return {
        "resourceType": "AllergyIntolerance",
        "id": "",
        "clinicalStatus": {"coding": [{"system": _CLINICAL, "code": "active"}]},
        "verificationStatus": {"coding": [{"system": _VERIFICATION, "code": verification}]},
        "patient": {"reference": f"Patient/{patient['id']}"},
    }


def _allergen(conv: Conversion, resource: Json, segment: Segment) -> None:
    kind, sent = concepts.mapped(conv, "allergy-category", segment, 2)
    if kind is not None:
        resource["category"] = [kind.code]
    code = concepts.concept(conv, segment, 3)
    if code is not None:
        resource["code"] = code
    else:
        conv.issue("warning", "missing", segment, 3, "no allergen is named")
        resource["code"] = sent or {"text": "unknown"}


def _reaction(conv: Conversion, resource: Json, segment: Segment) -> None:
    severity, _ = concepts.mapped(conv, "allergy-severity", segment, 4)
    symptoms = [
        text for raw in segment.take(5).split("~") if (text := conv.text(raw.split("^")[-1] or raw.split("^")[0]))
    ]
    if symptoms:
        reaction: Json = {"manifestation": [{"text": each} for each in symptoms]}
        if severity is not None:
            reaction["severity"] = severity.code
        resource["reaction"] = [reaction]
    elif severity is not None:
        # A severity needs a manifestation in FHIR; without one it says how much the allergy is to be feared.
        resource["criticality"] = _CRITICALITY[severity.code]


def key_of(code: Json) -> str:
    """What a coded thing is called: its first code, else its text."""
    return str(code["coding"][0]["code"] if code.get("coding") else code.get("text", ""))


def adverse_reaction(conv: Conversion, patient: Json, iam: Segment) -> None:
    """IAM: an allergy with a number, a status and an action of its own (A60); IAM-6 D takes it back."""
    iam.take(1)
    resource = _blank(patient, "unconfirmed")
    _allergen(conv, resource, iam)
    _reaction(conv, resource, iam)
    _status(conv, resource, iam)
    _kind(conv, resource, iam)
    identified = business_ids.entity(conv, iam.take(7)) if iam.peek(7) else None
    business_ids.add_identifier(resource, identified)
    if not timestamps.put_date_time(conv, resource, "onsetDateTime", iam, 11) and iam.peek(12):
        resource.pop("_onsetDateTime", None)
        resource["onsetString"] = conv.text(iam.take(12))
    if not timestamps.put_date_time(conv, resource, "recordedDate", iam, 13):
        timestamps.put_date_time(conv, resource, "recordedDate", iam, 24)
    _reporter(conv, patient, resource, iam)
    reason = conv.text(iam.take(8))
    if reason:
        resource["note"] = [{"text": reason}]
    place = business_ids.key_of(identified) if identified is not None else (key_of(resource["code"]),)
    resource["id"] = related_id(conv.profile, "AllergyIntolerance", patient["id"], *place)
    conv.put(resource)


def _status(conv: Conversion, resource: Json, iam: Segment) -> None:
    action = conv.text(iam.take(6).split("^")[0])
    raw = conv.text(iam.peek(17).split("^")[0])
    verification = "entered-in-error" if action == "D" else _WITHDRAWN.get(raw) or _VERIFIED.get(raw, "")
    if raw and (raw in _VERIFIED or raw in _WITHDRAWN):
        iam.take(17)
    elif raw:
        conv.unmapped_code("allergy status", iam, 17)
    if raw == "I" and action != "D":
        resource["clinicalStatus"] = {"coding": [{"system": _CLINICAL, "code": "inactive"}]}
    if verification:
        resource["verificationStatus"] = {"coding": [{"system": _VERIFICATION, "code": verification}]}
    if verification == "entered-in-error":
        del resource["clinicalStatus"]


def _kind(conv: Conversion, resource: Json, iam: Segment) -> None:
    raw = conv.text(iam.peek(9).split("^")[0])
    if raw in _TYPES:
        iam.take(9)
        resource["type"] = _TYPES[raw]
    for number in (10, 27):  # the allergen's group, and the clinician's own code for it
        found = concepts.concept(conv, iam, number) if iam.peek(number) else None
        for each in (found or {}).get("coding", ()):
            codings = resource["code"].setdefault("coding", [])
            if each not in codings:
                codings.append(each)


def _reporter(conv: Conversion, patient: Json, resource: Json, iam: Segment) -> None:
    """IAM-14 and 15: who reported it; IAM-18, 23: who established and who first recorded it."""
    relation = conv.text(iam.peek(15).split("^")[0])
    if relation == "SEL":
        iam.take(15)
        iam.take(14)
        resource["asserter"] = {"reference": f"Patient/{patient['id']}"}
    elif iam.peek(14):
        person = kin.blank(patient)
        person["name"] = demographics.names(conv, iam, 14)
        kind = concepts.translated(conv, "relationship", iam, 15)
        if kind is not None:
            person["relationship"] = [kind]
        reference = kin.finish(conv, patient, person) if person["name"] else ""
        if reference:
            resource["asserter"] = {"reference": reference}
    for number, element in ((18, "asserter"), (23, "recorder")):
        who = actors.practitioner(conv, iam, number) if iam.peek(number) else None
        if who is not None:
            resource.setdefault(element, who)
