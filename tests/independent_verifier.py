"""A second verifier of receipts, written from docs/receipt-format.md alone: it shares no code with ``anchor``.

SM3 is OpenSSL's, the SM2 check is textbook arithmetic over Python integers, DER is read here; only an RSA or ECDSA
signature under a time stamp, and its certificate, are left to the ``cryptography`` library. A check that fails raises
``Refused`` naming the step of section 5. It is slow, and meant to be read beside the document.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

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


SCOPE = ("grantees", "purposes", "until")
STATES = ("pending", "committed", "witnessed")
ROLES = {
    "grant": {"consent.grant"}, "request": {"access.request", "access.emergency"}, "permit": {"access.permit"},
    "release": {"access.release"}, "receive": {"access.receive"}, "revoke": {"consent.revoke"},
}  # fmt: skip
COMMON = {"v", "kind", "chain", "state", "ledger"}
FIELDS = {
    "record": COMMON | {"entry", "log", "publication"},
    "disclosure": COMMON | {"request", "statement", "transactions", "amendments", "disclosed", "grant"},
}


class Refused(Exception):
    """A step that does not hold; the text is its name."""


@contextmanager
def step(name: str) -> Iterator[None]:
    """Name the step in which anything inside fails."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        raise Refused(name) from error


def must(holds: object) -> None:
    if not holds:
        raise ValueError


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def unhex(text: str, size: int | None = None) -> bytes:
    must(re.fullmatch("(?:[0-9a-f]{2})*", text) and size in (None, len(text) // 2))
    return bytes.fromhex(text)


def unbase64(text: str) -> bytes:
    content = base64.b64decode(text, validate=True)
    must(base64.b64encode(content).decode() == text)
    return content


def root_of(leaf: bytes, index: int, size: int, proof: list[str]) -> bytes:
    """RFC 9162 2.1.3.2."""
    fn, sn, r = index, size - 1, leaf
    must(0 <= index < size)
    for node in (unhex(each, 32) for each in proof):
        must(sn)
        if fn & 1 or fn == sn:
            r = sm3(b"\x01" + node + r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = sm3(b"\x01" + r + node)
        fn, sn = fn >> 1, sn >> 1
    must(sn == 0)
    return r


def extends(size1: int, root1: bytes, size2: int, root2: bytes, proof: list[str]) -> bool:
    """RFC 9162 2.1.4.2."""
    path = [unhex(each, 32) for each in proof]
    if size1 == 0 or size1 == size2:
        return not path and (size1 == 0 or root1 == root2) and size1 <= size2
    if size1 > size2 or not path:
        return False
    if size1 & (size1 - 1) == 0:
        path.insert(0, root1)
    fn, sn = size1 - 1, size2 - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for node in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = sm3(b"\x01" + node + fr), sm3(b"\x01" + node + sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = sm3(b"\x01" + sr + node)
        fn, sn = fn >> 1, sn >> 1
    return (fr, sr, sn) == (root1, root2, 0)


def tree(entries: list[bytes]) -> bytes:
    """RFC 6962 2.1."""
    if len(entries) < 2:
        return sm3(b"\x00" + entries[0]) if entries else sm3(b"")
    half = 1 << (len(entries) - 1).bit_length() - 1
    return sm3(b"\x01" + tree(entries[:half]) + tree(entries[half:]))


class Note:
    """Section 2: a checkpoint and its signatures, read and in its one encoding."""

    def __init__(self, text: str) -> None:
        must(len(text.encode()) <= 65_536)
        head, separator, tail = text.partition("\n\n")
        must(separator and text.endswith("\n"))
        self.head = head + "\n"
        self.origin, size, root, *extensions = head.split("\n")
        must(re.fullmatch(r"[A-Za-z0-9._:/-]{1,200}", self.origin) and re.fullmatch("0|[1-9][0-9]{0,15}", size))
        self.size, self.root = int(size), unbase64(root)
        pairs = [line.split(" ") for line in extensions]
        must(all(re.fullmatch("[a-z][a-z0-9-]*", name) and re.fullmatch("[!-~]+", text) for name, text in pairs))
        self.extensions = dict(pairs)
        must(len(self.extensions) == len(pairs) <= 16 and len(self.root) == 32 and self.size < 2**53)
        self.signatures: list[tuple[str, bytes, int, bytes]] = []
        for line in tail[:-1].split("\n") if tail else []:
            dash, org, blob = line.split(" ")
            content = unbase64(blob)
            must(dash == "—" and len(content) == 76)
            self.signatures.append((org, content[:4], int.from_bytes(content[4:12], "big"), content[12:]))
        must(len({(org, key) for org, key, *_ in self.signatures}) == len(self.signatures) <= 256)

    def integer(self, name: str) -> int:
        must(re.fullmatch("0|[1-9][0-9]{0,15}", self.extensions[name]))
        return int(self.extensions[name])


class Verifier:
    """Sections 3 to 5 for one trust file."""

    def __init__(self, trust: bytes) -> None:
        with step("trust"):
            self.trust = json.loads(trust)
            self.members = {member["org"]: member for member in self.trust["members"]}
            must(self.trust["v"] == 1 and len(self.members) == len(self.trust["members"]))

    def verify(self, receipt: bytes, minimum: str = "witnessed") -> str:
        """Return the state that a receipt proves."""
        with step("format"):
            must(len(receipt) <= 8 * 1024 * 1024)
            value = json.loads(receipt, object_pairs_hook=_once)
            kind = value["kind"]
            must(type(value["v"]) is int and value["v"] == 1 and value["state"] in STATES)
            must(value.keys() - {"timestamp", "finality"} == FIELDS[kind])
            must((value["ledger"] is None) == (value["state"] == "pending"))
        with step("chain"):
            must(value["chain"] == self.trust["chain"])
        state = self._record(value) if kind == "record" else self._disclosure(value)
        with step("state"):
            must(STATES.index(state) >= max(STATES.index(value["state"]), STATES.index(minimum)))
        return state

    # --- keys and signatures

    def _public(self, org: str, time: int, *, id: str | None = None, hint: bytes | None = None) -> bytes:
        for key in self.members[org]["keys"]:
            public = unhex(key["public"], 65)
            good = key["from"] <= time and (key["until"] is None or time < key["until"])
            named = key["id"] == id if id is not None else sm3(org.encode() + b"\n\xe2" + public)[:4] == hint
            if key["use"] == "sign" and good and named:
                return public
        raise ValueError

    def _signers(self, note: Note, at: int | None = None) -> list[tuple[str, int]]:
        for org, hint, time, signature in note.signatures:
            public = self._public(org, time if at is None else at, hint=hint)
            must(sm2_holds(public, f"cosignature/v1-sm2\ntime {time}\n{note.head}".encode(), signature))
        return [(org, time) for org, _, time, _ in note.signatures]

    def _transaction(self, committed: dict[str, Any]) -> dict[str, Any]:
        must(committed.keys() == {"envelope", "entry", "index", "proof"})
        envelope, entry = committed["envelope"], committed["entry"]
        tx = envelope["tx"]
        must(envelope.keys() == {"sig", "tx"} and entry.keys() == {"v", "tx", "sig", "height", "time", "index"})
        must(tx.keys() == {"v", "chain", "type", "sender", "key", "seq", "expires", "body"})
        must(type(entry["v"]) is type(tx["v"]) is int and (entry["v"], tx["v"]) == (1, 1))
        must(all(type(entry[name]) is int for name in ("height", "time", "index")) and type(tx["expires"]) is int)
        signed = canonical(tx)
        must(tx["chain"] == self.trust["chain"] and entry["tx"] == sm3(signed).hex())
        must(entry["sig"] == envelope["sig"] and entry["index"] == committed["index"])
        must(entry["time"] <= tx["expires"] <= entry["time"] + 900)
        must(sm2_holds(self._public(tx["sender"], entry["time"], id=tx["key"]), signed, unhex(entry["sig"], 64)))
        return {**tx, "index": entry["index"], "time": entry["time"], "id": entry["tx"]}

    # --- the steps that both kinds share

    def _ledger(self, value: dict[str, Any], committed: list[dict[str, Any]]) -> tuple[Note, str]:
        with step("checkpoint"):
            must(value["ledger"].keys() == {"checkpoint"})
            note = Note(value["ledger"]["checkpoint"])
            must(note.origin == f"yiqiao/ledger/{self.trust['chain']}")
            must(all(note.integer("time") >= each["entry"]["time"] for each in committed))
            signers = self._signers(note)
            must(signers and all(time >= note.integer("time") - 300 for _, time in signers))
        with step("inclusion"):
            for each in committed:
                leaf = sm3(b"\x00" + canonical(each["entry"]))
                must(root_of(leaf, each["index"], note.size, each["proof"]) == note.root)
        active = {org for org, _ in signers if self.members[org]["status"] == "active"}
        enough = len(active) >= self.trust["quorum"] and set(self.trust["mandatory"]) <= active
        with step("quorum"):
            must(enough or value["state"] != "witnessed")
        if "timestamp" in value:
            with step("timestamp"):
                self._timestamp(value["timestamp"], note)
        return note, "witnessed" if enough else "committed"

    def _timestamp(self, stamp: dict[str, Any], own: Note) -> None:
        must(stamp.keys() == {"text", "proof", "token"})
        stamped = Note(stamp["text"] + "\n")
        must(stamped.origin == own.origin and not stamped.signatures)
        must(extends(own.size, own.root, stamped.size, stamped.root, stamp["proof"]))
        certificates = [unbase64(each) for each in self.trust["timestamping"]]
        Token(unbase64(stamp["token"])).check(stamp["text"].encode(), certificates)

    # --- records

    def _record(self, value: dict[str, Any]) -> str:
        entry, log, publication = value["entry"], value["log"], value["publication"]
        with step("format"):
            must(entry.keys() == {"v", "org", "ref", "digest", "source", "adapter", "salt"})
            must(log.keys() == {"index", "proof", "checkpoint"} and type(entry["v"]) is int and entry["v"] == 1)
            must((publication is None) == (log["checkpoint"] is not None) == (value["state"] == "pending"))
            unhex(entry["digest"], 32), unhex(entry["source"]), unhex(entry["salt"])
        note, time = log["checkpoint"], None
        if publication is not None:
            with step("transaction"):
                tx = self._transaction(publication)
            with step("publication"):
                must((tx["type"], tx["sender"]) == ("checkpoint.publish", entry["org"]))
                note, time = tx["body"]["note"], tx["time"]
        with step("institution"):
            own = Note(note)
            must(own.origin.rpartition("/")[0] == f"yiqiao/log/{entry['org']}")
            must([org for org, _ in self._signers(own, time)] == [entry["org"]])
        with step("entry"):
            leaf = sm3(b"\x00" + canonical(entry))
            must(root_of(leaf, log["index"], own.size, log["proof"]) == own.root)
        return "pending" if publication is None else self._ledger(value, [publication])[1]

    # --- disclosures

    def _disclosure(self, value: dict[str, Any]) -> str:
        with step("transaction"):
            must({"request", "release"} <= value["transactions"].keys() <= ROLES.keys())
            tx = {role: self._transaction(each) for role, each in value["transactions"].items()}
            amendments = [self._transaction(each) for each in value["amendments"]]
            must(all(each["type"] in ROLES[role] for role, each in tx.items()))
            must(all(each["type"] == "consent.amend" for each in amendments))
        note, state = self._ledger(value, [*value["transactions"].values(), *value["amendments"]])
        request, release, id = tx["request"], tx["release"], value["request"]
        emergency = request["type"] == "access.emergency"
        with step("request"):
            must((request["body"]["request"], request["body"]["holder"]) == (id, release["sender"]))
            said = value["statement"]
            if said is not None:
                must(sm3(canonical(said)).hex() == request["body"]["commitment"])
                parties = (said["request"], said["requester"], said["holder"])
                must(parties == (id, request["sender"], release["sender"]))
        with step("grant"):
            if release["body"]["grant"] is None:
                must(emergency and value["grant"] is None and not amendments and not {"grant", "revoke"} & tx.keys())
            else:
                changes = [tx["grant"], *amendments, *([tx["revoke"]] if "revoke" in tx else [])]
                purpose = "ETREAT" if emergency else request["body"]["purpose"]
                self._grant(value["grant"], changes, release, (request["sender"], purpose), note)
        with step("decision"):
            if "permit" in tx or not emergency:
                permit = tx["permit"]
                must(permit["sender"] == release["sender"] and permit["body"]["request"] == id)
                must(permit["body"]["grant"] == release["body"]["grant"])
        with step("order"):
            for roles in (("request", "permit", "release", "receive"), ("grant", "release", "revoke")):
                places = [tx[role]["index"] for role in roles if role in tx]
                must(places == sorted(set(places)))
        with step("disclosed"):
            digests = [unhex(each, 32) for each in value["disclosed"]]
            must((release["body"]["request"], release["body"]["count"]) == (id, len(digests)))
            must(release["body"]["disclosed"] == tree(digests).hex())
        with step("receive"):
            if "receive" in tx:
                body = tx["receive"]["body"]
                must((tx["receive"]["sender"], body["request"]) == (request["sender"], id))
                must(body["status"] != "verified" or body["disclosed"] == release["body"]["disclosed"])
        return state

    def _grant(
        self, grant: dict[str, Any], changes: list[dict[str, Any]], release: dict[str, Any], asked: Any, note: Note
    ) -> None:
        """Section 5.1."""
        id, state = release["body"]["grant"], grant["value"]
        must(grant["key"] == f"grant/{id}")
        hashed = sm3(grant["key"].encode())
        pairs = [unhex(pair, 64) for pair in grant["proof"]["pairs"]]
        must(hashed + sm3(canonical(state)) in pairs and pairs == sorted(pairs) and len(grant["proof"]["path"]) == 16)
        must(len({pair[:32] for pair in pairs}) == len(pairs) and all(pair[:2] == hashed[:2] for pair in pairs))
        node, number = sm3(b"\x00" + b"".join(pairs)), int.from_bytes(hashed[:2], "big")
        for sibling in (unhex(each, 32) for each in grant["proof"]["path"]):
            node, number = sm3(b"\x01" + (sibling + node if number & 1 else node + sibling)), number >> 1
        must(unbase64(note.extensions["state"]) == node)
        must(all(each["body"]["grant"] == id and each["sender"] == release["sender"] for each in changes))
        places = [each["index"] for each in changes]
        must(places == sorted(set(places)) and (state["version"], state["tx"]) == (len(changes), changes[-1]["id"]))
        must((state["status"] == "revoked") == (changes[-1]["type"] == "consent.revoke"))
        scope = {"from": changes[0]["body"]["from"]}
        for each in changes:
            if each["index"] < release["index"]:
                must(each["type"] != "consent.revoke")
                scope |= {name: value for name, value in each["body"].items() if name in SCOPE}
        must(asked[0] in scope["grantees"] and asked[1] in scope["purposes"])
        must(scope["from"] <= release["time"] < scope["until"])


class Token:
    """Section 5.2: an RFC 3161 time-stamp token in the bare form that receipts hold."""

    def __init__(self, token: bytes) -> None:
        signed_data, content = self._children(self._only(token, 0x30))
        must(signed_data == (6, bytes.fromhex("2a864886f70d010702")))
        version, digests, inner, signers = self._children(self._only(self._only(_tlv(content), 0xA0), 0x30))
        type_, wrapped = self._children(inner[1])
        must(type_ == (6, bytes.fromhex("2a864886f70d0109100104")) and version == (2, b"\x03") and digests[0] == 0x31)
        self.content = self._only(self._only(_tlv(wrapped), 0xA0), 4)
        number, self.sid, digest, attributes, algorithm, signature = self._children(self._only(signers[1], 0x30))
        must(number[0] == 2 and attributes[0] == 0xA0 and signature[0] == 4)
        must(digests[1] == _tlv(digest) and number[1] == (b"\x03" if self.sid[0] == 0x80 else b"\x01"))
        self.digest = self._children(digest[1])[0][1]
        self.attributes, self.signature = _tlv((0x31, attributes[1])), signature[1]
        self.algorithm = self._children(algorithm[1])[0][1]
        named = [self._children(each) for _, each in self._children(attributes[1])]
        self.signed = {type_[1]: values[1] for type_, values in named}
        must(len(self.signed) == len(named))

    def check(self, text: bytes, certificates: list[bytes]) -> datetime:
        """Return when ``text`` existed at the latest."""
        info = self._children(self._only(self.content, 0x30))
        (imprint_algorithm, imprint), time = self._children(info[2][1]), info[4]
        must(info[0] == (2, b"\x01") and time[0] == 0x18)
        must(_DIGESTS[self._children(imprint_algorithm[1])[0][1]](text) == imprint[1])
        at = datetime.strptime(time[1].decode(), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        certificate = next(each for each in certificates if self._named_by(each))
        parsed = x509.load_der_x509_certificate(certificate)
        must(parsed.not_valid_before_utc <= at <= parsed.not_valid_after_utc)
        usage = parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        must(usage.critical and [each.dotted_string for each in usage.value] == ["1.3.6.1.5.5.7.3.8"])
        digest = _DIGESTS[self.digest]
        must(self.signed[_CONTENT_TYPE] == _tlv((6, bytes.fromhex("2a864886f70d0109100104"))))
        must(self.signed[_MESSAGE_DIGEST] == _tlv((4, digest(self.content))))
        must(hashlib.sha256(certificate).digest() in self.signed[_CERTIFICATE_V2])
        key = parsed.public_key()
        algorithm = {32: hashes.SHA256, 48: hashes.SHA384, 64: hashes.SHA512}[len(digest(b""))]()
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(self.signature, self.attributes, padding.PKCS1v15(), algorithm)
        else:
            must(isinstance(key, ec.EllipticCurvePublicKey))
            key.verify(self.signature, self.attributes, ec.ECDSA(algorithm))  # type: ignore[union-attr, call-arg, arg-type]
        return at

    def _named_by(self, certificate: bytes) -> bool:
        parsed = x509.load_der_x509_certificate(certificate)
        if self.sid[0] == 0x80:
            return parsed.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest == self.sid[1]
        issuer, serial = self._children(self.sid[1])
        return parsed.issuer.public_bytes() == _tlv(issuer) and parsed.serial_number == int.from_bytes(serial[1], "big")

    @staticmethod
    def _children(content: bytes) -> list[tuple[int, bytes]]:
        found = []
        while content:
            tag, length, start = content[0], content[1], 2
            if length & 0x80:
                start += length & 0x7F
                length = int.from_bytes(content[2:start], "big")
                must(length > 0x7F and content[2])
            must(len(content) >= start + length)
            found.append((tag, content[start : start + length]))
            content = content[start + length :]
        return found

    @classmethod
    def _only(cls, content: bytes, tag: int) -> bytes:
        ((found, inside),) = cls._children(content)
        must(found == tag)
        return inside


_CONTENT_TYPE, _MESSAGE_DIGEST = (bytes.fromhex(f"2a864886f70d0109{n}") for n in ("03", "04"))
_CERTIFICATE_V2 = bytes.fromhex("2a864886f70d010910022f")
_DIGESTS = {
    bytes.fromhex("2a811ccf55018311"): sm3,
    **{bytes.fromhex(f"60864801650304020{n}"): (lambda data, name=name: hashlib.new(name, data).digest())
       for n, name in ((1, "sha256"), (2, "sha384"), (3, "sha512"))},
}  # fmt: skip


def _tlv(element: tuple[int, bytes]) -> bytes:
    tag, content = element
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    must(len(dict(pairs)) == len(pairs))
    return dict(pairs)
