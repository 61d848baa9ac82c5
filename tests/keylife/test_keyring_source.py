"""Keys in the operating system's keyring, through the keyring library's own backends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs import KeyUnavailableError, Secret
from heliosvfs.keysources import KeyFromKeyring

keyring = pytest.importorskip("keyring")
errors = pytest.importorskip("keyring.errors")
backends = pytest.importorskip("keyring.backend")
fail = pytest.importorskip("keyring.backends.fail")

KEY = bytes(range(100, 132))


class DictionaryKeyring(backends.KeyringBackend):  # type: ignore[misc, name-defined]
    """A backend like those that other packages bring, which can be locked."""

    priority = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}
        self.failure: Exception | None = None

    def get_password(self, service: str, username: str) -> str | None:
        if self.failure is not None:
            raise self.failure
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


@pytest.fixture
def backend() -> Iterator[DictionaryKeyring]:
    before = keyring.get_keyring()
    made = DictionaryKeyring()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def test_a_database_opens_with_a_key_from_the_keyring(tmp_path: Path, backend: DictionaryKeyring) -> None:
    backend.set_password("clinic", "app", KEY.hex())
    with closing(heliosvfs.connect(tmp_path / "db", key=KeyFromKeyring("clinic", "app"))) as connection:
        connection.execute("CREATE TABLE t(x)")
    heliosvfs.connect(tmp_path / "db", key=KEY, create=False).close()


def test_a_passphrase_has_to_be_declared(backend: DictionaryKeyring) -> None:
    backend.set_password("clinic", "app", "some words")
    assert KeyFromKeyring("clinic", "app", passphrase=True).secret() == Secret.passphrase("some words")
    with pytest.raises(KeyUnavailableError, match="no key; expected") as caught:
        KeyFromKeyring("clinic", "app").secret()
    assert "some words" not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (None, "does not exist: `keyring set clinic app`"),
        (errors.KeyringLocked(), "is locked"),
        (errors.InitError(), "can't be opened"),
        (errors.PasswordSetError(), "reports PasswordSetError"),
    ],
)
def test_each_failure_has_its_message(backend: DictionaryKeyring, failure: Exception | None, says: str) -> None:
    backend.failure = failure
    with pytest.raises(KeyUnavailableError, match=says):
        KeyFromKeyring("clinic", "app").secret()


def test_a_system_without_a_keyring_is_told(backend: DictionaryKeyring) -> None:
    assert backend is keyring.get_keyring()
    keyring.set_keyring(fail.Keyring())
    with pytest.raises(KeyUnavailableError, match="no keyring"):
        KeyFromKeyring("clinic", "app").secret()


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(KeyUnavailableError, match=r"heliosvfs\[keyring\]"):
        KeyFromKeyring("clinic", "app").secret()
