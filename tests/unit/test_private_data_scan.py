"""The scan for private data finds what is planted, in every form, and nothing where there is nothing."""

from __future__ import annotations

import base64
import secrets

import pytest

from anchor.gm import hmac_sm3
from tests.private_data_scan import DIGESTS, Found, forms, scan

SECRETS = ("110105194912310021", "赵测试甲乙", "71000.0625")
NOISE = secrets.token_bytes(4096)


@pytest.mark.parametrize("number", range(len(SECRETS)))
@pytest.mark.parametrize("form", sorted(forms(SECRETS[0])))
def test_a_planted_form_is_found(number: int, form: str) -> None:
    if form not in forms(SECRETS[number]):
        pytest.skip("too short to be told apart in this form")
    planted = NOISE + forms(SECRETS[number])[form] + NOISE
    assert Found("ledger", number, form) in scan({"log": NOISE, "ledger": planted}, SECRETS)


@pytest.mark.parametrize("before", [b"", b"a", b"ab"], ids=["0", "1", "2"])
@pytest.mark.parametrize("digest", [None, *DIGESTS])
def test_base64_of_something_longer(before: bytes, digest: str | None) -> None:
    value = SECRETS[0].encode() if digest is None else DIGESTS[digest](SECRETS[0].encode())
    for coded in (base64.b64encode, base64.urlsafe_b64encode):
        assert scan({"x": coded(before + value + b"tail")}, SECRETS[:1])


def test_nothing_is_found_where_nothing_is() -> None:
    keyed = hmac_sm3(b"k" * 32, SECRETS[0].encode())
    clean = {"noise": NOISE, "keyed": keyed.hex().encode(), "percent": b"/x?a=%41%20" + quoted(b"71000.06")}
    assert scan(clean, SECRETS) == []


def test_twice_escaped_addresses_are_found() -> None:
    once = forms(SECRETS[1])["url"]
    assert scan({"url": b"/fhir/Patient?name=" + once.replace(b"%", b"%25")}, SECRETS)


def quoted(data: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in data)
