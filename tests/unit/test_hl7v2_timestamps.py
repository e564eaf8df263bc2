"""HL7 timestamps in FHIR: precision and offset as sent, the site's zone where none is."""

import pytest

from fhir_adapters.hl7v2.datatypes.timestamps import parse, read_time

SHANGHAI = "Asia/Shanghai"


@pytest.mark.parametrize(
    ("raw", "zone", "value", "remark"),
    [
        ("2024", SHANGHAI, "2024", ""),
        ("202405", SHANGHAI, "2024-05", ""),
        ("20240501", SHANGHAI, "2024-05-01", ""),
        ("2024050108", SHANGHAI, "2024-05-01T08:00:00+08:00", "hour"),
        ("202405010830", SHANGHAI, "2024-05-01T08:30:00+08:00", ""),
        ("20240501083015", SHANGHAI, "2024-05-01T08:30:15+08:00", ""),
        ("20240501083015.120", SHANGHAI, "2024-05-01T08:30:15.120+08:00", ""),
        ("20240501083015.1234-0500", SHANGHAI, "2024-05-01T08:30:15.1234-05:00", ""),
        ("202405010830+0000", SHANGHAI, "2024-05-01T08:30:00+00:00", ""),
        ("20240501083015", "America/New_York", "2024-05-01T08:30:15-04:00", ""),
        ("20241201083015", "America/New_York", "2024-12-01T08:30:15-05:00", ""),
        ("198606010000", SHANGHAI, "1986-06-01T00:00:00+09:00", ""),  # China kept summer time then
        ("189001010000", SHANGHAI, "1890-01-01T00:00:00+08:05", ""),
        ("20240501083015120", SHANGHAI, "2024-05-01T08:30:15.120+08:00", "form"),
        ("2024-05-01", SHANGHAI, "2024-05-01", "form"),
        ("2024/5/1 8:30", SHANGHAI, "2024-05-01T08:30:00+08:00", "form"),
        ("2024-05-01T08:30:15Z", SHANGHAI, "2024-05-01T08:30:15+00:00", "form"),
    ],
)
def test_timestamps(raw: str, zone: str, value: str, remark: str) -> None:
    assert parse(raw, zone) == (value, remark)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "abc",
        "20240231",
        "20241301",
        "00000000",
        "19800",
        "20240501240000",
        "20240501083060",
        "2024050108301",
        "٢٠٢٤",
        "20240501083015+1500",
        "99999999999999999999",
    ],
)
def test_what_is_no_timestamp(raw: str) -> None:
    assert parse(raw, SHANGHAI) is None


def test_a_date_has_no_use_for_an_offset() -> None:
    assert parse("20240501+0800", SHANGHAI) == ("2024-05-01", "")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("08", ("08:00:00", False)),
        ("0830", ("08:30:00", False)),
        ("083015", ("08:30:15", False)),
        ("083015.5", ("08:30:15.5", False)),
        ("083015+0800", ("08:30:15", True)),
        ("2400", None),
        ("8:30", None),
        ("", None),
    ],
)
def test_times_of_day(raw: str, expected: tuple[str, bool] | None) -> None:
    assert read_time(raw) == expected
