"""Tables that fit any terminal."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from together_batches._text import cell_width
from together_batches.cli._terminal.table import Column, draw, shortened

COLUMNS = (
    Column("ID"),
    Column("STATUS"),
    Column("DONE", rank=2, right=True),
    Column("AGE", rank=3, right=True),
    Column("MODEL", rank=1, cut="middle", least=12),
)
ID = "0123456789-0123456789-0123456789-xyz"
ROWS = [
    (ID, "IN_PROGRESS", "42 %", "1h30m", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    ("b", "FAILED", "-", "9s", "m"),
]


def drawn(width: int, **how: object) -> list[str]:
    return list(draw(COLUMNS, ROWS, width, **how))  # type: ignore[arg-type]


def test_wide() -> None:
    """If there is room, columns are as wide as their widest cell, and numbers are below each other."""
    assert drawn(200) == [
        "ID" + " " * 36 + "STATUS       DONE    AGE  MODEL",
        f"{ID}  IN_PROGRESS  42 %  1h30m  meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "b" + " " * 37 + "FAILED          -     9s  m",
    ]


def test_medium() -> None:
    """If there is less, models are shortened in the middle, and then columns are left out."""
    assert drawn(80)[1] == f"{ID}  IN_PROGRESS  42 %  1h30m  meta-lla…t-Turbo"
    assert drawn(73)[1] == f"{ID}  IN_PROGRESS  42 %  meta-lla…t-Turbo"
    assert drawn(64)[1] == f"{ID}  IN_PROGRESS  meta-l…-Turbo"
    assert drawn(60)[1] == f"{ID}  IN_PROGRESS  42 %"


def test_narrow() -> None:
    """Below 60 columns an item takes two lines, its id alone on the first, in full however narrow it is."""
    assert drawn(40, header=False) == [
        ID,
        "  IN_PROGRESS  42 %  1h30m  meta-l…Turbo",
        "b",
        "  FAILED          -     9s  m",
    ]
    assert drawn(20, header=False) == [ID, "  IN_PROGRESS  42 %", "b", "  FAILED          -"]
    assert drawn(8, header=False) == [ID, "b"]


def test_id_that_is_longer_than_the_line() -> None:
    """An id that leaves no room beside it is alone on its line, too, and nothing of it is cut."""
    assert list(draw(COLUMNS, [("x" * 70, *ROWS[0][1:])], 80, header=False)) == [
        "x" * 70,
        "  IN_PROGRESS  42 %  1h30m  meta-llama/Llama-3.3-70B-Instruct-Turbo",
    ]


def test_all_columns() -> None:
    """Columns that were chosen are not left out: they go on on further lines."""
    assert drawn(30, header=False, all_columns=True)[:3] == [
        ID,
        "  IN_PROGRESS  42 %  1h30m",
        "  meta-llama/Lla…nstruct-Turbo",
    ]
    assert drawn(80, header=False, all_columns=True)[:1] == drawn(80, header=False)[:1]


def test_notes() -> None:
    """A note follows its row on lines of its own, in full."""
    lines = drawn(70, notes={1: "input format error: " + "word " * 20})
    assert lines[2].startswith("b")
    assert " ".join(" ".join(lines[3:]).split()) == "input format error: " + "word " * 19 + "word"
    assert all(line.startswith("  ") and len(line) <= 70 for line in lines[3:])


def test_no_rows() -> None:
    """A table without rows is its header, or nothing."""
    assert list(draw(COLUMNS, [], 80)) == ["ID  STATUS  DONE  AGE  MODEL"]
    assert list(draw(COLUMNS, [], 80, header=False)) == []


@pytest.mark.parametrize(
    ("text", "width", "middle", "expected"),
    [
        ("abcdefghij", 10, True, "abcdefghij"),
        ("abcdefghij", 5, True, "ab…ij"),
        ("abcdefghij", 4, True, "ab…j"),
        ("abcdefghij", 5, False, "abcd…"),
        ("abcdefghij", 1, False, "a"),
        ("漢字漢字漢字", 6, True, "漢…字"),
        ("漢字漢字漢字", 5, False, "漢字…"),
    ],
)
def test_shortened(text: str, width: int, middle: bool, expected: str) -> None:
    """A text is cut at its end or in the middle; wide characters count twice."""
    assert shortened(text, width, middle=middle) == expected
    assert "…" not in shortened(text, width, middle=middle, dots="...")


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.text(st.sampled_from("ab漢é"), max_size=30)] * len(COLUMNS)), max_size=4),
    st.integers(1, 120),
)
def test_nothing_is_wider_than_the_terminal(rows: list[tuple[str, ...]], width: int) -> None:
    """Whatever the cells are, no line is wider than the terminal but one with an id, and each id is there in full."""
    lines = list(draw(COLUMNS, rows, width, header=False))
    assert all(cell_width(line) <= width or any(line == row[0] for row in rows) for line in lines)
    rest = iter(lines)
    assert all(any(line.startswith(row[0].rstrip()) for line in rest) for row in rows)
