"""Results of a job: its output and error file as one stream of typed rows, with the missing rows of its input."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import ExitStack, aclosing
from typing import TYPE_CHECKING, Any, Literal, cast

from anyio import to_thread

from together_batches import jsonl
from together_batches._jobs.patience import Absence
from together_batches._jobs.result_reader import ResultReader, ResultsApi
from together_batches._jobs.row_store import RowStore
from together_batches._jobs.source_kinds import open_file
from together_batches._local.until_done import finish_in_thread
from together_batches._protocol import jobs as job_protocol
from together_batches._protocol.result_lines import states_error
from together_batches._schema.answers import parser
from together_batches._text import short
from together_batches.errors import ResultsUnavailableError, UsageError, ValidationError
from together_batches.jsonl import Source
from together_batches.jsonl._requests import check_endpoint_of_schema
from together_batches.jsonl._sources import is_file
from together_batches.models import BatchJob, BatchJobStatus
from together_batches.rows import BatchFailure, BatchInvalid, BatchMissing, BatchRequest, BatchResult, BatchSuccess

if TYPE_CHECKING:
    from together_batches._schema.adapters import SchemaAdapter

__all__ = ["Order", "Requests", "ResultsApi", "failed_requests", "results"]

Requests = Source | Iterable[BatchRequest | str]
"""The input of a job: a path, the bytes of the file, the file opened in binary mode, its requests, or their ids."""
Order = Literal["file", "input"]

_SECONDS_BETWEEN_PAUSES = 0.004
"""Seconds of decoding between pauses; other work may wait three times as long, because timers run after this task."""


def results(
    api: ResultsApi,
    job: str | BatchJob,
    *,
    requests: Requests | None = None,
    order: Order = "file",
    patience: float = 0.0,
    adapter: SchemaAdapter[Any] | None = None,
) -> AsyncGenerator[BatchResult[Any], None]:
    """Return the rows of a finished job, with answers read by ``adapter`` if there is one.

    With ``requests``, each of them gets exactly one row that is not a :class:`BatchStray`; all other rows are strays.
    Files that are absent or truncated are read again for ``patience`` seconds.
    """
    job_protocol.job_id(job)
    if order not in ("file", "input"):  # also for a value without a hash
        message = f"order is 'file' or 'input'; it is {short(order)}"
        raise UsageError(message)
    if order == "input" and requests is None:
        message = "order='input' needs the input: pass requests=, the file or the rows that the job was made from"
        raise UsageError(message)
    if requests is not None and not (is_file(requests) or isinstance(requests, Iterable)):
        message = f"requests are a path, bytes, a binary file, or an iterable, not {type(requests).__name__}"
        raise UsageError(message)
    return _results(api, job, requests, order, patience, adapter)


async def _results(
    api: ResultsApi,
    job: str | BatchJob,
    requests: Requests | None,
    order: Order,
    patience: float,
    adapter: SchemaAdapter[Any] | None,
) -> AsyncGenerator[BatchResult[Any], None]:
    parse = None if adapter is None else parser(adapter)
    ids = None if requests is None else await _ids_of(requests)
    store = RowStore(ids, in_input_order=order == "input", parse=parse)
    job = await _finished(job, api, patience)
    if adapter is not None and job.endpoint is not None:
        check_endpoint_of_schema(job.endpoint)
    reader = ResultReader(api, job, patience, None if requests is None else store.lacks_any_but)
    pauses = _CooperativeYield()
    try:
        async with aclosing(reader.read()) as pieces:
            async for file, lines, ended in pieces:
                for line in lines:
                    if line.content.strip():
                        row = store.take(file.read_line(line), line, ended=ended)
                        if row is not None:
                            yield row
                        await pauses.take()
                await store.spool()
        for entries in store.pieces():
            for later in await store.read(entries):
                yield later
                await pauses.take()
    finally:
        await finish_in_thread(store.close)  # releasing the disk space of a long file takes time


async def _finished(job: str | BatchJob, api: ResultsApi, patience: float) -> BatchJob:
    """Return the job in its final state, with the ids of its files: these may appear after the status."""
    if not isinstance(job, BatchJob) or not job.is_terminal or _is_without_files(job):
        job = await api.retrieve(job_protocol.job_id(job))
    if not job.is_terminal:
        message = f"job {job.id} is {job.status or 'of no status'} and has no results yet: wait until it has finished"
        raise UsageError(message)
    absence = Absence(patience)
    while _is_without_files(job):
        pause = absence.pause()
        if pause is None:
            message = (
                f"job {job.id} is COMPLETED and names no file of results: they may appear later, or be deleted; "
                "read them again later"
            )
            raise ResultsUnavailableError(message, job_id=job.id)
        await api.sleep(pause)
        job = await api.retrieve(job.id)
    return job


def _is_without_files(job: BatchJob) -> bool:
    """Return whether its files have not appeared yet. A status that is not final is outdated."""
    has_completed = job.status == BatchJobStatus.COMPLETED or not job.is_terminal
    return has_completed and not (job.output_file_id or job.error_file_id)


# --- the input ----------------------------------------------------------------------------------------------------


async def _ids_of(requests: Requests) -> dict[str, int]:
    """Return the ids of the requests, each with the number of its row.

    Raises :class:`ValidationError` if ids are repeated, because answers could not be assigned.
    """
    if is_file(requests):
        ids = await to_thread.run_sync(_ids_in, cast("Source", requests), abandon_on_cancel=True)
    else:
        ids, pauses = list[str](), _CooperativeYield()
        for request in cast("Iterable[object]", requests):
            custom_id = request.custom_id if isinstance(request, BatchRequest) else request
            if not isinstance(custom_id, str):
                message = f"requests are BatchRequests or ids, not {type(request).__name__}"
                raise UsageError(message)
            ids.append(custom_id)
            await pauses.take()
    rows: dict[str, int] = {}
    problems: list[str] = []
    for number, custom_id in enumerate(ids, start=1):
        first = rows.setdefault(custom_id, number)
        if first != number:
            problems.append(f"rows {first} and {number} have the same custom_id {custom_id!r}")
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        message = f"the requests cannot be distinguished: {problems[0]}{more}; omit requests= to get all rows"
        raise ValidationError(message, problems=problems)
    return rows


def _ids_in(file: Source) -> list[str]:
    with ExitStack() as stack:
        if isinstance(file, str | os.PathLike):
            file = stack.enter_context(open_file(file))
        return [row.custom_id for row in jsonl.read(file)]


class _CooperativeYield:
    """Yields to the event loop regularly, however many rows are ready.

    JSON is decoded in the loop, because a thread would hold the interpreter lock for as long, row by row.
    """

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._due = self._clock() + _SECONDS_BETWEEN_PAUSES

    async def take(self) -> None:
        """Pause if it is time to."""
        if self._clock() >= self._due:
            await asyncio.sleep(0)
            self._due = self._clock() + _SECONDS_BETWEEN_PAUSES


# --- the rows to send again ---------------------------------------------------------------------------------------


def failed_requests(requests: Source, results: Iterable[BatchResult[object]]) -> Iterator[BatchRequest]:
    """Yield the requests to send again: those that failed or are missing, each once, in the order of the input.

    ``requests`` is the input of the job: a path, the bytes of the file, the file opened in binary mode, or the
    requests. ``results`` are rows of :meth:`AsyncBatches.results`, of one job or of several. A request that any of
    them answered is omitted, even if the answer is invalid, and so is a row whose line states no error: it may have
    been answered, and paid for, in a form that cannot be read. Only results that were read with ``requests=`` name
    missing rows. All results are consumed before the first request is yielded; only their ids are kept.

    Raises:
        UsageError: the file cannot be read.
        ValidationError: a line is not a request.
    """
    failed = set[str]()
    answered = set[str]()
    for result in results:
        if isinstance(result, BatchSuccess | BatchInvalid):
            answered.add(result.custom_id)
        elif isinstance(result, (BatchFailure, BatchMissing)) and result.custom_id is not None:
            is_evidence = isinstance(result, BatchMissing) or states_error(result)
            (failed if is_evidence else answered).add(result.custom_id)
    failed -= answered
    for request in jsonl.read(requests):
        if request.custom_id in failed:
            failed.remove(request.custom_id)
            yield request
