"""The loop of a command: one for each, and uvloop's if that is installed."""

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
    """Make a coroutine function a plain one, which runs it on a loop of its own.

    SIGTERM and SIGHUP end it as Ctrl-C does: by a ``KeyboardInterrupt``, with nothing left half done.
    The loop of a library's user is the user's; that of a command is ours, so the faster one may be taken.
    """

    async def interruptible(work: partial[Coroutine[Any, Any, T]]) -> T:
        with ended_by_signals():
            return await work()

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        import anyio

        # Without standard streams the loop's own files take their numbers, and libuv ends the process for that.
        fast = all(map(is_open, (sys.stdin, sys.stdout, sys.stderr))) and find_spec("uvloop") is not None
        work = partial(function, *args, **kwargs)
        try:
            return anyio.run(interruptible, work, backend_options={"use_uvloop": fast})
        except Interrupted:
            raise KeyboardInterrupt from None

    return run


@contextmanager
def last_words(state: Callable[[], str]) -> Generator[None]:
    """Say how far the command came, and what is left behind, if the block is interrupted or its time is over."""
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
    """End the block after so many seconds, if a limit is given."""
    from anyio import fail_after

    try:
        with fail_after(seconds):
            yield
    except TimeoutError as error:
        if seconds is None or isinstance(error, BatchesError):
            raise  # the limit of one request, or of a wait
        message = f"timed out after {seconds:g} s{doing}"
        raise CommandError(message, Exit.TIMED_OUT) from None
