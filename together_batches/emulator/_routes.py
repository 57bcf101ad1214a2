"""Which operation a request asks for.

A table of its own instead of aiohttp's router: every request is named here before faults and counters are
looked up by that name, and one handler behind `web.Server` spares each request the work of an `Application`.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

__all__ = ["Route", "allowed_methods", "find_route", "find_storage_route"]


class Route(NamedTuple):
    """An operation by name, and the id in its path, decoded ("" where there is none)."""

    operation: str
    id: str = ""

    @property
    def job_id(self) -> str | None:
        """The job the request is about, if it is about one."""
        return self.id if self.operation in ("retrieve", "cancel") else None

    @property
    def about_batches(self) -> bool:
        """Whether the Batch API answers; it words its errors in another way than the rest of the service."""
        return self.operation in ("create", "retrieve", "list", "cancel")

    @property
    def about_storage(self) -> bool:
        """Whether the storage answers, on its own port; it words its errors in XML."""
        return self.operation in ("store", "fetch")


OTHER = Route("other")
WHOAMI = Route("whoami")  # not part of these APIs, but the official command asks for it first

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
    """The route of a request line; `other` for everything that the emulator does not know.

    Split first and decode afterwards, so that an id with an encoded slash in it stays one id.
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
    """The methods for which this path has an operation; none for a path that the emulator does not know."""
    return [method for method in METHODS if find_route(method, raw_path) != OTHER]


def find_storage_route(method: str) -> Route:
    """The same for the storage: what is not stored is fetched, and addresses mean nothing but themselves."""
    return Route("store" if method == "PUT" else "fetch")
