"""Damage of any kind, anywhere, several at once: what is still answered was written once, and nothing ends the process."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import heliosvfs
from heliosvfs.superblock import COPY_SIZE
from tests.tamper.samples import FIRST_PAGE, FRAME, KEY, OTHER_KEY, PAGE, SUFFIXES, Sample, make, outcome, piece, put

MODES = ("closed", "wal", "delete", "persist")
UNITS = {"": (FIRST_PAGE, PAGE), "-wal": (32, FRAME), "-journal": (512, PAGE + 8)}

Damage = tuple[str, int, int, int, bytes]

damages = st.tuples(
    st.sampled_from(
        ["flip", "overwrite", "zero", "truncate", "append", "move a unit", "swap halves of a unit", "take from another"]
    ),
    st.integers(0, 1 << 20),
    st.integers(0, 1 << 20),
    st.integers(1, 255),
    st.binary(min_size=1, max_size=40),
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bytes], Sample]:
    folder = tmp_path_factory.mktemp("originals")
    return {(mode, key): make(folder / f"{mode}{key[0]}", mode, key=key) for mode in MODES for key in (KEY, OTHER_KEY)}


def inflict(path: Path, suffix: str, other: Path, damage: Damage) -> None:
    """Damage one file."""
    kind, first, second, mask, data = damage
    content = bytearray(path.read_bytes())
    size = len(content)
    if not size:
        return
    begin, unit = UNITS[suffix]
    units = max(1, (size - begin) // unit)
    source, target = begin + first % units * unit, begin + second % units * unit
    at = first % size
    if kind == "flip":
        content[at] ^= mask
    elif kind == "overwrite":
        content[at : at + len(data)] = data
    elif kind == "zero":
        content[at : at + mask * 8] = bytes(len(content[at : at + mask * 8]))
    elif kind == "truncate":
        content = content[:at]
    elif kind == "append":
        content += data * mask
    elif kind == "move a unit":
        content[target : target + unit] = content[source : source + unit]
    elif kind == "swap halves of a unit":
        half = unit // 2
        content[target : target + unit] = content[target + half : target + unit] + content[target : target + half]
    else:
        theirs = piece(other, target, unit) if other.exists() else b""
        content[target : target + len(theirs)] = theirs
    path.write_bytes(content)


@settings(max_examples=250, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mode=st.sampled_from(MODES),
    places=st.lists(st.tuples(st.sampled_from(SUFFIXES), damages), min_size=1, max_size=4),
    key=st.sampled_from([KEY, OTHER_KEY]),
)
def test_whatever_is_damaged_only_what_was_written_is_read(
    originals: dict[tuple[str, bytes], Sample], tmp_path: Path, mode: str, places: list[tuple[str, Damage]], key: bytes
) -> None:
    """Every row is held against all that was ever written; a database without journal gives a state that was committed."""
    sample = originals[mode, KEY].copy(tmp_path / "sample")
    other = originals[mode, key]
    for suffix, damage in places:
        if sample.beside(suffix).exists():
            inflict(sample.beside(suffix), suffix, other.beside(suffix), damage)
    left = {suffix: sample.beside(suffix).exists() for suffix in SUFFIXES}
    found = outcome(sample)
    if isinstance(found, (heliosvfs.HeliosError, apsw.CorruptError)):
        assert left[""] == sample.path.exists()
    elif mode in ("closed", "wal"):
        assert found in sample.states


@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(min_size=0, max_size=200),
    size=st.sampled_from([0, 1, 512, COPY_SIZE, 2 * COPY_SIZE, 50_000]),
    suffix=st.sampled_from(SUFFIXES),
)
def test_a_file_of_somebody_elses_making_is_refused_or_empty(
    originals: dict[tuple[str, bytes], Sample], tmp_path: Path, data: bytes, size: int, suffix: str
) -> None:
    """In the place of the database, of its WAL or of its journal."""
    sample = originals["closed", KEY].copy(tmp_path / "sample")
    sample.beside(suffix).write_bytes((data * (size // len(data) + 1))[:size] if data else bytes(size))
    found = outcome(sample)
    if suffix:
        assert isinstance(found, heliosvfs.HeliosError) or found == sample.states[-1]
    else:
        assert isinstance(found, heliosvfs.HeliosError)


def test_the_damages_reach_what_they_are_meant_to(originals: dict[tuple[str, bytes], Sample], tmp_path: Path) -> None:
    """A guard for the tests above: undamaged, each sample gives its last state."""
    for mode in MODES:
        sample = originals[mode, KEY].copy(tmp_path / "sample")
        assert outcome(sample) == sample.states[-1]
        put(sample.path, FIRST_PAGE + PAGE, bytes(PAGE))
        assert not isinstance(outcome(sample), dict)
