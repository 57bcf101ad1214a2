"""Tests of file transfers: what is sent and retried, what is resumed, and where the key goes.

Time is virtual here, as in the tests of the transport.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from wires import AT_ONCE, KEY, ONCE, RawServer, http, in_virtual_time, shown_text, transport

from together_batches import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    NotFoundError,
    PermissionDeniedError,
    RetryPolicy,
    Timeout,
    UsageError,
)
from together_batches._http.rate_limiter import AdaptiveRateLimiter
from together_batches._http.streaming import Streaming
from together_batches._protocol import files as protocol
from together_batches._stream import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from wires import Reply

    from together_batches._http.transport import Transport

SIGNATURE = "X-Amz-Signature=0123%2F45~6%7E7&x=a+b"
DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Request has expired</Message>'
    b"<RequestId>REQ7</RequestId></Error>"
)
CONTENT = protocol.file_content("file-1")
DIGITS = b"0123456789"


class Bytes:
    """Content to upload, three bytes at a time."""

    sha256 = ""

    def __init__(self, content: bytes, *, name: str = "a.jsonl", seconds_a_block: float = 0) -> None:
        self.name = name
        self.content = content
        self.size = len(content)
        self.seconds_a_block = seconds_a_block

    async def block(self, position: int) -> bytes:
        await asyncio.sleep(self.seconds_a_block)
        return self.content[position : position + 3]


@asynccontextmanager
async def between(*replies: Reply, **options: object) -> AsyncIterator[tuple[Streaming, RawServer, Transport]]:
    async with RawServer(*replies) as server:
        sender = transport(server.base_url, **options)
        try:
            yield Streaming(sender), server, sender
        finally:
            await sender.state.close()


def put(server: RawServer, content: Bytes) -> protocol.Transfer:
    return protocol.put(content, f"{server.origin}/bucket/a%2Fb?{SIGNATURE}")


async def all_of(streaming: Streaming, request: protocol.Transfer = CONTENT) -> bytes:
    async with Stream(streaming.receive(request)) as pieces:
        return b"".join([piece async for piece in pieces])


def part(begin: int, content: bytes = DIGITS, **headers: str) -> bytes:
    """Return a response with the rest of a file, from this byte on."""
    place = f"bytes {begin}-{len(content) - 1}/{len(content)}"
    return http(206, content[begin:], headers={"Content-Range": place, **headers})


def cut(at: int, content: bytes = DIGITS, **headers: str) -> bytes:
    """Return a response that announces the whole file and breaks off after ``at`` bytes."""
    return http(200, content[:at], length=len(content), headers=headers)


# --- uploads --------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_file_is_put_where_it_was_said_to_go() -> None:
    """A PUT carries its length, without the key or other headers of ours, to the URL exactly as it was signed."""
    async with between(http(200), headers={"X-Team": "blue"}) as (streaming, server, _):
        await streaming.send(put(server, Bytes(DIGITS)))
        assert server.lines == [f"PUT /bucket/a%2Fb?{SIGNATURE}"]
        assert server.requests[0].endswith(b"\r\n\r\n" + DIGITS)
        sent = server.headers()
        assert sent["content-length"] == "10"
        assert sent["user-agent"].startswith("together-batches/")
        assert not {"authorization", "transfer-encoding", "x-team", "cookie"} & sent.keys()
        assert KEY.encode() not in server.requests[0]


@in_virtual_time
async def test_a_file_goes_through_the_service_in_a_form() -> None:
    """A form carries the key and has one body of known length, in which a boundary separates fields and file."""
    name = 'a "quoted"\r\nname é.csv'
    request = protocol.upload(Bytes(DIGITS, name=name), "batch-api")
    async with between(http(200, {"id": "file-1"})) as (streaming, server, _):
        await streaming.send(request)
        sent = server.headers()
        assert server.lines == ["POST /v1/files/upload"]
        assert sent["authorization"] == f"Bearer {KEY}"
        kind, _, boundary = sent["content-type"].partition("; boundary=")
        assert kind == "multipart/form-data"
        body = server.requests[0].partition(b"\r\n\r\n")[2]
        assert len(body) == int(sent["content-length"]) == request.length
        *parts, end = body.split(f"--{boundary}".encode())
        assert (parts[0], end) == (b"", b"--\r\n")
        fields = [field.removesuffix(b"\r\n").partition(b"\r\n\r\n")[::2] for field in parts[1:]]
        assert [value for _, value in fields] == [b"batch-api", name.encode(), b"csv", DIGITS]
        assert 'name="file"; filename="a %22quoted%22%0D%0Aname é.csv"'.encode() in fields[-1][0]


@pytest.mark.parametrize("trouble", [http(503), ("reset",), b"", http(429, headers={"Retry-After": "1"})])
def test_an_upload_is_repeated_from_its_beginning(trouble: Reply) -> None:
    """A PUT is repeated even if the storage had all of it. A refusal by a storage slows no other call."""

    @in_virtual_time
    async def run() -> None:
        steps: list[tuple[int, int]] = []
        async with between(trouble, http(200)) as (streaming, server, sender):
            request = put(server, Bytes(DIGITS))
            await streaming.send(request, on_sent=lambda done, total: steps.append((done, total)))
            assert [sent.partition(b"\r\n\r\n")[2] for sent in server.requests] == [DIGITS, DIGITS]
            assert steps == 2 * [(0, 10), (3, 10), (6, 10), (9, 10), (10, 10)]
            assert sender.state.limiter.blocked_for(0) == 0
            assert sender.state.limiter.rate == AdaptiveRateLimiter().rate

    run()


@pytest.mark.parametrize("reply", [http(403, DENIED), ("unread", http(403, DENIED))])
def test_what_a_storage_says_is_reported(reply: Reply) -> None:
    """A storage's XML becomes the message, even if it answers before it has read; the signature is never shown."""

    @in_virtual_time
    async def run() -> None:
        async with between(reply, retry=ONCE) as (streaming, server, _):
            with pytest.raises(PermissionDeniedError) as caught:
                await streaming.send(put(server, Bytes(DIGITS)))
            error = caught.value
            assert (error.message, error.request_id) == ("AccessDenied: Request has expired", "REQ7")
            assert error.url == f"{server.origin}/bucket/a%2Fb"
            assert not {part for part in (KEY, "Signature") if part in shown_text(error)}

    run()


class Large:
    """Far more content than fits into the buffers between here and a server that does not read."""

    name = "a.jsonl"
    size = 64 << 20
    sha256 = ""

    async def block(self, position: int) -> bytes:
        return bytes(1 << 20)


@pytest.mark.parametrize("answer", [http(413, "too large"), http(413, 300_000 * "x")], ids=["short", "long"])
@pytest.mark.parametrize("through", ["storage", "service"])
def test_a_refusal_that_comes_while_the_file_is_sent_is_read(answer: bytes, through: str) -> None:
    """A refusal is read although the server has closed the connection and our write fails first."""

    @in_virtual_time
    async def run() -> None:
        async with between(("unread", answer), retry=ONCE) as (streaming, server, _):
            content = Large()
            for _ in range(5):
                upload = protocol.upload(content, "batch-api")
                with pytest.raises(APIStatusError) as caught:
                    await streaming.send(
                        protocol.put(content, f"{server.origin}/bucket?{SIGNATURE}")
                        if through == "storage"
                        else upload
                    )
                assert caught.value.status == 413
                assert "Signature" not in shown_text(caught.value)

    run()


@in_virtual_time
async def test_a_connection_that_breaks_while_the_file_is_sent_shows_no_signature() -> None:
    """The URL, which aiohttp's own text quotes, is in no error, cause, frame or log."""
    async with between(("unread", 0.1, "reset"), retry=ONCE) as (streaming, server, _):
        request = protocol.put(Large(), f"{server.origin}/bucket?{SIGNATURE}")
        with pytest.raises(APIConnectionError) as caught:
            await streaming.send(request)
        assert f"127.0.0.1:{server.port}" in str(caught.value)
        assert not {part for part in (KEY, "Signature") if part in shown_text(caught.value)}


@in_virtual_time
async def test_an_upload_that_is_cut_off_shows_no_signature_in_its_frames() -> None:
    """The frames that ``asyncio.timeout`` keeps with their variables contain no signature."""
    async with between((asyncio.Event(),), retry=ONCE) as (streaming, server, _):
        for request in (put(server, Bytes(DIGITS)), put(server, Bytes(b""))):
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(1):
                    await streaming.send(request)
            assert not {part for part in (KEY, "Signature") if part in shown_text(caught.value)}


@in_virtual_time
async def test_content_that_cannot_be_read_shows_no_signature() -> None:
    """An error of the caller's content has the frames of the caller, and none of aiohttp's."""

    class Unreadable(Bytes):
        async def block(self, position: int) -> bytes:
            raise OSError(5, "Input/output error")

    async with between(http(200), retry=ONCE) as (streaming, server, _):
        with pytest.raises(OSError, match="Input/output") as caught:
            await streaming.send(put(server, Unreadable(DIGITS)))
        assert "in block" in shown_text(caught.value)
        assert not {part for part in (KEY, "Signature") if part in shown_text(caught.value)}


@pytest.mark.parametrize("trouble", [("reset",), b"no HTTP\r\n\r\n", (60.0,)])
def test_where_an_upload_went_wrong_is_told_without_its_signature(trouble: Reply) -> None:
    """The error contains the storage's name, and neither the URL's query nor the key."""

    @in_virtual_time
    async def run() -> None:
        async with between(trouble, retry=ONCE) as (streaming, server, _):
            storage = await RawServer(trouble).__aenter__()
            with pytest.raises(APIConnectionError, match=rf"127\.0\.0\.1:{storage.port}") as caught:
                await streaming.send(put(storage, Bytes(DIGITS)))
            await storage.__aexit__()
            assert not server.requests
            assert not {part for part in (KEY, "Signature") if part in shown_text(caught.value)}

    run()


@in_virtual_time
async def test_a_storage_that_quotes_the_signature_which_it_refuses() -> None:
    """The error keeps the reason, and nothing of the URL's query."""
    refusal = "<Error><Code>SignatureDoesNotMatch</Code><Signature>0123/45~6~7&amp;</Signature></Error>"
    async with between(http(403, refusal), retry=ONCE) as (streaming, server, _):
        request = protocol.put(Bytes(DIGITS), f"{server.origin}/bucket?X-Amz-Signature=0123%2F45~6%7E7&x=a")
        with pytest.raises(PermissionDeniedError, match="SignatureDoesNotMatch") as caught:
            await streaming.send(request)
    assert "<Signature>[secret]&amp;</Signature>" in str(caught.value.body)
    assert "0123/45" not in shown_text(caught.value)


@in_virtual_time
async def test_a_storage_elsewhere_is_followed() -> None:
    """A 307 or 308 to another region is followed with the same request, from its beginning."""
    async with RawServer(http(200)) as other:
        moved = http(307, headers={"Location": f"{other.origin}/there?{SIGNATURE}"})
        async with between(moved) as (streaming, server, _):
            await streaming.send(put(server, Bytes(DIGITS)))
        assert other.lines == [f"PUT /there?{SIGNATURE}"]
        assert other.requests[0].endswith(DIGITS)


@pytest.mark.parametrize(
    "reply", [http(302, headers={"Location": "/there"}), http(307, headers={"Location": "ftp://x/"})]
)
def test_a_storage_is_not_followed_anywhere(reply: Reply) -> None:
    """A redirect that changes the request or leaves HTTP is an error."""

    @in_virtual_time
    async def run() -> None:
        async with between(reply) as (streaming, server, _):
            with pytest.raises(APIResponseValidationError):
                await streaming.send(put(server, Bytes(DIGITS)))
            assert len(server.requests) == 1

    run()


@in_virtual_time
async def test_a_redirect_can_be_what_was_asked_for() -> None:
    """With ``redirect_is_answer`` a redirect is returned, and not followed."""
    begin = protocol.begin_upload("a.jsonl", "batch-api", "abc")
    reply = http(302, headers={"Location": "https://storage.example/x", "X-Together-File-Id": "file-1"})
    async with between(reply) as (streaming, server, _):
        answer = await streaming.send(begin, redirect_is_answer=True)
        assert protocol.read_target(answer) == ("file-1", "https://storage.example/x")
        assert b'name="checksum"\r\n\r\nabc\r\n' in server.requests[0]
        assert server.headers()["authorization"] == f"Bearer {KEY}"


@in_virtual_time
async def test_what_goes_wrong_on_our_side_is_raised_as_it_is() -> None:
    """An error from reading the file or from ``on_sent`` is raised unchanged, and not retried."""

    class Broken(Bytes):
        async def block(self, position: int) -> bytes:
            message = "it changed"
            raise UsageError(message)

    def tell(done: int, total: int) -> None:
        raise ZeroDivisionError

    async with between(http(200)) as (streaming, server, _):
        with pytest.raises(UsageError, match=r"^it changed$"):
            await streaming.send(put(server, Broken(DIGITS)))
        with pytest.raises(ZeroDivisionError):
            await streaming.send(put(server, Bytes(DIGITS)), on_sent=tell)
        assert not server.requests


@in_virtual_time
async def test_only_a_standstill_limits_an_upload() -> None:
    """An upload may exceed the total limit of a call as long as bytes are sent."""
    limits = Timeout(connect=5, read=30, total=60)
    async with between(http(200), timeout=limits, retry=ONCE) as (streaming, server, _):
        began = asyncio.get_running_loop().time()
        await streaming.send(put(server, Bytes(DIGITS, seconds_a_block=25)))
        assert asyncio.get_running_loop().time() - began >= 100
        with pytest.raises(APITimeoutError, match="for 30 s"):
            await streaming.send(put(server, Bytes(DIGITS, seconds_a_block=60)))


# --- downloads ------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_content_comes_as_it_is() -> None:
    """A download carries the key and requests no compression; its length is known in advance."""
    lengths: list[int | None] = []
    async with between(http(200, DIGITS)) as (streaming, server, _):
        async with Stream(streaming.receive(CONTENT, lengths.append)) as pieces:
            assert b"".join([piece async for piece in pieces]) == DIGITS
        assert lengths == [10]
        assert server.lines == ["GET /v1/files/file-1/content"]
        sent = server.headers()
        assert (sent["accept-encoding"], sent["authorization"]) == ("identity", f"Bearer {KEY}")
        assert "range" not in sent


@in_virtual_time
async def test_an_empty_file() -> None:
    """An empty file has no pieces."""
    async with between(http(200, b"")) as (streaming, _, _):
        assert await all_of(streaming) == b""


@pytest.mark.parametrize("at", range(10))
def test_a_download_goes_on_where_it_broke_off(at: int) -> None:
    """A download resumes at any byte at which it broke off, and requests the rest of this very file."""

    @in_virtual_time
    async def run() -> None:
        tag = {"ETag": '"v1"'}
        rest = part(at, **tag) if at else http(200, DIGITS, headers=tag)
        async with between(cut(at, **tag), rest, retry=AT_ONCE) as (streaming, server, _):
            assert await all_of(streaming) == DIGITS
            expected = (f"bytes={at}-", '"v1"') if at else (None, None)
            assert expected == (server.headers().get("range"), server.headers().get("if-range"))

    run()


@in_virtual_time
async def test_a_download_goes_on_for_as_long_as_it_gets_on() -> None:
    """A download is resumed more often than a call is retried, because every received byte counts as success."""
    replies = [cut(1), *[part(at)[: -(9 - at)] for at in range(1, 9)], part(9)]
    async with between(*replies, retry=RetryPolicy(max_attempts=2, base_delay=0)) as (streaming, server, _):
        assert await all_of(streaming) == DIGITS
        assert len(server.requests) == 10


def test_each_request_for_the_rest_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A download that continues is in the log, at the level DEBUG, as a retry of a call is."""

    @in_virtual_time
    async def play() -> None:
        async with between(cut(4), part(4), retry=AT_ONCE) as (streaming, _, __):
            assert await all_of(streaming) == DIGITS

    with caplog.at_level("DEBUG", "together_batches"):
        play()
    (record,) = [record for record in caplog.records if record.name == "together_batches"]
    assert "attempt 1 failed" in record.message
    assert "after 4 bytes of 10" in record.message


@in_virtual_time
async def test_a_download_that_gets_nowhere_is_given_up() -> None:
    """A download without progress fails after the policy's attempts, with the bytes received; with one, at once."""
    async with between(cut(4), part(4)[:-6], retry=RetryPolicy(max_attempts=3, base_delay=0)) as (
        streaming,
        server,
        _,
    ):
        with pytest.raises(APIConnectionError, match=r"broke off, after 4 bytes of 10; given up after 3 attempts"):
            await all_of(streaming)
        assert len(server.requests) == 3
    async with between(cut(4), part(4), retry=ONCE) as (streaming, server, _):
        with pytest.raises(APIConnectionError, match=r"broke off, after 4 bytes of 10$"):
            await all_of(streaming)
        assert len(server.requests) == 1


@in_virtual_time
async def test_a_server_without_ranges_sends_it_all_again() -> None:
    """The bytes already received are skipped if the server sends the whole file again."""
    async with between(cut(4), cut(7), http(200, DIGITS), retry=AT_ONCE) as (streaming, server, _):
        assert await all_of(streaming) == DIGITS
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        (http(200, DIGITS, headers={"ETag": '"v2"'}), "its ETag is"),
        (http(200, DIGITS + b"a"), "its size is 11, and was 10"),
        (part(4, DIGITS + b"a"), "its size is 11, and was 10"),
        (part(5), "byte 4 was to be its first"),
        (http(206, DIGITS[4:]), "byte 4 was to be its first"),
        (http(200, DIGITS, headers={"Content-Encoding": "gzip"}), "its encoding is gzip"),
    ],
)
def test_the_rest_of_another_file_is_not_taken(rest: bytes, problem: str) -> None:
    """The rest of a changed file is an error, and not mixed with the first part."""

    @in_virtual_time
    async def run() -> None:
        async with between(cut(4, ETag='"v1"'), rest, retry=AT_ONCE) as (streaming, _, _):
            with pytest.raises(APIResponseValidationError, match=problem):
                await all_of(streaming)

    run()


@in_virtual_time
async def test_a_file_that_cannot_be_known_again_is_not_taken_up() -> None:
    """Without a length or an ETag a download is not resumed, and the break is an error."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n"
    async with between(chunked, retry=AT_ONCE) as (streaming, server, _):
        with pytest.raises(APIConnectionError, match=r"after 4 bytes; it has neither a length nor an ETag"):
            await all_of(streaming)
        assert len(server.requests) == 1
    async with between(chunked + b"6\r\n456789\r\n0\r\n\r\n") as (streaming, _, _):
        assert await all_of(streaming) == DIGITS


@in_virtual_time
async def test_a_part_that_was_not_asked_for_is_completed() -> None:
    """A part that the server sends and declares as such is completed by a second request."""
    first = http(206, DIGITS[:4], headers={"Content-Range": "bytes 0-3/10"})
    async with between(first, part(4), retry=AT_ONCE) as (streaming, server, _):
        assert await all_of(streaming) == DIGITS
        assert server.headers()["range"] == "bytes=4-"


@in_virtual_time
async def test_a_weak_etag_is_no_condition() -> None:
    """A weak ETag is not sent as a condition, because it does not cover single bytes; it is still compared."""
    tag = {"ETag": 'W/"v1"'}
    async with between(cut(4, **tag), part(4, **tag), retry=AT_ONCE) as (streaming, server, _):
        assert await all_of(streaming) == DIGITS
        assert "if-range" not in server.headers()


@in_virtual_time
async def test_content_of_a_storage_is_fetched_without_the_key() -> None:
    """A redirect to another origin is followed, with its query exactly as signed, and without the key."""
    async with RawServer(cut(4), part(4)) as storage:
        moved = http(302, headers={"Location": f"{storage.origin}/x?{SIGNATURE}"})
        async with between(moved, retry=AT_ONCE, headers={"X-Team": "blue"}) as (streaming, server, _):
            assert await all_of(streaming) == DIGITS
            assert len(server.requests) == 2
            assert storage.lines == 2 * [f"GET /x?{SIGNATURE}"]
            assert storage.headers()["range"] == "bytes=4-"
            assert not {"authorization", "x-team"} & storage.headers().keys()
            assert KEY.encode() not in b"".join(storage.requests)


@in_virtual_time
async def test_a_key_that_was_left_behind_does_not_come_back() -> None:
    """The key is not sent again after another origin, not even to the service; within its origin it is kept."""
    away, around = http(302, headers={"Location": "/v1/elsewhere"}), http(200, DIGITS)
    async with RawServer(b"") as storage, between(away, b"", around) as (streaming, server, _):
        server.replies[1] = http(302, headers={"Location": f"{storage.origin}/x"})
        storage.replies = [http(302, headers={"Location": f"{server.origin}/v1/back"})]
        assert await all_of(streaming) == DIGITS
        keys = [server.headers(number).get("authorization") for number in range(3)]
        assert keys == [f"Bearer {KEY}", f"Bearer {KEY}", None]


@pytest.mark.parametrize(
    "location",
    [
        "ftp://x/",
        "http://:80/x",
        "https://a:b@x/",
        "https://x/ y",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/x",
    ],
)
def test_content_is_not_fetched_from_anywhere(location: str) -> None:
    """A redirect is followed only to a URL of HTTP."""

    @in_virtual_time
    async def run() -> None:
        async with between(http(302, headers={"Location": location})) as (streaming, _, _):
            with pytest.raises(APIResponseValidationError, match="is not a redirect that can be followed"):
                await all_of(streaming)

    run()


@in_virtual_time
async def test_a_circle_ends() -> None:
    """At most five redirects are followed."""
    async with between(http(302, headers={"Location": "/v1/round"})) as (streaming, server, _):
        with pytest.raises(APIResponseValidationError, match=r"redirect \(302\)"):
            await all_of(streaming)
        assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(DIGITS), "gzip"),
        (gzip.compress(DIGITS), "X-GZIP"),
        (zlib.compress(DIGITS), "deflate"),
        (gzip.compress(DIGITS[:4]) + gzip.compress(DIGITS[4:]), "gzip"),
        (zlib.compress(DIGITS)[2:-4], "deflate"),
        (gzip.compress(DIGITS), "aws-chunked, gzip"),
        (gzip.compress(DIGITS), "gzip,aws-chunked"),
        (zlib.compress(gzip.compress(DIGITS)), "gzip, deflate"),
        (DIGITS, "identity"),
        (DIGITS, "aws-chunked"),
        (DIGITS, "UTF-8"),
        (DIGITS, "none"),
    ],
)
def test_what_is_compressed_all_the_same_is_undone(body: bytes, encoding: str) -> None:
    """An unrequested compression is undone, also after a break: the compressed bytes are counted and requested."""

    @in_virtual_time
    async def run() -> None:
        headers = {"Content-Encoding": encoding}
        replies = [cut(7, body, **headers), part(7, body, **headers)]
        async with between(*replies, retry=AT_ONCE) as (streaming, _, _):
            assert await all_of(streaming) == DIGITS

    run()


@pytest.mark.parametrize(
    ("body", "encoding", "problem"),
    [
        (gzip.compress(DIGITS)[:-3], "gzip", "its gzip ends too soon"),
        (DIGITS, "gzip", "it is not gzip"),
        (DIGITS, "br", "it is encoded as br"),
    ],
)
def test_what_cannot_be_undone_is_no_file(body: bytes, encoding: str, problem: str) -> None:
    """Content that cannot be decoded is an error, and never passed on as the file."""

    @in_virtual_time
    async def run() -> None:
        async with between(http(200, body, headers={"Content-Encoding": encoding})) as (streaming, _, _):
            with pytest.raises(APIResponseValidationError, match=problem):
                await all_of(streaming)

    run()


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"Content-Range": "bytes 0-9/" + 5_000 * "9"}, "it is a part, and does not say of how much"),
        ({"Content-Range": "bytes " + 5_000 * "0" + "-9/10"}, "byte 0 was to be its first"),
        ({"Content-Range": "bytes 0-9/*"}, "it is a part, and does not say of how much"),
        ({"Content-Range": "pages 1-2"}, "byte 0 was to be its first"),
        ({}, "byte 0 was to be its first"),
    ],
    ids=["endless size", "endless begin", "no size", "no bytes", "nothing"],
)
def test_a_part_that_says_nonsense_of_itself(headers: dict[str, str], says: str) -> None:
    """A part with invalid headers may be incomplete, and is an error, with a clear message."""

    @in_virtual_time
    async def run() -> None:
        async with between(http(206, DIGITS, headers=headers), retry=ONCE) as (streaming, _, _):
            with pytest.raises(APIResponseValidationError, match=says):
                await all_of(streaming)

    run()


@in_virtual_time
async def test_a_redirect_within_the_service_may_be_signed_too() -> None:
    """The query of a redirect within the service is in no error."""
    moved = http(302, headers={"Location": f"/v1/there?{SIGNATURE}"})
    for reply in (http(404), b"", (asyncio.Event(),)):
        async with between(moved, reply, retry=ONCE) as (streaming, _, _):
            with pytest.raises(APIError) as caught:
                await all_of(streaming)
            assert "Signature" not in shown_text(caught.value)


@in_virtual_time
async def test_few_bytes_that_stand_for_many() -> None:
    """A few bytes that expand to very many arrive in pieces of bounded size."""
    bomb = gzip.compress(bytes(5_000_000))
    async with between(http(200, bomb, headers={"Content-Encoding": "gzip"})) as (streaming, _, _):
        async with Stream(streaming.receive(CONTENT)) as pieces:
            sizes = [len(piece) async for piece in pieces]
        assert sum(sizes) == 5_000_000
        assert max(sizes) <= 1 << 20


@in_virtual_time
async def test_silence_is_noticed_and_ridden_out() -> None:
    """A silence longer than the read limit is an error, and the rest is requested."""
    silent = (cut(4), 1_000.0)
    async with between(silent, part(4), timeout=Timeout(read=30), retry=AT_ONCE) as (streaming, _, _):
        assert await all_of(streaming) == DIGITS
    async with between(silent, timeout=Timeout(read=30), retry=ONCE) as (streaming, _, _):
        with pytest.raises(APITimeoutError, match=r"no data came from .* for 30 s, after 4 bytes of 10"):
            await all_of(streaming)


@in_virtual_time
async def test_a_slow_drip_is_not_cut_off() -> None:
    """A slow download may exceed the total limit of a call."""
    head, body = http(200, DIGITS)[:-10], [step for digit in DIGITS for step in (bytes([digit]), 20.0)]
    async with between((head, *body), timeout=Timeout(read=30, total=60), retry=ONCE) as (streaming, _, _):
        assert await all_of(streaming) == DIGITS


@in_virtual_time
async def test_a_download_fails_like_any_call_before_it_begins() -> None:
    """An error status is raised, and a failure of the service is retried, before a download begins."""
    missing = http(404, {"error": {"message": "File file-1 not found", "type": "not_found"}})
    async with between(http(503), missing, retry=AT_ONCE) as (streaming, server, _):
        with pytest.raises(NotFoundError, match="File file-1 not found"):
            await all_of(streaming)
        assert len(server.requests) == 2


@in_virtual_time
async def test_leaving_closes_the_connection() -> None:
    """Leaving closes the connection at once, however much is left; a stream in use takes no slot from other calls."""
    endless = (cut(4, bytes(1_000_000)), asyncio.Event())
    async with between(endless, max_concurrency=1) as (streaming, server, sender):
        async with Stream(streaming.receive(CONTENT)) as first, Stream(streaming.receive(CONTENT)) as second:
            assert (len(await anext(first)), len(await anext(second))) == (4, 4)
            assert server.open == 2
        await asyncio.sleep(0.1)
        assert server.open == 0
        assert not sender.state.session().closed


@in_virtual_time
async def test_a_client_that_is_closed_meanwhile() -> None:
    """The reader of a stream gets an error if its client is closed."""
    async with between((cut(4), asyncio.Event()), retry=AT_ONCE) as (streaming, _, sender):
        pieces = streaming.receive(CONTENT)
        assert await anext(pieces) == b"0123"
        await sender.state.close()
        with pytest.raises(UsageError, match="closed while the call was under way"):
            await anext(pieces)


@in_virtual_time
async def test_cancelling_is_no_failure() -> None:
    """A task that is cancelled while it sends or waits ends at once, and nothing is retried."""
    waiting: list[Callable[[Streaming, RawServer], Coroutine[Any, Any, object]]] = [
        lambda streaming, server: streaming.send(put(server, Bytes(DIGITS, seconds_a_block=5))),
        lambda streaming, _: all_of(streaming),
    ]
    for make in waiting:
        async with between((asyncio.Event(),)) as (streaming, server, _):
            task = asyncio.create_task(make(streaming, server))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert server.connections == 1
