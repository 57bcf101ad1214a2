"""The commands ``together-batches list`` and ``get``: the choice of jobs by filters, and the output of values."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from together_batches.cli._account.client import connected
from together_batches.cli._account.options import Common, service_options
from together_batches.cli._inputs.ids import LeftOut, ids_argument, ids_or_input
from together_batches.cli._listing.columns import (
    JOB_COLUMNS,
    View,
    list_options,
    names_of,
    print_counts,
    print_jobs,
)
from together_batches.cli._listing.labels import NO_LABELS, complete_label, label_of, labelled, labels_of
from together_batches.cli._terminal.commands import command, option
from together_batches.cli._terminal.exits import CommandError, Exit, code_of_many
from together_batches.cli._terminal.loop import in_loop
from together_batches.cli._terminal.numbers import duration
from together_batches.cli._terminal.streams import printer
from together_batches.cli._terminal.text import as_json, block, count_of, format_count, is_terminal, print_error
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from datetime import timedelta

    import click

    from together_batches._jobs.job_filter import JobList
    from together_batches.cli._listing.labels import Labels
    from together_batches.client import AsyncBatches
    from together_batches.models import BatchJob

    F = TypeVar("F", bound=Callable[..., object])

T = TypeVar("T")

_MOST_NAMES = 20
"""Maximum number of models or labels that an error names."""


# --- the choice of jobs


def _complete_status(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from together_batches.models import BatchJobStatus

    return [status for status in BatchJobStatus if status.startswith(incomplete.upper())]


def filter_options(status: str) -> Callable[[F], F]:
    """Add the filters that commands share; ``status`` is the help of ``--status``.

    Each may be repeated: values of one filter are alternatives, but of several ages all must hold.
    """
    several = partial(option, multiple=True)

    def add(function: F) -> F:
        for each in (
            several(
                "--except ID_OR_FILE", "leave out this job, or all that a file names; may be repeated", "excepted"
            ),
            several("--input-file ID", "jobs made from this file; may be repeated", "input_files"),
            several("--endpoint E", "jobs of this endpoint; may be repeated", "endpoints"),
            several("--newer-than D", "jobs created no longer ago than this", "created_after", type=duration),
            several(
                "--older-than D",
                "jobs created longer ago than this: 90s, 2h, 3d, 1h30m",
                "created_before",
                type=duration,
            ),
            several(
                "--label L", "jobs with this label; may be repeated", "labels", type=label_of, complete=complete_label
            ),
            several("--model M", "jobs of this model, once they have been validated; may be repeated", "models"),
            several("--status S", status, complete=_complete_status),
        ):
            function = each(function)
        return function

    return add


class Chosen(NamedTuple):
    """The jobs that match the filters, and those that fail to match only because they name no model."""

    jobs: JobList
    nameless: list[BatchJob]

    def note(self) -> str | None:
        """Return a line about jobs that were omitted because they name no model, if any."""
        if not self.nameless:
            return None
        were = "was" if len(self.nameless) == 1 else "were"
        jobs = count_of(len(self.nameless), "job")
        return f"note: {jobs} without a model {were} left out: {by_status(self.nameless)}"


class Filter(NamedTuple):
    """The filters of :func:`filter_options`; ages are measured by the service's clock."""

    left_out: LeftOut
    status: Sequence[str] = ()
    models: Sequence[str] = ()
    labels: Sequence[str] = ()
    endpoints: Sequence[str] = ()
    input_files: Sequence[str] = ()
    created_before: Sequence[timedelta] = ()
    created_after: Sequence[timedelta] = ()

    @classmethod
    def of(cls, *, excepted: Sequence[str] = (), **options: Any) -> Filter:
        """Return the filters among the options of a command."""
        return cls(LeftOut.read(excepted), **options)

    def check(self, account: Sequence[BatchJob]) -> None:
        """Raise :class:`CommandError` for a model or label of no job at all, or an id to leave out that no job has.

        They are more likely misspelt, and the choice would be another than the one that is meant.
        """
        if account:
            _check("model", self.models, (job.model_id for job in account if job.model_id))
            _check("label", self.labels, chain(*self._labels(account).values()))
        self.left_out.check(job.id for job in account)

    def choose(self, account: JobList, *, finished: bool = False) -> Chosen:
        """Return the jobs that match: only unfinished ones, unless a status or ``finished`` is given."""
        from together_batches._jobs.job_filter import JobList, Selection

        listed = Selection(
            status=self.status or None,
            created_before=max(self.created_before, default=None),
            created_after=min(self.created_after, default=None),
        ).choose(account, account.seen_at or datetime.now(UTC))
        labels = self._labels(listed)
        jobs = [
            job
            for job in listed
            if (self.status or finished or not job.is_terminal)
            and (not self.endpoints or job.endpoint in self.endpoints)
            and (not self.input_files or job.input_file_id in self.input_files)
            and job.id.lower() not in self.left_out.ids
            and (not self.labels or not {*self.labels}.isdisjoint(labels.get(job.id, ())))
        ]
        if not self.models:
            return Chosen(JobList(jobs, listed.seen_at), [])
        named = JobList((job for job in jobs if job.model_id in self.models), listed.seen_at)
        return Chosen(named, [job for job in jobs if job.model_id is None])

    def _labels(self, jobs: Iterable[BatchJob]) -> Labels:
        return labels_of((job.id for job in jobs), needed=True) if self.labels else {}


async def chosen_jobs(batches: AsyncBatches, *, finished: bool = False, **options: Any) -> Chosen:
    """Return the jobs that match the filters among the options of a command."""
    chosen = Filter.of(**options)
    account = cast("JobList", await batches.list())
    chosen.check(account)
    return chosen.choose(account, finished=finished)


def _check(noun: str, wanted: Sequence[str], those_of_jobs: Iterable[str]) -> None:
    """Raise :class:`CommandError` with the models or labels that there are, if no job has one of the wanted ones."""
    if not wanted:
        return
    counts = Counter(those_of_jobs)
    unknown = [name for name in wanted if name not in counts]
    if not unknown:
        return
    known = ", ".join(f"{name} ({count_of(count, 'job')})" for name, count in counts.most_common(_MOST_NAMES))
    rest = f", and {len(counts) - _MOST_NAMES} more" if len(counts) > _MOST_NAMES else ""
    there = f"the {noun}s are {known}{rest}" if counts else f"no job names a {noun}"
    message = f"no job has the {noun} {' or '.join(map(repr, unknown))}; {there}"
    raise CommandError(message, Exit.NOT_FOUND)


def by_status(jobs: Iterable[BatchJob]) -> str:
    """Return the number of jobs by status, the most frequent first: ``30 IN_PROGRESS, 10 VALIDATING``."""
    return in_words(status_counts(jobs))


def status_counts(jobs: Iterable[BatchJob]) -> Counter[str]:
    """Count jobs by their status."""
    return Counter(str(job.status or "without a status") for job in jobs)


def in_words(counts: Counter[str]) -> str:
    """Return counts in one line, the largest first."""
    return ", ".join(f"{format_count(count)} {name}" for name, count in counts.most_common() if count)


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
    """Call a verb for each id concurrently; print each result, or error, as soon as those of the ids before it are.

    If the command is ended early, all that is known by then is printed: what was deleted cannot be found out later.
    """
    from together_batches._jobs.tasks import plain_group

    answers: dict[str, T | BatchesError] = {}
    errors: list[BatchesError] = []
    count = 0

    async def call(batches: AsyncBatches, job_id: str) -> None:
        try:
            answers[job_id] = await verb(batches, job_id)
        except BatchesError as error:
            answers[job_id] = error

    def show(job_id: str) -> None:
        nonlocal count
        answer = answers.pop(job_id)
        if isinstance(answer, BatchesError):
            errors.append(answer)
            print_error(f"{job_id}: {answer}" if len(ids) > 1 else str(answer))
        else:
            print(f"{between if count else ''}{shown(job_id, answer)}", end="")
            count += 1

    async with connected(common) as batches, printer() as out:
        try:
            async with plain_group() as group:
                tasks = [group.create_task(call(batches, job_id)) for job_id in ids]
                for job_id, task in zip(ids, tasks, strict=True):
                    await task
                    show(job_id)
                    await out.room()
        finally:
            for job_id in filter(answers.__contains__, ids):
                show(job_id)
    return code_of_many(errors, len(ids))


def print_values(
    common: Common,
    ids: Sequence[str],
    verb: Callable[[AsyncBatches, str], Awaitable[object]],
    labels: Labels = NO_LABELS,
) -> Exit:
    """Read the value of each id and print it: a block of lines, or with ``--json`` one object a line."""

    def shown(value_id: str, value: object) -> str:
        own = labels.get(value_id)
        if common.json:
            return f"{as_json(labelled(value, own))}\n"
        return block(value, labels=", ".join(own)) if own else block(value)

    return print_each(common, ids, verb, shown, between="" if common.json else "\n")


# --- the commands

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
