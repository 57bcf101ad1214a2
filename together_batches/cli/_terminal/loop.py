"""The event loop of a command: one for each, from uvloop if that is installed; its signals, and its end."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial, wraps
from importlib.util import find_spec
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from together_batches.cli._terminal.exits import CommandError, Exit, Interrupted
from together_batches.cli._terminal.text import is_open, is_terminal
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
    from types import FrameType
    from typing import Any

P = ParamSpec("P")
T = TypeVar("T")

_ONE_CTRL_C_SECONDS = 1.0
"""Seconds in which the signals of Ctrl-C count as one."""


def in_loop(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Turn a coroutine function into a plain one that runs it in its own event loop.

    SIGTERM and SIGHUP end it as Ctrl-C does: by a ``KeyboardInterrupt``, with nothing left half done.
    The event loop of the library belongs to its user; that of a command is ours, so the faster one may be used.
    """

    async def interruptible(work: partial[Coroutine[Any, Any, T]], begin: Callable[[], None]) -> T:
        begin()
        with _ended_by_signals():
            return await work()

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        import anyio

        # Without standard streams the loop's own files get their numbers, and libuv then aborts the process.
        fast = all(map(is_open, (sys.stdin, sys.stdout, sys.stderr))) and find_spec("uvloop") is not None
        work = partial(function, *args, **kwargs)
        with _one_ctrl_c() as begin:
            try:
                return anyio.run(interruptible, work, begin, backend_options={"use_uvloop": fast})
            except Interrupted:
                raise KeyboardInterrupt from None

    return run


# --- the end of a command


@contextmanager
def report_early_end(state: Callable[[], str]) -> Generator[None]:
    """Report the state of the command, and what remains, if the block is interrupted or its time limit expires.

    An empty ``state`` adds nothing to the error.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(state()) from None
    except CommandError as error:
        if error.code is not Exit.TIMED_OUT:
            raise
        message = ": ".join(filter(None, (str(error), state().replace("\n", "; "))))
        raise CommandError(message, Exit.TIMED_OUT) from None


@asynccontextmanager
async def time_limit(seconds: float | None, doing: str = "") -> AsyncGenerator[None]:
    """End the block after ``seconds``, if a limit is given."""
    from anyio import fail_after

    try:
        with fail_after(seconds):
            yield
    except TimeoutError as error:
        if seconds is None or isinstance(error, BatchesError):
            raise  # the timeout of one request, or of a wait
        message = f"timed out after {seconds:g} s{doing}"
        raise CommandError(message, Exit.TIMED_OUT) from None


def _signals(*names: str) -> list[signal.Signals]:
    return [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows has no SIGHUP


@contextmanager
def raised_by_signals(*, in_task: bool = False) -> Generator[None]:
    """Make SIGTERM and SIGHUP raise ``KeyboardInterrupt`` within the block, as Ctrl-C does.

    A signal that is ignored (SIGHUP is, under nohup) or already handled keeps its handler. With ``in_task`` the
    handlers are replaced, that of Ctrl-C too: the loop's own would only cancel the task, which the block keeps busy.
    """
    before: dict[signal.Signals, Any] = {}
    try:
        for number in _signals("SIGINT", "SIGTERM", "SIGHUP"):
            handler = signal.getsignal(number)
            # None is a handler that was not set from Python, and cannot be restored.
            if handler is signal.SIG_DFL or (in_task and handler not in (None, signal.SIG_IGN)):
                with contextlib.suppress(ValueError):  # not the main thread
                    before[number] = signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """Make SIGTERM and SIGHUP cancel the task that runs the block, and raise :class:`Interrupted`.

    A signal that is ignored or already handled keeps its handler.
    """
    import asyncio  # here, because a command without an event loop does not need it

    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # a running coroutine has a task
    loop = asyncio.get_running_loop()
    came = False

    def end() -> None:
        nonlocal came
        came = True
        task.cancel()

    ours: list[signal.Signals] = []
    for number in _signals("SIGTERM", "SIGHUP"):
        if signal.getsignal(number) is signal.SIG_DFL:
            # An event loop on Windows, or outside the main thread, supports no signal handlers.
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, end)
                ours.append(number)
    try:
        yield
    except asyncio.CancelledError:
        if came:
            raise Interrupted from None
        raise
    finally:
        for number in ours:
            loop.remove_signal_handler(number)


@contextmanager
def _one_ctrl_c() -> Generator[Callable[[], None]]:
    """Yield a function, for the loop to call, after which signals of Ctrl-C that come together count as one.

    A program that forwards Ctrl-C to its whole process group, such as ``timeout``, sends two. The first cancels the
    task; at the second the runner of the loop raises an error wherever the loop is, and some task may then never end.
    """
    before = signal.getsignal(signal.SIGINT)
    last = float("-inf")

    def begin() -> None:
        of_loop = signal.getsignal(signal.SIGINT)
        if of_loop is before or not callable(of_loop):  # ignored, or handled by others
            return

        def once(number: int, frame: FrameType | None) -> None:
            nonlocal last
            if time.monotonic() - last >= _ONE_CTRL_C_SECONDS:
                last = time.monotonic()
                of_loop(number, frame)

        signal.signal(signal.SIGINT, once)

    try:
        yield begin
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


# --- a question


def confirmed(question: str, refusal: str, *, yes: bool) -> bool:
    """Prompt unless ``yes``, and return whether to continue.

    Raises :class:`CommandError` with ``refusal`` if there is no terminal for a prompt, and :class:`Interrupted` after
    Ctrl-C.
    """
    if yes:
        return True
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise CommandError(refusal)
    # Not input(), which would write to standard output: that is for data.
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        with raised_by_signals(in_task=True):
            answer = sys.stdin.readline()
    except KeyboardInterrupt:
        print(file=sys.stderr)  # the terminal has echoed ^C without a line end
        raise Interrupted from None
    return answer.strip().lower() in {"y", "yes"}
