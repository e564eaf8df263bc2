"""RFC 3161 tokens of a real authority (`openssl ts`) and of one that signs with SM2: what they prove, and what not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms, core, keys, tsp, x509
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor.errors import FormatError, VerificationError
from anchor.gm import PrivateKey, sm3
from anchor.gm.der import encode_signature
from anchor.timestamp import IMPRINTS, build_request, read_certificate, read_response, verify_token
from tests.local_tsa import LocalTsa, needs_openssl

CONTENT = b"yiqiao/ledger/test-chain\n7\n"
NONCE = 0x1234567890ABCDEF
SM3_OID, SM2_SM3, SM2_CURVE = "1.2.156.10197.1.401", "1.2.156.10197.1.501", "1.2.156.10197.1.301"


@pytest.fixture(scope="module", params=["ec", "rsa:2048"])
def tsa(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalTsa:
    return LocalTsa(tmp_path_factory.mktemp("tsa") / "authority", key=request.param)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> LocalTsa:
    return LocalTsa(tmp_path_factory.mktemp("tsa") / "other")


def stamped(tsa: LocalTsa, imprint: str = "sm3") -> bytes:
    request = build_request(CONTENT, imprint=imprint, nonce=NONCE)
    return read_response(tsa.answer(request), CONTENT, [tsa.certificate], nonce=NONCE)[0]


@needs_openssl
@pytest.mark.parametrize("imprint", IMPRINTS)
def test_a_real_authoritys_token_proves_its_time(tsa: LocalTsa, other: LocalTsa, imprint: str) -> None:
    token = stamped(tsa, imprint)
    stamp = verify_token(token, CONTENT, [other.certificate, tsa.certificate])
    assert abs(stamp.time - datetime.now(UTC).timestamp()) < 60
    assert (stamp.imprint, stamp.authority) == (imprint, read_certificate(tsa.certificate))
    with pytest.raises(VerificationError, match="something else"):
        verify_token(token, CONTENT + b"8", [tsa.certificate])
    with pytest.raises(VerificationError, match="not trusted"):
        verify_token(token, CONTENT, [other.certificate])
    with pytest.raises(VerificationError, match="not trusted"):
        verify_token(token, CONTENT, [])


@needs_openssl
def test_every_flipped_bit_of_a_token_is_refused(tsa: LocalTsa) -> None:
    token = stamped(tsa)
    for bit in range(0, 8 * len(token), 5):
        changed = bytearray(token)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FormatError, VerificationError)):
            verify_token(bytes(changed), CONTENT, [tsa.certificate])


@needs_openssl
def test_an_answer_to_another_request_and_a_refusal_are_named(tsa: LocalTsa) -> None:
    answer = tsa.answer(build_request(CONTENT, nonce=NONCE))
    with pytest.raises(VerificationError, match="another request"):
        read_response(answer, CONTENT, [tsa.certificate], nonce=NONCE + 1)
    with pytest.raises(VerificationError, match="something else"):
        read_response(answer, b"other content", [tsa.certificate], nonce=NONCE)
    unknown = build_request(CONTENT, nonce=NONCE, imprint="sha256").replace(
        bytes.fromhex("608648016503040201"), bytes.fromhex("608648016503040203")
    )
    with pytest.raises(VerificationError, match="refused"):
        read_response(tsa.answer(unknown), CONTENT, [tsa.certificate], nonce=NONCE)


@needs_openssl
@pytest.mark.parametrize("usage", ["timeStamping", "critical,timeStamping,serverAuth", "critical,serverAuth"])
def test_a_certificate_for_other_uses_is_refused(tmp_path: Path, usage: str) -> None:
    other = LocalTsa(tmp_path / "tsa", usage=usage)
    with pytest.raises(FormatError):
        read_certificate(other.certificate)


@needs_openssl
def test_a_token_with_more_than_it_needs_is_not_bare(tsa: LocalTsa) -> None:
    outer = cms.ContentInfo.load(stamped(tsa)).copy()
    outer["content"]["certificates"] = [x509.Certificate.load(tsa.certificate)]
    with pytest.raises(FormatError, match="bare"):
        verify_token(outer.dump(force=True), CONTENT, [tsa.certificate])


def test_an_imprint_nobody_knows_is_refused() -> None:
    with pytest.raises(FormatError):
        build_request(CONTENT, imprint="md5", nonce=1)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.integers(0, 2**64).map(lambda n: core.Integer(n).dump()))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for read in (
        lambda: read_response(content, CONTENT, [], nonce=1),
        lambda: verify_token(content, CONTENT, []),
        lambda: read_certificate(content),
    ):
        with pytest.raises((FormatError, VerificationError)):
            read()


# --- an authority whose key is SM2, which the openssl program cannot be: built here, field by field


def _sm2_certificate(key: PrivateKey, until: datetime) -> bytes:
    name = x509.Name.build({"common_name": "SM2 TSA"})
    public = {
        "algorithm": {"algorithm": "ec", "parameters": keys.ECDomainParameters("named", SM2_CURVE)},
        "public_key": key.public_key.to_bytes(),
    }
    body = x509.TbsCertificate(
        {
            "version": "v3",
            "serial_number": 77,
            "signature": {"algorithm": SM2_SM3},
            "issuer": name,
            "validity": {
                "not_before": x509.Time("utc_time", datetime(2026, 1, 1, tzinfo=UTC)),
                "not_after": x509.Time("utc_time", until),
            },
            "subject": name,
            "subject_public_key_info": public,
            "extensions": [{"extn_id": "extended_key_usage", "critical": True, "extn_value": ["time_stamping"]}],
        }
    )
    certificate = x509.Certificate(
        {
            "tbs_certificate": body,
            "signature_algorithm": {"algorithm": SM2_SM3},
            "signature_value": _sm2(key, body.dump()),
        }
    )
    encoded: bytes = certificate.dump()
    return encoded


def _sm2(key: PrivateKey, message: bytes) -> bytes:
    raw = key.sign(message)
    return encode_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


def _sm2_answer(key: PrivateKey, certificate: bytes, **changes: Any) -> bytes:
    info = tsp.TSTInfo(
        {
            "version": "v1",
            "policy": "1.2.3.4",
            "message_imprint": {"hash_algorithm": {"algorithm": SM3_OID}, "hashed_message": sm3(CONTENT)},
            "serial_number": 5,
            "gen_time": datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC),
            "nonce": NONCE,
            **changes.get("info", {}),
        }
    ).dump()
    named = {"hash_algorithm": {"algorithm": SM3_OID}, "cert_hash": sm3(certificate)}
    attributes = cms.CMSAttributes(
        [
            {"type": "content_type", "values": [changes.get("type", "tst_info")]},
            {"type": "message_digest", "values": [sm3(changes.get("digested", info))]},
            {"type": "signing_certificate_v2", "values": [{"certs": [changes.get("named", named)]}]},
        ]
    )
    parsed = x509.Certificate.load(certificate)
    signer = {
        "version": "v1",
        "sid": cms.SignerIdentifier(
            "issuer_and_serial_number", {"issuer": parsed.issuer, "serial_number": parsed.serial_number}
        ),
        "digest_algorithm": {"algorithm": SM3_OID},
        "signed_attrs": attributes,
        "signature_algorithm": {"algorithm": changes.get("algorithm", SM2_SM3)},
        "signature": _sm2(changes.get("signing", key), attributes.dump()),
    }
    signed = {
        "version": "v3",
        "digest_algorithms": [{"algorithm": SM3_OID}],
        "encap_content_info": {"content_type": "tst_info", "content": core.ParsableOctetString(info)},
        "signer_infos": [signer] * changes.get("signers", 1),
    }
    token = cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(signed)})
    answer: bytes = tsp.TimeStampResp({"status": {"status": "granted"}, "time_stamp_token": token}).dump()
    return answer


KEY = PrivateKey.generate()
CERTIFICATE = _sm2_certificate(KEY, datetime(2030, 1, 1, tzinfo=UTC))


def test_an_sm2_authority_is_understood() -> None:
    token, stamp = read_response(_sm2_answer(KEY, CERTIFICATE), CONTENT, [CERTIFICATE], nonce=NONCE)
    assert (stamp.time, stamp.authority, stamp.imprint, stamp.serial) == (1_790_000_000, "SM2 TSA", "sm3", 5)
    assert verify_token(token, CONTENT, [CERTIFICATE]) == stamp


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"signing": PrivateKey.generate()}, id="signed by another key"),
        pytest.param({"digested": b"another content"}, id="digest of another content"),
        pytest.param({"type": "data"}, id="another type of content"),
        pytest.param(
            {"named": {"hash_algorithm": {"algorithm": SM3_OID}, "cert_hash": b"\x01" * 32}}, id="another certificate"
        ),
        pytest.param({"algorithm": "sha256_ecdsa"}, id="an algorithm that is not the key's"),
        pytest.param({"signers": 2}, id="two signers"),
        pytest.param({"info": {"gen_time": datetime(2031, 1, 1, tzinfo=UTC)}}, id="stamped after it ended"),
        pytest.param({"info": {"gen_time": datetime(2025, 1, 1, tzinfo=UTC)}}, id="stamped before it began"),
        pytest.param(
            {"info": {"message_imprint": {"hash_algorithm": {"algorithm": "sha1"},
                                          "hashed_message": hashlib.sha1(CONTENT).digest()}}}, id="a weak imprint",
        ),
    ],
)  # fmt: skip
def test_a_token_that_does_not_hold_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((FormatError, VerificationError)):
        read_response(_sm2_answer(KEY, CERTIFICATE, **changes), CONTENT, [CERTIFICATE], nonce=NONCE)


def test_a_refusal_without_a_token_is_understood() -> None:
    class Refusal(core.Sequence):  # type: ignore[misc]
        _fields = [("status", tsp.PKIStatusInfo)]  # noqa: RUF012

    refused: Callable[[], bytes] = Refusal({"status": {"status": "rejection"}}).dump
    with pytest.raises(VerificationError, match="rejection"):
        read_response(refused(), CONTENT, [CERTIFICATE], nonce=NONCE)
