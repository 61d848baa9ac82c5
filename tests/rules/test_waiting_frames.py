"""Frames of a transaction wait for each other: never beyond COMMIT, and never into the place of another transaction's.

SQLite doesn't tell a VFS of a ROLLBACK. What waits then must not be written, and not be read, once others have written there.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.vfs import controls, open_files
from tests.rules.conftest import KEY
from tests.rules.observing import Event, ObservingVFS, observed

PAGE = 512
FRAME = PAGE + 24


def spilling(path: Path, vfs: str | None = None, page_size: int = PAGE) -> heliosvfs.Connection:
    """Connect with a cache of a few pages: what is written goes to the WAL before its transaction ends."""
    connection = heliosvfs.connect(path, key=KEY, page_size=page_size, **({"vfs": vfs} if vfs else {}))
    connection.pragma("cache_size", 4)
    connection.pragma("wal_autocheckpoint", 0)
    return connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a database with a table `t`, and a table `one` whose update makes one frame."""
    path = tmp_path / "db"
    with closing(spilling(path)) as connection:
        connection.execute("CREATE TABLE t(x, y); CREATE TABLE one(n); INSERT INTO one VALUES(0)")
    return path


def fill(connection: heliosvfs.Connection, name: str, rows: int) -> None:
    connection.executemany("INSERT INTO t VALUES(?, zeroblob(400))", ((f"{name} {n}",) for n in range(rows)))


def in_a_transaction(connection: heliosvfs.Connection, name: str, rows: int) -> None:
    """Fill the table. An error that rolls back comes as it is, where APSW's context would say that there is no transaction."""
    connection.execute("BEGIN")
    fill(connection, name, rows)
    connection.execute("COMMIT")


def names(connection: apsw.Connection) -> list[str]:
    return [x for (x,) in connection.execute("SELECT x FROM t ORDER BY rowid")]


def numbered(name: str, rows: int) -> list[str]:
    return [f"{name} {n}" for n in range(rows)]


def seen_by_others(path: Path) -> list[str]:
    """Return the rows as a copy of the files shows them: as they would be after a crash."""
    folder = path.parent / f"copy{random.getrandbits(64):x}"
    folder.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", folder / f"db{suffix}")
    with closing(heliosvfs.connect(folder / "db", key=KEY, create=False)) as copy:
        assert copy.pragma("integrity_check") == "ok"
        return names(copy)


def require(path: Path, *connections: apsw.Connection, rows: list[str]) -> None:
    """Require rows of a copy of the files, of a new connection and of those given."""
    assert seen_by_others(path) == rows
    with closing(heliosvfs.connect(path, key=KEY)) as fresh:
        for connection in (fresh, *connections):
            assert names(connection) == rows
            assert connection.pragma("integrity_check") == "ok"


@pytest.fixture
def beneath() -> Iterator[tuple[ObservingVFS, str]]:
    """Give what observes the files, and the name of our VFS on it."""
    with observed() as both:
        yield both


def test_what_waits_is_written_when_commit_returns_and_no_read_writes(path: Path, beneath: tuple[ObservingVFS, str]) -> None:
    base, vfs = beneath
    with closing(spilling(path, vfs)) as connection:
        connection.pragma("synchronous", "off")
        fill(connection, "before", 1)
        base.events.clear()
        with connection:
            fill(connection, "row", 600)
        assert max(len(event.data) for event in base.writes("-wal")) > 100 * FRAME
        assert seen_by_others(path) == [*numbered("before", 1), *numbered("row", 600)]
        base.events.clear()
        assert connection.execute("SELECT count(*) FROM t").get == 601
        assert not base.writes("-wal")


def test_a_commit_of_many_pages_is_one_write_for_thirty(tmp_path: Path, beneath: tuple[ObservingVFS, str]) -> None:
    base, vfs = beneath
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, vfs=vfs)) as connection:
        connection.execute("CREATE TABLE t(x, y)")
        base.events.clear()
        with connection:
            connection.execute("INSERT INTO t VALUES(1, zeroblob(1000000))")
        frames = sum(len(event.data) for event in base.writes("-wal")) // (4096 + 24)
        assert frames > 240
        assert len([event for event in base.writes("-wal") if event.what == "write"]) <= frames // 30 + 3


def test_a_commit_that_writes_headers_again_takes_many_at_once(path: Path, beneath: tuple[ObservingVFS, str]) -> None:
    """A page written twice in a transaction has SQLite read every frame after it, and write its header (walRewriteChecksums)."""
    base, vfs = beneath
    with closing(spilling(path, vfs)) as connection:
        fill(connection, "before", 20)
        connection.execute("BEGIN")
        for number in range(2):
            connection.execute("UPDATE t SET x = x || ?", (f"+{number}",))
        fill(connection, "row", 600)
        base.events.clear()
        connection.execute("COMMIT")
        rewritten = sum(len(event.data) for event in base.writes("-wal")) // FRAME
        assert rewritten > 600
        assert len(base.writes("-wal")) < rewritten // 100
        assert len([event for event in base.events if event.what == "read"]) < rewritten // 40
        require(path, connection, rows=[*(f"{name}+0+1" for name in numbered("before", 20)), *numbered("row", 600)])


@pytest.mark.parametrize("others", [False, True])
def test_headers_written_again_in_part_are_not_written_into_the_next_transaction(
    path: Path, beneath: tuple[ObservingVFS, str], *, others: bool
) -> None:
    """A COMMIT fails between them; others commit in their place, and the next commit writes headers again from there on."""
    base, vfs = beneath
    with closing(spilling(path, vfs)) as first, closing(spilling(path)) as second:
        expected: list[str] = []
        for moment in range(1, 7):
            left = [0]

            def fail(event: Event, left: list[int] = left) -> None:
                if (event.what, event.file) == ("write", "-wal"):
                    left[0] -= 1
                    if left[0] == 0:
                        raise KeyboardInterrupt

            base.before = fail
            first.execute("BEGIN")
            fill(first, f"lost {moment}", 1500)
            left[0] = moment
            with pytest.raises(KeyboardInterrupt):
                first.execute("COMMIT")
            base.before = None
            assert not first.in_transaction
            if others:  # up to the midst of the frames that wait
                rows = max(10, (moment - 2) * 0x1FFFF // FRAME + 120)
                in_a_transaction(second, f"second {moment}", rows)
                expected += numbered(f"second {moment}", rows)
            in_a_transaction(first, f"first {moment}", 100)
            expected += numbered(f"first {moment}", 100)
            require(path, first, second, rows=expected)


def test_what_was_read_ahead_of_a_commit_is_not_taken_for_the_next_transaction(path: Path) -> None:
    """SQLite's calls by hand: a commit is torn after two headers, and the next one's first such header is the third."""
    with closing(spilling(path)) as connection:
        fill(connection, "before", 1)
        database = open_files.files_of(connection)[0]
        wal = database.wal
        assert wal is not None
        begin = wal.xFileSize()

        def frames(content: bytes) -> None:
            database.xFileControl(controls.LOCK_TIMEOUT, 0)
            for number in range(20):
                wal.xWrite(
                    struct.pack(">II", number + 2, 22 if number == 19 else 0) + wal.salts + bytes(8), begin + number * FRAME
                )
                wal.xWrite(content * (PAGE - 32) + bytes(32), begin + number * FRAME + 24)

        def whole(number: int) -> bytes:
            return bytes(wal.xRead(FRAME, begin + number * FRAME))

        frames(b"a")
        for number in (3, 4):
            assert whole(number)[24:26] == b"aa"
            wal.xWrite(struct.pack(">II", number + 2, 0) + wal.salts + bytes(8), begin + number * FRAME)
        frames(b"b")
        for number in range(5, 20):
            assert whole(number)[24:26] == b"bb"
        wal.xTruncate(begin)


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_what_waits_is_read_and_written_again_in_its_transaction(tmp_path: Path, page_size: int) -> None:
    """Few pages fit into the cache: each comes back from the WAL, also from what waits, and is written there anew."""
    path = tmp_path / "db"
    draws = random.Random(page_size)
    with closing(spilling(path, page_size=page_size)) as connection, closing(apsw.Connection(":memory:")) as model:
        for one in (connection, model):
            one.execute("CREATE TABLE t(x INTEGER PRIMARY KEY, y)")
        for _ in range(6):
            connection.execute("BEGIN")
            for _ in range(300):
                row = draws.randrange(60), draws.randbytes(draws.choice([40, 300, page_size]))
                for one in (connection, model):
                    one.execute("INSERT INTO t VALUES(?, ?) ON CONFLICT DO UPDATE SET y = excluded.y", row)
            assert connection.execute("SELECT * FROM t").fetchall() == model.execute("SELECT * FROM t").fetchall()
            connection.execute("COMMIT")
            expected = model.execute("SELECT * FROM t").fetchall()
            shutil.copy(path, tmp_path / "copy")
            shutil.copy(f"{path}-wal", tmp_path / "copy-wal")
            with closing(heliosvfs.connect(tmp_path / "copy", key=KEY, create=False)) as copy:
                assert copy.execute("SELECT * FROM t").fetchall() == expected
                assert copy.pragma("integrity_check") == "ok"


def test_rollback_to_a_savepoint_cuts_what_waits(path: Path) -> None:
    draws = random.Random(0)
    with closing(spilling(path)) as connection:
        expected: list[str] = []
        for round_ in range(25):
            connection.execute("BEGIN")
            kept = list(expected)
            for step in range(6):
                name, rows = f"{round_}.{step}", draws.randrange(1, 25)
                connection.execute("SAVEPOINT s")
                fill(connection, name, rows)
                if draws.random() < 0.5:
                    connection.execute("ROLLBACK TO s")
                else:
                    kept += numbered(name, rows)
                connection.execute("RELEASE s")
                assert names(connection) == kept
            if draws.random() < 0.3:
                connection.execute("ROLLBACK")
            else:
                connection.execute("COMMIT")
                expected = kept
            require(path, connection, rows=expected)


@pytest.mark.parametrize("rows", [1, 40], ids=["one frame", "many frames"])
@pytest.mark.parametrize("reads_first", [True, False])
def test_others_commit_where_a_rolled_back_transaction_had_its_frames(path: Path, rows: int, reads_first: bool) -> None:
    """Fewer frames than it had, as many, and more: with as many, the next transaction begins where that one had stopped."""
    expected: list[str] = []
    counted = 0
    with closing(spilling(path)) as first, closing(spilling(path)) as second:
        for others in range(1, 75):
            first.execute("BEGIN")
            fill(first, "never", 30)
            first.execute("ROLLBACK")
            for _ in range(others):
                second.execute("UPDATE one SET n = n + 1")
            counted += others
            if reads_first:
                assert first.execute("SELECT n FROM one").get == counted
                assert names(first) == expected
            with first:
                fill(first, f"{others}", rows)
            expected += numbered(f"{others}", rows)
            assert second.execute("SELECT n FROM one").get == counted
            assert names(second) == expected
            if others % 8 == 0:
                require(path, first, rows=expected)
                first.execute("DELETE FROM t")
                expected = []
                first.pragma("wal_checkpoint", "TRUNCATE")
        require(path, first, second, rows=expected)


WRITER = """
import sys, heliosvfs
connection = heliosvfs.connect(sys.argv[1], key=bytes(range(32)))
for _ in sys.stdin:
    connection.execute("UPDATE one SET n = n + 1")
    print(connection.execute("SELECT n FROM one").get, flush=True)
"""


def test_another_process_commits_where_frames_wait(path: Path) -> None:
    expected: list[str] = []
    with (
        subprocess.Popen([sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
        closing(spilling(path)) as first,
    ):
        assert other.stdin is not None
        assert other.stdout is not None
        total = 0
        for others in range(30, 60):
            first.execute("BEGIN")
            fill(first, "never", 20)
            first.execute("ROLLBACK")
            for _ in range(others):
                total += 1
                print(file=other.stdin, flush=True)
                assert other.stdout.readline() == f"{total}\n"
            with first:
                fill(first, f"{others}", 3)
            expected += numbered(f"{others}", 3)
            assert first.execute("SELECT n FROM one").get == total
        other.stdin.close()
        assert other.wait() == 0
        require(path, first, rows=expected)


@pytest.mark.parametrize("after", range(1, 8))
def test_a_disk_that_fills_up_while_frames_are_written_undoes_their_transaction_alone(
    path: Path, beneath: tuple[ObservingVFS, str], after: int
) -> None:
    base, vfs = beneath
    left = [0]

    def fail(event: Event) -> None:
        if (event.what, event.file) == ("write", "-wal"):
            left[0] -= 1
            if left[0] == 0:
                raise apsw.FullError

    with closing(spilling(path, vfs)) as connection:
        with connection:
            fill(connection, "before", 50)
        left[0], base.before = after, fail
        with pytest.raises(heliosvfs.DiskFullError):
            in_a_transaction(connection, "lost", 800)
        assert not connection.in_transaction
        base.before = None
        require(path, connection, rows=numbered("before", 50))
        with connection:
            fill(connection, "after", 50)
        require(path, connection, rows=numbered("before", 50) + numbered("after", 50))


def test_nothing_waits_where_sqlite_does_not_tell_that_a_read_begins(
    path: Path, beneath: tuple[ObservingVFS, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an APSW that was built on a SQLite without SQLITE_ENABLE_SETLK_TIMEOUT."""
    base, vfs = beneath
    monkeypatch.setattr(controls, "LOCK_TIMEOUT", -1)
    with closing(spilling(path, vfs)) as connection:
        base.events.clear()
        with connection:
            fill(connection, "row", 50)
        assert {len(event.data) for event in base.writes("-wal") if event.offset} == {FRAME}
        require(path, connection, rows=numbered("row", 50))


@pytest.mark.parametrize("cache", [4, 500], ids=["read again", "written"])
def test_frames_that_others_overtook_without_a_sign_are_not_used(path: Path, monkeypatch: pytest.MonkeyPatch, cache: int) -> None:
    """Should SQLite once not tell: the transaction fails, and nothing of it or of the others' is lost."""
    committed = 0
    failed: list[str] = []
    with closing(spilling(path)) as first, closing(spilling(path)) as second:
        with first:
            fill(first, "row", 40)  # SQLite has told by now
        monkeypatch.setattr(controls, "LOCK_TIMEOUT", -1)
        for others in range(10, 40):
            first.execute("BEGIN")
            fill(first, "never", 20)
            first.execute("ROLLBACK")
            for _ in range(others):
                second.execute("UPDATE one SET n = n + 1")
            first.pragma("cache_size", cache)
            try:
                in_a_transaction(first, "more", 40)
                committed += 1
            except apsw.IOError as error:
                failed.append(str(error))
            first.pragma("cache_size", 4)
            rows = numbered("row", 40) + numbered("more", 40) * committed
            require(path, second, rows=rows)
        assert failed
        assert all("another process has written" in text for text in failed)
        assert committed
        assert second.execute("SELECT n FROM one").get == sum(range(10, 40))


def test_each_read_transaction_is_told_of(path: Path) -> None:
    """What the waiting rests upon: SQLITE_FCNTL_LOCK_TIMEOUT comes as a read transaction begins, and not within a write one."""
    seen: list[None] = []
    with closing(spilling(path)) as first, closing(spilling(path)) as second:
        first.execute("BEGIN")
        fill(first, "in it", 50)
        (file,) = open_files.files_at(first.sqlite3_pointer())
        file.watch_reads(controls.watching(file, lambda: seen.append(None)))
        names(first)
        first.execute("UPDATE t SET x = 'later'; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; ROLLBACK")
        second.execute("UPDATE one SET n = 1")
        assert not seen
        first.execute("BEGIN IMMEDIATE")
        assert seen


def test_a_checkpoint_reads_consecutive_frames_together(tmp_path: Path, beneath: tuple[ObservingVFS, str]) -> None:
    base, vfs = beneath
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, vfs=vfs)) as connection:
        connection.execute("CREATE TABLE t(x, y); INSERT INTO t VALUES('big', zeroblob(2000000))")
        base.events.clear()
        connection.pragma("wal_checkpoint", "TRUNCATE")
        reads = [event for event in base.events if (event.what, event.file) == ("read", "-wal")]
        assert 1 <= len(reads) < 490 // 8
        assert connection.execute("SELECT y FROM t").get == bytes(2000000)


@pytest.mark.parametrize("where", [100, 4096 + 24 - 20, 24 + 200])
def test_a_checkpoint_names_the_damaged_frame_among_those_it_reads_together(tmp_path: Path, where: int) -> None:
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x, y); INSERT INTO t VALUES('big', zeroblob(1000000))")
        wal = Path(f"{path}-wal")
        offset = 32 + 100 * 4120 + where
        with wal.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))
        with pytest.raises(heliosvfs.TamperedError, match="frame 101 "):
            connection.pragma("wal_checkpoint", "TRUNCATE")
        with wal.open("r+b") as file:
            file.seek(offset)
            file.write(bytes([byte]))
        connection.pragma("wal_checkpoint", "TRUNCATE")
        assert connection.execute("SELECT y FROM t").get == bytes(1000000)
        assert connection.pragma("integrity_check") == "ok"


@pytest.mark.parametrize("error", [KeyboardInterrupt, apsw.IOError, apsw.FullError])
@pytest.mark.parametrize("call", ["write", "read"])
def test_a_call_that_fails_undoes_its_transaction_alone(
    path: Path, beneath: tuple[ObservingVFS, str], call: str, error: type[BaseException]
) -> None:
    base, vfs = beneath
    left = [0]

    def fail(event: Event) -> None:
        if event.what == call and event.file in ("-wal", "main"):
            left[0] -= 1
            if left[0] == 0:
                raise error

    base.before = fail
    expected: list[str] = []
    undone = 0
    with closing(spilling(path, vfs)) as connection, closing(spilling(path)) as other:
        for moment in range(1, 30) if call == "write" else range(1, 140, 3):
            left[0] = moment
            try:
                in_a_transaction(connection, f"{moment}", 100)
                expected += numbered(f"{moment}", 100)
            except (KeyboardInterrupt, apsw.Error):
                undone += 1
                assert not connection.in_transaction
            left[0] = 0
            other.execute("UPDATE one SET n = n + 1")
            require(path, connection, other, rows=expected)
            if len(expected) > 500:
                connection.execute("DELETE FROM t")
                expected = []
    assert undone > 10


def test_a_header_whose_page_never_came_is_not_written_later(path: Path, beneath: tuple[ObservingVFS, str]) -> None:
    """The look at the superblock fails, between header and page: nothing of that frame may get into another one's place."""
    base, vfs = beneath
    with closing(spilling(path, vfs)) as first, closing(spilling(path)) as second:
        names(first)
        failures = iter([apsw.IOError])

        def fail(event: Event) -> None:
            if (event.what, event.file) == ("read", "main"):
                for failure in failures:
                    raise failure

        base.before = fail
        with pytest.raises(apsw.IOError):
            fill(first, "never", 1)
        base.before = None
        fill(second, "second", 1)
        first.pragma("wal_checkpoint", "FULL")  # syncs the log
        require(path, first, second, rows=numbered("second", 1))
        fill(first, "first", 1)
        require(path, first, second, rows=["second 0", "first 0"])
