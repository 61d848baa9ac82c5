"""The databases under test: how each stacks on the recorder, is opened, checked and copied."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import apsw

import heliosvfs
from heliosvfs.check import check
from heliosvfs.superblock import COPY_SIZE, MAGIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["HELIOS", "KEY_NAMES", "PLAIN", "Helios", "Plain", "Subject", "is_created"]

KEY_NAMES = ("first", "second", "third", "fourth")


class Subject(Protocol):
    """What the simulator needs to know about a kind of database."""

    name: str
    encrypted: bool

    def stacked(self, base: str) -> contextlib.AbstractContextManager[str]:
        """Register whatever stands between SQLite and the recorder, and give the VFS to open."""

    def connect(self, path: Path, vfs: str) -> apsw.Connection:
        """Open a database, creating it where there is none."""

    def attach(self, connection: apsw.Connection, path: Path, schema: str) -> None:
        """Attach a second database of the same kind, creating it where there is none."""

    def intrude(self, path: Path, base: str) -> None:
        """Open the database in ways that must fail, or find nothing before it is one; the caller sees that nothing changed."""

    def is_foreign(self, data: bytes) -> bool:
        """Tell whether a file that was being created looks like somebody else's, so that it must be refused."""

    def check(self, path: Path, vfs: str, *, tolerates_a_bad_journal_header: bool = False) -> None:
        """Check a database, that is not open, page by page; raise where a page is bad."""

    def backup(self, source: apsw.Connection, destination: apsw.Connection, schema: str) -> None:
        """Copy a database of one connection onto the main one of another."""


class Plain:
    """SQLite without encryption, directly over the recorder; the measure of what SQLite itself survives."""

    def __init__(self, name: str = "plain", layer: Callable[[str, str], apsw.VFS] | None = None) -> None:
        """Take a VFS class to put in between: the broken disks that the simulator must catch."""
        self.name = name
        self.encrypted = False
        self._layer = layer

    @contextlib.contextmanager
    def stacked(self, base: str) -> Iterator[str]:
        """Give the recorder itself, or the layer on it."""
        if self._layer is None:
            yield base
            return
        name = f"{self.name} on {base}"
        layer = self._layer(name, base)
        try:
            yield name
        finally:
            layer.unregister()

    def connect(self, path: Path, vfs: str) -> apsw.Connection:
        """Open with SQLite's defaults."""
        return apsw.Connection(str(path), vfs=vfs)

    def attach(self, connection: apsw.Connection, path: Path, schema: str) -> None:
        """Attach with SQL."""
        connection.execute(f"ATTACH ? AS {schema}", (str(path),))

    def intrude(self, path: Path, base: str) -> None:
        """Do nothing: anybody may open a plain database."""

    def is_foreign(self, data: bytes) -> bool:  # noqa: ARG002 - the same for all
        """Return False: SQLite makes a database of what it recognises or of an empty file."""
        return False

    def check(self, path: Path, vfs: str, *, tolerates_a_bad_journal_header: bool = False) -> None:
        """Do nothing: integrity_check has seen all there is."""

    def backup(self, source: apsw.Connection, destination: apsw.Connection, schema: str) -> None:
        """Copy with SQLite's backup API."""
        with destination.backup("main", source, schema) as copy:
            copy.step()


class Helios:
    """The encrypted database with raw keys, so that no key derivation slows the test."""

    name = "helios"
    encrypted = True

    def __init__(self) -> None:
        """Draw the keys: the first one opens every database, the others are given and taken by the workload."""
        self._keys = {name: secrets.token_bytes(32) for name in KEY_NAMES}

    @contextlib.contextmanager
    def stacked(self, base: str) -> Iterator[str]:
        """Register a HeliosVFS with the first key on the recorder."""
        with _helios_vfs(base, self._keys["first"]) as name:
            yield name

    def connect(self, path: Path, vfs: str) -> apsw.Connection:
        """Open with the key of the VFS, leaving the modes to the caller."""
        return heliosvfs.Connection(str(path), vfs=vfs)

    def attach(self, connection: apsw.Connection, path: Path, schema: str) -> None:
        """Attach with the key of the VFS."""
        assert isinstance(connection, heliosvfs.Connection)
        connection.attach(path, schema)

    def add_key(self, connection: apsw.Connection, name: str) -> None:
        """Add a slot for one of our keys."""
        assert isinstance(connection, heliosvfs.Connection)
        connection.add_key(self._keys[name], label=name)

    def revoke_key(self, connection: apsw.Connection, name: str) -> None:
        """Remove the slot with a label."""
        assert isinstance(connection, heliosvfs.Connection)
        connection.revoke_key(name)

    def change_key(self, path: Path, vfs: str, old: str, new: str) -> None:
        """Open with one key and put another in its place."""
        with contextlib.closing(heliosvfs.connect(path, key=self._keys[old], vfs=vfs)) as connection:
            connection.change_key(self._keys[new])

    def keys(self, path: Path, base: str) -> frozenset[str]:
        """Try all our keys, each on a VFS of its own."""
        found = set()
        for name, key in self._keys.items():
            with _helios_vfs(base, key) as vfs, contextlib.suppress(heliosvfs.WrongKeyError):
                with contextlib.closing(heliosvfs.Connection(str(path), vfs=vfs)) as connection:
                    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
                found.add(name)
        return frozenset(found)

    def intrude(self, path: Path, base: str) -> None:
        """Try the stdlib's sqlite3, which knows nothing of our format, and a wrong key."""
        data = path.read_bytes() if path.exists() else b""
        tables = "SELECT count(*) FROM sqlite_schema"
        try:
            with contextlib.closing(sqlite3.connect(path)) as stock:
                assert stock.execute(tables).fetchall() == [(0,)]
        except sqlite3.DatabaseError:
            assert data, "stock SQLite refuses an empty file"
        else:
            assert not data, "stock SQLite could read the schema"
        try:
            with (
                _helios_vfs(base, secrets.token_bytes(32)) as name,
                contextlib.closing(apsw.Connection(str(path), vfs=name)) as stranger,
            ):
                assert stranger.execute(tables).fetchall() == [(0,)]
        except heliosvfs.HeliosError:
            assert data, "a new key is refused for an empty file"
        else:
            assert not is_created(data), "a wrong key could read the schema"

    def is_foreign(self, data: bytes) -> bool:
        """Tell whether garbage came where the magic should be, before there was a second copy of the superblock.

        A magic of which parts were not written yet is zero there.
        """
        return len(data) <= COPY_SIZE and any(byte not in {0, ours} for byte, ours in zip(data, MAGIC, strict=False))

    def check(self, path: Path, vfs: str, *, tolerates_a_bad_journal_header: bool = False) -> None:
        """Run the library's own check.

        A header that became garbage while it was written over can't be told from one that was altered: that is reported.
        """
        report = check(path, vfs=vfs)
        if tolerates_a_bad_journal_header and report.problems and all(map(_BAD_HEADER.search, report.problems)):
            report = replace(report, problems=())
        assert report.ok, report

    def backup(self, source: apsw.Connection, destination: apsw.Connection, schema: str) -> None:
        """Copy with SQLite's backup API."""
        with destination.backup("main", source, schema) as copy:
            copy.step()


_BAD_HEADER = re.compile("^the first header of the journal is torn or damaged, and nothing was rolled back")


def is_created(data: bytes) -> bool:
    """Tell whether a file has a whole copy of the superblock: until then its creation may begin anew, under any key."""
    copies = [data[start : start + COPY_SIZE] for start in (0, COPY_SIZE)]
    return any(hashlib.sha256(copy[:-32]).digest() == copy[-32:] for copy in copies if len(copy) == COPY_SIZE)


@contextlib.contextmanager
def _helios_vfs(base: str, key: bytes) -> Iterator[str]:
    """Register a HeliosVFS on another VFS for a while."""
    name = f"helios-{secrets.token_hex(4)}"
    vfs = heliosvfs.HeliosVFS(name, base=base, keyring=heliosvfs.Keyring(default=key))
    try:
        yield name
    finally:
        vfs.unregister()


PLAIN = Plain()
HELIOS = Helios()
