"""The synchronous client: the methods of :class:`AsyncBatches` for code that does not await.

Every method passes the call to the :class:`AsyncBatches` method of the same name, on an event loop in a thread of its
own, and waits for the result. The behaviour of a verb is documented in :class:`AsyncBatches`.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any, Never, NoReturn, Self, TypeVar, cast, overload

from together_batches._loop_thread import LoopIterator, LoopThread
from together_batches.client import AsyncBatches
from together_batches.config import RetryPolicy, Secret, Timeout

if TYPE_CHECKING:
    import builtins
    import os
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from pathlib import Path
    from ssl import SSLContext
    from types import TracebackType
    from typing import Literal

    from together_batches._jobs.follower import AsyncFollower
    from together_batches._jobs.job_ids import Ids
    from together_batches._jobs.results import Order, Requests
    from together_batches._jobs.upload_source import Source
    from together_batches._schema.adapters import Schema, SchemaAdapter
    from together_batches.events import ClientEvent
    from together_batches.files import AsyncFiles
    from together_batches.jsonl._estimate import Prices
    from together_batches.models import BatchJob, FileObject, Price, Response
    from together_batches.outcomes import CancelOutcome, CancelReport
    from together_batches.rows import BatchResult
    from together_batches.runs import RunEvent, RunReport, UnfinishedJobs
    from together_batches.runs._options import Requests as RunRequests

    T = TypeVar("T")

__all__ = ["Batches", "Files", "Follower"]


_HEADS = ("Parameters", "Raises")


def _document(ours: type, theirs: type) -> None:
    """Append the sections on parameters and errors of the asynchronous class to the docstrings of its mirror.

    So ``help`` and notebooks show them, and each is written once.
    """
    for name, method in vars(ours).items():
        own, source = inspect.getdoc(method) or "", inspect.getdoc(vars(theirs).get(name)) or ""
        begins = [place for head in _HEADS if (place := source.find(f"\n{head}:\n")) >= 0]
        if callable(method) and not name.startswith("_") and begins and "\nRaises:\n" not in own:
            method.__doc__ = f"{own}\n{source[min(begins) :]}"


class Batches:
    """The synchronous client for batch jobs on Together AI.

    It works in scripts, in threads (any number of them may share one client) and in notebooks, where a loop is
    already running. Use it as a context manager, or call :meth:`close`. Ctrl-C during a call cancels the work of the
    call, and does not affect the jobs. After a fork, create a new client.

    The parameters and errors are those of :class:`AsyncBatches`, except ``session``, because a session belongs to the
    loop that it was created in. ``on_event`` is called in the client's own thread.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float | Timeout = Timeout(),
        retry: RetryPolicy = RetryPolicy(),
        max_concurrency: int = 100,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl: SSLContext | None = None,
        on_event: Callable[[ClientEvent], None] | None = None,
        allow_insecure_http: bool = False,
    ) -> None:
        api_key, proxy = Secret.of(api_key), Secret.of(proxy)
        self._async = AsyncBatches(
            api_key,
            base_url=base_url,
            timeout=timeout,
            retry=retry,
            max_concurrency=max_concurrency,
            headers=headers,
            proxy=proxy,
            ssl=ssl,
            on_event=on_event,
            allow_insecure_http=allow_insecure_http,
        )
        self._owner = True
        client = self._async
        self._thread = LoopThread(lambda: client)

    @cached_property
    def files(self) -> Files:
        """The files of the account: upload, retrieve, list, download, delete."""
        files = self._async.files
        _document(Files, type(files))  # here and not below, because AsyncFiles is loaded on first use
        return Files(files, self._thread)

    def create(
        self,
        input_file_id: str,
        *,
        endpoint: str = "/v1/chat/completions",
        completion_window: str | None = None,
        model_id: str | None = None,
        priority: int | None = None,
        patience: float = 120,
    ) -> BatchJob:
        """Create one job from an uploaded file, and only one even if responses are lost."""
        return self._thread.call(
            self._async.create,
            input_file_id,
            endpoint=endpoint,
            completion_window=completion_window,
            model_id=model_id,
            priority=priority,
            patience=patience,
        )

    def submit(
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

        ``on_progress`` and ``on_uploaded`` are called in the client's own thread.
        """
        return self._thread.call(
            self._async.submit,
            source,
            endpoint=endpoint,
            model_id=model_id,
            priority=priority,
            schema=schema,
            patience=patience,
            on_progress=on_progress,
            on_uploaded=on_uploaded,
        )

    def retrieve(self, job_id: str | BatchJob) -> BatchJob:
        """Return the current state of a job."""
        return self._thread.call(self._async.retrieve, job_id)

    def list(
        self,
        *,
        status: str | Iterable[str] | None = None,
        model_id: str | None = None,
        endpoint: str | None = None,
        input_file_id: str | None = None,
        created_after: datetime | timedelta | None = None,
        created_before: datetime | timedelta | None = None,
    ) -> builtins.list[BatchJob]:
        """List the jobs of the account, newest first; jobs without a creation time come last."""
        return self._thread.call(
            self._async.list,
            status=status,
            model_id=model_id,
            endpoint=endpoint,
            input_file_id=input_file_id,
            created_after=created_after,
            created_before=created_before,
        )

    def cancel(self, job_id: str | BatchJob) -> BatchJob:
        """Cancel one job, and return its current state."""
        return self._thread.call(self._async.cancel, job_id)

    def cancel_many(
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

        ``on_outcome`` is called in the client's own thread, and ``job_ids`` is iterated in it.
        """
        return self._thread.call(
            self._async.cancel_many,
            job_ids,
            max_concurrency=max_concurrency,
            rate=rate,
            wait=wait,
            timeout=timeout,
            progress=progress,
            on_outcome=on_outcome,
        )

    def iter_cancel(
        self,
        job_ids: Ids,
        *,
        max_concurrency: int | None = None,
        rate: float | None = None,
        wait: bool = False,
    ) -> LoopIterator[CancelOutcome]:
        """Cancel many jobs concurrently, and yield each outcome as soon as it is known.

        Leaving the iterator stops the work: use it in ``with``, or iterate to its end.
        """
        return self._thread.iterate(
            lambda: self._async.iter_cancel(job_ids, max_concurrency=max_concurrency, rate=rate, wait=wait)
        )

    def wait(
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

        ``on_update`` is called in the client's own thread.
        """
        return self._thread.call(
            self._async.wait,
            job_id,
            timeout=timeout,
            poll_interval=poll_interval,
            patience=patience,
            progress=progress,
            on_update=on_update,
        )

    def as_completed(
        self,
        job_ids: Ids,
        *,
        timeout: float | None = None,
        poll_interval: float | None = None,
        patience: float = 60,
    ) -> LoopIterator[BatchJob]:
        """Wait for many jobs concurrently, and yield each in its final state as it finishes.

        ``job_ids`` is iterated in the client's own thread. Leaving the iterator stops the work: use it in ``with``,
        or iterate to its end.
        """
        return self._thread.iterate(
            lambda: self._async.as_completed(job_ids, timeout=timeout, poll_interval=poll_interval, patience=patience)
        )

    def follower(self, *, poll_interval: float | None = None, patience: float = 60) -> Follower:
        """Return a follower, with which any number of callers wait for jobs by one poller.

        Unlike with :meth:`as_completed`, each thread waits for its own job with ``ended()``, at any time.
        """
        follower = self._async.follower(poll_interval=poll_interval, patience=patience)
        _document(Follower, type(follower))
        return Follower(follower, self._thread)

    @overload
    def results(
        self,
        job: str | BatchJob,
        *,
        requests: Requests | None = None,
        order: Order = "file",
        patience: float = 60,
        schema: None = None,
    ) -> LoopIterator[BatchResult]: ...
    @overload
    def results(
        self,
        job: str | BatchJob,
        *,
        requests: Requests | None = None,
        order: Order = "file",
        patience: float = 60,
        schema: type[T] | SchemaAdapter[T],
    ) -> LoopIterator[BatchResult[T]]: ...
    @overload
    def results(
        self,
        job: str | BatchJob,
        *,
        requests: Requests | None = None,
        order: Order = "file",
        patience: float = 60,
        schema: Mapping[str, object],
    ) -> LoopIterator[BatchResult[object]]: ...
    def results(
        self,
        job: str | BatchJob,
        *,
        requests: Requests | None = None,
        order: Order = "file",
        patience: float = 60,
        schema: Schema | None = None,
    ) -> LoopIterator[BatchResult[Any]]:
        """Iterate over the rows of a finished job: the answers of both its files, then the failures.

        An iterable ``requests`` is iterated in the client's own thread. Leaving the iterator stops the download: use
        it in ``with``, or iterate to its end.
        """
        # Few are prefetched, because a row may be long.
        return self._thread.iterate(
            lambda: self._async.results(
                job, requests=requests, order=order, patience=patience, schema=cast("type[Any]", schema)
            ),
            limit=16,
            looks_ahead=True,
        )

    def run(
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

        ``on_event`` is called in the client's own thread, and a ``source`` of requests is iterated in other threads.
        """
        return self._thread.call(
            self._async.run,
            source,
            output,
            directory=directory,
            endpoint=endpoint,
            model_id=model_id,
            priority=priority,
            schema=schema,
            retry_invalid=retry_invalid,
            failures=failures,
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
            poll_interval=poll_interval,
            patience=patience,
            give_up=give_up,
            unique_files=unique_files,
            dedupe=dedupe,
            retry_delays=retry_delays,
            cancel_on_interrupt=cancel_on_interrupt,
            progress=progress,
            on_event=on_event,
        )

    def cancel_run(
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

        ``on_outcome`` is called in the client's own thread.
        """
        return self._thread.call(
            self._async.cancel_run,
            directory,
            max_concurrency=max_concurrency,
            rate=rate,
            wait=wait,
            timeout=timeout,
            on_outcome=on_outcome,
        )

    def unfinished_jobs(self, directory: str | os.PathLike[str]) -> UnfinishedJobs:
        """Return the unfinished jobs of a run: those in its ledger, and those of its lost creates."""
        return self._thread.call(self._async.unfinished_jobs, directory)

    def with_options(
        self,
        *,
        timeout: float | Timeout | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a view of this client with other limits, another policy, or additional headers."""
        view = object.__new__(type(self))
        view._async = self._async.with_options(timeout=timeout, retry=retry, headers=headers)
        view._thread = self._thread
        view._owner = False
        return view

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, str] | None = None,
    ) -> Response:
        """Send any API request, with the key, retries and rate limit of the other methods."""
        return self._thread.call(self._async.request, method, path, json=json, params=params)

    def prices(self) -> dict[str, Price]:
        """Return the list prices of the models, by their names, in USD per million tokens."""
        return self._thread.call(self._async.prices)

    def close(self) -> None:
        """Close the connections. Closing again does nothing; neither does closing a view from ``with_options``."""
        if self._owner:
            self._thread.close()

    def __add_callback__(self, callback: Callable[[ClientEvent], None]) -> Callable[[], None]:
        """Call ``callback``, too, with each event of this client, and return a function that ends that."""
        return self._async.__add_callback__(callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        made = vars(self).get("_async")  # a dump of variables may contain a client whose construction failed
        name = type(self).__name__
        return f"<{name} not made>" if made is None else repr(made).replace("AsyncBatches", name, 1)

    def __reduce__(self) -> NoReturn:
        message = f"{type(self).__name__} cannot be pickled or copied: it holds connections and a key"
        raise TypeError(message)


_document(Batches, AsyncBatches)


class Follower:
    """One poller of jobs that any number of threads share; made by ``Batches.follower()``.

    It reads only while a thread waits. Leaving its ``with`` block, which is optional, ends the waits that are left.
    """

    def __init__(self, follower: AsyncFollower, thread: LoopThread[AsyncBatches]) -> None:
        self._async = follower
        self._thread = thread

    def ended(
        self,
        job_id: str | BatchJob,
        *,
        timeout: float | None = None,
        on_update: Callable[[BatchJob], None] | None = None,
    ) -> BatchJob:
        """Wait until a job has finished, and return it in its final state.

        Any number of threads may wait for the same job. Interrupting one of them, by Ctrl-C for example, withdraws
        that one alone. ``on_update`` is called in the client's own thread.
        """
        return self._thread.call(self._async.ended, job_id, timeout=timeout, on_update=on_update)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.call(self._async.__aexit__, kind, error, traceback)


class Files:
    """The files of the account, as ``files`` of a :class:`Batches`.

    The parameters and errors are those of :class:`~together_batches.files.AsyncFiles`.
    """

    def __init__(self, files: AsyncFiles, thread: LoopThread[Any]) -> None:
        self._async = files
        self._thread = thread

    def upload(
        self,
        source: Source,
        *,
        filename: str | None = None,
        purpose: str = "batch-api",
        via: Literal["storage", "api"] = "storage",
        progress: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> FileObject:
        """Upload a file; content that the account already has is recognised, and not sent again.

        ``on_progress`` is called in the client's own thread, and a ``source`` of requests is iterated in others.
        """
        return self._thread.call(
            self._async.upload,
            source,
            filename=filename,
            purpose=purpose,
            via=via,
            progress=progress,
            on_progress=on_progress,
        )

    def retrieve(self, file_id: str | FileObject) -> FileObject:
        """Return the metadata of a file."""
        return self._thread.call(self._async.retrieve, file_id)

    def list(self) -> builtins.list[FileObject]:
        """Return all files of the account, inputs, outputs and errors, newest first."""
        return self._thread.call(self._async.list)

    def delete(self, file_id: str | FileObject) -> None:
        """Delete a file. The service does not document the effect on a job that is using it."""
        return self._thread.call(self._async.delete, file_id)

    def content(self, file_id: str | FileObject) -> LoopIterator[bytes]:
        """Iterate over the content of a file in pieces of up to 1 MB: all of it, or an error at the end.

        Leaving the iterator stops the download: use it with ``with``, or to its end.
        """
        # Few are prefetched, because a piece may be long.
        return self._thread.iterate(lambda: self._async.content(file_id), limit=4)

    def download(
        self,
        file_id: str | FileObject,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        patience: float = 60,
        progress: bool = False,
        on_progress: Callable[[int, int | None], None] | None = None,
        **renamed: Never,
    ) -> Path:
        """Write the content of a file to ``path``, which appears when it is complete and its length is verified.

        ``on_progress`` is called in the client's own thread.
        """
        return self._thread.call(
            self._async.download,
            file_id,
            path,
            overwrite=overwrite,
            patience=patience,
            progress=progress,
            on_progress=on_progress,
            **renamed,
        )
