"""The choice of jobs for a command: ids as arguments, ids from standard input, or filters; exactly one of them."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar, cast

from together_batches.cli._command import argument, option
from together_batches.cli._exits import CommandError, Interrupted
from together_batches.cli._numbers import duration
from together_batches.cli._text import count_of, format_count, is_open, is_terminal, print_err

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from datetime import timedelta

    import click

    from together_batches.client import AsyncBatches
    from together_batches.models import BatchJob

    F = TypeVar("F", bound=Callable[..., object])

__all__ = [
    "Chosen",
    "Filters",
    "by_status",
    "chosen_jobs",
    "confirmed",
    "filter_options",
    "given_ids",
    "ids_argument",
    "ids_or_input",
    "is_input",
    "read_ids",
]


class Filters(NamedTuple):
    """Conditions on the properties of jobs, named as the options are."""

    status: Sequence[str] = ()
    models: Sequence[str] = ()
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    endpoint: str | None = None
    input_file: str | None = None


def _complete_status(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from together_batches.models import BatchJobStatus

    return [status for status in BatchJobStatus if status.startswith(incomplete.upper())]


def filter_options(status: str) -> Callable[[F], F]:
    """Add the filters that commands share; ``status`` is the help of ``--status``."""

    def add(function: F) -> F:
        older_than = option("--older-than D", "jobs created longer ago than this: 90s, 2h, 3d, 1h30m", type=duration)
        model = option(
            "--model M", "jobs of this model, once they have been validated; may be repeated", "models", multiple=True
        )
        return option("--status S", status, multiple=True, complete=_complete_status)(model(older_than(function)))

    return add


def ids_argument(help: str, *, required: bool) -> Callable[[F], F]:  # noqa: A002
    """Add an argument that takes any number of ids."""
    return argument("ids", "ID..." if required else "[ID]...", help, nargs=-1, required=required)


def is_input(ids: Sequence[str]) -> bool:
    """Return whether ``-`` alone selects standard input; raise :class:`CommandError` for ``-`` beside ids."""
    if "-" in ids and len(ids) > 1:
        message = "- stands for standard input and was given beside ids; put all ids in one place"
        raise CommandError(message)
    return "-" in ids


def given_ids(ids: Sequence[str]) -> list[str]:
    """Return the ids from the arguments, in order, without repetitions."""
    for job_id in ids:
        _check_single(job_id.strip(), "the argument", "give each id as an argument of its own")
    return list(dict.fromkeys(job_id.strip() or job_id for job_id in ids))


def ids_or_input(ids: Sequence[str]) -> list[str]:
    """Return the ids from the arguments or from standard input, in order, without repetitions."""
    if not is_input(ids):
        return given_ids(ids)
    if not is_open(sys.stdin):
        message = "ids are to come from standard input, and it is closed"
        raise CommandError(message)
    if is_terminal(sys.stdin):
        print_err("one id a line; Ctrl-D ends the list")
    return list(dict.fromkeys(read_ids(sys.stdin.buffer)))


def read_ids(stream: BinaryIO) -> Iterator[str]:
    """Yield the ids in a file: one a line, or JSON.

    Surrounding white space, blank lines, lines that begin with ``#``, a byte order mark and text after a tab are
    skipped, so that the output of `list` and `cancel` can be read again. A line that begins like JSON is parsed as
    JSON, over as many lines as it takes: an id, an array of ids, or an object with an ``id`` or a ``job_id``.
    An invalid id raises a :class:`CommandError` that names the line, before any request is sent.
    """
    content = stream.read().removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        position = content.count(b"\n", 0, error.start) + 1
        message = f"line {position} of standard input is not UTF-8 text"
        raise CommandError(message) from None
    begin, position = 0, 1
    while begin < len(text):
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        line = text[begin:end].strip()
        if line.startswith(("{", "[", '"')):
            value, end = _json_value(text, text.index(line[0], begin), position)
            yield from _ids_in(value, position)
            position += text.count("\n", begin, end)
            begin = _after_value(text, end, position)
            continue
        if line and not line.startswith("#"):
            job_id = line.partition("\t")[0].rstrip()
            _check_single(job_id, f"line {position} of standard input", "put each id on a line of its own")
            if job_id == "null":
                message = f"line {position} of standard input is null, and no id"
                raise CommandError(message)
            yield job_id
        begin, position = end + 1, position + 1


_DECODER = json.JSONDecoder()


def _json_value(text: str, begin: int, position: int) -> tuple[object, int]:
    """Return the JSON value at this position, and its end."""
    try:
        return cast("tuple[object, int]", _DECODER.raw_decode(text, begin))
    except (ValueError, RecursionError):
        message = f"line {position} of standard input begins with {text[begin]} and is not JSON"
        raise CommandError(message) from None


def _after_value(text: str, end: int, position: int) -> int:
    """Return the position after a JSON value: the start of the next value, or of the next line."""
    while end < len(text) and text[end] in " \t\r":
        end += 1
    if end < len(text) and text[end] not in '\n{["':
        message = (
            f"line {position} of standard input has {text[end]!r} after a JSON value; "
            "put each value on a line of its own, or all of them in one array"
        )
        raise CommandError(message)
    return end


def _ids_in(value: object, position: int) -> Iterator[str]:
    """Yield the ids in a JSON value."""
    left = [value]
    while left:
        found = entry = left.pop()
        if isinstance(entry, list):
            left += reversed(cast("list[object]", entry))
            continue
        if isinstance(entry, dict):
            fields = cast("dict[str, object]", entry)
            found = fields.get("id", fields.get("job_id"))
        if not isinstance(found, str) or not found.strip():
            kind = "an object without an id or a job_id" if isinstance(entry, dict) else json.dumps(entry)[:40]
            message = f"the JSON on line {position} of standard input has {kind} in place of an id"
            raise CommandError(message)
        yield found.strip()


def _check_single(job_id: str, place: str, mend: str) -> None:
    """Refuse several ids in one argument: sent unchanged, the service would know no such job."""
    for separator, name in ((",", "a comma"), (" ", "a blank")):
        if separator in job_id:
            message = f"{place} has {name} in it ({job_id[:80]!r}), and no id has; {mend}"
            raise CommandError(message)


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


async def chosen_jobs(batches: AsyncBatches, filters: Filters, *, finished: bool = False) -> Chosen:
    """Return the jobs that match the filters: only unfinished ones, unless a status or ``finished`` is given.

    Ages are measured by the service's clock.
    """
    jobs = await batches.list(
        status=filters.status or None,
        endpoint=filters.endpoint,
        input_file_id=filters.input_file,
        created_after=filters.newer_than,
        created_before=filters.older_than,
    )
    if not (filters.status or finished):
        jobs = [job for job in jobs if not job.is_terminal]
    if not filters.models:
        return Chosen(jobs, [])
    models = set(filters.models)
    return Chosen([job for job in jobs if job.model_id in models], [job for job in jobs if job.model_id is None])


def by_status(jobs: Iterable[BatchJob]) -> str:
    """Return the number of jobs by status, the most frequent first: ``30 IN_PROGRESS, 10 VALIDATING``."""
    counts = Counter(str(job.status or "without a status") for job in jobs)
    return ", ".join(f"{format_count(count)} {status}" for status, count in counts.most_common())


def confirmed(count: int, *, yes: bool) -> bool:
    """Prompt unless ``yes``, and return whether to continue.

    Raises :class:`CommandError` if there is no terminal for a prompt, and :class:`Interrupted` after Ctrl-C.
    """
    if yes:
        return True
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        message = "nothing was cancelled: there is no terminal for a prompt; add --yes, or look first with --dry-run"
        raise CommandError(message)
    # Not input(), which would write to standard output: that is for data.
    print(f"Cancel {count_of(count, 'job')}? [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        with _interruptible():
            answer = sys.stdin.readline()
    except KeyboardInterrupt:
        print(file=sys.stderr)  # the terminal has echoed ^C without a line end
        raise Interrupted from None
    return answer.strip().lower() in {"y", "yes"}


@contextmanager
def _interruptible() -> Generator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP interrupt a read: a loop would only cancel its task, which is reading."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
