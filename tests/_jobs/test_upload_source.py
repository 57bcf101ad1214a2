"""The content of an upload: measured, marked, and unchanged when it is sent.

No read or write of a file happens in the thread of the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches import BatchRequest, UsageError, ValidationError, jsonl
from together_batches._jobs import source_kinds
from together_batches._jobs.upload_source import MarkedFile, UploadSource, open_upload, place_of_mark
from together_batches._protocol.upload_marks import Mark, mark_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MARK = mark_of("a test")
BIG = os.urandom(2_500_000)
REQUESTS = [BatchRequest(f"row-{number}", {"model": "m"}) for number in range(3)]
LINES = b"".join(b'{"custom_id":"row-%d","body":{"model":"m"}}\n' % number for number in range(3))


async def rest_of(content: UploadSource, position: int = 0) -> bytes:
    read = b""
    while position + len(read) < content.size:
        read += await content.block(position + len(read))
    return read


async def everything(
    source: Any, filename: str | None = None, *, mark: Mark | None = None
) -> tuple[bytes, str, int, str]:
    """Return the content of a source and its name."""
    async with open_upload(source, filename, mark=mark) as content:
        content.lines.raise_for_problems()
        return await rest_of(content), content.name, content.size, content.sha256


async def refusal(source: Any, filename: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        await everything(source, filename)
    return str(caught.value)


# --- what can be uploaded -------------------------------------------------------------------------------------


async def test_a_path(tmp_path: Path) -> None:
    """A path has its own name, unless another is given, and a size and hash before the upload."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(BIG)
    assert await everything(path) == (BIG, "in.jsonl", len(BIG), hashlib.sha256(BIG).hexdigest())
    assert (await everything(path, "other.csv"))[1] == "other.csv"


async def test_an_open_file_is_left_open(tmp_path: Path) -> None:
    """An open file is sent from its current position, and stays open."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(BIG)
    with path.open("rb") as file:
        file.seek(1_000_000)
        assert (await everything(file))[:2] == (BIG[1_000_000:], "in.jsonl")
        assert not file.closed


async def test_requests() -> None:
    """An iterable of requests is consumed in another thread, and an async iterable in the event loop."""
    threads: set[int] = set()

    def plain() -> Iterator[BatchRequest]:
        for request in REQUESTS:
            threads.add(threading.get_ident())
            yield request

    async def awaited() -> AsyncIterator[BatchRequest]:
        for request in REQUESTS:
            yield request

    for source in (REQUESTS, tuple(REQUESTS), plain(), awaited()):
        assert (await everything(source))[:2] == (LINES, "requests.jsonl")
    assert threading.get_ident() not in threads


async def test_many_requests_are_written_as_they_come() -> None:
    """Many requests are written as they arrive, and not collected first."""
    request = BatchRequest("row", {"text": "x" * 100_000})

    async def awaited() -> AsyncIterator[BatchRequest]:
        for _ in range(30):
            yield request

    assert (await everything(awaited()))[2] == (await everything([request] * 30))[2] > 3_000_000


async def test_what_is_no_request() -> None:
    """An invalid request is reported by its number, for iterables of either kind."""

    async def awaited() -> AsyncIterator[BatchRequest]:
        yield REQUESTS[0]
        yield BatchRequest("row", {"n": float("nan")})

    for source in ([REQUESTS[0], BatchRequest("row", {"n": float("nan")})], awaited()):
        with pytest.raises(ValidationError, match=r"request 2: .*finite") as caught:
            await everything(source)
        assert caught.value.problems[0].startswith("request 2: ")
    with pytest.raises(ValidationError, match="request 1: "):
        await everything({"custom_id": "row"})


async def test_an_upload_is_never_empty(tmp_path: Path) -> None:
    """A source without a byte is refused, whatever its kind."""
    (tmp_path / "empty").touch()
    assert await refusal(tmp_path / "empty") == f"{tmp_path}/empty: 0 bytes, so there is nothing to upload"
    assert await refusal(b"") == "the content: 0 bytes, so there is nothing to upload"
    assert await refusal([]) == "the requests: 0 bytes, so there is nothing to upload"


@pytest.mark.parametrize("name", ["", " ", "\ud800", 5])
async def test_a_name_that_cannot_be_sent(name: str) -> None:
    """A file name must be text that can be sent."""
    assert "filename must be text" in await refusal(b"{}", name)


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "gone"])
async def test_a_file_that_changes_is_noticed(tmp_path: Path, change: str) -> None:
    """A change of a file is noticed before its last block is sent: only content with the original hash arrives."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(BIG)
    async with open_upload(path, None) as content:
        first = await content.block(0)
        with path.open("r+b") as file:
            match change:
                case "longer":
                    file.seek(0, os.SEEK_END)
                    file.write(b"x")
                case "shorter":
                    file.truncate(2_400_000)
                case "gone":
                    file.truncate(0)
                case _:
                    file.seek(len(BIG) - 1)
                    file.write(bytes([BIG[-1] ^ 1]))
        with pytest.raises(UsageError, match=r"in\.jsonl changed while it was uploaded"):
            await rest_of(content, len(first))


async def test_it_can_be_read_again() -> None:
    """A source can be read again from its beginning, as often as it has to be sent."""
    async with open_upload(BIG, None) as content:
        for _ in range(2):
            assert await content.block(0) == BIG[: 1 << 20]
            assert await content.block(1 << 20) == BIG[1 << 20 : 2 << 20]
            assert await content.block(2 << 20) == BIG[2 << 20 :]


async def test_an_iterable_without_an_end_is_left() -> None:
    """The thread of an endless iterable stops when the call is cancelled."""
    going = threading.Event()
    left = threading.Event()

    def plain() -> Iterator[BatchRequest]:
        try:
            while True:
                going.set()
                yield REQUESTS[0]
        finally:
            left.set()

    task = asyncio.create_task(everything(plain()))
    await asyncio.to_thread(going.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(left.wait, 10)


class _Stalled(io.RawIOBase):
    """A file that can be read once: it returns a line, and then blocks until it is released."""

    def __init__(self) -> None:
        self._rest = [LINES]
        self.stalled = threading.Event()
        self.end = threading.Event()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size == 0 or self._rest:
            return self._rest.pop() if size else b""
        self.stalled.set()
        self.end.wait(30)
        return b""


@pytest.mark.parametrize("way", ["task", "scope"])
async def test_a_cancelled_call_waits_for_no_read(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled call does not wait for a blocked read; its thread ends with the read and closes what was opened."""
    closed = threading.Event()

    class Scratch(io.FileIO):
        def close(self) -> None:
            super().close()
            closed.set()

    monkeypatch.setattr(source_kinds.tempfile, "TemporaryFile", lambda: Scratch(tmp_path / "scratch", "w+"))
    pipe, scope = _Stalled(), anyio.CancelScope()

    async def upload() -> None:
        with scope:
            await everything(pipe)

    task = asyncio.create_task(upload())
    await asyncio.to_thread(pipe.stalled.wait, 10)
    (task if way == "task" else scope).cancel()
    await asyncio.wait([task], timeout=10)
    assert task.done()
    assert task.cancelled() is (way == "task")
    assert not closed.is_set()
    pipe.end.set()
    assert await asyncio.to_thread(closed.wait, 10)


def open_in(directory: Path) -> list[str]:
    """Return the files of this process in a directory."""
    places = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return [place for place in places if place.startswith(str(directory))]


async def test_a_second_cancellation_closes_the_file(tmp_path: Path) -> None:
    """The file is closed when the call ends, also if its task is cancelled once more meanwhile."""
    (tmp_path / "in.jsonl").write_bytes(LINES)
    opened = asyncio.Event()

    async def upload() -> None:
        async with open_upload(tmp_path / "in.jsonl", None):
            opened.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(upload())
    await opened.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not open_in(tmp_path)


# --- unique content -------------------------------------------------------------------------------------------


def marked(lines: bytes = LINES) -> bytes:
    return lines.replace(b"{", b"{" + MARK.white_space, 1)


@pytest.mark.parametrize("kind", ["path", "bytes", "bytearray", "open file", "pipe", "list", "generator", "async"])
async def test_a_mark_is_in_what_is_uploaded(tmp_path: Path, kind: str) -> None:
    """The mark is in the content after the first brace, and in size, hash and name; the source is unchanged."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"before\n" + LINES if kind == "open file" else LINES)

    async def awaited() -> AsyncIterator[BatchRequest]:
        for request in REQUESTS:
            yield request

    reading, writing = os.pipe()
    os.write(writing, LINES)
    os.close(writing)
    with path.open("rb") as file, os.fdopen(reading, "rb") as pipe:
        if kind == "open file":
            file.readline()
        mutable = bytearray(LINES)
        sources: dict[str, Any] = {
            "path": path,
            "bytes": LINES,
            "bytearray": mutable,
            "open file": file,
            "pipe": pipe,
            "list": REQUESTS,
            "generator": iter(REQUESTS),
            "async": awaited(),
        }
        stem = "in" if kind in {"path", "open file"} else "requests"
        expected = marked()
        assert await everything(sources[kind], mark=MARK) == (
            expected,
            f"{stem}-{MARK.tag}.jsonl",
            len(expected),
            hashlib.sha256(expected).hexdigest(),
        )
        assert not file.closed
        assert mutable == LINES
    assert path.read_bytes().endswith(LINES)
    assert len(path.read_bytes()) == len(LINES) + 7 * (kind == "open file")


async def test_without_a_mark_nothing_is_added() -> None:
    """Without a mark the content and the name are the caller's."""
    async with open_upload(LINES, None) as content:
        assert (await rest_of(content), content.name, content.is_marked) == (LINES, "requests.jsonl", False)


async def test_content_without_a_place_for_a_mark_is_not_marked() -> None:
    """Content that has no place for a mark is uploaded as it is, under its own name."""
    async with open_upload(b"no JSON", None, mark=MARK) as content:
        assert (await rest_of(content), content.name, content.is_marked) == (b"no JSON", "requests.jsonl", False)


async def test_a_name_that_is_given_has_the_tag_too() -> None:
    """The tag is added to a given name too, which is shortened if it is long."""
    assert (await everything(LINES, "x" * 100 + ".csv", mark=MARK))[1] == f"{'x' * 60}-{MARK.tag}.csv"


async def test_marked_content_can_be_read_again_and_from_within() -> None:
    """Marked content can be read again and from any position: blocks end at both ends of the mark."""
    async with open_upload(LINES, None, mark=MARK) as content:
        for _ in range(2):
            assert await rest_of(content) == marked()


async def test_a_file_whose_hash_is_known_is_not_hashed_again(tmp_path: Path) -> None:
    """The hash that the caller gives is used as it is; that the file has another length is still noticed."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(LINES)
    async with open_upload(path, None, sha256="of the caller") as content:
        assert (content.size, content.sha256) == (len(LINES), "of the caller")
        assert await rest_of(content) == LINES
        path.write_bytes(LINES[:-1])
        with pytest.raises(UsageError, match=r"in\.jsonl changed while it was uploaded"):
            await rest_of(content)


async def test_a_marked_file_that_changes_is_noticed(tmp_path: Path) -> None:
    """A change of a marked file is noticed before and behind the mark."""
    for changed in (LINES[:-1] + b" ", LINES[:-1], b"", b"[" + LINES[1:]):
        path = tmp_path / "in.jsonl"
        path.write_bytes(LINES)
        async with open_upload(path, None, mark=MARK) as content:
            path.write_bytes(changed)
            with pytest.raises(UsageError, match=r"in\.jsonl changed while it was uploaded"):
                await rest_of(content)


async def test_a_reader_has_the_content_or_the_source() -> None:
    """A reader gets either the content with the mark, as uploaded, or the source without it."""
    async with open_upload(LINES, None, mark=MARK) as content:
        for as_given, expected in ((False, marked()), (True, LINES)):
            reader = content.reader(as_given=as_given)
            assert b"".join(iter(partial(reader.read, 7), b"")) == expected


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "requests"])
async def test_lines_that_are_changed(kind: str, tmp_path: Path) -> None:
    """Each line is sent as it was changed, with the mark; the source is as before, and is read from its position."""
    path, longer = tmp_path / "in.jsonl", tmp_path / "longer.jsonl"
    path.write_bytes(LINES)
    longer.write_bytes(b"before\n" + LINES)
    with longer.open("rb") as file:
        file.seek(7)
        requests = [BatchRequest(f"row-{number}", {"model": "m"}) for number in range(3)]
        sources = {"path": path, "bytes": LINES, "file": file, "requests": requests}
        async with open_upload(sources[kind], None, mark=MARK, change=lambda line: line.replace(b"}", b"} ")) as sent:
            assert sent.is_changed
            assert (await rest_of(sent)).replace(MARK.white_space, b"") == LINES.replace(b"}", b"} ")
            assert sent.reader(as_given=True).read(10_000) == LINES
        assert not file.closed
    assert (path.read_bytes(), longer.read_bytes()) == (LINES, b"before\n" + LINES)


# --- the place of the mark ------------------------------------------------------------------------------------


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
    expected = content[:place] + MARK.white_space + content[place:]
    file = MarkedFile(io.BytesIO(content), place, MARK.white_space)
    for _ in range(2):
        file.seek(start)
        read, number = b"", 0
        while block := file.read(size := sizes[number % len(sizes)]):
            assert len(block) <= size
            read, number = read + block, number + 1
        assert read == expected[start:]
