"""Durable runs: a file of any size in, every answer out, whatever happens in between.

:meth:`AsyncBatches.run` makes and continues a run, which is a directory; here is what it tells of itself, and
:func:`read`, for looking at one, with :func:`to_svg` and :func:`to_html` for its picture.
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
