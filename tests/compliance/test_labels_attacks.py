"""Attacks on labels: whatever a session at the lowest level tries, it learns no more than where there is nothing to learn.

Two databases get each attack: one with what is labelled above the session, and one that never had it. They have to answer alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from heliosvfs.audited import AuditedConnection
from tests.compliance.labelled import SEEN, SEEN_AT_SECRET, WHOLE, cleared, failures, make, outcome

SAME = [  # attacks that are answered as if there were nothing
    # tables
    "SELECT * FROM agents",
    "SELECT alias FROM agents",
    "SELECT count(*) FROM agents",
    "SELECT count(*) FROM main.agents",
    'SELECT 1 FROM "AGENTS"',
    "SELECT EXISTS(SELECT 1 FROM agents WHERE id = 7)",
    "SELECT (SELECT max(rowid) FROM agents)",
    "SELECT name FROM patients WHERE name IN (SELECT alias FROM agents)",
    "SELECT name FROM patients JOIN agents ON alias = name",
    "SELECT name FROM patients UNION SELECT alias FROM agents",
    "WITH a AS (SELECT alias FROM agents) SELECT * FROM a",
    "WITH agents AS (SELECT 1 AS x) SELECT count(*) FROM agents",
    "WITH agents AS (SELECT 1 AS x) SELECT x FROM agents",
    "WITH agents AS (SELECT 1 AS x) SELECT count(*) FROM main.agents",
    "WITH RECURSIVE agents(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM agents WHERE n < 3) SELECT n FROM agents",
    "SELECT count(*) FROM (SELECT 1) AS agents",
    "SELECT agents.alias FROM patients",
    "SELECT name FROM patients WHERE name IN agents",
    "INSERT INTO codes(code) SELECT * FROM agents",
    "SELECT name FROM patients WHERE (1, 'x', 'y') IN (TABLE agents)",
    "SELECT name FROM natural_names",
    "SELECT * FROM (agents)",
    "SELECT max(alias) FILTER (WHERE 1) FROM agents",
    "VALUES((SELECT alias FROM agents))",
    "REPLACE INTO agents(alias) VALUES('x')",
    "SELECT 1 FROM agents INDEXED BY by_alias",
    "INSERT INTO agents(alias) VALUES('x')",
    "INSERT INTO agents VALUES(9, 'x', 'y')",
    "INSERT OR REPLACE INTO agents(id, alias) VALUES(7, 'x')",
    "INSERT INTO agents(alias) VALUES('HUSH-alias') ON CONFLICT(alias) DO NOTHING",
    "INSERT INTO agents DEFAULT VALUES RETURNING *",
    "INSERT INTO codes(code) SELECT alias FROM agents",
    "UPDATE agents SET alias = 'x'",
    "UPDATE agents SET alias = 'x' WHERE id = 7 RETURNING alias",
    "UPDATE patients SET name = alias FROM agents",
    "DELETE FROM agents",
    "DELETE FROM agents WHERE id = 7 RETURNING *",
    "DELETE FROM main.agents",
    "SELECT 1; SELECT alias FROM agents",
    "SELECT alias FROM agents; SELECT 1",
    "SELECT nope FROM agents",
    "SELECT nope FROM patients, agents",
    "SELECT alias FROM agents, nowhere",
    "SELECT alias FROM nowhere, agents",
    # columns
    "SELECT ssn FROM patients",
    "SELECT SSN FROM patients",
    "SELECT [ssn] FROM patients",
    'SELECT "ssn" FROM patients',
    "SELECT `ssn` FROM patients",
    "SELECT patients.ssn FROM patients",
    "SELECT main.patients.ssn FROM patients",
    "SELECT p.ssn FROM patients AS p",
    "SELECT 'x' || ssn FROM patients",
    "SELECT ssn, nope FROM patients",
    "SELECT nope, ssn FROM patients",
    "SELECT name FROM patients WHERE ssn = 'HUSH-111'",
    "SELECT name FROM patients WHERE ssn LIKE 'HUSH%'",
    "SELECT name FROM patients ORDER BY ssn",
    "SELECT count(*) FROM patients GROUP BY ssn",
    "SELECT count(ssn) FROM patients",
    "SELECT sum(length(ssn)) OVER () FROM patients",
    "SELECT name FROM patients JOIN (SELECT 'HUSH-111' AS ssn) USING (ssn)",
    "SELECT (SELECT patients.ssn) FROM patients",
    "SELECT tail FROM patients",
    "SELECT kept FROM patients",
    "SELECT name FROM patients WHERE kept > ''",
    "SELECT name FROM patients INDEXED BY by_ssn",
    "SELECT codes.id FROM codes",
    "INSERT INTO patients(id, name, ssn) VALUES(3, 'Eve', 'HUSH-111')",
    "INSERT INTO patients(id, name, tail) VALUES(3, 'Eve', 'x')",
    "INSERT INTO patients(id, name) VALUES(1, 'Eve') ON CONFLICT(ssn) DO NOTHING",
    "INSERT INTO patients(id, name) VALUES(1, 'Eve') ON CONFLICT(id) DO UPDATE SET ssn = 'x'",
    "INSERT INTO patients(id, name) VALUES(1, 'Eve') ON CONFLICT(id) DO UPDATE SET name = excluded.ssn",
    "INSERT INTO patients(id, name) VALUES(1, 'Eve') ON CONFLICT(id) DO UPDATE SET name = ssn",
    "INSERT INTO patients(id, name) VALUES(9, 'Eve') RETURNING ssn",
    "UPDATE patients SET ssn = 'x'",
    "UPDATE patients SET tail = 'x'",
    "UPDATE patients SET name = ssn",
    "UPDATE patients SET name = 'x' WHERE ssn = 'HUSH-111'",
    "UPDATE patients SET name = 'x' WHERE id = 1 RETURNING ssn",
    "DELETE FROM patients WHERE ssn = 'HUSH-111'",
    "DELETE FROM patients WHERE id = 1 RETURNING ssn",
    # views, and what is made of what is hidden
    "SELECT * FROM agent_names",
    "SELECT count(*) FROM agent_names",
    "SELECT count(*) FROM main.all_names",
    "SELECT name FROM all_names",
    "SELECT name FROM numbers",
    "INSERT INTO numbers(name) VALUES('x')",
    "DELETE FROM agent_names",
    "UPDATE numbers SET name = 'x'",
    "SELECT body FROM notes WHERE notes MATCH 'baker'",
    "SELECT count(*) FROM notes('baker')",
    "SELECT * FROM notes_content",
    "SELECT count(*) FROM notes_data",
    "SELECT block FROM notes_data",
    "SELECT * FROM note_words",
    "SELECT count(*) FROM note_words",
    "SELECT rowid FROM ssn_search WHERE ssn_search MATCH 'HUSH'",
    "SELECT * FROM ssn_search_docsize",
    "INSERT INTO notes(notes) VALUES('integrity-check')",
    # the schema
    "SELECT sql FROM sqlite_schema",
    "SELECT name FROM sqlite_master WHERE type = 'table'",
    "SELECT count(*) FROM sqlite_master",
    "SELECT rowid FROM main.sqlite_schema",
    "SELECT 1 FROM sqlite_temp_schema",
    "SELECT * FROM sqlite_sequence",
    "SELECT seq FROM sqlite_sequence WHERE name = 'agents'",
    "UPDATE sqlite_sequence SET seq = 99",
    "SELECT * FROM sqlite_stat1",
    "SELECT * FROM sqlite_stat4",
    "SELECT * FROM dbstat",
    "SELECT count(*) FROM dbstat WHERE name = 'agents'",
    "SELECT * FROM sqlite_dbpage",
    "SELECT name FROM sizes",
    "SELECT count(*) FROM sizes",
    "PRAGMA legacy_alter_table = OFF",
    "PRAGMA table_info(agents)",
    "PRAGMA table_info(patients)",
    "PRAGMA main.table_xinfo('patients')",
    "PRAGMA table_list",
    "PRAGMA table_list(agents)",
    "PRAGMA index_list(agents)",
    "PRAGMA index_info(by_ssn)",
    "PRAGMA index_xinfo(by_alias)",
    "PRAGMA foreign_key_list(seen_by)",
    "PRAGMA foreign_key_check",
    "PRAGMA foreign_key_check(seen_by)",
    "PRAGMA integrity_check",
    "PRAGMA quick_check(agents)",
    "PRAGMA database_list",
    "PRAGMA page_count",
    "PRAGMA freelist_count",
    "PRAGMA schema_version",
    "PRAGMA optimize",
    "PRAGMA writable_schema = 1",
    "SELECT * FROM pragma_table_info('agents')",
    "SELECT count(*) FROM pragma_table_info('agents')",
    "SELECT name FROM pragma_table_xinfo('patients')",
    "SELECT * FROM pragma_table_list",
    "SELECT * FROM pragma_index_list('agents')",
    "SELECT * FROM pragma_foreign_key_list('seen_by')",
    "SELECT m.name FROM pragma_table_list AS m JOIN pragma_table_info(m.name) AS i",
    "ANALYZE agents",
    "ANALYZE",
    "REINDEX by_alias",
    "REINDEX",
    "CREATE TABLE agents(x)",
    "CREATE TABLE IF NOT EXISTS agents(x)",
    "CREATE TABLE stolen AS SELECT * FROM agents",
    "CREATE TABLE stolen AS SELECT ssn FROM patients",
    "CREATE TABLE patients(x)",
    "CREATE TEMP TABLE stolen AS SELECT alias FROM agents",
    "CREATE TEMP TABLE agents(x)",
    "CREATE VIEW stolen AS SELECT * FROM agents",
    "CREATE VIEW agent_names AS SELECT 1",
    "CREATE TEMP VIEW stolen AS SELECT ssn FROM patients",
    "CREATE INDEX stolen ON patients(ssn)",
    "CREATE INDEX by_alias ON patients(name)",
    "CREATE INDEX stolen ON agents(alias)",
    "CREATE INDEX stolen ON patients(name) WHERE ssn IS NOT NULL",
    "CREATE TRIGGER stolen AFTER INSERT ON codes BEGIN INSERT INTO codes SELECT ssn FROM patients; END",
    "CREATE TRIGGER stolen AFTER INSERT ON agents BEGIN SELECT 1; END",
    "CREATE TEMP TRIGGER stolen AFTER UPDATE ON agents BEGIN INSERT INTO codes VALUES(new.alias); END",
    "CREATE VIRTUAL TABLE stolen USING fts5(alias, content='agents')",
    "CREATE VIRTUAL TABLE temp.stolen USING fts5vocab('main', 'notes', 'row')",
    "ALTER TABLE agents RENAME TO public",
    "ALTER TABLE patients RENAME TO public",
    "ALTER TABLE patients RENAME COLUMN ssn TO day",
    "ALTER TABLE patients DROP COLUMN ssn",
    "ALTER TABLE patients ADD COLUMN ssn",
    "ALTER TABLE codes RENAME TO agents",
    "DROP TABLE agents",
    "DROP TABLE IF EXISTS agents",
    "DROP TABLE IF EXISTS patients",
    "DROP INDEX IF EXISTS by_ssn",
    "DROP TRIGGER IF EXISTS watch",
    "DROP VIEW IF EXISTS agent_names",
    "DROP VIEW agent_names",
    "DROP INDEX by_ssn",
    "DROP TRIGGER watch",
    "ATTACH ':memory:' AS away",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
    "EXPLAIN SELECT name FROM patients",
    "EXPLAIN SELECT alias FROM agents",
    "EXPLAIN QUERY PLAN SELECT name FROM patients WHERE id = 1",
    "EXPLAIN QUERY PLAN SELECT ssn FROM patients",
    "EXPLAIN INSERT INTO patients(name) VALUES('x')",
    "SELECT query FROM __audit_log",
    "SELECT count(*) FROM __audit_log",
    "SELECT count(*) FROM main.__audit_log",
    "SELECT query FROM __audit_log WHERE query LIKE '%HUSH%'",
    # what goes well, and what fails, on what is seen
    "SELECT id, name, ward FROM patients ORDER BY id",
    "SELECT ward FROM wards ORDER BY ward",
    "SELECT body FROM leaflets WHERE leaflets MATCH 'hands'",
    "INSERT INTO leaflets VALUES('sleep well')",
    "SELECT value FROM json_each('[1, 2]')",
    "SELECT count(*) FROM json_each('[1, 2]')",
    "INSERT INTO patients(id, name) VALUES(3, 'Cid')",
    "INSERT INTO patients(id, name) VALUES(3, 'Cid') RETURNING id, name",
    "INSERT INTO patients(id, name) VALUES(1, 'Cid')",
    "INSERT INTO patients(id, name, ward) VALUES(3, 'Cid', 'w1')",
    "INSERT INTO patients(id) VALUES(3)",
    "INSERT INTO patients(id, name) VALUES(3, '')",
    "INSERT INTO patients(id, name) VALUES(1, 'Cid') ON CONFLICT(id) DO UPDATE SET name = excluded.name",
    "INSERT INTO visits(patient, day) VALUES(99, 'tue')",
    "INSERT INTO codes(code) VALUES('c2')",
    "UPDATE patients SET name = 'Cid' WHERE id = 1",
    "UPDATE patients SET ward = 'w2' WHERE id = 1",
    "DELETE FROM visits WHERE id = 1 RETURNING day",
    "DELETE FROM codes",
    "SELECT changes(), total_changes() >= 0",
    "SELECT name FROM patients WHERE id = ? AND name = :n",
    "SELECT nope FROM patients",
    "SELECT nope(name) FROM patients",
    "SELECT * FROM nowhere",
    "SELECT",
    "COMMIT",
    "RELEASE nowhere",
    "BEGIN; SELECT alias FROM agents",
]
# attacks that would have worked where there is nothing: refused, and what refuses them says nothing but that
TOLD = [
    "SELECT * FROM patients",
    "SELECT p.* FROM patients AS p",
    "SELECT * FROM codes",
    "INSERT INTO patients VALUES(3, 'Eve', 'w3')",
    "INSERT INTO patients(id, name) VALUES(3, 'Eve') RETURNING *",
    "UPDATE patients SET name = 'x' RETURNING *",
    "SELECT * FROM patients UNION SELECT 1, 2, 3",
    "SELECT (SELECT * FROM codes)",
    "SELECT name AS ssn FROM patients WHERE ssn IS NOT NULL",
    "SELECT ssn FROM patients, (SELECT 1 AS ssn)",
    "SELECT (SELECT ssn FROM patients) FROM (SELECT 1 AS ssn)",
    "SELECT rowid FROM codes",
    "SELECT name FROM patients NATURAL JOIN (SELECT 'HUSH-111' AS ssn)",
    "SELECT name FROM patients AS p NATURAL LEFT JOIN known",
    "SELECT name FROM wards NATURAL FULL JOIN patients",
    "UPDATE codes SET rowid = 5",
]


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[AuditedConnection]:
    connection = make(tmp_path / "whole.db", WHOLE)
    yield connection
    connection.close(True)


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[AuditedConnection]:
    connection = make(tmp_path / "seen.db", SEEN)
    yield connection
    connection.close(True)


@pytest.mark.parametrize("clearance", [None, "UNCLASSIFIED", "nonsense"])
def test_attacks_are_answered_as_if_there_were_nothing(
    whole: AuditedConnection, seen: AuditedConnection, clearance: str | None
) -> None:
    differing = {}
    for sql in SAME:
        answers = []
        for connection in (whole, seen):
            connection.execute("BEGIN")
            with cleared(clearance):
                answers.append(outcome(connection, sql, (1, "Ada") if "?" in sql else None))
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        if answers[0] != answers[1] or "HUSH" in repr(answers[0]._replace(text="")):
            differing[sql] = answers
    assert differing == {}


def test_attacks_from_the_middle_are_answered_as_if_there_were_nothing(whole: AuditedConnection, tmp_path: Path) -> None:
    less = make(tmp_path / "less.db", SEEN_AT_SECRET)
    differing = {}
    for sql in [*SAME, *(sql.replace("ssn", "cover").replace("patients", "agents") for sql in SAME)]:
        answers = []
        for connection in (whole, less):
            connection.execute("BEGIN")
            with cleared("SECRET"):
                answers.append(outcome(connection, sql, (1, "Ada") if "?" in sql else None))
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        allowed = answers[0][:2] == (apsw.AuthError, "not authorized")
        if (answers[0] != answers[1] and not allowed) or "HUSH-cover" in repr(answers[0]._replace(text="")):
            differing[sql] = answers
    less.close(True)
    assert differing == {}


@pytest.mark.parametrize("sql", TOLD)
def test_what_would_show_something_is_refused_without_a_name(whole: AuditedConnection, sql: str) -> None:
    with cleared("UNCLASSIFIED"):
        found = outcome(whole, sql)
    assert (found.kind, found.text, found.rows) == (apsw.AuthError, "not authorized", [])
    assert len(failures(whole)) == 1
