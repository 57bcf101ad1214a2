"""``together-batches results``."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, cast

import attrs

from together_batches._disk import target_at
from together_batches._plain import line_of, to_dict
from together_batches.cli import _loop
from together_batches.cli._client import connected
from together_batches.cli._exits import Exit
from together_batches.cli._printing import printer
from together_batches.cli._requests import spooled
from together_batches.cli._saving import free
from together_batches.cli._text import as_json, complain, in_ascii, number, say
from together_batches.models import BatchJobStatus
from together_batches.rows import BatchFailure, BatchMissing, BatchResult, BatchStray, BatchSuccess, Usage

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from together_batches.cli._parser import Arguments
    from together_batches.models import BatchJob

__all__ = ["results"]


def results(arguments: Arguments) -> Exit:
    """Write the rows of a finished job, one JSON object a line, and count them."""
    given = arguments.output
    target = None if given is None or given == "-" else free(given, force=arguments.force)
    with ExitStack() as stack:
        requests = None if arguments.requests is None else spooled(arguments.requests, stack)
        return _loop.run(_run, arguments, target, requests)


async def _run(arguments: Arguments, target: Path | None, requests: str | BinaryIO | None) -> Exit:
    tally = _Tally()
    async with connected(arguments) as batches:
        job = await batches.retrieve(arguments.id)
        order = cast("Literal['file', 'input']", arguments.order)
        patience = arguments.patience or 0
        async with batches.results(job, requests=requests, order=order, patience=patience) as rows:
            if target is None:
                async with printer() as out:
                    async for row in rows:
                        tally.count(row)
                        out.line(in_ascii(line_of(row)))
                        await out.room()
            else:
                async with target_at(target, replace=arguments.force) as file:
                    async for row in rows:
                        tally.count(row)
                        await file.write(line_of(row) + b"\n")
                    await file.keep()
    if arguments.json and target is not None:
        print(as_json({"job": to_dict(job), "output": str(target), **tally.to_dict()}))
    elif not arguments.quiet:
        say(str(tally) + (f", in {target}" if target is not None else ""))
    return _end(job, tally)


def _end(job: BatchJob, tally: _Tally) -> Exit:
    if job.status != BatchJobStatus.COMPLETED:
        complain(f"job {job.id} is {job.status}" + (f": {job.error}" if job.error else ""))
        return Exit.ENDED_BADLY
    return Exit.SOME_FAILED if tally.rows[BatchFailure] or tally.rows[BatchMissing] else Exit.DONE


@attrs.define
class _Tally:
    """How many rows of each kind there were, and what they took."""

    rows: Counter[type] = attrs.field(factory=Counter[type])
    usage: Usage = attrs.field(factory=Usage)

    def count(self, row: BatchResult) -> None:
        """Count one row."""
        self.rows[type(row)] += 1
        if isinstance(row, BatchSuccess) and (usage := row.usage) is not None:
            self.usage += usage

    def to_dict(self) -> dict[str, Any]:
        """The figures, for programs."""
        counts = {
            "success": self.rows[BatchSuccess],
            "failure": self.rows[BatchFailure],
            "missing": self.rows[BatchMissing],
            "stray": self.rows[BatchStray],
        }
        return {"counts": counts, "usage": to_dict(self.usage)}

    def __str__(self) -> str:
        words = {BatchSuccess: "answered", BatchFailure: "failed", BatchMissing: "missing", BatchStray: "stray"}
        told = [f"{number(self.rows[kind])} {word}" for kind, word in words.items() if self.rows[kind]]
        text = ", ".join(told) or "no rows"
        usage = self.usage
        if usage.total_tokens:
            text += f"; {number(usage.total_tokens)} tokens"
            text += f" ({number(usage.prompt_tokens)} in, {number(usage.completion_tokens)} out)"
        return text
