"""Which jobs a cancel is about: ids that were typed, ids from standard input, or filters; exactly one of them."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from together_batches.cli._exits import CommandError, Interrupted
from together_batches.cli._text import has, is_terminal, number, say
from together_batches.models import BatchJobStatus

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from together_batches.cli._parser import Arguments
    from together_batches.client import AsyncBatches
    from together_batches.models import BatchJob

__all__ = [
    "by_status",
    "chosen_jobs",
    "confirmed",
    "read_ids",
    "reads_standard_input",
    "selector",
    "statuses",
    "typed_or_read",
]


def selector(arguments: Arguments) -> Literal["ids", "stdin", "filters"]:
    """The one way in which jobs are chosen; :class:`CommandError` where there is none, or more than one."""
    filters = arguments.all or bool(arguments.status) or bool(arguments.model) or arguments.older_than is not None
    if not arguments.ids:
        if not filters:
            message = (
                "nothing says what to cancel; give ids, or - to read them from standard input, "
                "or filters such as --all or --status IN_PROGRESS"
            )
            raise CommandError(message)
        return "filters"
    if filters:
        message = "ids and filters were given; which jobs to cancel is said by the one or by the other"
        raise CommandError(message)
    return "stdin" if reads_standard_input(arguments.ids) else "ids"


def reads_standard_input(ids: list[str]) -> bool:
    """Whether ``-`` was given in place of ids; :class:`CommandError` where it stands beside some."""
    if "-" in ids and len(ids) > 1:
        message = "- stands for standard input and was given beside ids; put all ids in one place"
        raise CommandError(message)
    return ids == ["-"]


def typed_or_read(arguments: Arguments) -> list[str]:
    """The ids that were given, in order, each once."""
    return list(dict.fromkeys(_standard_input() if arguments.ids == ["-"] else arguments.ids))


def _standard_input() -> list[str]:
    if not has(sys.stdin):
        message = "ids are to come from standard input, and it is closed"
        raise CommandError(message)
    if is_terminal(sys.stdin):
        say("one id a line; Ctrl-D ends the list")
    return list(read_ids(sys.stdin.buffer))


def read_ids(stream: BinaryIO) -> Iterable[str]:
    """The ids in a file of one id a line.

    White space around them, blank lines, lines that begin with ``#``, a byte order mark and what follows a tab are
    skipped, so that what `list` and `cancel` print can be read again. A line that begins with ``{`` is a JSON object
    with an ``id`` or a ``job_id``.
    """
    for position, raw in enumerate(stream.read().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError:
            message = f"line {position} of standard input is not UTF-8 text"
            raise CommandError(message) from None
        if line and not line.startswith("#"):
            yield _id_in_json(line, position) if line.startswith("{") else line.partition("\t")[0].rstrip()


def _id_in_json(line: str, position: int) -> str:
    try:
        value = cast("dict[str, object]", json.loads(line))
    except (ValueError, RecursionError):
        value = {}
    found = value.get("id", value.get("job_id"))
    if not isinstance(found, str):
        message = f"line {position} of standard input begins with {{ and is no JSON object with an id or a job_id"
        raise CommandError(message)
    return found


def statuses(arguments: Arguments) -> set[str]:
    """The statuses that were asked for, as the service writes them. One that is not known is pointed out."""
    asked = {status.upper() for status in arguments.status}
    for status in sorted(asked - {str(known) for known in BatchJobStatus}):
        say(f"note: {status} is no status that this version knows ({', '.join(BatchJobStatus)})")
    return asked


async def chosen_jobs(batches: AsyncBatches, arguments: Arguments) -> list[BatchJob]:
    """The jobs that the filters choose: among those that have not finished, unless a status is asked for."""
    before = None if arguments.older_than is None else datetime.now(UTC) - arguments.older_than
    asked = statuses(arguments)
    jobs = await batches.list(status=asked or None, model_id=arguments.model, created_before=before)
    return jobs if asked else [job for job in jobs if not job.is_terminal]


def by_status(jobs: Iterable[BatchJob]) -> str:
    """How many there are of each status, most of all first: ``30 IN_PROGRESS, 10 VALIDATING``."""
    counts = Counter(str(job.status or "without a status") for job in jobs)
    return ", ".join(f"{number(count)} {status}" for status, count in counts.most_common())


def confirmed(count: int, *, yes: bool) -> bool:
    """Whether to go on; asks if it can, and :class:`CommandError` where it would have to and cannot.

    Raises :class:`Interrupted` after Ctrl-C.
    """
    if yes:
        return True
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        message = "nothing was cancelled: there is no terminal to ask on; add --yes, or look first with --dry-run"
        raise CommandError(message)
    # On standard error, where input() would write to standard output: that is for data.
    print(f"Cancel {number(count)} {'job' if count == 1 else 'jobs'}? [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        with _interruptible():
            answer = sys.stdin.readline()
    except KeyboardInterrupt:
        print(file=sys.stderr)  # the terminal has echoed ^C, and no line end
        raise Interrupted from None
    return answer.strip().lower() in {"y", "yes"}


@contextmanager
def _interruptible() -> Generator[None]:
    """Let Ctrl-C break a read. A running loop catches it to end its task, which cannot end while it reads."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
