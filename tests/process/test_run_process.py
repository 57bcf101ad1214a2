"""A durable run in a process that is killed: what no clean-up could make good is good all the same."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from simulation.kill import killed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_kill_9(tmp_path: Path) -> None:
    """Five times, at random moments: one job for each attempt, and the output is what it is without a kill.

    ``nox -s simulate -- --kill 30`` does it thirty times over a run of 200,000 rows.
    """
    came_of_it = killed(tmp_path, rows=2_000, kills=5, rows_per_job=250, seed=0, say=print)
    assert (came_of_it.kills, came_of_it.jobs) == (5, 16)
