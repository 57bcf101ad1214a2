"""Tests of the ids of jobs as callers pass them."""

from __future__ import annotations

from typing import Any

import pytest

from together_batches import BatchJob
from together_batches._jobs.job_ids import by_ids, checked_ids


@pytest.mark.parametrize("wrong", ["job-1", b"job-1", BatchJob(id="job-1"), 7, None, bytearray(b"x").hex])
def test_one_id_where_many_are_expected_is_refused(wrong: Any) -> None:
    """A single id is refused: a string is an iterable of letters, which is never meant."""
    with pytest.raises(TypeError, match="iterable"):
        checked_ids(wrong, verb_for_one="cancel")


def test_jobs_are_found_by_ids_in_either_case() -> None:
    """An id may be spelled in either case; the caller's spelling is the key, and an exact match comes first."""
    lower, upper, other = BatchJob(id="abc"), BatchJob(id="ABC"), BatchJob(id="x")
    assert by_ids([lower, upper, other], ["ABC", "X", "absent"]) == {"ABC": upper, "X": other}
    assert by_ids([lower], ["aBc"]) == {"aBc": lower}
    assert by_ids([], ["abc"]) == {}
