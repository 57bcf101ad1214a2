"""The service as a pure machine: jobs and files in memory, over a clock that is passed in.

No I/O, no threads, no tasks.
"""

from __future__ import annotations

from binascii import crc32
from random import Random
from typing import TYPE_CHECKING

import orjson
from attrs import define, field

from together_batches.emulator._jobs import DEFAULT_TIMING, ENDED, Job, Timing, job_to_json, phases_from

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DEFAULT_MODEL", "ENDPOINTS", "Refusal", "Service", "StoredFile"]

ENDPOINTS = ("/v1/chat/completions", "/v1/audio/transcriptions", "/v1/audio/translations")
DEFAULT_MODEL = "openai/gpt-oss-20b"


class Refusal(Exception):  # noqa: N818 - an answer of the service, not a fault of this program
    """The service says no: an HTTP status and a text. How the text is wrapped depends on the endpoint."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


@define
class StoredFile:
    """An uploaded file, whole."""

    id: str
    content: bytes = field(repr=False)
    filename: str
    purpose: str
    file_type: str
    created_at: float

    def to_json(self) -> dict[str, object]:
        """The file as the service describes it. Its dates are whole Unix seconds, unlike those of jobs."""
        return {
            "id": self.id,
            "object": "file",
            "created_at": int(self.created_at),
            "filename": self.filename,
            "bytes": len(self.content),
            "purpose": self.purpose,
            "FileType": self.file_type,
            "LineCount": 0,
            "Processed": True,
            "processing_status": "COMPLETED",
        }


class Service:
    """The jobs and files of one account.

    `now` gives Unix seconds. Two services with the same seed and the same clock that are asked the same
    things answer the same.
    """

    def __init__(self, *, now: Callable[[], float], seed: int = 0, timing: Timing = DEFAULT_TIMING) -> None:
        self.timing = timing
        self._now = now
        self._seed = seed
        self._random = Random(seed)  # noqa: S311 - repeatable on purpose
        self._owner = {
            "user_id": f"{self._random.getrandbits(96):024x}",
            "project_id": f"proj-{self._uuid()}",
            "organization_id": f"org-{self._uuid()}",
        }
        self._jobs: dict[str, Job] = {}
        self._files: dict[str, StoredFile] = {}

    # What the service answers

    def create(self, wanted: Mapping[str, object]) -> dict[str, object]:
        """Accept a job: `{"job": ...}`, with a `"warning"` where there is something to say.

        As at the real service, a file that is unknown or unreadable is not noticed here; the job fails after
        validation. Raises Refusal 400 for a missing `input_file_id` and for an endpoint that does not exist.
        """
        input_file_id = wanted.get("input_file_id")
        if not isinstance(input_file_id, str) or not input_file_id:
            raise Refusal(400, "input_file_id is required")
        endpoint = wanted.get("endpoint")
        if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
            raise Refusal(400, "invalid endpoint")
        model_id = wanted.get("model_id")
        now = self._now()
        file = self._files.get(input_file_id)
        error = _input_error(input_file_id, file)
        job = Job(
            id=self._uuid(),
            created_at=now,
            input_file_id=input_file_id,
            endpoint=endpoint,
            phases=phases_from("VALIDATING", "FAILED" if error else None, now, self.timing),
            running=self.timing.running,
            model_id=model_id if isinstance(model_id, str) else _first_model(file),
            file_size_bytes=len(file.content) if file else None,
            error=error,
        )
        self._jobs[job.id] = job
        answer: dict[str, object] = {"job": job_to_json(job, now, self._owner)}
        if wanted.get("completion_window") not in (None, "24h"):
            answer["warning"] = "completion_window cannot be changed; 24h is used"
        return answer

    def retrieve(self, job_id: str) -> dict[str, object]:
        """The job as it stands. Raises Refusal 404."""
        return job_to_json(self._job(job_id), self._now(), self._owner)

    def listing(self) -> list[dict[str, object]] | None:
        """Every job, in an order that means nothing but stays the same. None, not [], without jobs."""
        if not self._jobs:
            return None
        now = self._now()
        # A checksum shuffles without a second structure to keep: seeding 100,000 jobs stays cheap.
        shuffled = sorted(self._jobs.values(), key=lambda job: (crc32(job.id.encode(), self._seed), job.id))
        return [job_to_json(job, now, self._owner) for job in shuffled]

    def cancel(self, job_id: str) -> dict[str, object]:
        """Begin to cancel, and give the job as it now stands; repeating it changes nothing.

        Raises Refusal 404, and 409 for a job that has ended.
        """
        job = self._job(job_id)
        now = self._now()
        status = job.phase(now).status
        if status in ENDED:
            raise Refusal(409, f"Cannot cancel job - already in terminal state: {status}")
        if status != "CANCELING":
            job.cancel(now, self.timing.canceling)
        return job_to_json(job, now, self._owner)

    def file(self, file_id: str) -> StoredFile:
        """The file. Raises Refusal 404."""
        try:
            return self._files[file_id]
        except KeyError:
            raise Refusal(404, f"File {file_id} not found") from None

    def files(self) -> dict[str, object]:
        """Every file, oldest first."""
        return {"data": [file.to_json() for file in self._files.values()]}

    def delete_file(self, file_id: str) -> dict[str, object]:
        """Forget the file. Jobs made from it go on. Raises Refusal 404."""
        del self._files[self.file(file_id).id]
        return {"id": file_id, "deleted": True}

    def whoami(self) -> dict[str, object]:
        """To whom the key belongs: a project, as every job says."""
        return {
            "type": "project_api_key",
            "api_key": {"id": "key-emulator"},
            "organization": {"id": self._owner["organization_id"], "name": "emulator"},
            "project": {"id": self._owner["project_id"], "name": "emulator", "slug": "emulator"},
        }

    # What a test puts there

    def add_file(
        self, content: bytes, *, filename: str, purpose: str = "batch-api", file_type: str = "jsonl"
    ) -> StoredFile:
        """Store a file under a new id. Any purpose will do, as at the real service."""
        file = StoredFile(
            id=f"file-{self._uuid()}",
            content=content,
            filename=filename,
            purpose=purpose,
            file_type=file_type,
            created_at=self._now(),
        )
        self._files[file.id] = file
        return file

    def add_job(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the field's own name
        status: str = "IN_PROGRESS",
        age_seconds: float = 0,
        model_id: str | None = DEFAULT_MODEL,
        input_file_id: str | None = None,
        endpoint: str = ENDPOINTS[0],
        ends_as: str | None = None,
        cancels_as: str = "CANCELLED",
        extra_fields: Mapping[str, object] | None = None,
    ) -> str:
        """Put a job there that was created `age_seconds` ago and enters `status` now.

        Raises ValueError for an id that is taken or empty, and for an end that cannot follow.
        """
        now = self._now()
        phases = phases_from(status, ends_as, now, self.timing)
        job_id = self._uuid() if id is None else id
        if not job_id or job_id in self._jobs:
            raise ValueError(f"A job needs an id of its own; {job_id!r} is {'taken' if job_id else 'empty'}.")
        file = self._files.get(input_file_id) if input_file_id else None
        self._jobs[job_id] = Job(
            id=job_id,
            created_at=now - age_seconds,
            input_file_id=input_file_id or f"file-{self._uuid()}",
            endpoint=endpoint,
            phases=phases,
            running=self.timing.running,
            model_id=model_id,
            file_size_bytes=len(file.content) if file else 1000 + self._random.getrandbits(20),
            cancels_as=cancels_as,
            extra_fields=extra_fields or {},
        )
        return job_id

    def jobs(self) -> list[dict[str, object]]:
        """Every job, in the order in which they came."""
        now = self._now()
        return [job_to_json(job, now, self._owner) for job in self._jobs.values()]

    def _job(self, job_id: str) -> Job:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise Refusal(404, "Job not found") from None

    def _uuid(self) -> str:
        # By hand, since uuid.UUID costs as much as the rest of a seeded job.
        digits = f"{self._random.getrandbits(128):032x}"
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _input_error(file_id: str, file: StoredFile | None) -> str | None:
    """What validation will find wrong with the input; None if nothing."""
    if file is None:
        return f"failed to download input file {file_id}: unexpected status code 404"
    lines = file.content.removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            is_object = isinstance(orjson.loads(line), dict)
        except orjson.JSONDecodeError:
            is_object = False
        if not is_object:
            return f"input format error: Line {number} (within chunk): Invalid JSON format"
    return None


def _first_model(file: StoredFile | None) -> str | None:
    """The model that the first line asks for. Which one a real job of mixed models names is not known."""
    if file is None:
        return None
    try:
        first = orjson.loads(file.content.partition(b"\n")[0])
        model = first["body"]["model"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return model if isinstance(model, str) else None
