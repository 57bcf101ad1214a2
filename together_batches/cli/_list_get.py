"""The commands ``together-batches list`` and ``together-batches get``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from together_batches.cli._client import connected
from together_batches.cli._command import Common, command, option, service_options
from together_batches.cli._exits import Exit
from together_batches.cli._loop import in_loop
from together_batches.cli._numbers import duration
from together_batches.cli._report import print_list, print_values
from together_batches.cli._selecting import (
    Chosen,
    Filters,
    by_status,
    chosen_jobs,
    filter_options,
    given_ids,
    ids_argument,
)
from together_batches.cli._text import columns, format_time, is_terminal

if TYPE_CHECKING:
    from together_batches.models import BatchJob

__all__ = ["get", "list_jobs"]


@command("list")
@filter_options("jobs of this status; may be repeated")
@option("--newer-than D", "jobs created no longer ago than this", type=duration)
@option("--endpoint E", "jobs of this endpoint, such as /v1/chat/completions")
@option("--input-file ID", "jobs made from this file")
@service_options
def list_jobs(common: Common, **filters: Any) -> Exit:
    """List jobs, newest first: as a table on a terminal, with tabs between the columns
    elsewhere.

    examples:
      together-batches list                         every job, newest first
      together-batches list --status FAILED --newer-than 1d
      together-batches list --json | together-batches cancel - --dry-run
    """
    jobs, _ = chosen = _chosen(common, Filters(**filters))
    if note := chosen.note():
        common.note(note)
    header = ("ID", "STATUS", "DONE", "CREATED", "MODEL")
    print_list(common, jobs, none="no job matches", header=header, row=_row, fields=_fields)
    if jobs and is_terminal(sys.stdout) and not common.json:
        common.note(by_status(jobs))
    return Exit.DONE


@in_loop
async def _chosen(common: Common, filters: Filters) -> Chosen:
    async with connected(common) as batches:
        return await chosen_jobs(batches, filters, finished=True)


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
