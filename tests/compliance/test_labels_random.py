"""Statements put together at random: whatever is above the session, they say what they say where there is nothing, or no."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest

from tests.compliance.labelled import SEEN, SEEN_AT_SECRET, WHOLE, cleared, make, outcome

TABLES = [
    *("patients", "patients", "patients", "codes", "visits", "known", "wards", "leaflets", "main.patients", "nowhere"),
    *(
        "agents",
        "agent_names",
        "all_names",
        "numbers",
        "notes",
        "notes_content",
        "note_words",
        "seen_by",
        "main.agents",
        "natural_names",
    ),
    *("sqlite_schema", "sqlite_sequence", "sqlite_stat1", "pragma_table_info('agents')", "json_each('[1]')", "__audit_log"),
]
COLUMNS = [
    *("id", "name", "ward", "day", "code", "body", "patient", "rowid", "*", "p.name", "q.id", "count(*)", "1", "'x'", "NULL"),
    *(
        "ssn",
        "tail",
        "kept",
        "alias",
        "cover",
        "p.ssn",
        "q.ssn",
        "patients.ssn",
        '"ssn"',
        "[alias]",
        "p.*",
        "sql",
        "term",
        "doc",
        "excluded.ssn",
    ),
]
SEEN_COLUMNS = {
    "patients": ["id", "name", "ward"],
    "main.patients": ["id", "name", "ward"],
    "visits": ["id", "patient", "day"],
    "codes": ["code"],
    "known": ["ssn"],
    "wards": ["ward"],
    "leaflets": ["body"],
    "json_each('[1]')": ["value", "key"],
}
OPERATORS = ["=", "<>", "<", "LIKE", "IS", "||", "IN"]
JOINS = [",", " JOIN ", " LEFT JOIN ", " NATURAL JOIN ", " CROSS JOIN ", " FULL JOIN "]


class Writer:
    """Writes statements."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._scope: list[str] = ["1"]

    def _any(self, choices: list[str]) -> str:
        return self._random.choice(choices)

    def _often(self, share: float) -> bool:
        return self._random.random() < share

    def expression(self, depth: int = 0) -> str:
        kind = self._random.randrange(8) if depth < 2 else 0
        if kind == 1:
            return f"({self.select(depth + 1)})"
        if kind == 2:
            return f"EXISTS({self.select(depth + 1)})"
        if kind == 3:
            return f"{self._any(['length', 'max', 'coalesce', 'hex', 'nope'])}({self.expression(depth + 1)})"
        if kind == 4:
            operator = self._any(OPERATORS)
            right = (
                self._any(["patients", "agents", f"({self.select(depth + 1)})"])
                if operator == "IN"
                else self.expression(depth + 1)
            )
            return f"{self.expression(depth + 1)} {operator} {right}"
        return self._any(self._scope) if self._often(0.85) else self._any(COLUMNS)

    def table(self) -> str:
        table = self._any(list(SEEN_COLUMNS)) if self._often(0.8) else self._any(TABLES)
        self._scope = [*SEEN_COLUMNS.get(table, ["alias", "1"]), "1", "'x'"]
        return table

    def source(self, depth: int) -> str:
        alias = self._any(["", "", " AS p", " AS q", " AS agents", " AS ssn"])
        if depth < 2 and self._often(0.15):
            return f"({self.select(depth + 1)}){alias}"
        using = f" {self._any(['INDEXED BY by_ssn', 'NOT INDEXED'])}" if self._often(0.04) else ""
        return self.table() + alias + using

    def select(self, depth: int = 0) -> str:
        source = self.source(depth)
        if self._often(0.4):
            source += self._any(JOINS) + self.source(depth)
            if self._often(0.3):
                source += self._any([" USING (id)", " USING (ssn)", f" ON {self.expression(2)}"])
        names = ", ".join(
            self.expression(depth) + self._any(["", "", " AS ssn", " AS n"]) for _ in range(self._random.randrange(1, 3))
        )
        text = f"SELECT {names} FROM {source}"
        if self._often(0.5):
            text += f" WHERE {self.expression(depth)}"
        if self._often(0.1):
            text += f" GROUP BY {self.expression(2)}"
        if self._often(0.2):
            text += f" ORDER BY {self._any(['1', 'ssn', 'n', self.expression(2)])}"
        if self._often(0.1):
            text += f" UNION {self.select(depth + 1)}" if depth < 2 else ""
        if depth == 0 and self._often(0.1):
            text = (
                f"WITH {self._any(['agents', 'w', 'patients'])}({self._any(['ssn', 'n', 'alias'])}) AS ({self.select(1)}) {text}"
            )
        return text

    def returning(self) -> str:
        return f" RETURNING {self.expression(1)}" if self._often(0.2) else ""

    def statement(self) -> str:
        kind, table = self._random.randrange(10), self.table()
        if kind == 0:
            known = [column for column in self._scope if column.isidentifier()]
            names = ", ".join({self._any(known), self._any([*known, "ssn", "alias"])})
            columns = f"({names})" if self._often(0.8) else ""
            rows = self.select(1) if self._often(0.3) else f"VALUES({', '.join(self.expression(2) for _ in names.split(','))})"
            text = f"INSERT {self._any(['', 'OR IGNORE ', 'OR REPLACE '])}INTO {table}{columns} {rows}"
            if self._often(0.2):
                text += f" ON CONFLICT({self._any(['id', 'ssn', 'alias', 'ward'])}) DO UPDATE SET name = {self.expression(1)}"
            return text + self.returning()
        if kind == 1:
            where = f" WHERE {self.expression()}" if self._often(0.7) else ""
            column = self._any(["name", "ssn", "ward", "alias", "rowid"])
            return f"UPDATE {table} SET {column} = {self.expression(1)}{where}{self.returning()}"
        if kind == 2:
            return f"DELETE FROM {table} WHERE {self.expression()}{self.returning()}"
        return self.select()


@pytest.mark.parametrize(
    ("clearance", "schema", "seed"), [("UNCLASSIFIED", SEEN, 1), ("UNCLASSIFIED", SEEN, 2), ("SECRET", SEEN_AT_SECRET, 3)]
)
def test_random_statements_say_what_they_say_where_there_is_nothing_or_no(
    tmp_path: Path, clearance: str, schema: str, seed: int
) -> None:
    whole, seen = make(tmp_path / "whole.db", WHOLE), make(tmp_path / "seen.db", schema)
    writer = Writer(seed)
    counts = {"same": 0, "fine": 0, "refused": 0}
    for _ in range(400):
        sql = writer.statement()
        answers = []
        for connection in (whole, seen):
            connection.execute("BEGIN")
            with cleared(clearance):
                answers.append(outcome(connection, sql))
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        if answers[0] == answers[1]:
            counts["same"] += 1
            counts["fine"] += answers[0].kind is None
        else:
            assert answers[0][:2] == (apsw.AuthError, "not authorized"), (sql, answers)
            counts["refused"] += 1
    whole.close(True)
    seen.close(True)
    assert counts["same"] > 300
    assert counts["fine"] > 20
