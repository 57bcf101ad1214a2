"""The choice of jobs by filters."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from together_batches.cli._inputs.ids import LeftOut
from together_batches.cli._listing.columns import by_status
from together_batches.cli._listing.labels import complete_label, label_of, labels_of
from together_batches.cli._terminal.commands import option
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.numbers import duration
from together_batches.cli._terminal.text import count_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta

    import click

    from together_batches._jobs.job_filter import JobList
    from together_batches.cli._listing.labels import Labels
    from together_batches.client import AsyncBatches
    from together_batches.models import BatchJob

    F = TypeVar("F", bound=Callable[..., object])

_MOST_NAMES = 20
"""Maximum number of models or labels that an error names."""


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
