"""Faults on demand, and the rate limit: what fails, where, and how often. Decides only; ``_gateway`` acts on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec
from attrs import field, frozen, validators

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

OPERATIONS = (
    *("create", "retrieve", "list", "cancel"),
    *("upload", "begin_upload", "store", "preprocess"),
    *("file", "files", "content", "fetch", "delete"),
    *("models", "whoami", "other"),
)


@frozen(kw_only=True)
class Fault:
    """A fault in the response to a request.

    Any combination is allowed that makes sense; another raises ValueError.

    Parameters:
        on: the name of an operation (see ``OPERATIONS``), or ``"*"`` for any.
        job_id: limits the fault to requests about that job.
        times: number of times that it happens; None for always.
        chance: its probability at each request.
        delay: seconds to wait before anything else.
        status: respond with this instead of acting; with ``acts``, act first and then respond with it.
        body, content_type, headers: set these in the response; a body of bytes or text is sent unchanged,
            any other value as JSON. Without ``status`` the service acts, and its own response is altered.
        lose: drop the connection without a byte, before the service acts ("request") or after ("answer").
        cut_after: announce the whole body and drop the connection after this number of bytes.
        drip: send the body byte by byte, with this number of seconds in between.
    """

    on: str = "*"
    job_id: str | None = None
    times: int | None = 1
    chance: float = 1.0
    status: int | None = None
    headers: Mapping[str, str] = field(factory=dict[str, str], hash=False)
    body: object = field(default=None, hash=False)
    content_type: str | None = None
    delay: float = 0.0
    lose: Literal["request", "answer"] | None = None
    cut_after: int | None = None
    acts: bool = False
    drip: float | None = None

    def __attrs_post_init__(self) -> None:
        for message, applies in self._problems().items():
            if applies:
                raise ValueError(message)

    def _problems(self) -> dict[str, bool]:
        """Return each validation message, and whether it applies."""
        on, lengths = ("*", *OPERATIONS), ("content-length", "transfer-encoding")
        alters = self.body is not None or bool(self.headers) or self.content_type is not None
        shapes = alters or self.status is not None or self.cut_after is not None or self.drip is not None
        return {
            f"there is no operation {self.on!r}; choose '*' or one of {OPERATIONS}": self.on not in on,
            "only retrieve and cancel are about one job; job_id does not go with another operation": (
                self.job_id is not None and self.on not in ("*", "retrieve", "cancel")
            ),
            "times must be at least 1, or None for always": self.times is not None and self.times < 1,
            "chance must be above 0 and at most 1": not 0 < self.chance <= 1,
            "status must be a final one, 200 to 599": self.status is not None and not 200 <= self.status <= 599,
            "delay is in seconds and cannot be negative": self.delay < 0,
            "drip is in seconds and cannot be negative": self.drip is not None and self.drip < 0,
            "cut_after counts bytes and cannot be negative": self.cut_after is not None and self.cut_after < 0,
            "lose is 'request' or 'answer'": self.lose not in (None, "request", "answer"),
            "a lost request or answer has no status, body, headers, cut_after or drip": bool(self.lose) and shapes,
            "the length of a body is not given in headers; use cut_after for one that ends too early": (
                any(name.lower() in lengths for name in self.headers)
            ),
            "acts belongs to status: without one the service acts anyway": self.acts and self.status is None,
            "choose one of cut_after and drip": self.cut_after is not None and self.drip is not None,
            "the fault does nothing: give it a status, a delay, a loss or the like": (
                not (shapes or self.lose or self.delay)
            ),
        }

    @property
    def acted_upon(self) -> bool:
        """Whether the service executes the request, whatever its response becomes."""
        return self.lose != "request" and (self.status is None or self.acts)

    def body_bytes(self) -> bytes:
        """Return the body as bytes on the wire."""
        if isinstance(self.body, bytes):
            return self.body
        if isinstance(self.body, str):
            return self.body.encode()
        return msgspec.json.encode(self.body)

    def body_type(self) -> str:
        """Return the Content-Type of the body, which ``content_type`` overrides."""
        return "text/plain; charset=utf-8" if isinstance(self.body, (bytes, str)) else "application/json"


class FaultPlan:
    """The planned faults, in the order in which they were added. The first that matches happens."""

    def __init__(self, faults: Iterable[Fault], random: Random) -> None:
        self._random = random
        self._waiting: list[tuple[Fault, int | None]] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Plan one more, after those already planned."""
        self._waiting.append((fault, fault.times))

    def clear(self) -> None:
        """Remove all of them."""
        self._waiting.clear()

    def pick(self, operation: str, job_id: str | None) -> Fault | None:
        """Return the fault for this request, and use it up by one; None without a fault."""
        for index, (fault, left) in enumerate(self._waiting):
            if fault.on not in ("*", operation) or fault.job_id not in (None, job_id):
                continue
            if fault.chance < 1 and self._random.random() >= fault.chance:
                continue
            if left == 1:
                del self._waiting[index]
            elif left is not None:
                self._waiting[index] = (fault, left - 1)
            return fault
        return None


@frozen
class RateLimit:
    """At most ``per_second`` requests per second in the long run, and up to ``burst`` at once after an idle time.

    Requests above the limit get a 429; with ``retry_after``, its headers ``Retry-After`` and ``x-ratelimit-*``
    contain the time until the next request is allowed. Raises ValueError for a rate that is not above zero and for a
    burst below one.
    """

    per_second: float = field(validator=validators.gt(0))
    burst: int = field(validator=validators.ge(1))
    retry_after: bool = field(default=True)


class TokenBucket:
    """The state of a limit. It starts full."""

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._filled_at = now

    def take(self, now: float) -> float:
        """Take a token: return 0 if there was one, otherwise the seconds until the next one."""
        elapsed = max(0.0, now - self._filled_at)
        self._filled_at = now
        self._tokens = min(float(self._limit.burst), self._tokens + elapsed * self._limit.per_second)
        # Ten steps of 0.1 s at ten a second add up to a hair less than one token, which must count as one.
        if self._tokens >= 1 - 1e-6:
            self._tokens -= 1
            return 0
        return (1 - self._tokens) / self._limit.per_second

    def headers(self, wait: float) -> dict[str, str]:
        """Return the headers of a refusal; none without ``retry_after``."""
        if not self._limit.retry_after:
            return {}
        return {
            # Whole seconds, never zero, because some clients treat zero as no advice.
            "Retry-After": str(max(1, math.ceil(wait))),
            "x-ratelimit-limit": f"{self._limit.per_second:g}",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": f"{wait:.3f}",
        }
