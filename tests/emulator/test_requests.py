"""Requests, read: operations, and the form of an upload."""

from __future__ import annotations

import pytest

from together_batches.emulator._requests import Route, allowed_methods, find_route, find_storage_route, parse_form


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("POST /v1/batches", Route("create")),
        ("GET /v1/batches", Route("list")),
        ("GET /v1/batches?limit=3", Route("list")),
        ("GET /v1/batches/a", Route("retrieve", "a")),
        ("GET /v1/batches/a%2Fb%20%C3%A9%3F%25", Route("retrieve", "a/b é?%")),
        ("POST /v1/batches/a/cancel", Route("cancel", "a")),
        ("POST /v1/batches/upload/cancel?x=/y", Route("cancel", "upload")),
        ("POST /v1/files/upload", Route("upload")),
        ("POST /v1/files", Route("begin_upload")),
        ("POST /v1/files/f/preprocess", Route("preprocess", "f")),
        ("GET /v1/files", Route("files")),
        ("GET /v1/files/upload", Route("file", "upload")),
        ("GET /v1/files/f/content", Route("content", "f")),
        ("DELETE /v1/files/f", Route("delete", "f")),
        ("GET /v3/whoami", Route("whoami")),
        ("POST /v3/whoami", Route("other")),
        ("GET /v2/supported-models?after=a", Route("models")),
        ("GET /v1/batches/", Route("other")),
        ("GET /v1/batches/a/", Route("other")),
        ("GET /v1/batches/a/b/c", Route("other")),
        ("POST /v1/batches//cancel", Route("other")),
        ("GET /v1/batches/a/cancel", Route("other")),
        ("DELETE /v1/batches/a", Route("other")),
        ("POST /v1/v1/batches", Route("other")),
        ("GET /batches", Route("other")),
        ("GET /", Route("other")),
    ],
)
def test_request_lines_name_operations(line: str, expected: Route) -> None:
    """Request lines map to operations: ids are decoded after splitting; unknown ones are ``other``."""
    method, _, path = line.partition(" ")
    assert expected == find_route(method, path)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/batches", ["GET", "POST"]),
        ("/v1/batches/a", ["GET"]),
        ("/v1/batches/a/cancel?x=1", ["POST"]),
        ("/v1/files/upload", ["GET", "POST", "DELETE"]),
        ("/v1/files/f", ["GET", "DELETE"]),
        ("/v3/whoami", ["GET"]),
        ("/v1/batches/a/b", []),
        ("/", []),
    ],
)
def test_a_path_allows_some_methods(path: str, methods: list[str]) -> None:
    """A path allows the methods that name an operation, and none if it is unknown."""
    assert allowed_methods(path) == methods


def test_only_reading_and_cancelling_are_about_one_job() -> None:
    """Only retrieve and cancel are about one job: a file's id is not a job's."""
    assert (Route("cancel", "a").job_id, Route("file", "a").job_id) == ("a", None)


def test_the_storage_stores_and_fetches() -> None:
    """The storage has two operations, store and fetch, and its addresses contain nothing else."""
    assert (Route("store"), Route("fetch")) == (find_storage_route("PUT"), find_storage_route("GET"))
    assert [Route(name).about_storage for name in ("store", "fetch", "content")] == [True, True, False]


# --- forms


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
