"""A process that uses an encrypted database and tells which keys it held, each XORed with 0x5a, so that telling leaves no copy.

    python holder.py PATH SCENARIO

It prints the masked keys as a line of JSON while the database is open, "closed" when it is closed, and goes on after a line each.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

import heliosvfs
from heliosvfs.backup import backup
from heliosvfs.keys import epoch_wrapping_key
from heliosvfs.rotation import rotate
from heliosvfs.vfs import files_of

held: dict[str, str] = {}


def masked(key: Any) -> str:
    """Return a key's digits, masked byte by byte: no copy of the key itself is made."""
    return "".join(f"{key[place] ^ 0x5A:02x}" for place in range(len(key)))


def note(connection: heliosvfs.Connection) -> None:
    """Note the keys that a connection holds now."""
    access = files_of(connection)[0].access
    held[f"hmac {len(held)}"] = masked(access.master.hmac_key)
    held[f"wrapping {len(held)}"] = masked(epoch_wrapping_key(access.master.key))
    for presented in access.master.presented.values():
        held[f"kek {len(held)}"] = masked(presented.kek)
    held[f"master {len(held)}"] = masked(access.master.key)
    keys = access.require_keys()
    for epoch, key in keys._epochs.items():
        held[f"epoch {epoch} {len(held)}"] = masked(key)
    for selector in list(keys._ciphers):
        key = keys.sub_key(selector)
        held[f"sub-key {selector.hex()} {len(held)}"] = masked(key)
        heliosvfs.keys.wipe(key)
        del key


def stay(path: str, secret: str | bytes) -> None:
    """Keep the database open, and go on with it after somebody else has rotated its key."""
    connection = heliosvfs.connect(path, key=secret)
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(50000))")
    connection.pragma("wal_checkpoint", "TRUNCATE")
    connection.execute("INSERT INTO t VALUES(randomblob(50000))")
    connection.execute("SELECT * FROM t").fetchall()
    note(connection)
    print(json.dumps(held), flush=True)
    sys.stdin.readline()
    assert len(connection.execute("SELECT * FROM t").fetchall()) == 2
    connection.execute("INSERT INTO t VALUES(randomblob(50000))")
    assert len(connection.execute("SELECT * FROM t").fetchall()) == 3
    held.clear()
    note(connection)
    gc.collect()
    print(json.dumps(held), flush=True)
    sys.stdin.readline()
    connection.close()


def main(path: str, scenario: str) -> None:
    """Use the database, and wait while somebody looks."""
    secret: str | bytes = os.read(0, 32)
    if scenario == "passphrase":
        secret = "a passphrase of some length"
    if scenario == "stays":
        stay(path, secret)
        return
    for _ in range(2):
        connection = heliosvfs.connect(path, key=secret)
        connection.execute("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES(randomblob(50000))")
        connection.pragma("wal_checkpoint", "TRUNCATE")
        connection.execute("SELECT * FROM t").fetchall()
        note(connection)
        if scenario == "changes":
            connection.add_key(b"2" * 32, label=f"second {len(held)}")
            rotate(connection)
            note(connection)
            rotate(connection, master=True)
            note(connection)
            backup(connection, f"{path}-copy-{len(held)}")
        print(json.dumps(held), flush=True)
        sys.stdin.readline()
        connection.close()
        del connection
        gc.collect()
        print("closed", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
