"""SM2 certificates: issued, read back, verified by OpenSSL and pure-Python SM2; every chain that must not hold."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509 as other_x509
from gmssl import sm2
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor.gm import PrivateKey
from bridge.errors import CertificateInvalid
from bridge.pki import gm_certificates as gm
from bridge.pki.gm_structures import gm_ca_name

NOW, DAY = 1_790_000_000, 86_400
ORG = "12330000000000012G"
CA, MEMBER, DOCTOR, STRANGER = (PrivateKey.generate() for _ in range(4))
CA_NAME = gm_ca_name("测试链")
MEMBER_NAME = gm.member_subject("第一医院", ORG)


def made(
    subject: gm.x509.Name,
    key: PrivateKey,
    profile: gm.Profile,
    issuer: gm.x509.Name,
    issuer_key: PrivateKey,
    *,
    days: tuple[int, int] = (-1, 100),
    serial: int = 7,
    uris: tuple[str, ...] = (),
) -> gm.GmCertificate:
    return gm.issue(
        subject=subject, public=key.public_key, profile=profile, issuer=issuer, issuer_key=issuer_key, serial=serial,
        not_before=NOW + days[0] * DAY, not_after=NOW + days[1] * DAY, uris=uris,
    )  # fmt: skip


ROOT = made(CA_NAME, CA, gm.ROOT, CA_NAME, CA, days=(-10, 3650))
SIGNING = made(
    MEMBER_NAME, MEMBER, gm.SIGNING, CA_NAME, CA, serial=int(MEMBER.public_key.key_id, 16), uris=(gm.ORG_URI + ORG,)
)
ISSUING = made(MEMBER_NAME, MEMBER, gm.ISSUING, CA_NAME, CA, uris=(gm.ORG_URI + ORG,))
PERSON_NAME = gm.x509.Name.build({"common_name": "测试医师", "organizational_unit_name": "急诊科"})
PERSON = made(PERSON_NAME, DOCTOR, gm.SIGNING, MEMBER_NAME, MEMBER, uris=(gm.PRACTITIONER_URI + "D1", gm.ORG_URI + ORG))


def test_what_was_issued_is_what_is_read() -> None:
    again = gm.parse(SIGNING.pem().encode())
    assert again == gm.parse(SIGNING.der) == SIGNING
    assert (again.org, again.practitioner) == (ORG, None)
    assert f"{again.serial:016x}" == MEMBER.public_key.key_id
    assert again.usages == gm.SIGNING.usages
    assert (PERSON.org, PERSON.practitioner) == (ORG, "D1")
    assert not again.ca
    assert (ROOT.ca, ROOT.path_length, ISSUING.path_length) == (True, 1, 0)


def test_chains_that_hold() -> None:
    assert gm.verify_chain(SIGNING, (), (ROOT,), at=NOW, usage="digital_signature") == (SIGNING, ROOT)
    chain = gm.verify_chain(PERSON, (ISSUING,), (ROOT,), at=NOW, usage="non_repudiation")
    assert chain == (PERSON, ISSUING, ROOT)


FAKE_ROOT = made(CA_NAME, STRANGER, gm.ROOT, CA_NAME, STRANGER, days=(-10, 3650))
BY_PERSON = made(PERSON_NAME, STRANGER, gm.SIGNING, PERSON_NAME, DOCTOR)
BY_SIGNING_KEY = made(PERSON_NAME, STRANGER, gm.SIGNING, MEMBER_NAME, STRANGER)
SUB = made(gm.member_subject("x", ORG), STRANGER, gm.ISSUING, MEMBER_NAME, MEMBER)
BELOW_SUB = made(PERSON_NAME, DOCTOR, gm.SIGNING, gm.member_subject("x", ORG), STRANGER)


@pytest.mark.parametrize(
    ("leaf", "issuers", "anchors", "at", "usage", "code"),
    [
        pytest.param(SIGNING, (), (ROOT,), NOW, "key_encipherment", "wrong-usage", id="signing is not encrypting"),
        pytest.param(SIGNING, (), (ROOT,), NOW + 101 * DAY, "digital_signature", "not-in-force", id="over"),
        pytest.param(SIGNING, (), (ROOT,), NOW - 2 * DAY, "digital_signature", "not-in-force", id="not begun"),
        pytest.param(SIGNING, (), (), NOW, "digital_signature", "unknown-issuer", id="no anchor"),
        pytest.param(SIGNING, (), (FAKE_ROOT,), NOW, "digital_signature", "bad-signature", id="another root's name"),
        pytest.param(PERSON, (), (ROOT,), NOW, "digital_signature", "unknown-issuer", id="a link is missing"),
        pytest.param(PERSON, (SIGNING,), (ROOT,), NOW, "digital_signature", "not-an-issuer", id="by a signing one"),
        pytest.param(BY_PERSON, (PERSON, ISSUING), (ROOT,), NOW, "digital_signature", "not-an-issuer", id="person"),
        pytest.param(BY_SIGNING_KEY, (ISSUING,), (ROOT,), NOW, "digital_signature", "bad-signature", id="forged"),
        pytest.param(
            BELOW_SUB, (SUB, ISSUING), (ROOT,), NOW, "digital_signature", "not-an-issuer", id="longer than allowed"
        ),
    ],
)
def test_chains_that_do_not_hold(
    leaf: gm.GmCertificate,
    issuers: tuple[gm.GmCertificate, ...],
    anchors: tuple[gm.GmCertificate, ...],
    at: int,
    usage: str,
    code: str,
) -> None:
    with pytest.raises(CertificateInvalid) as caught:
        gm.verify_chain(leaf, issuers, anchors, at=at, usage=usage)
    assert caught.value.code == code


def test_an_altered_certificate_does_not_hold() -> None:
    swapped = replace(SIGNING, signed=SIGNING.signed.replace(ORG.encode(), b"X" * 18))
    with pytest.raises(CertificateInvalid, match="signature does not hold"):
        gm.verify_chain(swapped, (), (ROOT,), at=NOW, usage="digital_signature")


def test_a_certificate_of_another_algorithm_is_not_read(tmp_path: Path) -> None:
    from bridge.pki import tls_certificates as tls

    key = tls.new_key()
    foreign = tls.pem(tls.new_authority("x", 1, key, NOW, 1))
    with pytest.raises(CertificateInvalid) as caught:
        gm.parse(foreign)
    assert caught.value.code == "other-algorithm"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(SIGNING.der) - 1), st.integers(1, 255), st.integers(0, 40))
def test_no_bytes_break_the_reader(position: int, change: int, cut: int) -> None:
    altered = bytearray(SIGNING.der)
    altered[position] ^= change
    for content in (bytes(altered), bytes(altered)[: len(altered) - cut], bytes(altered[cut:])):
        try:
            found = gm.parse(content)
            if found.der != SIGNING.der:
                gm.verify_chain(found, (), (ROOT,), at=NOW, usage="digital_signature")
        except CertificateInvalid:
            continue
        assert content == SIGNING.der


def test_an_independent_implementation_verifies_it() -> None:
    """The reader of `cryptography` and the SM2 of pure-Python gmssl, sharing no code with the issuing side."""
    certificate = other_x509.load_der_x509_certificate(SIGNING.der)
    assert certificate.signature_algorithm_oid.dotted_string == gm.OID_SM2_WITH_SM3
    assert certificate.serial_number == SIGNING.serial
    der = certificate.signature
    r_length = der[3]
    r, s = der[4 : 4 + r_length], der[6 + r_length :]
    numbers = "".join(part.lstrip(b"\0").rjust(32, b"\0").hex() for part in (r, s))
    public = CA.public_key.to_bytes().hex()[2:]
    assert sm2.CryptSM2("", public).verify_with_sm3(numbers, certificate.tbs_certificate_bytes)
    other = STRANGER.public_key.to_bytes().hex()[2:]
    assert not sm2.CryptSM2("", other).verify_with_sm3(numbers, certificate.tbs_certificate_bytes)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_chain_and_signature(tmp_path: Path) -> None:
    for name, certificate in (("root", ROOT), ("issuing", ISSUING), ("person", PERSON), ("signing", SIGNING)):
        (tmp_path / f"{name}.pem").write_text(certificate.pem())

    def verified(leaf: str, by: str, distid: str = "1234567812345678") -> bool:
        """Link by link: OpenSSL 3.0 gives the distid only to the certificate it is asked about."""
        options = ["-attime", str(NOW), "-vfyopt", f"distid:{distid}", "-partial_chain", "-trusted", f"{by}.pem"]
        command = ["openssl", "verify", *options, f"{leaf}.pem"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0

    assert verified("signing", "root")
    assert verified("issuing", "root")
    assert verified("person", "issuing")
    assert not verified("person", "root")
    assert not verified("person", "signing")
    assert not verified("signing", "root", distid="another")
