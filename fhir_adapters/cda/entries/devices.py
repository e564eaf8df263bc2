"""Devices and supplies: product instances (4.37), non-medicinal supplies (4.50), planned supplies (4.43)."""

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import concepts, demographics, ids, quantities
from fhir_adapters.cda.entries.statement import Section, Statement, add_note, comment, loosely_nested
from fhir_adapters.cda.entries.udi import carrier, production
from fhir_adapters.cda.node import Node, child
from fhir_adapters.identifiers import device_id
from fhir_adapters.xml.tree import Element

UDI_ROOT = "2.16.840.1.113883.3.3719"  # the FDA's; the identifier's extension is the human readable UDI
_SUPPLY_STATUS = {"completed": "completed", "active": "active", "aborted": "stopped", "cancelled": "stopped"}
_REQUEST_STATUS = {"completed": "completed", "active": "active", "aborted": "cancelled", "cancelled": "cancelled"}


def device(conv: Conversion, role: Element) -> Json | None:
    """A reference to the Device of a participantRole with a playingDevice; None when it names none."""
    node = Node(role)
    node.drop("templateId")
    numbers = node.take("id")
    udi = [each for each in numbers if each.get("root") == UDI_ROOT and each.get("extension")]
    made = ids.identifiers(conv, numbers)
    playing = node.first("playingDevice")
    resource: Json = {"resourceType": "Device", "id": ""}
    if made:
        resource["identifier"] = made
    if udi:
        text = udi[0].get("extension", "")
        resource["udiCarrier"] = [carrier(text)]
        resource |= production(text)
    kind = _playing(conv, resource, playing) if playing is not None else None
    scoping = node.first("scopingEntity")
    if scoping is not None:
        scoper = Node(scoping)
        maker = scoper.first("desc")
        name = concepts.text_of(conv, maker) if maker is not None else ""
        if name:
            resource["manufacturer"] = name
        conv.left(scoper)
    for each in demographics.telecoms(conv, node.take("telecom")):
        resource.setdefault("contact", []).append(each)
    conv.left(node)
    if not made and not kind and "deviceName" not in resource:
        return None
    # One product's number stands for several products in some senders' documents: its kind tells them apart.
    key = "\x1f".join([made[0]["value"] if made else "", *concepts.spellings(kind or {})[:1]])
    resource["id"] = device_id(conv.profile, made[0]["system"] if made else conv.document[0], key)
    if not made:
        resource["id"] = conv.place_id("Device", role)
    resource["patient"] = conv.subject
    return conv.put(resource)


def _playing(conv: Conversion, resource: Json, el: Element) -> Json | None:
    node = Node(el)
    kind = concepts.concept(conv, node.first("code"))
    if kind:
        resource["type"] = kind
    for name in ("manufacturerModelName", "softwareName"):
        for each in node.take(name):
            text = concepts.text_of(conv, each) or each.get("displayName", "")
            if text:
                resource.setdefault("deviceName", []).append({"name": text, "type": "model-name"})
    conv.left(node)
    return kind


def supply(conv: Conversion, el: Element, section: Section) -> list[Json]:
    """A supply: the use of a device that the patient has, or else what was or is to be delivered."""
    statement = Statement(conv, el, section)
    devices = []
    for type_code, role, participant in statement.participants():
        made = device(conv, role) if type_code in ("PRD", "DEV") or role.get("classCode") == "MANU" else None
        if made is None:
            conv.not_mapped(participant)
        else:
            devices.append(made)
    if statement.mood == "EVN" and devices:
        return _use(conv, statement, devices)
    return _delivery(conv, statement, devices)


def _use(conv: Conversion, statement: Statement, devices: list[Json]) -> list[Json]:
    resource = statement.resource("DeviceUseStatement")
    resource["status"] = _SUPPLY_STATUS.get(statement.status(), "active")
    resource["subject"] = conv.subject
    statement.effective_into(resource, "timing")
    resource["device"] = devices[0]
    amount = statement.node.first("quantity")
    number = quantities.quantity(conv, amount)
    if number and number["value"] != 1:
        add_note(resource, f"quantity {number['value'].lexeme} {number.get('unit', '')}".strip())
    code = statement.code()
    if code:
        resource["reasonCode"] = [code]
    statement.recorder(resource, "source", "recordedOn")
    add_note(resource, statement.text())
    apart = [*devices]
    for relation in statement.relations():
        if not comment(statement, resource, relation):
            apart += loosely_nested(statement, relation)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _delivery(conv: Conversion, statement: Statement, devices: list[Json]) -> list[Json]:
    """What was delivered (EVN) or is to be (INT, RQO): SupplyDelivery or SupplyRequest."""
    asked = statement.mood != "EVN"
    resource = statement.resource("SupplyRequest" if asked else "SupplyDelivery")
    status = statement.status()
    item = _item(conv, statement) or statement.code()
    amount = quantities.quantity(conv, statement.node.first("quantity"))
    if asked:
        resource["status"] = _REQUEST_STATUS.get(status, "active")
        if item is None and devices:
            resource["itemReference"] = devices[0]
        else:
            resource["itemCodeableConcept"] = item or concepts.required(conv, None, statement.el)
        resource["quantity"] = amount or {"value": 1}
        statement.effective_into(resource, "occurrence")
        statement.recorder(resource, "requester", "authoredOn")
    else:
        resource["status"] = "completed" if status in ("completed", "") else "in-progress"
        resource["patient"] = conv.subject
        supplied: Json = {"quantity": amount} if amount else {}
        if item is not None:
            supplied["itemCodeableConcept"] = item
        if supplied:
            resource["suppliedItem"] = supplied
        statement.effective_into(resource, "occurrence")
        performers = [who for who, _, _ in statement.performers()]
        if performers:
            resource["supplier"] = performers[0]
    apart = [*devices]
    for relation in statement.relations():
        apart += loosely_nested(statement, relation)
    reference = statement.put(resource)
    statement.finish()
    return [reference, *apart]


def _item(conv: Conversion, statement: Statement) -> Json | None:
    product = statement.node.first("product")
    if product is None:
        return None
    for kind in ("manufacturedMaterial", "manufacturedLabeledDrug"):
        code = child(product, "manufacturedProduct", kind, "code")
        if code is not None:
            return concepts.concept(conv, code)
    conv.not_mapped(product)
    return None
