"""Tests of content codings: which labels are compressions, and their decoding in bounded pieces."""

from __future__ import annotations

import gzip
import zlib

import pytest

from together_batches._http.content_coding import CodingError, Decoder, compressions, decode

TEXT = b'{"id": "job-1"}'


def bare_deflate(content: bytes) -> bytes:
    """Return a deflate stream without zlib's head and checksum, as some servers send it."""
    made = zlib.compressobj(wbits=-15)
    return made.compress(content) + made.flush()


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("gzip", ("gzip",)),
        ("X-GZIP", ("gzip",)),
        (" Deflate , gzip ", ("deflate", "gzip")),
        ("br", ("br",)),
        ("", ()),
        (",", ()),
        ("identity", ()),
        ("aws-chunked", ()),
        ("aws-chunked,gzip", ("gzip",)),
        ("gzip, aws-chunked", ("gzip",)),
        ("UTF-8", ()),
        ("none", ()),
        ("binary, 7bit", ()),
    ],
)
def test_only_compressions_count(header: str, names: tuple[str, ...]) -> None:
    """Bytes under a label that is not a compression are unchanged: storages repeat labels of an uploader."""
    assert compressions(header) == names


@pytest.mark.parametrize(
    ("names", "body"),
    [
        ((), TEXT),
        (("gzip",), gzip.compress(TEXT)),
        (("gzip",), gzip.compress(TEXT[:4]) + gzip.compress(TEXT[4:])),
        (("deflate",), zlib.compress(TEXT)),
        (("deflate",), bare_deflate(TEXT)),
        (("deflate",), bare_deflate(bytes(range(256)) * 300)),
        (("deflate",), gzip.compress(TEXT)),
        (("gzip", "deflate"), bare_deflate(gzip.compress(TEXT))),
        (("gzip", "gzip"), gzip.compress(gzip.compress(TEXT))),
        (("gzip",), b""),
    ],
)
def test_compressions_are_undone_however_the_bytes_come(names: tuple[str, ...], body: bytes) -> None:
    """The last compression applied is undone first, even if the bytes arrive one by one."""
    whole = decode(body, names, 1 << 20)
    assert whole in {TEXT, bytes(range(256)) * 300, b""}
    assert bool(whole) is bool(body)
    decoder = Decoder(names)
    assert b"".join(piece for byte in body for piece in decoder.pieces(bytes([byte]))) == whole
    decoder.finish()


@pytest.mark.parametrize(
    ("names", "body", "problem"),
    [
        (("br",), TEXT, "it is encoded as br"),
        (("gzip", "zstd"), TEXT, "it is encoded as zstd"),
        (5 * ("gzip",), TEXT, "it is compressed 5 times"),
        (("gzip",), TEXT, "it is not gzip"),
        (("deflate",), b"\xff\xff\xff", "it is not deflate"),
        (("gzip",), gzip.compress(TEXT)[:-1], "its gzip ends too soon"),
        (("gzip", "deflate"), zlib.compress(gzip.compress(TEXT)[:-1]), "its gzip ends too soon"),
    ],
)
def test_what_cannot_be_undone(names: tuple[str, ...], body: bytes, problem: str) -> None:
    """The error names the reason why the bytes cannot be decoded."""
    with pytest.raises(CodingError, match=f"^{problem}$"):
        decode(body, names, 1 << 20)


@pytest.mark.unmeasured
def test_no_more_is_decoded_than_is_wanted() -> None:
    """Decoding a kilobyte that expands to a gigabyte costs little more than the limit allows."""
    bomb = gzip.compress(gzip.compress(bytes(200 << 20)))
    assert len(bomb) < 2_000
    assert 1 << 20 < len(decode(bomb, ("gzip", "gzip"), 1 << 20)) <= 3 << 20
    assert max(map(len, Decoder(("gzip", "gzip")).pieces(bomb))) <= 1 << 20


def test_the_beginning_of_a_body_can_be_decoded() -> None:
    """A truncated body is decoded, for the excerpt of a refusal."""
    body = gzip.compress(TEXT)
    assert decode(body[:-8], ("gzip",), 100, whole=False) == TEXT
