"""Random bytes, and real databases with random pages missing, against what SQLite itself says of them."""

from __future__ import annotations

import random
from collections import Counter

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliosvfs import btrees
from heliosvfs.salvage import SalvageReport, salvage_pages
from tests.damage import Example, PlainFile, Stored, example

SHAPES = [
    (512, 0, "UTF-8"),
    (512, 1, "UTF-16le"),
    (512, 2, "UTF-8"),
    (1024, 0, "UTF-16be"),
    (1024, 1, "UTF-8"),
    (1024, 2, "UTF-16le"),
    (4096, 0, "UTF-8"),
    (4096, 1, "UTF-16be"),
    (65536, 0, "UTF-8"),
    (65536, 2, "UTF-16le"),
]
shapes = st.sampled_from(SHAPES[:-2])  # the largest pages make large files: they have their own, shorter test
thoroughly = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def everything_that_reads(source: PlainFile) -> None:
    """Call all readers on pages that may hold anything."""
    whole = source.read, source.page_size, source.usable_size, source.page_count
    owners = btrees.owners(*whole)
    assert set(owners) == set(range(1, source.page_count + 1))
    free = btrees.freelist(*whole)
    assert len({*free.trunks, *free.leaves}) == len(free.trunks) + len(free.leaves) <= source.page_count
    claims: btrees.Claims = {}
    schema = btrees.salvage_schema(source, claims)
    rows = 0
    for root in range(1, source.page_count + 1):
        rows += sum(1 for _ in btrees.Tree(source, root, claims).rows(schema.encoding))
    assert len(claims) <= source.page_count
    assert rows <= source.page_count * source.page_size // 4  # no page is used twice
    for orphans in btrees.find_orphans(source, {}, set()):
        assert orphans.pages
    for number in range(1, source.page_count + 1):
        try:
            btrees.read_node(source, number)
        except btrees.MalformedError:
            continue


@st.composite
def nonsense(draw: st.DrawFn) -> PlainFile:
    """Pages of random bytes behind the beginnings of what they might be."""
    count = draw(st.integers(1, 8))
    header = bytearray(100)
    header[:24] = btrees.MAGIC + bytes([2, 0, 1, 1, draw(st.sampled_from([0, 32])), 64, 32, 32])
    for offset in (32, 36, 52, 56, 64):  # freelist, its length, auto_vacuum, encoding, incremental vacuum
        header[offset + 3] = draw(st.integers(0, count + 1))
    pages = []
    for number in range(count):
        start = bytes(header) if number == 0 else b""
        kind = draw(st.sampled_from([b"", b"\2", b"\5", b"\12", b"\15", b"\0\0\0\3\0\0\0\4"]))
        if len(kind) == 1:  # a b-tree page: cells that exist, pointers that stay near
            cells = draw(st.integers(0, 5))
            kind += bytes([0, 0, 0, cells, 0, 0, 0]) + (
                bytes([0, 0, 0, draw(st.integers(0, count + 1))]) if kind in b"\2\5" else b""
            )
            kind += b"".join(draw(st.integers(100, 511)).to_bytes(2, "big") for _ in range(cells))
        body = draw(st.one_of(st.binary(max_size=512), st.binary(max_size=60).map(lambda piece: piece * 30)))
        pages.append((start + kind + body)[:512].ljust(512, draw(st.sampled_from([b"\0", b"\1", b"\xff"]))))
    return PlainFile(b"".join(pages))


@given(source=nonsense())
@settings(max_examples=200, deadline=None)
def test_pages_of_random_bytes_raise_nothing_but_the_modules_own_error(source):
    everything_that_reads(source)


@given(
    shape=shapes, seed=st.integers(0, 3), where=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=200)
)
@thoroughly
def test_altered_bytes_in_real_databases_raise_nothing_but_the_modules_own_error(shape, seed, where):
    content = bytearray(example(*shape, seed).file.content)
    for position, value in where:
        offset = position % len(content)
        if offset not in (16, 17, 20):  # what PlainFile itself goes by
            content[offset] = value
    everything_that_reads(PlainFile(bytes(content)))


@given(shape=shapes, seed=st.integers(0, 3), where=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=60))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_salvage_of_altered_bytes_ends_with_a_database_that_is_in_order(shape, seed, where):
    content = bytearray(example(*shape, seed).file.content)
    for position, value in where:
        offset = position % len(content)
        if offset not in (16, 17, 20):
            content[offset] = value
    destination = apsw.Connection("")
    salvage_pages(PlainFile(bytes(content)), destination)
    assert destination.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("shape", SHAPES)
def test_owners_are_those_that_dbstat_names(shape):
    whole = example(*shape)
    file = whole.file
    found = btrees.owners(file.read, file.page_size, file.usable_size, file.page_count)
    assert {page: str(found[page]) for page in whole.owners} == whole.owners
    rest = Counter(str(owner) for page, owner in found.items() if page not in whole.owners)
    assert set(rest) <= {"freelist trunk", "freelist leaf", "pointer map"}
    free = int.from_bytes(file.content[36:40], "big")
    assert rest["freelist trunk"] + rest["freelist leaf"] == free
    assert (rest["pointer map"] > 0) == (shape[1] > 0)
    assert shape[1] == 1 or free  # auto_vacuum=full leaves no free page; the others must show some


@given(shape=shapes, seed=st.integers(0, 3), chance=st.integers(0, 1 << 32).map(random.Random), share=st.floats(0, 0.4))
@thoroughly
def test_no_page_gets_a_wrong_owner_whatever_is_missing(shape, seed, chance, share):
    """A page is unknown or its owner is right; one that is missing is known if the page above it can be read."""
    whole = example(*shape, seed)
    file = missing_pages(whole, chance, share)
    found = btrees.owners(file.read, file.page_size, file.usable_size, file.page_count)
    for page, owner in found.items():
        expected = whole.owners.get(page)
        if owner.kind in ("table", "index"):
            assert str(owner) == expected
        elif not str(owner).startswith("unknown"):
            assert expected is None


def missing_pages(whole: Example, chance: random.Random, share: float) -> PlainFile:
    numbers = range(1, whole.file.page_count + 1)
    return whole.file.without(*(number for number in numbers if chance.random() < share))


def survives(row: Stored, file: PlainFile) -> bool:
    return not file.missing.intersection(row.pages)


def check_that_exactly_the_surviving_rows_are_saved(whole: Example, file: PlainFile) -> SalvageReport:
    destination = apsw.Connection("")
    report = salvage_pages(file, destination)
    tables = {name for (name,) in destination.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    expected = [row for row in whole.rows if survives(row, file)]
    in_place: Counter[tuple[object, ...]] = Counter()
    for table, columns in (("item", "a, b, c"), ("person", "NULL, name, note"), ("pair", "l, r, x"), ("numbers", "n")):
        if table in tables:
            rowid = "NULL" if table == "pair" else "rowid"
            in_place.update((table, *row) for row in destination.execute(f"SELECT {rowid}, {columns} FROM {table}"))
    aside: Counter[tuple[object, ...]] = Counter()
    for name in ("lost_and_found", "lost_and_found_entries"):
        if name in tables:
            aside.update((row[1], row[3], *row[4 : 4 + row[2]]) for row in destination.execute(f"SELECT * FROM {name}"))
    for row in expected:
        here, there = (row.table, row.rowid, *row.values), (row.pages[0], row.rowid, *row.values)
        if in_place[here]:
            in_place[here] -= 1
        else:
            assert aside[there] == 1, row
            aside[there] -= 1
    assert not +in_place, "rows in a table that were not there, or not whole"
    for page, *_ in +aside:  # what else was put aside comes from indexes, the schema, or pages whose freedom is no longer known
        assert whole.owners.get(page, "free").startswith(("index", "table sqlite_schema", "free"))
        if whole.owners.get(page, "free") == "free":
            assert any("freelist" in note or "page 1" in note for note in report.notes + report.problems)
    assert sum(report.tables.values()) + report.lost_and_found >= len([row for row in expected if row.table != "pair"])
    for table, rows in report.tables.items():
        lost = len([row for row in whole.rows if row.table == table]) - rows
        assert report.missing.get(table, 0) in (None, lost)
    if report.complete:
        assert len(expected) == len(whole.rows)
    assert destination.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return report


@given(
    shape=shapes,
    seed=st.integers(0, 3),
    chance=st.integers(0, 1 << 32).map(random.Random),
    share=st.sampled_from([0.0, 0.01, 0.03, 0.1, 0.4]),
)
@thoroughly
def test_exactly_the_rows_whose_pages_survive_are_saved(shape, seed, chance, share):
    whole = example(*shape, seed)
    check_that_exactly_the_surviving_rows_are_saved(whole, missing_pages(whole, chance, share))


@pytest.mark.parametrize("shape", SHAPES[-2:])
def test_exactly_the_rows_whose_pages_survive_are_saved_from_the_largest_pages(shape):
    whole = example(*shape)
    check_that_exactly_the_surviving_rows_are_saved(whole, missing_pages(whole, random.Random(1), 0.05))


@pytest.mark.parametrize("shape", SHAPES[:-2])
def test_a_lost_interior_page_costs_nothing_but_the_rows_on_it(shape):
    """All that hangs below it goes back to its place: there is only one gap that it can have hung in."""
    whole = example(*shape)
    seen = set()
    for page, owner in whole.owners.items():
        node = read_or_none(whole.file, page)
        if node is None or node.is_leaf or owner == "table sqlite_schema":
            continue
        report = check_that_exactly_the_surviving_rows_are_saved(whole, whole.file.without(page))
        assert [str(damaged.owner) for damaged in report.damaged_pages] == [owner]
        assert report.missing == ({"pair": len(node.pointers)} if owner == "table pair" else {})  # its rows are on all pages
        assert not report.lost_and_found
        assert not report.problems
        seen.add(owner)
    assert seen >= {"table item", "table person", "table pair"}


def read_or_none(file: PlainFile, number: int) -> btrees.Node | None:
    try:
        return btrees.read_node(file, number)
    except btrees.MalformedError:
        return None
