"""A node in a temporary home for tests: an authority that is also a hospital, with its own embedded ledger."""

from __future__ import annotations

from pathlib import Path

from bridge.home import HomePlan, create_home
from bridge.settings import Settings
from bridge.wiring import prepare_database
from fhir_adapters.identifiers.uscc import uscc_check_character

_BODY = "1133000000AAAAAAA"
ORG = _BODY + uscc_check_character(_BODY)


def make_home(
    home: Path,
    *,
    http_port: int = 18080,
    mllp_port: int = 12575,
    environment: str = "test",
    database: str = "sqlite:///node.sqlite3",
) -> Settings:
    """Create a home with its database and return its settings."""
    plan = HomePlan(
        org=ORG,
        name="测试医院",
        roles=("authority", "hospital"),
        endpoint=f"http://127.0.0.1:{http_port}",
        environment=environment,
        http_host="127.0.0.1",
        http_port=http_port,
        mllp_port=mllp_port,
        mllp=True,
        chain="unit",
        database=database,
    )
    settings = create_home(home, plan)
    prepare_database(settings)
    return settings


def adt(control_id: str, patient: str, name: str = "测试^患者", event: str = "A08") -> bytes:
    """Return a synthetic ADT message in UTF-8."""
    return (
        f"MSH|^~\\&|HIS|A|YQ|A|20260101080000||ADT^{event}|{control_id}|P|2.5||||||UNICODE UTF-8\r"
        f"EVN|{event}|20260101080000\r"
        f"PID|1||{patient}^^^HIS^MR||{name}||19800101|M\r"
        f"PV1|1|I|W1^101^1||||D1^医^生|||||||||||V{patient}^^^HIS\r"
    ).encode()
