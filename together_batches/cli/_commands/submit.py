"""The command ``together-batches submit``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, BinaryIO

from together_batches.cli._account.client import connected
from together_batches.cli._account.options import (
    Common,
    endpoint_option,
    model_option,
    patience_option,
    priority_option,
    service_options,
)
from together_batches.cli._commands.wait import note_change, print_finished
from together_batches.cli._inputs.local_files import requests_argument, schema_in, schema_option, spooled
from together_batches.cli._listing.columns import item
from together_batches.cli._listing.labels import keep_labels, label_option, labels_in_thread
from together_batches.cli._terminal.commands import command, option
from together_batches.cli._terminal.exits import Exit, code_of
from together_batches.cli._terminal.loop import in_loop, report_early_end, time_limit
from together_batches.cli._terminal.progress import file_bar
from together_batches.cli._terminal.text import PROGRAM, print_err, print_error
from together_batches.errors import BatchesError, ValidationError, WaitTimeoutError
from together_batches.models import BatchJob, BatchJobStatus, FileObject

if TYPE_CHECKING:
    from together_batches.client import AsyncBatches


@command("submit", Exit.ENDED_BADLY)
@requests_argument
@endpoint_option
@model_option
@priority_option
@schema_option
@label_option
@option("--wait", "wait until the job has finished")
@patience_option(120)
@service_options
def submit(
    common: Common,
    source: str,
    endpoint: str,
    model_id: str | None,
    priority: int | None,
    schema: str | None,
    labels: tuple[str, ...],
    wait: bool,
    patience: float,
) -> Exit:
    """Check a file of requests, upload it, and create one job from it: one, even if
    answers are lost on the way.

    examples:
      together-batches submit requests.jsonl
      together-batches submit requests.jsonl --label nightly --wait
      together-batches submit - --json < requests.jsonl
    """
    document = schema_in(schema)
    work = _Submission(common, spooled(source), patience, labels)
    with report_early_end(work.state):
        return work.run(wait=wait, endpoint=endpoint, model_id=model_id, priority=priority, schema=document)


class _Submission:
    """One submission and its progress."""

    def __init__(self, common: Common, source: str | BinaryIO, patience: float, labels: tuple[str, ...]) -> None:
        self._common = common
        self._source = source
        self._patience = patience
        self._labels = labels
        self._file: FileObject | None = None
        self._job: BatchJob | None = None

    @in_loop
    async def run(self, *, wait: bool, **options: Any) -> Exit:
        from anyio import to_thread

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
            if self._labels:
                await to_thread.run_sync(keep_labels, [job.id], self._labels)
            if not wait:
                labels = await labels_in_thread([job.id])
                facts = (job.status, job.input_file_id)
                print(item(common, job.id, job, labels, cells=facts, shown=facts[:1], note=job.input_file_id))
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
        print_finished(self._common, job, await labels_in_thread([job.id]))
        if code is not None:
            return code
        return Exit.DONE if job.status == BatchJobStatus.COMPLETED else Exit.ENDED_BADLY

    def _note_file(self, file: FileObject) -> None:
        self._file = file

    def _note_job(self, job: BatchJob) -> None:
        self._job = job
        note_change(self._common, job)

    def state(self) -> str:
        """Return what exists at the service."""
        if self._job is not None:
            return f"job {self._job.id} was created, and was left alone"
        if self._file is not None:
            name = self._file.id
            return f"a job may have been created from {name}; look with {PROGRAM} list --input-file {name}"
        return "no job was created"
