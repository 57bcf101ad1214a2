"""Validation of requests before they are sent: every problem, with its position."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import ClassVar, cast

import attrs

from together_batches._fields import Plain
from together_batches._protocol import json_codec, request_codec
from together_batches._text import KEPT_OF_A_TEXT, count_of, format_count, short
from together_batches._validation import positive_int
from together_batches.errors import ValidationError
from together_batches.jsonl._lines import MAX_LINE_BYTES, Line, Lines, LineSplitter, cut_lines
from together_batches.jsonl._requests import (
    AUDIO,
    CHAT,
    JSON_SPACE,
    MAX_CUSTOM_ID,
    RequestLike,
    check_endpoint,
    custom_id_of,
    encoded,
    faults_of,
    no_json,
)
from together_batches.jsonl._shapes import other_shape
from together_batches.jsonl._sources import Bytes, Source, blocks_of, holds_requests, name_of

MAX_ROWS = 50_000
"""Maximum requests in a file, as documented by the service."""
MAX_BYTES = 100_000_000
"""Maximum bytes of a file: the documented 100 MB, in its smaller interpretation."""
_KEPT_PROBLEMS = 1000
_KEPT_MODELS = 1000
_LINES_IN_A_MESSAGE = 20


@attrs.frozen
class Problem(Plain):
    """A problem and its position; ``str(problem)`` is a sentence.

    ``line`` counts from 1, ``offset`` is the number of bytes before that line; both are None for a problem of the
    file as a whole. ``custom_id`` is that of the row, if it could be read.
    """

    message: str
    line: int | None = None
    offset: int | None = None
    custom_id: str | None = None

    def __str__(self) -> str:
        if self.line is None:
            return self.message
        row = "" if self.custom_id is None else f", custom_id {short(self.custom_id)}"
        return f"line {self.line} (byte {self.offset}){row}: {self.message}"


@attrs.frozen(kw_only=True)
class Validation(Plain):
    """The result of :func:`validate`; ``str(validation)`` is a summary in one line.

    ``problems`` are in the order of the lines, with those of the file as a whole at the end. At most 1,000 are kept;
    ``problem_count`` is their total number. ``rows`` is the number of lines that are not blank, ``bytes`` is the size
    of the file, ``models`` has the number of rows for each model (of up to 1,000 models).
    """

    source: str
    problems: tuple[Problem, ...]
    problem_count: int
    models: Mapping[str, int] = attrs.field(hash=False)
    rows: int
    bytes: int

    __derived__: ClassVar[tuple[str, ...]] = ("ok",)

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problem_count

    def raise_for_problems(self, *, advice: str = "") -> None:
        """Raise :class:`ValidationError`, with all kept problems, if there are any; ``advice`` comes last."""
        if not self.problem_count:
            return
        first, *_ = self.problems
        lines = list(dict.fromkeys(str(problem.line) for problem in self.problems if problem.line is not None))
        more = ", …" if len(lines) > _LINES_IN_A_MESSAGE or self.problem_count > len(self.problems) else ""
        where = f" in lines {', '.join(lines[:_LINES_IN_A_MESSAGE])}{more}; the first" if len(lines) > 1 else ""
        end = f"; {advice}" if advice else ""
        message = f"{self.source}: {count_of(self.problem_count, 'problem')}{where}: {first}{end}"
        raise ValidationError(message, problems=[str(problem) for problem in self.problems])

    def __str__(self) -> str:
        found = count_of(self.problem_count, "problem") if self.problem_count else "no problems"
        return f"{self.source}: {count_of(self.rows, 'row')}, {count_of(self.bytes, 'byte')}, {found}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """Return the value as IPython shows it."""
        from together_batches._display import values

        return values.validation(self)


@attrs.frozen(kw_only=True)
class Rules:
    """The rules for rows; ``mending`` ignores what is omitted when the rows are rewritten."""

    endpoint: str
    max_custom_id: int
    max_line_bytes: int
    mending: bool = False

    def __attrs_post_init__(self) -> None:
        positive_int("max_custom_id", self.max_custom_id)
        check_endpoint(self.endpoint)


class FirstLines:
    """The first line of each id."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}

    def line_of(self, custom_id: str, number: int) -> int:
        """Return the first line with this id; that is ``number`` if the id is new."""
        return self._first.setdefault(custom_id, number)

    def add(self, custom_ids: Sequence[str], number: int) -> bool:
        """Add the ids of consecutive lines; return False, and add none, if one of them may not be new."""
        are_new = len(set(custom_ids)) == len(custom_ids) and self._first.keys().isdisjoint(custom_ids)
        if are_new:
            self._first.update(zip(custom_ids, count(number), strict=False))
        return are_new


class Check:
    """Checks rows one after another, and keeps only their ids."""

    def __init__(self, rules: Rules, first_lines: FirstLines | None = None) -> None:
        self._rules = rules
        self._method = "FILE" if rules.endpoint.startswith(AUDIO) else None
        self._longest_id = min(rules.max_custom_id, KEPT_OF_A_TEXT)
        self._first_lines = FirstLines() if first_lines is None else first_lines
        self._problems: list[Problem] = []
        self._models: dict[str, int] = {}
        self.problem_count = self.rows = self.bytes = 0
        self.ids: list[str] = []
        """Ids of the lines that were checked last, if these were decoded together; otherwise empty."""

    def bad(self, lines: Lines) -> list[int]:
        """Return the positions of the lines that are not rows or that have a problem, and record the problems.

        Usual rows are recognised together; each other line is judged alone, because collecting reasons costs as much
        as decoding.
        """
        can_be_usual = lines.are_plain and len(lines.text) <= self._rules.max_line_bytes
        rows = request_codec.requests(lines.text, lines.texts) if can_be_usual else None
        if rows is None:
            self.ids = []
            return [place for place, line in enumerate(lines) if not self.is_good(line)]
        self.ids = ids = [row.custom_id for row in rows]
        found = Counter([row.body.model for row in rows])
        if (
            self._are_usual(rows, ids)
            and all(found)
            and len(self._models.keys() | found.keys()) <= _KEPT_MODELS
            and self._first_lines.add(ids, lines.number)
        ):
            self.rows += len(rows)
            for model, number in found.items():
                self._models[model] = self._models.get(model, 0) + number
            return []
        bad = list[int]()
        for place, (row, line) in enumerate(zip(rows, lines, strict=True)):
            model, custom_id = row.body.model, row.custom_id
            is_usual = self._are_usual([row], [custom_id]) and model in self._models
            if is_usual and self._first_lines.line_of(custom_id, line.number) == line.number:
                self.rows += 1
                self._models[model] += 1
            elif not self.is_good(line):
                bad.append(place)
        return bad

    def _are_usual(self, rows: list[request_codec.RequestLine], ids: list[str]) -> bool:
        """Return whether all rows have a usual id, and the members that usual rows have."""
        absent = {request_codec.UNSET}
        return (
            all(ids)
            and max(map(len, ids)) <= self._longest_id
            and {row.method for row in rows} == {self._method}
            and {row.url for row in rows} == absent
            and {row.body.stream for row in rows} == absent
        )

    def lines(self, source: Source) -> Iterator[Lines]:
        """Yield the lines of a source in groups; count the bytes."""
        if holds_requests(source):
            for number, request in enumerate(cast("Iterable[RequestLike]", source), start=1):
                yield self._written(number, request)
            return
        yield from self.cut(blocks_of(cast("Bytes", source)))

    def cut(self, blocks: Iterable[bytes]) -> Iterator[Lines]:
        """Yield the lines of a file in groups; of a file in another format none, and that is its only problem."""
        return cut_lines(self._counted(blocks), LineSplitter(self._rules.max_line_bytes))

    def _counted(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            problem = None if self.bytes else other_shape(block)
            self.bytes += len(block)
            if problem is not None:
                self.note(problem)
                return
            yield block

    def _written(self, number: int, request: RequestLike) -> Lines:
        offset, text = self.bytes, b""
        try:
            text = encoded(request) + b"\n"
        except ValidationError as error:
            self.rows += 1
            for problem in error.problems:
                self.note(problem, number, offset, custom_id_of(request))
        self.bytes += len(text)
        return Lines(number, offset, text)

    def note(
        self, message: str, line: int | None = None, offset: int | None = None, custom_id: str | None = None
    ) -> None:
        self.problem_count += 1
        if len(self._problems) < _KEPT_PROBLEMS:
            kept = (
                custom_id
                if custom_id is None or len(custom_id) <= KEPT_OF_A_TEXT
                else custom_id[:KEPT_OF_A_TEXT] + "…"
            )
            self._problems.append(Problem(message, line, offset, kept))

    def is_good(self, line: Line) -> bool:
        """Return whether the line is a row without a problem; note its problems."""
        rules, number, offset, content = self._rules, line.number, line.offset, line.content
        if number == 1 and offset and not rules.mending:
            self.note("the file begins with a byte order mark (BOM): save it as UTF-8 without one", 1, 0)
        if not content.strip(JSON_SPACE) and line.whole:
            if not rules.mending:
                self.note("the line is blank", number, offset)
            return False
        self.rows += 1
        if line.length > rules.max_line_bytes:
            self.note(
                f"the line has {format_count(line.length)} bytes, more than {format_count(rules.max_line_bytes)}",
                number,
                offset,
            )
            return False
        try:
            row = request_codec.request(content)
        except json_codec.WireError as error:
            self.note(no_json(content, error), number, offset)
            return False
        faults = faults_of(row, rules.endpoint, rules.max_custom_id)
        custom_id: object = None
        if isinstance(row, dict):
            fields = cast("dict[str, object]", row)
            custom_id = fields.get("custom_id")
            if custom_id and isinstance(custom_id, str):
                # The id itself, unless it is so long that its digest is smaller.
                known = (
                    custom_id if len(custom_id) <= KEPT_OF_A_TEXT else hashlib.sha256(custom_id.encode()).hexdigest()
                )
                first = self._first_lines.line_of(known, number)
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
    endpoint: str = CHAT,
    max_custom_id: int = MAX_CUSTOM_ID,
    max_rows: int = MAX_ROWS,
    max_bytes: int = MAX_BYTES,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Validation:
    """Validate a file of requests, or requests that will become one, before it is sent; find every problem.

    ``max_custom_id`` is in characters. The parameters within a body are not checked; that is left to the endpoint.
    Holds one row and the ids in memory. Raises :class:`UsageError` if the file cannot be read; problems of its
    content are in the :class:`Validation`. The limits are those of
    https://docs.together.ai/docs/inference/batch/overview.
    """
    positive_int("max_rows", max_rows)
    positive_int("max_bytes", max_bytes)
    rules = Rules(endpoint=endpoint, max_custom_id=max_custom_id, max_line_bytes=max_line_bytes)
    check = Check(rules)
    for lines in check.lines(source):
        check.bad(lines)
    if check.rows > max_rows:
        check.note(
            f"there are {count_of(check.rows, 'row')}, more than {format_count(max_rows)}: cut them into several "
            "files with split"
        )
    if check.bytes > max_bytes:
        check.note(
            f"there are {count_of(check.bytes, 'byte')}, more than {format_count(max_bytes)}: cut them into several "
            "files with split"
        )
    return check.finish(name_of(source))
