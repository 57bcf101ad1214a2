"""The service of a simulation: its true state, by which it is judged, and what it shows of that state.

The state is in the emulator, with jobs that live as planned. The service shows the emulator's responses, altered by
the troubles of the seed for as long as they last.
"""

from __future__ import annotations

from binascii import crc32
from collections import defaultdict
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

import attrs
import msgspec

from together_batches.emulator import Answer, Emulator, Failure, Timing
from together_batches.emulator._content import content_of
from together_batches.emulator._jobs import ENDED, Job, timestamp
from together_batches.emulator._replies import Reply, json_reply

from .machine import Process
from .plan import Life
from .troubles import Looks, within

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp import web

    from together_batches.emulator._files import StoredFile
    from together_batches.emulator._requests import Route

    from .machine import Loop
    from .plan import Plan

KEY = "key-of-the-simulation"
RUN_HEADER = "X-Simulated-Run"
"""Name of the header that identifies the run of a request, because all are of one account."""
FOREIGN = "somebody else"
COPIES = "somebody else, with a copy"
"""Creator of a job that no run posted, of a run's own file, which is then as good as the run's job, or of a copy."""

_OUTPUT, _ERRORS = "output_file_id", "error_file_id"
_LATE_ERROR = {"code": "batch_client_error", "message": "Internal Server Error"}
_EARLY_SHARE = 0.3
_REFUSED_SHARE = 0.8
_LOOKED_SECONDS = 270.0
_BETWEEN_LOOKS = 8
"""Number of five-second samples in a row for which a job must be listed; otherwise reads may miss it.

Reads are half a minute apart.
"""


@attrs.frozen(kw_only=True)
class Made:
    """A created job: its file and rows, its time and its run.

    ``refusal`` is how most of its rows are refused for the account, if they are.
    """

    number: int
    job: Job
    ids: tuple[str, ...]
    at: float
    by: str
    looks: Looks
    refusal: Answer | Failure | None = None

    def ended_at(self) -> float:
        """Return when the job ends, or ended."""
        last = self.job.phases[-1]
        return last.begins if last.status in ENDED else float("inf")


@attrs.frozen
class Version:
    """The files of a job from one moment on: their ids and their content; the rows by their results."""

    since: float
    ids: Mapping[str, str]
    files: Mapping[str, bytes]
    answered: frozenset[str]
    failed: Mapping[str, str]


_NO_VERSION = Version(0.0, {}, {}, frozenset(), {})


class Service:
    """The complete state and behaviour of the service.

    ``made`` are the jobs in order of creation; ``gone`` those that were deleted, or their results, and when.
    ``reads`` are the moments at which a run has read a job, or its files; ``began`` is the first moment.
    """

    def __init__(self, plan: Plan, loop: Loop) -> None:
        fates = {row.custom_id: row.fate for row in plan.rows}
        self.emulator = Emulator(
            api_key=KEY,
            seed=plan.seed,
            clock=loop.unix_time,
            faults=plan.faults,
            rate_limit=plan.rate_limit,
            fail_rows=plan.fail_rows,
            missing_rows=plan.missing_rows,
            answer=lambda row: fates[str(row["custom_id"])],
        )
        self.made: list[Made] = []
        self.mistakes: list[Exception] = []
        self.gone: dict[str, float] = {}
        self.reads: defaultdict[str, list[float]] = defaultdict(list)
        self._plan = plan
        self._troubles = plan.troubles
        self._loop = loop
        self.began = loop.unix_time()
        self._at_peace = False
        self._by = FOREIGN
        self._creates = self._stored = 0
        self._by_id: dict[str, Made] = {}
        self._versions: dict[str, tuple[Version, ...]] = {}
        self._result_of: dict[str, tuple[Made, str, Version]] = {}
        self._downloads: defaultdict[str, int] = defaultdict(int)
        self._books, self._gateway = self.emulator._service, self.emulator._gateway
        self._really_create, self._books.create = self._books.create, self._create  # type: ignore[method-assign]
        self._really_settle, self._books._settle = self._books._settle, self._settle  # type: ignore[method-assign]
        self._really_answer, self._gateway._answer = self._gateway._answer, self._answer  # type: ignore[method-assign]

    def make_peace(self) -> None:
        """Stop all troubles from now on; existing jobs keep their results."""
        self._at_peace = True
        self.emulator.clear_faults()
        self.emulator.rate_limit = None

    # --- what it holds --------------------------------------------------------------------------------------------

    def _create(self, wanted: Mapping[str, object]) -> dict[str, object]:
        """Let each created job live as planned."""
        number, now = len(self.made) + 1, self._loop.unix_time()
        life = self._life(number, now - self.began)
        self._books.timing, self._books.ends_as = life.timing, life.ends_as
        answer = self._really_create(wanted)
        job_id = str(answer["job"]["id"])  # type: ignore[index]
        job = self._books._jobs[job_id]
        if life.percent is not None:
            job.extra_fields = {"progress": life.percent}
        if life.deleted_after is not None:
            self._later(life.deleted_after, self._delete, job_id)
        if life.file_deleted_after is not None:
            self._later(life.file_deleted_after, self._delete_results, job)
        content = b"" if job.input is None else job.input.read()
        made = Made(
            number=number,
            job=job,
            ids=tuple(str(msgspec.json.decode(line)["custom_id"]) for line in content.split(b"\n") if line.strip()),
            at=now,
            by=self._by,
            looks=Looks() if self._at_peace else self._troubles.looks(number),
            refusal=None if self._at_peace else self._troubles.refused(now - self.began),
        )
        self.made.append(made)
        self._by_id[job_id] = made
        return answer

    def _life(self, number: int, at: float) -> Life:
        if not self._at_peace and self._troubles.fails_at_once(at):
            return Life(Timing(validating=Random(f"{self._plan.seed} failing {number}").uniform(0, 3)), "FAILED", 0)
        plan = attrs.evolve(self._plan, calm=True) if self._at_peace else self._plan
        return plan.life(number)

    def _later(self, seconds: float, act: Callable[..., object], *what: object) -> None:
        self._loop.call_later(seconds, act, *what, context=Process.no_process())

    def _delete(self, job_id: str) -> None:
        _ = self._books.files  # reading them settles ended jobs
        self.gone[job_id] = self._loop.unix_time()
        self._books._jobs.pop(job_id)
        self._books._with_rows.pop(job_id, None)

    def _delete_results(self, job: Job) -> None:
        files = self._books.files
        ids = {file_id for version in self._versions.get(job.id, ()) for file_id in version.ids.values()}
        if ids:
            self.gone[job.id] = self._loop.unix_time()
        for file_id in sorted(ids):
            files.delete(file_id)

    def _settle(self, job: Job, now: float) -> None:
        """Settle a job if it has ended: refuse its rows if planned, and fix its files."""
        if job.phase(now).status not in ENDED or job.id not in self._books._with_rows:
            return
        made, usual = self._by_id[job.id], self._books._answering
        refusal = made.refusal
        if refusal is not None:
            random = Random(f"{self._plan.seed} refused rows of job {made.number}")
            refused = {custom_id for custom_id in made.ids if random.random() < _REFUSED_SHARE}
            own = usual.answer
            self._books._answering = attrs.evolve(
                usual, answer=lambda row: refusal if row["custom_id"] in refused else own and own(row)
            )
        try:
            self._really_settle(job, now)
        finally:
            self._books._answering = usual
        if job.results:
            self._note_versions(made, job.phase(now).begins)

    def _note_versions(self, made: Made, ended_at: float) -> None:
        job, looks = made.job, made.looks
        final = {field: self._books._files.get(file_id).content.read() for field, file_id in job.results.items()}
        ids = dict(job.results)
        output, errors = final.get(_OUTPUT, b""), final.get(_ERRORS, b"")
        random = Random(f"{self._plan.seed} answers of job {made.number}")
        if looks.errors_stay:
            errors += b"".join(_as_error(line) for line in _lines(output) if random.random() < looks.errors_stay)
        early = [line for line in _lines(output) if looks.answers_after and random.random() < _EARLY_SHARE]
        if errors or early:
            ids.setdefault(_ERRORS, self._new_id(job.id, "more errors"))
        versions = [_version(ended_at, ids, {_OUTPUT: output, _ERRORS: errors})]
        if early:
            kept = b"".join(line for line in _lines(output) if line not in set(early))
            before = {_OUTPUT: kept, _ERRORS: errors + b"".join(map(_as_error, early))}
            early_ids = {field: self._new_id(job.id, f"early {field}") for field in ids} if looks.new_ids else ids
            versions = [
                _version(ended_at, early_ids, before),
                attrs.evolve(versions[0], since=ended_at + looks.answers_after),
            ]
        self._versions[job.id] = tuple(versions)
        for version in versions:
            for field, file_id in version.ids.items():
                self._result_of.setdefault(file_id, (made, field, version))
                if self._books._files.find(file_id) is None:
                    self._books._files.keep(
                        file_id,
                        lambda: content_of(b""),
                        filename="results.jsonl",
                        purpose="batch-generated",
                        created_at=ended_at,
                    )

    def _new_id(self, job_id: str, what: str) -> str:
        return f"file-{uuid5(NAMESPACE_OID, f'{self._plan.seed} {job_id} {what}')}"

    # --- the facts to judge by --------------------------------------------------------------------------------------

    def version(self, made: Made, at: float) -> Version:
        """Return the files of a job at that moment, visible or not."""
        _ = self._books.files
        found = _NO_VERSION
        for version in self._versions.get(made.job.id, ()):
            if version.since <= at:
                found = version
        return found

    def stored_at(self, made: Made) -> float:
        """Return when the input of a job was stored."""
        file = self._books._files.find(made.job.input_file_id)
        return made.at if file is None else file.created_at

    def read_before(self, made: Made, at: float) -> float | None:
        """Return when its run last read a job, or its files, before that moment."""
        return max((read for read in self.reads[made.job.id] if read <= at), default=None)

    def may_be_unheard_of(self, made: Made, at: float) -> bool:
        """Return whether the list may have hidden a job until then, so that a create may be sent once more."""
        seconds = range(0, int(_LOOKED_SECONDS), 5)
        listed = "".join("x" if self._is_listed(made, at - before) else " " for before in seconds)
        return at - made.at > _LOOKED_SECONDS and "x" * _BETWEEN_LOOKS not in listed

    def _is_listed(self, made: Made, at: float) -> bool:
        looks, age = made.looks, at - made.at
        is_deleted = made.job.id not in self._books._jobs and self.gone[made.job.id] <= at
        return not is_deleted and age >= looks.listed_after and not (looks.unlisted and within(age, looks.unlisted))

    def can_be_read(self, made: Made, at: float) -> bool:
        """Return whether the whole result of a job can be read from that moment on."""
        looks, age = made.looks, at - made.ended_at()
        absent = [span for span in (looks.no_content, looks.no_metadata) if span is not None]
        gone = self.gone.get(made.job.id) is not None
        since_created = [span for span in (looks.unknown, looks.unlisted, looks.fails) if span is not None]
        return (
            not gone
            and age >= max(*looks.ids_after, looks.grows_for, looks.answers_after)
            and all(age >= ends for _, ends in absent)
            and all(at - made.at >= ends for _, ends in since_created)
            and not looks.short
            and looks.size is None
        )

    # --- the view of clients ----------------------------------------------------------------------------------------

    def _answer(self, route: Route, request: web.BaseRequest, body: bytes, checksum: str | None) -> Reply:
        try:
            return self._shown_answer(route, request, body, checksum)
        except Exception as error:  # a bug in this simulation, which would look like a failing service
            self.mistakes.append(error)
            raise

    def _shown_answer(self, route: Route, request: web.BaseRequest, body: bytes, checksum: str | None) -> Reply:
        now, self._by = self._loop.unix_time(), request.headers.get(RUN_HEADER, FOREIGN)
        away = None if self._at_peace else self._away(now)
        if away == "error":
            return self._gateway._refused(route, 503, "no server is available")
        if route.operation == "create" and away is None:
            return self._answer_create(route, request, body, checksum)
        reply = self._really_answer(route, request, body, checksum)
        if away == "jobs" and route.about_batches:
            return self._gateway._refused(route, 503, "no server is available")
        if reply.status >= 300:
            return reply
        match route.operation:
            case "retrieve":
                return self._shown_job(route, reply, now)
            case "list":
                jobs: list[dict[str, Any]] = msgspec.json.decode(_whole(reply)) or []
                seen = [self._shown(job, now) for job in jobs if self._is_listed(self._by_id[job["id"]], now)]
                return json_reply(seen or None)
            case "file" | "content" if route.id in self._result_of:
                return self._shown_file(route, request, reply, now)
            case "store":
                self._be_found_by_others(request.path.rpartition("/")[2])
        return reply

    def _away(self, now: float) -> str | None:
        return next((away.how for away in self._troubles.away if within(now - self.began, away.span)), None)

    def _shown_job(self, route: Route, reply: Reply, now: float) -> Reply:
        made = self._by_id[route.id]
        if made.looks.unknown is not None and within(now - made.at, made.looks.unknown):
            return self._gateway._refused(route, 404, "Job not found")
        self.reads[route.id].append(now)
        return json_reply(self._shown(msgspec.json.decode(_whole(reply)), now))

    def _shown(self, job: dict[str, Any], now: float) -> dict[str, Any]:
        """Return a job as it is shown."""
        made = self._by_id[job["id"]]
        looks = made.looks
        if looks.fails is not None and within(now - made.at, looks.fails):
            shown = {name: value for name, value in job.items() if name not in {_OUTPUT, _ERRORS}}
            error, at = "internal error", timestamp(made.at + looks.fails[0])
            return shown | {"status": "FAILED", "progress": 0, "error": error, "completed_at": at}
        if job["id"] not in self._versions:
            return job
        ids = self.version(made, now).ids
        age = now - made.ended_at()
        shown = {name: value for name, value in job.items() if name not in {_OUTPUT, _ERRORS}}
        for field, after in zip((_OUTPUT, _ERRORS), looks.ids_after, strict=True):
            if field in ids and age >= after:
                shown[field] = ids[field]
        return shown

    def _shown_file(self, route: Route, request: web.BaseRequest, reply: Reply, now: float) -> Reply:
        """Return a file of results as it is shown: its metadata, or its content."""
        made, field, version = self._result_of[route.id]
        looks, age = made.looks, now - made.ended_at()
        current = self.version(made, now)
        if route.id in current.ids.values():
            version = current
        absent = looks.no_content if route.operation == "content" else looks.no_metadata
        if absent is not None and field in looks.affected and within(age, absent):
            return self._gateway._refused(route, 404, f"File {route.id} not found")
        self.reads[made.job.id].append(now)
        content = version.files[field]
        if age < looks.grows_for:
            content = _cut(content, age / looks.grows_for, within_line=looks.within_line)
        if route.operation == "file":
            metadata = msgspec.json.decode(_whole(reply)) | {"bytes": len(content)}
            if isinstance(looks.size, int):
                metadata["bytes"] = max(0, looks.size if looks.size >= 0 else len(content) + looks.size)
            if looks.size == "absent":
                del metadata["bytes"]
            return json_reply(metadata)
        if self._downloads[route.id] < looks.short and not self._at_peace:
            self._downloads[route.id] += 1
            content = _cut(content, looks.share, within_line=looks.within_line)
        file = self._books._files.get(route.id)
        return self._gateway._download(_as_it_is(file, content), request, "text/plain; charset=utf-8")

    def _answer_create(self, route: Route, request: web.BaseRequest, body: bytes, checksum: str | None) -> Reply:
        self._creates += 1
        odd = None if self._at_peace else self._troubles.odd_create(self._creates)
        if odd is None:
            return self._really_answer(route, request, body, checksum)
        job: dict[str, Any] = {}
        if odd.made and odd.later:
            self._later(odd.later, self._create_by, self._by, msgspec.json.decode(body))
        elif odd.made:
            reply = self._really_answer(route, request, body, checksum)
            if reply.status != 201:
                return reply
            job = msgspec.json.decode(_whole(reply))["job"]
        where = f"/v1/batches/{job.get('id', '')}".rstrip("/")
        headers = {"Location": where} if odd.location else {}
        return Reply(odd.status, _create_body(odd.body, job), headers=headers)

    def _create_by(self, by: str, wanted: Mapping[str, object]) -> None:
        self._by = by
        self._books.create(wanted)

    def _be_found_by_others(self, file_id: str) -> None:
        """Let another user of the same account create a job of this file, or of a copy of it."""
        self._stored += 1
        foreign = None if self._at_peace else self._troubles.foreign(self._stored)
        if foreign is None:
            return

        def create(file_id: str) -> None:
            file = self._books._files.find(file_id)
            if is_copy and file is not None:
                content = file.content.read()
                file_id = self._books._files.add(content, filename="copy.jsonl", purpose="a copy").id
            self._create_by(
                COPIES if is_copy else FOREIGN, {"input_file_id": file_id, "endpoint": "/v1/chat/completions"}
            )

        after, is_copy = foreign
        self._later(after, create, file_id)


def _version(since: float, ids: Mapping[str, str], files: Mapping[str, bytes]) -> Version:
    answered, failed = set[str](), dict[str, str]()
    for line in _lines(files[_ERRORS]):
        row = msgspec.json.decode(line)
        failed[row["custom_id"]] = row["error"]["code"]
    for line in _lines(files[_OUTPUT]):
        row = msgspec.json.decode(line)
        status = row["response"]["status_code"]
        if 200 <= status < 300:
            answered.add(row["custom_id"])
        else:
            failed[row["custom_id"]] = str(status)
    for custom_id in answered & failed.keys():  # an answer beats an error
        del failed[custom_id]
    return Version(since, {field: ids[field] for field in ids}, files, frozenset(answered), failed)


def _as_error(line: bytes) -> bytes:
    row = msgspec.json.decode(line)
    error = {"id": row["id"], "custom_id": row["custom_id"], "error": _LATE_ERROR}
    return msgspec.json.encode(error) + b"\n"


def _lines(content: bytes) -> Sequence[bytes]:
    return content.splitlines(keepends=True)


def _cut(content: bytes, share: float, *, within_line: bool) -> bytes:
    size = int(len(content) * share)
    return content[:size] if within_line else content[: content.rfind(b"\n", 0, size) + 1]


def _whole(reply: Reply) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else reply.body.read()


def _as_it_is(file: StoredFile, content: bytes) -> StoredFile:
    """Return the file with this content, and an ETag of its own."""
    return attrs.evolve(file, id=f"{file.id}-{crc32(content):08x}", make=lambda: content_of(content))


def _create_body(named: str | bytes, job: dict[str, Any]) -> bytes:
    match named:
        case bytes():
            return named
        case "bare":
            return msgspec.json.encode(job)
        case "other file":
            return msgspec.json.encode({"job": job | {"input_file_id": "file-of-somebody-else"}})
        case "number":
            return msgspec.json.encode({"job": job | {"created_at": 1_700_000_000}})
        case _:
            return msgspec.json.encode({"job": None, "warning": "the job was not created"})
