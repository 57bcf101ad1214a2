"""The rows of a job: a request on its way in, and what came of it.

Apart from the other values, because a program that starts, watches or cancels jobs never meets one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs

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


@attrs.frozen
class BatchSuccess:
    """A row that was answered; ``body`` is the endpoint's answer, decoded."""

    custom_id: str
    body: Mapping[str, object] = attrs.field(hash=False)
    status_code: int = 200

    @property
    def text(self) -> str | None:
        """The text of the answer, of a chat or of a transcription; None where there is none."""
        text = _inside(self.body, "choices", 0, "message", "content")
        text = _inside(self.body, "text") if text is None else text
        return text if isinstance(text, str) else None

    @property
    def usage(self) -> Usage | None:
        """The tokens that this row took, where the answer says."""
        found = _inside(self.body, "usage")
        if not isinstance(found, Mapping):
            return None
        counts = [
            _inside(cast("object", found), name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        ]
        return Usage(*(count if isinstance(count, int) else 0 for count in counts))


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
