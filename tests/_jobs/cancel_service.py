"""A small fake of the service for cancels, reads and lists, and what its tests share."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from wires import a_job

from together_batches import (
    APIConnectionError,
    APIResponseValidationError,
    AuthenticationError,
    BadRequestError,
    BatchJob,
    CancelOutcome,
    CancelReport,
    CancelResult,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    UnprocessableEntityError,
)
from together_batches._http.client_state import BulkContext, CallState
from together_batches._jobs import bulk_cancel
from together_batches._jobs import cancel as cancelling
from together_batches._jobs.job_ids import checked_ids
from together_batches._jobs.job_requests import JobsApi
from together_batches._protocol.jobs import NoJob
from together_batches._stream import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable


R = CancelResult

BEGAN = datetime(2026, 11, 2, 10, tzinfo=UTC)
REFUSED_KEY = AuthenticationError("no such key", status=401)
FORBIDDEN = PermissionDeniedError("not yours", status=403)
UNKNOWN = NotFoundError("Job not found", status=404)
TOO_LATE = ConflictError("Cannot cancel job - already in terminal state: COMPLETED", status=409)
TOO_LATE_AS_DOCUMENTED = BadRequestError("Already in TERMINAL state: FAILED", status=400)
NOT_NOW = BadRequestError("batches cannot be cancelled once processing begins", status=400)
UNFIT = UnprocessableEntityError("batches cannot be cancelled once processing begins", status=422)
NO_ANSWER = APIResponseValidationError("nothing at all", status=200)
BROKEN = APIConnectionError("the connection broke")
NOT_SENT = APIConnectionError("no connection", request_sent=False)
TROUBLE = InternalServerError("trouble", status=500)


class Service:
    """Responses to cancels, reads and lists by id: a status or an error to raise, or a list of them in order."""

    def __init__(
        self, *, seconds: float = 0, capacity: int | None = None, default: str = "CANCELING", **answers: Any
    ) -> None:
        self.seconds = seconds
        self.capacity = capacity  # if more than this many run at once, each takes proportionally longer
        self.default = default
        self.cancels: dict[str, Any] = {}
        self.reads: dict[str, Any] = {}
        self.known: set[str] = set()
        self.list_answer: Any = BROKEN
        self.sent: list[str] = []
        self.read: list[str] = []
        self.read_once: list[str] = []
        self.lists = 0
        self.at_once = 0
        self.most_at_once = 0
        self.times: list[float] = []

    @property
    def api(self) -> JobsApi:
        return self.verbs_with(self.cancel)

    def verbs_with(self, cancel: Callable[[str, CallState], Awaitable[BatchJob | NoJob]]) -> JobsApi:
        return JobsApi(
            cancel=cancel,
            retrieve=self.retrieve,
            retrieve_once=self.retrieve_once,
            list_jobs=self.list_jobs,
            knows=self.known.__contains__,
            now=lambda: BEGAN,
            clock=now,
            sleep=asyncio.sleep,
            chance=lambda: 0.5,
            read=lambda _: None,
            seen=lambda _: None,
        )

    async def cancel(self, job_id: str, call: CallState) -> BatchJob | NoJob:
        note_attempt(call)
        self.sent.append(job_id)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        call.seconds = self.seconds if self.capacity is None else self.seconds * max(1, self.at_once / self.capacity)
        try:
            await asyncio.sleep(call.seconds)
        finally:
            self.at_once -= 1
        answer = self.cancels.get(job_id)
        return answer if isinstance(answer, NoJob) else self.answer(self.cancels, job_id)

    async def retrieve(self, job_id: str, call: CallState | None) -> BatchJob:
        assert call is not None
        call.attempts += 1
        self.read.append(job_id)
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        return self.answer(self.reads, job_id)

    async def retrieve_once(self, job_id: str, call: CallState) -> BatchJob:
        call.attempts += 1
        self.read_once.append(job_id)
        await asyncio.sleep(self.seconds)
        return self.answer(self.reads, job_id)

    async def list_jobs(self, call: CallState | None) -> list[BatchJob]:
        assert call is not None
        call.attempts += 1
        self.lists += 1
        await asyncio.sleep(self.seconds)
        if isinstance(self.list_answer, Exception):
            raise self.list_answer
        return list(self.list_answer)

    def answer(self, answers: dict[str, Any], job_id: str) -> BatchJob:
        found = answers.get(job_id, self.default)
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Exception):
            raise found
        return a_job(job_id, found)


def note_attempt(call: CallState) -> None:
    """Record an attempt as the transport does."""
    call.attempts += 1
    if call.attempts == 1:
        call.requested_at = BEGAN + timedelta(seconds=now())


async def cancel_many(service: Service, ids: Any, **options: Any) -> CancelReport:
    settings = {"max_concurrency": 10, "wait": False, "timeout": None, "on_outcome": None, **options}
    job_ids = checked_ids(ids, verb_for_one="cancel")
    return await bulk_cancel.cancel_many(service.api, BulkContext(None), job_ids, **settings)


def a_call(job: BatchJob | None = None) -> cancelling.CancelCall:
    """The call state of a cancel outside any bulk."""
    return cancelling.CancelCall(None, "a", job)


def iter_cancel(service: Service, ids: Any, **options: Any) -> Stream[CancelOutcome]:
    settings = {"max_concurrency": 10, "wait": False, **options}
    job_ids = checked_ids(ids, verb_for_one="cancel")
    return Stream(bulk_cancel.iter_cancel(service.api, BulkContext(None), job_ids, **settings))


async def later(ids: Iterable[Any], seconds: float = 0) -> AsyncIterator[Any]:
    """An async iterable of ids."""
    for job_id in ids:
        await asyncio.sleep(seconds)
        yield job_id


async def gather_into(found: list[CancelOutcome], outcomes: AsyncIterable[CancelOutcome]) -> None:
    """Append outcomes one by one, so that those before an error are kept."""
    async for outcome in outcomes:
        found.append(outcome)  # noqa: PERF401  # a comprehension would lose them


def results(outcomes: Iterable[CancelOutcome]) -> list[tuple[str, CancelResult]]:
    return [(outcome.job_id, outcome.result) for outcome in outcomes]


def now() -> float:
    return asyncio.get_running_loop().time()


def names(count: int) -> list[str]:
    return [f"job-{number}" for number in range(count)]
