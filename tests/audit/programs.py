"""Random programs, and what a connection lets them see: the judge of "an audited connection is like a plain one"."""

from __future__ import annotations

import contextlib
import functools
import random
import weakref
from collections.abc import Callable
from typing import Any

import apsw

__all__ = ["Machine", "Step", "program"]

Step = tuple[Any, ...]
TABLES = ("t", "u", "child", "wide", "temp_t")
# from the cache they may be outdated, and then do something before they are prepared again: AUDIT.md, "What differs"
_SEEN_OUTDATED = ("CREATE ", "DROP ", "ALTER ", "BEGIN")
_CHANGES = ("INSERT ", "UPDATE ", "DELETE ")
NAMES = ("a", "b", "A", '"a"')


def program(seed: int, length: int) -> list[Step]:
    """Return a random program: steps that `Machine.run` understands."""
    rnd = random.Random(seed)
    return [_step(rnd) for _ in range(length)]


def _insert(rnd: random.Random) -> str:
    conflict = rnd.choice(["", "", "", " OR REPLACE", " OR IGNORE", " OR FAIL", " OR ROLLBACK", " OR ABORT"])
    rows = ", ".join(
        f"({rnd.randrange(30)}, {rnd.randrange(8)}, 'v{rnd.randrange(99)}')" for _ in range(rnd.choice([1, 1, 1, 2, 3, 9]))
    )
    upsert = " ON CONFLICT(i) DO UPDATE SET x = excluded.x" if not conflict and rnd.random() < 0.2 else ""
    return f"INSERT{conflict} INTO {rnd.choice(['t', 't', 'u', 'temp_t'])}(i, k, x) VALUES {rows}{upsert}"


def _dml(rnd: random.Random) -> str:
    kind = rnd.randrange(12)
    if kind < 5:
        return _insert(rnd)
    if kind < 7:
        return f"UPDATE {rnd.choice(['t', 'u', 'temp_t'])} SET k = k + {rnd.randrange(3)}, x = x || '.' WHERE i % {rnd.randrange(1, 5)} = 0"
    if kind < 8:
        return f"UPDATE t SET i = i + 1 WHERE i > {rnd.randrange(30)}"
    if kind < 10:
        return f"DELETE FROM {rnd.choice(['t', 'u', 'temp_t', 'child'])}" + rnd.choice(["", f" WHERE i = {rnd.randrange(30)}"])
    if kind < 11:
        return f"INSERT INTO child(i, parent) VALUES({rnd.randrange(50)}, {rnd.randrange(40)})"
    return rnd.choice(
        [
            "INSERT INTO t(i, k, x) SELECT changes() + 100, total_changes() % 7, 'c'",
            "INSERT INTO w(body) VALUES('a word')",
            "DELETE FROM w WHERE rowid = 1",
            "UPDATE v SET x = 'through a view' WHERE i < 5",
            "INSERT INTO t(i, k, x) VALUES(last_insert_rowid() + 1, changes(), 'l')",
            "INSERT INTO aux.far(i) VALUES(1)",
            "INSERT INTO t(i, k, x) VALUES(77, raiser(1), 'no')",
            f"INSERT INTO t(i, k, x) SELECT column1, writes(column1), 'n' || column1 FROM (VALUES(40), (41), ({rnd.randrange(30)}))",
            f"UPDATE temp_t SET k = writes(i) WHERE i < {rnd.randrange(30)}",
        ]
    )


def _ddl(rnd: random.Random) -> str:
    name = rnd.choice(["d1", "d2"])
    return rnd.choice(
        [
            f"CREATE TABLE {name}(a, b)",
            f"CREATE TABLE IF NOT EXISTS {name}(a, b)",
            f"CREATE TABLE {name} AS SELECT * FROM t",
            f"DROP TABLE {name}",
            f"DROP TABLE IF EXISTS {name}",
            "CREATE INDEX IF NOT EXISTS ti ON t(k)",
            "DROP INDEX IF EXISTS ti",
            f"ALTER TABLE {name} ADD COLUMN c{rnd.randrange(3)}",
            f"ALTER TABLE {name} RENAME TO d{rnd.randrange(1, 4)}",
            "CREATE TEMP TABLE IF NOT EXISTS d3(x)",
            "CREATE TRIGGER IF NOT EXISTS tr2 AFTER DELETE ON u BEGIN INSERT INTO child(i) VALUES(old.i); END",
            "REINDEX",
            "ANALYZE",
        ]
    )


def _transaction(rnd: random.Random) -> str:
    name = rnd.choice(NAMES)
    return rnd.choice(
        [
            "BEGIN",
            "BEGIN IMMEDIATE",
            "COMMIT",
            "COMMIT",
            "END TRANSACTION",
            "ROLLBACK",
            f"SAVEPOINT {name}",
            f"SAVEPOINT {name}",
            f"RELEASE {name}",
            f"RELEASE SAVEPOINT {name}",
            f"ROLLBACK TO {name}",
        ]
    )


def _step(rnd: random.Random) -> Step:  # noqa: PLR0911
    kind = rnd.randrange(100)
    cursor = rnd.randrange(3)
    if kind < 30:
        return ("execute", cursor, _dml(rnd))
    if kind < 36:
        return ("execute", cursor, _dml(rnd) + " RETURNING i, x")
    if kind < 50:
        return ("execute", cursor, _transaction(rnd))
    if kind < 56:
        return (
            "execute",
            cursor,
            f"SELECT i, x FROM {rnd.choice(['t', 'u', 'child', 'v'])} ORDER BY i LIMIT {rnd.randrange(12)}",
        )
    if kind < 62:
        return (rnd.choice(["next", "fetchone", "fetchall", "get", "close"]), cursor)
    if kind < 67:
        return ("execute", cursor, _ddl(rnd))
    if kind < 72:
        rows = [(rnd.randrange(200), rnd.randrange(9), "m") for _ in range(rnd.randrange(5))]
        return (
            "executemany",
            cursor,
            rnd.choice(["INSERT INTO t(i, k, x) VALUES(?, ?, ?)", "INSERT OR REPLACE INTO u(i, k, x) VALUES(?, ?, ?)"]),
            rows,
        )
    if kind < 76:
        return ("with", rnd.random() < 0.3, [_dml(rnd) for _ in range(rnd.randrange(3))])
    if kind < 80:
        return (
            "execute",
            cursor,
            "; ".join(rnd.choice([_dml, _dml, _transaction, _ddl])(rnd) for _ in range(rnd.randrange(2, 4))),
        )
    if kind < 84:
        return (
            "execute",
            cursor,
            rnd.choice(
                [
                    "SELECT changes(), total_changes(), last_insert_rowid()",
                    "PRAGMA user_version",
                    f"PRAGMA user_version = {rnd.randrange(9)}",
                    "PRAGMA foreign_keys = ON",
                    "PRAGMA foreign_keys = OFF",
                    "PRAGMA defer_foreign_keys = ON",
                    "PRAGMA integrity_check",
                    "VACUUM",
                    "EXPLAIN INSERT INTO t VALUES(1, 2, 3)",
                    "SELEC nonsense",
                    "SELECT * FROM missing",
                    "INSERT INTO t VALUES(1)",
                    "",
                    "-- only a comment",
                    "PRAGMA optimize",
                ]
            ),
        )
    if kind < 88:
        return ("blob", rnd.randrange(30), rnd.random() < 0.5)
    if kind < 90:
        return (
            "bindings",
            cursor,
            "INSERT INTO t(i, k, x) VALUES(:i, ?2, $x)",
            rnd.choice([(1, 2), {"i": 5, "x": None}, (1, 2, 3)]),
        )
    if kind < 92:
        return ("lock", rnd.random() < 0.5)
    if kind < 94:
        return ("refuse_commits", rnd.random() < 0.3)
    if kind < 96:
        return ("attach", rnd.random() < 0.6)
    if kind < 98:
        return rnd.choice([("drop_cursor", cursor), ("temp_store",)])
    return ("pragma", "user_version")


class Failure(tuple[str, str]):
    """The outcome of a step that raised."""

    __slots__ = ()


def _without_retries(log: list[Any], step: Step, *, failed: bool) -> list[Any]:
    """Take out of a step's log what depends on which statements are cached (AUDIT.md, "What differs").

    SQLite tells a rollback when it finds a cached statement outdated and prepares it again; and a cached statement that can't be
    prepared any more was shown to the exec tracer, where one that is not cached is not.
    """
    found = []
    for at, entry in enumerate(log):
        if entry == "rollback" and at + 1 < len(log) and log[at + 1][0] not in ("exec", "asked"):
            continue
        # a change that succeeds is rolled back by nothing else, and without a row hook (WITHOUT ROWID) nothing follows here
        if entry == "rollback" and not failed and found and found[-1][0] == "exec" and found[-1][1].startswith(_CHANGES):
            continue
        if failed and (entry == "rollback" or entry[0] == "exec"):
            continue
        # PRAGMA optimize looks at the log's tables as well
        if entry in ("commit", "rollback") and (" EXISTS" in str(step) or "PRAGMA optimize" in str(step)):
            continue
        # prepared again while another statement is half-read, it leaves a transaction open that has done nothing
        if failed and entry == "commit":
            continue
        if entry == "commit" and found[-1:] == ["commit"] and (" w " in str(step) or "ALTER " in str(step)):
            continue  # statements that FTS5 or ALTER TABLE make themselves, when they are prepared again
        found.append(entry)
    return found


def _write(connection: weakref.ref[apsw.Connection], number: int) -> int:
    """Change a table, as a function of SQL."""
    inner = connection()
    assert inner is not None
    inner.execute("INSERT OR IGNORE INTO child(i) VALUES(?)", (number + 2000,)).fetchall()
    return number


class Machine:
    """A connection that runs a program, and everything that its program could notice."""

    def __init__(self, path: str, connection: apsw.Connection) -> None:
        self.connection = connection
        self.path = path
        self.other = apsw.Connection(path)
        self.log: list[Any] = []
        self.refuses = False
        connection.create_scalar_function("raiser", self._raise, 1)
        connection.create_scalar_function("writes", functools.partial(_write, weakref.ref(connection)), 1)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(
            """CREATE TABLE t(i INTEGER PRIMARY KEY, k, x UNIQUE); CREATE TABLE u(i PRIMARY KEY, k, x) WITHOUT ROWID;
            CREATE TABLE child(i INTEGER PRIMARY KEY, parent REFERENCES t DEFERRABLE INITIALLY DEFERRED);
            CREATE VIEW v AS SELECT i, x FROM t;
            CREATE TRIGGER tv INSTEAD OF UPDATE ON v BEGIN UPDATE t SET x = NEW.x || OLD.i WHERE i = OLD.i; END;
            CREATE TRIGGER tr AFTER UPDATE ON u BEGIN INSERT OR IGNORE INTO child(i) VALUES(NEW.i + 1000); END;
            CREATE VIRTUAL TABLE w USING fts5(body);
            CREATE TEMP TABLE temp_t(i INTEGER PRIMARY KEY, k, x);
            CREATE TABLE blobs(b); INSERT INTO blobs(rowid, b)
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)
            SELECT i, zeroblob(4) FROM n"""
        ).fetchall()
        connection.set_update_hook(self._on_update)
        connection.set_commit_hook(self._on_commit, id="program")
        connection.set_rollback_hook(lambda: self.log.append("rollback"))
        connection.exec_trace = lambda _cursor, sql, _bindings: self.log.append(("exec", sql)) or True
        self.cursors = [connection.cursor() for _ in range(3)]
        self.cursors[2].row_trace = lambda _cursor, row: (*row, "traced")
        self.seen: list[Any] = []

    @staticmethod
    def _raise(_value: Any) -> Any:
        message = "raised on purpose"
        raise ZeroDivisionError(message)

    def _on_update(self, kind: int, database: str, table: str, rowid: int) -> None:
        if not database.startswith("vacuum_"):  # VACUUM shows how many objects the schema has: AUDIT.md, "What differs"
            self.log.append(("update", kind, database, table, rowid))

    def _on_commit(self) -> bool:
        self.log.append("commit")
        return self.refuses

    def run(self, steps: list[Step]) -> list[Any]:
        """Run a program; returns what each step let its program see."""
        return [self.step(step) for step in steps]

    def step(self, step: Step) -> Any:
        waits = (
            " EXISTS" in str(step) and self.other.in_transaction
        )  # it reads the schema's version, and what is half-read keeps that
        if (
            step[0] in ("with", "attach")
            or waits
            or any(word in str(step) for word in ("BEGIN", "SAVEPOINT", "PRAGMA optimize", " w(", " w ", "aux"))
        ):
            # what is half-read under RETURNING ends where a transaction begins: AUDIT.md, "What differs"; and PRAGMA optimize
            # may write, and hold the lock until what is half-read has ended; FTS5 may write earlier here while something is
            for cursor in range(3):
                with contextlib.suppress(apsw.Error):
                    self._do_close(cursor)
        try:
            outcome = getattr(self, f"_do_{step[0]}")(*step[1:])
        except Exception as error:  # noqa: BLE001 - outcomes are compared
            outcome = Failure((type(error).__name__, str(error)))
        if "PRAGMA optimize" in str(step):  # it may analyse the log's tables: whether that writes, and is refused, differs
            outcome = Failure(("", ""))
        if waits:  # a cached one asks for the lock before it is found outdated
            outcome = Failure(("", ""))
        log, self.log = _without_retries(self.log, step, failed=isinstance(outcome, Failure)), []
        if (step[0] == "with" or "SAVEPOINT" in str(step)) and self.connection.in_transaction:
            with contextlib.suppress(apsw.Error):  # FTS5 may have written, which changes() tells or not: AUDIT.md, "What differs"
                self.connection.execute("DELETE FROM temp_t WHERE 0")
            self.log.clear()
        connection = self.connection
        return (
            step,
            outcome,
            log,
            connection.changes(),
            connection.total_changes(),
            connection.last_insert_rowid(),
            connection.in_transaction,
            # a write to an attached database takes the log's main database along: AUDIT.md, "What differs"
            # and a cached statement takes the lock before it is found outdated: the same
            None
            if "aux" in connection.db_names() or "CREATE" in str(step) or " EXISTS" in str(step)
            else connection.txn_state("main"),
            self._committed(),
        )

    def _committed(self) -> Any:
        """Return what another connection sees, or that it can't read."""
        try:
            return self.other.execute(
                "SELECT (SELECT count(*) FROM t), (SELECT sum(k) FROM t), (SELECT count(*) FROM u)"
            ).fetchall()
        except apsw.Error as error:
            return type(error).__name__

    def _do_execute(self, cursor: int, sql: str) -> Any:
        if sql == "PRAGMA optimize" and self.connection.in_transaction:  # it may analyse the log, and then it has written
            return None
        try:
            if any(word in sql for word in _SEEN_OUTDATED):
                return self.cursors[cursor].execute(sql, can_cache=False).fetchone()
            if sql.startswith("EXPLAIN"):  # its root pages are moved by the log's tables; and half-read, it defers all commits
                # not from the cache: SQLite 3.54.1 reads freed memory when the schema was made anew since it was prepared
                return len(self.cursors[cursor].execute(sql, can_cache=False).fetchall())
            return self.cursors[cursor].execute(sql, can_cache=not self._is_half_read(cursor)).fetchone()
        finally:
            if sql == "VACUUM":
                self.connection.set_last_insert_rowid(0)  # likewise

    def _do_bindings(self, cursor: int, sql: str, bindings: Any) -> Any:
        return self.cursors[cursor].execute(sql, bindings).fetchone()

    def _do_executemany(self, cursor: int, sql: str, rows: list[Any]) -> Any:
        def generate() -> Any:
            for row in rows:
                self.log.append(("asked", self.connection.changes(), self.connection.txn_state("main"), self._committed()))
                yield row

        return self.cursors[cursor].executemany(sql, generate(), can_cache=not self._is_half_read(cursor)).fetchall()

    def _is_half_read(self, but: int) -> bool:
        """Tell whether another cursor is half-read: a statement that is prepared again meanwhile commits once more."""
        for at, cursor in enumerate(self.cursors):
            with contextlib.suppress(apsw.ExecutionCompleteError):
                if at != but and cursor.is_explain is not None:
                    return True
        return False

    def _do_with(self, fails: bool, statements: list[str]) -> Any:
        with self.connection:
            for statement in statements:
                self.connection.execute(statement)
            if fails:
                message = "on purpose"
                raise ZeroDivisionError(message)

    def _do_next(self, cursor: int) -> Any:
        return next(self.cursors[cursor])

    def _do_fetchone(self, cursor: int) -> Any:
        return self.cursors[cursor].fetchone()

    def _do_fetchall(self, cursor: int) -> Any:
        return self.cursors[cursor].fetchall()

    def _do_get(self, cursor: int) -> Any:
        return self.cursors[cursor].get

    def _do_close(self, cursor: int) -> Any:
        try:
            self.cursors[cursor].close()
        finally:
            self.cursors[cursor] = self.connection.cursor()

    def _do_drop_cursor(self, cursor: int) -> Any:
        self.cursors[cursor] = self.connection.cursor()

    def _do_blob(self, row: int, write: bool) -> Any:
        with self.connection.blob_open("main", "blobs", "b", row, write) as blob:
            if write:
                blob.write(b"abcd")
            return blob.read()

    def _do_lock(self, lock: bool) -> Any:
        """Have another connection hold the write lock, or let it go."""
        if self.other.in_transaction:
            self.other.execute("ROLLBACK")
        elif lock and "aux" not in self.connection.db_names():  # a write to an attached database needs the main one's lock
            self.other.execute("BEGIN IMMEDIATE")

    def _do_refuse_commits(self, refuses: bool) -> None:
        self.refuses = refuses

    def _do_attach(self, attach: bool) -> Any:
        if self.other.in_transaction:
            self.other.execute("ROLLBACK")
        if attach:
            self.connection.execute("ATTACH ? AS aux", (f"{self.path}-aux",))
            self.connection.execute("CREATE TABLE IF NOT EXISTS aux.far(i)")
        else:
            for cursor in range(3):  # refused while a statement under a holder is half-read: AUDIT.md, "What differs"
                with contextlib.suppress(apsw.Error):
                    self._do_close(cursor)
            self.connection.execute("DETACH aux")

    def _do_temp_store(self) -> Any:
        """Change it while no cursor is half-read: SQLite refuses it once the temporary database is in use."""
        for cursor in range(3):
            self._do_close(cursor)
        found = self.connection.execute("PRAGMA temp_store = 2").fetchall()
        self.connection.execute("CREATE TEMP TABLE IF NOT EXISTS temp_t(i INTEGER PRIMARY KEY, k, x)", can_cache=False)
        return found

    def _do_pragma(self, name: str) -> Any:
        return self.connection.pragma(name)

    def content(self) -> Any:
        """Return everything that is in the program's tables at the end."""
        self.cursors.clear()
        if self.other.in_transaction:
            self.other.execute("ROLLBACK")
        tables = ("t", "u", "child", "blobs", "w")
        return [self.connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables]


Connect = Callable[[str], apsw.Connection]
