"""Read what is left of a database and build a new one from it: tables, their rows, then what follows from these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import apsw

from heliosvfs.btrees import (
    DamagedRow,
    Family,
    Orphans,
    PageSource,
    PointerMap,
    Row,
    SchemaEntry,
    Tree,
    claims_without_rows,
    find_orphans,
    lock_page,
    owners,
    read_freelist,
    read_node,
    rows_of,
    salvage_schema,
    tree_by_elimination,
)
from heliosvfs.errors import UsageError
from heliosvfs.salvage.copies import Copy
from heliosvfs.salvage.reports import DamagedPage, SalvageReport
from heliosvfs.salvage.schemas import create, create_virtual_table, make_sequence_table, make_statistics_tables, permissive
from heliosvfs.salvage.tables import LostAndFound, Table, pragma, quoted

__all__ = ["Progress", "beginnings", "salvage_pages"]

Progress = Callable[[int, int], None]

_BATCH = 256  # pages or rows between two calls of a progress function
_ENCODINGS = {"utf-8": "UTF-8", "utf-16-le": "UTF-16le", "utf-16-be": "UTF-16be"}
_SEQUENCES = "sqlite_sequence"


def beginnings(source: PageSource) -> dict[str, str]:
    """Return the PRAGMAs that must come before the first page of a database that is to get what a damaged one had."""
    schema = salvage_schema(source, claims_without_rows(source))
    auto_vacuum = "none" if schema.header is None else schema.header.auto_vacuum
    return {"auto_vacuum": auto_vacuum, "encoding": _ENCODINGS[schema.encoding]}


def salvage_pages(source: PageSource, destination: apsw.Connection, *, progress: Progress | None = None) -> SalvageReport:
    """Build a database anew from those pages of another that can be read.

    Args:
        source: The damaged database.
        destination: A connection to the new one, which must be empty. It keeps what is committed if this is interrupted.
        progress: Called with steps done and steps in all, two for each page.

    Raises:
        UsageError: The new database is not empty, or was begun in another text encoding.
    """
    start = beginnings(source)
    if destination.in_transaction or destination.execute("SELECT count(*) FROM main.sqlite_schema").get:
        msg = "the database to salvage into is not empty"
        raise UsageError(msg)
    if not destination.pragma("page_count"):
        destination.pragma("page_size", source.page_size)
        for name, value in start.items():
            destination.pragma(name, value)
    if str(destination.pragma("encoding")).lower() != start["encoding"].lower():
        msg = f"the database to salvage into must have the text encoding {start['encoding']}"
        raise UsageError(msg)
    with permissive(destination):
        return _Rebuilding(source, destination, progress).run()


class _Rebuilding:
    """A salvage in progress."""

    def __init__(self, source: PageSource, connection: apsw.Connection, progress: Progress | None) -> None:
        self._source = source
        self._connection = connection
        self._progress = progress
        self._steps = 0
        self._damaged = self._scan()
        self._claims = claims_without_rows(source)
        self._schema = salvage_schema(source, self._claims)
        self._freelist = read_freelist(source)
        taken = {entry.name.lower() for entry in self._schema.entries}
        self._lost_and_found = LostAndFound(connection, "lost_and_found", taken)
        self._lost_entries = LostAndFound(connection, "lost_and_found_entries", taken)  # of indexes, for the most part
        self._copies: list[Copy] = []
        self._sequences: Copy | None = None  # of sqlite_sequence, which comes last
        self._sequence_rows: list[Row] = []
        self._indexes: dict[str, Tree] = {}
        self._entries: dict[str, int] = {}  # by index
        self._stray_damage: list[DamagedRow] = []
        self._strays = 0  # groups of orphans whose table is not known
        self._problems: list[str] = []
        self._notes: list[str] = []

    def run(self) -> SalvageReport:
        """Do everything, in the order in which one thing needs another."""
        self._say_what_the_schema_lacks()
        self._make_tables()
        self._copy_rows()
        if self._damaged or not self._schema.complete or any(not copy.tree.is_complete for copy in self._copies):
            self._walk_indexes()
            self._place_orphans()
        self._finish_sequences()
        self._make_the_rest()
        if self._schema.header is not None:
            self._connection.pragma("user_version", self._schema.header.user_version)
            self._connection.pragma("application_id", self._schema.header.application_id)
        self._tick(2 * self._source.page_count)
        return self._report()

    # -- looking -----------------------------------------------------------------------------------------------------

    def _tick(self, steps: int) -> None:
        if self._progress is not None and (steps - self._steps >= _BATCH or steps == 2 * self._source.page_count):
            self._steps = steps
            self._progress(steps, 2 * self._source.page_count)

    def _scan(self) -> list[int]:
        """Return the pages that can't be read."""
        unused, damaged = lock_page(self._source), list[int]()
        for number in range(1, self._source.page_count + 1):
            if number != unused and self._source.read(number) is None:
                damaged.append(number)
            self._tick(number)
        return damaged

    def _say_what_the_schema_lacks(self) -> None:
        schema = self._schema
        (self._notes if schema.complete else self._problems).extend(schema.notes)
        if schema.header is None:
            self._problems.append("page 1 can't be read: user_version and application_id are lost, auto_vacuum is off")
        elif schema.header.page_count > self._source.page_count:
            self._notes.append(f"the file ends after {self._source.page_count} of {schema.header.page_count} pages")

    def _walk_indexes(self) -> None:
        """Find out which pages belong to indexes, and how many entries these have."""
        for entry in self._schema.entries:
            if entry.type == "index" and entry.root:
                tree = self._indexes[entry.name] = Tree(self._source, entry.root, self._claims)
                entries = tree.claim()
                if not tree.lost:
                    self._entries[entry.name] = entries
                self._tick(self._source.page_count + len(self._claims))

    # -- tables and rows ---------------------------------------------------------------------------------------------

    def _make_tables(self) -> None:
        """Make the tables that have rows of their own, which leaves out virtual ones."""
        tables = [entry for entry in self._schema.entries if entry.type == "table" and entry.root]
        statistics = {entry.name for entry in tables if entry.name.startswith("sqlite_stat")}
        if statistics:
            make_statistics_tables(self._connection, statistics)
        for entry in tables:
            if entry.name == _SEQUENCES:
                continue
            why = "" if entry.name in statistics else create(self._connection, entry)
            there = self._connection.execute("SELECT count(*) FROM main.sqlite_schema WHERE name = ?", (entry.name,)).get
            if not there:
                reason = why or "this SQLite has no such table"
                self._problems.append(f"table {entry.name} could not be made, its rows are in the lost-and-found table: {reason}")
            table = Table.of(self._connection, entry.name) if there else None
            self._copies.append(Copy(entry, Tree(self._source, entry.root, self._claims), table))
        self._make_sequences([entry for entry in tables if entry.name == _SEQUENCES])

    def _make_sequences(self, entries: Sequence[SchemaEntry]) -> None:
        for entry in entries[:1]:
            make_sequence_table(self._connection, self._unused_name())
            tree = Tree(self._source, entry.root, self._claims)
            self._sequences = Copy(entry, tree, Table.of(self._connection, _SEQUENCES))

    def _unused_name(self) -> str:
        names = {entry.name.lower() for entry in self._schema.entries}
        return next(name for i in range(len(names) + 1) if (name := f"salvage_{i}") not in names)

    def _copy_rows(self) -> None:
        for copy in self._copies:
            with self._connection:
                for row in copy.tree.rows(self._schema.encoding):
                    copy.put(self._connection, row, self._lost_and_found)
                    self._tick(self._source.page_count + len(self._claims))
        if self._sequences is not None:
            self._sequence_rows += self._sequences.tree.rows(self._schema.encoding)

    def _finish_sequences(self) -> None:
        """Fill sqlite_sequence last: every insert into an AUTOINCREMENT table has changed it."""
        copy = self._sequences
        if copy is None:
            return
        with self._connection:
            if copy.tree.is_complete:
                self._connection.execute("DELETE FROM main.sqlite_sequence")
            for row in self._sequence_rows:
                self._connection.execute("DELETE FROM main.sqlite_sequence WHERE name IS ?", (*row.values, None)[:1])
                copy.put(self._connection, row, self._lost_and_found)

    # -- orphans -----------------------------------------------------------------------------------------------------

    def _place_orphans(self) -> None:
        """Find pages whose way to the root is lost, and put their rows where they certainly belong, or else aside."""
        copies = [*self._copies, *([] if self._sequences is None else [self._sequences])]
        families = [family for copy in copies for family in copy.families()]
        if self._schema.complete and not any(family.tree.gaps() for family in families):
            return  # whatever nothing points to is free
        with_entries = not self._schema.complete or any(not family.is_table and family.tree.gaps() for family in families)
        families += [Family(tree, is_table=False) for tree in self._indexes.values()]
        families.append(Family(self._schema.tree, is_table=True))
        pointers = PointerMap.of(self._source)
        certain = self._schema.complete and self._freelist.complete
        by_root = {copy.entry.root: copy for copy in copies}
        ordinary = {tree.root for tree in self._indexes.values()}
        free = {*self._freelist.trunks, *self._freelist.leaves}
        for orphans in find_orphans(self._source, self._claims, free):
            root = pointers.tree_of(orphans.top, self._claims) if pointers is not None else 0
            if not root and certain:
                root = tree_by_elimination(orphans, families)
            if root not in ordinary and (root or orphans.is_table or with_entries):
                self._place(orphans, by_root.get(root))
        mapped = pointers is not None and not set(pointers.pages()).intersection(self._damaged)
        if self._strays and not self._freelist.complete and not mapped:
            self._notes.append(f"rows that were deleted may be among the lost and found: {'; '.join(self._freelist.notes)}")

    def _place(self, orphans: Orphans, copy: Copy | None) -> None:
        damaged = self._stray_damage if copy is None else copy.tree.damaged
        top = orphans.top if copy is None else copy.entry.root
        aside = self._lost_and_found if orphans.is_table else self._lost_entries
        if copy is None:
            self._strays += 1
        else:
            copy.adopted = True
        with self._connection:
            for number in orphans.pages:
                node = read_node(self._source, number)
                self._claims.setdefault(number, top)
                for row in rows_of(self._source, node, self._schema.encoding, self._claims, top, damaged) if node else ():
                    if copy is None:
                        aside.insert(top, row)
                    elif copy is self._sequences:
                        self._sequence_rows.append(row)
                    else:
                        copy.put(self._connection, row, self._lost_and_found)
                self._tick(self._source.page_count + len(self._claims))

    # -- what follows ------------------------------------------------------------------------------------------------

    def _make_the_rest(self) -> None:
        """Make virtual tables, whose shadow tables are filled now, then indexes, views and triggers."""
        entries = [entry for entry in self._schema.entries if entry.sql]
        virtual = [entry for entry in entries if entry.type == "table" and not entry.root]
        rest = [entry for kind in ("index", "view", "trigger") for entry in entries if entry.type == kind]
        for action, objects in ((create_virtual_table, virtual), (create, rest)):
            for entry in objects:
                why = action(self._connection, entry)
                if why:
                    self._problems.append(f"{entry.type} {entry.name} could not be made: {why}")

    def _report(self) -> SalvageReport:
        if self._stray_damage:
            self._problems.append(f"{len(self._stray_damage)} rows of unknown tables could not be read whole")
        refused = self._lost_and_found.refused + self._lost_entries.refused
        if refused:
            self._problems.append(f"{refused} rows have more fields than a table may have columns")
        if self._lost_entries.rows:
            self._problems.append(
                f"{self._lost_entries.rows} entries in table {self._lost_entries.name} are rows of a table WITHOUT ROWID, or "
                "entries of an index, which are in its table as well"
            )
        accounted = {*self._claims, *self._freelist.trunks, *self._freelist.leaves}
        truncated = self._schema.header is None or self._schema.header.page_count > self._source.page_count
        gaps_filled = self._schema.complete and not truncated and not self._strays and accounted.issuperset(self._damaged)
        copies = [*self._copies, *([] if self._sequences is None else [self._sequences])]
        missing = {copy.entry.name: copy.missing(entries=self._rows_by_index(copy), gaps_filled=gaps_filled) for copy in copies}
        missing = {name: number for name, number in missing.items() if number != 0}
        self._warn_of_virtual_tables(missing)
        source = self._source
        whose = owners(source.read, source.page_size, source.usable_size, source.page_count) if self._damaged else {}
        return SalvageReport(
            pages=source.page_count,
            damaged_pages=tuple(DamagedPage(number, str(whose[number])) for number in self._damaged),
            tables={copy.entry.name: copy.rows for copy in copies if copy.table is not None},
            missing=missing,
            lost_and_found=self._lost_and_found.rows,
            lost_and_found_table=self._lost_and_found.name,
            problems=tuple(self._problems),
            notes=tuple(self._notes),
        )

    def _warn_of_virtual_tables(self, missing: Iterable[str]) -> None:
        for entry in self._schema.entries:
            shadows = [name for name in missing if name.startswith(f"{entry.name}_")]
            if entry.type == "table" and not entry.root and shadows:
                table = quoted(entry.name)
                self._notes.append(
                    f"virtual table {entry.name} may be inconsistent, for rows of {', '.join(shadows)} are missing; if it is one "
                    f"for full-text search, INSERT INTO {table}({table}) VALUES('rebuild') makes its index anew"
                )

    def _rows_by_index(self, copy: Copy) -> int | None:
        """Return how many rows a table had, from an index that is complete and not partial; None if there is none."""
        indexes = pragma(self._connection, "index_list", copy.entry.name)
        names = [str(name) for _, name, _, _, partial in indexes if not partial]
        return next((self._entries[name] for name in names if name in self._entries), None)
