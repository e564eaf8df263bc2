"""MSH and EVN: one Provenance per message (guide: MSH[Provenance], EVN[Provenance]).

The guide's MessageHeader belongs to a message Bundle; ours is a transaction, whose resources a Provenance explains and
whose source it names by its digest.
"""

from fhir_adapters.hl7v2.context import Conversion, Json, keep_original
from fhir_adapters.hl7v2.datatypes import actors, concepts, timestamps
from fhir_adapters.hl7v2.message import Message, Segment
from fhir_adapters.identifiers import provenance_id
from fhir_adapters.identifiers.build import PROJECT_SYSTEMS

_AGENT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_V2_EVENT = "http://terminology.hl7.org/CodeSystem/v2-0003"
SOURCE_DIGEST = PROJECT_SYSTEMS + "source-digest-sm3"

# Fields that steer the exchange of the message and are answered there; the message itself stays in the inbox.
_PROTOCOL = (1, 2, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25)


def message_time(conv: Conversion, message: Message) -> str | None:
    """MSH-7, else EVN-2, as an instant; None when neither has a time of day."""
    for name, number in (("MSH", 7), ("EVN", 2)):
        for segment in message.all(name)[:1]:
            raw = segment.peek(number).split("^")[0].strip()
            parsed = timestamps.parse(raw, conv.time_zone) if raw else None
            if parsed is not None and len(parsed[0]) > 10:
                return parsed[0]
    return None


def provenance(conv: Conversion, message: Message, digest: str, recorded: str | None) -> Json:
    """Make the Provenance of everything converted so far and return it (already added)."""
    msh = message.header
    fields = msh.fields
    for number in _PROTOCOL:
        fields[number] = ""
    header = conv.header
    resource: Json = {
        "resourceType": "Provenance",
        "id": provenance_id(conv.profile, conv.local_system("message"), header.control_id),
        "target": [{"reference": reference} for reference in conv.resources],
    }
    raw_time = conv.text(msh.take(7))
    if recorded is not None:
        resource["recorded"] = recorded
    else:
        conv.issue("warning", "missing", msh, 7, "the message does not say when it was sent")
        keep_original(resource, "recorded", raw_time or "unknown", "unknown")
    coding: Json = {"system": _V2_EVENT, "code": header.trigger} if header.trigger else {}
    activity: Json = {"text": header.event}
    resource["activity"] = {"coding": [coding], **activity} if coding else activity
    resource["agent"] = _agents(conv, msh)
    for sft in message.all("SFT"):
        resource["agent"].append(_software(conv, sft))
    resource["agent"] += [_agent(kind, who) for (kind, _), who in conv.agents.items()]
    source: Json = {"identifier": {"system": SOURCE_DIGEST, "value": digest}, "display": f"HL7 v2 {header.event}"}
    control = {"identifier": {"system": conv.local_system("message-control-id"), "value": header.control_id}}
    resource["entity"] = [{"role": "source", "what": source}, {"role": "source", "what": control}]
    for evn in message.all("EVN"):
        _event(conv, resource, evn)
    conv.put(resource)
    return resource


def _agents(conv: Conversion, msh: Segment) -> list[Json]:
    application, facility = msh.take(3), msh.take(4)
    agents: list[Json] = []
    organization = actors.authority(conv, facility) if facility else None
    if organization is None and conv.profile.organization.name:
        organization = {"display": conv.profile.organization.name}
    if organization is not None:
        agents.append(_agent("author", organization))
    responsible = actors.organization(conv, msh, 22) if msh.fields[22] else None
    if responsible is not None:
        agents.append(_agent("custodian", responsible))
    parts = [conv.text(part) for part in application.split("^")]
    title = parts[0] or (parts[1] if len(parts) > 1 else "")
    system: Json = {"display": title or conv.profile.name}
    if len(parts) > 1 and parts[1]:
        system["identifier"] = {"system": conv.system(""), "value": parts[1]}
    if organization is not None:
        agents.append({**_agent("assembler", system), "onBehalfOf": organization})
    else:
        agents.append(_agent("assembler", system))
    return agents


def _software(conv: Conversion, sft: Segment) -> Json:
    """SFT: a program that had a hand in the message: name (SFT-3), release (2), vendor (1), binary (4)."""
    vendor, release, product, binary = (conv.text(sft.take(number).split("^")[0]) for number in (1, 2, 3, 4))
    more = conv.text(sft.take(5))
    sft.take(6)  # when it was installed
    title = " ".join(text for text in (product or more, release or binary, f"({vendor})" if vendor else "") if text)
    who: Json = {"type": "Device", "display": title or "software"}
    if binary:
        who["identifier"] = {"system": conv.local_system("software"), "value": binary}
    return _agent("assembler", who)


def _agent(kind: str, who: Json) -> Json:
    return {"type": {"coding": [{"system": _AGENT, "code": kind}]}, "who": who}


def _event(conv: Conversion, resource: Json, evn: Segment) -> None:
    """EVN-4 reason, EVN-5 operator, EVN-6 when it happened (else EVN-2); EVN-1 repeats MSH-9."""
    evn.take(1)
    if evn.peek(6):
        timestamps.put_date_time(conv, resource, "occurredDateTime", evn, 6)
        evn.take(2)
    else:
        timestamps.put_date_time(conv, resource, "occurredDateTime", evn, 2)
    reasons = concepts.concepts(conv, evn, 4)
    if reasons:
        resource["reason"] = reasons
    for operator in actors.practitioners(conv, evn, 5) if evn.peek(5) else ():
        resource["agent"].append(_agent("enterer", operator))
    if evn.peek(7):
        facility = actors.authority(conv, evn.take(7))
        if facility is not None and all(each["who"] != facility for each in resource["agent"]):
            resource["agent"].append(_agent("performer", facility))
