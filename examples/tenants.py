"""A service with a database and a key for each customer: no key opens anybody else's data, and people can be forgotten.

python examples/tenants.py [FOLDER]
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path

import heliosvfs
from heliosvfs import EmbeddedDatabase

CONFIG = {
    "compliance": {"preset": "gdpr"},
    "gdpr": {
        "data_residency": "EU",
        "enable_right_to_access": True,
        "enable_right_to_erasure": True,
        "personal_data": [
            {"table": "member", "subject_column": "email"},
            {"table": "task", "via": "assignee -> member.email", "columns": ["assignee", "comment"], "on_erasure": "anonymise"},
        ],
    },
}
SCHEMA = (
    "CREATE TABLE member(email TEXT PRIMARY KEY, name TEXT)",
    "CREATE TABLE task(id INTEGER PRIMARY KEY, title TEXT, assignee TEXT, comment TEXT)",
)


def main(folder: Path) -> None:
    """Serve two tenants, and forget one of the people."""
    keys = {tenant: secrets.token_bytes(32) for tenant in ("acme", "globex")}
    for tenant, key in keys.items():
        with EmbeddedDatabase.open(folder / f"{tenant}.db", CONFIG, key=key) as database, heliosvfs.session(tenant=tenant):
            for statement in SCHEMA:
                database.execute(statement)
            person = f"ada@{tenant}.example"
            database.execute("INSERT INTO member VALUES(?, ?)", (person, "Ada Lovelace"))
            database.execute("INSERT INTO task(title, assignee, comment) VALUES(?, ?, ?)", ("ship it", person, "Ada: by noon"))

    try:
        heliosvfs.connect(folder / "globex.db", key=keys["acme"], create=False)
    except heliosvfs.WrongKeyError:
        print("acme's key does not open globex's database")

    with EmbeddedDatabase.open(folder / "acme.db", CONFIG, key=keys["acme"]) as database:
        print("What acme has of Ada:", database.export_subject("ada@acme.example")["tables"])
        report = database.erase_subject("ada@acme.example", reason="request 17 (GDPR 17(1)(b))")
        print(f"Erased {report.deleted}, overwritten {report.anonymised}, and {report.audit_values} values in the audit log")
        print("What is left:", database.query("SELECT title, assignee, comment FROM task"))
        print("Stored in the", database.get_storage_info()["data_residency"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
