"""A subject's data: a copy of all of it, and its erasure down to the last page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosvfs
from heliosaudit.verifications import verify
from heliosvfs.compliance.consents import consents_of, has_consent, record_consent
from heliosvfs.compliance.declarations import DataPath
from heliosvfs.compliance.subjects import anonymise_subject, erase_subject, export_subject
from heliosvfs.vfs import files_of

KEY = bytes(range(32))
SECRETS = (b"ada@example.org", b"Ada Lovelace", b"a note on Ada alone", b"12 St James's Square")
PATHS = (
    DataPath(table="customers", subject_column="id"),
    DataPath(table="orders", via="customer_id -> customers.id"),
    DataPath(table="lines", via="order_id -> orders.id", columns=("note",)),
    DataPath(
        table="invoices", via="customer_id -> customers.id", on_erasure="keep", keep_reason="kept ten years for the tax office"
    ),
)
SCHEMA = """
    CREATE TABLE customers(id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT, photo BLOB);
    CREATE TABLE orders(id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers(id), address TEXT);
    CREATE TABLE lines(id INTEGER PRIMARY KEY, order_id INTEGER REFERENCES orders(id), article TEXT, note TEXT);
    CREATE TABLE invoices(id INTEGER PRIMARY KEY, customer_id INTEGER, text TEXT);
    CREATE INDEX by_name ON customers(name)
"""
MAIL = (DataPath(table="customers", subject_column="email", on_erasure="anonymise"),)


def make(path: Path, audit: str = "gdpr") -> Any:
    connection = heliosvfs.connect(path, key=KEY, audit=audit)
    connection.pragma("foreign_keys", "ON")
    connection.execute(SCHEMA).fetchall()
    people = (
        (1, "ada@example.org", "Ada Lovelace", "12 St James's Square", "a note on Ada alone"),
        (2, "bob@example.org", "Bob Noyce", "Palo Alto", "none"),
    )
    with connection:
        for number, mail, name, address, note in people:
            connection.execute("INSERT INTO customers VALUES(?, ?, ?, ?)", (number, mail, name, bytes(9000)))
            connection.execute("INSERT INTO orders VALUES(?, ?, ?)", (number, number, address))
            connection.execute("INSERT INTO lines VALUES(?, ?, ?, ?)", (number, number, "engine", note))
        connection.execute("INSERT INTO lines VALUES(3, 1, 'gears', NULL)")
    return connection


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Any]:
    with closing(make(tmp_path / "app.db")) as made:
        yield made


def pages_of(path: Path) -> bytes:
    """Return every page of the file, decrypted, free ones too; nothing is left in the WAL."""
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE) == (0, 0)
        file, size = files_of(connection)[0], int(connection.pragma("page_size"))
        return b"".join(bytes(file.xRead(size, at)) for at in range(0, file.xFileSize(), size))


def test_a_copy_has_everything_of_one_subject_and_nothing_of_another(connection: Any) -> None:
    found = export_subject(connection, 1, PATHS)
    assert found["tables"]["customers"][0]["email"] == "ada@example.org"
    assert found["tables"]["orders"] == [{"id": 1, "customer_id": 1, "address": "12 St James's Square"}]
    assert [row["article"] for row in found["tables"]["lines"]] == ["engine", "gears"]
    assert "Bob" not in str(found)


def test_an_erasure_reaches_all_declared_tables_and_says_what_stays(connection: Any) -> None:
    connection.execute("INSERT INTO invoices VALUES(1, 1, 'an invoice')")
    report = erase_subject(connection, 1, PATHS, reason="request 17")
    assert report.deleted == {"lines": 2, "orders": 1, "customers": 1}
    assert report.kept == {"invoices": (1, "kept ten years for the tax office")}
    assert report.audit_values > 0
    assert connection.execute("SELECT count(*) FROM customers").get == 1
    assert export_subject(connection, 2, PATHS)["tables"]["customers"][0]["name"] == "Bob Noyce"
    assert verify(connection).ok


def test_nothing_of_it_is_left_in_any_page(tmp_path: Path) -> None:
    with closing(make(tmp_path / "app.db")) as connection:
        for _ in range(3):
            connection.execute("UPDATE customers SET name = ? WHERE email = ?", ("Ada Lovelace", "ada@example.org"))
            connection.execute("SELECT * FROM orders WHERE address = ?", ("12 St James's Square",)).fetchall()
        connection.wal_checkpoint()
    assert [secret for secret in SECRETS if secret not in pages_of(tmp_path / "app.db")] == []
    with closing(heliosvfs.connect(tmp_path / "app.db", key=KEY, audit="gdpr")) as connection:
        erase_subject(connection, 1, PATHS, reason="request 17")
    left = pages_of(tmp_path / "app.db")
    assert [secret for secret in SECRETS if secret in left] == []
    assert b"bob@example.org" in left


def test_without_redactable_values_the_report_says_what_the_log_keeps(tmp_path: Path) -> None:
    with closing(make(tmp_path / "app.db", audit="hipaa")) as connection:
        report = erase_subject(connection, "ada@example.org", MAIL, reason="r")
        assert any("events of the audit log show values" in note for note in report.notes)
        assert verify(connection).ok


def test_the_event_of_an_erasure_does_not_name_the_subject(connection: Any) -> None:
    erase_subject(connection, "ada@example.org", MAIL, reason="request 17")
    [(record,)] = connection.execute("SELECT record FROM __audit_log WHERE operation = 'ERASE SUBJECT'").fetchall()
    assert "ada@example.org" not in record
    assert "request 17" in record


def test_anonymising_keeps_rows_and_constraints(connection: Any) -> None:
    report = anonymise_subject(connection, 1, PATHS, reason="request 18")
    assert report.anonymised == {"lines": 2, "orders": 1, "customers": 1}
    mail, name, photo = connection.execute("SELECT email, name, photo FROM customers WHERE id = 1").fetchall()[0]
    assert mail.startswith("erased-")
    assert (name, photo) == (None, None)
    assert connection.execute("SELECT article, note FROM lines WHERE order_id = 1").fetchall() == [
        ("engine", None),
        ("gears", None),
    ]
    assert connection.pragma("foreign_key_check") is None


def test_an_erasure_that_something_refers_to_changes_nothing(connection: Any) -> None:
    connection.execute("CREATE TABLE loans(customer_id REFERENCES customers(id)); INSERT INTO loans VALUES(1)").fetchall()
    secure = connection.pragma("secure_delete")
    with pytest.raises(apsw.ConstraintError):
        erase_subject(connection, 1, PATHS, reason="request 17")
    assert not connection.in_transaction
    assert len(export_subject(connection, 1, PATHS)["tables"]["lines"]) == 2
    assert connection.pragma("secure_delete") == secure


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ((), "no table is declared"),
        ((DataPath(table="nope", subject_column="id"),), "there is no such table"),
        ((DataPath(table="customers", subject_column="nope"),), "customers.nope"),
        ((DataPath(table="customers", subject_column="id", columns=("nope",)),), "customers.nope"),
        ((DataPath(table="orders", via="customer_id -> customers.id"),), "not declared"),
        ((PATHS[0], DataPath(table="orders", via="customer_id -> customers.nope")), "customers.nope"),
        ((PATHS[0], PATHS[0]), "declared twice"),
        ((DataPath(table="orders", via="id -> lines.order_id"), DataPath(table="lines", via="order_id -> orders.id")), "circle"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(connection: Any, paths: Any, said: str) -> None:
    with pytest.raises(heliosvfs.UsageError, match=said):
        erase_subject(connection, 1, paths, reason="r")
    assert connection.execute("SELECT count(*) FROM customers").get == 2


def test_a_killed_erasure_is_whole_or_not_at_all(tmp_path: Path) -> None:
    make(tmp_path / "app.db").close()
    code = f"""
import heliosvfs, sys
from heliosvfs.compliance.subjects import erase_subject
from tests.compliance.test_subjects import KEY, PATHS
c = heliosvfs.connect({str(tmp_path / "app.db")!r}, key=KEY, audit="gdpr")
print("ready", flush=True); sys.stdin.readline()
erase_subject(c, 1, PATHS, reason="r")
"""
    for delay in (0.0, 0.001, 0.003, 0.006, 0.01):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        with closing(heliosvfs.connect(tmp_path / "app.db", key=KEY, audit="gdpr")) as connection:
            tables = export_subject(connection, 1, PATHS)["tables"]
            recorded = connection.execute("SELECT count(*) FROM __audit_log WHERE operation = 'ERASE SUBJECT'").get
            is_gone = not tables["customers"]
            assert (not tables["orders"], not tables["lines"], recorded == 1) == (is_gone,) * 3
            assert verify(connection).ok
        if is_gone:
            return


def test_consents_are_appended_and_the_last_word_counts(connection: Any) -> None:
    assert not has_consent(connection, 1, "newsletter")
    with heliosvfs.session(user="clerk"):
        record_consent(connection, 1, "newsletter", given=True, text_version="2026-01")
    assert has_consent(connection, 1, "newsletter")
    record_consent(connection, 1, "newsletter", given=False)
    assert not has_consent(connection, 1, "newsletter")
    assert not has_consent(connection, 2, "newsletter")
    first, second = consents_of(connection, 1)
    assert (first.given, first.recorded_by, first.text_version, second.given) == (True, "clerk", "2026-01", False)
    assert len(export_subject(connection, 1, PATHS)["consents"]) == 2
    connection.auditor.flush()
    events = connection.execute(
        "SELECT operation, target FROM __audit_log WHERE operation LIKE 'CONSENT%' ORDER BY id"
    ).fetchall()
    assert events == [("CONSENT GIVEN", "newsletter"), ("CONSENT WITHDRAWN", "newsletter")]
    assert verify(connection).ok


def test_a_consent_is_numbered_after_one_that_was_recorded_while_it_waited_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(make(path)) as connection:
        record_consent(connection, 1, "newsletter", given=True)

    def record() -> int:
        with closing(heliosvfs.connect(path, key=KEY, audit="gdpr")) as connection:
            return record_consent(connection, 1, "newsletter", given=False).id

    with ThreadPoolExecutor(1) as threads, closing(heliosvfs.connect(path, key=KEY)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = threads.submit(record)
        time.sleep(0.5)  # it has begun, and waits
        other.execute("INSERT INTO __audit_consents VALUES(NULL, 2, 'newsletter', 1, '', '', '', '')")
        other.execute("COMMIT")
        assert waiting.result() == 3


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM __audit_consents",
        "UPDATE __audit_consents SET given = 1",
        "DROP TABLE __audit_consents",
        "INSERT INTO __audit_consents(id) VALUES(9)",
    ],
)
def test_nobody_rewrites_the_consents(connection: Any, sql: str) -> None:
    record_consent(connection, 1, "newsletter", given=False)
    with pytest.raises(heliosvfs.audit.AccessDeniedError):
        connection.execute(sql)


def test_a_consent_needs_an_audit_log(tmp_path: Path) -> None:
    with (
        closing(heliosvfs.connect(tmp_path / "plain.db", key=KEY)) as connection,
        pytest.raises(heliosvfs.UsageError, match="audited"),
    ):
        record_consent(connection, 1, "newsletter", given=True)  # type: ignore[arg-type]
