"""Who is measured, and how each opens a database.

The definitions are read by both sides: the controlling process makes environments and workers from them, a worker
opens connections with them. Keys come in at run time and are never kept here.
"""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pagebench.workloads import settle

if TYPE_CHECKING:
    from pagebench.workloads import Connection

SQLITE_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True)
class Subject:
    """One column of the table.

    Attributes:
        name: the column's title, also how ``--subjects`` names it.
        kind: how to open a database: plain, heliosvfs, floor, sqlite3mc or sqlcipher.
        module: what must be importable.
        package: what to install in an environment of its own; empty: the environment that runs the benchmark.
        cipher: the cipher of sqlite3mc.
        encrypted: whether files are encrypted; without, the same build is measured with no key.
        optional: measured only when named.
        note: what a reader should know.
    """

    name: str
    kind: str
    module: str
    package: str = ""
    cipher: str = ""
    encrypted: bool = True
    optional: bool = False
    note: str = ""


MC = ("sqlite3mc", "apsw", "apsw-sqlite3mc")
SUBJECTS = (
    Subject("plain", "plain", "apsw", encrypted=False, note="the yardstick"),
    Subject("plain-again", "plain", "apsw", encrypted=False, note="the same once more: how far noise alone goes"),
    Subject("heliosvfs", "heliosvfs", "heliosvfs", note="AES-256-GCM in a Python VFS"),
    Subject("mc-chacha20", *MC, cipher="chacha20", note="ChaCha20-Poly1305, its default"),
    Subject("mc-aes256cbc", *MC, cipher="aes256cbc", note="AES-256-CBC, not authenticated; has no raw keys"),
    Subject("mc-aegis", *MC, cipher="aegis", note="AEGIS-256"),
    Subject("sqlcipher", "sqlcipher", "sqlcipher3", "sqlcipher3-wheels", note="AES-256-CBC with HMAC-SHA-512; DB-API"),
    Subject("pass-through", "floor", "apsw", encrypted=False, optional=True, note="a Python VFS that does nothing"),
    Subject(
        "one-gcm",
        "floor",
        "apsw",
        encrypted=False,
        optional=True,
        note="the same, with the time of one AES-256-GCM a page: each frame a write of its own",
    ),
    Subject("mc-nokey", *MC, encrypted=False, optional=True, note="sqlite3mc's build without a key"),
    Subject(
        "sqlcipher-nokey",
        "sqlcipher",
        "sqlcipher3",
        "sqlcipher3-wheels",
        encrypted=False,
        optional=True,
        note="SQLCipher's build without a key; DB-API",
    ),
)
BY_NAME = {subject.name: subject for subject in SUBJECTS}

Key = bytes | str


def driver(subject: Subject) -> Any:
    """Import and return what opens the subject's databases."""
    return importlib.import_module("sqlcipher3.dbapi2" if subject.kind == "sqlcipher" else subject.module)


def open_database(subject: Subject, path: str, key: Key, page_size: int) -> Connection:
    """Open or make a database as the subject's own documentation says, with the settings that all share.

    Args:
        subject: who opens it.
        path: the database file.
        key: 32 raw bytes, or a passphrase.
        page_size: of the database.
    """
    module = driver(subject)
    connection: Connection
    if subject.kind == "heliosvfs":
        connection = module.connect(path, key=key, page_size=page_size)
    elif subject.kind == "sqlcipher":
        connection = module.connect(path, isolation_level=None)
        if subject.encrypted:
            _pragma(connection, f"key = {_quoted(key)}")
        _pragma(connection, f"{'cipher_page_size' if subject.encrypted else 'page_size'} = {page_size}")
    else:
        floor = _floor(subject.name, page_size) if subject.kind == "floor" else None
        connection = module.Connection(path, vfs=floor)
        if subject.kind == "sqlite3mc" and subject.encrypted:
            _pragma(connection, f"cipher = '{subject.cipher}'")
            _pragma(connection, f"key = {_quoted(key)}")
        _pragma(connection, f"page_size = {page_size}")
    settle(connection)
    return connection


def _floor(name: str, page_size: int) -> str:
    floors: Any = importlib.import_module("pagebench.floors")  # needs what the peers' environments do not have
    return str(floors.registered(name, page_size))


def _pragma(connection: Connection, text: str) -> None:
    connection.execute(f"PRAGMA {text}").fetchall()


def _quoted(key: Key) -> str:
    """Write a key as SQLCipher and sqlite3mc read it: "x'64 hex digits'" is raw, without a derivation."""
    return f"\"x'{key.hex()}'\"" if isinstance(key, bytes) else f"'{key}'"


def versions(subject: Subject) -> dict[str, str]:
    """Return the versions at work in this process: of the binding, of SQLite and of the cipher."""
    module = driver(subject)
    if subject.kind == "sqlcipher":
        with contextlib.closing(module.connect(":memory:")) as memory:
            # The cipher is loaded, and can be asked for, once there is a key.
            _pragma(memory, "key = 'any'")
            library = " ".join(
                str(memory.execute(f"PRAGMA {name}").fetchall()[0][0])
                for name in ("cipher_version", "cipher_provider", "cipher_provider_version")
            )
        return {"binding": f"sqlcipher3 {module.version}", "sqlite": module.sqlite_version, "library": library}
    apsw: Any = importlib.import_module("apsw")
    found = {"binding": f"apsw {apsw.apsw_version()}", "sqlite": apsw.sqlite_lib_version()}
    if subject.kind == "sqlite3mc":
        found["library"] = apsw.mc_version
    if subject.kind == "heliosvfs":
        cryptography: Any = importlib.import_module("cryptography")
        found["library"] = f"heliosvfs {getattr(module, '__version__', '?')}, cryptography {cryptography.__version__}"
    return found
