"""A key that is given for one file reaches that file, by whatever name it is opened, and no other."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import apsw
import pytest

import heliosvfs

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.db"
    heliosvfs.connect(path, key=OTHER, journal_mode="delete").close()
    return path


def opening(path: Path, seen: list[BaseException | None]) -> Callable[..., bool]:
    """Return a trace hook that opens another file in the middle of each statement."""

    def hook(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        if sql.startswith(("ATTACH", "VACUUM")):
            try:
                with closing(apsw.Connection(str(path), vfs="heliosvfs")) as meanwhile:
                    meanwhile.execute("SELECT * FROM sqlite_schema").fetchall()
                seen.append(None)
            except apsw.Error as error:
                seen.append(error)
        return True

    return hook


def test_a_file_opened_during_attach_does_not_take_its_key(tmp_path: Path, other: Path) -> None:
    seen: list[BaseException | None] = []
    with closing(heliosvfs.connect(tmp_path / "main.db", key=OTHER)) as connection:
        connection.exec_trace = opening(other, seen)
        connection.attach(tmp_path / "second.db", "second", key=KEY)
        connection.execute("CREATE TABLE second.t(x)")
    assert [type(error) for error in seen] == [heliosvfs.KeyUnavailableError]
    heliosvfs.connect(tmp_path / "second.db", key=KEY, create=False).close()


def test_a_file_opened_during_vacuum_into_does_not_take_its_key(tmp_path: Path, other: Path) -> None:
    seen: list[BaseException | None] = []
    with closing(heliosvfs.connect(tmp_path / "main.db", key=OTHER)) as connection:
        connection.exec_trace = opening(other, seen)
        connection.vacuum_into(tmp_path / "copy.db", key=KEY)
    assert [type(error) for error in seen] == [heliosvfs.KeyUnavailableError]
    heliosvfs.connect(tmp_path / "copy.db", key=KEY, create=False).close()


def test_a_file_created_during_attach_is_not_sealed_under_its_key(tmp_path: Path) -> None:
    seen: list[BaseException | None] = []
    with closing(heliosvfs.connect(tmp_path / "main.db", key=OTHER)) as connection:

        def hook(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
            if sql.startswith("ATTACH"):
                with closing(apsw.Connection(str(tmp_path / "new.db"), vfs="heliosvfs")) as meanwhile:
                    try:
                        meanwhile.execute("CREATE TABLE t(x)")
                    except apsw.Error as error:
                        seen.append(error)
            return True

        connection.exec_trace = hook
        connection.attach(tmp_path / "second.db", "second", key=KEY)
    assert [type(error) for error in seen] == [heliosvfs.KeyUnavailableError]


NAMES = {
    "absolute": lambda folder: str(folder / "a b%20.db"),
    "relative": lambda folder: os.path.relpath(folder / "a b%20.db"),
    "with dots": lambda folder: f"{folder}/./{folder.name}/../a b%20.db",
    "a link": lambda folder: str(folder / "link.db"),
    "a URI": lambda folder: f"file:{quote(str(folder / 'a b%20.db'))}?cache=private#end",
    "a URI with an authority": lambda folder: f"file://localhost{quote(str(folder / 'a b%20.db'))}",
    "a URI with an empty authority": lambda folder: f"file://{quote(str(folder / 'a b%20.db'))}",
    "a relative URI": lambda folder: f"file:{quote(os.path.relpath(folder / 'a b%20.db'))}",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_key_reaches_its_file_by_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a b%20.db"
    (tmp_path / tmp_path.name).mkdir()
    heliosvfs.connect(path, key=KEY, journal_mode="delete").close()
    (tmp_path / "link.db").symlink_to(path)
    where = NAMES[name](tmp_path)
    with closing(heliosvfs.connect(where, key=KEY, create=False)) as connection:
        assert os.path.samefile(connection.db_filename("main"), path)
    with closing(heliosvfs.connect(":memory:")) as connection:
        connection.attach(where, "a", key=KEY)
        assert os.path.samefile(connection.db_filename("a"), path)


def test_a_key_reaches_a_file_whose_name_looks_like_a_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was opened without SQLITE_OPEN_URI takes the name literally."""
    monkeypatch.chdir(tmp_path)
    heliosvfs.connect(tmp_path / "main.db", key=OTHER).close()
    heliosvfs.connect("./file:x.db", key=KEY).close()
    plain = heliosvfs.Connection(str(tmp_path / "main.db"), vfs="heliosvfs")
    with closing(plain):
        plain.pragma("key", f"x'{OTHER.hex()}'")
        plain.attach("file:x.db", "x", key=KEY)
        assert plain.db_filename("x") == str(tmp_path / "file:x.db")
