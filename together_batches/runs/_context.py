"""State shared by all parts of the engine."""

from __future__ import annotations

import attrs

from together_batches.runs._api import Clock, RunApi
from together_batches.runs._attempts import AttemptStore
from together_batches.runs._events import EventSink
from together_batches.runs._records import Run
from together_batches.runs._rules import Caution
from together_batches.runs._run_directory import RunDirectory
from together_batches.runs._trouble import Trouble

__all__ = ["RunContext"]


@attrs.frozen(kw_only=True)
class RunContext:
    """Context of one call of a run: its subject, its resources, and where it records its steps.

    ``is_resumed`` is true if an earlier call began the run.
    """

    run: Run
    api: RunApi
    time: Clock
    store: AttemptStore
    run_directory: RunDirectory
    trouble: Trouble
    emit: EventSink
    caution: Caution
    is_resumed: bool
