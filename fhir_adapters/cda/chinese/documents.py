"""What a Chinese document is as a whole: a report, a prescription, a consultation, a transfer, or a record."""

from typing import Any

from fhir_adapters.cda.chinese.form import (
    CONSULTATION,
    EXAM_REPORT,
    LAB_REPORT,
    PRESCRIPTIONS,
    REPORTS,
    Form,
)
from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import ids, times
from fhir_adapters.cda.entries.observations import encounter_of
from fhir_adapters.cda.node import Node
from fhir_adapters.identifiers import report_id, service_request_id

_SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
_DOCUMENT_NUMBERS = frozenset({"14", "20", "24", "32", "33", "34", "8"})
_REASONS = ("DE06.00.319.00", "DE06.00.039.00", "DE06.00.214.00")


def begin(conv: Conversion, patient: Node) -> Form:
    """Take the numbers of the report, order and specimen from among the patient's."""
    form = conv.form = Form(conv.kind)
    left = []
    for el in patient.kids.get("id", ()):
        kind = ids.kind_of(el)
        made = ids.identifier(conv, el) if kind in _DOCUMENT_NUMBERS else None
        if made is not None and kind not in form.numbers:
            form.numbers[kind] = made
            form.number_places[kind] = el
        else:
            left.append(el)
    patient.kids["id"] = left
    return form


def prepare(conv: Conversion, form: Form, composition: Json) -> None:
    """Make the resources that the entries will add to."""
    if form.kind in REPORTS:
        _request(conv, form, composition)
        _report(conv, form, composition)
    elif form.kind == CONSULTATION:
        _request(conv, form, composition)


def _request(conv: Conversion, form: Form, composition: Json) -> None:
    number = form.numbers.get("24")
    if number is None and form.kind != CONSULTATION:
        return
    system, value = (number["system"], number["value"]) if number else conv.document
    resource: Json = {
        "resourceType": "ServiceRequest",
        "id": service_request_id(conv.profile, system, value),
    }
    if number:
        resource["identifier"] = [number]
    resource |= {"status": "completed", "intent": "order"}
    resource["code"] = {"text": "会诊" if form.kind == CONSULTATION else composition["title"]}
    resource["subject"] = conv.subject
    encounter_of(conv, resource)
    asked = [each for each in composition.get("extension", ()) if each["url"].endswith("ParticipantExtension")]
    if asked and form.kind in REPORTS:
        resource["requester"] = asked[0]["valueReference"]
    conv.put(resource)
    form.request = conv.resources[f"ServiceRequest/{resource['id']}"]


def _report(conv: Conversion, form: Form, composition: Json) -> None:
    number = form.numbers.get("33" if form.kind == LAB_REPORT else "32")
    system, value = (number["system"], number["value"]) if number else conv.document
    resource: Json = {"resourceType": "DiagnosticReport", "id": report_id(conv.profile, system, value)}
    if number:
        resource["identifier"] = [number]
    if form.request is not None:
        resource["basedOn"] = [{"reference": f"ServiceRequest/{form.request['id']}"}]
    resource["status"] = "final"
    if form.kind == LAB_REPORT:
        resource["category"] = [{"coding": [{"system": _SECTION, "code": "LAB", "display": "Laboratory"}]}]
    else:
        resource["category"] = [{"text": "检查"}]
    resource["code"] = {"text": composition["title"]}
    resource["subject"] = conv.subject
    encounter_of(conv, resource)
    issued = times.instant(_author_time(conv) or conv.recorded)
    if issued:
        resource["issued"] = issued
    conv.put(resource)
    form.report = resource
    _people(conv, resource, composition)


def _author_time(conv: Conversion) -> str:
    return conv.authored


def _role(conv: Conversion, attester: Json) -> str:
    """What an attester signed as (审核医师), which stands in the code of the role."""
    party = attester.get("party", {}).get("reference", "")
    if not party.startswith("PractitionerRole/"):
        return ""
    code = conv.resources[party].get("code", [{}])[0]
    return str(code.get("text", "") or (code.get("coding") or [{}])[0].get("display", ""))


def _people(conv: Conversion, resource: Json, composition: Json) -> None:
    """The technician and physician performed it, the reviewing and reporting physicians interpreted it."""
    for attester in composition.get("attester", ()):
        role = _role(conv, attester)
        if "party" not in attester:
            continue
        element = "resultsInterpreter" if "审核" in role or attester["mode"] == "legal" else "performer"
        if attester["party"] not in resource.setdefault(element, []):
            resource[element].append(attester["party"])
    for author in composition["author"]:
        if "reference" in author and author not in resource.setdefault("resultsInterpreter", []):
            resource["resultsInterpreter"].append(author)


def finish(conv: Conversion, form: Form, composition: Json) -> None:
    """Complete what the whole document says of the resources made of its entries."""
    if form.kind in PRESCRIPTIONS:
        _finish_prescription(conv, form, composition)
    conv.settle()
    for _, el, _section in form.waiting:
        conv.not_mapped(el)
    if form.report is not None:
        _finish_report(conv, form)
    if form.kind == CONSULTATION and form.request is not None:
        _finish_consultation(conv, form.request, composition)
    _unused_numbers(conv, form)


def _unused_numbers(conv: Conversion, form: Form) -> None:
    """Remark on the number of a report, order or specimen that this kind of document makes none of."""
    used = [each for resource in conv.resources.values() for each in resource.get("identifier", ()) if each]
    used += [each["groupIdentifier"] for each in form.medicines if "groupIdentifier" in each]
    for kind, made in form.numbers.items():
        if made not in used:
            conv.not_mapped(form.number_places[kind])


def _finish_report(conv: Conversion, form: Form) -> None:
    report = form.report
    assert report is not None
    specimens = [{"reference": f"Specimen/{each['id']}"} for each in form.specimens]
    if specimens:
        report["specimen"] = specimens
    moments = (each.get("collection", {}).get("collectedDateTime") for each in form.specimens)
    collected = next(filter(None, moments), None)
    if collected:
        report["effectiveDateTime"] = collected
    for each in report.get("result", ()):
        resource = conv.get(each)
        if len(specimens) == 1 and form.kind == LAB_REPORT:
            resource.setdefault("specimen", specimens[0])
        if form.method:
            resource.setdefault("method", {"text": form.method})
        if "basedOn" in report:
            resource.setdefault("basedOn", report["basedOn"])
        if "issued" in report:
            resource.setdefault("issued", report["issued"])
    if form.request is not None and form.kind in (LAB_REPORT, EXAM_REPORT):
        form.request["code"] = report["code"]


def _finish_prescription(conv: Conversion, form: Form, composition: Json) -> None:
    dispensed = any("发药" in _role(conv, each) for each in composition.get("attester", ()))
    author = next((each for each in composition["author"] if "reference" in each), None)
    for resource in form.medicines:
        if dispensed:
            resource["status"] = "completed"
        if author is not None:
            resource.setdefault("requester", author)
        if conv.authored:
            resource.setdefault("authoredOn", conv.authored)
        if form.reasons:
            resource.setdefault("reasonReference", list(form.reasons))


def _finish_consultation(conv: Conversion, request: Json, composition: Json) -> None:
    """Who asked, who came, and why: signatures and data elements of the document."""
    for attester in composition.get("attester", ()):
        role = _role(conv, attester)
        if "party" not in attester:
            continue
        if "申请" in role and "requester" not in request:
            request["requester"] = attester["party"]
        elif "会诊" in role and "申请" not in role:
            request.setdefault("performer", []).append(attester["party"])
    for resource in list(conv.resources.values()):
        if resource["resourceType"] != "Observation" or not _about_request(resource):
            continue
        text = resource.get("valueString") or _text(resource.get("valueCodeableConcept"))
        if text:
            request.setdefault("reasonCode", []).append({"text": text})


def _about_request(resource: Json) -> bool:
    return any(each.get("code") in _REASONS[1:] for each in resource["code"].get("coding", ()))


def _text(concept: Any) -> str:
    return str((concept or {}).get("text") or ((concept or {}).get("coding") or [{}])[0].get("display", ""))
