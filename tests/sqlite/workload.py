"""A generated workload, run twice with the same seed: on an encrypted database and on plain SQLite."""

from __future__ import annotations

import os
import random
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

import heliosvfs

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
AUTO_VACUUM = ("none", "full", "incremental")


@dataclass
class Plain:
    """Plain SQLite, set up like the encrypted subject."""

    folder: Path
    page_size: int
    auto_vacuum: str

    def open(self, name: str) -> apsw.Connection:
        path = self.folder / name
        new = not path.exists()
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(5000)
        if new:
            connection.pragma("page_size", self.page_size)
            connection.reserve_bytes("main", 32)  # the same layout, so that the same statements touch the same pages
            connection.pragma("auto_vacuum", AUTO_VACUUM.index(self.auto_vacuum))
        return connection

    def attach(self, connection: apsw.Connection, name: str) -> None:
        connection.execute("ATTACH ? AS aux", (str(self.folder / name),))


class Encrypted(Plain):
    """The same through heliosvfs."""

    def open(self, name: str) -> apsw.Connection:
        return heliosvfs.connect(
            self.folder / name, key=KEY, page_size=self.page_size, auto_vacuum=self.auto_vacuum, journal_mode="delete"
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


def run(subject: Plain, journal_mode: str, seed: int, rounds: int) -> list[Any]:
    """Run the workload and return everything that could be seen of it."""
    rng = random.Random(seed)
    seen: list[Any] = []
    can_roll_back = journal_mode != "off"
    with closing(subject.open("main.db")) as connection:
        connection.pragma("journal_mode", journal_mode)
        seen.append(connection.pragma("journal_mode"))
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
        for _ in range(rounds):
            step(subject, connection, rng, can_roll_back=can_roll_back)
            seen.append((connection.changes(), connection.total_changes(), connection.last_insert_rowid()))
        # a sort that does not fit in the cache goes to a temporary file
        connection.pragma("temp_store", 1)
        seen.append(connection.execute("SELECT name, length(body) FROM item ORDER BY body, name DESC").fetchall())
        with closing(
            connection.blob_open("main", "item", "body", connection.execute("SELECT min(id) FROM item").get, True)
        ) as blob:
            blob.write(b"in place"[: blob.length()])
        connection.execute("ANALYZE; PRAGMA user_version = 42; PRAGMA application_id = 7")
        seen.append(content(connection))
    with closing(subject.open("main.db")) as connection:
        seen.append(connection.pragma("integrity_check"))
        seen.append(content(connection))
        if can_roll_back:
            seen.append(two_files(subject, connection))
        connection.execute("DELETE FROM item WHERE id % 2")
        connection.execute("PRAGMA incremental_vacuum(3)").fetchall()
        connection.execute("VACUUM")
        seen.append((connection.pragma("page_size"), connection.pragma("page_count")))
        connection.execute("VACUUM INTO ?", (str(subject.folder / "into.db"),))
        with closing(subject.open("backup.db")) as copy:
            copy.execute("CREATE TABLE to_be_overwritten(x)")
            with copy.backup("main", connection, "main") as backup:
                while not backup.done:
                    backup.step(7)
            seen.append((copy.pragma("integrity_check"), content(copy)))
    with closing(subject.open("into.db")) as copy:
        seen.append((copy.pragma("integrity_check"), content(copy)))
    return seen


def two_files(subject: Plain, connection: apsw.Connection) -> list[Any]:
    """Write to two files in one transaction."""
    subject.attach(connection, "aux.db")
    connection.execute("CREATE TABLE aux.moved(id, name)")
    with connection:
        connection.execute("INSERT INTO aux.moved SELECT id, name FROM main.item WHERE id % 5 = 0")
        connection.execute("DELETE FROM main.item WHERE id % 5 = 0")
    connection.execute("BEGIN; DELETE FROM aux.moved; DELETE FROM main.item; ROLLBACK")
    seen = [content(connection, "aux"), content(connection)]
    connection.execute("DETACH aux")
    return seen


def step(subject: Plain, connection: apsw.Connection, rng: random.Random, *, can_roll_back: bool) -> None:
    """Do one thing."""

    def body() -> bytes:
        size = rng.choice([0, 5, 40, 200, subject.page_size, 3 * subject.page_size + 17, 70_000])
        return rng.randbytes(size)

    kind = rng.choice(["insert", "many", "update", "delete", "pair", "derived", "doc", "box", "savepoint", "rollback", "alter"])
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
