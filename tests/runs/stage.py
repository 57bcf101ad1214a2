"""The setting of a run: an input of ten rows, the fate of each of them, and the events."""

from __future__ import annotations

import json
from inspect import iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any

import attrs

from together_batches import AsyncBatches, jsonl
from together_batches.emulator import Answer, Timing
from together_batches.runs import RunEventKind
from together_batches.runs._options import Options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from together_batches import BatchRequest
    from together_batches.runs import RunEvent, RunReport

ROWS = 10
QUICK = Timing(validating=0, running=0, canceling=0)


def requests(count: int = ROWS) -> Iterator[BatchRequest]:
    for number in range(count):
        yield jsonl.chat_request(f"row-{number}", model="m", messages=[{"role": "user", "content": f"{number}"}])


def options(**changes: Any) -> Options:
    """Return the options of a run, with the defaults of :meth:`AsyncBatches.run`."""
    parameters = signature(AsyncBatches.run).parameters
    defaults = {field.name: parameters[field.name].default for field in attrs.fields(Options)}
    return Options(**{**defaults, **changes})


class Fates:
    """The outcomes of rows, for each time they are sent; without a plan they are answered."""

    def __init__(self) -> None:
        self.planned: dict[str, list[Any]] = {}
        self.requested: dict[str, dict[int, Any]] = {}
        self.round = 0

    def __call__(self, row: Any) -> Any:
        planned = self.planned.get(row["custom_id"], [])
        # The emulator may repeat the call for the same sending, and must get the same outcome.
        sending = self.requested.setdefault(row["custom_id"], {})
        if self.round not in sending:
            sending[self.round] = (
                planned.pop(0) if planned else Answer(body={"choices": [], "usage": {"total_tokens": 3}})
            )
        return sending[self.round]


class Runner:
    """Run one input, three rows to a job, and keep the events."""

    def __init__(self, batches: AsyncBatches, source: Any, output: Path, fates: Fates) -> None:
        self.batches = batches
        self.source = source
        self.output = output
        self.directory = output.with_name(f"{output.name}.run")
        self.failures = output.with_name("out.failures.jsonl")
        self.events: list[RunEvent] = []
        self.fates = fates

    async def __call__(self, **options: Any) -> RunReport:
        self.events.clear()
        source = options.pop("source", self.source)
        on_event = options.pop("on_event", None)

        def note(event: RunEvent) -> None:
            self.events.append(event)
            if event.kind == RunEventKind.COLLECTED:
                self.fates.round += 1
            if on_event is not None:
                on_event(event)

        if iscoroutinefunction(on_event):
            options["on_event"] = on_event
        defaults = {"max_rows_per_job": 3, "poll_interval": 0.01, "max_jobs": 1, "on_event": note}
        return await self.batches.run(source, options.pop("output", self.output), **{**defaults, **options})

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_bytes().splitlines()]

    @property
    def kinds(self) -> list[RunEventKind]:
        return [event.kind for event in self.events]
