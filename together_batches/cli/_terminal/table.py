"""Tables that fit any terminal. Pure: columns, rows and a width in, lines out.

What the first column holds, an id, is never cut. Below :data:`NARROW` columns, and if an id is too long for its line,
an item takes two lines, with its id alone on the first, so that a double click selects it.
"""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Literal, NamedTuple

from together_batches._text import cell_width

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NARROW = 60
"""Width of a terminal below which an item takes two lines."""
_GAP = "  "


class Column(NamedTuple):
    """How a column is drawn. Columns of a low ``rank`` are there first if room is short, those of rank 0 always."""

    title: str
    rank: int = 0
    cut: Literal["", "middle", "end"] = ""
    """Where a text that is too long is cut; an empty string if it never is."""
    least: int = 10
    """Width to which texts are cut before a column is left out."""
    right: bool = False


def draw(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    header: bool = True,
    narrow: int = NARROW,
    all_columns: bool = False,
    notes: Mapping[int, str] | None = None,
    dots: str = "…",
) -> Iterator[str]:
    """Yield the lines of a table that is at most ``width`` wide, unless an id is wider.

    Below ``narrow`` columns an item takes two lines. With ``all_columns`` no column is left out: they continue on
    further lines. ``notes`` has texts that follow the rows of
    these indexes on lines of their own.
    """
    lines = [tuple(column.title for column in columns), *rows] if header else [*rows]
    natural = [max((cell_width(line[place]) for line in lines), default=0) for place in range(len(columns))]
    layout = _layout(columns, natural, width, narrow=narrow, all_columns=all_columns)
    for number, line in enumerate(lines, start=-1 if header else 0):
        for indent, places in layout:
            cells = [_cell(line[place], columns[place], size, dots) for place, size in places.items()]
            yield (indent + _GAP.join(cells)).rstrip()
        if notes and (note := notes.get(number)):
            yield from wrap(note, max(width, 10), initial_indent=_GAP, subsequent_indent=_GAP, break_on_hyphens=False)


_Line = tuple[str, dict[int, int]]
"""A line of an item: its indent, and the width of each of its columns."""


def _layout(
    columns: Sequence[Column], natural: Sequence[int], width: int, *, narrow: int, all_columns: bool
) -> list[_Line]:
    """Return the lines of an item: one if it fits, otherwise its id alone, and the other columns below."""
    every = dict(enumerate(natural))
    if width >= narrow and (one := _fitted(columns, every, width, may_drop=not all_columns)):
        return [("", one)]
    rest = {place: size for place, size in every.items() if place}
    below = _several_lines if all_columns else _one_line
    return [("", {0: every[0]}), *((_GAP, line) for line in below(columns, rest, width - len(_GAP)))]


def _one_line(columns: Sequence[Column], natural: dict[int, int], width: int) -> list[dict[int, int]]:
    """Return the first columns that fit on one line, even without those that are never left out of it otherwise."""
    while natural:
        if line := _fitted(columns, natural, width):
            return [line]
        natural.popitem()
    return []


def _several_lines(columns: Sequence[Column], natural: dict[int, int], width: int) -> list[dict[int, int]]:
    """Return all columns, on as many lines as they need."""
    lines: list[dict[int, int]] = []
    for place, size in natural.items():
        if lines and _fitted(columns, lines[-1] | {place: size}, width, may_drop=False):
            lines[-1][place] = size
        else:
            lines.append({place: size})
    return [_fitted(columns, line, width, may_drop=False) or line for line in lines]


def _fitted(
    columns: Sequence[Column], natural: dict[int, int], width: int, *, may_drop: bool = True
) -> dict[int, int] | None:
    """Return the widths of the columns that fit on one line, in order; None if one that must be there does not."""
    taken: list[int] = []
    for place in sorted(natural, key=lambda place: columns[place].rank):
        least = sum(_least(columns[each], natural[each]) for each in (*taken, place)) + len(_GAP) * len(taken)
        if least <= width:
            taken.append(place)
        elif not (may_drop and columns[place].rank):
            return None
    sizes = {place: natural[place] for place in sorted(taken)}
    for _ in range(sum(sizes.values()) + len(_GAP) * (len(sizes) - 1) - width):
        spare = [place for place, size in sizes.items() if size > _least(columns[place], size)]
        sizes[max(spare, key=sizes.__getitem__)] -= 1
    return sizes


def _least(column: Column, size: int) -> int:
    return min(size, column.least) if column.cut else size


def _cell(text: str, column: Column, size: int, dots: str) -> str:
    if cell_width(text) > size and column.cut:
        text = shortened(text, size, dots=dots, middle=column.cut == "middle")
    blanks = " " * (size - cell_width(text))
    return blanks + text if column.right else text + blanks


def shortened(text: str, width: int, *, dots: str = "…", middle: bool = False) -> str:
    """Return a text that is cut to ``width``, at its end or in the middle."""
    if cell_width(text) <= width:
        return text
    room = width - len(dots)
    if room <= 0:
        return head(text, width)
    tail = room // 2 if middle else 0
    return head(text, room - tail) + dots + head(text[::-1], tail)[::-1]


def head(text: str, width: int) -> str:
    """Return as much of the beginning of a text as ``width`` has room for."""
    if text.isascii():
        return text[: max(width, 0)]
    end = 0
    while end < len(text) and cell_width(text[: end + 1]) <= width:
        end += 1
    return text[:end]
