"""Ids of jobs and files as arguments, from standard input or from a file: one a line, or JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar, cast

from together_batches.cli._inputs.report_lines import results_in
from together_batches.cli._terminal.commands import argument
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.text import count_of, is_open, is_terminal, print_err

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    F = TypeVar("F", bound=Callable[..., object])


def ids_argument(help: str, *, required: bool) -> Callable[[F], F]:  # noqa: A002
    """Add an argument that takes any number of ids."""
    return argument("ids", "ID..." if required else "[ID]...", help, nargs=-1, required=required)


def is_input(ids: Sequence[str]) -> bool:
    """Return whether ``-`` alone selects standard input; raise :class:`CommandError` for ``-`` beside ids."""
    if "-" in ids and len(ids) > 1:
        message = "- stands for standard input and was given beside ids; put all ids in one place"
        raise CommandError(message)
    return "-" in ids


def given_ids(ids: Sequence[str]) -> list[str]:
    """Return the ids from the arguments, in order, without repetitions."""
    for job_id in ids:
        _check_single(job_id.strip(), "the argument", "give each id as an argument of its own")
    return list(dict.fromkeys(job_id.strip() or job_id for job_id in ids))


def ids_or_input(ids: Sequence[str]) -> list[str]:
    """Return the ids from the arguments or from standard input, in order, without repetitions."""
    if not is_input(ids):
        return given_ids(ids)
    if not is_open(sys.stdin):
        message = "ids are to come from standard input, and it is closed"
        raise CommandError(message)
    if is_terminal(sys.stdin):
        print_err("one id a line; Ctrl-D ends the list")
    return list(dict.fromkeys(read_ids(sys.stdin.buffer)))


def without(job_ids: Sequence[str], excepted: Sequence[str]) -> list[str]:
    """Return the ids but those that are left out, which are ids or files that name some."""
    left_out = LeftOut.read(excepted)
    left_out.check(job_ids, "the ids")
    return [job_id for job_id in job_ids if job_id.lower() not in left_out.ids]


class LeftOut(NamedTuple):
    """The jobs that are left out: ids that were given, and those that files name. All are in lower case."""

    given: dict[str, str]
    """Each as it was spelled."""
    files: dict[str, frozenset[str]]

    @classmethod
    def read(cls, values: Iterable[str]) -> LeftOut:
        """Read the files among the values; every other one is an id."""
        given: dict[str, str] = {}
        files: dict[str, frozenset[str]] = {}
        for value in values:
            if not Path(value).is_file():
                given[value.strip().lower()] = value
                continue
            try:
                with Path(value).open("rb") as stream:
                    files[value] = frozenset(job_id.lower() for job_id in read_ids(stream, value))
            except OSError as error:
                message = f"cannot read {value}: {error.strerror or error}"
                raise CommandError(message) from error
        return cls(given, files)

    @property
    def ids(self) -> frozenset[str]:
        """All ids."""
        return frozenset(self.given).union(*self.files.values())

    def check(self, known: Iterable[str], place: str = "the account") -> None:
        """Refuse an id that no job has, which may be a misspelt file; mention those of files."""
        here = {job_id.lower() for job_id in known}
        if unknown := [text for job_id, text in self.given.items() if job_id not in here]:
            message = f"--except {unknown[0]} is neither a job of {place} nor a file"
            raise CommandError(message, Exit.NOT_FOUND)
        for name, ids in self.files.items():
            if absent := len(ids - here):
                print_err(f"note: of the {count_of(len(ids), 'id')} in {name}, {absent} are no jobs of {place}")


def read_ids(stream: BinaryIO, name: str = "standard input") -> Iterator[str]:
    """Yield the ids in a file: one a line, or JSON.

    Surrounding white space, blank lines, lines that begin with ``#``, a first line that names columns, a byte order
    mark and text after a tab are skipped, so that the output of `list` and `cancel` can be read again. A line that
    begins like JSON is parsed as JSON, over as many lines as it takes: an id, an array of ids, or an object with an
    ``id`` or a ``job_id``. The report of a cancel may be CSV, too. An invalid id raises a :class:`CommandError` that
    names the line, before any request is sent; ``name`` is that of the file in it.
    """
    content = stream.read().removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        position = content.count(b"\n", 0, error.start) + 1
        message = f"line {position} of {name} is not UTF-8 text"
        raise CommandError(message) from None
    if text.startswith("job_id,"):
        yield from (job_id for job_id, _ in results_in(content, name, is_csv=True))
        return
    begin, number = 0, 1
    while begin < len(text):
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        line, place = text[begin:end].strip(), f"line {number} of {name}"
        if line.startswith(("{", "[", '"')):
            value, end = _json_value(text, text.index(line[0], begin), place)
            yield from _ids_in(value, place)
            last = number + text.count("\n", begin, end)
            after = _after_value(text, end, f"line {last} of {name}")
        else:
            job_id = _id_on(line, place)
            if job_id and not (begin == 0 and job_id in _HEADERS):
                yield job_id
            after = end + 1
        number += text.count("\n", begin, after)
        begin = after


_HEADERS = {"id", "job_id"}
"""The first column of lists that begin with the names of their columns."""
_DECODER = json.JSONDecoder()


def _id_on(line: str, place: str) -> str:
    """Return the id on a line that is not JSON; an empty text for a blank line or a comment."""
    if line.startswith("#"):
        return ""
    job_id = line.partition("\t")[0].rstrip()
    _check_single(job_id, place, "put each id on a line of its own")
    if job_id == "null":
        message = f"{place} is null, and no id"
        raise CommandError(message)
    return job_id


def _json_value(text: str, begin: int, place: str) -> tuple[object, int]:
    """Return the JSON value at this position, and its end."""
    try:
        return cast("tuple[object, int]", _DECODER.raw_decode(text, begin))
    except (ValueError, RecursionError):
        message = f"{place} begins with {text[begin]} and is not JSON"
        raise CommandError(message) from None


def _after_value(text: str, end: int, place: str) -> int:
    """Return the position after a JSON value: the start of the next value, or of the next line."""
    while end < len(text) and text[end] in " \t\r":
        end += 1
    if end < len(text) and text[end] not in '\n{["':
        message = (
            f"{place} has {text[end]!r} after a JSON value; "
            "put each value on a line of its own, or all of them in one array"
        )
        raise CommandError(message)
    return end


def _ids_in(value: object, place: str) -> Iterator[str]:
    """Yield the ids in a JSON value."""
    left = [value]
    while left:
        found = entry = left.pop()
        if isinstance(entry, list):
            left += reversed(cast("list[object]", entry))
            continue
        if isinstance(entry, dict):
            fields = cast("dict[str, object]", entry)
            found = fields.get("id", fields.get("job_id"))
        if not isinstance(found, str) or not found.strip():
            kind = "an object without an id or a job_id" if isinstance(entry, dict) else json.dumps(entry)[:40]
            message = f"the JSON on {place} has {kind} instead of an id"
            raise CommandError(message)
        yield found.strip()


def _check_single(job_id: str, place: str, mend: str) -> None:
    """Refuse several ids in one argument: sent unchanged, the service would know no such job."""
    for separator, name in ((",", "a comma"), (" ", "a blank")):
        if separator in job_id:
            message = f"{place} has {name} in it ({job_id[:80]!r}), and no id has; {mend}"
            raise CommandError(message)
