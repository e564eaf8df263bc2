"""IPC: what an imaging department plans for an order (HL7 v2.5.1, 4.5.6): accession, study, protocol, station."""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import business_ids, concepts
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.identifiers import identifier_type

_DICOM_UID = "urn:dicom:uid"


def procedure_step(conv: Conversion, request: Json, ipc: Segment) -> None:
    """Complete the ServiceRequest of an imaging order by one scheduled procedure step."""
    for number, kind in ((1, "ACSN"), (2, "RI"), (4, "RI")):
        made = business_ids.entity(conv, ipc.take(number)) if ipc.peek(number) else None
        if made is not None:
            business_ids.add_identifier(request, {"type": identifier_type(kind), **made})
    study = conv.text(ipc.take(3).split("^")[0])
    if study:
        uid = {"system": _DICOM_UID, "value": f"urn:oid:{study}"}
        business_ids.add_identifier(request, uid)
    for number in (5, 6):  # modality, protocol
        for each in concepts.concepts(conv, ipc, number) if ipc.peek(number) else ():
            details = request.setdefault("orderDetail", [])
            if each not in details:
                details.append(each)
    where = concepts.concept(conv, ipc, 8) if ipc.peek(8) else None
    if where is not None:
        request.setdefault("locationCode", []).append(where)
