"""What hospital A's systems emit in the demo: HL7 v2 messages and a HIS database with the standard views.

Every name and number is invented. The ID number carries a region code (110100) that is never issued to a person.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

PATIENT_NAME = "欧阳㐂"  # U+3402 is four bytes in GB18030 and missing from GBK: a decoder that guesses loses it
PATIENT_ID_NUMBER = "110100198507120149"
PATIENT_MRN = "DEMO0001"
ID_NUMBER_SYSTEM = "urn:oid:2.16.156.10011.1.3"

HIS_TABLE = """
CREATE TABLE lis_result (
  row_key TEXT PRIMARY KEY, updated_at TEXT, report_no TEXT, patient_no TEXT, visit_no TEXT, assigning_authority TEXT,
  panel_code TEXT, panel_name TEXT, report_status TEXT, reported_at TEXT, specimen_no TEXT, specimen_type TEXT, collected_at TEXT,
  item_code TEXT, item_name TEXT, item_loinc TEXT, result TEXT, unit TEXT, range_text TEXT, flag TEXT
);
CREATE VIEW V_IOP_LAB AS SELECT * FROM lis_result;
"""
HIS_RESULT = {
    "row_key": "LAB-2-1",
    "updated_at": "2026-11-23 11:20:00",
    "report_no": "LAB-2",
    "patient_no": PATIENT_MRN,
    "visit_no": "DEMO-V1",
    "assigning_authority": "HOSPITAL_A",
    "panel_code": "EMCHEM",
    "panel_name": "急诊生化",
    "report_status": "F",
    "reported_at": "2026-11-23 11:20:00",
    "specimen_no": "S-2",
    "specimen_type": "血清",
    "collected_at": "2026-11-23 11:00:00",
    "item_code": "K",
    "item_name": "血钾",
    "item_loinc": "2823-3",
    "result": "3.90",
    "unit": "mmol/L",
    "range_text": "3.5-5.3",
    "flag": "N",
}


def admission(charset: str = "GB18030") -> bytes:
    """Return an ADT^A01 in the encoding of a Chinese HIS, MSH-18 saying so."""
    segments = [
        "MSH|^~\\&|HIS|HOSPITAL_A|YIQIAO|HOSPITAL_A|20261123083000+0800||ADT^A01^ADT_A01|DEMO-ADT-1|P|2.5.1|||||CHN|GB 18030-2000",
        "EVN|A01|20261123083000+0800",
        f"PID|1||{PATIENT_MRN}^^^HOSPITAL_A^MR~{PATIENT_ID_NUMBER}^^^^NNCHN||{PATIENT_NAME}||19850712|F|||示范路1号^^示范市^^100000^CHN||13000000000",
        "NK1|1|欧阳示范|SPO^配偶|示范路1号^^示范市^^100000^CHN|13000000001",
        "PV1|1|I|W03^301^02^HOSPITAL_A|R|||D001^示范医生|||MED||||1|||D001^示范医生|IP|DEMO-V1|||||||||||||||||||||||||20261123082500+0800",
        "AL1|1|DA^药物|P001^青霉素|SV|皮疹",
        "DG1|1||J18.900^肺炎^ICD-10||20261123083000+0800|A",
    ]
    return "\r".join([*segments, ""]).encode(charset)


def laboratory_report() -> bytes:
    """Return an ORU^R01 in UTF-8 with numeric, coded and text results; 0.40 must stay 0.40."""
    segments = [
        "MSH|^~\\&|LIS|HOSPITAL_A|YIQIAO|HOSPITAL_A|20261123101500+0800||ORU^R01^ORU_R01|DEMO-ORU-1|P|2.5.1|||||CHN|UNICODE UTF-8",
        f"PID|1||{PATIENT_MRN}^^^HOSPITAL_A^MR~{PATIENT_ID_NUMBER}^^^^NNCHN||{PATIENT_NAME}||19850712|F",
        "PV1|1|I|W03^301^02^HOSPITAL_A|||||||||||||||IP|DEMO-V1",
        "ORC|RE|ORD-1|LAB-1",
        "OBR|1|ORD-1|LAB-1|58410-2^CBC panel^LN|||20261123093000+0800|||||||||D001^示范医生||||||20261123101000+0800||HM|F",
        "OBX|1|NM|6690-2^白细胞计数^LN||11.20|10*9/L|3.5-9.5|H|||F|||20261123093000+0800",
        "OBX|2|NM|1988-5^C反应蛋白^LN||0.40|mg/L|0-8||||F|||20261123093000+0800",
        "OBX|3|SN|5804-0^尿蛋白^LN||<^0.1|g/L|||||F|||20261123093000+0800",
        "OBX|4|CE|883-9^ABO血型^LN||A^A型^L||||||F|||20261123093000+0800",
        "OBX|5|TX|8251-1^备注^LN||标本合格，已复核||||||F|||20261123093000+0800",
    ]
    return "\r".join([*segments, ""]).encode()


def create_his_database(path: Path) -> None:
    """Create hospital A's HIS database with the standard view ``V_IOP_LAB``, still empty."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(HIS_TABLE)
        database.commit()


def add_his_result(path: Path) -> None:
    """Add a laboratory result to the HIS, as its own software would."""
    columns = ", ".join(HIS_RESULT)
    values = ", ".join(f":{name}" for name in HIS_RESULT)
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"INSERT INTO lis_result ({columns}) VALUES ({values})", HIS_RESULT)  # noqa: S608 - our own constants
        database.commit()
