"""Key sources by name, those of other packages, and keys that are kept for a stated time."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs import KeyFile, KeyFromEnvironment, KeySource, KeyUnavailableError, Secret, UsageError
from heliosvfs.keysources import CachedKey, KeyFromVault, key_source, key_sources

KEY = bytes(range(32))


@dataclass
class Counting:
    """A source that counts how often it is asked, and fails when it is told to."""

    fails: bool = False
    asked: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def secret(self) -> Secret:
        self.asked += 1
        self.gate.wait(0.05)
        if self.fails:
            raise KeyUnavailableError("it is down")
        return Secret.raw(KEY)


def test_ours_are_made_by_name() -> None:
    assert {"file", "environment", "command", "keyring", "pkcs11", "vault"} <= set(key_sources())
    assert key_source("file", path="/key") == KeyFile("/key")
    assert key_source("environment", name="A_KEY", passphrase=True) == KeyFromEnvironment("A_KEY", passphrase=True)
    assert key_source("vault", url="https://vault", key="clinic") == KeyFromVault("https://vault", "clinic")
    assert isinstance(key_source("command", argv=["true"]), KeySource)


def test_an_unknown_name_or_option_is_told_without_its_value() -> None:
    with pytest.raises(UsageError, match=r"no key source named 'tpm'; there are .*vault"):
        key_source("tpm")
    with pytest.raises(UsageError, match="does not take the options path, secret") as caught:
        key_source("file", path="/key", secret="a passphrase")
    assert "a passphrase" not in str(caught.value)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that declares key sources."""
    (tmp_path / "acme_keys.py").write_text(
        "import heliosvfs\n"
        "class Smartcard:\n"
        "    def __init__(self, slot): self.slot = slot\n"
        "    def secret(self): return heliosvfs.Secret.raw(bytes([self.slot]) * 32)\n"
        "class Nothing: pass\n"
    )
    info = tmp_path / "acme_keys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-keys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[heliosvfs.key_sources]\n"
        "smartcard = acme_keys:Smartcard\n"
        "nothing = acme_keys:Nothing\n"
        "broken = acme_keys_missing:Smartcard\n"
        "file = acme_keys:Nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "acme_keys", raising=False)
    return tmp_path


def test_another_package_adds_a_source_by_an_entry_point(package: Path) -> None:
    assert "smartcard" in key_sources()
    path = package / "db"
    heliosvfs.connect(path, key=key_source("smartcard", slot=7)).close()
    heliosvfs.connect(path, key=bytes([7]) * 32, create=False).close()


def test_a_package_that_is_broken_or_would_replace_ours_is_told(package: Path) -> None:
    assert package.exists()
    with pytest.raises(KeyUnavailableError, match="can't be loaded: ModuleNotFoundError"):
        key_source("broken")
    with pytest.raises(UsageError, match="no method secret"):
        key_source("nothing")
    assert isinstance(key_source("file", path="/key"), KeyFile)


def test_a_key_is_asked_for_again_when_its_time_is_over() -> None:
    source = Counting()
    for seconds, expected in ((3600.0, 1), (0.0, 5)):
        source.asked = 0
        cached = CachedKey(source, seconds)
        assert [cached.secret().value for _ in range(5)] == [KEY] * 5
        assert source.asked == expected
    assert cached._found is None, "kept although it was to be kept for no time"
    cached = CachedKey(source, 3600)
    cached.secret()
    cached.forget()
    cached.secret()
    assert source.asked == 7
    assert KEY.hex() not in repr(cached)
    with pytest.raises(UsageError):
        CachedKey(source, -1)


@pytest.mark.parametrize("fails", [False, True])
def test_many_who_ask_at_once_cause_one_request(fails: bool) -> None:
    source = Counting(fails=fails)
    cached = CachedKey(source, 3600, failure_seconds=3600)
    outcomes: list[str] = []

    def ask() -> None:
        try:
            cached.secret()
            outcomes.append("key")
        except KeyUnavailableError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.asked == 1
    assert outcomes == ["it is down" if fails else "key"] * 20
