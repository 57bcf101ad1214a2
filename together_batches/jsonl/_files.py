"""Files of requests: reading, writing, and splitting to the limits of the service."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

from together_batches._local.atomic_file import AtomicFile
from together_batches._local.os_errors import explained
from together_batches._text import format_count, short
from together_batches._validation import path_of, positive_int
from together_batches.errors import UsageError, ValidationError
from together_batches.jsonl._checks import MAX_BYTES, MAX_ROWS, Check, Problem, Rules
from together_batches.jsonl._lines import MAX_LINE_BYTES, Cutter, LineSplitter, cut_lines
from together_batches.jsonl._requests import (
    CHAT,
    JSON_SPACE,
    MAX_CUSTOM_ID,
    custom_id_of,
    decode,
    encode,
    invalid,
)
from together_batches.jsonl._sources import Bytes, Source, blocks_of, holds_requests, name_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Sequence

    from together_batches.jsonl._lines import Lines
    from together_batches.jsonl._requests import RequestLike
    from together_batches.rows import BatchRequest

_MOST_PROBLEMS = 1000
_BLOCK_BYTES = 1 << 20


def read(source: Source) -> Iterator[BatchRequest]:
    """Yield the requests of a file one after another; skip blank lines and a byte order mark.

    Raises :class:`UsageError` if the file cannot be read, and :class:`ValidationError` at the first line that is not
    a request; :func:`validate` finds all of them.
    """
    if holds_requests(source):
        yield from cast("Iterable[BatchRequest]", source)
        return
    for lines in cut_lines(blocks_of(cast("Bytes", source)), LineSplitter()):
        are_plain = lines.are_plain
        for place, content in enumerate(lines.contents):
            is_whole = are_plain or lines[place].whole
            if is_whole and not content.strip(JSON_SPACE):
                continue
            try:
                if not is_whole:
                    length = format_count(lines[place].length)
                    message = f"the line has {length} bytes, more than {format_count(MAX_LINE_BYTES)}"
                    raise ValidationError(message)
                yield decode(content)
            except ValidationError as error:
                line = lines[place]
                places = [str(Problem(problem, line.number, line.offset)) for problem in error.problems]
                raise ValidationError(f"{name_of(source)}: {places[0]}", problems=places) from error


class RequestLines:
    """Lines of requests, and the problems of those that cannot be written: at most about a thousand are collected."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.rows: int = 0
        self._bytes = 0

    def of(self, requests: Iterable[RequestLike]) -> Iterator[bytes]:
        """Yield the lines of requests, until there are too many problems."""
        for request in requests:
            yield self._line(request)
            if self._is_full:
                break

    async def write_blocks(
        self, requests: AsyncIterable[RequestLike], write: Callable[[bytes], Awaitable[object]]
    ) -> None:
        """Write the lines of requests in blocks as the requests arrive, until there are too many problems."""
        held = bytearray()
        async for request in requests:
            held += self._line(request)
            if self._is_full:
                break
            if len(held) >= _BLOCK_BYTES:
                await write(bytes(held))
                held.clear()
        await write(bytes(held))

    @property
    def _is_full(self) -> bool:
        return len(self.problems) >= _MOST_PROBLEMS

    def _line(self, request: RequestLike) -> bytes:
        """Return the line of the next request; a blank one if it cannot be written, so that all such are reported."""
        self.rows += 1
        try:
            line = encode(request)
        except ValidationError as error:
            line = b"\n"
            custom_id = custom_id_of(request)
            self.problems += [Problem(problem, self.rows, self._bytes, custom_id) for problem in error.problems]
        self._bytes += len(line)
        return line

    def raise_for_problems(self) -> None:
        """Raise :class:`ValidationError` with all requests that cannot be written, if any."""
        if self.problems:
            raise invalid([f"request {problem.line}: {problem.message}" for problem in self.problems])


def write(requests: Iterable[BatchRequest], path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
    """Write requests to a file, one per line; return their number.

    The file appears under its name when it is complete. Raises :class:`UsageError` if it cannot be written, or exists
    already and ``overwrite`` is false, and :class:`ValidationError` with all invalid requests.
    """
    lines = RequestLines()
    with AtomicFile(path_of("path", path), replace=overwrite, private=False) as file:
        for line in lines.of(requests):
            file.write(line)
        lines.raise_for_problems()
        file.commit()
    return lines.rows


def _refuse(targets: Iterable[Path]) -> None:
    for target in targets:
        if os.path.lexists(target):
            message = f"{target} exists already; give another name, or remove it first"
            raise UsageError(message)


def split(
    source: Source,
    directory: str | os.PathLike[str],
    *,
    endpoint: str = CHAT,
    max_rows: int = MAX_ROWS,
    max_bytes: int = MAX_BYTES,
    max_custom_id: int = MAX_CUSTOM_ID,
    prefix: str | None = None,
) -> list[Path]:
    """Split any number of requests into as few files as the limits allow; return their paths, in order.

    Order and ids are kept, and the lines of a file are copied unchanged, except that blank lines, a byte order mark
    and carriage returns are omitted. The files are called ``<prefix>-001.jsonl`` and so on; ``prefix`` defaults to
    the name of the source, or ``requests`` if it has none. ``directory`` is created if it does not exist. The files
    appear under their names when all of them are complete.

    Raises :class:`ValidationError` with all problems if a row has one (including an id that occurs twice among all
    rows), and :class:`UsageError` if a file of such a name exists already, or something cannot be read or written. In
    these cases nothing is written. Holds one row and the ids in memory.
    """
    positive_int("max_rows", max_rows)
    positive_int("max_bytes", max_bytes)
    rules = Rules(
        endpoint=endpoint,
        max_custom_id=max_custom_id,
        max_line_bytes=max(1, min(MAX_LINE_BYTES, max_bytes - 1)),
        mending=True,
    )
    if prefix is None:
        prefix = Path(source).stem if isinstance(source, str | os.PathLike) else "requests"
    if not prefix or Path(prefix).name != prefix or "\0" in prefix:
        message = f"prefix must be the beginning of a file name; it is {short(prefix)}"
        raise UsageError(message)
    folder = path_of("directory", directory)
    with explained("make", folder):
        folder.mkdir(parents=True, exist_ok=True)
    _refuse(_earlier_pieces(folder, prefix))
    check = Check(rules)
    cutter = Cutter(max_rows, max_bytes)
    mark = secrets.token_hex(8)
    with ExitStack() as stack:
        files: list[AtomicFile] = []
        for lines in _good_lines(check, source):
            for begins, rows in cutter.cut(lines):
                if begins:
                    for file in files[-1:]:
                        file.finish()
                    name = f"{prefix}-{len(files) + 1:03}.jsonl"
                    files.append(stack.enter_context(AtomicFile(folder / name, mark=mark, private=False)))
                files[-1].write(rows.text)
        check.finish(name_of(source)).raise_for_problems()
        width = max(3, len(str(len(files))))
        for number, file in enumerate(files, start=1):
            file.path = folder / f"{prefix}-{number:0{width}}.jsonl"
        _commit_all(files)
    return [file.path for file in files]


def _commit_all(files: Sequence[AtomicFile]) -> None:
    """Give all files their names, or none."""
    _refuse(file.path for file in files)
    with ExitStack() as undo:
        for file in files:
            file.commit()
            undo.callback(file.path.unlink, missing_ok=True)
        undo.pop_all()


def _good_lines(check: Check, source: Source) -> Iterator[Lines]:
    """Yield the lines to write. After the first problem there are none, but all others are still searched for."""
    for lines in check.lines(source):
        bad = check.bad(lines)
        if not check.problem_count:
            start = 0
            for place in (*bad, len(lines)):  # bad, but without a problem: blank
                yield lines.part(start, place) if bad else lines
                start = place + 1


def _earlier_pieces(folder: Path, prefix: str) -> list[Path]:
    # Not only those that would be overwritten: pieces of two splits in one directory would look like those of one.
    piece = re.compile(rf"{re.escape(prefix)}-\d{{3,}}\.jsonl")
    with explained("read", folder):
        return sorted(path for path in folder.iterdir() if piece.fullmatch(path.name))
