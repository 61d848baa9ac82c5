"""A file with a passphrase holds one line: nobody can tell whether others belong to the passphrase, so they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliosvfs import KeyFile, KeyFromCommand, KeyFromEnvironment, KeyUnavailableError, Secret


def passphrase_file(folder: Path, content: bytes) -> Path:
    path = folder / "passphrase"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("line", ["some words", " spaces around ", "a\ttab", "a\rreturn", "Grüße", "x" * 64, "two\u2028parts"])
def test_one_line_is_the_passphrase_whatever_ends_it(tmp_path: Path, line: str, end: bytes) -> None:
    path = passphrase_file(tmp_path, line.encode() + end)
    assert KeyFile(path, passphrase=True).secret() == Secret.passphrase(line)


@pytest.mark.parametrize(
    "content",
    [b"some words\n# a note\n", b"some words\n# a note", b"some words\r\n# a note\r\n", b"some words\n\n", b"\nsome words"],
)
def test_more_lines_are_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = passphrase_file(tmp_path, content)
    with pytest.raises(KeyUnavailableError, match="holds more than one line, and a passphrase is one") as caught:
        KeyFile(path, passphrase=True).secret()
    assert str(path) in str(caught.value)
    assert "some words" not in str(caught.value)
    assert "note" not in str(caught.value)


def test_it_is_so_for_commands_and_variables_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOSVFS_TEST_PASSPHRASE", "some words\n# a note")
    for source in (
        KeyFromCommand(["printf", "some words\\n# a note\\n"], passphrase=True),
        KeyFromEnvironment("HELIOSVFS_TEST_PASSPHRASE", passphrase=True),
    ):
        with pytest.raises(KeyUnavailableError, match="holds more than one line"):
            source.secret()
