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
        (options(max_jobs=1), Load(in_flight={(1, 1): 10}), "later"),
        (options(max_jobs=9, max_enqueued_rows=30), Load(in_flight={(1, 1): 15, (2, 1): 5}), "now"),
        (options(max_jobs=9, max_enqueued_rows=30), Load(in_flight={(1, 1): 15, (2, 1): 6}), "later"),
        (options(max_jobs=9, stop_after_rows=30), Load(sent_rows=20), "now"),
        (options(max_jobs=9, stop_after_tokens=30), Load(tokens=29), "now"),
        (options(max_jobs=9, stop_after_cost=1.5), Load(cost=1.49), "now"),
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
            Load(sent_rows=21, in_flight={(1, 1): 10}),
            "21 rows were sent, the next job has 10, and .* 30",
        ),
        (options(max_jobs=1, stop_after_tokens=1000), Load(tokens=1000), "1 000 tokens were used, and .* 1 000"),
        (options(max_jobs=1, stop_after_cost=1.5), Load(cost=1.52), r"cost \$1.52 at list prices, and .* \$1.50"),
    ],
)
def test_the_end_of_spending(limits: Options, load: Load, reason: str) -> None:
    """No job is created beyond the budget; the reason has the figures."""
    answer = admission(limits, load, 10)
    assert isinstance(answer, Stop)
    assert re.search(reason, answer.reason)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(failures_in_a_row=2), "now"),
        (Load(failures_in_a_row=2, in_doubt={(1, 1)}), "later"),
        (Load(failures_in_a_row=3), "later"),
        (Load(seem_cancelled={(1, 1)}), "later"),
    ],
)
def test_bad_ends(load: Load, expected: str) -> None:
    """No job is created as long as another may turn out to be cancelled, or the third in a row to have failed."""
    assert admission(options(max_jobs=9), load, 10) == expected
