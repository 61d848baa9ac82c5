"""Files that get their name only once they are whole.

A new database is written beside its place as ``NAME.partial``, made durable, and then linked to its name, never over another
file. What a killed program left behind is replaced by the next run. Names are taken literally, so that what SQLite writes to is
what is named afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import apsw

from heliosvfs.errors import DiskFullError, UsageError

__all__ = ["named_when_done", "require_free"]

_BESIDE = ("", "-wal", "-shm", "-journal")


@contextlib.contextmanager
def named_when_done(dest: str) -> Iterator[str]:
    """Give the absolute name to write to; when the block ends well, the file gets the name ``dest``, else it is removed.

    No connection may have the file open when the block ends.

    Raises:
        UsageError: ``dest`` exists or is a URI, or its folder does not exist or may not be written.
        DiskFullError: There is no room for it.
    """
    require_free(dest)
    folder, name = os.path.realpath(os.path.dirname(dest)), os.path.basename(dest)  # as SQLite resolves it, links and .. too
    if not os.path.isdir(folder):
        msg = f"{dest} can't be made: its folder does not exist"
        raise UsageError(msg)
    if not os.access(folder, os.W_OK):
        msg = f"{dest} can't be made: its folder may not be written"
        raise UsageError(msg)
    path = os.path.join(folder, name)
    partial = f"{path}.partial"
    try:
        _remove(partial)
        yield partial
        _sync(partial)  # no connection has it open, so no lock is lost
        os.link(partial, path)
        os.unlink(partial)
        _sync(folder)
    except apsw.FullError as error:
        raise DiskFullError.of(dest) from error
    except apsw.CantOpenError as error:
        msg = f"{dest} can't be made: its folder may not be written"
        raise UsageError(msg) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError.of(dest) from error
        msg = f"{dest} can't be made: {error.strerror}"
        raise UsageError(msg) from error
    finally:
        with contextlib.suppress(OSError):
            _remove(partial)


def require_free(dest: str) -> None:
    """See that a new database may get a name.

    Raises:
        UsageError: There is something of that name, or it is a URI.
    """
    if dest.startswith("file:"):  # connect() would open another file than the one of that name
        msg = f"{dest} is a URI, and a new file is named by its path: leave out `file:` and options"
        raise UsageError(msg)
    for suffix in ("", "-wal", "-journal"):  # a WAL or journal left from another database would be taken for this one's
        if os.path.lexists(dest + suffix):
            msg = f"{dest}{suffix} exists already: nothing is overwritten; move it away or choose another name"
            raise UsageError(msg)


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(partial: str) -> None:
    for suffix in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial + suffix)
