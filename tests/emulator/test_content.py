"""Bytes, files and functions as content: the same range of the same bytes, whatever the source."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches.emulator._content import PIECE, Content, content_of, gzipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BYTES = bytes(range(256)) * (PIECE // 256 * 2) + b"the end"


def chunks() -> Iterator[bytes]:
    for position in range(0, len(BYTES), 1000):
        yield BYTES[position : position + 1000]


@pytest.fixture(params=["bytes", "path", "function"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> Content:
    path = tmp_path / "x"
    path.write_bytes(BYTES)
    makers: dict[str, Callable[[], Content]] = {
        "bytes": lambda: content_of(BYTES),
        "path": lambda: content_of(path),
        "function": lambda: content_of(chunks, len(BYTES)),
    }
    return makers[request.param]()


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, len(BYTES)), (0, 0), (1, 2), (999, 2001), (PIECE - 1, PIECE + 1), (len(BYTES) - 3, len(BYTES))],
)
def test_every_stretch_is_that_of_the_bytes(content: Content, start: int, stop: int) -> None:
    """Every range is equal to that of the bytes, across pieces and chunks, and as often as it is read."""
    part = content.part(start, stop)
    assert (stop - start, BYTES[start:stop]) == (part.size, part.read())
    assert BYTES[start:stop] == part.read()


def test_it_comes_in_pieces(content: Content) -> None:
    """Content comes in pieces of at most a quarter of a mebibyte."""
    assert max(map(len, content.pieces())) <= PIECE


@given(st.lists(st.binary(max_size=5)), st.integers(0, 30), st.integers(0, 30))
def test_chunks_may_be_of_any_length(pieces: list[bytes], one: int, other: int) -> None:
    """Chunks may have any length, including zero."""
    start, stop = sorted((one, other))
    whole = b"".join(pieces)
    assert whole[start:stop] == content_of(lambda: pieces, len(whole)).part(start, stop).read()


def test_only_a_function_has_a_size_to_be_told(tmp_path: Path) -> None:
    """Only a function needs a size; the size of other content is known, and a missing file raises."""
    with pytest.raises(ValueError, match="need a size"):
        content_of(lambda: [b"x"])
    with pytest.raises(ValueError, match="leave it out"):
        content_of(b"x", 1)
    with pytest.raises(FileNotFoundError):
        content_of(tmp_path / "gone")


def test_compressed_it_is_the_same() -> None:
    """Compressed content unpacks to the same bytes, and is equal each time."""
    squeezed = b"".join(gzipped(content_of(BYTES).pieces()))
    assert gzip.decompress(squeezed) == BYTES
    assert squeezed == b"".join(gzipped(content_of(BYTES).pieces()))
