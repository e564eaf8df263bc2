"""Five HIS families, each in its own tables, read from three kinds of databases: the same hospital comes out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text

from bridge.services.ingest import IngestService
from bridge.services.polling import ViewPoller
from bridge.settings import CONFIG_DIRECTORY, SourceSettings
from fhir_adapters import SourceProfile
from tests.his_dialects import DIALECTS, ID_NUMBER, create
from tests.source_databases import SourceDatabase
from tests.stores import Clock, Stores

NOW = datetime(2026, 1, 4).timestamp()  # noqa: DTZ001 - only after the rows' times
SCHEMAS = {"winning": "dbo"}


def profile_of(dialect: str, database: SourceDatabase) -> SourceProfile:
    """The shipped profile, with the schema that this database can have."""
    content = (CONFIG_DIRECTORY / "profiles" / f"his-{dialect}.toml").read_text("utf-8")
    if dialect in SCHEMAS and database.kind == "sqlite":
        content = content.replace('schema = "dbo"\n', "").replace(' schema = "dbo",', "")
    elif dialect in SCHEMAS and database.kind == "mariadb":
        content = content.replace('"dbo"', f'"{database.name}"')
    return SourceProfile.from_toml(content)


class Hospital:
    """A HIS, the node's stores and the poller between them."""

    def __init__(self, dialect: str, database: SourceDatabase, stores: Stores) -> None:
        self.database, self.stores = database, stores
        schema = SCHEMAS.get(dialect) if database.kind == "postgresql" else None
        create(database.engine, DIALECTS[dialect], schema)
        self.profile = profile_of(dialect, database)
        self.clock = Clock(NOW)
        self.ingest = IngestService(
            stores.engine, stores.inbox, stores.records, {"his": self.profile}, self.clock, worker="test"
        )
        settings = SourceSettings(name="his", kind="view", url=database.url, profile=dialect, batch=3)
        self.poller = ViewPoller(settings, self.profile, stores.engine, self.ingest, stores.keyring.blind, self.clock)

    def poll(self) -> int:
        """Read what is new and store it; returns the records that were new."""
        delivered = 0
        while done := self.poller.run():
            delivered += done.deliveries
        while self.ingest.process(50):
            pass
        return delivered

    def all(self, type: str) -> list[dict[str, Any]]:
        with self.stores.engine.connect() as connection:
            ids = connection.execute(text("SELECT id FROM resource WHERE type = :type"), {"type": type}).scalars()
            found = [self.stores.records.read(type, id).resource() for id in ids]
        return sorted(found, key=lambda each: str(each))

    def one(self, type: str, **wanted: Any) -> dict[str, Any]:
        found = [each for each in self.all(type) if all(each.get(name) == value for name, value in wanted.items())]
        assert len(found) == 1, found
        return found[0]


@pytest.fixture(params=list(DIALECTS))
def hospital(
    request: pytest.FixtureRequest, source_database: SourceDatabase, sqlite_stores: Stores
) -> Iterator[Hospital]:
    made = Hospital(request.param, source_database, sqlite_stores)
    yield made
    made.poller.close()


def test_the_same_hospital_comes_out(hospital: Hospital) -> None:
    hospital.poll()
    stored = hospital.stores.inbox.counts()
    assert (stored.get("failed", 0), stored.get("dead", 0)) == (0, 0)
    zhang = next(each for each in hospital.all("Patient") if each["name"][0]["text"] == "张三")
    assert (zhang["gender"], zhang["birthDate"]) == ("male", "1990-03-07")
    assert ID_NUMBER in [each["value"] for each in zhang["identifier"]]
    assert zhang["address"][0]["text"] == "某路1号"

    stay = hospital.one("Encounter", status="in-progress")
    assert stay["subject"]["reference"] == f"Patient/{zhang['id']}"
    assert (stay["class"]["code"], stay["period"]) == ("IMP", {"start": "2026-01-01T08:00:00+08:00"})
    left = next(each for each in hospital.all("Encounter") if each["period"].get("end"))
    assert (left["status"], left["period"]["end"]) == ("finished", "2026-01-03T10:30:00+08:00")

    bed = hospital.stores.records.read("Location", stay["location"][-1]["location"]["reference"][9:]).resource()
    assert (bed["name"], bed["operationalStatus"]["code"]) == ("12", "O")
    ward = hospital.stores.records.read("Location", bed["partOf"]["reference"][9:]).resource()
    assert ward["name"] == "心内科病区"
    department = hospital.stores.records.read("Organization", stay["serviceProvider"]["reference"][13:]).resource()
    assert department["name"] == "心血管内科"

    nursing, medicine = hospital.one("ServiceRequest", status="active"), hospital.one("MedicationRequest")
    assert nursing["code"]["text"] == "一级护理"
    assert medicine["encounter"]["reference"] == nursing["encounter"]["reference"] == f"Encounter/{stay['id']}"
    dosage = medicine["dosageInstruction"][0]
    assert float(dosage["doseAndRate"][0]["doseQuantity"]["value"]) == 0.5
    assert dosage["route"]["coding"][0]["code"] == "PO"
    assert "赵医生" in [each.get("name", [{}])[0].get("text") for each in hospital.all("Practitioner")]


def test_reading_again_changes_nothing(hospital: Hospital) -> None:
    assert hospital.poll() > 0
    before = hospital.stores.scalar("SELECT count(*) FROM resource_version")
    hospital.clock.forward(7200)  # tables without a time of change are read whole again
    hospital.poll()
    hospital.stores.run("DELETE FROM poll_watermark")
    hospital.poll()
    assert hospital.stores.scalar("SELECT count(*) FROM resource_version") == before


def test_a_change_of_a_table_without_times_is_found(hospital: Hospital) -> None:
    hospital.poll()
    tables = {"junwei": ("DEPT_DICT", "DEPT_NAME"), "winning": ("YY_KSBMK", "name"), "zlhis": ("部门表", "名称"),
              "bsoft": ("GY_KSDM", "KSMC"), "neusoft": ("COM_DEPARTMENT", "DEPT_NAME")}  # fmt: skip
    dialect = hospital.profile.name.removeprefix("his-")
    if dialect in ("bsoft", "neusoft"):
        pytest.skip("departments are bytes, or keep the time of their change")
    table, column = tables[dialect]
    quote = "`" if hospital.database.kind == "mariadb" else '"'
    schema = f"{quote}dbo{quote}." if dialect == "winning" and hospital.database.kind == "postgresql" else ""

    def rename(old: str, new: str) -> None:
        with hospital.database.engine.begin() as connection:
            statement = f"UPDATE {schema}{quote}{table}{quote} SET {quote}{column}{quote} = :new"
            connection.execute(text(f"{statement} WHERE {quote}{column}{quote} = :old"), {"new": new, "old": old})

    for old, new in (("心血管内科", "心内一科"), ("心内一科", "心血管内科")):
        rename(old, new)
        hospital.clock.forward(3601)
        assert hospital.poll() > 0
        names = [each.get("name") for each in hospital.all("Organization")]
        assert new in names
        assert old not in names
