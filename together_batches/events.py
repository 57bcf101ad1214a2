"""Values: what a client reports to ``on_event`` as it happens.

An event has ids, states, numbers and times alone: no key, no prompt, no answer, and no message of the service, which
may quote one of these.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import attrs

from together_batches._fields import Plain
from together_batches.models import BatchJobStatus

__all__ = [
    "ClientEvent",
    "JobChanged",
    "JobCreated",
    "RateChanged",
    "RequestFinished",
    "RetryScheduled",
    "RunChanged",
]


@attrs.frozen(kw_only=True)
class _OfRequest(Plain):
    """An event of one attempt of a request.

    ``path`` comes after the base URL, without its query. It is None for a storage, of whose URL only ``host`` is
    given, because the rest is a secret.
    """

    method: str
    host: str
    path: str | None

    __derived__: ClassVar[tuple[str, ...]] = ("route",)

    @property
    def route(self) -> str | None:
        """The path with ``{id}`` instead of an id, such as ``/batches/{id}/cancel``; None for a storage.

        Of a path outside batches and files it is the first part.
        """
        if self.path is None:
            return None
        first, *rest = self.path.strip("/").split("/")
        if not rest or first not in {"batches", "files"}:
            return f"/{first}"
        subject = rest[0] if [first, *rest] == ["files", "upload"] else "{id}"
        return "/".join(("", first, subject, *rest[1:2]))


@attrs.frozen(kw_only=True)
class RequestFinished(_OfRequest):
    """An attempt of a request has ended; ``attempt`` counts from 1.

    ``status`` is None if there was no response, and ``error`` is then the class of the error, such as
    ``APITimeoutError``. ``seconds`` is the duration of the attempt; of a download, until its first byte.
    ``request_id`` is the service's id of the request.
    """

    status: int | None
    seconds: float
    attempt: int
    request_id: str | None = None
    error: str | None = None


@attrs.frozen(kw_only=True)
class RetryScheduled(_OfRequest):
    """An attempt has failed, and the request is sent again after ``wait`` seconds.

    ``cause`` is the class of the error, such as ``RateLimitError``; ``status`` is that of the response, if any.
    """

    status: int | None
    attempt: int
    cause: str
    wait: float


@attrs.frozen(kw_only=True)
class RateChanged(Plain):
    """The rate limiter of the client has changed the allowed ``rate``, in requests per second.

    ``rate`` is None if the rate is not known yet. ``pause`` is the seconds for which nothing is sent, because the
    service refuses everything; otherwise 0.
    """

    rate: float | None
    pause: float = 0.0


@attrs.frozen(kw_only=True)
class JobCreated(Plain):
    """A job was created. ``found`` is true if the response was lost, and the job was found in the list."""

    job_id: str
    input_file_id: str
    endpoint: str
    model_id: str | None = None
    found: bool = False


@attrs.frozen(kw_only=True)
class JobChanged(Plain):
    """The client has read a job in another state than before: another ``status``, or more ``progress``, in percent.

    ``before`` is the status that this client read last; None if it reads the job for the first time. Once a job has
    been read in a terminal status, older states that a late response shows are left out. ``seen_at`` is the time of
    the response by the clock of the service, if it states one.
    """

    job_id: str
    status: BatchJobStatus | None
    before: BatchJobStatus | None = None
    progress: float | None = None
    model_id: str | None = None
    endpoint: str | None = None
    input_file_id: str | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    seen_at: datetime | None = None


@attrs.frozen(kw_only=True)
class RunChanged(Plain):
    """An event of a durable run: the ``RunEvent`` that ``run(on_event=)`` receives, without its message.

    ``kind`` is a value of ``RunEventKind``. Rows are counted as in ``RunEvent``.
    """

    directory: str
    kind: str
    at: datetime
    shard: int | None = None
    attempt: int | None = None
    job_id: str | None = None
    succeeded: int = 0
    failed: int = 0
    missing: int = 0
    invalid: int = 0
    in_flight: int = 0
    not_sent: int = 0
    answered: int = 0
    invalid_answers: int = 0


ClientEvent = RequestFinished | RetryScheduled | RateChanged | JobCreated | JobChanged | RunChanged
"""Any event of a client."""
