"""People and organizations that a message mentions (XCN, XON, HD, NDL: 2.A.86, 2.A.87, 2.A.33, 2.A.47).

Each is made once per message and referred to wherever it is mentioned. A Practitioner is made for a person, not a
PractitionerRole: the guide leaves the choice, and v2 says nothing of the role that would hold beyond the message.
"""

from urllib.parse import quote

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import business_ids, demographics
from fhir_adapters.hl7v2.message import NULL, Segment
from fhir_adapters.identifiers import identifier_type, organization_id, practitioner_id

XCN_CARRIED = 9


def practitioner(conv: Conversion, segment: Segment, number: int) -> Json | None:
    """Take a field as a reference to the first Practitioner it names; the others are remarked on."""
    found = practitioners(conv, segment, number)
    if len(found) > 1:
        conv.issue("information", "not-mapped", segment, number, "only the first repetition has a place")
    return found[0] if found else None


def practitioners(conv: Conversion, segment: Segment, number: int) -> list[Json]:
    """Take a field of XCN repetitions as references to Practitioners, each once."""
    if not segment.fields[number]:
        return []
    raw = segment.take(number)
    if not raw:
        return []
    found: list[Json] = []
    for repetition in raw.split("~"):
        reference = practitioner_raw(conv, repetition, segment, number)
        if reference is not None and reference not in found:
            found.append(reference)
    return found


def practitioner_raw(conv: Conversion, raw: str, segment: Segment, number: int) -> Json | None:
    """A reference to the Practitioner of one XCN; None when it names nobody."""
    known = conv.mention("XCN", raw, _practitioner, segment, number)
    return None if known is None else {"reference": known}


def _practitioner(conv: Conversion, raw: str, segment: Segment, number: int) -> list[Json]:
    parts = raw.split("^")
    if len(parts) < XCN_CARRIED:
        parts += [""] * (XCN_CARRIED - len(parts))
    resource: Json = {"resourceType": "Practitioner", "id": ""}
    value = conv.text(parts[0])
    system = conv.system(parts[8])
    human = demographics.from_parts(conv, parts[1], parts[2], parts[3], prefix=parts[5], suffixes=(parts[4], parts[6]))
    if value and not human and _is_name(value):
        human, value = {"text": value}, ""
    if value:
        own: Json = {}
        kind = conv.text(parts[12]) if len(parts) > 12 else ""
        known = conv.find("identifier-type", kind) if kind else None
        if known is not None:
            own["type"] = {"coding": [known.coding()]}
        elif kind:
            own["type"] = {"text": kind}
        else:
            own["type"] = identifier_type("EI")
        own["system"] = system
        own["value"] = value
        resource["identifier"] = [own]
        resource["id"] = practitioner_id(conv.profile, system, value)
    elif human:
        # No number: the name within its authority is all there is; two of one name become one (the ADR says so).
        written = "^".join((human.get("text", ""), human.get("family", ""), *human.get("given", ())))
        resource["id"] = practitioner_id(conv.profile, system, "name:" + written)
    else:
        conv.leftover(parts, 0, segment, number)
        return []
    if len(parts) > XCN_CARRIED:
        _further(conv, parts, human, segment, number)
    if human:
        resource["name"] = [human]
    if parts[7] and parts[7] != NULL:
        conv.not_mapped(segment, number, 8)
    return [resource]


def _is_name(text: str) -> bool:
    """Whether what stands alone where a number belongs is a person's name: words, or letters that no number has."""
    return (" " in text or not text.isascii()) and not any(each.isdigit() for each in text)


def _further(conv: Conversion, parts: list[str], human: Json, segment: Segment, number: int) -> None:
    kind = conv.text(parts[9])
    if kind and human:
        use = conv.find("name-use", kind)
        if use is None:
            conv.unmapped_code("name-use", segment, number)
        else:
            human["use"] = use.code
    for index in range(10, len(parts)):
        if parts[index] and parts[index] != NULL and index != 12:
            if index == 20 and human:  # professional suffix
                human.setdefault("suffix", []).append(conv.text(parts[index]))
            else:
                conv.not_mapped(segment, number, index + 1)


def named_practitioner(conv: Conversion, raw: str, segment: Segment, number: int) -> Json | None:
    """A reference to the Practitioner of an NDL: its first component is a CNN, the rest when and where."""
    person, *rest = raw.split("^")
    conv.leftover(["", *rest], 1, segment, number)
    cnn = person.split("&")
    # CNN: id, family, given, second, suffix, prefix, degree, source table, authority (three subcomponents)
    xcn = [*cnn[:8], "&".join(cnn[8:11])]
    return practitioner_raw(conv, "^".join(xcn).rstrip("^"), segment, number)


def organization(conv: Conversion, segment: Segment, number: int, address: list[Json] | None = None) -> Json | None:
    """Take an XON field as a reference to the first Organization it names."""
    raw = segment.take(number)
    if not raw:
        return None
    first, *more = raw.split("~")
    if any(more):
        conv.issue("information", "not-mapped", segment, number, "only the first repetition has a place")
    return organization_raw(conv, first, segment, number, address)


def organization_raw(
    conv: Conversion, raw: str, segment: Segment, number: int, address: list[Json] | None = None
) -> Json | None:
    """A reference to the Organization of one XON; None when it names none."""
    known = conv.mention("XON", raw, _organization, segment, number)
    if known is None:
        return None
    if address:
        conv.resources[known].setdefault("address", address)
    return {"reference": known}


def _organization(conv: Conversion, raw: str, segment: Segment, number: int) -> list[Json]:
    parts = raw.split("^")
    parts += [""] * (10 - len(parts))
    title = conv.text(parts[0])
    value = conv.text(parts[9]) or conv.text(parts[2])
    if not title and not value:
        conv.leftover(parts, 0, segment, number)
        return []
    resource: Json = {"resourceType": "Organization", "id": ""}
    system = conv.system(parts[5])
    if value:
        own: Json = {}
        kind = conv.text(parts[6])
        known = conv.find("identifier-type", kind) if kind else None
        if known is not None:
            own["type"] = {"coding": [known.coding()]}
        elif kind:
            own["type"] = {"text": kind}
        own.update(system=system, value=value)
        resource["identifier"] = [own]
    if title:
        resource["name"] = title
    resource["id"] = organization_id(conv.profile, system, value or "name:" + title)
    for index in (1, 3, 4, 7, 8):
        if parts[index] and parts[index] != NULL:
            conv.not_mapped(segment, number, index + 1)
    if parts[9] and parts[2] and parts[9] != parts[2]:
        conv.not_mapped(segment, number, 3)
    return [resource]


def authority(conv: Conversion, raw: str) -> Json | None:
    """A reference to the Organization of an HD (MSH-4, PL-4): namespace, universal id, its type, divided by ``^``."""
    parts = [conv.text(part) for part in raw.split("^")]
    title, universal, *_ = [*parts, "", ""]
    if not title and not universal:
        return None
    resource: Json = {"resourceType": "Organization", "id": ""}
    if universal:
        resource["identifier"] = [_universal(conv, raw)]
        resource["id"] = organization_id(conv.profile, *business_ids.key_of(resource["identifier"][0]))
    else:
        resource["identifier"] = [{"system": conv.system(""), "value": title}]
        resource["id"] = organization_id(conv.profile, conv.system(""), title)
    if title:
        resource["name"] = title
    return {"reference": conv.put(resource)}


def _universal(conv: Conversion, raw: str) -> Json:
    """The universal id of an HD as an Identifier of RFC 3986 when it is a URI, of its own type otherwise."""
    _, universal, kind, *_ = [*(conv.text(part) for part in raw.split("^")), "", ""]
    uri = conv.system("&" + universal + "&" + kind)
    if uri.startswith("urn:"):
        return {"system": "urn:ietf:rfc:3986", "value": uri}
    return {"system": f"{conv.profile.base_url}/NamingSystem/{quote(kind, safe='') or 'universal'}", "value": universal}


def coded_organization(conv: Conversion, code: str, title: str, system: str) -> Json | None:
    """A reference to an Organization that a coded field names (OBX-15, IN1-3)."""
    if not code and not title:
        return None
    resource: Json = {
        "resourceType": "Organization",
        "id": organization_id(conv.profile, system, code or "name:" + title),
    }
    if code:
        resource["identifier"] = [{"system": system, "value": code}]
    if title:
        resource["name"] = title
    return {"reference": conv.put(resource)}
