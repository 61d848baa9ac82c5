"""Convert a plain SQLite database into an encrypted one, and back.

The copy is made by VACUUM INTO, which keeps rowids, and is proven before it gets its name: schema, settings, and each table's
rows by count and SHA-256 over every stored value with its rowid, and for an encrypted copy every page. The source is opened for
reading only and is left byte for byte as it was.

VACUUM INTO needs what a schema needs: functions and collations of the application's own. The application gives them to these
connections, as to any, by `apsw.connection_hooks`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import apsw
import msgspec

from heliosvfs.check import check, findings, missing_here, open_pages
from heliosvfs.errors import FormatError, HeliosError, TamperedError, UsageError
from heliosvfs.keyring import Key, as_secret
from heliosvfs.keys import KdfSettings
from heliosvfs.layout import RESERVED_BYTES, is_page_size
from heliosvfs.opening import connect, open_untouched, require_regular
from heliosvfs.partials import named_when_done
from heliosvfs.vfs import Credential, presenting

__all__ = ["VIRTUAL", "ConvertReport", "decrypt", "encrypt", "quoted"]

Progress = Callable[[int, int], None]

_SETTINGS = ("user_version", "application_id", "encoding", "auto_vacuum")
_BESIDE = ("-wal", "-shm", "-journal")  # while one of them is there, the file alone may not be the database
_STEPS = 5000  # of SQLite's virtual machine between two looks at the size of the copy


@dataclass(frozen=True)
class ConvertReport:
    """A conversion that was carried out and proven.

    Attributes:
        source: The database that was copied.
        dest: The copy.
        page_size: Bytes of a page of the copy.
        pages: Its pages.
        tables: Rows by table, virtual tables' own ones included.
        digest: SHA-256 over schema, settings and all rows as they are stored, the same for both, hexadecimal.
        seconds: Time it took.
    """

    source: str
    dest: str
    page_size: int
    pages: int
    tables: dict[str, int]
    digest: str
    seconds: float


def encrypt(  # noqa: PLR0913 - the options of a conversion
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    key: Key,
    page_size: int | None = None,
    settings: KdfSettings | None = None,
    vfs: str = "heliosvfs",
    progress: Progress | None = None,
) -> ConvertReport:
    """Make an encrypted copy of a plain SQLite database.

    Args:
        source: The plain database; it is not touched.
        dest: The path of the encrypted copy; it must not exist.
        key: Its key.
        page_size: Bytes of its pages; None: the source's.
        settings: Cost of its KDF, and FIPS mode.
        vfs: Name of a registered `heliosvfs.HeliosVFS`.
        progress: Called with pages written and pages expected.

    Raises:
        UsageError: The destination exists or is a URI, or the source needs recovery first, or functions of its application.
        DiskFullError: There is no room for the copy.
        FormatError: The source is no plain SQLite database.
        TamperedError: The copy is not equal to the source; it was removed.
    """
    if page_size is not None and not is_page_size(page_size):
        msg = f"the page size is a power of two from 512 to 65536, not {page_size}"
        raise UsageError(msg)
    secret = as_secret(key)
    job = _Job(os.fspath(source), os.fspath(dest), f"vfs={quote(vfs)}&reserve={RESERVED_BYTES}", progress)
    credential = Credential(secret, settings or KdfSettings())

    def proof(partial: str) -> apsw.Connection:
        report = check(partial, key=secret, vfs=vfs)
        if not report.ok:
            msg = f"the copy does not pass its check: {[*report.bad_pages, *report.problems, *report.integrity]}"
            raise TamperedError(msg, file=partial)
        return connect(partial, key=secret, create=False, vfs=vfs)

    with contextlib.closing(_open_plain(job.source)) as connection:
        if page_size is not None:
            connection.pragma("page_size", page_size)
        return job.run(connection, credential, proof)


def decrypt(
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    key: Key | None = None,
    vfs: str = "heliosvfs",
    progress: Progress | None = None,
) -> ConvertReport:
    """Make a plain copy of an encrypted database: from then on its content is open to whoever reads the file.

    Args:
        source: The encrypted database; it is not touched, but that a hot journal is rolled back.
        dest: The path of the plain copy; it must not exist.
        key: The source's key; None: the VFS's keyring has it.
        vfs: Name of a registered `heliosvfs.HeliosVFS`.
        progress: Called with pages written and pages expected.

    Raises:
        UsageError: The destination exists or is a URI, or the source needs functions of its application.
        DiskFullError: There is no room for the copy.
        KeyUnavailableError, WrongKeyError, FormatError: The source can't be opened.
        TamperedError: The source is damaged, or the copy is not equal to it; the copy was removed.
    """
    with open_pages(source, key=key, vfs=vfs) as pages:
        if pages.problems:
            msg = f"{os.fspath(source)}: {'; '.join(pages.problems)}. `heliosvfs salvage` takes all that is there"
            raise TamperedError(msg, file=os.fspath(source))
        keeps_wal = bool(pages.wal.frames)
    with contextlib.closing(connect(source, key=key, create=False, vfs=vfs)) as connection:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(keeps_wal))
        base = next(name for name in apsw.vfs_names() if name != vfs) if apsw.vfs_names()[0] == vfs else apsw.vfs_names()[0]
        job = _Job(os.fspath(source), os.fspath(dest), f"vfs={quote(base)}&reserve=0", progress)
        return job.run(connection, None, lambda partial: _proven_plain(partial, base))


def _proven_plain(partial: str, vfs: str) -> apsw.Connection:
    """Return a connection to a plain copy that SQLite finds nothing wrong with; where it lacks a function, it has looked so far.

    Raises:
        TamperedError: It does.
    """
    connection = _open_plain(partial, vfs=vfs)
    try:
        found, _ = findings(connection)
    except BaseException:
        connection.close()
        raise
    if found:
        connection.close()
        msg = f"the copy does not pass its check: {list(found)}"
        raise TamperedError(msg, file=partial)
    return connection


def _instead_of_plain(path: str) -> str:
    """Say what a file is that is no plain SQLite database."""
    try:
        open_untouched(path).close()
    except (FormatError, apsw.Error) as error:
        if isinstance(error, FormatError) or not isinstance(error, HeliosError):  # the others: it is ours, and wants a key
            return "not a plain SQLite database"
    return "encrypted by heliosvfs already: `heliosvfs key` changes its keys, `heliosvfs rotate` its encryption"


def _open_plain(path: str, vfs: str | None = None) -> apsw.Connection:
    """Open a plain database for reading, in a way that changes no byte of it.

    Raises:
        FormatError: It is no plain SQLite database.
        UsageError: It does not exist, or its last writer crashed and it needs recovery.
    """
    if not os.path.exists(path):
        msg = f"{path} does not exist"
        raise UsageError(msg)
    real = os.path.realpath(path)  # WAL and journal lie beside the file itself, not beside a link to it
    require_regular(real)
    uri = f"file:{quote(real)}?mode=ro"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    for options in ("", "&immutable=1"):
        connection = apsw.Connection(uri + options, flags=flags, vfs=vfs)
        try:
            connection.pragma("schema_version")
        except apsw.NotADBError:
            connection.close()
            msg = f"{path} is {_instead_of_plain(real)}"
            raise FormatError(msg) from None
        except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
            connection.close()
            recovers = getattr(error, "extendedresult", 0) in (apsw.SQLITE_READONLY_ROLLBACK, apsw.SQLITE_READONLY_RECOVERY)
            if options or recovers or any(os.path.lexists(real + suffix) for suffix in _BESIDE):
                msg = (
                    f"{path} was not closed properly and SQLite would have to write to it first: open it once with a SQLite "
                    "program, close that, and try again"
                )
                raise UsageError(msg) from error
            continue  # a WAL database without its WAL can't be read without making one, unless SQLite may take it as it is
        except BaseException:
            connection.close()
            raise
        if connection.pragma("schema_version") or os.path.getsize(real):
            return connection
        connection.close()
        msg = f"{path} is empty: there is no database in it"
        raise FormatError(msg)
    raise AssertionError  # pragma: no cover - the loop returns or raises


@dataclass(frozen=True)
class _Job:
    """One conversion.

    Attributes:
        source: Path of the source.
        dest: Path of the copy.
        options: URI parameters that the copy is created with.
        progress: Called with pages written and expected.
    """

    source: str
    dest: str
    options: str
    progress: Progress | None

    def run(
        self, source: apsw.Connection, credential: Credential | None, proof: Callable[[str], apsw.Connection]
    ) -> ConvertReport:
        """Copy, prove and name the copy; leave nothing behind unless that worked."""
        began = time.monotonic()
        with named_when_done(self.dest) as partial:
            self._copy(source, credential, partial)
            with contextlib.closing(proof(partial)) as copy:
                content, copied = Content.of(source), Content.of(copy)
                if content != copied:
                    msg = f"the copy of {self.source} is not equal to it: {content.difference(copied)}; it was removed"
                    raise TamperedError(msg, file=self.dest)
                page_size, pages = copy.pragma("page_size"), copy.pragma("page_count")
                if source.pragma("journal_mode") == "wal" and credential is not None:
                    copy.pragma("journal_mode", "wal")
        seconds = time.monotonic() - began
        return ConvertReport(self.source, self.dest, page_size, pages, content.rows, content.digest(), seconds)

    def _copy(self, source: apsw.Connection, credential: Credential | None, partial: str) -> None:
        expected, size, progress = source.pragma("page_count"), source.pragma("page_size"), self.progress
        if progress is not None:

            def look() -> bool:
                with contextlib.suppress(OSError):
                    progress(min(os.path.getsize(partial) // size, expected), expected)
                return False

            source.set_progress_handler(look, _STEPS)
        try:
            copy = f"file:{quote(os.path.abspath(partial))}?{self.options}"
            with presenting(credential, copy):
                source.execute("VACUUM INTO ?", (copy,))
        except apsw.SQLError as error:
            missing = missing_here(error)
            if not missing:
                raise
            msg = (
                f"{self.source} can't be copied without {missing}, which only its application has: that has to convert it, by "
                f"heliosvfs.convert, with a function in apsw.connection_hooks that gives {missing} to each new connection"
            )
            raise UsageError(msg) from error
        finally:
            source.set_progress_handler(None)
        if progress is not None:
            progress(expected, expected)


@dataclass(frozen=True)
class Content:
    """What a database holds, for comparison.

    Attributes:
        settings: Settings that belong to its content.
        schema: Rows of sqlite_schema without their root pages.
        rows: Number of rows by table.
        hashes: SHA-256 of the rows by table, hexadecimal. A generated column is a part of them if it is stored; the others follow
            from these and the schema, and to compute them may take a function that only the application has.
    """

    settings: dict[str, object]
    schema: tuple[tuple[object, ...], ...]
    rows: dict[str, int]
    hashes: dict[str, str]

    @classmethod
    def of(cls, connection: apsw.Connection) -> Content:
        """Read the whole content of a connection's main database.

        Collations that are not known are stood in for, as long as that takes: rows come in the order in which they are stored.
        """
        settings = {name: connection.pragma(name) for name in _SETTINGS}
        schema = tuple(
            connection.execute(
                "SELECT type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY type, name, tbl_name"
            ).fetchall()
        )
        rows, hashes = {}, {}
        stored = [str(name) for (name,) in connection.execute(_STORED_TABLES)]
        with _any_collation(connection):
            for table in stored:
                rows[table], hashes[table] = _hash(connection, table)
        return cls(settings, schema, rows, hashes)

    def digest(self) -> str:
        """Return one SHA-256 over everything, hexadecimal."""
        return hashlib.sha256(msgspec.msgpack.encode((self.settings, self.schema, self.rows, self.hashes))).hexdigest()

    def difference(self, other: Content) -> str:
        """Say in words where two contents differ, without any value."""
        if self.settings != other.settings:
            return f"settings {self.settings} became {other.settings}"
        if self.schema != other.schema:
            return "the schema differs"
        tables = [name for name in self.hashes if self.hashes[name] != other.hashes.get(name)]
        return f"tables differ: {', '.join(tables)}"


VIRTUAL = 2  # "hidden" of PRAGMA table_xinfo for generated columns that are not stored
# every table with pages of its own: virtual tables are stored in their shadow tables, views nowhere
_STORED_TABLES = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name"


@contextlib.contextmanager
def _any_collation(connection: apsw.Connection) -> Iterator[None]:
    """Let a connection read tables whose keys are in an order that only their application knows; nothing may be written."""
    names: list[str] = []

    def stand_in(to: apsw.Connection, name: str) -> None:
        names.append(name)
        to.create_collation(name, lambda one, other: (one > other) - (one < other))

    connection.collation_needed(stand_in)
    try:
        yield
    finally:
        connection.collation_needed(None)
    for name in names:  # but after a failure, when statements may still need them
        connection.create_collation(name, None)


def _hash(connection: apsw.Connection, table: str) -> tuple[int, str]:
    """Return the number of rows of a table and a SHA-256 over rowid and values, in the order in which they are stored."""
    name = quoted(table)
    # a PRAGMA, not its function: a table of the database may have the name of that
    described = list(connection.execute(f"PRAGMA main.table_xinfo({name})"))
    names = {str(column).lower() for _, column, _, _, _, _, _ in described}
    keys = [str(column) for _, column, _, _, _, rank, _ in sorted(described, key=lambda column: column[5]) if rank]
    rowid = next((alias for alias in ("rowid", "_rowid_", "oid") if alias not in names), None)
    if rowid is not None and _has_rowid(connection, table):
        order = identity = rowid
    else:
        order, identity = ", ".join(quoted(key) for key in keys) or "1", "NULL"
    # text goes as bytes, because a database may hold text that is not valid UTF-8
    values = ", ".join(
        f"typeof({c}), CASE typeof({c}) WHEN 'text' THEN CAST({c} AS BLOB) ELSE {c} END"
        for c in (quoted(str(column)) for _, column, _, _, _, _, hidden in described if hidden != VIRTUAL)
    )
    digest, count, encode = hashlib.sha256(), 0, msgspec.msgpack.encode
    query = f"SELECT {identity}, {values} FROM main.{name} NOT INDEXED ORDER BY {order}"  # noqa: S608 - names are quoted
    for row in _rows(connection, query):
        digest.update(encode(row))
        count += 1
    return count, digest.hexdigest()


def _rows(connection: apsw.Connection, query: str) -> Iterator[tuple[object, ...]]:
    yield from connection.execute(query)


def _has_rowid(connection: apsw.Connection, table: str) -> bool:
    return not any(without for _, _, _, _, without, _ in connection.execute(f"PRAGMA main.table_list({quoted(table)})"))


def quoted(name: str) -> str:
    """Return a name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'
