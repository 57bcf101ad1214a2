"""The commands ``together-batches list`` and ``get``: the choice of jobs by filters, and the output of values."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from together_batches.cli._command import Common, command, option, service_options
from together_batches.cli._exits import Exit, code_of_many
from together_batches.cli._ids import given_ids, ids_argument
from together_batches.cli._loop import connected, in_loop
from together_batches.cli._numbers import duration
from together_batches.cli._text import (
    as_json,
    block,
    columns,
    count_of,
    format_count,
    format_time,
    is_terminal,
    print_error,
    print_lines,
    table,
)
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    import click

    from together_batches.client import AsyncBatches
    from together_batches.models import BatchJob

    F = TypeVar("F", bound=Callable[..., object])

T = TypeVar("T")


# --- the choice of jobs


def _complete_status(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from together_batches.models import BatchJobStatus

    return [status for status in BatchJobStatus if status.startswith(incomplete.upper())]


def filter_options(status: str) -> Callable[[F], F]:
    """Add the filters that commands share; ``status`` is the help of ``--status``."""

    def add(function: F) -> F:
        older = "jobs created longer ago than this: 90s, 2h, 3d, 1h30m"
        older_than = option("--older-than D", older, "created_before", type=duration)
        model = option(
            "--model M", "jobs of this model, once they have been validated; may be repeated", "models", multiple=True
        )
        return option("--status S", status, multiple=True, complete=_complete_status)(model(older_than(function)))

    return add


class Chosen(NamedTuple):
    """The jobs that match the filters, and those that fail to match only because they name no model."""

    jobs: list[BatchJob]
    nameless: list[BatchJob]

    def note(self) -> str | None:
        """Return a line about jobs that were omitted because they name no model, if any."""
        if not self.nameless:
            return None
        name, were = ("names", "was") if len(self.nameless) == 1 else ("name", "were")
        jobs = count_of(len(self.nameless), "job")
        return f"note: {jobs} that {name} no model (yet) {were} left: {by_status(self.nameless)}"


async def chosen_jobs(
    batches: AsyncBatches, *, status: Sequence[str], models: Sequence[str], finished: bool = False, **filters: Any
) -> Chosen:
    """Return the jobs that match the filters: only unfinished ones, unless a status or ``finished`` is given.

    The other filters are those of :meth:`AsyncBatches.list`; ages are measured by the service's clock.
    """
    jobs = await batches.list(status=status or None, **filters)
    if not (status or finished):
        jobs = [job for job in jobs if not job.is_terminal]
    if not models:
        return Chosen(jobs, [])
    return Chosen([job for job in jobs if job.model_id in models], [job for job in jobs if job.model_id is None])


def by_status(jobs: Iterable[BatchJob]) -> str:
    """Return the number of jobs by status, the most frequent first: ``30 IN_PROGRESS, 10 VALIDATING``."""
    counts = Counter(str(job.status or "without a status") for job in jobs)
    return ", ".join(f"{format_count(count)} {status}" for status, count in counts.most_common())


# --- the output of values


@in_loop
async def print_each(
    common: Common,
    ids: Sequence[str],
    verb: Callable[[AsyncBatches, str], Awaitable[T]],
    shown: Callable[[str, T], str],
    *,
    between: str = "",
) -> Exit:
    """Call a verb for each id concurrently; print the results in the order of the ids, and then the errors."""
    import asyncio

    async def answer_of(batches: AsyncBatches, job_id: str) -> T | BatchesError:
        try:
            return await verb(batches, job_id)
        except BatchesError as error:
            return error

    async with connected(common) as batches, asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer_of(batches, job_id)) for job_id in ids]
    errors: list[BatchesError | None] = []
    texts: list[str] = []
    for job_id, answer in zip(ids, (task.result() for task in tasks), strict=True):
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


# --- the commands


@command("list")
@filter_options("jobs of this status; may be repeated")
@option("--newer-than D", "jobs created no longer ago than this", "created_after", type=duration)
@option("--endpoint E", "jobs of this endpoint, such as /v1/chat/completions")
@option("--input-file ID", "jobs made from this file", "input_file_id")
@service_options
@in_loop
async def list_jobs(common: Common, **filters: Any) -> Exit:
    """List jobs, newest first: as a table on a terminal, with tabs between the columns
    elsewhere.

    examples:
      together-batches list                         every job, newest first
      together-batches list --status FAILED --newer-than 1d
      together-batches list --json | together-batches cancel - --dry-run
    """
    async with connected(common) as batches:
        jobs, _ = chosen = await chosen_jobs(batches, finished=True, **filters)
    if note := chosen.note():
        common.note(note)
    header = ("ID", "STATUS", "DONE", "CREATED", "MODEL")
    print_list(common, jobs, none="no job matches", header=header, row=_row, fields=_fields)
    if jobs and is_terminal(sys.stdout) and not common.json:
        common.note(by_status(jobs))
    return Exit.DONE


@command("get")
@ids_argument("ids of jobs", required=True)
@service_options
def get(common: Common, ids: tuple[str, ...]) -> Exit:
    """Show jobs as they now stand.

    examples:
      together-batches get ID
      together-batches get ID ID --json     one JSON object a line
    """
    return print_values(common, given_ids(ids), lambda batches, job_id: batches.retrieve(job_id))


def _row(job: BatchJob) -> tuple[str, ...]:
    done = None if job.progress is None else f"{job.progress:.0f} %"
    return columns((job.id, job.status, done, format_time(job.created_at), job.model_id))


def _fields(job: BatchJob) -> tuple[str, ...]:
    """Return the columns that the reference names."""
    return columns(
        (
            job.id,
            job.status,
            None if job.progress is None else f"{job.progress:g}",
            format_time(job.created_at),
            format_time(job.completed_at),
            job.endpoint,
            job.model_id,
            job.input_file_id,
            job.output_file_id,
            job.error_file_id,
        )
    )
