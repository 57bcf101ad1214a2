"""The requests about jobs that the verbs of a client send, and what the client learns from their answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

import attrs

from together_batches._http.client_state import CallState
from together_batches._jobs.job_ids import by_ids
from together_batches._jobs.patience import until_found
from together_batches._protocol import jobs as job_protocol
from together_batches._protocol.jobs import NoJob
from together_batches.errors import BatchesError, NotFoundError
from together_batches.events import JobCreated
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from together_batches._http.transport import Transport
    from together_batches._jobs.create import Created, CreateRecord, Listing, WantedJob
    from together_batches._jobs.known_jobs import KnownJobs
    from together_batches._protocol.jobs import Answer
    from together_batches.models import Price

_LONG_BODY_BYTES = 1_000_000
"""Bytes above which a body is decoded in a worker thread: a list of 50,000 jobs takes half a second of CPU time."""


@attrs.frozen(kw_only=True)
class JobsApi:
    """The functions of the service and of the client that verbs use.

    ``retrieve_once`` reads a job by a single request without retries. ``knows`` returns whether a job is known to
    exist. ``now`` is only compared with the creation times of jobs. ``read`` receives each job that a wait reads, and
    ``seen`` each that it reads in another state than before.
    """

    cancel: Callable[[str, CallState], Awaitable[BatchJob | NoJob]]
    retrieve: Callable[[str, CallState | None], Awaitable[BatchJob]]
    retrieve_once: Callable[[str, CallState], Awaitable[BatchJob]]
    list_jobs: Callable[[CallState | None], Awaitable[list[BatchJob]]]
    knows: Callable[[str], bool]
    now: Callable[[], datetime]
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    chance: Callable[[], float]
    read: Callable[[BatchJob], None]
    seen: Callable[[BatchJob], None]


class JobRequests:
    """Requests over a transport. Jobs in their answers are known to the client from then on, and are its events."""

    def __init__(self, transport: Transport, known: KnownJobs) -> None:
        self._transport = transport
        self._known = known
        self._emitter = transport.state.emitter

    def api(self) -> JobsApi:
        """Return the requests and what else verbs use."""
        state = self._transport.state
        return JobsApi(
            cancel=self.cancel,
            retrieve=self.retrieve,
            retrieve_once=self.retrieve_once,
            list_jobs=self.list_jobs,
            knows=self._known.knows,
            now=state.now,
            clock=state.clock,
            sleep=state.sleep,
            chance=state.chance,
            read=self._emitter.read,
            seen=self._emitter.job,
        )

    async def cancel(self, job_id: str, call: CallState) -> BatchJob | NoJob:
        """Send a cancel, and return the job in the answer."""
        answer = await self._transport.send(job_protocol.cancel(job_id), call)
        found = job_protocol.read_cancelled(answer, job_id)
        if isinstance(found, BatchJob):
            call.answer = answer.body
            self._known.note(found)
            self._emit(found, answer)
        return found

    async def retrieve(self, job_id: str, call: CallState | None = None) -> BatchJob:
        """Return a job."""
        answer = await self._transport.send(job_protocol.retrieve(job_id), call or CallState())
        job = self._known.note(job_protocol.read_job(answer, job_id))
        self._emit(job, answer)
        return job

    def _emit(self, job: BatchJob, answer: Answer) -> None:
        if self._emitter.callbacks or self._emitter.readers:
            self._emitter.seen_at = answer.date
            self._emitter.job(job)

    async def retrieve_once(self, job_id: str, call: CallState) -> BatchJob:
        """Return a job, by one request that is not retried."""
        call.max_attempts = 1
        return await self.retrieve(job_id, call)

    async def retrieve_or_list(self, job_id: str) -> BatchJob:
        """Return a job that is known to exist: from its own endpoint, or, after a 404, from the list."""
        try:
            return await self.retrieve(job_id)
        except NotFoundError as error:
            try:
                listed = await self.list_jobs()
            except BatchesError:
                raise error from None
            found = by_ids(listed, [job_id])
            if not found:
                raise
            return found[job_id]

    async def retrieve_patiently(self, job_id: str, *, patience: float) -> BatchJob:
        """Return a job; a 404 for one that this client has seen is retried until patience runs out."""
        if not self._known.knows(job_id):
            return await self.retrieve(job_id)
        sleep = self._transport.state.sleep
        return await until_found(lambda: self.retrieve_or_list(job_id), patience=patience, sleep=sleep)

    async def list_jobs(self, call: CallState | None = None) -> list[BatchJob]:
        """Return all jobs, newest first."""
        return (await self.listing(call)).jobs

    async def listing(self, call: CallState | None = None) -> Listing:
        """Return all jobs, newest first, and the time of the list."""
        listing = await self.unnoted_listing(call)
        self._known.note_all(listing.jobs)
        self._emitter.seen_at = listing.at
        self._emitter.listed(listing.jobs)
        return listing

    async def unnoted_listing(self, call: CallState | None = None) -> Listing:
        """Return the list without recording its jobs as seen, because a create looks for jobs that are new."""
        from together_batches._jobs.create import Listing

        answer = await self._transport.send(job_protocol.list_jobs(), call or CallState())
        return Listing(await _read_jobs(answer), answer.date)

    async def prices(self) -> dict[str, Price]:
        """Return the list prices of the models, by their names, page by page."""
        from together_batches._protocol import prices as protocol

        config = self._transport.config
        transport = self._transport.with_config(
            attrs.evolve(config, base_url=protocol.base_of_models(config.base_url))
        )
        prices: dict[str, Price] = {}
        cursors: set[str | None] = set()
        after: str | None = None
        while after not in cursors:  # until there is no next page, or its cursor comes again
            cursors.add(after)
            answer = await transport.send(protocol.supported_models(after), CallState())
            found, following = protocol.read_prices(answer)
            prices |= found
            after = following or after
        return prices

    async def create(
        self,
        wanted: WantedJob,
        patience: float,
        record: CreateRecord | None = None,
        *,
        completion_window: str | None = None,
    ) -> Created:
        """Create one job, never two, as :func:`~together_batches._jobs.create.create_once` describes it."""
        from together_batches._jobs.create import CreateRecord, create_once

        request = job_protocol.create(
            wanted.file_id,
            endpoint=wanted.endpoint,
            completion_window=completion_window,
            model_id=wanted.model_id,
            priority=wanted.priority,
        )

        async def post() -> BatchJob:
            return job_protocol.read_created(await self._transport.send(request, CallState()), wanted.file_id)

        state = self._transport.state
        created = await create_once(
            wanted,
            post=post,
            list_jobs=self.unnoted_listing,
            known=self._known,
            patience=patience,
            sleep=state.sleep,
            clock=state.clock,
            record=record or CreateRecord(),
        )
        if self._emitter.callbacks:
            self._emitter.created(
                created.job,
                JobCreated(
                    job_id=created.job.id,
                    input_file_id=wanted.file_id,
                    endpoint=wanted.endpoint,
                    model_id=wanted.model_id,
                    found=created.found,
                ),
            )
        return created


async def _read_jobs(answer: Answer) -> list[BatchJob]:
    from together_batches._jobs.job_filter import newest_first

    def read() -> list[BatchJob]:
        return newest_first(job_protocol.read_jobs(answer))

    if len(answer.body) <= _LONG_BODY_BYTES:
        return read()
    from anyio import to_thread

    return await to_thread.run_sync(read)
