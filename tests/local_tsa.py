"""A real RFC 3161 time-stamping authority on this machine: `openssl ts` behind a tiny HTTP server."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="there is no openssl program here to be the TSA")

_CONFIG = """
[req]
distinguished_name = name
x509_extensions = tsa
prompt = no
[name]
O = Test time stamping
CN = {name}
[tsa]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = {usage}
subjectKeyIdentifier = hash
[ts]
default_tsa = the_tsa
[the_tsa]
serial = {directory}/serial
crypto_device = builtin
signer_cert = {directory}/cert.pem
signer_key = {directory}/key.pem
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sm3
accuracy = secs:1
clock_precision_digits = 0
ess_cert_id_alg = sha256
"""


class LocalTsa:
    """Keys, certificate and the answering of requests; ``mode`` makes it misbehave."""

    def __init__(self, directory: Path, *, key: str = "ec", usage: str = "critical,timeStamping") -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.mode = "honest"
        self.requests = 0
        config = _CONFIG.format(name=f"TSA {key}", usage=usage, directory=directory)
        (directory / "tsa.cnf").write_text(config)
        (directory / "serial").write_text("01")
        kind = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if key == "ec" else [key]
        self._openssl("req", "-x509", "-newkey", *kind, "-nodes", "-days", "30", "-config", "tsa.cnf", "-extensions",
                      "tsa", "-keyout", "key.pem", "-out", "cert.pem")  # fmt: skip
        self._openssl("x509", "-in", "cert.pem", "-outform", "DER", "-out", "cert.der")
        self.certificate = (directory / "cert.der").read_bytes()

    def answer(self, request: bytes) -> bytes:
        """Return the response to a request, as ``openssl ts -reply`` makes it."""
        self.requests += 1
        (self.directory / "request.tsq").write_bytes(request)
        self._openssl("ts", "-reply", "-config", "tsa.cnf", "-section", "the_tsa", "-queryfile", "request.tsq", "-out",
                      "response.tsr")  # fmt: skip
        return (self.directory / "response.tsr").read_bytes()

    def _openssl(self, *arguments: str) -> None:
        assert OPENSSL is not None
        done = subprocess.run([OPENSSL, *arguments], cwd=self.directory, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr.decode()


@contextmanager
def serving(tsa: LocalTsa) -> Iterator[str]:
    """Serve a TSA on a loopback port and give its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/timestamp-query"
            if tsa.mode == "down":
                self.send_error(503)
                return
            content = b"<html>not a time stamp</html>" if tsa.mode == "rubbish" else tsa.answer(request)
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tsa"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
