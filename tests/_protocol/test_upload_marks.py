"""Tests of the white space that gives a file unique content, and that no reader of JSON sees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches._protocol.upload_marks import MARK_BYTES, Mark, mark_of, place_in, tagged_name

MARK = mark_of("run", 1, 2)
_keys = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=9), max_size=4)
_blanks = st.text(alphabet=" \t\r\n", max_size=20).map(str.encode)


def marked(content: bytes, mark: Mark = MARK) -> bytes:
    place = place_in(content)
    assert place is not None
    return content[:place] + mark.white_space + content[place:]


@given(st.lists(st.text() | st.integers()))
def test_a_mark_is_64_spaces_and_tabs(parts: list[Any]) -> None:
    """A mark contains no other white space, because a line break would end the line. The tag is the same bits."""
    mark = mark_of(*parts)
    assert len(mark.white_space) == MARK_BYTES == 64
    assert set(mark.white_space) <= set(b" \t")
    bits = mark.white_space.replace(b" ", b"0").replace(b"\t", b"1")
    assert mark.tag == f"{int(bits, 2):016x}"


def test_the_same_parts_have_the_same_mark() -> None:
    """Equal parts have the same mark in every process, to identify an attempt after a crash; others differ."""
    assert mark_of("run", 1, 2) == MARK
    assert MARK.tag == "9ec2e05341281099"
    others = [mark_of("run", 1, 3), mark_of("run", 2, 2), mark_of("run", 12), mark_of("other", 1, 2), mark_of()]
    assert len({MARK, *others}) == 6


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"{}\n", 1),
        (b'{"a": 1}', 1),
        (b"\xef\xbb\xbf{}\n", 4),
        (b" \t{}\n", 3),
        (b"\n\r\n\n{}\n", 5),
        (b"\xef\xbb\xbf \n {}\n", 7),
    ],
    ids=["object", "line without an end", "BOM", "blanks", "blank lines", "all"],
)
def test_the_place_is_right_after_the_first_brace(content: bytes, place: int) -> None:
    """A mark is placed after the first brace, whatever precedes it, if that is not content."""
    assert place_in(content) == place
    assert content[place - 1 : place] == b"{"


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"[{}]", b"no JSON {}", b"\0{}", b"\xef\xbb{}", b"\x0b{}", b"\xa0{}"]
)
def test_what_begins_with_no_object_has_no_place(content: bytes) -> None:
    """A file that does not begin with an object is left unchanged, for the check to refuse."""
    assert place_in(content) is None


@given(_keys, _blanks, st.lists(_keys.map(lambda row: json.dumps(row).encode()), max_size=3))
def test_every_reader_of_json_reads_the_same(first: dict[str, Any], blanks: bytes, rest: list[bytes]) -> None:
    """The first object has the same value with a mark in it, and all else is the same byte by byte."""
    content = blanks + b"\n".join([json.dumps(first).encode(), *rest])
    with_mark = marked(content)
    assert with_mark.replace(MARK.white_space, b"", 1) == content
    lines, expected = with_mark.lstrip().split(b"\n"), content.lstrip().split(b"\n")
    assert json.loads(lines[0]) == first
    assert lines[1:] == expected[1:]
    assert with_mark.count(b"\n") == content.count(b"\n")


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("requests.jsonl", "requests", ".jsonl"),
        ("a.b.csv", "a.b", ".csv"),
        ("no suffix", "no suffix", ""),
        (".hidden", ".hidden", ""),
        ("x" * 300 + ".jsonl", "x" * 60, ".jsonl"),
        ("x" * 300, "x" * 60, ""),
        ("2026. " + "x" * 300, "2026. " + "x" * 54, ""),
        ("größe.jsonl", "größe", ".jsonl"),
    ],
    ids=lambda text: text[:12],
)
def test_the_tag_is_in_the_name(name: str, stem: str, suffix: str) -> None:
    """The tag precedes the suffix, which gives the type of the file; a long name is shortened."""
    assert tagged_name(name, MARK) == f"{stem}-{MARK.tag}{suffix}"
