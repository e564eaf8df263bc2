"""OBR: the DiagnosticReport that answers an order (guide: OBR[DiagnosticReport])."""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, concepts, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments.orders import Order
from fhir_adapters.identifiers import report_id

NOTE = "http://hl7.org/fhir/5.0/StructureDefinition/extension-DiagnosticReport.note"

# Sections of HL7 table 0074 that are not the laboratory's, by the category their observations get.
_IMAGING = frozenset({"CT", "RAD", "RX", "NMR", "NMS", "RUS", "OUS", "VUS", "CUS", "VR", "XRC", "CTH", "EC", "EN"})


def report(conv: Conversion, order: Order, obr: Segment, subject: Json, encounter: Json | None, request: Json) -> Json:
    """Make the DiagnosticReport of an OBR and return it (already added); its results are put in by the caller."""
    resource: Json = {
        "resourceType": "DiagnosticReport",
        "id": report_id(conv.profile, *order.key),
        "status": _status(conv, obr),
        "code": order.code,
        "subject": subject,
        "basedOn": [{"reference": f"ServiceRequest/{request['id']}"}],
    }
    numbers = [each for each in (order.filler, order.placer) if each is not None]
    if numbers:
        resource["identifier"] = numbers
    if encounter is not None:
        resource["encounter"] = encounter
    if obr.peek(24):
        section, sent = concepts.mapped(conv, "section", obr, 24)
        if section is not None:
            resource["category"] = [{"coding": [section.coding()]}]
        elif sent is not None:
            resource["category"] = [sent]
    _effective(conv, resource, obr)
    timestamps.put_instant(conv, resource, "issued", obr, 22)
    _interpreters(conv, resource, obr)
    return conv.keep(resource)


def category(resource: Json) -> str:
    """The category of a report's observations, by its section."""
    codes = {coding["code"] for each in resource.get("category", ()) for coding in each.get("coding", ())}
    return "imaging" if codes & _IMAGING else "laboratory"


def _status(conv: Conversion, obr: Segment) -> str:
    raw = conv.text(obr.take(25))
    if not raw:
        conv.issue("warning", "missing", obr, 25, "no result status")
        return "unknown"
    known = conv.find("report-status", raw)
    if known is None:
        conv.unmapped_code("report-status", obr, 25)
        return "unknown"
    return known.code


def _effective(conv: Conversion, resource: Json, obr: Segment) -> None:
    if not obr.peek(8):
        timestamps.put_date_time(conv, resource, "effectiveDateTime", obr, 7)
        return
    period: Json = {}
    timestamps.put_date_time(conv, period, "start", obr, 7)
    timestamps.put_date_time(conv, period, "end", obr, 8)
    if period:
        timestamps.check_period(conv, period, obr, 8)
        resource["effectivePeriod"] = period


def _interpreters(conv: Conversion, resource: Json, obr: Segment) -> None:
    for numbers, element in (((32, 33), "resultsInterpreter"), ((34, 35), "performer")):
        found: list[Json] = []
        for number in numbers:
            for raw in obr.take(number).split("~") if obr.fields[number] else ():
                reference = actors.named_practitioner(conv, raw, obr, number)
                if reference is not None and reference not in found:
                    found.append(reference)
        if found:
            resource[element] = found
