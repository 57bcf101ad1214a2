"""What lists show of jobs; most of it is tested with the command ``list``."""

from __future__ import annotations

from together_batches.cli._listing.columns import by_status
from together_batches.models import BatchJob


def test_by_status() -> None:
    """Jobs are counted by status, the most frequent first, including jobs without a status."""
    jobs = [BatchJob(id=str(n), status=status) for n, status in enumerate(["A", "B", "B", None])]
    assert by_status(jobs) == "2 B, 1 A, 1 without a status"
