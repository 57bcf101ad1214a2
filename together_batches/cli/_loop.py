"""The loop of a command: one for each, and uvloop's where that is installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

import anyio

from together_batches.cli._exits import Interrupted
from together_batches.cli._signals import ended_by_signals
from together_batches.cli._text import has

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVarTuple

    Args = TypeVarTuple("Args")

T = TypeVar("T")

__all__ = ["run"]


def run(work: Callable[[*Args], Awaitable[T]], *args: *Args) -> T:
    """What ``work(*args)`` gives, awaited on a loop of its own.

    SIGTERM and SIGHUP end it as Ctrl-C does: a ``KeyboardInterrupt``, and nothing half done is left behind.
    The loop of a library's user is the user's; that of a command is ours, so the quicker one may be taken.
    """

    async def interruptible() -> T:
        with ended_by_signals():
            return await work(*args)

    # Without standard streams the loop's own files take their numbers, and libuv ends the process for that.
    quick = all(map(has, (sys.stdin, sys.stdout, sys.stderr))) and find_spec("uvloop") is not None
    try:
        return anyio.run(interruptible, backend_options={"use_uvloop": quick})
    except Interrupted:
        raise KeyboardInterrupt from None
