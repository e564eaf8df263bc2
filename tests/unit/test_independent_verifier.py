"""A second verifier, written from docs/receipt-format.md alone: it shares no code with ``anchor`` and agrees with it.

SM3 is OpenSSL's, the SM2 check is textbook arithmetic over Python integers. Checks of form are left out; the hashes and
signatures are all there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from anchor.verify import verify_receipt
from tests.evidence_world import Disclosure, World

P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
A = P - 3
B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
G = (
    0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
    0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
)
Point = tuple[int, int] | None


def sm3(data: bytes) -> bytes:
    return hashlib.new("sm3", data).digest()


def add(p: Point, q: Point) -> Point:
    if p is None or q is None:
        return p or q
    if p[0] == q[0]:
        if (p[1] + q[1]) % P == 0:
            return None
        slope = (3 * p[0] * p[0] + A) * pow(2 * p[1], -1, P) % P
    else:
        slope = (q[1] - p[1]) * pow(q[0] - p[0], -1, P) % P
    x = (slope * slope - p[0] - q[0]) % P
    return x, (slope * (p[0] - x) - p[1]) % P


def times(k: int, p: Point) -> Point:
    result: Point = None
    while k:
        if k & 1:
            result = add(result, p)
        p, k = add(p, p), k >> 1
    return result


def sm2_holds(public: bytes, message: bytes, signature: bytes) -> bool:
    numbers = b"".join(n.to_bytes(32, "big") for n in (A, B, *G))
    z = sm3((128).to_bytes(2, "big") + b"1234567812345678" + numbers + public[1:])
    e = int.from_bytes(sm3(z + message), "big")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    t = (r + s) % N
    if not (0 < r < N and 0 < s < N and t):
        return False
    key = (int.from_bytes(public[1:33], "big"), int.from_bytes(public[33:], "big"))
    point = add(times(s, G), times(t, key))
    return point is not None and (e + point[0]) % N == r


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def root_of(leaf: bytes, index: int, size: int, proof: list[str]) -> bytes:
    """RFC 9162 2.1.3.2."""
    fn, sn, r = index, size - 1, leaf
    assert 0 <= index < size
    for node in map(bytes.fromhex, proof):
        assert sn != 0
        if fn & 1 or fn == sn:
            r = sm3(b"\x01" + node + r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = sm3(b"\x01" + r + node)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    return r


class SecondVerifier:
    def __init__(self, receipt: bytes, trust: bytes) -> None:
        self.receipt, self.trust = json.loads(receipt), json.loads(trust)
        self.members = {member["org"]: member for member in self.trust["members"]}

    def signing_keys(self, org: str, time: int) -> list[dict[str, Any]]:
        return [
            key
            for key in self.members[org]["keys"]
            if key["use"] == "sign" and key["from"] <= time and (key["until"] is None or time < key["until"])
        ]

    def note(self, text: str, at: int | None = None) -> tuple[str, int, bytes, dict[str, str], set[str]]:
        head, _, tail = text.partition("\n\n")
        origin, size, root, *extensions = head.split("\n")
        signers = set()
        for line in tail.splitlines():
            dash, org, blob64 = line.split(" ")
            blob = base64.b64decode(blob64)
            time = int.from_bytes(blob[4:12], "big")
            keys = [bytes.fromhex(key["public"]) for key in self.signing_keys(org, time if at is None else at)]
            (key,) = [key for key in keys if sm3(org.encode() + b"\n\xe2" + key)[:4] == blob[:4]]
            assert dash == "—"
            assert sm2_holds(key, f"cosignature/v1-sm2\ntime {time}\n{head}\n".encode(), blob[12:])
            signers.add(org)
        return origin, int(size), base64.b64decode(root), dict(line.split(" ") for line in extensions), signers

    def transaction(self, committed: dict[str, Any], size: int, root: bytes) -> dict[str, Any]:
        tx, entry = committed["envelope"]["tx"], committed["entry"]
        signed = canonical(tx)
        assert entry["tx"] == sm3(signed).hex()
        assert entry["sig"] == committed["envelope"]["sig"]
        assert entry["index"] == committed["index"]
        (key,) = [key for key in self.signing_keys(tx["sender"], entry["time"]) if key["id"] == tx["key"]]
        assert sm2_holds(bytes.fromhex(key["public"]), signed, bytes.fromhex(entry["sig"]))
        assert root_of(sm3(b"\x00" + canonical(entry)), committed["index"], size, committed["proof"]) == root
        return dict(tx)

    def ledger(self) -> tuple[int, bytes, dict[str, str]]:
        origin, size, root, extensions, signers = self.note(self.receipt["ledger"]["checkpoint"])
        assert origin == f"yiqiao/ledger/{self.trust['chain']}"
        assert len(signers) >= self.trust["quorum"]
        return size, root, extensions

    def record(self) -> str:
        size, root, _ = self.ledger()
        entry, log, publication = self.receipt["entry"], self.receipt["log"], self.receipt["publication"]
        tx = self.transaction(publication, size, root)
        assert (tx["type"], tx["sender"]) == ("checkpoint.publish", entry["org"])
        origin, own_size, own_root, _, signers = self.note(tx["body"]["note"], publication["entry"]["time"])
        assert origin.startswith(f"yiqiao/log/{entry['org']}/")
        assert signers == {entry["org"]}
        assert root_of(sm3(b"\x00" + canonical(entry)), log["index"], own_size, log["proof"]) == own_root
        return str(entry["digest"])

    def disclosure(self) -> list[str]:
        size, root, extensions = self.ledger()
        transactions = {role: self.transaction(each, size, root) for role, each in self.receipt["transactions"].items()}
        release = transactions["release"]["body"]
        statement = self.receipt["statement"]
        assert sm3(canonical(statement)).hex() == transactions["request"]["body"]["commitment"]
        grant = self.receipt["grant"]
        hashed = sm3(grant["key"].encode())
        pairs = [bytes.fromhex(pair) for pair in grant["proof"]["pairs"]]
        assert hashed + sm3(canonical(grant["value"])) in pairs
        node, number = sm3(b"\x00" + b"".join(pairs)), int.from_bytes(hashed[:2], "big")
        for sibling in map(bytes.fromhex, grant["proof"]["path"]):
            node = sm3(b"\x01" + (sibling + node if number & 1 else node + sibling))
            number >>= 1
        assert base64.b64decode(extensions["state"]) == node
        digests = self.receipt["disclosed"]
        level = [sm3(b"\x00" + bytes.fromhex(digest)) for digest in digests]
        assert release["count"] == len(level) == 3
        assert sm3(b"\x01" + sm3(b"\x01" + level[0] + level[1]) + level[2]).hex() == release["disclosed"]
        return list(digests)


@pytest.mark.skipif("sm3" not in hashlib.algorithms_available, reason="this OpenSSL has no SM3")
def test_the_second_verifier_agrees(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        refs = world.anchored(3)
        disclosure = Disclosure.begin(world)
        disclosure.release(refs)
        disclosure.receive()
        world.witness.run()
        record = world.receipts.for_record("Observation", "o1", 1)
        disclosed = world.receipts.for_disclosure(disclosure.request, disclosure.statement)
        trust = world.trust()
        digest = sm3(world.content(refs[1])).hex()
    finally:
        world.close()
    assert SecondVerifier(record, trust).record() == digest == verify_receipt(record, trust).digest
    assert digest in SecondVerifier(disclosed, trust).disclosure()
    assert verify_receipt(disclosed, trust).facts["records"] == 3
    broken = record.replace(digest.encode(), b"0" * 64)
    with pytest.raises(AssertionError):
        SecondVerifier(broken, trust).record()
