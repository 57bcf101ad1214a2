"""Ranges of a download, and its headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from together_batches.emulator._content import content_of
from together_batches.emulator._files import StoredFile
from together_batches.emulator._replies import download

if TYPE_CHECKING:
    from together_batches.emulator._replies import Reply

FILE = StoredFile("file-7", lambda: content_of(b"0123456789"), "x", "batch-api", "jsonl", 0.0)
ETAG = '"7"'


def answer(*, ranges: bool = True, gzip: bool = False, **requested: str) -> Reply:
    headers = {name.replace("_", "-"): value for name, value in requested.items()}
    return download(FILE, headers, "text/plain", ranges=ranges, gzip=gzip)


def body(reply: Reply) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else reply.body.read()


def test_the_whole_comes_with_what_is_needed_to_go_on_later() -> None:
    """A full response has an ETag and announces ranges, which are needed to resume."""
    reply = answer()
    assert (reply.status, body(reply)) == (200, b"0123456789")
    assert reply.headers == {"ETag": ETAG, "Accept-Ranges": "bytes"}


@pytest.mark.parametrize(
    ("requested", "got", "where"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
    ],
)
def test_a_part_is_206_and_says_where_it_belongs(requested: str, got: bytes, where: str) -> None:
    """A range is a 206 with its position: from the start, to the end, or the last bytes."""
    reply = answer(Range=requested)
    assert (206, got, where) == (reply.status, body(reply), reply.headers["Content-Range"])


@pytest.mark.parametrize("requested", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_part_that_is_not_there_is_416(requested: str) -> None:
    """A range beyond the end is a 416 with the size, so that the client can correct it."""
    reply = answer(Range=requested)
    assert (reply.status, body(reply), reply.headers["Content-Range"]) == (416, b"", "bytes */10")


@pytest.mark.parametrize("requested", ["", "bytes=-", "bytes=3-1", "bytes=0-1,3-4", "rows=0-1", "nonsense"])
def test_what_is_no_single_range_gets_the_whole(requested: str) -> None:
    """An invalid or multiple range gets the full content, as the standard allows."""
    assert (answer(Range=requested).status, body(answer(Range=requested))) == (200, b"0123456789")


def test_if_range_guards_against_another_file() -> None:
    """``If-Range`` with another tag gets the full content instead of the range."""
    assert answer(Range="bytes=4-", If_Range=ETAG).status == 206
    assert answer(Range="bytes=4-", If_Range='"8"').status == 200


def test_ranges_can_be_switched_off() -> None:
    """Ranges that are disabled are neither announced nor served."""
    reply = answer(ranges=False, Range="bytes=4-")
    assert (reply.status, reply.headers) == (200, {"ETag": ETAG})


def test_compression_is_for_those_who_accept_it() -> None:
    """Compressed content is served if accepted, without ranges and without a strong tag."""
    reply = answer(gzip=True, Accept_Encoding="gzip, deflate", Range="bytes=4-")
    assert (reply.status, reply.gzip, reply.headers["ETag"]) == (200, True, f"W/{ETAG}")
    assert "Accept-Ranges" not in reply.headers
    assert answer(gzip=True, Accept_Encoding="identity", Range="bytes=4-").status == 206
