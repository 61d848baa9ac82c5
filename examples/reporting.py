"""A report over several services: each keeps its own log, under its own key; the report verifies them before it counts.

python examples/reporting.py [FOLDER]
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import heliosvfs
from heliosvfs.audit import verify

SERVICES = ("users", "orders", "billing")


def config(service: str) -> dict[str, dict[str, object]]:
    """Return a service's configuration."""
    return {"compliance": {"preset": "gdpr"}, "server": {"service_name": f"{service}-service"}}


def work(folder: Path, service: str, key: bytes) -> None:
    """Let a service handle data of two people."""
    with closing(heliosvfs.connect(folder / f"{service}.db", key=key, config=config(service))) as connection:
        connection.execute("CREATE TABLE record(subject, text)")
        for person in ("ada", "bob"):
            with heliosvfs.session(user="api", client_ip="10.2.0.9", subject=person, purpose="contract"):
                connection.execute("INSERT INTO record VALUES(?, ?)", (person, f"{service} of {person}"))
                connection.execute("SELECT text FROM record WHERE subject = ?", (person,)).fetchall()


def main(folder: Path) -> None:
    """Run the services, then report what was done with whose data."""
    keys = {service: secrets.token_bytes(32) for service in SERVICES}
    for service, key in keys.items():
        work(folder, service, key)

    found: Counter[tuple[str, str, str]] = Counter()
    for service, key in keys.items():
        with closing(heliosvfs.connect(folder / f"{service}.db", key=key, create=False)) as connection:
            report = verify(connection)
            print(f"{service}: {report.events} events, {report.verdict}")
            report.raise_if_broken()
            sql = "SELECT application_name, operation, custom->>'subject' FROM __audit_log WHERE custom->>'subject' IS NOT NULL"
            found.update((str(who), str(what), str(whose)) for who, what, whose in connection.execute(sql))
    print("Who did what with whose data:")
    for (application, operation, subject), count in sorted(found.items()):
        print(f"  {subject}: {application} {operation} x{count}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
