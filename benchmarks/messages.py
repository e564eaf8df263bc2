"""The HL7 v2 messages that are measured: invented, of everyday size, every identifier with its assigning authority.

The peers make an Encounter or a Practitioner only of an identifier that says who assigned it.
"""

AUTHORITY = "HOSPITAL_A&1.2.156.999999.1&ISO"
DOCTOR = f"D001^DOCTOR^TEST^^^^^^{AUTHORITY}^^^^EI"


def admission(number: int = 1) -> bytes:
    """Return an ADT^A01 with eight segments."""
    return "\r".join(
        [
            f"MSH|^~\\&|HIS|HOSPITAL_A|YIQIAO|HOSPITAL_A|20260301083000+0800||ADT^A01^ADT_A01|BENCH-{number}|P|2.5.1|||||CHN|UNICODE UTF-8",
            "EVN|A01|20260301083000+0800",
            f"PID|1||M{number:07d}^^^{AUTHORITY}^MR||TEST^PATIENT||19850712|F|||1 Sample Road^^Sampleton^^100000^CHN||13000000000|||M",
            "NK1|1|TEST^KIN|SPO|1 Sample Road^^Sampleton^^100000^CHN|13000000001",
            f"PV1|1|I|W03^301^02^HOSPITAL_A|R|||{DOCTOR}|||MED||||1|||{DOCTOR}|IP|V{number:07d}^^^{AUTHORITY}^VN|||||||||||||||||||||||||20260301082500+0800",
            "AL1|1|DA|P001^Penicillin|SV|rash",
            "DG1|1||J18.9^Pneumonia^I10||20260301083000+0800|A",
            "IN1|1|P01|INS01|Sample Insurance",
            "",
        ]
    ).encode()


def laboratory_report(observations: int = 30, number: int = 1) -> bytes:
    """Return an ORU^R01 with one OBR and ``observations`` numeric OBX."""
    results = [
        f"OBX|{i}|NM|{1000 + i}-{i % 10}^Analyte {i}^LN||{i}.{i % 10}0|mmol/L^mmol/L^UCUM|1.0-40.0|{'H' if i % 7 == 0 else 'N'}|||F|||20260301093000+0800"
        for i in range(1, observations + 1)
    ]
    return "\r".join(
        [
            f"MSH|^~\\&|LIS|HOSPITAL_A|YIQIAO|HOSPITAL_A|20260301101500+0800||ORU^R01^ORU_R01|BENCH-ORU-{number}|P|2.5.1|||||CHN|UNICODE UTF-8",
            f"PID|1||M{number:07d}^^^{AUTHORITY}^MR||TEST^PATIENT||19850712|F",
            f"PV1|1|I|W03^301^02^HOSPITAL_A|||||||||||||||IP|V{number:07d}^^^{AUTHORITY}^VN",
            "ORC|RE|ORD-1|LAB-1",
            f"OBR|1|ORD-1|LAB-1|24323-8^Comprehensive metabolic panel^LN|||20260301093000+0800|||||||||{DOCTOR}||||||20260301101000+0800||LAB|F",
            *results,
            "",
        ]
    ).encode()


def _about_patient(kind: str, number: int, *lines: str) -> bytes:
    """Return a message of a kind about the patient of a number."""
    return "\r".join(
        [
            f"MSH|^~\\&|HIS|HOSPITAL_A|YIQIAO|HOSPITAL_A|20260301083000+0800||{kind}|BENCH-{number}|P|2.5.1|||||CHN|UNICODE UTF-8",
            *lines,
            "",
        ]
    ).encode()


def _patient(number: int) -> str:
    return f"PID|1||M{number:07d}^^^{AUTHORITY}^MR||TEST^PATIENT||19850712|F"


def laboratory_order(number: int = 1) -> bytes:
    """Return an ORM^O01 that orders one examination."""
    return _about_patient(
        "ORM^O01^ORM_O01",
        number,
        _patient(number),
        f"ORC|NW|ORD-{number}||||||20260301083000+0800|||{DOCTOR}",
        f"OBR|1|ORD-{number}||24323-8^Comprehensive metabolic panel^LN||||||||||||{DOCTOR}",
        "DG1|1||J18.9^Pneumonia^I10||20260301|W",
    )


def prescription(number: int = 1) -> bytes:
    """Return an RDE^O11 with one medicine."""
    return _about_patient(
        "RDE^O11^RDE_O11",
        number,
        _patient(number),
        f"ORC|NW|RX-{number}|||||||20260301083000+0800|||{DOCTOR}",
        "RXE||A0001^Amoxicillin 500 mg capsule^L|1||CAP^capsule^L|||||21|CAP^capsule^L|0",
        "TQ1|1||TID^^^^^^^^^^||||20260301080000+0800|20260308080000+0800|R",
        "RXR|PO^Oral^HL70162",
    )


def appointment(number: int = 1) -> bytes:
    """Return an SIU^S12 with a service, a place and a doctor."""
    return _about_patient(
        "SIU^S12^SIU_S12",
        number,
        f"SCH|APP-{number}|FIL-{number}||||ROUTINE|CHECKUP^Check-up^L|NORMAL|30|min|^^^20260305090000+0800^20260305093000+0800|||||||||||||||BOOKED",
        _patient(number),
        "RGS|1",
        "AIS|1||CONS^Consultation^L|20260305090000+0800",
        "AIL|1||OPD^3^^HOSPITAL_A",
        f"AIP|1||{DOCTOR}",
    )


def vaccination(number: int = 1) -> bytes:
    """Return a VXU^V04 with one vaccine and two observations."""
    return _about_patient(
        "VXU^V04^VXU_V04",
        number,
        _patient(number),
        f"ORC|RE||VAC-{number}",
        "RXA|0|1|20260301083000+0800|20260301083000+0800|140^Influenza^CVX|0.5|mL^mL^UCUM||00^New record^NIP001||||||LOT1|20270101|MSD^Merck^MVX|||CP|A",
        "RXR|IM^Intramuscular^HL70162|LA^Left arm^HL70163",
        "OBX|1|CE|64994-7^Eligibility^LN|1|V01^Not eligible^HL70064||||||F",
        "OBX|2|NM|30973-2^Dose number^LN|1|1||||||F",
    )
