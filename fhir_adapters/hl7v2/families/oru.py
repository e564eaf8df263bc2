"""ORU: results (HL7 v2 chapter 7). Several patients, each with several orders, each with results and specimens."""

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.families import adt
from fhir_adapters.hl7v2.message import Message
from fhir_adapters.hl7v2.segments import observations, orders, patients, related, specimens
from fhir_adapters.hl7v2.structures import ORU, Node, group_segments

# Sections of HL7 table 0074 that are not the laboratory's, by the category their observations get.
_IMAGING = frozenset({"CT", "RAD", "RX", "NMR", "NMS", "RUS", "OUS", "VUS", "CUS", "VR", "XRC", "CTH", "EC", "EN"})


def convert(conv: Conversion, message: Message) -> None:
    """Map every patient group of an ORU message.

    Raises:
        ParseError: there is no PID.
    """
    root = group_segments(message.segments, ORU)
    groups = list(root.groups("PATIENT"))
    if not groups or groups[0].first("PID") is None:
        raise ParseError("a required segment is missing", "PID")
    for group in groups:
        _patient_group(conv, group)


def _patient_group(conv: Conversion, group: Node) -> None:
    pid = group.first("PID")
    if pid is None:
        return
    patient = patients.patient(conv, pid)
    adt.person_details(conv, group, patient)
    visit = adt.visit_of(conv, group, patient, "")
    adt.surroundings(conv, group, patient, visit)
    subject = {"reference": f"Patient/{patient['id']}"}
    encounter = {"reference": f"Encounter/{visit['id']}"} if visit is not None else None
    ordered = [(each.first("ORC"), obr) for each in group.groups("ORDER") if (obr := each.first("OBR")) is not None]
    shared = orders.shared_numbers(ordered)
    for order in group.groups("ORDER"):
        _order(conv, order, subject, encounter, shared)


def _order(
    conv: Conversion, group: Node, subject: Json, encounter: Json | None, shared: frozenset[tuple[str, str]]
) -> None:
    obr = group.first("OBR")
    if obr is None:
        _results_alone(conv, group, subject, encounter)
        return
    orc = group.first("ORC")
    order = orders.identify(conv, orc, obr, shared)
    request = orders.service_request(conv, order, orc, obr, subject, encounter)
    report = orders.report(conv, order, obr, subject, encounter, request)
    taken = [specimens.specimen(conv, subject, each.segments[0], order.key) for each in group.groups("SPECIMEN")]
    if taken:
        specimens.collected_by(conv, taken[0], obr)
    else:
        described = specimens.from_order(conv, subject, obr, order.key)
        taken = [described] if described is not None else []
    if taken:
        references = [{"reference": f"Specimen/{each['id']}"} for each in taken]
        report["specimen"] = references
        request["specimen"] = references
    owner = _owner(order, report, subject, encounter)
    if len(taken) == 1:
        owner.specimen = {"reference": f"Specimen/{taken[0]['id']}"}
    category = _category(report)
    results = [made for each in group.groups("OBSERVATION") if (made := adt.observed(conv, owner, each, category))]
    if results:
        report["result"] = [{"reference": f"Observation/{each['id']}"} for each in results]
    for nte in group.all("NTE"):
        note = related.note(conv, nte)
        if note is not None:
            report.setdefault("extension", []).append({"url": orders.NOTE, "valueAnnotation": note})


def _results_alone(conv: Conversion, group: Node, subject: Json, encounter: Json | None) -> None:
    """OBX without an OBR: the results are kept; no report and no order can be made up for them."""
    owner = observations.Owner(subject, encounter, conv.local_system("message"), conv.header.control_id)
    for each in group.groups("OBSERVATION"):
        adt.observed(conv, owner, each, "")
    segment = group.children[0].segments[0] if group.children else group.segments[0]
    conv.issue("warning", "missing", segment, 0, "results or an order control without the OBR that they belong to")


def _owner(order: orders.Order, report: Json, subject: Json, encounter: Json | None) -> observations.Owner:
    owner = observations.Owner(subject, encounter, *order.key)
    # A report's status words that an observation knows too stand in where OBX-11 is empty.
    owner.status = "preliminary" if report["status"] == "partial" else str(report["status"])
    owner.effective = {
        name: report[name] for name in ("effectiveDateTime", "_effectiveDateTime", "effectivePeriod") if name in report
    }
    return owner


def _category(report: Json) -> str:
    codes = {coding["code"] for each in report.get("category", ()) for coding in each.get("coding", ())}
    return "imaging" if codes & _IMAGING else "laboratory"
