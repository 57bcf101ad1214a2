"""The operation of each request.

A table of its own instead of aiohttp's router: every request is named here before faults and counters are looked up
by that name, and one handler for ``web.Server`` saves each request the work of an ``Application``.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

__all__ = ["Route", "allowed_methods", "find_route", "find_storage_route"]


class Route(NamedTuple):
    """An operation by name, and the decoded id in its path ("" if it has none)."""

    operation: str
    id: str = ""

    @property
    def job_id(self) -> str | None:
        """The id of the job of the request, or None."""
        return self.id if self.operation in ("retrieve", "cancel") else None

    @property
    def about_batches(self) -> bool:
        """Whether the Batch API responds; its error format differs from the rest of the service."""
        return self.operation in ("create", "retrieve", "list", "cancel")

    @property
    def about_storage(self) -> bool:
        """Whether the storage responds, on its own port; its errors are XML."""
        return self.operation in ("store", "fetch")


OTHER = Route("other")
WHOAMI = Route("whoami")  # not part of these APIs, but the official command requests it first

METHODS = ("GET", "POST", "DELETE")

WITHOUT_ID = {
    ("POST", "batches"): Route("create"),
    ("GET", "batches"): Route("list"),
    ("POST", "files/upload"): Route("upload"),
    ("POST", "files"): Route("begin_upload"),
    ("GET", "files"): Route("files"),
}
WITH_ID = {
    ("GET", "batches", ""): "retrieve",
    ("POST", "batches", "cancel"): "cancel",
    ("GET", "files", ""): "file",
    ("GET", "files", "content"): "content",
    ("POST", "files", "preprocess"): "preprocess",
    ("DELETE", "files", ""): "delete",
}


def find_route(method: str, raw_path: str) -> Route:
    """Return the route of a request line; ``other`` for every unknown one.

    The path is split first and decoded afterwards, so that an id with an encoded slash stays one id.
    """
    path = raw_path.partition("?")[0]
    if path == "/v3/whoami" and method == "GET":
        return WHOAMI
    if not path.startswith("/v1/"):
        return OTHER
    plain = WITHOUT_ID.get((method, path[4:]))
    if plain is not None:
        return plain
    kind, _, rest = path[4:].partition("/")
    raw_id, slash, action = rest.partition("/")
    if not raw_id or bool(slash) != bool(action):
        return OTHER
    operation = WITH_ID.get((method, kind, action))
    return Route(operation, unquote(raw_id)) if operation else OTHER


def allowed_methods(raw_path: str) -> list[str]:
    """Return the methods for which this path has an operation; none for an unknown path."""
    return [method for method in METHODS if find_route(method, raw_path) != OTHER]


def find_storage_route(method: str) -> Route:
    """Return the route of a request to the storage: PUT stores, anything else fetches; paths are not parsed."""
    return Route("store" if method == "PUT" else "fetch")
