"""Blob: a value in the database that is read and written in pieces."""

from __future__ import annotations

import operator
import os
from types import TracebackType
from typing import Any, NoReturn

import apsw

from heliosvfs.dbapi2.errors import OperationalError, ProgrammingError, raise_translated
from heliosvfs.dbapi2.guards import guarded
from heliosvfs.dbapi2.sessions import Dropped, Session

__all__ = ["Blob", "open_blob"]

_LARGEST = 2**31 - 1
_BYTE = range(256)


class Blob:
    """An open blob; `Connection.blobopen` makes it."""

    _session: Session
    _blob: apsw.Blob | None
    _offset: int
    _dropped: Dropped
    __slots__ = ("__weakref__", "_blob", "_dropped", "_offset", "_session")

    def __new__(cls) -> Blob:  # noqa: PYI034 - it never returns
        """Refuse: only a connection opens a blob."""
        msg = f"cannot create '{cls.__module__}.{cls.__qualname__}' instances"
        raise TypeError(msg)

    def _opened(self) -> apsw.Blob:
        """Return APSW's blob.

        Raises:
            ProgrammingError: It is closed.
        """
        if self._blob is None:
            msg = "Cannot operate on a closed blob."
            raise ProgrammingError(msg)
        return self._blob

    def _read(self, blob: apsw.Blob, offset: int, length: int) -> bytes:
        try:
            blob.seek(offset)
            return blob.read(length)
        except Exception as error:  # noqa: BLE001 - raised again, translated
            _refused(error)

    def _write(self, blob: apsw.Blob, offset: int, data: Any) -> None:
        with memoryview(data) as view:
            if not view.c_contiguous:
                msg = "underlying buffer is not C-contiguous"
                raise BufferError(msg)
            content = bytes(view)
        if offset + len(content) > blob.length():
            msg = "data longer than blob"
            raise ValueError(msg)
        try:
            blob.seek(offset)
            blob.write(content)
        except Exception as error:  # noqa: BLE001 - raised again, translated
            _refused(error)

    @guarded
    def read(self, length: int = -1, /) -> bytes:
        """Read bytes from the current position on; all that are left, if not told how many."""
        blob = self._opened()
        left = blob.length() - self._offset
        length = left if length < 0 else min(length, left)
        content = self._read(blob, self._offset, length) if length else b""
        self._offset += length
        return content

    @guarded
    def write(self, data: Any, /) -> None:
        """Write bytes at the current position; a blob never changes its size.

        Raises:
            ValueError: They do not fit.
        """
        blob = self._opened()
        with memoryview(data) as view:
            length = view.nbytes
        self._write(blob, self._offset, data)
        self._offset += length

    @guarded
    def seek(self, offset: int, origin: int = os.SEEK_SET, /) -> None:
        """Move the current position."""
        blob = self._opened()
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: blob.length()}
        if origin not in starts:
            msg = "'origin' should be os.SEEK_SET, os.SEEK_CUR, or os.SEEK_END"
            raise ValueError(msg)
        position = starts[origin] + offset
        if position > _LARGEST:
            msg = "seek offset results in overflow"
            raise OverflowError(msg)
        if not 0 <= position <= blob.length():
            msg = "offset out of blob range"
            raise ValueError(msg)
        self._offset = position

    @guarded
    def tell(self) -> int:
        """Return the current position."""
        self._opened()
        return self._offset

    @guarded
    def close(self) -> None:
        """Close the blob; it may be closed already."""
        blob, self._blob = self._blob, None
        if blob is not None:
            blob.close(True)  # noqa: FBT003 - APSW's parameter: do not raise

    @guarded
    def __len__(self) -> int:
        """Return its length in bytes."""
        return self._opened().length()

    @guarded
    def __enter__(self) -> Blob:  # noqa: PYI034 - there are no subclasses
        """Return the blob."""
        self._opened()
        return self

    @guarded
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Close the blob."""
        self._opened()
        self.close()

    def __contains__(self, _: object) -> bool:
        """Refuse: a blob is no container."""
        msg = f"argument of type '{type(self).__name__}' is not iterable"
        raise TypeError(msg)

    __iter__ = None

    def _index(self, index: Any, length: int) -> int:
        try:
            position = operator.index(index)
        except TypeError:
            msg = "Blob indices must be integers"
            raise TypeError(msg) from None
        if not -(2**63) <= position < 2**63:
            msg = f"cannot fit '{type(index).__name__}' into an index-sized integer"
            raise IndexError(msg)
        if position < 0:
            position += length
        if not 0 <= position < length:
            msg = "Blob index out of range"
            raise IndexError(msg)
        return position

    @guarded
    def __getitem__(self, index: Any) -> int | bytes:
        """Return a byte, or the bytes of a slice."""
        blob = self._opened()
        length = blob.length()
        if not isinstance(index, slice):
            return self._read(blob, self._index(index, length), 1)[0]
        start, stop, step = _bounds(index, length)
        if not range(start, stop, step):
            return b""
        low, high = min(start, stop + 1), max(start + 1, stop)
        content = self._read(blob, low, high - low)
        return bytes(content[position - low] for position in range(start, stop, step)) if step != 1 else content

    @guarded
    def __setitem__(self, index: Any, value: Any) -> None:
        """Write a byte, or as many bytes as a slice has."""
        blob = self._opened()
        length = blob.length()
        if not isinstance(index, slice):
            position = self._index(index, length)
            if not isinstance(value, int):
                msg = f"'{type(value).__name__}' object cannot be interpreted as an integer"
                raise TypeError(msg)
            if value not in _BYTE:
                msg = "byte must be in range(0, 256)"
                raise ValueError(msg)
            self._write(blob, position, bytes((value,)))
            return
        start, stop, step = _bounds(index, length)
        with memoryview(value) as view:
            if not view.c_contiguous:
                msg = "underlying buffer is not C-contiguous"
                raise BufferError(msg)
            content = bytes(view)
        positions = range(start, stop, step)
        if len(content) != len(positions):
            msg = "Blob slice assignment is wrong size"
            raise IndexError(msg)
        if not positions:
            return
        low, high = min(start, stop + 1), max(start + 1, stop)
        whole = bytearray(self._read(blob, low, high - low)) if step != 1 else bytearray(high - low)
        for position, byte in zip(positions, content, strict=True):
            whole[position - low] = byte
        self._write(blob, low, whole)

    @guarded
    def __delitem__(self, index: Any) -> None:
        """Refuse: a blob never changes its size."""
        self._opened()
        kind = "slice" if isinstance(index, slice) else "item"
        msg = f"Blob doesn't support {kind} deletion"
        raise TypeError(msg)


def _bounds(index: slice, length: int) -> tuple[int, int, int]:
    try:
        return index.indices(length)
    except TypeError:
        msg = "Blob indices must be integers"
        raise TypeError(msg) from None


def _refused(error: Exception) -> NoReturn:
    if isinstance(error, apsw.ReadOnlyError):
        msg = "attempt to write a readonly database"
        failure = OperationalError(msg)
        failure.sqlite_errorcode, failure.sqlite_errorname = apsw.SQLITE_READONLY, "SQLITE_READONLY"
        raise failure from None
    try:
        raise_translated(error)
    finally:
        del error  # a cycle with this frame would keep the blob for the garbage collector, in any thread


def open_blob(  # noqa: PLR0913 - what blobopen() takes
    session: Session, schema: str, table: str, column: str, row: int, *, readonly: bool
) -> Blob:
    """Open a blob."""
    blob = object.__new__(Blob)
    blob._session, blob._offset = session, 0
    blob._blob = session.db.blob_open(schema, table, column, row, not readonly)
    if session.is_shared:
        blob._dropped = Dropped(session, blob._blob)
    return blob
