"""Files on object storage, read and replaced as a whole.

All functions block. What goes wrong is a :class:`BatchesError` that names the URI. DAG files import this module when
they are parsed, so what is slow to import is imported where it is used.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from together_batches._local.os_errors import explained
from together_batches._text import short
from together_batches.errors import BatchesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

_LOCAL = {"file", "local", ""}
"""Protocols of the disk of this machine, where a file has a temporary name until it is complete."""
_BLOCK_BYTES = 1 << 20


class Location(Protocol):
    """The part of Airflow's ``ObjectStoragePath`` that is used."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def parent(self) -> Location: ...
    def __truediv__(self, name: str, /) -> Location: ...
    @property
    def fs(self) -> Any: ...  # of fsspec; some versions of Airflow omit the connection in other methods of a path
    def open(self, mode: str, /) -> IO[bytes]: ...


def location(uri: str, *, parameter: str) -> Location:
    """Return the location of a URI; ``parameter`` names it in the error for an invalid one."""
    from together_batches.airflow._airflow import ObjectStoragePath

    given: object = uri
    if not isinstance(given, str) or not given.strip():
        message = f"{parameter} must be the URI of a file, such as s3://bucket/name.jsonl; it is {short(uri)}"
        raise UsageError(message)
    uri = uri.strip()
    if "://" not in uri and not uri.startswith("/"):
        message = f"{parameter} is relative, which each worker would read differently: {uri!r}; give a whole URI"
        raise UsageError(message)
    with _explained("use", uri):
        place: Location = ObjectStoragePath(uri)
    if uri.endswith("/") or not place.name:
        message = f"{parameter} must be the URI of a file, and names a directory: {uri!r}"
        raise UsageError(message)
    return place


def requests_of(requests_uri: str, results_uri: str) -> Location:
    """Return the location of requests; refuse results that would replace them."""
    requests = location(requests_uri, parameter="requests_uri")
    results = location(results_uri, parameter="results_uri")
    if _file_of(requests) in {_file_of(results), _file_of(failures_of(results))}:
        message = f"the results would replace the requests in {requests_uri}: give another results_uri"
        raise UsageError(message)
    return requests


def _file_of(place: Location) -> tuple[str, str]:
    return "" if place.protocol in _LOCAL else place.protocol, place.path


def check_target(place: Location) -> None:
    """Raise :class:`UsageError` if a file cannot be written because it is a directory."""
    if place.protocol in _LOCAL and Path(place.path).is_dir():
        message = f"cannot write {place}: it is a directory; name the file to write in it"
        raise UsageError(message)


def directory_of(results: Location, identity: str) -> Location:
    """Return the directory for the files of one task, beside its results."""
    return results.parent / f"{results.name}.run" / hashlib.sha256(identity.encode()).hexdigest()[:16]


def failures_of(results: Location) -> Location:
    """Return the file for rows without an answer: ``answers.failures.jsonl`` beside ``answers.jsonl``."""
    stem, dot, suffix = results.name.rpartition(".")
    return results.parent / (f"{stem}.failures.{suffix}" if dot and stem else f"{results.name}.failures")


def reader(place: Location) -> Callable[[], IO[bytes]]:
    """Return a function that opens a file for reading."""
    return partial(_opened, place)


def _opened(place: Location | Path) -> IO[bytes]:
    with _explained("read", place):
        return place.open("rb")


def read_bytes(place: Location) -> bytes | None:
    """Return the content of a file; None if there is none."""
    with _explained("read", place):
        try:
            with place.open("rb") as file:
                return file.read()
        except FileNotFoundError:
            return None


def exists(place: Location) -> bool:
    """Return whether there is a file."""
    with _explained("read", place):
        return bool(place.fs.exists(place.path))


def fetch(place: Location, target: Path) -> bool:
    """Copy a file to this machine; return whether there is one."""
    with _explained("read", place):
        try:
            file = place.open("rb")
        except FileNotFoundError:
            return False
    with file, explained("write", target), target.open("wb") as copy:
        copy.writelines(_blocks(file, place))
    return True


def blocks_of(place: Location | Path) -> Iterator[bytes]:
    """Yield the content of a file."""
    return _blocks(_opened(place), place)


def _blocks(file: IO[bytes], place: Location | Path) -> Iterator[bytes]:
    with _explained("read", place), file:
        yield from iter(partial(file.read, _BLOCK_BYTES), b"")


def put_bytes(content: bytes, place: Location) -> None:
    """Write a file, which appears when it is complete."""
    put_all([content], place)


def put(source: Path, place: Location) -> None:
    """Copy a file of this machine, which appears when it is complete."""
    put_all(blocks_of(source), place)


def put_all(blocks: Iterable[bytes], place: Location) -> None:
    """Write a file in blocks. It appears when it is complete, if the storage publishes a file when it is closed."""
    with _explained("write", place):
        if place.protocol in _LOCAL:
            from together_batches._local.atomic_file import AtomicFile

            path = Path(place.path)
            with suppress(FileNotFoundError):  # a task that ends may have removed the directory above
                path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with AtomicFile(path) as part:
                for block in blocks:
                    part.write(block)
                part.commit()
            return
        # Not as a context manager, which would complete the object after an error too.
        target = place.open("wb")
        try:
            for block in blocks:
                target.write(block)
        except BaseException:
            _discard(target)
            raise
        target.close()


def _discard(target: object) -> None:
    """Give an object up: its finalizer would complete it, as far as it is written."""
    file: Any = getattr(target, "_obj", target)  # Airflow wraps the file of fsspec
    with suppress(Exception):
        file.discard()
    with suppress(AttributeError):
        file.closed = True


def remove(place: Location) -> None:
    """Remove a file, if it exists."""
    with _explained("remove", place), suppress(FileNotFoundError):
        place.fs.rm_file(place.path)


def remove_empty(place: Location) -> None:
    """Remove a directory of this machine, and the one above, if they are empty; object storage has no directories."""
    if place.protocol in _LOCAL:
        with suppress(OSError):
            Path(place.path).rmdir()
            Path(place.path).parent.rmdir()


@contextmanager
def _explained(doing: str, place: object) -> Generator[None]:
    with explained(doing, place):
        try:
            yield
        except (ImportError, ValueError) as error:
            if isinstance(error, ValueError) and "No filesystem registered" not in str(error):
                raise
            message = f"cannot {doing} {place}: {error}; install the provider of its storage"
            raise UsageError(message) from error
        except (BatchesError, OSError):
            raise
        except Exception as error:  # libraries of storage have errors of their own
            message = f"cannot {doing} {place}: {type(error).__name__}: {error}"
            raise BatchesError(message) from error
