"""Parsing the form of an upload."""

from __future__ import annotations

import pytest

from together_batches.emulator._forms import parse_form

TYPE = "multipart/form-data; boundary=XX"


def form(*parts: tuple[str, bytes]) -> bytes:
    body = b"".join(b"--XX\r\n%s\r\n\r\n%s\r\n" % (head.encode(), content) for head, content in parts)
    return body + b"--XX--\r\n"


def test_fields_come_out_byte_for_byte() -> None:
    """Fields are returned byte for byte, whatever line ends, dashes and bytes they contain."""
    content = b'{"a":1}\r\n--X\n\r\n\xff\x00\r'
    body = form(
        ('Content-Disposition: form-data; name="purpose"', b"batch-api"),
        (
            'content-type: text/plain\r\ncontent-disposition: form-data; name="file"; filename="a b.jsonl"',
            content,
        ),
    )
    assert parse_form(TYPE, body) == {"purpose": b"batch-api", "file": content}


def test_a_form_may_be_encoded_like_a_query() -> None:
    """A form may be urlencoded, as SDK 1 and the TypeScript SDK send it, with or without a charset."""
    body = b"purpose=batch-api&file_name=%2Fhome%2Fa+b%7E.jsonl&checksum="
    expected = {"purpose": b"batch-api", "file_name": b"/home/a b~.jsonl", "checksum": b""}
    for content_type in ("application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded; charset=UTF-8"):
        assert parse_form(content_type, body) == expected
    assert parse_form("application/x-www-form-urlencoded", b"") == {}


def test_a_quoted_boundary_and_an_empty_form_are_fine() -> None:
    """A quoted boundary and a form without fields are valid."""
    assert parse_form('multipart/form-data; boundary="XX"', form()) == {}


@pytest.mark.parametrize(
    ("content_type", "body", "sentence"),
    [
        ("application/json", b"{}", "must be multipart"),
        ("", b"", "must be multipart"),
        ("multipart/form-data", form(), "must be multipart"),
        (TYPE, b"--XX\r\nContent-Disposition: form-data; name=a\r\n\r\n1", "does not end"),
        (TYPE, b"", "does not end"),
        (TYPE, form(("Content-Disposition: form-data", b"1")), "no name"),
        (TYPE, form(("Content-Type: text/plain", b"1")), "no name"),
    ],
)
def test_what_is_no_form_is_refused(content_type: str, body: bytes, sentence: str) -> None:
    """A body that is not a form is refused with a message."""
    with pytest.raises(ValueError, match=sentence):
        parse_form(content_type, body)
