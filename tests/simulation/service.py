"""The service of a simulation: its true state, by which it is judged, and what it shows of that state.

The state is in the emulator, with jobs that live as planned. The service shows the emulator's responses, altered by
the troubles of the seed for as long as they last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from together_batches.emulator import Answer, Emulator, Failure, Missing, Reply, Timing
from together_batches.emulator._jobs import ENDED, Job, Phase, timestamp

from .machine import Process
from .plan import Life
from .troubles import Looks, within

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from together_batches.emulator import RecordedRequest

    from .machine import Loop
    from .plan import Plan

KEY = "key-of-the-simulation"
RUN_HEADER = "X-Simulated-Run"
"""Name of the header that identifies the run of a request, because all are of one account."""
FOREIGN = "somebody else"
COPIES = "somebody else, with a copy"
"""Creator of a job that no run posted, of a run's own file, which is then as good as the run's job, or of a copy."""

_CHAT = "/v1/chat/completions"
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
    """A created job: what becomes of it, its rows, its time and its run."""

    number: int
    job: Job
    ids: tuple[str, ...]
    at: float
    by: str
    looks: Looks

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
        self._fates = {row.custom_id: row.fate for row in plan.rows}
        self.emulator = Emulator(
            api_key=KEY,
            seed=plan.seed,
            clock=loop.unix_time,
            faults=plan.faults,
            rate_limit=plan.rate_limit,
            fail_rows=plan.fail_rows,
            missing_rows=plan.missing_rows,
            respond=self._respond,
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
        self._running: list[Made] = []
        self._deleted: set[str] = set()
        self._stored_at: dict[str, float] = {}
        self._downloads: defaultdict[str, int] = defaultdict(int)

    def make_peace(self) -> None:
        """Stop all troubles from now on; existing jobs keep their results."""
        self._at_peace = True
        self.emulator.clear_faults()
        self.emulator.rate_limit = None

    # --- what it holds --------------------------------------------------------------------------------------------

    def _create(self, create: Callable[[], str | None]) -> None:
        """Let the job that is created live as planned."""
        number, now = len(self.made) + 1, self._loop.unix_time()
        life = self._life(number, now - self.began)
        self.emulator.timing, self.emulator.ends_as = life.timing, life.ends_as
        self.emulator.answer = self._answers(number, now)
        job_id = create()
        if job_id is None:
            return
        fields = {} if life.percent is None else {"progress": life.percent}
        self.emulator.change_job(job_id, **fields)
        if life.deleted_after is not None:
            self._later(life.deleted_after, self._delete, job_id)
        input_file_id = str(self.emulator.job(job_id)["input_file_id"])
        lines = _lines(self._content(input_file_id) or b"")
        made = Made(
            number=number,
            job=Job(
                id=job_id,
                created_at=now,
                input_file_id=input_file_id,
                endpoint=_CHAT,
                phases=self._phases(job_id),
                running=life.timing.running,
                extra_fields=fields,
            ),
            ids=tuple(str(msgspec.json.decode(line)["custom_id"]) for line in lines if line.strip()),
            at=now,
            by=self._by,
            looks=Looks() if self._at_peace else self._troubles.looks(number),
        )
        if life.file_deleted_after is not None:
            self._later(life.file_deleted_after, self._delete_results, made)
        self.made.append(made)
        self._running.append(made)
        self._by_id[job_id] = made

    def _answers(
        self, number: int, now: float
    ) -> Callable[[Mapping[str, object]], Answer | Failure | Missing | None]:
        """Return how the rows of a job are answered: by their fates, or refused for the account, if so planned."""
        refusal = None if self._at_peace else self._troubles.refused(now - self.began)

        def answer(row: Mapping[str, object]) -> Answer | Failure | Missing | None:
            custom_id = str(row["custom_id"])
            chance = Random(f"{self._plan.seed} refused row {custom_id} of job {number}")
            is_refused = refusal is not None and chance.random() < _REFUSED_SHARE
            return refusal if is_refused else self._fates[custom_id]

        return answer

    def _phases(self, job_id: str) -> tuple[Phase, ...]:
        return tuple(Phase(begins, status) for begins, status in self.emulator.phases(job_id))

    def _content(self, file_id: str) -> bytes | None:
        try:
            return self.emulator.content(file_id)
        except KeyError:
            return None

    def _life(self, number: int, at: float) -> Life:
        if not self._at_peace and self._troubles.fails_at_once(at):
            return Life(Timing(validating=Random(f"{self._plan.seed} failing {number}").uniform(0, 3)), "FAILED", 0)
        plan = attrs.evolve(self._plan, calm=True) if self._at_peace else self._plan
        return plan.life(number)

    def _later(self, seconds: float, act: Callable[..., object], *what: object) -> None:
        self._loop.call_later(seconds, act, *what, context=Process.no_process())

    def _delete(self, job_id: str) -> None:
        self._note_ended()
        self.gone[job_id] = self._loop.unix_time()
        self._deleted.add(job_id)
        self.emulator.delete_job(job_id)
        self._running = [made for made in self._running if made.job.id != job_id]

    def _delete_results(self, made: Made) -> None:
        self._note_ended()
        ids = {file_id for version in self._versions.get(made.job.id, ()) for file_id in version.ids.values()}
        if ids:
            self.gone[made.job.id] = self._loop.unix_time()
        for file_id in sorted(ids):
            self.emulator.delete_file(file_id)

    def _note_ended(self) -> None:
        """Fix the files of the jobs that have ended by now."""
        now = self._loop.unix_time()
        ended = [made for made in self._running if made.job.phase(now).status in ENDED]
        if ended:
            self._running = [made for made in self._running if made not in ended]
        for made in ended:
            shown = self.emulator.job(made.job.id)
            files = {field: str(shown[field]) for field in (_OUTPUT, _ERRORS) if field in shown}
            if files:
                self._note_versions(made, files, made.job.phase(now).begins)

    def _note_versions(self, made: Made, files: Mapping[str, str], ended_at: float) -> None:
        looks = made.looks
        final = {field: self.emulator.content(file_id) for field, file_id in files.items()}
        ids = dict(files)
        output, errors = final.get(_OUTPUT, b""), final.get(_ERRORS, b"")
        random = Random(f"{self._plan.seed} answers of job {made.number}")
        if looks.errors_stay:
            errors += b"".join(_as_error(line) for line in _lines(output) if random.random() < looks.errors_stay)
        early = [line for line in _lines(output) if looks.answers_after and random.random() < _EARLY_SHARE]
        if (errors or early) and _ERRORS not in ids:
            ids[_ERRORS] = self._new_file()
        versions = [_version(ended_at, ids, {_OUTPUT: output, _ERRORS: errors})]
        if early:
            kept = b"".join(line for line in _lines(output) if line not in set(early))
            before = {_OUTPUT: kept, _ERRORS: errors + b"".join(map(_as_error, early))}
            early_ids = {field: self._new_file() for field in ids} if looks.new_ids else ids
            versions = [
                _version(ended_at, early_ids, before),
                attrs.evolve(versions[0], since=ended_at + looks.answers_after),
            ]
        self._versions[made.job.id] = tuple(versions)
        for version in versions:
            for field, file_id in version.ids.items():
                self._result_of.setdefault(file_id, (made, field, version))

    def _new_file(self) -> str:
        return self.emulator.add_file(filename="results.jsonl", purpose="batch-generated")

    # --- the facts to judge by --------------------------------------------------------------------------------------

    def version(self, made: Made, at: float) -> Version:
        """Return the files of a job at that moment, visible or not."""
        self._note_ended()
        found = _NO_VERSION
        for version in self._versions.get(made.job.id, ()):
            if version.since <= at:
                found = version
        return found

    def stored_at(self, made: Made) -> float:
        """Return when the input of a job was stored."""
        return self._stored_at.get(made.job.input_file_id, made.at)

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
        is_deleted = made.job.id in self._deleted and self.gone[made.job.id] <= at
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

    def _respond(self, request: RecordedRequest, usual: Callable[[], Reply]) -> Reply:
        try:
            return self._shown_reply(request, usual)
        except Exception as error:  # a bug in this simulation, which would look like a failing service
            self.mistakes.append(error)
            raise

    def _shown_reply(self, request: RecordedRequest, usual: Callable[[], Reply]) -> Reply:
        now, self._by = self._loop.unix_time(), request.headers.get(RUN_HEADER, FOREIGN)
        self._note_ended()
        away = None if self._at_peace else self._away(now)
        if away == "error":
            return _refusal(503, "no server is available")
        if request.operation == "create" and away is None:
            return self._shown_create(request, usual)
        about = _id_in(request.path)
        if request.operation in {"file", "content"} and about in self._result_of:
            return self._shown_file(request.operation, about, usual, now)
        reply = self._planned(usual) if request.operation == "create" else usual()
        if away == "jobs" and request.operation in {"create", "retrieve", "list", "cancel"}:
            return _refusal(503, "no server is available")
        if reply.status >= 300:
            return reply
        match request.operation:
            case "cancel":
                self._by_id[about].job.phases = self._phases(about)
            case "retrieve":
                return self._shown_job(about, reply, now)
            case "list":
                jobs: list[dict[str, Any]] = msgspec.json.decode(reply.read()) or []
                seen = [self._shown(job, now) for job in jobs if self._is_listed(self._by_id[job["id"]], now)]
                return _json(seen or None)
            case "store":
                self._stored_at.setdefault(about, now)
                self._be_found_by_others(about)
        return reply

    def _away(self, now: float) -> str | None:
        return next((away.how for away in self._troubles.away if within(now - self.began, away.span)), None)

    def _shown_job(self, job_id: str, reply: Reply, now: float) -> Reply:
        made = self._by_id[job_id]
        if made.looks.unknown is not None and within(now - made.at, made.looks.unknown):
            return _refusal(404, "Job not found")
        self.reads[job_id].append(now)
        return _json(self._shown(msgspec.json.decode(reply.read()), now))

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

    def _shown_file(self, operation: str, file_id: str, usual: Callable[[], Reply], now: float) -> Reply:
        """Return a file of results as it is shown: its metadata, or its content."""
        made, field, version = self._result_of[file_id]
        looks, age = made.looks, now - made.ended_at()
        current = self.version(made, now)
        if file_id in current.ids.values():
            version = current
        content = version.files[field]
        if age < looks.grows_for:
            content = _cut(content, age / looks.grows_for, within_line=looks.within_line)
        is_short = operation == "content" and self._downloads[file_id] < looks.short and not self._at_peace
        if is_short:
            content = _cut(content, looks.share, within_line=looks.within_line)
        known = self._content(file_id)
        if known is not None and known != content:
            self.emulator.change_file(file_id, content)
        reply = usual()
        if reply.status >= 300:
            return reply
        absent = looks.no_content if operation == "content" else looks.no_metadata
        if absent is not None and field in looks.affected and within(age, absent):
            return _refusal(404, f"File {file_id} not found")
        self.reads[made.job.id].append(now)
        self._downloads[file_id] += is_short
        if operation == "content":
            return reply
        metadata = msgspec.json.decode(reply.read())
        if isinstance(looks.size, int):
            metadata["bytes"] = max(0, looks.size if looks.size >= 0 else len(content) + looks.size)
        if looks.size == "absent":
            del metadata["bytes"]
        return _json(metadata)

    def _shown_create(self, request: RecordedRequest, usual: Callable[[], Reply]) -> Reply:
        self._creates += 1
        odd = None if self._at_peace else self._troubles.odd_create(self._creates)
        job: dict[str, Any] = {}
        if odd is None or (odd.made and not odd.later):
            reply = self._planned(usual)
            if odd is None or reply.status != 201:
                return reply
            job = msgspec.json.decode(reply.read())["job"]
        elif odd.made:
            self._later(odd.later, self._create_by, self._by, msgspec.json.decode(request.body))
        where = f"/v1/batches/{job.get('id', '')}".rstrip("/")
        headers = {"Location": where} if odd.location else {}
        return Reply(odd.status, _create_body(odd.body, job), headers=headers)

    def _planned(self, usual: Callable[[], Reply]) -> Reply:
        """Carry a create out; its job lives as planned."""
        replies: list[Reply] = []

        def create() -> str | None:
            replies.append(usual())
            return msgspec.json.decode(replies[0].read())["job"]["id"] if replies[0].status == 201 else None

        self._create(create)
        return replies[0]

    def _create_by(self, by: str, wanted: dict[str, Any]) -> None:
        self._by = by
        self._create(lambda: self.emulator.create_job(**wanted))

    def _be_found_by_others(self, file_id: str) -> None:
        """Let another user of the same account create a job of this file, or of a copy of it."""
        self._stored += 1
        foreign = None if self._at_peace else self._troubles.foreign(self._stored)
        if foreign is None:
            return

        def create(file_id: str) -> None:
            content = self._content(file_id)
            if is_copy and content is not None:
                file_id = self.emulator.add_file(content, filename="copy.jsonl", purpose="a copy")
            self._create_by(COPIES if is_copy else FOREIGN, {"input_file_id": file_id, "endpoint": _CHAT})

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


def _json(value: object, status: int = 200) -> Reply:
    return Reply(status, msgspec.json.encode(value))


def _refusal(status: int, message: str) -> Reply:
    return _json({"error": message}, status)


def _id_in(path: str) -> str:
    """Return the id of a job or file in a path, if it has one."""
    parts = path.partition("?")[0].split("/")
    return parts[-2] if parts[-1] in {"cancel", "content", "preprocess"} else parts[-1]


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
