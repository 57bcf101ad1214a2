"""Durable runs: a file of any size in, every answer out, whatever happens in between.

:meth:`AsyncBatches.run` begins and resumes a run, whose state is a directory. This package contains its events,
report and view, :func:`read` to inspect a run, and :func:`to_svg` and :func:`to_html` to draw it.

A run that outgrows one machine is driven attempt by attempt, by an engine for workflows: :func:`shards` cuts a
dataset, :func:`begin` and :func:`collect` carry out an :class:`Attempt`, and :mod:`together_batches.runs.rules`
decides what is sent next.
"""

from together_batches.runs import rules
from together_batches.runs._binary import BinarySink, BinarySource, Writable
from together_batches.runs._caller_attempt import Save
from together_batches.runs._dataset import RowsFile, ShardRows, rows, shards, write_results
from together_batches.runs._picture.html import to_html
from together_batches.runs._picture.svg import to_svg
from together_batches.runs._plain import attempt_from_dict, shard_from_dict
from together_batches.runs._reading import read
from together_batches.runs._records import Attempt, Shard
from together_batches.runs._single_attempts import begin, collect, recheck
from together_batches.runs._values import (
    AttemptState,
    AttemptView,
    RunEvent,
    RunEventKind,
    RunReport,
    RunState,
    RunView,
    SessionView,
    ShardView,
    UnfinishedJobs,
)

__all__ = [
    "Attempt",
    "AttemptState",
    "AttemptView",
    "BinarySink",
    "BinarySource",
    "RowsFile",
    "RunEvent",
    "RunEventKind",
    "RunReport",
    "RunState",
    "RunView",
    "Save",
    "SessionView",
    "Shard",
    "ShardRows",
    "ShardView",
    "UnfinishedJobs",
    "Writable",
    "attempt_from_dict",
    "begin",
    "collect",
    "read",
    "recheck",
    "rows",
    "rules",
    "shard_from_dict",
    "shards",
    "to_html",
    "to_svg",
    "write_results",
]
