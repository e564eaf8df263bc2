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
