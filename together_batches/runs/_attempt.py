"""One attempt, as the steps that carry it out see it, whether a run or a caller with its own storage drives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from together_batches.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from together_batches._jobs.create import Created
    from together_batches._protocol.files import Uploaded
    from together_batches.errors import APIError, BatchesError
    from together_batches.models import BatchJob
    from together_batches.runs._context import Clock, RunApi
    from together_batches.runs._joining import Arranged
    from together_batches.runs._lost_jobs import JobSettings
    from together_batches.runs._records import Attempt
    from together_batches.runs._values import RunEventKind

T = TypeVar("T")


class AttemptContext(ABC):
    """The record of an attempt, the service, the clock, and how an outage is treated.

    ``patience`` is the number of seconds for which something may be absent.
    """

    api: RunApi
    settings: JobSettings
    patience: float

    @property
    def time(self) -> Clock:
        """The clock."""
        return self.api.time

    @property
    @abstractmethod
    def attempt(self) -> Attempt:
        """The attempt as last saved."""

    @abstractmethod
    async def save(self, **changes: Any) -> None:
        """Change the attempt, and return when the change is durable."""

    @abstractmethod
    def lost_job(self, jobs: Iterable[BatchJob]) -> Created | None:
        """Return the listed job of the attempt's file that no record names."""

    @abstractmethod
    def is_of_another(self, job: BatchJob) -> bool:
        """Return whether the job belongs to another attempt."""

    @abstractmethod
    async def until_answered(
        self, what: str, call: Callable[[], Awaitable[T]], *, is_over: Callable[[APIError], bool] = lambda _: False
    ) -> T:
        """Return the result of ``call``; an outage is waited out if that is the way here, unless it ``is_over``."""

    @abstractmethod
    async def wait(self, what: str, problem: BatchesError | str, pause: float) -> None:
        """Report a transient failure, and wait."""

    @abstractmethod
    def emit(self, kind: RunEventKind, message: str, job_id: str | None = None) -> None:
        """Report an event."""

    async def if_present(self, what: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of ``call``; None after a 404."""
        try:
            return await self.until_answered(what, call)
        except NotFoundError:
            return None


class AttemptInput(Protocol):
    """The rows of an attempt.

    ``may_be_uploaded`` says whether an earlier process may have uploaded them, although no record says so.
    """

    @property
    def may_be_uploaded(self) -> bool: ...

    async def upload(self) -> tuple[Uploaded, bool]:
        """Upload the rows; return the file, and whether it is marked: no other has its content."""
        ...


class AttemptResults(Protocol):
    """The place of the results of an attempt."""

    def reading(self) -> AbstractAsyncContextManager[object]:
        """Limit how many results are downloaded at once."""
        ...

    def download_path(self, number: int) -> Path:
        """Return the path for the first or second file of results."""
        ...

    async def drop(self, path: Path) -> None:
        """Remove a download."""
        ...

    async def arrange(self, output: Path | None, errors: Path | None) -> Arranged:
        """Put the results in order. Raises :class:`ForeignFileError` for a file that is not of the job."""
        ...

    async def keep(self) -> str:
        """Put the ordered results in their place, and return their hash."""
        ...
