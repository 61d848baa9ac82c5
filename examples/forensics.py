"""After an incident: what was done, by whom, from where; and whether somebody with the key rewrote the log.

python examples/forensics.py [FOLDER]
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import apsw

import heliosvfs
from heliosvfs.audit import Checkpoint, Policy, SigningKey, verify


def incident(connection: heliosvfs.Connection) -> None:
    """Let somebody in at night."""
    with heliosvfs.session(user="app", client_ip="10.0.0.2"), connection:
        connection.executemany("INSERT INTO account VALUES(?, ?)", ((n, 100) for n in range(50)))
    with heliosvfs.session(user="t.ripley", client_ip="203.0.113.9", application_name="sqlshell"):
        with suppress(apsw.Error):
            connection.execute("SELECT * FROM acount")
        connection.execute("SELECT * FROM account").fetchall()
        connection.execute("UPDATE account SET balance = 0 WHERE id > 10")
        with suppress(apsw.Error):
            connection.execute("DELETE FROM __audit_log WHERE user = 't.ripley'")


def main(folder: Path) -> None:
    """Take a checkpoint, have an incident, look into it, and find a log that was rewritten."""
    key = secrets.token_bytes(32)
    signer = SigningKey.make("bank.example/audit")
    with closing(heliosvfs.connect(folder / "bank.db", key=key, audit=Policy(log_select=True))) as connection:
        connection.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER)")
        incident(connection)

    with closing(heliosvfs.connect(folder / "bank.db", key=key)) as connection:
        uuid = connection.execute("SELECT record->>21->>'uuid' FROM __audit_log WHERE id = 1").get
        note = Checkpoint.of(connection, uuid).sign(signer)  # to be kept on another machine
        anchor = Checkpoint.parse(note, signer.public)
        print("Timeline of 203.0.113.9:")
        sql = "SELECT operation, target, affected_rows, success FROM __audit_log WHERE client_ip = '203.0.113.9' ORDER BY id"
        for operation, target, rows, success in connection.execute(sql):
            print(f"  {operation} {target} {'' if rows is None else f'({rows} rows)'}{'' if success else ' failed'}".rstrip())
        sql = "SELECT user, target, sum(affected_rows) FROM __audit_log WHERE class = 'DML' AND success GROUP BY 1, 2 ORDER BY 3"
        print("Rows changed, by user:", connection.execute(sql).fetchall())
        print("Against the checkpoint:", verify(connection, checkpoint=anchor).verdict)

        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        last = connection.execute("SELECT max(id) FROM __audit_log").get
        connection.execute("DELETE FROM __audit_log WHERE id > ?", (last - 3,))  # by somebody who holds the key
        alone, anchored = verify(connection), verify(connection, checkpoint=anchor)
        print(f"After the end was cut off: alone {alone.verdict!r}, against the checkpoint {anchored.verdict!r}")
        if anchored.first_broken is not None:
            print(f"First wrong event: {anchored.first_broken.id}, {anchored.first_broken.kind}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
