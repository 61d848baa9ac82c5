"""Where pages lie, also where no test can make a file: around the lock bytes and at SQLite's limits."""

from __future__ import annotations

import pytest

from heliosvfs.layout import GAP_END, GAP_SIZE, GAP_START, Layout, is_page_size

SIZES = [512 << n for n in range(8)]
LOCKED = range(0x40000000, 0x40000000 + 512)  # os.h: PENDING_BYTE, RESERVED_BYTE, SHARED_FIRST and SHARED_SIZE


@pytest.mark.parametrize("size", SIZES)
def test_the_first_page_lies_behind_both_superblocks(size: int) -> None:
    assert Layout(size).offset(1) == max(32768, size)
    assert Layout(size).offset(2) == max(32768, size) + size


@pytest.mark.parametrize("size", SIZES)
def test_no_page_touches_the_gap(size: int) -> None:
    layout = Layout(size)
    last, first = layout.first_after_gap - 1, layout.first_after_gap
    assert layout.offset(last) + size == GAP_START
    assert layout.offset(first) == GAP_END == GAP_START + GAP_SIZE
    assert GAP_START <= LOCKED[0] <= LOCKED[-1] < GAP_END
    assert max(SIZES) <= GAP_SIZE


@pytest.mark.parametrize("size", SIZES)
def test_pages_lie_side_by_side_but_for_the_gap(size: int) -> None:
    layout = Layout(size)
    for page in (1, 2, layout.first_after_gap - 2, layout.first_after_gap, layout.first_after_gap + 1, (1 << 32) - 3):
        assert layout.offset(page + 1) == layout.offset(page) + size


@pytest.mark.parametrize("size", SIZES)
def test_sqlites_own_lock_page_is_the_one_that_it_never_uses(size: int) -> None:
    """SQLite skips the page that holds the lock bytes as it counts them, with or without a gap of ours."""
    assert Layout(size).lock_page == 0x40000000 // size + 1


@pytest.mark.parametrize("size", SIZES)
def test_sizes_translate_both_ways(size: int) -> None:
    layout = Layout(size)
    around = layout.first_after_gap
    for pages in (0, 1, 2, 100, around - 2, around - 1, around, around + 1, around + 1000, (1 << 32) - 2):
        logical = pages * size
        assert layout.logical_size(layout.file_size(logical)) == logical
        if pages:
            assert layout.file_size(logical) == layout.offset(pages) + size
    assert layout.file_size(0) == layout.start


@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_ends_in_the_gap_has_the_pages_before_it(size: int) -> None:
    layout = Layout(size)
    whole = layout.logical_size(GAP_START)
    assert {layout.logical_size(GAP_START + cut) for cut in (0, 1, 512, GAP_SIZE - 1, GAP_SIZE)} == {whole}
    assert layout.logical_size(GAP_END + 1) == whole + 1


@pytest.mark.parametrize("size", SIZES)
def test_a_file_without_pages_has_none(size: int) -> None:
    assert {Layout(size).logical_size(cut) for cut in (0, 1, 16384, 32768, Layout(size).start)} == {0}


def test_page_sizes_are_sqlites() -> None:
    assert [size for size in range(70000) if is_page_size(size)] == SIZES
    assert not is_page_size(131072)
    assert not is_page_size(-512)
