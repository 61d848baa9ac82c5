"""The frozen vectors, read by the product and by an independent reader written from docs/FORMAT.md."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosvfs
from heliosvfs.keys import Secret, derive_kek, epoch_wrapping_key, superblock_hmac_key
from heliosvfs.pages import KIND_DATABASE
from heliosvfs.vfs import DatabaseFile, files_of
from tests.decoder import reader

HERE = Path(__file__).parent
VECTORS: dict[str, Any] = json.loads((HERE / "vectors.json").read_text())
RAW = bytes.fromhex(VECTORS["raw_key"])
SECRETS = {"raw": RAW, "argon2id": VECTORS["passphrase"], "pbkdf2": VECTORS["passphrase"]}
ROWS = [(n, f"patient {n}", n * 1.5, bytes([n % 256]) * n) for n in range(1, 41)]
SEEN = [(n, f"{name} (seen)" if n % 2 else name, weight, scan) for n, name, weight, scan in ROWS]
EXPECTED = {"plain-pages": ROWS, "with-wal": SEEN, "with-hot-journal": ROWS}


def copy_of(name: str, folder: Path) -> Path:
    """Copy a vector, its WAL and journal, so that recovery does not touch the frozen files."""
    for suffix in ("", "-wal", "-journal"):
        source = HERE / f"{name}.db{suffix}"
        if source.exists():
            shutil.copy(source, folder / f"{name}.db{suffix}")
    return folder / f"{name}.db"


@pytest.mark.parametrize("secret", [RAW, VECTORS["passphrase"]], ids=["raw key", "passphrase"])
@pytest.mark.parametrize("name", EXPECTED)
def test_the_product_reads_a_vector(name: str, secret: str | bytes, tmp_path: Path) -> None:
    """Every released vector opens for ever, its WAL replayed and its hot journal rolled back."""
    with closing(heliosvfs.connect(copy_of(name, tmp_path), key=secret, create=False)) as connection:
        assert connection.execute("SELECT * FROM patient ORDER BY id").fetchall() == EXPECTED[name]
        assert connection.pragma("integrity_check") == "ok"


@pytest.mark.parametrize("secret", [RAW, VECTORS["passphrase"]], ids=["raw key", "passphrase"])
@pytest.mark.parametrize("name", EXPECTED)
def test_the_independent_reader_reads_a_vector(name: str, secret: str | bytes, tmp_path: Path) -> None:
    """What docs/FORMAT.md says is enough to read the files without the product."""
    database = reader.Database(copy_of(name, tmp_path), secret)
    pages = database.pages()
    if name == "with-wal":
        pages = database.with_wal(pages)
    if name == "with-hot-journal":
        pages = database.with_journal(pages)
    reader.write_plain(pages, tmp_path / "plain.db")
    with closing(sqlite3.connect(tmp_path / "plain.db")) as plain:
        assert plain.execute("SELECT * FROM patient ORDER BY id").fetchall() == EXPECTED[name]
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def trailer(sealed: bytes) -> dict[str, str | int]:
    """Return the parts of a page's last 32 bytes."""
    return {
        "tag": sealed[-32:-16].hex(),
        "nonce": sealed[-16:-4].hex(),
        "epoch": int.from_bytes(sealed[-4:-1], "big"),
        "sub_key_number": sealed[-1],
    }


def page_one(file: DatabaseFile, path: Path) -> dict[str, str | int]:
    """Return what the product makes of page 1 as it is on disk, before any recovery."""
    layout, keys = file.pages.layout, file.page_keys()
    start = layout.offset(1)
    sealed = path.read_bytes()[start : start + layout.page_size]
    return {
        "offset": start,
        **trailer(sealed),
        "sub_key": keys.sub_key(sealed[-4:]).hex(),
        "associated_data": (keys.prefix(KIND_DATABASE, sealed[-4:]) + (1).to_bytes(4, "big")).hex(),
        "plaintext_sha256": hashlib.sha256(bytes(file.xRead(layout.page_size, 0))[:-32]).hexdigest(),
    }


def page_one_by_the_reader(database: reader.Database) -> dict[str, str | int]:
    """Return what the independent reader makes of it, with what docs/FORMAT.md says of sub-keys and associated data."""
    start = max(32768, database.page_size)
    sealed = database.data[start : start + database.page_size]
    epoch = database.epochs[int.from_bytes(sealed[-4:-1], "big")]
    return {
        "offset": start,
        **trailer(sealed),
        "sub_key": reader.expand(epoch, b"heliosvfs 1 sub-key" + database.uuid + sealed[-1:]).hex(),
        "associated_data": (b"heliosvfs1\1" + database.uuid + sealed[-4:] + b"\0\0\0\1").hex(),
        "plaintext_sha256": hashlib.sha256(database.pages()[1][: database.page_size - 32]).hexdigest(),
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_every_value_between_secret_and_page_is_as_frozen(name: str, tmp_path: Path) -> None:
    """Both implementations derive the values that the vector states."""
    values = VECTORS["files"][name]
    path = copy_of(name, tmp_path)
    database = reader.Database(path, RAW)
    assert database.document["uuid"] == values["uuid"]
    assert database.page_size == values["page_size"]
    assert database.master.hex() == values["master_key"]
    assert database.epochs[1].hex() == values["epoch_1_key"]
    for slot in database.document["slots"]:
        assert reader.kek_of(slot["kdf"], SECRETS[slot["label"]]).hex() == values["keks"][slot["label"]]
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs="heliosvfs")
    with closing(connection):
        for slot in files_of(connection)[0].access.superblock.slots:
            secret = SECRETS[slot.label]
            kek = derive_kek(Secret.raw(secret) if isinstance(secret, bytes) else Secret.passphrase(secret), slot.kdf)
            assert kek.hex() == values["keks"][slot.label]
        connection.execute(f"PRAGMA key = \"x'{RAW.hex()}'\"")
        file = files_of(connection)[0]
        assert page_one(file, path) == values["page_1"]
    assert page_one_by_the_reader(database) == values["page_1"]
    master = bytes.fromhex(values["master_key"])
    assert superblock_hmac_key(master).hex() == values["superblock_hmac_key"]
    assert epoch_wrapping_key(master).hex() == values["epoch_wrapping_key"]


@pytest.mark.parametrize("name", VECTORS["flaws"])
def test_a_flaw_is_refused_with_its_own_error(name: str, tmp_path: Path) -> None:
    """Nothing of a damaged page reaches the caller, by whichever statement it is read."""
    path = tmp_path / "flaw.db"
    shutil.copy(HERE / f"flaw-{name}.db", path)

    def read() -> None:
        with closing(heliosvfs.connect(path, key=RAW, create=False)) as connection:
            for row in connection.execute("SELECT * FROM patient"):
                assert row in ROWS
            connection.pragma("integrity_check")

    with pytest.raises(heliosvfs.HeliosError) as caught:
        read()
    assert type(caught.value).__name__ == VECTORS["flaws"][name]
    assert path.read_bytes() == (HERE / f"flaw-{name}.db").read_bytes()


@pytest.mark.parametrize("name", sorted(set(VECTORS["flaws"]) - {"pages-cut-off", "all-pages-cut-off"}))
def test_the_independent_reader_refuses_a_flaw(name: str) -> None:
    """A flaw is a flaw by the document, not only by the product (cut-off pages show in SQLite's own header)."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - the reader has no error classes of its own worth telling apart
        reader.Database(HERE / f"flaw-{name}.db", RAW).pages()


def test_the_reader_shares_no_code_with_the_product() -> None:
    """An independent reader that imported the product would prove nothing."""
    source = Path(reader.__file__).read_text()
    assert "import heliosvfs" not in source
    assert "from heliosvfs" not in source
