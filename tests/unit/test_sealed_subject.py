"""A patient named to one holder alone: what opens, for whom, and what it looks like in a request."""

from __future__ import annotations

from pathlib import Path

import pytest

from anchor import canonical
from anchor.gm import PrivateKey
from bridge.errors import InvalidRequest
from bridge.keys.decryption import DecryptionKeys
from bridge.keys.store import KeyStore
from bridge.services import access_request
from bridge.services.sealed_subject import open_subject, seal_subject
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from tests.exchange_world import OTHER, PERSON, A, B, World, observation, patient

KEY = PrivateKey.generate()
IDENTIFIER = (ID_CARD_SYSTEM, PERSON)


@pytest.fixture
def keys(tmp_path: Path) -> DecryptionKeys:
    (tmp_path / "keys").mkdir(mode=0o700)
    return DecryptionKeys(KeyStore(tmp_path / "keys"), KEY)


def sealed(**value: str) -> str:
    return f"sealed.{KEY.public_key.key_id}.{KEY.public_key.encrypt(canonical.dump(value)).hex()}"


def test_it_opens_for_its_holder_alone(keys: DecryptionKeys) -> None:
    text = seal_subject(KEY.public_key, A, IDENTIFIER)
    assert open_subject(text, keys, A) == IDENTIFIER
    assert open_subject(text, keys, B) is None
    assert PERSON not in text
    assert PERSON.encode().hex() not in text
    assert text != seal_subject(KEY.public_key, A, IDENTIFIER)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("1." + "0" * 64, id="a pseudonym"),
        pytest.param(f"sealed.{'0' * 16}.{'00' * 150}", id="of another key"),
        pytest.param(f"sealed.{KEY.public_key.key_id}.{'00' * 150}", id="no ciphertext"),
        pytest.param(sealed(holder=A, system=ID_CARD_SYSTEM), id="a field is missing"),
        pytest.param(sealed(holder=A, system="urn:other", value="1234"), id="of a system nobody shares"),
        pytest.param(sealed(holder=A, system=ID_CARD_SYSTEM, value="110105194912310020"), id="wrong check digit"),
    ],
)
def test_what_is_none_opens_as_none(keys: DecryptionKeys, text: str) -> None:
    assert open_subject(text, keys, A) is None


def test_an_altered_one_does_not_open(keys: DecryptionKeys) -> None:
    text = seal_subject(KEY.public_key, A, IDENTIFIER)
    for place in range(30, len(text), 37):
        altered = text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]
        assert open_subject(altered, keys, A) is None


def test_what_has_no_pseudonym_is_not_sealed_either() -> None:
    with pytest.raises(InvalidRequest):
        seal_subject(KEY.public_key, A, ("urn:hospital:mrn", "1234"))


def test_a_request_may_carry_it() -> None:
    asked = access_request.build(
        chain="c", requester=B, key=KEY, holder=A, pid=seal_subject(KEY.public_key, A, IDENTIFIER), purpose="TREAT",
        now=1,
    )  # fmt: skip
    assert access_request.parse(asked.dump()).statement["pid"].startswith("sealed.")


@pytest.fixture
def world(tmp_path: Path) -> World:
    directory = tmp_path / "consortium"
    directory.mkdir()
    made = World(directory)
    made[A].store(patient(), observation("o1"))  # and never registered with the authority
    return made


def test_a_known_holder_is_asked_without_the_authority(world: World) -> None:
    try:
        world.grant()
        assert world.lookup().holders == ()
        (outcome,) = world.lookup(holder=A).holders
        assert outcome.status == "received"
        (stranger,) = world.lookup(holder=A, person=OTHER).holders
        world.grant(purposes=("HRESCH",))
        (refused,) = world.lookup(holder=A, purpose="CAREMGT").holders
        assert (stranger.code, stranger.message) == (refused.code, refused.message)
        for holder in ("12330000999999999X", B):
            with pytest.raises(InvalidRequest):
                world.lookup(holder=holder)
        assert PERSON.encode() not in world.ledger_bytes()
    finally:
        world.close()
