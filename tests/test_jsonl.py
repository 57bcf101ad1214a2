"""Files of requests: lines of chunks, requests of lines, all problems of a file, and files of the right size."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import math
import os
import resource
import tracemalloc
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches import BatchRequest, UsageError, ValidationError, jsonl
from together_batches._text import format_count
from together_batches.jsonl._lines import changed_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_MODEL = "openai/gpt-oss-20b"
_BOM = b"\xef\xbb\xbf"
_WHILE = "while the endpoint of the file is /v1/chat/completions"
_STREAM = "body.stream is true, and a batch cannot stream: leave it out"


def _row(custom_id: object = "a", **changes: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "body": {"model": _MODEL, "messages": []}, **changes}


def _bytes(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _problems(source: Any, **options: Any) -> list[str]:
    return [str(problem) for problem in jsonl.validate(source, **options).problems]


# --- lines --------------------------------------------------------------------------------------------------------


def test_lines_have_a_number_and_an_offset() -> None:
    """Numbers count from 1, offsets in bytes from 0; a missing last newline makes no difference."""
    expected = [(1, 0, b"a"), (2, 2, "é".encode()), (3, 5, b""), (4, 6, b"last")]
    for end in (b"", b"\n"):
        lines = jsonl.split_lines([b"a\n\xc3\xa9\n\nlast" + end])
        assert [(line.number, line.offset, line.content) for line in lines] == expected


def test_nothing_but_a_newline_ends_a_line() -> None:
    """Only a newline ends a line, unlike ``str.splitlines``: U+2028, U+2029, U+0085, form feeds, a bare CR do not."""
    content = "\u2028 \u2029 \u0085 \x0b \x0c \x1c \x1d \x1e \r .".encode()
    assert [line.content for line in jsonl.split_lines([content])] == [content]


def test_a_carriage_return_before_the_newline_belongs_to_the_end() -> None:
    """A carriage return before the newline is part of the line end, and counts for the offset of the next line."""
    lines = list(jsonl.split_lines([b"a\r\nb\r", b"\nc\r\n"]))
    assert [(line.offset, line.content, line.length) for line in lines] == [(0, b"a", 1), (3, b"b", 1), (6, b"c", 1)]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    """A byte order mark at the start counts for the offset only; elsewhere it is an ordinary character."""
    content = _BOM + b"a\n" + _BOM + b"b"
    for chunks in ([content], [content[:1], content[1:2], content[2:]]):
        lines = list(jsonl.split_lines(chunks))
        assert [(line.offset, line.content) for line in lines] == [(3, b"a"), (5, _BOM + b"b")]


def test_nothing_has_no_lines() -> None:
    """No content, or only empty chunks, has no lines."""
    assert list(jsonl.split_lines([])) == []
    assert list(jsonl.split_lines([b"", b""])) == []


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_line_that_is_too_long_is_told_and_not_held(size: int) -> None:
    """Only the beginning of a line that is too long is kept, with a flag; its neighbours are complete."""
    content = b"a\n" + b"x" * 50 + b"\nb\n" + b"y" * 10 + b"\r\n" + b"z" * 11
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    lines = list(jsonl.split_lines(chunks, 10))
    assert [(line.length, line.whole) for line in lines] == [
        (1, True),
        (50, False),
        (1, True),
        (10, True),
        (11, False),
    ]
    assert [line.content for line in lines] == [b"a", b"x" * 10, b"b", b"y" * 10, b"z" * 10]
    assert [line.offset for line in lines] == [0, 2, 53, 55, 67]


def test_a_line_without_end_takes_no_memory() -> None:
    """A line without an end takes no more memory than its beginning."""
    splitter = jsonl.LineSplitter(100_000)
    chunk = b"x" * 65_536
    tracemalloc.start()
    try:
        assert [splitter.feed(chunk) for _ in range(400)] == [[]] * 400
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    (line,) = splitter.close()
    assert (line.length, line.whole) == (400 * 65_536, False)
    assert splitter.close() == []


@pytest.mark.unmeasured
def test_a_long_line_in_small_chunks_costs_no_square() -> None:
    """Ten million bytes in chunks of thirty take linear time: copying the buffer each time would take hours."""
    splitter = jsonl.LineSplitter()
    for _ in range(10_000_000 // 40):
        splitter.feed(b"0123456789012345678901234567890123456789")
    (line,) = splitter.feed(b"\n")
    assert (line.length, line.whole) == (10_000_000, True)


@given(st.lists(st.binary(max_size=30)))
def test_lines_that_are_changed(chunks: list[bytes]) -> None:
    """Each line is changed with its end, wherever the chunks are cut."""
    before = b"".join(chunks)
    seen: list[bytes] = []

    def change(line: bytes) -> bytes:
        seen.append(line)
        return b"<" + line

    after = b"".join(changed_lines(chunks, change))
    assert b"".join(seen) == before
    assert after == b"".join(b"<" + line for line in seen)
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in seen[:-1])


def test_a_line_that_is_too_long_to_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is too long to be a request is passed on as it is, and not held."""
    monkeypatch.setattr("together_batches.jsonl._lines.MAX_LINE_BYTES", 10)
    chunks = [b"short\n", *[b"0123456789"] * 5, b"end\nnext"]
    assert b"".join(changed_lines(chunks, bytes.upper)) == b"SHORT\n" + b"0123456789" * 5 + b"end\nNEXT"


def test_a_line_that_has_not_ended_can_be_seen() -> None:
    """``peek`` returns the current line so far; the next chunk continues it."""
    splitter = jsonl.LineSplitter(10)
    assert splitter.peek() is None
    splitter.feed(b"\xef\xbb\xbfa")
    assert splitter.peek() == jsonl.Line(1, 3, b"a", 1)
    assert [line.content for line in splitter.feed(b"b\n")] == [b"ab"]
    assert splitter.peek() is None
    splitter.feed(b"x" * 20)
    line = splitter.peek()
    assert line is not None
    assert (line.number, line.offset, line.length, line.whole) == (2, 6, 20, False)
    assert splitter.close() == [line]
    assert splitter.peek() is None


def test_the_most_that_is_held_is_a_number() -> None:
    """The maximum number of bytes to keep is an integer from 1."""
    with pytest.raises(UsageError, match="max_line_bytes must be a whole number, 1 or more; it is 0"):
        jsonl.LineSplitter(0)


_texts = st.text(st.characters(codec="utf-8") | st.sampled_from("\u2028\u2029\u0085\r\n\x0b\x0c\x1e\ufeff\0"))
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(_texts, values, max_size=3),
    max_leaves=6,
)
_requests = st.builds(
    BatchRequest, _texts.filter(bool), st.dictionaries(_texts, _values, max_size=3), st.none() | st.just("FILE")
)


def _cut(data: st.DataObject, content: bytes) -> Iterator[bytes]:
    borders = data.draw(st.lists(st.integers(0, len(content)), max_size=8).map(sorted))
    for start, end in zip([0, *borders], [*borders, len(content)], strict=True):
        yield content[start:end]


@pytest.mark.unmeasured
@given(st.lists(_requests, max_size=5), st.data())
def test_chunks_may_be_cut_anywhere(requests: list[BatchRequest], data: st.DataObject) -> None:
    """Chunks may be cut anywhere: the rows are the same, with any line ends, with or without a byte order mark."""
    # Like other writers: not escaped, so that U+2028 and similar characters occur unchanged.
    rows = [{"custom_id": row.custom_id, "body": row.body, "method": row.method} for row in requests]
    ends = data.draw(st.lists(st.sampled_from(["\n", "\r\n"]), min_size=len(rows), max_size=len(rows)))
    lines = [json.dumps(row, ensure_ascii=False) + end for row, end in zip(rows, ends, strict=True)]
    content = data.draw(st.sampled_from([b"", _BOM])) + "".join(lines).encode()
    if data.draw(st.booleans()) and content.endswith(b"\n"):
        content = content[:-1]
    found = list(jsonl.split_lines(_cut(data, content)))
    assert requests == [jsonl.decode(line.content) for line in found if line.content]
    assert all(content[line.offset :].startswith(line.content) for line in found)
    assert list(range(1, len(found) + 1)) == [line.number for line in found]


@given(st.lists(st.sampled_from([b"", b"a", b"bb\r", b"\rc", _BOM, b"d" * 30]), max_size=8), st.data())
def test_lines_that_are_cut_together_are_those_that_are_made_one_by_one(contents: list[bytes], data: Any) -> None:
    """Lines cut together equal those cut one by one, in content, number and offset, as a whole and in parts."""
    splitter = jsonl.LineSplitter(20)
    number = 1
    for chunk in _cut(data, b"\n".join(contents)):
        lines = splitter.cut(chunk)
        assert [line.content for line in lines] == lines.contents
        assert [line.offset for line in lines] == list(lines.offsets())
        assert [line.number for line in lines] == list(range(number, number + len(lines)))
        middle = len(lines) // 2
        assert [*lines.part(0, middle), *lines.part(middle, len(lines))] == [*lines]
        number += len(lines)
    assert number - 1 + len(splitter.close()) == b"\n".join(contents).count(b"\n") + bool(contents and contents[-1])


def test_a_number_beyond_floats_is_carried() -> None:
    """A number beyond floats is valid JSON: the row is accepted on any line of a file and keeps its body."""
    body = b'{"model": "m", "x": 1e999}'
    content = b"".join(b'{"custom_id": "%d", "body": %b}\n' % (number, body) for number in range(3))
    assert jsonl.validate(content).ok
    assert [jsonl.encode(request) for request in jsonl.read(content)] == [
        b'{"custom_id":"%d","body":%b}\n' % (number, body) for number in range(3)
    ]


# --- one request --------------------------------------------------------------------------------------------------


def test_a_chat_request() -> None:
    """A chat request has the model, the messages and the parameters in its body, and no method."""
    messages = ({"role": role, "content": "?"} for role in ("system", "user"))
    request = jsonl.chat_request("row-1", model=_MODEL, messages=messages, max_tokens=32)
    body = {
        "model": _MODEL,
        "messages": [{"role": "system", "content": "?"}, {"role": "user", "content": "?"}],
        "max_tokens": 32,
    }
    assert BatchRequest("row-1", body) == request


@attrs.frozen
class _City:
    name: str


def test_a_chat_request_with_a_schema() -> None:
    """A schema becomes ``response_format``, and is in the system message unless that is left out."""
    asked = {"role": "user", "content": "Name a city."}
    request = jsonl.chat_request("row-1", model=_MODEL, messages=[asked], schema=_City)
    schema = {"title": "_City", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    response_format = {"type": "json_schema", "json_schema": {"name": "City", "schema": schema}}
    assert request.body["response_format"] == response_format
    assert request.body["messages"][0]["role"] == "system"
    assert '"properties":{"name"' in request.body["messages"][0]["content"]
    assert request.body["messages"][1:] == [asked]
    bare = jsonl.chat_request("row-1", model=_MODEL, messages=[asked], schema=_City, schema_in_prompt=False)
    assert bare.body == {"model": _MODEL, "messages": [asked], "response_format": response_format}
    with pytest.raises(UsageError, match="give schema or response_format, not both"):
        jsonl.chat_request("row-1", model=_MODEL, messages=[asked], schema=_City, response_format=response_format)
    with pytest.raises(UsageError, match="a schema is a pydantic model"):
        jsonl.chat_request("row-1", model=_MODEL, messages=[asked], schema=int)


def test_an_audio_request() -> None:
    """An audio request has the URL of a file, and the method that the service requires."""
    request = jsonl.audio_request(
        "clip", model="openai/whisper-large-v3", file="https://a.example/b.wav", language="de"
    )
    body = {"model": "openai/whisper-large-v3", "file": "https://a.example/b.wav", "language": "de"}
    assert BatchRequest("clip", body, "FILE") == request


@pytest.mark.parametrize(
    ("problem", "build"),
    [
        ("invalid request: custom_id is empty", lambda: jsonl.chat_request("", model="m", messages=[])),
        ("custom_id is a number, and must be text", lambda: jsonl.chat_request(1, model="m", messages=[])),  # type: ignore[arg-type]
        ("body.model is empty", lambda: jsonl.chat_request("a", model="", messages=[])),
        ("messages is one value, and must be a list", lambda: jsonl.chat_request("a", model="m", messages="Hi")),  # type: ignore[arg-type]
        ("body.stream is true", lambda: jsonl.chat_request("a", model="m", messages=[], stream=True)),
        ("file must be a public URL.* it is '/a.wav'", lambda: jsonl.audio_request("a", model="m", file="/a.wav")),
    ],
)
def test_a_request_that_no_batch_takes_is_not_made(problem: str, build: Any) -> None:
    """The builders refuse a request that no batch accepts, where it is easy to correct."""
    with pytest.raises(ValidationError, match=problem) as caught:
        build()
    assert len(caught.value.problems) == 1


def test_a_request_is_one_line() -> None:
    """A request is one line with a newline, without absent fields, in UTF-8 without escapes."""
    expected = '{"custom_id":"é","body":{"a":"x\\ny"}}\n'.encode()
    assert expected == jsonl.encode(BatchRequest("é", {"a": "x\ny"}))
    assert jsonl.encode(BatchRequest("a", {}, "FILE")) == b'{"custom_id":"a","method":"FILE","body":{}}\n'
    assert jsonl.encode(BatchRequest("a", MappingProxyType({"b": 1}))) == b'{"custom_id":"a","body":{"b":1}}\n'


@given(_requests)
def test_what_is_encoded_is_decoded(request: BatchRequest) -> None:
    """Any request is a single line that decodes to the same request."""
    line = jsonl.encode(request)
    assert request == jsonl.decode(line)
    assert line.count(b"\n") == 1


@pytest.mark.parametrize(
    ("problem", "request_"),
    [
        ("the request cannot be written as JSON: a number is not finite", BatchRequest("a", {"b": [math.nan]})),
        ("the request cannot be written as JSON: a number is not finite", BatchRequest("a", {"b": -math.inf})),
        ("the request cannot be written as JSON: .*not JSON serializable", BatchRequest("a", {"b": object()})),
        ("the request cannot be written as JSON: .*surrogates", BatchRequest("a", {"b": "\ud800"})),
        (("the request cannot be written as JSON: Dict key must be str"), BatchRequest("a", {1: 2})),  # type: ignore[dict-item]
        ("custom_id is missing", BatchRequest(None, {})),  # type: ignore[arg-type]
        ("custom_id is a number, and must be text", BatchRequest(7, {})),  # type: ignore[arg-type]
        ("custom_id is empty", BatchRequest("", {})),
        ("body is a list, and must be an object", BatchRequest("a", [])),  # type: ignore[arg-type]
        ("body is missing", BatchRequest("a", None)),  # type: ignore[arg-type]
        ("method is a number, and must be text", BatchRequest("a", {}, 1)),  # type: ignore[arg-type]
        ("'custom_id' is not a BatchRequest", "custom_id"),
        ("body is missing", {"custom_id": "a"}),
        ("custom_id is a number, and must be text", {"custom_id": 7, "body": {}}),
    ],
)
def test_what_json_cannot_say_is_not_written(problem: str, request_: Any) -> None:
    """Values that JSON cannot represent and invalid rows are not written."""
    with pytest.raises(ValidationError, match=problem):
        jsonl.encode(request_)


_NO_ROWS = [
    (b"", "the line is blank"),
    (b" \t\r", "the line is blank"),
    (b"{", "the line is not valid JSON: unexpected end of data, at byte 1 of the line"),
    ('{"é": x}'.encode(), "the line is not valid JSON: invalid character, at byte 7 of the line"),
    (b'{"a": NaN}', "the line is not valid JSON: JSON has no NaN and no Infinity, at byte 6 of the line"),
    (b'{"a": -Infinity}', "the line is not valid JSON: JSON has no NaN and no Infinity, at byte 7 of the line"),
    (b'{"a": 1e999}', "the line is not valid JSON: a number is out of range"),
    (b'{"a": "\xe9"}', "the line is not UTF-8: byte 7 of the line is 0xe9"),
    (b"[1]", "the line is a list, and must be an object with custom_id and body"),
    (b"{}", "custom_id is missing; body is missing"),
    (
        b'{"custom_id": 1, "body": "b", "method": 2}',
        (
            "custom_id is a number, and must be text; body is text, and must be an object;"
            " method is a number, and must be text"
        ),
    ),
]


@pytest.mark.parametrize(("line", "problems"), _NO_ROWS)
def test_a_line_that_is_no_request(line: bytes, problems: str) -> None:
    """The error of an invalid line lists all its problems, with the byte if that helps."""
    with pytest.raises(ValidationError) as caught:
        jsonl.decode(line)
    assert problems == "; ".join(caught.value.problems)


# --- reading and writing ------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Written requests are read back, one for each line; ``write`` returns their number."""
    requests = [jsonl.chat_request(f"row-{number}", model=_MODEL, messages=[]) for number in range(3)]
    path = tmp_path / "requests.jsonl"
    assert jsonl.write(iter(requests), path) == 3
    assert requests == list(jsonl.read(path)) == list(jsonl.read(str(path))) == list(jsonl.read(path.read_bytes()))
    assert requests == list(jsonl.read(requests))
    assert [path] == list(tmp_path.iterdir())


def test_reading_passes_over_what_is_no_row() -> None:
    """Reading skips a byte order mark, blank lines and carriage returns."""
    content = _BOM + b"\r\n" + _bytes(_row("a")).replace(b"\n", b"\r\n") + b" \n\n" + _bytes(_row("b"))
    assert [request.custom_id for request in jsonl.read(content)] == ["a", "b"]


def test_reading_stops_at_a_line_that_is_no_request(tmp_path: Path) -> None:
    """Reading stops at an invalid line with an error that names file and line; earlier rows were yielded."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(_bytes(_row("a")) + b"{}\n")
    requests = jsonl.read(path)
    assert next(requests).custom_id == "a"
    with pytest.raises(ValidationError, match=r"r\.jsonl: line 2 \(byte 76\): custom_id is missing") as caught:
        next(requests)
    assert caught.value.problems == ("line 2 (byte 76): custom_id is missing", "line 2 (byte 76): body is missing")


def test_reading_stops_at_a_line_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading stops at a line that is too long, without keeping it."""
    with pytest.raises(
        ValidationError, match=r"line 1 \(byte 0\): the line has 10 000 011 bytes, more than 10 000 000"
    ):
        next(jsonl.read(io.BytesIO(b'{"a": "' + b"x" * 10_000_002 + b'"}')))


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    """A file appears when it is complete: an invalid row or an error of the caller leaves nothing behind."""
    bad = [BatchRequest("a", {}), BatchRequest("b", {"c": math.nan})]
    with pytest.raises(ValidationError, match="request 2: the request cannot be written as JSON: a number is not"):
        jsonl.write(bad, tmp_path / "requests.jsonl")

    def interrupted() -> Iterator[BatchRequest]:
        yield BatchRequest("a", {})
        raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        jsonl.write(interrupted(), tmp_path / "requests.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_overwritten_unless_requested(tmp_path: Path) -> None:
    """A file is not overwritten without ``overwrite``, even if it appeared during the write."""
    path = tmp_path / "requests.jsonl"
    path.write_text("precious")
    with pytest.raises(
        UsageError, match=r"requests\.jsonl exists already, and is left alone; overwrite=True replaces it"
    ):
        jsonl.write([], path)
    assert path.read_text() == "precious"
    assert jsonl.write([BatchRequest("a", {})], path, overwrite=True) == 1
    assert [request.custom_id for request in jsonl.read(path)] == ["a"]

    def somebody_else_writes() -> Iterator[BatchRequest]:
        (tmp_path / "new.jsonl").write_text("precious")
        yield BatchRequest("a", {})

    with pytest.raises(UsageError, match=r"new\.jsonl exists already"):
        jsonl.write(somebody_else_writes(), tmp_path / "new.jsonl")
    assert (tmp_path / "new.jsonl").read_text() == "precious"


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """An unwritable path is an error that names it."""
    with pytest.raises(
        UsageError, match=r"cannot write .*nowhere/requests\.jsonl: there is no such file or directory"
    ):
        jsonl.write([], tmp_path / "nowhere" / "requests.jsonl")
    (tmp_path / "requests.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*requests\.jsonl: it is a directory"):
        jsonl.write([], tmp_path / "requests.jsonl", overwrite=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"pipe: it is not a file \(a device or a pipe\), and would be replaced"):
        jsonl.write([], tmp_path / "pipe", overwrite=True)


@pytest.mark.parametrize("rows", [1, 2_000], ids=["at the end", "on the way"])
def test_a_disk_that_is_full(tmp_path: Path, rows: int) -> None:
    """A full disk is an error that names the file, and leaves nothing, whenever it shows."""
    requests = [jsonl.chat_request(f"{number}", model=_MODEL, messages=[]) for number in range(rows)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(UsageError, match=r"cannot write .*/requests\.jsonl: file too large"):
            jsonl.write(requests, tmp_path / "requests.jsonl")
        with pytest.raises(UsageError, match=r"cannot write .*/all-001\.jsonl: file too large"):
            jsonl.split(requests, tmp_path, prefix="all", max_rows=1_500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("use", [jsonl.validate, lambda path: list(jsonl.read(path))])
def test_a_file_that_cannot_be_read(use: Any, tmp_path: Path) -> None:
    """An unreadable file raises an error that names it."""
    (tmp_path / "file").write_bytes(b"")
    for path, reason in [
        (tmp_path / "none.jsonl", r"cannot read .*none\.jsonl: there is no such file or directory"),
        (tmp_path, "cannot read .*: it is a directory"),
        (tmp_path / "file" / "below", "cannot read .*below: not a directory"),
        (tmp_path / ("x" * 300), "cannot read .*: file name too long"),
        ("a\0b", "cannot read .*: embedded null byte"),
    ]:
        with pytest.raises(UsageError, match=reason):
            use(path)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_that_may_not_be_read(sealed: Path, as_nobody: Callable[[], AbstractContextManager[None]]) -> None:
    """A file without read permission raises an error that names it."""
    path = sealed / "secret.jsonl"
    path.touch(mode=0o000)
    with as_nobody(), pytest.raises(UsageError, match=r"cannot read .*secret\.jsonl: permission denied"):
        jsonl.validate(path)


def test_sources_that_are_none() -> None:
    """Text files, closed files and values that are neither files nor requests are refused."""
    with pytest.raises(UsageError, match="the file gives str instead of bytes: open it in binary mode"):
        jsonl.validate(io.StringIO("{}"))  # type: ignore[arg-type]
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(UsageError, match=r"cannot read the file: I/O operation on closed file"):
        jsonl.validate(closed)
    for wrong in (7, None, BatchRequest("a", {})):
        with pytest.raises(UsageError, match="requests come from a path, bytes, a binary file or an iterable"):
            jsonl.validate(wrong)  # type: ignore[arg-type]


# --- validating ---------------------------------------------------------------------------------------------------


def test_a_good_file(tmp_path: Path) -> None:
    """A valid file has no problems, and its bytes, its rows and the rows of each model are counted."""
    rows = [_row("a"), _row("b"), _row("c", body={"model": "other", "stream": False}), _row("d", method="POST")]
    content = _bytes(*rows)
    path = tmp_path / "requests.jsonl"
    path.write_bytes(content)
    with path.open("rb") as file:
        for source in (path, str(path), content, bytearray(content), memoryview(content), file, io.BytesIO(content)):
            validation = jsonl.validate(source)
            assert (validation.ok, validation.problems, validation.problem_count) == (True, (), 0)
            assert (4, len(content)) == (validation.rows, validation.bytes)
            assert validation.models == {_MODEL: 3, "other": 1}
            validation.raise_for_problems()
        assert not file.closed
    assert f"{path}: 4 rows, {len(content)} bytes, no problems" == str(jsonl.validate(path))


def test_requests_are_checked_as_the_file_that_they_would_be() -> None:
    """Requests are checked like the file of them; one that cannot be written does not stop the check of others."""
    requests: list[Any] = [
        jsonl.chat_request("a", model="m", messages=[]),
        BatchRequest("b", {"c": math.nan}),
        7,
        BatchRequest("a", {}),
    ]
    size = len(jsonl.encode(requests[0]))
    validation = jsonl.validate(iter(requests))
    assert [
        f"line 2 (byte {size}), custom_id 'b': the request cannot be written as JSON: a number is not finite",
        f"line 3 (byte {size}): 7 is not a BatchRequest",
        f"line 4 (byte {size}), custom_id 'a': body.model is missing",
        f"line 4 (byte {size}), custom_id 'a': custom_id is that of line 1 too, and must be unique in the file",
    ] == [str(problem) for problem in validation.problems]
    assert (4, size + len(jsonl.encode(requests[3]))) == (validation.rows, validation.bytes)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (_row(None), "custom_id is missing"),
        (_row(""), "custom_id is empty"),
        (_row(5), "custom_id is a number, and must be text"),
        (_row("x" * 65), f"custom_id '{'x' * 65}': custom_id has 65 characters, more than 64"),
        ({"custom_id": "a"}, "custom_id 'a': body is missing"),
        (_row(body=[]), "custom_id 'a': body is a list, and must be an object"),
        (_row(body={}), "custom_id 'a': body.model is missing"),
        (_row(body={"model": ""}), "custom_id 'a': body.model is empty"),
        (_row(body={"model": 1}), "custom_id 'a': body.model is a number, and must be text"),
        (_row(body={"model": "m", "stream": True}), f"custom_id 'a': {_STREAM}"),
        (_row(method=1), "custom_id 'a': method is a number, and must be text"),
        (_row(method="FILE"), f"custom_id 'a': method is \"FILE\", which is for audio, {_WHILE}"),
        (_row(url="/v1/embeddings"), f"custom_id 'a': url is '/v1/embeddings', {_WHILE}: a file has one"),
        (_row(url=3), f"custom_id 'a': url is 3, {_WHILE}: a file has one"),
        ([], "the line is a list, and must be an object with custom_id and body"),
        (None, "the line is null, and must be an object with custom_id and body"),
    ],
)  # fmt: skip
def test_a_row_with_a_problem(row: object, problem: str) -> None:
    """A problem is reported on the first row of a file and among valid rows."""
    where = ", " if problem.startswith("custom_id '") else ": "
    assert [f"line 1 (byte 0){where}{problem}"] == _problems(_bytes(row))
    good = _bytes(_row("first"))
    assert [f"line 2 (byte {len(good)}){where}{problem}"] == _problems(good + _bytes(row, _row("last")))


@pytest.mark.parametrize(("line", "problems"), [case for case in _NO_ROWS if case[0] != b""])
def test_a_line_that_is_no_row(line: bytes, problems: str) -> None:
    """All problems of an invalid line are reported, with its position, and the position in the line if that helps."""
    good = _bytes(_row("first"))
    expected = [f"line 2 (byte {len(good)}): {problem}" for problem in problems.split("; ")]
    found = _problems(good + line + b"\n" + _bytes(_row("last")))
    assert expected == [problem for problem in found if "body.model" not in problem]


def test_no_error_ends_the_check() -> None:
    """All problems of all lines are reported in the order of the lines, those of the file last."""
    content = _BOM + b"{\n" + _bytes({}, _row("a"), _row("a", url="/x")) + b"\n" + _bytes(_row("b"))
    assert _problems(content, max_rows=2, max_bytes=249) == [
        "line 1 (byte 0): the file begins with a byte order mark (BOM): save it as UTF-8 without one",
        "line 1 (byte 3): the line is not valid JSON: unexpected end of data, at byte 1 of the line",
        "line 2 (byte 5): custom_id is missing",
        "line 2 (byte 5): body is missing",
        f"line 4 (byte 84), custom_id 'a': url is '/x', {_WHILE}: a file has one",
        "line 4 (byte 84), custom_id 'a': custom_id is that of line 3 too, and must be unique in the file",
        "line 5 (byte 173): the line is blank",
        "there are 5 rows, more than 2: cut them into several files with split",
        "there are 250 bytes, more than 249: cut them into several files with split",
    ]  # fmt: skip


def test_the_url_of_the_endpoint_is_fine() -> None:
    """The endpoint's URL is accepted, because files for other services contain one and this service ignores it."""
    url = "/v1/chat/completions"
    rows = [_row("a", url=url, method="POST"), _row("b", url="https://api.example" + url), _row("c", url=None)]
    assert _problems(_bytes(*rows)) == []


def test_audio_needs_its_method() -> None:
    """An audio request requires its method, on every line and for both endpoints."""
    rows = [_row("a", method="FILE"), _row("b"), _row("c", method="POST"), _row("d", method="FILE")]
    for endpoint in ("/v1/audio/transcriptions", "/v1/audio/translations"):
        assert _problems(_bytes(*rows), endpoint=endpoint) == [
            "line 2 (byte 94), custom_id 'b': method is missing; for audio it must be \"FILE\"",
            "line 3 (byte 170), custom_id 'c': method is 'POST'; for audio it must be \"FILE\"",
        ]


def test_every_repetition_names_the_first() -> None:
    """Every repeated id names its first line, for ids of any length and rows with other problems."""
    long = "x" * 5000
    rows = [_row("a"), _row(long), _row("a"), _row("a", body=None), _row(long)]
    repeated = [problem for problem in _problems(_bytes(*rows), max_custom_id=10_000) if "too, and" in problem]
    assert [problem.partition("is that of ")[2][:6] for problem in repeated] == ["line 1", "line 1", "line 2"]
    assert all(len(problem) < 400 for problem in repeated)


def test_limits_are_met_to_the_byte() -> None:
    """Values equal to a limit are accepted, to the byte."""
    content = _bytes(_row("x" * 64), _row("b"))
    limits = {"max_rows": 2, "max_bytes": len(content), "max_line_bytes": content.index(b"\n"), "max_custom_id": 64}
    assert _problems(content, **limits) == []
    assert _problems(content.replace(b"\n", b"\r\n"), **{**limits, "max_bytes": len(content) + 2}) == []
    for name, limit in limits.items():
        assert len(_problems(content, **{**limits, name: limit - 1})) == 1, name


def test_lines_over_the_limit_of_the_service() -> None:
    """Lines above the service's limit of ten million bytes are problems, also of requests not written yet."""
    content = _bytes(_row("a", body={"model": "m", "x": "x" * 10_000_000}), _row("b"))
    size = content.index(b"\n")
    expected = f"line 1 (byte 0): the line has {format_count(size)} bytes, more than 10 000 000"
    assert [expected] == _problems(content)
    (shown,) = _problems([*list(jsonl.read(content[size + 1 :])), BatchRequest("c", {"model": "x" * 10000000})])
    assert shown == "line 2 (byte 73): the line has 10 000 037 bytes, more than 10 000 000"


@pytest.mark.parametrize("empty", [b"", []])
def test_a_file_without_rows(empty: Any) -> None:
    """A file without rows is a problem of the file."""
    validation = jsonl.validate(empty)
    assert [str(p) for p in validation.problems] == ["there are no rows: a file of requests has one request a line"]
    assert (validation.problems[0].line, validation.problems[0].offset) == (None, None)


def test_a_binary_file_is_one_problem() -> None:
    """A binary file is one problem, instead of thousands of invalid lines."""
    expected = "the file holds zero bytes: it is binary, compressed or UTF-16, and not text in UTF-8"
    assert [expected] == _problems(b"\x7fELF\2\1\1\0\n\n" * 100)


_GOOD = {"custom_id": "a", "body": {"model": "m", "messages": []}}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(json.dumps(_GOOD).encode()), "compressed with gzip"),
        (b"PK\3\4\n\0\n\n", "a zip archive or a spreadsheet"),
        (json.dumps(_GOOD).encode("utf-16"), "UTF-16"),
        (json.dumps(_GOOD).encode("utf-16-le"), "UTF-16"),
        (json.dumps(_GOOD).encode("utf-16-be"), "UTF-16"),
        (json.dumps([_GOOD] * 3).encode(), "one JSON array"),
        (json.dumps([_GOOD] * 3, indent=2).encode(), "one JSON array"),
        (b"\xef\xbb\xbf\n[\n" + json.dumps(_GOOD).encode() + b",\n" + json.dumps(_GOOD).encode() + b"\n]\n", "array"),
        (json.dumps([{**_GOOD, "more": "x" * 500}] * 300).encode(), "one JSON array"),
        (json.dumps(_GOOD, indent=2).encode(), "JSON over several lines"),
        (b"\n".join([json.dumps(_GOOD, indent="\t").encode()] * 3), "JSON over several lines"),
        (json.dumps({"more": ["x" * 100] * 2000, **_GOOD}, indent=2).encode(), "JSON over several lines"),
        (f"{_GOOD}\n{_GOOD}\n".encode(), "Python dicts"),
        (f"{ ({**_GOOD, 'more': None}) }".encode(), "Python dicts"),
        (b"custom_id,prompt\na,Hello\nb,World\n", "CSV"),
        (b'"custom_id"\t"prompt"\n"a"\t"Hello, you"\n', "CSV"),
        (f"{json.dumps(json.dumps(_GOOD))}\n".encode() * 2, "JSON within quotes"),
        (f"'{json.dumps(_GOOD)}'\n".encode() * 2, "JSON within quotes"),
        (('"' + json.dumps(_GOOD).replace('"', '""') + '"\n').encode() * 2, "JSON within quotes"),
        (b'{"custom_id": "a", "params": {"model": "m", "messages": []}}\n' * 2, "Anthropic's format"),
        (b'{"key": "a", "request": {"contents": [{"parts": [{"text": "Hello"}]}]}}\n' * 2, "Gemini's format"),
    ],
)
def test_a_file_of_another_shape_is_one_problem(content: bytes, what: str) -> None:
    """A file in another format is one problem that names the format and a conversion."""
    (problem,) = jsonl.validate(content).problems
    assert (what in problem.message, ":" in problem.message) == (True, True)
    assert (problem.line, problem.offset) == (None, None)


@pytest.mark.parametrize(
    "odd",
    [
        f"{_GOOD}",
        "[1]",
        "[{}]",
        json.dumps("{}"),
        '{"custom_id": "a", "params": {}}',
        '{"custom_id": "a", "body": {"model": "m"}, "params": {}}',
        '{"key": "a", "request": {}}',
        "custom_id,prompt",
        "{",
        '{"a": 1',
    ],
)
def test_one_odd_row_is_a_problem_of_its_line(odd: str) -> None:
    """One invalid row is a problem of its line, also the first one if the next row is valid."""
    good = json.dumps({**_GOOD, "custom_id": "b"})
    for lines, number in ((f"{odd}\n{good}\n", 1), (f"{good}\n{odd}\n", 2)):
        assert {problem.line for problem in jsonl.validate(lines.encode()).problems} <= {number}
        assert jsonl.validate(lines.encode()).rows == 2


@pytest.mark.parametrize(
    ("endpoint", "meant"),
    [
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("v1/chat/completions", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/chat", "/v1/chat/completions"),
        ("/v1/Chat/Completions ", "/v1/chat/completions"),
        ("/v1/audio/transcription", "/v1/audio/transcriptions"),
        ("/v1/audio/translation", "/v1/audio/translations"),
    ],
)
def test_a_misspelt_endpoint_is_refused(endpoint: str, meant: str) -> None:
    """A misspelt endpoint is refused with the correct one."""
    with pytest.raises(UsageError, match=f"^invalid endpoint '{endpoint}': use {meant}$"):
        jsonl.validate(b"", endpoint=endpoint)


def test_an_endpoint_that_resembles_none_is_left_to_the_service() -> None:
    """An unknown endpoint unlike any known one is left to the service, which may have added it since this version."""
    assert jsonl.validate([_GOOD], endpoint="/v1/embeddings").ok
    for nothing in ("", "/", "/v1/ä", "/v1/a b", "/v1/a\n", 7):
        with pytest.raises(UsageError, match="endpoint"):
            jsonl.validate([_GOOD], endpoint=nothing)  # type: ignore[arg-type]


def test_a_request_may_be_a_dict() -> None:
    """A request may be a dict with the fields of its line; a dict instead of a list is refused."""
    audio = {"custom_id": "b", "method": "FILE", "body": MappingProxyType({"model": "m"}), "url": None}
    assert jsonl.encode(MappingProxyType(audio)) == (
        b'{"custom_id":"b","method":"FILE","body":{"model":"m"},"url":null}\n'
    )
    assert jsonl.encode({"custom_id": "a", "method": None, "body": {}}) == b'{"custom_id":"a","body":{}}\n'
    validation = jsonl.validate([_GOOD, {**_GOOD, "custom_id": "b", "body": {}}])
    assert [(problem.custom_id, problem.message) for problem in validation.problems] == [
        ("b", "body.model is missing")
    ]
    with pytest.raises(UsageError, match="an iterable of BatchRequest"):
        jsonl.validate(_GOOD)  # type: ignore[arg-type]


def test_so_many_problems() -> None:
    """A thousand problems are kept and all are counted; the summary has the total."""
    validation = jsonl.validate(b"{}\n" * 3000)
    assert (len(validation.problems), validation.problem_count, validation.ok) == (1000, 6000, False)
    assert str(validation) == "the file: 3 000 rows, 9 000 bytes, 6 000 problems"
    with pytest.raises(
        ValidationError, match=r"^the file: 6 000 problems in lines 1, 2, .*, 20, …; the first: line 1"
    ):
        validation.raise_for_problems()


def test_the_error_has_all_problems() -> None:
    """The text of the error has the lines and the first problems."""
    validation = jsonl.validate(_bytes({}, _row("a"), _row("a")))
    with pytest.raises(ValidationError) as caught:
        validation.raise_for_problems()
    assert tuple(map(str, validation.problems)) == caught.value.problems
    assert str(caught.value) == "the file: 3 problems in lines 1, 3; the first: line 1 (byte 0): custom_id is missing"
    with pytest.raises(ValidationError, match=r"^the file: 1 problem: there are no rows"):
        jsonl.validate(b"").raise_for_problems()


def test_many_models_are_counted_and_not_all_kept() -> None:
    """A thousand names of models are kept for the summary, and all rows are counted."""
    validation = jsonl.validate(_bytes(*[_row(str(n), body={"model": f"m{n}"}) for n in range(1100)]))
    assert validation.ok
    assert (validation.rows, len(validation.models)) == (1100, 1000)


@pytest.mark.parametrize(
    "options", [{"max_rows": 0}, {"max_bytes": 0.5}, {"max_custom_id": 0}, {"max_line_bytes": True}, {"endpoint": ""}]
)
def test_options_that_are_none(options: dict[str, Any]) -> None:
    """Invalid options are misuse."""
    with pytest.raises(UsageError, match=next(iter(options))):
        jsonl.validate(b"", **options)


def test_memory_is_that_of_a_row_and_the_ids() -> None:
    """Checking 20 MB of rows takes the memory of one row and the ids."""

    class Endless(io.RawIOBase):
        def __init__(self) -> None:
            self.rows, self.left = 0, b""
            self.text = "x" * 20_000

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            while len(self.left) < len(buffer) and self.rows < 1000:
                self.rows += 1
                self.left += _bytes(_row(f"row-{self.rows}", body={"model": "m", "x": self.text}))
            given, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
            buffer[: len(given)] = given
            return len(given)

    tracemalloc.start()
    try:
        validation = jsonl.validate(Endless())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (validation.ok, validation.rows) == (True, 1000)
    assert validation.bytes > 20_000_000
    assert peak < 2_000_000


# --- splitting ----------------------------------------------------------------------------------------------------


def _requests_of(count: int) -> list[BatchRequest]:
    return [jsonl.chat_request(f"row-{number}", model=_MODEL, messages=[]) for number in range(count)]


def test_pieces_by_rows(tmp_path: Path) -> None:
    """A split by rows has the fewest pieces, all but the last full, in order, with names that sort."""
    requests = _requests_of(7)
    pieces = jsonl.split(iter(requests), tmp_path / "made" / "here", max_rows=3)
    assert [len(list(jsonl.read(piece))) for piece in pieces] == [3, 3, 1]
    assert requests == [request for piece in pieces for request in jsonl.read(piece)]
    assert [piece.name for piece in pieces] == ["requests-001.jsonl", "requests-002.jsonl", "requests-003.jsonl"]
    assert pieces == sorted((tmp_path / "made" / "here").iterdir())


def test_pieces_by_bytes(tmp_path: Path) -> None:
    """A split by bytes is exact to the byte."""
    requests = _requests_of(4)
    size = len(jsonl.encode(requests[0]))
    assert len(jsonl.split(requests, tmp_path / "a", max_bytes=2 * size)) == 2
    assert len(jsonl.split(requests, tmp_path / "b", max_bytes=2 * size - 1)) == 4


def test_lines_are_copied_as_they_are(tmp_path: Path) -> None:
    """Lines are copied unchanged, spaces and unknown fields too; the rest is omitted. Names are the source's."""
    first, second = b'{ "custom_id":"a", "body":{"model":"m"}, "x":1 }', b'{"body":{"model":"m"},"custom_id":"b"}'
    source = tmp_path / "mine.v2.jsonl"
    source.write_bytes(_BOM + b"\n" + first + b"\r\n\r\n" + second)
    (piece,) = jsonl.split(source, tmp_path)
    assert tmp_path / "mine.v2-001.jsonl" == piece
    assert first + b"\n" + second + b"\n" == piece.read_bytes()
    assert jsonl.validate(piece).ok


@given(st.lists(_texts.filter(bool), max_size=12, unique=True), st.integers(1, 5), st.integers(120, 400))
def test_pieces_are_the_whole(tmp_path_factory: pytest.TempPathFactory, ids: list[str], rows: int, size: int) -> None:
    """The pieces together equal the input; each is within the limits, and no two neighbours would fit into one."""
    requests = [BatchRequest(custom_id[:20] + str(n), {"model": "m"}) for n, custom_id in enumerate(ids)]
    requests = requests or [BatchRequest("only", {"model": "m"})]
    pieces = jsonl.split(requests, tmp_path_factory.mktemp("pieces"), max_rows=rows, max_bytes=size)
    found = [piece.read_bytes() for piece in pieces]
    assert b"".join(map(jsonl.encode, requests)) == b"".join(found)
    assert all(jsonl.validate(piece, max_rows=rows, max_bytes=size).ok for piece in pieces)
    for one, other in itertools.pairwise(found):
        assert one.count(b"\n") == rows or len(one) + other.index(b"\n") + 1 > size


def test_rows_with_problems_are_not_split(tmp_path: Path) -> None:
    """If rows have problems, all are reported, ids repeated across pieces included, and nothing is written."""
    content = _bytes(_row("a"), {}, _row("b"), _row("a"), [])
    with pytest.raises(ValidationError, match=r"^the file: 4 problems in lines 2, 4, 5; the first: line 2") as caught:
        jsonl.split(content, tmp_path, max_rows=1)
    assert [problem[:6] for problem in caught.value.problems] == ["line 2", "line 2", "line 4", "line 5"]
    with pytest.raises(ValidationError, match="the line has 75 bytes, more than 67"):
        jsonl.split(_bytes(_row("a")) + b"\n", tmp_path, max_bytes=68)
    with pytest.raises(ValidationError, match="there are no rows"):
        jsonl.split(b"\n\n", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_audio_is_split_for_its_endpoint(tmp_path: Path) -> None:
    """Audio is validated for its endpoint when it is split."""
    request = jsonl.audio_request("a", model="m", file="https://a.example/b")
    assert len(jsonl.split([request], tmp_path, endpoint="/v1/audio/translations")) == 1


def test_earlier_pieces_are_not_overwritten_or_added_to(tmp_path: Path) -> None:
    """Earlier pieces are neither overwritten nor added to: two splits side by side would look like one."""
    (tmp_path / "requests-009.jsonl").write_text("precious")
    (tmp_path / "other-001.jsonl").write_text("precious")
    with pytest.raises(
        UsageError, match=r"requests-009\.jsonl exists already; give another name, or remove it first"
    ):
        jsonl.split(_requests_of(1), tmp_path)
    assert [tmp_path / "mine-001.jsonl"] == jsonl.split(_requests_of(1), tmp_path, prefix="mine")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine-001.jsonl", "other-001.jsonl", "requests-009.jsonl"]


def test_pieces_appear_all_or_none(tmp_path: Path) -> None:
    """Either all pieces appear or none, also if one of their names is taken during the split."""

    def somebody_else_writes() -> Iterator[BatchRequest]:
        (tmp_path / "requests-002.jsonl").write_text("precious")
        yield from _requests_of(3)

    with pytest.raises(UsageError, match=r"requests-002\.jsonl exists already"):
        jsonl.split(somebody_else_writes(), tmp_path, max_rows=1)
    assert [tmp_path / "requests-002.jsonl"] == list(tmp_path.iterdir())


def test_a_rename_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one rename fails, the earlier ones are undone."""
    replace = Path.replace

    def fails_for_the_third(self: Path, target: Path) -> Path:
        if "003" in target.name:
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails_for_the_third)
    with pytest.raises(UsageError, match=r"cannot write .*requests-003\.jsonl: permission denied"):
        jsonl.split(_requests_of(3), tmp_path, max_rows=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": "a/b"}, "prefix must be the beginning of a file name; it is 'a/b'"),
        ({"prefix": ""}, "prefix must be"),
        ({"prefix": "a\0"}, "prefix must be"),
        ({"max_rows": 0}, "max_rows must be"),
        ({"max_bytes": -1}, "max_bytes must be"),
        ({"endpoint": "chat"}, "endpoint must be a path such as /v1/chat/completions; it is 'chat'"),
    ],
)
def test_splitting_with_options_that_are_none(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Invalid options of a split are misuse."""
    with pytest.raises(UsageError, match=message):
        jsonl.split(_requests_of(1), tmp_path, **options)


def test_a_place_that_is_no_directory(tmp_path: Path) -> None:
    """A path that is not a directory is an error that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot make .*file: file exists"):
        jsonl.split(_requests_of(1), tmp_path / "file")


def test_dates_are_text() -> None:
    """Dates and other values that JSON libraries write as text may be in a body."""
    assert b'"2026-09-14"' in jsonl.encode(BatchRequest("a", {"day": date(2026, 9, 14)}))


# --- values of another type ---------------------------------------------------------------------------------------


class _Unreadable:
    read = 3


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: jsonl.decode('{"custom_id":"a","body":{}}'), "decode takes a line as bytes, not str"),
        (lambda: jsonl.decode(memoryview(b"{}")), "decode takes a line as bytes, not memoryview"),
        (lambda: jsonl.chat_request("a", model="m", messages=7), "messages is one value"),
        (lambda: jsonl.write([], 7), "path is a path, not int: 7"),
        (lambda: jsonl.write([], [0] * 1000), r"path is a path, not list: \[(0, ){66}0…$"),
        (lambda: jsonl.split([], 7), "directory is a path, not int: 7"),
        (lambda: jsonl.validate(_Unreadable()), "requests come from a path, bytes"),
    ],
    ids=[
        "decode text",
        "decode memory",
        "messages",
        "write",
        "write to a list",
        "split",
        "an object without a read method",
    ],
)
def test_values_of_another_type(call: Callable[[], object], expected: str) -> None:
    """Each is refused with an error of the package that says what is accepted."""
    with pytest.raises((UsageError, ValidationError), match=expected):
        call()
