"""A salvage gives back everything that can be read, says what it could not, and leaves the damaged database alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosvfs
from heliosvfs.salvage import SalvageReport, beginnings, salvage, salvage_pages
from heliosvfs.salvage.tables import quoted
from tests.damage import PlainFile, dbstat, example

KEY = bytes(range(32))


def database(script: str, **pragmas: object) -> apsw.Connection:
    connection = apsw.Connection("")
    for name, value in {"page_size": 512, **pragmas}.items():
        connection.pragma(name, value)
    connection.execute(script)
    return connection


def as_file(connection: apsw.Connection) -> PlainFile:
    return PlainFile(connection.serialize("main"))


def content(connection: apsw.Connection) -> dict[str, Any]:
    """Return schema, settings and all rows with their rowids and types."""
    schema = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
    found: dict[str, Any] = {"schema": schema}
    for pragma in ("user_version", "application_id", "encoding", "page_size", "auto_vacuum"):
        found[pragma] = connection.pragma(pragma)
    for name, without_rowid, kind in connection.execute("SELECT name, wr, type FROM pragma_table_list WHERE schema = 'main'"):
        columns = [row[0] for row in connection.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1", (name,))]
        rowid = next((word for word in ("rowid", "oid", "_rowid_") if word not in columns and not without_rowid), "NULL")
        both = (f"typeof({quoted(column)}), CAST({quoted(column)} AS BLOB)" for column in columns)
        if kind != "view" and name != "sqlite_schema":  # its root pages differ
            found[name] = sorted(map(repr, connection.execute(f"SELECT {rowid}, {', '.join(both)} FROM {quoted(name)}")))
    return found


def salvaged(file: PlainFile) -> tuple[apsw.Connection, SalvageReport]:
    destination = apsw.Connection("")
    report = salvage_pages(file, destination)
    destination.pragma("ignore_check_constraints", 1)  # one row of EVERYTHING has always violated one
    assert destination.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return destination, report


def names(connection: apsw.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}


EVERYTHING = """
    PRAGMA user_version = -7; PRAGMA application_id = 1234567;
    CREATE TABLE plain(a, b TEXT DEFAULT 'x', c REAL);
    INSERT INTO plain(rowid, a, b, c) VALUES(-3, 1, 'eins', 2), (77, x'00ff', NULL, 1e300);
    CREATE TABLE aliased(x, id INTEGER PRIMARY KEY, y); INSERT INTO aliased VALUES('a', 10, 'b'), ('c', -10, 'd');
    CREATE TABLE descending(id INTEGER PRIMARY KEY DESC, x); INSERT INTO descending(rowid, id, x) VALUES(5, 50, 'x');
    CREATE TABLE keyed(v, a, b, w, PRIMARY KEY(b, a)) WITHOUT ROWID; INSERT INTO keyed VALUES('v', 'a', 'b', 'w'), (1, 2, 3, 4);
    CREATE TABLE twice(a, b, PRIMARY KEY(a, a COLLATE NOCASE, b)) WITHOUT ROWID; INSERT INTO twice VALUES('A', 'b');
    CREATE TABLE generated(a, v AS (a * 2) VIRTUAL, s AS (a + 1) STORED, z); INSERT INTO generated VALUES(4, 'z'), (5, 'y');
    CREATE TABLE strict(i INTEGER, t TEXT, r REAL, any ANY) STRICT;
    INSERT INTO strict VALUES(1, 't', 2.0, x'01'), (NULL, '', 3, '4');
    CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, x); INSERT INTO counted VALUES(40, 'x'); DELETE FROM counted;
    CREATE TABLE "od""d ' name"("co""l ' 1", rowid, _rowid_); INSERT INTO "od""d ' name" VALUES(1, 2, 3);
    CREATE TABLE no_name_left(rowid, _rowid_, oid, x); INSERT INTO no_name_left VALUES(1, 2, 3, 4), (5, 6, 7, 8);
    CREATE TABLE later(a); INSERT INTO later VALUES('short'); ALTER TABLE later ADD COLUMN b DEFAULT 'filled in';
    ALTER TABLE later ADD COLUMN c NOT NULL DEFAULT 9; INSERT INTO later VALUES('long', NULL, 1); ALTER TABLE later ADD COLUMN d;
    CREATE TABLE checked(x CHECK(x > 0)); PRAGMA ignore_check_constraints = ON; INSERT INTO checked VALUES(-1);
    CREATE TABLE parent(id PRIMARY KEY); CREATE TABLE child(p REFERENCES parent); INSERT INTO child VALUES('orphan');
    CREATE TABLE empty(x UNIQUE);
    CREATE INDEX by_b ON plain(b DESC, lower(a)); CREATE UNIQUE INDEX some ON plain(a) WHERE a IS NOT NULL;
    CREATE VIEW shown AS SELECT a, b FROM plain; CREATE TABLE log(x);
    CREATE TRIGGER watch AFTER INSERT ON plain BEGIN INSERT INTO log VALUES(new.a); END;
    CREATE TRIGGER instead INSTEAD OF INSERT ON shown BEGIN INSERT INTO log VALUES('view'); END;
    CREATE VIRTUAL TABLE words USING fts5(t); INSERT INTO words VALUES('the quick brown fox'), ('jumps over');
    CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1); INSERT INTO boxes VALUES(1, 0, 10), (2, 5, 6);
    ANALYZE;
"""


@pytest.mark.parametrize("auto_vacuum", [0, 1, 2])
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_of_an_undamaged_database_nothing_is_missing(encoding, auto_vacuum):
    source = database(EVERYTHING, encoding=encoding, auto_vacuum=auto_vacuum)
    destination, report = salvaged(as_file(source))
    assert content(destination) == content(source)
    assert report.complete
    assert not report.notes
    assert report.tables["plain"] == 2
    assert destination.execute("SELECT t FROM words('quick')").fetchall() == [("the quick brown fox",)]
    assert destination.execute("SELECT id FROM boxes WHERE x0 > 4").fetchall() == [(2,)]
    assert destination.execute("INSERT INTO counted(x) VALUES(1) RETURNING id").fetchall() == [(41,)]


def test_the_connection_has_its_own_settings_again_afterwards():
    source = database('CREATE TABLE legacy(x CHECK(x <> "in double quotes"));' + EVERYTHING)
    destination = apsw.Connection("")
    destination.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    before = destination.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1), destination.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    report = salvage_pages(as_file(source), destination)
    assert report.complete
    assert destination.config(apsw.SQLITE_DBCONFIG_DQS_DDL, -1) == 0
    assert (
        destination.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, -1),
        destination.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1),
    ) == before
    assert destination.pragma("ignore_check_constraints") == 0
    assert not destination.in_transaction


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("UTF-8", b"\xff\xfe broken \x80"), ("UTF-16le", b"a\0\0\xd8b\0"), ("UTF-16be", b"\xff\xfe\xff\xff"), ("UTF-16le", b"abc")],
)
def test_text_that_is_not_valid_keeps_its_bytes(encoding, text):
    source = database("CREATE TABLE t(x TEXT, y)", encoding=encoding)
    source.execute("INSERT INTO t VALUES(CAST(? AS TEXT), 'valid')", (text,))
    query = "SELECT typeof(x), CAST(x AS BLOB), y FROM t"
    expected = source.execute(query).fetchall()
    assert expected[0][0] == "text"
    destination, report = salvaged(as_file(source))
    assert destination.execute(query).fetchall() == expected
    assert report.complete


def test_damage_in_an_index_costs_nothing():
    source = database(EVERYTHING)
    (page,) = (source.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'by_b'").get,)
    destination, report = salvaged(as_file(source).without(page))
    assert content(destination) == content(source)
    assert report.complete
    assert [(damaged.page, damaged.owner) for damaged in report.damaged_pages] == [(page, "index by_b")]


def test_damage_in_free_pages_costs_nothing():
    source = database(
        "CREATE TABLE t(x); INSERT INTO t VALUES('here'); CREATE TABLE gone(x); INSERT INTO gone VALUES(zeroblob(5000))"
    )
    source.execute("DROP TABLE gone")
    file = as_file(source)
    free = sorted({*range(1, file.page_count + 1)} - {1, 2})
    destination, report = salvaged(file.without(*free))
    assert report.complete
    assert len(report.damaged_pages) == len(free) > 8
    assert content(destination) == content(source)


def test_lost_rows_are_counted_by_an_index_that_is_whole():
    whole = example(1024)
    source = apsw.Connection("")
    source.deserialize("main", whole.file.content)
    leaf = dbstat(source, "item")["/001/"]
    _, report = salvaged(whole.file.without(leaf[0]))
    assert report.missing == {"item": leaf[2]}
    assert not report.complete


def test_lost_rows_that_nothing_counts_are_an_unknown_number():
    whole = example(1024)
    source = apsw.Connection("")
    source.deserialize("main", whole.file.content)
    leaf = dbstat(source, "person")["/001/"]
    _, report = salvaged(whole.file.without(leaf[0]))
    assert report.missing == {"person": None}
    assert not report.complete


def test_rows_with_broken_overflow_pages_are_counted():
    source = database("CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(1100)), (zeroblob(1100)), ('short')")
    last = dbstat(source, "t")["/001+000001"][0]
    destination, report = salvaged(as_file(source).without(last))
    assert destination.execute("SELECT rowid FROM t").fetchall() == [(1,), (3,)]
    assert report.missing == {"t": 1}
    assert not report.complete


TWO_ALIKE = "".join(
    f"CREATE TABLE {name}(x); WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 60)"
    f"INSERT INTO {name}(rowid, x) SELECT i, '{name} ' || i || hex(zeroblob(30)) FROM n;"
    for name in ("one", "two")
)


def test_rows_that_may_be_of_either_of_two_tables_are_put_aside():
    source = database(TWO_ALIKE)
    roots = [dbstat(source, name)["/"][0] for name in ("one", "two")]
    destination, report = salvaged(as_file(source).without(*roots))
    assert report.tables == {"one": 0, "two": 0}
    assert report.missing == {"one": None, "two": None}
    assert (report.lost_and_found, report.lost_and_found_table) == (120, "lost_and_found")
    columns = [name for (name,) in destination.execute("SELECT name FROM pragma_table_info('lost_and_found')")]
    assert columns == ["rootpgno", "pgno", "nfield", "id", "c0"]
    pages = {page for name in ("one", "two") for path, (page, _, _) in dbstat(source, name).items() if path != "/"}
    assert {page for (page,) in destination.execute("SELECT DISTINCT pgno FROM lost_and_found")} == pages
    for name in ("one", "two"):
        ids = destination.execute("SELECT id FROM lost_and_found WHERE c0 LIKE ? || ' %' ORDER BY id", (name,)).fetchall()
        assert ids == [(i,) for i in range(1, 61)]


@pytest.mark.parametrize("auto_vacuum", [1, 2])
def test_the_pointer_map_tells_two_tables_apart(auto_vacuum):
    source = database(TWO_ALIKE, auto_vacuum=auto_vacuum)
    roots = [dbstat(source, name)["/"][0] for name in ("one", "two")]
    destination, report = salvaged(as_file(source).without(*roots))
    assert report.tables == {"one": 60, "two": 60}
    assert report.lost_and_found == 0
    assert content(destination)["one"] == content(source)["one"]


def test_the_number_of_columns_tells_two_tables_apart():
    source = database(TWO_ALIKE + "CREATE TABLE wide(a, b); INSERT INTO wide SELECT x, x FROM one; DROP TABLE two; VACUUM")
    roots = [dbstat(source, name)["/"][0] for name in ("one", "wide")]
    destination, report = salvaged(as_file(source).without(*roots))
    assert report.tables["wide"] == 60
    assert content(destination)["wide"] == content(source)["wide"]
    assert report.tables["one"] == 0  # its rows could be of `wide` before a column was added to it
    assert report.lost_and_found == 60


THREE_LEVELS = TWO_ALIKE.replace("i < 60", "i < 600")


def test_ranges_of_rowids_tell_two_tables_apart():
    source = database(THREE_LEVELS)
    one, two = dbstat(source, "one"), dbstat(source, "two")
    last = max(path for path, (_, kind, _) in two.items() if kind == "internal")
    assert last.count("/") == 2
    destination, report = salvaged(as_file(source).without(one["/000/"][0], two[last][0]))
    assert report.complete
    assert content(destination) == content(source)


def test_what_overlapping_ranges_leave_open_is_missing_from_both_tables():
    source = database(THREE_LEVELS)
    _destination, report = salvaged(as_file(source).without(*(dbstat(source, name)["/000/"][0] for name in ("one", "two"))))
    assert report.missing == {"one": None, "two": None}
    assert report.lost_and_found == 1200 - sum(report.tables.values()) > 100


def test_rows_behind_the_end_of_a_truncated_file_are_missed():
    """Although every page up to the end can be read, or nothing but its children is lost with it."""
    source = database(THREE_LEVELS)
    file, pages = as_file(source), dbstat(source, "two")
    last = max(path for path, (_, kind, _) in pages.items() if kind == "internal")
    cut = max(page for path, (page, _, _) in pages.items() if path.startswith(last) and path != last) - 1
    assert pages[last][0] < cut
    destination, report = salvaged(PlainFile(file.content[: 512 * cut], frozenset({pages[last][0]})))
    assert destination.execute("SELECT count(*) FROM two").get < 600
    assert report.missing == {"two": None}


def test_rows_that_were_deleted_do_not_come_back_if_the_pointer_map_knows_their_pages_to_be_free():
    source = database(TWO_ALIKE + "DROP TABLE one", auto_vacuum=2)
    trunk = int.from_bytes(source.serialize("main")[32:36], "big")
    root = dbstat(source, "two")["/"][0]
    _destination, report = salvaged(as_file(source).without(root, trunk))
    assert report.tables == {"two": 60}
    assert report.lost_and_found == 0
    assert not report.notes


def test_rows_that_were_deleted_may_come_back_aside_if_nothing_says_that_their_pages_are_free():
    source = database(TWO_ALIKE + "DROP TABLE one")
    trunk = int.from_bytes(source.serialize("main")[32:36], "big")
    root = dbstat(source, "two")["/"][0]
    _destination, report = salvaged(as_file(source).without(root, trunk))
    assert report.tables == {"two": 0}
    assert 60 < report.lost_and_found <= 120
    assert "rows that were deleted may be among" in report.notes[0]


def test_entries_that_are_known_to_be_of_an_index_are_not_put_aside():
    whole = example(512, 1)
    source = apsw.Connection("")
    source.deserialize("main", whole.file.content)
    destination, report = salvaged(whole.file.without(dbstat(source, "pair")["/"][0], dbstat(source, "item_a")["/"][0]))
    assert "lost_and_found_entries" not in names(destination)
    assert report.tables["item"] == sum(row.table == "item" for row in whole.rows)


def test_a_partial_index_does_not_count_rows():
    source = database("CREATE TABLE t(x, y); CREATE INDEX some ON t(x) WHERE x IS NULL")
    source.execute(
        "WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 60) INSERT INTO t SELECT i, zeroblob(99) FROM n"
    )
    _, report = salvaged(as_file(source).without(dbstat(source, "t")["/001/"][0]))
    assert report.missing == {"t": None}


def test_rows_of_a_table_whose_schema_is_lost_are_put_aside_by_root_page():
    source = database(
        ";".join(f"CREATE TABLE table_{i}(a, b, c, d, e, f); INSERT INTO table_{i}(a) VALUES({i})" for i in range(20))
    )
    schema = dbstat(source, "sqlite_schema")
    destination, report = salvaged(as_file(source).without(schema["/001/"][0]))
    kept = set(report.tables)
    lost = source.execute(
        "SELECT name, rootpage FROM sqlite_schema WHERE name NOT IN (SELECT value FROM json_each(?))",
        ("[" + ",".join(f'"{name}"' for name in kept) + "]",),
    ).fetchall()
    assert len(lost) == schema["/001/"][2]
    assert any("sqlite_schema" in problem for problem in report.problems)
    aside = destination.execute("SELECT rootpgno, id, c0 FROM lost_and_found ORDER BY 1").fetchall()
    assert aside == sorted((root, 1, int(name.split("_")[1])) for name, root in lost)


def test_page_1_can_be_lost_and_the_schema_still_be_found_on_other_pages():
    source = database(
        ";".join(f"CREATE TABLE table_{i}(a, b, c, d, e, f); INSERT INTO table_{i}(a) VALUES({i})" for i in range(20))
    )
    destination, report = salvaged(as_file(source).without(1))
    assert content(destination) == content(source)
    assert any("page 1" in problem for problem in report.problems)
    assert not report.complete  # its header is gone


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_without_any_schema_all_rows_are_put_aside_in_the_right_encoding(encoding):
    source = database("CREATE TABLE t(x); INSERT INTO t VALUES('größer'), ('kleiner'), (x'00'), (5)", encoding=encoding)
    destination, report = salvaged(as_file(source).without(1))
    assert destination.execute("SELECT id, c0 FROM lost_and_found ORDER BY id").fetchall() == [
        (1, "größer"),
        (2, "kleiner"),
        (3, b"\0"),
        (4, 5),
    ]
    assert report.tables == {}
    assert destination.pragma("encoding") == encoding
    assert beginnings(as_file(source).without(1)) == {"auto_vacuum": "none", "encoding": encoding}


def test_rows_of_a_table_without_rowid_whose_schema_is_lost_are_put_aside_too():
    source = database("CREATE TABLE t(x, k PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES('x', 'k')")
    destination, report = salvaged(as_file(source).without(1))
    assert destination.execute("SELECT id, c0, c1 FROM lost_and_found_entries").fetchall() == [(None, "k", "x")]
    assert any("lost_and_found_entries" in problem for problem in report.problems)


def test_a_table_that_is_called_lost_and_found_keeps_its_name():
    source = database("CREATE TABLE Lost_And_Found(x); INSERT INTO lost_and_found VALUES(1);" + TWO_ALIKE)
    roots = [dbstat(source, name)["/"][0] for name in ("one", "two")]
    destination, report = salvaged(as_file(source).without(*roots))
    assert report.lost_and_found_table == "lost_and_found_1"
    assert destination.execute("SELECT x FROM lost_and_found").fetchall() == [(1,)]
    assert destination.execute("SELECT count(*) FROM lost_and_found_1").get == 120


def rewritten(script: str, name: str, sql: str) -> PlainFile:
    """Make a database in whose schema the statement of one object is another one."""
    source = database(script)
    source.pragma("writable_schema", True)
    source.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, name))
    return as_file(source)


def test_rows_that_their_table_refuses_are_put_aside_and_counted():
    file = rewritten("CREATE TABLE t(x); INSERT INTO t VALUES(1), (NULL), (2), (NULL)", "t", "CREATE TABLE t(x NOT NULL)")
    destination, report = salvaged(file)
    assert destination.execute("SELECT rowid, x FROM t").fetchall() == [(1, 1), (3, 2)]
    assert destination.execute("SELECT rootpgno, pgno, nfield, id, c0 FROM lost_and_found").fetchall() == [
        (2, 2, 1, 2, None),
        (2, 2, 1, 4, None),
    ]
    assert report.missing == {"t": 2}
    assert report.lost_and_found == 2
    assert not report.complete


def test_a_row_without_a_place_for_its_rowid_is_put_aside():
    file = rewritten("CREATE TABLE t(x); INSERT INTO t VALUES('x')", "t", "CREATE TABLE t(x, id INTEGER PRIMARY KEY)")
    destination, _report = salvaged(file)
    assert destination.execute("SELECT count(*) FROM t").get == 0
    assert destination.execute("SELECT id, c0 FROM lost_and_found").fetchall() == [(1, "x")]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("CREATE TABLE t(x, y AS (no_such_function(x)))", "no_such_function"),
        ("DROP TABLE t", "no CREATE statement"),
        ("CREATE TABLE t(x); CREATE TABLE u(y)", "more than one statement"),
        ("CREATE TABLE t(x)\0", "null character"),
    ],
)
def test_rows_of_a_table_that_can_not_be_made_are_put_aside(sql, why):
    destination, report = salvaged(rewritten("CREATE TABLE t(x); INSERT INTO t VALUES('kept')", "t", sql))
    assert destination.execute("SELECT rootpgno, id, c0 FROM lost_and_found").fetchall() == [(2, 1, "kept")]
    assert names(destination) == {"lost_and_found"}
    assert why in report.problems[0]
    assert not report.complete


def test_objects_that_can_not_be_made_are_reported():
    script = "CREATE TABLE t(x); INSERT INTO t VALUES(1), (1); CREATE INDEX i ON t(x);"
    file = rewritten(script + "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END", "i", "CREATE UNIQUE INDEX i ON t(x)")
    destination, report = salvaged(file)
    assert names(destination) == {"t", "r"}
    assert [problem for problem in report.problems if "index i could not be made" in problem]
    assert report.tables == {"t": 2}
    assert not report.complete


def test_a_virtual_table_whose_module_is_unknown_here_stays_in_the_schema():
    source = database("CREATE VIRTUAL TABLE words USING fts5(t)")
    source.pragma("writable_schema", True)
    source.execute("UPDATE sqlite_schema SET sql = 'CREATE VIRTUAL TABLE words USING other_module(t)' WHERE name = 'words'")
    destination, report = salvaged(as_file(source))
    assert names(destination) >= {"words", "words_data"}
    assert report.complete


def test_a_virtual_table_whose_shadow_tables_lack_rows_can_be_made_whole():
    source = database("CREATE VIRTUAL TABLE words USING fts5(t); INSERT INTO words VALUES('quick brown fox')")
    (page,) = source.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'words_data'").fetchone()
    destination = apsw.Connection("")
    report = salvage_pages(as_file(source).without(page), destination)
    assert report.missing == {"words_data": None}
    (hint,) = (note for note in report.notes if "words" in note)
    destination.execute(hint[hint.index("INSERT") : hint.index(" makes")])
    assert destination.execute("SELECT t FROM words('brown')").fetchall() == [("quick brown fox",)]
    assert destination.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("CREATE VIRTUAL TABLE words USING", "incomplete input"),
        ("CREATE VIRTUAL TABLE words USING fts5(t, no_such_option=1)", "unrecognized option"),
        ("SELECT 1", "no CREATE statement"),
    ],
)
def test_a_virtual_table_that_can_not_be_made_leaves_the_rest_in_order(sql, why):
    file = rewritten("CREATE TABLE t(x); INSERT INTO t VALUES(1); CREATE VIRTUAL TABLE words USING fts5(t)", "words", sql)
    destination, report = salvaged(file)
    assert "words" not in names(destination)
    assert {"t", "words_data", "words_content"} <= names(destination)
    assert why in report.problems[0]


def test_sequences_go_on_where_the_rows_that_are_left_end_if_theirs_are_lost():
    source = database("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO t VALUES(7)")
    (page,) = (source.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_sequence'").get,)
    destination, report = salvaged(as_file(source).without(page))
    assert destination.execute("SELECT name, seq FROM sqlite_sequence").fetchall() == [("t", 7)]
    assert report.missing == {"sqlite_sequence": None}


def test_a_truncated_file_gives_what_is_left():
    whole = example(512)
    cut = PlainFile(whole.file.content[: 512 * (whole.file.page_count // 2)])
    _, report = salvaged(cut)
    assert any("the file ends after" in note for note in report.notes)
    assert not report.complete
    assert 0 < sum(report.tables.values()) < len(whole.rows)


def test_a_database_that_is_not_empty_is_refused():
    destination = database("CREATE TABLE t(x)")
    with pytest.raises(heliosvfs.UsageError, match="not empty"):
        salvage_pages(as_file(database("CREATE TABLE u(x)")), destination)
    assert names(destination) == {"t"}


def test_a_database_begun_in_another_encoding_is_refused():
    destination = database("CREATE TABLE t(x); DROP TABLE t", encoding="UTF-8")
    with pytest.raises(heliosvfs.UsageError, match="UTF-16le"):
        salvage_pages(as_file(database("CREATE TABLE u(x)", encoding="UTF-16le")), destination)


def test_progress_rises_to_its_end():
    calls: list[tuple[int, int]] = []
    file = example(512).file
    salvage_pages(file, apsw.Connection(""), progress=lambda done, total: calls.append((done, total)))
    assert len(calls) > 3
    assert calls == sorted(calls)
    assert {total for _, total in calls} == {2 * file.page_count}
    assert calls[-1] == (2 * file.page_count, 2 * file.page_count)


# -- encrypted databases ---------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "damaged.db")


def encrypted(path: str, script: str, **options: Any) -> None:
    connection = heliosvfs.connect(path, key=KEY, journal_mode="delete", **options)
    connection.execute(script)
    connection.close()


def flip(path: str, *pages: int, page_size: int) -> bytes:
    with open(path, "r+b") as file:
        for page in pages:
            file.seek(max(32768, page_size) + (page - 1) * page_size + 99)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
        file.seek(0)
        return file.read()


@pytest.mark.parametrize(
    ("page_size", "encoding", "auto_vacuum"),
    [(512, "UTF-16be", "full"), (1024, "UTF-8", "none"), (4096, "UTF-16le", "incremental"), (65536, "UTF-8", "full")],
)
def test_an_encrypted_database_is_salvaged_into_another_of_the_same_kind(path, page_size, encoding, auto_vacuum):
    encrypted(path, EVERYTHING, page_size=page_size, encoding=encoding, auto_vacuum=auto_vacuum)
    connection = heliosvfs.connect(path, key=KEY)
    expected, leaf = content(connection), connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'keyed'").get
    connection.close()
    before = flip(path, leaf, page_size=page_size)
    report = salvage(path, path + ".saved", key=KEY, dest_key="another key")
    connection = heliosvfs.connect(path + ".saved", key="another key")
    saved = content(connection)
    connection.pragma("ignore_check_constraints", 1)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert saved.pop("keyed") == []
    assert saved == {name: rows for name, rows in expected.items() if name != "keyed"}
    assert report.missing == {"keyed": None}
    assert [(damaged.page, damaged.owner) for damaged in report.damaged_pages] == [(leaf, "table keyed")]
    assert Path(path).read_bytes() == before
    assert sorted(os.listdir(os.path.dirname(path))) == ["damaged.db", "damaged.db.saved"]


def test_what_is_in_the_wal_is_saved(path):
    connection = heliosvfs.connect(path, key=KEY)
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES('in the log')")
    report = salvage(path, path + ".saved", key=KEY)
    assert report.complete
    saved = heliosvfs.connect(path + ".saved", key=KEY)
    assert saved.execute("SELECT x FROM t").fetchall() == [("in the log",)]
    saved.close()
    connection.close()


@pytest.mark.parametrize("commit", [1, 2])
@pytest.mark.parametrize("place", ["header", "frame"])
def test_frames_of_a_damaged_wal_are_not_used_and_it_is_said(path, commit, place):
    connection = heliosvfs.connect(path, key=KEY)
    connection.execute("CREATE TABLE t(x)")
    second = os.path.getsize(path + "-wal")
    connection.execute("INSERT INTO t VALUES('in the log')")
    wal = bytearray(Path(path + "-wal").read_bytes())
    wal[17 if place == "header" else 60 if commit == 1 else second + 60] ^= 1
    copy = path + ".copy"
    Path(copy).write_bytes(Path(path).read_bytes())
    Path(copy + "-wal").write_bytes(wal)
    connection.close()
    report = salvage(copy, path + ".saved", key=KEY)
    if place == "header" or commit == 1:
        assert report.tables == {}
        assert any("frames of the WAL do not count for SQLite" in problem for problem in report.problems)
        assert not report.complete
    else:
        assert report.tables == {"t": 0}
        assert any(note.startswith("1 frames of the WAL were not used") for note in report.notes)


def test_nothing_is_written_over_a_file_that_exists(path):
    encrypted(path, "CREATE TABLE t(x)")
    for suffix in ("", "-wal", "-journal"):
        other = Path(path + ".other" + suffix)
        other.write_bytes(b"precious")
        with pytest.raises(heliosvfs.UsageError, match="exists already"):
            salvage(path, path + ".other", key=KEY)
        assert other.read_bytes() == b"precious"
        other.unlink()
    with pytest.raises(heliosvfs.UsageError, match="can't be made"):
        salvage(path, path + ".folder/that/is/not/there", key=KEY)


def test_a_salvage_that_is_interrupted_leaves_nothing_behind(path):
    encrypted(path, EVERYTHING, page_size=512)

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        salvage(path, path + ".saved", key=KEY, progress=interrupt)
    assert os.listdir(os.path.dirname(path)) == ["damaged.db"]


def test_a_wrong_key_makes_no_file(path):
    encrypted(path, "CREATE TABLE t(x)")
    with pytest.raises(heliosvfs.WrongKeyError):
        salvage(path, path + ".saved", key=bytes(32))
    assert os.listdir(os.path.dirname(path)) == ["damaged.db"]
