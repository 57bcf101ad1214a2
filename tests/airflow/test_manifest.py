"""When the manifest of a task fails it."""

from __future__ import annotations

import pytest

from together_batches.airflow._manifest import RowsFailedError, check_outcome


@pytest.mark.parametrize(
    ("failures_uri", "expected"),
    [
        (None, r"2 of 3 rows have no valid answer \(2 do not fit the schema\); everything is in s3://b/r"),
        ("s3://b/f", r"\(1 do not fit the schema\); others are in s3://b/f, and everything is in s3://b/r"),
    ],
)
def test_invalid_answers_fail_a_task(failures_uri: str | None, expected: str) -> None:
    """An answer that does not fit the schema is none; it is in the results, and not among the failures."""
    invalid = 1 if failures_uri else 2
    manifest = {
        "rows": 3,
        "succeeded": 1,
        "invalid": invalid,
        "failures_uri": failures_uri,
        "results_uri": "s3://b/r",
    }
    with pytest.raises(RowsFailedError, match=expected):
        check_outcome(manifest, "any")


@pytest.mark.parametrize(
    ("succeeded", "fail_when", "fails"),
    [(3, "any", False), (2, "any", True), (2, "all", False), (0, "all", True), (0, "never", False)],
)
def test_which_rows_fail_a_task(succeeded: int, fail_when: str, fails: bool) -> None:
    """A task fails if any row, or all rows, have no answer, or never; the message says where everything is."""
    manifest = {"rows": 3, "succeeded": succeeded, "failures_uri": "s3://b/f", "results_uri": "s3://b/r"}
    if not fails:
        check_outcome(manifest, fail_when)
        return
    with pytest.raises(
        RowsFailedError, match=rf"{3 - succeeded} of 3 rows have no answer; they are in s3://b/f, and"
    ):
        check_outcome(manifest, fail_when)
