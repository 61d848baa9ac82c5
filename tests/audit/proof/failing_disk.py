"""A base VFS that fails, or kills its process, at one of the operations that change a file; a program prunes through it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import apsw

import heliosaudit
import heliosvfs
from heliosaudit.retention import Pruned, prune

KEY = bytes(range(32))
LATER = datetime.now(timezone.utc) + timedelta(days=100)


class FailingDisk(apsw.VFS):
    """Fails at an operation, counted from when it is armed: a write, sync, truncation or deletion.

    How: "full", this write and each later one that makes a file larger; "once", this write alone; "sync", this sync; "deleted", a
    deletion that is done and told as failed; "kill".
    """

    def __init__(self, name: str = "failing-disk") -> None:
        self.left: int | None = None
        self.how = ""
        self.happened = False
        super().__init__(name, "unix")

    def arm(self, how: str, after: int) -> None:
        self.left, self.how, self.happened = after, how, False

    def strikes(self, *ways: str) -> bool:
        """Count an operation; tell whether it is the one."""
        if self.left is None or self.how not in (*ways, "kill"):
            return False
        self.left -= 1
        if self.left >= 0:
            return False
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        strikes = self.how == "full" or not self.happened
        self.happened = True
        return strikes

    def xDelete(self, filename: str, syncdir: bool) -> None:
        strikes = self.strikes("deleted")
        super().xDelete(filename, syncdir)
        if strikes:
            raise apsw.IOError

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        disk = self

        class File(apsw.VFSFile):
            def xWrite(self, data: bytes, offset: int) -> None:
                if disk.strikes("full", "once") and (disk.how == "once" or offset + len(data) > self.xFileSize()):
                    raise apsw.FullError
                super().xWrite(data, offset)

            def xSync(self, flags: int) -> None:
                if disk.strikes("sync"):
                    raise apsw.IOError
                super().xSync(flags)

            def xTruncate(self, size: int) -> None:
                disk.strikes()
                super().xTruncate(size)

        return File("unix", name, flags)


def audited(path: Path, kind: str, mode: str) -> None:
    """Make a log of some sixty events, with redactable values."""
    policy = heliosaudit.Policy(capture_parameters="redactable")
    connection: apsw.Connection
    if kind == "plain":
        connection = heliosaudit.connect(path, policy)
        connection.pragma("journal_mode", mode)
    else:
        connection = heliosvfs.connect(path, key=KEY, audit=policy, journal_mode=mode)
    with closing(connection):
        connection.execute("CREATE TABLE t(x)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES(?)", ((f"value {n}",) for n in range(60)))
        connection.execute("COMMIT")


def opened(path: Path, kind: str, vfs: str | None = None) -> apsw.Connection:
    if kind == "plain":
        return apsw.Connection(str(path), vfs=vfs)
    return heliosvfs.connect(path, key=KEY, create=False, vfs=vfs or "heliosvfs")


def pruned(connection: apsw.Connection, archive: Path) -> Pruned:
    return prune(connection, days=1, archive=archive, now=LATER)


if __name__ == "__main__":
    where, of_kind, when = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    disk = FailingDisk()
    over = heliosvfs.HeliosVFS("over-failing-disk", base="failing-disk")
    with closing(opened(where, of_kind, "failing-disk" if of_kind == "plain" else "over-failing-disk")) as pruning:
        disk.arm("kill", when)
        pruned(pruning, where.with_name("a.gz"))
        disk.left = None
    print("done")
