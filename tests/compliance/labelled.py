"""A hospital with labels, and the same hospital without what a session at the lowest level may not see."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw

import heliosvfs
from heliosvfs.audit import Policy
from heliosvfs.audited import AuditedConnection
from heliosvfs.compliance import labels

KEY = bytes(range(32))
LABELS = {
    "agents": "SECRET",
    "agents.cover": "TOP_SECRET",
    "patients.ssn": "SECRET",
    "notes": "SECRET",
    "codes.id": "SECRET",
}
SEEN = """
    CREATE TABLE seen_by(patient, agent);
    CREATE TABLE known(ssn);
    INSERT INTO known VALUES('HUSH-111');
    CREATE TABLE patients(id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK(name <> ''), ward UNIQUE);
    INSERT INTO patients VALUES(1, 'Ada', 'w1'), (2, 'Bob', 'w2');
    CREATE TABLE visits(id INTEGER PRIMARY KEY AUTOINCREMENT, patient REFERENCES patients(id), day TEXT);
    INSERT INTO visits(patient, day) VALUES(1, 'mon');
    CREATE TABLE codes(code TEXT);
    INSERT INTO codes VALUES('c1');
    CREATE VIEW wards AS SELECT ward FROM patients;
    CREATE VIRTUAL TABLE leaflets USING fts5(body);
    INSERT INTO leaflets VALUES('wash your hands');
"""
WHOLE = """
    CREATE TABLE patients(id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK(name <> ''), ward UNIQUE,
        ssn TEXT UNIQUE CHECK(ssn <> 'no'), tail AS (substr(ssn, -3)), kept AS (ssn || '!') STORED);
    INSERT INTO patients(id, name, ward, ssn) VALUES(1, 'Ada', 'w1', 'HUSH-111'), (2, 'Bob', 'w2', 'HUSH-222');
    CREATE INDEX by_ssn ON patients(ssn);
    CREATE TABLE visits(id INTEGER PRIMARY KEY AUTOINCREMENT, patient REFERENCES patients(id), day TEXT);
    INSERT INTO visits(patient, day) VALUES(1, 'mon');
    CREATE TABLE codes(id INTEGER PRIMARY KEY, code TEXT);
    INSERT INTO codes VALUES(77, 'c1');
    CREATE VIEW wards AS SELECT ward FROM patients;
    CREATE VIRTUAL TABLE leaflets USING fts5(body);
    INSERT INTO leaflets VALUES('wash your hands');
    CREATE TABLE agents(id INTEGER PRIMARY KEY AUTOINCREMENT, alias TEXT UNIQUE, cover TEXT);
    INSERT INTO agents VALUES(7, 'HUSH-alias', 'HUSH-cover'), (8, 'HUSH-other', 'HUSH-baker');
    CREATE INDEX by_alias ON agents(alias);
    CREATE TABLE seen_by(patient, agent REFERENCES agents(id));
    CREATE VIEW agent_names AS SELECT alias FROM agents;
    CREATE VIEW all_names AS SELECT name FROM patients UNION SELECT alias FROM agent_names;
    CREATE TABLE known(ssn);
    INSERT INTO known VALUES('HUSH-111');
    CREATE VIEW natural_names AS SELECT name FROM patients NATURAL JOIN known;
    CREATE VIEW numbers AS SELECT name, ssn FROM patients;
    CREATE VIRTUAL TABLE notes USING fts5(body);
    INSERT INTO notes VALUES('HUSH the baker is ours');
    CREATE VIRTUAL TABLE note_words USING fts5vocab(notes, row);
    CREATE VIRTUAL TABLE sizes USING dbstat;
    CREATE VIRTUAL TABLE ssn_search USING fts5(ssn, content='patients');
    INSERT INTO ssn_search(ssn_search) VALUES('rebuild');
    CREATE TRIGGER watch AFTER INSERT ON codes BEGIN INSERT INTO agents(alias) VALUES(new.code); END;
    ANALYZE;
"""
# what a session cleared for SECRET sees of it
SEEN_AT_SECRET = (
    WHOLE.replace("alias TEXT UNIQUE, cover TEXT", "alias TEXT UNIQUE")
    .replace("(7, 'HUSH-alias', 'HUSH-cover')", "(7, 'HUSH-alias')")
    .replace("(8, 'HUSH-other', 'HUSH-baker')", "(8, 'HUSH-other')")
)


class Outcome(NamedTuple):
    """What a session sees of what it does."""

    kind: type | None
    text: str
    codes: tuple[Any, ...]
    rows: list[Any]


def make(path: Path, schema: str, labelled: dict[str, str] | None = None, **options: Any) -> AuditedConnection:
    """Make an encrypted, audited database; enforce labels on it."""
    connection = heliosvfs.connect(path, key=KEY, audit=Policy(log_select=True))
    assert isinstance(connection, AuditedConnection)
    connection.execute(schema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", labels.LabelWithoutEffectWarning)  # the database without them has none of what they name
        labels.enforce(connection, LABELS if labelled is None else labelled, **options)
    return connection


def outcome(connection: apsw.Connection, sql: str, bindings: Any = None) -> Outcome:
    """Run SQL and return all that whoever ran it sees of what happened."""
    try:
        rows = connection.execute(sql, bindings).fetchall()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        codes = [getattr(error, name, None) for name in ("result", "extendedresult", "error_offset")]
        codes += [repr(error.__cause__), repr(error.__context__)]
        return Outcome(type(error), str(error), tuple(codes), [])
    return Outcome(None, "", (), rows)


@contextmanager
def cleared(level: str | None) -> Iterator[None]:
    """Act with a clearance; None: say nothing of it."""
    with heliosvfs.session(user="somebody", **({} if level is None else {"clearance": level})):
        yield


def failures(connection: apsw.Connection) -> list[tuple[str, str, str]]:
    """Return operation, query and error of what failed or was denied."""
    with cleared("TOP_SECRET"):
        sql = "SELECT operation, query, error FROM __audit_log WHERE NOT success ORDER BY id"
        return [(str(row[0]), str(row[1]), str(row[2])) for row in connection.execute(sql)]
