"""The rows of a job: requests, and their results.

Separate from the other values, because a program that creates, watches or cancels jobs does not need them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

import attrs

from together_batches._fields import Carried, Plain, outline_of, present
from together_batches._text import format_count
from together_batches.errors import APIResponseValidationError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T_co = TypeVar("T_co", covariant=True, default=None)
else:  # without the default, which Python has since 3.13, and which matters to type checkers alone
    from typing import TypeVar

    T_co = TypeVar("T_co", covariant=True)

__all__ = [
    "BatchFailure",
    "BatchInvalid",
    "BatchMissing",
    "BatchRequest",
    "BatchResult",
    "BatchStray",
    "BatchSuccess",
    "Usage",
]


class _Row(Plain):
    """A row of a file of results; as plain data it has its kind as ``result``."""

    __slots__ = ()
    _result: ClassVar[str]

    def __to_dict__(self) -> dict[str, Any]:
        # An absent id is written as null; an empty raw text is omitted.
        fields = {name: field for name, field in super().__to_dict__().items() if field != ""}
        return {"custom_id": None, "result": self._result, **fields}


@attrs.frozen(eq=False, repr=False, match_args=False)
class _WithBody(Plain):
    """A row with a body, which is a mapping, or undecoded text until it is read."""

    custom_id: str
    _body: Mapping[str, object] | Carried = attrs.field(alias="body")

    @property
    def body(self) -> Mapping[str, Any]:
        """The body, decoded."""
        body = self._body
        if isinstance(body, Carried):
            body = body.decode()
            object.__setattr__(self, "_body", body)
        return body

    @property
    def _value(self) -> Mapping[str, object] | bytes:
        """The body, or its text if nothing can decode it."""
        try:
            return self.body
        except APIResponseValidationError:
            return cast("Carried", self._body).text

    @property
    def _others(self) -> dict[str, object]:
        """The fields other than the body."""
        names = [field.name for field in attrs.fields(type(self))]
        return {name: getattr(self, name) for name in names if name != "_body"}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _WithBody) or type(other) is not type(self):
            return NotImplemented
        if self._others != other._others:
            return False
        try:
            return self._value == other._value
        except RecursionError:  # nested as deeply as the decoder allows
            return False

    def __hash__(self) -> int:
        # Without the parsed value, which a program may change.
        return hash(tuple(value for name, value in self._others.items() if name != "parsed"))

    def __repr__(self) -> str:
        try:
            value = self._value
            body = (
                f"<{format_count(len(value))} bytes that cannot be decoded>"
                if isinstance(value, bytes)
                else repr(value)
            )
        except RecursionError:
            body = "<nested too deeply>"
        others = self._others
        others.pop("raw", None)
        if others.get("parsed", ...) is None:
            del others["parsed"]
        custom_id = others.pop("custom_id")
        rest = "".join(f", {name}={value!r}" for name, value in others.items())
        return f"{type(self).__name__}(custom_id={custom_id!r}, body={body}{rest})"


@attrs.frozen(eq=False, repr=False, match_args=False)
class BatchRequest(_WithBody):
    """One row of a batch: ``custom_id`` is its name, unique in the file, ``body`` the request to the endpoint.

    ``method`` is omitted for chat and is ``"FILE"`` for audio. The body of a request that was read from a file is
    decoded on first access; until then it is written back unchanged. See
    https://docs.together.ai/docs/inference/batch/overview.
    """

    __match_args__ = ("custom_id", "body", "method")

    method: str | None = None

    def __to_dict__(self) -> dict[str, Any]:
        method = present(self, "method")
        return {"custom_id": self.custom_id, **method, "body": dict(self.body)}


@attrs.frozen
class Usage(Plain):
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


_NOT_PARSED: Any = None


@attrs.frozen(eq=False, repr=False, match_args=False)
class BatchSuccess(_WithBody, Generic[T_co]):
    """A row that was answered; ``body`` is the response of the endpoint, ``parsed`` its text as a value.

    ``parsed`` is None unless the rows were read with a ``schema``; it is then of the type of the schema, and a row
    whose text does not fit is a :class:`BatchInvalid` instead.

    In rows from :meth:`AsyncBatches.results`, the response is decoded when ``body`` is first read. That raises
    :class:`APIResponseValidationError` if it cannot be decoded (it is nested too deeply); nothing else does. ``raw``
    is the original line if its response is not plain JSON, or cannot be decoded, and empty otherwise.
    """

    __match_args__ = ("custom_id", "body", "status_code", "raw", "parsed")

    _result: ClassVar[str] = "success"
    status_code: int = 200
    raw: str = ""
    parsed: T_co = _NOT_PARSED

    def __to_dict__(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"custom_id": self.custom_id, "result": self._result}
        with suppress(APIResponseValidationError, ValueError, RecursionError):
            if self.raw:  # JSON might not represent the body
                json.dumps(self.body, allow_nan=False, ensure_ascii=False).encode()
            plain["body"] = self.body
        plain["status_code"] = self.status_code
        return {**plain, "raw": self.raw} if self.raw else plain

    @property
    def text(self) -> str | None:
        """The text of a chat or transcription response, or None."""
        return outline_of(self).text

    @property
    def finish_reason(self) -> str | None:
        """Why a chat response ended, such as ``"stop"``, or ``"length"`` if it was cut off; None if not given."""
        return outline_of(self).finish_reason

    @property
    def usage(self) -> Usage | None:
        """The tokens used for this row, or None if the response does not contain them."""
        _, _, *tokens = outline_of(self)
        return None if tokens == [None, None, None] else Usage(*(count or 0 for count in tokens))


@attrs.frozen
class BatchInvalid(_Row):
    """A row that was answered, and whose answer does not fit the ``schema`` with which the rows were read.

    ``error`` says why, ``text`` is the text of the answer as it came, None if it has none, and ``answer`` the whole
    answer. An answer that was cut off (``finish_reason`` is ``"length"``) does not fit.
    """

    _result: ClassVar[str] = "invalid"

    custom_id: str
    text: str | None
    error: str
    answer: BatchSuccess

    def __to_dict__(self) -> dict[str, Any]:
        return {**self.answer.__to_dict__(), "result": self._result, "error": self.error}


@attrs.frozen
class BatchFailure(_Row):
    """A row that failed, or a line that could not be read (``custom_id`` is None if it could not be read either).

    ``code`` and ``message`` are the service's, ``raw`` is the original line.
    """

    _result: ClassVar[str] = "failure"

    custom_id: str | None
    code: str | None
    message: str
    status_code: int | None = None
    raw: str = attrs.field(default="", repr=False)


@attrs.frozen
class BatchMissing(_Row):
    """A row of the input that is in neither file of the job: it was not answered, and may be sent again."""

    _result: ClassVar[str] = "missing"

    custom_id: str


@attrs.frozen
class BatchStray(_Row):
    """A row that belongs to no row of the input, or to one that was already answered; ``reason`` states which."""

    _result: ClassVar[str] = "stray"

    custom_id: str | None
    reason: str
    raw: str = attrs.field(default="", repr=False)


BatchResult = BatchSuccess[T_co] | BatchInvalid | BatchFailure | BatchMissing | BatchStray
"""The result of one row; match it by class. ``BatchResult[City]`` is one that was read with ``schema=City``."""
