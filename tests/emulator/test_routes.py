"""The operation of a request line."""

from __future__ import annotations

import pytest

from together_batches.emulator._routes import Route, allowed_methods, find_route, find_storage_route


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
