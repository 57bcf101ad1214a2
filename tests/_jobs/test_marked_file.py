"""Where a mark has room in a file, and the file as it is read with the mark."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches import jsonl
from together_batches._jobs.marked_file import MarkedFile, place_of_mark
from together_batches._protocol.upload_marks import mark_of

if TYPE_CHECKING:
    from pathlib import Path

WHITE_SPACE = mark_of("a test").white_space
LINES = b'{"custom_id":"row-1","body":{}}\n{"custom_id":"row-2","body":{}}\n'


def place_in(content: bytes) -> int | None:
    return place_of_mark(io.BytesIO(content), 0)


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"  \t", b"\n\r\n", b"\xef\xbb\xbf\n "])
def test_its_place_is_in_the_first_object(before: bytes) -> None:
    """A byte order mark, blanks and blank lines before the first object are skipped."""
    assert place_in(before + LINES) == len(before) + 1


def test_its_place_is_counted_from_the_beginning_of_the_content() -> None:
    """What stands before the content of an open file does not count."""
    assert place_of_mark(io.BytesIO(b"before\n" + LINES), 7) == 1


@pytest.mark.parametrize("source", [b"[]\n", b"no JSON", b"\n\n", b"\0" + LINES, b""])
def test_what_begins_with_no_object_has_no_place(source: bytes) -> None:
    """Content that does not begin with an object gets no mark."""
    assert place_in(source) is None


@pytest.mark.parametrize(("free", "has_room"), [(64, True), (63, False)])
def test_a_first_line_without_room_has_no_place(free: int, has_room: bool) -> None:
    """The first line must have room within its limit of 10 MB; other lines may be longer."""
    line = b'{"x":"' + b"x" * (jsonl.MAX_LINE_BYTES - free - 8) + b'"}'
    assert (place_in(line) is not None) is has_room
    assert (place_in(b"\n" + line + b"\n" + line) is not None) is has_room
    assert place_in(b"{}\n" + line) == 1


@pytest.mark.parametrize(("free", "has_room"), [(64, True), (63, False)])
def test_a_file_without_room_has_no_place(tmp_path: Path, free: int, has_room: bool) -> None:
    """The file must have room within its limit of 100 MB."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"{}\n")
    with path.open("r+b") as file:
        file.truncate(jsonl.MAX_BYTES - free)
        assert (place_of_mark(file, 0) is not None) is has_room


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_marked_file_reads_right_across_its_mark(content: bytes, data: st.DataObject) -> None:
    """A marked file is read correctly from any position in blocks of any size, which are empty only at the end."""
    place = data.draw(st.integers(1, len(content)))
    start = data.draw(st.integers(0, len(content) + 64))
    sizes = data.draw(st.lists(st.integers(1, 100), min_size=1))
    expected = content[:place] + WHITE_SPACE + content[place:]
    file = MarkedFile(io.BytesIO(content), place, WHITE_SPACE)
    for _ in range(2):
        file.seek(start)
        read, number = b"", 0
        while block := file.read(size := sizes[number % len(sizes)]):
            assert len(block) <= size
            read, number = read + block, number + 1
        assert read == expected[start:]
