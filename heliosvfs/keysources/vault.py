"""A key that a key-management service unwraps, in the wire form of Vault's transit engine (OpenBao's is the same).

https://developer.hashicorp.com/vault/api-docs/secret/transit: the service holds a key that never leaves it; beside the database
lies a ciphertext, "vault:v1:...", which only the service turns back into the database's key, for whoever it lets.

One request a time, without following redirects (they would take the token along) and without trying again.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import socket
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from heliosvfs.errors import KeyUnavailableError, UsageError
from heliosvfs.keys import KEY_BYTES, Secret
from heliosvfs.networks import require_network

if TYPE_CHECKING:
    import os

    from heliosvfs.keyring import KeySource

__all__ = ["KeyFromVault"]

_LARGEST = 64 * 1024  # bytes of an answer
_CHUNK = 4096
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_REASONS = {
    400: "it refuses the request: the ciphertext is not of this transit key, or was altered",
    401: "it does not accept the token",
    403: "it does not accept the token, or its policy forbids this key",
    404: "there is no such transit key, or no transit engine at that mount",
    429: "it is asked too often",
    500: "it reports an internal error",
    502: "what stands before it gets no answer from it",
    503: "it is sealed, or down for maintenance",
}


@dataclass(frozen=True)
class KeyFromVault:
    """A key wrapped by a transit key of Vault, or of whatever speaks its protocol.

    Args:
        url: Address of the service, "https://vault.example:8200"; http is accepted for this very machine only (Vault's agent).
        key: Name of the transit key.
        ciphertext: The wrapped key as the service gave it, "vault:v1:..."; or the path of a file that holds it.
        token: Source of the token, a passphrase: ``KeyFromEnvironment("VAULT_TOKEN", passphrase=True)``; None: an agent adds it.
        mount: Where the transit engine is mounted.
        namespace: Namespace, "" for none.
        ca_file: Certificates to trust instead of the system's.
        timeout: Seconds that the whole exchange may take.
    """

    url: str
    key: str
    ciphertext: str | os.PathLike[str] = field(default="", repr=False)
    token: KeySource | None = field(default=None, repr=False)
    mount: str = "transit"
    namespace: str = ""
    ca_file: str | None = None
    timeout: float = 10.0

    def secret(self) -> Secret:
        """Have the service unwrap the key.

        Raises:
            KeyUnavailableError: The service can't be reached, refuses, takes too long, or answers something else.
            UsageError: The address or the ciphertext is none.
            PolicyViolationError: Networks are not to be used (heliosvfs.networks).
        """
        data = self._ask("decrypt", {"ciphertext": self._wrapped()})
        try:
            key = base64.b64decode(data["plaintext"], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error):
            key = b""
        if len(key) != KEY_BYTES:
            msg = f"{self._where} gave something that is no key of {KEY_BYTES} bytes"
            raise KeyUnavailableError(msg)
        return Secret.raw(key)

    def wrap_new_key(self) -> str:
        """Have the service make a new key and return it wrapped, to be kept beside the database; nobody sees the key itself.

        Raises:
            KeyUnavailableError, UsageError, PolicyViolationError: As `secret`.
        """
        data = self._ask("datakey/wrapped", {"bits": KEY_BYTES * 8})
        wrapped = data.get("ciphertext")
        if not isinstance(wrapped, str) or not wrapped.startswith("vault:"):
            msg = f"{self._where} gave something that is no wrapped key"
            raise KeyUnavailableError(msg)
        return wrapped

    @property
    def _where(self) -> str:
        return f"the key service {urlsplit(self.url).netloc.rpartition('@')[2]} (transit key {self.key!r})"

    def _wrapped(self) -> str:
        text = self.ciphertext
        if not isinstance(text, str) or not text.startswith("vault:"):
            try:
                text = Path(text).read_text(encoding="ascii").strip() if text else ""
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is no text"
                msg = f"the wrapped key of {self._where} can't be read: {why}"
                raise KeyUnavailableError(msg) from None
        if not text.startswith("vault:"):
            msg = f"the wrapped key of {self._where} is text that starts with 'vault:'; KeyFromVault.wrap_new_key() makes one"
            raise UsageError(msg)
        return text

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "https" and parts.hostname:
            try:
                context = ssl.create_default_context(cafile=self.ca_file)
            except OSError as error:
                msg = f"the certificates {self.ca_file} can't be read: {error.strerror or 'they are none'}"
                raise KeyUnavailableError(msg) from None
            return http.client.HTTPSConnection(parts.hostname, parts.port or 8200, timeout=seconds, context=context)
        if parts.scheme == "http" and parts.hostname in _LOOPBACK:
            return http.client.HTTPConnection(parts.hostname, parts.port or 8200, timeout=seconds)
        msg = f"the address of a key service is https://..., not {parts.scheme or self.url!r}: its answer is the key in the clear"
        raise UsageError(msg)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "X-Vault-Request": "true"}
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        if self.token is not None:
            secret = self.token.secret()
            if secret.kind != "passphrase":
                msg = "the token of a key service is a passphrase: give its source passphrase=True"
                raise UsageError(msg)
            headers["X-Vault-Token"] = secret.value.decode()
        return headers

    def _ask(self, operation: str, document: dict[str, Any]) -> dict[str, Any]:
        require_network("a key from Vault")
        deadline = time.monotonic() + self.timeout
        connection = self._connection(self.timeout)
        path = f"/v1/{quote(self.mount)}/{operation}/{quote(self.key, safe='')}"
        try:
            connection.request("POST", path, json.dumps(document), self._headers())
            answer = self._answer(connection, deadline)
        except KeyUnavailableError:
            raise
        except TimeoutError:
            msg = f"{self._where} gave no key within {self.timeout:g} seconds"
        except ssl.SSLError as error:
            msg = f"{self._where} is not trusted: {getattr(error, 'verify_message', '') or error.reason or 'TLS failed'}"
        except socket.gaierror:
            msg = f"{self._where} can't be reached: there is no such host"
        except OSError as error:
            msg = f"{self._where} can't be reached: {error.strerror or type(error).__name__}"
        except (http.client.HTTPException, ValueError):
            msg = f"{self._where} answers something that is not Vault's protocol"
        else:
            data = answer.get("data") if isinstance(answer, dict) else None
            if isinstance(data, dict):
                return data
            msg = f"{self._where} answers something that is not Vault's protocol"
        finally:
            connection.close()
        raise KeyUnavailableError(msg)

    def _answer(self, connection: http.client.HTTPConnection, deadline: float) -> Any:
        """Read the answer within the time that is left, however slowly it comes."""
        content = b""
        with connection.getresponse() as answer:
            if answer.status != http.client.OK:
                redirected = answer.status // 100 == 3  # noqa: PLR2004 - RFC 9110, 15.4
                reason = _REASONS.get(answer.status, "redirects are not followed" if redirected else "unexpected")
                msg = f"{self._where} gave no key: {reason} (HTTP {answer.status})"
                raise KeyUnavailableError(msg)
            while chunk := answer.read1(_CHUNK):
                content += chunk
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                if len(content) > _LARGEST:
                    raise http.client.HTTPException
                if connection.sock is not None:
                    connection.sock.settimeout(left)
        return json.loads(content)
