"""Keys from a service with Vault's transit protocol: its wire form, and a message for each way in which it fails."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs import KeyFile, KeyFromEnvironment, KeyUnavailableError, UsageError
from heliosvfs.keysources import CachedKey, KeyFromVault
from tests.keylife.transit import TOKEN, TransitService, certificate


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[TransitService]:
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    made = TransitService()
    yield made
    made.close()


def source(service: TransitService) -> KeyFromVault:
    made = KeyFromVault(service.url, "clinic", token=KeyFromEnvironment("VAULT_TOKEN", passphrase=True), timeout=5)
    return replace(made, ciphertext=made.wrap_new_key())


def test_a_database_opens_with_a_key_that_the_service_unwraps(tmp_path: Path, service: TransitService) -> None:
    made = source(service)
    with closing(heliosvfs.connect(tmp_path / "db", key=made)) as connection:
        connection.execute("CREATE TABLE t(x)")
    assert [path for path, _ in service.requests] == ["/v1/transit/datakey/wrapped/clinic", "/v1/transit/decrypt/clinic"]
    assert service.requests[0][1]["X-Vault-Token"] == TOKEN
    (tmp_path / "wrapped").write_text(f"{made.ciphertext}\n")
    heliosvfs.connect(tmp_path / "db", key=replace(made, ciphertext=tmp_path / "wrapped"), create=False).close()
    with pytest.raises(heliosvfs.WrongKeyError):
        heliosvfs.connect(tmp_path / "db", key=source(service), create=False)
    assert TOKEN not in repr(made)
    assert str(made.ciphertext) not in repr(made)


def test_a_namespace_and_another_mount_are_sent(service: TransitService) -> None:
    made = replace(source(service), namespace="team/a", mount="other")
    with pytest.raises(KeyUnavailableError, match="no transit engine at that mount"):
        made.secret()
    path, headers = service.requests[-1]
    assert path == "/v1/other/decrypt/clinic"
    assert headers["X-Vault-Namespace"] == "team/a"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("400", "not of this transit key, or was altered"),
        ("403", "does not accept the token"),
        ("404", "no such transit key"),
        ("429", "asked too often"),
        ("500", "internal error"),
        ("503", "sealed"),
        ("302", "redirects are not followed"),
        ("307", "redirects are not followed"),
        ("418", r"unexpected \(HTTP 418\)"),
        ("no JSON", "not Vault's protocol"),
        ("no data", "not Vault's protocol"),
        ("a list", "not Vault's protocol"),
        ("huge", "not Vault's protocol"),
        ("no key", "no key of 32 bytes"),
        ("no base64", "no key of 32 bytes"),
    ],
)
def test_each_failure_has_its_message_and_is_not_tried_again(service: TransitService, fault: str, says: str) -> None:
    made = source(service)
    service.fault, before = fault, len(service.requests)
    with pytest.raises(KeyUnavailableError, match=says) as caught:
        made.secret()
    assert len(service.requests) == before + 1
    assert "a reason that may hold anything" not in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("fault", ["slow", "dribbling"])
def test_the_whole_exchange_takes_no_longer_than_it_may(service: TransitService, fault: str) -> None:
    """A service that sends a byte now and then would otherwise hold the program for ever."""
    made = replace(source(service), timeout=0.4)
    service.fault = fault
    begin = time.monotonic()
    with pytest.raises(KeyUnavailableError, match=r"within 0.4 seconds"):
        made.secret()
    assert time.monotonic() - begin < 30


def test_another_keys_ciphertext_and_an_altered_one_are_refused(service: TransitService) -> None:
    made = source(service)
    text = str(made.ciphertext)
    altered = text[:20] + ("A" if text[20] != "A" else "B") + text[21:]
    with pytest.raises(KeyUnavailableError, match="was altered"):
        replace(made, ciphertext=altered).secret()


def test_a_wrong_token_is_told(service: TransitService, monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(service)
    monkeypatch.setenv("VAULT_TOKEN", "s.another")
    with pytest.raises(KeyUnavailableError, match="does not accept the token"):
        made.secret()
    monkeypatch.delenv("VAULT_TOKEN")
    with pytest.raises(KeyUnavailableError, match="VAULT_TOKEN is not set"):
        made.secret()


def test_a_service_that_is_not_there_is_told() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(KeyUnavailableError, match="can't be reached"):
        KeyFromVault(f"http://127.0.0.1:{port}", "clinic", "vault:v1:x").secret()
    with pytest.raises(KeyUnavailableError, match="no such host"):
        KeyFromVault("https://no-such-host.invalid", "clinic", "vault:v1:x").secret()


def test_a_key_never_travels_in_the_clear_to_another_machine() -> None:
    for url in ("http://vault.example:8200", "ftp://127.0.0.1", "vault.example", "https://"):
        with pytest.raises(UsageError, match="https"):
            KeyFromVault(url, "clinic", "vault:v1:x").secret()


def test_what_is_no_wrapped_key_is_told(tmp_path: Path, service: TransitService) -> None:
    made = source(service)
    (tmp_path / "wrapped").write_text("not a wrapped key")
    for nonsense in ("", tmp_path / "wrapped"):
        with pytest.raises(UsageError, match="wrap_new_key"):
            replace(made, ciphertext=nonsense).secret()
    with pytest.raises(KeyUnavailableError, match="No such file"):
        replace(made, ciphertext=tmp_path / "missing").secret()


def test_only_a_trusted_certificate_is_talked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    tls = certificate(tmp_path)
    made = TransitService(tls)
    try:
        untrusting = KeyFromVault(made.url, "clinic", "vault:v1:x", token=KeyFromEnvironment("VAULT_TOKEN", passphrase=True))
        with pytest.raises(KeyUnavailableError, match="is not trusted"):
            untrusting.secret()
        assert made.requests == [], "the token was sent to whoever answered"
        trusting = replace(untrusting, ca_file=str(tls[0]))
        assert len(replace(trusting, ciphertext=trusting.wrap_new_key()).secret().value) == 32
        with pytest.raises(KeyUnavailableError, match="is not trusted"):
            replace(trusting, url=made.url.replace("127.0.0.1", "localhost")).secret()
        with pytest.raises(KeyUnavailableError, match="certificates"):
            replace(trusting, ca_file=str(tmp_path / "missing.pem")).secret()
    finally:
        made.close()


def test_a_token_file_serves_as_well_and_a_raw_key_does_not(tmp_path: Path, service: TransitService) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    assert len(replace(source(service), token=KeyFile(token, passphrase=True)).secret().value) == 32
    token.write_text("0" * 64)
    with pytest.raises(UsageError, match="passphrase=True"):
        replace(source(service), token=KeyFile(token)).secret()


def test_a_cached_key_causes_one_request_and_a_cached_failure_one_too(service: TransitService) -> None:
    made = source(service)
    service.requests.clear()
    cached = CachedKey(made, seconds=3600, failure_seconds=3600)
    assert cached.secret() == cached.secret() == cached.secret()
    assert len(service.requests) == 1
    service.fault = "503"
    cached.forget()
    for _ in range(5):
        with pytest.raises(KeyUnavailableError, match="sealed"):
            cached.secret()
    assert len(service.requests) == 2
