"""The values that an event shows are those that SQLite was given, in the places where it was given them."""

from __future__ import annotations

import array
import json
import math
from contextlib import closing, suppress
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

import heliosaudit
from heliosaudit import Policy
from heliosaudit.captures import commitment
from heliosaudit.literals import Template, literal, without_literals
from heliosaudit.records import FIELDS


class Status(str, Enum):
    """A text whose str() is another."""

    ACTIVE = "active"


class Level(IntEnum):
    """A number whose repr() is none."""

    HIGH = 3


class Seven(int):
    """A number that says that it is seven."""

    def __int__(self) -> int:
        return 7

    __index__ = __int__

    def __str__(self) -> str:
        return "7"

    __repr__ = __str__


class Nine(float):
    """A number that says that it is nine."""

    def __float__(self) -> float:
        return 9.0

    def __repr__(self) -> str:
        return "9.0"

    __str__ = __repr__


class Other(bytes):
    """Bytes that say that they are others."""

    def __bytes__(self) -> bytes:
        return b"others"

    def __getitem__(self, _index: Any) -> Any:
        return b"others"

    def __len__(self) -> int:
        return 1


BOUND = [
    Status.ACTIVE,
    Level.HIGH,
    Seven(3),
    True,
    Nine(2.5),
    Other(b"these"),
    bytearray(b"ab"),
    memoryview(b"abcd"),
    memoryview(b""),
    memoryview(b"abcdef").cast("B", (2, 3)),
    array.array("H", [1, 2]),
    None,
    -(2**63),
    float("inf"),
    float("nan"),
    "it's\0in",
    "\\ \n",
]


class Unknown:
    """What APSW can't bind by itself."""


def records(path: Path, event_class: str = "DML") -> list[dict[str, Any]]:
    """Return the events of a class."""
    with closing(apsw.Connection(str(path))) as plain:
        found = [dict(zip(FIELDS, json.loads(row), strict=True)) for (row,) in plain.execute("SELECT record FROM __audit_log")]
    return [record for record in found if record["event_class"] == event_class]


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same to SQLite."""
    return type(one) is type(other) and one == other


# -- values --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", BOUND, ids=lambda value: type(value).__name__)
def test_a_value_is_rendered_as_sqlite_stores_it(value: Any) -> None:
    with closing(apsw.Connection(":memory:")) as plain:
        assert same(plain.execute(f"SELECT {literal(value, 1000)}").get, plain.execute("SELECT ?", (value,)).get)
        (rendered,) = plain.execute(Template("SELECT ?", 1000).render((value,), 1000)).fetchall()
        assert same(rendered[0], plain.execute("SELECT ?", (value,)).get)


@given(st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary())
def test_any_value_is_rendered_as_sqlite_stores_it(value: Any) -> None:
    with closing(apsw.Connection(":memory:")) as plain:
        shown = plain.execute(f"SELECT {literal(value, 10**6)}").get
        if isinstance(shown, float) and math.isfinite(shown):
            assert shown == pytest.approx(value, rel=1e-15)  # SQLite reads decimals a little less exactly than Python
        else:
            assert same(shown, plain.execute("SELECT ?", (value,)).get)


@pytest.mark.parametrize(
    ("value", "due"),
    [
        (apsw.zeroblob(3), "zeroblob(3)"),
        (apsw.pyobject([]), "/* pyobject */"),
        (Unknown(), "/* Unknown */"),
        (memoryview(b"abcdef")[::2], "x'616365'"),
    ],
)
def test_what_is_no_value_is_named(value: Any, due: str) -> None:
    assert literal(value, 10) == due


def test_a_buffer_that_was_released_is_named() -> None:
    view = memoryview(b"ab")
    view.release()
    assert literal(view, 10) == "/* memoryview */"


def test_a_subclass_is_recorded_with_the_value_that_was_stored(tmp_path: Path) -> None:
    with closing(heliosaudit.connect(tmp_path / "db", Policy())) as connection:
        connection.execute("CREATE TABLE t(a, b, c)")
        connection.execute("INSERT INTO t VALUES(?, ?, ?)", (Status.ACTIVE, Seven(3), Nine(2.5)))
        assert connection.execute("SELECT * FROM t").fetchall() == [("active", 3, 2.5)]
    (event,) = records(tmp_path / "db")
    assert event["query"] == "INSERT INTO t VALUES('active', 3, 2.5)"


def test_a_commitment_fits_the_value_that_is_kept_and_that_was_stored(tmp_path: Path) -> None:
    with closing(heliosaudit.connect(tmp_path / "db", Policy(capture_parameters="redactable"))) as connection:
        connection.execute("CREATE TABLE t(a)")
        for value in BOUND:
            connection.execute("INSERT INTO t VALUES(?)", (value,))
    with closing(apsw.Connection(str(tmp_path / "db"))) as plain:
        kept = plain.execute("SELECT salt, value FROM __audit_values ORDER BY event").fetchall()
        stored = [value for (value,) in plain.execute("SELECT a FROM t")]
    made = [event["parameters"][0] for event in records(tmp_path / "db")]
    assert all(same(value, due) for (_, value), due in zip(kept, stored, strict=True))
    assert made == [commitment(salt, value) for salt, value in kept]
    assert made == [commitment(salt, value) for (salt, _), value in zip(kept, BOUND, strict=True)]


def test_commitments_to_infinity_and_null_differ() -> None:
    assert commitment(b"salt", float("inf")) != commitment(b"salt", None)


def test_values_that_are_the_same_to_sqlite_have_the_same_hash(tmp_path: Path) -> None:
    policy = Policy(capture_parameters="hashed", hash_key=bytes(32))
    with closing(heliosaudit.connect(tmp_path / "db", policy)) as connection:
        connection.execute("CREATE TABLE t(a)")
        for value in (1, True, "active", Status.ACTIVE, b"ab", bytearray(b"ab")):
            connection.execute("INSERT INTO t VALUES(?)", (value,))
    queries = [event["query"] for event in records(tmp_path / "db")]
    assert queries[::2] == queries[1::2]
    assert len(set(queries)) == 3


def test_a_key_in_a_file_name_that_is_bound_as_bytes_is_not_recorded(tmp_path: Path) -> None:
    name = f"file:{tmp_path}/missing/x?key=hunter2".encode()
    with closing(heliosaudit.connect(tmp_path / "db", Policy())) as connection, suppress(apsw.Error):
        connection.execute("ATTACH ? AS y", (name,))
    (event,) = [event for event in records(tmp_path / "db", "ADMIN") if event["operation"] == "ATTACH"]
    assert "key=***" in event["query"]
    assert b"hunter2".hex() not in event["query"]


# -- places --------------------------------------------------------------------------------------------------------------

PLAIN = ["a$b", "ä", '"q?"', "[x:y]", "`z@w`", "1e5", ".5", "0x1f", "x'3a61'", "':a ?'", "'it''s ?'", "NULL", "_$1", "\xa0$n"]
PARAMETERS = st.sampled_from(["?", "?", "?1", "?3", "?12", "?007", ":a", "@a", "$a", ":ä", "$a::b(c)", "$::x", ":1", "#a", "@_$"])
EXPRESSIONS = st.one_of(
    st.sampled_from(PLAIN),
    PARAMETERS,
    st.builds("{}{}".format, st.sampled_from(["-", "~", "+", "not ", "1-", "a$b||", "2*", "'s'||", "x''<>"]), PARAMETERS),
)
SEPARATORS = st.sampled_from([",", ", ", " ,", "\n,\t", "\f,", "/* ?:a */,", ",-- ?1 it's\n", ",/**/", ",/*/ ? */", ",\ufeff"])


@st.composite
def queries(draw: st.DrawFn) -> str:
    """Return SQL with parameters of all kinds between names, texts, numbers and comments that look like some."""
    items = draw(st.lists(EXPRESSIONS, min_size=1, max_size=8))
    return "SELECT " + items[0] + "".join(draw(SEPARATORS) + item for item in items[1:]) + " FROM t"


def spaced(shown: str) -> str:
    """Put a form feed, which is white space to SQLite, back in its place."""
    return shown.replace("\N{REPLACEMENT CHARACTER}", "\f")


@given(queries())
def test_each_value_is_shown_where_sqlite_has_its_parameter(sql: str) -> None:
    with closing(apsw.Connection(":memory:")) as plain:
        plain.execute('CREATE TABLE t(a$b, ä, "q?", [x:y], `z@w`, _$1, \xa0$n)')
        plain.execute("INSERT INTO t VALUES('one', 'two', 'three', 'four', 'five', 'six', 'seven')")
        names: list[Any] = []
        cursor = plain.cursor()
        cursor.exec_trace = lambda asking, _sql, _bindings: names.extend(asking.bindings_names) or False
        with suppress(apsw.ExecTraceAbort):
            cursor.execute(sql, apsw._null_bindings)  # type: ignore[attr-defined]
        values = tuple(range(100, 100 + len(names)))
        template = Template(sql, 5000)
        assert template.has_parameters == bool(names)
        assert plain.execute(spaced(template.render(values, 100))).fetchall() == plain.execute(sql, values).fetchall()
        if names and all(name is not None and not name.isdigit() for name in names):
            by_name = {name: number for number, name in enumerate(names, 100)}
            shown = spaced(template.render(by_name, 100))
            assert plain.execute(shown).fetchall() == plain.execute(sql, by_name).fetchall()


def test_a_dollar_sign_within_a_name_is_no_parameter(tmp_path: Path) -> None:
    with closing(heliosaudit.connect(tmp_path / "db", Policy())) as connection:
        connection.execute("CREATE TABLE u(a$b, c)")
        connection.execute("INSERT INTO u(a$b,c) VALUES(?,?)", ("P12345", "y"))
    (event,) = records(tmp_path / "db")
    assert event["query"] == "INSERT INTO u(a$b,c) VALUES('P12345','y')"


def test_a_question_mark_in_the_arguments_of_a_virtual_table_is_no_parameter(tmp_path: Path) -> None:
    with closing(heliosaudit.connect(tmp_path / "db", Policy())) as connection, suppress(apsw.SQLError):
        connection.execute("CREATE VIRTUAL TABLE w USING fts5(body, nonsense=?)")
    assert [event["query"] for event in records(tmp_path / "db", "DDL")] == [
        "CREATE VIRTUAL TABLE w USING fts5(body, nonsense=?)"
    ]


@pytest.mark.parametrize(
    ("sql", "limit", "due"),
    [
        ("SELECT 'a ? b', ?", 12, "SELECT 'a ?  /* 5 more characters */"),
        ("SELECT ?, :name", 13, "SELECT 1, :na /* 2 more characters */"),
        ("SELECT ?1, ?2", 12, "SELECT 1, ? /* 1 more characters */"),
    ],
)
def test_where_sql_is_cut_no_parameter_is_made(sql: str, limit: int, due: str) -> None:
    assert Template(sql, limit).render((1, 2), 100) == due


def test_characters_that_are_not_shown_do_not_change_names() -> None:
    assert Template("SELECT :a\f, $b", 100).render({"a": 1, "b": 2}, 100) == "SELECT 1\N{REPLACEMENT CHARACTER}, 2"


def test_a_number_of_a_parameter_without_end_is_no_error() -> None:
    assert Template("SELECT ?" + "9" * 5000, 10_000).has_parameters


@pytest.mark.parametrize(
    ("sql", "due"),
    [
        ("-- it's\nSELECT 'S3', a1 FROM [it's] WHERE `o'x` = 'S3'", "-- it?\nSELECT ?, a1 FROM [it?] WHERE `o?` = ?"),
        ("SELECT /* 'S3' */ 1, ['S3', 12] /* 5", "SELECT /* ? */ ?, [?, ?] /* ?"),
        ("SELECT .5, 1e5, x'00', a$1, ?1, $2, t1.c2, fax'S3'", "SELECT ?, ?, ?, a$1, ?1, $2, t1.c2, fax?"),
    ],
)
def test_literals_are_found_beside_quotation_marks_that_begin_none(sql: str, due: str) -> None:
    assert without_literals(sql) == due


# -- values that the application converts ----------------------------------------------------------------------------------


def test_values_that_a_cursor_converts_are_accepted_in_several_statements(tmp_path: Path) -> None:
    with closing(heliosaudit.connect(tmp_path / "db", Policy())) as connection:
        connection.execute("CREATE TABLE t(a)")
        cursor = connection.cursor()
        cursor.convert_binding = lambda _cursor, _number, _value: "converted"
        cursor.execute("INSERT INTO t VALUES(?); INSERT INTO t VALUES(?)", (Unknown(), Unknown()))
        assert connection.execute("SELECT * FROM t").fetchall() == [("converted",)] * 2
    assert [(event["operation"], event["success"]) for event in records(tmp_path / "db")] == [("INSERT", True)] * 2


def test_values_that_a_cursor_converts_are_accepted_when_the_schema_has_changed(tmp_path: Path) -> None:
    with closing(heliosaudit.connect(tmp_path / "db", Policy())) as connection:
        connection.execute("CREATE TABLE t(a)")
        cursor = connection.cursor()
        cursor.convert_binding = lambda _cursor, _number, _value: "converted"
        cursor.execute("INSERT INTO t VALUES(?)", (Unknown(),))
        with closing(apsw.Connection(str(tmp_path / "db"))) as other:
            other.execute("CREATE TABLE another(x)")
        cursor.execute("INSERT INTO t VALUES(?)", (Unknown(),))
        assert connection.execute("SELECT * FROM t").fetchall() == [("converted",)] * 2


@pytest.mark.parametrize("kind", [list, dict])
def test_what_is_bound_to_a_statement_that_is_half_read_is_recorded_as_it_was(tmp_path: Path, kind: type) -> None:
    bound: Any = [1] if kind is list else {"one": 1}
    with closing(heliosaudit.connect(tmp_path / "db", Policy(log_select=True))) as connection:
        cursor = connection.execute("SELECT :one, 2 UNION ALL SELECT 3, 4", bound)
        next(cursor)
        bound[0 if kind is list else "one"] = 99
        cursor.fetchall()
    assert [record["query"] for record in records(tmp_path / "db", "SELECT")] == ["SELECT 1, 2 UNION ALL SELECT 3, 4"]
