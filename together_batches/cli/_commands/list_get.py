"""The commands ``together-batches list`` and ``get``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

from together_batches.cli._account.client import connected
from together_batches.cli._account.options import Common, service_options
from together_batches.cli._inputs.ids import ids_argument, ids_or_input
from together_batches.cli._listing.columns import (
    JOB_COLUMNS,
    View,
    by_status,
    list_options,
    names_of,
    print_counts,
    print_jobs,
)
from together_batches.cli._listing.each import print_values
from together_batches.cli._listing.filters import chosen_jobs, filter_options
from together_batches.cli._listing.labels import labels_of
from together_batches.cli._terminal.commands import command, option
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.loop import in_loop
from together_batches.cli._terminal.text import is_terminal

_COUNTED = ("model", "status", "endpoint", "input_file", "error", "labels")


@command("list", Exit.NOT_FOUND)
@filter_options("jobs of this status; may be repeated")
@list_options(JOB_COLUMNS)
@option(
    "--count-by NAMES",
    f"print how many jobs there are by these, with commas between them: {', '.join(_COUNTED)}",
    type=names_of(_COUNTED),
)
@option("--watch", "watch the jobs instead, those that have not finished without --status: see watch --help")
@service_options
def list_jobs(common: Common, count_by: tuple[str, ...] | None, watch: bool, **options: Any) -> Exit:
    """List jobs, newest first: as a table on a terminal, with tabs between the columns
    elsewhere. Of failed jobs that are chosen by --status, a table shows the reason.

    examples:
      together-batches list                         every job, newest first
      together-batches list --status FAILED --newer-than 1d
      together-batches list --count-by model,status
      together-batches list --label nightly          the jobs that you labelled so
      together-batches list --columns id,age --sort -age --limit 10
      together-batches list --watch --model M       the table of watch
      together-batches list --json | together-batches cancel - --dry-run
    """
    view = View.of(options, json=common.json)
    if watch and (count_by or view != View()):
        message = "--watch has columns and an order of its own; leave out --columns, --sort, --limit and the like"
        raise CommandError(message)
    if count_by and (view.columns or view.sort):
        message = "--count-by has columns and an order of its own; leave out --columns and --sort"
        raise CommandError(message)
    if watch:
        from together_batches.cli._commands.watch.command import watch_jobs

        return watch_jobs(common, **options)
    return _list(common, count_by, view, **options)


@in_loop
async def _list(common: Common, count_by: tuple[str, ...] | None, view: View, **options: Any) -> Exit:
    async with connected(common) as batches:
        jobs, _ = chosen = await chosen_jobs(batches, finished=True, **options)
    if note := chosen.note():
        common.note(note)
    now = jobs.seen_at or datetime.now(UTC)
    if not jobs and not common.json:
        common.note("no job matches")
    if count_by and (jobs or common.json):
        print_counts(common, jobs, now, count_by, view)
    elif not count_by:
        print_jobs(common, jobs, now, view, reasons="FAILED" in map(str.upper, options["status"]))
        if jobs and is_terminal(sys.stdout) and not common.json:
            common.note(by_status(jobs))
    return Exit.DONE


@command("get", Exit.NOT_FOUND, Exit.SOME_FAILED)
@ids_argument("ids of jobs; or - alone, to read them from standard input", required=True)
@service_options
def get(common: Common, ids: tuple[str, ...]) -> Exit:
    """Show jobs as they now stand.

    examples:
      together-batches get ID
      together-batches get ID ID --json     one JSON object a line
      together-batches get - < ids.txt      what a file names, an id a line
    """
    job_ids = ids_or_input(ids)
    return print_values(common, job_ids, lambda batches, job_id: batches.retrieve(job_id), labels_of(job_ids))
