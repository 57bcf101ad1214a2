"""The drawing of a run on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs.views import any_run, at, attempt, moments, run, shard

from together_batches.cli._commands.runs.chart import chart
from together_batches.runs import SessionView

if TYPE_CHECKING:
    from datetime import datetime

    from together_batches.runs import RunView


def lines_of(
    view: RunView, *, seconds: float = 100, width: int = 80, most_lanes: int = 40, ascii_only: bool = False
) -> list[str]:
    return [
        line.plain.rstrip()
        for line in chart(view, at(seconds), width=width, most_lanes=most_lanes, ascii_only=ascii_only)
    ]


FIRST = attempt(0, 10, 20, 50, 60, status="EXPIRED", succeeded=6, again=4)
SECOND = attempt(60, 70, 80, status="IN_PROGRESS", progress=45.0, number=2, rows=4)
VIEW = run(
    shard(1, attempt(0, 20, 40, 80, 100, succeeded=10)),
    shard(2, FIRST, SECOND),
    shard(3),
    in_flight=4,
)


def test_it() -> None:
    """A chart shows the state of the run, its rows as a bar, its shards over time, and the meaning of the signs."""
    assert lines_of(VIEW, width=62) == [
        "requests.jsonl: running (process 4711 on worker-3)",
        "30 rows, 3 shards, 3 jobs, 1m40s",
        "began 2026-09-14 10:20:30 UTC",
        "",
        "█" * 33 + "▒" * 8 + "░" * 21,
        "█ 16 rows answered  ▒ 4 rows under way  ░ 10 rows not sent",
        "",
        "shard  0s                   1m          now  answered",
        "    1  ───────░░░░░░░███████████████▓▓▓▓▓▓▓  all 10",
        "    2  ────░░░███████████▓▓▓x2──░░░░███████  in progress, 45 %",
        "    3                                        not sent",
        "",
        "─ planned, uploading  ░ created, waiting  █ running",
        "▓ collecting  x failed, expired or cancelled  2 sent again",
    ]


def test_only_ascii() -> None:
    """A terminal that can write only ASCII gets a chart in ASCII."""
    assert all(line.isascii() for line in lines_of(VIEW, ascii_only=True, most_lanes=1))


def test_more_shards_than_there_is_room_for() -> None:
    """If there are too many shards, unfinished ones come first, then future ones; omitted ones are counted."""
    done = [shard(number, attempt(1, 2, 3, 4, 5, succeeded=10)) for number in range(1, 51)]
    going = [shard(51, attempt(1, 2, 3)), shard(52, attempt(1, 2, 3))]
    waiting = [shard(number) for number in range(53, 101)]
    lines = lines_of(run(*done, *going, *waiting), most_lanes=4)
    first = next(number for number, line in enumerate(lines) if line.startswith("shard")) + 1
    assert [line.split()[:2] for line in (lines[first], lines[first + 5])] == [["…", "50"], ["…", "46"]]
    assert [line.split()[0] for line in lines[first + 1 : first + 5]] == ["51", "52", "53", "54"]


def test_what_is_not_known() -> None:
    """The time after the last record of an interrupted run is drawn as question marks."""
    view = run(shard(1, attempt(0, 10, 50)), shard(2, attempt(0, 10, 50, 99, 100)), state="interrupted")
    (first,) = [line for line in lines_of(view) if line.startswith("    1")]
    (second,) = [line for line in lines_of(view) if line.startswith("    2")]
    assert "██??" in first
    assert "?" not in second
    assert "last noted" in " ".join(lines_of(view))


def test_any_text_is_text() -> None:
    """A name with control characters is written as harmless text."""
    assert lines_of(run(input_name="\x1b[31m\n"))[0] == "\\x1b[31m\\n: running (process 4711 on worker-3)"


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_any_width(width: int) -> None:
    """No line is longer than the terminal is wide."""
    assert max(map(len, lines_of(VIEW, width=width))) <= width


@given(any_run(), moments, st.integers(10, 200), st.integers(1, 5))
def test_any_run(view: RunView, now: datetime, width: int, most: int) -> None:
    """The chart of any run fits the terminal."""
    lines = chart(view, now, width=width, most_lanes=most, ascii_only=False)
    assert all(line.cell_len <= width for line in lines)
    assert all(line.plain.isprintable() for line in lines)


AWAY = run(
    shard(1, attempt(0, 1, 2, 90)),
    state="interrupted",
    sessions=tuple(SessionView(began_at=at(first), last_at=at(last)) for first, last in ((0, 20), (60, 90))),
)


def test_no_process_at_work() -> None:
    """The time at which no process was at work is a gap in a line of its own, also without colours."""
    lines = lines_of(AWAY, width=100)
    assert "no process for 40s" in lines[1]
    assert lines[2].endswith("; no process since 2026-09-14 10:22:00 UTC")
    (processes,) = (line for line in lines if line.startswith("process  "))
    assert [len(part) for part in processes.removeprefix("process  ").split()] == pytest.approx([16, 24], abs=1)
    assert "▪ a process at work" in lines[-1]
    assert not any("process  " in line for line in lines_of(VIEW))


def test_outcomes_on_a_narrow_terminal() -> None:
    """If there is no room for it beside the line of a shard, its outcome is below."""
    lines = lines_of(AWAY, width=20)
    (number,) = (place for place, line in enumerate(lines) if line.strip().startswith("1  "))
    assert lines[number + 1] == "  collecting"
