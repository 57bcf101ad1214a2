"""Tracebacks in IPython: the frames of the user, and one of this package for each call of it.

The other frames, of event loops and of HTTP, are those of a failure that the text of the error describes. Only what
is printed is shortened: debuggers and plain Python see all frames.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from sysconfig import get_paths
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_OURS = str(Path(__file__).parents[1]) + os.sep
_GENERATED = "<attrs generated methods together_batches."
_MIRRORS = (f"{_OURS}sync.py", f"{_OURS}_loop_thread.py", _GENERATED)
_LIBRARIES = ("<frozen ", *(get_paths()[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")))


def rendered(error: BaseException) -> list[str]:
    """Return the traceback of an error as IPython formats it, shortened."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    with _shortened(error):
        if shell is None:
            return "".join(traceback.format_exception(error)).splitlines()
        lines: list[str] = shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
        return lines


@contextmanager
def _shortened(error: BaseException) -> Generator[None]:
    """Shorten the tracebacks of an error, and of the errors that led to it, during the block."""
    before: list[tuple[BaseException, TracebackType | None, BaseException | None, bool]] = []
    each: BaseException | None = error
    while each is not None and all(each is not other for other, *_ in before):
        before.append((each, each.__traceback__, each.__cause__, each.__suppress_context__))
        each.__traceback__ = _chained(_chosen(each.__traceback__))
        earlier = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        if earlier is not None and (earlier.__traceback__ is None or _is_ours(earlier.__traceback__)):
            each.__cause__ = earlier = None  # raised and caught within this package; this suppresses the context, too
        each = earlier
    try:
        yield
    finally:
        for each, frames, cause, suppressed in before:
            each.__traceback__, each.__cause__, each.__suppress_context__ = frames, cause, suppressed


def _chosen(frames: TracebackType | None) -> Iterator[TracebackType]:
    """Yield the frames of the user, and one for each of their calls of this package.

    It is the first that does the work: one that only passes the call on is chosen if there is no other. Frames of
    libraries are kept if they called this package.
    """
    ours: TracebackType | None = None
    is_below = False
    while frames is not None:
        if _is_ours(frames):
            if ours is None or (_is_mirror(ours) and not _is_mirror(frames)):
                ours = frames
            is_below = True
        elif not is_below or not _file(frames).startswith(_LIBRARIES):
            if ours is not None:
                yield ours
            ours = None
            yield frames
        frames = frames.tb_next
    if ours is not None:
        yield ours


def _file(frames: TracebackType) -> str:
    return frames.tb_frame.f_code.co_filename


def _is_ours(frames: TracebackType) -> bool:
    return _file(frames).startswith((_OURS, _GENERATED))


def _is_mirror(frames: TracebackType) -> bool:
    return _file(frames).startswith(_MIRRORS)


def _chained(frames: Iterator[TracebackType]) -> TracebackType | None:
    following: TracebackType | None = None
    for each in reversed(list(frames)):
        following = TracebackType(following, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return following
