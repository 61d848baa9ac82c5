"""Events on their way out: JSON Lines or CSV, with a manifest that says what is in them (AUDIT.md, "Export")."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import apsw
import msgspec

from heliosaudit import stores
from heliosaudit.checkpoints import SigningKey
from heliosaudit.errors import AuditPolicyError, AuditWriteError
from heliosaudit.events import event_of
from heliosaudit.queries import rows
from heliosaudit.records import FIELDS, decode
from heliosaudit.schemas import LOG
from heliosaudit.sessions import current

__all__ = ["FORMATS", "Manifest", "events", "export"]

FORMATS = ("jsonl", "csv")
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS = ("id", *FIELDS, "checksum")


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
        previous: Checksum of the event before the first, in hexadecimal: the export links up with the one before.
        head: Checksum of the last event, in hexadecimal.
        sha256: Of the file, in hexadecimal.
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
        AuditPolicyError: There is no such format, or the file exists.
        AuditWriteError: The export is there, and the log could not be told.
    """
    where = os.fspath(path)
    if format not in FORMATS:
        msg = f"an export's format is one of {', '.join(FORMATS)}, not {format!r}"
        raise AuditPolicyError(msg)
    if os.path.lexists(where):
        msg = f"{where} exists: an export never overwrites a file"
        raise AuditPolicyError(msg)
    entries = events(connection, after, until)
    previous = rows(connection, f"SELECT checksum FROM main.{LOG} WHERE id = ?", (after,))
    unfinished = f"{where}.partial"
    try:
        with open(unfinished, "xb") as file:
            first, last, count, head = _write(file, entries, format, compress=compress, formulas=formulas)
            file.flush()
            os.fsync(file.fileno())
        with open(unfinished, "rb") as file:
            digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read())
        manifest = Manifest(
            os.path.basename(where),
            format,
            "gzip" if compress else "none",
            first,
            last,
            count,
            previous[0][0].hex() if previous else "",
            head.hex(),
            digest.hexdigest(),
            "" if key is None else key.name,
        )
        if key is not None:
            signature = base64.b64encode(key.sign(manifest.signed_bytes())).decode()
            manifest = replace(manifest, signature=signature)
        with open(f"{where}.manifest.json", "xb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        os.rename(unfinished, where)
    except BaseException:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise
    details = {"first": first, "last": last, "events": count, "sha256": manifest.sha256, "format": format}
    record = event_of("EXPORT", event_class="AUDIT", user=current().user, session_id=current().id, target=LOG, details=details)
    try:
        stores.in_transaction(connection, [record])
    except apsw.Error as error:
        msg = f"{where} and its manifest are written, but that could not be recorded in the log"
        raise AuditWriteError(msg) from error
    return manifest


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
    for number, record, checksum in entries:
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


def _cell(value: Any, *, formulas: bool) -> str:
    if value is None:
        return ""
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if not formulas and isinstance(value, str) and shown.startswith(_FORMULAS):
        return f"'{shown}"  # https://owasp.org/www-community/attacks/CSV_Injection
    return shown
