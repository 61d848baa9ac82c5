"""Keys from files, the environment and commands: the forms that are accepted, and errors that never show what was read."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from heliosvfs import KeyFile, KeyFromCommand, KeyFromEnvironment, KeyUnavailableError, Secret, UsageError

KEY = bytes(range(200, 232))
PASSPHRASE = "Grüße aus Zürich"


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "content", [KEY, KEY.hex().encode(), KEY.hex().encode() + b"\n", KEY.hex().upper().encode(), KEY.hex().encode() + b"\r\n"]
)
def test_a_key_file_holds_a_raw_key_in_one_of_two_forms(tmp_path: Path, content: bytes) -> None:
    assert KeyFile(key_file(tmp_path, content)).secret() == Secret.raw(KEY)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        KEY[:31],
        KEY + b"\n",
        KEY.hex()[:63].encode(),
        KEY.hex().encode() + b"\n\n",
        b" " + KEY.hex().encode(),
        KEY.hex().encode() + b" ",
        b"g" * 64,
        b"0x" + KEY.hex().encode(),
        b"a passphrase\n",
        bytes(100_000),
    ],
)
def test_whatever_else_is_no_key_and_is_not_shown(tmp_path: Path, content: bytes) -> None:
    path = key_file(tmp_path, content)
    with pytest.raises(KeyUnavailableError, match="32 raw bytes, or 64 hexadecimal digits") as caught:
        KeyFile(path).secret()
    assert str(path) in str(caught.value)
    assert "passphrase" not in str(caught.value)
    assert KEY.hex()[:16] not in str(caught.value)


@pytest.mark.parametrize("content", [PASSPHRASE.encode(), PASSPHRASE.encode() + b"\n", PASSPHRASE.encode() + b"\r\n"])
def test_a_passphrase_has_to_be_declared(tmp_path: Path, content: bytes) -> None:
    assert KeyFile(key_file(tmp_path, content), passphrase=True).secret() == Secret.passphrase(PASSPHRASE)


def test_a_declared_passphrase_is_never_taken_for_a_key(tmp_path: Path) -> None:
    assert KeyFile(key_file(tmp_path, b"0" * 64), passphrase=True).secret() == Secret.passphrase("0" * 64)
    assert KeyFile(key_file(tmp_path, b"x" * 32), passphrase=True).secret() == Secret.passphrase("x" * 32)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_passphrase_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(KeyUnavailableError):
        KeyFile(key_file(tmp_path, content), passphrase=True).secret()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o777])
def test_a_key_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, KEY, mode)
    with pytest.raises(KeyUnavailableError, match="chmod 600"):
        KeyFile(path).secret()
    assert KeyFile(path, allow_shared=True).secret() == Secret.raw(KEY)


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailableError, match="missing"):
        KeyFile(tmp_path / "missing").secret()
    with pytest.raises(KeyUnavailableError, match="can't be read"):
        KeyFile(tmp_path).secret()


def test_a_variable_holds_hexadecimal_digits_or_a_declared_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY.hex())
    assert KeyFromEnvironment("A_KEY").secret() == Secret.raw(KEY)
    monkeypatch.setenv("A_KEY", PASSPHRASE)
    assert KeyFromEnvironment("A_KEY", passphrase=True).secret() == Secret.passphrase(PASSPHRASE)
    with pytest.raises(KeyUnavailableError) as caught:
        KeyFromEnvironment("A_KEY").secret()
    assert PASSPHRASE not in str(caught.value)
    assert "A_KEY" in str(caught.value)


def test_a_variable_that_is_not_set_or_empty_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(KeyUnavailableError, match="A_KEY is not set"):
        KeyFromEnvironment("A_KEY").secret()
    monkeypatch.setenv("A_KEY", "")
    with pytest.raises(KeyUnavailableError, match="A_KEY is empty"):
        KeyFromEnvironment("A_KEY", passphrase=True).secret()


def command(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_command_prints_the_key() -> None:
    assert KeyFromCommand(command(f"print('{KEY.hex()}')")).secret() == Secret.raw(KEY)
    assert KeyFromCommand(command("print('some words')"), passphrase=True).secret() == Secret.passphrase("some words")


def test_a_command_gets_no_shell_and_no_input() -> None:
    """A vault's client that asks for a password would otherwise wait for ever."""
    assert KeyFromCommand(
        [*command("import sys; print(sys.argv[1])"), "$HOME; echo"], passphrase=True
    ).secret() == Secret.passphrase("$HOME; echo")
    assert KeyFromCommand(
        command("import sys; print(sys.stdin.read() + 'nothing')"), passphrase=True
    ).secret() == Secret.passphrase("nothing")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("print('no key at all')", "no key"),
        ("", "no key"),
        (f"print('{KEY.hex()}'); raise SystemExit(3)", "exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", "exit status -9"),
    ],
)
def test_a_command_that_gives_no_key_is_told_and_not_repeated(code: str, says: str) -> None:
    with pytest.raises(KeyUnavailableError, match=says) as caught:
        KeyFromCommand(command(code)).secret()
    assert "at all" not in str(caught.value)
    assert KEY.hex() not in str(caught.value)


def test_a_command_that_takes_too_long_is_ended() -> None:
    begin = time.monotonic()
    with pytest.raises(KeyUnavailableError, match=r"within 0.2 seconds"):
        KeyFromCommand(command("import time; time.sleep(60)"), timeout=0.2).secret()
    assert time.monotonic() - begin < 30


def test_a_command_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailableError, match="can't be started"):
        KeyFromCommand([str(tmp_path / "missing")]).secret()
    for argv in ("echo key", [], ()):
        with pytest.raises(UsageError, match="list"):
            KeyFromCommand(argv).secret()
