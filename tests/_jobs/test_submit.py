"""From requests to a job, with an upload and a create of three lines each."""

from __future__ import annotations

import asyncio
import io
import re
import tempfile
from typing import IO, TYPE_CHECKING, Any

import pytest

from together_batches import jsonl
from together_batches._jobs.submit import submit
from together_batches._protocol.upload_marks import MARK_BYTES
from together_batches.errors import JobNotCreatedError, UsageError, ValidationError
from together_batches.models import BatchJob, FileObject
from together_batches.rows import BatchRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from together_batches._jobs.upload_source import Source, UploadSource

CHAT = "/v1/chat/completions"
REQUESTS = [jsonl.chat_request(name, model="m", messages=[]) for name in "abc"]
LINES = b"".join(map(jsonl.encode, REQUESTS))
BAD = b'{"custom_id": "a"\n{"custom_id": "b", "body": {}}\n'


class Service:
    """A service that accepts uploads, creates jobs, and records their order."""

    def __init__(self, while_uploading: Callable[[], object] = lambda: None) -> None:
        self.done: list[str] = []
        self.uploaded = b""
        self.name = ""
        self.has_own_file = False
        self._while_uploading = while_uploading

    async def upload(self, content: UploadSource) -> FileObject:
        self.done.append("upload")
        self._while_uploading()
        self.name, self.uploaded = content.name, b""
        while len(self.uploaded) < content.size:
            self.uploaded += await content.block(len(self.uploaded))
        return FileObject(id="file-1")

    async def create(self, file_id: str, has_own_file: bool) -> BatchJob:
        self.done.append(f"create from {file_id}")
        self.has_own_file = has_own_file
        return BatchJob(id="job-1", input_file_id=file_id)

    async def submit(self, source: Any, *, endpoint: str = CHAT) -> BatchJob:
        return await submit(source, endpoint=endpoint, upload=self.upload, create=self.create)

    @property
    def mark(self) -> bytes:
        """The white space that was added to the uploaded content."""
        start = self.uploaded.index(b"{") + 1
        return self.uploaded[start : start + MARK_BYTES]

    @property
    def given(self) -> bytes:
        """The uploaded content without the mark."""
        return self.uploaded.replace(self.mark, b"", 1)


async def _one_by_one() -> AsyncIterator[BatchRequest]:
    for request in REQUESTS:
        await asyncio.sleep(0)
        yield request


class _Pipe(io.RawIOBase):
    """A file that can be read once."""

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._rest.readinto(buffer)


@pytest.mark.parametrize(
    "source",
    [
        LINES,
        bytearray(LINES),
        io.BytesIO(LINES),
        _Pipe(LINES),
        REQUESTS,
        tuple(REQUESTS),
        (request for request in REQUESTS),
        _one_by_one(),
    ],
    ids=["bytes", "bytearray", "file", "pipe", "list", "tuple", "generator", "async generator"],
)
async def test_from_anything(source: Source) -> None:
    """The lines of any source are checked, uploaded unchanged apart from a mark, and made a job."""
    service = Service()
    assert (await service.submit(source)).id == "job-1"
    assert service.done == ["upload", "create from file-1"]
    assert re.fullmatch(r"requests-[0-9a-f]{16}\.jsonl", service.name)
    assert service.given == LINES


@pytest.mark.parametrize("as_text", [True, False])
async def test_from_a_path(tmp_path: Path, *, as_text: bool) -> None:
    """A path is uploaded under its own name, byte by byte, including what the checks skip."""
    path = tmp_path / "größe.jsonl"
    content = LINES.replace(b"\n", b"\r\n").rstrip()
    path.write_bytes(content)
    service = Service()
    await service.submit(str(path) if as_text else path)
    assert re.fullmatch(r"größe-[0-9a-f]{16}\.jsonl", service.name)
    assert service.given == path.read_bytes() == content


async def test_an_open_file_is_read_from_where_it_stands(tmp_path: Path) -> None:
    """An open file is read from its current position, and stays open."""
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"no JSON\n" + LINES)
    service = Service()
    with path.open("rb") as file:
        file.readline()
        await service.submit(file)
        assert not file.closed
    assert service.given == LINES


# --- unique content -----------------------------------------------------------------------------------------------


async def test_each_submission_has_content_that_no_other_has() -> None:
    """The content of each submission is unique, and so is its file; ``create`` relies on that to identify the job."""
    service, marks = Service(), set[bytes]()
    for _ in range(5):
        await service.submit(LINES)
        marks.add(service.mark)
        assert service.given == LINES
        assert service.has_own_file
        assert set(service.mark) <= set(b" \t")
    assert len(marks) == 5


async def test_a_first_line_without_room_is_submitted_as_it_is() -> None:
    """If the first line has no room for a mark, the file keeps its name, and ``create`` does not rely on it."""
    text = "x" * (jsonl.MAX_LINE_BYTES - len(jsonl.encode(jsonl.chat_request("a", model="m", messages=[], user=""))))
    line = jsonl.encode(jsonl.chat_request("a", model="m", messages=[], user=text))
    service = Service()
    await service.submit(line)
    assert (service.name, service.uploaded == line, service.has_own_file) == ("requests.jsonl", True, False)


async def test_what_is_checked_is_what_is_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks include the mark: they read the bytes that are uploaded."""
    checked: list[int] = []
    validate = jsonl.validate

    def noted(source: Any, **options: Any) -> jsonl.Validation:
        checked.append((found := validate(source, **options)).bytes)
        return found

    monkeypatch.setattr(jsonl, "validate", noted)
    service = Service()
    await service.submit(LINES)
    assert checked == [len(service.uploaded)] == [len(LINES) + MARK_BYTES]


# --- refused sources ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [BAD, io.BytesIO(BAD)], ids=["bytes", "file"])
async def test_a_file_with_problems(source: Source) -> None:
    """The error lists all problems, with line and byte in the original file, and nothing is uploaded."""
    service = Service()
    with pytest.raises(ValidationError, match="2 problems in lines 1, 2; the first: line 1") as raised:
        await service.submit(source)
    assert [problem.partition(":")[0] for problem in raised.value.problems] == [
        "line 1 (byte 0)",
        "line 2 (byte 18), custom_id 'b'",
    ]
    assert raised.value.problems[0].endswith("at byte 17 of the line")
    assert service.done == []


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([REQUESTS[0], REQUESTS[1], REQUESTS[0]], "custom_id is that of line 1 too"),
        ([REQUESTS[0], BatchRequest("b", {})], "line 2 .*body.model is missing"),
        ([REQUESTS[0], BatchRequest("b", {"model": "m", "x": float("nan")})], "line 2 .* cannot be written"),
        ([BatchRequest("x" * 65, {"model": "m"})], "custom_id has 65 characters, more than 64"),
        ([REQUESTS[0], "b"], "line 2 .*'b' is not a BatchRequest"),
    ],
)
async def test_requests_with_problems(requests: Any, expected: str) -> None:
    """Problems of requests are reported by position, and nothing is uploaded."""
    service = Service()
    with pytest.raises(ValidationError, match=expected):
        await service.submit(requests)
    assert service.done == []


class _Odd:
    """A value that JSON cannot represent."""


_ODD_REQUESTS: list[Any] = [
    REQUESTS[0],
    BatchRequest("b", {"model": "m", "x": float("nan")}),
    BatchRequest("c", {}),
    REQUESTS[0],
    BatchRequest("e", {"model": "m", "x": _Odd()}),
    7,
    BatchRequest("", {"model": "m"}),
    REQUESTS[1],
]
_ODD_PROBLEMS = [
    "line 2 (byte 53), custom_id 'b': the request cannot be written as JSON: a number is not finite",
    "line 3 (byte 54), custom_id 'c': body.model is missing",
    "line 4 (byte 82), custom_id 'a': custom_id is that of line 1 too, and must be unique in the file",
    "line 5 (byte 135), custom_id 'e': the request cannot be written as JSON: Type is not JSON serializable: _Odd",
    "line 6 (byte 136): 7 is not a BatchRequest",
    "line 7 (byte 137), custom_id '': custom_id is empty",
]


@pytest.mark.parametrize("kind", ["list", "async"])
async def test_every_problem_of_requests_is_reported(kind: str) -> None:
    """All problems of requests are reported at once by position, values that JSON cannot represent included."""

    async def one_by_one() -> AsyncIterator[Any]:
        for request in _ODD_REQUESTS:
            yield request

    service = Service()
    with pytest.raises(ValidationError, match=r"the requests: 6 problems in lines 2, 3, 4, 5, 6, 7;") as caught:
        await service.submit(_ODD_REQUESTS if kind == "list" else one_by_one())
    assert list(caught.value.problems) == _ODD_PROBLEMS
    assert service.done == []


async def test_requests_without_an_end_that_cannot_be_written() -> None:
    """After a thousand problems an endless source of requests is not read further."""
    taken = 0

    def endless() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with pytest.raises(ValidationError, match="the requests: 1 000 problems"):
        await Service().submit(endless())
    assert taken == 1_000


@pytest.mark.parametrize("source", [b"", [], io.BytesIO(), iter(())], ids=["bytes", "list", "file", "iterator"])
async def test_nothing_at_all(source: Source) -> None:
    """No requests are an error, and no job is made."""
    service = Service()
    with pytest.raises(UsageError, match="0 bytes, so there is nothing to upload"):
        await service.submit(source)
    assert service.done == []


async def test_a_file_that_is_none(tmp_path: Path) -> None:
    """A missing or unreadable file raises an error that names it."""
    service = Service()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_bytes(b"\n\n")
    for name, expected in {
        "missing.jsonl": "cannot read .*missing.jsonl: there is no such file",
        ".": "it is a directory",
        "empty.jsonl": "empty.jsonl: 0 bytes",
    }.items():
        with pytest.raises(UsageError, match=expected):
            await service.submit(tmp_path / name)
    with pytest.raises(ValidationError, match=r"blank\.jsonl: 2 problems in lines 1, 2"):
        await service.submit(tmp_path / "blank.jsonl")
    assert service.done == []


@pytest.mark.parametrize("source", [7, None, io.StringIO("text"), {"a": 1}.keys()])
async def test_what_is_no_source(source: Any) -> None:
    """A value of the wrong type as source is misuse, with a specific message."""
    service = Service()
    with pytest.raises((UsageError, ValidationError), match=r"not from|instead of bytes|is not a BatchRequest"):
        await service.submit(source)
    assert service.done == []


async def test_the_endpoint_decides_what_is_checked() -> None:
    """The endpoint decides the checks: an audio line is invalid for chat, and the reverse."""
    clip = jsonl.audio_request("clip", model="m", file="https://media.example/clip.wav")
    service = Service()
    await service.submit([clip], endpoint="/v1/audio/transcriptions")
    assert service.done == ["upload", "create from file-1"]
    with pytest.raises(ValidationError, match='method is "FILE", which is for audio'):
        await service.submit([clip])
    with pytest.raises(ValidationError, match='it must be "FILE"'):
        await service.submit(REQUESTS, endpoint="/v1/audio/translations")
    with pytest.raises(UsageError, match="endpoint must be a path"):
        await service.submit(REQUESTS, endpoint="chat")
    assert len(service.done) == 2


@pytest.mark.parametrize("change", [b"", LINES + LINES, LINES[:-2] + b" }", LINES[:-1]], ids=len)
async def test_a_file_that_changes_meanwhile(tmp_path: Path, change: bytes) -> None:
    """If the file changes after the check, no job is created."""
    path = tmp_path / "requests.jsonl"
    path.write_bytes(LINES)
    service = Service(while_uploading=lambda: path.write_bytes(change))
    with pytest.raises(UsageError, match="changed while it was uploaded"):
        await service.submit(path)
    assert service.done == ["upload"]


async def test_a_file_that_is_replaced_meanwhile(tmp_path: Path) -> None:
    """If the file is replaced after the check, the checked one is uploaded."""
    path = tmp_path / "requests.jsonl"
    path.write_bytes(LINES)
    (tmp_path / "other").write_bytes(b"no JSON")
    service = Service(while_uploading=lambda: (tmp_path / "other").replace(path))
    await service.submit(path)
    assert service.given == LINES


async def test_what_goes_wrong_is_raised(tmp_path: Path) -> None:
    """An error of upload, create or source is raised unchanged; after a failed upload nothing is created."""

    async def refuse(*_: object) -> Any:
        message = "declined"
        raise JobNotCreatedError(message)

    def breaks() -> Iterator[BatchRequest]:
        yield REQUESTS[0]
        raise LookupError

    service = Service()
    with pytest.raises(JobNotCreatedError):
        await submit(LINES, endpoint=CHAT, upload=refuse, create=service.create)
    assert service.done == []
    with pytest.raises(JobNotCreatedError):
        await submit(LINES, endpoint=CHAT, upload=service.upload, create=refuse)
    with pytest.raises(LookupError):
        await service.submit(breaks())
    assert service.done == ["upload"]


@pytest.mark.parametrize("during", ["reading", "upload", "create"])
async def test_cancelled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, during: str) -> None:
    """A cancelled submission leaves no temporary file and no open one."""
    opened: list[IO[bytes]] = []
    really = tempfile.TemporaryFile

    def noted() -> IO[bytes]:
        opened.append(really(dir=tmp_path))
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", noted)
    reached, never = asyncio.Event(), asyncio.Event()

    async def stop(place: str) -> None:
        if place == during:
            reached.set()
            await never.wait()

    async def endless() -> AsyncIterator[BatchRequest]:
        for number in range(20_000):
            yield BatchRequest(str(number), {"model": "m", "messages": ["x" * 100]})
        await stop("reading")

    async def upload(_: UploadSource) -> FileObject:
        await stop("upload")
        return FileObject(id="file-1")

    async def create(_: str, has_own_file: bool) -> BatchJob:
        await stop("create")
        return BatchJob(id="job-1")

    task = asyncio.create_task(submit(endless(), endpoint=CHAT, upload=upload, create=create))
    await asyncio.wait_for(reached.wait(), 20)
    # During the create the file is no longer needed.
    assert [file.closed for file in opened] == [during == "create"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [file.closed for file in opened] == [True]
