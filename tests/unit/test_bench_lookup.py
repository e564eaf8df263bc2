"""What the benchmark of lookups rests on: how time is divided, what cryptography is recorded, who is looked up."""

from pathlib import Path

import pytest
import requests

import anchor.merkle
from anchor import gm
from anchor.gm import PrivateKey, PublicKey
from benchmarks.bench_lookup import Timed
from benchmarks.exchange_site import PEOPLE_OF_A_DAY, identity_number, report_of
from benchmarks.lookup_spans import OWN, divide, recording
from bridge.storage.database import open_database, read_transaction, write_transaction
from fhir_adapters import convert
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from fhir_adapters.identifiers.gb11643 import check_resident_id


@pytest.mark.parametrize(
    ("spans", "shares"),
    [
        pytest.param([], {OWN: 10.0}, id="nothing recorded"),
        pytest.param([(2.0, 5.0, "a")], {"a": 3.0, OWN: 7.0}, id="one"),
        pytest.param([(2.0, 8.0, "a"), (3.0, 4.0, "b")], {"a": 5.0, "b": 1.0, OWN: 4.0}, id="what is inside counts"),
        pytest.param([(3.0, 4.0, "b"), (2.0, 8.0, "a")], {"a": 5.0, "b": 1.0, OWN: 4.0}, id="noted when it ended"),
        pytest.param([(1.0, 3.0, "a"), (2.0, 5.0, "b")], {"a": 1.0, "b": 3.0, OWN: 6.0}, id="another thread goes on"),
        pytest.param([(-5.0, 1.0, "a"), (9.0, 20.0, "a")], {"a": 2.0, OWN: 8.0}, id="cut at the ends"),
    ],
)
def test_each_instant_belongs_to_the_span_that_began_last(
    spans: list[tuple[float, float, str]], shares: dict[str, float]
) -> None:
    assert divide(spans, 0.0, 10.0) == shares


def test_cryptography_is_counted_once_and_nothing_stays_wrapped() -> None:
    before = (PrivateKey.sign, PublicKey.verify, anchor.merkle.sm3, requests.Session.send)
    key = PrivateKey.generate()
    with recording() as made:
        key.public_key.verify(b"text", key.sign(b"text"))
        sealed = gm.sm4_gcm_encrypt(b"k" * 16, b"n" * 12, b"text")
        assert gm.sm4_gcm_decrypt(b"k" * 16, b"n" * 12, sealed) == b"text"
        assert key.decrypt(key.public_key.encrypt(b"text")) == b"text"
        anchor.merkle.leaf_hash(b"text")
    assert before == (PrivateKey.sign, PublicKey.verify, anchor.merkle.sm3, requests.Session.send)
    counted = len(made.calls)
    anchor.merkle.leaf_hash(b"text")
    made.replay()
    assert len(made.calls) == counted == len(made.spans)
    assert made.counts() == {
        "SM2 sign": 1, "SM2 verify": 1, "SM2 encrypt": 1, "SM2 decrypt": 1, "SM4-GCM encrypt": 1,
        "SM4-GCM decrypt": 1, "SM3": 1, "HMAC-SM3": 0,
    }  # fmt: skip


@pytest.mark.parametrize("number", [1, 2, PEOPLE_OF_A_DAY - 1, PEOPLE_OF_A_DAY, 5_000])
def test_patients_differ_and_their_numbers_are_valid(number: int) -> None:
    person = identity_number(number)
    assert check_resident_id(person).problem == ""
    resources = [entry["resource"] for entry in convert(report_of(number)).bundle["entry"]]
    [patient] = [each for each in resources if each["resourceType"] == "Patient"]
    assert (ID_CARD_SYSTEM, person) in {(each["system"], each["value"]) for each in patient["identifier"]}
    assert person not in {identity_number(other) for other in range(1, 5_001) if other != number}


def test_requests_and_transactions_that_write_are_counted(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'node.sqlite3'}")
    before = requests.Session.send
    with recording() as made, requests.Session() as session:
        for _ in range(2):
            with write_transaction(engine) as connection:
                connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS t (a)")
        with read_transaction(engine) as connection:
            connection.exec_driver_sql("SELECT 1")
        with pytest.raises(requests.ConnectionError):
            session.get("http://127.0.0.1:9/")
    assert (made.requests, made.commits, requests.Session.send) == (1, 2, before)
    with write_transaction(engine):
        pass
    engine.dispose()
    assert made.commits == 2


def test_percentiles_are_of_single_lookups() -> None:
    assert Timed([0.1], [10.0]).milliseconds() == {"p50": 100.0, "p95": 100.0}
    many = Timed([each / 1000 for each in range(1, 102)], [1.0, 3.0, 2.0])
    assert many.milliseconds() == pytest.approx({"p50": 51.0, "p95": 96.0})
    assert (many.rate().median, many.rate().low, many.rate().high) == (2.0, 1.0, 3.0)
