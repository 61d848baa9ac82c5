"""What a salvage finds by holding indexes against rows and pages against each other; where nothing is, it finds nothing."""

from __future__ import annotations

import apsw
import pytest

from heliosvfs.salvage import salvage_pages
from heliosvfs.salvage.comparisons import contradictions
from tests.damage import PlainFile, dbstat, example
from tests.unit.test_salvage import EVERYTHING, as_file, database


def found_in(file: PlainFile) -> list[str]:
    destination = apsw.Connection("")
    report = salvage_pages(file, destination)
    return list(contradictions(file, as_file(destination), report.missing, unreadable=bool(report.damaged_pages)))


def with_pages_of(file: PlainFile, other: PlainFile, *numbers: int) -> PlainFile:
    """Put pages of another state of the same database into it."""
    content, size = bytearray(file.content), file.page_size
    for number in numbers:
        content[(number - 1) * size : number * size] = other.content[(number - 1) * size : number * size]
    return PlainFile(bytes(content))


@pytest.mark.parametrize("auto_vacuum", [0, 1, 2])
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_a_database_in_order_does_not_contradict_itself(encoding: str, auto_vacuum: int) -> None:
    assert found_in(as_file(database(EVERYTHING, encoding=encoding, auto_vacuum=auto_vacuum))) == []
    assert found_in(example(1024, auto_vacuum, encoding).file) == []


def test_damage_that_is_known_is_no_contradiction() -> None:
    file = example(1024).file
    for number in range(2, file.page_count + 1, 5):
        assert found_in(file.without(number)) == []


VALUES = """
    CREATE TABLE t(r REAL, i INTEGER, n NUMERIC, x, s TEXT COLLATE NOCASE); CREATE INDEX by_r ON t(r);
    INSERT INTO t VALUES(2, 2.0, '3.0', 4.0, 'A'), (9007199254740993, 1e15, -0.0, 1e300, 'a'), (-1e999, 1e999, NULL, x'', '');
    ALTER TABLE t ADD COLUMN later REAL DEFAULT 7; CREATE INDEX by_all ON t(later, x, n, i, s DESC, r);
    INSERT INTO t VALUES(1, 1, 1, 1, 1, 1), (-5, -5.5, '-5.5', CAST(x'ff' AS TEXT), 5, -2);
    CREATE INDEX some ON t(r + x) WHERE i > 1; UPDATE t SET r = r + 1, later = i;
"""


def test_a_value_that_is_stored_in_two_ways_is_one_value() -> None:
    assert found_in(as_file(database(VALUES))) == []


ROWS = """
    CREATE TABLE t(a, b); CREATE INDEX by_a ON t(a);
    WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 60) INSERT INTO t SELECT 'a' || i, hex(zeroblob(30)) FROM n;
"""


@pytest.mark.parametrize("change", ["UPDATE t SET a = 'b' WHERE rowid = 30", "DELETE FROM t WHERE rowid = 30"])
def test_an_index_of_another_time_than_its_table_is_found(change: str) -> None:
    source = database(ROWS)
    before = as_file(source)
    source.execute(change)
    index = [page for page, _, _ in dbstat(source, "by_a").values()]
    (problem,) = found_in(with_pages_of(as_file(source), before, *index))
    assert problem.startswith("index by_a is of other rows than table t has")


def test_a_part_of_an_index_of_another_time_is_found() -> None:
    source = database(ROWS)
    before = as_file(source)
    source.execute("WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 90) INSERT INTO t SELECT 'x', NULL FROM n")
    (root,) = (dbstat(source, "by_a")["/"][0],)
    problems = found_in(with_pages_of(as_file(source), before, root))
    assert any("by_a" in problem for problem in problems)
    assert any("pages belong to nothing" in problem for problem in problems)


def test_pages_that_belong_to_nothing_are_found() -> None:
    source = database(ROWS + "CREATE TABLE u(x); INSERT INTO u VALUES(zeroblob(3000)); DELETE FROM u")
    file = as_file(source)
    assert found_in(file) == []
    content = bytearray(file.content)
    content[32:40] = bytes(8)  # the freelist
    (problem,) = found_in(PlainFile(bytes(content)))
    assert "pages belong to nothing" in problem


def test_pages_behind_the_end_that_the_header_states_are_found() -> None:
    file = as_file(database(ROWS))
    content = bytearray(file.content)
    content[28:32] = (file.page_count - 2).to_bytes(4, "big")
    (problem,) = found_in(PlainFile(bytes(content)))
    assert problem.startswith("2 pages are used that lie behind the end of the database")


def test_rows_out_of_order_are_found() -> None:
    source = database(ROWS + "DROP INDEX by_a")
    leaves = [page for path, (page, kind, _) in sorted(dbstat(source, "t").items()) if kind == "leaf"]
    file = as_file(source)
    one, two = ((page - 1) * file.page_size for page in leaves[:2])
    content = bytearray(file.content)
    content[one : one + 512], content[two : two + 512] = content[two : two + 512], content[one : one + 512]
    (problem,) = found_in(PlainFile(bytes(content)))
    assert problem.startswith("rows of table t are not in order")
