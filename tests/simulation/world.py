"""One simulation: the service, the process that is restarted until the run ends, and the facts to judge."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import re
import tempfile
import warnings
from collections import Counter
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import attrs

from together_batches import AsyncBatches, CreateUnconfirmedError, ResultsUnavailableError, RetryPolicy
from together_batches._http.client_state import ClientState
from together_batches._http.transport import Transport
from together_batches.config import Config

from .disk import Disk, made_up
from .machine import Killed, Loop, NoEndError, Process
from .network import Network
from .service import KEY, RUN_HEADER, Service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from .plan import Death, Plan
    from .service import Made

    Program = Callable[[AsyncBatches, Path, Plan], Awaitable[Any]]
    """What the process does, given a client and its directory: whenever it is started, the same."""

_DAYS = 60
_STARTS_BEFORE_PEACE = 25
_MOST_STARTS = 40
"""Number of starts after which nothing fails any more, and the run must have ended."""
_CALLS_BEFORE_GIVING_UP = 2
"""Number of errors that name something as absent before the user gives it up."""
_COPY_CHANCE = 0.3
_BY_CHANCE = re.compile(r"[0-9a-f]{16,}")
"""Random parts of the names of temporary files, which no seed decides."""
_GIVE_UP = re.compile(r"with give_up: ([\w-]+(?:, [\w-]+)*)")
"""The part of an error that says what its user may give up."""
_PATIENCE_SECONDS = 20_000.0
"""Seconds that a user waits for a service that does not come back."""
_MOST_INTERRUPTIONS = 2
"""Maximum number of such waits, after which the service comes back."""


@attrs.define
class Start:
    """The end of one start of the process: killed if there is neither a result nor an error."""

    process: Process
    death: Death | None = None
    result: Any = None
    error: BaseException | None = None
    began: float = 0.0
    ended: float = 0.0
    is_interrupted: bool = False
    is_cut: bool = False
    """Whether it finds a ledger that has been cut."""

    @property
    def killed(self) -> bool:
        """Return whether the process was killed."""
        return self.process.killed

    @property
    def is_the_end(self) -> bool:
        """Return whether no further start is needed."""
        is_over = not self.killed and not self.is_interrupted
        return is_over and self.error is None and getattr(self.result, "complete", True)

    @property
    def kind(self) -> str:
        """Return how the process ended."""
        if self.is_interrupted and self.error is None and self.result is None:
            return "interrupted"
        return "killed" if self.killed else type(self.result if self.error is None else self.error).__name__

    def __str__(self) -> str:
        if self.killed or self.kind == "interrupted":
            return f"{self.kind} after {self.process.steps} steps"
        return f"{type(self.error).__name__}: {self.error}" if self.error else f"ended: {self.result}"


@attrs.define
class Run:
    """A run in its directory, with all its starts, and its user, who calls again and gives up what is gone."""

    name: str
    root: Path
    starts: list[Start] = attrs.field(factory=list[Start])
    gave_up: list[tuple[str, float]] = attrs.field(factory=list[tuple[str, float]])
    giving_up: tuple[str, ...] = ()
    _named: Counter[str] = attrs.field(factory=Counter[str])

    def see(self, start: Start) -> None:
        """Note the end of a call: what it names as absent for the second time, the next one gives up."""
        if start.killed or start.is_interrupted:
            return  # its user does not know how far it came, and calls again as before
        self.giving_up = ()
        named = _named_as_absent(start.error)
        self._named.update(named)
        if named and all(self._named[each] >= _CALLS_BEFORE_GIVING_UP for each in named):
            self.giving_up = tuple(sorted(named))
            self._named.clear()

    def given_up_at(self, *ids: str) -> float:
        """Return when one of these was first given up; infinite if none was."""
        return min((at for given, at in self.gave_up if given in ids), default=float("inf"))


def _named_as_absent(error: BaseException | None) -> set[str]:
    """Return the jobs, and the files of creates, that an error names as unavailable."""
    if not isinstance(error, ResultsUnavailableError | CreateUnconfirmedError):
        return set()
    named = _GIVE_UP.search(str(error))
    return set(re.findall(r"[\w-]+", named[1])) if named else set()


class World:
    """All parts of a simulation. After it has ended, ``runs`` and ``made`` are judged.

    ``tell`` is called with each line of the trace.
    """

    def __init__(self, plan: Plan, program: Program, tell: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.program = program
        self.tell = tell
        self.seconds: list[Start] = []  # those of a second process, beside the first
        self.seen: list[tuple[str, str, bytes]] = []  # files present at an end: whose end, the name, the content
        self.lived = 0.0  # seconds, by its own clock
        self.random = Random(f"world {plan.seed}")
        self.loop = Loop()
        self.loop.set_exception_handler(_without_the_killed)
        self.network = Network(self.loop, Random(f"network {plan.seed}"))
        self.service = Service(plan, self.loop)
        self.runs: list[Run] = []
        self.disk: Disk
        self._stopped_by: BaseException | None = None  # no end of a process: a test that takes too long, or Ctrl-C
        self._digest = hashlib.sha256()
        self._at_peace = False
        self._copies: list[dict[str, bytes]] = []
        self._chance_of_copies = Random(f"copies {plan.seed}")

    @property
    def fingerprint(self) -> str:
        """Return a value that is equal for two simulations with the same actions at the same times."""
        return self._digest.hexdigest()

    @property
    def starts(self) -> list[Start]:
        """Return the starts of the first run."""
        return self.runs[0].starts

    @property
    def made(self) -> list[Made]:
        """Return the jobs that were created."""
        return self.service.made

    def play(self, judge: Callable[[World], None]) -> None:
        """Play the simulation, and have it judged before the dead processes are released."""
        parent = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a file is synced a dozen times in each
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="together-batches-", dir=parent))
            self.disk = Disk(Path(directory, "machine"))
            self.runs.append(Run("the run", self.disk.root))
            if self.plan.troubles.another_run is not None:
                self.runs.append(Run("another run", Path(directory, "another machine")))
            for run in self.runs:
                run.root.mkdir()
                (run.root / "input.jsonl").write_bytes(self.plan.input)
            self.disk.full_at, self.disk.full_for = self.plan.full_at, self.plan.full_for
            stack.enter_context(made_up(self.disk, self.loop, self.random))
            runner = stack.enter_context(asyncio.Runner(loop_factory=lambda: self.loop))
            stack.callback(self._let_go, runner)
            runner.run(self._play())
            if self._stopped_by is not None:
                raise self._stopped_by
            judge(self)

    async def _play(self) -> None:
        began = self.loop.time()
        self.loop.end_after(_DAYS * 86_400)
        process = Process("service")
        await self.loop.create_task(self.service.emulator.start(), context=process.context())
        self.network.slow_chance, self.network.reset_chance = self.plan.slow_chance, self.plan.reset_chance
        for away in self.plan.troubles.away:
            if away.how == "refused":
                for moment, act in zip(away.span, (self._go_away, self._come_back), strict=True):
                    if moment < float("inf"):
                        self.loop.call_later(moment, act, context=Process.no_process())
        beside = self.plan.troubles.another_run
        others = [
            asyncio.create_task(self._to_the_end(run, after=beside))
            for run in self.runs[1:]
            if beside is not None and beside < float("inf")
        ]
        await self._to_the_end(self.runs[0])
        if others:
            await asyncio.gather(*others)
        else:
            for run in self.runs[1:]:
                await self._to_the_end(run)
        self.lived = self.loop.time() - began

    async def _to_the_end(self, run: Run, *, after: float = 0.0) -> None:
        """Start the process until no further start is needed."""
        await asyncio.sleep(after)
        while True:
            if len(run.starts) == _STARTS_BEFORE_PEACE:
                self._make_peace()
            if len(run.starts) == _MOST_STARTS:
                raise NoEndError(f"no end after {len(run.starts)} starts; the last one: {run.starts[-1]}")
            start = await self._start(run)
            run.see(start)
            if start.is_the_end:
                return
            await asyncio.sleep(self.random.choice((0.1, 5, 2_000)))

    def _make_peace(self) -> None:
        self._at_peace = True
        self.service.make_peace()
        self.network.slow_chance = self.network.reset_chance = 0.0
        self.network.is_away = False
        self.disk.full_at = None

    def _go_away(self) -> None:
        if not self._at_peace:
            self.network.go_away()

    def _come_back(self) -> None:
        self.network.is_away = False

    # --- the process ---

    async def _start(self, run: Run) -> Start:
        """Start the process once, and return when it has ended, in any way."""
        number, is_first = len(run.starts), run is self.runs[0]
        deaths, clocks = (self.plan.deaths, self.plan.clocks) if is_first else ((), ())
        name = f"start {number + 1}" if is_first else f"{run.name}, start {number + 1}"
        start = Start(Process(name), deaths[number] if number < len(deaths) else None)
        run.starts.append(start)
        run.gave_up += [(given, self.loop.unix_time()) for given in run.giving_up]
        wrong = clocks[number] if number < len(clocks) else 0.0
        right = self._lose(number, start) if is_first else None
        left: list[Path] = []
        over = asyncio.Event()

        def died() -> None:
            left.append(self.disk.copy())
            self.network.cut(start.process)
            self.loop.call_soon(over.set, context=context)

        context = Process.no_process()
        start.process.on_death = died
        task = self._begin(run, start, wrong)
        task.add_done_callback(lambda _: over.set(), context=context)
        beside = self.plan.second_after if is_first else None
        second = None if beside is None else asyncio.create_task(self._second(over, wrong, beside))
        is_endless = any(away.span[1] == float("inf") for away in self.plan.troubles.away)
        patience = _PATIENCE_SECONDS if is_endless and not self._at_peace else None
        await asyncio.wait([asyncio.create_task(over.wait())], timeout=patience)
        if not over.is_set():
            start.is_interrupted = True
            task.cancel()
            await over.wait()
            if sum(each.is_interrupted for each in run.starts) == _MOST_INTERRUPTIONS:
                self._make_peace()
        start.ended = self.loop.unix_time()
        if second is not None:
            await second
        if left:
            self.disk.restore(left[0])
        if right is not None:
            self._put(right)
        if is_first:
            self._copy(start.process)
            for path in sorted(self.disk.root.glob("answers*.jsonl")):
                self.seen.append((start.process.name, path.name, path.read_bytes()))
        self._note(f"--- {start.process.name} {start.kind}", more=str(start))
        return start

    def _begin(self, run: Run, start: Start, wrong: float) -> asyncio.Task[None]:
        start.began = self.loop.unix_time()
        start.process.on_step = self._step
        if start.death is not None and not start.death.after:
            start.process.dies_at = start.death.steps
        settings = {**self.plan.settings, "give_up": run.giving_up} if run.giving_up else self.plan.settings
        plan = attrs.evolve(self.plan, settings=settings)

        async def live() -> None:
            try:
                async with self._client(run, wrong) as client:
                    start.result = await self.program(client, run.root, plan)
            except Exception as error:  # noqa: BLE001  # which errors are allowed, is judged later
                start.error = error
            except (Killed, asyncio.CancelledError):
                raise
            except BaseException as error:
                self._stopped_by = error
                raise

        return self.loop.create_task(live(), context=start.process.context())

    async def _second(self, over: asyncio.Event, wrong: float, beside: float) -> None:
        """Start another process beside the first, and wait for its end."""
        await asyncio.wait([asyncio.create_task(over.wait())], timeout=beside)
        if over.is_set():
            return
        start = Start(Process(f"second beside start {len(self.starts)}"))
        self.seconds.append(start)
        await asyncio.wait([self._begin(self.runs[0], start, wrong)])
        self._note(f"--- {start.process.name} {start.kind}", more=str(start))

    def _client(self, run: Run, wrong: float) -> AsyncBatches:
        """Return a client whose clock, random numbers and time of day are those of this world."""

        def now() -> datetime:
            return datetime.fromtimestamp(self.loop.unix_time(), UTC) + timedelta(seconds=wrong)

        policy = RetryPolicy(max_attempts=3)
        base_url = self.service.emulator.base_url
        config = Config.from_env({}, api_key=KEY, base_url=base_url, retry=policy, headers={RUN_HEADER: run.name})
        connection = ClientState(
            None,
            max_concurrency=config.max_concurrency,
            clock=self.loop.time,
            chance=self.random.random,
            now=now,
        )
        return AsyncBatches._over(Transport(config, connection))

    def _step(self, process: Process, what: str) -> None:
        start = self.starts[-1]
        death = start.death if process is start.process else None
        if death is not None and death.after and death.after in what and process.dies_at is None:
            process.dies_at = process.steps + death.steps
            if not death.steps:
                self.loop.call_soon(process.kill, context=Process.no_process())
        if "send POST /v1/batches" in what:
            self._copy(process)
        self._note(f"{process.name} #{process.steps}: {_BY_CHANCE.sub('*', what)}")

    # --- the ledger -----------------------------------------------------------------------------------------------

    @property
    def _ledger(self) -> dict[str, bytes]:
        """Return the files of the ledger as they are; what SQLite shares between processes is made again."""
        found = sorted((self.disk.root / "answers.jsonl.run").glob("ledger.sqlite*"))
        return {path.name: path.read_bytes() for path in found if not path.name.endswith("-shm")}

    def _copy(self, process: Process) -> None:
        """Copy the ledger now and then, as a user might. Between two requests SQLite has no change half done."""
        is_right = process is self.starts[-1].process and not self.starts[-1].is_cut
        if is_right and "lost ledger" in self.plan.troubles.kinds and self._chance_of_copies.random() < _COPY_CHANCE:
            ledger = self._ledger
            if ledger:
                self._copies.append(ledger)

    def _lose(self, number: int, start: Start) -> dict[str, bytes] | None:
        """Damage the ledger, if planned. Return what is to be restored after this start, if anything."""
        loss = None if self._at_peace else self.plan.troubles.loss(number)
        ledger = self._ledger
        if loss is None or not ledger:
            return None
        if loss.kind == "cut":
            start.is_cut = True
            whole = ledger["ledger.sqlite"]
            self._put({"ledger.sqlite": whole[: int(len(whole) * loss.share)]})
            return ledger
        if loss.kind == "older":
            # Once the output exists, an older ledger does not recognise it, and refuses.
            if self._copies and not (self.disk.root / "answers.jsonl").exists():
                self._put(self._chance_of_copies.choice(self._copies))
        else:
            self._put({"ledger.sqlite": ledger["ledger.sqlite"]})
        self._note(f"--- the ledger is {loss.kind}")
        return None

    def _put(self, ledger: dict[str, bytes]) -> None:
        directory = self.disk.root / "answers.jsonl.run"
        for path in directory.glob("ledger.sqlite*"):
            path.unlink()
        for name, content in ledger.items():
            (directory / name).write_bytes(content)

    # --- the trace, and the end -----------------------------------------------------------------------------------

    def _note(self, line: str, *, more: str = "") -> None:
        """Write a line of the trace; the text in ``more`` may differ in a replay."""
        line = f"{self.loop.time() - 1_000:12.3f}  {line}"
        self._digest.update(line.encode())
        if self.tell is not None:
            self.tell(f"{line}: {more}" if more else line)

    def _let_go(self, runner: asyncio.Runner) -> None:
        """Let the dead processes clean up after the verdict, and close everything."""

        async def go() -> None:
            self.loop.end_after(86_400)
            self._make_peace()
            starts = [start for run in self.runs for start in run.starts]
            processes = [start.process for start in (*starts, *self.seconds)]
            for process in processes:
                self.network.bury(process)
                process.let_go(self.loop)
            tasks = [task for process in processes for task in process.tasks]
            if tasks:
                await asyncio.wait(tasks)
            await self.service.emulator.close()
            for process in processes:
                process.forget()

        runner.run(go())


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings about what the killed leave open, and about broken connections."""
    loggers = [logging.getLogger(name) for name in ("aiohttp.server", "together_batches")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    gc.freeze()  # so that only objects made from now on are scanned
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                yield
            finally:
                gc.collect()
    finally:
        gc.unfreeze()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _without_the_killed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(context)
