"""The sample database of an open-source HIS, read through its profile from SQLite and from MariaDB."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from bridge.services.ingest import IngestService
from bridge.services.polling import ViewPoller
from bridge.settings import CONFIG_DIRECTORY, SourceSettings
from fhir_adapters import SourceProfile
from tests.source_databases import SourceDatabase, opened
from tests.stores import Clock, Stores

SHARED = Path(os.environ.get("YIQIAO_SHARED", Path(__file__).resolve().parents[3] / "shared"))
DUMP = SHARED / "data" / "his-sql" / "zainzhao-his-part0.sql"
PROFILE = SourceProfile.from_toml((CONFIG_DIRECTORY / "profiles" / "his-open-outpatient.toml").read_bytes())

pytestmark = pytest.mark.skipif(not DUMP.is_file(), reason="the shared sample data are not here")


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.service)])
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SourceDatabase]:
    for database in opened(request.param, tmp_path):
        statements = re.split(r";\n", DUMP.read_text("utf-8"))
        with database.engine.begin() as connection:
            for statement in statements:
                lines = [line for line in statement.splitlines() if not line.startswith("--")]
                plain = "\n".join(lines).strip()
                if database.kind == "sqlite":
                    plain = for_sqlite(plain)
                if plain:
                    connection.exec_driver_sql(plain.replace("%", "%%") if database.kind == "mariadb" else plain)
        yield database


def for_sqlite(statement: str) -> str:
    """A statement of the dump without what only MySQL understands."""
    if statement.startswith("SET "):
        return ""
    if statement.startswith("CREATE TABLE"):
        body = statement.rpartition(") ENGINE=")[0]
        body = body.replace(" AUTO_INCREMENT", "").replace(" USING BTREE", "")
        return re.sub(r" COMMENT '[^']*'", "", body) + ")"
    return statement


def read_all(database: SourceDatabase, stores: Stores) -> ViewPoller:
    ingest = IngestService(stores.engine, stores.inbox, stores.records, {"sample": PROFILE}, stores.clock)
    settings = SourceSettings(name="sample", kind="view", url=database.url, profile=PROFILE.name)
    poller = ViewPoller(settings, PROFILE, stores.engine, ingest, stores.keyring.blind, Clock())
    while poller.run():
        pass
    while ingest.process(100):
        pass
    poller.close()
    return poller


def resources(stores: Stores, type: str) -> list[dict[str, Any]]:
    with stores.engine.connect() as connection:
        ids = list(connection.execute(text("SELECT id FROM resource WHERE type = :type"), {"type": type}).scalars())
    return [stores.records.read(type, id).resource() for id in ids]


def test_every_row_becomes_a_record(sample: SourceDatabase, sqlite_stores: Stores) -> None:
    read_all(sample, sqlite_stores)
    assert sqlite_stores.inbox.counts().get("failed", 0) == 0
    with sample.engine.connect() as connection:
        rows = {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in ("pms_patient", "sms_staff", "sms_dept", "dms_registration", "dms_medicine_item_record")
        }
    kinds = ("Patient", "Practitioner", "Organization", "Encounter", "MedicationRequest", "DiagnosticReport")
    counts = {kind: sqlite_stores.records.count(kind) for kind in kinds}
    assert counts == {
        "Patient": rows["pms_patient"],
        "Practitioner": rows["sms_staff"],
        "Organization": rows["sms_dept"],
        "Encounter": rows["dms_registration"],
        "MedicationRequest": rows["dms_medicine_item_record"],
        "DiagnosticReport": 1,
    }


def test_what_belongs_together_is_together(sample: SourceDatabase, sqlite_stores: Stores) -> None:
    read_all(sample, sqlite_stores)
    encounter = resources(sqlite_stores, "Encounter")[0]
    report = resources(sqlite_stores, "DiagnosticReport")[0]
    request = resources(sqlite_stores, "ServiceRequest")[0]
    medicines = resources(sqlite_stores, "MedicationRequest")
    patient = sqlite_stores.records.read("Patient", encounter["subject"]["reference"][8:]).resource()
    assert (encounter["status"], encounter["class"]["code"]) == ("arrived", "AMB")
    assert report["basedOn"] == [{"reference": f"ServiceRequest/{request['id']}"}]
    assert request["status"] == "completed"
    assert {each["encounter"]["reference"] for each in (report, request, *medicines)} == {
        f"Encounter/{encounter['id']}"
    }
    assert {each["subject"]["reference"] for each in (report, request, *medicines)} == {f"Patient/{patient['id']}"}
    assert b"$2a$10$" not in b"".join(str(each).encode() for each in resources(sqlite_stores, "Practitioner"))


def test_dirty_data_is_kept_and_named(sample: SourceDatabase, sqlite_stores: Stores) -> None:
    """Identity numbers in this sample contradict birth dates and sexes, or fail their check."""
    read_all(sample, sqlite_stores)
    issues = [
        issue for entry in sqlite_stores.inbox.list(limit=1000) for issue in sqlite_stores.inbox.show(entry.id).issues
    ]
    assert "bad-identifier" in {issue["code"] for issue in issues}
    assert "error" not in {issue["severity"] for issue in issues}
