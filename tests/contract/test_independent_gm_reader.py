"""What we write in national cryptography, read by github.com/emmansun/gmsm (Go), which shares nothing with this
project.

Built once from tests/interop/gmsm by the Go toolchain; skipped where there is none, or where the module cannot be
fetched. The readers in pure Python (test_release_envelope, test_gm_certificates, test_record_signatures) always run.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from anchor.gm import PrivateKey
from bridge.pki import gm_certificates as gm
from bridge.pki.gm_structures import gm_ca_name
from bridge.services.envelope import seal
from bridge.services.record_signature import signed_provenance, statement

SOURCE = Path(__file__).resolve().parents[1] / "interop" / "gmsm"
CHAIN, NOW, YEAR = "interop", 1_790_000_000, 366 * 86_400
ORG = "12330000000000012G"
CA, SIGNER, RECIPIENT = (PrivateKey.generate() for _ in range(3))
CONTENT = '{"bundle":{"resourceType":"Bundle"},"备注":"合成数据"}'.encode()
TARGETS = [("Observation/1/_history/1", "ab" * 32)]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("the Go toolchain is not installed")
    program = tmp_path_factory.mktemp("gmsm") / "gmsm"
    built = subprocess.run(
        [go, "build", "-o", str(program), "."], cwd=SOURCE, capture_output=True, text=True, timeout=240, check=False
    )
    if built.returncode:
        pytest.skip(f"the Go module could not be built: {built.stderr.strip()[-200:]}")
    return program


def certificate(key: PrivateKey, profile: gm.Profile, name: str) -> gm.GmCertificate:
    return gm.issue(
        subject=gm.member_subject(name, ORG), public=key.public_key, profile=profile, issuer=gm_ca_name(CHAIN),
        issuer_key=CA, serial=int(key.public_key.key_id, 16), not_before=NOW, not_after=NOW + YEAR,
        uris=(gm.ORG_URI + ORG,),
    )  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    root = gm.issue(
        subject=gm_ca_name(CHAIN), public=CA.public_key, profile=gm.ROOT, issuer=gm_ca_name(CHAIN), issuer_key=CA,
        serial=1, not_before=NOW - 10, not_after=NOW + 10 * YEAR,
    )  # fmt: skip
    signer = certificate(SIGNER, gm.SIGNING, "发送医院")
    texts = {"root.pem": root, "signer.pem": signer, "recipient.pem": certificate(RECIPIENT, gm.ENCRYPTION, "接收医院")}
    for name, each in texts.items():
        (tmp_path / name).write_text(each.pem())
    (tmp_path / "recipient.key").write_text(RECIPIENT.to_bytes().hex())
    envelope = seal(CONTENT, chain=CHAIN, signing_key=SIGNER, recipient_key=RECIPIENT.public_key)
    (tmp_path / "envelope.der").write_bytes(envelope)
    (tmp_path / "content").write_bytes(CONTENT)
    provenance = signed_provenance(
        TARGETS, id="x", org=ORG, name="发送医院", chain=CHAIN, key=SIGNER, now=NOW + 5, certificates=(signer,)
    )
    signature = provenance["signature"][0]
    (tmp_path / "signed.der").write_bytes(base64.b64decode(signature["data"]))
    kind, when = signature["type"][0]["code"], signature["when"]
    (tmp_path / "statement").write_bytes(statement(TARGETS, kind=kind, when=when, who=f"org:{ORG}"))
    return tmp_path


def test_certificates_envelope_and_signature_are_read_by_gmsm(reader: Path, files: Path) -> None:
    done = subprocess.run([reader, files], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 5


@pytest.mark.parametrize("name", ["envelope.der", "content"])
def test_gmsm_refuses_what_was_altered(reader: Path, files: Path, name: str) -> None:
    altered = bytearray((files / name).read_bytes())
    altered[len(altered) // 2] ^= 1
    (files / name).write_bytes(altered)
    done = subprocess.run([reader, files], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
