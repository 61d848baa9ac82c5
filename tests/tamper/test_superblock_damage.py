"""The superblock: whatever is altered in it is refused, or was in one copy alone and the other copy holds."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import heliosvfs
from heliosvfs.superblock import COPY_SIZE
from tests.tamper.samples import KEY, OTHER_KEY, Sample, flip, forge, make, outcome, piece, put, read, rehash

COPIES = {"A": (0,), "B": (1,), "both": (0, 1)}
FIELDS = {
    "magic": 0,
    "end of the magic": 15,
    "version": 17,
    "copy index": 18,
    "padding of the prefix": 19,
    "copy size": 22,
    "offset of B": 26,
    "start of the pages": 30,
    "sequence": 39,
    "JSON length": 43,
    "end of the prefix": 63,
    "JSON brace": 64,
    "behind the JSON": 9000,
    "HMAC": 16320,
    "end of the HMAC": 16351,
    "SHA-256": 16352,
    "end of the SHA-256": 16383,
}
MEMBERS = ("uuid", "page_size", "slots", "salt", "wrapped", "epochs", "created", "populated", "features", "page_root")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make(tmp_path_factory.mktemp("original"), "closed")


@pytest.fixture
def sample(original: Sample, tmp_path: Path) -> Sample:
    return original.copy(tmp_path)


def place_of(sample: Sample, field: str) -> int:
    """Return the offset within a copy of a field, or of the first byte of a JSON member's value."""
    return FIELDS[field] if field in FIELDS else piece(sample.path, 0, COPY_SIZE).index(f'"{field}":'.encode()) + len(field) + 4


@pytest.mark.parametrize("field", [*FIELDS, *MEMBERS])
@pytest.mark.parametrize("copies", [(0,), (1,)], ids=["A", "B"])
def test_a_flipped_byte_in_one_copy_harms_nothing(sample: Sample, field: str, copies: tuple[int, ...]) -> None:
    """The other copy is whole, and the next writer puts the damaged one right."""
    for index in copies:
        flip(sample.path, index * COPY_SIZE + place_of(sample, field))
    assert outcome(sample) == sample.states[-1]
    with closing(heliosvfs.connect(sample.path, key=KEY)) as connection:
        connection.execute("INSERT INTO t VALUES(1000, 'new')")
    assert piece(sample.path, 64, COPY_SIZE - 128) == piece(sample.path, COPY_SIZE + 64, COPY_SIZE - 128)


@pytest.mark.parametrize("field", [*FIELDS, *MEMBERS])
def test_a_flipped_byte_in_both_copies_is_refused(sample: Sample, field: str) -> None:
    for index in (0, 1):
        flip(sample.path, index * COPY_SIZE + place_of(sample, field))
    error = outcome(sample)
    assert isinstance(error, heliosvfs.FormatError if "magic" in field else heliosvfs.TamperedError)
    assert str(sample.path) in str(error)


def alter(sample: Sample, field: str, copies: tuple[int, ...]) -> None:
    """Flip a byte of copies and put their SHA-256 right, as anybody can."""
    for index in copies:
        flip(sample.path, index * COPY_SIZE + place_of(sample, field))
        put(sample.path, index * COPY_SIZE, rehash(bytearray(piece(sample.path, index * COPY_SIZE, COPY_SIZE))))


STRUCTURE = ("copy index", "copy size", "offset of B", "start of the pages", "JSON length", "JSON brace")
STRUCTURE += ("page_size", "slots", "epochs", "populated", "features")
CONTENT = ("padding of the prefix", "sequence", "end of the prefix", "behind the JSON", "HMAC", "end of the HMAC")
CONTENT += ("created", "page_root")
UNLOCKING = ("uuid", "salt", "wrapped")


@pytest.mark.parametrize("field", CONTENT)
@pytest.mark.parametrize("copies", COPIES.values(), ids=COPIES)
def test_a_whole_copy_with_a_wrong_hmac_is_tampering(sample: Sample, field: str, copies: tuple[int, ...]) -> None:
    """No crash leaves one, so it is no reason to take the other copy (rule 8)."""
    alter(sample, field, copies)
    altered = sample.path.read_bytes()
    assert isinstance(outcome(sample), heliosvfs.TamperedError)
    assert sample.path.read_bytes() == altered


@pytest.mark.parametrize("field", UNLOCKING)
@pytest.mark.parametrize("copies", COPIES.values(), ids=COPIES)
def test_what_a_key_slot_is_bound_to_can_not_be_altered(sample: Sample, field: str, copies: tuple[int, ...]) -> None:
    """Without a key to check an HMAC with nobody can tell an altered slot from a wrong key: refused is refused."""
    alter(sample, field, copies)
    altered = sample.path.read_bytes()
    assert isinstance(outcome(sample), (heliosvfs.WrongKeyError, heliosvfs.TamperedError))
    assert sample.path.read_bytes() == altered


@pytest.mark.parametrize("field", STRUCTURE)
@pytest.mark.parametrize("copies", COPIES.values(), ids=COPIES)
def test_a_copy_that_makes_no_sense_is_refused_or_replaced(sample: Sample, field: str, copies: tuple[int, ...]) -> None:
    """In one copy it may count as damage, and then the next writer puts the authentic one in its place."""
    alter(sample, field, copies)
    found = outcome(sample)
    assert isinstance(found, heliosvfs.HeliosError) or (copies != (0, 1) and found == sample.states[-1])
    if not isinstance(found, heliosvfs.HeliosError):
        with closing(heliosvfs.connect(sample.path, key=KEY)) as connection:
            connection.execute("INSERT INTO t VALUES(1000, 'new')")
        assert piece(sample.path, 64, COPY_SIZE - 128) == piece(sample.path, COPY_SIZE + 64, COPY_SIZE - 128)


def slot(document: dict[str, Any]) -> dict[str, Any]:
    return document["slots"][0]


def nested(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()[:-1] + b', "later": ' + b"[" * 6000 + b"]" * 6000 + b"}"


def broken_utf8(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()[:-1] + b', "later": "\xff\xfe"}'


def greedy(document: dict[str, Any]) -> object:
    return slot(document).update(kdf={"name": "argon2id", "salt": "00" * 16, "memory_kib": 1 << 40, "passes": 3, "lanes": 4})


def endless(document: dict[str, Any]) -> object:
    return slot(document).update(kdf={"name": "pbkdf2-hmac-sha256", "salt": "00" * 16, "iterations": 1 << 40})


def weak(document: dict[str, Any]) -> object:
    return slot(document).update(kdf={"name": "argon2id", "salt": "00" * 16, "memory_kib": 8, "passes": 1, "lanes": 1})


def short_salt(document: dict[str, Any]) -> object:
    cheap = {"memory_kib": 8192, "passes": 1, "lanes": 1}
    return slot(document).update(kdf={"name": "argon2id", "salt": "00", **cheap})


FORGERIES = {
    "a salt that is no hexadecimal": lambda document: slot(document)["kdf"].update(salt="zz" * 16),
    "a salt that is too short": short_salt,
    "a wrapped key that is no hexadecimal": lambda document: slot(document).update(wrapped="zz" * 60),
    "a wrapped key that is too short": lambda document: slot(document).update(wrapped="00" * 20),
    "a negative slot number": lambda document: slot(document).update(id=-1),
    "a slot number of 41 bits": lambda document: slot(document).update(id=1 << 40),
    "no slots": lambda document: document.update(slots=[]),
    "33 slots": lambda document: document.update(slots=[{**slot(document), "id": n} for n in range(33)]),
    "no epochs": lambda document: document.update(epochs=[]),
    "epoch 0": lambda document: document["epochs"][0].update(id=0),
    "an unknown cipher": lambda document: document["epochs"][0].update(cipher="none"),
    "an epoch key that is no hexadecimal": lambda document: document["epochs"][0].update(wrapped="?"),
    "an unknown KDF": lambda document: slot(document)["kdf"].update(name="none"),
    "a KDF that wants a terabyte": greedy,
    "a KDF that takes for ever": endless,
    "a KDF below the floor": weak,
    "a page size of 3": lambda document: document.update(page_size=3),
    "a page size as text": lambda document: document.update(page_size="512"),
    "no reserved bytes": lambda document: document.update(reserved_bytes=0),
    "a short UUID": lambda document: document.update(uuid="00"),
    "a UUID that is no hexadecimal": lambda document: document.update(uuid="g" * 32),
    "another UUID": lambda document: document.update(uuid="00" * 16),
    "not populated": lambda document: document.update(populated=False),
    "an unknown compatible feature": lambda document: document["features"].update(compatible=["later"]),
    "a list": lambda _: b"[]",
    "nothing": lambda _: b"",
    "not UTF-8": broken_utf8,
    "deep nesting": nested,
    "a number of 9000 digits": lambda document: json.dumps(document).encode()[:-1] + b', "later": ' + b"9" * 9000 + b"}",
    "a member twice": lambda document: json.dumps(document).encode()[:-1] + b', "page_size": 8192}',
}


@pytest.mark.parametrize("secret", [KEY, "a passphrase"], ids=["raw key", "passphrase"])
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_superblock_is_refused_with_an_error_of_ours(sample: Sample, forgery: str, secret: str | bytes) -> None:
    """Before the HMAC can be checked everything in it comes from a stranger: no exception of a library, no exhausted machine."""
    forge(sample.path, FORGERIES[forgery])
    forged = sample.path.read_bytes()
    with pytest.raises(heliosvfs.HeliosError) as caught:
        heliosvfs.connect(sample.path, key=secret).close()
    assert str(sample.path) in str(caught.value)
    assert sample.path.read_bytes() == forged


@pytest.mark.parametrize("lead", [0, 1, 1000])
@pytest.mark.parametrize("copies", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["same key", "other key"])
def test_a_superblock_of_another_file_opens_nothing(
    original: Sample, sample: Sample, tmp_path: Path, copies: tuple[int, ...], key: bytes, lead: int
) -> None:
    """Both keys are tried: whose file it then is, its pages are of another."""
    other = tmp_path / "other"
    with closing(heliosvfs.connect(other, key=key, page_size=512, journal_mode="delete")) as connection:
        for label in range(lead and 1):
            connection.add_key(bytes(32), label=str(label))
    for index in copies:
        put(sample.path, index * COPY_SIZE, piece(other, index * COPY_SIZE, COPY_SIZE))
        if lead > 1:
            forge(sample.path, lambda _: None, (index,), sequence=lead)
    for secret in {KEY, key}:
        found = outcome(sample, key=secret)
        assert isinstance(found, heliosvfs.HeliosError) or (copies != (0, 1) and found == original.states[-1])


def test_an_earlier_copy_does_not_bring_a_revoked_slot_back(tmp_path: Path) -> None:
    """What an interrupted update, or an attacker, left in one copy is not what holds."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.add_key(OTHER_KEY, label="leaver")
        earlier = path.read_bytes()[: 2 * COPY_SIZE]
        connection.revoke_key("leaver")
    for index in (0, 1):
        left = tmp_path / f"left{index}"
        shutil.copy(path, left)
        put(left, index * COPY_SIZE, earlier[index * COPY_SIZE : (index + 1) * COPY_SIZE])
        with pytest.raises(heliosvfs.WrongKeyError):
            heliosvfs.connect(left, key=OTHER_KEY).close()
        heliosvfs.connect(left, key=KEY).close()


LENGTHS = [1, 16, 63, 64, 700, COPY_SIZE - 1, COPY_SIZE, COPY_SIZE + 1, 2 * COPY_SIZE - 1, 2 * COPY_SIZE]
LENGTHS += [2 * COPY_SIZE + n for n in (1, 511, 512, 513, 1024, 5000, 9 * 512, 10239)]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_truncated_file_is_refused(sample: Sample, length: int) -> None:
    """Without create, what is left of a file is never taken for a database that somebody has just begun."""
    whole = sample.path.read_bytes()
    assert length < len(whole)
    sample.path.write_bytes(whole[:length])
    error = outcome(sample)
    assert isinstance(error, heliosvfs.HeliosError)
    assert str(sample.path) in str(error)
    assert sample.path.read_bytes() == whole[:length]


@pytest.mark.parametrize("length", [length for length in LENGTHS if length >= COPY_SIZE])
def test_a_truncated_file_is_not_created_anew(sample: Sample, length: int) -> None:
    """One whole copy says that there were pages: connect() with its default create=True must not begin over them."""
    whole = sample.path.read_bytes()
    sample.path.write_bytes(whole[:length])
    with (
        pytest.raises(heliosvfs.TamperedError),
        closing(heliosvfs.connect(sample.path, key=KEY)) as connection,
    ):
        connection.execute("SELECT * FROM t").fetchall()
    assert sample.path.read_bytes() == whole[:length]


def test_a_slot_of_another_file_does_not_open_this_one(sample: Sample, tmp_path: Path) -> None:
    """Somebody who may write the file puts a slot in that his own key opens, taken from his own file."""
    other = tmp_path / "other"
    heliosvfs.connect(other, key=OTHER_KEY).close()
    theirs = piece(other, 64, COPY_SIZE)
    document = json.loads(theirs[: int.from_bytes(piece(other, 40, 4), "big")])
    forge(sample.path, lambda mine: mine["slots"].append({**document["slots"][0], "id": 1}))
    with pytest.raises(heliosvfs.HeliosError):
        read(sample.path, key=OTHER_KEY)
    with pytest.raises(heliosvfs.TamperedError):
        read(sample.path)
