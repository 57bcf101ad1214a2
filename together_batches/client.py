"""The client: one short method for each verb."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, NoReturn, Self

import attrs
from anyio import to_thread

from together_batches._http.transport import BulkContext, CallState, ClientState, Transport
from together_batches._jobs import cancel, job_filter
from together_batches._jobs import create as _create
from together_batches._jobs.create import Created, KnownJobs, Listing, WantedJob
from together_batches._jobs.patience import until_found
from together_batches._jobs.status_reader import by_ids, checked_ids, is_plain
from together_batches._protocol import jobs as job_protocol
from together_batches._stream import Stream
from together_batches._validation import positive_int, positive_number
from together_batches.config import Config, RetryPolicy, Secret, Timeout
from together_batches.errors import BatchesError, NotFoundError
from together_batches.models import BatchJob, Response

if TYPE_CHECKING:
    import builtins
    import os
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from pathlib import Path
    from ssl import SSLContext
    from types import TracebackType

    from aiohttp import ClientSession

    from together_batches._jobs import wait as _wait
    from together_batches._jobs.results import Order, Requests
    from together_batches._jobs.status_reader import Ids
    from together_batches._jobs.upload_source import Source, UploadSource
    from together_batches._protocol.jobs import Answer, NoJob
    from together_batches.files import AsyncFiles, Transfers, Uploaded
    from together_batches.models import FileObject
    from together_batches.outcomes import CancelOutcome, CancelReport
    from together_batches.rows import BatchResult
    from together_batches.runs import RunEvent, RunReport, UnfinishedJobs, _api
    from together_batches.runs._options import Options
    from together_batches.runs._options import Requests as RunRequests

__all__ = ["AsyncBatches"]

_LONG_BODY_BYTES = 1_000_000
"""Longer bodies are decoded in a worker thread: a list of 50,000 jobs takes half a second of a CPU."""


class AsyncBatches:
    """Batch jobs on Together AI, for code that awaits.

    One client serves one event loop, for as long as you like and from as many tasks as you like; connections open on
    first use. Use it as an async context manager, or await :meth:`close`.

    Parameters:
        api_key: the key; otherwise ``TOGETHER_API_KEY`` from the environment.
        base_url: the service, with or without ``/v1``; otherwise ``TOGETHER_BASE_URL``, otherwise Together AI.
        timeout: limits of one attempt, in seconds: one number for all of it, or a :class:`Timeout`.
        retry: how failed calls are repeated.
        max_concurrency: how many calls run at once; a bulk call may name another number for itself.
        session: an aiohttp session of yours to send with; it is never closed here.
        headers: sent with each call, beside the client's own.
        proxy: URL of an HTTP proxy; otherwise ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY``, ``NO_PROXY``.
        ssl: the context to verify certificates with, for the authority of a company; otherwise ``TOGETHER_CA_BUNDLE``
            names a file of certificates that are trusted beside those of the system.
        allow_insecure_http: let the key travel over plain HTTP to a host that is not this machine.

    Raises:
        UsageError: no key, or a setting that cannot be.
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
        allow_insecure_http: bool = False,
    ) -> None:
        api_key, proxy = Secret.of(api_key), Secret.of(proxy)
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
        self._set_up(Transport(config, connection), KnownJobs(), owner=True)

    @classmethod
    def _over(cls, transport: Transport, known: KnownJobs | None = None, *, owner: bool = True) -> Self:
        """A client over a given transport: a view of another client, or one with a clock of its own."""
        client = cls.__new__(cls)
        client._set_up(transport, KnownJobs() if known is None else known, owner=owner)
        return client

    def _set_up(self, transport: Transport, known: KnownJobs, *, owner: bool) -> None:
        self._transport = transport
        self._known = known
        self._owner = owner
        self._verbs = cancel.CancelApi(
            cancel=self._post_cancel,
            retrieve=self._get,
            look=self._get_once,
            list_jobs=self._get_all,
            knows=known.knows,
            now=transport.state.now,
            clock=transport.state.clock,
            sleep=transport.state.sleep,
        )

    # What not everyone needs is imported where it is used: a service that cancels jobs starts without the files.

    @cached_property
    def files(self) -> AsyncFiles:
        """The files of the account: upload, look up, list, download, delete."""
        from together_batches.files import AsyncFiles

        return AsyncFiles(self._transfers, self._transport.state.sleep)

    @cached_property
    def _transfers(self) -> Transfers:
        from together_batches._http.streaming import Streaming
        from together_batches.files import Transfers

        self._transport.state.check_library()  # before a file of this machine is opened
        streaming = Streaming(self._transport)
        return Transfers(self._transport.send, streaming.send, streaming.receive, self._known)

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
        """Create one job from an uploaded file: one, even if answers are lost on the way.

        The service has no idempotency key, so a create that may have worked is not simply sent again: the client
        looks for a new job of this file, endpoint, model and priority in the list, for ``patience`` seconds, and only
        then posts once more, and never a third time. After an answer of 2xx it never posts again, whatever the answer
        says. The job that an answer names is not looked up: one that does not exist is a 404 for :meth:`wait`, after
        its patience. Advice of the service is in ``job.warning``. The service does not check the file here: an
        unknown file makes a job that fails a moment later. See https://docs.together.ai/reference/batch-create.

        Parameters:
            input_file_id: the id of an uploaded file.
            endpoint: what the requests are for.
            completion_window: sent with the job; the service documents one value, ``24h``.
            model_id: sent with the job; it does not fill in a model that a row leaves out.
            priority: sent with the job, an integer; the service does not document its effect.
            patience: seconds for which a job whose create was lost is looked for. 0 looks once.

        Raises:
            JobNotCreatedError: the service declined, with its reason.
            CreateUnconfirmedError: a job may exist and is not listed, or which one it is is not clear.
            APIError: the request was refused, or never reached the service.
        """
        positive_number("patience", patience, zero=True)
        wanted = WantedJob(file_id=input_file_id, endpoint=endpoint, model_id=model_id, priority=priority)
        return (await self._create_once(wanted, patience=patience, completion_window=completion_window)).job

    async def submit(
        self,
        source: Source,
        *,
        endpoint: str = "/v1/chat/completions",
        model_id: str | None = None,
        priority: int | None = None,
        patience: float = 120,
        on_progress: Callable[[int, int], None] | None = None,
        on_uploaded: Callable[[FileObject], None] | None = None,
    ) -> BatchJob:
        """Check requests, upload them, and create one job from them.

        What is uploaded is what was checked. Whatever is lost on the way, there is one job: the upload costs nothing
        and may be repeated, and for the create see :meth:`create`. Each submission uploads content that no other has:
        64 spaces and tabs in the first object of the file, if the limits leave room for them. So a job of the file is
        the job of this submission, and no other can be taken for it.
        See https://docs.together.ai/docs/inference/batch/overview.

        Parameters:
            source: a path, bytes, a file opened in binary mode, or an iterable or async iterable of
                :class:`BatchRequest`, or of dicts with ``custom_id`` and ``body``.
            endpoint: what the requests are for. A misspelt one is refused before anything is uploaded.
            model_id: sent with the job; it does not fill in a model that a row leaves out.
            priority: sent with the job, an integer; the service does not document its effect.
            patience: seconds for which a job whose create was lost is looked for. 0 looks once.
            on_progress: called in the event loop with the bytes sent and their total, as for ``files.upload``; not a
                coroutine function. An exception from it ends the call.
            on_uploaded: called in the event loop with the uploaded file, before the job is created; likewise.

        Raises:
            ValidationError: the requests cannot be a job; ``problems`` has all of them, each with its line.
            UsageError: the file is missing or unreadable, or changed meanwhile.
            JobNotCreatedError, CreateUnconfirmedError, APIError: as for :meth:`create`.
        """
        positive_number("patience", patience, zero=True)
        from together_batches._jobs import submit

        async def upload(content: UploadSource) -> FileObject:
            file = await self.files.upload(content, on_progress=on_progress)
            if on_uploaded is not None:
                on_uploaded(file)
            return file

        async def create(file_id: str, has_own_file: bool) -> BatchJob:
            wanted = WantedJob(
                file_id=file_id, endpoint=endpoint, model_id=model_id, priority=priority, has_own_file=has_own_file
            )
            return (await self._create_once(wanted, patience=patience)).job

        if on_uploaded is not None and not is_plain(on_uploaded):
            message = "on_uploaded must be a plain function: it is called, not awaited"
            raise TypeError(message)
        return await submit.submit(source, endpoint=endpoint, upload=upload, create=create)

    async def retrieve(self, job_id: str | BatchJob) -> BatchJob:
        """The job as it now stands.

        Parameters:
            job_id: an id or a job.

        Raises:
            NotFoundError: the service knows no such job.
            APIError: no good answer came.
        """
        return await self._get(job_protocol.job_id(job_id), CallState())

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
        """The jobs of the account, newest first; jobs without a creation time come last.

        The service sends the whole account, unsorted (https://docs.together.ai/reference/batch-list); the choosing
        is done here.

        Parameters:
            status: one status or several, in upper or lower case. One that is neither known nor the status of any
                job is an error.
            model_id: jobs of this model. The service names the model only once a job has been validated.
            endpoint: jobs of this endpoint, such as ``/v1/chat/completions``.
            input_file_id: jobs made from this file.
            created_after: from this moment on. A ``timedelta`` is how long ago, by the service's own clock.
            created_before: before this moment, likewise.

        Raises:
            UsageError: a time without a zone, an unknown status, or another argument that can choose nothing.
            APIError: the request failed, or the answer is not the whole list.
        """
        selection = job_filter.Selection.of(
            status=status,
            model_id=model_id,
            endpoint=endpoint,
            input_file_id=input_file_id,
            created_after=created_after,
            created_before=created_before,
        )
        answer = await self._transport.send(job_protocol.list_jobs(), CallState())
        return selection.choose(await self._jobs_in(answer), answer.date or self._transport.state.now())

    async def cancel(self, job_id: str | BatchJob) -> BatchJob:
        """Cancel one job, and return it as it now stands.

        A cancel is accepted first and takes effect later (the status is ``CANCELING`` meanwhile); rows that are done
        stay done, and paid for. A job that had already finished is an answer and not an error: it comes back in its
        final state. See https://docs.together.ai/reference/batch-cancel.

        Parameters:
            job_id: an id or a job.

        Raises:
            NotFoundError: the service knows no such job. For a ``BatchJob``, and a job that this client has seen,
                that is doubted first, and the cancel sent again for a minute.
            ConflictError, BadRequestError, UnprocessableEntityError: the cancel was refused, and the job goes on; a
                ``ConflictError`` also if the job could not be read.
            APIError: the request failed after retries.
        """
        job = job_id if isinstance(job_id, BatchJob) else None
        call = cancel.CancelCall(None, self._verbs.now, job)
        outcome = await cancel.cancel_one(self._verbs, job_protocol.job_id(job_id), call)
        if outcome.job is None or not outcome.ok:
            assert outcome.error is not None  # noqa: S101  # an outcome has the one or the other
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
        on_outcome: Callable[[CancelOutcome], None] | None = None,
    ) -> CancelReport:
        """Cancel many jobs at once, and report what became of each, in the order of the ids.

        One bad id never stops the others; a refused key does, and then the rest is ``NOT_ATTEMPTED``. A repeated id
        is sent once.

        Parameters:
            job_ids: an iterable or async iterable of ids or jobs.
            max_concurrency: how many calls run at once at most; otherwise the client's number.
            rate: at most so many requests a second; otherwise as fast as the service allows.
            wait: follow each job until it has really stopped; a job that completed instead says so. A job whose
                cancel was refused is looked at for a minute, since its state may lag.
            timeout: seconds for all of it. Then what is in flight is ``FAILED``, what was not sent is
                ``NOT_ATTEMPTED`` (ids that an async iterable had not given by then are not in the report), and what
                was draining stays ``CANCELING``.
            on_outcome: called on the loop with each outcome, as it is known; not a coroutine function. With ``wait``
                it is called twice for a job that stops: when its cancel is accepted, and when it has ended;
                ``outcome.event`` says which. An exception from it ends the call.

        Raises:
            TypeError: one id in place of an iterable of them.
            UsageError: a number that cannot be, or a client that cannot be used here.
        """
        ids, at_once, bulk = self._bulk(job_ids, max_concurrency, rate)
        if timeout is not None:
            positive_number("timeout", timeout, zero=True)
        return await cancel.cancel_many(
            self._verbs, bulk, ids, at_once=at_once, wait=wait, timeout=timeout, on_outcome=on_outcome
        )

    def iter_cancel(
        self,
        job_ids: Ids,
        *,
        max_concurrency: int | None = None,
        rate: float | None = None,
        wait: bool = False,
    ) -> Stream[CancelOutcome]:
        """Cancel many jobs at once, and give each outcome as it is known.

        Memory does not grow with the number of ids, so a repeated id is merged only while it is in flight. With
        ``wait`` each outcome comes when its job has ended. Leaving the iterator stops the work: use it with
        ``async with``, or to its end. Errors are those of :meth:`cancel_many`.

        Parameters:
            job_ids: an iterable or async iterable of ids or jobs.
            max_concurrency: how many calls run at once at most; otherwise the client's number.
            rate: at most so many requests a second; otherwise as fast as the service allows.
            wait: follow each job until it has really stopped, or completed instead.
        """
        ids, at_once, bulk = self._bulk(job_ids, max_concurrency, rate)
        return Stream(cancel.iter_cancel(self._verbs, bulk, ids, at_once=at_once, wait=wait))

    async def wait(
        self,
        job_id: str | BatchJob,
        *,
        timeout: float | None = None,
        poll_interval: float | None = None,
        patience: float = 60,
        on_update: Callable[[BatchJob], None] | None = None,
    ) -> BatchJob:
        """Wait until a job has finished, and return it as it ended.

        However it ended: look at ``status``. The first end that the service shows is believed. A job that is passed
        in as a finished one comes back at once, without a request. Lost answers, broken ones, a service in trouble
        and refusals for the rate of calls are ridden out, with a warning in the log, for as long as the time allows;
        so is a job that does not move, with a warning each hour. Ending the wait in any way leaves the job alone.

        Parameters:
            job_id: an id or a job.
            timeout: seconds for all of it; otherwise as long as it takes, for a job may outlive its
                ``job_deadline``. Shortly before the end there is one look more. 0 looks once, and takes as long as
                one call may.
            poll_interval: seconds between looks; otherwise about 2 for a young job, and up to the 30 to 60 that the
                service asks for (https://docs.together.ai/docs/inference/batch/manage) as it gets older.
            patience: seconds for which what is absent is looked for again: a job that this client has seen, or that
                is passed as a :class:`BatchJob`, and that answers 404; and the files of a COMPLETED job that names
                none. Such a job is then returned with a warning in the log, also when ``timeout`` is over. 0 looks
                once.
            on_update: a plain function that is called on the loop with the job as first seen, whenever something has
                changed, and with what is returned. ``progress`` never goes back. What it raises ends the wait.

        Raises:
            WaitTimeoutError: the time is over; ``jobs`` holds the job as last seen.
            NotFoundError: the service knows no such job.
            APIError: the key was refused, or the call was, in a way that waiting does not help.
            TypeError: ``on_update`` is a coroutine function.
            UsageError: a number or an id that cannot be, or a client that cannot be used here.
        """
        job_protocol.job_id(job_id)
        _check_times(timeout, poll_interval, patience)
        from together_batches._jobs import wait as _wait

        return await _wait.wait(
            self._followed,
            job_id,
            timeout=timeout,
            poll_interval=poll_interval,
            time=self._time,
            patience=patience,
            knows=self._known.knows,
            on_update=on_update,
        )

    def as_completed(
        self,
        job_ids: Ids,
        *,
        timeout: float | None = None,
        poll_interval: float | None = None,
        patience: float = 60,
    ) -> Stream[BatchJob]:
        """Wait for many jobs at once, and give each as it finishes, however it ended.

        One poller looks at them all, and reads the list of the account in place of each job where that is cheaper. A
        repeated id is given once; ids of an async iterable are followed as they come. What finished before is given
        first, and jobs that are passed in as finished are given without a request. Leaving the iterator stops the
        work and leaves the jobs alone: use it with ``async with``, or to its end. Time counts from when the first
        job is asked for; what is ridden out is as for :meth:`wait`.

        Parameters:
            job_ids: an iterable or async iterable of ids or jobs.
            timeout: seconds for all of it; otherwise as long as it takes.
            poll_interval: seconds between looks; otherwise as for :meth:`wait`.
            patience: seconds for which what is absent is looked for again, as for :meth:`wait`. 0 looks once.

        Raises:
            TypeError: one id in place of an iterable of them.
            WaitTimeoutError: the time is over, and all that had finished was given; ``jobs`` are the others.
            AuthenticationError: the key was refused; raised when all that had finished was given.
            APIError: a job cannot be followed (there is none with this id, say). The others are followed to their
                end first; several such errors are an :class:`ExceptionGroup` of them.
            UsageError: a number or an id that cannot be, or a client that cannot be used here.
        """
        from together_batches._jobs import wait as _wait

        ids = checked_ids(job_ids, verb_for_one="wait")
        _check_times(timeout, poll_interval, patience)
        return Stream(
            _wait.as_completed(
                self._followed,
                ids,
                at_once=self._transport.config.max_concurrency,
                timeout=timeout,
                poll_interval=poll_interval,
                time=self._time,
                patience=patience,
                knows=self._known.knows,
            )
        )

    def results(
        self,
        job: str | BatchJob,
        *,
        requests: Requests | None = None,
        order: Order = "file",
        patience: float = 60,
    ) -> Stream[BatchResult]:
        """The rows of a finished job, one after another: the answers of both its files, and then the failures.

        Each is a :class:`BatchSuccess` or a :class:`BatchFailure`, match them by class. Rows that were done before a
        job was cancelled, expired or failed are there too. An answer beats an error of the same row; a further row
        with its ``custom_id`` is a :class:`BatchStray`. The files are streamed: memory holds one row, and the ids of
        all; failures wait in a temporary file, if they are many, until both files are read.

        The service writes rows in any order and may leave some out
        (https://docs.together.ai/docs/inference/batch/overview). With ``requests``, which is the input of the job or
        its ids, every request gets exactly one row: those in neither file come last, as :class:`BatchMissing`, and
        what belongs to no request is a :class:`BatchStray`. With ``order="input"`` too, the rows come in the order of
        the requests, and then those that are none of them; both files are put in a temporary file first.

        A job that failed, expired or was cancelled without files gives nothing, or :class:`BatchMissing` for each
        request. A ``BatchJob`` that had not finished is read anew. Use the iterator with ``async with``, or to its
        end; entered by ``async with``, it fails there if there is no such job, or no result of it.

        Absence is looked at again for ``patience`` seconds (0 looks once): a job that this client has seen, or that
        is passed as a :class:`BatchJob`, and that answers 404; a COMPLETED job that names no file; a file of a job
        that answers 404. If rows are left out, or a file ends within a line, its metadata is read, and a file shorter
        than that says is read on. If rows are left out, the job is read too, for the id of a file that appeared late.
        A result that has every row costs no such request. Without ``requests`` rows that are left out cannot be
        counted, and the metadata of one file, which has the answers, is always read.

        Parameters:
            job: an id or a job.
            requests: the input of the job, or its ids.
            order: ``"file"`` as the rows come, or ``"input"``, which needs ``requests``.
            patience: seconds for which what is absent is looked for again. 0 looks once.

        Raises:
            UsageError: the job has not finished, ``requests`` cannot be read, or the disk is full.
            ValidationError: ``requests`` holds a line that is no request, or an id twice.
            ResultsUnavailableError: files of the job stayed absent or cut, after the rows that came before; or rows
                are left out, and a file is a page in place of results.
            NotFoundError: the service knows no such job.
            APIError: no good answer came, or a file broke off, after the rows that came before.
        """
        from together_batches._jobs import results

        positive_number("patience", patience, zero=True)
        api = results.ResultsApi(
            retrieve=partial(self._get_patiently, patience=patience),
            content=self.files.content,
            file=self.files.retrieve,
            sleep=self._transport.state.sleep,
        )
        rows = results.results(api, job, requests=requests, order=order, patience=patience)
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
        failures: str | os.PathLike[str] | None = None,
        max_rows_per_job: int = 50_000,
        max_jobs: int = 100,
        max_enqueued_rows: int | None = None,
        max_attempts: int = 3,
        stop_after_rows: int | None = None,
        stop_after_tokens: int | None = None,
        skip_invalid: bool = False,
        overwrite: bool = False,
        poll_interval: float | None = None,
        patience: float = 900,
        give_up: Iterable[str | BatchJob] = (),
        unique_files: bool = True,
        retry_delays: float | Iterable[float] = (30, 120, 600),
        cancel_on_interrupt: bool = False,
        on_event: Callable[[RunEvent], None] | None = None,
    ) -> RunReport:
        """Send requests of any number, and write every answer to one file, whatever happens in between.

        The input is checked and cut into as few jobs as the service's limits allow, and what each step is about is
        noted in ``directory`` before it is taken. Call it again with the same arguments after a crash, a Ctrl-C or an
        error, and it goes on: no job is created twice, and no row is lost. Rows that failed in a way that may pass,
        expired or are missing are sent again, alone, in new jobs. ``output`` has one line for each row, in the order
        of the input, as the command ``results`` writes them; it appears when no row is left to be sent.

        Lost answers and a service in trouble are waited out, for hours if need be. Rows are sent again only on
        evidence: an error row, a whole result that leaves them out, or a job that ended as a whole without results.
        Absence is no evidence: a job, or a file of results, that is absent is looked at again for ``patience``, and
        then raised as an error at the end of the call; the next call looks again. Cancelling this ends it at once,
        and leaves the jobs alone.

        The first job of a run goes ahead alone until it leaves VALIDATING, for at most ten minutes, and three jobs in
        a row that fail as a whole with nothing answered stop the run. So do rows that are refused for the account
        (401, 402, 403). A further call goes on.

        Parameters:
            source: a path; or a file opened in binary mode, or an iterable or async iterable of
                :class:`BatchRequest`, or of dicts with ``custom_id`` and ``body``, which is kept in the directory and
                not read again when the run goes on.
            output: the file to write.
            endpoint, model_id, priority: as for :meth:`submit`.
            directory: where the run is kept; otherwise beside the output, with ``.run`` added to its name. It may be
                moved to another machine, together with the input.
            failures: the file for rows that failed or are missing in the end; otherwise beside the output, such as
                ``answers.failures.jsonl``.
            max_rows_per_job: how many rows a job has at most; a run that goes on keeps its jobs as they are.
            max_jobs: how many jobs are under way at once, and ``max_enqueued_rows`` how many rows.
            max_attempts: how often a row is sent at most.
            stop_after_rows: create no job beyond so many rows sent in all, repeated ones included;
                ``stop_after_tokens``: none after so many tokens are used. What runs is waited for, and a call with a
                larger number goes on.
            skip_invalid: set bad lines aside, in ``invalid.jsonl`` in the directory, instead of refusing the input.
            overwrite: replace an output that this run has not written.
            poll_interval: seconds between looks at the jobs; otherwise as for :meth:`wait`.
            patience: seconds for which a job, a file of results, or rows in it may be absent before the absence is
                reported. 0 looks once. A lost create is looked for as long, and for at most 300 s, before it is
                posted once more.
            give_up: ids of jobs whose results are gone for good, or of input files whose create no job came of: what
                one more look does not show counts as missing, and may be sent, and paid for, again.
            unique_files: give each upload content of its own (64 spaces and tabs in its first row), by which its job
                is known after a crash. Without it other jobs of the same rows may be taken for those of this run.
            retry_delays: seconds until rows go again: the first after error rows and after a first job that failed as
                a whole, the others after further such jobs. The time since the job ended counts, and a new call
                starts at once.
            cancel_on_interrupt: cancel the jobs that are under way when this call is cancelled, such as by Ctrl-C.
            on_event: a plain function that is called on the loop with each event. What it raises ends the call.

        Raises:
            ValidationError: the input has bad lines; ``problems`` names all of them.
            RunInUseError: another process is at this run.
            RunChangedError: the input, the endpoint or ``model_id`` is not what the run was begun with.
            RunLedgerError: what was noted cannot be read, or cannot be written.
            RunError: the key, or the base URL, is of another account.
            ResultsUnavailableError: jobs or files of results stayed absent, cut or foreign for longer than
                ``patience``; the message names all of them, and what to do.
            CreateUnconfirmedError: the answer to a create was lost, and its job was not listed; likewise.
            JobNotCreatedError, APIError: the service refused, in a way that waiting does not help.
            UsageError: a number or a path that cannot be, or a file that cannot be read or written.
        """
        from together_batches.runs import _running
        from together_batches.runs._options import Options, RunPaths, caution_of
        from together_batches.runs._rules import Limits

        _check_times(None, poll_interval, patience)
        options = Options(
            endpoint=endpoint,
            model_id=model_id,
            priority=priority,
            max_rows_per_job=max_rows_per_job,
            limits=Limits(max_jobs, max_enqueued_rows, stop_after_rows, stop_after_tokens),
            caution=caution_of(
                patience=patience, give_up=give_up, unique_files=unique_files, retry_delays=retry_delays
            ),
            max_attempts=max_attempts,
            skip_invalid=skip_invalid,
            overwrite=overwrite,
            cancel_on_interrupt=cancel_on_interrupt,
            on_event=on_event,
        )
        places = RunPaths.of(source, output, directory, failures)
        api = self._run_api(options, poll_interval)
        return await _running.run(source, places, options, api=api, time=self._run_time)

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
        """Cancel all jobs of a run that have not finished, whether a process is at it or not.

        A process that is at it creates no more, collects what was done, and ends. The run itself stays as it is: to
        go on with it is to send again what was cancelled. Errors are those of :meth:`cancel_many`.
        A create whose answer was lost and whose job is not listed cannot be cancelled: a warning in the log names its
        input file.

        Parameters:
            directory: where the run is kept.
            max_concurrency, rate, wait, timeout, on_outcome: as for :meth:`cancel_many`.

        Raises:
            RunLedgerError: there is no run in the directory, or what it had noted cannot be read.
        """
        from together_batches.runs import _running

        found = await self.unfinished_jobs(directory)
        _running.warn_of_unconfirmed(directory, found.unconfirmed)
        return await self.cancel_many(
            found.jobs, max_concurrency=max_concurrency, rate=rate, wait=wait, timeout=timeout, on_outcome=on_outcome
        )

    async def unfinished_jobs(self, directory: str | os.PathLike[str]) -> UnfinishedJobs:
        """The jobs of a run that have not ended: those that the run knows, and those of its lost creates.

        The jobs are as the run last saw them. The service is called only if the answer to a create was lost.

        Parameters:
            directory: where the run is kept.

        Raises:
            RunLedgerError: there is no run in the directory, or its ledger is unreadable.
        """
        from together_batches.runs import _running

        return await _running.unfinished(directory, lambda: self._get_all(CallState()))

    # --- the client itself ----------------------------------------------------------------------------------------

    def with_options(
        self,
        *,
        timeout: float | Timeout | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """This client with other limits, another policy, or further headers.

        It shares the connections, the rate limiter and the budget of the one it comes from, and is closed with it.

        Parameters:
            timeout: seconds, or a :class:`Timeout`; otherwise that of this client.
            retry: a :class:`RetryPolicy`; otherwise that of this client.
            headers: sent with each request, besides those of this client.
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
        """The raw door: any call of the API, under the same key, retries and rate limit as the others.

        Only GET, HEAD and OPTIONS are repeated after a lost answer.

        Parameters:
            method: such as ``"GET"``.
            path: within the API, such as ``/batches``, with or without ``/v1``.
            json: the body, of values that JSON can say; None for none.
            params: the query.

        Raises:
            UsageError: a path that leads elsewhere, or a value that is no JSON.
            APIError: no good answer (2xx) came.
        """
        answer = await self._transport.send(job_protocol.raw(method, path, json=json, params=params), CallState())
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status, headers=headers, body=answer.body, request_id=answer.request_id)

    async def close(self) -> None:
        """Close the connections. May be called twice; closing what ``with_options`` made closes nothing."""
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
        # A dump of variables may meet a client whose making failed.
        where = self._transport.config.base_url if "_transport" in vars(self) else "not made"
        return f"<{type(self).__name__} {where}>"

    def __reduce__(self) -> NoReturn:
        message = f"{type(self).__name__} cannot be pickled or copied: it holds connections and a key"
        raise TypeError(message)

    # --- what the verbs share -------------------------------------------------------------------------------------

    def _bulk(self, job_ids: Ids, max_concurrency: int | None, rate: float | None) -> tuple[Ids, int, BulkContext]:
        ids = cancel.checked_ids(job_ids)
        if max_concurrency is not None:
            positive_int("max_concurrency", max_concurrency)
        if rate is not None:
            positive_number("rate", rate)
        return ids, max_concurrency or self._transport.config.max_concurrency, self._transport.bulk(rate)

    @property
    def _followed(self) -> _wait.WaitApi:
        from together_batches._jobs import wait as _wait

        self._transport.state.check_library()
        return _wait.WaitApi(
            retrieve=lambda job_id: self._get(job_id, CallState()), list_jobs=lambda: self._get_all(CallState())
        )

    @property
    def _time(self) -> _wait.Clock:
        from together_batches._jobs import wait as _wait

        state = self._transport.state
        return _wait.Clock(monotonic=state.clock, sleep=state.sleep, chance=state.chance, now=state.now)

    def _run_api(self, options: Options, poll_interval: float | None) -> _api.RunApi:
        from together_batches._jobs import wait as _wait
        from together_batches._jobs.upload_source import open_upload
        from together_batches.runs import _api

        async def upload(path: Path, name: str) -> Uploaded:
            async with open_upload(path, name) as content:
                return await self._transfers.upload(content, "batch-api", "storage", None)

        return _api.RunApi(
            upload=upload,
            file=self._transfers.retrieve,
            know=self._known.note,
            create=self._create_once,
            list_jobs=self._listing,
            retrieve=self._get_or_list,
            follow=partial(
                _wait.as_completed,
                self._followed,
                at_once=self._transport.config.max_concurrency,
                timeout=None,
                poll_interval=poll_interval,
                time=self._time,
                patience=options.caution.patience,
                knows=lambda _: True,  # the ledger names them
                holds=False,
                may_repeat=True,  # a job that was seen to have ended may run after all
            ),
            download=lambda file_id, path: self._transfers.fetch(file_id, path, overwrite=True),
            cancel=self.cancel_many,
        )

    @property
    def _run_time(self) -> _api.Clock:
        from together_batches.runs import _api

        state = self._transport.state
        return _api.Clock(now=state.now, sleep=state.sleep, monotonic=state.clock)

    async def _create_once(
        self,
        wanted: WantedJob,
        *,
        patience: float,
        completion_window: str | None = None,
        list_jobs: Callable[[], Awaitable[Listing]] | None = None,
        posts: int = 0,
        since: datetime | None = None,
        is_another: Callable[[BatchJob], bool] | None = None,
        note_posts: Callable[[int], Awaitable[None]] | None = None,
    ) -> Created:
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
        return await _create.create_once(
            wanted,
            post=post,
            list_jobs=list_jobs or self._listing,
            known=self._known,
            patience=patience,
            posts=posts,
            since=since,
            is_another=is_another,
            note_posts=note_posts,
            sleep=state.sleep,
            clock=state.clock,
        )

    async def _listing(self) -> Listing:
        """The list, without noting its jobs as seen: a create looks for what it has not seen before."""
        answer = await self._transport.send(job_protocol.list_jobs(), CallState())
        return Listing(await _read_jobs(answer), answer.date)

    async def _get_patiently(self, job_id: str, *, patience: float) -> BatchJob:
        """A job; a 404 for one that this client has seen is looked at again."""
        if not self._known.knows(job_id):
            return await self._get(job_id, CallState())
        return await until_found(
            lambda: self._get_or_list(job_id), patience=patience, sleep=self._transport.state.sleep
        )

    async def _get_or_list(self, job_id: str) -> BatchJob:
        """A job that exists as far as is known: by itself, or, if that answers 404, from the list."""
        try:
            return await self._get(job_id, CallState())
        except NotFoundError as error:
            try:
                listed = await self._get_all(CallState())
            except BatchesError:
                raise error from None
            found = by_ids(listed, [job_id])
            if not found:
                raise
            return found[job_id]

    async def _post_cancel(self, job_id: str, call: CallState) -> BatchJob | NoJob:
        answer = await self._transport.send(job_protocol.cancel(job_id), call)
        found = job_protocol.read_cancelled(answer, job_id)
        if isinstance(found, BatchJob):
            call.answer = answer.body
            self._known.note(found)
        return found

    async def _get(self, job_id: str, call: CallState) -> BatchJob:
        answer = await self._transport.send(job_protocol.retrieve(job_id), call)
        return self._known.note(job_protocol.read_job(answer, job_id))

    async def _get_once(self, job_id: str, call: CallState) -> BatchJob:
        """A job, by one request that is not repeated."""
        once = attrs.evolve(self._transport.config.retry, max_attempts=1)
        return await self.with_options(retry=once)._get(job_id, call)

    async def _get_all(self, call: CallState) -> builtins.list[BatchJob]:
        return await self._jobs_in(await self._transport.send(job_protocol.list_jobs(), call))

    async def _jobs_in(self, answer: Answer) -> builtins.list[BatchJob]:
        jobs = await _read_jobs(answer)
        self._known.note_all(jobs)
        return jobs


def _check_times(timeout: float | None, poll_interval: float | None, patience: float) -> None:
    positive_number("patience", patience, zero=True)
    if timeout is not None:
        positive_number("timeout", timeout, zero=True)
    if poll_interval is not None:
        positive_number("poll_interval", poll_interval)


async def _read_jobs(answer: Answer) -> list[BatchJob]:
    def read() -> list[BatchJob]:
        return job_filter.newest_first(job_protocol.read_jobs(answer))

    return await to_thread.run_sync(read) if len(answer.body) > _LONG_BODY_BYTES else read()
