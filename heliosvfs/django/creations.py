"""Test databases: in memory and shared by the connections of the process, or files under the database's own key."""

from __future__ import annotations

import multiprocessing
from contextlib import closing
from typing import Any

from django.db.backends.sqlite3.creation import DatabaseCreation

from heliosvfs import dbapi2
from heliosvfs.django.options import key_of

__all__ = ["Creation"]


def _are_forks() -> bool:
    return multiprocessing.get_start_method() == "fork"


class Creation(DatabaseCreation):  # type: ignore[misc] # Django has no annotations
    """Makes test databases, and copies of them for ``manage.py test --parallel``.

    A worker that is no fork has none of this process's memory: an encrypted file takes an in-memory database there.
    """

    @staticmethod
    def is_in_memory_db(database_name: Any) -> bool:
        """Tell whether a name is that of an in-memory database."""
        return bool(DatabaseCreation.is_in_memory_db(database_name)) or (
            isinstance(database_name, str) and "vfs=memdb" in database_name
        )

    def _get_test_db_name(self) -> str:
        name = self.connection.settings_dict["TEST"]["NAME"] or ":memory:"
        # SQLite's own in-memory VFS: connections share a database by its name, and a forked worker has a copy of it
        return f"file:/memorydb_{self.connection.alias}?vfs=memdb" if name == ":memory:" else name

    def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> None:  # noqa: FBT001, FBT002 - its signature
        if not self.is_in_memory_db(self.connection.settings_dict["NAME"]):
            # Django copies the main file alone: what is still in the WAL has to be in it
            with self.connection.cursor() as cursor:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            super()._clone_test_db(suffix, verbosity, keepdb)
        elif not _are_forks():
            with closing(self._open_clone(self.get_test_db_clone_settings(suffix))) as file:
                self.connection.connection.backup(file)

    def _open_clone(self, settings: dict[str, Any]) -> dbapi2.Connection:
        return dbapi2.connect(settings["NAME"], key=key_of(settings))  # type: ignore[no-any-return]

    def setup_worker_connection(self, _worker_id: int) -> None:
        """Switch a worker of ``manage.py test --parallel`` to its own copy."""
        settings = self.get_test_db_clone_settings(str(_worker_id))
        if _are_forks() or not self.is_in_memory_db(self.connection.settings_dict["NAME"]):
            self.connection.settings_dict.update(settings)
            self.connection.close()
            return
        name = f"file:/memorydb_{self.connection.alias}_{_worker_id}?vfs=memdb"
        with closing(dbapi2.connect(name, uri=True)) as memory, closing(self._open_clone(settings)) as file:
            file.backup(memory)
            self.connection.settings_dict.update({**settings, "NAME": name})
            self.connection.connect()  # before the other one closes: an in-memory database goes with its last connection
