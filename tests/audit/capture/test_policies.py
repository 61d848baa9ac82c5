"""What is recorded, and what never is: classes, filters, values, secrets."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

import heliosaudit
from heliosaudit import Policy
from heliosaudit.captures import commitment
from heliosaudit.literals import literal, without_secrets
from heliosaudit.records import FIELDS


def recorded(folder: Path, policy: Policy, *statements: Any, user: str = "ada") -> list[dict[str, Any]]:
    """Run statements, and return their records as objects."""
    path = folder / "db"
    with closing(heliosaudit.connect(path, policy)) as connection, heliosaudit.session(user=user, client_ip="10.0.0.1", case=7):
        for statement in statements:
            sql, bindings = statement if isinstance(statement, tuple) else (statement, None)
            with suppress(apsw.Error):
                connection.execute(sql, bindings).fetchall()
    with closing(apsw.Connection(str(path))) as plain:
        rows = [
            dict(zip(FIELDS, json.loads(record), strict=True)) for (record,) in plain.execute("SELECT record FROM __audit_log")
        ]
    return [row for row in rows if row["operation"] not in ("GENESIS", "OPEN", "CLOSE")]


TABLE = "CREATE TABLE patient(id INTEGER PRIMARY KEY, name, ssn)"


def test_an_event_says_who_what_when_and_with_what_outcome(tmp_path: Path) -> None:
    policy = Policy(log_select=True, application_name="ward")
    _, insert, select = recorded(
        tmp_path, policy, TABLE, ("INSERT INTO patient VALUES(?, ?, ?)", (1, "O'Hara", "123")), "SELECT * FROM patient"
    )
    assert insert["query"] == "INSERT INTO patient VALUES(1, 'O''Hara', '123')"
    assert (insert["user"], insert["client_ip"], insert["application_name"], insert["custom"]) == (
        "ada",
        "10.0.0.1",
        "ward",
        {"case": 7},
    )
    assert (insert["operation"], insert["target"], insert["database_name"], insert["affected_rows"]) == (
        "INSERT",
        "patient",
        "main",
        1,
    )
    assert (insert["event_class"], insert["success"], insert["error"], insert["writes"]) == ("DML", True, None, ["main.patient"])
    assert insert["occurred_at"] <= insert["timestamp"]
    assert (select["event_class"], select["affected_rows"], select["reads"]) == ("SELECT", 1, ["main.patient"])


@pytest.mark.parametrize(
    ("event_class", "switch"),
    [
        ("DDL", "log_ddl"),
        ("DML", "log_dml"),
        ("SELECT", "log_select"),
        ("TRANSACTION", "log_transactions"),
        ("ADMIN", "log_admin"),
    ],
)
def test_a_class_is_recorded_when_it_is_switched_on(tmp_path: Path, event_class: str, switch: str) -> None:
    off = dict.fromkeys(("log_ddl", "log_dml", "log_select", "log_transactions", "log_auth", "log_admin"), False)
    statements = [
        TABLE,
        "INSERT INTO patient(name) VALUES(1)",
        "SELECT * FROM patient",
        "BEGIN",
        "COMMIT",
        "PRAGMA cache_size = 10",
    ]
    found = recorded(tmp_path, Policy(**{**off, switch: True}), *statements)  # type: ignore[arg-type]
    assert {row["event_class"] for row in found} == {event_class}


def test_tables_and_users_are_included_and_excluded(tmp_path: Path) -> None:
    statements = [TABLE, "CREATE TABLE other(x)", "INSERT INTO patient(name) VALUES(1)", "INSERT INTO other VALUES(1)"]
    (tmp_path / "a").mkdir()
    only = [row["target"] for row in recorded(tmp_path / "a", Policy(include_tables=frozenset({"PATIENT"})), *statements)]
    assert only == ["patient", "other", "patient"]  # both tables were made: DDL is not filtered by table
    (tmp_path / "b").mkdir()
    rest = [
        row["target"]
        for row in recorded(tmp_path / "b", Policy(log_ddl=False, exclude_tables=frozenset({"patient"})), *statements)
    ]
    assert rest == ["other"]
    (tmp_path / "c").mkdir()
    assert recorded(tmp_path / "c", Policy(exclude_users=frozenset({"ada"})), *statements) == []


def test_statements_on_redacted_columns_show_neither_values_nor_literals(tmp_path: Path) -> None:
    policy = Policy(log_select=True, redacted_columns=frozenset({"patient.ssn"}))
    found = recorded(
        tmp_path,
        policy,
        TABLE,
        ("INSERT INTO patient VALUES(?, 'secret-1', ?)", (1, "secret-2")),
        "SELECT name FROM patient WHERE ssn = 'secret-3'",
        "SELECT name FROM patient WHERE name = 'shown'",
    )
    assert "secret" not in json.dumps(found)
    assert "'shown'" in found[-1]["query"]


def test_redactable_values_are_commitments_beside_values_that_can_be_erased(tmp_path: Path) -> None:
    _, insert = recorded(
        tmp_path, Policy(capture_parameters="redactable"), TABLE, ("INSERT INTO patient VALUES(?, ?, ?)", (1, "Ada", b"x"))
    )
    assert "Ada" not in json.dumps(insert)
    with closing(apsw.Connection(str(tmp_path / "db"))) as plain:
        values = plain.execute("SELECT salt, value FROM __audit_values ORDER BY position").fetchall()
    assert [commitment(salt, value) for salt, value in values] == insert["parameters"]
    assert insert["parameters"][1] == hashlib.sha256(values[1][0] + msgspec.json.encode("Ada")).hexdigest()


def test_hashed_values_can_be_compared_and_not_read(tmp_path: Path) -> None:
    policy = Policy(capture_parameters="hashed", hash_key=bytes(32))
    _, first, second = recorded(
        tmp_path,
        policy,
        TABLE,
        ("INSERT INTO patient(name) VALUES(?)", ("Ada",)),
        ("INSERT INTO patient(name) VALUES(?)", ("Ada",)),
    )
    assert first["query"] == second["query"]
    assert "Ada" not in first["query"]


def test_placeholders_stay_where_no_values_are_captured(tmp_path: Path) -> None:
    _, insert = recorded(
        tmp_path, Policy(capture_parameters="none"), TABLE, ("INSERT INTO patient(name) VALUES(:n)", {"n": "Ada"})
    )
    assert insert["query"] == "INSERT INTO patient(name) VALUES(:n)"


SECRETS = [
    "PRAGMA key = 'hunter2'",
    "PRAGMA  main.\"key\"('hunter2')",
    'pragma REKEY="hunter2"',
    "PRAGMA hexkey='hunter2'",
    "PRAGMA key = 'hunter2' nonsense (",
    "ATTACH 'x.db' AS y KEY 'hunter2'",
    "ATTACH 'file:x.db?heliosvfs_key=hunter2&mode=ro' AS y",
]


@pytest.mark.parametrize("sql", SECRETS)
def test_keys_are_in_no_event(tmp_path: Path, sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # where ATTACH makes its files
    recorded(tmp_path, Policy(log_select=True), TABLE, sql)
    for name in tmp_path.glob("*"):
        assert name.is_dir() or b"hunter2" not in name.read_bytes()
    assert "hunter2" not in without_secrets(sql)


def test_an_exception_of_the_applications_own_is_named_and_not_quoted(tmp_path: Path) -> None:
    with closing(heliosaudit.connect(tmp_path / "db", Policy())) as connection:

        def leak(value: str) -> None:
            raise ValueError(value)

        connection.create_scalar_function("leak", leak, 1)
        connection.execute("CREATE TABLE t(x)")
        with pytest.raises(ValueError, match="P12345"):
            connection.execute("INSERT INTO t VALUES(leak('P' || 12345))")
    with closing(apsw.Connection(str(tmp_path / "db"))) as plain:
        assert plain.execute("SELECT error FROM __audit_log WHERE success = 0").get == "ValueError"


@pytest.mark.parametrize(
    ("value", "due"),
    [
        (None, "NULL"),
        (5, "5"),
        (True, "1"),
        (2**70, f"{2**70} /* beyond 64 bits */"),
        (1.5, "1.5"),
        (float("inf"), "9e999"),
        (float("nan"), "NULL /* NaN */"),
        ("it's", "'it''s'"),
        ("nul\0in", "unistr('nul\\u0000in')"),
        ("x" * 12, "'xxxxxxxxxx' /* 2 more characters */"),
        (b"\1\2", "x'0102'"),
        (b"y" * 12, f"x'{(b'y' * 10).hex()}' /* 2 more bytes */"),
        (memoryview(b"ab"), "x'6162'"),
    ],
)
def test_values_are_rendered_as_sqlite_reads_them(value: Any, due: str) -> None:
    assert literal(value, 10) == due


def test_long_statements_are_cut(tmp_path: Path) -> None:
    _, insert = recorded(tmp_path, Policy(max_query_length=60), TABLE, ("INSERT INTO patient(name) VALUES(?)", ("z" * 200,)))
    assert len(insert["query"]) < 100
    assert "more characters" in insert["query"]


@pytest.mark.parametrize(
    "options",
    [
        {"capture_parameters": "all"},
        {"capture_parameters": "hashed"},
        {"read_durability": "maybe"},
        {"capture_rows": "some"},
        {"async_buffer_size": 0},
        {"flush_interval": 0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(heliosaudit.AuditPolicyError):
        Policy(**options)


def test_presets_are_known_by_name() -> None:
    assert Policy.preset("HIPAA").log_select
    with pytest.raises(heliosaudit.AuditPolicyError, match="soc2"):
        Policy.preset("hippa")
