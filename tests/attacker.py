"""An attacker as a process of its own: `python -m tests.attacker`, what it knows as JSON on standard input.

It stands inside the network with a member's stolen TLS certificate and key, a captured request, and knowledge of every
address, org id and pseudonym. It has no member's ledger key. It prints one JSON object: attempt -> what came of it, an
HTTP status, or "no channel" when TLS let nothing through.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from anchor import gm
from bridge.peer_signature import sign_headers
from bridge.pki import tls_certificates as tls
from bridge.services import access_request
from bridge.services.exchange import REQUEST_PATH

SECONDS = 30.0
OWN_ORG = "12330000000000999X"  # looks like an org id; the ledger has no such member


class Attacker:
    """``known``: chain, holder (org, endpoint), members (org ids), pid, stolen (TLS files), captured (a request)."""

    def __init__(self, known: dict[str, Any], directory: Path) -> None:
        self._known, self._directory = known, directory
        self._key = gm.PrivateKey.generate()

    def attempts(self) -> dict[str, str]:
        """Try everything; return what came of each."""
        stolen, captured = self._stolen(), self._known["captured"]
        headers = {name: value for name, value in captured["headers"].items() if name.lower() != "content-length"}
        found = {
            "replayed": self._send(stolen, headers, captured["body"].encode()),
            "replayed with another body": self._send(stolen, headers, b"{}"),
            "no certificate": self._send(self._context(), *self._forged(OWN_ORG)),
            "a certificate of its own": self._send(self._own(), *self._forged(OWN_ORG)),
            "as nobody's member": self._send(stolen, *self._forged(OWN_ORG)),
            "unsigned": self._send(stolen, {}, captured["body"].encode()),
        }
        for org in self._known["members"]:
            found[f"as {org}"] = self._send(stolen, *self._forged(org))
        return found

    def _forged(self, org: str) -> tuple[dict[str, str], bytes]:
        """Return headers and body of a request in an institution's name, signed by the attacker's own key."""
        now, holder = int(time.time()), self._known["holder"]
        asked = access_request.build(
            chain=self._known["chain"], requester=org, key=self._key, holder=holder["org"], pid=self._known["pid"],
            purpose="TREAT", now=now,
        )  # fmt: skip
        url = holder["endpoint"] + REQUEST_PATH
        headers = sign_headers("POST", url, asked.dump(), org=org, key=self._key, audience=holder["org"], now=now)
        return headers, asked.dump()

    def _send(self, context: ssl.SSLContext, headers: dict[str, str], body: bytes) -> str:
        address = urlsplit(self._known["holder"]["endpoint"])
        channel = http.client.HTTPSConnection(str(address.hostname), address.port, timeout=SECONDS, context=context)
        try:
            channel.request("POST", REQUEST_PATH, body, headers | {"Content-Type": "application/json"})
            return str(channel.getresponse().status)
        except (OSError, http.client.HTTPException):
            return "no channel"
        finally:
            channel.close()

    def _context(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE  # whom it talks to is all one to an attacker
        return made

    def _stolen(self) -> ssl.SSLContext:
        stolen, made = self._known["stolen"], self._context()
        made.load_cert_chain(stolen["certificate"], stolen["key"], password=stolen["password"])
        return made

    def _own(self) -> ssl.SSLContext:
        """Return a certificate of an authority that calls itself the consortium's."""
        key = tls.new_key()
        forged = tls.new_authority(self._known["chain"], 1, key, time.time(), 1)
        file = self._directory / "own.pem"
        file.write_bytes(tls.pem(forged) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        made = self._context()
        made.load_cert_chain(file)
        return made


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(Attacker(json.load(sys.stdin), Path(place)).attempts()))
