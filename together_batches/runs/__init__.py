"""Durable runs: a file of any size in, every answer out, whatever happens in between.

:meth:`AsyncBatches.run` makes and continues a run, which is a directory; here is what it tells of itself, and
:func:`read`, for looking at one.
"""

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
    "read",
]
