"""``together-batches list`` and ``together-batches get``."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from together_batches._plain import to_dict
from together_batches.cli import _loop
from together_batches.cli._client import connected
from together_batches.cli._exits import Exit, code_of_many
from together_batches.cli._selecting import Chosen, by_status, chosen_jobs, typed
from together_batches.cli._text import as_json, block, complain, escape, is_terminal, moment, print_lines, say, table
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from together_batches.cli._parser import Arguments
    from together_batches.client import AsyncBatches
    from together_batches.models import BatchJob

__all__ = ["get", "list_jobs"]


def list_jobs(arguments: Arguments) -> Exit:
    """Print the jobs that the filters choose, newest first."""
    jobs, _ = chosen = _loop.run(_listed, arguments)
    if note := chosen.note():
        _tell(arguments, note)
    if arguments.json:
        print("[" + ",\n".join(as_json(to_dict(job)) for job in jobs) + "]")
    elif not jobs:
        _tell(arguments, "no job matches")
    elif is_terminal(sys.stdout):
        print_lines(table(("ID", "STATUS", "DONE", "CREATED", "MODEL"), [_for_eyes(job) for job in jobs]))
        _tell(arguments, by_status(jobs))
    else:
        print_lines("\t".join(_for_programs(job)) for job in jobs)
    return Exit.DONE


async def _listed(arguments: Arguments) -> Chosen:
    async with connected(arguments) as batches:
        return await chosen_jobs(batches, arguments, finished=True)


def get(arguments: Arguments) -> Exit:
    """Print these jobs as they now stand, in the order in which they were named."""
    ids = typed(arguments)
    found = _loop.run(_got, arguments, ids)
    errors: list[BatchesError] = []
    blocks: list[str] = []
    for job_id, job in zip(ids, found, strict=True):
        if isinstance(job, BatchesError):
            errors.append(job)
            complain(f"{job_id}: {job}" if len(ids) > 1 else str(job))
        elif arguments.json:
            print(as_json(to_dict(job)))
        else:
            blocks.append(block(to_dict(job)))
    print("\n".join(blocks), end="")
    return code_of_many(errors, len(ids))


async def _got(arguments: Arguments, ids: list[str]) -> list[BatchJob | BatchesError]:
    async with connected(arguments) as batches, asyncio.TaskGroup() as group:
        reads = [group.create_task(_retrieved(batches, job_id)) for job_id in ids]
    return [read.result() for read in reads]


async def _retrieved(batches: AsyncBatches, job_id: str) -> BatchJob | BatchesError:
    try:
        return await batches.retrieve(job_id)
    except BatchesError as error:
        return error


def _for_eyes(job: BatchJob) -> tuple[str, ...]:
    done = "-" if job.progress is None else f"{job.progress:.0f} %"
    return escape(job.id), escape(job.status or "-"), done, moment(job.created_at), escape(job.model_id or "-")


def _for_programs(job: BatchJob) -> tuple[str, ...]:
    """The columns that the reference names; what is absent is ``-``, so that every line has as many."""
    return (
        escape(job.id),
        escape(job.status or "-"),
        "-" if job.progress is None else f"{job.progress:g}",
        moment(job.created_at),
        moment(job.completed_at),
        escape(job.endpoint or "-"),
        escape(job.model_id or "-"),
        escape(job.input_file_id or "-"),
        escape(job.output_file_id or "-"),
        escape(job.error_file_id or "-"),
    )


def _tell(arguments: Arguments, text: str) -> None:
    if not arguments.quiet:
        say(text)
