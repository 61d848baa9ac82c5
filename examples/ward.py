"""A ward whose every access is recorded: who looked at which patient, and proof that nothing was taken out of the log.

python examples/ward.py FOLDER
"""

from __future__ import annotations

import secrets
import sys
from contextlib import closing, suppress
from pathlib import Path

import apsw

import heliosvfs
from heliosvfs.audit import AccessDeniedError, Policy

SCHEMA = """
CREATE TABLE patient(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE encounter(id INTEGER PRIMARY KEY, patient INTEGER NOT NULL REFERENCES patient, note TEXT);
"""


def main(folder: Path) -> None:
    """Work on a ward for a moment, and report on it."""
    key = secrets.token_bytes(32)
    with closing(heliosvfs.connect(folder / "ward.db", key=key, audit=Policy(log_select=True))) as connection:
        connection.execute(SCHEMA).fetchall()
        with heliosvfs.session(user="dr.grey", client_ip="10.0.0.7", application_name="ward"):
            with connection:
                connection.execute("INSERT INTO patient VALUES(?, ?)", (12345, "Ada Lovelace"))
                connection.execute("INSERT INTO encounter(patient, note) VALUES(?, ?)", (12345, "allergic to laudanum"))
            with suppress(apsw.ConstraintError):
                connection.execute("INSERT INTO patient VALUES(?, ?)", (12345, "somebody else"))
        with heliosvfs.session(user="n.bailey", reason="night round"):
            connection.execute("SELECT note FROM encounter WHERE patient = ?", (12345,)).fetchall()
            with suppress(AccessDeniedError):
                connection.execute("DELETE FROM __audit_log")

    with closing(heliosvfs.connect(folder / "ward.db", key=key)) as connection:
        print("Access report of patient 12345 (HIPAA 164.312(b)):")
        sql = "SELECT timestamp, user, operation, success FROM __audit_log WHERE query LIKE '%12345%' ORDER BY id"
        for when, user, operation, success in connection.execute(sql):
            print(f"  {when[:19]}  {user:10}{operation}{'' if success else ', which failed'}")
        denied = connection.execute("SELECT user, query FROM __audit_log WHERE operation = 'ACCESS DENIED'").fetchall()
        print(f"Denied: {denied}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
