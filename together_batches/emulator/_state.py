"""The service without I/O, threads or tasks: jobs and files in memory, over a clock that is passed in."""

from __future__ import annotations

from binascii import crc32
from functools import lru_cache, partial
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, UUID, uuid5

from together_batches.emulator._content import content_of
from together_batches.emulator._files import Files
from together_batches.emulator._jobs import DEFAULT_TIMING, ENDED, Job, Timing, job_to_json, phases_from
from together_batches.emulator._replies import Refusal
from together_batches.emulator._rows import CompletedRows, RowBehaviour, first_model, input_error, lines_of, requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from together_batches.emulator._content import Content

ENDPOINTS = ("/v1/chat/completions", "/v1/audio/transcriptions", "/v1/audio/translations")
DEFAULT_MODEL = "openai/gpt-oss-20b"
# Optional fields of a create, null included.
_OPTIONS = (
    ("model_id", str, "a string"),
    ("priority", int, "an integer"),
    ("completion_window", str, "a string"),
)


class Service:
    """The jobs and files of one account.

    ``now`` returns Unix seconds. Two services with the same seed and clock respond equally to equal requests.
    ``answering`` is how rows are answered, ``ends_as`` the final status of jobs that clients create from valid files.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        seed: int = 0,
        timing: Timing = DEFAULT_TIMING,
        answering: RowBehaviour | None = None,
        ends_as: str | None = None,
    ) -> None:
        self.timing = timing
        self._now = now
        self._seed = seed
        self.answering = answering or RowBehaviour(seed=seed)
        self.ends_as = ends_as
        self._random = Random(seed)  # noqa: S311  # repeatable on purpose
        self._owner = {
            "user_id": f"{self._random.getrandbits(96):024x}",
            "project_id": f"proj-{self._uuid()}",
            "organization_id": f"org-{self._uuid()}",
        }
        self._jobs: dict[str, Job] = {}
        self._with_rows: dict[str, Job] = {}  # jobs that will have results and have none yet
        # When each of them ends, so that reading the files need not check every running job.
        self._ends: list[tuple[float, int, str]] = []
        self._files = Files(now=now, new_id=lambda: f"file-{self._uuid()}", seed=seed)

    # --- operations of the service

    def create(self, wanted: Mapping[str, object]) -> dict[str, object]:
        """Accept a job: return ``{"job": ...}``, with a ``"warning"`` if necessary.

        As at the real service, an unknown or unreadable file is not an error here; the job fails after validation.
        Raises Refusal 400 for a missing ``input_file_id``, for an endpoint that does not exist, and for a field of a
        wrong type.
        """
        input_file_id = wanted.get("input_file_id")
        if not isinstance(input_file_id, str) or not input_file_id:
            raise Refusal(400, "input_file_id is required")
        endpoint = wanted.get("endpoint")
        if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
            raise Refusal(400, "invalid endpoint")
        for name, kind, noun in _OPTIONS:
            value = wanted.get(name)
            if value is not None and type(value) is not kind:  # True is an int for isinstance
                raise Refusal(400, f"{name} must be {noun}")
        model_id = wanted.get("model_id")
        now = self._now()
        file = self._files.find(input_file_id)
        lines = lines_of(file.content.read()) if file else []
        error = (
            input_error(lines)
            if file
            else f"Failed to download input file: {input_file_id}: unexpected status code: 404"
        )
        job = Job(
            id=self._uuid(),
            created_at=now,
            input_file_id=input_file_id,
            endpoint=endpoint,
            phases=phases_from("VALIDATING", "FAILED" if error else self.ends_as, now, self.timing, runs=not error),
            running=self.timing.running,
            model_id=model_id if isinstance(model_id, str) else first_model(lines),
            file_size_bytes=file.content.size if file else 0,
            error=error,
            input=file.content if file else None,
            answering=self.answering,
        )
        self._keep(job)
        answer: dict[str, object] = {"job": self._shown(job, now)}
        if wanted.get("completion_window") not in (None, "24h"):
            answer["warning"] = "completion_window cannot be changed; 24h is used"
        return answer

    def retrieve(self, job_id: str) -> dict[str, object]:
        """Return the job in its current state. Raises Refusal 404."""
        return self._shown(self.job(job_id), self._now())

    def listing(self) -> list[dict[str, object]] | None:
        """Return every job, in an arbitrary but constant order. None, not [], without jobs."""
        if not self._jobs:
            return None
        now = self._now()
        # A checksum shuffles without a second data structure: seeding 100,000 jobs stays cheap.
        shuffled = sorted(self._jobs.values(), key=lambda job: (crc32(job.id.encode(), self._seed), job.id))
        return [self._shown(job, now) for job in shuffled]

    def cancel(self, job_id: str) -> dict[str, object]:
        """Begin to cancel, and return the job in its current state; repeating it changes nothing.

        Raises Refusal 404, and 409 for a job that has ended.
        """
        job = self.job(job_id)
        now = self._now()
        status = job.phase(now).status
        if status in ENDED:
            raise Refusal(409, f"Cannot cancel job - already in terminal state: {status}")
        if status != "CANCELING":
            job.cancel(now, self.timing.canceling)
            self._expect_end(job)
        return self._shown(job, now)

    @property
    def files(self) -> Files:
        """The files, with the results of every job that has ended by now."""
        now = self._now()
        while self._ends and self._ends[0][0] <= now:
            job = self._with_rows.get(heappop(self._ends)[2])
            if job is not None:
                self._settle(job, now)
        return self._files

    def whoami(self) -> dict[str, object]:
        """Return the owner of the key: a project, as in every job."""
        return {
            "type": "project_api_key",
            "api_key": {"id": "key-emulator"},
            "organization": {"id": self._owner["organization_id"], "name": "emulator"},
            "project": {"id": self._owner["project_id"], "name": "emulator", "slug": "emulator"},
        }

    # --- additions by tests

    def add_job(
        self,
        *,
        id: str | None = None,  # noqa: A002  # the field's own name
        status: str = "IN_PROGRESS",
        age_seconds: float = 0,
        model_id: str | None = DEFAULT_MODEL,
        input_file_id: str | None = None,
        endpoint: str = ENDPOINTS[0],
        ends_as: str | None = None,
        cancels_as: str = "CANCELLED",
        extra_fields: Mapping[str, object] | None = None,
    ) -> str:
        """Add a job that was created ``age_seconds`` ago and enters ``status`` now.

        A job without an input file gets one, and runs its rows, unless the caller names result files.

        Raises ValueError for an id that is taken or empty, and for an impossible final status.
        """
        now = self._now()
        phases = phases_from(status, ends_as, now, self.timing)
        job_id = self._uuid() if id is None else id
        if not job_id or job_id in self._jobs:
            raise ValueError(f"a job needs an id of its own; {job_id!r} is {'taken' if job_id else 'empty'}")
        created_at, fields = now - age_seconds, extra_fields or {}
        file = self._files.find(input_file_id) if input_file_id else None
        input_id = input_file_id or f"file-{self._uuid()}"
        content = (
            file.content if file else _requests(model_id or DEFAULT_MODEL, endpoint, 1 + self._random.getrandbits(3))
        )
        if not input_file_id:
            self._files.keep(
                input_id,
                lambda: content,
                filename="requests.jsonl",
                purpose="batch-api",
                created_at=created_at,
            )
        job = Job(
            id=job_id,
            created_at=created_at,
            input_file_id=input_id,
            endpoint=endpoint,
            phases=phases,
            running=self.timing.running,
            model_id=model_id,
            file_size_bytes=content.size,
            cancels_as=cancels_as,
            extra_fields=fields,
            # The results of a generated input would appear beside those that the caller names.
            input=content if file or not fields.keys() & {"output_file_id", "error_file_id"} else None,
            answering=self.answering,
        )
        self._keep(job)
        return job_id

    def delete_job(self, job_id: str) -> None:
        """Delete the job; its files are kept. Raises Refusal 404."""
        del self._jobs[self.job(job_id).id]
        self._with_rows.pop(job_id, None)

    def jobs(self) -> list[dict[str, object]]:
        """Return every job, in the order of their creation."""
        now = self._now()
        return [self._shown(job, now) for job in self._jobs.values()]

    def job(self, job_id: str) -> Job:
        """Return the record of a job. Raises Refusal 404."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise Refusal(404, "Job not found") from None

    def _keep(self, job: Job) -> None:
        self._jobs[job.id] = job
        if job.input is not None:
            self._with_rows[job.id] = job
            self._expect_end(job)

    def _expect_end(self, job: Job) -> None:
        last = job.phases[-1]
        if last.status in ENDED:
            heappush(self._ends, (last.begins, len(self._ends), job.id))

    def _shown(self, job: Job, now: float) -> dict[str, object]:
        if job.id in self._with_rows:
            self._settle(job, now)
        return job_to_json(job, now, self._owner)

    def _settle(self, job: Job, now: float) -> None:
        """Name the result files of a job that has ended; their content is generated when they are read."""
        ended = job.phase(now)
        if ended.status not in ENDED or job.input is None:
            return
        del self._with_rows[job.id]
        if not job.is_validated(now):
            return
        run = CompletedRows(
            lines_of(job.input.read()),
            job.answering or self.answering,
            job_id=job.id,
            endpoint=job.endpoint,
            created=int(job.created_at),
            share=job.share_done(now),
        )
        succeeded, failed = run.succeeded_and_failed()
        for wanted, field, filename, make in (
            (succeeded, "output_file_id", "output.jsonl", run.output),
            (failed, "error_file_id", "errors.jsonl", run.errors),
        ):
            if wanted:
                # Not the next id, because ids must not depend on the order of reads.
                file_id = f"file-{uuid5(NAMESPACE_OID, f'{self._seed} {job.id} {field}')}"
                self._files.keep(
                    file_id,
                    partial(_made, make),
                    filename=filename,
                    purpose="batch-generated",
                    created_at=ended.begins,
                )
                job.results[field] = file_id

    def _uuid(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))


def _made(make: Callable[[], bytes]) -> Content:
    return content_of(make())


@lru_cache(maxsize=256)
def _requests(model: str, endpoint: str, count: int) -> Content:
    """Return the input of jobs that were added without one. One copy serves all jobs of the same kind."""
    return content_of(requests(model, endpoint, count))
