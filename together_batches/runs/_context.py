"""What all parts of the engine work with."""

from __future__ import annotations

import attrs

from together_batches.runs._journal import Journal
from together_batches.runs._records import Run
from together_batches.runs._rules import Caution
from together_batches.runs._telling import Telling
from together_batches.runs._trouble import Trouble
from together_batches.runs._verbs import Time, Verbs
from together_batches.runs._workshop import Workshop

__all__ = ["RunContext"]


@attrs.frozen(kw_only=True)
class RunContext:
    """One call of a run: what it is about, what it may use, and where it notes what it does.

    ``is_resumed`` says that an earlier call began the run.
    """

    run: Run
    verbs: Verbs
    time: Time
    journal: Journal
    workshop: Workshop
    trouble: Trouble
    tell: Telling
    caution: Caution
    is_resumed: bool
