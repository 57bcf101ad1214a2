"""Ids of jobs as arguments, or from standard input: one a line, or JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from together_batches.cli._command import argument
from together_batches.cli._exits import CommandError
from together_batches.cli._text import is_open, is_terminal, print_err

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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


def read_ids(stream: BinaryIO) -> Iterator[str]:
    """Yield the ids in a file: one a line, or JSON.

    Surrounding white space, blank lines, lines that begin with ``#``, a byte order mark and text after a tab are
    skipped, so that the output of `list` and `cancel` can be read again. A line that begins like JSON is parsed as
    JSON, over as many lines as it takes: an id, an array of ids, or an object with an ``id`` or a ``job_id``.
    An invalid id raises a :class:`CommandError` that names the line, before any request is sent.
    """
    content = stream.read().removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        position = content.count(b"\n", 0, error.start) + 1
        message = f"line {position} of standard input is not UTF-8 text"
        raise CommandError(message) from None
    begin, position = 0, 1
    while begin < len(text):
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        line = text[begin:end].strip()
        if line.startswith(("{", "[", '"')):
            value, end = _json_value(text, text.index(line[0], begin), position)
            yield from _ids_in(value, position)
            position += text.count("\n", begin, end)
            begin = _after_value(text, end, position)
            continue
        if line and not line.startswith("#"):
            job_id = line.partition("\t")[0].rstrip()
            _check_single(job_id, f"line {position} of standard input", "put each id on a line of its own")
            if job_id == "null":
                message = f"line {position} of standard input is null, and no id"
                raise CommandError(message)
            yield job_id
        begin, position = end + 1, position + 1


_DECODER = json.JSONDecoder()


def _json_value(text: str, begin: int, position: int) -> tuple[object, int]:
    """Return the JSON value at this position, and its end."""
    try:
        return cast("tuple[object, int]", _DECODER.raw_decode(text, begin))
    except (ValueError, RecursionError):
        message = f"line {position} of standard input begins with {text[begin]} and is not JSON"
        raise CommandError(message) from None


def _after_value(text: str, end: int, position: int) -> int:
    """Return the position after a JSON value: the start of the next value, or of the next line."""
    while end < len(text) and text[end] in " \t\r":
        end += 1
    if end < len(text) and text[end] not in '\n{["':
        message = (
            f"line {position} of standard input has {text[end]!r} after a JSON value; "
            "put each value on a line of its own, or all of them in one array"
        )
        raise CommandError(message)
    return end


def _ids_in(value: object, position: int) -> Iterator[str]:
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
            message = f"the JSON on line {position} of standard input has {kind} in place of an id"
            raise CommandError(message)
        yield found.strip()


def _check_single(job_id: str, place: str, mend: str) -> None:
    """Refuse several ids in one argument: sent unchanged, the service would know no such job."""
    for separator, name in ((",", "a comma"), (" ", "a blank")):
        if separator in job_id:
            message = f"{place} has {name} in it ({job_id[:80]!r}), and no id has; {mend}"
            raise CommandError(message)
