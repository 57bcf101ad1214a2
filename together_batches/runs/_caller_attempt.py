"""A single attempt whose record, rows and results are with the caller, and whose outages are raised."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Awaitable, Callable, Container
from contextlib import ExitStack, nullcontext
from typing import IO, TYPE_CHECKING, Any, TypeVar

import attrs

from together_batches import jsonl
from together_batches._jobs.upload_source import open_upload
from together_batches._local.atomic_file import AtomicFile
from together_batches._local.os_errors import explained
from together_batches._local.until_done import finish_in_thread
from together_batches._protocol import request_codec
from together_batches._schema.response_format import response_format_adder, response_format_text
from together_batches._text import count_of, format_count
from together_batches.errors import UsageError
from together_batches.jsonl._lines import changed_lines, cut_lines
from together_batches.jsonl._sources import blocks_of
from together_batches.runs._attempt import AttemptWork
from together_batches.runs._attempt_files import upload_name, write_piece
from together_batches.runs._binary import BinaryInput, write_sink
from together_batches.runs._context import log_failure, name_of
from together_batches.runs._records import Attempt
from together_batches.runs._threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from together_batches._protocol.files import Uploaded
    from together_batches._protocol.upload_marks import Mark
    from together_batches._schema.adapters import Adapter
    from together_batches.errors import APIError, BatchesError
    from together_batches.jsonl import Readable
    from together_batches.runs._binary import BinarySink
    from together_batches.runs._context import RunApi
    from together_batches.runs._joining import Arranged
    from together_batches.runs._values import RunEventKind

T = TypeVar("T")
Save = Callable[[Attempt], Awaitable[object]]
"""Coroutine function that returns when an attempt is stored durably."""


def _check_count(rows: int, attempt: Attempt, source: BinaryInput) -> None:
    if rows != attempt.rows:
        message = (
            f"{source} has {count_of(rows, 'row')}, and {name_of(attempt.key)} has {format_count(attempt.rows)}: "
            "pass the rows of this attempt, as they were planned"
        )
        raise UsageError(message)


@attrs.frozen
class Settings:
    """The settings of a create."""

    endpoint: str
    model_id: str | None
    priority: int | None


_UNKNOWN = Settings("", None, None)
"""The settings if no create is sent: only files that are unique to the attempt are looked for."""


class CallerAttempt(AttemptWork):
    """An attempt that the caller stores. An outage is raised."""

    def __init__(
        self,
        api: RunApi,
        attempt: Attempt,
        save: Save,
        earlier: Sequence[Attempt] = (),
        settings: Settings = _UNKNOWN,
        *,
        patience: float,
    ) -> None:
        self.api = api
        self.settings = settings
        self.patience = patience
        self._attempt = attempt
        self._save = save
        self._earlier = earlier

    @property
    def attempt(self) -> Attempt:
        """The attempt as last saved."""
        return self._attempt

    @property
    def shares_file(self) -> bool:
        """Whether an earlier attempt has the same file, so that its results have rows of both."""
        return any(each.file_id in self._attempt.file_ids for each in self._earlier)

    async def save(self, **changes: Any) -> None:
        """Change the attempt, and return when the caller has stored it."""
        changed = attrs.evolve(self._attempt, **changes)
        if changed != self._attempt:
            await self.store(changed)

    async def store(self, attempt: Attempt) -> None:
        """Return when the caller has stored the attempt, whether it has changed or not."""
        saving: object = self._save(attempt)
        if not inspect.isawaitable(saving):
            message = "save must be a coroutine function: it is awaited until the attempt is stored"
            raise UsageError(message)
        await saving
        self._attempt = attempt

    @property
    def others(self) -> Sequence[Attempt]:
        """The earlier attempts."""
        return self._earlier

    async def until_answered(
        self, what: str, call: Callable[[], Awaitable[T]], *, is_over: Callable[[APIError], bool] = lambda _: False
    ) -> T:
        """Return the result of ``call``; its errors are raised, because the caller waits in its own way."""
        return await call()

    async def wait(self, what: str, problem: BatchesError | str, pause: float) -> None:
        """Log a transient failure, and wait."""
        log_failure(what, self._attempt.key, problem, pause)
        await self.time.sleep(pause)

    def emit(self, kind: RunEventKind, message: str, job_id: str | None = None) -> None:
        """Do nothing: the caller sees what it stores."""


async def upload(
    work: CallerAttempt, source: BinaryInput, mark: Mark | None, endpoint: str, schema: Adapter[Any] | None
) -> tuple[Uploaded, bool]:
    """Check the rows of an attempt and upload them; return the file, and whether it is marked."""

    def check(file: Readable) -> None:
        found = jsonl.validate(file, endpoint=endpoint)
        attrs.evolve(found, source=str(source)).raise_for_problems()
        _check_count(found.rows, work.attempt, source)

    def checked(raise_if_cancelled: Callable[[], None]) -> Path | IO[bytes]:
        with source.opened() as file:
            if source.path is not None and schema is None:
                check(file)
                return source.path
            blocks = blocks_of(file)
            if schema is not None:
                blocks = changed_lines(blocks, response_format_adder(response_format_text(schema)))
            copy = _copied(blocks, opened, raise_if_cancelled)
        check(copy)
        copy.seek(0)
        return copy

    name = upload_name(source.stem or "requests", work.attempt, None)
    opened = ExitStack()
    try:
        async with open_upload(await in_thread(checked, large=True), name, mark=mark) as content:
            return await work.api.upload(content), content.is_marked
    finally:
        await finish_in_thread(opened.close)


def _copied(blocks: Iterable[bytes], opened: ExitStack, raise_if_cancelled: Callable[[], None]) -> IO[bytes]:
    """Return a temporary copy, open until the end of the stack."""
    with explained("write to", "the directory for temporary files"):
        copy = opened.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # closed with the stack
        for block in blocks:
            raise_if_cancelled()
            copy.write(block)
        copy.seek(0)
    return copy


class _Everything(Container[str]):
    """All ids."""

    def __contains__(self, _: object) -> bool:
        return True


class CallerResults:
    """The results of an attempt: arranged in a directory for scratch, and then written to a sink.

    ``is_again`` means that the attempt is recorded as collected, so that its sink counts as complete.
    """

    def __init__(
        self,
        work: CallerAttempt,
        rows: BinaryInput,
        sink: BinarySink,
        scratch: Path,
        *,
        schema: Adapter[Any] | None = None,
        is_again: bool = False,
    ) -> None:
        self._schema = schema
        self._is_again = is_again
        self._work = work
        self._rows = rows
        self._sink = sink
        self._scratch = scratch
        self._piece = scratch / "piece.jsonl"

    def downloads(self) -> AbstractAsyncContextManager[Sequence[Path]]:
        """Provide paths for the two files of results, which are removed with the directory for scratch."""
        return nullcontext([self._scratch / f"{number}.jsonl" for number in (0, 1)])

    async def arrange(self, output: Path | None, errors: Path | None) -> Arranged:
        """Put the results in order, in the directory for scratch."""

        def make(raise_if_cancelled: Callable[[], None]) -> Arranged:
            return write_piece(
                AtomicFile(self._piece, mark="new", hashed=True),
                self._work.attempt,
                self._ids(raise_if_cancelled),
                output,
                errors,
                # The second job of a file has the rows of the first, too.
                settled=_Everything() if self._work.shares_file else (),
                raise_if_cancelled=raise_if_cancelled,
                schema=self._schema,
            )

        return await in_thread(make, large=True)

    def _ids(self, raise_if_cancelled: Callable[[], None]) -> list[str]:
        ids: list[str] = []
        for lines in cut_lines(self._rows.blocks(), jsonl.LineSplitter()):
            raise_if_cancelled()
            ids += request_codec.custom_ids(lines.text)
        _check_count(len(ids), self._work.attempt, self._rows)
        return ids

    async def keep(self) -> None:
        """Write the ordered results to the sink."""

        def write(raise_if_cancelled: Callable[[], None]) -> None:
            def blocks() -> Iterator[bytes]:
                for block in blocks_of(self._piece):
                    raise_if_cancelled()
                    yield block

            write_sink(self._sink, blocks())

        if self._is_again:
            await self._work.store(self._work.attempt)
        await in_thread(write, large=True)
