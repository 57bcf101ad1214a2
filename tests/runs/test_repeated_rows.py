"""``run(dedupe=True)``: rows with equal requests are sent once, and each of them has the result."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches import BatchRequest, RunChangedError, jsonl, runs
from together_batches._protocol.to_dict import line_of, renamed_line, to_dict
from together_batches.emulator import Answer, Failure, Missing
from together_batches.jsonl._repeats import Repeats
from together_batches.rows import BatchMissing
from together_batches.runs import RunEventKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from together_batches.emulator import Emulator

    from .stage import Runner

_QUESTIONS = "abacabdbea"
"""What each of ten rows asks: row-0 is equal to row-2, row-4 and row-9, row-1 to row-5 and row-7."""
_FIRST = {question: f"row-{_QUESTIONS.index(question)}" for question in "abcde"}


@dataclass
class _River:
    river: str


def _requests() -> Iterator[BatchRequest]:
    for number, question in enumerate(_QUESTIONS):
        yield jsonl.chat_request(f"row-{number}", model="m", messages=[{"role": "user", "content": question}])


def _answer(text: str) -> Answer:
    return Answer(body={"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 3}})


def _plan(run: Runner, question: str, *fates: Any) -> None:
    run.fates.planned[_FIRST[question]] = [*fates]


def _sent(emulator: Emulator) -> list[str]:
    return [
        json.loads(line)["custom_id"]
        for job in emulator.jobs
        for line in emulator.content(job["input_file_id"]).splitlines()
    ]


async def test_equal_requests_are_sent_once(run: Runner, emulator: Emulator) -> None:
    """Each row has the answer, in the order of the input, and is counted; the report says how many were sent."""
    for question in _FIRST:
        _plan(run, question, _answer(f"to {question}"))
    report = await run(source=_requests(), dedupe=True, with_text=True)
    assert _sent(emulator) == list(_FIRST.values())
    assert (report.succeeded, report.rows, report.different_requests) == (10, 10, 5)
    assert str(report) == "10 answered; 5 different requests; 2 jobs, 15 tokens"
    assert [line["custom_id"] for line in run.lines] == [f"row-{number}" for number in range(10)]
    texts = [line["body"]["choices"][0]["message"]["content"] for line in run.lines]
    assert texts == [line["text"] for line in run.lines] == [f"to {question}" for question in _QUESTIONS]
    assert {event.rows for event in run.events} == {10}
    assert run.events[0].message == "10 rows of input.jsonl (5 different) in 2 shards"


async def test_a_sample_of_rows_that_are_repeated(run: Runner) -> None:
    """The tokens that a run will need are reckoned by the rows that are sent, not by those that repeat them."""
    report = await run(source=_requests(), dedupe=True, sample=1)
    assert (report.succeeded, report.not_sent, report.rows) == (4, 6, 10)
    assert (report.different_requests, report.different_not_sent) == (5, 4)
    assert report.usage.total_tokens == 3
    assert report.expected_usage is not None
    assert report.expected_usage.total_tokens == 15
    report = await run(source=_requests(), dedupe=True)
    assert (report.succeeded, report.different_not_sent, report.expected_usage) == (10, 0, None)


async def test_without_it_each_row_is_sent(run: Runner, emulator: Emulator) -> None:
    """The default sends equal requests too: samples of one prompt are equal on purpose."""
    report = await run(source=_requests())
    assert len(_sent(emulator)) == 10
    assert report.different_requests is None


async def test_a_failure_is_that_of_all_rows(run: Runner) -> None:
    """Failed and missing rows are counted, and in the failures, with each that repeats them."""
    _plan(run, "a", Failure("no", code="400"))
    _plan(run, "b", Missing())
    report = await run(source=_requests(), dedupe=True, max_attempts=1)
    assert (report.succeeded, report.failed, report.missing) == (3, 4, 3)
    failures = [json.loads(line) for line in run.failures.read_bytes().splitlines()]
    assert [line["custom_id"] for line in failures] == [f"row-{number}" for number in (0, 1, 2, 4, 5, 7, 9)]
    assert [line for line in run.lines if line["result"] != "success"] == failures
    view = runs.read(run.directory)
    assert (view.rows, view.succeeded, view.failed, view.missing) == (10, 3, 4, 3)


async def test_rows_that_are_sent_again(run: Runner, emulator: Emulator) -> None:
    """A row that fails in a way that may pass goes again once for all that repeat it; events count all of them."""
    _plan(run, "a", Failure("later"), _answer("at last"))
    report = await run(source=_requests(), dedupe=True, retry_delays=0)
    assert report.succeeded == 10
    assert sorted(_sent(emulator)) == sorted([*_FIRST.values(), "row-0"])
    collected = [event for event in run.events if event.kind == RunEventKind.COLLECTED]
    assert (collected[0].succeeded, collected[0].not_sent + collected[0].in_flight) == (4, 6)
    assert [line["custom_id"] for line in run.lines if "at last" in json.dumps(line)] == [
        f"row-{number}" for number in (0, 2, 4, 9)
    ]


async def test_answers_that_do_not_fit_a_schema(run: Runner, emulator: Emulator) -> None:
    """They are the answers of all rows that repeat it, and are counted as often, also if they are sent again."""
    for question in _FIRST:
        _plan(run, question, _answer('{"river": "Elbe"}'))
    _plan(run, "a", _answer("no JSON"), _answer('{"river": "Elbe"}'))
    _plan(run, "b", _answer("no JSON"), _answer("no JSON"))
    report = await run(
        source=_requests(), dedupe=True, schema=_River, retry_invalid=True, max_attempts=2, retry_delays=0
    )
    assert (report.succeeded, report.invalid_answers, report.rows) == (7, 3, 10)
    assert sorted(_sent(emulator)) == sorted([*_FIRST.values(), "row-0", "row-1"])
    assert [line["custom_id"] for line in run.lines if line["result"] == "invalid"] == ["row-1", "row-5", "row-7"]


@pytest.mark.parametrize("kind", [kind for kind in RunEventKind if kind not in {"resumed", "found", "gone", "trouble",
                                                                               "stopped", "progressed"}])  # fmt: skip
async def test_stopped_anywhere_and_resumed(run: Runner, emulator: Emulator, kind: RunEventKind) -> None:
    """Whatever the event at which it was stopped, the same call goes on, and nothing is sent twice."""
    running: asyncio.Task[Any] | None = None

    def stop(event: runs.RunEvent) -> None:
        if event.kind == kind and running is not None:
            running.cancel()

    running = asyncio.ensure_future(run(source=_requests(), dedupe=True, on_event=stop))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await run(source=_requests(), dedupe=True)).ok
    assert sorted(_sent(emulator)) == sorted(_FIRST.values())
    assert [line["custom_id"] for line in run.lines] == [f"row-{number}" for number in range(10)]


async def test_an_output_that_was_removed(run: Runner, emulator: Emulator) -> None:
    """It is written again, without a new job; no temporary file is left."""
    await run(source=_requests(), dedupe=True)
    before = run.output.read_bytes()
    run.output.unlink()
    await run(source=_requests(), dedupe=True)
    assert run.output.read_bytes() == before
    assert len(emulator.jobs) == 2
    assert list((run.directory / "downloads").iterdir()) == []


async def test_what_differs_from_the_beginning(run: Runner) -> None:
    """Another choice, or a changed file of the run, is refused with advice."""
    await run(source=_requests(), dedupe=True)
    with pytest.raises(RunChangedError, match="began with dedupe=True, and this call has dedupe=False"):
        await run(source=_requests())
    for name in ("sent.jsonl", "rows.jsonl"):
        path = run.directory / name
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        with pytest.raises(RunChangedError, match=rf"{name} is not what the run in .* wrote: put the file back"):
            await run(source=_requests(), dedupe=True)
        path.unlink()
        with pytest.raises(RunChangedError, match=rf"{name} is not what the run in .* wrote: put the file back"):
            await run(source=_requests(), dedupe=True)
        path.write_bytes(content)
    assert (await run(source=_requests(), dedupe=True)).ok


async def test_lines_that_are_not_usual(run: Runner, emulator: Emulator, tmp_path: Path) -> None:
    """Bodies are compared byte by byte; a bad line is set aside, and the ids of others are copied as they are."""
    body = '{"model": "m", "messages": []}'
    lines = [
        f'{{"custom_id": "a", "body": {body}}}',
        "not JSON",
        f'{{"body": {body}, "custom_id": "\\u00e9\\"\\\\"}}',
        f'{{"custom_id": "c", "body": {body.replace(" ", "")}}}',
        "",
        f'{{"custom_id": "d", "url": "/v1/chat/completions", "body": {body}}}\r',
    ]
    source = tmp_path / "odd.jsonl"
    source.write_text("\n".join(lines), "utf-8", newline="")
    report = await run(source=source, dedupe=True, skip_invalid=True)
    assert (report.rows, report.succeeded, report.invalid, report.different_requests) == (5, 4, 1, 2)
    assert _sent(emulator) == ["a", "c"]
    assert [line["custom_id"] for line in run.lines] == ["a", 'é"\\', "c", "d"]


@given(st.lists(st.binary(max_size=2)))
def test_repeats(keys: list[bytes]) -> None:
    """Each row that repeats an earlier one comes with the first such row."""
    repeats = Repeats()
    for key in keys:
        repeats.add(key)
    expected = [(row, keys.index(key)) for row, key in enumerate(keys) if keys.index(key) != row]
    assert sorted(repeats.pairs()) == expected
    assert repeats.rows == len(keys)


_ids = st.text(min_size=1)


@given(_ids, _ids)
def test_a_line_gets_another_id(before: str, now: str) -> None:
    """Only the id changes, whatever characters it has."""
    line = line_of(BatchMissing(before)) + b"\n"
    assert json.loads(renamed_line(line, now)) == to_dict(BatchMissing(now))
