"""Key files: plain, under a passphrase, under a hardware key; changed, altered, lost half-way."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchor.gm import PrivateKey
from bridge.errors import Conflict, SettingsError
from bridge.keys import provider as provider_module
from bridge.keys.decryption import DecryptionKeys
from bridge.keys.pkcs11_provider import Pkcs11Provider
from bridge.keys.provider import KeyAccess, PassphraseProvider
from bridge.keys.store import PROTECTION_FILE, KeyStore

PASSPHRASE, OTHER = "correct horse battery", "另一个足够长的口令口令口令"
SOFTHSM = next(
    (path for path in ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
                       "/usr/lib64/pkcs11/libsofthsm2.so") if Path(path).exists()),
    "",
)  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "SCRYPT", {"n": 2**4, "r": 8, "p": 1})
    monkeypatch.setattr(provider_module, "PBKDF2_ITERATIONS", 10)


def passphrase_file(directory: Path, text: str) -> Path:
    file = directory / f"passphrase-{secrets.token_hex(2)}"
    file.write_text(text + "\n", "utf-8")
    file.chmod(0o600)
    return file


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    store = KeyStore(directory, KeyAccess(passphrase_file=passphrase_file(tmp_path, PASSPHRASE)))
    for name in ("kek.key", "sign.key", "sign.key.0011223344556677"):
        store.write(name, secrets.token_bytes(16))
    return store


def contents(store: KeyStore) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.names()}


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2-sm3"])
def test_protected_files_hold_no_key_and_open_with_the_passphrase_only(
    store: KeyStore, tmp_path: Path, kdf: provider_module.Kdf
) -> None:
    before = contents(store)
    assert store.protect(PassphraseProvider(PASSPHRASE, kdf)) == 3
    assert store.provider == "passphrase"
    on_disk = b"".join(file.read_bytes() for file in store.directory.iterdir())
    assert not any(key in on_disk or key.hex().encode() in on_disk for key in before.values())
    assert contents(KeyStore(store.directory, store.access)) == before

    wrong = KeyStore(store.directory, KeyAccess(passphrase_file=passphrase_file(tmp_path, OTHER)))
    with pytest.raises(SettingsError, match="passphrase does not open"):
        wrong.read("kek.key")
    with pytest.raises(SettingsError, match="passphrase_file"):
        KeyStore(store.directory).read("kek.key")


def test_a_changed_passphrase_rewrites_one_file(store: KeyStore, tmp_path: Path) -> None:
    before = contents(store)
    store.protect(PassphraseProvider(PASSPHRASE))
    kek = (store.directory / "kek.key").read_bytes()
    assert store.protect(PassphraseProvider(OTHER)) == 1
    assert (store.directory / "kek.key").read_bytes() == kek
    changed = KeyStore(store.directory, KeyAccess(passphrase_file=passphrase_file(tmp_path, OTHER)))
    assert contents(changed) == before
    with pytest.raises(SettingsError):
        KeyStore(store.directory, store.access).read("kek.key")


def test_protection_can_be_taken_off_again(store: KeyStore) -> None:
    before = contents(store)
    store.protect(PassphraseProvider(PASSPHRASE))
    assert store.protect(None) == 3
    assert store.provider == "file"
    assert not (store.directory / PROTECTION_FILE).exists()
    assert contents(KeyStore(store.directory)) == before


@pytest.mark.parametrize("to", ["passphrase", "file"])
def test_an_interrupted_change_of_protection_is_finished(
    store: KeyStore, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(store)
    if to == "file":
        store.protect(PassphraseProvider(PASSPHRASE))
    replace, calls = Path.replace, []

    def dying(self: Path, target: Path) -> Path:
        if ".protect-ready" in str(self):
            calls.append(self)
            if len(calls) == 2:
                raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            store.protect(None if to == "file" else PassphraseProvider(PASSPHRASE))
    again = KeyStore(store.directory, store.access)
    again.finish()
    assert again.provider == to
    assert contents(again) == before


def test_files_are_bound_to_their_names(store: KeyStore) -> None:
    store.protect(PassphraseProvider(PASSPHRASE))
    (store.directory / "sign.key").replace(store.directory / "kek.key")
    with pytest.raises(SettingsError, match="does not open"):
        store.read("kek.key")


def test_a_plain_file_among_protected_ones_is_refused(store: KeyStore) -> None:
    store.protect(PassphraseProvider(PASSPHRASE))
    (store.directory / "kek.key").write_bytes(bytes(16))
    with pytest.raises(SettingsError, match="not protected as the other keys"):
        store.read("kek.key")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"v":2}', id="another version"),
        pytest.param(b'{"v":1,"provider":"x"}', id="another provider"),
        pytest.param(b'{"v":1,"provider":"passphrase"}', id="fields missing"),
        pytest.param(
            json.dumps({"v": 1, "provider": "passphrase", "nonce": "00", "sealed": "00",
                        "kdf": {"name": "scrypt", "salt": "00", "n": 2**40, "r": 8, "p": 1}}).encode(),
            id="a derivation that would never end",
        ),
        pytest.param(
            json.dumps({"v": 1, "provider": "passphrase", "nonce": "00", "sealed": "00",
                        "kdf": {"name": "md5", "salt": "00", "iterations": 1}}).encode(),
            id="another derivation",
        ),
    ],
)  # fmt: skip
def test_a_protection_file_that_is_not_ours_opens_nothing(store: KeyStore, content: bytes) -> None:
    (store.directory / PROTECTION_FILE).write_bytes(content)
    with pytest.raises(SettingsError):
        store.read("kek.key")


def test_short_passphrases_and_open_files_are_refused(store: KeyStore, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="12 characters"):
        PassphraseProvider("short")
    file = passphrase_file(tmp_path, PASSPHRASE)
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="other users"):
        provider_module.provider_for("passphrase", KeyAccess(passphrase_file=file))
    (store.directory / "kek.key").chmod(0o640)
    with pytest.raises(SettingsError, match="other users"):
        store.read("kek.key")


def test_promotion_keeps_the_old_key_and_only_retired_ones_are_forgotten(store: KeyStore) -> None:
    old = store.read("kek.key")
    store.write("kek.key.new", b"n" * 16)
    store.promote("kek.key", "aa")
    assert store.read("kek.key") == b"n" * 16
    assert store.retired("kek.key") == ["kek.key.aa"]
    assert store.read("kek.key.aa") == old
    with pytest.raises(Conflict):
        store.forget("kek.key")
    store.forget("kek.key.aa")
    assert store.retired("kek.key") == []


def test_releases_for_a_replaced_key_still_open(store: KeyStore) -> None:
    old, new, stranger = (PrivateKey.generate() for _ in range(3))
    store.write("encrypt.key", old.to_bytes())
    keys = DecryptionKeys(store, old)
    store.write("encrypt.key.new", new.to_bytes())
    store.promote("encrypt.key", old.public_key.key_id)
    for key in (old, new):
        found = keys.find(key.public_key.key_id)
        assert found is not None
        assert found.to_bytes() == key.to_bytes()
    fresh = DecryptionKeys(store, new)
    assert fresh.find(old.public_key.key_id) is not None
    assert fresh.find(stranger.public_key.key_id) is None


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyAccess]:
    pytest.importorskip("pkcs11", reason="the extra hsm is not installed")
    if not SOFTHSM:
        if os.environ.get("YIQIAO_REQUIRE_SERVICES"):
            pytest.fail("softhsm2 is not installed")
        pytest.skip("softhsm2 is not installed")
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    config = tmp_path / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(config))
    command = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "yiqiao",
        "--pin",
        "123456",
        "--so-pin",
        "87654321",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return KeyAccess(None, SOFTHSM, "yiqiao", "node-kek", passphrase_file(tmp_path, "123456"))


@pytest.mark.service
def test_keys_under_a_hardware_key(store: KeyStore, token: KeyAccess) -> None:
    """SoftHSM in a process of its own per test: the module keeps its configuration once loaded."""
    before = contents(store)
    script = f"""
import sys
from pathlib import Path
from bridge.keys.pkcs11_provider import Pkcs11Provider
from bridge.keys.provider import KeyAccess
from bridge.keys.store import KeyStore
from bridge.errors import SettingsError
access = KeyAccess(None, {token.pkcs11_module!r}, "yiqiao", "node-kek", Path({str(token.pin_file)!r}))
store = KeyStore(Path({str(store.directory)!r}), access)
provider = Pkcs11Provider(access.pkcs11_module, "yiqiao", "node-kek", "123456")
try:
    provider.seal(bytes(16))
    sys.exit("sealed without a key")
except SettingsError as error:
    assert "no key labelled" in str(error)
assert provider.create_key() and not provider.create_key()
assert store.protect(provider) == 3 and store.provider == "pkcs11"
print({{name: KeyStore(store.directory, access).read(name).hex() for name in store.names()}})
for wrong in (Pkcs11Provider(access.pkcs11_module, "yiqiao", "node-kek", "999999"),
              Pkcs11Provider(access.pkcs11_module, "nowhere", "node-kek", "123456"),
              Pkcs11Provider("/nowhere.so", "yiqiao", "node-kek", "123456")):
    try:
        wrong.seal(bytes(16))
        sys.exit("sealed")
    except SettingsError as error:
        assert "999999" not in str(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == {name: key.hex() for name, key in before.items()}
    stored = json.loads((store.directory / PROTECTION_FILE).read_text())
    assert stored["mechanism"] == "AES_GCM"


def test_hardware_settings_must_be_complete() -> None:
    with pytest.raises(SettingsError, match="pkcs11_module"):
        provider_module.provider_for("pkcs11", KeyAccess())
    with pytest.raises(SettingsError, match="no key provider"):
        provider_module.provider_for("other", KeyAccess())
    assert Pkcs11Provider.name == "pkcs11"
