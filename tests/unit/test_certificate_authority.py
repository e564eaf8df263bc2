"""The consortium's certificate authority and a node's certificates: who gets one, for what, and how it ends."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from anchor.contracts import member_keys
from anchor.gm import PrivateKey
from bridge.errors import CertificateInvalid, Conflict, NotFound, SettingsError
from bridge.keys.store import KeyStore
from bridge.pki import gm_certificates as gm
from bridge.pki import tls_certificates as tls
from bridge.pki.authority import CertificateAuthority
from bridge.pki.enrolment import CertificateRequest, Certificates
from bridge.pki.tls_identity import AUTHORITIES, CERTIFICATE, KEY, REVOKED, TlsIdentity

NOW = 1_790_000_000
ORG, OTHER = "12330000000000012G", "12330000000000013E"
SIGN, ENCRYPT, STRANGER = (PrivateKey.generate() for _ in range(3))
MEMBER: dict[str, Any] = {
    "org": ORG,
    "name": "第一医院",
    "status": "active",
    "endpoint": "https://a.example.cn:8443",
    "keys": [
        member_keys.key_record(SIGN.public_key, "sign", since=NOW - 1000),
        member_keys.key_record(ENCRYPT.public_key, "encrypt", since=NOW - 1000),
    ],
}


class World:
    def __init__(self, directory: Path) -> None:
        self.now = float(NOW)
        keys = directory / "authority-keys"
        keys.mkdir()
        self.authority = CertificateAuthority(directory / "authority", KeyStore(keys), "test", lambda: self.now)
        own = directory / "keys"
        own.mkdir()
        self.identity = TlsIdentity(directory / "pki", KeyStore(own))

    def asked(self, org: str = ORG, host: str = "a.example.cn", key: PrivateKey = SIGN) -> CertificateRequest:
        return CertificateRequest.make(org=org, csr=self.identity.request(org, (host,)), key=key, now=int(self.now))

    def installed(self) -> x509.Certificate:
        found = self.authority.issue(self.asked(), MEMBER)
        self.identity.install(found, ORG, SIGN.public_key.to_bytes())
        return tls.read_bundle(found.tls.encode())[0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.authority.create()
    return made


def test_a_member_gets_certificates_and_installs_them(world: World, tmp_path: Path) -> None:
    asked = world.asked()
    asked.write(tmp_path / "request.json")
    found = world.authority.issue(CertificateRequest.read(tmp_path / "request.json"), MEMBER, days=30)
    found.write(tmp_path / "answer.json")
    world.identity.install(Certificates.read(tmp_path / "answer.json"), ORG, SIGN.public_key.to_bytes())
    assert world.identity.exists
    assert world.identity.expires() == pytest.approx(NOW + 30 * 86_400, abs=400)
    (certificate,) = tls.read_bundle((world.identity.directory / CERTIFICATE).read_bytes())
    assert tls.names_of(certificate) == (ORG, ("a.example.cn",))
    assert b"ENCRYPTED" in (world.identity.directory / KEY).read_bytes()
    assert world.identity.context().minimum_version is ssl.TLSVersion.TLSv1_3
    world.identity.check_peer(certificate.public_bytes(tls.serialization.Encoding.DER), ORG)
    with pytest.raises(CertificateInvalid, match="another institution"):
        world.identity.check_peer(certificate.public_bytes(tls.serialization.Encoding.DER), OTHER)
    kinds = [each["kind"] for each in world.authority.issued()]
    assert kinds == ["tls", "gm-sign", "gm-encrypt", "gm-issuing"]
    sm2 = gm.parse((world.identity.directory / "gm-sign.crt").read_bytes())
    assert sm2.public.to_bytes() == SIGN.public_key.to_bytes()
    assert f"{sm2.serial:016x}" == SIGN.public_key.key_id


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(lambda w: (w.asked(), None), "not-a-member", id="nobody"),
        pytest.param(lambda w: (w.asked(), {**MEMBER, "status": "suspended"}), "not-a-member", id="suspended"),
        pytest.param(lambda w: (w.asked(key=STRANGER), MEMBER), "unknown-key", id="signed by a stranger"),
        pytest.param(lambda w: (w.asked(org=OTHER), MEMBER), "unknown-key", id="in another's name"),
        pytest.param(lambda w: (w.asked(host="b.example.cn"), MEMBER), "wrong-name", id="for another host"),
        pytest.param(lambda w: (replace(w.asked(), time=NOW - 40 * 86_400), MEMBER), "stale", id="old"),
        pytest.param(lambda w: (replace(w.asked(), time=NOW + 1), MEMBER), "bad-signature", id="altered"),
        pytest.param(lambda w: (replace(w.asked(), sig="zz"), MEMBER), "bad-signature", id="no signature"),
    ],
)
def test_requests_that_get_nothing(world: World, change: Callable[[World], Any], code: str) -> None:
    asked, member = change(world)
    with pytest.raises(CertificateInvalid) as caught:
        world.authority.issue(asked, member)
    assert caught.value.code == code
    assert world.authority.issued() == []


def test_a_request_whose_own_key_did_not_sign_it_gets_nothing(world: World) -> None:
    csr = world.identity.request(ORG, ("a.example.cn",)).decode()
    lines = csr.splitlines()
    lines[3] = lines[3][::-1]
    asked = CertificateRequest.make(org=ORG, csr="\n".join(lines).encode(), key=SIGN, now=NOW)
    with pytest.raises(CertificateInvalid):
        world.authority.issue(asked, MEMBER)


def revoked(world: World, status: str = "active") -> frozenset[tuple[bytes, int]]:
    content = world.authority.revocation_list(lambda _: {**MEMBER, "status": status})
    return tls.read_revocation_lists(content, tls.read_bundle(world.authority.bundle()))


def test_a_suspended_members_certificate_is_revoked_until_it_is_reinstated(world: World) -> None:
    certificate = world.installed()
    place = (certificate.issuer.public_bytes(), certificate.serial_number)
    assert revoked(world) == frozenset()
    world.now += 60
    assert revoked(world, "suspended") == {place}
    world.identity.replace_revoked(world.authority.revocation_list(lambda _: {**MEMBER, "status": "suspended"}))
    with pytest.raises(CertificateInvalid, match="revoked"):
        world.identity.check_peer(certificate.public_bytes(tls.serialization.Encoding.DER), ORG)
    assert revoked(world) == frozenset()


def test_a_certificate_is_revoked_by_hand_for_good(world: World) -> None:
    certificate = world.installed()
    with pytest.raises(NotFound):
        world.authority.revoke("abc")
    world.authority.revoke(f"{certificate.serial_number:x}")
    assert {serial for _, serial in revoked(world)} == {certificate.serial_number}
    assert {serial for _, serial in revoked(world)} == {certificate.serial_number}
    assert world.authority.issued()[0]["revoked"] == NOW


def test_the_list_is_signed_anew_only_when_needed(world: World) -> None:
    def listed() -> bytes:
        return world.authority.revocation_list(lambda _: MEMBER)

    first = listed()
    world.now += 3600
    assert listed() == first
    world.now += 86_400
    second = listed()
    assert second != first
    assert world.identity.exists is False


def test_a_revocation_list_of_somebody_else_is_refused(world: World, tmp_path: Path) -> None:
    world.installed()
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    other.authority.create()
    before = (world.identity.directory / REVOKED).read_bytes()
    with pytest.raises(CertificateInvalid, match="not the authority's"):
        world.identity.replace_revoked(other.authority.revocation_list(lambda _: MEMBER))
    assert (world.identity.directory / REVOKED).read_bytes() == before


def test_renewal_keeps_the_old_certificate_until_the_new_one_is_installed(world: World) -> None:
    first = world.installed()
    key = (world.identity.directory / KEY).read_bytes()
    asked = world.asked()
    assert (world.identity.directory / KEY).read_bytes() == key
    world.identity.context()
    world.identity.install(world.authority.issue(asked, MEMBER), ORG, SIGN.public_key.to_bytes())
    assert (world.identity.directory / KEY).read_bytes() != key
    (second,) = tls.read_bundle((world.identity.directory / CERTIFICATE).read_bytes())
    assert second.serial_number != first.serial_number
    world.identity.context()
    assert revoked(world) == frozenset()  # the old one counts until it ends


def test_a_new_authority_is_trusted_beside_the_old_one(world: World) -> None:
    old = world.installed()
    with pytest.raises(Conflict):
        world.authority.create()
    assert world.authority.create(another=True) == 2
    new = world.installed()
    authorities = tls.read_bundle((world.identity.directory / AUTHORITIES).read_bytes())
    assert len(authorities) == 2
    assert old.issuer != new.issuer
    assert tls.issued_by(old, authorities)
    assert tls.issued_by(new, authorities)
    world.authority.revoke(f"{old.serial_number:x}")
    assert {serial for _, serial in revoked(world)} == {old.serial_number}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(lambda f, w: replace(f, org=OTHER), "wrong-name", id="another's"),
        pytest.param(lambda f, w: replace(f, authorities=f.tls), "bad-signature", id="not its authority"),
        pytest.param(lambda f, w: replace(f, gm=()), "wrong-key", id="no SM2 certificate"),
        pytest.param(lambda f, w: replace(f, gm=(f.gm_authority,)), "wrong-name", id="the authority's own"),
        pytest.param(lambda f, w: replace(f, revoked=f.tls), None, id="no list of revoked ones"),
    ],
)
def test_certificates_that_are_not_installed(world: World, change: Any, code: str | None) -> None:
    found = change(world.authority.issue(world.asked(), MEMBER), world)
    if code is None:
        world.identity.install(found, ORG, SIGN.public_key.to_bytes())
        return
    with pytest.raises(CertificateInvalid) as caught:
        world.identity.install(found, ORG, SIGN.public_key.to_bytes())
    assert caught.value.code == code
    assert not world.identity.exists


def test_a_certificate_for_a_key_that_is_gone_is_not_installed(world: World) -> None:
    found = world.authority.issue(world.asked(), MEMBER)
    world.identity.request(ORG, ("a.example.cn",))
    with pytest.raises(CertificateInvalid, match="not for a key"):
        world.identity.install(found, ORG, SIGN.public_key.to_bytes())


@pytest.mark.parametrize("content", ["", "[]", '{"v":1}', json.dumps({"v": 1, "org": 1, "csr": "", "time": 0, "key": "",
                                                                     "sig": ""})])  # fmt: skip
def test_files_that_are_not_requests(tmp_path: Path, content: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(content)
    with pytest.raises(CertificateInvalid):
        CertificateRequest.read(file)
    with pytest.raises(CertificateInvalid):
        Certificates.read(file)


def test_a_node_that_is_no_authority_issues_nothing(tmp_path: Path) -> None:
    made = World(tmp_path)
    with pytest.raises(SettingsError, match="no certificate authority"):
        made.authority.issue(made.asked(), MEMBER)
