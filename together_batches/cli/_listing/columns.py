"""Lists of jobs and files: their columns, and the options that choose, sort and limit what is printed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import attrs
import click

from together_batches._text import lasted
from together_batches.cli._listing.labels import NO_LABELS, label_cells, label_text, labelled, labels_of
from together_batches.cli._terminal.commands import option
from together_batches.cli._terminal.exits import CommandError
from together_batches.cli._terminal.numbers import at_least_one
from together_batches.cli._terminal.table import Column, draw
from together_batches.cli._terminal.text import (
    as_json,
    columns,
    count_of,
    escape,
    format_count,
    format_time,
    is_terminal,
    print_lines,
    terminal,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from together_batches.cli._account.options import Common
    from together_batches.cli._listing.labels import Labels
    from together_batches.models import BatchJob, FileObject

    F = TypeVar("F", bound=Callable[..., object])

T = TypeVar("T")


@attrs.frozen
class Field(Generic[T]):
    """A column of a list: ``text`` is its cell in a pipe, ``shown`` the one on a terminal if it differs.

    Rows are sorted by ``value``; without it, by ``text``.
    """

    name: str
    drawn: Column
    text: Callable[[T], str | None]
    shown: Callable[[T], str | None] | None = None
    value: Callable[[T], Any] | None = None


# --- the columns


def time_field(name: str, time: Callable[[T], datetime | None]) -> Field[T]:
    """Return a column of times."""

    def text(value: T) -> str | None:
        found = time(value)
        return None if found is None else format_time(found)

    return Field(name, Column(name.upper()), text, value=time)


def age_field(name: str, time: Callable[[T], datetime | None], now: datetime, *, rank: int) -> Field[T]:
    """Return a column of ages at ``now``, in their two largest units, as durations are typed."""

    def age(value: T) -> timedelta | None:
        found = time(value)
        return None if found is None else now - found

    def text(value: T) -> str | None:
        found = age(value)
        return None if found is None else lasted(max(0, int(found.total_seconds())))

    return Field(name, Column(name.upper(), rank=rank, right=True), text, value=age)


def job_fields(now: datetime, labels: Labels = NO_LABELS) -> tuple[Field[BatchJob], ...]:
    """Return every column of a list of jobs; ages are those at ``now``."""
    return (
        Field("id", Column("ID"), lambda job: job.id),
        Field("status", Column("STATUS"), lambda job: job.status),
        Field(
            "progress",
            Column("DONE", rank=2, right=True),
            lambda job: None if job.progress is None else f"{job.progress:g}",
            lambda job: None if job.progress is None else f"{job.progress:.0f} %",
            lambda job: job.progress,
        ),
        age_field("age", lambda job: job.created_at, now, rank=3),
        Field("model", Column("MODEL", rank=1, cut="middle", least=12), lambda job: job.model_id),
        time_field("created", lambda job: job.created_at),
        time_field("completed", lambda job: job.completed_at),
        time_field("deadline", lambda job: job.job_deadline),
        Field("endpoint", Column("ENDPOINT", cut="middle"), lambda job: job.endpoint),
        Field("input_file", Column("INPUT FILE"), lambda job: job.input_file_id),
        Field("output_file", Column("OUTPUT FILE"), lambda job: job.output_file_id),
        Field("error_file", Column("ERROR FILE"), lambda job: job.error_file_id),
        Field("error", Column("ERROR", cut="end", least=20), lambda job: job.error),
        Field(
            "labels",
            Column("LABELS", rank=1, cut="middle", least=8),
            lambda job: label_text(labels, job.id),
        ),
    )


def file_fields(now: datetime) -> tuple[Field[FileObject], ...]:
    """Return every column of a list of files; ages are those at ``now``."""
    return (
        Field("id", Column("ID"), lambda file: file.id),
        Field(
            "bytes",
            Column("BYTES", rank=2, right=True),
            lambda file: None if file.bytes is None else str(file.bytes),
            lambda file: None if file.bytes is None else format_count(file.bytes),
            lambda file: file.bytes,
        ),
        age_field("age", lambda file: file.created_at, now, rank=3),
        time_field("created", lambda file: file.created_at),
        Field("purpose", Column("PURPOSE", rank=4), lambda file: file.purpose),
        Field("name", Column("NAME", rank=1, cut="middle", least=12), lambda file: file.filename),
    )


_JOB_TABLE = ("id", "status", "progress", "age", "model")
_JOB_LINE = (
    *("id", "status", "progress", "created", "completed", "endpoint", "model"),
    *("input_file", "output_file", "error_file"),
)
_FILE_TABLE = ("id", "bytes", "age", "purpose", "name")
_FILE_LINE = ("id", "bytes", "created", "purpose", "name")

_ANY_TIME = datetime.min.replace(tzinfo=UTC)
JOB_COLUMNS = tuple(field.name for field in job_fields(_ANY_TIME))
FILE_COLUMNS = tuple(field.name for field in file_fields(_ANY_TIME))


# --- the options


class View(NamedTuple):
    """What is printed of a list, and in which order."""

    columns: tuple[str, ...] | None = None
    sort: str | None = None
    limit: int | None = None
    header: bool = False

    @classmethod
    def of(cls, options: dict[str, Any], *, json: bool) -> View:
        """Take the view out of the options of a command. With ``--json``, which is complete, it has no columns."""
        view = cls(**{name: options.pop(name) for name in cls._fields})
        if json and (view.columns or view.header):
            message = "--columns and --header are for lines and tables; --json has every field, under its name"
            raise CommandError(message)
        return view


def list_options(names: Sequence[str]) -> Callable[[F], F]:
    """Add the options of a list; ``names`` are those of its columns."""
    known = ", ".join(names)

    several = names_of(names)

    def sort(text: str) -> str:
        sign = "-" if text.startswith("-") else ""
        (name,) = several(text.removeprefix("-").replace(",", " "))
        return sign + name

    def add(function: F) -> F:
        for each in (
            option("--header", "begin with the names of the columns, in a pipe too"),
            option("--limit N", "print only the first N", type=at_least_one),
            option("--sort COLUMN", "sort by this column; -COLUMN reverses the order", type=sort),
            option("--columns NAMES", f"print these columns, with commas between them: {known}", type=several),
        ):
            function = each(function)
        return function

    return add


def names_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of names of columns, with commas between them."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        if unknown := [name for name in names if name not in known]:
            message = f"there is no column {unknown[0]!r}; the columns are {', '.join(known)}"
            raise click.BadParameter(message)
        return names

    return parse


# --- the output


def print_jobs(common: Common, jobs: Sequence[BatchJob], now: datetime, view: View, *, reasons: bool = False) -> None:
    """Print a list of jobs; with ``reasons``, a table has the error of each failed job below its row."""
    labels = labels_of(job.id for job in jobs)
    last = ("labels",) if labels else ()
    table = ListTable(
        job_fields(now, labels),
        on_screen=(*_JOB_TABLE, *last),
        in_pipe=(*_JOB_LINE, *last),
        view=view,
        plain=lambda job: labelled(job, labels.get(job.id)),
    )
    table.print(
        jobs,
        noun="job",
        json=common.json,
        tell=common.note,
        note=(lambda job: job.error) if reasons else None,
    )


def print_files(common: Common, files: Sequence[FileObject], view: View) -> None:
    """Print a list of files."""
    now = max((file.seen_at for file in files if file.seen_at), default=datetime.now(UTC))
    table = ListTable(file_fields(now), on_screen=_FILE_TABLE, in_pipe=_FILE_LINE, view=view)
    table.print(files, noun="file", json=common.json, tell=common.note)


def item(
    common: Common,
    job_id: str,
    value: object,
    labels: Labels,
    *,
    cells: Iterable[str | None],
    shown: Iterable[str | None],
    note: str | None = None,
) -> str:
    """Return a value about one job that is printed before others are known: JSON, for a terminal, or with tabs.

    ``cells`` are the columns after the id in a pipe; ``shown``, of which the last is the status, are those on a
    terminal, which has ``note`` below.
    """
    last = label_cells(labels, job_id)
    if common.json:
        return as_json(labelled(value, labels.get(job_id)))
    if is_terminal(sys.stdout):
        return item_on_screen(job_id, *shown, labels=last, note=note)
    return "\t".join(columns((job_id, *cells, *last)))


_USUAL_ID = 36
_USUAL_STATUS = len("IN_PROGRESS")


def item_on_screen(
    job_id: str, *facts: str | None, labels: Sequence[str | None] = (), note: str | None = None
) -> str:
    """Return a job for a terminal; those below it are aligned if usual.

    The last of the ``facts`` is the status.
    """
    screen = terminal(sys.stdout)
    if labels and facts:
        facts = (*facts[:-1], (facts[-1] or "-").ljust(_USUAL_STATUS))
    row = columns((job_id.ljust(_USUAL_ID), *facts, *labels))
    drawn = [Column("")] * (1 + len(facts)) + [Column("", cut="middle", least=6)] * len(labels)
    notes = {0: escape(note)} if note else None
    return "\n".join(draw(drawn, [row], screen.width, header=False, notes=notes, dots=screen.dots))


class ListTable(Generic[T]):
    """A list of values as a table on a terminal, otherwise as lines, or with ``--json`` as an array."""

    def __init__(
        self,
        fields: Iterable[Field[T]],
        *,
        on_screen: Sequence[str],
        in_pipe: Sequence[str],
        view: View,
        plain: Callable[[T], object] = lambda value: value,
    ) -> None:
        self._fields = {field.name: field for field in fields}
        self._on_screen = on_screen
        self._in_pipe = in_pipe
        self._view = view
        self._plain = plain

    def print(
        self,
        values: Sequence[T],
        *,
        noun: str,
        json: bool,
        tell: Callable[[str], None],
        note: Callable[[T], str | None] | None = None,
    ) -> None:
        """Print the values; ``tell`` receives how many are left out, and ``note`` returns what is below a row."""
        view = self._view
        shown = self._sorted(values)[: view.limit]
        if json:
            print("[" + ",\n".join(as_json(self._plain(value)) for value in shown) + "]")
        elif is_terminal(sys.stdout):
            self._draw(shown, note)
        else:
            fields = [self._fields[name] for name in view.columns or self._in_pipe]
            header = ["\t".join(field.name for field in fields)] if view.header else []
            print_lines([*header, *("\t".join(columns(field.text(value) for field in fields)) for value in shown)])
        if len(shown) < len(values):
            tell(f"the first {format_count(len(shown))} of {count_of(len(values), noun)}")

    def _sorted(self, values: Sequence[T]) -> list[T]:
        """Return the values in the order of the view; those without a value in its column come last."""
        if self._view.sort is None:
            return list(values)
        field = self._fields[self._view.sort.removeprefix("-")]
        value_of: Callable[[T], Any] = field.value or field.text
        known = [value for value in values if value_of(value) is not None]
        known.sort(key=value_of, reverse=self._view.sort.startswith("-"))
        return known + [value for value in values if value_of(value) is None]

    def _draw(self, values: Sequence[T], note: Callable[[T], str | None] | None) -> None:
        chosen = self._view.columns
        fields = [self._fields[name] for name in chosen or self._on_screen]
        rows = [columns((field.shown or field.text)(value) for field in fields) for value in values]
        if not rows:
            return
        notes = {place: escape(text) for place, value in enumerate(values) if note and (text := note(value))}
        screen = terminal(sys.stdout)
        drawn = [field.drawn for field in fields]
        print_lines(draw(drawn, rows, screen.width, all_columns=chosen is not None, notes=notes, dots=screen.dots))


def print_counts(common: Common, jobs: Sequence[BatchJob], now: datetime, names: Sequence[str], view: View) -> None:
    """Print how many jobs have the same values in these columns, the most frequent first."""
    known = {field.name: field for field in job_fields(now, labels_of(job.id for job in jobs))}
    fields = [known[name] for name in names]
    counts = Counter(tuple(field.text(job) for field in fields) for job in jobs).most_common(view.limit)
    if common.json:
        print("[" + ",\n".join(as_json({**dict(zip(names, of, strict=True)), "jobs": n}) for of, n in counts) + "]")
    elif is_terminal(sys.stdout):
        screen = terminal(sys.stdout)
        drawn = [*(field.drawn._replace(rank=0) for field in fields), Column("JOBS", right=True)]
        rows = [(*columns(of), format_count(many)) for of, many in counts]
        print_lines(draw(drawn, rows, screen.width, narrow=0, dots=screen.dots))
    else:
        header = ["\t".join((*names, "jobs"))] if view.header else []
        print_lines([*header, *("\t".join((*columns(of), str(many))) for of, many in counts)])


def by_status(jobs: Iterable[BatchJob]) -> str:
    """Return the number of jobs by status, the most frequent first: ``30 IN_PROGRESS, 10 VALIDATING``."""
    return in_words(status_counts(jobs))


def status_counts(jobs: Iterable[BatchJob]) -> Counter[str]:
    """Count jobs by their status."""
    return Counter(str(job.status or "without a status") for job in jobs)


def in_words(counts: Counter[str]) -> str:
    """Return counts in one line, the largest first."""
    return ", ".join(f"{format_count(count)} {name}" for name, count in counts.most_common() if count)
