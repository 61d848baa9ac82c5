"""No byte of content reaches any file in the clear, in no mode and at no moment."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.convert import encrypt
from heliosvfs.vfs.filesystem import HeliosVFS

KEY = bytes(range(32))
MARKER = "a marker that no random byte string holds"
WINDOW = 8
SUPERBLOCK = 32768
CHINOOK = Path(__file__).parents[3] / "shared" / "data" / "chinook.sqlite"


TEMPORARY = {
    "statement journal": apsw.SQLITE_OPEN_SUBJOURNAL,
    "sort": apsw.SQLITE_OPEN_TEMP_JOURNAL,
    "temporary database": apsw.SQLITE_OPEN_TEMP_DB,
}
SUPER_JOURNAL = "super-journal"
ROLLBACK = {"delete", "truncate", "persist"}
BESIDE = {
    **{mode: {"db-journal", "statement journal", SUPER_JOURNAL} for mode in ROLLBACK},
    "memory": set(),
    "off": set(),
    "wal": {"db-wal", "statement journal"},
}


class _RecordingFile(apsw.VFSFile):
    def __init__(self, base: str, name: str | apsw.URIFilename | None, flags: list[int], written: dict[str, list[bytes]]) -> None:
        super().__init__(base, name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        kind = next((kind for kind, flag in TEMPORARY.items() if flags[0] & flag), "temporary")
        self._written = written[kind if path is None else path]

    def xWrite(self, data: bytes, offset: int) -> None:
        self._written.append(bytes(data))
        super().xWrite(data, offset)


class RecordingVFS(apsw.VFS):
    """A base VFS that keeps every byte written through it."""

    def __init__(self, name: str) -> None:
        self.written: dict[str, list[bytes]] = defaultdict(list)
        super().__init__(name, "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _RecordingFile("unix", name, flags, self.written)


@pytest.fixture
def recorded() -> Iterator[RecordingVFS]:
    base = RecordingVFS("recording")
    vfs = HeliosVFS("over-recording", base="recording")
    yield base
    vfs.unregister()
    base.unregister()


@pytest.mark.parametrize("journal_mode", ["delete", "truncate", "persist", "memory", "off", "wal"])
def test_nothing_below_the_vfs_is_plaintext(tmp_path: Path, recorded: RecordingVFS, journal_mode: str) -> None:
    """Statement journals, sorts, VACUUM's copy, super-journals and backups included."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, vfs="over-recording", journal_mode=journal_mode, page_size=1024)) as connection:
        connection.pragma("cache_size", 10)
        connection.pragma("temp_store", 1)
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b TEXT)")
        with connection:
            connection.executemany("INSERT INTO t(a, b) VALUES(?, ?)", ((f"{MARKER} {n}", MARKER * (n % 50)) for n in range(400)))
        connection.execute("BEGIN; UPDATE t SET b = b || ?", (MARKER,))
        # fails on its last row, so that SQLite needs the statement journal to undo the others
        with pytest.raises(apsw.ConstraintError):
            connection.execute("UPDATE t SET a = CASE WHEN id = 400 THEN (SELECT a FROM t WHERE id = 1) ELSE a || '!' END")
        connection.execute("COMMIT")
        assert len(connection.execute("SELECT * FROM t ORDER BY b, a DESC").fetchall()) == 400
        connection.execute("CREATE TEMP TABLE s AS SELECT * FROM t; CREATE INDEX temp.s_b ON s(b)")
        connection.attach(tmp_path / "aux", "aux", key=b"a" * 32)
        connection.execute("BEGIN; CREATE TABLE aux.u AS SELECT * FROM t; DELETE FROM t WHERE id % 2; COMMIT")
        connection.execute("VACUUM")
        connection.execute("VACUUM INTO ?", (str(tmp_path / "into"),))
        with (
            closing(heliosvfs.connect(tmp_path / "backup", key=b"b" * 32, vfs="over-recording", page_size=1024)) as copy,
            copy.backup("main", connection, "main") as backup,
        ):
            backup.step()
    written = {
        SUPER_JOURNAL if "-mj" in name else Path(name).name for name, pieces in recorded.written.items() if b"".join(pieces)
    }
    assert written >= {"db", "aux", "into", "backup", "backup-wal", "sort", "temporary database", *BESIDE[journal_mode]}
    journal = b"".join(recorded.written[f"{path}-journal"])
    assert (len(journal) > 100_000) == (journal_mode in ROLLBACK), "a database is made with a journal, of headers only"
    for name, pieces in recorded.written.items():
        data = b"\n".join(pieces)
        assert MARKER[:WINDOW].encode() not in data, name
        assert MARKER[-WINDOW:].encode() not in data, name
        assert b"SQLite format 3" not in data, name


def _source(folder: Path) -> Path:
    """Return a copy of the Chinook database, or a database with as many texts where it is not beside the checkout."""
    path = folder / "source.db"
    if CHINOOK.exists():
        shutil.copy(CHINOOK, path)
        return path
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE Track(TrackId INTEGER PRIMARY KEY, Name TEXT, Composer TEXT)")
        rows = ((f"The {n * 7919 % 10007} song of the {n}th evening", f"composer number {n % 300}") for n in range(3500))
        connection.executemany("INSERT INTO Track(Name, Composer) VALUES(?, ?)", rows)
        connection.commit()
    return path


def windows_of(path: Path) -> set[bytes]:
    """Return every run of 8 bytes of every text value of a plain database."""
    found: set[bytes] = set()
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    if isinstance(value, str):
                        data = value.encode()
                        found.update(data[i : i + WINDOW] for i in range(len(data) - WINDOW + 1))
    return found


def leaks(windows: set[bytes], data: bytes) -> set[bytes]:
    """Return the windows that occur in ``data``, at any offset."""
    return windows.intersection(data[i : i + WINDOW] for i in range(len(data) - WINDOW + 1))


def open_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of this process below ``folder``, unlinked ones included, through /proc."""
    found = {str(file): file.read_bytes() for file in folder.iterdir() if file.is_file()}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(fd)
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)) and target.endswith(" (deleted)"):
            found[target] = Path(fd).read_bytes()
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at unlinked files through /proc")
@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_no_eight_bytes_of_any_text_are_in_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal_mode: str) -> None:
    """The files are looked at in the middle of a transaction, with a cache of 10 pages and a big sort running."""
    folder = tmp_path / "encrypted"
    folder.mkdir()
    monkeypatch.setenv("SQLITE_TMPDIR", str(folder))
    source = _source(tmp_path)
    windows = windows_of(source)
    assert len(windows) > 10_000
    encrypt(source, folder / "db", key=KEY)
    with closing(heliosvfs.connect(folder / "db", key=KEY, journal_mode=journal_mode, cache_mb=0.04)) as connection:
        connection.pragma("temp_store", 1)
        connection.execute("BEGIN; CREATE TABLE sorted AS SELECT Name, Composer FROM Track ORDER BY Composer, Name DESC")
        connection.execute("UPDATE Track SET Name = Name || Name")
        sort = connection.execute(
            "SELECT a.Name, b.Name FROM Track a JOIN Track b ON a.TrackId < 40 ORDER BY b.Name, a.Name DESC"
        )
        assert next(sort)
        files = open_files(folder)
        assert any(name.endswith(" (deleted)") and data for name, data in files.items()), "the sort made no temporary file"
        assert any(name.endswith(("-wal", "-journal")) and data for name, data in files.items())
        for name, data in files.items():
            content = data[SUPERBLOCK:] if name == str(folder / "db") else data  # the superblock has a date of its own
            if not name.endswith("-shm"):
                assert not leaks(windows, content), name
        sort.close()
        connection.execute("COMMIT")
    assert not leaks(windows, (folder / "db").read_bytes()[SUPERBLOCK:])
