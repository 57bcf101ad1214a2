"""Joining of results: a job's two files in the order of its rows, and the attempts of a shard by the input."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from together_batches import BatchMissing, RunError, Usage
from together_batches._local.atomic_file import AtomicFile
from together_batches._protocol import result_lines
from together_batches._schema.adapters import adapter_of
from together_batches.runs._joining import Arranged, ForeignFileError, arrange, final_lines, known_sha256
from together_batches.runs._records import Attempt, Shard, packed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random


def _good(custom_id: str, tokens: int = 1) -> dict[str, Any]:
    body = {"usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}}
    return {"custom_id": custom_id, "response": {"status_code": 200, "body": body}}


def _arranged(
    directory: Path, ids: str, *files: list[Any], completed: bool = False, settled: str = "", schema: Any = None
) -> tuple[Arranged, list[dict[str, Any]]]:
    paths: list[Any] = []
    for number, rows in enumerate(files):
        path = directory / f"file-{number}"
        path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), "utf-8")
        paths.append(path)
    with AtomicFile(directory / "piece") as piece:
        output, errors = [*paths, None, None][:2]
        options: Any = {
            "completed": completed,
            "absent": BatchMissing,
            "raise_if_cancelled": lambda: None,
            "settled": settled,
            "schema": schema,
        }
        arranged = arrange(list(ids), output, errors, piece, **options)
        piece.commit()
    return arranged, [json.loads(line) for line in (directory / "piece").read_bytes().splitlines()]


def test_two_files_become_one(tmp_path: Path) -> None:
    """Two files become one in the order of the rows that were sent, each once, with its outcome and tokens."""
    failed = {"custom_id": "b", "error": {"code": "invalid_model", "message": "no"}}
    arranged, lines = _arranged(tmp_path, "abcd", [_good("d", 4), _good("a", 1)], [failed])
    sizes = [(tmp_path / f"file-{number}").stat().st_size for number in (0, 1)]
    assert arranged == Arranged(
        outcomes=b"sfms", usage=Usage(5, 0, 5), left=1, output_bytes=sizes[0], error_bytes=sizes[1]
    )
    assert not arranged.is_whole
    printed = [(line["custom_id"], line["result"]) for line in lines]
    assert printed == [("a", "success"), ("b", "failure"), ("c", "missing"), ("d", "success")]


def test_rows_that_match_no_request(tmp_path: Path) -> None:
    """Second answers, answers to other requests, and unreadable lines are omitted and counted."""
    arranged, lines = _arranged(tmp_path, "ab", [_good("a", 1), _good("a", 2), _good("x"), "no JSON\n", "\n"], [])
    assert (arranged.outcomes, arranged.usage, arranged.strays, arranged.left) == (b"sm", Usage(1, 0, 1), 3, 1)
    assert lines[0]["body"]["usage"]["total_tokens"] == 1


def _said(custom_id: str, text: str, **changes: Any) -> dict[str, Any]:
    row = _good(custom_id)
    row["response"]["body"]["choices"] = [{"message": {"content": text}, **changes}]
    return row


@attrs.frozen
class _City:
    name: str


FITS = '{"name": "Prague"}'


def test_answers_that_are_read_by_a_schema(tmp_path: Path) -> None:
    """An answer that does not fit beats an error, loses to one that fits, and stays as received."""
    output = [
        _said("a", "no JSON"),
        _said("b", FITS),
        _said("c", "first"),
        _said("c", f"```json\n{FITS}\n```"),
        _said("d", "first"),
        _said("d", "second"),
        {**_said("e", FITS, finish_reason="length")},
        _said("f", FITS),
        _said("f", "second"),
    ]
    errors = [{"custom_id": name, "error": {"code": "400"}} for name in "ag"]
    arranged, lines = _arranged(tmp_path, "abcdefg", output, errors, schema=adapter_of(_City))
    assert (arranged.outcomes, arranged.usage.total_tokens, arranged.strays) == (b"issiisf", 6, 4)
    assert [line["result"] for line in lines] == ["invalid", *["success"] * 2, *["invalid"] * 2, "success", "failure"]
    assert lines[0]["error"] == "the answer is not JSON"
    texts = [line["body"]["choices"][0]["message"]["content"] for line in lines[:6]]
    assert texts == ["no JSON", FITS, f"```json\n{FITS}\n```", "first", FITS, FITS]


def test_unusual_answers_that_are_read_by_a_schema(tmp_path: Path) -> None:
    """An answer that Python alone reads is read by a schema, too, and its tokens count once."""
    body = '{"choices": [{"message": {"content": "x"}}], "y": NaN, "usage": {"total_tokens": 7}}'
    line = f'{{"custom_id": "a", "response": {{"status_code": 200, "body": {body}}}}}\n'
    fitting = line.replace('"a"', '"b"').replace('"x"', json.dumps(FITS))
    arranged, lines = _arranged(tmp_path, "ab", [line, fitting], schema=adapter_of(_City))
    assert (arranged.outcomes, arranged.usage.total_tokens) == (b"is", 14)
    assert [(row["result"], "NaN" in row["raw"]) for row in lines] == [("invalid", True), ("success", True)]


NAMELESS = {"id": "br_1", "error": {"code": "batch_client_error", "message": "no"}}


PAGES: dict[str, list[Any]] = {"page": ["<html>\n"], "no rows": ["[]\n", "{}\n"], "of another job": [_good("x")]}


@pytest.mark.parametrize("page", [*PAGES.values(), [NAMELESS]], ids=[*PAGES, "nameless"])
@pytest.mark.parametrize("errors", [[], [NAMELESS], [{"custom_id": "a", "error": {"message": "no"}}]], ids=len)
def test_an_output_with_none_of_the_rows(tmp_path: Path, page: list[Any], errors: list[Any]) -> None:
    """An output with none of the rows is another file: to take its rows for missing would pay for them again."""
    with pytest.raises(ForeignFileError) as caught:
        _arranged(tmp_path, "ab", page, errors)
    assert caught.value.path.name == "file-0"
    assert not (tmp_path / "piece").exists()


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_errors_with_none_of_the_rows(tmp_path: Path, page: list[Any]) -> None:
    """Errors with none of the rows are another file: rows that failed for good would be sent again."""
    with pytest.raises(ForeignFileError) as caught:
        _arranged(tmp_path, "ab", [_good("a")], page)
    assert caught.value.path.name == "file-1"


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_beside_errors_of_all_rows(tmp_path: Path, page: list[Any]) -> None:
    """A page instead of the output may hide answers; instead of errors it does not if all rows are answered."""
    failed = [{"custom_id": custom_id, "error": {"code": "400"}} for custom_id in "ab"]
    with pytest.raises(ForeignFileError) as caught:
        _arranged(tmp_path, "ab", page, failed)
    assert caught.value.path.name == "file-0"
    arranged, _ = _arranged(tmp_path, "ab", [_good("a"), _good("b")], page)
    assert arranged.outcomes == b"ss"


def test_rows_that_another_job_has_settled(tmp_path: Path) -> None:
    """Rows that another job has settled show that a file is the job's own, and are not strays."""
    arranged, _ = _arranged(tmp_path, "ab", [_good("c"), _good("x")], completed=True, settled="cd")
    assert (arranged.outcomes, arranged.left, arranged.strays) == (b"mm", 2, 1)


def test_an_output_without_rows(tmp_path: Path) -> None:
    """An empty output is invalid for a job that completed, and valid for one that did not."""
    with pytest.raises(ForeignFileError):
        _arranged(tmp_path, "ab", ["\n"], completed=True)
    arranged, _ = _arranged(tmp_path, "ab", ["\n"])
    assert arranged.outcomes == b"mm"


@pytest.mark.parametrize(
    ("ids", "output", "errors", "outcomes"),
    [
        pytest.param("ab", [_good("a")], [], b"sm", id="no errors"),
        pytest.param("ab", [_good("a")], [NAMELESS], b"sm", id="an error that does not say whose"),
        pytest.param("ab", [_good("a"), _good("b")], [NAMELESS], b"ss", id="the same, and all are answered"),
        pytest.param("a", [], [{"custom_id": "a", "error": {"code": "400"}}], b"f", id="all failed"),
        pytest.param("ab", [_good("a")], [_good("a")], b"sm", id="one that occurs twice"),
    ],
)
def test_what_is_the_right_file(tmp_path: Path, ids: str, output: Any, errors: Any, outcomes: bytes) -> None:
    """A file is valid if it has a row, or an error without an id; any file is if no row is left."""
    arranged, _ = _arranged(tmp_path, ids, output, errors, completed=True)
    assert arranged.outcomes == outcomes


def test_a_job_without_files(tmp_path: Path) -> None:
    """A job without files leaves all its rows missing."""
    arranged, _ = _arranged(tmp_path, "ab")
    assert arranged == Arranged(outcomes=b"mm", usage=Usage(), left=2)


def _failed(custom_id: str, code: str = "batch_client_error") -> dict[str, Any]:
    return {"custom_id": custom_id, "error": {"code": code, "message": "no"}}


@pytest.mark.parametrize(
    ("output", "errors"),
    [
        ([_good("a", 7)], [_failed("a")]),
        ([_failed("a")], [_good("a", 7)]),
        ([_failed("a"), _good("a", 7), _good("a", 9)], []),
        ([_good("a", 7), _failed("a")], []),
    ],
    ids=["in two files", "the other way round", "after an error in one file", "before an error in one file"],
)
def test_an_answer_beats_an_error(tmp_path: Path, output: list[Any], errors: list[Any]) -> None:
    """An answer beats an error for the same row, whatever their places; of two answers the first counts."""
    arranged, lines = _arranged(tmp_path, "a", output, errors)
    assert (arranged.outcomes, arranged.usage.total_tokens) == (b"s", 7)
    assert [line["result"] for line in lines] == ["success"]


def test_rows_refused_for_the_account(tmp_path: Path) -> None:
    """Rows refused for the account are distinguished from other refusals, with the message of the first."""
    errors = [_failed("a", "invalid_model"), _failed("b", "402"), _failed("c", "401"), _failed("d", "403")]
    arranged, _ = _arranged(tmp_path, "abcd", [], errors)
    assert (arranged.outcomes, arranged.refusal) == (b"frrd", "402: no")
    assert arranged.is_whole


# --- as they came ---

EXACT = [
    b'{"x": 1234567890123456789012345678901234567890, "y": -0.0, "z": 1E400}',
    b'{ "x":\t1 , "x": 2 }',
    b'{"x": "\\ud83d", "usage": {"total_tokens": 2}}',
    '{"x": "\u2028 \u00e9 \U0001f600"}'.encode(),
    b'{"x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    b'{"x": "' + b"x" * 3_000_000 + b'"}',
]


def _line(custom_id: str, body: bytes) -> bytes:
    return b'{"custom_id": "%b", "response": {"status_code": 200, "body": %b}}\n' % (custom_id.encode(), body)


def _piece(directory: Path, ids: Sequence[str], output: bytes) -> tuple[Arranged, list[bytes]]:
    (directory / "output").write_bytes(output)
    with AtomicFile(directory / "piece") as piece:
        arranged = arrange(
            ids,
            directory / "output",
            None,
            piece,
            completed=True,
            absent=BatchMissing,
            raise_if_cancelled=lambda: None,
        )
        piece.commit()
    return arranged, (directory / "piece").read_bytes().split(b"\n")[:-1]


def _answered(custom_id: str, body: bytes) -> bytes:
    return b'{"custom_id":"%b","result":"success","body":%b,"status_code":200}' % (custom_id.encode(), body)


def test_an_answer_is_copied_byte_for_byte(tmp_path: Path) -> None:
    """An answer is copied byte for byte, however JSON libraries parse it, and wherever it is in its line."""
    ids = [f"{number}" for number in range(len(EXACT))]
    output = [_line(name, body) for name, body in zip(ids, EXACT, strict=True)]
    output[0] = output[0][:-2] + b', "error": null}\n'
    arranged, found = _piece(tmp_path, ids, b"".join(reversed(output)))
    assert found == [_answered(name, body) for name, body in zip(ids, EXACT, strict=True)]
    assert (arranged.outcomes, arranged.usage.total_tokens) == (b"s" * len(EXACT), 2)


@pytest.mark.parametrize("member", ["response", "completion_tokens"])
def test_answers_that_are_not_one_in_a_line(tmp_path: Path, member: str) -> None:
    """Two answers in one line and one in two lines are as many as lines; still no row has the answer of another."""
    both = json.dumps(_good("a", 1)) + json.dumps(_good("b", 2)) + "\n"
    broken = json.dumps(_good("c", 3)).replace(f', "{member}"', f',\n"{member}"') + "\n"
    arranged, lines = _arranged(tmp_path, "abcd", [_good("d", 4), both, broken])
    assert (len(lines), arranged.outcomes[3:]) == (4, b"s")
    for line in lines:
        if line["result"] == "success":
            assert line["body"] == _good(line["custom_id"], " abcd".index(line["custom_id"]))["response"]["body"]


def test_a_carriage_return_in_an_answer(tmp_path: Path) -> None:
    """A carriage return in an answer becomes a space, because many readers would end the line at it."""
    _, found = _piece(tmp_path, "a", _line("a", b'{\r"x": 1}'))
    assert [json.loads(line)["body"] for line in found] == [{"x": 1}]
    assert b"\r" not in found[0]


ODD: dict[str, tuple[bytes, str]] = {
    "NaN": (b'{"x": NaN}', "success"),
    "half a character": (b'{"x": "caf\xe9"}', "success"),
    "a control character": (b'{"x": "\x01"}', "success"),
    "text": (b'"text"', "failure"),
    "null": (b"null", "failure"),
    "no JSON": (b'{"x": }', "failure"),
    "deep, and no JSON": (b"[" * 20_000 + b"NaN", "failure"),
}


@pytest.mark.parametrize(("body", "result"), ODD.values(), ids=ODD)
def test_an_odd_line_is_kept_and_its_row_does_not_go_again(tmp_path: Path, body: bytes, result: str) -> None:
    """An odd line is kept as text in ``raw``, its row does not go again, and the other rows are not affected."""
    line = _line("b", body)
    arranged, found = _piece(tmp_path, "abc", line + _line("c", b"{}") + _line("a", b"{}"))
    assert arranged.outcomes == (b"sss" if result == "success" else b"sfs")
    assert (arranged.left, arranged.strays) == (0, 0)
    printed = json.loads(found[1])
    assert (printed["custom_id"], printed["result"]) == ("b", result)
    assert printed["raw"] == line[:-1].decode("utf-8", "backslashreplace")


def test_a_line_that_is_cut_says_nothing_of_its_row(tmp_path: Path) -> None:
    """A cut line decides nothing about its row, because more of it may come: the row is left."""
    arranged, _ = _piece(tmp_path, "ab", _line("a", b"{}") + _line("b", b"{}")[:-5])
    assert (arranged.outcomes, arranged.left) == (b"sm", 1)


def test_a_line_that_cannot_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is too long counts for the row that its beginning names, which does not go again."""
    monkeypatch.setattr(result_lines, "LONGEST_LINE_BYTES", 2_000)
    arranged, found = _piece(tmp_path, "ab", _line("a", b'{"x": "%b"}' % (b"x" * 3_000)) + _line("b", b"{}"))
    assert arranged.outcomes == b"fs"
    assert json.loads(found[0])["raw"].startswith('{"custom_id": "a"')


def test_a_second_answer_is_a_stray(tmp_path: Path) -> None:
    """A second answer is a stray even if the first is not valid JSON."""
    arranged, found = _piece(tmp_path, "a", _line("a", b'{"x": NaN}') + _line("a", b'{"x": 1}'))
    assert (arranged.outcomes, arranged.strays) == (b"s", 1)
    assert "NaN" in json.loads(found[0])["raw"]


_bodies = st.recursive(
    st.none()
    | st.integers()
    | st.integers(min_value=10**39, max_value=10**41)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["\u2028", "\ud83d", "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=3), _bodies, max_size=3), max_size=8), st.randoms())
def test_any_answers_are_copied_byte_for_byte(bodies: list[dict[str, Any]], random: Random) -> None:
    """Answers are copied byte for byte in the order of the rows, whatever the order of the lines."""
    rows = [(f"row-{number}", json.dumps(body).encode()) for number, body in enumerate(bodies)]
    shuffled = random.sample(rows, len(rows))
    with tempfile.TemporaryDirectory() as directory:
        if rows:
            _, found = _piece(Path(directory), [name for name, _ in rows], b"".join(_line(*row) for row in shuffled))
            assert found == [_answered(*row) for row in rows]


def _pieces(directory: Path, *outcomes: bytes) -> list[tuple[Attempt, Path]]:
    """Write a piece for each attempt, whose lines contain their attempt and place."""
    pieces = []
    for number, fates in enumerate(outcomes, start=1):
        path = directory / f"piece-{number}"
        path.write_text("".join(f"{number}.{place}\n" for place in range(len(fates))), "utf-8")
        attempt: Any = {"shard": 1, "number": number, "rows": len(fates), "outcomes": packed(fates)}
        pieces.append((Attempt(**attempt, planned_at=None), path))  # type: ignore[arg-type]
    return pieces


SHARD = Shard(number=1, first_line=1, rows=4, offset=0, size=1, sha256="")


def test_a_row_has_the_line_of_its_last_attempt(tmp_path: Path) -> None:
    """A settled row keeps its line, and one that was sent again has the later line."""
    found = list(final_lines(SHARD, _pieces(tmp_path, b"safm", b"ms", b"a"), directory=tmp_path))
    assert b"".join(lines for lines, _ in found) == b"1.0\n3.0\n1.2\n2.1\n"
    assert b"".join(failed for _, failed in found) == b"3.0\n1.2\n"


@pytest.mark.parametrize(
    ("jobs", "outcomes", "is_known"),
    [(1, [b"ssss"], True), (2, [b"ssss"], False), (1, [b"sfss"], False), (1, [], False)],
)
def test_the_hash_of_the_output(tmp_path: Path, *, jobs: int, outcomes: list[bytes], is_known: bool) -> None:
    """The output of a single job that answered all rows is its piece, so that its hash is known beforehand."""
    pieces = _pieces(tmp_path, *outcomes)
    attempts = [attrs.evolve(attempt, piece_sha256=_sha256(path.read_bytes())) for attempt, path in pieces]
    found = known_sha256([(SHARD, attempts)] * jobs)
    assert bool(found) is is_known
    if is_known:
        hashed = [(attempt, path) for attempt, (_, path) in zip(attempts, pieces, strict=True)]
        assert found == _sha256(b"".join(lines for lines, _ in final_lines(SHARD, hashed, directory=tmp_path)))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("kept", [0, 1, 4, 15])
def test_a_piece_that_was_cut(tmp_path: Path, kept: int) -> None:
    """A piece that was cut is detected, and can be made again."""
    pieces = _pieces(tmp_path, b"ssss")
    pieces[0][1].write_bytes(pieces[0][1].read_bytes()[:kept])
    with pytest.raises(RunError, match="piece-1 has been cut short: remove it and run again"):
        list(final_lines(SHARD, pieces, directory=tmp_path))
