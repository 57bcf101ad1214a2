"""The event loop of a simulation: time costs nothing, and processes can be killed.

Everything happens in one thread, in an order that the seed decides. If nothing is ready, time advances to the next
timer. Each task and callback belongs to the process that started it, by a context variable.

A killed process does nothing more, not even its clean-up: its callbacks are set aside when they are due, and its
tasks are kept, because the garbage collector would close their coroutines, which is a clean-up too. They are released
only after the verdict.

An effect of a process on the world is a *step*: bytes sent, bytes written, a file renamed, a statement of SQL.
Between two steps a process changes nothing that outlives it, so a kill right before each of its steps covers a kill
at every moment.
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
    """The end of the process, at once."""


class NoEndError(AssertionError):
    """A deadlock of all tasks, or the end of the simulated time."""


class Process:
    """A simulated process: its steps so far, and whether it is alive.

    It is killed right before its step ``dies_at``, counted from 1. ``on_death`` is called at that moment, with
    everything as it was left; ``on_step`` with each step before it is done. ``killed`` stays true for ever, ``dead``
    until :meth:`let_go`.
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
        """Return the process whose code is running; None for the world around them."""
        return _current.get()

    @staticmethod
    def no_process() -> contextvars.Context:
        """Return a context of the world around the processes."""
        context = contextvars.Context()
        context.run(_current.set, None)
        return context

    def context(self) -> contextvars.Context:
        """Return a context whose code belongs to this process."""
        context = contextvars.Context()
        context.run(_current.set, self)
        return context

    def step(self, what: str) -> None:
        """Count a step that is about to be taken; raise :class:`Killed` if the process dies before it."""
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
        """Kill the process now."""
        if not self.dead:
            self.dead = self.killed = True
            self.on_death()

    def run(self, context: contextvars.Context, callback: Callable[P, object], *args: P.args, **_: P.kwargs) -> None:
        """Run a callback of this process, instead of the loop."""
        if self.dead:
            self._put_aside.append((context, partial(callback, *args)))
        else:
            callback(*args)

    def let_go(self, loop: Loop) -> None:
        """Let the process clean up after the verdict, as if its tasks were cancelled. The effects no longer count."""
        self.dead, self._ghost = False, True
        while self._put_aside:
            context, callback = self._put_aside.popleft()
            loop.call_soon(callback, context=context)
        for task in self.tasks - self._unwinding:  # those are unwinding already
            task.cancel()

    def forget(self) -> None:
        """Drop all references: what a task has open stays open as long as its frames are held."""
        self.tasks.clear()
        self._unwinding.clear()
        self._put_aside.clear()


def step(what: str) -> None:
    """Count a step of the process whose code is running."""
    process = _current.get()
    if process is not None:
        process.step(what)


class _Task(asyncio.Task[Any]):
    """A task that is hashed by its number.

    The order of a set of tasks must not depend on addresses in memory.
    """

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
    """A selector without external events: if nothing is ready, time advances."""

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
    """The event loop of a simulation; see the module.

    ``network`` provides its connections and servers, ``thread_seconds`` returns how long a thread takes.
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
        """Return the time of day of a correct clock."""
        return _BEGIN + self._made_up.now

    def end_after(self, seconds: float) -> None:
        """Raise :class:`NoEndError` if the simulation has not ended by then."""
        self._made_up.end = self._made_up.now + seconds

    # --- the process of a callback ---

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
        """Run the function at once in the loop itself, a little later: see :mod:`.disk` on threads."""
        result: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            if result.cancelled():
                return
            try:
                result.set_result(func(*args))
            except BaseException as error:  # noqa: BLE001  # as a thread would pass it on
                result.set_exception(error)

        self.call_later(self.thread_seconds(), work)
        return result

    # --- the network ---

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await self.network.reach(sock, address)

    async def create_connection(self, protocol_factory: Any, *_: Any, sock: Any = None, **__: Any) -> Any:
        return self.network.connect(protocol_factory, sock)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return self.network.listen(protocol_factory, host, port)

    def remove_reader(self, fd: Any) -> bool:
        return isinstance(fd, int | socket.socket) and super().remove_reader(fd)
