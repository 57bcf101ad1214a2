"""The rows of a job: from each line, an answer, a failure or nothing at all.

The outcome of a row is computed on access, possibly again: it must depend on the row, the job and the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from random import Random
from typing import cast

import msgspec
from attrs import field, frozen, validators

from together_batches.emulator._json_answers import json_answer

_CHAT = "/v1/chat/completions"
_UNKNOWN_MODELS = "unknown/"
_DEDICATED_MODELS = "dedicated/"
_ECHOED = 500  # characters; a file of answers should not be larger than that of the questions

Row = Mapping[str, object]


@frozen
class Answer:
    """A row that succeeds: with this ``text``, or with this ``body`` instead; by default, with a generated answer."""

    text: str | None = None
    body: Row | None = field(default=None, hash=False)
    status_code: int = 200


@frozen
class Failure:
    """A row that fails: it is in the error file, with this message and code."""

    message: str = "Internal Server Error"
    code: str = "batch_client_error"


@frozen
class Missing:
    """A row that is lost: it is in neither file."""


Outcome = Answer | Failure | Missing


def _is_share(_: object, attribute: object, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError("fail_rows and missing_rows are shares, from 0 to 1")


@frozen(kw_only=True)
class RowBehaviour:
    """How rows are answered. ``answer`` decides first; if it is None or returns None, the shares decide."""

    answer: Callable[[Row], Outcome | None] | None = None
    fail_rows: float = field(default=0.0, validator=_is_share)
    missing_rows: float = field(default=0.0, validator=_is_share)
    seed: int = field(default=0, validator=validators.instance_of(int))


def lines_of(content: bytes) -> list[bytes]:
    """Return the lines of a file of JSON Lines: they end only at a newline."""
    return content.removesuffix(b"\n").split(b"\n")


def requests(model: str, endpoint: str, count: int) -> bytes:
    """Return ``count`` valid lines for this model and endpoint."""
    rows: list[Row] = []
    for number in range(1, count + 1):
        custom_id = f"row-{number}"
        if endpoint == _CHAT:
            messages = [{"role": "user", "content": f"Question {number}"}]
            rows.append({"custom_id": custom_id, "body": {"model": model, "messages": messages}})
        else:
            body = {"model": model, "file": f"https://media.example/{number}.wav"}
            rows.append({"custom_id": custom_id, "method": "FILE", "body": body})
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def input_error(lines: list[bytes]) -> str | None:
    """Return the validation error of the input as a whole, or None."""
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is None:
            where = f"Line {number} (within chunk): Invalid JSON format"
            return f"Failed to calculate tokens: input format error: {where} - {_flaw(line)}"
        model = _body(row).get("model")
        if isinstance(model, str) and model.startswith(_DEDICATED_MODELS):
            text = f"Unable to access non-serverless model {model}. Create and start a dedicated endpoint for it."
            return f"Invalid model ID: {text}"
    return None


def first_model(lines: list[bytes]) -> str | None:
    """Return the model of the first line. Which one a real job of mixed models shows is not known."""
    row = _row(lines[0]) if lines else None
    model = _body(row).get("model") if row else None
    return model if isinstance(model, str) else None


class CompletedRows:
    """The completed rows of one job: a ``share`` of all, in the order of their completion."""

    def __init__(
        self, lines: list[bytes], answering: RowBehaviour, *, job_id: str, endpoint: str, created: int, share: float
    ) -> None:
        self._lines = lines
        self._answering = answering
        self._job_id = job_id
        self._endpoint = endpoint
        self._created = created
        order = list(range(len(lines)))
        Random(f"{answering.seed} {job_id} order").shuffle(order)  # noqa: S311  # repeatable on purpose
        self._done = order[: int(len(lines) * share + 1e-9)]

    def succeeded_and_failed(self) -> tuple[bool, bool]:
        """Return whether any row succeeded, and whether any failed."""
        kinds: set[type[Outcome]] = set()
        for _, _, outcome in self._outcomes():
            kinds.add(type(outcome))
            if Answer in kinds and Failure in kinds:
                break
        return Answer in kinds, Failure in kinds

    def output(self) -> bytes:
        """Return the output file."""
        return b"".join(
            self._line(
                index, row, "response", {"status_code": outcome.status_code, "body": self._answer(row, outcome)}
            )
            for index, row, outcome in self._outcomes()
            if isinstance(outcome, Answer)
        )

    def errors(self) -> bytes:
        """Return the error file."""
        return b"".join(
            self._line(index, row, "error", {"code": outcome.code, "message": outcome.message})
            for index, row, outcome in self._outcomes()
            if isinstance(outcome, Failure)
        )

    def _outcomes(self) -> Iterator[tuple[int, Row, Outcome]]:
        # By job and position, not by custom_id: a row that is sent again in another job has another chance.
        random = Random(f"{self._answering.seed} {self._job_id} fates")  # noqa: S311  # repeatable on purpose
        chances = [random.random() for _ in self._lines]
        for index in self._done:
            row = _row(self._lines[index])
            if row is None:
                yield index, {}, Failure("Invalid JSON format")
            else:
                yield index, row, self._outcome(row, chances[index])

    def _outcome(self, row: Row, chance: float) -> Outcome:
        wish = self._answering.answer(row) if self._answering.answer else None
        if wish is not None:
            return wish
        if chance < self._answering.missing_rows:
            return Missing()
        if chance < self._answering.missing_rows + self._answering.fail_rows:
            return Failure()
        objection = _objection(row, self._endpoint)
        return Failure(objection) if objection else Answer()

    def _line(self, index: int, row: Row, kind: str, value: Row) -> bytes:
        line: dict[str, object] = {"id": f"br_{_digest(f'{self._job_id} {index}'.encode(), 12)}"}
        if isinstance(row.get("custom_id"), str):
            line["custom_id"] = row["custom_id"]
        return msgspec.json.encode(line | {kind: value}) + b"\n"

    def _answer(self, row: Row, outcome: Answer) -> Row:
        if outcome.body is not None:
            return outcome.body
        if self._endpoint == _CHAT:
            return _chat_answer(row, outcome.text, self._created)
        text = outcome.text if outcome.text is not None else f"What is heard in {_body(row).get('file')}."
        return {"text": text, "language": "en", "duration": 1.0 + len(text) / 16}


def _objection(row: Row, endpoint: str) -> str | None:
    """Return why this row cannot be answered, or None."""
    body = _body(row)
    model, stop = body.get("model"), body.get("stop")
    if not isinstance(row.get("custom_id"), str):
        return "custom_id is required"
    if not isinstance(model, str):
        return "missing 'model' field in body or not a string"
    if model.startswith(_UNKNOWN_MODELS):
        return f"Unable to access model {model}. It does not exist."
    if isinstance(stop, list) and len(cast("list[object]", stop)) > 4:
        return "Maximum four stop sequences allowed"
    if endpoint != _CHAT and row.get("method") != "FILE":
        return "Unsupported content type: application/json"
    if endpoint != _CHAT and not str(body.get("file")).startswith(("http://", "https://")):
        return "file must be a public URL"
    return None


def _chat_answer(row: Row, text: str | None, created: int) -> Row:
    body = _body(row)
    prompt = _last_words(body)
    if text is None:
        text = json_answer(body.get("response_format"), prompt) or f"You said: {prompt}"
    words = text.split(" ")
    limit = body.get("max_tokens")
    kept = words[:limit] if isinstance(limit, int) and limit >= 0 else words
    prompt_tokens, completion_tokens = len(prompt.split()) + 8, len(kept)
    message: Row = {
        "role": "assistant",
        "content": " ".join(kept),
        "reasoning": f"They said {len(prompt)} characters, and I repeat them.",
        "tool_calls": list[object](),
    }
    finish_reason = "stop" if len(kept) == len(words) else "length"
    choice: Row = {"index": 0, "finish_reason": finish_reason, "logprobs": None, "seed": None, "message": message}
    return {
        "id": f"o{_digest(msgspec.json.encode(row, order='sorted'), 8)}",
        "object": "chat.completion",
        "created": created,
        "model": body.get("model"),
        "prompt": list[object](),
        "choices": [choice],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "reasoning_tokens": 0,
        },
    }


def _last_words(body: Row) -> str:
    messages = body.get("messages")
    last = cast("list[object]", messages)[-1] if isinstance(messages, list) and messages else None
    content = cast("Row", last).get("content") if isinstance(last, dict) else None
    return content[:_ECHOED] if isinstance(content, str) else "nothing"


def _row(line: bytes) -> Row | None:
    try:
        row: object = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return cast("Row", row) if isinstance(row, dict) else None


def _flaw(line: bytes) -> str:
    if not line.strip():
        return "unexpected end of JSON input"
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return str(error)
    return "a line must be an object"


def _body(row: Row) -> Row:
    body = row.get("body")
    return cast("Row", body) if isinstance(body, dict) else {}


def _digest(text: bytes, size: int) -> str:
    return blake2b(text, digest_size=size).hexdigest()
