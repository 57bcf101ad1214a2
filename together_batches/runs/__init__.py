"""Durable runs: a file of any size in, every answer out, whatever happens in between.

:meth:`AsyncBatches.run` begins and resumes a run, whose state is a directory. This package contains its events,
report and view, :func:`read` to inspect a run, and :func:`to_svg` and :func:`to_html` to draw it.
"""

from together_batches.runs._picture.html import to_html
from together_batches.runs._picture.svg import to_svg
from together_batches.runs._reading import read
from together_batches.runs._values import (
    AttemptState,
    AttemptView,
    RunEvent,
    RunEventKind,
    RunReport,
    RunState,
    RunView,
    ShardView,
    UnfinishedJobs,
)

__all__ = [
    "AttemptState",
    "AttemptView",
    "RunEvent",
    "RunEventKind",
    "RunReport",
    "RunState",
    "RunView",
    "ShardView",
    "UnfinishedJobs",
    "read",
    "to_html",
    "to_svg",
]
