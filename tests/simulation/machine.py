"""Time that costs nothing, and processes that can be killed: the loop that a whole simulation runs on.

Everything happens in one thread and in an order that the seed decides. Where nothing is ready, time goes on to the
next timer. Each task and callback belongs to the process that it was started from, by a context variable.

A process that is killed does nothing more, not even its clean-up: its callbacks are put aside when they would run,
and its tasks are kept, for the garbage collector would close their coroutines, which is a clean-up too. Only when
all has been judged are they let go.

What a process does to the world is a *step*: bytes that leave, bytes that are written, a file that gets its name, a
statement of SQL. Between two steps a process changes nothing that outlives it, and so a kill right before each of its
steps is a kill at every moment there is.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import socket
from collections import deque
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

P = ParamSpec("P")

_current: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
_BEGIN = 1_700_000_000.0
_ENOUGH_CALLBACKS = 3_000_000


class Killed(BaseException):
    """The process ends here, at once."""


class NoEndError(AssertionError):
    """Everybody waits for somebody else, or the time for all of it is over."""


class Process:
    """A process that is made up: what it did so far, and whether it still lives.

    It is killed right before its step ``dies_at``, counted from 1. ``on_death`` is called at that moment, with
    everything as it was left; ``on_step`` with each step before it is done. ``killed`` stays true for ever, ``dead``
    until it is let go.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.dies_at: int | None = None
        self.steps = 0
        self.dead = False
        self.killed = False
        self.on_death: Callable[[], None] = lambda: None
        self.on_step: Callable[[Process, str], None] = lambda _process, _what: None
        self.tasks: set[asyncio.Task[Any]] = set()
        self._unwinding: set[asyncio.Task[Any]] = set()
        self._put_aside: deque[tuple[contextvars.Context, Callable[[], object]]] = deque()
        self._ghost = False

    @staticmethod
    def current() -> Process | None:
        """The one whose code is running; None for the world around them."""
        return _current.get()

    @staticmethod
    def no_process() -> contextvars.Context:
        """A context of the world around the processes."""
        context = contextvars.Context()
        context.run(_current.set, None)
        return context

    def context(self) -> contextvars.Context:
        """One in which whatever runs belongs to this process."""
        context = contextvars.Context()
        context.run(_current.set, self)
        return context

    def step(self, what: str) -> None:
        """It is about to do this to the world; raises :class:`Killed` where it does not come to that."""
        if self._ghost:
            return
        if not self.dead:
            self.steps += 1
            if self.steps == self.dies_at:
                self.on_step(self, f"KILLED before: {what}")
                self.kill()
        if self.dead:
            task = asyncio.current_task()
            if task is not None:
                self._unwinding.add(task)
            raise Killed
        self.on_step(self, what)

    def kill(self) -> None:
        """End it here."""
        if not self.dead:
            self.dead = self.killed = True
            self.on_death()

    def run(self, context: contextvars.Context, callback: Callable[P, object], *args: P.args, **_: P.kwargs) -> None:
        """What the loop calls in place of a callback of this process."""
        if self.dead:
            self._put_aside.append((context, partial(callback, *args)))
        else:
            callback(*args)

    def let_go(self, loop: Loop) -> None:
        """All has been judged: let it clean up, as one whose tasks are cancelled. What it does, counts no more."""
        self.dead, self._ghost = False, True
        while self._put_aside:
            context, callback = self._put_aside.popleft()
            loop.call_soon(callback, context=context)
        for task in self.tasks - self._unwinding:  # those are at it already
            task.cancel()

    def forget(self) -> None:
        """Hold nothing of it any more: what a task had open is open as long as its frames are held."""
        self.tasks.clear()
        self._unwinding.clear()
        self._put_aside.clear()


def step(what: str) -> None:
    """The process whose code is running is about to do this to the world."""
    process = _current.get()
    if process is not None:
        process.step(what)


class _Task(asyncio.Task[Any]):
    """One that is hashed by its number: the order of a set of tasks must not depend on where they lie in memory."""

    _numbers = count()

    def __init__(self, coroutine: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = next(self._numbers)
        super().__init__(coroutine, **options)
        context: contextvars.Context | None = options.get("context")
        process = _current.get() if context is None else context.get(_current)
        if process is not None:
            process.tasks.add(self)
            self.add_done_callback(process.tasks.discard)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Selector(selectors.DefaultSelector):
    """Nothing ever comes from without: where there is nothing to do, time goes on."""

    now = 1_000.0
    end = float("inf")
    rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.rounds += 1
        if timeout is None:
            raise NoEndError("everybody waits, and nothing will ever come")
        self.now += max(timeout, 0)
        if self.now > self.end or self.rounds > _ENOUGH_CALLBACKS:
            raise NoEndError(f"no end after {self.now - 1_000:.0f} s and {self.rounds} rounds of the loop")
        return []


class Loop(asyncio.SelectorEventLoop):
    """The loop of a simulation: see the module.

    ``network`` answers for its connections and servers, ``thread_seconds`` says how long a thread takes.
    """

    def __init__(self) -> None:
        self._made_up = _Selector()
        super().__init__(self._made_up)
        self.set_task_factory(lambda loop, coroutine, **options: _Task(coroutine, loop=loop, **options))
        self.network: Any = None
        self.thread_seconds: Callable[[], float] = lambda: 0.001

    def time(self) -> float:
        return self._made_up.now

    def unix_time(self) -> float:
        """The time of day, as it is where all clocks are right."""
        return _BEGIN + self._made_up.now

    def end_after(self, seconds: float) -> None:
        """Raise :class:`NoEndError` where it is not over by then."""
        self._made_up.end = self._made_up.now + seconds

    # --- whose callback it is ---

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        context = context if context is not None else contextvars.copy_context()
        process = context.get(_current)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(process.run, context, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        context = context if context is not None else contextvars.copy_context()
        process = context.get(_current)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, process.run, context, callback, *args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)  # there are no threads

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Done in one go by the loop itself, a little later: see :mod:`.disk` on threads."""
        result: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            if result.cancelled():
                return
            try:
                result.set_result(func(*args))
            except BaseException as error:  # noqa: BLE001  # as a thread would hand it over
                result.set_exception(error)

        self.call_later(self.thread_seconds(), work)
        return result

    # --- the wires ---

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await self.network.reach(sock, address)

    async def create_connection(self, protocol_factory: Any, *_: Any, sock: Any = None, **__: Any) -> Any:
        return self.network.connect(protocol_factory, sock)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return self.network.listen(protocol_factory, host, port)

    def remove_reader(self, fd: Any) -> bool:
        return isinstance(fd, int | socket.socket) and super().remove_reader(fd)
