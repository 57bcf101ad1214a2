"""Standard streams whose reader may never read."""

from __future__ import annotations

import io
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from together_batches.cli._terminal import streams
from together_batches.cli._terminal.streams import Unblocked, as_text, unblocked_streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")

MUCH = b"x" * 1_000_000
"""More bytes than a pipe holds."""


class Pipe:
    """A pipe, as a text stream to write to and a file to read from."""

    def __init__(self) -> None:
        ours, theirs = os.pipe()
        self.reader = os.fdopen(ours, "rb", buffering=0)
        self.writer = io.TextIOWrapper(os.fdopen(theirs, "wb"), "ascii")

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += self.reader.read(size - len(found))
        return found


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.reader.close()
    made.writer.close()


@pytest.fixture
def unblocked(pipe: Pipe) -> Iterator[Callable[..., Unblocked]]:
    """Make streams over the pipe, which are ended after the test."""
    made: list[Unblocked] = []

    def make(*, lossy: bool = False) -> Unblocked:
        made.append(Unblocked(pipe.writer, lossy=lossy))
        return made[-1]

    yield make
    for stream in made:
        stream.end()


def test_a_pipe_that_is_not_read(pipe: Pipe, unblocked: Callable[..., Unblocked]) -> None:
    """A pipe that is not read does not block its writer; everything arrives in order once it is read."""
    stream = unblocked()
    stream.write(b"first\n")
    stream.write(MUCH)
    stream.write(b"last\n")
    stream.flush()
    assert not stream.drain(0)
    assert stream.waiting
    assert pipe.read(1_000_011) == b"first\n" + MUCH + b"last\n"
    assert stream.drain(10)
    assert stream.waiting == 0


def test_what_the_encoding_cannot_say(pipe: Pipe, unblocked: Callable[..., Unblocked]) -> None:
    """A character that the encoding lacks becomes an escape."""
    as_text(unblocked(), "ascii").write("é\udc80")
    assert pipe.read(10) == b"\\xe9\\udc80"


def test_bytes(pipe: Pipe, unblocked: Callable[..., Unblocked]) -> None:
    """Bytes are written unchanged, in order with text."""
    stream = as_text(unblocked(), "ascii")
    stream.write("a\n")
    stream.buffer.write(b"\xff")
    assert pipe.read(3) == b"a\n\xff"


def test_a_reader_that_left(pipe: Pipe, unblocked: Callable[..., Unblocked]) -> None:
    """A closed pipe raises an error in the next write, except in a lossy stream."""
    pipe.reader.close()
    strict, lossy = unblocked(), unblocked(lossy=True)
    for stream in (strict, lossy):
        stream.write(b"a")
        assert stream.drain(10)
    for act in (lambda: strict.write(b"b"), strict.flush):
        with pytest.raises(BrokenPipeError):
            act()
    lossy.write(b"b")
    lossy.flush()


def test_a_lossy_stream_is_bounded(
    pipe: Pipe, unblocked: Callable[..., Unblocked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lossy stream drops text above its limit, and reports the amount once there is room again."""
    monkeypatch.setattr(streams, "_MOST_WAITING", 1_000_000)
    stream = unblocked(lossy=True)
    stream.write(MUCH + b"\n")
    for _ in range(3):
        stream.write(b"lost\n")
    pipe.read(1_000_001)
    assert stream.drain(10)
    stream.write(b"next\n")
    note = b"(3 lines were left out, since nothing read them)\n"
    assert pipe.read(len(note) + 5) == note + b"next\n"


def test_one_wait_for_a_reader_that_does_not_read(
    unblocked: Callable[..., Unblocked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one flush waits for a stalled stream; later ones return at once until it is read again."""
    monkeypatch.setattr(streams, "_FLUSH_SECONDS", 0.2)
    stream = unblocked()
    stream.write(MUCH)
    began = time.monotonic()
    for _ in range(100):
        stream.flush()
    assert time.monotonic() - began < 10


def test_both_streams_of_a_command(pipe: Pipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pipes are replaced within the block, and files are not; at its end all is written and both are restored."""
    with (tmp_path / "errors").open("w") as file:
        monkeypatch.setattr(sys, "stdout", pipe.writer)
        monkeypatch.setattr(sys, "stderr", file)
        with unblocked_streams() as finish:
            assert isinstance(sys.stdout.buffer, Unblocked)
            assert sys.stderr is file
            assert (sys.stdout.fileno(), sys.stdout.isatty()) == (pipe.writer.fileno(), False)
            print("done")
            finish(False)
        assert (sys.stdout, sys.stderr) == (pipe.writer, file)
    assert pipe.read(5) == b"done\n"


def test_an_interrupted_command(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted command ends, whether its output is read or not."""
    monkeypatch.setattr(sys, "stdout", pipe.writer)
    with unblocked_streams() as finish:
        print(MUCH.decode())
        finish(True)


def test_no_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that are closed, or were closed when the command started, are not replaced."""
    monkeypatch.setattr(sys, "stdout", None)
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with unblocked_streams() as finish:
        assert (sys.stdout, sys.stderr) == (None, closed)
        finish(False)
