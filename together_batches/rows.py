"""The rows of a job: a request on its way in, and what came of it.

Apart from the other values, because a program that starts, watches or cancels jobs never meets one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import attrs

from together_batches.errors import APIResponseValidationError

__all__ = ["BatchFailure", "BatchMissing", "BatchRequest", "BatchResult", "BatchStray", "BatchSuccess", "Usage"]


@attrs.frozen
class BatchRequest:
    """One row of a batch: ``custom_id`` is its name, unique in the file, ``body`` what the endpoint is asked.

    ``method`` is left out for chat and is ``"FILE"`` for audio.
    See https://docs.together.ai/docs/inference/batch/overview.
    """

    custom_id: str
    body: Mapping[str, object] = attrs.field(hash=False)
    method: str | None = None


@attrs.frozen
class Usage:
    """Tokens; they add up: ``sum((row.usage for row in rows if row.usage), Usage())``."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
        )


def _inside(value: object, *path: str | int) -> object:
    """What is at this path of decoded JSON, or None where the path leads nowhere."""
    for step in path:
        if isinstance(value, Mapping):
            value = cast("Mapping[object, object]", value).get(step)
        elif isinstance(value, list) and isinstance(step, int):
            items = cast("list[object]", value)
            value = items[step] if step < len(items) else None
        else:
            return None
    return value


class Carried(Protocol):
    """The body of an answer as the text that came, which is decoded when its value is wanted."""

    @property
    def text(self) -> bytes:
        """The text, an object in JSON."""
        ...

    def decode(self) -> Mapping[str, object]:
        """The value; :class:`APIResponseValidationError` if nothing reads it."""
        ...

    def outline(self) -> Mapping[str, object]:
        """The members that texts and tokens are in; none if nothing reads it."""
        ...


@attrs.frozen
class BatchSuccess:
    """A row that was answered; ``body`` is the endpoint's answer.

    Of rows that :meth:`AsyncBatches.results` gives, the answer is decoded when ``body`` is read for the first time.
    That raises :class:`APIResponseValidationError` if nothing can decode it (it is nested too deeply); nothing else
    does. ``raw`` is the line as it came, if its answer is no JSON that every reader takes, and empty otherwise.
    """

    __match_args__ = ("custom_id", "body", "status_code", "raw")

    custom_id: str
    _body: Mapping[str, object] | Carried = attrs.field(alias="body")
    status_code: int = 200
    raw: str = ""

    @property
    def body(self) -> Mapping[str, object]:
        """The endpoint's answer, decoded."""
        body = self._body
        if not isinstance(body, Mapping):
            body = body.decode()
            object.__setattr__(self, "_body", body)
        return body

    @property
    def text(self) -> str | None:
        """The text of the answer, of a chat or of a transcription; None if there is none."""
        outline = self._outline
        text = _inside(outline, "choices", 0, "message", "content")
        text = _inside(outline, "text") if text is None else text
        return text if isinstance(text, str) else None

    @property
    def usage(self) -> Usage | None:
        """The tokens that this row took, if the answer says."""
        found = _inside(self._outline, "usage")
        if not isinstance(found, Mapping):
            return None
        counts = [
            _inside(cast("object", found), name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        ]
        return Usage(*(count if isinstance(count, int) else 0 for count in counts))

    @property
    def _outline(self) -> Mapping[str, object]:
        body = self._body
        return body if isinstance(body, Mapping) else body.outline()

    @property
    def _value(self) -> Mapping[str, object] | bytes:
        """The body, or its text if nothing can decode it."""
        try:
            return self.body
        except APIResponseValidationError:
            return cast("Carried", self._body).text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BatchSuccess):
            return NotImplemented
        if (self.custom_id, self.status_code, self.raw) != (other.custom_id, other.status_code, other.raw):
            return False
        try:
            return self._value == other._value
        except RecursionError:  # it is nested as deeply as can be decoded
            return False

    def __hash__(self) -> int:
        return hash((self.custom_id, self.status_code, self.raw))

    def __repr__(self) -> str:
        try:
            value = self._value
            body = f"<{len(value):,} bytes that cannot be decoded>" if isinstance(value, bytes) else repr(value)
        except RecursionError:
            body = "<nested too deeply>"
        return f"BatchSuccess(custom_id={self.custom_id!r}, body={body}, status_code={self.status_code!r})"


def carried(row: BatchSuccess) -> bytes | None:
    """The text of an answer that was not decoded, and so is as it came; None if it was."""
    body = row._body  # pyright: ignore[reportPrivateUsage]
    return None if isinstance(body, Mapping) else body.text


@attrs.frozen
class BatchFailure:
    """A row that failed, or a line that could not be read (then ``custom_id`` is None, where it could not either).

    ``code`` and ``message`` are the service's, ``raw`` is the line as it came.
    """

    custom_id: str | None
    code: str | None
    message: str
    status_code: int | None = None
    raw: str = attrs.field(default="", repr=False)


@attrs.frozen
class BatchMissing:
    """A row of the input that is in neither file of the job: it was not answered, and may be sent again."""

    custom_id: str


@attrs.frozen
class BatchStray:
    """A row that belongs to no row of the input, or to one that was answered before; ``reason`` says which."""

    custom_id: str | None
    reason: str
    raw: str = attrs.field(default="", repr=False)


BatchResult = BatchSuccess | BatchFailure | BatchMissing | BatchStray
"""What became of one row; match it by class."""
