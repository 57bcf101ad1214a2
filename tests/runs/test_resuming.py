"""Resuming: jobs that the service shows and the ledger does not know, and whose account it is."""

from __future__ import annotations

import asyncio
import logging
import shutil
from typing import TYPE_CHECKING

import pytest

from together_batches import RunError, runs
from together_batches.emulator import Failure, Fault, Timing
from together_batches.runs import RunEvent, RunEventKind

from .stage import ROWS, Runner

if TYPE_CHECKING:
    from pathlib import Path

    from wires import VirtualTime

    from together_batches import AsyncBatches
    from together_batches.emulator import Emulator


async def _stopped(run: Runner, kind: RunEventKind, times: int = 1, **options: object) -> None:
    """Cancel the run at the given occurrence of an event."""
    reached = asyncio.Event()
    left = times

    def on_event(event: RunEvent) -> None:
        nonlocal left
        left -= event.kind == kind
        if not left:
            reached.set()

    running = asyncio.create_task(run(on_event=on_event, max_jobs=100, **options))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_ledger_that_is_older(run: Runner, emulator: Emulator, tmp_path: Path) -> None:
    """If the ledger is older than the created jobs, each is found by its file, and none is created again."""
    ledger = run.directory / "ledger.sqlite"
    emulator.timing = Timing(validating=0, running=1_000)
    await _stopped(run, RunEventKind.CREATED)
    shutil.copy(ledger, tmp_path / "older")
    await _stopped(run, RunEventKind.CREATED, times=3)
    assert len(emulator.jobs) == 4
    shutil.copy(tmp_path / "older", ledger)
    report = await run(max_jobs=100, poll_interval=100)
    assert (report.ok, len(emulator.jobs)) == (True, 4)
    assert run.kinds.count(RunEventKind.FOUND) == 3


async def test_a_ledger_without_any_attempt(run: Runner, emulator: Emulator, tmp_path: Path) -> None:
    """An upload that the service knows means that a create may have followed: its job is looked for."""
    ledger = run.directory / "ledger.sqlite"
    await _stopped(run, RunEventKind.BEGUN)
    shutil.copy(ledger, tmp_path / "older")
    await _stopped(run, RunEventKind.CREATED)
    shutil.copy(tmp_path / "older", ledger)
    report = await run()
    assert (report.ok, len(emulator.jobs)) == (True, 4)
    assert RunEventKind.FOUND in run.kinds


async def test_a_healthy_resumed_run_lists_once(run: Runner, emulator: Emulator) -> None:
    """Resuming a healthy run costs one request for a list."""
    await _stopped(run, RunEventKind.CREATED)
    before = emulator.count("list")
    report = await run()
    assert (report.ok, len(emulator.jobs)) == (True, 4)
    assert emulator.count("list") == before + 1


async def test_a_list_that_is_refused(run: Runner, emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """If the key may not list, the run continues with what the ledger knows, and logs a warning."""
    await _stopped(run, RunEventKind.CREATED)
    emulator.fail(Fault(on="list", status=403, body={"error": "forbidden"}, times=100))
    with caplog.at_level(logging.WARNING):
        report = await run()
    assert (report.ok, len(emulator.jobs)) == (True, 4)
    assert "the list of jobs is refused" in caplog.text


async def test_an_account_that_shows_nothing(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """An account that shows nothing in two reads ten seconds apart is another account: no job is created in it."""
    await _stopped(run, RunEventKind.CREATED)
    gone = {"error": "not found"}
    for step in ("retrieve", "file"):
        emulator.fail(Fault(on=step, status=404, body=gone, times=100))
    emulator.fail(Fault(on="list", status=200, body=[], times=100))
    began = time.seconds
    with pytest.raises(RunError, match="seems to be the key, or the base URL, of another account"):
        await run()
    assert time.seconds - began == pytest.approx(10, abs=1)
    emulator.clear_faults()
    assert (await run()).ok


async def test_an_account_that_shows_nothing_for_a_moment(run: Runner, emulator: Emulator) -> None:
    """An account that shows nothing for a moment is read twice."""
    await _stopped(run, RunEventKind.CREATED)
    gone = {"error": "not found"}
    for step in ("retrieve", "file"):
        emulator.fail(Fault(on=step, status=404, body=gone))
    emulator.fail(Fault(on="list", status=200, body=[], times=2))
    assert (await run()).ok
    assert len(emulator.jobs) == 4


async def test_two_runs_of_one_input(run: Runner, batches: AsyncBatches, emulator: Emulator, tmp_path: Path) -> None:
    """Two runs of one input never adopt each other's jobs, although their rows are the same."""
    assert (await run()).ok
    second = Runner(batches, run.source, tmp_path / "second.jsonl", run.fates)
    emulator.fail(Fault(on="create", lose="request"))  # dies between the intent and the create
    await _stopped(second, RunEventKind.UPLOADED)
    assert str(await batches.cancel_run(second.directory)) == "no jobs"
    report = await second()
    assert (report.ok, len(emulator.jobs)) == (True, 8)
    jobs = [
        {attempt.job_id for shard in runs.read(each.directory).shards for attempt in shard.attempts}
        for each in (run, second)
    ]
    assert jobs[0].isdisjoint(jobs[1])
    assert len(jobs[0] | jobs[1]) == 8


async def test_a_run_of_an_input_that_had_jobs_before(
    run: Runner, batches: AsyncBatches, emulator: Emulator, tmp_path: Path
) -> None:
    """Without files of its own, a run that goes on does not adopt jobs that other runs made before it began."""
    assert (await run(unique_files=False)).ok
    second = Runner(batches, run.source, tmp_path / "second.jsonl", run.fates)
    await _stopped(second, RunEventKind.BEGUN, unique_files=False)
    report = await second(unique_files=False)
    assert (report.ok, len(emulator.jobs)) == (True, 8)
    assert RunEventKind.FOUND not in second.kinds


async def test_the_first_job_stays_alone(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """A run that goes on creates no further job while the first one has not shown that the input is valid."""
    emulator.timing = Timing(validating=300, running=300)
    await _stopped(run, RunEventKind.CREATED)
    created: list[float] = []

    def on_event(event: RunEvent) -> None:
        if event.kind == RunEventKind.CREATED:
            created.append(time.seconds)

    assert (await run(max_jobs=100, poll_interval=50, on_event=on_event)).ok
    assert len(created) == 3
    assert min(created) >= 300


async def test_an_upload_that_is_repeated(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """No job is looked for because of an upload that is known, if the ledger says that no create was sent for it."""
    run.fates.planned = {"row-5": [Failure()]}
    await _stopped(run, RunEventKind.UPLOADED, times=2, max_rows_per_job=50)
    (job,) = emulator.jobs
    # The results of the first attempt are read again, so that the second one is uploaded again.
    emulator.fail(Fault(on="file", status=200, body={"id": job["output_file_id"], "bytes": 5}))
    began = time.seconds
    report = await run()
    assert (report.ok, len(emulator.jobs), emulator.count("store")) == (True, 2, 2)
    assert time.seconds - began < 60


async def test_without_files_of_their_own(run: Runner, emulator: Emulator) -> None:
    """Without files of their own, uploads equal the input byte for byte."""
    report = await run(unique_files=False, max_rows_per_job=50)
    (job,) = emulator.jobs
    assert report.rows == ROWS
    assert emulator.content(str(job["input_file_id"])) == run.source.read_bytes()


async def test_files_of_their_own(run: Runner, emulator: Emulator) -> None:
    """Own files have 64 spaces and tabs in the first object and are equal otherwise; the tag is in the name."""
    await run(max_rows_per_job=50)
    (job,) = emulator.jobs
    content = emulator.content(str(job["input_file_id"]))
    mark = content[1:65]
    assert content[:1] + content[65:] == run.source.read_bytes()
    assert set(mark) == {ord(" "), ord("\t")}
    bits = mark.replace(b" ", b"0").replace(b"\t", b"1")
    tag = f"{int(bits, 2):016x}"
    (name,) = [file["filename"] for file in emulator.files if file["id"] == job["input_file_id"]]
    assert name == f"in-00001-1-{tag}.jsonl"
