"""A laptop without a network: labels on tables, clearance on sessions, and what is above it looks as if it were not there.

python examples/field_laptop.py [FOLDER]
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import apsw

import heliosvfs
from heliosvfs.audit import AccessDeniedError

CONFIG = {
    "encryption": {"fips_mode": "algorithms-only"},  # true asks for a validated module: docs/FIPS.md
    "security": {
        "classification_level": "CONFIDENTIAL",
        "access_control": "mandatory",
        "audit_all_operations": True,
        "labels": {"source": "TOP_SECRET", "report": "SECRET"},
    },
    "offline": {"network_disabled": True, "external_sync_disabled": True, "usb_transfer_only": True},
}


def main(folder: Path) -> None:
    """Keep reports and sources, and read them with different clearances."""
    with closing(heliosvfs.connect(folder / "field.db", key=secrets.token_bytes(32), config=CONFIG)) as connection:
        with heliosvfs.session(user="colonel", clearance="TOP_SECRET"):
            connection.execute("CREATE TABLE report(id INTEGER PRIMARY KEY, text)")
            connection.execute("CREATE TABLE source(name)")
        with heliosvfs.session(user="major", clearance="SECRET"):
            connection.execute("INSERT INTO report(text) VALUES('the bridge is open')")
        with heliosvfs.session(user="colonel", clearance="TOP_SECRET"):
            connection.execute("INSERT INTO source VALUES('the ferryman')")
            print(
                "colonel reads",
                connection.execute("SELECT name FROM source").get,
                "and",
                connection.execute("SELECT text FROM report").get,
            )

        with heliosvfs.session(user="major", clearance="SECRET"):
            print("major reads", connection.execute("SELECT text FROM report").get)
            for sql in ("SELECT name FROM source", "SELECT name FROM archive"):
                try:
                    connection.execute(sql)
                except apsw.SQLError as error:
                    print(f"major asks {sql!r}: {error}")
        with heliosvfs.session(user="visitor"):
            try:
                connection.execute("SELECT 1")
            except (apsw.AuthError, AccessDeniedError) as error:
                print(f"visitor: {error}")

        try:
            heliosvfs.KeyFromVault("https://vault.example", "key", "vault:v1:x").secret()
        except heliosvfs.PolicyViolationError as error:
            print(error)
        with heliosvfs.session(user="auditor", clearance="TOP_SECRET"):
            sql = "SELECT user, error FROM __audit_log WHERE operation = 'ACCESS DENIED' ORDER BY id"
            for user, reason in connection.execute(sql):
                print(f"the log knows better: {user}: {reason}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
