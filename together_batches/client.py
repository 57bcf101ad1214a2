"""The asynchronous client: one short method for each verb."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, overload

import attrs

from together_batches._display import watched
from together_batches._http.client_state import BulkContext, CallState, ClientState
from together_batches._http.transport import Transport
from together_batches._jobs import bulk_cancel, cancel
from together_batches._jobs.job_ids import checked_ids
from together_batches._jobs.job_requests import JobRequests
from together_batches._jobs.known_jobs import KnownJobs
from together_batches._protocol import jobs as job_protocol
from together_batches._stream import Stream
from together_batches._validation import check_callback, positive_int, positive_number
from together_batches.config import Config, RetryPolicy, Secret, Timeout
from together_batches.models import BatchJob, Response

if TYPE_CHECKING:
    import builtins
    import os
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from ssl import SSLContext
    from types import TracebackType

    from aiohttp import ClientSession

    from together_batches._jobs.follower import AsyncFollower
    from together_batches._jobs.job_ids import Ids
    from together_batches._jobs.results import Order, Requests
    from together_batches._jobs.upload_source import Source, UploadSource
    from together_batches._jobs.wait import Wait
    from together_batches._protocol.files import UploadContent, Uploaded
    from together_batches._schema.adapters import Adapter, Schema, SchemaAdapter
    from together_batches.events import ClientEvent
    from together_batches.files import AsyncFiles, Transfers
    from together_batches.jsonl._estimate import Prices
    from together_batches.models import FileObject, Price
    from together_batches.outcomes import CancelOutcome, CancelReport
    from together_batches.rows import BatchResult
    from together_batches.runs import RunEvent, RunReport, UnfinishedJobs, _context
    from together_batches.runs._options import Requests as RunRequests

    T = TypeVar("T")

__all__ = ["AsyncBatches"]


class AsyncBatches:
    """The asynchronous client for batch jobs on Together AI.

    One client serves one event loop, for any length of time and from any number of tasks; connections open on first
    use. Use it as an async context manager, or await :meth:`close`.

    Parameters:
        api_key: the API key; defaults to ``TOGETHER_API_KEY`` from the environment.
        base_url: URL of the service, with or without ``/v1``; defaults to ``TOGETHER_BASE_URL``, then to Together AI.
        timeout: time limits of one attempt: seconds for the whole attempt, or a :class:`Timeout`.
        retry: how failed calls are retried.
        max_concurrency: maximum number of concurrent calls; a bulk call may set its own.
        session: an aiohttp session to send with; the client does not close it.
        headers: additional headers, sent with each request.
        proxy: URL of an HTTP proxy; defaults to ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY``, ``NO_PROXY``.
        ssl: the context that verifies certificates, for a company's own authority; by default ``TOGETHER_CA_BUNDLE``
            names a file of certificates that are trusted in addition to those of the system.
        on_event: called in the event loop with each event of :mod:`together_batches.events`: attempts and retries of
            requests, the allowed rate, jobs that are created or change, runs; not a coroutine function. An exception
            from it aborts the call that it belongs to, and that call alone.
        allow_insecure_http: allow the key to be sent over plain HTTP to another machine.

    Raises:
        UsageError: no API key, or an invalid setting.
        TypeError: ``on_event`` is a coroutine function.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float | Timeout = Timeout(),
        retry: RetryPolicy = RetryPolicy(),
        max_concurrency: int = 100,
        session: ClientSession | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl: SSLContext | None = None,
        on_event: Callable[[ClientEvent], None] | None = None,
        allow_insecure_http: bool = False,
    ) -> None:
        api_key, proxy = Secret.of(api_key), Secret.of(proxy)
        check_callback("on_event", on_event)
        config = Config.from_env(
            api_key=api_key,
            base_url=base_url,
            timeout=timeout,
            retry=retry,
            max_concurrency=max_concurrency,
            headers=headers,
            proxy=proxy,
            ssl=ssl,
            has_session=session is not None,
            allow_insecure_http=allow_insecure_http,
        )
        connection = ClientState(session, max_concurrency=config.max_concurrency)
        if on_event is not None:
            connection.emitter.add(on_event)
        self._set_up(Transport(config, connection), KnownJobs(), owner=True)

    @classmethod
    def _over(cls, transport: Transport, known: KnownJobs | None = None, *, owner: bool = True) -> Self:
        """Return a client over a given transport: a view of another client, or one with its own clock."""
        client = cls.__new__(cls)
        client._set_up(transport, KnownJobs() if known is None else known, owner=owner)
        return client

    def _set_up(self, transport: Transport, known: KnownJobs, *, owner: bool) -> None:
        self._transport = transport
        self._emitter = transport.state.emitter
        self._known = known
        self._owner = owner
        self._requests = JobRequests(transport, known)
        self._api = self._requests.api()

    # Optional parts are imported where they are used: a service that cancels jobs starts without the files.

    @cached_property
    def files(self) -> AsyncFiles:
        """The files of the account: upload, retrieve, list, download, delete."""
        from together_batches.files import AsyncFiles

        return AsyncFiles(self._transfers, self._transport.state.sleep)

    @cached_property
    def _transfers(self) -> Transfers:
        from together_batches._http.streaming import Streaming
        from together_batches.files import Transfers

        self._transport.state.check_library()  # before a local file is opened
        return Transfers(self._transport.send, Streaming(self._transport), self._known)

    # --- jobs -----------------------------------------------------------------------------------------------------

    async def create(
        self,
        input_file_id: str,
        *,
        endpoint: str = "/v1/chat/completions",
        completion_window: str | None = None,
        model_id: str | None = None,
        priority: int | None = None,
        patience: float = 120,
    ) -> BatchJob:
        """Create one job from an uploaded file, and only one even if responses are lost.

        The service has no idempotency key, so a create that may have succeeded is not simply sent again: the client
        searches the list for a new job with this file, endpoint, model and priority, for ``patience`` seconds, then
        posts once more, and never a third time. After a 2xx response it never posts again, whatever the response
        contains. The job named in the response is not verified: if it does not exist, :meth:`wait` raises the 404,
        after its patience. Advice of the service is in ``job.warning``. The service does not check the file here: an
        unknown file makes a job that fails a moment later. See https://docs.together.ai/reference/batch-create.

        Parameters:
            input_file_id: the id of an uploaded file.
            endpoint: the endpoint of the requests.
            completion_window: sent with the job; the service documents one value, ``24h``.
            model_id: sent with the job; it does not replace a model that a row omits.
            priority: sent with the job, an integer; the service does not document its effect.
            patience: seconds to search for a job whose create lost its response. 0 searches once.

        Raises:
            JobNotCreatedError: the service declined, with its reason.
            CreateUnconfirmedError: a job may exist, but is not listed or cannot be identified.
            APIError: the request was refused, or never reached the service.
        """
        positive_number("patience", patience, zero=True)
        from together_batches._jobs.create import WantedJob

        wanted = WantedJob(file_id=input_file_id, endpoint=endpoint, model_id=model_id, priority=priority)
        return (await self._requests.create(wanted, patience, completion_window=completion_window)).job

    async def submit(
        self,
        source: Source,
        *,
        endpoint: str = "/v1/chat/completions",
        model_id: str | None = None,
        priority: int | None = None,
        schema: Schema | None = None,
        patience: float = 120,
        on_progress: Callable[[int, int], None] | None = None,
        on_uploaded: Callable[[FileObject], None] | None = None,
    ) -> BatchJob:
        """Check requests, upload them, and create one job from them.

        The upload is exactly the content that was checked. Whatever is lost on the way, there is one job: the upload
        is free and may be repeated, and for the create see :meth:`create`. 64 spaces and tabs in the first object of
        the file make the upload unique, so that a job of the file can only be the job of this submission; without
        room for them within the limits it is not unique. See https://docs.together.ai/docs/inference/batch/overview.

        Parameters:
            source: a path, bytes, a file opened in binary mode, or an iterable or async iterable of
                :class:`BatchRequest`, or of dicts with ``custom_id`` and ``body``.
            endpoint: the endpoint of the requests. A misspelt one is refused before anything is uploaded.
            model_id: sent with the job; it does not replace a model that a row omits.
            priority: sent with the job, an integer; the service does not document its effect.
            schema: what answers must fit, as for :meth:`results`: sent as ``response_format`` with each request that
                has none. It is not added to a prompt.
            patience: seconds to search for a job whose create lost its response. 0 searches once.
            on_progress: called in the event loop with the bytes sent and their total, as for ``files.upload``; not a
                coroutine function. An exception from it aborts the call.
            on_uploaded: called in the event loop with the uploaded file, before the job is created; not a coroutine
                function. An exception from it aborts the call.

        Raises:
            ValidationError: invalid requests; ``problems`` lists all problems, each with its line.
            UsageError: the file is missing or unreadable, or changed meanwhile; ``schema`` cannot be a schema, or the
                endpoint is not that of chat.
            JobNotCreatedError, CreateUnconfirmedError, APIError: as for :meth:`create`.
        """
        positive_number("patience", patience, zero=True)
        from together_batches._jobs import submit
        from together_batches._jobs.create import WantedJob

        async def upload(content: UploadSource) -> FileObject:
            file = await self.files.upload(content, on_progress=on_progress)
            if on_uploaded is not None:
                on_uploaded(file)
            return file

        async def create(file_id: str, has_own_file: bool) -> BatchJob:
            wanted = WantedJob(
                file_id=file_id, endpoint=endpoint, model_id=model_id, priority=priority, has_own_file=has_own_file
            )
            return (await self._requests.create(wanted, patience)).job

        check_callback("on_uploaded", on_uploaded)
        adapter = _adapter_of(schema)
        return await submit.submit(source, endpoint=endpoint, upload=upload, create=create, schema=adapter)

    async def retrieve(self, job_id: str | BatchJob) -> BatchJob:
        """Return the current state of a job.

        Parameters:
            job_id: an id or a job.

        Raises:
            NotFoundError: the job does not exist.
            APIError: the request failed after retries.
        """
        return await self._requests.retrieve(job_protocol.job_id(job_id))

    async def list(
        self,
        *,
        status: str | Iterable[str] | None = None,
        model_id: str | None = None,
        endpoint: str | None = None,
        input_file_id: str | None = None,
        created_after: datetime | timedelta | None = None,
        created_before: datetime | timedelta | None = None,
    ) -> builtins.list[BatchJob]:
        """List the jobs of the account, newest first; jobs without a creation time come last.

        The service sends all jobs of the account, unsorted (https://docs.together.ai/reference/batch-list); the
        client filters them.

        Parameters:
            status: one status or several, in upper or lower case. A status that is neither known nor that of any job
                raises an error.
            model_id: jobs of this model. The service names the model only once a job has been validated.
            endpoint: jobs of this endpoint, such as ``/v1/chat/completions``.
            input_file_id: jobs created from this file.
            created_after: jobs created at this time or later. A ``timedelta`` is an age, by the service's clock.
            created_before: jobs created before this time, likewise.

        Raises:
            UsageError: a time without a time zone, an unknown status, or another filter that cannot match.
            APIError: the request failed, or the response is not the whole list.
        """
        from together_batches._jobs.job_filter import Selection

        selection = Selection(
            status=status,
            model_id=model_id,
            endpoint=endpoint,
            input_file_id=input_file_id,
            created_after=created_after,
            created_before=created_before,
        )
        listing = await self._requests.listing()
        return selection.choose(listing.jobs, listing.at or self._transport.state.now())

    async def cancel(self, job_id: str | BatchJob) -> BatchJob:
        """Cancel one job, and return its current state.

        A cancel is accepted first and takes effect later (the status is ``CANCELING`` meanwhile); completed rows are
        kept and charged. A job that had already finished is not an error: it is returned in its final state. See
        https://docs.together.ai/reference/batch-cancel.

        Parameters:
            job_id: an id or a job.

        Raises:
            NotFoundError: the job does not exist. For a ``BatchJob``, and for a job that this client has seen, the
                cancel is first retried for a minute.
            ConflictError, BadRequestError, UnprocessableEntityError: the cancel was refused, and the job continues; a
                ``ConflictError`` also if the job could not be read.
            APIError: the request failed after retries.
        """
        job = job_id if isinstance(job_id, BatchJob) else None
        call = cancel.CancelCall(None, job_protocol.job_id(job_id), job)
        outcome = await cancel.cancel_one(self._api, call)
        if outcome.job is None or not outcome.ok:
            assert outcome.error is not None  # noqa: S101  # an outcome has one of the two
            raise outcome.error
        return outcome.job

    async def cancel_many(
        self,
        job_ids: Ids,
        *,
        max_concurrency: int | None = None,
        rate: float | None = None,
        wait: bool = False,
        timeout: float | None = None,
        progress: bool = False,
        on_outcome: Callable[[CancelOutcome], None] | None = None,
    ) -> CancelReport:
        """Cancel many jobs concurrently, and report the outcome of each, in the order of the ids.

        An invalid id does not stop the others; a refused key does, and the rest is ``NOT_ATTEMPTED``. A repeated id
        is sent once.

        Parameters:
            job_ids: an iterable or async iterable of ids or jobs.
            max_concurrency: maximum number of concurrent cancels; defaults to that of the client. Jobs that are
                followed are read beside them, up to as many at once.
            rate: maximum requests per second; by default as fast as the service allows.
            wait: follow each job until it has stopped; the outcome of a job that completed instead says so. A job
                whose cancel was refused is followed for a minute, because its state may lag.
            timeout: maximum seconds for the whole call. At the limit, calls in flight are ``FAILED``, unsent ids are
                ``NOT_ATTEMPTED``, and jobs that were draining stay ``CANCELING``. Ids that an async iterable had not
                yielded are not in the report; of a generator, which may have no end, a million more ids are read.
            progress: draw a bar, with an estimate of the time left, on a terminal or in a notebook.
            on_outcome: called in the event loop for each outcome, as soon as it is known; not a coroutine function.
                With ``wait`` it is called twice for a job that stops: when its cancel is accepted, and when it has
                ended; ``outcome.event`` distinguishes them. An exception from it aborts the call.

        Raises:
            TypeError: one id instead of an iterable of ids.
            UsageError: an invalid number, or a client that is closed or belongs to another loop.
        """
        ids, limit, bulk = self._bulk(job_ids, max_concurrency, rate)
        if timeout is not None:
            positive_number("timeout", timeout, zero=True)
        check_callback("on_outcome", on_outcome)
        with watched(progress, "cancel", on_outcome, job_ids) as on_outcome:
            return await bulk_cancel.cancel_many(
                self._api, bulk, ids, max_concurrency=limit, wait=wait, timeout=timeout, on_outcome=on_outcome
            )

    def iter_cancel(
        self,
        job_ids: Ids,
        *,
        max_concurrency: int | None = None,
        rate: float | None = None,
        wait: bool = False,
    ) -> Stream[CancelOutcome]:
        """Cancel many jobs concurrently, and yield each outcome as soon as it is known.

        Memory does not grow with the number of ids, so a repeated id is merged only while it is in flight. With
        ``wait`` each outcome is yielded when its job has ended. Leaving the iterator stops the work: use it in
        ``async with``, or iterate to its end. It raises the errors of :meth:`cancel_many`.

        Parameters:
            job_ids: an iterable or async iterable of ids or jobs.
            max_concurrency: maximum number of concurrent cancels; defaults to that of the client. Jobs that are
                followed are read beside them, up to as many at once.
            rate: maximum requests per second; by default as fast as the service allows.
            wait: follow each job until it has stopped, or completed instead.
        """
        ids, limit, bulk = self._bulk(job_ids, max_concurrency, rate)
        return Stream(bulk_cancel.iter_cancel(self._api, bulk, ids, max_concurrency=limit, wait=wait))

    async def wait(
        self,
        job_id: str | BatchJob,
        *,
        timeout: float | None = None,
        poll_interval: float | None = None,
        patience: float = 60,
        progress: bool = False,
        on_update: Callable[[BatchJob], None] | None = None,
    ) -> BatchJob:
        """Wait until a job has finished, and return it in its final state.

        The final state may be any; check ``status``. The first terminal status that the service shows is final. A job
        that is passed in as finished is returned at once, without a request. Lost or invalid responses, errors of the
        service and rate limiting are retried, with a warning in the log, as long as the time allows; a job that makes
        no progress is waited for too, with a warning each hour. Ending the wait, in any way, does not affect the job.

        Parameters:
            job_id: an id or a job.
            timeout: maximum seconds for the whole wait; unlimited by default, because a job may outlive its
                ``job_deadline``. The job is read once more shortly before the limit. 0 reads the job once, and takes
                as long as one call may take.
            poll_interval: seconds between reads; by default about 2 for a young job, and up to the 30 to 60 that the
                service recommends (https://docs.together.ai/docs/inference/batch/manage) as it gets older.
            patience: seconds for which something absent is read again: a job that answers 404, although this client
                has seen it or it is passed as a :class:`BatchJob`; and the files of a COMPLETED job that names none.
                Such a job is then returned with a warning in the log, also when ``timeout`` is over. 0 reads once.
            progress: draw a bar, as for :meth:`cancel_many`.
            on_update: called in the event loop with the job as first seen, with each change, and with the job that is
                returned; not a coroutine function. ``progress`` never decreases. An exception from it aborts the
                wait.

        Raises:
            WaitTimeoutError: the time is over; ``jobs`` holds the job as last seen.
            NotFoundError: the job does not exist.
            APIError: the key or the call was refused, in a way that waiting does not help.
            TypeError: ``on_update`` is a coroutine function.
            UsageError: an invalid number or id, or a client that is closed or belongs to another loop.
        """
        job_protocol.job_id(job_id)
        _check_times(timeout, poll_interval, patience)
        check_callback("on_update", on_update)
        from together_batches._jobs import wait

        with watched(progress, "wait", on_update, job_id) as on_update:
            return await wait.ended(self._make_wait(poll_interval, patience, timeout), job_id, on_update)

    def as_completed(
        self,
        job_ids: Ids,
        *,
        timeout: float | None = None,
        poll_interval: float | None = None,
        patience: float = 60,
    ) -> Stream[BatchJob]:
        """Wait for many jobs concurrently, and yield each in its final state as it finishes.

        One poller reads them all, and reads the list of the account instead of each job if that is cheaper. A
        repeated id is yielded once; ids of an async iterable are followed as they arrive. Jobs that finished earlier
        are yielded first, and jobs that are passed in as finished are yielded without a request. Leaving the iterator
        stops the work and does not affect the jobs: use it in ``async with``, or iterate to its end. Time counts from
        the first iteration; errors are retried as for :meth:`wait`.

        Parameters:
            job_ids: an iterable or async iterable of ids or jobs.
            timeout: maximum seconds for the whole wait; unlimited by default.
            poll_interval: seconds between reads; the default is that of :meth:`wait`.
            patience: seconds for which something absent is read again, as for :meth:`wait`. 0 reads once.

        Raises:
            TypeError: one id instead of an iterable of ids.
            WaitTimeoutError: the time is over, and every finished job was yielded; ``jobs`` holds the others.
            AuthenticationError: the key was refused; raised after every finished job was yielded.
            APIError: a job cannot be followed (it does not exist, for example). The others are followed to their end
                first; several such errors are raised as an :class:`ExceptionGroup`.
            UsageError: an invalid number or id, or a client that is closed or belongs to another loop.
        """
        ids = checked_ids(job_ids, verb_for_one="wait")
        _check_times(timeout, poll_interval, patience)
        from together_batches._jobs import wait

        return Stream(wait.as_completed(self._make_wait(poll_interval, patience, timeout), ids))

    def follower(self, *, poll_interval: float | None = None, patience: float = 60) -> AsyncFollower:
        """Return a follower, with which any number of callers wait for jobs by one poller.

        Unlike :meth:`as_completed`, each task awaits its own job with ``ended()``, at any time.

        Parameters:
            poll_interval: seconds between reads; the default is that of :meth:`wait`.
            patience: seconds for which something absent is read again, as for :meth:`wait`. 0 reads once.

        Raises:
            UsageError: an invalid number.
        """
        _check_times(None, poll_interval, patience)
        return self._follower(self._make_wait(poll_interval, patience))

    @overload
    def results(
        self,
        job: str | BatchJob,
        *,
        requests: Requests | None = None,
        order: Order = "file",
        patience: float = 60,
        schema: None = None,
    ) -> Stream[BatchResult]: ...
    @overload
    def results(
        self,
        job: str | BatchJob,
        *,
        requests: Requests | None = None,
        order: Order = "file",
        patience: float = 60,
        schema: type[T] | SchemaAdapter[T],
    ) -> Stream[BatchResult[T]]: ...
    @overload
    def results(
        self,
        job: str | BatchJob,
        *,
        requests: Requests | None = None,
        order: Order = "file",
        patience: float = 60,
        schema: Mapping[str, object],
    ) -> Stream[BatchResult[object]]: ...
    def results(
        self,
        job: str | BatchJob,
        *,
        requests: Requests | None = None,
        order: Order = "file",
        patience: float = 60,
        schema: Schema | None = None,
    ) -> Stream[BatchResult[Any]]:
        """Iterate over the rows of a finished job: the answers of both its files, then the failures.

        Each row is a :class:`BatchSuccess` or a :class:`BatchFailure`; match them by class. Rows that were completed
        before a job was cancelled, expired or failed are included. An answer takes precedence over an error of the
        same row; a further row with its ``custom_id`` is a :class:`BatchStray`. The files are streamed: memory holds
        one row, and the ids of all; many failures are kept in a temporary file until both files are read.

        The service writes rows in any order and may omit some
        (https://docs.together.ai/docs/inference/batch/overview). With ``requests``, which is the input of the job or
        its ids, every request gets exactly one row: those in neither file come last, as :class:`BatchMissing`, and a
        row that belongs to no request is a :class:`BatchStray`. With ``order="input"`` too, the rows come in the
        order of the requests, then the strays; both files are first written to a temporary file.

        A job that failed, expired or was cancelled without files yields nothing, or :class:`BatchMissing` for each
        request. A ``BatchJob`` that had not finished is read again. Use the iterator in ``async with``, or iterate to
        its end; entering it raises if the job does not exist, or has no results.

        Anything absent is read again for ``patience`` seconds (0 reads once): a job that answers 404, although this
        client has seen it or it is passed as a :class:`BatchJob`; the files of a COMPLETED job that names none; a
        file of a job that answers 404. If rows are omitted, or a file ends within a line, the metadata of the file is
        read, and if the file is shorter than its metadata says, the rest is read. If rows are omitted, the job is
        read too, for the id of a file that appeared late. A result with every row costs no such request. Without
        ``requests`` omitted rows cannot be counted, so the metadata of one file, the one with the answers, is always
        read.

        With a ``schema``, the text of each answer is read as JSON, also from within a Markdown fence, and ``parsed``
        of its :class:`BatchSuccess` is the value. An answer that does not fit, or was cut off, is a
        :class:`BatchInvalid`; such rows come with the failures. Of two answers of a row, the first that fits counts.

        Parameters:
            job: an id or a job.
            requests: the input of the job, or its ids.
            order: ``"file"`` for the order of the files, or ``"input"``, which needs ``requests``.
            patience: seconds for which something absent is read again. 0 reads once.
            schema: a pydantic model or ``TypeAdapter``, a dataclass, attrs class, TypedDict or msgspec Struct, or a
                JSON schema, which gives the JSON as it is.

        Raises:
            UsageError: the job has not finished, ``requests`` cannot be read, ``schema`` cannot be a schema, or the
                disk is full.
            ValidationError: ``requests`` holds an invalid line, or a repeated id.
            ResultsUnavailableError: files of the job stayed absent or truncated, after the rows before that; or rows
                are omitted, and a file is a web page instead of results.
            NotFoundError: the job does not exist.
            APIError: a request failed after retries, or a file broke off, after the rows before that.
        """
        from together_batches._jobs import results

        positive_number("patience", patience, zero=True)
        api = results.ResultsApi(
            retrieve=partial(self._requests.retrieve_patiently, patience=patience),
            content=self.files.content,
            file=self.files.retrieve,
            sleep=self._transport.state.sleep,
        )
        adapter = _adapter_of(schema)
        rows = results.results(api, job, requests=requests, order=order, patience=patience, adapter=adapter)
        if isinstance(job, BatchJob):
            self._known.note(job)
        return Stream(rows, looks_ahead=True)

    async def run(
        self,
        source: RunRequests,
        output: str | os.PathLike[str],
        *,
        directory: str | os.PathLike[str] | None = None,
        endpoint: str = "/v1/chat/completions",
        model_id: str | None = None,
        priority: int | None = None,
        schema: Schema | None = None,
        retry_invalid: bool = False,
        failures: str | os.PathLike[str] | None = None,
        max_rows_per_job: int = 50_000,
        max_jobs: int = 100,
        max_enqueued_rows: int | None = None,
        max_attempts: int = 3,
        stop_after_rows: int | None = None,
        stop_after_tokens: int | None = None,
        stop_after_cost: float | None = None,
        prices: Prices | None = None,
        sample: int | None = None,
        skip_invalid: bool = False,
        overwrite: bool = False,
        with_text: bool = False,
        poll_interval: float | None = None,
        patience: float = 900,
        give_up: Iterable[str | BatchJob] = (),
        unique_files: bool = True,
        dedupe: bool = False,
        retry_delays: float | Iterable[float] = (30, 120, 600),
        cancel_on_interrupt: bool = False,
        progress: bool = False,
        on_event: Callable[[RunEvent], None] | None = None,
    ) -> RunReport:
        """Send any number of requests, and write every answer to one file, despite crashes and errors.

        The input is checked and split into as few jobs as the service's limits allow, and each step is recorded in
        ``directory`` before it is taken. Call it again with the same arguments after a crash, a Ctrl-C or an error,
        and it resumes: no job is created twice, and no row is lost. Rows that expired, are missing, or failed with an
        error that may pass are sent again, alone, in new jobs. ``output`` has one line for each row, in the order of
        the input, in the format of the command ``results``; it appears when no row is left to send.

        Lost responses and outages of the service are waited out, for hours if necessary. Rows are sent again only on
        evidence: an error row, a complete result that omits them, or a job that ended as a whole without results.
        Absence is not evidence: a job, or a file of results, that is absent is read again for ``patience``, then
        raised as an error at the end of the call; the next call reads it again. Cancelling the call ends it at once,
        and does not affect the jobs.

        A run starts with one job; the others wait until it leaves VALIDATING, for at most ten minutes. Three
        consecutive jobs that fail as a whole without answers stop the run, and so do rows that are refused for the
        account (401, 402, 403). The next call resumes it.

        Parameters:
            source: a path; or a file opened in binary mode, or an iterable or async iterable of
                :class:`BatchRequest`, or of dicts with ``custom_id`` and ``body``, which is copied to the directory
                and not read again when the run resumes. Requests of a table (:func:`jsonl.requests`) are compared
                with those that it began with.
            output: the file to write.
            endpoint, model_id, priority: as for :meth:`submit`.
            directory: where the run is kept; by default next to the output, with ``.run`` added to its name. It may
                be moved to another machine, together with the input.
            schema: what answers must fit, as for :meth:`results`: sent as ``response_format`` with each request that
                has none, and each answer is read by it when it is collected. An answer that does not fit stays in the
                output, with ``"result": "invalid"``. The run keeps the JSON schema as first sent.
            retry_invalid: send rows whose answers do not fit again, in any call; such an answer is replaced only by
                another answer.
            failures: the file for rows that finally failed or are missing; by default next to the output, such as
                ``answers.failures.jsonl``.
            max_rows_per_job: maximum rows in a job; a run that resumes keeps its jobs as they are.
            max_jobs: maximum jobs in progress at once, and ``max_enqueued_rows`` the maximum rows in them.
            max_attempts: maximum times that a row is sent.
            stop_after_rows: create no job beyond this number of rows sent in total, repeated ones included;
                ``stop_after_tokens``: none after this number of tokens is used; ``stop_after_cost``: none after they
                cost this much, in USD at list prices. Running jobs are waited for, and a call with a larger number
                resumes.
            prices: a :class:`Price`, or the price of each model by its name, for ``stop_after_cost`` and the cost in
                the report. By default those of :meth:`prices`, if ``stop_after_cost`` or ``sample`` is given. If the
                input has several models, the highest price counts.
            sample: send only the first so many rows, in a job of their own; the report then has ``expected_usage``
                and ``expected_cost``. A further call without it sends the other rows, and keeps these answers.
            skip_invalid: write invalid lines to ``invalid.jsonl`` in the directory, instead of refusing the input.
            overwrite: replace an output that this run did not write.
            with_text: add the text of each answer to its line, as ``text``. An output that is there already stays as
                it is.
            poll_interval: seconds between reads of the jobs; the default is that of :meth:`wait`.
            patience: seconds for which a job, a file of results, or rows in it may be absent before this is raised as
                an error. 0 reads once. A job whose create lost its response is searched for as long, and for at most
                300 s, before the create is posted once more.
            give_up: ids of jobs whose results are permanently lost, or of input files whose create led to no job:
                what is still absent at one more read counts as missing, and may be sent, and charged, again.
            unique_files: make the content of each upload unique (64 spaces and tabs in its first row), which
                identifies its job after a crash. Without it, other jobs of the same rows may be mistaken for jobs of
                this run.
            dedupe: send rows with equal bodies once. Each of them has the result in the output, is counted, and is
                among the failures if it failed. It takes a few bytes of memory, and a copy of the rows on disk.
            retry_delays: seconds until rows are sent again. After error rows: the first delay. After the n-th job of
                a shard that failed as a whole: the n-th, or the last. The time since the job ended counts, and a new
                call starts at once.
            cancel_on_interrupt: cancel the jobs in progress when this call is cancelled, such as by Ctrl-C.
            progress: draw a bar, as for :meth:`cancel_many`.
            on_event: called in the event loop with each event; not a coroutine function. An exception from it aborts
                the call.

        Raises:
            ValidationError: the input has invalid lines; ``problems`` lists what is wrong with them, up to 1,000.
            RunInUseError: another process is working on this run.
            RunChangedError: the input, the endpoint, ``model_id``, ``dedupe`` or the schema differs from that of the
                run; a schema may have other titles, descriptions and defaults.
            RunLedgerError: the ledger cannot be read or written.
            RunError: the key, or the base URL, belongs to another account.
            ResultsUnavailableError: jobs or files of results stayed absent, truncated or foreign for longer than
                ``patience``; the message names all of them, and what to do.
            CreateUnconfirmedError: a create lost its response, and its job was not listed; call it again later.
            JobNotCreatedError, APIError: the service refused, in a way that waiting does not help.
            UsageError: an invalid number or path, a file that cannot be read or written, a ``schema`` that cannot be
                one, or is for another endpoint than that of chat, ``stop_after_cost`` without a known price, or a
                ``sample`` of a run that began without one.
        """
        from together_batches.runs import _running
        from together_batches.runs._options import Options, RunPaths

        _check_times(None, poll_interval, patience)
        options = Options(
            endpoint=endpoint,
            model_id=model_id,
            priority=priority,
            schema=_adapter_of(schema),
            retry_invalid=retry_invalid,
            max_rows_per_job=max_rows_per_job,
            max_jobs=max_jobs,
            max_enqueued_rows=max_enqueued_rows,
            max_attempts=max_attempts,
            stop_after_rows=stop_after_rows,
            stop_after_tokens=stop_after_tokens,
            stop_after_cost=stop_after_cost,
            prices=prices,
            sample=sample,
            skip_invalid=skip_invalid,
            overwrite=overwrite,
            with_text=with_text,
            patience=patience,
            give_up=give_up,
            unique_files=unique_files,
            dedupe=dedupe,
            retry_delays=retry_delays,
            cancel_on_interrupt=cancel_on_interrupt,
            on_event=on_event,
        )
        places = RunPaths.of(source, output, directory, failures)
        api = self.__run_api__(patience, poll_interval)
        with watched(progress, "run", on_event, output) as on_event:
            return await _running.run(source, places, attrs.evolve(options, on_event=on_event), api=api)

    async def cancel_run(
        self,
        directory: str | os.PathLike[str],
        *,
        max_concurrency: int | None = None,
        rate: float | None = None,
        wait: bool = False,
        timeout: float | None = None,
        on_outcome: Callable[[CancelOutcome], None] | None = None,
    ) -> CancelReport:
        """Cancel all unfinished jobs of a run, whether or not a process is working on it.

        A process that is working on the run creates no more jobs, collects the completed rows, and ends. The run
        itself is unchanged: resuming it sends the cancelled rows again. It raises the errors of :meth:`cancel_many`.
        A create whose response was lost and whose job is not listed cannot be cancelled: a warning in the log names
        its input file.

        Parameters:
            directory: where the run is kept.
            max_concurrency, rate, wait, timeout, on_outcome: as for :meth:`cancel_many`.

        Raises:
            RunLedgerError: the directory holds no run, or its ledger cannot be read.
        """
        from together_batches.runs._lost_jobs import warn_of_unconfirmed

        found = await self.unfinished_jobs(directory)
        warn_of_unconfirmed(directory, found.unconfirmed)
        return await self.cancel_many(
            found.jobs, max_concurrency=max_concurrency, rate=rate, wait=wait, timeout=timeout, on_outcome=on_outcome
        )

    async def unfinished_jobs(self, directory: str | os.PathLike[str]) -> UnfinishedJobs:
        """Return the unfinished jobs of a run: those in its ledger, and those of its lost creates.

        The jobs are as the run last saw them. The service is called only if the response to a create was lost.

        Parameters:
            directory: where the run is kept.

        Raises:
            RunLedgerError: the directory holds no run, or its ledger cannot be read.
        """
        from together_batches.runs._lost_jobs import unfinished_jobs

        return await unfinished_jobs(directory, self._requests.listing)

    # --- the client itself ----------------------------------------------------------------------------------------

    def with_options(
        self,
        *,
        timeout: float | Timeout | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a view of this client with other limits, another policy, or additional headers.

        It shares the connections, the rate limiter and the retry budget of this client, and is closed with it.

        Parameters:
            timeout: seconds, or a :class:`Timeout`; defaults to that of this client.
            retry: a :class:`RetryPolicy`; defaults to that of this client.
            headers: sent with each request, in addition to those of this client.
        """
        transport = self._transport
        config = transport.config.with_options(timeout=timeout, retry=retry, headers=headers)
        return self._over(transport.with_config(config), self._known, owner=False)

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, str] | None = None,
    ) -> Response:
        """Send any API request, with the key, retries and rate limit of the other methods.

        Only GET, HEAD and OPTIONS are repeated after a lost response.

        Parameters:
            method: such as ``"GET"``.
            path: within the API, such as ``/batches``, with or without ``/v1``.
            json: the body, as values that JSON can represent; None for no body.
            params: the query.

        Raises:
            UsageError: a path outside the API, or a value that JSON cannot represent.
            APIError: no 2xx response was received, after retries.
        """
        answer = await self._transport.send(job_protocol.raw(method, path, json=json, params=params), CallState())
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status, headers=headers, body=answer.body, request_id=answer.request_id)

    async def prices(self) -> dict[str, Price]:
        """Return the list prices of the models, by their names, in USD per million tokens.

        They come from the list of supported models (``/v2/supported-models``), which only the official SDK documents.
        Batches may cost less: the service names no discount. Models that it names no price for are left out.

        Raises:
            APIError: the request failed after retries, or this key has no access to the list.
        """
        return await self._requests.prices()

    async def close(self) -> None:
        """Close the connections. Closing again does nothing; neither does closing a view from ``with_options``."""
        if self._owner:
            await self._transport.state.close()

    async def __aenter__(self) -> Self:
        self._transport.state.session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        # A dump of variables may contain a client whose construction failed.
        where = self._transport.config.base_url if "_transport" in vars(self) else "not made"
        return f"<{type(self).__name__} {where}>"

    def __reduce__(self) -> NoReturn:
        message = f"{type(self).__name__} cannot be pickled or copied: it holds connections and a key"
        raise TypeError(message)

    # --- what the verbs share -------------------------------------------------------------------------------------

    def _bulk(self, job_ids: Ids, max_concurrency: int | None, rate: float | None) -> tuple[Ids, int, BulkContext]:
        ids = checked_ids(job_ids, verb_for_one="cancel")
        if max_concurrency is not None:
            positive_int("max_concurrency", max_concurrency)
        if rate is not None:
            positive_number("rate", rate)
        return ids, max_concurrency or self._transport.config.max_concurrency, self._transport.bulk(rate)

    def _make_wait(self, poll_interval: float | None, patience: float, timeout: float | None = None) -> partial[Wait]:
        from together_batches._jobs.wait import Wait

        self._transport.state.check_library()
        return partial(
            Wait,
            api=self._api,
            max_concurrency=self._transport.config.max_concurrency,
            poll_interval=poll_interval,
            patience=patience,
            timeout=timeout,
        )

    def _follower(self, make_wait: partial[Wait]) -> AsyncFollower:
        from together_batches._jobs.follower import AsyncFollower

        return AsyncFollower(make_wait, self._transport.state.sleep)

    def __add_callback__(self, callback: Callable[[ClientEvent], None]) -> Callable[[], None]:
        """Call ``callback``, too, with each event of this client, and return a function that ends that."""
        return self._emitter.add(callback)

    def __add_reader__(self, reader: Callable[[BatchJob, datetime | None], None]) -> None:
        """Call ``reader`` with each job that a wait of this client reads, and the service's time of the response."""
        self._emitter.readers.append(reader)

    def __run_api__(self, patience: float, poll_interval: float | None = None) -> _context.RunApi:
        """Return the requests of a run, for :mod:`together_batches.runs`."""
        from together_batches.runs import _context

        async def upload(content: UploadContent) -> Uploaded:
            return await self._transfers.upload(content, "batch-api", "storage", None)

        def knows(_: str) -> bool:
            return True  # the jobs of a run are in its ledger

        state = self._transport.state
        api = attrs.evolve(self._api, knows=knows)
        follower = self._follower(partial(self._make_wait(poll_interval, patience), api=api, holds=False))
        return _context.RunApi(
            time=_context.Clock(now=state.now, sleep=state.sleep, monotonic=state.clock),
            upload=upload,
            file=self._transfers.retrieve,
            know=self._known.note,
            create=self._requests.create,
            list_jobs=self._requests.unnoted_listing,
            retrieve=self._requests.retrieve_or_list,
            ended=follower.ended,
            download=lambda file_id, path: self._transfers.fetch(file_id, path, overwrite=True),
            cancel=self.cancel_many,
            prices=self.prices,
            emitter=self._emitter,
        )


def _adapter_of(schema: Schema | None) -> Adapter[Any] | None:
    if schema is None:
        return None
    from together_batches._schema.adapters import adapter_of

    return adapter_of(schema)


def _check_times(timeout: float | None, poll_interval: float | None, patience: float) -> None:
    positive_number("patience", patience, zero=True)
    if timeout is not None:
        positive_number("timeout", timeout, zero=True)
    if poll_interval is not None:
        positive_number("poll_interval", poll_interval)
