"""Nodes and validators: keys bound both ways, powers given by the authorities, and the bounds on every change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor import ed25519, genesis
from anchor.contracts.validators import MAX_POWER
from anchor.errors import FormatError, KeyFormatError, SignatureInvalid
from anchor.transaction import Code
from tests.ledger_consortium import (
    AUTHORITY,
    CHAIN,
    HOSPITAL_A,
    HOSPITAL_B,
    OBSERVER,
    PAYER,
    SECOND_AUTHORITY,
    START,
    STRANGER,
    Sender,
    admit,
    genesis_bytes,
    member,
    node_body,
    propose,
    validator_key,
)

FOUR = (AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER)
ALL = (*FOUR, SECOND_AUTHORITY, OBSERVER)


def genesis_with(voting: tuple[str, ...] = FOUR, members: tuple[str, ...] = ALL, **changes: Any) -> bytes:
    nodes = [{"org": org, "power": 10, **node_body(org)} for org in voting]
    values = {
        "chain": CHAIN,
        "time": START,
        "threshold": 1,
        "members": [member(one) for one in members],
        "nodes": nodes,
    }
    return genesis.build(**{**values, **changes})


class Consortium(Sender):
    """A chain with validators, governed by one authority's decisions."""

    def __init__(self, content: bytes | None = None) -> None:
        super().__init__(genesis_with() if content is None else content)
        self.number = 0

    def decide(self, **action: Any) -> str:
        self.number += 1
        return self.send(AUTHORITY, "membership.propose", propose(action, self.number)).code

    def power(self, org: str, power: int) -> str:
        return self.decide(kind="validator", org=org, power=power)

    def register(self, org: str, number: int = 1, **changes: Any) -> str:
        return self.send(org, "node.register", node_body(org, number, **changes)).code

    def powers(self) -> dict[str, int]:
        value = self.ledger.get("validators")
        return {} if value is None else {each["org"]: each["power"] for each in value["set"]}


class TestRegistration:
    @pytest.mark.parametrize("org", [HOSPITAL_A, OBSERVER], ids=["writer", "observer"])
    def test_a_member_registers_its_node(self, org: str) -> None:
        ledger = Consortium(genesis_bytes())
        assert ledger.register(org) == Code.OK
        body, value = node_body(org), ledger.ledger.get(f"node/{org}")
        assert value is not None
        assert {name: value[name] for name in ("key", "node", "address")} == {
            n: body[n] for n in ("key", "node", "address")
        }
        assert ledger.ledger.get(f"node-key/{body['key']}") == {"org": org}
        assert ledger.ledger.get(f"node-id/{body['node']}") == {"org": org}
        assert ledger.powers() == {}

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            pytest.param({"proof": "00" * 64}, Code.BAD_BODY, id="no-proof"),
            pytest.param({"node": "ab" * 20}, Code.BAD_BODY, id="another-node-than-the-proof-names"),
            pytest.param({"key": "00" * 32}, Code.BAD_BODY, id="key-of-small-order"),
            pytest.param({"key": "ff" * 32}, Code.BAD_BODY, id="key-that-is-none"),
            pytest.param({"key": "AB" * 32}, Code.BAD_BODY, id="upper-case"),
            pytest.param({"address": "host"}, Code.BAD_BODY, id="no-port"),
            pytest.param({"address": "host:0"}, Code.BAD_BODY, id="port-zero"),
            pytest.param({"address": "host:70000"}, Code.BAD_BODY, id="port-too-high"),
            pytest.param({"address": "a b:1"}, Code.BAD_BODY, id="space"),
            pytest.param({"address": "tcp://host:1"}, Code.BAD_BODY, id="scheme"),
            pytest.param({"address": "user@host:1"}, Code.BAD_BODY, id="node-id-in-the-address"),
            pytest.param({"address": "host:1,evil:2"}, Code.BAD_BODY, id="two-addresses"),
            pytest.param({"extra": 1}, Code.BAD_BODY, id="unknown-field"),
            pytest.param({"address": "10.1.2.3:26656"}, Code.OK, id="ipv4"),
            pytest.param({"address": "[2001:db8::1]:26656"}, Code.OK, id="ipv6"),
        ],
    )
    def test_a_registration_has_its_form(self, changes: dict[str, Any], code: str) -> None:
        assert Consortium(genesis_bytes()).register(HOSPITAL_A, **changes) == code

    def test_another_members_proof_is_of_no_use(self) -> None:
        ledger = Consortium(genesis_bytes())
        assert ledger.send(HOSPITAL_B, "node.register", node_body(HOSPITAL_A)).code == Code.BAD_BODY

    def test_a_key_or_node_is_one_members_for_ever(self) -> None:
        from anchor.contracts.nodes import registration_message

        ledger = Consortium(genesis_bytes())
        assert ledger.register(HOSPITAL_A) == Code.OK
        assert ledger.register(HOSPITAL_A, 2) == Code.OK
        assert ledger.register(HOSPITAL_A, 1) == Code.OK  # its own former key
        stolen, theirs = validator_key(HOSPITAL_A, 2), node_body(HOSPITAL_A, 2)
        proof = stolen.sign(registration_message(CHAIN, HOSPITAL_B, theirs["key"], theirs["node"])).hex()
        assert ledger.send(HOSPITAL_B, "node.register", {**theirs, "proof": proof}).code == Code.CONFLICT
        own = node_body(HOSPITAL_B)
        proof = (
            validator_key(HOSPITAL_B).sign(registration_message(CHAIN, HOSPITAL_B, own["key"], theirs["node"])).hex()
        )
        body = {**own, "node": theirs["node"], "proof": proof}
        assert ledger.send(HOSPITAL_B, "node.register", body).code == Code.CONFLICT

    def test_a_suspended_member_registers_nothing(self) -> None:
        ledger = Consortium(genesis_bytes())
        assert ledger.decide(kind="suspend", org=PAYER) == Code.OK
        assert ledger.register(PAYER) == Code.SUSPENDED_SENDER


class TestPowers:
    def test_an_admitted_member_becomes_a_validator_by_decision(self) -> None:
        ledger = Consortium()
        ledger.accepted(AUTHORITY, "membership.propose", admit(STRANGER, 900))
        assert ledger.power(STRANGER, 10) == Code.CONFLICT  # no node yet
        assert ledger.register(STRANGER) == Code.OK
        assert ledger.powers() == dict.fromkeys(FOUR, 10)
        assert ledger.power(STRANGER, 10) == Code.OK
        assert ledger.powers() == dict.fromkeys((*FOUR, STRANGER), 10)
        assert ledger.power(STRANGER, 10) == Code.CONFLICT

    @pytest.mark.parametrize(
        ("action", "code"),
        [
            pytest.param({"org": OBSERVER, "power": 1}, Code.CONFLICT, id="observer"),
            pytest.param({"org": STRANGER, "power": 1}, Code.NOT_FOUND, id="no-member"),
            pytest.param({"org": SECOND_AUTHORITY, "power": 0}, Code.CONFLICT, id="no-validator"),
            pytest.param({"org": HOSPITAL_A, "power": -1}, Code.BAD_BODY, id="negative"),
            pytest.param({"org": HOSPITAL_A, "power": MAX_POWER + 1}, Code.BAD_BODY, id="too-much"),
            pytest.param({"org": HOSPITAL_A, "power": True}, Code.BAD_BODY, id="not-a-number"),
            pytest.param({"org": HOSPITAL_A}, Code.BAD_BODY, id="no-power"),
            pytest.param({"org": HOSPITAL_A, "power": 0}, Code.CONFLICT, id="below-the-minimum"),
            pytest.param({"org": HOSPITAL_A, "power": 31}, Code.CONFLICT, id="more-than-a-third-joins"),
            pytest.param({"org": HOSPITAL_A, "power": 30}, Code.OK, id="a-third-at-most-joins"),
        ],
    )
    def test_a_power_is_given_within_the_rules(self, action: dict[str, Any], code: str) -> None:
        ledger = Consortium()
        assert ledger.register(OBSERVER) == Code.OK
        assert ledger.decide(kind="validator", **action) == code

    def test_only_authorities_decide(self) -> None:
        ledger = Consortium()
        body = propose({"kind": "validator", "org": HOSPITAL_A, "power": 11}, 77)
        assert ledger.send(HOSPITAL_A, "membership.propose", body).code == Code.NOT_AUTHORISED

    def test_a_new_key_takes_the_old_ones_place_with_its_power(self) -> None:
        ledger = Consortium()
        assert ledger.register(HOSPITAL_A, 2) == Code.OK
        value = ledger.ledger.get("validators")
        assert value is not None
        held = next(each for each in value["set"] if each["org"] == HOSPITAL_A)
        assert (held["key"], held["power"]) == (node_body(HOSPITAL_A, 2)["key"], 10)

    def test_a_suspended_member_votes_no_longer_and_a_reinstated_one_not_by_itself(self) -> None:
        ledger = Consortium()
        assert ledger.register(SECOND_AUTHORITY) == Code.OK
        assert ledger.power(SECOND_AUTHORITY, 10) == Code.OK
        assert ledger.decide(kind="suspend", org=PAYER) == Code.OK
        assert PAYER not in ledger.powers()
        assert ledger.decide(kind="reinstate", org=PAYER) == Code.OK
        assert PAYER not in ledger.powers()
        assert ledger.power(PAYER, 10) == Code.OK

    def test_a_suspension_that_would_leave_too_few_validators_waits_for_a_decision(self) -> None:
        ledger = Consortium()
        assert ledger.decide(kind="suspend", org=PAYER) == Code.CONFLICT
        assert ledger.decide(kind="minimum-validators", value=4) == Code.CONFLICT
        assert ledger.decide(kind="minimum-validators", value=3) == Code.OK
        assert ledger.decide(kind="suspend", org=PAYER) == Code.OK
        assert sorted(ledger.powers()) == sorted(set(FOUR) - {PAYER})

    @pytest.mark.parametrize("value", [0, 101, "4", None])
    def test_the_minimum_is_a_count(self, value: object) -> None:
        assert Consortium().decide(kind="minimum-validators", value=value) == Code.BAD_BODY

    def test_every_set_there_was_stays_in_the_state(self) -> None:
        ledger = Consortium()
        assert ledger.register(HOSPITAL_A, 2) == Code.OK
        assert ledger.power(HOSPITAL_B, 12) == Code.OK
        numbers = [ledger.ledger.get(f"validators/{number}") for number in (1, 2, 3)]
        assert [one["height"] for one in numbers if one] == [0, 1, 2]
        assert ledger.ledger.get("validators/4") is None
        newest = ledger.ledger.get("validators")
        assert newest is not None
        assert {**(numbers[2] or {}), "minimum": 4} == newest


class TestOneBlock:
    """The bounds hold for all changes of one block together."""

    def block(self, ledger: Consortium, *steps: tuple[str, str, dict[str, Any]]) -> list[str]:
        envelopes = []
        sequences: dict[str, int] = {}
        for sender, type, body in steps:
            last = ledger.ledger.get(f"seq/{sender}") or {"seq": 0}
            sequences[sender] = sequences.get(sender, last["seq"]) + 1
            envelopes.append(ledger.envelope(sender, type, body, seq=sequences[sender]))
        computed = ledger.ledger.apply_block(envelopes, ledger.time)
        ledger.ledger.commit(computed)
        return [one.code for one in computed.results]

    def test_two_rotations_in_one_block_are_too_many_and_in_two_are_not(self) -> None:
        ledger = Consortium()
        steps = [(org, "node.register", node_body(org, 2)) for org in (HOSPITAL_A, HOSPITAL_B)]
        assert self.block(ledger, *steps) == [Code.OK, Code.CONFLICT]
        assert self.block(ledger, steps[1]) == [Code.OK]

    def test_what_comes_back_within_the_block_counts_for_nothing(self) -> None:
        ledger = Consortium()
        changed = propose({"kind": "validator", "org": HOSPITAL_A, "power": 20}, 1)
        back = propose({"kind": "validator", "org": HOSPITAL_A, "power": 10}, 2)
        other = propose({"kind": "validator", "org": HOSPITAL_B, "power": 20}, 3)
        steps = [(AUTHORITY, "membership.propose", body) for body in (changed, back, other)]
        assert self.block(ledger, *steps) == [Code.OK] * 3
        assert ledger.ledger.get("validators/3") is None

    def test_a_pilot_grows_to_four_validators_one_by_one(self) -> None:
        ledger = Consortium(genesis_bytes())
        for org in (AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER):
            assert ledger.register(org) == Code.OK
            assert ledger.power(org, 10) == Code.OK
        assert ledger.powers() == dict.fromkeys(FOUR, 10)
        assert ledger.power(PAYER, 0) == Code.CONFLICT


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((*FOUR, SECOND_AUTHORITY)), st.integers(0, 40)), max_size=12))
def test_no_block_changes_more_than_a_third_and_no_set_is_too_small(steps: list[tuple[str, int]]) -> None:
    ledger = consortium_of_five()
    for org, power in steps:
        before = ledger.powers()
        if ledger.power(org, power) != Code.OK:
            assert ledger.powers() == before
            continue
        after = ledger.powers()
        assert len(after) >= 4
        assert 3 * sum(max(0, p - after.get(o, 0)) for o, p in before.items()) <= sum(before.values())
        assert 3 * sum(max(0, p - before.get(o, 0)) for o, p in after.items()) <= sum(after.values())


def consortium_of_five() -> Consortium:
    return Consortium(genesis_with((*FOUR, SECOND_AUTHORITY)))


class TestGenesis:
    def test_the_state_begins_with_nodes_and_validators(self) -> None:
        parsed = genesis.parse(genesis_with())
        state = parsed.state()
        assert [each["org"] for each in state["validators"]["set"]] == sorted(FOUR)
        assert state["validators"]["minimum"] == 4
        assert state["validators/1"]["number"] == 1
        assert state[f"node/{PAYER}"]["tx"] is None

    def test_a_follower_is_named_without_power(self) -> None:
        nodes = [{"org": org, "power": 0 if org == OBSERVER else 5, **node_body(org)} for org in (*FOUR, OBSERVER)]
        state = genesis.parse(genesis_with(nodes=nodes)).state()
        assert f"node/{OBSERVER}" in state
        assert OBSERVER not in {each["org"] for each in state["validators"]["set"]}

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"voting": FOUR[:3]}, id="three-without-saying-so"),
            pytest.param({"voting": (*FOUR[:3], STRANGER)}, id="not-a-member"),
            pytest.param({"nodes": [{"org": org, "power": 1, **node_body(AUTHORITY)} for org in FOUR]}, id="one-key"),
            pytest.param({"nodes": [{"org": org, "power": 1001, **node_body(org)} for org in FOUR]}, id="power"),
            pytest.param({"nodes": [{"org": org, **node_body(org)} for org in FOUR]}, id="no-power"),
            pytest.param(
                {"nodes": [{"org": o, "power": 1, **node_body(o, proof="00" * 64)} for o in FOUR]}, id="proof"
            ),
            pytest.param({"nodes": ["x"]}, id="not-objects"),
            pytest.param({"minimum": 5}, id="fewer-than-the-minimum"),
        ],
    )
    def test_a_genesis_that_is_not_right_is_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(FormatError):
            genesis_with(**changes)

    def test_fewer_validators_are_an_explicit_choice(self) -> None:
        assert genesis.parse(genesis_with(FOUR[:1], minimum=1)).minimum == 1


class TestEd25519:
    def test_rfc_8032_vectors(self) -> None:
        key = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        signature = bytes.fromhex(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        )
        ed25519.verify(key, b"\x72", signature)
        with pytest.raises(SignatureInvalid):
            ed25519.verify(key, b"\x73", signature)

    def test_a_signature_with_s_not_reduced_is_refused(self) -> None:
        secret = validator_key(AUTHORITY)
        public, signature = secret.public_key().public_bytes_raw(), secret.sign(b"m")
        ed25519.verify(public, b"m", signature)
        order = 2**252 + 27742317777372353535851937790883648493
        malleated = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
        with pytest.raises(SignatureInvalid):
            ed25519.verify(public, b"m", malleated)

    @pytest.mark.parametrize(
        "key",
        [
            pytest.param(bytes(32), id="order-4"),
            pytest.param(b"\x01" + bytes(31), id="identity"),
            pytest.param(
                bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), id="order-2"
            ),
            pytest.param(
                bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), id="order-8"
            ),
            pytest.param(
                bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), id="order-8-b"
            ),
            pytest.param(bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), id="p"),
            pytest.param(b"\x02" + bytes(31), id="no-point"),
            pytest.param(b"\x01" * 31, id="short"),
        ],
    )
    def test_keys_that_are_none_are_refused(self, key: bytes) -> None:
        with pytest.raises(KeyFormatError):
            ed25519.check_key(key)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(min_size=32, max_size=32))
    def test_every_generated_key_passes(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        ed25519.check_key(Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw())
