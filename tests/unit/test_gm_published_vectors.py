"""Wycheproof and Tongsuo vectors, run on every provider."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from anchor.errors import AnchorError, DecryptionError, KeyFormatError
from anchor.gm import PrivateKey, hmac_sm3, sm4_gcm_decrypt, sm4_gcm_encrypt
from anchor.gm.curve import SCALAR_BYTES
from anchor.gm.der import decode_signature
from anchor.gm.providers import PROVIDERS, TABLES
from tests.published_vectors import openssl_bytes, read_json, read_openssl_tests, vector_files

ALL = pytest.mark.parametrize("name", PROVIDERS)


def cases(path: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(group, case) for group in read_json(path)["testGroups"] for case in group["tests"]]


@ALL
@pytest.mark.parametrize("path", vector_files("wycheproof-sm4_gcm-part*.json"))
def test_wycheproof_sm4_gcm(path: Path, name: str) -> None:
    provider = PROVIDERS[name]
    for group, case in cases(path):
        key, nonce, aad, text = (bytes.fromhex(case[field]) for field in ("key", "iv", "aad", "msg"))
        sealed = bytes.fromhex(case["ct"] + case["tag"])
        if group["ivSize"] != 96:  # ours are 12 bytes, and nothing else is let through
            with pytest.raises(KeyFormatError):
                sm4_gcm_decrypt(key, nonce, sealed, aad)
        elif case["result"] == "valid":
            assert provider.sm4_gcm_encrypt(key, nonce, text, aad) == sealed, case["tcId"]
            assert provider.sm4_gcm_decrypt(key, nonce, sealed, aad) == text, case["tcId"]
            assert sm4_gcm_encrypt(key, nonce, text, aad) == sealed, case["tcId"]
        else:
            with pytest.raises(DecryptionError):
                provider.sm4_gcm_decrypt(key, nonce, sealed, aad)


@ALL
@pytest.mark.parametrize("path", vector_files("wycheproof-hmac_sm3-part*.json"))
def test_wycheproof_hmac_sm3(path: Path, name: str) -> None:
    for group, case in cases(path):
        key, message = bytes.fromhex(case["key"]), bytes.fromhex(case["msg"])
        tag = PROVIDERS[name].hmac_sm3(key, message)
        matches = tag[: group["tagSize"] // 8].hex() == case["tag"]
        assert matches == (case["result"] == "valid"), case["tcId"]
        assert hmac_sm3(key, message) == tag


@ALL
@pytest.mark.parametrize("path", vector_files("tongsuo-evpmac_sm3.txt"))
def test_hmac_sm3_of_gmt_0042(path: Path, name: str) -> None:
    stanzas = [stanza for stanza in read_openssl_tests(path) if stanza.get("Algorithm") == "SM3"]
    assert stanzas
    for stanza in stanzas:
        key, message = openssl_bytes(stanza["Key"]), openssl_bytes(stanza["Input"])
        assert PROVIDERS[name].hmac_sm3(key, message) == openssl_bytes(stanza["Output"])


def private_key_of(path: Path) -> PrivateKey:
    """Return the file's key: its PKCS#8 holds the scalar as an OCTET STRING of 32 bytes."""
    pem = re.search(r"-----BEGIN PRIVATE KEY-----(.*?)-----END", path.read_text(encoding="utf-8"), re.DOTALL)
    assert pem
    der = b64decode(pem[1])
    at = der.index(b"\x04\x20") + 2
    return PrivateKey.from_bytes(der[at : at + SCALAR_BYTES])


@pytest.mark.parametrize("path", vector_files("tongsuo-evppkey_sm2.txt"))
def test_sm2_signatures_over_a_digest(path: Path) -> None:
    public = private_key_of(path).public_key.to_bytes()
    stanzas = [s for s in read_openssl_tests(path) if "Verify" in s and "Result" not in s]
    assert len(stanzas) == 2
    for stanza in stanzas:
        r, s = decode_signature(openssl_bytes(stanza["Output"]))
        signature = r.to_bytes(SCALAR_BYTES, "big") + s.to_bytes(SCALAR_BYTES, "big")
        for verifier in (*PROVIDERS.values(), TABLES):
            assert verifier.verify_digest(public, openssl_bytes(stanza["Input"]), signature)


@ALL
@pytest.mark.parametrize("path", vector_files("tongsuo-evppkey_sm2.txt"))
def test_sm2_ciphertexts(path: Path, name: str) -> None:
    key = private_key_of(path)
    stanzas = [s for s in read_openssl_tests(path) if "Decrypt" in s and "Result" not in s]
    assert len(stanzas) == 4
    for stanza in stanzas:
        plaintext = PROVIDERS[name].decrypt(key.to_bytes(), openssl_bytes(stanza["Input"]))
        assert plaintext == openssl_bytes(stanza["Output"])
        with pytest.raises(AnchorError):
            key.decrypt(openssl_bytes(stanza["Input"])[:-1])
