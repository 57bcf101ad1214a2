"""The event loop of a command: one for each, from uvloop if that is installed."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager, contextmanager
from functools import partial, wraps
from importlib.util import find_spec
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from together_batches.cli._exits import CommandError, Exit, Interrupted
from together_batches.cli._signals import ended_by_signals
from together_batches.cli._text import is_open
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
    from typing import Any

__all__ = ["in_loop", "last_words", "time_limit"]

P = ParamSpec("P")
T = TypeVar("T")


def in_loop(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Turn a coroutine function into a plain one that runs it in its own event loop.

    SIGTERM and SIGHUP end it as Ctrl-C does: by a ``KeyboardInterrupt``, with nothing left half done.
    The event loop of the library belongs to its user; that of a command is ours, so the faster one may be used.
    """

    async def interruptible(work: partial[Coroutine[Any, Any, T]]) -> T:
        with ended_by_signals():
            return await work()

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        import anyio

        # Without standard streams the loop's own files get their numbers, and libuv then aborts the process.
        fast = all(map(is_open, (sys.stdin, sys.stdout, sys.stderr))) and find_spec("uvloop") is not None
        work = partial(function, *args, **kwargs)
        try:
            return anyio.run(interruptible, work, backend_options={"use_uvloop": fast})
        except Interrupted:
            raise KeyboardInterrupt from None

    return run


@contextmanager
def last_words(state: Callable[[], str]) -> Generator[None]:
    """Report the progress of the command, and what remains, if the block is interrupted or its time limit expires."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(state()) from None
    except CommandError as error:
        if error.code is not Exit.TIMED_OUT:
            raise
        message = f"{error}: {state()}".replace("\n", "; ")
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
