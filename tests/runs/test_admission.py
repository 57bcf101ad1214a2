"""When the next job of a run may be created."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from together_batches.runs._admission import Load, Stop, admission

from .stage import options

if TYPE_CHECKING:
    from together_batches.runs._options import Options


@pytest.mark.parametrize(
    ("limits", "load", "expected"),
    [
        (options(max_jobs=1), Load(), "now"),
        (options(max_jobs=1), Load(jobs=1), "later"),
        (options(max_jobs=9, max_enqueued_rows=30), Load(enqueued_rows=20), "now"),
        (options(max_jobs=9, max_enqueued_rows=30), Load(enqueued_rows=21), "later"),
        (options(max_jobs=9, stop_after_rows=30), Load(sent_rows=20), "now"),
        (options(max_jobs=9, stop_after_tokens=30), Load(tokens=29), "now"),
    ],
)
def test_limits(limits: Options, load: Load, expected: str) -> None:
    """Limits apply to what is in flight: a job waits until there is room for all of it."""
    assert admission(limits, load, 10) == expected


@pytest.mark.parametrize(
    ("limits", "load", "reason"),
    [
        (
            options(max_jobs=1, stop_after_rows=30),
            Load(sent_rows=21, jobs=1),
            "21 rows were sent, the next job has 10, and .* 30",
        ),
        (options(max_jobs=1, stop_after_tokens=1000), Load(tokens=1000), "1 000 tokens were used, and .* 1 000"),
    ],
)
def test_the_end_of_spending(limits: Options, load: Load, reason: str) -> None:
    """No job is created beyond the budget; the reason has the figures."""
    answer = admission(limits, load, 10)
    assert isinstance(answer, Stop)
    assert re.search(reason, answer.reason)
