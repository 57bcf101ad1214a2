"""A run drawn on a terminal: its rows, and its shards over time; legible without colours too."""

from __future__ import annotations

from math import ceil
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from together_batches.cli._terminal.text import count_of, escape
from together_batches.runs._picture.timeline import PHASES, absence_words, buckets, facts, ticks, timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from together_batches.runs import RunView
    from together_batches.runs._picture.timeline import Bar, Lane, Phase, Timeline

_SIGNS: dict[str, tuple[str, str, str]] = {
    "sending": ("─", "-", "#56b4e9"),
    "waiting": ("░", ".", "bright_black"),
    "running": ("█", "#", "#3d9be0"),
    "collecting": ("▓", "=", "#009e73"),
    "succeeded": ("█", "#", "#009e73"),
    "invalid_answers": ("%", "%", "#f0e442"),
    "failed": ("x", "x", "#d55e00"),
    "missing": ("?", "?", "#cc79a7"),
    "invalid": ("!", "!", "#e69f00"),
    "in_flight": ("▒", "=", "#56b4e9"),
    "not_sent": ("░", ".", "bright_black"),
    "process": ("▪", "+", ""),
}
"""Sign and colour of each item: the sign where every character can be written, and the sign in ASCII."""

_NARROWEST = 10
_GAP = "  "
_OUTCOME = "answered"


def chart(view: RunView, now: datetime, *, width: int, most_lanes: int, ascii_only: bool) -> list[Text]:
    """Return the lines of the chart, none longer than ``width``; at most ``most_lanes`` shards are shown.

    Shards that are done are omitted first.
    """
    drawn = timeline(view, now)
    pen = _Pen(ascii_only=ascii_only)
    who = f" (process {view.pid} on {escape(view.host or '?')})" if view.pid is not None else ""
    began = f"began {drawn.began:%Y-%m-%d %H:%M:%S} UTC"
    if drawn.absences and drawn.absences[-1][1] > drawn.known:
        began += f"; {absence_words(drawn, *drawn.absences[-1])}"
    lines = [
        *_wrapped(f"{escape(view.input_name)}: {view.state}{who}", width, "bold"),
        *_wrapped(facts(drawn), width),
        *_wrapped(began, width),
        Text(""),
        pen.shares(view, width),
        *pen.legend([(name, f"{count_of(many, 'row')} {word}") for name, word, many in buckets(view) if many], width),
        Text(""),
        *pen.lanes(drawn, width, most_lanes),
        Text(""),
        *pen.legend([*PHASES.items(), *_signs(drawn)], width),
    ]
    for line in lines:
        line.truncate(width)
    return lines


def _wrapped(text: str, width: int, style: str = "") -> list[Text]:
    return [Text(line, style) for line in wrap(text, max(width, 1), break_on_hyphens=False)]


def _signs(drawn: Timeline) -> Iterator[tuple[str, str]]:
    bars = [bar for lane in drawn.lanes for bar in lane.bars]
    if any(bar.bad for bar in bars):
        yield "failed", "failed, expired or cancelled"
    if any(bar.attempt.number > 1 for bar in bars):
        yield "2", "sent again"
    if drawn.absences:
        yield "process", "a process at work"


class _Layout(NamedTuple):
    """The parts of the line of a shard: its number, its time, and beside that its outcome, unless it is narrow."""

    names: int
    """Width of the numbers."""
    room: int
    """Width of the time."""
    is_narrow: bool

    @classmethod
    def of(cls, names: Iterable[str], lanes: Iterable[Lane], width: int) -> _Layout:
        """Return what fits into ``width``."""
        widest = max(map(len, names))
        room = width - widest - len(_GAP)
        beside = room - len(_GAP) - max([len(_OUTCOME), *(len(lane.outcome) for lane in lanes)])
        is_narrow = beside < _NARROWEST
        return cls(widest, max(room if is_narrow else beside, 1), is_narrow)

    def head(self, name: str) -> str:
        """Return the beginning of the line of this name."""
        return f"{name:>{self.names}}{_GAP}"


class _Pen:
    """A renderer that uses only characters that the terminal can write."""

    def __init__(self, *, ascii_only: bool) -> None:
        self._which = 1 if ascii_only else 0
        self._dots = "..." if ascii_only else "…"

    def _sign(self, name: str) -> tuple[str, str]:
        sign = _SIGNS.get(name)
        return (name, "bold") if sign is None else (sign[self._which], sign[2])

    def legend(self, items: Sequence[tuple[str, str]], width: int) -> list[Text]:
        """Return the signs with their meanings, in as many lines as needed."""
        lines = [Text()]
        for name, words in items:
            sign, style = self._sign(name)
            first, *more = wrap(words, max(width - 2, 1)) or [""]
            if lines[-1] and (more or len(lines[-1]) + len(_GAP) + 2 + len(first) > width):
                lines.append(Text())
            lines[-1].append(_GAP if lines[-1] else "").append(sign, style).append(f" {first}")
            lines += [Text(f"  {line}") for line in more]
        return lines

    def shares(self, view: RunView, width: int) -> Text:
        """Return the rows by result, as one bar; even the smallest part is visible."""
        shares = [(name, many) for name, _, many in buckets(view) if many]
        line, drawn, seen = Text(), 0, 0
        for left, (name, many) in zip(range(len(shares) - 1, -1, -1), shares, strict=True):
            seen += many
            end = min(max(round(width * seen / view.rows), drawn + 1), width - left)
            sign, style = self._sign(name)
            line.append(sign * (end - drawn), style)
            drawn = end
        return line

    def lanes(self, drawn: Timeline, width: int, most: int) -> Iterator[Text]:
        """Yield the axis, a line for the processes if there was none at times, and one for each shard.

        On a narrow terminal the outcome of a shard is below its line.
        """
        shown = _chosen(drawn.lanes, most)
        title, process = "shard", "process" if drawn.absences else ""
        layout = _Layout.of([title, process, *(str(lane.shard.number) for lane in shown)], shown, width)
        last = "" if layout.is_narrow else f"{_GAP}{_OUTCOME}"
        yield Text(f"{layout.head(title)}{_axis(drawn, layout.room)}{last}"[:width], style="dim")
        if process:
            yield Text.assemble(layout.head(process), *self._processes(drawn, layout.room))
        before = 0
        for lane in shown:
            number = lane.shard.number
            if left_out := number - before - 1:
                yield self._left_out(layout, left_out)
            before = number
            line = Text.assemble(layout.head(str(number)), *self._cells(drawn, lane, layout.room))
            if layout.is_narrow:
                yield line
                yield from _wrapped(f"{_GAP}{lane.outcome}", width)
            else:
                yield line.append(f"{_GAP}{lane.outcome}")
        if left_out := len(drawn.lanes) - before:
            yield self._left_out(layout, left_out)

    def _processes(self, drawn: Timeline, room: int) -> Iterator[tuple[str, str]]:
        """Yield a sign for each piece of the time at which a process was at work, and a blank for each other one."""
        for place in range(room):
            middle = (place + 0.5) / room * drawn.seconds
            is_away = any(begin <= middle < end for begin, end in drawn.absences)
            yield (" ", "") if is_away else self._sign("process")

    def _left_out(self, layout: _Layout, many: int) -> Text:
        return Text(f"{layout.head(self._dots)}{count_of(many, 'more shard')}", style="dim")

    def _cells(self, drawn: Timeline, lane: Lane, room: int) -> Iterator[tuple[str, str]]:
        """Yield a sign for each piece of the time: the phase that took most of it, or an event within it."""
        phases, marks = _pieces(drawn, lane.bars, room)
        lost = drawn.view.state == "interrupted" and bool(lane.bars) and lane.bars[-1].stretches[-1].open
        known = drawn.known / drawn.seconds * room
        for place in range(room):
            if place in marks:
                yield marks[place] if marks[place] != "x" else self._sign("failed")[0], "bold"
            elif place not in phases:
                yield " ", ""
            elif lost and place >= known:
                yield "?", self._sign(phases[place])[1]
            else:
                yield self._sign(phases[place])


def _pieces(drawn: Timeline, bars: Sequence[Bar], room: int) -> tuple[dict[int, Phase], dict[int, str]]:
    phases: dict[int, Phase] = {}
    most: dict[int, float] = {}
    marks: dict[int, str] = {}
    for bar in bars:
        first = last = min(int(bar.begin / drawn.seconds * room), room - 1)
        for stretch in bar.stretches:
            begin, end = (moment / drawn.seconds * room for moment in (stretch.begin, stretch.end))
            for place in range(int(begin), min(ceil(end), room)):
                share = min(end, place + 1) - max(begin, place)
                if share > most.get(place, 0):
                    most[place], phases[place], last = share, stretch.phase, place
        phases.setdefault(first, bar.stretches[0].phase)
        if bar.attempt.number > 1:
            marks[first + (first in marks)] = str(bar.attempt.number % 10)
        if bar.bad:
            marks[last] = "x"
    return phases, marks


def _chosen(lanes: Sequence[Lane], most: int) -> list[Lane]:
    """Return the lanes to show, in order: unfinished ones, then those not yet begun, then those that are done."""

    def rank(lane: Lane) -> int:
        return 2 if lane.standing == "done" else 0 if lane.bars else 1

    return sorted(sorted(lanes, key=rank)[:most], key=lambda lane: lane.shard.number)


def _axis(drawn: Timeline, room: int) -> str:
    """Return the marks of time, as far as they do not overlap, and the meaning of the end of the axis."""
    end = min(round(drawn.known / drawn.seconds * room), room)
    line = drawn.end.rjust(end)[:room]
    taken = max(end - len(drawn.end), 0)
    marks = ""
    for seconds, words in ticks(drawn.known, max(room // 10, 1)):
        place = int(seconds / drawn.seconds * room)
        if place >= len(marks) + bool(marks) and place + len(words) < taken:
            marks = marks.ljust(place) + words
    return (marks + line[len(marks) :]).ljust(room)
