"""SIGTERM and SIGHUP end a command as Ctrl-C does: in order, with a summary, and with nothing half done left."""

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
    """Within the block, which runs no loop, SIGTERM and SIGHUP raise ``KeyboardInterrupt``."""
    ours: list[signal.Signals] = []
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is None or signal.getsignal(number) is not signal.SIG_DFL:
            continue
        with contextlib.suppress(ValueError):  # another thread than the main one
            signal.signal(number, signal.default_int_handler)
            ours.append(number)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def ended_by_signals() -> Generator[None]:
    """Within the block, SIGTERM and SIGHUP cancel the task that runs it, and :class:`Interrupted` is raised.

    A signal that is ignored (SIGHUP is, under nohup) or handled by others stays as it is.
    """
    import asyncio  # here: a command without a loop takes the other function, and does without it

    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # a coroutine that runs has one
    loop = asyncio.get_running_loop()
    came = False

    def end() -> None:
        nonlocal came
        came = True
        task.cancel()

    ours: list[signal.Signals] = []
    for name in _NAMES:
        number = getattr(signal, name, None)  # Windows has one of them
        if number is None or signal.getsignal(number) is not signal.SIG_DFL:
            continue
        # A loop of Windows, or of another thread than the main one, has no handlers for signals.
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
