"""What the writer does before it is cut off, and the mirror that knows what the content should be.

Everything runs twice: on the database under test and on a plain SQLite in memory. After each statement that ends
outside a transaction and changed the content, the bench notes a mark: the log position before and after it, and the
mirror's content.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apsw

from tests.crash.subjects import Helios

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.crash.recorder import Log
    from tests.crash.subjects import Subject

__all__ = ["WORKLOADS", "Bench", "KeyMark", "Mark", "Mode", "content"]


@dataclass(frozen=True)
class Mode:
    """A way to run a database.

    Attributes:
        journal: The journal mode.
        synchronous: The synchronous level.
        psow: Whether the device claims POWERSAFE_OVERWRITE.
        page_size: Bytes of a page.
        workload: A name of WORKLOADS.
    """

    journal: str
    synchronous: str
    psow: bool
    page_size: int
    workload: str = "ledger"

    def __str__(self) -> str:
        """Return the form that test names and messages show."""
        return f"{self.workload}-{self.journal}-{self.synchronous}-psow{self.psow:d}-{self.page_size}"


@dataclass(frozen=True)
class Mark:
    """One committed content.

    Attributes:
        began: Log position before the commit; nothing of it may be seen at an earlier crash point.
        returned: Log position when the commit had returned.
        content: Digest of what a reader sees from then on.
        label: What was done.
    """

    began: int
    returned: int
    content: str
    label: str


def content(connection: apsw.Connection, schemas: tuple[str, ...]) -> str:
    """Return a digest of the schema and of all rows, rowids included."""
    digest = hashlib.sha256()
    for schema in schemas:
        tables = connection.execute(f"SELECT type, name, sql FROM {schema}.sqlite_schema ORDER BY type, name").fetchall()
        digest.update(repr(tables).encode())
        for kind, name, _ in tables:
            if kind == "table":
                for row in connection.execute(f'SELECT rowid, * FROM {schema}."{name}" ORDER BY rowid'):
                    digest.update(repr(row).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class KeyMark:
    """One durable state of the key slots: the names of the keys that open the database from ``returned`` on."""

    began: int
    returned: int
    keys: frozenset[str]


class Bench:
    """One run of a workload: two connections to the database under test, and the mirror.

    Attributes:
        mode: How the database is run.
        marks: The contents, in order.
        key_marks: The states of the key slots, in order; only a workload that changes them has any.
        schemas: The names of the databases.
    """

    def __init__(self, subject: Subject, vfs: str, path: Path, log: Log, mode: Mode) -> None:
        """Open the database for the first time; the log has begun before."""
        self.mode = mode
        self.marks: list[Mark] = []
        self.key_marks: list[KeyMark] = []
        self.schemas = ("main", "other") if mode.workload == "two files" else ("main",)
        self._subject, self._vfs, self._path, self._log = subject, vfs, path, log
        self._mirror = apsw.Connection(":memory:")
        self._sequence = 0
        self._connections: dict[str, apsw.Connection] = {}
        if len(self.schemas) > 1:
            self._mirror.execute("ATTACH ':memory:' AS other")
        self._mark(0, "nothing yet")
        self.reopen()

    def _open(self, *, first: bool) -> apsw.Connection:
        """Open one more connection in the mode of the test."""
        connection = self._subject.connect(self._path, self._vfs)
        for schema in self.schemas:
            if schema != "main":
                self._subject.attach(connection, self._path.with_name(schema), schema)
            if first:
                connection.execute(f"PRAGMA {schema}.page_size = {self.mode.page_size}")
                connection.execute(f"PRAGMA {schema}.auto_vacuum = incremental")
            connection.execute(f"PRAGMA {schema}.cache_size = 5")
            connection.execute(f"PRAGMA {schema}.cache_spill = 1")
            found = connection.execute(f"PRAGMA {schema}.journal_mode = {self.mode.journal}").fetchall()
            assert found == [(self.mode.journal,)], found
            # after the journal mode: the switch to WAL goes through a rollback journal, which NORMAL does not make safe
            connection.execute(f"PRAGMA {schema}.synchronous = {self.mode.synchronous}")
        return connection

    def reopen(self) -> None:
        """Close all connections, and open the first one."""
        self.close()
        self._connections["a"] = self._open(first=not self._sequence)

    def close(self) -> None:
        """Close all connections."""
        while self._connections:
            self._connections.popitem()[1].close()

    def subject(self, sql: str, who: str = "a") -> list[tuple[apsw.SQLiteValue, ...]]:
        """Run a statement only on the database under test; for what does not change the content."""
        if who not in self._connections:
            self._connections[who] = self._open(first=False)
        return self._connections[who].execute(sql).fetchall()

    def run(self, sql: str, *bindings: apsw.SQLiteValue, who: str = "a") -> None:
        """Run a statement on both, and note a mark where it ended a transaction with new content."""
        began = len(self._log)
        if who not in self._connections:
            self._connections[who] = self._open(first=False)
            began = len(self._log)
        self._connections[who].execute(sql, bindings)
        self._mirror.execute(sql, bindings)
        if not self._mirror.in_transaction:
            self._mark(began, sql)

    def rows(self, count: int, size: int, *, table: str = "ledger", who: str = "a") -> None:
        """Insert rows with consecutive numbers, and a checksum each."""
        for _ in range(count):
            self._sequence += 1
            body = hashlib.shake_128(str(self._sequence).encode()).digest(size)
            checksum = hashlib.sha256(body).hexdigest()[:16]
            self.run(f"INSERT INTO {table} VALUES (?, ?, ?)", self._sequence, body, checksum, who=who)

    def compare(self) -> None:
        """Require that the living database has the mirror's content."""
        assert content(self._connections["a"], self.schemas) == content(self._mirror, self.schemas), "differs while alive"

    def change_slots(self, change: Callable[[Helios, apsw.Connection], None], keys: set[str]) -> None:
        """Change the key slots of an encrypted database, after which the given keys open it."""
        assert isinstance(self._subject, Helios)
        began = len(self._log)
        change(self._subject, self._connections["a"])
        self.key_marks.append(KeyMark(began, len(self._log), frozenset(keys)))

    def change_key(self, old: str, new: str, keys: set[str]) -> None:
        """Replace one key by another, on a connection that was opened with it."""
        path, vfs = self._path, self._vfs
        self.change_slots(lambda subject, _: subject.change_key(path, vfs, old, new), keys)

    def _mark(self, began: int, label: str) -> None:
        digest = content(self._mirror, self.schemas)
        if not self.marks or self.marks[-1].content != digest:
            self.marks.append(Mark(began, len(self._log), digest, label))


def _transaction(bench: Bench, count: int, size: int, *, who: str = "a", end: str = "COMMIT") -> None:
    bench.run("BEGIN", who=who)
    bench.rows(count, size, who=who)
    bench.run(end, who=who)


def _ledger(bench: Bench) -> None:
    """Everything that one file goes through."""
    large = 3 * bench.mode.page_size  # a spilled transaction has a few times the five pages of the cache
    bench.run("CREATE TABLE ledger (seq INTEGER PRIMARY KEY, body BLOB, checksum TEXT)")
    bench.rows(2, 40)
    _transaction(bench, 3, 60)
    bench.run("CREATE INDEX by_checksum ON ledger (checksum)")
    _transaction(bench, 12, large)
    bench.rows(1, 12 * bench.mode.page_size)  # a long overflow chain in one autocommit
    _checkpoint(bench, "PASSIVE")
    bench.run("BEGIN")
    bench.rows(2, 100)
    bench.run("SAVEPOINT inner")
    bench.rows(6, large)
    bench.run("ROLLBACK TO inner")
    bench.rows(1, 100)
    bench.run("RELEASE inner")
    bench.run("COMMIT")
    _transaction(bench, 8, large, end="ROLLBACK")
    bench.run("DELETE FROM ledger WHERE length(body) >= ?", large)  # most pages are free now
    _transaction(bench, 6, large, end="ROLLBACK")  # written to free pages, which SQLite does not journal
    bench.compare()
    _checkpoint(bench, "RESTART")
    bench.rows(2, 50)
    bench.run("PRAGMA incremental_vacuum(4)")
    _transaction(bench, 4, large, who="b")
    _checkpoint(bench, "RESTART", who="b")
    bench.rows(1, 70, who="b")  # the log starts over without a's knowledge
    _transaction(bench, 3, 80)
    bench.run("UPDATE ledger SET checksum = upper(checksum)")
    bench.run("DELETE FROM ledger WHERE seq % 3 = 0")
    bench.subject("PRAGMA main.incremental_vacuum")
    _checkpoint(bench, "TRUNCATE")
    bench.rows(2, 90)
    bench.reopen()
    bench.run("BEGIN")
    bench.run("CREATE TABLE more AS SELECT seq, body FROM ledger WHERE seq < 8")
    bench.run("DROP INDEX by_checksum")
    bench.run("COMMIT")
    bench.run("VACUUM")
    bench.rows(1, 30)
    _transaction(bench, 5, large)
    bench.compare()
    bench.close()


def _checkpoint(bench: Bench, kind: str, who: str = "a") -> None:
    if bench.mode.journal == "wal":
        busy, *_ = bench.subject(f"PRAGMA main.wal_checkpoint({kind})", who)[0]
        assert busy == 0, kind


def _readers(bench: Bench) -> None:
    """A log that grows while somebody reads, so that checkpoints are partial and commits follow checkpointed frames."""
    bench.run("CREATE TABLE ledger (seq INTEGER PRIMARY KEY, body BLOB, checksum TEXT)")
    for _ in range(3):
        _transaction(bench, 4, bench.mode.page_size)
        bench.subject("BEGIN", "b")
        bench.subject("SELECT count(*) FROM ledger", "b")
        _transaction(bench, 2, 200)
        bench.subject("PRAGMA main.wal_checkpoint(PASSIVE)")
        bench.rows(2, 60)
        bench.subject("COMMIT", "b")
        bench.subject("BEGIN", "b")
        bench.subject("SELECT count(*) FROM ledger", "b")
        bench.subject("PRAGMA main.wal_checkpoint(PASSIVE)")
        bench.run("UPDATE ledger SET checksum = seq WHERE seq % 2 = 0")
        bench.rows(3, 60)
        bench.subject("COMMIT", "b")
        bench.compare()
    bench.close()


def _two_files(bench: Bench) -> None:
    """Transactions over two files, which a super-journal makes one."""
    bench.run("CREATE TABLE ledger (seq INTEGER PRIMARY KEY, body BLOB, checksum TEXT)")
    bench.run("CREATE TABLE other.copy (seq INTEGER PRIMARY KEY, body BLOB, checksum TEXT)")
    for _ in range(4):
        bench.run("BEGIN")
        bench.rows(4, 2 * bench.mode.page_size)
        bench.rows(4, 2 * bench.mode.page_size, table="other.copy")
        bench.run("COMMIT")
        bench.run("BEGIN")
        bench.run("DELETE FROM ledger WHERE seq % 3 = 0")
        bench.run("DELETE FROM other.copy WHERE seq % 3 = 1")
        bench.run("COMMIT")
        bench.rows(1, 40, table="other.copy")
    bench.compare()
    bench.close()


def _slots(bench: Bench) -> None:
    """Key slots that come and go between commits and inside one."""
    bench.run("CREATE TABLE ledger (seq INTEGER PRIMARY KEY, body BLOB, checksum TEXT)")
    bench.change_slots(lambda _, __: None, {"first"})
    bench.change_slots(lambda subject, a: subject.add_key(a, "second"), {"first", "second"})
    _transaction(bench, 3, 2 * bench.mode.page_size)
    bench.change_slots(lambda subject, a: subject.add_key(a, "third"), {"first", "second", "third"})
    bench.change_slots(lambda subject, a: subject.revoke_key(a, "second"), {"first", "third"})
    bench.rows(2, 50)
    bench.change_key("third", "fourth", {"first", "fourth"})
    bench.run("BEGIN")
    bench.rows(4, 2 * bench.mode.page_size)
    bench.change_slots(lambda subject, a: subject.add_key(a, "second"), {"first", "second", "fourth"})
    bench.rows(2, 60)
    bench.run("COMMIT")
    bench.reopen()
    bench.change_slots(lambda subject, a: subject.revoke_key(a, "third"), {"first", "second"})
    bench.compare()
    bench.close()


WORKLOADS: dict[str, Callable[[Bench], None]] = {
    "ledger": _ledger,
    "readers": _readers,
    "slots": _slots,
    "two files": _two_files,
}
