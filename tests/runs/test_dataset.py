"""A dataset in shards, from files without paths."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import RunChangedError, RunError, UsageError, ValidationError, jsonl, runs
from together_batches.runs import Attempt, rules
from together_batches.runs._records import packed

from .stage import requests

if TYPE_CHECKING:
    from pathlib import Path

    from together_batches.runs import Shard

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)
CONTENT = b"".join(jsonl.encode(request) for request in requests())


class Stream:
    """A file that can only be read in order, a few bytes at a time."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)
        self.is_closed = False

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, 100))

    def close(self) -> None:
        self.is_closed = True


def attempt(outcomes: bytes, number: int = 1, **facts: Any) -> Attempt:
    return Attempt(
        **{
            "shard": 1,
            "number": number,
            "rows": len(outcomes),
            "planned_at": NOON,
            "collected_at": NOON,
            "outcomes": packed(outcomes),
            **facts,
        }
    )


# --- cutting ---


@pytest.mark.parametrize("kind", ["path", "file", "function", "stream"])
def test_kinds_of_sources(tmp_path: Path, kind: str) -> None:
    """The same shards come of a path, an open file, and a function that opens a file or a stream."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(CONTENT)
    given: dict[str, Any] = {
        "path": path,
        "file": io.BytesIO(CONTENT),
        "function": lambda: io.BytesIO(CONTENT),
        "stream": lambda: Stream(CONTENT),
    }
    found = runs.shards(given[kind], max_rows_per_job=4)
    assert [(shard.number, shard.first_line, shard.rows) for shard in found] == [(1, 1, 4), (2, 5, 4), (3, 9, 2)]
    texts = [runs.rows(given[kind], shard)().read() for shard in found]
    assert b"".join(texts) == CONTENT


def test_a_file_is_read_from_its_position() -> None:
    """An open file is read from its position, and left open at it."""
    file = io.BytesIO(b"title\n" + CONTENT)
    file.seek(6)
    (shard,) = runs.shards(file)
    assert runs.rows(file, shard)().read() == CONTENT
    assert file.tell() == 6


def test_what_was_opened_is_closed() -> None:
    """What a function opened is closed after it is read."""
    opened: list[Stream] = []

    def open_it() -> Stream:
        opened.append(Stream(CONTENT))
        return opened[-1]

    runs.shards(open_it)
    assert [each.is_closed for each in opened] == [True]


def test_invalid_lines() -> None:
    """Invalid lines are an error that lists them, or are written to a file, once each, and are skipped."""
    content = b"no JSON\n" + CONTENT + CONTENT[: CONTENT.index(b"\n") + 1]
    with pytest.raises(ValidationError, match="2 problems in lines 1, 12;") as caught:
        runs.shards(lambda: io.BytesIO(content))
    assert len(caught.value.problems) == 2
    invalid = io.BytesIO()
    (shard,) = runs.shards(lambda: Stream(content), invalid=invalid)
    assert invalid.getvalue() == b"no JSON\n" + CONTENT[: CONTENT.index(b"\n") + 1]
    assert runs.rows(lambda: Stream(content), shard)().read() == CONTENT


def test_an_invalid_line_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid line is written whole, however long it is, although only its beginning is in memory."""
    line = b"x" * (jsonl.MAX_LINE_BYTES + 1) + b"\n"
    invalid = io.BytesIO()
    runs.shards(lambda: io.BytesIO(line + CONTENT), invalid=invalid)
    assert invalid.getvalue() == line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_rows_per_job": 0}, "max_rows_per_job must be a whole number, 1 or more; it is 0"),
        ({"max_rows_per_job": 50_001}, "max_rows_per_job is at most 50 000; it is 50 001"),
        ({"max_bytes_per_job": 64}, "max_bytes_per_job must be more than 64; it is 64"),
        ({"endpoint": "/v1/chat/completion"}, "endpoint"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    """Invalid limits and a misspelt endpoint are refused."""
    with pytest.raises(UsageError, match=message):
        runs.shards(lambda: io.BytesIO(CONTENT), **options)


def test_a_shard_has_room_for_a_mark() -> None:
    """The rows of a shard and a mark are within the maximum of bytes."""
    size = len(CONTENT)
    assert len(runs.shards(lambda: io.BytesIO(CONTENT), max_bytes_per_job=size)) == 2
    assert len(runs.shards(lambda: io.BytesIO(CONTENT), max_bytes_per_job=size + 64)) == 1


# --- the rows of an attempt ---


def _shard() -> Shard:
    (shard,) = runs.shards(lambda: io.BytesIO(CONTENT))
    return shard


def test_the_rows_that_earlier_attempts_left() -> None:
    """The rows are those that the earlier attempts left, byte for byte; each call opens them again."""
    rows = runs.rows(lambda: io.BytesIO(CONTENT), _shard(), [attempt(b"sasssmssff")])
    left = [line for number, line in enumerate(CONTENT.splitlines(keepends=True)) if number in {1, 5}]
    assert rows().read() == rows().read() == b"".join(left)
    file = rows()
    assert b"".join(iter(lambda: file.read(7), b"")) == b"".join(left)
    file.close()
    assert file.read(7) == b""


def test_an_edited_source() -> None:
    """Rows of a source that was edited are refused when the last of them is read."""
    rows = runs.rows(lambda: io.BytesIO(CONTENT.replace(b"row-3", b"row-x")), _shard())
    with pytest.raises(RunChangedError, match="is not what was cut into these shards") as caught:
        rows().read()
    assert caught.value.directory == ""


def test_an_attempt_that_is_not_collected() -> None:
    """The rows that an attempt leaves are unknown before it is collected."""
    with pytest.raises(UsageError, match="attempt 1 of shard 1 is not collected: collect it first"):
        runs.rows(lambda: io.BytesIO(CONTENT), _shard(), [attempt(b"s" * 10, collected_at=None)])
    with pytest.raises(UsageError, match="attempt 1 of shard 1 is not collected: collect it first"):
        runs.write_results(_shard(), [(attempt(b"", collected_at=None), io.BytesIO())], io.BytesIO())


# --- joining ---


def _piece(outcomes: bytes, number: int) -> bytes:
    return b"".join(json.dumps([number, row, chr(outcome)]).encode() + b"\n" for row, outcome in enumerate(outcomes))


def test_the_results_of_a_shard() -> None:
    """A row has the line of its last attempt; the lines of rows that were not answered are written apart, too."""
    outcomes = b"sassssssfa", b"sm"
    pieces = [(attempt(each, number), _piece(each, number)) for number, each in enumerate(outcomes, start=1)]
    output, failures = io.BytesIO(), io.BytesIO()
    sources: list[Any] = [(each, lambda piece=piece: Stream(piece)) for each, piece in pieces]
    runs.write_results(_shard(), sources, output, failures)
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [line[:2] for line in lines] == [[1, 0], [2, 0], *([1, row] for row in range(2, 9)), [2, 1]]
    assert [json.loads(line)[2] for line in failures.getvalue().splitlines()] == ["f", "m"]


@pytest.mark.parametrize("outcomes", [b"ssssssssss", b"sssssssssf"])
@pytest.mark.parametrize("is_hashed", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda piece: piece[:-1],
        lambda piece: piece[: len(piece) // 2],
        lambda piece: piece + b"[]\n",
        lambda _: b"",
    ],
    ids=["without its last byte", "half", "longer", "empty"],
)
def test_a_piece_that_was_changed(outcomes: bytes, change: Any, is_hashed: bool) -> None:
    """A piece that is not as it was collected is an error; without a hash, if its lines do not fit."""
    piece = _piece(outcomes, 1)
    kept = attempt(outcomes, piece_sha256=hashlib.sha256(piece).hexdigest() if is_hashed else "")
    problems = "is not as it was collected|has been cut short|has more lines than its attempt has rows"
    with pytest.raises(RunError, match=f"a piece ({problems}): collect its attempt again"):
        runs.write_results(_shard(), [(kept, io.BytesIO(change(piece)))], io.BytesIO())


@pytest.mark.parametrize("outcomes", [b"ssssssssss", b"sssssssssf"])
def test_a_piece_that_was_edited(outcomes: bytes) -> None:
    """A piece with as many lines, of which one was edited, is an error."""
    piece = _piece(outcomes, 1)
    kept = attempt(outcomes, piece_sha256=hashlib.sha256(piece).hexdigest())
    edited = piece.replace(b"7", b"0")
    with pytest.raises(RunError, match="a piece is not as it was collected: collect its attempt again"):
        runs.write_results(_shard(), [(kept, io.BytesIO(edited))], io.BytesIO())


@pytest.mark.parametrize(
    ("attempts", "message"),
    [
        ([], "shard 1 has no attempt"),
        ([attempt(b"ss", 2)], "attempt 2 of shard 1 has 2 rows, and the shard has 10"),
        ([attempt(b"ss", 2), attempt(b"saasssssss")], "attempt 1 of shard 1 cannot follow attempt 2"),
        ([attempt(b"s" * 10, shard=2)], "attempt 1 of shard 2 cannot follow"),
        ([attempt(b"saasssssss"), attempt(b"s", 3)], "outcomes of 1 row, and the attempts before it left 2"),
    ],
    ids=["none", "the last one alone", "swapped", "another shard", "one is missing"],
)
def test_attempts_that_are_not_all(attempts: list[Attempt], message: str) -> None:
    """Attempts that do not account for each row of the shard are refused, before anything is written."""
    output = io.BytesIO()
    pieces: list[Any] = [(each, io.BytesIO(_piece(rules.outcomes_of(each), each.number))) for each in attempts]
    with pytest.raises(UsageError, match=message):
        runs.write_results(_shard(), pieces, output)
    assert not output.getvalue()


class Unbuffered(io.BytesIO):
    """A file that takes few bytes at a time, and at some point no more."""

    def __init__(self, room: int = 1 << 20) -> None:
        super().__init__()
        self._room = room

    def write(self, content: Any, /) -> int:
        return super().write(bytes(content)[: min(7, self._room - self.tell())])


def test_an_unbuffered_file() -> None:
    """Results and invalid lines are written as a whole to a file that takes a part at a time."""
    piece, output, failures, aside = _piece(b"sssssssssf", 1), Unbuffered(), Unbuffered(), Unbuffered()
    runs.write_results(_shard(), [(attempt(b"sssssssssf"), io.BytesIO(piece))], output, failures)
    assert output.getvalue() == piece
    assert failures.getvalue() == piece.splitlines(keepends=True)[-1]
    runs.shards(io.BytesIO(b'{"not a request"}\n' + CONTENT), invalid=aside)
    assert aside.getvalue() == b'{"not a request"}\n'


@pytest.mark.parametrize(
    ("output", "message"),
    [(Unbuffered(20), "it takes no more bytes"), (io.StringIO(), "StringIO is not a file opened in binary mode")],
    ids=["full", "text"],
)
def test_an_output_that_cannot_be_written(output: Any, message: str) -> None:
    """An output that takes no more bytes, or no bytes, is an error."""
    with pytest.raises(UsageError, match=f"^cannot write the file: {message}$"):
        runs.write_results(_shard(), [(attempt(b"s" * 10), io.BytesIO(_piece(b"s" * 10, 1)))], output)
