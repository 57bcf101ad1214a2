"""Signal handling: SIGTERM and SIGHUP end a command as Ctrl-C does, with a summary and nothing left half done."""

from __future__ import annotations

import contextlib
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from together_batches.cli._exits import Interrupted

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["ended_by_signals", "raised_by_signals"]


_NAMES = ("SIGTERM", "SIGHUP")


@contextmanager
def raised_by_signals() -> Generator[None]:
    """Make SIGTERM and SIGHUP raise ``KeyboardInterrupt`` within the block, which runs no event loop."""
    ours: list[signal.Signals] = []
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is None or signal.getsignal(number) is not signal.SIG_DFL:
            continue
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(number, signal.default_int_handler)
            ours.append(number)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def ended_by_signals() -> Generator[None]:
    """Make SIGTERM and SIGHUP cancel the task that runs the block, and raise :class:`Interrupted`.

    A signal that is ignored (SIGHUP is, under nohup) or already handled keeps its handler.
    """
    import asyncio  # here, because a command without an event loop uses the other function and does not need it

    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # a running coroutine has a task
    loop = asyncio.get_running_loop()
    came = False

    def end() -> None:
        nonlocal came
        came = True
        task.cancel()

    ours: list[signal.Signals] = []
    for name in _NAMES:
        number = getattr(signal, name, None)  # Windows has only one of them
        if number is None or signal.getsignal(number) is not signal.SIG_DFL:
            continue
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
