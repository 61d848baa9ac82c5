"""EmbeddedDatabase: a database that an application opens with a configuration and two methods, `execute` and `query`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import apsw

from heliosvfs.backup import BackupReport, backup
from heliosvfs.compliance.consents import Consent, record_consent
from heliosvfs.compliance.expiry import Expired, expire
from heliosvfs.compliance.subjects import ErasureReport, anonymise_subject, erase_subject, export_subject
from heliosvfs.config.applying import config_from
from heliosvfs.config.sections import Database, Gdpr
from heliosvfs.connection import Connection
from heliosvfs.errors import ConfigError, PolicyViolationError, UsageError
from heliosvfs.keyring import Key
from heliosvfs.opening import connect

__all__ = ["EmbeddedDatabase", "Result"]

_FLAT = frozenset(Database.__struct_fields__)  # options that may stand outside of their section


class Result(Sequence[tuple[Any, ...]]):
    """What a statement gave: its rows; of a change that returns none, an empty row for each that was changed.

    So ``len(result)`` is the number of rows that were returned or changed.
    """

    def __init__(self, rows: list[tuple[Any, ...]], changed: int) -> None:
        self._rows = rows
        self._changed = changed

    def __len__(self) -> int:
        """Return how many rows were returned or changed."""
        return len(self._rows) or self._changed

    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, ...]]: ...

    def __getitem__(self, index: int | slice) -> tuple[Any, ...] | list[tuple[Any, ...]]:
        """Return a row, or several."""
        return (self._rows or [()] * self._changed)[index]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows."""
        return iter(self._rows or [()] * self._changed)

    def __repr__(self) -> str:
        """Tell how many rows there are, and never what they hold."""
        return f"<Result of {len(self)} rows>"


class EmbeddedDatabase:
    """A database of an application.

    Attributes:
        connection: The connection, for everything else.
    """

    def __init__(self, connection: Connection) -> None:
        """Work on an open connection; `open` and `open_with_config` make one."""
        self.connection = connection

    @classmethod
    def open(cls, path: str | os.PathLike[str], config: Any = None, *, key: Key | None = None) -> EmbeddedDatabase:
        """Open a database, or create it.

        Args:
            path: The file.
            config: A configuration; in a dict the options of ``[database]`` may stand beside the sections. None: all defaults.
            key: Its key; None: that of the configuration, or else of the environment.

        Raises:
            ConfigError: The configuration can't be used.
            KeyUnavailableError, WrongKeyError, FormatError, UsageError: As `heliosvfs.connect`.
        """
        return cls(
            connect(path, key=key, config=config_from(_sectioned(config) if isinstance(config, Mapping) else config or {}))
        )

    @classmethod
    def open_with_config(cls, config: Any, *, key: Key | None = None) -> EmbeddedDatabase:
        """Open the database that a configuration names.

        Raises:
            ConfigError: The configuration can't be used, or names no database.
            KeyUnavailableError, WrongKeyError, FormatError, UsageError: As `heliosvfs.connect`.
        """
        return cls(connect(key=key, config=config))

    def execute(self, sql: str, parameters: Any = ()) -> Result:
        """Run a statement to its end, in autocommit unless a transaction is open.

        Args:
            sql: One statement.
            parameters: A sequence for ``?``, a mapping for ``:name``.

        Raises:
            apsw.Error: What SQLite says.
        """
        before = self.connection.total_changes()
        rows = _rows(self.connection.cursor().execute(sql, parameters))
        changed = self.connection.changes() if self.connection.total_changes() != before else 0
        return Result(rows, 0 if rows else changed)

    def query(self, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """Run a statement that only reads, and return its rows; checksums of the audit log as hexadecimal text, fit for JSON.

        Raises:
            UsageError: It would write; nothing was run.
            apsw.Error: What SQLite says.
        """
        cursor = self.connection.cursor()
        with _only_reading(self.connection):
            return _rows(cursor.execute(sql, parameters))

    def get_storage_info(self) -> dict[str, Any]:
        """See `heliosvfs.Connection.get_storage_info`."""
        return self.connection.get_storage_info()

    def backup(self, directory: str | os.PathLike[str] | None = None) -> BackupReport:
        """Write a backup as the configuration's [backup] says, and remove those past their time.

        Args:
            directory: Where to; None: ``backup.directory``, or "backups" beside the database.

        Raises:
            PolicyViolationError: The configuration does not switch backups on.
            UsageError, TamperedError, apsw.BusyError: As `heliosvfs.backup.backup`.
        """
        config = self.connection.configuration
        if config is None or not config.backup.backup_enabled:
            msg = "backup.backup_enabled is not set in the configuration of this database"
            raise PolicyViolationError(msg)
        where = directory or config.backup.directory or os.path.join(os.path.dirname(self.connection.filename), "backups")
        where = os.path.expanduser(os.fspath(where))
        os.makedirs(where, mode=0o700, exist_ok=True)
        return backup(self.connection, where, retention_days=config.backup.backup_retention_days)

    # -- rights of those whose data it is ----------------------------------------------------------------------------

    def export_subject(self, subject: Any) -> dict[str, Any]:
        """Return all data of a subject from the tables of ``gdpr.personal_data``; see `heliosvfs.compliance.subjects`.

        Raises:
            PolicyViolationError: ``gdpr.enable_right_to_access`` is not set.
            UsageError: As `heliosvfs.compliance.subjects.export_subject`.
        """
        return export_subject(self.connection, subject, self._gdpr("enable_right_to_access").personal_data)

    def erase_subject(self, subject: Any, *, reason: str) -> ErasureReport:
        """Erase a subject's data from the tables of ``gdpr.personal_data``, as each says.

        Raises:
            PolicyViolationError: ``gdpr.enable_right_to_erasure`` is not set.
            UsageError, apsw.Error: As `heliosvfs.compliance.subjects.erase_subject`.
        """
        return erase_subject(self.connection, subject, self._gdpr("enable_right_to_erasure").personal_data, reason=reason)

    def anonymise_subject(self, subject: Any, *, reason: str) -> ErasureReport:
        """Overwrite a subject's data in the tables of ``gdpr.personal_data``, and keep the rows.

        Raises:
            PolicyViolationError: ``gdpr.anonymization_enabled`` is not set.
            UsageError, apsw.Error: As `heliosvfs.compliance.subjects.anonymise_subject`.
        """
        return anonymise_subject(self.connection, subject, self._gdpr("anonymization_enabled").personal_data, reason=reason)

    def record_consent(self, subject: Any, purpose: str, *, given: bool, text_version: str = "") -> Consent:
        """Record that a subject gave a consent, or withdrew it.

        Raises:
            PolicyViolationError: ``gdpr.enable_consent_tracking`` is not set.
            UsageError, apsw.BusyError: As `heliosvfs.compliance.consents.record_consent`.
        """
        self._gdpr("enable_consent_tracking")
        connection: Any = self.connection
        return record_consent(connection, subject, purpose, given=given, text_version=text_version)

    def expire(self, *, dry_run: bool = False) -> list[Expired]:
        """Delete what is older than ``gdpr.expiring`` and ``gdpr.data_retention_days`` let it be.

        Raises:
            UsageError, apsw.Error: As `heliosvfs.compliance.expiry.expire`.
        """
        gdpr = self._gdpr(None)
        return expire(self.connection, gdpr.expiring, days=gdpr.data_retention_days, dry_run=dry_run)

    def _gdpr(self, option: str | None) -> Gdpr:
        """Return [gdpr] of the configuration, if it switches ``option`` on."""
        config = self.connection.configuration
        if config is None or (option is not None and not getattr(config.gdpr, option)):
            msg = f"gdpr.{option or 'expiring'} is not set in the configuration of this database"
            raise PolicyViolationError(msg)
        return config.gdpr

    def close(self) -> None:
        """Close the database."""
        self.connection.close()

    def __enter__(self) -> EmbeddedDatabase:  # noqa: PYI034 - Python 3.10 has no Self
        """Return the database."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the database."""
        self.close()


def _rows(cursor: Any) -> list[tuple[Any, ...]]:
    """Return all rows; checksums of the audit log as text."""
    try:
        columns = cursor.description_full
    except apsw.ExecutionCompleteError:
        return []
    places = [number for number, column in enumerate(columns) if column[3:5] == ("__audit_log", "checksum")]
    rows: list[Any] = cursor.fetchall()
    for place in places:
        rows = [(*row[:place], None if row[place] is None else bytes(row[place]).hex(), *row[place + 1 :]) for row in rows]
    return rows


class _only_reading:  # noqa: N801 - it reads as what it does
    """Refuse statements that write, within the block; SQLite itself says which do (sqlite3_stmt_readonly)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = self._connection.exec_trace
        self._connection.exec_trace = self._check

    def _check(self, cursor: Any, sql: str, bindings: Any) -> bool:
        if isinstance(cursor, apsw.Cursor) and not cursor.is_readonly:
            msg = "query() only reads: use execute() for a statement that writes"
            raise UsageError(msg)
        return self._before is None or bool(self._before(cursor, sql, bindings))

    def __exit__(self, *exception: object) -> None:
        self._connection.exec_trace = self._before


def _sectioned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Move options of [database] that stand beside the sections into it."""
    flat = {name: value for name, value in config.items() if name in _FLAT}
    rest = {name: value for name, value in config.items() if name not in _FLAT}
    section = rest.get("database", {})
    if flat and isinstance(section, Mapping):
        twice = sorted(flat.keys() & section.keys())
        if twice:
            msg = f"configuration: {twice[0]}: expected it once, found it beside [database] and in it"
            raise ConfigError(msg)
        rest["database"] = {**section, **flat}
    return rest
