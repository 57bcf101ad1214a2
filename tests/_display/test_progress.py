"""Progress bars: their numbers and estimates, and where they are drawn."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from together_batches._display.progress import Meter, bar, notebook_bar, percent, rows, sizes, terminal_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests._display.conftest import Notebook


class Clock:
    """A clock, and an event loop whose callbacks run when the clock is moved to their time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        self.timers.append(Timer(self, when, callback))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.when <= self.now]:
            self.timers.remove(timer)
            timer.callback()


class Timer:
    """A callback that is due at a time."""

    def __init__(self, clock: Clock, when: float, callback: Callable[[], object]) -> None:
        self.clock, self.when, self.callback = clock, when, callback

    def cancel(self) -> None:
        self.clock.timers.remove(self)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_numbers() -> None:
    """Amounts are counts, rows, percentages or sizes; a total may be unknown."""
    assert rows(500, 12_000) == "500 of 12 000 rows"
    assert percent(42.4, 100) == "42 %"
    assert [sizes(done, total) for done, total in ((5, 20), (1_500_000, 20_000_000), (2_000, None))] == [
        "5 of 20 bytes",
        "1.5 of 20.0 MB",
        "2.0 kB",
    ]


def test_the_time_left_is_estimated_from_the_speed_so_far(clock: Clock) -> None:
    """After 30 of 120 in ten seconds, thirty seconds are left, and fewer as time passes."""
    meter = Meter("Working", clock=clock.time)
    meter.show(0, 120)
    clock.advance(10)
    meter.show(30, 120, "1 failed")
    assert (meter.line, meter.left, meter.elapsed) == ("30 of 120, 1 failed", "about 30s left", "0:00:10")
    clock.advance(20)
    assert (meter.left, meter.elapsed) == ("about 10s left", "0:00:30")


def test_what_was_done_before_does_not_count_as_speed(clock: Clock) -> None:
    """A run that resumes at 900 of 1 000 rows and answers ten in ten seconds has ninety seconds left."""
    meter = Meter("Working", elapsed=86_400, clock=clock.time)
    meter.show(900, 1_000)
    clock.advance(10)
    meter.show(910, 1_000)
    assert (meter.left, meter.elapsed) == ("about 1m30s left", "1 day, 0:00:10")


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([], "nothing is known"),
        ([(1, 10, 1)], "one second is too short to tell"),
        ([(0, 10, 10)], "nothing was done yet"),
        ([(5, None, 10)], "the total is unknown"),
        ([(5, 10, 10), (10, 10, 1)], "all is done"),
        ([(5, 10, 10), (1, 10, 0)], "the work restarted"),
        ([(5, 10, 10), (5, 10, 60)], "the estimate was too short"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_estimate(clock: Clock, steps: list[tuple[int, int | None, float]], why: str) -> None:
    """There is no estimate as long as it would be a guess, or if time has proved it wrong."""
    meter = Meter("Working", clock=clock.time)
    meter.show(0 if why != "the work restarted" else 2, 10)
    for done, total, seconds in steps:
        clock.advance(seconds)
        meter.show(done, total)
    assert meter.left == ""


def test_the_time_of_a_bar_that_has_ended(clock: Clock) -> None:
    """A bar that has ended keeps its time, and needs no more of it."""
    meter = Meter("Working", clock=clock.time)
    meter.show(0, 120)
    clock.advance(10)
    meter.show(30, 120)
    meter.stop()
    clock.advance(5)
    assert (meter.left, meter.elapsed) == ("", "0:00:10")


def test_transfers_show_their_speed(clock: Clock) -> None:
    """A transfer shows how many bytes it moves each second."""
    meter = Meter("Uploading", sizes, speed=True, clock=clock.time)
    meter.show(0, 100_000_000)
    clock.advance(4)
    meter.show(50_000_000, 100_000_000)
    assert (meter.line, meter.left) == ("50.0 of 100.0 MB, 12.5 MB/s", "about 4s left")


def test_a_notebook_gets_few_messages(clock: Clock, notebook: Notebook) -> None:
    """A burst of updates is one message a quarter of a second later; the last numbers are always shown."""
    with notebook_bar(Meter("Cancelling", clock=clock.time), clock) as show:
        for done in range(1_000):
            show(done, 5_000)
        assert notebook.lines == [["Cancelling: 0:00:00"]]
        clock.advance(0.25)
        assert notebook.lines[0][1:] == ["Cancelling: 999 of 5 000, 0:00:00"]
        show(1_000, 5_000)
    assert notebook.lines[0][2:] == ["Cancelling: 1 000 of 5 000, 0:00:00"]
    assert clock.timers == []


def test_a_notebook_shows_a_bar(clock: Clock, notebook: Notebook) -> None:
    """The HTML is an element of HTML for progress, whose value is absent while nothing is known, and escaped text."""
    with notebook_bar(Meter("<b>&\x1b", clock=clock.time), clock) as show:
        show(10, 40, "<script>")
    first, last = (bundle["text/html"] for bundle in notebook.bundles[0])
    assert "<progress style" in first
    assert '<progress value="10" max="40"' in last
    assert "&lt;b&gt;&amp;\\x1b" in last
    assert "10 of 40, &lt;script&gt;" in last


async def test_a_bar_is_drawn_in_a_notebook(notebook: Notebook) -> None:
    """In the kernel of a notebook, a bar is drawn by its display."""
    with bar(Meter("Working")) as show:
        show(1, 1)
    assert notebook.lines == [["Working: 0:00:00", "Working: 1 of 1, 0:00:00"]]


@pytest.mark.parametrize("stderr", [None, io.StringIO()])
async def test_a_bar_is_drawn_only_where_it_can_be_seen(
    stderr: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is drawn if standard error is closed, or is not a terminal."""
    monkeypatch.setattr(sys, "stderr", stderr)
    with bar(Meter("Working")) as show:
        show(1, 1)
    assert stderr is None or stderr.getvalue() == ""


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


async def test_a_bar_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, a bar is drawn with its numbers, and other lines of standard error stay intact."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with bar(Meter("Working")) as show:
        show(3, 4)
        print("a warning", file=sys.stderr)
    assert "a warning\n" in terminal.getvalue()
    assert "Working" in terminal.getvalue()
    assert "3 of 4" in terminal.getvalue()
    assert sys.stderr is terminal


def test_a_bar_that_is_not_shown_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal_bar(Meter("Working"), shown=False) as show:
        show(5, 10)
    assert capsys.readouterr() == ("", "")


def test_the_last_numbers_of_a_burst_are_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are shown although no update follows them, also of a second bar, and standard output stays data."""
    monkeypatch.setenv("COLUMNS", "100")
    for last in (209, 340):
        with terminal_bar(Meter("Working"), shown=True) as show:
            for done in range(last + 1):
                show(done, 650, "3 failed")
            print("data")
        out, err = capsys.readouterr()
        assert out == "data\n"
        assert f"{last} of 650, 3 failed" in err


def test_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a narrow terminal the bar is dropped and the numbers stay."""
    monkeypatch.setenv("COLUMNS", "40")
    with terminal_bar(Meter("Working"), shown=True) as show:
        show(10, 10)
    assert "10 of 10" in capsys.readouterr().err


def test_concurrent_bars_are_drawn_together(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bars of calls that run at the same time are below each other, and the drawing ends with the last."""
    monkeypatch.setenv("COLUMNS", "100")
    with terminal_bar(Meter("First"), shown=True) as first:
        with terminal_bar(Meter("Second"), shown=True) as second:
            first(1, 2)
            second(2, 2)
        first(2, 2)
    *_, upper, lower = capsys.readouterr().err.strip().splitlines()
    assert upper.startswith("First")
    assert lower.startswith("Second")
    assert ("2 of 2" in upper, "2 of 2" in lower) == (True, True)


def test_a_terminal_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that was closed meanwhile does not end the call."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with terminal_bar(Meter("Working"), shown=True) as show:
        terminal.close()
        show(1, 2)
