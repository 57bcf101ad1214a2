"""Binary files of the caller: paths, open files, and functions that open one, for storage that has no paths.

All functions block.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from together_batches._local.atomic_file import AtomicFile
from together_batches._local.os_errors import explained
from together_batches._local.replace import check_replaceable
from together_batches._validation import path_of
from together_batches.errors import RunError, UsageError
from together_batches.jsonl import Readable
from together_batches.jsonl._sources import blocks_of, name_of_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from _typeshed import WriteableBuffer

_BLOCK_BYTES = 1 << 18


class Writable(Protocol):
    """An object that can be written like a file opened in binary mode."""

    def write(self, content: bytes, /) -> object:
        """Write all of these bytes."""
        ...


BinarySource = str | os.PathLike[str] | Readable | Callable[[], Readable]
"""A source of bytes that is read more than once: a path; a file opened in binary mode that can seek, read from its
current position, and left open at it; or a function that opens a file on each call. Such a file is closed."""
BinarySink = str | os.PathLike[str] | Writable | Callable[[], Writable]
"""A place for bytes: a path, which appears when it is complete; a file opened in binary mode, written from its
current position and left open; or a function that opens one, which is closed when it is complete."""


class BinaryInput:
    """A source of bytes that can be read several times, one after another. Its text is its name in messages."""

    def __init__(self, source: BinarySource, what: str = "the source") -> None:
        given: Any = source
        self._source = given
        self.path: Path | None = None
        self._start = 0
        self._file: Readable | None = None
        self._name = name_of_file(given) or what
        if isinstance(source, str | os.PathLike):
            self.path = path_of(what, cast("str | os.PathLike[str]", given))
            self._name = str(self.path)
        elif _is_open(given, "read"):
            self._file = cast("Readable", given)
            if not _is_seekable(given):
                message = f"{self._name} cannot seek, and is read more than once: pass a function that opens it"
                raise UsageError(message)
            with explained("read", self._name):
                self._start = cast("BinaryIO", given).tell()
        elif not callable(given):
            message = (
                f"{what} is a path, a file opened in binary mode, or a function that opens one, not "
                f"{type(given).__name__}"
            )
            raise UsageError(message)

    @classmethod
    def of(cls, source: BinarySource | BinaryInput, what: str = "the source") -> BinaryInput:
        """Return the input of a source, which may be one already."""
        return source if isinstance(source, BinaryInput) else cls(source, what)

    def __str__(self) -> str:
        return self._name

    @property
    def stem(self) -> str | None:
        """The name of the file without its directory and suffix, if it has one."""
        name = self.path or name_of_file(self._source)
        return Path(name).stem if name else None

    @contextmanager
    def opened(self) -> Generator[Readable]:
        """Open the file at its beginning."""
        if self._file is not None:
            file = cast("BinaryIO", self._file)
            with explained("read", self):
                file.seek(self._start)
            try:
                yield self._file
            finally:
                with suppress(OSError, ValueError):  # closed meanwhile
                    file.seek(self._start)
            return
        with explained("read", self):
            if self.path is None:
                opened: object = cast("Callable[[], Readable]", self._source)()
            elif self.path.exists() and not self.path.is_file():
                message = f"cannot read {self}: it is not a file"
                raise UsageError(message)
            else:
                opened = self.path.open("rb", buffering=0)
        if not callable(getattr(opened, "read", None)):
            message = f"{self} must be opened as a binary file; the function returned {type(opened).__name__}"
            raise UsageError(message)
        with _closing(opened):
            yield cast("Readable", opened)

    def blocks(self) -> Iterator[bytes]:
        """Yield all bytes."""
        with self.opened() as file:
            yield from blocks_of(file)

    def part(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield up to ``size`` bytes from an offset on."""
        with self.opened() as file:
            with explained("read", self):
                if _is_seekable(file):
                    cast("BinaryIO", file).seek(self._start + offset)
                    offset = 0
            for block in blocks_of(file):
                block, offset = block[offset:], max(offset - len(block), 0)
                yield block[:size]
                size -= len(block)
                if size <= 0:
                    return

    @contextmanager
    def lines(self, sha256: str = "") -> Generator[BinaryIO]:
        """Open the file to read its lines; with a hash, raise :class:`RunError` at the end if it has another."""
        if self.path is not None and not sha256:
            with explained("read", self):
                opened = self.path.open("rb", _BLOCK_BYTES)
            with opened:
                yield opened
            return
        with self.opened() as source, io.BufferedReader(_Hashed(source, str(self), sha256), _BLOCK_BYTES) as file:
            yield file


class _Hashed(io.RawIOBase):
    """A file to read in order, whose hash is compared at its end if one is given."""

    def __init__(self, file: Readable, name: str, sha256: str) -> None:
        self._source = file
        self._where = name
        self._expected = sha256
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        with explained("read", self._where):
            block = self._source.read(len(view))
        self._digest.update(block)
        if not block and self._expected not in {"", self._digest.hexdigest()}:
            message = f"{self._where} is not as it was collected: collect its attempt again"
            raise RunError(message, directory="")
        view[: len(block)] = block
        return len(block)


def check_sink(sink: BinarySink) -> None:
    """Raise :class:`UsageError` for a sink that cannot be written, as far as that can be seen without writing."""
    given: object = sink
    if isinstance(sink, str | os.PathLike):
        path = path_of("the sink", cast("str | os.PathLike[str]", given))
        with explained("write", path):
            check_replaceable(path)
            if not path.parent.is_dir():
                message = f"cannot write {path}: there is no directory {path.parent}"
                raise UsageError(message)
    elif not (_is_open(given, "write") or callable(given)):
        message = (
            f"the sink is a path, a file opened in binary mode, or a function that opens one, not "
            f"{type(given).__name__}"
        )
        raise UsageError(message)


def write_sink(sink: BinarySink, blocks: Iterator[bytes]) -> None:
    """Write all blocks to a sink."""
    given: Any = sink
    if isinstance(sink, str | os.PathLike):
        with AtomicFile(path_of("the sink", cast("str | os.PathLike[str]", given)), fsync=True) as target:
            for block in blocks:
                target.write(block)
            target.commit()
        return
    is_open = _is_open(given, "write")
    name = name_of_file(given) or "the sink"
    with explained("write", name):
        file = given if is_open else given()
        if isinstance(file, io.TextIOBase) or not callable(getattr(file, "write", None)):
            message = f"cannot write {name}: {type(file).__name__} is not a file opened in binary mode"
            raise UsageError(message)
        with nullcontext() if is_open else _closing(file):
            for block in blocks:
                write_all(file, block, name)
            if callable(getattr(file, "flush", None)):
                file.flush()


def write_all(file: Writable, content: bytes, what: str = "the file") -> None:
    """Write to an open file, of which an unbuffered one may take a part at a time.

    Raises :class:`UsageError` if it takes nothing, or is a text file.
    """
    name = name_of_file(file) or what
    if isinstance(file, io.TextIOBase):
        message = f"cannot write {name}: {type(file).__name__} is not a file opened in binary mode"
        raise UsageError(message)
    with explained("write", name):
        while content:
            written = file.write(content)
            if written is None and isinstance(file, io.RawIOBase):
                written = 0
            if not isinstance(written, int):
                return  # not all objects that can be written say how much they took
            if written <= 0:
                message = f"cannot write {name}: it takes no more bytes"
                raise UsageError(message)
            content = content[written:]


def _is_open(given: object, method: str) -> bool:
    """Return whether an object is an open file with this method. A class is not: it opens one when it is called."""
    return not isinstance(given, type) and callable(getattr(given, method, None))


def _is_seekable(file: object) -> bool:
    seekable = getattr(file, "seekable", None)
    return callable(seekable) and bool(seekable())


def _closing(file: object) -> AbstractContextManager[object]:
    """Close a file at the end, if it can be closed."""
    return closing(cast("BinaryIO", file)) if callable(getattr(file, "close", None)) else nullcontext()
