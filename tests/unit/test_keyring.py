"""Secrets by name, and unlocked keys shared in a process: who gets them, for how long, and who does not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs import keyring
from heliosvfs.keyring import Keyring, as_secret
from heliosvfs.keys import KdfSettings, Secret
from heliosvfs.vfs import files_of

KEY = bytes(range(32))
PASSPHRASE = "the passphrase"
CHEAP = KdfSettings(memory_kib=8192, passes=1, lanes=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    heliosvfs.connect(tmp_path / "db", key=PASSPHRASE, settings=CHEAP).close()
    return tmp_path / "db"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each run of a KDF."""
    counted: list[str] = []
    derive: Callable[..., bytes] = keyring.derive_kek

    def counting(*arguments: object, **options: object) -> bytes:
        counted.append("run")
        return derive(*arguments, **options)

    monkeypatch.setattr(keyring, "derive_kek", counting)
    return counted


def test_what_callers_give_becomes_a_secret() -> None:
    assert as_secret("text") == Secret.passphrase("text")
    for raw in (KEY, bytearray(KEY), memoryview(KEY)):
        assert as_secret(raw) == Secret.raw(KEY)
    assert as_secret(Secret.raw(KEY)) == Secret.raw(KEY)


def test_a_raw_key_is_a_copy_of_what_was_given() -> None:
    """The caller may wipe its own."""
    given = bytearray(KEY)
    secret = as_secret(given)
    given[:] = bytes(32)
    assert secret.value == KEY


def test_a_keyring_gives_named_keys_and_its_default() -> None:
    ring = Keyring(default="the default")
    ring.add("one", KEY)
    assert ring.named("one") == Secret.raw(KEY)
    assert ring.default() == Secret.passphrase("the default")
    ring.add("one", "another")
    assert ring.named("one") == Secret.passphrase("another")
    ring.discard("one")
    ring.discard("one")
    with pytest.raises(heliosvfs.KeyUnavailableError, match="'one'"):
        ring.named("one")
    assert Keyring().default() is None


def test_the_second_connection_runs_no_kdf(path: Path, runs: list[str]) -> None:
    with closing(heliosvfs.connect(path, key=PASSPHRASE)):
        assert len(runs) == 1
        for _ in range(3):
            heliosvfs.connect(path, key=PASSPHRASE).close()
        assert len(runs) == 1
    heliosvfs.connect(path, key=PASSPHRASE).close()
    assert len(runs) == 2


def test_another_secret_runs_its_own_kdf_and_is_refused(path: Path, runs: list[str]) -> None:
    """That somebody has unlocked the file is no reason to let in whoever comes next."""
    with closing(heliosvfs.connect(path, key=PASSPHRASE)):
        with pytest.raises(heliosvfs.WrongKeyError):
            heliosvfs.connect(path, key="another")
        assert len(runs) == 2
        with pytest.raises(heliosvfs.KeyUnavailableError):
            heliosvfs.connect(path)


def test_each_of_two_secrets_is_remembered(path: Path, runs: list[str]) -> None:
    with closing(heliosvfs.connect(path, key=PASSPHRASE)) as one:
        one.add_key(KEY, label="raw")
        before = len(runs)
        with closing(heliosvfs.connect(path, key=KEY)) as two, closing(heliosvfs.connect(path, key=PASSPHRASE)):
            assert len(runs) == before
            assert files_of(one)[0].access.master is files_of(two)[0].access.master


def test_a_revoked_secret_is_not_remembered(path: Path) -> None:
    with closing(heliosvfs.connect(path, key=PASSPHRASE)) as one:
        one.add_key(KEY, label="raw")
        heliosvfs.connect(path, key=KEY).close()
        one.revoke_key("raw")
        with pytest.raises(heliosvfs.WrongKeyError):
            heliosvfs.connect(path, key=KEY)


def test_a_changed_secret_is_not_remembered(path: Path) -> None:
    with closing(heliosvfs.connect(path, key=PASSPHRASE)) as one:
        one.change_key(KEY)
        heliosvfs.connect(path, key=KEY).close()
        with pytest.raises(heliosvfs.WrongKeyError):
            heliosvfs.connect(path, key=PASSPHRASE)


def test_the_key_is_wiped_when_the_last_user_closes(path: Path) -> None:
    one, two = (heliosvfs.connect(path, key=PASSPHRASE) for _ in range(2))
    master = files_of(one)[0].access.master
    keks = [presented.kek for presented in master.presented.values()]
    epochs = [key for connection in (one, two) for key in files_of(connection)[0].access.require_keys()._epochs.values()]
    one.close()
    assert any(master.key)
    two.close()
    assert keks
    assert epochs
    for key in (master.key, *keks, *epochs):
        assert not any(key)
    assert master.uuid not in keyring._unlocked


@pytest.mark.usefixtures("freeing")
def test_a_failed_open_keeps_no_key(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[32 * 1024 + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(heliosvfs.TamperedError):
        heliosvfs.connect(path, key=PASSPHRASE)
    assert not keyring._unlocked


@pytest.mark.usefixtures("freeing")
def test_a_connection_that_is_dropped_keeps_no_key(path: Path) -> None:
    connection = heliosvfs.connect(path, key=PASSPHRASE)
    connection.execute("SELECT * FROM sqlite_schema").fetchall()
    del connection
    assert not keyring._unlocked


def test_a_file_with_a_copied_uuid_gains_nothing(path: Path, tmp_path: Path) -> None:
    """A forged superblock that names the UUID and salt of an open file must not be vouched for by that file's keys."""
    with closing(heliosvfs.connect(path, key=PASSPHRASE)):
        data = bytearray(path.read_bytes())
        data[64 + 2] ^= 0
        forged = tmp_path / "forged"
        from tests.tamper.samples import forge  # noqa: PLC0415 - one test's

        forged.write_bytes(data)
        forge(forged, lambda document: document.update(created="1999-01-01T00:00:00Z"))
        with pytest.raises(heliosvfs.TamperedError):
            heliosvfs.connect(forged, key=PASSPHRASE)


@pytest.mark.usefixtures("freeing")
def test_threads_that_open_and_close_share_and_wipe(path: Path) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                with closing(heliosvfs.connect(path, key=PASSPHRASE)) as connection:
                    connection.execute("SELECT * FROM sqlite_schema").fetchall()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not keyring._unlocked


def test_a_slot_that_fips_mode_allows_is_found_behind_one_that_it_does_not(path: Path) -> None:
    with closing(heliosvfs.connect(path, key=PASSPHRASE)) as connection:
        connection.add_key("the approved passphrase", label="approved", settings=KdfSettings(fips_mode=True))
    heliosvfs.connect(path, key="the approved passphrase", settings=KdfSettings(fips_mode=True)).close()
    with pytest.raises(heliosvfs.PolicyViolationError, match="FIPS"):
        heliosvfs.connect(path, key=PASSPHRASE, settings=KdfSettings(fips_mode=True))


def test_fips_mode_is_not_got_round_by_an_open_connection(path: Path) -> None:
    """The key that another connection derived with Argon2id is not an approved one either."""
    with closing(heliosvfs.connect(path, key=PASSPHRASE)), pytest.raises(heliosvfs.PolicyViolationError, match="FIPS"):
        heliosvfs.connect(path, key=PASSPHRASE, settings=KdfSettings(fips_mode=True))
