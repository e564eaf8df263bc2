"""A consortium for tests of the ledger: fixed keys, members with made-up codes, and a ledger in memory to send to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from anchor import checkpoint, genesis, merkle, transaction
from anchor.chain.client import TransactionResult
from anchor.contracts import members, nodes
from anchor.contracts.org_id import check_character
from anchor.gm import PrivateKey, sm3
from anchor.ledger import Ledger

CHAIN = "yiqiao-test"
START = 1_767_225_600
"""2026-01-01T00:00:00Z: the time of genesis and of the first block."""
DAY = 86_400


def org(number: int) -> str:
    """Return a made-up organisation id with a right check character."""
    body = f"12990000MB{number:07d}"
    return body + check_character(body)


AUTHORITY, SECOND_AUTHORITY, HOSPITAL_A, HOSPITAL_B, OBSERVER, PAYER, STRANGER = (org(n) for n in range(1, 8))
ROLES = {
    AUTHORITY: ["authority"],
    SECOND_AUTHORITY: ["authority"],
    HOSPITAL_A: ["hospital"],
    HOSPITAL_B: ["hospital"],
    OBSERVER: ["observer"],
    PAYER: ["payer"],
    STRANGER: ["hospital"],
}


def key(*name: object) -> PrivateKey:
    """Return the private key that belongs to a name in these tests."""
    return PrivateKey.from_bytes(sm3(repr(name).encode())[:31].rjust(32, b"\x01"))


def sign_key(member: str, number: int = 1) -> PrivateKey:
    """Return a member's signing key; later ones have higher numbers."""
    return key(member, "sign") if number == 1 else key(member, "sign", number)


def encrypt_key(member: str) -> PrivateKey:
    """Return a member's first encryption key."""
    return key(member, "encrypt")


def validator_key(member: str, number: int = 1) -> Ed25519PrivateKey:
    """Return the key with which a member's node votes; later ones have higher numbers."""
    return Ed25519PrivateKey.from_private_bytes(sm3(repr((member, "validator", number)).encode()))


def node_body(member: str, number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the body of a registration of a member's node."""
    secret = validator_key(member, number)
    public = secret.public_key().public_bytes_raw().hex()
    node = sm3(repr((member, "node", number)).encode()).hex()[:40]
    proof = secret.sign(nodes.registration_message(CHAIN, member, public, node)).hex()
    body = {"key": public, "node": node, "address": f"node-{member[-4:].lower()}.invalid:26656", "proof": proof}
    return {**body, **changes}


def ident(number: int) -> str:
    """Return a 128-bit identifier in hexadecimal."""
    return f"{number:032x}"


def digest(number: int) -> str:
    """Return a 256-bit digest in hexadecimal."""
    return sm3(b"digest %d" % number).hex()


def member(org_id: str, roles: Sequence[str] | None = None) -> dict[str, Any]:
    """Return a genesis member record."""
    return genesis.member_record(
        org=org_id,
        name=f"机构 {org_id[-4:]}",
        roles=ROLES[org_id] if roles is None else roles,
        endpoint="https://node.invalid",
        signing=sign_key(org_id),
        encryption=encrypt_key(org_id),
        time=START,
    )


def genesis_bytes(
    orgs: Sequence[str] = (AUTHORITY, HOSPITAL_A, HOSPITAL_B, OBSERVER, PAYER), *, threshold: int = 1
) -> bytes:
    """Return a genesis file with some of the members."""
    return genesis.build(chain=CHAIN, time=START, threshold=threshold, members=[member(one) for one in orgs])


def card(org_id: str, **changes: Any) -> dict[str, Any]:
    """Return a card with which an organisation asks to be admitted."""
    values = {
        "chain": CHAIN,
        "org": org_id,
        "name": "新成员",
        "roles": ROLES[org_id],
        "endpoint": "https://new.invalid",
        "signing": sign_key(org_id),
        "encryption": encrypt_key(org_id),
        "since": START,
    }
    return members.card(**{**values, **changes})


def admit(org_id: str, number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the body of a proposal to admit an organisation."""
    return propose({"kind": "admit", "member": members.admission(card(org_id, **changes))}, number)


def propose(action: Mapping[str, Any], number: int = 1) -> dict[str, Any]:
    """Return the body of a proposal."""
    return {"proposal": ident(number), "action": dict(action)}


def grant_body(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the body of a grant to hospital B for treatment, for thirty days."""
    body = {
        "grant": ident(number),
        "grantees": [HOSPITAL_B],
        "purposes": ["TREAT"],
        "from": START,
        "until": START + 30 * DAY,
        "commitment": digest(number),
    }
    return {**body, **changes}


def request_body(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the body of a request to hospital A for treatment."""
    body = {"request": ident(number), "holder": HOSPITAL_A, "purpose": "TREAT", "commitment": digest(number)}
    return {**body, **changes}


def emergency_body(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the body of an emergency request to hospital A."""
    body = {"request": ident(number), "holder": HOSPITAL_A, "reason": "UNCONSCIOUS", "commitment": digest(number)}
    return {**body, **changes}


def release_body(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the body of a release under the grant of the same number."""
    body = {
        "request": ident(number),
        "grant": ident(number),
        "disclosed": digest(100 + number),
        "count": 2,
        "commitment": digest(200 + number),
    }
    return {**body, **changes}


@dataclass
class InstitutionLog:
    """An institution's log, to publish checkpoints of."""

    org: str
    shard: str = "2026"
    leaves: list[bytes] = field(default_factory=list)

    def grow(self, count: int) -> None:
        """Append entries."""
        start = len(self.leaves)
        self.leaves += [merkle.leaf_hash(b"%s entry %d" % (self.org.encode(), start + n)) for n in range(count)]

    def note(self, time: int = START, signing: PrivateKey | None = None, **changes: Any) -> str:
        """Return the signed checkpoint of the log as it is."""
        values = {
            "origin": checkpoint.log_origin(self.org, self.shard),
            "size": len(self.leaves),
            "root": merkle.root_from_leaves(self.leaves),
            "extensions": (("time", str(time)),),
        }
        point = checkpoint.Checkpoint(**{**values, **changes})
        signature = checkpoint.sign(point, self.org, signing or sign_key(self.org), time)
        return checkpoint.render(checkpoint.SignedCheckpoint(point, (signature,))).decode()

    def body(self, count: int, previous: int, **changes: Any) -> dict[str, Any]:
        """Return the body that publishes the log, ``previous`` being the size published before."""
        proof = [] if previous == 0 else [one.hex() for one in merkle.consistency_proof(self.leaves, previous)]
        return {"note": self.note(), "number": count, "proof": proof, **changes}


class Sender:
    """Signs transactions for the members, each with the next number that a ledger expects, and applies them."""

    def __init__(self, genesis_content: bytes | None = None) -> None:
        self.ledger = Ledger.in_memory(genesis.parse(genesis_content or genesis_bytes()))
        self.time = START

    def envelope(self, sender: str, type: str, body: Mapping[str, Any], **changes: Any) -> bytes:
        """Return a signed envelope; ``changes`` replace what ``transaction.build`` is given."""
        last = self.ledger.get(f"seq/{sender}")
        values = {
            "chain": CHAIN,
            "type": type,
            "sender": sender,
            "key": sign_key(sender),
            "seq": 1 if last is None else last["seq"] + 1,
            "expires": self.time + 300,
            "body": dict(body),
        }
        return transaction.build(**{**values, **changes})

    def send(self, sender: str, type: str, body: Mapping[str, Any], **changes: Any) -> TransactionResult:
        """Apply one transaction as a block of its own and commit it; a refused one is shown to have changed nothing."""
        return self.send_envelope(self.envelope(sender, type, body, **changes))

    def send_envelope(self, envelope: bytes) -> TransactionResult:
        """Apply one envelope as a block of its own and commit it."""
        before = self.ledger.app_hash
        block = self.ledger.apply_block([envelope], self.time)
        (result,) = block.results
        if not result.ok:
            assert block.app_hash == before
            assert not block.changes
        self.ledger.commit(block)
        return result

    def accepted(self, sender: str, type: str, body: Mapping[str, Any], **changes: Any) -> TransactionResult:
        """Send a transaction that must be accepted."""
        result = self.send(sender, type, body, **changes)
        assert result.ok, (result.code, result.message)
        return result
