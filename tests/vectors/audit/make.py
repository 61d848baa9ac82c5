"""Make the tamper corpus: one database a kind of attack, by somebody who holds the key and has all of SQLite.

python tests/vectors/audit/make.py FOLDER      (a released corpus is never made again)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw

from heliosaudit import chains, stores
from heliosaudit.checkpoints import Checkpoint, SigningKey
from heliosaudit.events import event_of
from heliosaudit.verifications import log_uuid

EVENTS = 12


def append(connection: apsw.Connection, count: int, word: str) -> None:
    stores.in_transaction(
        connection,
        [event_of("INSERT", event_class="DML", user="ada", target="t", query=f"INSERT {word} {n}") for n in range(count)],
    )


def sound(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("page_size", 1024)
        connection.execute("BEGIN IMMEDIATE")
        stores.create(connection, "root")
        connection.execute("COMMIT")
        append(connection, EVENTS - 1, "row")


def sql(text: str) -> Callable[[apsw.Connection], None]:
    def attack(connection: apsw.Connection) -> None:
        connection.execute(text).fetchall()

    return attack


def insert(connection: apsw.Connection) -> None:
    """Put an event in, with a checksum that fits, and renumber what follows."""
    connection.execute(
        "UPDATE __audit_log SET id = -(id + 1) WHERE id >= 7; UPDATE __audit_log SET id = -id WHERE id < 0"
    ).fetchall()
    record, previous = connection.execute(
        "SELECT replace(record, 'row 4', 'row 44'), checksum FROM __audit_log WHERE id = 6"
    ).fetchall()[0]
    connection.execute(
        "INSERT INTO __audit_log(id, record, checksum) VALUES(7, ?, ?)", (record, chains.checksum(previous, 7, record.encode()))
    )


def rechain(connection: apsw.Connection) -> None:
    connection.execute("UPDATE __audit_log SET record = replace(record, 'row 4', 'row 5') WHERE id = 6")
    previous = chains.ROOT
    for number, record in connection.execute("SELECT id, record FROM __audit_log ORDER BY id").fetchall():
        previous = chains.checksum(previous, number, record.encode())
        connection.execute("UPDATE __audit_log SET checksum = ? WHERE id = ?", (previous, number))


def fork(connection: apsw.Connection) -> None:
    """Go back, and on again with other events: both chains hold."""
    connection.execute("DELETE FROM __audit_log WHERE id > 8")
    append(connection, EVENTS - 8, "other")


SWAP = (
    "UPDATE __audit_log SET id = CASE id WHEN 6 THEN -1 ELSE -2 END WHERE id IN (6, 9);"
    "UPDATE __audit_log SET id = CASE id WHEN -1 THEN 9 ELSE 6 END WHERE id < 0"
)
# name: attack, first bad id and kind without a checkpoint (None: consistent), with one
ATTACKS: dict[str, tuple[Callable[[apsw.Connection], None], tuple[int, str] | None, tuple[int, str]]] = {
    "edit": (sql("UPDATE __audit_log SET record = replace(record, 'ada', 'eve') WHERE id = 6"), (6, "edited"), (6, "edited")),
    "delete": (sql("DELETE FROM __audit_log WHERE id = 6"), (6, "missing"), (6, "missing")),
    "insert": (insert, (7, "inserted"), (7, "inserted")),
    "reorder": (sql(SWAP), (6, "reordered"), (6, "reordered")),
    "truncate": (sql("DELETE FROM __audit_log WHERE id > 9"), None, (10, "truncated")),
    "fork": (fork, None, (12, "rewritten")),
    "re-chain": (rechain, None, (12, "rewritten")),
    "rolled-back": (sql("DELETE FROM __audit_log WHERE id > 5"), None, (6, "truncated")),
    "genesis-forged": (
        sql("UPDATE __audit_log SET record = replace(record, 'GENESIS', 'INSERT') WHERE id = 1"),
        (1, "genesis forged"),
        (1, "genesis forged"),
    ),
}


def main(folder: Path) -> None:
    original = folder / "sound.db"
    sound(original)
    key, other = SigningKey.make("corpus/key"), SigningKey.make("corpus/key")
    with closing(apsw.Connection(str(original))) as connection:
        checkpoint = Checkpoint.of(connection, log_uuid(connection) or "")
    (folder / "sound.note").write_text(checkpoint.sign(key), encoding="utf-8")
    (folder / "key-swapped.note").write_text(checkpoint.sign(other), encoding="utf-8")
    moved = Checkpoint(
        checkpoint.origin.replace(checkpoint.origin[-4:], "0000"), checkpoint.size, checkpoint.head, checkpoint.time
    )
    (folder / "checkpoint-moved.note").write_text(moved.sign(key), encoding="utf-8")
    verdicts: dict[str, object] = {"public_key": str(key.public), "attacks": {}}
    for name, (attack, alone, anchored) in ATTACKS.items():
        path = folder / f"{name}.db"
        path.write_bytes(original.read_bytes())
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute("DROP TRIGGER __audit_log_no_update; DROP TRIGGER __audit_log_no_delete").fetchall()
            attack(connection)
        verdicts["attacks"][name] = {"alone": alone, "with_checkpoint": anchored}  # type: ignore[index]
    (folder / "verdicts.json").write_text(json.dumps(verdicts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
