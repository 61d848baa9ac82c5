"""A redacted column of a virtual table is hidden where its values are searched for, and where they are kept."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit import Policy

SECRET = "secretword"  # in lower case, as indexes keep it
MODULES = ["fts5", "fts4", "fts3"]


def recorded(folder: Path, *statements: Any, rows: str = "values", redacted: str = "w.body") -> str:
    """Run statements, and return what the log holds of them, blobs as text."""
    policy = Policy(log_select=True, capture_rows=rows, redacted_columns=frozenset({redacted}))
    with closing(heliosaudit.connect(folder / "db", policy)) as connection:
        for statement in statements:
            sql, bindings = statement if isinstance(statement, tuple) else (statement, None)
            connection.execute(sql, bindings).fetchall()
    with closing(apsw.Connection(str(folder / "db"))) as plain:
        found = "\n".join(record for (record,) in plain.execute("SELECT record FROM __audit_log"))
    return found.replace(SECRET.encode().hex(), SECRET)


@pytest.mark.parametrize("rows", ["values", "keys"])
@pytest.mark.parametrize("module", MODULES)
def test_no_image_of_a_shadow_table_shows_what_is_redacted(tmp_path: Path, module: str, rows: str) -> None:
    found = recorded(
        tmp_path,
        f"CREATE VIRTUAL TABLE w USING {module}(body, title)",
        ("INSERT INTO w VALUES(?, 'seen')", (SECRET,)),
        "BEGIN",
        *[("INSERT INTO w VALUES(?, 'seen')", (f"{SECRET}{number} " * 50,)) for number in range(100)],
        "COMMIT",
        "UPDATE w SET title = 'other' WHERE rowid = 1",
        "INSERT INTO w(w) VALUES('optimize')",
        "DELETE FROM w",
        rows=rows,
    )
    assert "main.w_content" in found
    assert SECRET not in found


@pytest.mark.parametrize("rows", ["values", "keys"])
def test_no_image_of_a_shadow_table_shows_it_after_vacuum_and_in_another_database(tmp_path: Path, rows: str) -> None:
    """VACUUM writes shadow tables down before the virtual table that they belong to."""
    recorded(tmp_path, "CREATE VIRTUAL TABLE w USING fts5(body)")
    with closing(apsw.Connection(str(tmp_path / "db"))) as plain:
        plain.execute("VACUUM")
    found = recorded(
        tmp_path,
        ("INSERT INTO w VALUES(?)", (SECRET,)),
        "ATTACH ':memory:' AS [my \"own\"]",
        'CREATE VIRTUAL TABLE "my ""own""".W USING fts5(body)',
        ('INSERT INTO "my ""own""".w VALUES(?)', (SECRET,)),
        rows=rows,
    )
    assert found.count("_content") == 2
    assert SECRET not in found


QUERIES = [
    "SELECT rowid FROM w WHERE w MATCH 'secretword'",
    ("SELECT rowid FROM w WHERE w MATCH ?", (SECRET,)),
    "SELECT title FROM w AS a WHERE a.w MATCH 'secretword'",
    "DELETE FROM w WHERE w MATCH 'secretword'",
    "UPDATE w SET title = 'x' WHERE w MATCH 'secretword'",
    "SELECT rowid FROM w WHERE body MATCH 'secretword'",
]
FTS5_QUERIES = [
    "SELECT rowid FROM w('secretword')",
    "SELECT title FROM w('secretword')",
    ("SELECT title FROM w(?)", (SECRET,)),
    "SELECT title FROM main.\"W\" /* a */ -- (\n ('secretword', 'bm25()') ORDER BY rank",
    ("SELECT count(*) FROM w WHERE w = ?", (SECRET,)),
    "SELECT title FROM w WHERE w = 'secretword' ORDER BY rank",
    "SELECT 1 FROM sqlite_schema, w('secretword')",
    "SELECT snippet(w, -1, 'secretword', '', '', 5) FROM w('x')",
    "SELECT rowid FROM w_content WHERE c0 = 'secretword'",
    "SELECT segid FROM w_idx WHERE term = x'30' || 'secretword'",
]


@pytest.mark.parametrize(
    ("module", "query"),
    [(module, query) for module in MODULES for query in QUERIES] + [("fts5", query) for query in FTS5_QUERIES],
)
def test_no_search_shows_what_is_redacted(tmp_path: Path, module: str, query: Any) -> None:
    found = recorded(
        tmp_path, f"CREATE VIRTUAL TABLE w USING {module}(body, title)", ("INSERT INTO w VALUES(?, 'seen')", (SECRET,)), query
    )
    assert SECRET not in found


def test_what_is_not_redacted_is_shown(tmp_path: Path) -> None:
    found = recorded(
        tmp_path,
        "CREATE VIRTUAL TABLE w USING fts5(body, title)",
        "CREATE VIRTUAL TABLE v USING fts5(body)",
        "CREATE TABLE w_data2(x)",
        "CREATE TABLE w_other(x, c0)",
        "INSERT INTO v VALUES('shown-1')",
        "INSERT INTO w_other VALUES('shown-2', 'shown-3')",
        "SELECT x FROM w_other WHERE c0 = 'shown-4'",
        "SELECT rowid FROM v('shown4')",
        "SELECT body FROM v WHERE v MATCH 'shown5'",
        "SELECT title AS now FROM w WHERE title = 'shown-6' AND now IN ('x')",
        "SELECT title FROM w WHERE title MATCH 'shown7'",
    )
    events = [json.loads(line) for line in found.splitlines()]
    images = [image for event in events for image in event[19] or ()]
    assert [image["new"] for image in images if image["table"] == "main.v_content"] == [["1", "'shown-1'"]]
    assert [image["new"] for image in images if image["table"] == "main.w_other"] == [["'shown-2'", "'shown-3'"]]
    for shown in ("shown-4", "shown4", "shown5", "shown-6", "shown7"):
        assert f"'{shown}'" in found


def test_the_number_of_comments_before_a_parenthesis_costs_nothing(tmp_path: Path) -> None:
    comments = "/*a*/ " * 5000
    found = recorded(tmp_path, "CREATE TABLE w(body, x)", f"SELECT x FROM w {comments} WHERE x = 1")
    assert "SELECT x FROM w /*a*/" in found
