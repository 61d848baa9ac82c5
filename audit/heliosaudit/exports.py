"""Events on their way out: JSON Lines or CSV, with a manifest that says what is in them (AUDIT.md, "Export")."""

from __future__ import annotations

import base64
import contextlib
import csv
import gzip
import hashlib
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import apsw
import msgspec

from heliosaudit import chains, stores
from heliosaudit.checkpoints import SigningKey
from heliosaudit.errors import AuditPolicyError, AuditWriteError, ChainBrokenError
from heliosaudit.events import Event, event_of
from heliosaudit.queries import rows
from heliosaudit.records import FIELDS, decode
from heliosaudit.schemas import LOG, VALUES
from heliosaudit.sessions import current
from heliosaudit.verifications import last_prune

__all__ = ["FORMATS", "Manifest", "discard", "event_for", "events", "export", "files_of", "snapshot", "write"]

FORMATS = ("jsonl", "csv")
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS = ("id", *FIELDS, "checksum")
_MANIFEST = ".manifest.json"
_VALUES = ".values.jsonl.gz"
_UNFINISHED = ".partial"
_SNAPSHOT = "heliosaudit_export"


@dataclass(frozen=True)
class Manifest:
    """What an export holds; it is written beside it as ``<file>.manifest.json``.

    Attributes:
        file: Name of the file.
        format: "jsonl" or "csv".
        compression: "gzip" or "none".
        first: Id of the first event; 0 if there is none.
        last: Id of the last.
        events: How many there are.
        previous: Checksum of the event before the first, in hexadecimal: the export links up with the one before. Zeros at the
            beginning of a log; "" where the log itself doesn't say, for its beginning is missing and no prune record tells of it.
        head: Checksum of the last event, in hexadecimal.
        sha256: Of the file, in hexadecimal.
        values: Name of the file with the redactable values of these events; "" if there is none.
        values_sha256: Of that file, in hexadecimal.
        signer: Name of the key; "" if it is not signed.
        signature: Ed25519 over the manifest without this field, as JSON with its keys in this order; base64.
    """

    file: str
    format: str
    compression: str
    first: int
    last: int
    events: int
    previous: str
    head: str
    sha256: str
    values: str = ""
    values_sha256: str = ""
    signer: str = ""
    signature: str = ""

    def signed_bytes(self) -> bytes:
        """Return what is signed."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "signature"}
        return msgspec.json.encode(fields)


def events(connection: apsw.Connection, after: int = 0, until: int | None = None) -> Iterator[tuple[int, str, bytes]]:
    """Yield id, encoded record and checksum of the events after an id, in order."""
    last = (1 << 62) if until is None else until
    yield from connection.cursor().execute(
        f"SELECT id, record, checksum FROM main.{LOG} WHERE id > ? AND id <= ? ORDER BY id", (after, last)
    )


def export(  # noqa: PLR0913 - the options of an export
    connection: apsw.Connection,
    path: str | os.PathLike[str],
    *,
    format: str = "jsonl",  # noqa: A002 - what it is called
    compress: bool = False,
    after: int = 0,
    until: int | None = None,
    key: SigningKey | None = None,
    formulas: bool = False,
) -> Manifest:
    """Write events to a new file, and its manifest beside it; the export itself becomes an event.

    Args:
        connection: A connection to the database that is not audited.
        path: The file; it must not exist.
        format: "jsonl": an object a line, with the record as it is hashed; or "csv".
        compress: Whether to gzip it.
        after: Leave out events up to this id: the ``last`` of the export before.
        until: Leave out events beyond this id; None: none.
        key: Signs the manifest.
        formulas: Leave CSV fields as they are that a spreadsheet would take for formulas; otherwise a quote is put before them.

    Raises:
        AuditPolicyError: There is no such format, a file is in the way, a transaction is open, or the log doesn't have all events
            after that id.
        ChainBrokenError: There is something in the log that is no event.
        AuditWriteError: The export is there, whole, and the log could not be told.
        OSError: It can't be written; nothing of it is left.
    """
    with snapshot(connection):
        manifest = write(connection, path, format=format, compress=compress, after=after, until=until, key=key, formulas=formulas)
    try:
        stores.in_transaction(connection, [event_for(manifest)])
    except apsw.Error as error:
        msg = (
            f"{os.fspath(path)} and its manifest are written, but that could not be recorded in the log; the export is whole: "
            "remove its files only to export again"
        )
        raise AuditWriteError(msg) from error
    return manifest


@contextlib.contextmanager
def snapshot(connection: apsw.Connection) -> Iterator[None]:
    """Read one state of the log in the block, whoever writes meanwhile.

    Raises:
        AuditPolicyError: A transaction is open.
    """
    if connection.in_transaction:
        msg = "a transaction is open on this connection: end it before events are exported or pruned"
        raise AuditPolicyError(msg)
    connection.execute(f"SAVEPOINT {_SNAPSHOT}")
    try:
        yield
    finally:
        if connection.in_transaction:  # an error of reading has ended it
            connection.execute(f"RELEASE {_SNAPSHOT}")


def event_for(manifest: Manifest) -> Event:
    """Return the event that says that events were exported."""
    details = {name: getattr(manifest, name) for name in ("first", "last", "events", "sha256", "format")}
    return event_of("EXPORT", event_class="AUDIT", user=current().user, session_id=current().id, target=LOG, details=details)


def files_of(path: str | os.PathLike[str], manifest: Manifest) -> list[str]:
    """Return the names of an export's files."""
    where = os.fspath(path)
    return [where, f"{where}{_MANIFEST}", *([f"{where}{_VALUES}"] if manifest.values else [])]


def discard(path: str | os.PathLike[str], manifest: Manifest) -> None:
    """Remove an export that was just written."""
    _unlink(files_of(path, manifest))


def write(  # noqa: PLR0913 - the options of an export
    connection: apsw.Connection,
    path: str | os.PathLike[str],
    *,
    format: str = "jsonl",  # noqa: A002 - what it is called
    compress: bool = False,
    after: int = 0,
    until: int | None = None,
    key: SigningKey | None = None,
    formulas: bool = False,
    with_values: bool = False,
) -> Manifest:
    """Write what `export` writes, within a `snapshot`, and record nothing; all of it is on the disk when this returns.

    Args:
        connection: As for `export`.
        path: As for `export`.
        format: As for `export`.
        compress: As for `export`.
        after: As for `export`.
        until: As for `export`.
        key: As for `export`.
        formulas: As for `export`.
        with_values: Write the redactable values of these events to a file of their own, if there are any.

    Raises:
        AuditPolicyError: As for `export`.
        ChainBrokenError: As for `export`.
    """
    where = os.fspath(path)
    if format not in FORMATS:
        msg = f"an export's format is one of {', '.join(FORMATS)}, not {format!r}"
        raise AuditPolicyError(msg)
    for suffix in ("", _MANIFEST, _VALUES):
        if os.path.lexists(where + suffix):
            raise _in_the_way(where + suffix)
    previous = _before(connection, after, until)
    unfinished = where + _UNFINISHED
    made: list[str] = []
    try:
        with _new(unfinished, made) as file:
            entries = events(connection, after, until)
            first, last, count, head = _write(file, entries, format, compress=compress, formulas=formulas)
        values = _write_values(connection, where + _VALUES, made, first, last) if with_values else ""
        manifest = Manifest(
            os.path.basename(where),
            format,
            "gzip" if compress else "none",
            first,
            last,
            count,
            previous,
            head.hex(),
            _sha256_of(unfinished),
            os.path.basename(values),
            _sha256_of(values) if values else "",
            "" if key is None else key.name,
        )
        if key is not None:
            signature = base64.b64encode(key.sign(manifest.signed_bytes())).decode()
            manifest = replace(manifest, signature=signature)
        with _new(where + _MANIFEST, made) as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        os.rename(unfinished, where)
        made.append(where)
        _sync_directory(os.path.dirname(where) or os.curdir)
    except BaseException:
        _unlink(made)
        raise
    return manifest


def _in_the_way(path: str) -> AuditPolicyError:
    why = "an export never overwrites a file"
    if path.endswith(_UNFINISHED):
        why = "another export is writing it, or one was stopped and left it; remove it if there is none"
    elif path.endswith((_MANIFEST, _VALUES)):
        why = f"{why}; it belongs to another export, or to one that was stopped"
    return AuditPolicyError(f"{path} exists: {why}")


@contextlib.contextmanager
def _new(path: str, made: list[str]) -> Iterator[BinaryIO]:
    """Write a new file down to the disk; its name is added to those that were made.

    Raises:
        AuditPolicyError: It exists.
        OSError: It can't be written, for want of room perhaps; the error names it.
    """
    try:
        file = open(path, "xb")  # noqa: SIM115 - closed below
    except FileExistsError as error:
        raise _in_the_way(path) from error
    made.append(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or path
        raise


def _unlink(paths: list[str]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _sync_directory(path: str) -> None:
    """See that the names of new files are on the disk; Windows has no way to ask for that."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256_of(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _before(connection: apsw.Connection, after: int, until: int | None) -> str:
    """Return the checksum that the first event of an export is chained to, in hexadecimal.

    Raises:
        AuditPolicyError: The log doesn't have all events after this id.
        ChainBrokenError: The event of that id is missing.
    """
    lowest, highest = rows(connection, f"SELECT min(id), max(id) FROM main.{LOG}")[0]
    if after < 0 or (until is not None and until < after):
        msg = f"an export goes from one id up to a higher one, not from {after} to {until}"
        raise AuditPolicyError(msg)
    if lowest is None:
        msg = "the audit log is empty: its genesis record has been removed"
        raise ChainBrokenError(msg, id=1, kind="missing")
    if after > highest:
        msg = f"the log ends with event {highest}: it has nothing after event {after}"
        raise AuditPolicyError(msg)
    if after < lowest - 1:
        msg = f"the log begins with event {lowest}, for those up to {lowest - 1} were pruned: export what is after {lowest - 1}"
        raise AuditPolicyError(msg)
    if after == 0:
        return chains.ROOT.hex()
    if after == lowest - 1:
        pruned = last_prune(connection)
        return pruned[1].hex() if pruned is not None and pruned[0] == after else ""
    found = rows(connection, f"SELECT checksum FROM main.{LOG} WHERE id = ? AND typeof(checksum) = 'blob'", (after,))
    if not found:
        msg = f"the audit log is broken: event {after} is missing, or has no checksum"
        raise ChainBrokenError(msg, id=after, kind="missing")
    checksum: bytes = found[0][0]
    return checksum.hex()


def _write_values(connection: apsw.Connection, path: str, made: list[str], first: int, last: int) -> str:
    """Write redactable values as gzipped JSON Lines; returns the path, "" if there are none.

    SHA-256(salt || value as it stands in the line) is the commitment in the record, but for infinite numbers.
    """
    found = connection.cursor().execute(
        f"SELECT event, position, salt, typeof(value), value FROM main.{VALUES} WHERE event BETWEEN ? AND ? ORDER BY 1, 2",
        (first, last),
    )
    line = next(found, None)
    if line is None:
        return ""
    with _new(path, made) as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as out:
        while line is not None:
            event, position, salt, kind, value = line
            shown = msgspec.json.encode(str(value) if isinstance(value, float) and math.isinf(value) else value).decode()
            out.write(
                f'{{"event":{event},"position":{position},"salt":"{salt.hex()}","type":"{kind}","value":{shown}}}\n'.encode()
            )
            line = next(found, None)
    return path


def _write(
    file: BinaryIO, entries: Iterator[tuple[int, str, bytes]], how: str, *, compress: bool, formulas: bool
) -> tuple[int, int, int, bytes]:
    """Write events; returns the first and last id, how many there are, and the last checksum."""
    first = last = count = 0
    head = b""
    # no time and no name in gzip's header: the same events make the same file
    out: Any = gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) if compress else file
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    if how == "csv":
        writer.writerow(_COLUMNS)
    for number, record, checksum in _sound(entries):
        if how == "csv":
            writer.writerow([number, *(_cell(value, formulas=formulas) for value in decode(record)), checksum.hex()])
        else:
            # the record goes out byte for byte: whoever has the file can follow the chain
            text.write(f'{{"id":{number},"checksum":"{checksum.hex()}","record":{record}}}\n')
        first, last, head = first or number, number, checksum
        count += 1
    text.flush()
    text.detach()
    if compress:
        out.close()
    return first, last, count, head


def _sound(entries: Iterator[tuple[int, Any, Any]]) -> Iterator[tuple[int, str, bytes]]:
    """Yield events.

    Raises:
        ChainBrokenError: There is one that is none.
    """
    number = 0
    try:
        for number, record, checksum in entries:
            decode(record if isinstance(record, str) and isinstance(checksum, bytes) else "")
            yield number, record, checksum
    except (msgspec.DecodeError, ValueError) as error:  # the last: of text that is no UTF-8, which comes after it
        msg = f"the audit log is broken at or after event {number}: that is no record"
        raise ChainBrokenError(msg, id=number, kind="not a record") from error


def _cell(value: Any, *, formulas: bool) -> str:
    if value is None:
        return ""
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if not formulas and isinstance(value, str) and shown.startswith(_FORMULAS):
        return f"'{shown}"  # https://owasp.org/www-community/attacks/CSV_Injection
    return shown
