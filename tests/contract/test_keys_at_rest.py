"""Keys at rest: wrapped, bound to their subject, destroyed for good; the blind index."""

from __future__ import annotations

import pytest

from bridge.errors import Conflict, KeyDestroyed, SealBroken, SettingsError
from bridge.storage.database import write_transaction
from bridge.storage.keyring import NODE, KeyRing, kek_id
from tests.stores import INDEX_KEY, KEK, Stores


def test_sealed_content_opens_in_its_place_only(stores: Stores) -> None:
    with write_transaction(stores.engine) as connection:
        sealed = stores.keyring.seal(connection, "Patient/1", b"content", b"here")
        assert b"content" not in sealed
        assert stores.keyring.seal(connection, "Patient/1", b"content", b"here") != sealed
        assert stores.keyring.open(connection, "Patient/1", sealed, b"here") == b"content"
        stores.keyring.data_key(connection, "Patient/2")
        for subject, aad, altered in (
            ("Patient/1", b"there", sealed),
            ("Patient/2", b"here", sealed),
            ("Patient/3", b"here", sealed),
            ("Patient/1", b"here", sealed[:-1]),
            ("Patient/1", b"here", b"\x02" + sealed[1:]),
            ("Patient/1", b"here", sealed[:5]),
            ("Patient/1", b"here", b""),
        ):
            with pytest.raises(SealBroken):
                stores.keyring.open(connection, subject, altered, aad)


def test_keys_are_made_once_and_lie_wrapped(stores: Stores) -> None:
    with write_transaction(stores.engine) as connection:
        key = stores.keyring.data_key(connection, "Patient/1")
    other = KeyRing(stores.engine, KEK, INDEX_KEY)
    with write_transaction(stores.engine) as connection:
        assert other.data_key(connection, "Patient/1") == key
        assert other.data_keys(connection, ["Patient/1", "Patient/2"])["Patient/2"] != key
    assert key.key not in stores.scalar("SELECT wrapped FROM subject_key WHERE subject = 'Patient/1'")
    assert key.key.hex() not in repr(key) + repr(other)


def test_a_wrapped_key_moved_to_another_subject_does_not_open(stores: Stores) -> None:
    with write_transaction(stores.engine) as connection:
        stores.keyring.data_key(connection, "Patient/1")
    stores.run("UPDATE subject_key SET subject = 'Patient/2'")
    with pytest.raises(SealBroken), write_transaction(stores.engine) as connection:
        stores.keyring.data_key(connection, "Patient/2")


def test_another_kek_opens_nothing(stores: Stores) -> None:
    stores.keyring.node_key()
    with pytest.raises(SealBroken):
        KeyRing(stores.engine, b"\xff" * 16, INDEX_KEY).node_key()


def test_a_destroyed_key_does_not_come_back(stores: Stores) -> None:
    with write_transaction(stores.engine) as connection:
        sealed = stores.keyring.seal(connection, "Patient/1", b"content", b"")
        assert stores.keyring.destroy(connection, "Patient/1")
        assert not stores.keyring.destroy(connection, "nobody")
        for work in (
            lambda: stores.keyring.open(connection, "Patient/1", sealed, b""),
            lambda: stores.keyring.seal(connection, "Patient/1", b"more", b""),
        ):
            with pytest.raises(KeyDestroyed):
                work()
    assert stores.scalar("SELECT wrapped FROM subject_key") is None


def test_the_nodes_own_key_cannot_be_destroyed(stores: Stores) -> None:
    with pytest.raises(Conflict), write_transaction(stores.engine) as connection:
        stores.keyring.destroy(connection, NODE)


def test_blind_values_depend_on_field_value_and_key(stores: Stores) -> None:
    blind = stores.keyring.blind
    assert blind("a", "x") == blind("a", "x") == blind("a", b"x")
    values = {blind("a", "x"), blind("b", "x"), blind("a", "y"), blind("ax", ""), blind("a", "x" * 500)}
    assert len(values) == 5
    assert {len(value) for value in values} == {32}
    assert KeyRing(stores.engine, KEK, b"\x01" * 32).blind("a", "x") != blind("a", "x")


@pytest.mark.parametrize(("kek", "index"), [(b"", INDEX_KEY), (b"x" * 15, INDEX_KEY), (KEK, b""), (KEK, b"x" * 16)])
def test_short_keys_are_refused(stores: Stores, kek: bytes, index: bytes) -> None:
    with pytest.raises(SettingsError):
        KeyRing(stores.engine, kek, index)


def _replaceable(stores: Stores) -> tuple[list[bytes], KeyRing]:
    keks = [KEK]
    return keks, KeyRing(stores.engine, KEK, INDEX_KEY, keks=lambda: tuple(keks))


def test_a_new_kek_wraps_everything_anew_and_nothing_is_lost(stores: Stores) -> None:
    keks, ring = _replaceable(stores)
    _, working = keks, KeyRing(stores.engine, KEK, INDEX_KEY, keks=lambda: tuple(keks))  # another process
    subjects = [f"Patient/{number}" for number in range(1203)]
    with write_transaction(stores.engine) as connection:
        before = ring.data_keys(connection, subjects)
        working.data_key(connection, "Patient/7")
        ring.destroy(connection, "Patient/3")
    new = b"\x22" * 16
    keks.insert(0, new)
    ring.use(new)
    with write_transaction(stores.engine) as connection:  # made after the change, by a process that has not heard of it
        made = working.data_key(connection, "Patient/new")
    steps: list[tuple[int, int]] = []
    assert ring.rewrap(lambda done, total: steps.append((done, total))) == 1202
    assert steps[-1] == (1202, 1202)
    assert ring.wrapped_keys() == {kek_id(new): 1203}
    assert ring.current_kek() == kek_id(new)
    only_new = KeyRing(stores.engine, new, INDEX_KEY)
    with write_transaction(stores.engine) as connection:
        assert only_new.data_key(connection, "Patient/new") == made
        del before["Patient/3"]
        assert only_new.data_keys(connection, before) == before
        assert working.data_keys(connection, before) == before
        with pytest.raises(KeyDestroyed):
            only_new.data_key(connection, "Patient/3")
    assert ring.rewrap() == 0


def test_a_rotation_cut_short_goes_on(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.storage.keyring.REWRAP_ROWS", 3)
    keks, ring = _replaceable(stores)
    with write_transaction(stores.engine) as connection:
        before = ring.data_keys(connection, [f"Patient/{number}" for number in range(10)])
    keks.insert(0, b"\x22" * 16)
    ring.use(keks[0])

    def stop(done: int, _: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ring.rewrap(stop)
    assert sorted(ring.wrapped_keys().values()) == [4, 6]
    with write_transaction(stores.engine) as connection:
        assert KeyRing(stores.engine, keks[0], INDEX_KEY, keks=lambda: keks).data_keys(connection, before) == before
    assert ring.rewrap() == 4


def test_a_kek_that_is_not_at_hand_is_named_as_missing(stores: Stores) -> None:
    keks, ring = _replaceable(stores)
    with pytest.raises(SettingsError):
        ring.use(b"\x22" * 16)
    keks.insert(0, b"\x22" * 16)
    ring.use(keks[0])
    with pytest.raises(SettingsError, match="missing"), write_transaction(stores.engine) as connection:
        KeyRing(stores.engine, KEK, INDEX_KEY).data_key(connection, "Patient/1")
