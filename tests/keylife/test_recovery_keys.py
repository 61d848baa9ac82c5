"""Recovery keys: whatever a person does to one on the way from paper to keyboard is read right, or found."""

from __future__ import annotations

import itertools
import random
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import heliosvfs
from heliosvfs import Secret, UsageError
from heliosvfs.recovery_keys import GROUPS, format_key, new_recovery_key, parse

KEY = bytes(range(7, 39))
TEXT = format_key(KEY)
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def test_the_form_is_frozen() -> None:
    """What people keep on paper for years has to be read by every later release."""
    assert TEXT == "0W40J2KW-1C60T3GH-1W8124N1-2CA1A5HP-2WC1J6P6-3CE1T7JV-3WG228QB-4CJ2A9M0"
    assert parse(TEXT) == Secret.raw(KEY)


@given(st.binary(min_size=32, max_size=32))
def test_every_key_is_read_as_it_was_written(key: bytes) -> None:
    assert parse(format_key(key)) == Secret.raw(key)


@pytest.mark.parametrize(
    "typed",
    [
        TEXT.lower(),
        TEXT.replace("-", " "),
        TEXT.replace("-", ""),
        TEXT.replace("-", "\n"),
        f"  {TEXT}  \n",
        TEXT.replace("0", "O").replace("1", "l"),
        TEXT.replace("0", "o").replace("1", "I"),
    ],
)
def test_case_separators_and_look_alikes_do_not_count(typed: str) -> None:
    assert parse(typed) == Secret.raw(KEY)


def test_every_mistyped_character_is_found_with_its_group() -> None:
    letters = TEXT.replace("-", "")
    for place, wrong in itertools.product(range(len(letters)), ALPHABET + "U!é"):
        if wrong != letters[place]:
            with pytest.raises(UsageError, match=rf"in group {place // 8 + 1} of 8"):
                parse(letters[:place] + wrong + letters[place + 1 :])


def test_every_swap_of_neighbours_is_found() -> None:
    rng = random.Random(1)
    for _ in range(200):
        letters = format_key(rng.randbytes(32)).replace("-", "")
        for place in range(len(letters) - 1):
            one, two = letters[place : place + 2]
            if one != two:
                with pytest.raises(UsageError, match="mistyped"):
                    parse(letters[:place] + two + one + letters[place + 2 :])


def test_every_swap_of_groups_is_found() -> None:
    groups = TEXT.split("-")
    for one, two in itertools.combinations(range(GROUPS), 2):
        swapped = groups.copy()
        swapped[one], swapped[two] = groups[two], groups[one]
        with pytest.raises(UsageError, match="mistyped"):
            parse("-".join(swapped))


@pytest.mark.parametrize("typed", ["", TEXT[:-1], TEXT + "0", "correct horse battery staple"])
def test_what_is_too_short_or_too_long_is_told_and_not_shown(typed: str) -> None:
    with pytest.raises(UsageError, match="8 groups of 8") as caught:
        parse(typed)
    assert not typed or typed not in str(caught.value)


def test_a_wrong_key_is_not_shown() -> None:
    with pytest.raises(UsageError) as caught:
        parse("Z" + TEXT[1:])
    assert TEXT[1:9] not in str(caught.value)


def test_a_recovery_key_opens_a_database(tmp_path: Path) -> None:
    text = new_recovery_key(random.Random(2).randbytes)
    with closing(heliosvfs.connect(tmp_path / "db", key=bytes(32))) as connection:
        connection.add_key(parse(text), label="recovery")
    heliosvfs.connect(tmp_path / "db", key=parse(text.lower()), create=False).close()
    with pytest.raises(UsageError):
        format_key(bytes(31))
