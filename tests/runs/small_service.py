"""A minimal service whose jobs end at once, and processes that end at any of its steps."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from together_batches import BatchJob, CreateUnconfirmedError, FileObject, NotFoundError, Price
from together_batches._jobs.create import Created, CreateRecord, Listing, WantedJob
from together_batches._protocol.files import UploadContent, Uploaded
from together_batches.runs._context import Clock, RunApi

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)


class KilledError(Exception):
    """The end of the process."""


class Life:
    """The life of a process: it ends after so many steps, before or after the effect of the last."""

    def __init__(self, steps: int | None = None) -> None:
        self.steps = 0
        self._last = steps

    def step(self) -> None:
        self.steps += 1
        if self.steps == self._last:
            raise KilledError

    @asynccontextmanager
    async def around(self) -> AsyncGenerator[None]:
        self.step()
        yield
        self.step()


class Service:
    """Jobs that end at once. A row may be lost the first time it is sent, by its name."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, BatchJob] = {}
        self.sent = Counter[str]()
        self.life = Life()
        self.seconds = 0

    def now(self) -> datetime:
        self.seconds += 1
        return NOON + timedelta(seconds=self.seconds)

    async def upload(self, rows: UploadContent) -> Uploaded:
        async with self.life.around():
            content = b""
            while len(content) < rows.size:
                content += await rows.block(len(content))
            assert hashlib.sha256(content).hexdigest() == rows.sha256
            file_id = f"file-{hashlib.sha256(content).hexdigest()[:8]}"
            known_id = file_id if file_id in self.files else None
            self.files[file_id] = content
        return Uploaded(FileObject(id=file_id), known_id)

    async def file(self, file_id: str) -> FileObject:
        if file_id not in self.files:
            raise NotFoundError("no such file", status=404)
        return FileObject(id=file_id, bytes=len(self.files[file_id]), seen_at=self.now())

    async def create(self, wanted: WantedJob, _: float, record: CreateRecord) -> Created:
        """Create a job as the client does without losses: if a create may have been sent, look for its job first."""
        if record.posts:
            assert record.list_jobs is not None
            listed = [job for job in (await record.list_jobs()).jobs if job.input_file_id == wanted.file_id]
            found = [job for job in listed if record.is_another is None or not record.is_another(job)]
            if found:
                return Created(found[0], found=True)
            if record.posts == 2:
                raise CreateUnconfirmedError("it was sent twice", input_file_id=wanted.file_id)
        await record.note_posts(record.posts + 1)
        return Created(await self.post(wanted.file_id))

    async def post(self, file_id: str) -> BatchJob:
        async with self.life.around():
            answers = []
            for line in self.files[file_id].splitlines():
                custom_id = json.loads(line)["custom_id"]
                self.sent[custom_id] += 1
                if not (custom_id.startswith("lost") and self.sent[custom_id] == 1):
                    row = {"custom_id": custom_id, "response": {"status_code": 200, "body": {"n": custom_id}}}
                else:
                    row = {"custom_id": custom_id, "error": {"code": "batch_client_error", "message": "once more"}}
                answers.append(json.dumps(row).encode() + b"\n")
            number = len(self.jobs) + 1
            job = BatchJob(
                id=f"job-{number}",
                status="COMPLETED",  # type: ignore[arg-type]
                input_file_id=file_id,
                created_at=self.now(),
                output_file_id=f"output-{number}",
            )
            self.files[f"output-{number}"] = b"".join(reversed(answers))
            self.jobs[job.id] = job
        return job

    async def sleep(self, seconds: float) -> None:
        self.seconds += int(seconds)

    async def list_jobs(self) -> Listing:
        return Listing(list(self.jobs.values()), self.now())

    async def retrieve(self, job_id: str) -> BatchJob:
        if job_id not in self.jobs:
            raise NotFoundError("no such job", status=404)
        return self.jobs[job_id]

    async def ended(self, job_id: str, *, on_update: Callable[[BatchJob], None]) -> BatchJob:
        on_update(self.jobs[job_id])
        return self.jobs[job_id]

    async def download(self, file_id: str, path: Path) -> None:
        async with self.life.around():
            path.write_bytes(self.files[file_id])  # noqa: ASYNC240  # a few bytes

    async def prices(self) -> dict[str, Price]:
        return {}

    @property
    def api(self) -> RunApi:
        return RunApi(
            time=Clock(now=self.now, sleep=self.sleep, monotonic=lambda: float(self.seconds)),
            upload=self.upload,
            file=self.file,
            know=lambda _: None,
            create=self.create,
            list_jobs=self.list_jobs,
            retrieve=self.retrieve,
            ended=self.ended,
            download=self.download,
            cancel=lambda _: self.list_jobs(),
            prices=self.prices,
        )
