"""Positions of pages: an order-preserving map around the lock bytes, with an inverse."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from heliosvfs.layout import GAP_END, GAP_START, Layout

layouts = st.sampled_from([512 << n for n in range(8)]).map(Layout)
numbers = st.integers(1, (1 << 32) - 2)


def near(layout: Layout, number: int) -> int:
    """Return a number that is near the gap in half of the cases."""
    return max(1, layout.first_after_gap - 4 + number % 8) if number % 2 else number


@settings(derandomize=True, max_examples=300)
@given(layout=layouts, number=numbers)
def test_a_page_lies_clear_of_superblocks_and_lock_bytes(layout: Layout, number: int) -> None:
    offset = layout.offset(near(layout, number))
    assert offset >= layout.start >= 32768
    assert offset + layout.page_size <= GAP_START or offset >= GAP_END
    assert (offset - layout.start) % layout.page_size == 0


@settings(derandomize=True, max_examples=300)
@given(layout=layouts, one=numbers, other=numbers)
def test_pages_keep_their_order_and_never_overlap(layout: Layout, one: int, other: int) -> None:
    first, second = sorted((near(layout, one), near(layout, other)))
    if first != second:
        assert layout.offset(second) - layout.offset(first) >= layout.page_size


@settings(derandomize=True, max_examples=300)
@given(layout=layouts, pages=st.integers(0, (1 << 32) - 2))
def test_sizes_have_an_inverse(layout: Layout, pages: int) -> None:
    logical = near(layout, pages) * layout.page_size if pages else 0
    assert layout.logical_size(layout.file_size(logical)) == logical


@settings(derandomize=True, max_examples=300)
@given(layout=layouts, size=st.integers(0, 1 << 41))
@example(layout=Layout(65536), size=GAP_START)
@example(layout=Layout(512), size=GAP_END)
def test_a_file_never_seems_to_hold_more_than_it_does(layout: Layout, size: int) -> None:
    whole = layout.logical_size(size) // layout.page_size
    if whole:
        assert layout.offset(whole) + layout.page_size <= size
    assert layout.offset(whole + 1) + layout.page_size > size
