"""What can be uploaded, by kind: each is opened as a file, under its own name."""

from __future__ import annotations

import io
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import BatchRequest, UsageError
from together_batches._jobs import source_kinds
from together_batches._jobs.source_kinds import Spool, open_source
from together_batches.jsonl._files import RequestLines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

CONTENT = os.urandom(2_500_000)
REQUESTS = [BatchRequest(f"row-{number}", {"model": "m"}) for number in range(3)]
LINES = b"".join(b'{"custom_id":"row-%d","body":{"model":"m"}}\n' % number for number in range(3))


def opened(source: Any) -> tuple[bytes, str]:
    """Open a source; return its content and its name."""
    with ExitStack() as stack:
        spool = Spool(threading.Event())
        stack.callback(lambda: spool.file.close())
        found = open_source(source, RequestLines(), spool)
        if found.is_ours:
            stack.enter_context(found.file)
        found.file.seek(found.start)
        return found.file.read(), found.name


def refusal(source: Any) -> str:
    with pytest.raises(UsageError) as caught:
        opened(source)
    return str(caught.value)


def test_a_path(tmp_path: Path) -> None:
    """A path, as text or ``Path``, is opened under the name of its file."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(CONTENT)
    assert opened(path) == opened(str(path)) == (CONTENT, "in.jsonl")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes(kind: type) -> None:
    """Bytes, in any type or in a file in memory, have the default name of a file of requests."""
    assert opened(kind(CONTENT)) == (CONTENT, "requests.jsonl")


def test_an_open_file(tmp_path: Path) -> None:
    """An open file is read from its current position and stays open; its name is that of the file."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        file.seek(1_000_000)
        assert opened(file) == (CONTENT[1_000_000:], "in.jsonl")
        assert not file.closed


def test_a_file_that_can_be_read_only_once() -> None:
    """A file that can be read only once, such as a pipe, is copied to a temporary file, and stays open."""
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(CONTENT)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(reading, "rb") as pipe:
        assert opened(pipe) == (CONTENT, "requests.jsonl")
        assert not pipe.closed
    feeder.join()


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_requests(kind: Any) -> None:
    """Requests become lines of a temporary file, with the default name."""
    assert opened(kind(REQUESTS)) == (LINES, "requests.jsonl")


def test_what_an_iterable_raises_is_raised() -> None:
    """An exception from the iterable is raised unchanged, because it is the caller's own."""

    def plain() -> Iterator[BatchRequest]:
        yield REQUESTS[0]
        message = "mine"
        raise OSError(message)

    with pytest.raises(OSError, match=r"^mine$"):
        opened(plain())


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    """A source that cannot be read is refused with a message that names it."""
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "none") == f"cannot read {tmp_path}/none: there is no such file or directory"
    assert refusal(tmp_path) == f"cannot read {tmp_path}: it is a directory"
    assert refusal(tmp_path / "pipe") == f"cannot read {tmp_path}/pipe: it is not a file"
    assert refusal("\0") == "cannot read \0: embedded null byte"
    assert "not from int" in refusal(5)
    assert "gives str instead of bytes: open it in binary mode" in refusal(io.StringIO("{}"))


def test_a_file_that_may_not_be_read(sealed: Path, as_nobody: Callable[[], AbstractContextManager[None]]) -> None:
    """A file without read permission is refused like a missing one."""
    path = sealed / "in.jsonl"
    path.write_bytes(CONTENT)
    path.chmod(0)
    with as_nobody():
        assert refusal(path) == f"cannot read {path}: permission denied"


def test_nothing_is_spooled_once_it_is_stopped() -> None:
    """A spool that is stopped takes nothing more, so that a thread of a cancelled call cannot fill the disk."""
    stop = threading.Event()
    spool = Spool(stop)
    spool.write(b"before")
    stop.set()
    spool.write(b"after")
    with spool.file as file:
        file.seek(0)
        assert file.read() == b"before"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_requests_that_fit_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk for temporary files is an error that names their directory."""
    monkeypatch.setattr(source_kinds.tempfile, "TemporaryFile", lambda: Path("/dev/full").open("w+b", buffering=0))  # noqa: SIM115  # closed with the spool
    assert refusal(REQUESTS) == "cannot write to the directory for temporary files: no space left on device"
