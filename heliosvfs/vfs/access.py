"""Whether a database file may be read, and with which keys: its superblock, what was presented for it, and its unlocked keys.

A file is `locked` (a superblock, no key), `empty` (no superblock yet) or open. Keys change while it is open when another
process adds an epoch; `generation` counts that, and whoever derived something from the old keys derives it anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec.structs

from heliosvfs.errors import (
    FormatError,
    HeliosError,
    KeyUnavailableError,
    PolicyViolationError,
    TamperedError,
    UnsupportedVersionError,
    WrongKeyError,
)
from heliosvfs.keyring import InheritedKey, MasterKey, UnauthenticSuperblockError, adopt, unlock
from heliosvfs.keys import superblock_hmac_key
from heliosvfs.notices import tell
from heliosvfs.pages import FileKeys
from heliosvfs.superblock import SEQUENCE_OFFSET, Superblock, UnverifiedCopy
from heliosvfs.vfs.creation import NewDatabase
from heliosvfs.vfs.credentials import Credential
from heliosvfs.vfs.superblocks import BaseFile, SuperblockStore

__all__ = ["Access"]


class Access:
    """Access to one open file.

    Attributes:
        path: Path of the file.
        credential: What was presented for it.
        generation: Counts the changes of its keys.
    """

    def __init__(
        self, base: BaseFile, path: str, credential: Credential | None, inherit: Callable[[], InheritedKey | None]
    ) -> None:
        """Work on ``base``; `look` reads the superblock.

        Args:
            base: The base VFS's file.
            path: Its path.
            credential: What was presented for it.
            inherit: Asked for a key when the file is to be created and nothing was presented.
        """
        self.path = path
        self.credential = credential
        self.generation = 0
        self._base = base
        self._store = SuperblockStore(base, path)
        self._inherit = inherit
        self._copy: UnverifiedCopy | None = None
        self._sequence = b""  # its sequence number as it stands on disk
        self._master: MasterKey | None = None
        self._keys: FileKeys | None = None
        self._retired: list[FileKeys] = []
        self._refusal: WrongKeyError | None = None
        self._new: NewDatabase | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the file has no superblock yet."""
        return self._copy is None

    @property
    def is_locked(self) -> bool:
        """Whether there is a superblock and no key for it."""
        return self._copy is not None and self._keys is None

    @property
    def superblock(self) -> Superblock:
        """The superblock; verified unless the file is locked.

        Raises:
            FormatError: The file is still empty.
        """
        if self._copy is None:
            raise self.nothing_in_it()
        return self._copy.superblock

    def nothing_in_it(self) -> FormatError:
        """Return the error for a file in which there is no database yet, or no more."""
        size = self._base.size()
        why = f"ends after {size} bytes: its creation was interrupted, or it was truncated" if size else "is empty"
        return FormatError(f"{self.path} {why}; there is no database in it")

    def require_keys(self) -> FileKeys:
        """Return the file's keys; a file that is still empty gets its keys here.

        Raises:
            KeyUnavailableError: The file is locked, or nobody said what key a new file shall have.
        """
        if self._keys is not None:
            return self._keys
        if self._refusal is not None:
            raise type(self._refusal)(str(self._refusal))
        if self._copy is not None:
            msg = (
                f"{self.path} is encrypted and no key was given: use heliosvfs.connect(path, key=...), a registered key "
                "(file:...?heliosvfs_key=NAME), Connection.attach(path, name, key=...) or PRAGMA key before anything else"
            )
            raise KeyUnavailableError(msg)
        if self._new is None:
            presented = self.credential is not None and self.credential.secret is not None
            self._new = NewDatabase.prepare(self.credential if presented else self._inherit(), self.path)
        return self._new.keys

    @property
    def master(self) -> MasterKey:
        """The unlocked master key.

        Raises:
            KeyUnavailableError: As `require_keys`.
        """
        self.require_keys()
        if self._new is not None:
            return self._new.master
        assert self._master is not None  # noqa: S101 - require_keys saw to it
        return self._master

    def heirloom(self) -> InheritedKey | None:
        """Return the key of the slot that this file was opened with, for a copy of it; None while it is not open.

        Raises:
            KeyUnavailableError: There is no such slot any more.
        """
        if self._copy is None or self._master is None or self.credential is None or self.credential.secret is None:
            return None
        try:
            # without the KDF, unless another process has given this secret a new slot
            self._derive(self._copy, self.credential).release()
        except WrongKeyError:
            inherited = None
        else:
            inherited = self._master.heirloom(self.credential.secret, self.superblock.slots)
        if inherited is None:
            msg = (
                f"{self.path}: the key that this connection was opened with has lost its slot, so no copy is made under it: "
                "say what key the copy shall have, Connection.vacuum_into(path, key=...), or connect with a key that is in force"
            )
            raise KeyUnavailableError(msg)
        return inherited

    def look(self) -> bool:
        """Read the superblock of a file that was empty, and unlock it where a secret is at hand; tell whether there is one.

        Raises:
            FormatError: It is not a heliosvfs database.
            TamperedError: Its superblock is damaged, or the file ends before its first page.
            WrongKeyError: The secret does not open it.
        """
        copy = self._store.load()
        if copy is None:
            return False
        start = copy.superblock.layout.start
        if copy.superblock.populated and self._base.size() <= start:
            msg = f"{self.path} has been truncated: its superblock speaks of pages and there are none"
            raise TamperedError(msg, file=self.path, page=1, offset=start)
        self._take_over(copy)
        if self.credential is not None and self.credential.secret is not None:
            self._unlock(copy, self.credential)
        return True

    def require_known_features(self, *, writing: bool) -> None:
        """Refuse to write to a file with features that only a later release knows how to keep.

        Raises:
            UnsupportedVersionError: There are such features.
        """
        if writing and self._copy is not None and self._copy.superblock.features.read_only_compatible:
            names = ", ".join(self._copy.superblock.features.read_only_compatible)
            msg = f"{self.path} uses features that this release can't write ({names}): open it read-only, or upgrade heliosvfs"
            raise UnsupportedVersionError(msg)

    def present(self, credential: Credential) -> None:
        """Unlock the file with a secret, check the secret if it is unlocked, or keep it for a file still empty.

        Raises:
            WrongKeyError: The secret opens no slot.
            TamperedError: It opens one, and the superblock was altered.
        """
        if self._copy is None:
            if self._new is not None:
                self._new.discard()
                self._new = None
        elif self._keys is None:
            self._unlock(self._copy, credential)
        else:
            self._derive(self._copy, credential).release()
        self.credential = credential

    def opens_with(self, credential: Credential) -> bool:
        """Tell whether a secret has a slot in the superblock of this unlocked file; the master key remembers which."""
        assert self._copy is not None  # noqa: S101 - it is unlocked
        try:
            self._derive(self._copy, credential).release()
        except (WrongKeyError, PolicyViolationError):
            return False
        return True

    def _derive(self, copy: UnverifiedCopy, credential: Credential) -> MasterKey:
        assert credential.secret is not None  # noqa: S101 - callers checked
        try:
            return unlock(copy, credential.secret, fips_mode=credential.settings.fips_mode)
        except UnauthenticSuperblockError:
            raise self._altered() from None
        except HeliosError as error:
            msg = f"{self.path}: {error}"
            raise type(error)(msg) from None

    def _altered(self) -> TamperedError:
        msg = f"{self.path}: the superblock's HMAC is wrong: it was altered by someone without the key"
        return TamperedError(msg, file=self.path)

    def _unlock(self, copy: UnverifiedCopy, credential: Credential) -> None:
        try:
            master = self._derive(copy, credential)
        except WrongKeyError as error:
            self._refusal = error
            tell("UNLOCK", self.path, error=error)
            raise
        self._refusal = None
        try:
            self._require_authentic(master, copy, credential)
        except BaseException:
            master.release()
            raise
        tell("UNLOCK", self.path)
        self._master = master
        if self._new is not None:  # another process created the file first: its keys hold, not the ones prepared here
            self._new.discard()
            self._new = None
        self._rekey(copy)

    def _rekey(self, copy: UnverifiedCopy) -> None:
        """Take over a superblock whose HMAC is right; keys are made anew only where epochs or layout differ."""
        assert self._master is not None  # noqa: S101 - callers checked
        before, after = self._copy, copy.superblock
        self._take_over(copy)
        if before is not None:  # what only an older superblock lacks is not removed: another thread may just have added it
            self._master.forget({slot.kdf.salt for slot in before.superblock.slots} - {slot.kdf.salt for slot in after.slots})
        if self._keys is not None and before is not None:
            if (before.superblock.epochs, before.superblock.page_size) == (after.epochs, after.page_size):
                return
            self._retired.append(self._keys)  # a sealer made from them may be in the middle of a transaction
            # what was dropped is under no page and no frame, and nobody reads a state from before: rotation saw to that
            dropped = {epoch.id for epoch in before.superblock.epochs} - {epoch.id for epoch in after.epochs}
            for keys in self._retired:
                keys.forget(dropped)
        self._keys = FileKeys.of(after, self._master.key)
        self.generation += 1

    def _take_over(self, copy: UnverifiedCopy) -> None:
        self._copy = copy
        self._sequence = copy.superblock.sequence.to_bytes(8, "big")

    def create(self, page_size: int) -> None:
        """Write both copies of the superblock of a new file, durably.

        Raises:
            KeyUnavailableError: Nobody said what key it shall have.
        """
        self.require_keys()
        new = self._new
        assert new is not None  # noqa: S101 - the file is empty, so require_keys prepared it
        copy = self._store.write(new.superblock(page_size), new.master.hmac_key)
        tell("CREATE", self.path, uuid=copy.superblock.uuid)
        self._master, self._new = new.master, None
        new.keys.wipe()
        self._rekey(copy)

    def is_current(self) -> bool:
        """Tell whether the superblock on disk is the one in force, and no update of it was interrupted: a read of 8 bytes.

        Copy A is enough for that: a new epoch is used only once both copies hold it.
        """
        return self._base.read(8, SEQUENCE_OFFSET) == self._sequence and not self._store.is_stale

    def refresh(self, *, begun: bool = False) -> None:
        """Read the superblock again if another process has changed it; with ``begun``, or is in the middle of that.

        Raises:
            TamperedError: Its HMAC is wrong.
        """
        if self._copy is not None and self._master is not None and self._store.has_changed(self.superblock.sequence, begun=begun):
            copy = self._verified()
            if copy.sealed != self._copy.sealed:
                self._rekey(copy)

    def _verified(self) -> UnverifiedCopy:
        copy = self._store.load()
        assert self._master is not None  # noqa: S101 - callers checked
        if copy is None:
            raise self._altered()
        if not copy.is_authentic(self._master.hmac_key):
            self._follow(copy)
        self._require_authentic(self._master, copy, self.credential)
        return copy

    def _follow(self, copy: UnverifiedCopy) -> None:
        """Take over a master key that another process has put in the place of the one in hand, if our secret still opens it.

        Raises:
            WrongKeyError: Our secret was not among those that kept their slots.
            TamperedError: There is no new master key: the superblock was altered.
        """
        if self.credential is None or self.credential.secret is None:
            raise self._altered()
        try:
            master = self._derive(copy, self.credential)
        except WrongKeyError:
            msg = f"{self.path}: the master key was replaced, and the key that this connection was opened with has lost its slot"
            lost = WrongKeyError(msg)
            tell("UNLOCK", self.path, error=lost)
            raise lost from None
        assert self._master is not None  # noqa: S101 - callers checked
        self._master.release()
        self._master = master

    def _require_authentic(self, master: MasterKey, newest: UnverifiedCopy, credential: Credential | None) -> None:
        """Require that each whole copy was written by a key holder, not just the newest.

        While a master key is being replaced a crash leaves the copies under two: then the older one is that of the update just
        before, the secret that opens the newer one opens it as well, and its HMAC is right under the master key found there.

        Raises:
            TamperedError: A copy was altered.
        """
        for copy in self._store.copies:
            if copy.is_authentic(master.hmac_key):
                continue
            if copy.superblock.sequence != newest.superblock.sequence - 1 or credential is None or credential.secret is None:
                raise self._altered()
            try:
                self._derive(copy, credential).release()
            except WrongKeyError:
                raise self._altered() from None

    def update(self, change: Callable[[Superblock], Superblock], *, new_master: memoryview | None = None) -> None:
        """Change the superblock durably, under a RESERVED lock that the caller holds; afterwards both copies hold the change.

        Args:
            change: Returns the superblock as it shall be.
            new_master: The master key that the result is under, if it is another one; it is taken over.

        Raises:
            UsageError: The change does not fit; nothing was written.
            TamperedError: The superblock was altered meanwhile.
        """
        self.require_keys()
        copy = self._verified()
        changed = change(copy.superblock)
        numbered = msgspec.structs.replace(changed, sequence=copy.superblock.sequence + 1)
        self._replace(copy, numbered, new_master)
        differences = _differences(copy.superblock, changed) | ({} if new_master is None else {"new_master_key": True})
        if differences:
            tell("KEYS CHANGED", self.path, **differences)

    def _replace(self, copy: UnverifiedCopy, numbered: Superblock, new_master: memoryview | None) -> None:
        if new_master is None:
            self._rekey(self._store.write(numbered, self.master.hmac_key))
            return
        written = self._store.write(numbered, superblock_hmac_key(new_master))
        self.master.release()
        self._master = adopt(copy.superblock.uuid, new_master)
        self._rekey(written)

    @property
    def is_stale(self) -> bool:
        """Whether the copies were found different: an update was interrupted, and the next writer finishes it."""
        return self._keys is not None and self._store.is_stale

    def heal(self) -> None:
        """Finish an interrupted update, under a RESERVED lock that the caller holds: afterwards both copies are equal."""
        if self.is_stale:
            self.update(lambda superblock: superblock)

    def close(self) -> None:
        """Wipe what this file alone used, and give up the master key."""
        if self._new is not None:
            self._new.discard()
            self._new = None
        for keys in (*self._retired, *([self._keys] if self._keys else ())):
            keys.wipe()
        self._retired.clear()
        self._keys = None
        if self._master is not None:
            self._master.release()
            self._master = None


def _differences(before: Superblock, after: Superblock) -> dict[str, Any]:
    """Say what a change of the superblock did to keys: labels of slots, and how many data keys there are."""
    old, new = {slot.kdf.salt: slot.label for slot in before.slots}, {slot.kdf.salt: slot.label for slot in after.slots}
    found: dict[str, Any] = {}
    if added := sorted(new[salt] for salt in new.keys() - old.keys()):
        found["slots_added"] = added
    if removed := sorted(old[salt] for salt in old.keys() - new.keys()):
        found["slots_removed"] = removed
    if before.epochs != after.epochs:
        found["data_keys"] = len(after.epochs)
    return found
