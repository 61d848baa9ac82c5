"""The main database file as SQLite sees it: routes reads, writes, locks and controls (FORMAT.md, "Sealed pages").

While the file is locked SQLite may do nothing but look at the header, because whatever it would conclude from bytes that can't
be read (no hot journal, an empty WAL) would make it destroy what recovery needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import apsw
import msgspec.structs

from heliosvfs.errors import DiskFullError, TamperedError
from heliosvfs.keyring import InheritedKey
from heliosvfs.locks import ProcessLock
from heliosvfs.pages import Buffer, FileKeys
from heliosvfs.superblock import Superblock
from heliosvfs.vfs import open_files, reading, tallies
from heliosvfs.vfs.access import Access
from heliosvfs.vfs.characteristics import reporting
from heliosvfs.vfs.controls import ANSWERED, LOCK_TIMEOUT, answer
from heliosvfs.vfs.creation import check_first_page
from heliosvfs.vfs.credentials import Credential, take
from heliosvfs.vfs.page_io import PageIO, PageWriter
from heliosvfs.vfs.read_locks import fast_locks
from heliosvfs.vfs.superblocks import BaseFile

if TYPE_CHECKING:
    from heliosvfs.vfs.filesystem import HeliosVFS
    from heliosvfs.vfs.wal import WalFile

__all__ = ["DatabaseFile"]

_updates = ProcessLock()  # one superblock is changed at a time in this process


class DatabaseFile(apsw.VFSFile):
    """A database file: plain pages to SQLite, whose last 32 bytes read as zero, and sealed ones on disk.

    Attributes:
        path: Path of the file.
        access: Its superblock and keys.
        connection_pointer: Address of the ``sqlite3*`` that opened it, 0 until SQLite has told.
        opened_as: Rank of this opening in the process.
        write_period: Counts the write locks that were given up: what was noted of a journal before may have changed since.
        wal: The WAL that SQLite has open beside it.
        vfs: The VFS that opened it.
        lock_level: The lock that SQLite holds on it, one of SQLITE_LOCK_*.
        control: xFileControl of the base VFS's file.
    """

    _openings = 0

    def __init__(self, vfs: HeliosVFS, name: apsw.URIFilename, flags: list[int]) -> None:
        """Open the file and, where its key is at hand, unlock it.

        Raises:
            FormatError: It is not a heliosvfs database.
            TamperedError: Its superblock is damaged or was altered.
            WrongKeyError: The key that was given does not open it.
        """
        self.path = name.filename()
        self.connection_pointer = 0
        self.write_period = 0
        self.wal: WalFile | None = None
        self.vfs = vfs
        self.lock_level = apsw.SQLITE_LOCK_NONE
        self._readonly = False
        self._pages: PageIO | None = None
        self._write: PageWriter
        self._generation = 0
        self._tally = tallies.Tally("database")
        DatabaseFile._openings += 1
        self.opened_as = DatabaseFile._openings
        credential = take(self.path, vfs.xFullPathname) or self._from_keyring(name)
        super().__init__(vfs.base, name, flags)
        self._readonly = bool(flags[1] & apsw.SQLITE_OPEN_READONLY)
        self._base = BaseFile(super().xRead, super().xWrite, super().xFileSize, super().xSync)
        self.control = super().xFileControl
        self.xDeviceCharacteristics = reporting(super().xDeviceCharacteristics())  # type: ignore[method-assign]
        self.access = Access(self._base, self.path, credential, self._inherited)
        try:
            if not self.access.look() and credential is not None and not credential.create:
                raise self.access.nothing_in_it()  # noqa: TRY301 - closed below like any other failure
            self.access.require_known_features(writing=not self._readonly)
            self._bind()
        except BaseException:
            self.access.close()
            super().xClose()
            raise
        vfs.opened(self)
        open_files.add(self)
        tallies.add(self._tally)

    def _from_keyring(self, name: apsw.URIFilename) -> Credential | None:
        registered = name.uri_parameter("heliosvfs_key")
        secret = self.vfs.keyring.named(registered) if registered is not None else self.vfs.keyring.default()
        return None if secret is None else Credential(secret)

    def _inherited(self) -> InheritedKey | None:
        """Return the key of the connection's first unlocked database for VACUUM INTO, which seals its copy under that.

        Raises:
            KeyUnavailableError: It was opened with a key that has lost its slot.
        """
        if not self.connection_pointer or not open_files.is_copy_of_vacuum(self.connection_pointer, self.path):
            return None
        for file in open_files.files_at(self.connection_pointer):
            if not file.access.is_empty and not file.is_locked:
                file.refresh()
                return file.access.heirloom()
        return None

    @property
    def is_locked(self) -> bool:
        """Whether there is a superblock and no key for it."""
        return self.access.is_locked

    @property
    def vfs_name(self) -> str:
        """Name of the VFS that opened the file."""
        return self.vfs.name

    @property
    def base_name(self) -> str:
        """Name of the VFS underneath."""
        return self.vfs.base

    def _bind(self) -> None:
        """Make the hot paths for the keys and the layout in force, as instance attributes that shadow the methods below."""
        if self.access.is_empty or self.access.is_locked:
            return
        if self._generation != self.access.generation:
            self._generation = self.access.generation
            keys, page_size = self.access.require_keys(), self.access.superblock.page_size
            self._pages = PageIO(self._base, self.path, keys, page_size, self._tally)
            self.xRead = self._pages.reader(self._read)  # type: ignore[method-assign, assignment]
            self.xFileSize = self._pages.sizer(self._file_size)  # type: ignore[method-assign]
            self._write = self._pages.writer()
            base, slow = (super().xLock, super().xUnlock), (self._lock, self._unlock)
            self.xLock, self.xUnlock = fast_locks(self, base, slow)  # type: ignore[method-assign, assignment]
        if self.access.superblock.populated:
            self.xWrite = self._write  # type: ignore[method-assign, assignment]
        else:
            self.__dict__.pop("xWrite", None)  # the first page may still come in another size

    @property
    def pages(self) -> PageIO:
        """The pages of a file that is unlocked and not empty.

        Raises:
            KeyUnavailableError: It is locked.
        """
        if self._pages is None:
            self.access.require_keys()
        assert self._pages is not None  # noqa: S101 - an empty file has nothing to read
        return self._pages

    def page_keys(self) -> FileKeys:
        """Return the keys that the journal or WAL beside the file is sealed under.

        Raises:
            KeyUnavailableError: The file is locked.
        """
        return self.access.require_keys()

    def present(self, credential: Credential) -> None:
        """Unlock the file with a secret; see `Access.present`."""
        self.access.present(credential)
        self._bind()

    def refresh(self, *, begun: bool = False) -> None:
        """Take over what another process has changed in the superblock; with ``begun``, or is in the middle of changing.

        Raises:
            TamperedError: Its HMAC is wrong.
        """
        self.access.refresh(begun=begun)
        self._bind()
        if self.wal is not None:
            self.wal.bind()

    def page_size_in_force(self) -> int:
        """Return the page size in bytes, 0 while the file is empty."""
        return 0 if self.access.is_empty else self.access.superblock.page_size

    def page_size_at_hand(self) -> int:
        """Return the page size in bytes that a file still empty is most likely to get."""
        return self.vfs.page_size_at_hand()

    # -- reading -----------------------------------------------------------------------------------------------------

    def xRead(self, amount: int, offset: int) -> Buffer:  # type: ignore[override] # noqa: N802 - SQLite's name; APSW takes any buffer
        """Return plain bytes; see `apsw.VFSFile.xRead`. `_bind` puts a faster form in this one's place."""
        return self._read(amount, offset)

    def _read(self, amount: int, offset: int) -> Buffer:
        return reading.read(self, amount, offset)

    def torn_but_free(self) -> set[int]:
        """Return the leaf pages of the freelist as the file has it; they may fail authentication without harm."""
        return reading.torn_but_free(self)

    def xFileSize(self) -> int:  # noqa: N802 - SQLite's name
        """Return the bytes of pages, as SQLite counts them; `_bind` puts a faster form in this one's place."""
        return self._file_size()

    def _file_size(self) -> int:
        if self.access.is_empty and not self._look_again():
            return 0
        size = self.pages.layout.logical_size(self._base.size())
        if not size and self.access.superblock.populated:
            start = self.access.superblock.layout.start
            msg = f"{self.path} has been truncated: its superblock speaks of pages and there are none"
            raise TamperedError(msg, file=self.path, page=1, offset=start)
        return size

    def _look_again(self) -> bool:
        """See whether another process has created the file meanwhile."""
        if not self._base.size() or not self.access.look():
            return False
        self.access.require_keys()
        self._bind()
        return True

    # -- writing -----------------------------------------------------------------------------------------------------

    def xWrite(self, data: Buffer, offset: int) -> None:  # noqa: N802 - SQLite's name
        """Write a page of a database that is being created; afterwards `_bind` puts a faster form in this one's place.

        Raises:
            KeyUnavailableError: The file is locked, or nobody said what key a new one shall have.
            RefusedWriteError: Something would be written unsealed, or the file can't be created safely.
            DiskFullError: There is no room for it.
        """
        if self.access.is_locked:
            self.access.require_keys()
        size = len(data)
        if self.access.is_empty or (size != self.page_size_in_force() and not self.pages.page_count()):
            check_first_page(self.path, data, offset, self.lock_level)
            try:
                if self.access.is_empty:
                    self.access.create(size)
                else:
                    self.access.update(lambda superblock: msgspec.structs.replace(superblock, page_size=size))
            except apsw.FullError as error:
                raise DiskFullError.of(self.path) from error
            self._bind()
        self._write(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        """Cut the file to ``newsize`` bytes of pages.

        Raises:
            RefusedWriteError: It would be cut within a page.
        """
        if self.access.is_empty:
            return
        pages = self.pages
        if not newsize and self.access.superblock.populated:
            # the first transaction is being rolled back: its journal can come back after a power cut, the unlink undone
            self._note_populated(populated=False)
            pages = self.pages
        pages.resized(newsize)
        super().xTruncate(pages.layout.file_size(newsize))

    # -- locks -------------------------------------------------------------------------------------------------------

    def xLock(self, level: int) -> None:  # noqa: N802 - SQLite's name
        """Take a lock; `_bind` puts a faster form in this one's place."""
        self._lock(level)

    def xUnlock(self, level: int) -> None:  # noqa: N802 - SQLite's name
        """Give up a lock; `_bind` puts a faster form in this one's place."""
        self._unlock(level)

    def _lock(self, level: int) -> None:
        """Take a lock; with SHARED see what other processes have done, with the first write lock take over new epochs.

        Raises:
            KeyUnavailableError: The file is locked for want of a key: nothing may be concluded from it.
        """
        if self.access.is_locked:
            self.access.require_keys()
        if self._readonly and level >= apsw.SQLITE_LOCK_RESERVED:
            raise apsw.BusyError  # SQLite tries when it closes a WAL, and takes no for an answer
        super().xLock(level)
        before, self.lock_level = self.lock_level, level
        self.vfs.active.file = self
        try:
            if self.access.is_empty:
                self._look_again()
            elif before < apsw.SQLITE_LOCK_RESERVED <= level:
                if self._pages is not None:
                    self._pages.forget_size()
                self.refresh()
                if level == apsw.SQLITE_LOCK_RESERVED:
                    self.access.heal()
                    self._bind()
        except BaseException:
            super().xUnlock(before)
            self.lock_level = before
            raise

    def _unlock(self, level: int) -> None:
        """Give up a lock; the first committed page is noted in the superblock before EXCLUSIVE is given up."""
        try:
            if self.lock_level >= apsw.SQLITE_LOCK_RESERVED:
                self.write_period += 1
                if self.lock_level == apsw.SQLITE_LOCK_EXCLUSIVE:
                    self._note_pages()
        finally:
            super().xUnlock(level)
            self.lock_level = level

    def _note_pages(self) -> None:
        if self._pages is not None and not self.access.superblock.populated and self._pages.page_count():
            self._note_populated(populated=True)

    def _note_populated(self, *, populated: bool) -> None:
        """Note in the superblock, under the EXCLUSIVE lock held, whether the database has pages."""
        self.access.update(lambda superblock: msgspec.structs.replace(superblock, populated=populated))
        self._bind()

    @contextmanager
    def _alone(self, *, in_write_transaction: bool) -> Iterator[None]:
        """Keep other changes of the superblock out.

        In a write transaction nobody else can be in one: RESERVED on the file in rollback modes, the write lock in WAL mode.
        Outside of one RESERVED is taken here; SQLite (unixLock) grants it in WAL mode only if no other process has the database
        open, so that it excludes whoever could hold the WAL's write lock.

        Raises:
            apsw.BusyError: Somebody else has the lock.
        """
        before = self.lock_level
        with _updates:
            if before >= apsw.SQLITE_LOCK_RESERVED or (in_write_transaction and self.wal is not None):
                yield
                return
            if before < apsw.SQLITE_LOCK_SHARED:
                super().xLock(apsw.SQLITE_LOCK_SHARED)
            try:
                super().xLock(apsw.SQLITE_LOCK_RESERVED)
                yield
            finally:
                super().xUnlock(before)

    def begin_frames(self) -> None:
        """Take over a new epoch, and finish an interrupted update, before the first frame of a transaction is sealed."""
        self.refresh()
        if self.access.is_stale:
            with self._alone(in_write_transaction=True):
                self.access.heal()
            self._bind()

    def update_superblock(
        self,
        change: Callable[[Superblock], Superblock],
        *,
        in_write_transaction: bool = True,
        new_master: memoryview | None = None,
    ) -> None:
        """Change the superblock durably: when this returns, both copies hold the change.

        Call it inside BEGIN IMMEDIATE of the file's connection: that resolves a hot journal first, which nobody may bypass, and
        keeps other writers out. PRAGMA rekey, which can't begin a transaction, says so.

        Raises:
            UsageError: The change does not fit; nothing was written.
            TamperedError: The superblock was altered meanwhile.
            apsw.BusyError: Somebody else is writing.
        """
        with self._alone(in_write_transaction=in_write_transaction):
            self.access.update(change, new_master=new_master)
        self._bind()

    def xCheckReservedLock(self) -> bool:  # noqa: N802 - SQLite's name
        """Tell whether somebody may be writing; SQLite asks right before it looks into a journal that lies there."""
        self.vfs.active.file = self
        return super().xCheckReservedLock()

    # -- controls ----------------------------------------------------------------------------------------------------

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802 - SQLite's name
        """Answer the controls that concern keys and sizes, pass on the others."""
        if op == LOCK_TIMEOUT:
            return False  # locks do not block, SQLite's busy handler waits
        return answer(self, op, ptr) if op in ANSWERED else self.control(op, ptr)

    def watch_reads(self, control: Callable[[int, int], bool] | None) -> None:
        """Let another xFileControl stand in for this object's, or none any more; see `controls.watching`."""
        if control is None:
            self.__dict__.pop("xFileControl", None)
        else:
            self.xFileControl = control  # type: ignore[method-assign, assignment]

    def base_characteristics(self) -> int:
        """Return the device characteristics of the base VFS's file."""
        return super().xDeviceCharacteristics()

    def begin_checkpoint(self) -> None:
        """Take over a new epoch before pages are moved from the WAL into the file, and let the WAL be read in larger pieces."""
        if self._pages is not None:
            self.refresh()
            self._pages.forget_size()
        if self.wal is not None:
            self.wal.begin_checkpoint()

    def end_checkpoint(self) -> None:
        """Read the WAL frame by frame again."""
        if self.wal is not None:
            self.wal.end_checkpoint()

    def xClose(self) -> None:  # noqa: N802 - SQLite's name
        """Close the file and give up its keys."""
        open_files.discard(self)
        tallies.end(self._tally)
        self.vfs.closed(self)
        self.access.close()
        self._pages = None
        for fast in ("xRead", "xWrite", "xFileSize", "xLock", "xUnlock", "xFileControl", "_write", "control"):
            self.__dict__.pop(fast, None)  # they hold keys and this object
        super().xClose()
