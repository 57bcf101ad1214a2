"""Standard streams whose reader may never read."""

from __future__ import annotations

import io
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from together_batches.cli import _streams
from together_batches.cli._streams import Unblocked, unblocked_streams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")

MUCH = "x" * 1_000_000
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


def test_a_pipe_that_is_not_read(pipe: Pipe) -> None:
    """A pipe that is not read does not block its writer; everything arrives in order once it is read."""
    stream = Unblocked(pipe.writer, lossy=False)
    stream.write("first\n")
    stream.write(MUCH)
    stream.write("last\n")
    stream.flush()
    assert not stream.drain(0)
    assert stream.waiting
    assert pipe.read(1_000_011) == b"first\n" + MUCH.encode() + b"last\n"
    assert stream.drain(10)
    assert stream.waiting == 0


def test_what_the_encoding_cannot_say(pipe: Pipe) -> None:
    """A character that the encoding lacks becomes an escape."""
    Unblocked(pipe.writer, lossy=False).write("é\udc80")
    assert pipe.read(10) == b"\\xe9\\udc80"


def test_bytes(pipe: Pipe) -> None:
    """Bytes are written unchanged, in order with text."""
    stream = Unblocked(pipe.writer, lossy=False)
    stream.write("a")
    stream.write_bytes(b"\xff")
    assert pipe.read(2) == b"a\xff"


def test_a_reader_that_left(pipe: Pipe) -> None:
    """A closed pipe raises an error in the next write, except in a lossy stream."""
    pipe.reader.close()
    strict, lossy = Unblocked(pipe.writer, lossy=False), Unblocked(pipe.writer, lossy=True)
    for stream in (strict, lossy):
        stream.write("a")
        assert stream.drain(10)
    for act in (lambda: strict.write("b"), strict.flush):
        with pytest.raises(BrokenPipeError):
            act()
    lossy.write("b")
    lossy.flush()


def test_a_lossy_stream_is_bounded(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lossy stream drops text above its limit, and reports the amount once there is room again."""
    monkeypatch.setattr(_streams, "_MOST_WAITING", 1_000_000)
    stream = Unblocked(pipe.writer, lossy=True)
    stream.write(MUCH + "\n")
    for _ in range(3):
        stream.write("lost\n")
    pipe.read(1_000_001)
    assert stream.drain(10)
    stream.write("next\n")
    note = b"(3 lines were left out, since nothing read them)\n"
    assert pipe.read(len(note) + 5) == note + b"next\n"


def test_one_wait_for_a_reader_that_does_not_read(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one flush waits for a stalled stream; later ones return at once until it is read again."""
    monkeypatch.setattr(_streams, "_FLUSH_SECONDS", 0.2)
    stream = Unblocked(pipe.writer, lossy=False)
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
            assert isinstance(sys.stdout, Unblocked)
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
        print(MUCH)
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
