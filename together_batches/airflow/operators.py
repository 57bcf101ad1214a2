"""Operators of batch jobs."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from together_batches._text import short
from together_batches._validation import positive_int, positive_number
from together_batches.airflow import _storage
from together_batches.airflow._airflow import HAS_ON_KILL, BaseOperator, version
from together_batches.airflow._common import (
    check_choice,
    check_schema,
    explained_deferral,
    failing_for_good,
    identity_of,
    pushed_if_failing,
    schema_of,
    start_of,
)
from together_batches.airflow.hook import TogetherHook
from together_batches.errors import APIError, AuthenticationError, BatchesError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import IO, NoReturn

    from together_batches.airflow._airflow import BaseTrigger, Context
    from together_batches.airflow._common import FailWhen, OnKill, TaskSchema
    from together_batches.airflow._shard import Finished, ShardWork, Waiting, Work
    from together_batches.airflow._state import TaskLedger
    from together_batches.airflow._storage import Location
    from together_batches.jsonl import RequestLike
    from together_batches.models import BatchJob
    from together_batches.outcomes import CancelReport
    from together_batches.runs import Shard

__all__ = ["TogetherBatchOperator", "TogetherCancelOperator"]


class TogetherBatchOperator(BaseOperator):
    """Answer requests by batch jobs, and write the results to object storage in the order of the requests.

    The task waits in the triggerer, without a worker. It creates exactly one job for each attempt, whatever is killed
    or retried, and sends rows that failed or are missing again in further jobs. What it has done is kept in the task
    state store of Airflow 3.3 and newer, or beside the results. A task that is cleared goes on from there: it sends
    only rows without an answer, and nothing after a success. A new DAG run starts over.

    The result is a small dict: ``results_uri`` and ``failures_uri`` (None if every row was answered); the numbers of
    ``rows`` that ``succeeded``, ``failed``, are ``missing``, or whose answers are ``invalid``; ``job_ids``; and the
    tokens used.

    :param requests_uri: the URI of a file of requests, in the format of the Batch API (templated).
    :param requests: the requests, if they are few, instead of ``requests_uri``. They are not templated.
    :param results_uri: the URI of the file to write, which is replaced if it exists (templated). Rows without an
        answer are also written beside it: to ``answers.failures.jsonl`` for ``answers.jsonl``.
    :param endpoint: the endpoint of the requests (templated).
    :param model_id: sent with the job; it does not replace a model that a row omits (templated).
    :param priority: sent with the job.
    :param schema: what answers must fit: a JSON schema as a dict, or the import path of a pydantic model or another
        class, such as ``"my_package.answers.Review"``, which workers import. It is sent as ``response_format`` with
        each request that has none; the prompts have to ask for JSON, too. It is not templated.
    :param retry_invalid: send rows again whose answers do not fit the schema. They were paid for.
    :param max_attempts: maximum number of times that a row is sent.
    :param retry_delays: seconds until rows are sent again, as for :meth:`~together_batches.AsyncBatches.run`; the
        task is deferred meanwhile.
    :param fail_when: fail the task, without a retry, when ``"any"`` row has no answer, or ``"all"`` rows have none,
        or ``"never"``. The results are written first.
    :param on_kill: ``"cancel"`` the job when a person marks the task as failed, or clears it, or ``"leave"`` it: then
        a cleared task takes the running job up again. Airflow 3.0 to 3.2 cancel no job of a deferred task.
    :param poll_interval: seconds between reads of the job; by default about 2 for a young job, and up to 60 later.
    :param patience: seconds for which a job or its results may be absent before the task fails.
    :param give_up: count as missing what cannot be read of a job that has ended, for results that are permanently
        lost: such rows may be sent, and paid for, again. Set it, clear the task, and remove it again.
    :param conn_id: the connection to use (templated).
    """

    template_fields: Sequence[str] = ("requests_uri", "results_uri", "endpoint", "model_id", "conn_id")

    def __init__(
        self,
        *,
        results_uri: str,
        requests_uri: str | None = None,
        requests: Iterable[RequestLike] | None = None,
        endpoint: str = "/v1/chat/completions",
        model_id: str | None = None,
        priority: int | None = None,
        schema: TaskSchema | None = None,
        retry_invalid: bool = False,
        max_attempts: int = 3,
        retry_delays: Sequence[float] = (30, 120, 600),
        fail_when: FailWhen = "all",
        on_kill: OnKill = "cancel",
        poll_interval: float | None = None,
        patience: float = 900,
        give_up: bool = False,
        conn_id: str = TogetherHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("fail_when", fail_when, ("any", "all", "never"))
        check_choice("on_kill", on_kill, ("cancel", "leave"))
        check_schema(schema, retry_invalid=retry_invalid)
        _check_numbers(max_attempts, retry_delays, patience, poll_interval)
        self.results_uri = results_uri
        self.requests_uri = requests_uri
        self.requests: tuple[RequestLike, ...] | None = _requests_of(requests)
        self.endpoint = endpoint
        self.model_id = model_id
        self.priority = priority
        self.schema = schema
        self.retry_invalid = retry_invalid
        self.max_attempts = max_attempts
        self.retry_delays = retry_delays
        self.fail_when = fail_when
        self.when_killed: OnKill = on_kill
        self.poll_interval = poll_interval
        self.patience = patience
        self.give_up = give_up
        self.conn_id = conn_id
        self._at_work: tuple[TogetherHook, ShardWork] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the requests, or go on where an earlier try stopped."""
        return self._work_on(context, is_new=True)

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, outages: int = 0
    ) -> dict[str, Any]:
        """Go on after the task was deferred. What the event says is read again from the service."""
        return self._work_on(context, outages=outages, not_followed=(event or {}).get("error"))

    @explained_deferral()
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the task was deferred, as Airflow calls it."""
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Cancel the job, if that is wanted and the task is ended while it runs on a worker."""
        if self._at_work is None or self.when_killed != "cancel":
            return
        hook, work = self._at_work
        job_id = work.kill()
        if job_id is not None:
            try:
                with hook.get_conn() as client:
                    client.cancel(job_id)
            except BatchesError as error:  # in a signal handler, whose error would hide why the task ends
                self.log.warning("job %s could not be cancelled, and may run on: %s", job_id, error)
            else:
                self.log.info("job %s is cancelled, because the task was ended", job_id)

    # --- what subclasses vary -------------------------------------------------------------------------------------

    def _plan(self, context: Context, scratch: Path) -> tuple[Work, TaskLedger]:
        """Return the work of the task and its ledger."""
        from together_batches import jsonl
        from together_batches.airflow._state import ObjectEntries, TaskLedger, entries_of

        if (self.requests is None) == (self.requests_uri is None):
            message = "give requests_uri, or requests, and not both"
            raise UsageError(message)
        if self.requests_uri is not None:
            source = _storage.reader(_storage.requests_of(self.requests_uri, self.results_uri))
        else:
            content = b"".join(map(jsonl.encode, self.requests or ()))
            source = partial(BytesIO, content)
        results = _storage.location(self.results_uri, parameter="results_uri")
        pieces = _storage.directory_of(results, identity_of(context))
        work = self._work(context, source, self.requests_uri or "requests", results, pieces)
        return work, TaskLedger(entries_of(context, pieces), before=ObjectEntries(pieces))

    def _work(
        self,
        context: Context,
        source: Callable[[], IO[bytes]],
        source_name: str,
        results: Location,
        pieces: Location,
        identity: str | None = None,
        given: Shard | None = None,
    ) -> Work:
        from together_batches.airflow._shard import Work

        return Work(
            identity=identity or identity_of(context),
            source=source,
            source_name=source_name,
            results=results,
            pieces=pieces,
            given=given,
            endpoint=self.endpoint,
            model_id=self.model_id,
            priority=self.priority,
            schema=schema_of(self.schema),
            retry_invalid=self.retry_invalid,
            max_attempts=self.max_attempts,
            retry_delays=self.retry_delays,
            patience=self.patience,
            give_up=self.give_up,
            cancels_on_kill=self.when_killed == "cancel",
            start=start_of(context, self.retries),
        )

    def _trigger(self, job_id: str) -> BaseTrigger:
        """Return the trigger that waits for a job."""
        from together_batches.airflow.triggers import TogetherBatchTrigger

        return TogetherBatchTrigger(
            job_id=job_id, conn_id=self.conn_id, poll_interval=self.poll_interval, on_kill=self.when_killed
        )

    # --- one try --------------------------------------------------------------------------------------------------

    @failing_for_good()
    def _work_on(
        self, context: Context, *, is_new: bool = False, outages: int = 0, not_followed: str | None = None
    ) -> dict[str, Any]:
        """Work until there is something to wait for; return the result when there is nothing left to do.

        ``not_followed`` is why the triggerer could not follow the job.
        """
        from together_batches.airflow._shard import Finished, PausedError, shown

        try:
            with tempfile.TemporaryDirectory(prefix="together-batches-") as scratch:
                outcome = self._outcome(context, Path(scratch), is_new=is_new)
        except PausedError as paused:
            self._pause(paused.moment, outages=0)
        except APIError as error:
            if not error.is_transient or self._at_work is None or not self._at_work[1].has_sent:
                raise
            moment = _after(outages)
            self.log.warning("tried again at %s: %s", shown(moment), error)
            self._pause(moment, outages + 1)
        if isinstance(outcome, Finished):
            self._check(context, outcome.manifest)
            return outcome.manifest
        if not_followed:
            # At once, the triggerer might fail again as fast as this task defers.
            self.log.warning(
                "the triggerer could not follow job %s, which is read by a worker meanwhile: %s",
                outcome.job_id,
                not_followed,
            )
            self._pause(_after(outages), outages + 1)
        self._warn_if_not_cancelled(outcome.job_id)
        trigger = self._trigger(outcome.job_id)
        return self.defer(trigger=trigger, method_name="execute_complete", kwargs={"outages": outages})

    def _pause(self, moment: datetime, outages: int) -> NoReturn:
        from together_batches.airflow.triggers import TogetherPauseTrigger

        trigger = TogetherPauseTrigger(moment=moment.isoformat())
        self.defer(trigger=trigger, method_name="execute_complete", kwargs={"outages": outages})

    def _warn_if_not_cancelled(self, job_id: str) -> None:
        if self.when_killed == "cancel" and version() < HAS_ON_KILL:
            self.log.warning(
                "Airflow %d.%d does not cancel the job of a deferred task that is marked or cleared (3.3 does): "
                "job %s would then run on; cancel it with TogetherCancelOperator",
                *version(),
                job_id,
            )

    def _outcome(self, context: Context, scratch: Path, *, is_new: bool) -> Waiting | Finished:
        from together_batches.airflow._shard import ShardWork

        work, ledger = self._plan(context, scratch)
        hook = TogetherHook(self.conn_id)

        async def go() -> Waiting | Finished:
            async with hook.get_async_conn() as client:
                shard = ShardWork(work, client, ledger, scratch=scratch, now=partial(datetime.now, UTC), log=self.log)
                self._at_work = hook, shard
                return await (shard.begin() if is_new else shard.go_on())

        return asyncio.run(go())

    def _check(self, context: Context, manifest: dict[str, Any]) -> None:
        from together_batches.airflow._manifest import check_outcome

        with pushed_if_failing(context, manifest):
            check_outcome(manifest, self.fail_when)


def _check_numbers(
    max_attempts: int, retry_delays: Sequence[float], patience: float, poll_interval: float | None
) -> None:
    positive_int("max_attempts", max_attempts)
    positive_number("patience", patience, zero=True)
    if poll_interval is not None:
        positive_number("poll_interval", poll_interval)
    delays: object = retry_delays
    if not isinstance(delays, list | tuple):
        message = f"retry_delays is a list of seconds; it is {short(delays)}"
        raise UsageError(message)
    for delay in retry_delays:
        positive_number("retry_delays", delay, zero=True)


def _requests_of(requests: Iterable[RequestLike] | None) -> tuple[RequestLike, ...] | None:
    """Return the requests, read at once: every try of the task, and every process of it, needs them again."""
    given: object = requests
    kind = type(given).__name__
    if requests is None:
        return None
    try:
        if not isinstance(given, str | bytes | dict):
            return tuple(requests)
    except TypeError:  # also the result of another task, which is known only when that has run
        pass
    message = (
        f"requests is a list of requests that is known when the DAG is parsed, not {kind}: "
        "for others, write a file and give requests_uri"
    )
    raise UsageError(message)


class TogetherCancelOperator(BaseOperator):
    """Cancel batch jobs: those of given ids, or all that match filters and have not finished.

    The result is a dict: ``summary``, a sentence; ``counts`` of jobs by result; ``failures``, the first hundred jobs
    that could not be cancelled, each with ``job_id``, ``result`` and ``error``. It is pushed before the task fails,
    which it does if any job could not be cancelled; without a retry, if a retry cannot help. A job that had finished
    before is no failure.

    :param job_ids: an id, or ids (templated). With ``job_ids``, no filter applies.
    :param status: cancel jobs of this status, or these (templated).
    :param model_id: cancel jobs of this model (templated).
    :param older_than: cancel jobs created at least this long ago.
    :param all_jobs: cancel every unfinished job of the account; without it, and without ids, a filter is required.
    :param wait: wait until each job has stopped. The worker is busy meanwhile.
    :param timeout: maximum seconds for the whole task; unlimited by default.
    :param conn_id: the connection to use (templated).
    """

    template_fields: Sequence[str] = ("job_ids", "status", "model_id", "conn_id")

    def __init__(
        self,
        *,
        job_ids: str | Iterable[str] | None = None,
        status: str | Iterable[str] | None = None,
        model_id: str | None = None,
        older_than: timedelta | None = None,
        all_jobs: bool = False,
        wait: bool = False,
        timeout: float | None = None,
        conn_id: str = TogetherHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_ids = job_ids
        self.status = status
        self.model_id = model_id
        self.older_than = older_than
        self.all_jobs = all_jobs
        self.wait = wait
        self.timeout = timeout
        self.conn_id = conn_id

    @failing_for_good()
    def execute(self, context: Context) -> dict[str, Any]:
        """Cancel the jobs, and return the report."""
        report = self._cancel()
        result = _as_data(report)
        self.log.info("%s", report)
        with pushed_if_failing(context, result):
            _raise_for(report)
        return result

    def _cancel(self) -> CancelReport:
        by_filters = self.all_jobs or any(
            given is not None for given in (self.status, self.model_id, self.older_than)
        )
        if by_filters == (self.job_ids is not None):
            message = "give job_ids, or filters (status, model_id, older_than), or all_jobs=True; not ids and filters"
            raise UsageError(message)
        with TogetherHook(self.conn_id).get_conn() as client:
            job_ids: Iterable[str | BatchJob]
            if self.job_ids is None:
                found = client.list(status=self.status, model_id=self.model_id, created_before=self.older_than)
                job_ids = [job for job in found if not job.is_terminal]
            else:
                job_ids = _ids_of(self.job_ids)
            return client.cancel_many(job_ids, wait=self.wait, timeout=self.timeout)


def _after(outages: int) -> datetime:
    """Return when to try again after a number of failures in a row."""
    return datetime.now(UTC) + timedelta(seconds=min(30 * 2 ** min(outages, 5), 600))


_FAILURES_IN_RESULT = 100


def _ids_of(job_ids: str | Iterable[str]) -> Iterable[str]:
    given: object = job_ids
    if isinstance(given, str) and given.strip().startswith(("[", "(", "{")):
        message = (
            f"job_ids is the text {given[:80]!r}: set render_template_as_native_obj=True on the DAG, so that a "
            "template becomes a list"
        )
        raise UsageError(message)
    if not isinstance(given, str | list | tuple | set | frozenset):
        try:
            return list(job_ids)
        except TypeError:
            message = f"job_ids is an id, or a list of ids, not {type(given).__name__}"
            raise UsageError(message) from None
    return [job_ids] if isinstance(job_ids, str) else job_ids


def _as_data(report: CancelReport) -> dict[str, Any]:
    """Return a report as small data for XCom."""
    return {
        "summary": str(report),
        "counts": {str(result): count for result, count in report.counts.items() if count},
        "failures": [
            {"job_id": failure.job_id, "result": str(failure.result), "error": str(failure.error)}
            for failure in report.failures[:_FAILURES_IN_RESULT]
        ],
    }


def _raise_for(report: CancelReport) -> None:
    """Raise an error for a report with failures: one that fails the task for good if no retry can help."""
    from together_batches.outcomes import CancelResult

    if report.ok:
        return
    first = report.failures[0]
    message = f"{report}; the first that could not be cancelled is {first.job_id}: {first.error}"
    lasting = all(
        failure.result in {CancelResult.NOT_FOUND, CancelResult.DENIED}
        or isinstance(failure.error, AuthenticationError | NotFoundError | UsageError)
        for failure in report.failures
    )
    raise UsageError(message) if lasting else BatchesError(message)
