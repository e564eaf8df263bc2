"""What is ordered, dispensed or given: a code, or a Medication where form, strength, parts or a lot are told.

Guide: RXO[Medication]. A Medication is named by all that is said of it, so the same preparation is one resource.
"""

from dataclasses import dataclass

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, concepts, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import measured
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments.allergies import key_of
from fhir_adapters.identifiers import numbered_id
from fhir_adapters.json_lexeme import Lexeme
from fhir_adapters.units import UCUM


@dataclass(frozen=True, slots=True)
class Fields:
    """Where a segment has what is said of the medicine; 0 where it says nothing."""

    code: int
    form: int = 0
    strength: int = 0
    strength_units: int = 0
    volume: int = 0
    volume_units: int = 0
    lot: int = 0
    expiry: int = 0
    maker: int = 0


def medicine(conv: Conversion, resource: Json, segment: Segment, at: Fields, parts: list[Segment]) -> Json | None:
    """Put ``medication[x]`` into a resource: a code, or a reference to a Medication (added). Returns its code.

    ``parts`` are the RXC segments that say what it is made up of.
    """
    code = concepts.concept(conv, segment, at.code)
    medication: Json = {"resourceType": "Medication", "id": ""}
    form = concepts.concept(conv, segment, at.form) if at.form and segment.peek(at.form) else None
    if form is not None:
        medication["form"] = form
    strength = _strength(conv, segment, at)
    ingredients = [made for rxc in parts if (made := _ingredient(conv, rxc)) is not None]
    if strength is not None and code is not None and not ingredients:
        ingredients = [{"itemCodeableConcept": code, "strength": strength}]
    if ingredients:
        medication["ingredient"] = ingredients
    _batch(conv, medication, segment, at)
    if code is None and not ingredients:
        conv.issue("warning", "missing", segment, at.code, "no medicine is named")
        code = {"text": "unknown"}
    if len(medication) == 2:
        resource["medicationCodeableConcept"] = code
        return code
    if code is not None:
        medication["code"] = code
    medication["id"] = numbered_id(conv.profile, "Medication", conv.profile.base_url, *_said(medication))
    reference: Json = {"reference": conv.put(medication)}
    if code is not None:
        first = code.get("coding", ({},))[0]
        reference["display"] = code.get("text") or first.get("display") or first["code"]
    resource["medicationReference"] = reference
    return code


def _strength(conv: Conversion, segment: Segment, at: Fields) -> Json | None:
    if not at.strength or not segment.peek(at.strength):
        return None
    numerator = measured(conv, segment.take(at.strength), segment.take(at.strength_units))
    if numerator is None:
        conv.issue("warning", "bad-value", segment, at.strength, "not a number")
        return None
    volume = None
    if at.volume and segment.peek(at.volume):
        volume = measured(conv, segment.take(at.volume), segment.take(at.volume_units))
    one: Json = {"value": Lexeme("1"), "unit": "1", "system": UCUM, "code": "1"}
    return {"numerator": numerator, "denominator": volume or one}


def _ingredient(conv: Conversion, rxc: Segment) -> Json | None:
    """RXC: base or additive (1), code (2), amount and units (3, 4), strength (5, 6)."""
    kind = conv.text(rxc.take(1))
    code = concepts.concept(conv, rxc, 2)
    if code is None:
        return None
    made: Json = {"itemCodeableConcept": code}
    if kind in ("A", "B"):
        made["isActive"] = kind == "A"
    amount = measured(conv, rxc.take(3), rxc.take(4)) if rxc.peek(3) else None
    if amount is None and rxc.peek(5):
        amount = measured(conv, rxc.take(5), rxc.take(6))
    if amount is not None:
        made["strength"] = {
            "numerator": amount,
            "denominator": {"value": Lexeme("1"), "unit": "1", "system": UCUM, "code": "1"},
        }
    return made


def _batch(conv: Conversion, medication: Json, segment: Segment, at: Fields) -> None:
    batch: Json = {}
    lot = conv.text(segment.take(at.lot).split("~")[0]) if at.lot and segment.peek(at.lot) else ""
    if lot:
        batch["lotNumber"] = lot
    if at.expiry and segment.peek(at.expiry):
        timestamps.put_raw(conv, batch, "expirationDate", segment.take(at.expiry).split("~")[0], segment, at.expiry)
    if batch:
        medication["batch"] = batch
    maker = manufacturer(conv, segment, at.maker) if at.maker and segment.peek(at.maker) else None
    if maker is not None:
        medication["manufacturer"] = maker


def manufacturer(conv: Conversion, segment: Segment, number: int) -> Json | None:
    """Take a coded field that names a manufacturer as a reference to its Organization."""
    made = concepts.concept(conv, segment, number)
    if made is None:
        return None
    own = made.get("coding", ({"code": "", "display": made.get("text", "")},))[0]
    system = own.get("system") or conv.local_system("manufacturer")
    return actors.coded_organization(conv, own["code"], own.get("display", ""), system)


def _said(medication: Json) -> list[str]:
    """All that names a Medication, in a fixed order."""
    said = [key_of(medication.get("code", {})), key_of(medication.get("form", {}))]
    for each in medication.get("ingredient", ()):
        strength = each.get("strength", {})
        said.append(key_of(each["itemCodeableConcept"]))
        said += [_written(strength.get(part)) for part in ("numerator", "denominator")]
    batch = medication.get("batch", {})
    said += [str(batch.get("lotNumber", "")), str(batch.get("expirationDate", ""))]
    said.append(str(medication.get("manufacturer", {}).get("reference", "")))
    return said


def _written(quantity: Json | None) -> str:
    return f"{quantity['value']} {quantity.get('code') or quantity.get('unit', '')}" if quantity else ""
