"""The key hierarchy against published vectors, its limits, and what each wrap is bound to."""

from __future__ import annotations

import os
import unicodedata

import msgspec.structs
import pytest
from argon2.low_level import Type, hash_secret_raw

from heliosvfs import keys
from heliosvfs.errors import FormatError, PolicyViolationError, UsageError, WrongKeyError
from heliosvfs.keys import KdfSettings, Secret
from heliosvfs.superblock import Kdf

UUID = bytes(range(16))
SALT = "000102030405060708090a0b0c0d0e0f"
CHEAP = Kdf("argon2id", SALT, memory_kib=8192, passes=1, lanes=1)
RAW = Kdf("hkdf-sha256", SALT)


def test_hkdf_expand_is_that_of_rfc_5869() -> None:
    """Appendix A.1, of which the first 32 bytes of the output are taken."""
    pseudorandom_key = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    info = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
    assert keys.expand(pseudorandom_key, info).hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"


def test_pbkdf2_is_that_of_hashlib() -> None:
    import hashlib  # noqa: PLC0415 - the independent implementation

    kdf = Kdf("pbkdf2-hmac-sha256", SALT, iterations=600_000)
    expected = hashlib.pbkdf2_hmac("sha256", b"passphrase", bytes.fromhex(SALT), 600_000)
    assert keys.derive_kek(Secret.passphrase("passphrase"), kdf) == expected


def test_argon2id_takes_the_parameters_of_its_slot() -> None:
    kdf = Kdf("argon2id", SALT, memory_kib=9000, passes=2, lanes=3)
    expected = hash_secret_raw(b"passphrase", bytes.fromhex(SALT), 2, 9000, 3, 32, Type.ID, 19)
    assert keys.derive_kek(Secret.passphrase("passphrase"), kdf) == expected


def test_a_raw_key_is_extracted_with_the_slots_salt() -> None:
    assert keys.derive_kek(Secret.raw(bytes(32)), RAW) != keys.derive_kek(Secret.raw(bytes(32)), Kdf("hkdf-sha256", "00" * 16))


def test_a_passphrase_is_the_same_however_it_is_typed() -> None:
    composed, decomposed = "Müller Å", unicodedata.normalize("NFD", "Müller Å")
    assert composed != decomposed
    assert Secret.passphrase(composed) == Secret.passphrase(decomposed)
    assert Secret.passphrase("ﬁ") != Secret.passphrase("fi")  # NFC, not NFKC
    assert Secret.passphrase(" x ") != Secret.passphrase("x")


@pytest.mark.parametrize("text", ["", "\ud800", "a\udfffb"])
def test_what_can_not_be_a_passphrase_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Secret.passphrase(text)


def test_a_passphrase_is_never_taken_for_hexadecimal() -> None:
    assert Secret.passphrase("00" * 32).kind == "passphrase"
    assert Secret.passphrase("x'" + "00" * 32 + "'").value == b"x'" + b"00" * 32 + b"'"


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_raw_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"this one has {size}"):
        Secret.raw(bytes(size))


OUTSIDE = [
    Kdf("argon2id", SALT, memory_kib=8191, passes=3, lanes=4),
    Kdf("argon2id", SALT, memory_kib=(1 << 20) + 1, passes=3, lanes=4),
    Kdf("argon2id", SALT, memory_kib=65536, passes=0, lanes=4),
    Kdf("argon2id", SALT, memory_kib=65536, passes=17, lanes=4),
    Kdf("argon2id", SALT, memory_kib=65536, passes=3, lanes=0),
    Kdf("argon2id", SALT, memory_kib=65536, passes=3, lanes=17),
    Kdf("argon2id", SALT, memory_kib=-65536, passes=3, lanes=4),
    Kdf("pbkdf2-hmac-sha256", SALT, iterations=599_999),
    Kdf("pbkdf2-hmac-sha256", SALT, iterations=10_000_001),
    Kdf("scrypt", SALT),
    Kdf("", SALT),
]


@pytest.mark.parametrize("kdf", OUTSIDE, ids=str)
def test_parameters_outside_the_limits_are_never_computed(kdf: Kdf) -> None:
    with pytest.raises(FormatError):
        keys.derive_kek(Secret.passphrase("x"), kdf)


@pytest.mark.parametrize(
    "settings",
    [
        KdfSettings(memory_kib=1024),
        KdfSettings(memory_kib=1 << 21),
        KdfSettings(passes=0),
        KdfSettings(lanes=99),
        KdfSettings(fips_mode=True, iterations=1000),
        KdfSettings(fips_mode=True, iterations=1 << 30),
    ],
    ids=str,
)
def test_settings_outside_the_limits_make_no_slot(settings: KdfSettings) -> None:
    with pytest.raises(UsageError):
        keys.new_kdf(Secret.passphrase("x"), settings, os.urandom)


def test_the_defaults_are_rfc_9106s_second_option_and_owasps_count() -> None:
    argon2 = keys.new_kdf(Secret.passphrase("x"), KdfSettings(), os.urandom)
    assert (argon2.name, argon2.memory_kib, argon2.passes, argon2.lanes) == ("argon2id", 65536, 3, 4)
    pbkdf2 = keys.new_kdf(Secret.passphrase("x"), KdfSettings(fips_mode=True), os.urandom)
    assert (pbkdf2.name, pbkdf2.iterations) == ("pbkdf2-hmac-sha256", 600_000)
    assert keys.new_kdf(Secret.raw(bytes(32)), KdfSettings(fips_mode=True), os.urandom).name == "hkdf-sha256"
    assert argon2.salt != keys.new_kdf(Secret.passphrase("x"), KdfSettings(), os.urandom).salt


def test_fips_mode_computes_no_argon2() -> None:
    with pytest.raises(PolicyViolationError, match="FIPS"):
        keys.derive_kek(Secret.passphrase("x"), CHEAP, fips_mode=True)


def test_a_slot_opens_with_its_key_and_is_bound_to_all_that_it_says() -> None:
    kek, master = os.urandom(32), bytearray(os.urandom(32))
    slot = keys.wrap_slot(UUID, 3, "label", "2030", CHEAP, kek, master, os.urandom)
    assert keys.unwrap_slot(UUID, slot, kek) == master
    renamed = msgspec.structs.replace(slot, label="renamed", created="2031")
    assert keys.unwrap_slot(UUID, renamed, kek) == master
    for change in (
        {"id": 4},
        {"kdf": msgspec.structs.replace(CHEAP, passes=2)},
        {"kdf": msgspec.structs.replace(CHEAP, salt="00" * 16)},
        {"kdf": RAW},
        {"wrapped": slot.wrapped[:-2]},
        {"wrapped": slot.wrapped + "00"},
        {"wrapped": "00" + slot.wrapped[2:]},
        {"wrapped": ""},
        {"wrapped": "no hexadecimal"},
    ):
        with pytest.raises(WrongKeyError):
            keys.unwrap_slot(UUID, msgspec.structs.replace(slot, **change), kek)
    with pytest.raises(WrongKeyError):
        keys.unwrap_slot(bytes(16), slot, kek)
    with pytest.raises(WrongKeyError):
        keys.unwrap_slot(UUID, slot, os.urandom(32))


def test_an_epoch_opens_with_its_master_key_and_is_bound_to_its_number() -> None:
    master, key = bytearray(os.urandom(32)), os.urandom(32)
    epoch = keys.wrap_epoch(UUID, 7, "2030", key, master, os.urandom)
    assert keys.unwrap_epoch(UUID, epoch, master) == key
    for other in (
        lambda: keys.unwrap_epoch(bytes(16), epoch, master),
        lambda: keys.unwrap_epoch(UUID, msgspec.structs.replace(epoch, id=8), master),
        lambda: keys.unwrap_epoch(UUID, msgspec.structs.replace(epoch, cipher="AES-128-GCM"), master),
        lambda: keys.unwrap_epoch(UUID, epoch, bytearray(32)),
    ):
        with pytest.raises(FormatError):
            other()


def test_keys_for_different_purposes_differ() -> None:
    master = bytearray(32)
    assert (
        len(
            {
                bytes(keys.superblock_hmac_key(master)),
                bytes(keys.epoch_wrapping_key(master)),
                bytes(keys.expand(master, b"")),
                bytes(master),
            }
        )
        == 4
    )


def test_wiping_overwrites_in_place() -> None:
    key = bytearray(b"secret")
    view = memoryview(key)
    keys.wipe(key)
    assert bytes(view) == bytes(6)


def test_a_secret_shows_its_kind_alone() -> None:
    secret = Secret.passphrase("hunter2 hunter2")
    assert repr(secret) == str(secret) == f"{secret!s}" == "Secret(passphrase)"
    assert "hunter2" not in f"{[secret]} { ({'key': secret}) }"
