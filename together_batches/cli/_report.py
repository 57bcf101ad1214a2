"""Output of results: lines and table of a bulk cancel, lists, and values that were read one by one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from together_batches.cli._client import connected
from together_batches.cli._exits import Exit, code_of_many
from together_batches.cli._loop import in_loop
from together_batches.cli._selecting import by_status
from together_batches.cli._text import (
    as_json,
    block,
    columns,
    escape,
    format_count,
    is_terminal,
    print_error,
    print_lines,
    table,
)
from together_batches.errors import BatchesError
from together_batches.outcomes import CancelResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from together_batches.cli._command import Common
    from together_batches.client import AsyncBatches
    from together_batches.outcomes import CancelOutcome, CancelReport

__all__ = ["outcome_json", "outcome_line", "print_each", "print_list", "print_table", "print_values"]

T = TypeVar("T")

_MEANINGS = {
    CancelResult.CANCELLED: ("green", "stopped; rows that were done are kept"),
    CancelResult.CANCELING: ("cyan", "accepted; they stop in a moment"),
    CancelResult.ALREADY_FINISHED: ("yellow", "had ended before"),
    CancelResult.NOT_FOUND: ("red", "the service knows no such job"),
    CancelResult.DENIED: ("red", "the key was refused"),
    CancelResult.FAILED: ("red", "refused, or the request failed, or the id is invalid"),
    CancelResult.NOT_ATTEMPTED: ("red", "nothing was sent"),
}


def outcome_line(outcome: CancelOutcome) -> str:
    """Return ``ID<TAB>result<TAB>detail``; the detail is the error, or else the job's status."""
    status = outcome.job.status if outcome.job else None
    return "\t".join(columns((outcome.job_id, outcome.result, str(outcome.error) if outcome.error else status)))


def outcome_json(outcome: CancelOutcome) -> str:
    """Return the outcome with all fields as JSON on one line."""
    return as_json(outcome)


def print_table(report: CancelReport) -> None:
    """Print the number of jobs with each result, and its meaning, on standard output."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    drawn.add_column("RESULT", no_wrap=True)
    drawn.add_column("JOBS", justify="right", no_wrap=True)
    drawn.add_column("WHICH MEANS")
    finished = [outcome for outcome in report if outcome.result is CancelResult.ALREADY_FINISHED]
    anyway = sum(outcome.completed_anyway for outcome in finished)
    for result, count in report.counts.items():
        style, meaning = _MEANINGS[result]
        if result is CancelResult.ALREADY_FINISHED:
            count -= anyway
            ended = by_status(outcome.job for outcome in finished if outcome.job and not outcome.completed_anyway)
            meaning = f"{meaning}: {ended}" if ended else meaning
        if count:
            drawn.add_row(result.words, format_count(count), escape(meaning), style=style)
    if anyway:
        drawn.add_row(
            "completed anyway", format_count(anyway), "accepted, and they completed all the same", style="yellow"
        )
    Console(file=sys.stdout, highlight=False, markup=False).print(drawn)


def print_each(
    common: Common,
    ids: Sequence[str],
    verb: Callable[[AsyncBatches, str], Awaitable[T]],
    shown: Callable[[str, T], str],
    *,
    between: str = "",
) -> Exit:
    """Call a verb for each id concurrently; print the results in the order of the ids, and then the errors."""
    errors: list[BatchesError | None] = []
    texts: list[str] = []
    for job_id, answer in zip(ids, _each(common, ids, verb), strict=True):
        if isinstance(answer, BatchesError):
            errors.append(answer)
            print_error(f"{job_id}: {answer}" if len(ids) > 1 else str(answer))
        else:
            texts.append(shown(job_id, answer))
    print(between.join(texts), end="")
    return code_of_many(errors, len(ids))


def print_list(
    common: Common,
    values: Sequence[T],
    *,
    none: str,
    header: Sequence[str],
    row: Callable[[T], Sequence[str]],
    fields: Callable[[T], Sequence[str]],
) -> None:
    """Print a list: a table of rows on a terminal, otherwise lines of fields, or with ``--json`` an array."""
    if common.json:
        print("[" + ",\n".join(map(as_json, values)) + "]")
    elif not values:
        common.note(none)
    elif is_terminal(sys.stdout):
        print_lines(table(header, [row(value) for value in values]))
    else:
        print_lines("\t".join(fields(value)) for value in values)


def print_values(common: Common, ids: Sequence[str], verb: Callable[[AsyncBatches, str], Awaitable[object]]) -> Exit:
    """Read the value of each id and print it: a block of lines, or with ``--json`` one object a line."""

    def shown(_: str, value: object) -> str:
        return f"{as_json(value)}\n" if common.json else block(value)

    return print_each(common, ids, verb, shown, between="" if common.json else "\n")


@in_loop
async def _each(
    common: Common, ids: Sequence[str], verb: Callable[[AsyncBatches, str], Awaitable[T]]
) -> list[T | BatchesError]:
    import asyncio

    async def answer(batches: AsyncBatches, job_id: str) -> T | BatchesError:
        try:
            return await verb(batches, job_id)
        except BatchesError as error:
            return error

    async with connected(common) as batches, asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer(batches, job_id)) for job_id in ids]
    return [task.result() for task in tasks]
