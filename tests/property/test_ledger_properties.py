"""Random streams of transactions: what is refused changes nothing, and the hashes follow from the content alone."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from anchor import canonical, checkpoint, genesis, transaction
from anchor.canonical import Lexeme
from anchor.chain import remote_wire
from anchor.errors import AnchorError, FormatError, TransactionRejected, VerificationError
from anchor.ledger import RULES, Ledger, app_hash
from anchor.merkle import leaf_hash, root_from_leaves
from anchor.signature_cache import SignatureCache
from anchor.state_tree import EMPTY_ROOT, MemoryBuckets, StateTree, verify_state_proof
from anchor.transaction import Code, encode
from tests.ledger_consortium import (
    AUTHORITY,
    DAY,
    HOSPITAL_A,
    HOSPITAL_B,
    OBSERVER,
    PAYER,
    START,
    STRANGER,
    InstitutionLog,
    Sender,
    admit,
    digest,
    emergency_body,
    genesis_bytes,
    grant_body,
    ident,
    propose,
    release_body,
    request_body,
)

members = st.sampled_from([AUTHORITY, HOSPITAL_A, HOSPITAL_B, OBSERVER, PAYER, STRANGER])
ids = st.integers(1, 3)


class LedgerMachine(RuleBasedStateMachine):
    """Members do whatever they like, in any order; the ledger stays consistent."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = Sender()
        self.leaves: list[bytes] = []
        self.blocks: list[tuple[list[bytes], int]] = []
        self.logs = {org: InstitutionLog(org) for org in (HOSPITAL_A, HOSPITAL_B, AUTHORITY)}
        self.numbers = dict.fromkeys(self.logs, (0, 0))

    def send(self, who: str, type: str, body: dict[str, Any]) -> bool:
        ledger = self.sender.ledger
        envelope = self.sender.envelope(who, type, body)
        hash_before = ledger.app_hash
        block = ledger.apply_block([envelope], self.sender.time)
        (result,) = block.results
        if result.ok:
            assert block.changes[f"seq/{who}"]["seq"] == json.loads(envelope)["tx"]["seq"]
            self.leaves.append(leaf_hash(block.accepted[0].entry))
        else:
            assert (block.app_hash, dict(block.changes)) == (hash_before, {})
            assert result.code in vars(Code).values()
        ledger.commit(block)
        self.blocks.append(([envelope], self.sender.time))
        return result.ok

    @rule(seconds=st.integers(0, 20 * DAY))
    def wait(self, seconds: int) -> None:
        self.sender.time += seconds

    @rule(who=members, number=ids, grantee=members, purpose=st.sampled_from(["TREAT", "HPAYMT"]))
    def grant(self, who: str, number: int, grantee: str, purpose: str) -> None:
        until = self.sender.time + 30 * DAY
        self.send(who, "consent.grant", grant_body(number, grantees=[grantee], purposes=[purpose], until=until))

    @rule(who=members, number=ids)
    def revoke(self, who: str, number: int) -> None:
        self.send(who, "consent.revoke", {"grant": ident(number)})

    @rule(who=members, number=ids, until=st.integers(0, 60 * DAY))
    def amend(self, who: str, number: int, until: int) -> None:
        self.send(who, "consent.amend", {"grant": ident(number), "until": START + until})

    @rule(who=members, holder=members, number=ids, is_emergency=st.booleans())
    def request(self, who: str, holder: str, number: int, is_emergency: bool) -> None:
        if is_emergency:
            self.send(who, "access.emergency", emergency_body(number, holder=holder))
        else:
            self.send(who, "access.request", request_body(number, holder=holder))

    @rule(who=members, number=ids, grant=ids | st.none(), release=st.booleans())
    def answer(self, who: str, number: int, grant: int | None, release: bool) -> None:
        basis = None if grant is None else ident(grant)
        if not release:
            self.send(who, "access.permit", {"request": ident(number), "grant": basis})
            return
        before = self.sender.ledger.get(f"request/{ident(number)}")
        if self.send(who, "access.release", release_body(number, grant=basis)):
            assert before is not None
            assert before["release"] is None
            assert who == before["holder"]
            if before["kind"] != "emergency" or basis is not None:
                value = self.sender.ledger.get(f"grant/{basis}")
                assert value is not None
                assert value["status"] == "active"
                assert value["from"] <= self.sender.time < value["until"]
                assert before["requester"] in value["grantees"]
                assert before["purpose"] in value["purposes"]

    @rule(who=members, number=ids)
    def receive(self, who: str, number: int) -> None:
        body = {"request": ident(number), "disclosed": digest(100 + number), "status": "verified"}
        self.send(who, "access.receive", body)

    @rule(who=members, org=members, kind=st.sampled_from(["suspend", "reinstate"]), number=st.integers(1, 99))
    def govern(self, who: str, org: str, kind: str, number: int) -> None:
        self.send(who, "membership.propose", propose({"kind": kind, "org": org}, number))

    @rule(who=members, number=st.integers(1, 99))
    def welcome(self, who: str, number: int) -> None:
        self.send(who, "membership.propose", admit(STRANGER, number))

    @rule(org=st.sampled_from([HOSPITAL_A, HOSPITAL_B, AUTHORITY]), growth=st.integers(0, 4), honest=st.booleans())
    def publish(self, org: str, growth: int, honest: bool) -> None:
        log, (number, size) = self.logs[org], self.numbers[org]
        log.grow(growth)
        changes = {} if honest else {"proof": [digest(1)]}
        if self.send(org, "checkpoint.publish", log.body(number + 1, size, **changes)):
            assert growth or len(log.leaves) > size
            assert honest
            self.numbers[org] = (number + 1, len(log.leaves))

    @invariant()
    def the_app_hash_follows_from_the_content(self) -> None:
        ledger = self.sender.ledger
        tree = StateTree(MemoryBuckets())
        values = {key: encode(value) for key, value in ledger._state.values.items()}  # type: ignore[attr-defined]
        assert tree.update(values).root == ledger.tree.root
        assert ledger.app_hash == app_hash(ledger.tree.root, root_from_leaves(self.leaves))

    def teardown(self) -> None:
        """Replay everything in one go, with a cold and with a small cache: the same hash comes out."""
        for cache in (SignatureCache(), SignatureCache(max_verdicts=1)):
            ledger = Ledger.in_memory(genesis.parse(genesis_bytes()), signatures=cache)
            for envelopes, time in self.blocks:
                ledger.commit(ledger.apply_block(envelopes, time))
            assert ledger.app_hash == self.sender.ledger.app_hash


LedgerMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedgerMachine = LedgerMachine.TestCase


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
@settings(max_examples=100, deadline=None)
def test_the_fast_encoder_gives_canonical_json(value: Any) -> None:
    content = encode(value)
    assert content == canonical.dump(value)
    assert canonical.canonicalize(content) == content


def only_rejects(envelope: bytes) -> None:
    """Parse bytes: they are refused as such, or they are the one encoding of what is in them."""
    code = Code.OK
    try:
        tx = transaction.parse(envelope)
    except TransactionRejected as refusal:
        code = refusal.code
    else:
        assert encode(json.loads(envelope)) == envelope
        assert tx.signed_bytes in envelope
    assert code in (Code.OK, Code.BAD_ENCODING)


@given(st.binary(max_size=600))
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_read_or_rejected(content: bytes) -> None:
    only_rejects(content)


UNCHANGED = Sender()
GOOD = Sender().envelope(HOSPITAL_A, "consent.grant", grant_body())


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_any_flipped_bit_of_an_envelope_is_refused(place: int, bit: int) -> None:
    altered = bytearray(GOOD)
    altered[place] ^= 1 << bit
    only_rejects(bytes(altered))
    (result,) = UNCHANGED.ledger.apply_block([bytes(altered)], START).results
    assert result.code != Code.OK


@given(json_values)
@settings(max_examples=80, deadline=None)
def test_any_json_as_an_envelope_is_read_or_rejected(value: Any) -> None:
    only_rejects(encode(value))
    only_rejects(encode({"sig": "0" * 128, "tx": value}))


@given(st.sampled_from(sorted(RULES)), st.dictionaries(st.text(max_size=9), json_values))
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_body_is_answered_with_a_code(type: str, body: dict[str, Any]) -> None:
    for who in (AUTHORITY, HOSPITAL_A):
        (result,) = UNCHANGED.ledger.apply_block([UNCHANGED.envelope(who, type, body)], START).results
        assert result.code in {Code.BAD_BODY, Code.NOT_AUTHORISED}


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_body_with_one_field_replaced_never_breaks_a_rule(data: st.DataObject) -> None:
    bodies = {
        "consent.grant": grant_body(),
        "access.request": request_body(),
        "access.emergency": emergency_body(),
        "access.release": release_body(),
        "checkpoint.publish": {"note": "x", "number": 1, "proof": []},
        "membership.propose": admit(STRANGER),
    }
    type = data.draw(st.sampled_from(sorted(bodies)))
    body = json.loads(encode(bodies[type]))
    target = body
    while True:
        name = data.draw(st.sampled_from(sorted(target)))
        if isinstance(target[name], dict) and data.draw(st.booleans()):
            target = target[name]
            continue
        target[name] = data.draw(json_values)
        break
    who = AUTHORITY if type == "membership.propose" else HOSPITAL_B
    block = UNCHANGED.ledger.apply_block([UNCHANGED.envelope(who, type, body)], START)
    assert block.results[0].code in vars(Code).values()
    assert block.results[0].ok or block.app_hash == UNCHANGED.ledger.app_hash


keys = st.text(alphabet="abc/0", min_size=1, max_size=4)


@given(st.lists(st.tuples(keys, st.integers(0, 5)), max_size=40), st.integers(1, 7), keys)
@settings(max_examples=100, deadline=None)
def test_the_state_root_does_not_depend_on_the_way_there(writes: list[tuple[str, int]], batch: int, asked: str) -> None:
    store = MemoryBuckets()
    tree = StateTree(store)
    for start in range(0, len(writes), batch):
        update = tree.update({key: encode({"n": n}) for key, n in writes[start : start + batch]})
        store.write(update.buckets)
        tree.commit(update)
    final = dict(writes)
    at_once = StateTree(MemoryBuckets()).update({key: encode({"n": n}) for key, n in final.items()})
    assert tree.root == (at_once.root if final else EMPTY_ROOT)
    loaded = StateTree(store)
    loaded.load(store.items())
    assert loaded.root == tree.root
    value = {"n": final[asked]} if asked in final else None
    proof = tree.prove(asked)
    verify_state_proof(key=asked, value=value, root=tree.root, proof=proof)
    for other in ({"n": 6}, None if value is not None else {"n": 0}):
        with pytest.raises(VerificationError):
            verify_state_proof(key=asked, value=other, root=tree.root, proof=proof)
    if value is not None:
        with pytest.raises(VerificationError):
            verify_state_proof(key=asked + "x", value=value, root=tree.root, proof=proof)


PROVEN = Sender()
PROOF = PROVEN.ledger.tree.prove(f"member/{HOSPITAL_A}")


@given(st.integers(0, len(PROOF) - 1), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_any_altered_state_proof_is_refused(place: int, change: int) -> None:
    altered = bytearray(PROOF)
    altered[place] ^= change
    key = f"member/{HOSPITAL_A}"
    with pytest.raises((VerificationError, FormatError)):
        verify_state_proof(key=key, value=PROVEN.ledger.get(key), root=PROVEN.ledger.tree.root, proof=bytes(altered))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"n": Lexeme("1.5")}, id="fraction"),
        pytest.param({"n": Lexeme("1" * 30)}, id="huge-integer"),
        pytest.param({"n": 2**64}, id="beyond-64-bits"),
        pytest.param({"n": "\ud800"}, id="half-a-surrogate-pair"),
    ],
)
def test_a_value_the_state_cannot_hold_is_no_proven_value(value: dict[str, Any]) -> None:
    key = f"member/{HOSPITAL_A}"
    with pytest.raises(VerificationError):
        verify_state_proof(key=key, value=value, root=PROVEN.ledger.tree.root, proof=PROOF)
    with pytest.raises(VerificationError):
        verify_state_proof(key="\ud800", value=None, root=PROVEN.ledger.tree.root, proof=PROOF)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b'"v":1', b'"v":true', id="boolean-version"),
        pytest.param(b'"v":1', b'"v":1.0', id="fraction-version"),
        pytest.param(PROOF[30:90], PROOF[30:90].upper(), id="upper-case"),
        pytest.param(b'["', b'[" ', id="space-in-a-hash"),
        pytest.param(b',"v"', b', "v"', id="space-outside"),
    ],
)
def test_a_state_proof_has_one_encoding(old: bytes, new: bytes) -> None:
    key = f"member/{HOSPITAL_A}"
    changed = PROOF.replace(old, new)
    assert changed != PROOF
    with pytest.raises(FormatError):
        verify_state_proof(key=key, value=PROVEN.ledger.get(key), root=PROVEN.ledger.tree.root, proof=changed)


@pytest.mark.parametrize(
    "text",
    ["0" * 63, "0" * 65, " " + "0" * 63, "0" * 62 + " 0", "A" * 64, "g" * 64, 5, None, True],
    ids=lambda text: repr(text)[:12],
)
def test_a_hash_from_the_host_has_one_form(text: Any) -> None:
    with pytest.raises(FormatError):
        remote_wire.read_hashes(json.dumps({"proof": [text]}).encode())


READERS = [
    remote_wire.read_submission,
    remote_wire.read_results,
    remote_wire.read_hashes,
    remote_wire.read_state_proof,
    remote_wire.read_health,
    remote_wire.read_states,
    genesis.parse,
    checkpoint.parse,
]


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@given(content=st.binary(max_size=300) | json_values.map(encode))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_are_read_or_refused_with_the_packages_own_error(read: Any, content: bytes) -> None:
    with contextlib.suppress(AnchorError):
        read(content)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_an_altered_genesis_is_read_or_refused(data: st.DataObject) -> None:
    value = json.loads(genesis_bytes((AUTHORITY, HOSPITAL_A)))
    target = data.draw(st.sampled_from([value, value["members"][0], value["members"][0]["keys"][0]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(json_values)
    with contextlib.suppress(FormatError):
        genesis.parse(encode(value))
