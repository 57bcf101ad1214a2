"""``together-batches submit``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import attrs

from together_batches._plain import to_dict
from together_batches.cli import _loop
from together_batches.cli._client import connected
from together_batches.cli._exits import CommandError, Exit, code_of
from together_batches.cli._parser import PROGRAM
from together_batches.cli._progress import file_bar
from together_batches.cli._requests import spooled
from together_batches.cli._text import as_json, complain, escape, say
from together_batches.cli._wait import line_of_finished, tell_change
from together_batches.errors import BatchesError, ValidationError, WaitTimeoutError
from together_batches.models import BatchJobStatus

if TYPE_CHECKING:
    from typing import BinaryIO

    from together_batches._disk import Content
    from together_batches.cli._parser import Arguments
    from together_batches.client import AsyncBatches
    from together_batches.models import BatchJob, FileObject

__all__ = ["submit"]


def submit(arguments: Arguments) -> Exit:
    """Check requests, upload them, create one job from them, and wait for it on request."""
    if arguments.deadline is not None and not arguments.wait:
        message = "--deadline is the limit of --wait, which was not given"
        raise CommandError(message)
    with ExitStack() as stack:
        work = _Work(arguments, spooled(arguments.path, stack))
        try:
            return _loop.run(work.run)
        except KeyboardInterrupt:
            say(f"interrupted: {work.state()}")
            return Exit.INTERRUPTED


@attrs.define
class _Work:
    """One submission, and how far it has come: an interrupt leaves this behind."""

    arguments: Arguments
    source: str | BinaryIO
    file_id: str | None = None
    job: BatchJob | None = None

    async def run(self) -> Exit:
        """Submit, follow and tell."""
        arguments = self.arguments
        async with connected(arguments) as batches:
            try:
                job = self.job = await self._submitted(batches)
            except ValidationError as error:
                complain(str(error))
                if len(error.problems) > 1 and isinstance(self.source, str):
                    say(f"nothing was sent; to see all problems: {PROGRAM} validate {self.source}")
                return Exit.FAILED
            if job.warning and not arguments.quiet:
                say(f"the service warns: {job.warning}")
            if not arguments.wait:
                self._print(job, "\t".join(escape(fact or "-") for fact in (job.id, job.status, job.input_file_id)))
                return Exit.DONE
            if not arguments.quiet:
                say(f"job {job.id} was created from {job.input_file_id}")
            return await self._followed(batches, job)

    async def _submitted(self, batches: AsyncBatches) -> BatchJob:
        arguments = self.arguments

        async def upload(content: Content) -> FileObject:
            with file_bar("Uploading", quiet=arguments.quiet or arguments.verbose) as show:
                file = await batches.files.upload(content, on_progress=show)
            self.file_id = file.id
            return file

        return await batches._submit(  # pyright: ignore[reportPrivateUsage]
            self.source,
            upload=upload,
            endpoint=arguments.requests_endpoint,
            model_id=arguments.model,
            priority=arguments.priority,
            patience=arguments.patience or 0,
        )

    async def _followed(self, batches: AsyncBatches, job: BatchJob) -> Exit:
        tell = tell_change(quiet=self.arguments.quiet)

        def on_update(seen: BatchJob) -> None:
            self.job = seen
            tell(seen)

        try:
            deadline, patience = self.arguments.deadline, self.arguments.patience
            await batches.wait(job, timeout=deadline, patience=patience or 0, on_update=on_update)
            code = None
        except WaitTimeoutError as error:
            complain(str(error))
            code = Exit.TIMED_OUT
        except BatchesError as error:
            complain(str(error))
            code = code_of(error)
        # However the wait ended: the job is there, and whoever has its id can go on.
        job = self.job or job
        self._print(job, line_of_finished(job))
        if code is not None:
            return code
        return Exit.DONE if job.status == BatchJobStatus.COMPLETED else Exit.ENDED_BADLY

    def _print(self, job: BatchJob, line: str) -> None:
        print(as_json(to_dict(job)) if self.arguments.json else line, flush=True)

    def state(self) -> str:
        """What an interrupt leaves behind."""
        if self.job is not None:
            return f"job {self.job.id} was created, and was left alone"
        if self.file_id is not None:
            return (
                f"a job may have been created from {self.file_id}; "
                f"look with {PROGRAM} list --input-file {self.file_id}"
            )
        return "no job was created"
