"""The commands ``together-batches submit`` and ``wait``."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from together_batches.cli._command import (
    Common,
    command,
    endpoint_option,
    model_option,
    option,
    patience_option,
    priority_option,
    requests_argument,
    service_options,
)
from together_batches.cli._exits import Exit, code_of, code_of_many
from together_batches.cli._ids import ids_argument, ids_or_input
from together_batches.cli._jobs import by_status
from together_batches.cli._local_files import spooled
from together_batches.cli._loop import connected, in_loop, last_words, time_limit
from together_batches.cli._progress import bar, file_bar
from together_batches.cli._text import (
    PROGRAM,
    as_json,
    can_redraw,
    columns,
    count_of,
    format_count,
    is_terminal,
    print_err,
    print_error,
)
from together_batches.errors import AuthenticationError, BatchesError, UsageError, ValidationError, WaitTimeoutError
from together_batches.models import BatchJob, BatchJobStatus, FileObject

if TYPE_CHECKING:
    from together_batches.client import AsyncBatches

__all__ = ["submit", "wait"]


@command("submit")
@requests_argument
@endpoint_option
@model_option
@priority_option
@option("--wait", "wait until the job has finished")
@patience_option(120)
@service_options
def submit(
    common: Common,
    source: str,
    endpoint: str,
    model_id: str | None,
    priority: int | None,
    wait: bool,
    patience: float,
) -> Exit:
    """Check a file of requests, upload it, and create one job from it: one, even if
    answers are lost on the way.

    examples:
      together-batches submit requests.jsonl
      together-batches submit requests.jsonl --wait
      together-batches submit - --json < requests.jsonl
    """
    work = _Submission(common, spooled(source), patience)
    with last_words(work.state):
        return work.run(wait=wait, endpoint=endpoint, model_id=model_id, priority=priority)


class _Submission:
    """One submission and its progress."""

    def __init__(self, common: Common, source: str | BinaryIO, patience: float) -> None:
        self._common = common
        self._source = source
        self._patience = patience
        self._file: FileObject | None = None
        self._job: BatchJob | None = None

    @in_loop
    async def run(self, *, wait: bool, **options: Any) -> Exit:
        common = self._common
        began = time.monotonic()
        async with connected(common, limited=False) as batches:
            try:
                async with time_limit(common.timeout):
                    with file_bar("Uploading", shown=common.shows_progress) as show:
                        job = self._job = await batches.submit(
                            self._source,
                            **options,
                            patience=self._patience,
                            on_progress=show,
                            on_uploaded=self._note_file,
                        )
            except ValidationError as error:
                print_error(str(error))
                if len(error.problems) > 1 and isinstance(self._source, str):
                    print_err(f"nothing was sent; to see all problems: {PROGRAM} validate {self._source}")
                return Exit.FAILED
            if job.warning:
                common.note(f"the service warns: {job.warning}")
            if not wait:
                print(as_json(job) if common.json else "\t".join(columns((job.id, job.status, job.input_file_id))))
                return Exit.DONE
            common.note(f"job {job.id} was created from {job.input_file_id}")
            left = common.timeout and max(0.0, round(common.timeout - (time.monotonic() - began), 1))
            return await self._wait(batches, job, left)

    async def _wait(self, batches: AsyncBatches, job: BatchJob, timeout: float | None) -> Exit:
        code = None
        try:
            await batches.wait(job, timeout=timeout, patience=self._patience, on_update=self._note_job)
        except BatchesError as error:
            print_error(str(error))
            code = Exit.TIMED_OUT if isinstance(error, WaitTimeoutError) else code_of(error)
        # In any case: the job exists, and its id is needed to resume.
        job = self._job or job
        _print_finished(self._common, job)
        if code is not None:
            return code
        return Exit.DONE if job.status == BatchJobStatus.COMPLETED else Exit.ENDED_BADLY

    def _note_file(self, file: FileObject) -> None:
        self._file = file

    def _note_job(self, job: BatchJob) -> None:
        self._job = job
        _note_change(self._common, job)

    def state(self) -> str:
        """Return what exists at the service."""
        if self._job is not None:
            return f"job {self._job.id} was created, and was left alone"
        if self._file is not None:
            name = self._file.id
            return f"a job may have been created from {name}; look with {PROGRAM} list --input-file {name}"
        return "no job was created"


@command("wait")
@ids_argument("ids of jobs; or - alone, to read them from standard input", required=True)
@patience_option(60)
@service_options
def wait(common: Common, ids: tuple[str, ...], patience: float) -> Exit:
    """Wait for jobs, and print each as it finishes. The exit code is 0 if all of them
    completed. Interrupting the wait leaves the jobs alone.

    examples:
      together-batches wait ID                      until it has finished
      together-batches wait ID ID ID --json         each as it finishes
      together-batches wait - --timeout 3600 < ids.txt
    """
    job_ids = ids_or_input(ids)
    if not job_ids:
        print_err("standard input has no ids; there is nothing to wait for")
        return Exit.DONE
    finished: list[BatchJob] = []
    with last_words(lambda: f"{_summary(finished, job_ids)}; the jobs were left alone"):
        return _wait(common, job_ids, patience, finished)


@in_loop
async def _wait(common: Common, ids: list[str], patience: float, finished: list[BatchJob]) -> Exit:
    began = time.monotonic()
    errors: list[BatchesError] = []
    timed_out = False
    async with connected(common, limited=False) as batches:
        try:
            if len(ids) == 1:
                note = partial(_note_change, common)
                job = await batches.wait(ids[0], timeout=common.timeout, patience=patience, on_update=note)
                finished.append(job)
                _print_finished(common, job)
            else:
                await _wait_for_many(batches, common, ids, patience, finished)
        except (AuthenticationError, UsageError):
            raise
        except BatchesError as error:
            timed_out = isinstance(error, WaitTimeoutError)
            errors = [error]
        except ExceptionGroup as several:
            errors = list(cast("ExceptionGroup[BatchesError]", several).exceptions)  # type: ignore[arg-type]
    for each in errors:
        print_error(str(each))
    common.note(f"{_summary(finished, ids)}; took {time.monotonic() - began:.1f} s")
    if timed_out:
        return Exit.TIMED_OUT
    if errors:
        return code_of_many(errors, len(ids))
    return Exit.DONE if all(map(_completed, finished)) else Exit.ENDED_BADLY


async def _wait_for_many(
    batches: AsyncBatches, common: Common, ids: list[str], patience: float, finished: list[BatchJob]
) -> None:
    # On one screen the lines show the progress, and a bar would be drawn over them.
    shown = common.shows_progress and can_redraw(sys.stderr) and not is_terminal(sys.stdout)
    bad = 0
    with bar(len(ids), shown=shown, doing="Waiting") as show:
        async with batches.as_completed(ids, timeout=common.timeout, patience=patience) as jobs:
            async for job in jobs:
                finished.append(job)
                bad += not _completed(job)
                _print_finished(common, job)
                show(len(finished), bad)


def _completed(job: BatchJob) -> bool:
    return job.status == BatchJobStatus.COMPLETED


def _summary(finished: list[BatchJob], ids: list[str]) -> str:
    """Return the number of jobs that have finished, by status."""
    text = f"{format_count(len(finished))} of {count_of(len(ids), 'job')} finished"
    return f"{text}: {by_status(finished)}" if finished else text


def _note_change(common: Common, job: BatchJob) -> None:
    """Print the new state of a job during a wait."""
    if not job.is_terminal:
        done = "" if job.progress is None else f", {job.progress:g} % done"
        common.note(f"{job.status or 'without a status'}{done}")


def _print_finished(common: Common, job: BatchJob) -> None:
    """Print a job that has finished, with the columns that the reference names, and flush."""
    line = columns((job.id, job.status, job.output_file_id, job.error_file_id, job.error))
    print(as_json(job) if common.json else "\t".join(line), flush=True)
