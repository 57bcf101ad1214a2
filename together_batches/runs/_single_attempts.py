"""Single attempts of a run, driven by the caller, who stores their records: on many machines, by the same rules."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from together_batches._local.os_errors import explained
from together_batches._local.until_done import finish_in_thread
from together_batches._protocol.upload_marks import mark_of
from together_batches._schema.adapters import adapter_of
from together_batches._validation import path_of, positive_number
from together_batches.errors import UsageError
from together_batches.jsonl._requests import check_endpoint, check_endpoint_of_schema
from together_batches.models import BatchJob
from together_batches.runs._beginning import Beginning
from together_batches.runs._binary import BinaryInput, check_sink
from together_batches.runs._caller_attempt import CallerAttempt, CallerResults, Save, Settings, upload
from together_batches.runs._collecting import Collecting
from together_batches.runs._context import name_of
from together_batches.runs._evidence import Evidence
from together_batches.runs._records import check_order
from together_batches.runs._threads import in_thread, own_thread

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from together_batches._schema.adapters import Schema
    from together_batches.client import AsyncBatches
    from together_batches.runs._binary import BinarySink, BinarySource
    from together_batches.runs._context import RunApi
    from together_batches.runs._records import Attempt


async def begin(
    client: AsyncBatches,
    attempt: Attempt,
    source: BinarySource,
    *,
    save: Save,
    earlier: Sequence[Attempt] = (),
    identity: str | None = None,
    endpoint: str = "/v1/chat/completions",
    model_id: str | None = None,
    priority: int | None = None,
    schema: Schema | None = None,
    patience: float = 900,
    look_once: bool = False,
) -> Attempt:
    """Upload the rows of an attempt, and create its job, exactly once whatever happens in between.

    Each step is saved before and after it is taken. Call it again with the attempt that was saved last, in any
    process, and it resumes: it looks for a job that may exist before it creates one. A job that is recorded already
    costs no request. Only one process at a time may work on an attempt.

    Parameters:
        client: the client; its time limits and retries apply, and an outage beyond them is raised.
        attempt: the attempt, from :func:`together_batches.runs.rules.next_attempt` or as last saved.
        source: the rows of the attempt, in order: a path; a file opened in binary mode that can seek; or a function
            that opens such a file, for example :func:`together_batches.runs.rows`. What has no path is read once, and
            copied to the directory for temporary files.
        save: a coroutine function that returns when the attempt is stored durably. An exception from it is raised.
        earlier: the attempts at the same shard before this one. Their jobs are never mistaken for its own, and if a
            create of the last one made two jobs, the second is used before any row is sent again.
        identity: a text that no other work has, such as the id of a workflow's run: it makes the content of the
            uploaded file unique to the attempt (64 spaces and tabs in its first row), which identifies its job.
            Without it, other jobs of the same rows may be mistaken for the job of this attempt.
        endpoint, model_id, priority, schema: as for ``AsyncBatches.submit()``, the same in each call.
        patience: as for ``AsyncBatches.run()``.
        look_once: for callers that wait without a process: look once for the job of a lost create, and once for a
            new upload, and raise an error if it is absent. Call it again after each
            :func:`~together_batches.runs.rules.look_again_delay`, and when none is left, once without ``look_once``
            and with ``patience=0``: only that call sends the create once more.

    Returns:
        The attempt with its ``job_id``, as it was saved last. An attempt without rows is collected at once.

    Raises:
        ValidationError: the rows are invalid.
        CreateUnconfirmedError: a create lost its response, and its job is not listed; call it again later.
        NotFoundError: the new upload is not shown yet (``look_once``).
        JobNotCreatedError, APIError: the service refused, or did not answer.
        UsageError: an invalid argument, a source that cannot be read, or one that has not the rows of the attempt.
    """
    check_endpoint(endpoint)
    adapter = None if schema is None else adapter_of(schema)
    if adapter is not None:
        check_endpoint_of_schema(endpoint)
    check_order(attempt.shard, [*earlier, attempt], gaps=True)
    settings = Settings(endpoint, model_id, priority)
    work = CallerAttempt(_api_of(client, patience), attempt, save, earlier, settings, patience=patience)
    if attempt.job_id is not None or attempt.collected_at is not None:
        return attempt
    if not attempt.rows:
        await work.save(collected_at=work.time.now())
        return work.attempt
    for each in earlier:
        if each.job_id is not None:
            work.api.know(BatchJob(id=each.job_id, created_at=each.created_at))
    with own_thread():
        if earlier and not attempt.creating_at:
            previous = CallerAttempt(work.api, earlier[-1], save, earlier, settings, patience=patience)
            other = await previous.other_job()
            if other is not None:
                await work.take_up(other)
                return work.attempt
        mark = None if identity is None else mark_of(identity, *attempt.key)
        start = partial(upload, work, BinaryInput.of(source), mark, endpoint, adapter)
        beginning = Beginning(work, start, look_once=look_once)
        await beginning.upload()
        await beginning.create()
    return work.attempt


async def collect(
    client: AsyncBatches,
    attempt: Attempt,
    source: BinarySource,
    sink: BinarySink,
    *,
    scratch_directory: str | os.PathLike[str],
    save: Save,
    earlier: Sequence[Attempt] = (),
    schema: Schema | None = None,
    patience: float = 900,
    give_up: bool = False,
) -> Attempt:
    """Collect the results of an attempt: a line for each of its rows, in order, and the outcome of each of them.

    The job is read first. If it has not ended, nothing is collected: the attempt is returned with its state, and
    without ``collected_at``. Otherwise its files are downloaded and arranged in ``scratch_directory``, and written to
    ``sink`` when the outcome of every row is known; then the attempt is saved. Rows count as missing only on the
    evidence that ``AsyncBatches.run()`` requires, which may take a second look a minute later.

    Call it again with the attempt that was saved last, in any process, if it was interrupted: it collects again, and
    writes the sink from its start. A sink is complete only if ``collected_at`` is saved. An attempt that is collected
    already is collected again; before its sink is written, it is saved without ``collected_at``.

    Parameters:
        client: the client; its time limits and retries apply, and an outage beyond them is raised.
        attempt: the attempt that :func:`begin` returned, or as last saved.
        source: the rows of the attempt, as for :func:`begin`. It is read once.
        sink: a path, which is replaced when the results are complete; a file opened in binary mode, written from its
            current position; or a function that opens one, which is closed when all is written.
        scratch_directory: an existing directory for temporary files as large as the results, which are removed.
        save: as for :func:`begin`.
        earlier: as for :func:`begin`.
        schema: that of :func:`begin`. Rows whose answers do not fit it are ``"result": "invalid"``, and
            :data:`~together_batches.runs.rules.INVALID`.
        patience: seconds for which the job, a file of results, or rows in it may be absent. 0 reads once.
        give_up: take what can be read now, and count the rest as missing: for results that are permanently lost, or a
            create that led to no job. Rows that were answered may then be sent, and charged, again.

    Returns:
        The attempt as it was saved last; its ``collected_at`` is None if the job has not ended.

    Raises:
        ResultsUnavailableError: the job or its results stayed absent, truncated or foreign; call it again later.
        APIError: the service refused, or did not answer.
        UsageError: an invalid argument, a source that has not the rows of the attempt, a sink or a directory that
            cannot be written, or a job that is to be given up and has not ended.
    """
    check_sink(sink)
    adapter = None if schema is None else adapter_of(schema)
    check_order(attempt.shard, [*earlier, attempt], gaps=True)
    if not attempt.rows:
        return attempt
    is_again = attempt.collected_at is not None
    if is_again:  # from the beginning
        attempt = attrs.evolve(attempt, collected_at=None, outcomes=b"", output_bytes=None, error_bytes=None)
    work = CallerAttempt(_api_of(client, patience), attempt, save, earlier, patience=patience)
    if attempt.job_id is None and not (give_up and attempt.creating_at):
        message = f"{name_of(attempt.key)} has no job yet: begin it first"
        raise UsageError(message)
    rows = BinaryInput.of(source)
    with own_thread():
        scratch = await in_thread(lambda _: _scratch_in(scratch_directory))
        try:
            results = CallerResults(work, rows, sink, Path(scratch.name), schema=adapter, is_again=is_again)
            await _collect(work, Collecting(work, results), give_up=give_up)
        finally:
            await finish_in_thread(scratch.cleanup)
    return work.attempt


async def recheck(
    client: AsyncBatches,
    attempt: Attempt,
    *,
    save: Save,
    patience: float = 60,
    look_once: bool = False,
) -> Attempt:
    """Read a collected job and its files once more, which is due before rows of it are sent again.

    Parameters:
        client, save: as for :func:`begin`.
        attempt: the attempt that was collected.
        patience: seconds, 60 at most, for which the job may be absent; then its results count as they were collected.
        look_once: raise an error if the job is absent, for callers that wait without a process.

    Returns:
        The attempt, unchanged if the job and its files are as they were collected. Otherwise it is saved without
        ``collected_at``, to be collected again.

    Raises:
        ResultsUnavailableError: the job, or a file of its results, is absent (``look_once``).
        APIError: the service refused, or did not answer.
        UsageError: an invalid argument.
    """
    work = CallerAttempt(_api_of(client, patience), attempt, save, patience=patience)
    if attempt.rows and attempt.collected_at is not None:
        await Evidence(work).is_as_collected(look_once=look_once)
    return work.attempt


async def _collect(work: CallerAttempt, collecting: Collecting, *, give_up: bool) -> None:
    """Collect the results of a job that has ended, or of one that is given up."""

    async def listed() -> list[BatchJob]:
        # Only a marked file identifies its job here.
        return (await work.list_jobs()).jobs if work.attempt.marked else []

    if give_up and await collecting.give_up(listed) is not None:
        return
    if await work.note_if_changed(await work.read()):
        await collecting.collect(on_wait=lambda: None)


def _api_of(client: AsyncBatches, patience: float) -> RunApi:
    positive_number("patience", patience, zero=True)
    make = getattr(client, "__run_api__", None)
    if make is None:
        message = f"single attempts are driven with an AsyncBatches, not with {type(client).__name__}"
        raise UsageError(message)
    api: RunApi = make(patience)
    return api


def _scratch_in(directory: str | os.PathLike[str]) -> tempfile.TemporaryDirectory[str]:
    path = path_of("scratch_directory", directory)
    with explained("write in", path):
        if not path.is_dir():
            message = f"scratch_directory is not a directory: {path}; make it first"
            raise UsageError(message)
        return tempfile.TemporaryDirectory(prefix="together-batches-", dir=path, ignore_cleanup_errors=True)
