"""Tests of paging: a list that continues elsewhere is never taken for the whole."""

from __future__ import annotations

from typing import Any

import pytest

from together_batches._protocol import files as file_protocol
from together_batches._protocol import jobs as job_protocol
from together_batches._protocol.jobs import Answer
from together_batches._protocol.json_codec import encode
from together_batches._protocol.paging import sign_in_headers, sign_of_more
from together_batches.errors import APIResponseValidationError

_PARTS: list[tuple[dict[str, Any], str]] = [
    ({"has_more": True}, "has_more"),
    ({"hasMore": True}, "hasMore"),
    ({"has_more": "true"}, "has_more"),
    ({"last_id": "b", "has_more": True}, "has_more"),
    ({"next": "https://api.example/v1/batches?after=b"}, "next"),
    ({"next_page": 2}, "next_page"),
    ({"next_page_token": "b"}, "next_page_token"),
    ({"nextPageToken": "b"}, "nextPageToken"),
    ({"next_cursor": "b"}, "next_cursor"),
    ({"continuation_token": "b"}, "continuation_token"),
    ({"is_truncated": True}, "is_truncated"),
    ({"total": 3}, "total"),
    ({"total_count": 3}, "total_count"),
    ({"page": 1, "total_pages": 2}, "total_pages"),
    ({"pagination": {"page": 1, "has_next": True}}, "pagination.has_next"),
    ({"meta": {"total": 3}}, "meta.total"),
    ({"links": {"self": "/batches", "next": "/batches?page=2"}}, "links.next"),
]
_WHOLE: list[dict[str, Any]] = [
    {},
    {"object": "list", "first_id": "a", "last_id": "b", "has_more": False},
    {"next": None, "next_page_token": "", "next_cursor": False, "has_more": "false"},
    {"total": 2, "page": 1, "total_pages": 1},
    {"total": 0},
    {"total": None},
    {"total": "many"},
    {"pagination": {"next": None, "total": 2}, "links": None, "meta": []},
]


@pytest.mark.parametrize(("said", "sign"), _PARTS, ids=str)
def test_what_says_that_there_is_more(said: dict[str, Any], sign: str) -> None:
    """A flag, the name of a next page, and a number of entries or pages above those received are signs of more."""
    assert sign_of_more({"data": [], **said}, 2) == sign


@pytest.mark.parametrize("said", _WHOLE, ids=str)
def test_what_says_that_there_is_no_more(said: dict[str, Any]) -> None:
    """The same members with a value that means no, or an empty one, are no sign of more."""
    assert sign_of_more(said, 2) is None


_READERS = {"jobs": job_protocol.read_jobs, "files": file_protocol.read_files}


def _answer(said: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
    body = encode({"data": [{"id": "a"}, {"id": "b"}], **said})
    request = job_protocol.Request("GET", "/batches", repeatable=True)
    return Answer(request, "https://api.example/v1/batches", 200, headers or {}, body)


@pytest.mark.parametrize("kind", _READERS)
@pytest.mark.parametrize(("said", "sign"), _PARTS, ids=str)
def test_a_part_of_a_list_is_refused(kind: str, said: dict[str, Any], sign: str) -> None:
    """A partial list of jobs or of files is refused, and the error names the sign."""
    with pytest.raises(APIResponseValidationError, match="only a part of one, and no paging is known") as caught:
        _READERS[kind](_answer(said))
    assert caught.value.where == f"$.{sign}"


@pytest.mark.parametrize("kind", _READERS)
@pytest.mark.parametrize("said", _WHOLE, ids=str)
def test_a_whole_list_is_read(kind: str, said: dict[str, Any]) -> None:
    """A complete list is read, whatever else is in its object."""
    assert [entry.id for entry in _READERS[kind](_answer(said))] == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "is_part"),
    [
        ('</v1/batches?page=2>; rel="next"', True),
        ("</v1/batches?page=2>; rel=next", True),
        ('<?page=1>; rel="prev", <?page=3>; rel="NEXT"', True),
        ('<?page=3>; title="x"; rel="last next"', True),
        ('</style.css>; rel="preload"', False),
        ('<https://docs.example/next>; rel="help"', False),
        ("", False),
    ],
)
@pytest.mark.parametrize("name", ["Link", "link"])
@pytest.mark.parametrize("kind", _READERS)
def test_a_header_that_names_the_next_page(kind: str, name: str, value: str, is_part: bool) -> None:
    """A header that names a next page is a sign of more, also beside a bare list."""
    headers = {"Content-Type": "application/json", name: value}
    assert sign_in_headers(headers) == (name if is_part else None)
    if is_part:
        with pytest.raises(APIResponseValidationError, match="only a part") as caught:
            _READERS[kind](_answer({}, headers))
        assert caught.value.where == f"header {name}"
    else:
        assert len(_READERS[kind](_answer({}, headers))) == 2
