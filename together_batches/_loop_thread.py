"""An event loop in a thread of its own, for the synchronous client; it knows nothing about batches.

The contract:

- One daemon thread runs ``anyio.run``; ONE task in it enters a context manager, and leaves it at the end.
- A call crosses once each way: a callback to the loop, an answer back through a ``SimpleQueue``. That queue has no
  lock in Python that an interrupt could leave acquired; a ``concurrent.futures.Future`` has one, and after an
  interrupt at the wrong moment the loop waits for it forever.
- Python delivers Ctrl-C to the main thread only: it interrupts the waiting caller, and the work would continue.
  So an exception that interrupts the wait first cancels the work, and is raised when the work has ended.
- One function ends the thread, called by ``close()``, by the garbage collector or at exit, whichever is first.

``docs/explanation/how-the-sync-client-works.md`` explains the reasons.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import os
import queue
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar

import anyio

from together_batches.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from typing import Self

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# Seconds of one slice of a wait. An interrupt just before a wait is handled only when that wait returns, and on
# Windows one within a wait no sooner: so every wait here consists of slices.
_SLICE = 0.2
# Maximum seconds to wait for the clean-up of cancelled work.
_PATIENCE = 5.0

_CLOSED = "this client is closed: make a new one"
_FORKED = "this client belongs to another process, and a fork does not copy its thread: make a new one here"
_OWN_LOOP = "this client was called from its own loop, where it would wait for itself: use the async client there"
_CANCELLED = "this call was cancelled on the client's own loop, by something other than its caller"
_BUSY = "another thread is waiting for this iterator's next item: give each thread an iterator of its own"
_FORGOTTEN = "a client was forgotten without being closed: use it in a `with` block, or call its close()"


class _Answer(NamedTuple, Generic[R]):
    """An answer from a job: pages possibly, and at last the value or the error of its coroutine."""

    value: R
    error: BaseException | None = None
    last: bool = True


def _open(answer: _Answer[R], /) -> R:
    """Return the value or raise the error. A bare cancellation would mean nothing to a caller without a loop."""
    try:
        if answer.error is None:
            return answer.value
        if isinstance(answer.error, asyncio.CancelledError | concurrent.futures.CancelledError):
            raise UsageError(_CANCELLED) from answer.error
        raise answer.error
    finally:
        del answer  # the error's traceback holds this frame, which would hold the error


class _Job(Generic[R]):
    """One coroutine, run as one task of the loop; its methods run on the loop, ``over`` belongs to its caller."""

    def __init__(self, make: Callable[[], Awaitable[R]]) -> None:
        self.make = make
        self.answers: queue.SimpleQueue[_Answer[R]] = queue.SimpleQueue()
        self.task: asyncio.Task[None] | None = None
        self.over = False  # the last answer is taken, or no longer wanted

    async def run(self) -> None:
        # Catches KeyboardInterrupt and SystemExit too, because an exception that escapes from a task stops the loop.
        try:
            self.answers.put(_Answer(await self.make()))
        except BaseException as error:  # noqa: BLE001 - handed over, and raised in the caller
            # Without this frame, which would not help the reader. No name in this frame outlives the error either:
            # frames refer to each other, and would make a cycle that keeps error and frames until a collection.
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            self.answers.put(_Answer[Any](None, error))

    def cancel(self) -> None:
        # Each cancel puts an answer of its own when the task has ended, because `run` may have none for this waiter:
        # the interrupt came before the start was posted, or after the answer was taken; the cancel came before the
        # first step; or another thread took the answer of `run`.
        if self.task is None:
            self.ended()
        else:
            self.task.cancel()
            self.task.add_done_callback(self.ended)

    def ended(self, _: object = None) -> None:
        self.answers.put(_Answer[Any](None, asyncio.CancelledError()))


class _Loop(Generic[T]):
    """State shared by the thread and its callers. It never refers to the LoopThread, which stays collectable."""

    def __init__(self, factory: Callable[[], AbstractAsyncContextManager[T]], name: str) -> None:
        self.factory = factory
        self.process: int = os.getpid()
        # An empty context, because in a free-threaded build the thread would inherit its creator's.
        self.thread: threading.Thread = threading.Thread(
            target=contextvars.Context().run, args=(self.run,), name=name, daemon=True
        )
        self.news: queue.SimpleQueue[_Answer[T]] = queue.SimpleQueue()  # of the start, and of a failed end
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[Any] | None = None
        # Plain tasks and no task group: a group's cancellation is raised again at every await, also in the work's
        # clean-up, but asyncio's single one lets a `finally: await ...` finish, as under `asyncio.run`.
        self.jobs: set[_Job[Any]] = set()
        # Set by the thread at its end. Thread.is_alive() is not safe: after an interrupt at the wrong moment, Python
        # 3.11 and 3.12 report the thread as dead from then on.
        self.gone: bool = False
        self.closed: bool = False
        self.forgotten = True  # close() has not been called

    # On the loop's thread

    def run(self) -> None:
        try:
            anyio.run(self.main, backend="asyncio")
        except BaseException as error:  # noqa: BLE001 - a thread has no caller to raise to
            if self.task is None:  # no loop could be created, and the constructor waits for an answer
                self.news.put(_Answer[Any](None, error))
            # Otherwise everything is closed, and only asyncio's own shutdown failed: at the interpreter's exit it may
            # not start the thread that would wait for its executor.
        finally:
            self.gone = True

    async def main(self) -> None:
        self.task = asyncio.current_task()
        self.loop = asyncio.get_running_loop()
        if self.closed:  # the constructor was interrupted before there was a loop to stop
            return
        try:
            manager = self.factory()
            del self.factory  # it may refer to the client
            async with manager as value:
                self.news.put(_Answer(value))
                with contextlib.suppress(asyncio.CancelledError):  # `end` cancels this task
                    await self.loop.create_future()
                self.closed = True
                for job in self.jobs:
                    job.cancel()
                if pending := [job.task for job in self.jobs if job.task is not None]:
                    await asyncio.wait(pending, timeout=_PATIENCE / 2)  # half, to leave time for the rest
        except BaseException as error:  # noqa: BLE001 - raised in the constructor, or in close()
            self.news.put(_Answer[Any](None, error))

    def start(self, job: _Job[Any]) -> None:
        if self.closed:
            job.cancel()
        else:
            self.jobs.add(job)
            job.task = asyncio.get_running_loop().create_task(job.run())
            job.task.add_done_callback(partial(self.finish, job))

    def finish(self, job: _Job[Any], _: asyncio.Task[None]) -> None:
        self.jobs.discard(job)
        # asyncio keeps weak references to its tasks. A task that is freed in a caller's thread would run their
        # callback in it, and an interrupt within a callback is lost: so the task is freed here. The same applies to
        # generators.
        job.task = None

    # On any other thread

    def check(self) -> None:
        """Raise UsageError for a call that could never be answered."""
        if os.getpid() != self.process:
            raise UsageError(_FORKED)
        if self.closed:
            raise UsageError(_CLOSED)
        if threading.get_ident() == self.thread.ident:
            raise UsageError(_OWN_LOOP)

    def post(self, callback: Callable[[], object]) -> bool:
        """Schedule the callback on the loop, in a copy of the caller's context; return False without a loop."""
        if self.loop is None or os.getpid() != self.process:
            return False
        try:
            self.loop.call_soon_threadsafe(callback)
        except RuntimeError:  # raised by asyncio for a closed loop
            return False
        return True

    def take(self, answers: queue.SimpleQueue[_Answer[R]]) -> _Answer[R]:
        """Wait for the next answer, or for the end of the thread that would have sent it."""
        while True:
            gone = self.gone  # read first, because the thread puts its answers before it ends
            with contextlib.suppress(queue.Empty):
                return answers.get(timeout=0 if gone else _SLICE)
            if gone:
                return _Answer[Any](None, asyncio.CancelledError())

    def ask(self, job: _Job[R], callback: Callable[[], object]) -> _Answer[R]:
        """Post the callback, and wait for the job's next answer; an interrupt, such as Ctrl-C, ends the job."""
        try:
            self.post(callback)
            answer = self.take(job.answers)
            job.over = answer.last
        except BaseException:
            self.abandon(job)  # a second Ctrl-C interrupts this, and is raised at once
            raise
        if self.closed and isinstance(answer.error, asyncio.CancelledError):
            raise UsageError(_CLOSED)
        return answer

    def abandon(self, job: _Job[Any]) -> None:
        """Cancel the job, and wait until it has ended, for a limited time."""
        job.over = True
        limit = time.monotonic() + _PATIENCE
        if self.post(job.cancel) and threading.get_ident() != self.thread.ident:
            while not self.gone and time.monotonic() < limit:
                with contextlib.suppress(queue.Empty):
                    if job.answers.get(timeout=_SLICE).last:
                        return

    def end(self) -> None:
        """Cancel pending calls, leave the context manager, end the thread."""
        if os.getpid() != self.process:
            return  # a forked child has no thread to end, and the sockets are its parent's
        self.closed = True
        if self.task is not None:
            self.post(self.task.cancel)
        if threading.get_ident() != self.thread.ident:  # the collector may run in any thread, also on the loop
            limit = time.monotonic() + _PATIENCE
            while self.thread.is_alive() and time.monotonic() < limit:
                self.thread.join(_SLICE)
        if self.forgotten:
            warnings.warn(_FORGOTTEN, ResourceWarning, stacklevel=2)  # last: it may be turned into an error


class LoopThread(Generic[T]):
    """An event loop in a daemon thread, with one entered async context manager: ``value`` is what it returned.

    ``factory`` is called on the loop. An exception from it or from entering is raised here, and leaves no thread.
    """

    value: T

    def __init__(
        self, factory: Callable[[], AbstractAsyncContextManager[T]], *, name: str = "together-batches"
    ) -> None:
        self._loop = _Loop(factory, name)
        self._end = weakref.finalize(self, self._loop.end)
        try:
            self._loop.thread.start()
            self.value = _open(self._loop.take(self._loop.news))
        except BaseException:
            self._loop.forgotten = False
            self._end()
            raise

    def call(self, func: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Await ``func(*args, **kwargs)`` on the loop, in a copy of the caller's context; return its result.

        Any thread may call, also one whose own loop is running: that loop is blocked meanwhile. An exception that
        interrupts the wait, such as Ctrl-C, cancels the call, and is raised when the call has ended. ``UsageError``
        is raised if the client is closed (possibly just now), was created in another process, or was called from its
        own loop.
        """
        self._loop.check()
        job = _Job(lambda: func(*args, **kwargs))
        return _open(self._loop.ask(job, partial(self._loop.start, job)))

    def iterate(
        self, make: Callable[[], AsyncIterator[R]], /, *, limit: int = 256, looks_ahead: bool = False
    ) -> LoopIterator[R]:
        """Return a plain iterator over the async iterator that ``make`` returns; it is called now, on the loop.

        The async iterator starts when its first item is requested, or with ``looks_ahead`` when it is entered by
        ``with``. From then on up to ``limit`` items are prefetched, while the consumer is busy.
        """

        async def made() -> AsyncIterator[R]:
            return make()

        return LoopIterator(self, self._loop, self.call(made), limit, looks_ahead=looks_ahead)

    def close(self) -> None:
        """Cancel pending calls, leave the context manager, end the thread. Closing again does nothing.

        Raises the exception of leaving the context manager, if any. Calls pending in other threads raise
        ``UsageError``.
        """
        self._loop.forgotten = False
        if os.getpid() == self._loop.process and self._end.alive:
            self._end()
            with contextlib.suppress(queue.Empty):
                _open(self._loop.news.get_nowait())


class _Pump(Generic[R]):
    """A task that runs through an async iterator, and hands over all items that are ready on each request.

    One task, because an async generator that is stepped by a new task for each item loses its time limits and breaks
    its cancel scopes. All of it runs on the loop, one step at a time, so no lock is needed.
    """

    pages: queue.SimpleQueue[_Answer[list[R] | None]]

    def __init__(self, source: AsyncIterator[R], limit: int) -> None:
        self.source = source
        self.limit = limit
        self.ready: list[R] = []
        self.requested = True  # starting it is the first request
        self.room = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for item in self.source:
                self.ready.append(item)
                if len(self.ready) == 1:
                    # Soon and not now, because more items may be ready without waiting, and are handed over with it.
                    loop.call_soon(self.deliver)
                if len(self.ready) >= self.limit:
                    self.room.clear()
                    await self.room.wait()
        finally:
            self.ask()  # items before the end, or before an error, are handed over first
            if aclose := getattr(self.source, "aclose", None):
                await aclose()
            del self.source

    def ask(self) -> None:
        self.requested = True
        self.deliver()

    def deliver(self) -> None:
        if self.requested and self.ready:
            self.requested = False
            self.pages.put(_Answer(self.ready, last=False))
            self.ready = []
            self.room.set()


class LoopIterator(Iterator[R]):
    """A plain iterator, and context manager, over an async iterator that runs on the loop.

    Leaving the ``with`` block, or ``close()``, stops the work and waits for its clean-up; an iterator that is merely
    dropped stops it too, without waiting. Only one thread at a time may request items.
    """

    _begun = False  # a default of the class, because an interrupted constructor has a destructor too

    def __init__(
        self,
        thread: LoopThread[Any],
        loop: _Loop[Any],
        source: AsyncIterator[R],
        limit: int,
        *,
        looks_ahead: bool = False,
    ) -> None:
        self._looks_ahead = looks_ahead
        self._thread = thread  # the client is not collected during an iteration
        self._loop = loop
        self._pump = _Pump(source, limit)
        self._job: _Job[list[R] | None] = _Job(self._pump.run)
        self._pump.pages = self._job.answers
        self._page: deque[R] = deque()
        self._turn = threading.Lock()

    def __next__(self) -> R:
        if not self._turn.acquire(blocking=False):
            raise UsageError(_BUSY)
        try:
            while not self._page:
                self._turn_page()
            return self._page.popleft()
        finally:
            self._turn.release()

    def _turn_page(self) -> None:
        if self._job.over:
            raise StopIteration
        self._loop.check()
        step = self._pump.ask if self._begun else partial(self._loop.start, self._job)
        self._begun = True
        try:
            page = _open(self._loop.ask(self._job, step))
            if page is not None:
                self._page.extend(page)
        except BaseException:
            if not self._job.over:  # an interrupt between taking and storing the page
                self._loop.abandon(self._job)
            raise

    def close(self) -> None:
        """Stop the work, and wait for its clean-up, for a limited time. Closing again does nothing."""
        if self._begun and not self._job.over:
            self._loop.abandon(self._job)
        self._page.clear()

    def __enter__(self) -> Self:
        if self._looks_ahead:
            self._looks_ahead = False
            # An end without an item is raised again by the next iteration.
            with contextlib.suppress(StopIteration):
                self._page.appendleft(next(self))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Posted without waiting, because an interrupt would be lost here, and the collector runs in any thread.
        if self._begun and not self._job.over:
            self._loop.post(self._job.cancel)
