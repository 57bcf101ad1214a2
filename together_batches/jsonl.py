"""Files of requests: made, read, checked, and cut to the size that the service takes.

One request a line, as JSON, split at the byte ``\\n`` and nothing else: U+2028 and its like may stand in a text.
What the service asks of a file is told at https://docs.together.ai/docs/inference/batch/overview. Everything here is
synchronous and holds one row at a time; async code calls it in a thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, cast

import attrs

from together_batches import _wire
from together_batches._checks import whole
from together_batches.errors import UsageError, ValidationError
from together_batches.rows import BatchRequest

if TYPE_CHECKING:
    from json import JSONDecodeError

__all__ = [
    "MAX_BYTES",
    "MAX_CUSTOM_ID",
    "MAX_LINE_BYTES",
    "MAX_ROWS",
    "Line",
    "LineSplitter",
    "Problem",
    "Readable",
    "Source",
    "Validation",
    "audio_request",
    "chat_request",
    "decode",
    "encode",
    "read",
    "split",
    "split_lines",
    "validate",
    "write",
]

MAX_ROWS = 50_000
"""Requests in a file, as the service documents it."""
MAX_BYTES = 100_000_000
"""Bytes of a file: the documented 100 MB, read in the way that is safe."""
MAX_LINE_BYTES = 10_000_000
"""Bytes of a line without its end: the documented 10 MB, read in the way that is safe."""
MAX_CUSTOM_ID = 64
"""Characters of a ``custom_id``, as documented."""

_CHAT = "/v1/chat/completions"
_AUDIO = "/v1/audio/"
_BOM = b"\xef\xbb\xbf"
_JSON_SPACE = b" \t\r\n"
_BLOCK = 1 << 16  # small: a block of nothing but newlines becomes as many lines
_KEPT_OF_A_LONG_LINE = 1024
_KEPT_PROBLEMS = 1000
_KEPT_MODELS = 1000
_KEPT_OF_A_TEXT = 200
_LINES_IN_A_MESSAGE = 20


class Readable(Protocol):
    """Whatever is read like a file opened in binary mode."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, and none at the end."""
        ...


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Iterable[BatchRequest]
"""Where requests come from: a path, the bytes of a file, a file opened in binary mode (it is read from where it
stands, and left open), or requests."""


# Lines


class Line(NamedTuple):
    """A line of a stream: ``number`` counts from 1, ``offset`` is the bytes before it, ``length`` its own.

    ``content`` is without the end of the line (``\\n`` or ``\\r\\n``) and without a byte order mark, which shows as
    an ``offset`` of 3 of the first line. Of a line that was too long to be held ``content`` is only the beginning.
    """

    number: int
    offset: int
    content: bytes
    length: int

    @property
    def whole(self) -> bool:
        """False where the line was too long to be held."""
        return len(self.content) == self.length


class LineSplitter:
    """Makes lines of chunks, whatever their borders: :meth:`feed` each chunk, then :meth:`close`.

    It knows no I/O, and so serves a file as well as an async stream. It holds one line at most, and of a line of more
    than ``max_line_bytes`` only the beginning.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = whole("max_line_bytes", max_line_bytes)
        self._kept = min(_KEPT_OF_A_LONG_LINE, max_line_bytes)
        self._number = self._offset = 0
        # Of the line that has not ended yet. A bytearray grows in place: joining bytes anew for each chunk would cost
        # the square of the line's length.
        self._held = bytearray()
        self._length = 0

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that end in this chunk."""
        first, *others = chunk.split(b"\n")
        self._hold(first)
        if not others:
            return []
        lines = [self._held_line()]
        unfinished = others.pop()
        number, offset, longest = self._number, self._offset, self._max
        # Nearly all lines of a file go through here, and a call of Line for each costs more than all else that is
        # done with it: this is the same without the detour through Line.__new__.
        new = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        for content in others:
            number += 1
            length = end = len(content)
            if content[-1:] == b"\r":
                content, length = content[:-1], length - 1
            if length > longest:
                content = content[: self._kept]
            lines.append(new(Line, (number, offset, content, length)))
            offset += end + 1
        self._number, self._offset = number, offset
        self._hold(unfinished)
        return lines

    def close(self) -> list[Line]:
        """The last line, where the stream did not end with a newline."""
        return [self._held_line()] if self._length else []

    def _hold(self, content: bytes) -> None:
        self._length += len(content)
        # What is taken off a line before it is measured does not make it too long.
        if self._length <= self._max + len(_BOM) + len(b"\r"):
            self._held += content
        elif len(self._held) < self._kept:
            self._held += content[: self._kept - len(self._held)]
        else:
            del self._held[self._kept :]

    def _held_line(self) -> Line:
        content, length, offset = bytes(self._held), self._length, self._offset
        self._held.clear()
        self._length = 0
        self._number += 1
        self._offset += length + 1
        if offset == 0 and content.startswith(_BOM):
            content, length, offset = content[len(_BOM) :], length - len(_BOM), len(_BOM)
        if content.endswith(b"\r") and len(content) == length:
            content, length = content[:-1], length - 1
        return Line(self._number, offset, content if length <= self._max else content[: self._kept], length)


def split_lines(chunks: Iterable[bytes], max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """The lines of a stream of bytes: split at ``\\n`` and nothing else, wherever the chunks begin and end."""
    splitter = LineSplitter(max_line_bytes)
    for chunk in chunks:
        yield from splitter.feed(chunk)
    yield from splitter.close()


# One request


def chat_request(
    custom_id: str, *, model: str, messages: Iterable[Mapping[str, object]], **parameters: object
) -> BatchRequest:
    """A request for a chat completion; ``parameters`` are those of the endpoint, such as ``max_tokens``.

    See https://docs.together.ai/reference/chat-completions-1. Raises :class:`ValidationError` for what no batch
    takes.
    """
    if isinstance(messages, str | bytes | Mapping):
        message = 'messages is one value, and must be a list such as [{"role": "user", "content": "Hello"}]'
        raise ValidationError(message, problems=[message])
    return _made(BatchRequest(custom_id, {"model": model, "messages": list(messages), **parameters}), _CHAT)


def audio_request(custom_id: str, *, model: str, file: str, **parameters: object) -> BatchRequest:
    """A request to transcribe or translate what ``file``, a public URL, leads to when the job runs.

    ``parameters`` are those of the endpoint, such as ``language``; see
    https://docs.together.ai/docs/inference/batch/overview. Raises :class:`ValidationError` for what no batch takes.
    """
    address: object = file
    if not isinstance(address, str) or not address.startswith(("https://", "http://")):
        message = f"file must be a public URL, from where the service fetches the audio; it is {_short(address)}"
        raise ValidationError(message, problems=[message])
    return _made(BatchRequest(custom_id, {"model": model, "file": file, **parameters}, method="FILE"), _AUDIO)


def _made(request: BatchRequest, endpoint: str) -> BatchRequest:
    # How long a custom_id may be is left to validate, which can be told another limit.
    if faults := _faults(_row(request), endpoint, max_custom_id=None):
        raise _invalid(f"this is no request: {faults[0]}", faults)
    return request


def encode(request: BatchRequest) -> bytes:
    """The line of a request, its newline included.

    Raises :class:`ValidationError` where it has no ``custom_id`` or body, or a value that JSON cannot say (NaN).
    """
    return _encoded(request) + b"\n"


def _encoded(request: BatchRequest) -> bytes:
    given: object = request
    if not isinstance(given, BatchRequest):
        message = f"{_short(given)} is no BatchRequest"
        raise _invalid(message, [message])
    row = _row(given)
    if faults := _shape_faults(row):
        raise _invalid(f"this is no request: {faults[0]}", faults)
    try:
        return _wire.encode(row)
    except _wire.WireError as error:
        message = f"the request cannot be written as JSON: {error.problem}"
        raise _invalid(message, [message]) from error


def _row(request: BatchRequest) -> dict[str, object]:
    body: object = request.body
    method = {} if request.method is None else {"method": request.method}
    # JSON knows dicts and no other mappings.
    return {
        "custom_id": request.custom_id,
        **method,
        "body": dict(body) if isinstance(body, Mapping) else body,
    }


def decode(line: bytes) -> BatchRequest:
    """The request in a line.

    Only ``custom_id``, ``method`` and ``body`` are read. Raises :class:`ValidationError` where the line holds none.
    """
    try:
        row = _wire.decode(line)
    except _wire.WireError as error:
        message = _no_json(line, error)
        raise _invalid(message, [message]) from error
    if faults := _shape_faults(row):
        raise _invalid(faults[0], faults)
    fields = cast("dict[str, object]", row)
    return BatchRequest(
        cast("str", fields["custom_id"]),
        cast("dict[str, object]", fields["body"]),
        cast("str | None", fields.get("method")),
    )


def _invalid(message: str, problems: Iterable[str]) -> ValidationError:
    return ValidationError(message, problems=problems)


def _shape_faults(row: object) -> list[str]:
    """Why a decoded line is no request."""
    if not isinstance(row, dict):
        return [f"the line is {_wire.kind(row)}, and must be an object with custom_id and body"]
    fields = cast("dict[str, object]", row)
    faults: list[str] = []
    if not isinstance(custom_id := fields.get("custom_id"), str) or not custom_id:
        faults.append(_wrong("custom_id", custom_id, "text"))
    if not isinstance(body := fields.get("body"), dict):
        faults.append(_wrong("body", body, "an object"))
    if not isinstance(method := fields.get("method"), str | None):
        faults.append(_wrong("method", method, "text"))
    return faults


def _wrong(name: str, value: object, expected: str) -> str:
    if value is None:
        return f"{name} is missing"
    return f"{name} is empty" if value == "" else f"{name} is {_wire.kind(value)}, and must be {expected}"


def _faults(row: object, endpoint: str, max_custom_id: int | None) -> list[str]:
    """Why a decoded line cannot be sent to this endpoint; what only the endpoint can know is left to it."""
    faults = _shape_faults(row)
    if not isinstance(row, dict):
        return faults
    fields = cast("dict[str, object]", row)
    custom_id, body = fields.get("custom_id"), fields.get("body")
    method, url = fields.get("method"), fields.get("url")
    if max_custom_id is not None and isinstance(custom_id, str) and len(custom_id) > max_custom_id:
        faults.append(f"custom_id has {len(custom_id):,} characters, more than {max_custom_id}")
    if isinstance(body, dict):
        asked = cast("dict[str, object]", body)
        if not isinstance(model := asked.get("model"), str) or not model:
            faults.append(_wrong("body.model", model, "text"))
        if asked.get("stream") is True:
            faults.append("body.stream is true, and a batch cannot stream: leave it out")
    # A url is no part of the format, but the service tolerates it, and files made for others have it.
    if url is not None and not (isinstance(url, str) and url.endswith(endpoint)):
        faults.append(f"url is {_short(url)}, while the endpoint of the file is {endpoint}: a file has one")
    if endpoint.startswith(_AUDIO):
        if method != "FILE":
            faults.append(f'method is {"missing" if method is None else _short(method)}; for audio it must be "FILE"')
    elif method == "FILE":
        faults.append(f'method is "FILE", which is for audio, while the endpoint of the file is {endpoint}')
    return faults


def _no_json(line: bytes, error: _wire.WireError) -> str:
    """Why this is no JSON, with the place within the line."""
    if not line.strip(_JSON_SPACE):
        return "the line is blank"
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        return f"the line is not UTF-8: byte {broken.start} of the line is 0x{line[broken.start]:02x}"
    cause = cast("JSONDecodeError", error.__cause__)
    if re.match(r".?(?:NaN|Infinity)", cause.doc[max(0, cause.pos - 1) : cause.pos + 8]):
        reason = "NaN and Infinity are no JSON"
    else:
        reason = cause.msg
    return f"the line is no JSON: {reason}, at byte {len(cause.doc[: cause.pos].encode())} of the line"


def _short(value: object) -> str:
    text = repr(value[: _KEPT_OF_A_TEXT + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _KEPT_OF_A_TEXT else text[:_KEPT_OF_A_TEXT] + "…"


# Files


def read(source: Source) -> Iterator[BatchRequest]:
    """The requests of a file, one after another; blank lines and a byte order mark are passed over.

    Raises :class:`UsageError` where the file cannot be read, and :class:`ValidationError` at the first line that
    holds no request; :func:`validate` finds all of them.
    """
    if _holds_requests(source):
        yield from cast("Iterable[BatchRequest]", source)
        return
    for line in split_lines(_blocks(cast("_Bytes", source))):
        if not line.content.strip(_JSON_SPACE) and line.whole:
            continue
        try:
            if not line.whole:
                message = f"the line has {line.length:,} bytes, more than {MAX_LINE_BYTES:,}"
                raise _invalid(message, [message])
            yield decode(line.content)
        except ValidationError as error:
            places = [str(Problem(problem, line.number, line.offset)) for problem in error.problems]
            raise _invalid(f"{_name(source)}: {places[0]}", places) from error


def write(requests: Iterable[BatchRequest], path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
    """Write requests to a file, one a line; returns how many.

    The file appears under its name when it is whole. Raises :class:`UsageError` where it exists already and
    ``overwrite`` is false, or cannot be written, and :class:`ValidationError` for a request that is none.
    """
    target = Path(path)
    if not overwrite:
        _refuse([target])
    with _scratch(target.parent) as scratch:
        count = 0
        with _Part(scratch / "part", target) as part:
            for count, request in enumerate(requests, start=1):
                try:
                    part.add(_encoded(request))
                except ValidationError as error:
                    raise _invalid(f"request {count}: {error}", error.problems) from error
        if not overwrite:
            _refuse([target])
        with _explained("write", target):
            (scratch / "part").replace(target)
    return count


_Bytes = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable


def _holds_requests(source: object) -> bool:
    if isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(source, "read"):
        return False
    if isinstance(source, Iterable):
        return True
    message = (
        f"requests come from a path, bytes, a binary file or an iterable of BatchRequest, not from {_short(source)}"
    )
    raise UsageError(message)


def _name(source: object) -> str:
    """What a source is called in messages."""
    if isinstance(source, str | os.PathLike):
        return str(Path(cast("str | os.PathLike[str]", source)))
    if _holds_requests(source):
        return "the requests"
    name: object = getattr(source, "name", None)
    return name if isinstance(name, str) and name else "the file"


def _blocks(source: _Bytes) -> Iterator[bytes]:
    if isinstance(source, bytes | bytearray | memoryview):
        for start in range(0, len(source), _BLOCK):
            yield bytes(source[start : start + _BLOCK])
        return
    with _explained("read", _name(source)), ExitStack() as stack:
        if isinstance(source, str | os.PathLike):
            source = stack.enter_context(Path(source).open("rb", buffering=0))
        while True:
            block: object = source.read(_BLOCK)
            if not isinstance(block, bytes):
                message = f"the file gives {type(block).__name__} in place of bytes: open it in binary mode"
                raise UsageError(message)
            if not block:
                return
            yield block


@contextmanager
def _explained(doing: str, path: object) -> Generator[None]:
    """Nobody should meet a bare OSError: what was tried, with what, and why it went wrong."""
    try:
        yield
    except FileNotFoundError as error:
        message = f"cannot {doing} {path}: there is no such file or directory"
        raise UsageError(message) from error
    except IsADirectoryError as error:
        message = f"cannot {doing} {path}: it is a directory"
        raise UsageError(message) from error
    except (OSError, ValueError) as error:  # a ValueError: zero bytes in a path, or a closed file
        reason = getattr(error, "strerror", None) or str(error)
        message = f"cannot {doing} {path}: {reason}"
        raise UsageError(message) from error


@contextmanager
def _scratch(directory: Path) -> Generator[Path]:
    """A directory within ``directory``, from where a file can be renamed to its final place, and gone at the end."""
    with _explained("write in", directory):
        made = tempfile.mkdtemp(prefix=".together-batches-", dir=directory)
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


class _Part:
    """A file that is being written, which will be called ``target``; errors speak of the latter."""

    def __init__(self, path: Path, target: Path) -> None:
        self._target = target
        with _explained("write", target):
            self._file: BinaryIO = path.open("xb")
        self.rows = self.bytes = 0

    def add(self, content: bytes) -> None:
        with _explained("write", self._target):
            self._file.write(content)
            self._file.write(b"\n")
        self.rows += 1
        self.bytes += len(content) + 1

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        with _explained("write", self._target):
            self._file.close()


def _refuse(targets: Iterable[Path]) -> None:
    for target in targets:
        if os.path.lexists(target):
            message = f"{target} exists already; give another name, or remove it first"
            raise UsageError(message)


# Checks


@attrs.frozen
class Problem:
    """What is wrong and where; ``str(problem)`` says it in a sentence.

    ``line`` counts from 1, ``offset`` is the bytes before that line; both are None where it is about the file as a
    whole. ``custom_id`` is that of the row, where it could be read.
    """

    message: str
    line: int | None = None
    offset: int | None = None
    custom_id: str | None = None

    def __str__(self) -> str:
        if self.line is None:
            return self.message
        row = "" if self.custom_id is None else f", custom_id {_short(self.custom_id)}"
        return f"line {self.line} (byte {self.offset}){row}: {self.message}"


@attrs.frozen(kw_only=True)
class Validation:
    """What :func:`validate` found; ``str(validation)`` is a summary in one line.

    ``problems`` are in the order of the lines, those about the file as a whole at the end. At most 1,000 are kept;
    ``problem_count`` is how many there are. ``rows`` are the lines that are not blank, ``bytes`` is the size of the
    file, ``models`` says how many rows ask for each model (of up to 1,000 models).
    """

    source: str
    problems: tuple[Problem, ...]
    problem_count: int
    models: Mapping[str, int] = attrs.field(hash=False)
    rows: int
    bytes: int

    @property
    def ok(self) -> bool:
        """True where there is no problem."""
        return not self.problem_count

    def raise_for_problems(self) -> None:
        """Raise :class:`ValidationError`, with all the problems that were kept, where there are any."""
        if not self.problem_count:
            return
        first, *_ = self.problems
        lines = list(dict.fromkeys(str(problem.line) for problem in self.problems if problem.line is not None))
        more = ", …" if len(lines) > _LINES_IN_A_MESSAGE or self.problem_count > len(self.problems) else ""
        where = f" in lines {', '.join(lines[:_LINES_IN_A_MESSAGE])}{more}; the first" if len(lines) > 1 else ""
        message = f"{self.source}: {_count(self.problem_count, 'problem')}{where}: {first}"
        raise ValidationError(message, problems=[str(problem) for problem in self.problems])

    def __str__(self) -> str:
        found = _count(self.problem_count, "problem") if self.problem_count else "no problems"
        return f"{self.source}: {_count(self.rows, 'row')}, {_count(self.bytes, 'byte')}, {found}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@attrs.frozen(kw_only=True)
class _Rules:
    """What is asked of the rows; ``mending`` passes over what is left out when the rows are written anew."""

    endpoint: str
    max_custom_id: int
    max_line_bytes: int
    mending: bool = False

    def __attrs_post_init__(self) -> None:
        whole("max_custom_id", self.max_custom_id)
        endpoint: object = self.endpoint
        if not isinstance(endpoint, str) or not endpoint.startswith("/"):
            message = f"endpoint must be a path such as {_CHAT}; it is {_short(endpoint)}"
            raise UsageError(message)


class _Check:
    """Looks at rows, one after another, and remembers no more of them than their ids."""

    def __init__(self, rules: _Rules) -> None:
        self._rules = rules
        self._first_with: dict[str, int] = {}
        self._problems: list[Problem] = []
        self._models: dict[str, int] = {}
        self.problem_count = self.rows = self.bytes = 0

    def good(self, lines: Iterable[Line]) -> list[Line]:
        """Those of the lines that are rows without a problem; what is wrong with the others is noted."""
        decode, rules, first_with, models = _wire.decode, self._rules, self._first_with, self._models
        method = "FILE" if rules.endpoint.startswith(_AUDIO) else None
        longest, longest_id = rules.max_line_bytes, min(rules.max_custom_id, _KEPT_OF_A_TEXT)
        good: list[Line] = []
        for line in lines:
            number, _, content, length = line
            # The quick way decides, and the thorough one explains: to ask for every reason costs as much as decoding.
            # Most rows ask for a model that is known already, which settles that it is text.
            try:
                row: Any = decode(content)
                custom_id, body = row["custom_id"], row["body"]
                model = body["model"]
                quick = (
                    model in models
                    and type(custom_id) is str
                    and 0 < len(custom_id) <= longest_id
                    and "stream" not in body
                    and "url" not in row
                    and row.get("method") == method
                    and length <= longest
                    and number > 1
                    and first_with.setdefault(custom_id, number) == number
                )
            except (_wire.WireError, TypeError, KeyError):
                quick, model = False, ""
            if quick:
                self.rows += 1
                models[model] += 1
                good.append(line)
            elif self._is_good(line):
                good.append(line)
        return good

    def lines(self, source: Source) -> Iterator[list[Line]]:
        """The lines of a source, some at a time; counts the bytes."""
        if _holds_requests(source):
            for number, request in enumerate(cast("Iterable[BatchRequest]", source), start=1):
                yield self._written(number, request)
            return
        splitter = LineSplitter(self._rules.max_line_bytes)
        for block in _blocks(cast("_Bytes", source)):
            began = self.bytes
            self.bytes += len(block)
            if not began and b"\0" in block:
                self.note("the file holds zero bytes: it is binary, compressed or UTF-16, and no JSON in UTF-8")
                return
            yield splitter.feed(block)
        yield splitter.close()

    def _written(self, number: int, request: BatchRequest) -> list[Line]:
        offset = self.bytes
        try:
            content = _encoded(request)
        except ValidationError as error:
            self.rows += 1
            custom_id: object = getattr(request, "custom_id", None)
            for problem in error.problems:
                self.note(problem, number, offset, custom_id if isinstance(custom_id, str) else None)
            return []
        self.bytes += len(content) + 1
        return [Line(number, offset, content, len(content))]

    def note(
        self, message: str, line: int | None = None, offset: int | None = None, custom_id: str | None = None
    ) -> None:
        self.problem_count += 1
        if len(self._problems) < _KEPT_PROBLEMS:
            kept = (
                custom_id
                if custom_id is None or len(custom_id) <= _KEPT_OF_A_TEXT
                else custom_id[:_KEPT_OF_A_TEXT] + "…"
            )
            self._problems.append(Problem(message, line, offset, kept))

    def _is_good(self, line: Line) -> bool:
        """Whether the line is a row without a problem."""
        rules, number, offset, content = self._rules, line.number, line.offset, line.content
        if number == 1 and offset and not rules.mending:
            self.note("the file begins with a byte order mark (BOM): save it as UTF-8 without one", 1, 0)
        if not content.strip(_JSON_SPACE) and line.whole:
            if not rules.mending:
                self.note("the line is blank", number, offset)
            return False
        self.rows += 1
        if line.length > rules.max_line_bytes:
            self.note(f"the line has {line.length:,} bytes, more than {rules.max_line_bytes:,}", number, offset)
            return False
        try:
            row = _wire.decode(content)
        except _wire.WireError as error:
            self.note(_no_json(content, error), number, offset)
            return False
        faults = _faults(row, rules.endpoint, rules.max_custom_id)
        custom_id: object = None
        if isinstance(row, dict):
            fields = cast("dict[str, object]", row)
            custom_id = fields.get("custom_id")
            if custom_id and isinstance(custom_id, str):
                # The ids themselves, unless they are so long that a digest is the smaller thing to remember.
                known = (
                    custom_id if len(custom_id) <= _KEPT_OF_A_TEXT else hashlib.sha256(custom_id.encode()).hexdigest()
                )
                first = self._first_with.setdefault(known, number)
                if first != number:
                    faults.append(f"custom_id is that of line {first} too, and must be unique in the file")
            self._count_model(fields.get("body"))
        for fault in faults:
            self.note(fault, number, offset, custom_id if isinstance(custom_id, str) and custom_id else None)
        return not faults

    def _count_model(self, body: object) -> None:
        model = cast("dict[str, object]", body).get("model") if isinstance(body, dict) else None
        if isinstance(model, str) and model and (model in self._models or len(self._models) < _KEPT_MODELS):
            self._models[model] = self._models.get(model, 0) + 1

    def finish(self, name: str) -> Validation:
        if not self.rows and not self.problem_count:
            self.note("there are no rows: a file of requests has one request a line")
        return Validation(
            source=name,
            problems=tuple(self._problems),
            problem_count=self.problem_count,
            models=dict(self._models),
            rows=self.rows,
            bytes=self.bytes,
        )


def validate(
    source: Source,
    *,
    endpoint: str = _CHAT,
    max_custom_id: int = MAX_CUSTOM_ID,
    max_rows: int = MAX_ROWS,
    max_bytes: int = MAX_BYTES,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Validation:
    """Check a file of requests, or requests that are to become one, before it is sent; finds every problem.

    ``max_custom_id`` is in characters. Whether the parameters within a body make sense is for the endpoint to say.
    Holds one row and the ids. Raises :class:`UsageError` where the file cannot be read; what is wrong with its
    content is in the :class:`Validation`. The limits are those of https://docs.together.ai/docs/inference/batch/overview.
    """
    whole("max_rows", max_rows)
    whole("max_bytes", max_bytes)
    rules = _Rules(endpoint=endpoint, max_custom_id=max_custom_id, max_line_bytes=max_line_bytes)
    check = _Check(rules)
    for lines in check.lines(source):
        check.good(lines)
    if check.rows > max_rows:
        check.note(f"there are {check.rows:,} rows, more than {max_rows:,}: cut them into several files with split")
    if check.bytes > max_bytes:
        check.note(
            f"there are {check.bytes:,} bytes, more than {max_bytes:,}: cut them into several files with split"
        )
    return check.finish(_name(source))


def split(
    source: Source,
    directory: str | os.PathLike[str],
    *,
    endpoint: str = _CHAT,
    max_rows: int = MAX_ROWS,
    max_bytes: int = MAX_BYTES,
    max_custom_id: int = MAX_CUSTOM_ID,
    prefix: str | None = None,
) -> list[Path]:
    """Cut any number of requests into as few files as the limits allow; returns their paths, in order.

    Order and ids are kept, and lines of a file are copied as they are, but for blank lines, a byte order mark and
    carriage returns, which are left out. The files are called ``<prefix>-001.jsonl`` and so on; ``prefix`` is the
    name of the source, or ``requests`` where it has none. ``directory`` is made where there is none. The files appear
    under their names when all of them are whole.

    Raises :class:`ValidationError` with all problems where a row has one (an id that occurs twice among all rows
    included), and :class:`UsageError` where a file of such a name exists already, or something cannot be read or
    written. Then nothing is written. Holds one row and the ids.
    """
    whole("max_rows", max_rows)
    whole("max_bytes", max_bytes)
    rules = _Rules(
        endpoint=endpoint,
        max_custom_id=max_custom_id,
        max_line_bytes=max(1, min(MAX_LINE_BYTES, max_bytes - 1)),
        mending=True,
    )
    if prefix is None:
        prefix = Path(source).stem if isinstance(source, str | os.PathLike) else "requests"
    if not prefix or Path(prefix).name != prefix or "\0" in prefix:
        message = f"prefix must be the beginning of a file name; it is {_short(prefix)}"
        raise UsageError(message)
    folder = Path(directory)
    with _explained("make", folder):
        folder.mkdir(parents=True, exist_ok=True)
    _refuse(_earlier_pieces(folder, prefix))
    check = _Check(rules)
    with _scratch(folder) as scratch:
        parts: list[Path] = []
        with ExitStack() as stack:
            part: _Part | None = None
            for line in chain.from_iterable(map(check.good, check.lines(source))):
                # After the first problem there is nothing to write, and still all others to find.
                if check.problem_count:
                    continue
                if part is None or part.rows == max_rows or part.bytes + len(line.content) + 1 > max_bytes:
                    stack.pop_all().close()
                    parts.append(scratch / str(len(parts)))
                    part = stack.enter_context(_Part(parts[-1], folder))
                part.add(line.content)
        check.finish(_name(source)).raise_for_problems()
        width = max(3, len(str(len(parts))))
        targets = [folder / f"{prefix}-{number:0{width}}.jsonl" for number in range(1, len(parts) + 1)]
        _refuse(targets)
        _move(parts, targets)
    return targets


def _earlier_pieces(folder: Path, prefix: str) -> list[Path]:
    # Not only those that would be overwritten: pieces of two cuts side by side would pass for those of one.
    piece = re.compile(rf"{re.escape(prefix)}-\d{{3,}}\.jsonl")
    with _explained("read", folder):
        return sorted(path for path in folder.iterdir() if piece.fullmatch(path.name))


def _move(parts: list[Path], targets: list[Path]) -> None:
    """All or none."""
    with ExitStack() as undo:
        for part, target in zip(parts, targets, strict=True):
            with _explained("write", target):
                part.rename(target)
            undo.callback(target.unlink, missing_ok=True)
        undo.pop_all()
