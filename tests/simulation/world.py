"""One simulation: the service, the process that is started until it comes to an end, and what there is to judge."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import re
import tempfile
import warnings
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from together_batches import AsyncBatches, RetryPolicy
from together_batches._creating import KnownJobs
from together_batches._transport import Connection, Transport
from together_batches.config import Config
from together_batches.emulator import Emulator
from together_batches.emulator._jobs import Job

from .disk import Disk, made_up
from .machine import Killed, Loop, NoEndError, Process
from .network import Network

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from .plan import Death, Plan

    Program = Callable[[AsyncBatches, Path, Plan], Awaitable[Any]]
    """What the process does, given a client and its directory: whenever it is started, the same."""

Results = tuple[set[str], dict[str, str]]

_DAYS = 60
_STARTS_BEFORE_PEACE = 25
_MOST_STARTS = 40
"""After so many starts nothing goes wrong any more; and with so many it must have come to its end."""
_BY_CHANCE = re.compile(r"[0-9a-f]{16,}")
"""What names of temporary files have in them, which no seed decides."""
KEY = "key-of-the-simulation"


@attrs.frozen
class Made:
    """A job that the service created: which one, with which rows, when."""

    number: int
    job: Job
    ids: tuple[str, ...]
    at: float


@attrs.define
class Start:
    """How one start of the process ended: killed where there is neither a result nor an error."""

    process: Process
    death: Death | None = None
    result: Any = None
    error: BaseException | None = None

    @property
    def killed(self) -> bool:
        """Whether it was."""
        return self.process.killed

    @property
    def is_the_end(self) -> bool:
        """Whether it need not be started again."""
        return not self.killed and self.error is None and getattr(self.result, "complete", True)

    @property
    def kind(self) -> str:
        """In which way it ended."""
        return "killed" if self.killed else type(self.result if self.error is None else self.error).__name__

    def __str__(self) -> str:
        if self.killed:
            return f"killed after {self.process.steps} steps"
        return f"{type(self.error).__name__}: {self.error}" if self.error else f"ended: {self.result}"


class World:
    """All that a simulation is made of. When it is over, ``starts`` and ``made`` are there to be judged.

    ``tell`` takes each line of the trace.
    """

    def __init__(self, plan: Plan, program: Program, tell: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.program = program
        self.tell = tell
        self.starts: list[Start] = []
        self.seconds: list[Start] = []  # those of a second process, beside the first
        self.made: list[Made] = []
        self.gone: dict[str, float] = {}  # jobs that were deleted, or their results, and when
        self._kept: dict[str, Results] = {}
        self.seen: list[
            tuple[str, str, bytes]
        ] = []  # files that were there at an end: at whose, the name, the content
        self.lived = 0.0  # seconds, by its own clock
        self.random = Random(f"world {plan.seed}")
        self.loop = Loop()
        self.loop.set_exception_handler(_without_the_killed)
        self.network = Network(self.loop, Random(f"network {plan.seed}"))
        self._digest = hashlib.sha256()
        fates = {row.custom_id: row.fate for row in plan.rows}
        self.emulator = Emulator(
            api_key=KEY,
            seed=plan.seed,
            clock=self.loop.unix_time,
            faults=plan.faults,
            rate_limit=plan.rate_limit,
            fail_rows=plan.fail_rows,
            missing_rows=plan.missing_rows,
            answer=lambda row: fates[str(row["custom_id"])],
        )
        self.service = self.emulator._service
        self.disk: Disk

    @property
    def fingerprint(self) -> str:
        """The same for two simulations in which the same was done at the same time."""
        return self._digest.hexdigest()

    def play(self, judge: Callable[[World], None]) -> None:
        """Go through with it, and have it judged before the dead are let go."""
        there = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a file is synced a dozen times in each
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="together-batches-", dir=there))
            self.disk = Disk(Path(directory, "machine"))
            self.disk.root.mkdir()
            (self.disk.root / "input.jsonl").write_bytes(self.plan.input)
            self.disk.full_at, self.disk.full_for = self.plan.full_at, self.plan.full_for
            stack.enter_context(made_up(self.disk, self.loop, self.random))
            runner = stack.enter_context(asyncio.Runner(loop_factory=lambda: self.loop))
            stack.callback(self._let_go, runner)
            runner.run(self._play())
            judge(self)

    # --- the service ---

    async def _play(self) -> None:
        began = self.loop.time()
        self.loop.end_after(_DAYS * 86_400)
        self._let_jobs_live()
        service = Process("service")
        await self.loop.create_task(self.emulator.start(), context=service.context())
        self.network.slow_chance, self.network.reset_chance = self.plan.slow_chance, self.plan.reset_chance
        while True:
            if len(self.starts) == _STARTS_BEFORE_PEACE:
                self._make_peace()
            if len(self.starts) == _MOST_STARTS:
                raise NoEndError(f"no end after {len(self.starts)} starts; the last one: {self.starts[-1]}")
            start = await self._start()
            if start.is_the_end:
                break
            await asyncio.sleep(self.random.choice((0.1, 5, 2_000)))
        self.lived = self.loop.time() - began

    def _let_jobs_live(self) -> None:
        """Have each job that is created live as the plan says."""
        really_create = self.service.create

        def create(wanted: Mapping[str, object]) -> dict[str, object]:
            number = len(self.made) + 1
            life = self.plan.life(number)
            self.service.timing, self.service._ends_as = life.timing, life.ends_as
            answer = really_create(wanted)
            job_id = str(answer["job"]["id"])  # type: ignore[index]
            job = self.service._jobs[job_id]
            if life.percent is not None:
                job.extra_fields = {"progress": life.percent}
            if life.deleted_after is not None:
                self.loop.call_later(life.deleted_after, self._delete, job_id)
            if life.file_deleted_after is not None:
                self.loop.call_later(life.file_deleted_after, self._delete_results, job)
            content = b"" if job.input is None else job.input.read()
            ids = tuple(str(msgspec.json.decode(line)["custom_id"]) for line in content.split(b"\n") if line.strip())
            self.made.append(Made(number, job, ids, self.loop.unix_time()))
            return answer

        self.service.create = create  # type: ignore[method-assign]

    def _make_peace(self) -> None:
        self.emulator.heal()
        self.emulator.rate_limit = None
        self.network.slow_chance = self.network.reset_chance = 0.0
        self.disk.full_at = None

    def _delete(self, job_id: str) -> None:
        self.gone[job_id] = self.loop.unix_time()
        self.service._jobs.pop(job_id)
        self.service._with_rows.pop(job_id, None)

    def _delete_results(self, job: Job) -> None:
        files = self.service.files  # looking at them settles what has ended
        if job.results:
            self.gone[job.id] = self.loop.unix_time()
            self._kept[job.id] = self._results(job)
            for file_id in job.results.values():
                files.delete(file_id)

    def results(self, made: Made) -> Results:
        """Which rows the job answered, and with which codes the others failed; of a job that is gone, too."""
        return self._kept.get(made.job.id) or self._results(made.job)

    def _results(self, job: Job) -> Results:
        """By what is in its files now."""
        rows = {
            field: [msgspec.json.decode(line) for line in self.emulator.content(file_id).split(b"\n")[:-1]]
            for field, file_id in job.results.items()
        }
        answered = {row["custom_id"] for row in rows.get("output_file_id", ())}
        return answered, {row["custom_id"]: row["error"]["code"] for row in rows.get("error_file_id", ())}

    # --- the process ---

    async def _start(self) -> Start:
        """Start the process once, and return when it has ended in whichever way."""
        number = len(self.starts)
        deaths, clocks = self.plan.deaths, self.plan.clocks
        start = Start(Process(f"start {number + 1}"), deaths[number] if number < len(deaths) else None)
        self.starts.append(start)
        wrong = clocks[number] if number < len(clocks) else 0.0
        left: list[Path] = []
        over = asyncio.Event()

        def died() -> None:
            left.append(self.disk.copy())
            self.network.cut(start.process)
            self.loop.call_soon(over.set, context=context)

        context = Process.nobody()
        start.process.on_death = died
        task = self._begin(start, wrong)
        task.add_done_callback(lambda _: over.set(), context=context)
        second = None if self.plan.second_after is None else asyncio.create_task(self._second(over, wrong))
        await over.wait()
        if second is not None:
            await second
        if left:
            self.disk.restore(left[0])
        for path in sorted(self.disk.root.glob("answers*.jsonl")):
            self.seen.append((start.process.name, path.name, path.read_bytes()))
        self._note(f"--- {start.process.name} {start.kind}", more=str(start))
        return start

    def _begin(self, start: Start, wrong: float) -> asyncio.Task[None]:
        start.process.on_step = self._step
        if start.death is not None and not start.death.after:
            start.process.dies_at = start.death.steps

        async def live() -> None:
            try:
                async with self._client(wrong) as client:
                    start.result = await self.program(client, self.disk.root, self.plan)
            except Exception as error:  # noqa: BLE001  # which of them may be, is judged
                start.error = error

        return self.loop.create_task(live(), context=start.process.context())

    async def _second(self, over: asyncio.Event, wrong: float) -> None:
        """Start another process beside the first, and wait for its end."""
        await asyncio.wait([asyncio.create_task(over.wait())], timeout=self.plan.second_after)
        if over.is_set():
            return
        start = Start(Process(f"second beside start {len(self.starts)}"))
        self.seconds.append(start)
        await asyncio.wait([self._begin(start, wrong)])
        self._note(f"--- {start.process.name} {start.kind}", more=str(start))

    def _client(self, wrong: float) -> AsyncBatches:
        """A client whose clock, chance and time of day are those of this world."""

        def now() -> datetime:
            return datetime.fromtimestamp(self.loop.unix_time(), UTC) + timedelta(seconds=wrong)

        policy = RetryPolicy(max_attempts=3)
        config = Config.from_env({}, api_key=KEY, base_url=self.emulator.base_url, retry=policy)
        connection = Connection(
            None,
            max_concurrency=config.max_concurrency,
            clock=self.loop.time,
            chance=self.random.random,
            now=now,
        )
        client = object.__new__(AsyncBatches)
        client._set_up(Transport(config, connection), KnownJobs(), owner=True)
        return client

    def _step(self, process: Process, what: str) -> None:
        death = self.starts[-1].death
        if death is not None and death.after and death.after in what and process.dies_at is None:
            process.dies_at = process.steps + death.steps
            if not death.steps:
                self.loop.call_soon(process.kill, context=Process.nobody())
        self._note(f"{process.name} #{process.steps}: {_BY_CHANCE.sub('*', what)}")

    def _note(self, line: str, *, more: str = "") -> None:
        """Tell a line of the trace; what is told ``more`` may be another when it is played again."""
        line = f"{self.loop.time() - 1_000:12.3f}  {line}"
        self._digest.update(line.encode())
        if self.tell is not None:
            self.tell(f"{line}: {more}" if more else line)

    def _let_go(self, runner: asyncio.Runner) -> None:
        """It has been judged: the dead may clean up, and everybody goes home."""

        async def go() -> None:
            self.loop.end_after(86_400)
            self._make_peace()
            processes = [start.process for start in (*self.starts, *self.seconds)]
            for process in processes:
                self.network.bury(process)
                process.let_go(self.loop)
            tasks = [task for process in processes for task in process.tasks]
            if tasks:
                await asyncio.wait(tasks)
            await self.emulator.close()
            for process in processes:
                process.forget()

        runner.run(go())


@contextmanager
def quiet() -> Iterator[None]:
    """For whoever plays a world: what the killed leave open, and what HTTP says of broken connections, is no news."""
    aiohttp = logging.getLogger("aiohttp.server")
    level = aiohttp.level
    aiohttp.setLevel(logging.CRITICAL)
    gc.freeze()  # so that only what is made from now on is gone through
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                yield
            finally:
                gc.collect()
    finally:
        gc.unfreeze()
        aiohttp.setLevel(level)


def _without_the_killed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(context)
