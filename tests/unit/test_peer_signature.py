"""Signed requests between members: what is accepted, and every way in which one is not."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor.gm import PrivateKey
from bridge.peer_signature import (
    MAX_LIFETIME_SECONDS,
    PeerAuth,
    PeerSignatureError,
    live_key,
    sign_headers,
    signature_base,
    verify_request,
)

NOW = 1_790_000_000
URL = "https://node.example:8443/exchange/v1/requests?x=1"
BODY = b'{"a":1}'
ORG, OTHER, HERE = "12330000000000012G", "12330000000000013E", "12330000000000011J"
KEY, ENCRYPTION, STRANGER = (PrivateKey.generate() for _ in range(3))


def key_record(key: PrivateKey, use: str = "sign", since: int = 0, until: int | None = None) -> dict[str, Any]:
    public = key.public_key
    return {"id": public.key_id, "use": use, "public": public.to_bytes().hex(), "from": since, "until": until}


MEMBER = {"org": ORG, "status": "active", "keys": [key_record(KEY), key_record(ENCRYPTION, "encrypt")]}


class Nonces:
    def __init__(self) -> None:
        self.seen: set[str] = set()

    def remember(self, nonce: str, expires: int, now: int) -> bool:
        new = nonce not in self.seen
        self.seen.add(nonce)
        return new


def signed(key: PrivateKey = KEY, **more: Any) -> dict[str, str]:
    values: dict[str, Any] = {"org": ORG, "key": key, "audience": HERE, "now": NOW} | more
    return sign_headers(values.pop("method", "POST"), values.pop("url", URL), values.pop("body", BODY), **values)


def verify(headers: Any, member: Any = MEMBER, nonces: Any = None, **more: Any) -> str:
    values: dict[str, Any] = {"method": "POST", "url": URL, "body": BODY, "audience": HERE, "now": NOW} | more
    return verify_request(
        values.pop("method"),
        values.pop("url"),
        headers,
        values.pop("body"),
        member_lookup=lambda org: member if org == ORG else None,
        nonces=nonces or Nonces(),
        **values,
    )


def refused(*arguments: Any, **more: Any) -> str:
    with pytest.raises(PeerSignatureError) as caught:
        verify(*arguments, **more)
    assert BODY.decode() not in str(caught.value)
    return caught.value.code


def test_a_signed_request_is_accepted_once() -> None:
    nonces, headers = Nonces(), signed()
    assert verify(headers, nonces=nonces) == ORG
    assert refused(headers, nonces=nonces) == "replayed"


@pytest.mark.parametrize("now", [NOW - 29, NOW, NOW + MAX_LIFETIME_SECONDS + 29])
def test_clocks_may_differ_a_little(now: int) -> None:
    assert verify(signed(), now=now) == ORG


@pytest.mark.parametrize("now", [NOW - 31, NOW + MAX_LIFETIME_SECONDS + 31])
def test_a_stale_request_is_refused(now: int) -> None:
    assert refused(signed(), now=now) == "stale"


@pytest.mark.parametrize(
    ("headers", "more", "code"),
    [
        pytest.param({}, {}, "malformed", id="no signature"),
        pytest.param(signed(audience=OTHER), {}, "wrong-audience", id="meant for another"),
        pytest.param(signed(), {"audience": OTHER}, "wrong-audience", id="arrived at another"),
        pytest.param(signed(), {"body": BODY + b" "}, "altered-body", id="body altered"),
        pytest.param(signed(), {"body": b""}, "altered-body", id="body gone"),
        pytest.param(signed(), {"method": "PUT"}, "bad-signature", id="another method"),
        pytest.param(signed(), {"url": URL.replace("requests", "locate")}, "bad-signature", id="another path"),
        pytest.param(signed(), {"url": URL + "2"}, "bad-signature", id="another query"),
        pytest.param(signed(), {"url": URL.replace("node", "other")}, "bad-signature", id="another host"),
        pytest.param(signed(org=OTHER), {}, "unknown-member", id="no member"),
        pytest.param(signed(STRANGER), {}, "unknown-key", id="a key nobody knows"),
        pytest.param(signed(ENCRYPTION), {}, "unknown-key", id="an encryption key signs nothing"),
        pytest.param(signed(), {"member": {**MEMBER, "status": "suspended"}}, "suspended-member", id="suspended"),
        pytest.param(
            signed(), {"member": {**MEMBER, "keys": [key_record(KEY, until=NOW)]}}, "unknown-key", id="retired"
        ),
        pytest.param(
            signed(),
            {"member": {**MEMBER, "keys": [key_record(KEY, since=NOW + 60)]}},
            "unknown-key",
            id="not yet valid",
        ),
    ],
)
def test_refusals(headers: dict[str, str], more: dict[str, Any], code: str) -> None:
    member = more.pop("member", MEMBER)
    assert refused(headers, member, **more) == code


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda h: {**h, "Signature-Input": h["Signature-Input"] + ";x=1"}, id="a parameter more"),
        pytest.param(lambda h: {**h, "Signature-Input": h["Signature-Input"] + ", b=()"}, id="a second label"),
        pytest.param(
            lambda h: {**h, "Signature-Input": h["Signature-Input"].replace('"@path" ', "")}, id="path left out"
        ),
        pytest.param(lambda h: {**h, "Signature": h["Signature"].replace(":", "", 1)}, id="no byte sequence"),
        pytest.param(lambda h: {**h, "Content-Digest": "sha-256=:AAAA:"}, id="another digest"),
        pytest.param(lambda h: {**h, "Signature-Input": "x" * 5000}, id="too long"),
        pytest.param(lambda h: [*h.items(), ("signature", h["Signature"])], id="a field twice"),
    ],
)
def test_one_form_only(change: Any) -> None:
    assert refused(change(signed())) == "malformed"


def test_a_longer_life_time_is_refused_even_if_signed() -> None:
    headers = signed()
    params = headers["Signature-Input"].removeprefix("yiqiao=").replace(f"expires={NOW + 60}", f"expires={NOW + 61}")
    signature = KEY.sign(signature_base("POST", URL, headers["Content-Digest"], HERE, params))
    headers |= {
        "Signature-Input": f"yiqiao={params}",
        "Signature": f"yiqiao=:{base64.b64encode(signature).decode()}:",
    }
    assert refused(headers) == "stale"


def test_a_refused_request_does_not_use_up_its_nonce() -> None:
    nonces, headers = Nonces(), signed()
    assert refused(headers, nonces=nonces, body=b"other") == "altered-body"
    assert verify(headers, nonces=nonces) == ORG


@pytest.mark.parametrize(
    ("client", "server"),
    [
        pytest.param("http://h/a?k=member%2Fx&l=1", "http://h/a?k=member/x&l=1", id="query decoded by the server"),
        pytest.param("http://h/a%2Fb", "http://h/a/b", id="path decoded by the server"),
        pytest.param("http://H:80/a", "http://h/a", id="default port and case"),
        pytest.param("http://h", "http://h/", id="empty path"),
        pytest.param("http://h/a?k=%E4%B8%AD", "http://h/a?k=中", id="Chinese in the query"),
    ],
)
def test_percent_encoding_does_not_matter(client: str, server: str) -> None:
    assert verify(signed(url=client), url=server) == ORG


def test_an_encoded_separator_is_not_a_separator() -> None:
    assert refused(signed(url="http://h/a?k=1%26l=2"), url="http://h/a?k=1&l=2") == "bad-signature"


def test_requests_are_signed_as_they_are_sent() -> None:
    prepared = requests.Request("POST", URL, data=BODY).prepare()
    PeerAuth(org=ORG, key=KEY, audience=HERE, clock=lambda: NOW)(prepared)
    assert verify(prepared.headers, url=prepared.url) == ORG


def test_the_newest_live_key_is_used() -> None:
    newer = PrivateKey.generate()
    member = {"keys": [key_record(KEY, until=NOW + 9), key_record(newer, since=5)]}
    assert live_key(member, "sign", NOW).key_id == newer.public_key.key_id
    assert live_key(member, "encrypt", NOW) is None


def test_the_base_is_that_of_an_independent_implementation() -> None:
    http_sf = pytest.importorskip("http_sf", reason="http-message-signatures is not installed")
    headers = signed()
    parsed = http_sf.parse(headers["Signature-Input"].encode(), tltype="dictionary")
    components, params = parsed["yiqiao"]
    assert [name for name, _ in components] == [
        *("@method", "@authority", "@path", "@query", "content-digest", "x-yiqiao-audience")
    ]
    assert params["created"] == NOW
    assert params["expires"] == NOW + 60
    assert str(params["keyid"]) == f"{ORG}/{KEY.public_key.key_id}"
    base = signature_base("POST", URL, headers["Content-Digest"], HERE, headers["Signature-Input"][len("yiqiao=") :])
    assert base.decode().splitlines()[:4] == [
        '"@method": POST',
        '"@authority": node.example:8443',
        '"@path": /exchange/v1/requests',
        '"@query": ?x=1',
    ]


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from(["Signature-Input", "Signature", "Content-Digest", "X-Yiqiao-Audience"]), st.text(max_size=300)
    ),
    st.text(max_size=60),
)
def test_no_input_gets_past_or_breaks_it(headers: dict[str, str], url: str) -> None:
    with pytest.raises(PeerSignatureError):
        verify({**signed(), **headers, "Signature": "x"}, url="http://h/" + url)
