"""Files of requests: reading, writing, and splitting to the limits of the service."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from together_batches._local.os_errors import explained
from together_batches._local.replace import destination, take_place
from together_batches._text import format_count
from together_batches._validation import path_of, positive_int
from together_batches.errors import UsageError, ValidationError
from together_batches.jsonl._checks import MAX_BYTES, MAX_ROWS, Check, Problem, Rules
from together_batches.jsonl._lines import MAX_LINE_BYTES, LineSplitter, cut_lines
from together_batches.jsonl._requests import CHAT, JSON_SPACE, MAX_CUSTOM_ID, decode, encoded, invalid, short
from together_batches.jsonl._sources import Bytes, Source, blocks_of, holds_requests, name_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from together_batches.rows import BatchRequest

__all__ = ["read", "split", "write"]

_WRITE_BYTES = 1 << 18


def read(source: Source) -> Iterator[BatchRequest]:
    """Yield the requests of a file one after another; skip blank lines and a byte order mark.

    Raises :class:`UsageError` if the file cannot be read, and :class:`ValidationError` at the first line that is not
    a request; :func:`validate` finds all of them.
    """
    if holds_requests(source):
        yield from cast("Iterable[BatchRequest]", source)
        return
    for lines in cut_lines(blocks_of(cast("Bytes", source)), LineSplitter()):
        for place, content in enumerate(lines.contents):
            is_whole = lines.odd is None or lines.odd[place].whole
            if is_whole and not content.strip(JSON_SPACE):
                continue
            try:
                if not is_whole:
                    length = format_count(lines[place].length)
                    message = f"the line has {length} bytes, more than {format_count(MAX_LINE_BYTES)}"
                    raise invalid(message, [message])
                yield decode(content)
            except ValidationError as error:
                line = lines[place]
                places = [str(Problem(problem, line.number, line.offset)) for problem in error.problems]
                raise invalid(f"{name_of(source)}: {places[0]}", places) from error


def write(requests: Iterable[BatchRequest], path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
    """Write requests to a file, one per line; return their number.

    The file appears under its name when it is complete. Raises :class:`UsageError` if it cannot be written, or exists
    already and ``overwrite`` is false, and :class:`ValidationError` for an invalid request.
    """
    target = path_of("path", path)
    if not overwrite:
        _refuse([target])
    with explained("write", target):
        target = destination(target)  # a link is kept, and its target is replaced
    with _scratch(target.parent) as scratch:
        count = 0
        with _Part(scratch / "part", target) as part:
            for count, request in enumerate(requests, start=1):
                try:
                    part.add(encoded(request))
                except ValidationError as error:
                    raise invalid(f"request {count}: {error}", error.problems) from error
        if not overwrite:
            _refuse([target])
        with explained("write", target):
            take_place(scratch / "part", target)
    return count


@contextmanager
def _scratch(directory: Path) -> Generator[Path]:
    """Create a temporary directory in ``directory``, from which files can be renamed to their final place."""
    with explained("write in", directory):
        made = tempfile.mkdtemp(prefix=".together-batches-", dir=directory)
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


class _Part:
    """A file that is being written and will be renamed to ``target``; errors name ``target``."""

    def __init__(self, path: Path, target: Path) -> None:
        self._target = target
        with explained("write", target):
            self._file: BinaryIO = path.open("xb")
        self._held: list[bytes] = []
        self._held_bytes = 0
        self.rows = self.bytes = 0

    def add(self, content: bytes) -> None:
        """Add a line; lines are written in blocks."""
        size = len(content) + 1
        self._held.append(content)
        self._held_bytes += size
        self.rows += 1
        self.bytes += size
        if self._held_bytes >= _WRITE_BYTES:
            self._write()

    def _write(self) -> None:
        lines = b"\n".join([*self._held, b""])
        self._held, self._held_bytes = [], 0
        with explained("write", self._target):
            self._file.write(lines)

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._write()
        finally:
            with explained("write", self._target):
                self._file.close()


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
    with _scratch(folder) as scratch:
        parts: list[Path] = []
        with ExitStack() as stack:
            part: _Part | None = None
            for lines in check.lines(source):
                bad = frozenset(check.bad(lines))
                # After the first problem nothing is written, but all others are still searched for.
                if check.problem_count:
                    continue
                for place, content in enumerate(lines.contents):
                    if place in bad:
                        continue
                    if part is None or part.rows == max_rows or part.bytes + len(content) + 1 > max_bytes:
                        stack.pop_all().close()
                        parts.append(scratch / str(len(parts)))
                        part = stack.enter_context(_Part(parts[-1], folder))
                    part.add(content)
        check.finish(name_of(source)).raise_for_problems()
        width = max(3, len(str(len(parts))))
        targets = [folder / f"{prefix}-{number:0{width}}.jsonl" for number in range(1, len(parts) + 1)]
        _refuse(targets)
        _move(parts, targets)
    return targets


def _earlier_pieces(folder: Path, prefix: str) -> list[Path]:
    # Not only those that would be overwritten: pieces of two splits in one directory would look like those of one.
    piece = re.compile(rf"{re.escape(prefix)}-\d{{3,}}\.jsonl")
    with explained("read", folder):
        return sorted(path for path in folder.iterdir() if piece.fullmatch(path.name))


def _move(parts: list[Path], targets: list[Path]) -> None:
    """Move all files or none."""
    with ExitStack() as undo:
        for part, target in zip(parts, targets, strict=True):
            with explained("write", target):
                part.rename(target)
            undo.callback(target.unlink, missing_ok=True)
        undo.pop_all()
