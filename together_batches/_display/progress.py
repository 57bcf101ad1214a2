"""Progress bars: numbers, and an estimate of the time left, on a line in a terminal or below a cell of a notebook."""

from __future__ import annotations

import html
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from together_batches._text import escape, format_count, lasted

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator, Sequence

    from rich.table import Table

Numbers = Callable[[float, float | None], str]
"""Text for what is done and the total, None if that is unknown."""

_SIZES = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "bytes"))
_FRAME_SECONDS = 0.1
_NOTEBOOK_SECONDS = 0.25
"""Minimum seconds between two messages to a notebook."""
_OBSERVED_SECONDS = 2.0
"""Minimum seconds of progress from which the rest is estimated."""
_NARROWEST, _WIDEST = 8, 40
"""Width of a bar on a terminal."""
_GRACE_SECONDS = 1.0
"""Maximum seconds to wait for a terminal to take the first and the last line."""


class Show(Protocol):
    """Callback with what is done, its total if that is known, and further text."""

    def __call__(self, done: float, total: float | None, text: str = "") -> None:
        """Show these numbers from now on."""
        ...


def _counted(done: float, total: float | None) -> str:
    return format_count(int(done)) if total is None else f"{format_count(int(done))} of {format_count(int(total))}"


def rows(done: float, total: float | None) -> str:
    """Return ``500 of 10 000 rows``."""
    return f"{_counted(done, total)} rows"


def percent(done: float, total: float | None) -> str:
    """Return ``42 %``."""
    return f"{100 * done / total if total else 0:.0f} %"


def sizes(done: float, total: float | None) -> str:
    """Return ``1.5 of 20.0 MB``."""
    unit, name = next((pair for pair in _SIZES if (total or done) >= pair[0]), _SIZES[-1])
    digits = 1 if unit > 1 else 0
    whole = "" if total is None else f" of {total / unit:.{digits}f}"
    return f"{done / unit:.{digits}f}{whole} {name}"


class Meter:
    """What is done of a total, and when the rest will be done at the speed so far.

    The speed is that since the first numbers, which are not zero for work that is resumed. ``elapsed`` seconds were
    spent before.
    """

    def __init__(
        self,
        doing: str,
        numbers: Numbers = _counted,
        *,
        text: str = "",
        speed: bool = False,
        elapsed: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.doing = escape(doing)
        self.done: float = 0
        self.total: float | None = None
        self._numbers = numbers
        self._has_speed = speed
        self._clock = clock
        self._began = clock() - elapsed
        self._stopped_at: float | None = None
        self._first: tuple[float, float] | None = None
        self._text = text
        self._speed = 0.0
        self._ends_at = 0.0

    def show(self, done: float, total: float | None, text: str = "") -> None:
        """Take the latest numbers."""
        now = self._clock()
        if self._first is None or done < self._first[1]:
            self._first, self._speed, self._ends_at = (now, done), 0.0, 0.0
        first_at, first = self._first
        if done != self.done and now - first_at >= _OBSERVED_SECONDS:
            self._speed = (done - first) / (now - first_at)
            self._ends_at = now + (total - done) / self._speed if total is not None and self._speed else 0.0
        self.done, self.total, self._text = done, total, text

    def stop(self) -> None:
        """Leave the time as it is now."""
        self._stopped_at = self._clock()

    @property
    def line(self) -> str:
        """The numbers and the further text."""
        if self._first is None:
            return self._text
        speed = f"{sizes(self._speed, None)}/s" if self._has_speed and self._speed else ""
        return ", ".join(filter(None, (self._numbers(self.done, self.total), escape(self._text), speed)))

    @property
    def elapsed(self) -> str:
        """The time since the begin: ``0:01:30``."""
        now = self._clock() if self._stopped_at is None else self._stopped_at
        return str(timedelta(seconds=int(now - self._began)))

    @property
    def left(self) -> str:
        """The estimate: ``about 2m30s left``; empty before there is one, and if it was too short."""
        seconds = round(self._ends_at - self._clock())
        is_over = self._stopped_at is not None or self.done == self.total
        return f"about {lasted(seconds)} left" if seconds > 0 and not is_over else ""


# --- where it is drawn


@contextmanager
def bar(meter: Meter) -> Generator[Show]:
    """Draw a bar during the block, in a notebook or on a terminal, and yield its update function."""
    if getattr(_shell(), "kernel", None) is not None:
        import asyncio  # only now: the command has this module for its help, too

        drawn = notebook_bar(meter, asyncio.get_running_loop())
    else:
        drawn = terminal_bar(meter, shown=sys.stderr is not None and sys.stderr.isatty())
    with drawn as show:
        yield show


def _shell() -> Any:
    """Return the shell of IPython, if this process has one."""
    loaded = sys.modules.get("IPython")
    return None if loaded is None else loaded.get_ipython()


class Loop(Protocol):
    """What is used of an event loop."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> asyncio.TimerHandle: ...


@contextmanager
def notebook_bar(meter: Meter, loop: Loop) -> Generator[Show]:
    """Draw a bar below the cell, at most four times a second, and once more at the end."""
    waiting: asyncio.TimerHandle | None = None
    drawn_at = loop.time()
    handle: Any = import_module("IPython.display").display(_bundle(meter), raw=True, display_id=True)

    def draw() -> None:
        nonlocal waiting, drawn_at
        waiting, drawn_at = None, loop.time()
        handle.update(_bundle(meter), raw=True)

    def show(done: float, total: float | None, text: str = "") -> None:
        nonlocal waiting
        meter.show(done, total, text)
        if waiting is None:
            waiting = loop.call_at(drawn_at + _NOTEBOOK_SECONDS, draw)

    try:
        yield show
    finally:
        if waiting is not None:
            waiting.cancel()
        draw()


def _bundle(meter: Meter) -> dict[str, str]:
    """Return the bar as text and as HTML."""
    text = ", ".join(filter(None, (meter.line, meter.left or meter.elapsed)))
    value = "" if meter.total is None else f' value="{meter.done:g}" max="{max(meter.total, 1):g}"'
    mark = f'<progress{value} style="width:16em;max-width:40%;vertical-align:middle"></progress>'
    return {
        "text/plain": f"{meter.doing}: {text}",
        "text/html": f'<div style="font-size:13px">{html.escape(meter.doing)} {mark} {html.escape(text)}</div>',
    }


class _Terminal:
    """All bars of this process, one below the other on standard error, drawn by a thread: a terminal may block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._meters: list[Meter] = []
        self._open = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, meter: Meter) -> None:
        with self._lock:
            self._open += 1
            if self._thread is None:
                self._meters, self._over = [meter], threading.Event()
                begun = threading.Event()
                self._thread = threading.Thread(
                    target=_draw,
                    args=(self._meters, begun, self._over),
                    name="together-batches-progress",
                    daemon=True,
                )
                self._thread.start()
                begun.wait(_GRACE_SECONDS)
            else:
                self._meters.append(meter)

    def remove(self, meter: Meter) -> None:
        """End a bar. It stays visible, and the drawing ends with the last."""
        meter.stop()
        with self._lock:
            self._open -= 1
            if self._open or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._over.set()
        thread.join(_GRACE_SECONDS)


def _draw(meters: Sequence[Meter], begun: threading.Event, over: threading.Event) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    # Standard output is not redirected: it carries data, also while a bar is drawn.
    live = Live(
        get_renderable=lambda: _lines(meters, console.width),
        console=console,
        auto_refresh=False,
        redirect_stdout=False,
    )
    with suppress(OSError, ValueError), live:  # raised if the terminal was closed
        live.refresh()
        begun.set()
        while not over.wait(_FRAME_SECONDS):
            live.refresh()


def _lines(meters: Sequence[Meter], width: int) -> Table:
    """Return the bars with the latest numbers; on a narrow terminal, only the numbers."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    rows = [(meter.doing, meter.line, ", ".join(filter(None, (meter.elapsed, meter.left)))) for meter in meters]
    room = min(width - sum(max(map(len, column)) + 1 for column in zip(*rows, strict=True)), _WIDEST)
    table = Table.grid(padding=(0, 1))
    for meter, (doing, line, timing) in zip(meters, rows, strict=True):
        drawn = [ProgressBar(meter.total, meter.done, width=room)] if room >= _NARROWEST else []
        table.add_row(Text(doing), *drawn, *(Text(text, no_wrap=True) for text in (line, timing)))
    return table


_TERMINAL = _Terminal()


@contextmanager
def terminal_bar(meter: Meter, *, shown: bool) -> Generator[Show]:
    """Draw a bar on standard error during the block if it is ``shown``, and yield its update function.

    It is drawn ten times a second with the latest numbers, and once more at the end: a burst of thousands of updates
    costs no drawing, and the last one is always shown. Other lines on standard error appear above it.
    """
    if not shown:
        yield meter.show
        return
    _TERMINAL.add(meter)
    try:
        yield meter.show
    finally:
        _TERMINAL.remove(meter)
