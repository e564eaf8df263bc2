"""What a template has and FHIR does not is an issue with its place; a dose number is carried over."""

import pytest

from tests.cda_samples import TEMPLATE, convert, document, only, resources, section

WHO = (
    '<author><time value="20260302"/><assignedAuthor><id root="1.2.3.8" extension="D1"/>'
    "<assignedPerson><name>D</name></assignedPerson></assignedAuthor></author>"
)


def immunization(inside: str = "", related: str = "") -> str:
    return (
        f'<substanceAdministration classCode="SBADM" moodCode="EVN"><templateId root="{TEMPLATE}4.52"/>'
        f'<id root="1.2.3.7" extension="i1"/><statusCode code="completed"/><effectiveTime value="20260302"/>{inside}'
        '<consumable><manufacturedProduct><manufacturedMaterial><code code="88" codeSystem="2.16.840.1.113883.12.292"/>'
        f"</manufacturedMaterial></manufacturedProduct></consumable>{related}</substanceAdministration>"
    )


@pytest.mark.parametrize(
    ("inside", "related", "dose", "remarks"),
    [
        pytest.param('<repeatNumber value="2"/>', "", 2, [], id="a number"),
        pytest.param('<repeatNumber><low value="3"/></repeatNumber>', "", 3, [], id="an interval's low end"),
        pytest.param('<repeatNumber nullFlavor="UNK"/>', "", None, [], id="unknown says nothing"),
        pytest.param('<repeatNumber value="0"/>', "", None, ["repeatNumber"], id="no dose"),
        pytest.param('<repeatNumber value="last"/>', "", None, ["repeatNumber"], id="no number"),
        pytest.param(f'<repeatNumber value="{"9" * 50}"/>', "", None, ["repeatNumber"], id="beyond positiveInt"),
        pytest.param("<repeatNumber value='1'/><repeatNumber value='2'/>", "", 1, ["repeatNumber[2]"], id="two"),
    ],
)
def test_the_number_of_a_dose(inside: str, related: str, dose: int | None, remarks: list[str]) -> None:
    result = convert(document(section(immunization(inside, related), code="11369-6")))
    made = only(result, "Immunization")
    assert made.get("protocolApplied", [{}])[0].get("doseNumberPositiveInt") == dose
    assert [i.location.rpartition("/")[2] for i in result.issues if "repeatNumber" in i.location] == remarks


def related(template: str, inside: str, kind: str = "observation", type_code: str = "REFR") -> str:
    return (
        f'<entryRelationship typeCode="{type_code}"><{kind} classCode="OBS" moodCode="EVN">'
        f'<templateId root="{TEMPLATE}{template}"/>{inside}</{kind}></entryRelationship>'
    )


@pytest.mark.parametrize(
    "inside",
    [
        pytest.param(
            immunization(
                related=related("4.53", '<code code="IMMUNE"/><statusCode code="completed"/>' + WHO, type_code="RSON")
            ),
            id="who said why it was refused",
        ),
        pytest.param(
            f'<encounter classCode="ENC" moodCode="EVN"><templateId root="{TEMPLATE}4.49"/>'
            f'<id root="1.2.3" extension="e"/>{WHO}</encounter>',
            id="who wrote the visit down",
        ),
        pytest.param(
            f'<act classCode="ACT" moodCode="EVN"><templateId root="{TEMPLATE}4.3"/><id root="1.2.3" extension="p"/>'
            '<statusCode code="active"/><performer><time value="20260302"/></performer></act>',
            id="who sees to the problem",
        ),
        pytest.param(
            f'<organizer classCode="CLUSTER" moodCode="EVN"><templateId root="{TEMPLATE}4.500"/>'
            f'<id root="1.2.3" extension="t"/><statusCode code="active"/>{WHO}</organizer>',
            id="who put the team together",
        ),
    ],
)
def test_what_has_no_place_is_named(inside: str) -> None:
    result = convert(document(section(inside)))
    places = [each.location for each in result.issues if each.code == "not-mapped"]
    assert any(place.rpartition("/")[2].startswith(("author", "performer")) for place in places)
    assert resources(result, "Composition")


def test_a_unit_after_an_item_without_a_number_is_named() -> None:
    """It belongs to no value; it was once looked for without end."""
    unit = '<observation classCode="OBS" moodCode="EVN"><code code="{}" codeSystem="2.16.156.10011.2.2.1"/><value xsi:type="ST">{}</value></observation>'  # noqa: E501
    entries = [unit.format("DE04.30.019.00", "GLU"), unit.format("DE04.30.016.00", "mmol/L")]
    chinese = document(section(*entries)).replace(
        f'<templateId root="{TEMPLATE}1.2"/>', '<templateId root="2.16.156.10011.2.1.1.27"/>'
    )
    result = convert(chinese)
    assert only(result, "Observation")["code"]["coding"][0]["code"] == "GLU"
    assert [each.code for each in result.issues if "entry[2]" in each.location] == ["not-mapped"]
