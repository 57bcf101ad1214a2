"""Hook for connections to Together AI."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict, cast

from together_batches.airflow._airflow import BaseHook
from together_batches.errors import AuthenticationError, BatchesError, PermissionDeniedError, UsageError

if TYPE_CHECKING:
    from together_batches.airflow._airflow import Connection
    from together_batches.client import AsyncBatches
    from together_batches.sync import Batches

__all__ = ["TogetherHook"]


class _Settings(TypedDict, total=False):
    """Arguments of a client."""

    api_key: str
    base_url: str | None
    timeout: float
    max_concurrency: int
    proxy: str
    allow_insecure_http: bool


class TogetherHook(BaseHook):
    """Make clients of the Batch API of Together AI from an Airflow connection.

    The connection's password is the API key and its host the base URL, which may be empty. Its extra may set
    ``timeout``, ``max_concurrency``, ``proxy`` and ``allow_insecure_http``, as for
    :class:`~together_batches.AsyncBatches`.

    :param conn_id: the connection to use.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "together_default"
    conn_type = "together"
    hook_name = "Together AI"

    def __init__(self, conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.conn_id = conn_id

    def get_conn(self) -> Batches:
        """Return a new synchronous client, which the caller closes."""
        from together_batches.sync import Batches

        return Batches(**self._settings)

    def get_async_conn(self) -> AsyncBatches:
        """Return a new asynchronous client, which the caller closes.

        The connection is read at once, so in a triggerer call this in a thread.
        """
        from together_batches.client import AsyncBatches

        return AsyncBatches(**self._settings)

    def test_connection(self) -> tuple[bool, str]:
        """List the jobs of the account, and return whether that succeeded, with a message."""
        from together_batches.config import RetryPolicy
        from together_batches.sync import Batches

        try:
            with Batches(**self._settings, retry=RetryPolicy(max_attempts=1)) as batches:
                count = len(batches.list())
        except (AuthenticationError, PermissionDeniedError) as error:
            return False, f"the API key was refused: {error}"
        except BatchesError as error:
            return False, str(error)
        return True, f"connected; the account has {count} batch job{'' if count == 1 else 's'}"

    @cached_property
    def _settings(self) -> _Settings:
        # Read once, because a signal handler, which may need a client, must not ask Airflow for the connection.
        from together_batches.config import Secret  # takes 30 ms, which the parsing of a DAG file should not

        connection = self.get_connection(self.conn_id)
        if not (connection.password or "").strip():
            message = f"connection {self.conn_id!r} has no API key: set its password"
            raise UsageError(message)
        settings = _Settings(api_key=Secret(connection.password or ""), base_url=_url_of(connection))
        extra = _extra_of(connection, self.conn_id)
        unknown = extra.keys() - _EXTRA.keys()
        if unknown:
            message = (
                f"connection {self.conn_id!r}: unknown setting in extra: {', '.join(sorted(unknown))}; known are "
                f"{', '.join(_EXTRA)}"
            )
            raise UsageError(message)
        for name, value in extra.items():
            if isinstance(value, bool) != (_EXTRA[name] is bool) or not isinstance(value, _EXTRA[name]):
                message = f"connection {self.conn_id!r}: {name} in extra has the wrong type, {type(value).__name__}"
                raise UsageError(message)
        settings.update(extra)  # type: ignore[typeddict-item]  # names and types were just checked
        return settings


_EXTRA: dict[str, type | tuple[type, ...]] = {
    "timeout": (int, float),
    "max_concurrency": int,
    "proxy": str,
    "allow_insecure_http": bool,
}
"""Names and types of the settings in a connection's extra."""


def _url_of(connection: Connection) -> str | None:
    """Return the base URL of a connection, which Airflow may have cut into host, port and schema."""
    host = (connection.host or "").strip()
    if not host:
        return None
    protocol, path = ("", connection.schema or "")
    if "://" not in host:
        protocol, path = (f"{path}://", "") if path in {"http", "https"} else ("https://", path)
    port = f":{connection.port}" if connection.port else ""
    return f"{protocol}{host}{port}" + (f"/{path.strip('/')}" if path else "")


def _extra_of(connection: Connection, conn_id: str) -> dict[str, object]:
    """Return the settings in a connection's extra, without those that were left empty in the form."""
    try:
        extra: object = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        message = f"connection {conn_id!r}: extra is not a JSON object"
        raise UsageError(message)
    settings = cast("dict[str, object]", extra)
    return {name: value for name, value in settings.items() if value is not None and value != ""}
