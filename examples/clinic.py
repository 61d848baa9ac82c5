"""A small clinic: an encrypted database, a second key for the practice manager, and an encrypted copy for the night.

python examples/clinic.py FOLDER
"""

from __future__ import annotations

import secrets
import sys
from contextlib import closing
from pathlib import Path

import heliosvfs
from heliosvfs.check import check

SCHEMA = """
CREATE TABLE patient(id INTEGER PRIMARY KEY, name TEXT NOT NULL, born TEXT NOT NULL);
CREATE TABLE encounter(id INTEGER PRIMARY KEY, patient INTEGER NOT NULL REFERENCES patient, day TEXT NOT NULL, note TEXT);
"""


def main(folder: Path) -> None:
    """Make the clinic's database in ``folder``, use it, and copy it."""
    key_file = folder / "clinic.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(secrets.token_bytes(32))  # keep it elsewhere than the database
    manager = secrets.token_urlsafe(16)

    with closing(heliosvfs.connect(folder / "clinic.db", key=heliosvfs.KeyFile(key_file))) as connection:
        connection.execute(SCHEMA)
        with connection:  # one transaction
            connection.execute("INSERT INTO patient VALUES(1, 'Ada Lovelace', '1815-12-10')")
            connection.execute("INSERT INTO encounter(patient, day, note) VALUES(1, '2026-11-02', 'allergic to laudanum')")
        connection.add_key(manager, label="practice manager")
        connection.vacuum_into(folder / "tonight.db")  # under the same key

    with closing(heliosvfs.connect(folder / "clinic.db", key=manager)) as connection:
        for name, day, note in connection.execute("SELECT name, day, note FROM patient JOIN encounter ON patient.id = patient"):
            print(f"{day}  {name}: {note}")

    for name in ("clinic.db", "tonight.db"):
        print(f"{name}: {'all is well' if check(folder / name, key=heliosvfs.KeyFile(key_file)).ok else 'damaged'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
