"""A generated workload, run twice with the same seed: on an encrypted database and on plain SQLite."""

from __future__ import annotations

import os
import random
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

import heliosvfs

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
AUTO_VACUUM = ("none", "full", "incremental")
KINDS = ("insert", "many", "update", "delete", "pair", "derived", "doc", "box", "savepoint", "rollback", "alter")


@dataclass
class Plain:
    """Plain SQLite, set up like the encrypted subject."""

    folder: Path
    page_size: int
    auto_vacuum: str
    journal_mode: str = "delete"
    found_modes: list[Any] = field(default_factory=list)  # what each file said when it was opened again

    def open(self, name: str) -> apsw.Connection:
        """Open or create a database in the journal mode; a file keeps none but WAL."""
        path = self.folder / name
        new = not path.exists()
        connection = self._connect(path, new=new)
        if not new:
            self.found_modes.append(connection.pragma("journal_mode"))
            connection.pragma("journal_mode", self.journal_mode)
        self.require_mode(connection)
        return connection

    def require_mode(self, connection: apsw.Connection) -> None:
        """See that each database of a connection is in the journal mode."""
        schemas = [name for _, name, _ in connection.execute("PRAGMA database_list").fetchall() if name != "temp"]
        assert {connection.execute(f"PRAGMA {name}.journal_mode").get for name in schemas} == {self.journal_mode}

    def _connect(self, path: Path, *, new: bool) -> apsw.Connection:
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(5000)
        if new:
            connection.pragma("page_size", self.page_size)
            connection.reserve_bytes("main", 32)  # the same layout, so that the same statements touch the same pages
            connection.pragma("auto_vacuum", AUTO_VACUUM.index(self.auto_vacuum))
            connection.pragma("journal_mode", self.journal_mode)
        return connection

    def attach(self, connection: apsw.Connection, name: str) -> None:
        connection.execute("ATTACH ? AS aux", (str(self.folder / name),))
        connection.reserve_bytes("aux", 32)


class Encrypted(Plain):
    """The same through heliosvfs."""

    def _connect(self, path: Path, *, new: bool) -> apsw.Connection:
        return heliosvfs.connect(
            path,
            key=OTHER_KEY if path.name == "aux.db" else KEY,
            page_size=self.page_size,
            auto_vacuum=self.auto_vacuum,
            journal_mode=self.journal_mode if new else None,
        )

    def attach(self, connection: apsw.Connection, name: str) -> None:
        assert isinstance(connection, heliosvfs.Connection)
        connection.attach(self.folder / name, "aux", key=OTHER_KEY)


def content(connection: apsw.Connection, schema: str = "main") -> dict[str, Any]:
    """Return everything that a database holds."""
    found: dict[str, Any] = {
        "schema": connection.execute(f"SELECT type, name, tbl_name, sql FROM {schema}.sqlite_schema ORDER BY 1, 2").fetchall(),
        "settings": [
            connection.execute(f"PRAGMA {schema}.{name}").get for name in ("user_version", "application_id", "auto_vacuum")
        ],
    }
    for (table,) in connection.execute(
        f"SELECT name FROM {schema}.sqlite_schema WHERE type = 'table' AND rootpage > 0"
    ).fetchall():
        rowid = "" if connection.execute("SELECT wr FROM pragma_table_list WHERE name = ?", (table,)).get else "rowid, "
        found[table] = connection.execute(f'SELECT {rowid}* FROM {schema}."{table}" ORDER BY 1, 2').fetchall()
    return found


def run(subject: Plain, seed: int, rounds: int) -> list[Any]:
    """Run the workload in the subject's journal mode and return everything that could be seen of it."""
    rng = random.Random(seed)
    seen: list[Any] = []
    can_roll_back = subject.journal_mode != "off"
    with closing(subject.open("main.db")) as connection:
        connection.pragma("cache_size", 10)
        connection.execute(
            """
            CREATE TABLE item(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, body BLOB);
            CREATE TABLE derived(a, b AS (a * 2), c AS (a || '!') STORED);
            CREATE TABLE pair(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
            CREATE TABLE log(what TEXT);
            CREATE INDEX item_name ON item(name);
            CREATE TRIGGER item_gone AFTER DELETE ON item BEGIN INSERT INTO log VALUES(old.name); END;
            CREATE VIRTUAL TABLE doc USING fts5(body);
            CREATE VIRTUAL TABLE box USING rtree(id, x0, x1);
            INSERT INTO item(name, body) VALUES('first', zeroblob(100));
            """
        )
        for kind in (*rng.sample(KINDS, len(KINDS)), *rng.choices(KINDS, k=rounds - len(KINDS))):
            step(subject, connection, rng, kind, can_roll_back=can_roll_back)
            seen.append((connection.changes(), connection.total_changes(), connection.last_insert_rowid()))
        for end in ("ROLLBACK", "COMMIT") if can_roll_back else ("COMMIT",):
            connection.execute("BEGIN; UPDATE item SET name = name || '+'")
            bodies = [(f"spilled {n}", rng.randbytes(4 * subject.page_size)) for n in range(4)]
            connection.executemany("INSERT INTO item(name, body) VALUES(?, ?)", bodies)
            connection.execute(end)
        spilled = connection.status(apsw.SQLITE_DBSTATUS_CACHE_SPILL)[0]
        assert spilled
        seen.append(spilled)
        # a sort that does not fit in the cache goes to a temporary file
        connection.pragma("temp_store", 1)
        seen.append(connection.execute("SELECT name, length(body) FROM item ORDER BY body, name DESC").fetchall())
        with closing(
            connection.blob_open("main", "item", "body", connection.execute("SELECT min(id) FROM item").get, True)
        ) as blob:
            blob.write(b"in place"[: blob.length()])
        connection.execute("ANALYZE; PRAGMA user_version = 42; PRAGMA application_id = 7")
        seen.append(content(connection))
        subject.require_mode(connection)
    with closing(subject.open("main.db")) as connection:
        connection.pragma("cache_size", 10)
        seen.append(connection.pragma("integrity_check"))
        seen.append(content(connection))
        seen.append(two_files(subject, connection, can_roll_back=can_roll_back))
        connection.execute("DELETE FROM item WHERE id % 2")
        seen.append(pages(connection))
        connection.execute("PRAGMA incremental_vacuum(3)").fetchall()
        seen.append(pages(connection))
        connection.execute("VACUUM")
        seen.append((pages(connection), content(connection)))
        connection.execute("VACUUM INTO ?", (str(subject.folder / "into.db"),))
        with closing(subject.open("backup.db")) as copy:
            copy.execute("CREATE TABLE to_be_overwritten(x)")
            with copy.backup("main", connection, "main") as backup:
                while not backup.done:
                    backup.step(7)
            subject.require_mode(copy)
            seen.append((copy.pragma("integrity_check"), content(copy)))
        subject.require_mode(connection)
    for name in ("main.db", "aux.db", "backup.db", "into.db"):
        with closing(subject.open(name)) as copy:
            seen.append((name, copy.pragma("integrity_check"), pages(copy), content(copy)))
    return [*seen, subject.found_modes]


def pages(connection: apsw.Connection) -> tuple[Any, ...]:
    """Return the size of a page, and how many are there and are free."""
    return tuple(connection.pragma(name) for name in ("page_size", "page_count", "freelist_count"))


def two_files(subject: Plain, connection: apsw.Connection, *, can_roll_back: bool) -> list[Any]:
    """Write to two files in one transaction."""
    subject.attach(connection, "aux.db")
    connection.execute(f"PRAGMA aux.journal_mode = {subject.journal_mode}").fetchall()
    subject.require_mode(connection)
    connection.execute("CREATE TABLE aux.moved(id, name, body)")
    with connection:
        connection.execute("INSERT INTO aux.moved SELECT id, name, body FROM main.item WHERE id % 5 = 0")
        connection.execute("DELETE FROM main.item WHERE id % 5 = 0")
    if can_roll_back:
        connection.execute("BEGIN; DELETE FROM aux.moved; DELETE FROM main.item; ROLLBACK")
    seen = [content(connection, "aux"), content(connection)]
    connection.execute("DETACH aux")
    return seen


def step(subject: Plain, connection: apsw.Connection, rng: random.Random, kind: str, *, can_roll_back: bool) -> None:
    """Do one thing."""

    def body() -> bytes:
        size = rng.choice([0, 5, 40, 200, subject.page_size, 3 * subject.page_size + 17, 70_000])
        return rng.randbytes(size)

    if kind == "insert":
        connection.execute("INSERT INTO item(name, body) VALUES(?, ?)", (f"one {rng.randrange(1000)}", body()))
    elif kind == "many":
        with connection:
            connection.executemany(
                "INSERT INTO item(name, body) VALUES(?, ?)", [(f"many {n}", rng.randbytes(rng.randrange(300))) for n in range(60)]
            )
    elif kind == "update":
        connection.execute("UPDATE item SET body = ?, name = name || '.' WHERE id % 7 = ?", (body(), rng.randrange(7)))
    elif kind == "delete":
        connection.execute("DELETE FROM item WHERE id % 11 = ? AND id > 3", (rng.randrange(11),))
    elif kind == "pair":
        pair = (f"key {rng.randrange(50)}", body())
        connection.execute("INSERT INTO pair VALUES(?, ?) ON CONFLICT DO UPDATE SET v = excluded.v", pair)
    elif kind == "derived":
        connection.execute("INSERT INTO derived(a) VALUES(?)", (rng.randrange(1000),))
    elif kind == "doc":
        connection.execute("INSERT INTO doc VALUES(?)", (" ".join(rng.choices(["alpha", "beta", "gamma", "delta"], k=20)),))
    elif kind == "box":
        low = rng.randrange(1000)
        connection.execute("INSERT INTO box(x0, x1) VALUES(?, ?)", (low, low + rng.randrange(50)))
    elif kind == "alter":
        connection.execute(f"CREATE TABLE IF NOT EXISTS extra{rng.randrange(4)}(a, b UNIQUE)")
    elif can_roll_back and kind == "rollback":
        connection.execute("BEGIN; DELETE FROM item; INSERT INTO item(name, body) VALUES('never', zeroblob(20000)); ROLLBACK")
    elif can_roll_back:
        connection.execute("BEGIN; INSERT INTO item(name, body) VALUES('kept', zeroblob(9000)); SAVEPOINT a")
        connection.execute("UPDATE item SET body = zeroblob(3000); SAVEPOINT b; DELETE FROM item; ROLLBACK TO b")
        connection.execute("INSERT INTO pair VALUES('gone', 1); ROLLBACK TO a; RELEASE a; COMMIT")


def folders(base: Path) -> tuple[Path, Path]:
    """Return a folder for each subject."""
    for name in ("plain", "encrypted"):
        os.mkdir(base / name)
    return base / "plain", base / "encrypted"
