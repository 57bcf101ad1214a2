"""``together-batches demo``: the bulk cancel at work, on this machine alone."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from together_batches.cli import _loop
from together_batches.cli._exits import Exit
from together_batches.cli._parser import PROGRAM
from together_batches.cli._population import populate
from together_batches.cli._progress import bar
from together_batches.cli._report import print_table
from together_batches.cli._text import draws_on, escape, number, say, table
from together_batches.client import AsyncBatches
from together_batches.emulator import Emulator, Fault, RateLimit, Timing
from together_batches.errors import APIError
from together_batches.outcomes import CancelReport

if TYPE_CHECKING:
    from together_batches.cli._parser import Arguments
    from together_batches.outcomes import CancelOutcome

__all__ = ["demo"]

_KEY = "demo-key"
_STRAY_IDS = ("no-such-job", "odd id/with?#", "..")
"""Two ids that the service does not know, and one that cannot be sent."""


def demo(arguments: Arguments) -> Exit:
    """Cancel many jobs of an emulator, and show how it went."""
    seen: dict[str, CancelOutcome] = {}
    try:
        _loop.run(_demonstrate, arguments, seen)
    except KeyboardInterrupt:
        report = CancelReport(seen.values())
        say(f"interrupted: {number(len(seen))} ids answered: {report}; the jobs were the emulator's own")
        return Exit.INTERRUPTED
    return Exit.DONE


async def _demonstrate(arguments: Arguments, seen: dict[str, CancelOutcome]) -> None:
    jobs = arguments.jobs
    emulator = Emulator(
        api_key=_KEY,
        seed=arguments.seed,
        timing=Timing(canceling=1.0),
        # Low enough to be run into, and high enough to be done with in seconds.
        rate_limit=RateLimit(per_second=max(100.0, jobs / 2), burst=max(50, jobs // 4)),
        faults=_faults(jobs),
    )
    # Key and address are given, so that nothing of the user's environment is used.
    async with emulator, AsyncBatches(_KEY, base_url=emulator.base_url) as batches:
        ids = [*populate(emulator, jobs, arguments.seed), *_STRAY_IDS]
        say(f"An emulator of the service runs on this machine, with {number(jobs)} jobs of mixed fates.")
        say(f"Cancelling them and {len(_STRAY_IDS)} stray ids, 100 at once, until they have really stopped:")
        began = time.monotonic()
        ended = failed = 0
        with bar(len(ids), shown=draws_on(sys.stderr)) as show:

            def on_outcome(outcome: CancelOutcome) -> None:
                nonlocal ended, failed
                seen[outcome.job_id] = outcome
                if outcome.event == "ended":
                    ended += 1
                    failed += not outcome.ok
                stopping = len(seen) - ended
                show(ended, failed, f"{number(stopping)} accepted and stopping" if stopping else "")

            report = await batches.cancel_many(ids, wait=True, on_outcome=on_outcome)
        elapsed = time.monotonic() - began
    _show(report, elapsed, emulator)


def _faults(jobs: int) -> list[Fault]:
    """What goes wrong, in proportion to the number of jobs; and the time that every answer takes."""
    some = max(1, jobs // 100)
    return [
        Fault(on="cancel", chance=0.05, times=some, status=500),
        Fault(on="cancel", chance=0.02, times=max(1, some // 3), lose="answer"),
        Fault(on="cancel", chance=0.3, times=None, delay=0.25),
        Fault(on="cancel", times=None, delay=0.1),
    ]


def _show(report: CancelReport, elapsed: float, emulator: Emulator) -> None:
    print()
    print_table(report)
    print()
    strays = [(failure.job_id, failure.result.words, _reason(failure)) for failure in report.failures]
    for line in table(("STRAY ID", "RESULT", "WHY"), strays):
        print(line)
    print()
    # Of what went wrong on the way nothing is to be seen above, and that is the point: so it is told.
    statuses = Counter(request.status for request in emulator.requests)
    print(
        f"{number(len(report))} ids in {elapsed:.1f} s, each accounted for once. "
        f"On the way, of {number(statuses.total())} requests,\n"
        f"{number(statuses[429])} were refused for their rate, {number(statuses[500])} failed, "
        f"{number(statuses[None])} got no answer; all were repeated."
    )
    print()
    print("Next, with your own jobs (this only looks; without --dry-run it asks first):")
    print("  export TOGETHER_API_KEY=...")
    print(f"  {PROGRAM} cancel --all --dry-run")


def _reason(failure: CancelOutcome) -> str:
    error = failure.error
    return escape(error.message if isinstance(error, APIError) else str(error))
