"""Databases in plain files of which pages are missing, and what SQLite itself says of their pages (its dbstat table)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apsw


@dataclass
class PlainFile:
    """A plain SQLite file as a source of pages, without those that are missing."""

    content: bytes
    missing: frozenset[int] = frozenset()
    page_size: int = field(init=False)

    def __post_init__(self) -> None:
        size = int.from_bytes(self.content[16:18], "big")
        self.page_size = 65536 if size == 1 else size

    @property
    def usable_size(self) -> int:
        return self.page_size - self.content[20]

    @property
    def page_count(self) -> int:
        return len(self.content) // self.page_size

    def read(self, number: int) -> bytes | None:
        assert 1 <= number <= self.page_count
        return None if number in self.missing else self.content[(number - 1) * self.page_size : number * self.page_size]

    def without(self, *missing: int) -> PlainFile:
        return PlainFile(self.content, frozenset(missing))


@dataclass(frozen=True)
class Stored:
    """A row, and the pages that it is on: that of its cell first, then overflow pages."""

    table: str
    rowid: int | None
    values: tuple[Any, ...]
    pages: tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """A database, its rows with their pages, and the owner of each page that SQLite knows of."""

    file: PlainFile
    rows: tuple[Stored, ...]
    owners: dict[int, str]


def dbstat(connection: apsw.Connection, name: str) -> dict[str, tuple[int, str, int]]:
    """Return page number, kind and number of cells by path: `/` the root, `/002/` its third child, `/002/001+000000` overflow."""
    query = "SELECT path, pageno, pagetype, ncell FROM dbstat WHERE name = ?"
    return {path: (page, kind, cells) for path, page, kind, cells in connection.execute(query, (name,))}


def cells_in_key_order(pages: dict[str, tuple[int, str, int]], *, with_rowid: bool, path: str = "/") -> Iterator[tuple[int, ...]]:
    """Yield the pages of each row of a tree, its cell's first."""
    page, kind, cells = pages[path]
    for i in range(cells):
        if kind == "internal":
            yield from cells_in_key_order(pages, with_rowid=with_rowid, path=f"{path}{i:03x}/")
            if with_rowid:
                continue
        chain = []
        while (overflow := f"{path}{i:03x}+{len(chain):06x}") in pages:
            chain.append(pages[overflow][0])
        yield (page, *chain)
    if kind == "internal":
        yield from cells_in_key_order(pages, with_rowid=with_rowid, path=f"{path}{cells:03x}/")


def stored_rows(connection: apsw.Connection, table: str, key: str, columns: str) -> list[Stored]:
    """Return the rows of a table with their pages; ``key`` is "rowid" or the primary key of a table WITHOUT ROWID."""
    rowid = "rowid" if key == "rowid" else "NULL"
    rows = connection.execute(f"SELECT {rowid}, {columns} FROM {table} ORDER BY {key}").fetchall()
    places = list(cells_in_key_order(dbstat(connection, table), with_rowid=key == "rowid"))
    assert len(rows) == len(places)
    return [Stored(table, row[0], row[1:], pages) for row, pages in zip(rows, places, strict=True)]


TABLES = {  # key, and columns in stored order
    "item": ("rowid", "a, b, c"),
    "person": ("rowid", "NULL, name, note"),
    "pair": ("l, r", "l, r, x"),
    "numbers": ("rowid", "n"),
}


@lru_cache(maxsize=16)
def example(page_size: int = 1024, auto_vacuum: int = 0, encoding: str = "UTF-8", seed: int = 0) -> Example:
    """Make a database with tables of several levels, overflow pages, indexes and free pages."""
    chance = random.Random(seed)
    scale = max(1, page_size // 1024)

    def text(most: int) -> str:
        words = ("salt", "mercury", "fjord", "Übermaß", "łódź", "naïve", "stone", "helium")
        return " ".join(chance.choice(words) for _ in range(chance.randrange(1, most)))

    def value() -> Any:
        huge = chance.randbytes(chance.randrange(page_size * 4)) if chance.random() < 0.04 else None
        return huge or chance.choice([None, 0, 1, -1, chance.getrandbits(60), chance.random(), text(9), chance.randbytes(20)])

    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "example.db")
        connection = apsw.Connection(path)
        for name, setting in (("page_size", page_size), ("auto_vacuum", auto_vacuum), ("encoding", encoding)):
            connection.pragma(name, setting)
        connection.pragma("journal_mode", "off")
        connection.execute(
            "CREATE TABLE item(a, b, c); CREATE INDEX item_a ON item(a); CREATE TABLE gone(x);"
            "CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, note);"
            "CREATE TABLE pair(x, l INTEGER, r TEXT, PRIMARY KEY(l, r)) WITHOUT ROWID; CREATE INDEX pair_x ON pair(x);"
            "CREATE TABLE numbers(n);"
        )
        connection.execute("BEGIN")
        rows = 30 * min(scale, 20) + 220
        for i in range(rows):
            connection.execute("INSERT INTO item VALUES(?,?,?)", (value(), value(), text(12)))
            connection.execute("INSERT INTO gone VALUES(?)", (f"deleted {text(40)}",))
            connection.execute("INSERT INTO person VALUES(?,?,?)", (i * i - 5000, text(5), value()))
            connection.execute("INSERT INTO pair VALUES(?,?,?)", (value(), i // 7, f"{i} {text(20)}"))
            connection.execute("INSERT INTO numbers VALUES(?)", (i,))
        connection.execute("COMMIT")
        connection.execute("DELETE FROM item WHERE rowid % 3 = 0; DELETE FROM pair WHERE l % 5 = 1; DROP TABLE gone")
        stored = [row for table, (key, columns) in TABLES.items() for row in stored_rows(connection, table, key, columns)]
        tables = ["sqlite_schema", *TABLES]
        kinds = {name: "table" if name in tables else "index" for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        owners = {page: name for name, page in connection.execute("SELECT name, pageno FROM dbstat")}
        kinds["sqlite_schema"] = "table"
        connection.close()
        content = Path(path).read_bytes()
    return Example(PlainFile(content), tuple(stored), {page: f"{kinds[name]} {name}" for page, name in owners.items()})
