"""Records of a run as values, compressed for the ledger."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from together_batches.runs._records import packed, unpacked


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_numbers_of_lines_are_kept(numbers: list[int]) -> None:
    """Line numbers survive encoding; those of a shard without bad lines take no space."""
    assert list(unpacked(packed(numbers))) == numbers
    assert list(unpacked(b"")) == []
