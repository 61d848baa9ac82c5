"""Rules 9, 10 and 16: no second handle, no recursion into ourselves, no crash at the end of the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.opening import open_untouched
from tests.rules.conftest import KEY

TRY_TO_LOCK = """
import sys, apsw, heliosvfs
try:
    connection = heliosvfs.connect(sys.argv[1], key=bytes(range(32)), create=False, busy_timeout=0)
    connection.execute("BEGIN EXCLUSIVE")
    print("locked")
except apsw.BusyError:
    print("busy")
"""


def other_process(path: Path) -> str:
    """Let another process try to take the strongest lock."""
    done = subprocess.run([sys.executable, "-c", TRY_TO_LOCK, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def tolerant(action: Callable[[Path], object]) -> Callable[[Path], None]:
    """Do something that a lock may refuse."""

    def run(path: Path) -> None:
        try:
            action(path)
        except (heliosvfs.HeliosError, apsw.Error):
            return

    return run


def opened(path: Path, **options: object) -> None:
    heliosvfs.connect(path, busy_timeout=0, **options).close()  # type: ignore[arg-type]


def attached(path: Path) -> None:
    with closing(heliosvfs.connect(path.with_name("third"), key=KEY)) as connection:
        connection.attach(path, "second", key=KEY)
        connection.execute("SELECT * FROM second.t").fetchall()


ACTIONS = {
    "connect": lambda path: opened(path, key=KEY),
    "connect with a wrong key": lambda path: opened(path, key=bytes(32)),
    "connect without a key": opened,
    "connect for reading": lambda path: opened(path, key=KEY, readonly=True),
    "look at the header": lambda path: open_untouched(path, key=KEY).close(),
    "check": lambda path: check(path, key=KEY),
    "attach": attached,
    "a plain connection": lambda path: apsw.Connection(str(path), vfs="heliosvfs").close(),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_nothing_that_this_process_does_drops_its_lock(tmp_path: Path, action: str, journal_mode: str) -> None:
    """POSIX locks of a process die with any close() of the file, whichever handle it was: all go through SQLite's VFS."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, journal_mode=journal_mode)) as holder:
        holder.execute("CREATE TABLE t(x)")
        holder.execute("BEGIN EXCLUSIVE; INSERT INTO t VALUES(1)")
        assert other_process(path) == "busy"
        tolerant(ACTIONS[action])(path)
        assert other_process(path) == "busy"
        holder.execute("COMMIT")
    assert other_process(path) == "locked"


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_what_a_connection_tells_of_its_file_drops_no_lock(tmp_path: Path, journal_mode: str) -> None:
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, journal_mode=journal_mode)) as holder:
        holder.execute("CREATE TABLE t(x)")
        holder.execute("BEGIN EXCLUSIVE; INSERT INTO t VALUES(1)")
        holder.get_storage_info()
        holder.list_keys()
        holder.add_key(bytes(32), label="second")
        holder.revoke_key("second")
        assert other_process(path) == "busy"


def test_an_open_that_proves_the_test_above(tmp_path: Path) -> None:
    """A guard: the lock does die with an ordinary open() and close()."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, journal_mode="delete")) as holder:
        holder.execute("CREATE TABLE t(x)")
        holder.execute("BEGIN EXCLUSIVE; INSERT INTO t VALUES(1)")
        os.close(os.open(path, os.O_RDONLY))
        assert other_process(path) == "locked"


def run(code: str, *arguments: str) -> str:
    """Run a program in development mode and return what it prints."""
    program = [sys.executable, "-X", "dev", "-W", "error", "-X", "faulthandler", "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_the_default_vfs_is_resolved_to_its_name_at_once(tmp_path: Path) -> None:
    """Left as "" it would be ourselves as soon as we are made the default."""
    run(
        """
        import sys, apsw, heliosvfs
        base = apsw.vfs_names()[0]
        keyring = heliosvfs.Keyring(default=bytes(32))
        vfs = heliosvfs.HeliosVFS("ours", keyring=keyring)
        assert vfs.base == base != ""
        default = apsw.VFS("the default", "ours", makedefault=True)
        assert apsw.vfs_names()[0] == "the default"
        for name in ("ours", "heliosvfs"):
            connection = heliosvfs.connect(f"{sys.argv[1]}/{name}", key=bytes(32), vfs=name)
            connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
            connection.close()
        """,
        str(tmp_path),
    )


@pytest.mark.parametrize("arguments", ["'heliosvfs', 'heliosvfs'", "'over', 'heliosvfs'", "'over', 'over'"])
def test_a_vfs_over_itself_or_another_of_ours_is_refused(arguments: str) -> None:
    """It would recurse, or seal what is sealed into bytes that are no longer free."""
    program = f"""
        import heliosvfs
        try:
            heliosvfs.HeliosVFS({arguments})
        except (heliosvfs.UsageError, ValueError):
            print("refused")
        """
    assert run(program) == "refused\n"


def test_a_base_that_is_not_registered_is_refused() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        heliosvfs.HeliosVFS("over nothing", base="nowhere")


def test_a_vfs_that_is_not_registered_never_falls_back_to_another(tmp_path: Path) -> None:
    with pytest.raises(heliosvfs.UsageError, match="nowhere"):
        heliosvfs.connect(tmp_path / "db", key=KEY, vfs="nowhere")
    assert not list(tmp_path.iterdir())


AT_EXIT = {
    "idle": "",
    "in a transaction": "connection.execute('BEGIN IMMEDIATE; INSERT INTO t VALUES(1)')",
    "in the middle of a query": "rows = connection.execute('SELECT a.x FROM t a, t b, t c'); next(rows)",
    "in a cycle": "class X: pass\nx = X(); x.x = x; x.connection = connection; del x, connection",
    "with a busy handler": "connection.set_busy_handler(lambda n, c=connection: False)",
    "in a thread": """
import threading, time
def work():
    while True:
        connection.execute('INSERT INTO t VALUES(2)')
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
""",
    "in a backup": "memory = apsw.Connection(':memory:'); backup = memory.backup('main', connection, 'main'); backup.step(1)",
    "with a blob": "connection.execute('INSERT INTO t VALUES(zeroblob(100))'); "
    "blob = connection.blob_open('main', 't', 'x', 4, True)",
    "attached": "connection.attach(sys.argv[1] + '-2', 'second', key=bytes(32)); connection.execute('CREATE TABLE second.u(x)')",
    "plain": """
keyring = heliosvfs.Keyring(default=bytes(range(32)))
vfs = heliosvfs.HeliosVFS('another', keyring=keyring)
plain = apsw.Connection(sys.argv[1], vfs='another')
plain.execute('SELECT * FROM t').fetchall()
""",
    "after its VFS": """
vfs = heliosvfs.HeliosVFS('another')
other = heliosvfs.connect(sys.argv[1], key=bytes(range(32)), vfs='another')
vfs.unregister()
del vfs
other.execute('INSERT INTO t VALUES(3)')
""",
}


@pytest.mark.parametrize("state", AT_EXIT)
@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_the_interpreter_ends_quietly_with_open_connections(tmp_path: Path, state: str, journal_mode: str) -> None:
    program = f"""
import sys, apsw, heliosvfs
connection = heliosvfs.connect(sys.argv[1], key=bytes(range(32)), journal_mode='{journal_mode}')
connection.execute('CREATE TABLE t(x); INSERT INTO t VALUES(1),(2),(3)')
{AT_EXIT[state]}
print('end')
"""
    assert run(program, str(tmp_path / "db")) == "end\n"
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, create=False)) as connection:
        assert connection.pragma("integrity_check") == "ok"
        assert connection.execute("SELECT count(*) FROM t WHERE x < 4").get >= 3


def test_connections_are_closed_before_the_interpreter_is_torn_down(tmp_path: Path) -> None:
    """What was registered earlier runs later, and finds them closed."""
    program = """
        import atexit, sys
        found = []
        atexit.register(lambda: print([type(look(connection)).__name__ for connection in found]))
        import apsw, heliosvfs
        def look(connection):
            try:
                return connection.execute("SELECT 1").get
            except apsw.Error as error:
                return error
        keyring = heliosvfs.Keyring(default=bytes(32))
        vfs = heliosvfs.HeliosVFS("another", keyring=keyring)
        found.append(heliosvfs.connect(sys.argv[1], key=bytes(32)))
        found.append(apsw.Connection(sys.argv[1], vfs="another"))
        found.append(apsw.Connection(":memory:"))
        """
    assert run(program, str(tmp_path / "db")) == "['ConnectionClosedError', 'ConnectionClosedError', 'int']\n"


def test_a_forked_child_that_ends_takes_nothing_from_its_parent(tmp_path: Path) -> None:
    """The child inherits open connections and must not close them as if they were its own."""
    program = """
        import os, sys, heliosvfs
        connection = heliosvfs.connect(sys.argv[1], key=bytes(range(32)))
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        for ending in (lambda: sys.exit(0), lambda: os._exit(0)):
            child = os.fork()
            if not child:
                ending()
            assert os.waitpid(child, 0)[1] == 0
            assert os.path.exists(sys.argv[1] + "-wal")
            connection.execute("INSERT INTO t VALUES(2)")
        print(connection.execute("SELECT count(*) FROM t").get)
        """
    assert run(program, str(tmp_path / "db")) == "3\n"


def test_a_forked_child_seals_under_nonces_of_its_own() -> None:
    """A nonce of the parent's store used again in the child would break the seal of both."""
    program = """
        import os, sys
        from heliosvfs.pages import KIND_DATABASE, FileKeys, Sealer
        sealer = Sealer(FileKeys.ephemeral(os.urandom), KIND_DATABASE, 512, os.urandom)
        sealer.seal(bytes(480), b"0001")
        reading, writing = os.pipe()
        if not os.fork():
            os.write(writing, b"".join(bytes(sealer.seal(bytes(480), b"0001"))[-16:-4] for _ in range(64)))
            os._exit(0)
        os.wait()
        theirs = os.read(reading, 64 * 12)
        ours = {bytes(sealer.seal(bytes(480), b"0001"))[-16:-4] for _ in range(300)}
        print(len(ours), len(theirs), len(ours & {theirs[n : n + 12] for n in range(0, 768, 12)}))
        """
    assert run(program) == "300 768 0\n"


def test_connections_are_opened_in_many_threads_at_once(tmp_path: Path) -> None:
    """Each opening looks through all open files of the process."""
    program = """
        import sys, threading, heliosvfs
        heliosvfs.connect(sys.argv[1], key=bytes(range(32))).close()
        kept = [heliosvfs.connect(sys.argv[1], key=bytes(range(32))) for _ in range(150)]
        errors = []
        sys.setswitchinterval(1e-6)
        def work():
            for _ in range(40):
                try:
                    heliosvfs.connect(sys.argv[1], key=bytes(range(32))).close()
                except BaseException as error:
                    errors.append(repr(error))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for connection in kept:
            connection.close()
        print(errors)
        """
    assert run(program, str(tmp_path / "db")) == "[]\n"
