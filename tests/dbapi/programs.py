"""Programs that use sqlite3: each takes the module and a connection, and returns what it saw."""

# ruff: noqa: ARG001 - one or the other is not always of use

from __future__ import annotations

import contextlib
import enum
import warnings
from collections.abc import Callable
from typing import Any

import pytest

ROWS = [(1, "one", 1.5, b"\x01"), (2, "zwei", 2.0, b""), (3, None, -0.25, None)]


def filled(con: Any) -> Any:
    con.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c REAL, d BLOB)")
    con.executemany("INSERT INTO t VALUES(?, ?, ?, ?)", ROWS)
    con.commit()
    return con


def rows_in_every_way(m: Any, con: Any) -> Any:
    cur = filled(con).cursor()
    cur.arraysize = 2
    cur.execute("SELECT * FROM t")
    first = [cur.fetchone(), cur.fetchmany(), cur.fetchmany(5), cur.fetchone(), cur.fetchall()]
    cur.execute("SELECT * FROM t")
    second = [next(cur), list(cur), next(cur, "end"), cur.fetchall()]
    return first, second, cur.execute("SELECT a FROM t WHERE a > ?", (1,)).fetchmany(0)


def rowcount_and_lastrowid(m: Any, con: Any) -> Any:
    filled(con)
    seen = []
    cur = con.cursor()
    seen.append((cur.rowcount, cur.lastrowid))
    for sql, parameters in [
        ("INSERT INTO t(b) VALUES(?)", ("x",)),
        ("UPDATE t SET b = 'y' WHERE a > 1", ()),
        ("SELECT * FROM t", ()),
        ("DELETE FROM t", ()),
        ("CREATE TABLE u(x)", ()),
        ("-- c\n /* d */ insert into u values(1), (2)", ()),
        ("WITH q AS (SELECT 1) INSERT INTO u SELECT * FROM q", ()),
    ]:
        cur.execute(sql, parameters)
        seen.append((sql, cur.rowcount, cur.lastrowid))
    cur.executemany("INSERT INTO u VALUES(?)", [(i,) for i in range(700)])
    seen.append((cur.rowcount, con.total_changes))
    con.execute("CREATE TRIGGER tr AFTER INSERT ON u BEGIN INSERT INTO t(b) VALUES(new.x); END")
    cur.executemany("INSERT INTO u VALUES(?)", [(i,) for i in range(700)])
    seen.append((cur.rowcount, con.total_changes))
    cur.executemany("INSERT INTO u VALUES(?)", ((i,) for i in range(3)))
    seen.append(cur.rowcount)
    return seen


def descriptions(m: Any, con: Any) -> Any:
    filled(con)
    seen = []
    cur = con.cursor()
    for sql in (
        "SELECT a, b AS x, 1+1 FROM t",
        "SELECT * FROM t WHERE 0",
        "INSERT INTO t(b) VALUES(1)",
        "PRAGMA user_version",
        "",
    ):
        cur.execute(sql)
        seen.append(cur.description)
        cur.fetchall()
        seen.append(cur.description)
    return seen


def a_description_outlives_its_table(m: Any, con: Any) -> Any:
    cur = filled(con).execute("SELECT * FROM t")
    rows = cur.fetchall()
    other = con.execute("SELECT b FROM t WHERE a = 99")
    con.execute("DROP TABLE t")
    cur.close()
    return rows, cur.description, other.description


def a_description_outlives_its_connection(m: Any, con: Any) -> Any:
    cur = filled(con).execute("SELECT * FROM t")
    cur.fetchall()
    con.close()
    return cur.description


def the_last_row_ends_its_statement(m: Any, con: Any) -> Any:
    cur = filled(con).cursor()
    row = cur.execute("SELECT count(*) FROM t").fetchone()
    con.execute("DROP TABLE t")  # locked, were the statement still under way
    return row


def transactions(m: Any, con: Any) -> Any:
    seen = []

    def note(what: str) -> None:
        seen.append((what, con.in_transaction))

    filled(con)
    con.execute("SELECT 1")
    note("select")
    for sql in ("INSERT INTO missing VALUES(1)", "INSERT INTO t VALUES(1, 1)", "INSERT INTO t(a) VALUES(1)"):
        with pytest.raises(m.Error) as caught:
            con.execute(sql)
        seen.append((type(caught.value).__name__, str(caught.value)))
        note(sql)
        con.rollback()
    con.execute("CREATE TABLE u(x)")
    note("create")
    con.isolation_level = "IMMEDIATE"
    con.execute("INSERT INTO u VALUES(1)")
    note("insert")
    con.isolation_level = None
    note("none")
    con.execute("INSERT INTO u VALUES(1)")
    note("autocommit")
    con.execute("BEGIN")
    con.executescript("SELECT 1; INSERT INTO u VALUES(3)")
    note("script")
    con.isolation_level = ""
    with pytest.raises(ZeroDivisionError), con:  # noqa: PT012 - what the transaction is about
        con.execute("INSERT INTO u VALUES(4)")
        raise ZeroDivisionError
    note("with")
    with con:
        con.execute("INSERT INTO u VALUES(5)")
    note("with")
    return seen, con.execute("SELECT * FROM u").fetchall()


def refusals(m: Any, con: Any) -> Any:
    filled(con)
    cur = con.cursor()
    calls: list[Callable[[], Any]] = [
        lambda: cur.execute("SELECT"),
        lambda: cur.execute("SELECT * FROM missing"),
        lambda: cur.execute("SELECT ?", (1, 2)),
        lambda: cur.execute("SELECT ?, ?", (1,)),
        lambda: cur.execute("SELECT ?"),
        lambda: cur.execute("SELECT :a", {"b": 1}),
        lambda: cur.execute("SELECT ?", {"a": 1}),
        lambda: cur.execute("SELECT ?", 5),
        lambda: cur.execute("SELECT ?", {1}),
        lambda: cur.execute("SELECT ?", None),
        lambda: cur.execute("SELECT ?", (2**63,)),
        lambda: cur.execute("SELECT ?", (object,)),
        lambda: cur.execute("INSERT INTO t(a) VALUES(1)"),
        lambda: cur.execute("INSERT INTO t(a) VALUES('x')"),
        lambda: cur.executemany("SELECT ?", [(1,)]),
        lambda: cur.executemany("INSERT INTO t(b) VALUES(:b)", [{"b": 1}, {"c": 1}]),
        lambda: cur.executemany("INSERT INTO t(b) VALUES(?)", 5),
        lambda: cur.executemany("INSERT INTO t(b) VALUES(?)", (i for i in [{}["missing"]])),
        lambda: con.execute("SELECT \0"),
        lambda: con.executescript("SELECT \0"),
        lambda: con.blobopen("t", "d", 99),
        lambda: con.create_function("f", -100, len),
        lambda: con.set_authorizer(lambda *_: m.SQLITE_DENY) or cur.execute("SELECT * FROM t"),
    ]
    seen = []
    for call in calls:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is
            seen.append((type(error).__name__, str(error), getattr(error, "sqlite_errorname", None)))
        else:
            seen.append("nothing raised")
    return seen


class Colour(str, enum.Enum):
    RED = "red"


class Money(int):
    def __conform__(self, protocol: Any) -> str:
        return f"{int(self)} EUR"


class Celsius:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


def adapted_values(m: Any, con: Any) -> Any:
    m.register_adapter(Celsius, lambda c: c.degrees)
    values = [Money(5), True, memoryview(b"x"), bytearray(b"y"), Celsius(1.5), float("inf"), float("nan"), -(2**63), "\0"]
    seen = [con.execute("SELECT ?, typeof(?1)", (value,)).fetchone() for value in values]
    con.execute("CREATE TABLE u(x)")
    con.executemany("INSERT INTO u VALUES(?)", [(value,) for value in values])
    con.executemany("INSERT INTO u VALUES(:x)", [{"x": value} for value in values])
    con.execute("INSERT INTO u VALUES(:x)", {"x": Money(6)})
    return seen, con.execute("SELECT x FROM u").fetchall(), con.execute("SELECT ?", (Colour.RED,)).fetchone()


def text_factories(m: Any, con: Any) -> Any:
    con.execute("CREATE TABLE u(x, y)")
    con.executemany("INSERT INTO u VALUES(CAST(? AS TEXT), ?)", [("ä".encode("latin-1") * i, i) for i in range(5)])
    seen = []
    for factory in (bytes, bytearray, lambda text: text.decode("latin-1"), lambda text: text.decode(errors="ignore")):
        con.text_factory = factory
        seen.append(con.execute("SELECT * FROM u ORDER BY y DESC -- all").fetchall())
        cur = con.execute("SELECT x FROM u WHERE y > ?", (0,))
        seen.append([cur.fetchone(), cur.fetchmany(2), cur.fetchone(), cur.fetchone()])
    con.text_factory = str
    with pytest.raises(m.OperationalError, match="Could not decode to UTF-8 column 'x' with text"):
        con.execute("SELECT x FROM u WHERE y = 1").fetchone()
    return seen


def row_factories(m: Any, con: Any) -> Any:
    filled(con).row_factory = m.Row
    cur = con.execute("SELECT a, b AS Ä FROM t")
    row = cur.fetchone()
    dicts = con.cursor()
    dicts.row_factory = lambda cursor, values: {
        column[0]: value for column, value in zip(cursor.description, values, strict=True)
    }
    nothing = con.cursor()
    nothing.row_factory = lambda *_: None
    return (
        [row["A"], row["Ä"], row[0], row[-1], row[0:2], len(row), row.keys(), dict(row), tuple(row)],
        [tuple(other) for other in cur],
        dicts.execute("SELECT a, b FROM t").fetchall(),
        nothing.execute("SELECT a FROM t").fetchall(),
    )


def functions(m: Any, con: Any) -> Any:
    class Joined:
        def __init__(self) -> None:
            self.parts: list[str] = []

        def step(self, part: Any) -> None:
            self.parts.append(str(part))

        def inverse(self, part: Any) -> None:
            self.parts.remove(str(part))

        def value(self) -> str:
            return "+".join(self.parts)

        finalize = value

    filled(con)
    con.create_function("twice", 1, lambda x: x * 2, deterministic=True)
    con.create_function("bad", 0, lambda: 1 / 0)
    con.create_aggregate("joined", 1, Joined)
    con.create_window_function("joined_w", 1, Joined)
    con.create_collation("reversed", lambda a, b: (a < b) - (a > b))
    seen = [
        con.execute("SELECT twice(a), twice(b), joined(a) FROM t").fetchall(),
        con.execute("SELECT joined(a) FROM t WHERE 0").fetchall(),
        con.execute("SELECT joined_w(a) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t").fetchall(),
        con.execute("SELECT b FROM t WHERE b IS NOT NULL ORDER BY b COLLATE reversed").fetchall(),
    ]
    with pytest.raises(m.OperationalError, match=r"^user-defined function raised exception$"):
        con.execute("SELECT bad()")
    traced: list[str] = []
    con.set_trace_callback(traced.append)
    con.execute("SELECT a FROM t WHERE a = ?", (2,)).fetchall()
    con.execute("INSERT INTO t(b) VALUES(?)", ("it's",))
    con.commit()
    return seen, traced


def returning(m: Any, con: Any) -> Any:
    filled(con)
    cur = con.execute("UPDATE t SET b = 'x' WHERE a < 3 RETURNING a, b")
    rows = [cur.rowcount, cur.fetchone(), cur.rowcount, cur.fetchone(), cur.rowcount, cur.fetchone()]
    return rows, cur.description


def statements_and_comments(m: Any, con: Any) -> Any:
    seen = []
    for sql in ("SELECT ';'", "SELECT 1; -- more", "SELECT 1;;", "SELECT 1 /* ; */", "", ";", "-- only", "SELECT 1; SELECT 2"):
        try:
            seen.append(con.execute(sql).fetchall())
        except (m.ProgrammingError, m.Warning) as error:
            seen.append(str(error))
    con.execute("CREATE TABLE u(x)")
    con.execute("CREATE TRIGGER tr AFTER INSERT ON u BEGIN SELECT 1; SELECT 2; END")
    return seen


def dumps(m: Any, con: Any) -> Any:
    filled(con).executescript("""
        CREATE TABLE "strange ""name"(x, "y z"); INSERT INTO "strange ""name" VALUES('it''s', x'00ff');
        CREATE VIEW v AS SELECT a FROM t; CREATE INDEX i ON t(b);
        CREATE TABLE n(x INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO n VALUES(7);
    """)
    return list(con.iterdump())


def backups(m: Any, con: Any) -> Any:
    steps: list[tuple[int, int, int]] = []
    with contextlib.closing(m.connect(":memory:")) as target:
        filled(con).backup(target, pages=1, progress=lambda *step: steps.append(step))
        rows = target.execute("SELECT * FROM t").fetchall()
        target.execute("DELETE FROM t")
        target.commit()
        target.backup(con)
    return len(steps), rows, con.execute("SELECT count(*) FROM t").fetchone()


def blobs(m: Any, con: Any) -> Any:
    con.execute("CREATE TABLE u(x)")
    con.execute("INSERT INTO u VALUES(zeroblob(10))")
    with con.blobopen("u", "x", 1) as blob:
        blob.write(b"hello")
        blob[7] = 33
        blob[8:10] = b"ab"
        blob[0:4:2] = b"XY"
        blob.seek(-3, 2)
        seen = [blob.tell(), blob.read(), blob[0], blob[-1], blob[1:3], len(blob)]
    return seen, con.execute("SELECT x FROM u").fetchall()


def converters(m: Any, con: Any) -> Any:
    m.register_converter("shout", lambda content: content.decode().upper())
    con = m.connect(":memory:", detect_types=m.PARSE_DECLTYPES | m.PARSE_COLNAMES)
    con.execute("CREATE TABLE u(x shout(5), y date, z)")
    con.execute("INSERT INTO u VALUES('a', '2024-02-29', 1.5), (12, NULL, 'q'), (2.5, '', '')")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        seen = con.execute('SELECT x, y, z AS "z [shout]", z FROM u').fetchall()
    description = con.execute('SELECT z AS "z [shout]" FROM u').description
    con.close()
    return seen, description


PROGRAMS = [
    rows_in_every_way,
    rowcount_and_lastrowid,
    descriptions,
    a_description_outlives_its_table,
    a_description_outlives_its_connection,
    the_last_row_ends_its_statement,
    transactions,
    refusals,
    adapted_values,
    text_factories,
    row_factories,
    functions,
    returning,
    statements_and_comments,
    dumps,
    backups,
    blobs,
    converters,
]


def run(program: Callable[[Any, Any], Any], module: Any, *where: Any, **options: Any) -> Any:
    connection = module.connect(*where, **options)
    try:
        return program(module, connection)
    finally:
        connection.close()
