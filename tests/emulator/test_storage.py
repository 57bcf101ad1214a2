"""The upload through the storage, and downloads from it: two origins, tested with a bare client."""

from __future__ import annotations

import asyncio
import gzip
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from yarl import URL

from together_batches.emulator import Emulator, Fault, _gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CONTENT = b'{"custom_id":"a","body":{"model":"m"}}\n'
CHECKSUM = sha256(CONTENT).hexdigest()
KEY = {"Authorization": "Bearer emulator-key"}


@pytest.fixture
async def bare() -> AsyncIterator[aiohttp.ClientSession]:
    """Return a client without a key."""
    async with aiohttp.ClientSession() as session:
        yield session


def form(checksum: str | None = CHECKSUM, **more: str) -> aiohttp.FormData:
    fields = {"purpose": "batch-api", "file_name": "in.jsonl", "file_type": "jsonl", **more}
    return aiohttp.FormData(fields | ({"checksum": checksum} if checksum else {}), default_to_multipart=True)


async def begun(http: aiohttp.ClientSession, checksum: str | None = CHECKSUM) -> tuple[str, URL]:
    """Begin an upload; return the id and the address."""
    async with http.post("files", data=form(checksum), allow_redirects=False) as response:
        assert (response.status, await response.read()) == (302, b"")
        return response.headers["X-Together-File-Id"], URL(response.headers["Location"], encoded=True)


async def put(bare: aiohttp.ClientSession, url: URL, data: Any = CONTENT, **headers: str) -> tuple[int, str, bytes]:
    async with bare.put(url, data=data, headers=headers) as response:
        return response.status, response.content_type, await response.read()


async def test_form_redirect_put_preprocess(
    emulator: Emulator, http: aiohttp.ClientSession, bare: aiohttp.ClientSession
) -> None:
    """The bytes of an upload go to another origin by a redirect, and the file exists afterwards."""
    file_id, url = await begun(http)
    assert str(url.origin()) == emulator.storage_origin
    assert emulator.storage_origin not in emulator.base_url
    status, _, body = await put(bare, url)
    assert (status, body) == (200, b"")
    async with http.post(f"files/{file_id}/preprocess") as response:
        file = await response.json()
    assert (response.status, file["id"], file["bytes"], file["filename"]) == (200, file_id, len(CONTENT), "in.jsonl")
    assert [file] == emulator.files
    assert emulator.content(file_id) == CONTENT
    steps = [(request.operation, request.status) for request in emulator.requests]
    assert steps == [("begin_upload", 302), ("store", 200), ("preprocess", 200)]
    assert emulator.requests[1].path == url.raw_path_qs


async def test_known_content_is_a_409_that_names_the_file(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """Known content is a 409 that names the file, however it was uploaded; nothing is sent again."""
    file_id = emulator.add_file(CONTENT)
    async with http.post("files", data=form(), allow_redirects=False) as response:
        assert (response.status, await response.json()) == (409, {"file_id": file_id})


async def test_the_form_needs_its_fields(http: aiohttp.ClientSession) -> None:
    """A form without a required field is refused; the checksum is optional."""
    async with http.post("files", data={"purpose": "batch-api"}, allow_redirects=False) as response:
        assert response.status == 400
    await begun(http, None)


@pytest.mark.parametrize("wrong", [{"purpose": "7"}, {"purpose": ""}, {"file_type": "text"}])
@pytest.mark.parametrize("path", ["files", "files/upload"])
async def test_the_form_is_read_strictly(
    emulator: Emulator, http: aiohttp.ClientSession, path: str, wrong: dict[str, str]
) -> None:
    """An unknown purpose or type in the form is refused, and no file is kept."""
    data = form(**wrong)
    data.add_field("file", CONTENT, filename="in.jsonl")
    async with http.post(path, data=data, allow_redirects=False) as response:
        error = (await response.json())["error"]
    (name,) = wrong
    assert (response.status, error["message"].startswith(f"{name} must be one of ")) == (400, True)
    assert emulator.files == []


@pytest.mark.parametrize("in_query", [False, True])
async def test_the_form_may_be_urlencoded(
    emulator: Emulator, http: aiohttp.ClientSession, bare: aiohttp.ClientSession, in_query: bool
) -> None:
    """The form may be urlencoded, in the body (SDK 1), or in the query, where the TypeScript SDK repeats it."""
    fields = {"purpose": "batch-api", "file_name": "in.jsonl", "file_type": "jsonl"}
    sent: dict[str, Any] = {"params": fields, "data": b""} if in_query else {"data": fields}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with http.post("files", headers=headers, allow_redirects=False, **sent) as response:
        assert response.status == 302
        url = URL(response.headers["Location"], encoded=True)
    await put(bare, url)
    (file,) = emulator.files
    assert (file["id"], file["filename"]) == (response.headers["X-Together-File-Id"], "in.jsonl")


async def test_the_storage_wants_no_key(
    emulator: Emulator, http: aiohttp.ClientSession, bare: aiohttp.ClientSession
) -> None:
    """The storage refuses a key, and the records show it, so that a test can be sure that none was sent."""
    _, url = await begun(http)
    status, content_type, body = await put(bare, url, **KEY)
    assert (status, content_type) == (400, "application/xml")
    assert b"<Code>InvalidArgument</Code>" in body
    assert emulator.requests[-1].headers["Authorization"] == "Bearer emulator-key"
    assert len(emulator.files) == 0


async def test_the_address_may_be_spelled_in_another_way(
    http: aiohttp.ClientSession, bare: aiohttp.ClientSession
) -> None:
    """An equivalent spelling of the address is accepted (``/`` for %2F, ``~`` for %7E), another address is not."""
    _, url = await begun(http)
    requoted = URL(str(url))
    assert str(requoted) != str(url)
    assert (await put(bare, requoted))[0] == 200
    status, _, body = await put(bare, URL(str(url).replace("%2B", "+"), encoded=True))
    assert (status, b"<Code>SignatureDoesNotMatch</Code>" in body) == (403, True)


async def test_chunked_is_not_implemented(http: aiohttp.ClientSession, bare: aiohttp.ClientSession) -> None:
    """A chunked PUT is not implemented: the length is required, as at S3."""

    async def pieces() -> AsyncIterator[bytes]:
        yield CONTENT

    _, url = await begun(http)
    status, content_type, body = await put(bare, url, pieces())
    assert (status, content_type, b"<Code>NotImplemented</Code>" in body) == (501, "application/xml", True)


async def raw(emulator: Emulator, url: URL, head: str, body: bytes) -> bytes:
    """Return the response to a PUT that no client library would send."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"PUT {url.raw_path_qs} HTTP/1.1\r\nHost: x\r\n{head}Connection: close\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    return answer


async def test_the_length_must_be_said_and_kept(
    emulator: Emulator, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PUT without a length is a 411; one with missing bytes is a 400 after the storage's time limit."""
    monkeypatch.setattr(_gateway, "_STORAGE_PATIENCE", 0.01)
    _, url = await begun(http)
    assert b"<Code>MissingContentLength</Code>" in await raw(emulator, url, "", b"")
    answer = await raw(emulator, url, f"Content-Length: {len(CONTENT) + 1}\r\n", CONTENT)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"<Code>RequestTimeout</Code>" in answer


@pytest.mark.parametrize("sent", [b"", CONTENT[:-1], CONTENT + b"x"])
async def test_other_bytes_are_refused(http: aiohttp.ClientSession, bare: aiohttp.ClientSession, sent: bytes) -> None:
    """Bytes with another checksum are refused."""
    _, url = await begun(http)
    status, _, body = await put(bare, url, sent)
    assert (status, b"<Code>BadDigest</Code>" in body) == (400, True)


async def test_the_storage_fails_in_xml(
    emulator: Emulator, http: aiohttp.ClientSession, bare: aiohttp.ClientSession
) -> None:
    """The storage fails in XML; a lost response leaves the file stored, and the same PUT succeeds again."""
    file_id, url = await begun(http)
    emulator.fail(Fault(on="store", status=503))
    status, content_type, body = await put(bare, url)
    assert (status, content_type, b"<Code>SlowDown</Code>" in body) == (503, "application/xml", True)
    emulator.fail(Fault(on="store", lose="answer", times=2))  # aiohttp repeats a lost PUT once, by itself
    with pytest.raises(aiohttp.ClientConnectionError):
        await put(bare, url)
    assert emulator.content(file_id) == CONTENT
    assert (await put(bare, url))[0] == 200
    assert emulator.count("store") == 4


async def test_a_redirect_without_its_headers(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A fault can replace the redirect, without its ``Location``."""
    emulator.fail(Fault(on="begin_upload", status=200))
    async with http.post("files", data=form(), allow_redirects=False) as response:
        assert (response.status, "Location" in response.headers) == (200, False)


async def test_what_was_uploaded_so_can_be_run(
    emulator: Emulator, http: aiohttp.ClientSession, bare: aiohttp.ClientSession
) -> None:
    """An uploaded file can be run, from the first byte of the input to the last of the output."""
    file_id, url = await begun(http)
    await put(bare, url)
    async with http.post("batches", json={"input_file_id": file_id, "endpoint": "/v1/chat/completions"}) as response:
        job_id = (await response.json())["job"]["id"]
    emulator.advance(60)
    output_file_id = emulator.job(job_id)["output_file_id"]
    async with http.get(f"files/{output_file_id}/content") as response:
        assert (await response.json(content_type=None))["custom_id"] == "a"


# Content


async def test_a_download_can_be_cut_and_gone_on_with(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A cut download announces its whole length in the headers, and is resumed by a range."""
    file_id = emulator.add_file(b"0123456789")
    emulator.fail(Fault(on="content", cut_after=4))
    async with http.get(f"files/{file_id}/content") as response:
        assert (response.content_length, await response.content.readany()) == (10, b"0123")
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    headers = {"Range": "bytes=4-", "If-Range": response.headers["ETag"]}
    async with http.get(f"files/{file_id}/content", headers=headers) as response:
        assert (response.status, await response.read()) == (206, b"456789")


async def test_content_larger_than_memory_likes_is_made_on_the_way(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    """Large content is generated while it is sent, and its function is consumed only as far as the client reads."""
    requested: list[int] = []

    def chunks() -> Any:
        for number in range(1_000_000):
            requested.append(number)
            yield bytes(100_000)

    file_id = emulator.add_file(chunks, size=10**11)
    async with http.get(f"files/{file_id}/content") as response:
        assert response.content_length == 10**11
        await response.content.readexactly(1_000_000)
        response.close()
    assert len(requested) < 1000


async def test_a_function_that_gives_less_than_its_size_is_a_broken_download(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    """A function that gives less than its size breaks the download, which no client takes for complete."""
    file_id = emulator.add_file(lambda: [b"01234"], size=10)
    async with http.get(f"files/{file_id}/content") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_file_on_disk_is_served_from_there(
    emulator: Emulator, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """A file on the disk is served from the disk, and is a broken download once it is gone."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(CONTENT)
    file_id = emulator.add_file(path)
    async with http.get(f"files/{file_id}/content") as response:
        assert await response.read() == CONTENT
    path.unlink()
    async with http.get(f"files/{file_id}/content") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_content_may_come_compressed() -> None:
    """Content may be compressed for clients that accept it; aiohttp unpacks it by itself."""
    async with Emulator(gzip=True) as emulator, aiohttp.ClientSession(headers=KEY, auto_decompress=False) as http:
        url = f"{emulator.base_url}/files/{emulator.add_file(CONTENT)}/content"
        async with http.get(url, headers={"Accept-Encoding": "gzip"}) as response:
            assert (response.headers["Content-Encoding"], response.content_length) == ("gzip", None)
            assert gzip.decompress(await response.read()) == CONTENT
        emulator.fail(Fault(on="content", body=b"plain"))
        async with http.get(url, headers={"Accept-Encoding": "gzip"}) as response:
            assert ("Content-Encoding" in response.headers, await response.read()) == (False, b"plain")


async def test_content_may_be_a_redirect_to_the_storage(bare: aiohttp.ClientSession) -> None:
    """Content may be a redirect to the storage, which refuses a key, and serves ranges as well."""
    async with Emulator(content_from_storage=True) as emulator:
        url = f"{emulator.base_url}/files/{emulator.add_file(CONTENT)}/content"
        async with bare.get(url, headers=KEY, allow_redirects=False) as response:
            assert response.status == 302
            location = URL(response.headers["Location"], encoded=True)
        assert str(location.origin()) == emulator.storage_origin
        async with bare.get(location, headers={"Range": "bytes=-2"}) as response:
            assert (response.status, await response.read()) == (206, b"}\n")
        async with bare.get(location, headers=KEY) as response:
            assert (response.status, response.content_type) == (400, "application/xml")
        assert (emulator.count("content"), emulator.count("fetch")) == (1, 2)
