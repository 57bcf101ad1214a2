"""Self-contained SVG image of a run, without scripts, fonts or external files.

The width of text is estimated generously, so that texts do not overlap in any font.
"""

from __future__ import annotations

import html
import unicodedata
from datetime import UTC, datetime
from textwrap import wrap
from typing import TYPE_CHECKING

import attrs

from together_batches._text import count_of, escape, lasted
from together_batches.errors import UsageError
from together_batches.runs._picture.timeline import PHASES, Timeline, absence_words, buckets, facts, ticks, timeline
from together_batches.runs._values import RunView

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from together_batches.runs._picture.timeline import Bar, Lane, Stretch

_PITCHES = ((16, 26.0), (40, 20.0), (100, 13.0), (300, 8.0))
"""Maximum number of lanes for each lane height; with more lanes, the height is ``_FLATTEST``."""
_FLATTEST = 5.0
_NARROWEST = 3
_LINE = 15
"""Minimum distance between two lines of text."""

# Colours that are distinguishable with colour blindness (Okabe and Ito), on white and on black.
_COLOURS = {
    "paper": ("#ffffff", "#0d1117"),
    "ink": ("#1f2328", "#e6edf3"),
    "faint": ("#59636e", "#9198a1"),
    "line": ("#d8dee4", "#30363d"),
    "absence": ("#fbf0d0", "#37301a"),
    "sending": ("#56b4e9", "#8fd0f7"),
    "waiting": ("#c4cbd3", "#59636e"),
    "running": ("#0072b2", "#3d9be0"),
    "collecting": ("#009e73", "#2fc79a"),
    "succeeded": ("#009e73", "#2fc79a"),
    "invalid_answers": ("#f0e442", "#f0e442"),
    "failed": ("#d55e00", "#ff8a45"),
    "missing": ("#cc79a7", "#e59cc6"),
    "invalid": ("#e69f00", "#f5c04a"),
    "in_flight": ("#56b4e9", "#8fd0f7"),
    "not_sent": ("#c4cbd3", "#59636e"),
}


def _fills(which: int) -> str:
    return "".join(f".tb-{name}{{fill:{colours[which]}}}" for name, colours in _COLOURS.items()) + (
        f".tb-grid{{stroke:{_COLOURS['line'][which]}}}"
        f".tb-mark{{stroke:{_COLOURS['ink'][which]}}}"
        f".tb-found{{fill:{_COLOURS['paper'][which]};stroke:{_COLOURS['ink'][which]}}}"
        f".tb-cross{{stroke:{_COLOURS['failed'][which]}}}"
        f".tb-on{{stroke:{_COLOURS['paper'][which]}}}"
    )


_STYLE = (
    ".tb-run text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;"
    "font-variant-numeric:tabular-nums}"
    ".tb-grid,.tb-mark,.tb-found{stroke-width:1}.tb-cross{stroke-width:2;stroke-linecap:round}"
    ".tb-on{stroke-width:3;stroke-linejoin:round;paint-order:stroke}"
    ".tb-lost{opacity:.45}.tb-dashed{stroke-dasharray:3 3}"
    f"{_fills(0)}@media(prefers-color-scheme:dark){{{_fills(1)}}}"
)


@attrs.frozen
class _Sheet:
    """What is drawn, and the horizontal positions: of margins, and of the begin and the end of time.

    Shard numbers are before the time, and outcomes after it.
    """

    drawn: Timeline
    width: int
    left: int
    axis: int
    axis_end: int
    ticks: int
    """Maximum number of time marks."""

    @property
    def right(self) -> int:
        return self.width - self.left

    def x(self, seconds: float) -> float:
        """Return the position of a time."""
        return self.axis + (self.axis_end - self.axis) * seconds / self.drawn.seconds


def to_svg(view: RunView, *, now: datetime | None = None) -> str:
    """Return a run as an SVG image: a lane for each shard, a bar for each attempt, and the rows by outcome.

    For a running run, the image ends at ``now`` (by default the current time). It follows the reader's preference for
    light or dark.
    """
    return _image(_Sheet(_timeline(view, now), 960, 24, 84, 780, 8))


def to_narrow_svg(view: RunView, *, now: datetime | None = None) -> str:
    """Return a run as :func:`to_svg` does, for a phone."""
    return _image(_Sheet(_timeline(view, now), 358, 2, 50, 246, 3))


def _timeline(view: RunView, now: datetime | None) -> Timeline:
    given: object = view
    if not isinstance(given, RunView):
        message = f"a picture is of a RunView, as runs.read() returns it, not of {type(given).__name__}"
        raise UsageError(message)
    return timeline(view, now or datetime.now(UTC))


def _image(sheet: _Sheet) -> str:
    drawn, width = sheet.drawn, sheet.width
    view = drawn.view
    counts = [(f"tb-{name}", f"{count_of(many, 'row')} {word}", many) for name, word, many in buckets(view) if many]
    head, at = _head(sheet)
    parts = [*head, *_shares(sheet, counts, at)]
    outcomes, at = _legend(sheet, [(css, words) for css, words, _ in counts], at + 48)
    phases, at = _legend(sheet, _phase_words(drawn), at + 14)
    parts += [*outcomes, *phases]
    top = at + 34
    pitch = next((pitch for most, pitch in _PITCHES if len(drawn.lanes) <= most), _FLATTEST)
    bottom = top + pitch * max(1, len(drawn.lanes))
    parts += _absences(sheet, top, bottom)
    parts += _axis(sheet, top, bottom)
    for number, lane in enumerate(drawn.lanes):
        parts += _lane(sheet, lane, top + pitch * number, pitch)
    parts += _names(sheet, top, pitch)
    height = bottom + 24
    title = f"Run of {view.input_name}: {view.state}, {facts(drawn)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tb-run" role="img" viewBox="0 0 {width} {height:g}" '
        f'width="{width}" height="{height:g}" style="max-width:100%;height:auto">\n'
        f"<title>{written(title)}</title>\n<style>{_STYLE}</style>\n"
        f'<rect class="tb-paper" width="{width}" height="{height:g}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def written(text: str) -> str:
    """Return ``text`` escaped for XML and HTML."""
    return html.escape(escape(text))


def _width(text: str, size: float) -> float:
    return size * sum(1.0 if unicodedata.east_asian_width(letter) in "WF" else 0.6 for letter in text)


def _fitted(text: str, size: float, room: float) -> str:
    """Return ``text``, truncated if it does not fit."""
    text = escape(text)
    if _width(text, size) <= room:
        return text
    while text and _width(text + "…", size) > room:
        text = text[:-1]
    return text + "…"


def _text(x: float, y: float, text: str, *, size: float = 12, css: str = "tb-faint", anchor: str = "start") -> str:
    place = f'class="{css}" x="{x:.2f}" y="{y:.2f}" font-size="{size:g}" text-anchor="{anchor}"'
    return f"<text {place}>{written(text)}</text>"


def _rect(css: str, x: float, y: float, width: float, height: float, title: str = "") -> str:
    place = f'class="{css}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"'
    return f"<rect {place}><title>{written(title)}</title></rect>" if title else f"<rect {place}/>"


def _line(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}"/>'


def _head(sheet: _Sheet) -> tuple[list[str], float]:
    """Return the heading, in as many lines as needed, and the position below it."""
    drawn, room = sheet.drawn, sheet.right - sheet.left
    title = _fitted(f"{drawn.view.input_name}: {drawn.view.state}", 20, room)
    parts = [_text(sheet.left, 38, title, size=20, css="tb-ink")]
    y = 62.0
    words = f"{facts(drawn)}; began {drawn.began:%Y-%m-%d %H:%M:%S} UTC"
    for line in wrap(words, int(room / _width("x", 13)), break_on_hyphens=False):
        parts.append(_text(sheet.left, y, line, size=13))
        y += _LINE + 3
    return parts, y + 4


def _shares(sheet: _Sheet, counts: Sequence[tuple[str, str, int]], y: float) -> Iterator[str]:
    """Yield all rows as one bar, by outcome (class, label, number); even the smallest share is visible."""
    x, room, rows = float(sheet.left), sheet.right - sheet.left, sum(many for _, _, many in counts)
    for css, words, many in counts:
        width = _NARROWEST + (room - _NARROWEST * len(counts)) * many / rows
        yield _rect(css, x, y, width, 16, words)
        x += width
    if not counts:
        yield _rect("tb-waiting", x, y, room, 16)


def _phase_words(drawn: Timeline) -> list[tuple[str, str]]:
    bars = [bar for lane in drawn.lanes for bar in lane.bars]
    labels = [(f"tb-{name}", words) for name, words in PHASES.items()]
    if any(bar.bad for bar in bars):
        labels.append(("tb-cross", "failed, expired or cancelled"))
    if any(bar.attempt.found for bar in bars):
        labels.append(("tb-found", "found again after a crash"))
    if drawn.absences:
        labels.append(("tb-absence", "no process at work"))
    return labels


def _legend(sheet: _Sheet, items: Sequence[tuple[str, str]], y: float) -> tuple[list[str], float]:
    """Return colours with their labels, in as many lines as needed, and the position below them."""
    parts: list[str] = []
    x = float(sheet.left)
    for css, words in items:
        width = 17 + _width(words, 12)
        if x + width > sheet.right and x > sheet.left:
            x, y = sheet.left, y + 20
        parts += [_SIGNS[css](x + 5.5, y - 4, 5) if css in _SIGNS else _rect(css, x, y - 10, 11, 11)]
        parts += [_text(x + 17, y, words)]
        x += width + 16
    return parts, y + 8


def _cross(x: float, y: float, size: float) -> str:
    step = f"{2 * size:.2f}"
    path = f"M{x - size:.2f} {y - size:.2f}l{step} {step}m0 -{step}l-{step} {step}"
    return f'<path class="tb-cross" fill="none" d="{path}"/>'


def _diamond(x: float, y: float, size: float) -> str:
    step = f"{size:.2f}"
    return f'<path class="tb-found" d="M{x:.2f} {y - size:.2f}l{step} {step}l-{step} {step}l-{step} -{step}z"/>'


_SIGNS = {"tb-cross": _cross, "tb-found": _diamond}


def _absences(sheet: _Sheet, top: float, bottom: float) -> Iterator[str]:
    """Yield a band behind the bars for each time at which no process was at work."""
    drawn = sheet.drawn
    for begin, end in drawn.absences:
        first, last = sheet.x(begin), sheet.x(end)
        yield _rect("tb-absence", first, top - 4, last - first, bottom - top + 4, absence_words(drawn, begin, end))


def _axis(sheet: _Sheet, top: float, bottom: float) -> Iterator[str]:
    """Yield the time marks, and the label of the end."""
    drawn = sheet.drawn
    yield _text(sheet.axis - 12, top - 10, "shard", anchor="end")
    yield _text(sheet.axis_end + 14, top - 10, "answered")
    end = sheet.x(drawn.known)
    for seconds, words in ticks(drawn.known, sheet.ticks):
        x = sheet.x(seconds)
        yield _line("tb-grid", x, top - 4, x, bottom)
        # The first label begins at the axis, because a heading is to its left.
        right = x + _width(words, 12) / (2 if seconds else 1)
        if right + 8 < end - _width(drawn.end, 12):
            yield _text(x, top - 10, words, anchor="middle" if seconds else "start")
    yield _text(end, top - 10, drawn.end, anchor="end")
    yield _line("tb-mark tb-dashed", end, top - 4, end, bottom)


def _lane(sheet: _Sheet, lane: Lane, top: float, pitch: float) -> Iterator[str]:
    """Yield the bars of one shard, each with a mark at its begin; signs last, so that nothing covers them."""
    height = pitch * 0.64
    y = top + (pitch - height) / 2
    signs: list[str] = []
    for bar in lane.bars:
        for stretch in bar.stretches:
            begin, end = sheet.x(stretch.begin), sheet.x(stretch.end)
            lost = " tb-lost" if stretch.open and sheet.drawn.view.state == "interrupted" else ""
            title = _tooltip(lane, bar, stretch)
            # The time before there is a job is thin.
            thin = height * 0.4 if stretch.phase == "sending" else height
            yield _rect(f"tb-{stretch.phase}{lost}", begin, y + (height - thin) / 2, end - begin, thin, title)
        first, last = sheet.x(bar.begin), sheet.x(bar.end)
        signs.append(_line("tb-mark", first, y - 1, first, y + height + 1))
        if bar.attempt.number > 1 and pitch >= _LINE and last - first >= 24:
            number = f"{bar.attempt.number}"
            signs.append(_text(first + 4, y + height / 2 + 4, number, size=11, css="tb-ink tb-on"))
        if bar.attempt.found:
            known = bar.stretches[min(1, len(bar.stretches) - 1)].begin
            signs.append(_diamond(sheet.x(known), y + height / 2, min(height / 2, 5)))
        if bar.bad:
            signs.append(_cross(last, y + height / 2, min(height / 2, 4)))
    yield from signs


def _tooltip(lane: Lane, bar: Bar, stretch: Stretch) -> str:
    """Return the tooltip of a stretch."""
    attempt = bar.attempt
    text = f"shard {lane.shard.number}, attempt {attempt.number} ({count_of(attempt.rows, 'row')}): "
    text += f"{PHASES[stretch.phase]} for {lasted(stretch.end - stretch.begin)}"
    if attempt.job_id:
        text += f"; job {attempt.job_id} {attempt.status or ''}".rstrip()
    return f"{text}: {attempt.error}" if attempt.error else text


def _names(sheet: _Sheet, top: float, pitch: float) -> Iterator[str]:
    """Yield the numbers and outcomes of the shards, as many as fit."""
    every = max(1, -(-_LINE // int(pitch)))
    for number, lane in enumerate(sheet.drawn.lanes):
        y = top + pitch * (number + 0.5) + 4
        if number % every == 0:
            yield _text(sheet.axis - 12, y, f"{lane.shard.number}", anchor="end", size=11)
            yield _text(sheet.axis_end + 14, y, _fitted(lane.outcome, 11, sheet.right - sheet.axis_end - 14), size=11)
