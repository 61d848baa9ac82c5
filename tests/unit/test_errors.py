"""The error tree and the public names: what callers may rely on."""

from __future__ import annotations

import copy
import pickle

import apsw
import pytest

import heliosvfs
from heliosvfs import errors

TREE = {
    "HeliosError": Exception,
    "UsageError": errors.HeliosError,
    "RefusedWriteError": errors.UsageError,
    "ConfigError": errors.HeliosError,
    "KeyUnavailableError": errors.HeliosError,
    "WrongKeyError": errors.HeliosError,
    "FormatError": errors.HeliosError,
    "UnsupportedVersionError": errors.FormatError,
    "TamperedError": errors.HeliosError,
    "DiskFullError": errors.HeliosError,
    "PolicyViolationError": errors.HeliosError,
}
ALSO = {
    "RefusedWriteError": (apsw.IOError, apsw.SQLITE_IOERR_WRITE),
    "KeyUnavailableError": (apsw.AuthError, apsw.SQLITE_AUTH),
    "WrongKeyError": (apsw.NotADBError, apsw.SQLITE_NOTADB),
    "FormatError": (apsw.NotADBError, apsw.SQLITE_NOTADB),
    "UnsupportedVersionError": (apsw.NotADBError, apsw.SQLITE_NOTADB),
    "TamperedError": (apsw.IOError, apsw.SQLITE_IOERR_DATA),
    "DiskFullError": (apsw.FullError, apsw.SQLITE_FULL),
}


def make(name: str) -> errors.HeliosError:
    cls = getattr(errors, name)
    return cls("what, where, what next", file="the.db", page=3, offset=40960) if name == "TamperedError" else cls("what")


def test_the_tree_is_the_one_that_is_drawn() -> None:
    assert set(TREE) == set(errors.__all__)
    for name, parent in TREE.items():
        assert issubclass(getattr(errors, name), parent)
        assert name in (errors.__doc__ or "")


@pytest.mark.parametrize("name", ALSO)
def test_an_error_is_also_sqlites_own_with_its_code(name: str) -> None:
    cls, code = ALSO[name]
    error = make(name)
    assert isinstance(error, cls)
    assert error.extendedresult == code
    assert error.result == code & 0xFF


@pytest.mark.parametrize("name", ["WrongKeyError", "KeyUnavailableError", "FormatError", "TamperedError", "DiskFullError"])
def test_sqlite_is_told_the_right_code_and_the_caller_the_right_class(name: str) -> None:
    """Raised in a VFS method, as ours are."""

    class Raising(apsw.VFS):
        def xOpen(self, *_: object) -> apsw.VFSFile:
            raise make(name)

    vfs = Raising("raising", "")
    try:
        with pytest.raises(getattr(errors, name)) as caught:
            apsw.Connection("db", vfs="raising")
        assert type(caught.value) is getattr(errors, name)
    finally:
        vfs.unregister()


@pytest.mark.parametrize("name", TREE)
def test_an_error_survives_pickle_and_copy(name: str) -> None:
    """Process pools hand exceptions over as pickles; one that can't be made again breaks the pool."""
    error = make(name)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - made here
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_a_tampered_error_says_where() -> None:
    error = errors.TamperedError("what", file="the.db", page=3, offset=40960)
    assert (error.file, error.page, error.offset) == ("the.db", 3, 40960)
    assert (errors.TamperedError("what", file="x").page, errors.TamperedError("what", file="x").offset) == (0, 0)


PUBLIC = {
    "Connection",
    "HeliosVFS",
    "KdfSettings",
    "KeyFile",
    "KeyFromCommand",
    "KeyFromEnvironment",
    "KeySlot",
    "KeySource",
    "Keyring",
    "Secret",
    "connect",
    "default_keyring",
    "__version__",
}


def test_every_public_name_is_there_and_listed() -> None:
    assert set(heliosvfs.__all__) >= PUBLIC | set(TREE)
    assert all(hasattr(heliosvfs, name) for name in heliosvfs.__all__)


def test_every_error_is_public() -> None:
    assert all(getattr(heliosvfs, name) is getattr(errors, name) for name in TREE)
