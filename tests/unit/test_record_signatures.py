"""Signed records: by institution and practitioner, verified offline, across key rotation; everything that must not
hold.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from asn1crypto import cms, x509
from fhir.resources.R4B import get_fhir_model_class
from gmssl import sm2

from anchor import canonical
from anchor.contracts.member_keys import key_record
from anchor.gm import PrivateKey, sm3
from anchor.trust import Trust
from bridge.errors import CertificateInvalid
from bridge.pki import gm_certificates as gm
from bridge.pki.gm_structures import (
    OID_DATA,
    OID_SIGNED,
    OID_SM2_SIGN,
    OID_SM3,
    SignedInfo,
    Sm2Signature,
    gm_ca_name,
)
from bridge.pki.practitioners import PractitionerKey
from bridge.pki.signed_data import read_detached, sign_detached
from bridge.services.record_signature import signed_provenance, statement, targets_of, verify_provenance

NOW, YEAR = 1_790_000_000, 366 * 86_400
ORG, OTHER, CHAIN = "12330000000000012G", "12330000000000013E", "test-chain"
OLD, NEW, DOCTOR, STRANGER, CA = (PrivateKey.generate() for _ in range(5))
RECORD = canonical.canonicalize(json.dumps({"resourceType": "Observation", "id": "1", "status": "final"}).encode())
REF = "Observation/1/_history/2"
TARGETS = [(REF, sm3(RECORD).hex()), ("Observation/2/_history/1", "ab" * 32)]


def member(org: str, *keys: dict[str, Any]) -> dict[str, Any]:
    return {"org": org, "name": f"医院{org[-2:]}", "roles": ["hospital"], "status": "active", "keys": list(keys)}


def trust() -> Trust:
    """The old key signed until a year from now, the new one since."""
    members = [
        member(
            ORG,
            key_record(OLD.public_key, "sign", since=NOW - 1000, until=NOW + YEAR),
            key_record(NEW.public_key, "sign", since=NOW + YEAR - 1000),
            key_record(CA.public_key, "encrypt", since=NOW - 1000),
        ),
        member(
            OTHER,
            key_record(STRANGER.public_key, "sign", since=NOW - 1000),
            key_record(DOCTOR.public_key, "encrypt", since=NOW - 1000),
        ),
    ]
    return Trust.from_members(CHAIN, 1, (), members)


MEMBER_NAME = gm.member_subject("第一医院", ORG)


def certificate(key: PrivateKey, *, by: PrivateKey = OLD, uris: tuple[str, ...] = (), days: int = 365,
                profile: gm.Profile = gm.SIGNING, since: int = NOW - 500) -> gm.GmCertificate:  # fmt: skip
    return gm.issue(
        subject=x509.Name.build({"common_name": "李医生"}), public=key.public_key, profile=profile, issuer=MEMBER_NAME,
        issuer_key=by, serial=99, not_before=since, not_after=since + days * 86_400,
        uris=uris or (gm.PRACTITIONER_URI + "D1", gm.ORG_URI + ORG),
    )  # fmt: skip


ISSUING = gm.issue(
    subject=MEMBER_NAME, public=OLD.public_key, profile=gm.ISSUING, issuer=gm_ca_name(CHAIN), issuer_key=CA, serial=5,
    not_before=NOW - 1000, not_after=NOW + YEAR,
)  # fmt: skip


def doctor(found: gm.GmCertificate | None = None, key: PrivateKey = DOCTOR) -> PractitionerKey:
    return PractitionerKey("D1", "李医生", key, found or certificate(key), ISSUING)


def signed(*, key: PrivateKey = OLD, now: int = NOW, by: PractitionerKey | None = None) -> dict[str, Any]:
    return signed_provenance(
        TARGETS, id="signed-1", org=ORG, name="第一医院", chain=CHAIN, key=key, now=now, practitioner=by
    )


def signed_by(found: gm.GmCertificate) -> dict[str, Any]:
    return signed(by=doctor(found))


def test_both_signatures_hold_years_later_with_the_trust_file_alone() -> None:
    provenance = signed(by=doctor())
    get_fhir_model_class("Provenance").model_validate(provenance)
    report = verify_provenance(provenance, trust(), resources={REF: RECORD}, dated=NOW + 20)
    assert [each.who for each in report.signatures] == [f"org:{ORG}", f"practitioner:{ORG}:D1"]
    assert report.signatures[0].key == OLD.public_key.key_id
    assert report.checked == (REF,)
    assert report.targets == tuple(TARGETS)
    assert verify_provenance(signed(key=NEW, now=NOW + YEAR + 5), trust()).dated is None


@pytest.mark.parametrize(
    ("make", "dated", "code"),
    [
        pytest.param(lambda: signed(key=STRANGER), None, "unknown-key", id="a stranger's key"),
        pytest.param(lambda: signed(key=NEW), None, "unknown-key", id="a key that was not yet good"),
        pytest.param(lambda: signed(now=NOW + YEAR + 9), None, "unknown-key", id="a key that was retired"),
        pytest.param(lambda: signed(), NOW + YEAR + 9, "retired-key", id="back-dated with a retired key"),
        pytest.param(lambda: signed(now=NOW + 9999), NOW, "post-dated", id="dated after its record"),
        pytest.param(lambda: signed_by(certificate(DOCTOR, by=STRANGER)), None, "unknown-issuer", id="not issued"),
        pytest.param(lambda: signed_by(certificate(DOCTOR, since=NOW + 60)), None, "not-in-force", id="not begun"),
        pytest.param(lambda: signed_by(certificate(DOCTOR, days=1)), NOW + 2 * 86_400, "not-in-force", id="ended"),
        pytest.param(
            lambda: signed_by(certificate(DOCTOR, uris=(gm.PRACTITIONER_URI + "D2", gm.ORG_URI + ORG))),
            None, "wrong-name", id="another person's certificate",
        ),
        pytest.param(
            lambda: signed_by(certificate(DOCTOR, uris=(gm.PRACTITIONER_URI + "D1", gm.ORG_URI + OTHER))),
            None, "wrong-name", id="another institution's",
        ),
        pytest.param(
            lambda: signed_by(certificate(DOCTOR, profile=gm.ENCRYPTION)), None, "wrong-usage", id="for encryption"
        ),
        pytest.param(
            lambda: signed_by(certificate(STRANGER)), None, "bad-signature", id="another key"
        ),
    ],
)  # fmt: skip
def test_signatures_that_do_not_hold(make: Callable[[], dict[str, Any]], dated: int | None, code: str) -> None:
    with pytest.raises(CertificateInvalid) as caught:
        verify_provenance(make(), trust(), dated=dated)
    assert caught.value.code == code


def _other_digest(value: dict[str, Any]) -> None:
    value["entity"][0]["what"]["identifier"]["value"] = "cd" * 32


def _without_certificates(value: dict[str, Any]) -> None:
    """Take the practitioner's certificates out of the signature."""
    signature = value["signature"][1]
    found = read_detached(base64.b64decode(signature["data"]))
    content = statement(
        TARGETS, kind=signature["type"][0]["code"], when=signature["when"], who=f"practitioner:{ORG}:D1"
    )
    bare = sign_detached(content, key=DOCTOR, issuer=found.issuer, serial=found.serial)
    signature["data"] = base64.b64encode(bare).decode()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(
            lambda v: v["entity"][0]["what"]["identifier"].update(value="cd" * 32), "bad-signature", id="digest"
        ),
        pytest.param(lambda v: v["entity"].reverse(), "malformed", id="order of entities"),
        pytest.param(lambda v: (v["entity"].pop(), v["target"].pop()), "bad-signature", id="a record left out"),
        pytest.param(lambda v: v["signature"][0].update(when="2020-01-01T00:00:00Z"), "unknown-key", id="earlier"),
        pytest.param(lambda v: v["signature"][0].update(when="yesterday"), "malformed", id="no time"),
        pytest.param(lambda v: v["signature"][1]["who"]["identifier"].update(value="D2"), "wrong-name", id="who"),
        pytest.param(lambda v: v["signature"][0]["type"][0].update(code="x"), "bad-signature", id="meaning"),
        pytest.param(lambda v: v["signature"][0].update(data="AAAA"), "malformed", id="not a signature"),
        pytest.param(lambda v: v["signature"][0].update(sigFormat="image/png"), "other-algorithm", id="a picture"),
        pytest.param(lambda v: v["signature"].clear(), "unsigned", id="none"),
        pytest.param(lambda v: v.pop("entity"), "malformed", id="no digests"),
        pytest.param(_without_certificates, "unknown-issuer", id="the certificate left out"),
    ],
)
def test_altered_provenances(change: Callable[[dict[str, Any]], Any], code: str) -> None:
    provenance = copy.deepcopy(signed(by=doctor()))
    change(provenance)
    with pytest.raises(CertificateInvalid) as caught:
        verify_provenance(provenance, trust())
    assert caught.value.code == code


def test_a_record_that_differs_or_was_not_signed() -> None:
    for ref, content in ((REF, RECORD.replace(b"final", b"amended")), ("Patient/1/_history/1", RECORD), (REF, b"{")):
        with pytest.raises(CertificateInvalid):
            verify_provenance(signed(), trust(), resources={ref: content})


def test_every_altered_byte_of_the_structure_is_noticed() -> None:
    provenance = signed()
    data = base64.b64decode(provenance["signature"][0]["data"])
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1 << position % 8
        provenance["signature"][0]["data"] = base64.b64encode(altered).decode()
        with pytest.raises(CertificateInvalid):
            verify_provenance(provenance, trust())


def test_an_independent_implementation_verifies_it() -> None:
    """Pure-Python gmssl over the statement, rebuilt by hand from the Provenance as documented."""
    provenance = signed()
    listed = [{"digest": digest, "ref": ref} for ref, digest in targets_of(provenance)]
    value = {"purpose": "yiqiao/record-signature/v1", "targets": listed, "type": "1.2.840.10065.1.12.1.5",
             "when": provenance["signature"][0]["when"], "who": f"org:{ORG}"}  # fmt: skip
    content = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    found = read_detached(base64.b64decode(provenance["signature"][0]["data"]))
    assert f"{found.serial:016x}" == OLD.public_key.key_id
    assert sm2.CryptSM2("", OLD.public_key.to_bytes().hex()[2:]).verify_with_sm3(found.signature.hex(), content)


@pytest.mark.parametrize("count", [0, 1, 2], ids=["no certificate", "one", "two"])
def test_it_is_the_encoding_that_the_standards_structure_has(count: int) -> None:
    """What is put together of encoded elements is what asn1crypto writes of GM/T 0010's SignedData."""
    certificates = [certificate(DOCTOR), ISSUING][:count]
    issuer, serial = gm_ca_name(CHAIN), int(OLD.public_key.key_id, 16)
    der = sign_detached(RECORD, key=OLD, issuer=issuer, serial=serial, certificates=certificates)
    signature = SignedInfo.load(der, strict=True)["content"]["signer_infos"][0]["encrypted_digest"].native
    built = {
        "version": 1,
        "digest_algorithms": [{"algorithm": OID_SM3}],
        "content_info": {"content_type": OID_DATA},
        "signer_infos": [
            {
                "version": 1,
                "issuer_and_serial": cms.IssuerAndSerialNumber({"issuer": issuer, "serial_number": serial}),
                "digest_algorithm": {"algorithm": OID_SM3},
                "digest_encryption_algorithm": {"algorithm": OID_SM2_SIGN},
                "encrypted_digest": Sm2Signature(Sm2Signature.load(signature).native).dump(),
            }
        ],
    }
    if certificates:
        built["certificates"] = [x509.Certificate.load(each.der) for each in certificates]
    assert SignedInfo({"content_type": OID_SIGNED, "content": built}).dump() == der
