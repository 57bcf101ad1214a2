"""Line charts as SVG: a white card, axes with units, and a label at the end of each curve."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from html import escape

import attrs

_WIDTH = 760
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 94, 34, 44
_TITLE_HEIGHT = 38
_LABEL_HEIGHT = 14
_COLOURS = {
    "together": "#d55e00",
    "openai": "#a0568a",
    "bare": "#6b7280",
    "gather": "#6b7280",
    "cancel_many": "#0a8a63",
}
_OURS = "#0067b1"
_INK, _FAINT, _GRID = "#1f2933", "#52606d", "#e4e7eb"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

Point = tuple[float, float]


@attrs.frozen
class Axis:
    """A quantity along an axis, with its unit and ticks; the axis extends from the first tick to the last."""

    label: str
    ticks: Sequence[float]
    log: bool = False

    def share(self, value: float) -> float:
        """Return the position of a value, from 0 at the first tick to 1 at the last."""
        low, high = self.ticks[0], self.ticks[-1]
        value = min(max(value, low), high)
        if self.log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


@attrs.frozen
class Curve:
    """A line through points, with its name at the end; a dashed one is not a measurement."""

    name: str
    points: Sequence[Point]
    dashed: bool = False
    dots: bool = True


@attrs.frozen
class Panel:
    """One pair of axes with its curves."""

    title: str
    x: Axis
    y: Axis
    curves: Sequence[Curve]
    named_at_ends: bool = True
    """False if the curves end too close to each other; the names then form a list at the top."""


def middle(values: Sequence[float]) -> float:
    """Return the median, and NaN if nothing was measured."""
    return statistics.median(values) if values else math.nan


def drawing(title: str, panels: Sequence[Panel], *, columns: int = 1, height: int = 230) -> str:
    """Return the panels as one SVG, with ``columns`` of them side by side."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = _WIDTH / columns
    whole = _TITLE_HEIGHT + rows * height
    size = f'viewBox="0 0 {_WIDTH} {whole}" width="{_WIDTH}" height="{whole}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{_FONT}">',
        f"<title>{escape(title)}</title>",
        f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{whole - 1}" rx="6" fill="#ffffff" stroke="#d5dae0"/>',
        _text(16, 25, title, size=14, weight=600, colour=_INK),
    ]
    for index, panel in enumerate(panels):
        left, top = index % columns * width, _TITLE_HEIGHT + index // columns * height
        parts += _panel(panel, left + _LEFT, top + _TOP, width - _LEFT - _RIGHT, height - _TOP - _BOTTOM)
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, left: float, top: float, width: float, height: float) -> list[str]:
    bottom = top + height
    title = f'<tspan font-weight="600" fill="{_INK}">{escape(panel.title)}</tspan>'
    unit = f'<tspan dx="{6 if panel.title else 0}">{escape(panel.y.label)}</tspan>'
    parts = [f'<text x="{left:.1f}" y="{top - 14:.1f}" font-size="12" fill="{_FAINT}">{title}{unit}</text>']
    for tick in panel.y.ticks:
        y = bottom - panel.y.share(tick) * height
        parts += [_line(left, y, left + width, y), _text(left - 7, y + 4, _number(tick), anchor="end")]
    for tick in panel.x.ticks:
        x = left + panel.x.share(tick) * width
        parts += [_line(x, bottom, x, bottom + 4, _FAINT), _text(x, bottom + 16, _number(tick), anchor="middle")]
    parts += [
        _line(left, bottom, left + width, bottom, _FAINT),
        _text(left + width / 2, bottom + 33, panel.x.label, anchor="middle"),
    ]
    ends: list[tuple[float, float, Curve]] = []
    for curve in reversed(panel.curves):  # the first is drawn on top of the others
        places = [
            (left + panel.x.share(x) * width, bottom - panel.y.share(y) * height)
            for x, y in curve.points
            if not math.isnan(y)
        ]
        if places:
            parts += _curve(curve, places)
            ends.append((*places[-1], curve))
    if panel.named_at_ends:
        ends = _apart(ends, top, bottom)
    else:
        ends = [(left + width, top + place * _LABEL_HEIGHT, curve) for place, (_, _, curve) in enumerate(ends[::-1])]
    parts += [_text(x + 7, y + 4, curve.name, colour=_colour(curve), weight=600) for x, y, curve in ends]
    return parts


def _curve(curve: Curve, places: Sequence[Point]) -> list[str]:
    colour = _colour(curve)
    path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashes = ' stroke-dasharray="5 4"' if curve.dashed else ""
    width = 1.3 if curve.dashed else 2
    parts = [
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"{dashes}/>'
    ]
    if curve.dots:
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.8" fill="{colour}"/>' for x, y in places]
    return parts


def _apart(ends: Sequence[tuple[float, float, Curve]], top: float, bottom: float) -> list[tuple[float, float, Curve]]:
    """Return the ends of the curves with room for a label at each, in the order of their heights."""
    placed: list[tuple[float, float, Curve]] = []
    for x, y, curve in sorted(ends, key=lambda end: end[1]):
        lowest = placed[-1][1] + _LABEL_HEIGHT if placed else top
        placed.append((x, max(y, lowest), curve))
    # If they extend below the axis, the whole pile moves up.
    floor = bottom
    for index in range(len(placed) - 1, -1, -1):
        x, y, curve = placed[index]
        placed[index] = (x, min(y, floor), curve)
        floor = placed[index][1] - _LABEL_HEIGHT
    return placed


def _colour(curve: Curve) -> str:
    return _INK if curve.dashed else _COLOURS.get(curve.name, _OURS)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = _GRID) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: float = 11,
    weight: int = 400,
    colour: str = _FAINT,
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _number(value: float) -> str:
    if value >= 1_000_000 and value % 1_000_000 == 0:
        return f"{value / 1_000_000:,.0f} M"
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
