# ruff: noqa: ASYNC240  # a test may wait for the disk
"""The files of an account: with fakes that return scripted responses, and with the emulator on real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from wires import AT_ONCE, KEY, ONCE, RawServer, http

from together_batches import (
    APIConnectionError,
    APIResponseValidationError,
    AsyncBatches,
    Batches,
    BatchesError,
    BatchJob,
    BatchRequest,
    ConflictError,
    FileObject,
    InternalServerError,
    NotFoundError,
    ResultsUnavailableError,
    UsageError,
    to_dict,
)
from together_batches._jobs.known_jobs import KnownJobs
from together_batches._protocol.files import Transfer
from together_batches._protocol.jobs import Answer
from together_batches._protocol.refusals import error_of
from together_batches.emulator import Emulator, Fault
from together_batches.files import AsyncFiles, Transfers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from together_batches._http.client_state import CallState
    from together_batches._http.streaming import Streaming
    from together_batches._protocol.jobs import Request

REQUESTS = b'{"custom_id":"row-1","body":{"model":"m"}}\n'
WHERE = {"Location": "https://storage.example/x?signature=%2F~", "X-Together-File-Id": "file-1"}


class Service:
    """A scripted response to each step, and a record of requests and pauses.

    A download returns the next of ``contents``, the last one again and again; an error is raised.
    """

    def __init__(self, *answers: object, contents: Sequence[bytes | BatchesError] = (b"onetwo",)) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.contents = list(contents)
        self.known = KnownJobs()
        self.slept: list[float] = []
        streaming = cast("Streaming", SimpleNamespace(send=self.transmit, receive=self.receive))
        self.files = AsyncFiles(Transfers(self.send, streaming, self.known), self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        status, body, *headers = cast("tuple[Any, ...]", self.answers.pop(0))
        server = http(status, body).partition(b"\r\n\r\n")[2]
        answer = Answer(request, "https://api.example/v1" + request.path, status, *headers or [{}], server)
        if status >= 400:
            raise error_of(answer)
        return answer

    async def send(self, request: Request, call: CallState) -> Answer:
        return self.answer(request)

    async def transmit(
        self,
        request: Transfer,
        *,
        redirect_is_answer: bool = False,
        on_sent: Callable[[int, int], None] | None = None,
    ) -> Answer:
        answer = self.answer(request)
        assert (answer.status >= 300) <= redirect_is_answer
        return answer

    async def receive(
        self, request: Transfer, on_length: Callable[[int | None], None] | None = None
    ) -> AsyncGenerator[bytes]:
        self.requests.append(request)
        content = self.contents.pop(0) if len(self.contents) > 1 else self.contents[0]
        if isinstance(content, BatchesError):
            raise content
        for start in range(0, len(content), 3):
            if on_length is not None:
                on_length(len(content))
            yield content[start : start + 3]

    @property
    def lines(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.requests]


def client(emulator: Emulator, **options: Any) -> AsyncBatches:
    return AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE, **options)


# --- upload, step by step -------------------------------------------------------------------------------------


async def test_an_upload_takes_three_steps() -> None:
    """An upload has three steps: get a URL, send the bytes, confirm them; the first one includes the hash."""
    service = Service((302, b"", WHERE), (200, b""), (200, {"id": "file-1", "bytes": len(REQUESTS)}))
    file = await service.files.upload(REQUESTS, filename="rows.jsonl", purpose="eval")
    assert file == FileObject(id="file-1", bytes=len(REQUESTS))
    assert service.lines == ["POST /files", "PUT /x", "POST /files/file-1/preprocess"]
    form, put, _ = service.requests
    assert isinstance(form, Transfer)
    assert isinstance(put, Transfer)
    for value in ("rows.jsonl", "eval", "jsonl", hashlib.sha256(REQUESTS).hexdigest()):
        assert f"\r\n\r\n{value}\r\n".encode() in form.head
    assert str(put.target) == WHERE["Location"]
    assert "signature" not in repr(put)


@pytest.mark.parametrize("status", [404, 405])
async def test_a_service_without_preprocessing(status: int) -> None:
    """If the service has no preprocessing step, the file is read instead."""
    service = Service((302, b"", WHERE), (200, b""), (status, b""), (200, {"id": "file-1"}))
    assert (await service.files.upload(REQUESTS)).id == "file-1"
    assert service.lines[3:] == ["GET /files/file-1"]


async def test_preprocessing_that_fails() -> None:
    """If preprocessing fails, the upload fails, because it is unknown if the file is usable."""
    service = Service((302, b"", WHERE), (200, b""), (500, b""))
    with pytest.raises(InternalServerError):
        await service.files.upload(REQUESTS)


async def test_known_content_is_not_sent_again() -> None:
    """Known content is not sent again: the service returns the file that has it."""
    service = Service((409, {"file_id": "file-0"}), (200, {"id": "file-0", "bytes": len(REQUESTS)}))
    assert (await service.files.upload(REQUESTS)).id == "file-0"
    assert service.lines == ["POST /files", "GET /files/file-0"]


@pytest.mark.parametrize("found", [(200, {"id": "file-0", "bytes": 0}), (404, b"")])
async def test_content_that_is_known_and_not_there_is_sent(found: tuple[int, object]) -> None:
    """Content whose hash is known from an incomplete upload is sent, without a hash the second time."""
    service = Service((409, {"file_id": "file-0"}), found, (302, b"", WHERE), (200, b""), (200, {"id": "file-1"}))
    assert (await service.files.upload(REQUESTS)).id == "file-1"
    first, _, second, *_ = service.requests
    assert isinstance(first, Transfer)
    assert isinstance(second, Transfer)
    assert (b"checksum" in first.head, b"checksum" in second.head) == (True, False)


@pytest.mark.parametrize("found", [(200, {"id": "file-0", "bytes": 0}), (404, b"")])
async def test_a_form_with_content_that_is_known_and_not_there(found: tuple[int, object]) -> None:
    """In a form such content cannot be sent: the error names the file, and the way that works."""
    service = Service((409, {"file_id": "file-0"}), found)
    with pytest.raises(ConflictError, match=r"as file-0; but file-0 does not have it: .* via='storage'"):
        await service.files.upload(REQUESTS, via="api")
    assert service.lines == ["POST /files/upload", "GET /files/file-0"]


@pytest.mark.parametrize("body", [b"", {"file_id": ".."}, {"error": "no"}])
async def test_another_conflict_is_one(body: object) -> None:
    """A conflict that names no file or an invalid one is an error."""
    for via in ("storage", "api"):
        with pytest.raises(ConflictError):
            await Service((409, body)).files.upload(REQUESTS, via=cast("Any", via))


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, WHERE),
        (302, {}),
        (302, {**WHERE, "Location": ""}),
        (302, {**WHERE, "Location": "http://storage.example/x"}),
        (302, {**WHERE, "Location": "ftp://storage.example/x"}),
        (302, {**WHERE, "Location": "https://user:password@storage.example/x"}),
        (302, {**WHERE, "X-Together-File-Id": ".."}),
    ],
)
async def test_a_place_that_no_file_may_go_to(status: int, headers: Mapping[str, str]) -> None:
    """A missing or unsafe upload URL is an invalid response."""
    service = Service((status, b"", headers))
    with pytest.raises(APIResponseValidationError, match="where to upload the file to"):
        await service.files.upload(REQUESTS)
    assert len(service.requests) == 1


async def test_an_upload_in_a_form() -> None:
    """An upload in a form is one request, for known content too."""
    service = Service((200, {"id": "file-1"}), (409, {"file_id": "file-0"}), (200, {"id": "file-0"}))
    assert (await service.files.upload(REQUESTS, via="api")).id == "file-1"
    assert (await service.files.upload(REQUESTS, via="api")).id == "file-0"
    assert service.lines == ["POST /files/upload", "POST /files/upload", "GET /files/file-0"]


async def test_nothing_is_sent_of_what_cannot_be_uploaded(tmp_path: Path) -> None:
    """A file that cannot be uploaded is reported before anything is sent."""
    service = Service()
    for source in (tmp_path, tmp_path / "none", b"", []):
        with pytest.raises(UsageError):
            await service.files.upload(source)
    with pytest.raises(UsageError, match="via must be 'storage' or 'api'; it is 'mail'"):
        await service.files.upload(REQUESTS, via=cast("Any", "mail"))
    with pytest.raises(UsageError, match="via must be"):
        await service.files.upload(REQUESTS, via=cast("Any", ["api"]))
    with pytest.raises(TypeError, match="on_progress must be a plain function"):
        await service.files.upload(REQUESTS, on_progress=cast("Any", "print"))
    with pytest.raises(UsageError, match="path is a path, not int"):
        await service.files.download("file-1", cast("Any", 5))
    assert service.requests == []


# --- small requests -------------------------------------------------------------------------------------------


async def test_a_file_as_the_service_tells_it() -> None:
    """A file is decoded from the service's form: times in seconds, capitalised names, unknown fields kept."""
    sent = {
        "id": "file-1",
        "object": "file",
        "created_at": 1789381230,
        "filename": "requests.jsonl",
        "bytes": 48213,
        "purpose": "batch-api",
        "FileType": "jsonl",
        "LineCount": 0,
        "Processed": True,
        "processing_status": "COMPLETED",
    }
    file = await Service((200, sent)).files.retrieve("file-1")
    assert file == FileObject(
        id="file-1",
        created_at=datetime(2026, 9, 14, 10, 20, 30, tzinfo=UTC),
        filename="requests.jsonl",
        bytes=48213,
        purpose="batch-api",
        file_type="jsonl",
        line_count=0,
        processed=True,
        processing_status="COMPLETED",
        extra={"object": "file"},
    )
    assert to_dict(file)["created_at"] == "2026-09-14T10:20:30Z"
    assert "error" not in to_dict(file)


async def test_when_a_file_was_seen() -> None:
    """A file has the service's own clock at the response, which is not part of its value or its plain data."""
    date = {"Date": "Mon, 14 Sep 2026 12:00:00 GMT"}
    sent = {"id": "file-1", "seen_at": "never"}
    file = await Service((200, sent, date)).files.retrieve("file-1")
    assert file.seen_at == datetime(2026, 9, 14, 12, tzinfo=UTC)
    assert file == FileObject(id="file-1", extra={"seen_at": "never"})
    assert to_dict(FileObject(id="file-1", seen_at=file.seen_at)) == {"id": "file-1"}
    (listed,) = await Service((200, {"data": [sent]}, date)).files.list()
    assert listed.seen_at == file.seen_at
    assert (await Service((200, sent)).files.retrieve("file-1")).seen_at is None


@pytest.mark.parametrize(
    ("sent", "where"),
    [
        (None, "null instead of an object at $"),
        ({}, "no id at $"),
        ({"id": None}, "no id at $.id"),
        ({"id": "file-2"}, "it is about file 'file-2' at $.id"),
    ],
)
async def test_what_is_no_file(sent: object, where: str) -> None:
    """An invalid file is reported with the position of the error."""
    with pytest.raises(APIResponseValidationError) as caught:
        await Service((200, sent)).files.retrieve("file-1")
    assert where in str(caught.value)


async def test_files_are_listed_newest_first() -> None:
    """Files are listed newest first in any wrapping; those without a time are last, and absent values are None."""
    files = [{"id": "b", "created_at": 1}, {"id": "c", "created_at": 0, "filename": ""}, {"id": "a", "created_at": 2}]
    for body in (files, {"data": files}):
        found = await Service((200, body)).files.list()
        assert [file.id for file in found] == ["a", "b", "c"]
        assert (found[2].created_at, found[2].filename) == (None, None)
    for body in (None, [], {"data": []}, {"data": None}):
        assert await Service((200, body)).files.list() == []
    assert [file.id for file in await Service((200, [{"id": "a"}, {}])).files.list()] == ["a"]
    with pytest.raises(APIResponseValidationError, match=r"no id at \$\[0\]"):
        await Service((200, [{}])).files.list()


@pytest.mark.parametrize(
    ("name", "value"),
    [("bytes", "5"), ("created_at", 1e300), ("Processed", 1), ("LineCount", "3"), ("purpose", ["x"])],
)
async def test_a_field_of_a_file_that_cannot_be_read(name: str, value: object) -> None:
    """An unreadable field of a file is None and kept in ``extra``; neither the file nor the list is an error."""
    file = await Service((200, {"id": "file-1", "filename": "a.jsonl", name: value})).files.retrieve("file-1")
    assert file == FileObject(id="file-1", filename="a.jsonl", extra={name: value})


async def test_deleting() -> None:
    """A delete has succeeded if the response says so, about this file."""
    service = Service((200, {"id": "file-1", "deleted": True}))
    await service.files.delete(FileObject(id="file-1"))
    assert service.lines == ["DELETE /files/file-1"]
    for body in (b"", {}, {"id": "file-1", "deleted": False}, {"id": "file-2", "deleted": True}):
        with pytest.raises(APIResponseValidationError, match="that file file-1 is deleted"):
            await Service((200, body)).files.delete("file-1")
    with pytest.raises(NotFoundError):
        await Service((404, b"")).files.delete("file-1")


@pytest.mark.parametrize("wrong", ["", " ", ".", "..", None, 5, b"file-1", "\ud800"])
async def test_what_is_no_id_is_refused(wrong: Any, tmp_path: Path) -> None:
    """An invalid id is refused before anything is sent; slashes and similar characters are encoded."""
    files = Service().files
    for call in (files.retrieve, files.delete, lambda wrong: files.download(wrong, tmp_path / "x")):
        with pytest.raises(UsageError, match="file id"):
            await call(wrong)
    with pytest.raises(UsageError, match="file id"):
        files.content(wrong)
    service = Service((200, {"id": "a/../b"}))
    await service.files.retrieve("a/../b")
    assert service.lines == ["GET /files/a%2F..%2Fb"]


# --- content and download -------------------------------------------------------------------------------------


async def test_content_and_download_are_the_same_bytes(tmp_path: Path) -> None:
    """``content`` yields the same bytes that ``download`` writes, which reports its progress."""
    files = Service((200, {"id": "file-1", "bytes": 6})).files
    async with files.content(FileObject(id="file-1")) as pieces:
        assert [piece async for piece in pieces] == [b"one", b"two"]
    steps: list[tuple[int, int | None]] = []
    path = await files.download("file-1", tmp_path / "out", on_progress=lambda *step: steps.append(step))
    assert path == tmp_path / "out"
    assert path.read_bytes() == b"onetwo"
    assert steps == [(3, 6), (6, 6)]


async def test_a_download_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A failed download leaves no file, under its name or beside it, and an existing file stays."""

    class Broken(Service):
        async def receive(self, *_: object) -> AsyncGenerator[bytes]:
            yield b"one"
            message = "it broke off"
            raise APIConnectionError(message)

    (tmp_path / "old").write_bytes(b"old")
    for name in ("new", "old"):
        with pytest.raises(APIConnectionError):
            await Broken().files.download("file-1", tmp_path / name, overwrite=True)

    def tell(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Service().files.download("file-1", tmp_path / "new", on_progress=tell)
    with pytest.raises(UsageError, match="exists already"):
        await Service().files.download("file-1", tmp_path / "old")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old": b"old"}


# --- a file that is absent or truncated ---

BACK_OFF = [1, 2, 4, 8, 16, 29]
"""Seconds between reads of an absent file, with a patience of 60 s."""


def gone() -> NotFoundError:
    return NotFoundError("no such file", status=404)


async def test_a_file_that_was_never_seen_is_a_404_at_once(tmp_path: Path) -> None:
    """A 404 for an id that was never seen is raised at once: the id is wrong, or of another account."""
    service = Service(contents=[gone()])
    with pytest.raises(NotFoundError, match=r"no such file$"):
        await service.files.download("file-1", tmp_path / "out")
    assert (service.slept, list(tmp_path.iterdir())) == ([], [])


async def _upload(service: Service) -> None:
    service.answers = [(302, b"", WHERE), (200, b""), (200, {"id": "file-1"})]
    await service.files.upload(REQUESTS)


async def _upload_in_a_form(service: Service) -> None:
    service.answers = [(200, {"id": "file-1"})]
    await service.files.upload(REQUESTS, via="api")


async def _upload_what_is_known(service: Service) -> None:
    service.answers = [(409, {"file_id": "file-1"}), (200, {"id": "file-1", "bytes": len(REQUESTS)})]
    await service.files.upload(REQUESTS)


async def _retrieve(service: Service) -> None:
    service.answers = [(200, {"id": "file-1"})]
    await service.files.retrieve("file-1")


async def _list(service: Service) -> None:
    service.answers = [(200, {"data": [{"id": "file-0"}, {"id": "file-1"}]})]
    await service.files.list()


async def _see_a_job(service: Service) -> None:
    service.known.note(BatchJob(id="job-1", output_file_id="file-0", error_file_id="file-1"))


async def _pass_it(service: Service) -> None:
    """Pass the file as a value."""


@pytest.mark.parametrize(
    "see", [_upload, _upload_in_a_form, _upload_what_is_known, _retrieve, _list, _see_a_job, _pass_it]
)
async def test_a_404_of_a_known_file_passes(see: Callable[[Service], Awaitable[None]], tmp_path: Path) -> None:
    """A 404 of a known file is retried with back-off, because the file is known to exist."""
    service = Service(contents=[gone(), gone(), gone(), b"onetwo"])
    await see(service)
    service.answers = [(200, {"id": "file-1", "bytes": 6})]
    wanted = FileObject(id="file-1") if see is _pass_it else "file-1"
    path = await service.files.download(wanted, tmp_path / "out")
    assert path.read_bytes() == b"onetwo"
    assert service.slept == BACK_OFF[:3]


@pytest.mark.parametrize(
    ("patience", "slept", "text"),
    [
        (60, BACK_OFF, r"no such file \(it exists as far as is known, and has been absent for 60 s\)$"),
        (0, [], r"no such file$"),
    ],
)
async def test_a_404_that_stays(patience: float, slept: list[float], text: str, tmp_path: Path) -> None:
    """A lasting 404 is raised when patience is over, which the text names; without patience there is one request.

    No file is left.
    """
    service = Service(contents=[gone() for _ in range(9)])
    with pytest.raises(NotFoundError, match=text):
        await service.files.download(FileObject(id="file-1"), tmp_path / "out", patience=patience)
    assert slept == service.slept
    assert len(service.requests) == len(slept) + 1
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_was_deleted_here_is_known_to_be_gone(tmp_path: Path) -> None:
    """A 404 of a file that this client deleted is not retried."""
    service = Service((200, {"id": "file-1"}), (200, {"id": "file-1", "deleted": True}), contents=[gone()])
    await service.files.retrieve("file-1")
    await service.files.delete("file-1")
    with pytest.raises(NotFoundError):
        await service.files.download("file-1", tmp_path / "out")
    assert service.slept == []


@pytest.mark.parametrize("wanted", ["file-1", FileObject(id="file-1")])
async def test_a_download_that_is_shorter_than_its_metadata_says(wanted: Any, tmp_path: Path) -> None:
    """A download shorter than its metadata says is repeated until it is complete, and only then gets its name."""
    (tmp_path / "out").write_bytes(b"old")
    sizes = [(200, {"id": "file-1", "bytes": 6})] * 3
    service = Service(*sizes, contents=[b"one", b"one", b"onetwo"])
    path = await service.files.download(wanted, tmp_path / "out", overwrite=True)
    assert path.read_bytes() == b"onetwo"
    assert service.slept == BACK_OFF[:2]
    assert service.lines == ["GET /files/file-1/content", "GET /files/file-1"] * 3


async def test_a_file_that_grows_has_patience_anew(tmp_path: Path) -> None:
    """A file that grows restarts patience: only reads that find no more than before use it up."""
    sizes = range(1, 100)
    noted: list[int] = []
    service = Service(
        *[(200, {"id": "file-1", "bytes": 99})] * 200,
        contents=[b"x" * size for size in sizes for _ in range(2)],
    )
    path = await service.files.download(
        "file-1", tmp_path / "out", patience=2, on_progress=lambda done, _: noted.append(done)
    )
    assert path.stat().st_size == 99
    assert service.slept == [1, 1] * 98
    assert noted[-1] == 99


async def test_a_file_that_shrinks_has_not_grown(tmp_path: Path) -> None:
    """Only growth beyond the previous maximum restarts patience, so a varying length does not last forever."""
    service = Service(*[(200, {"id": "file-1", "bytes": 9})] * 9, contents=[b"one", b"o", b"one", b"o", b"one"])
    with pytest.raises(ResultsUnavailableError, match="is incomplete"):
        await service.files.download("file-1", tmp_path / "out", patience=7)
    assert service.slept == [1, 2, 4]


@pytest.mark.parametrize(("patience", "slept"), [(60, BACK_OFF), (2.5, [1, 1.5]), (0, [])])
async def test_a_download_that_stays_short(patience: float, slept: list[float], tmp_path: Path) -> None:
    """A download that stays short is an error with its length; an existing file is not replaced by a partial one."""
    (tmp_path / "out").write_bytes(b"old")
    service = Service(*[(200, {"id": "file-1", "bytes": 1_234})] * 9, contents=[b"one"])
    with pytest.raises(ResultsUnavailableError) as caught:
        await service.files.download("file-1", tmp_path / "out", overwrite=True, patience=patience)
    assert str(caught.value).startswith("file file-1 is incomplete: 3 bytes received, and its metadata says 1 234")
    assert (caught.value.job_id, caught.value.file_ids) == (None, ("file-1",))
    assert slept == service.slept
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out": b"old"}


@pytest.mark.parametrize(
    "metadata",
    [
        (200, {"id": "file-1"}),
        (200, {"id": "file-1", "bytes": 0}),
        (200, {"id": "file-1", "bytes": 5}),
        (200, {"id": "file-1", "bytes": "many"}),
        (200, {"id": "file-2", "bytes": 1_000}),
        (404, b""),
        (403, b""),
        (500, b""),
    ],
    ids=lambda metadata: str(metadata[1] or metadata[0]),
)
async def test_metadata_that_says_nothing(metadata: object, tmp_path: Path) -> None:
    """If the metadata has no size, or an invalid, zero or smaller one, a download of announced length is complete."""
    service = Service(metadata)
    path = await service.files.download("file-1", tmp_path / "out")
    assert path.read_bytes() == b"onetwo"
    assert service.slept == []


@pytest.mark.parametrize("patience", [-1, float("nan"), float("inf"), "60", True, None])
async def test_a_patience_that_cannot_be(patience: Any, tmp_path: Path) -> None:
    """An invalid patience is misuse, before anything is sent or written."""
    service = Service()
    with pytest.raises(UsageError, match="patience must be a number, zero or more; it is"):
        await service.files.download("file-1", tmp_path / "out", patience=patience)
    assert (service.requests, list(tmp_path.iterdir())) == ([], [])


# --- real sockets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("via", ["storage", "api"])
async def test_there_and_back(emulator: Emulator, tmp_path: Path, via: Any) -> None:
    """Uploaded content is downloaded unchanged in both ways, and the storage never receives the key."""
    content = REQUESTS * 50_000
    steps: list[tuple[int, int]] = []
    async with client(emulator) as batches:
        file = await batches.files.upload(
            content, filename="rows.jsonl", via=via, on_progress=lambda *step: steps.append(step)
        )
        assert (file.filename, file.bytes, file.purpose) == ("rows.jsonl", len(content), "batch-api")
        assert steps == sorted(steps)
        assert steps[-1] == (len(content), len(content))
        assert await batches.files.retrieve(file) == file
        assert [found.id for found in await batches.files.list()] == [file.id]
        path = await batches.files.download(file, tmp_path / "back.jsonl")
        assert path.read_bytes() == content
        await batches.files.delete(file)
        with pytest.raises(NotFoundError):
            await batches.files.retrieve(file)
    stored = [request for request in emulator.requests if request.method == "PUT"]
    assert len(stored) == (via == "storage")
    assert all(KEY not in str(dict(request.headers)) for request in stored)


async def test_known_content_is_recognised(emulator: Emulator) -> None:
    """For known content the same file is returned, and its bytes are not sent twice."""
    async with client(emulator) as batches:
        first = await batches.files.upload([BatchRequest("row-1", {"model": "m"})])
        assert await batches.files.upload(REQUESTS) == first
    assert [request.method for request in emulator.requests].count("PUT") == 1


@pytest.mark.parametrize("step", ["begin_upload", "store", "preprocess"])
@pytest.mark.parametrize("trouble", [{"status": 503}, {"lose": "request"}, {"lose": "answer"}])
async def test_every_step_of_an_upload_may_fail(emulator: Emulator, step: str, trouble: Any) -> None:
    """A failure at any step of an upload is retried, and the file is complete."""
    emulator.fail(Fault(on=step, **trouble))
    async with client(emulator) as batches:
        file = await batches.files.upload(REQUESTS)
        async with batches.files.content(file) as pieces:
            assert b"".join([piece async for piece in pieces]) == REQUESTS


async def test_a_delete_whose_answer_was_lost(emulator: Emulator) -> None:
    """A delete whose response was lost is repeated, and its 404 counts as success."""
    async with client(emulator) as batches:
        file = await batches.files.upload(REQUESTS)
        emulator.fail(Fault(on="delete", lose="answer"))
        await batches.files.delete(file)
        with pytest.raises(NotFoundError):
            await batches.files.delete(file)


async def test_a_refused_delete_of_a_file_that_never_existed(emulator: Emulator) -> None:
    """A 404 after a refusal for the rate is an error: no attempt can have deleted the file."""
    emulator.fail(Fault(on="delete", status=429))
    async with client(emulator) as batches:
        with pytest.raises(NotFoundError):
            await batches.files.delete("file-1")
    assert len(emulator.requests) == 2


@pytest.mark.parametrize("options", [{}, {"ranges": False}, {"content_from_storage": True}, {"gzip": True}])
async def test_a_download_that_is_cut_again_and_again(options: Any, tmp_path: Path) -> None:
    """A download that is cut repeatedly becomes complete, whatever range support the service has."""
    content = os.urandom(500_000)
    async with Emulator(api_key=KEY, **options) as emulator:
        file_id = emulator.add_file(content)
        on = "fetch" if options.get("content_from_storage") else "content"
        for cut in (0, 1, 200_000, 299_999):
            emulator.fail(Fault(on=on, cut_after=cut))
        async with client(emulator) as batches:
            path = await batches.files.download(file_id, tmp_path / "out")
    assert path.read_bytes() == content


async def test_cancelling_a_download(emulator: Emulator, tmp_path: Path) -> None:
    """A cancelled download ends at once, and leaves no file and no connection."""
    file_id = emulator.add_file(REQUESTS * 1000)
    emulator.fail(Fault(on="content", drip=0.01))
    began = asyncio.Event()
    async with client(emulator) as batches:
        download = batches.files.download(file_id, tmp_path / "out", on_progress=lambda *_: began.set())
        task = asyncio.create_task(download)
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert list(tmp_path.iterdir()) == []


async def test_a_name_from_outside_is_no_path(emulator: Emulator, tmp_path: Path) -> None:
    """A file name from the service is not used as a path: the download is written only where requested."""
    file_id = emulator.add_file(REQUESTS, filename="../../evil")
    (tmp_path / "here").mkdir()
    async with client(emulator) as batches:
        await batches.files.download(file_id, tmp_path / "here" / "out")
        with pytest.raises(UsageError, match="is a directory"):
            await batches.files.download(file_id, tmp_path / "here")
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "out"]


async def test_a_view_has_files_of_its_own(emulator: Emulator) -> None:
    """The headers of a view are sent to the service, and never to the storage."""
    async with client(emulator) as batches:
        await batches.with_options(headers={"X-Team": "blue"}).files.upload(REQUESTS)
    teams = {request.method + request.path[:10]: request.headers.get("X-Team") for request in emulator.requests}
    assert set(teams.values()) == {"blue", None}
    assert all((team is None) == method.startswith("PUT") for method, team in teams.items())


async def test_a_large_upload_does_not_hold_the_loop(emulator: Emulator) -> None:
    """Hashing and reading a large upload does not block the loop, even if the thread that reads is slow."""
    reading, beats = asyncio.Event(), 0
    loop = asyncio.get_running_loop()

    class Slow:
        def __init__(self) -> None:
            self.position = 0

        def seekable(self) -> bool:
            return True

        def tell(self) -> int:
            return self.position

        def seek(self, position: int) -> None:
            self.position = position

        def read(self, size: int) -> bytes:
            loop.call_soon_threadsafe(reading.set)
            time.sleep(0.05 if size else 0)
            begin, self.position = self.position, min(self.position + size, len(REQUESTS))
            return REQUESTS[begin : self.position]

    async def beat() -> None:
        nonlocal beats
        await reading.wait()
        while True:
            beats += 1
            await asyncio.sleep(0.001)

    heart = asyncio.create_task(beat())
    async with client(emulator) as batches:
        await batches.files.upload(cast("Any", Slow()))
    heart.cancel()
    assert beats >= 10


async def test_what_a_storage_refuses(tmp_path: Path) -> None:
    """The error of a refused upload has the storage's own text."""
    xml = "<Error><Code>EntityTooLarge</Code><Message>Your proposed upload exceeds the maximum</Message></Error>"
    async with RawServer(http(400, xml)) as storage:
        headers = {"Location": f"{storage.origin}/x?secret", "X-Together-File-Id": "file-1"}
        async with (
            RawServer(http(302, headers=headers)) as server,
            AsyncBatches(KEY, base_url=server.base_url, retry=ONCE) as batches,
        ):
            with pytest.raises(
                Exception, match=r"EntityTooLarge: Your proposed upload exceeds the maximum"
            ) as caught:
                await batches.files.upload(REQUESTS)
            assert "secret" not in str(caught.value)


def test_the_same_without_await(tmp_path: Path) -> None:
    """``Batches`` and its views have ``files`` too."""
    with Emulator(api_key=KEY).running_in_thread() as emulator, Batches(KEY, base_url=emulator.base_url) as batches:
        files = batches.with_options(headers={"X-Team": "blue"}).files
        file = files.upload(iter([BatchRequest("row-1", {"model": "m"})]))
        assert files.retrieve(file) == file
        assert files.list() == [file]
        assert batches.files.download(file, tmp_path / "out").read_bytes() == REQUESTS
        with pytest.raises(UsageError, match="patience"):
            batches.files.download(file, tmp_path / "out", patience=-1)
        with files.content(file) as pieces:
            assert b"".join(pieces) == REQUESTS
        files.delete(file)
        assert files.list() == []


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [("force", "unexpected keyword argument 'force': it is called 'overwrite' now$"), ("other", "argument 'other'$")],
)
async def test_a_keyword_that_was_renamed(tmp_path: Path, keyword: str, expected: str) -> None:
    """The old name of a keyword raises an error that gives the new one."""
    old: Any = {keyword: True}
    async with AsyncBatches("k") as batches:
        with pytest.raises(TypeError, match=expected):
            await batches.files.download("file-1", tmp_path / "out", **old)
