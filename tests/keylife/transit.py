"""A small key service that speaks Vault's transit protocol, for tests: real AES-GCM, TLS if wanted, and faults on demand."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID

__all__ = ["TOKEN", "TransitService", "certificate"]

TOKEN = "s.a-token-of-the-test"


def certificate(folder: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """Make a self-signed certificate, and return the paths of it and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's key service")])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "service.pem", folder / "service.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


class TransitService:
    """The service; `requests` counts what it was asked.

    Attributes:
        requests: Path and headers of each request.
        fault: What to do wrong: "" for nothing.
    """

    def __init__(self, tls: tuple[Path, Path] | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.fault = ""
        self._keys = {"clinic": os.urandom(32)}
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                service.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request, well or ill."""
        document = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.requests.append((handler.path, dict(handler.headers)))
        if self.fault.isdigit():
            handler.send_response(int(self.fault))
            handler.send_header("Location", self.url + "/elsewhere")
            handler.end_headers()
            handler.wfile.write(b'{"errors": ["a reason that may hold anything"]}')
            return
        status, reply = self._reply(handler, document)
        content = json.dumps(reply).encode()
        content = {
            "no JSON": b"<html>a proxy's page</html>",
            "no data": b'{"errors": []}',
            "a list": b"[1]",
            "no key": b'{"data": {"plaintext": "c2hvcnQ="}}',
            "no base64": b'{"data": {"plaintext": "***"}}',
            "huge": b'{"data": {"plaintext": "' + b"A" * 1_000_000,
        }.get(self.fault, content)
        if self.fault == "slow":
            time.sleep(1)
        try:
            handler.send_response(status)
            handler.end_headers()
            for byte in content if self.fault == "dribbling" else b"":
                handler.wfile.write(bytes([byte]))
                time.sleep(0.05)
            if self.fault != "dribbling":
                handler.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            return

    def _reply(self, handler: BaseHTTPRequestHandler, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if handler.headers["X-Vault-Token"] != TOKEN:
            return 403, {"errors": ["permission denied"]}
        _, version, mount, *operation, name = handler.path.split("/")
        if (version, mount) != ("v1", "transit") or name not in self._keys:
            return 404, {"errors": []}
        cipher = AESGCM(self._keys[name])
        if operation == ["datakey", "wrapped"]:
            nonce = os.urandom(12)
            sealed = nonce + cipher.encrypt(nonce, os.urandom(document["bits"] // 8), None)
            return 200, {"data": {"ciphertext": "vault:v1:" + base64.b64encode(sealed).decode()}}
        try:
            sealed = base64.b64decode(document["ciphertext"].removeprefix("vault:v1:"))
            plain = cipher.decrypt(sealed[:12], sealed[12:], None)
        except (InvalidTag, ValueError):
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}
