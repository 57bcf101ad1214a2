"""Binary files of the caller: paths, open files, and functions that open one."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import RunError, UsageError
from together_batches.runs._binary import BinaryInput, check_sink, write_sink

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = bytes(range(256)) * 4_000


class Slow:
    """A file that reads and writes a few thousand bytes at a time, in order."""

    def __init__(self, content: bytes = b"") -> None:
        self._source = io.BytesIO(content)
        self.written = b""
        self.is_closed = False

    def read(self, size: int, /) -> bytes:
        return self._source.read(min(size, 4_000))

    def write(self, content: bytes, /) -> int:
        self.written += content[:3_000]
        return min(len(content), 3_000)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(params=["path", "file", "function", "stream"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    kinds = {
        "path": str(path),
        "file": io.BytesIO(CONTENT),
        "function": partial(path.open, "rb"),
        "stream": lambda: Slow(CONTENT),
    }
    return kinds[request.param]


def test_a_source_is_read_as_often_as_needed(source: Any) -> None:
    """Each reading begins at the start, also one after a reading that was left."""
    given = BinaryInput(source)
    assert b"".join(given.blocks()) == CONTENT
    next(given.blocks())
    assert b"".join(given.blocks()) == CONTENT


@pytest.mark.parametrize(("offset", "size"), [(0, 10), (5_000, 600_000), (1_023_990, 100), (2_000_000, 5), (0, 0)])
def test_a_part_of_a_source(source: Any, offset: int, size: int) -> None:
    """A part is read from its offset on, whether or not the file can seek."""
    assert b"".join(BinaryInput(source).part(offset, size)) == CONTENT[offset : offset + size]


def test_lines_of_a_source(source: Any) -> None:
    """Lines are read, and with a hash of other content an error follows the last of them."""
    with BinaryInput(source).lines() as file:
        assert file.readlines() == io.BytesIO(CONTENT).readlines()
    with BinaryInput(source).lines("0" * 64) as file, pytest.raises(RunError, match="is not as it was collected"):
        file.read()


def test_names(tmp_path: Path) -> None:
    """A source is called by its path or by the name of its file."""
    path = tmp_path / "a.bin"
    path.touch()
    with path.open("rb") as file:
        for given in (path, file):
            assert (str(BinaryInput(given)), BinaryInput(given).stem) == (str(path), "a")
    assert (str(BinaryInput(io.BytesIO(), "a piece")), BinaryInput(io.BytesIO()).stem) == ("a piece", None)


def test_a_file_that_is_closed() -> None:
    """A file that is closed is an error of ours."""
    file = io.BytesIO(CONTENT)
    given = BinaryInput(file)
    file.close()
    with pytest.raises(UsageError, match="cannot read the source"):
        list(given.blocks())


@pytest.mark.parametrize("kind", ["path", "file", "function"])
def test_kinds_of_sinks(tmp_path: Path, kind: str) -> None:
    """All blocks are written; a file is left open, and what a function opened is closed."""
    path, file, opened = tmp_path / "out", Slow(), Slow()
    sink: Any = {"path": path, "file": file, "function": lambda: opened}[kind]
    check_sink(sink)
    write_sink(sink, iter([CONTENT, b"", CONTENT]))
    written = {"path": path.read_bytes() if kind == "path" else b"", "file": file.written, "function": opened.written}
    assert written[kind] == CONTENT * 2
    assert (file.is_closed, opened.is_closed) == (False, kind == "function")


def test_a_path_appears_when_it_is_complete(tmp_path: Path) -> None:
    """If the blocks end with an error, a path keeps its former content."""
    path = tmp_path / "out"
    path.write_bytes(b"before")

    def blocks() -> Any:
        yield b"some"
        raise UsageError("the source is gone")

    with pytest.raises(UsageError, match="the source is gone"):
        write_sink(path, blocks())
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"before"]


def test_a_class_is_a_function_that_opens_a_file() -> None:
    """A class of files is called to open one, although it has the methods of a file."""

    class Source(io.BytesIO):
        def __init__(self) -> None:
            super().__init__(b"content")

    class Sink(io.BytesIO):
        def close(self) -> None:
            written.append(self.getvalue())
            super().close()

    written: list[bytes] = []
    check_sink(Sink)
    write_sink(Sink, BinaryInput(Source).blocks())
    assert written == [b"content"]
