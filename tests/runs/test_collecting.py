"""Rows go again only on evidence; absent, short or foreign results are read again. In virtual time."""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING

import pytest

from together_batches import ResultsUnavailableError, RunError
from together_batches.emulator import Failure, Fault, Missing, Timing
from together_batches.emulator._files import StoredFile
from together_batches.runs import RunEvent, RunEventKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wires import VirtualTime

    from together_batches import BatchJob
    from together_batches.emulator import Emulator

    from .stage import Runner

FOR_EVER = math.inf
ONE_JOB = {"max_rows_per_job": 50}


def _at(kind: RunEventKind, act: Callable[[], object], times: int = 1) -> Callable[[RunEvent], None]:
    """Call ``act`` at the first ``times`` occurrences of an event."""
    left = times

    def on_event(event: RunEvent) -> None:
        nonlocal left
        if event.kind == kind and left:
            left -= 1
            act()

    return on_event


class Hidden:
    """File ids that are not shown yet."""

    def __init__(self, emulator: Emulator, time: VirtualTime, **seconds: float) -> None:
        self.emulator = emulator
        self.time = time
        self.seconds = seconds
        self.tasks: list[asyncio.Task[None]] = []

    def __call__(self) -> None:
        self._hide(set(self.seconds))
        for seconds in self.seconds.values():
            if seconds != FOR_EVER:
                self.tasks.append(asyncio.create_task(self._show(seconds)))

    async def _show(self, seconds: float) -> None:
        await self.time.sleep(seconds)
        self._hide({name for name, left in self.seconds.items() if left > seconds})

    def _hide(self, names: set[str]) -> None:
        self.emulator.change_job(str(self.emulator.jobs[0]["id"]), **dict.fromkeys(names))


# --- file ids ---


async def test_file_ids_that_come_late(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """The run waits for file ids that come late; nothing is sent again."""
    hide = Hidden(emulator, time, output_file_id=200)
    report = await run(**ONE_JOB, on_event=_at(RunEventKind.CREATED, hide))
    assert (report.ok, len(emulator.jobs)) == (True, 1)
    assert 200 <= time.seconds < 260


async def test_one_file_id_that_comes_after_the_other(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """Rows in neither file are not evidence while one file id is missing: two reads a minute apart must agree."""
    run.fates.planned = {"row-1": [Failure("four stops at most", "invalid_request_error")]}
    hide = Hidden(emulator, time, output_file_id=40)
    report = await run(**ONE_JOB, on_event=_at(RunEventKind.CREATED, hide))
    assert (report.succeeded, report.failed, len(emulator.jobs)) == (9, 1, 1)


async def test_file_ids_that_never_come(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """File ids that never come end in an error after patience: rows that may have been paid for do not go again."""
    hide = Hidden(emulator, time, output_file_id=FOR_EVER)
    with pytest.raises(ResultsUnavailableError, match="is COMPLETED and names no file of results") as caught:
        await run(**ONE_JOB, patience=300, on_event=_at(RunEventKind.CREATED, hide))
    assert (caught.value.job_id, caught.value.file_ids) == (emulator.jobs[0]["id"], ())
    assert 300 <= time.seconds < 310
    assert len(emulator.jobs) == 1
    report = await run(give_up=[str(caught.value.job_id)])
    assert (report.ok, len(emulator.jobs)) == (True, 2)


# --- odd rows ---

ODD = {
    1: b'{"x": 12345678901234567890123456789012345678901, "y": -0.0, "z": 1E400}',
    2: b'{"x": "\\ud83d", "x": "\xe2\x80\xa8", "usage": {"total_tokens": 3}}',
    3: b'{"x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    4: b'{"x": NaN}',
    5: b'{"x": "caf\xe9"}',
    6: b'{"x": }',
    7: b'"text"',
}


async def test_odd_rows_are_kept_and_do_not_go_again(run: Runner, emulator: Emulator) -> None:
    """Valid JSON is in the output byte for byte, the rest in ``raw``; the other rows have their answers."""

    def odd() -> None:
        rows = [
            b'{"custom_id":"row-%d","response":{"status_code":200,"body":%b}}' % (number, ODD.get(number, b"{}"))
            for number in range(10)
        ]
        content = b"\n".join(reversed(rows)) + b"\n"
        emulator.fail(Fault(on="content", status=200, body=content, times=10))

    report = await run(**ONE_JOB, on_event=_at(RunEventKind.ENDED, odd))
    assert (report.succeeded, report.failed, len(emulator.jobs)) == (8, 2, 1)
    lines = run.output.read_bytes().splitlines()
    for number in (0, 1, 2, 3, 8, 9):
        body = ODD.get(number, b"{}")
        assert lines[number] == b'{"custom_id":"row-%d","result":"success","body":%b,"status_code":200}' % (
            number,
            body,
        )
    for number in (4, 5, 6, 7):
        decoded = json.loads(lines[number])
        assert decoded["raw"].encode().endswith(ODD[number].replace(b"\xe9", b"\\xe9") + b"}}")


# --- files that are cut ---


def _cut(emulator: Emulator, count: int, *, times: int = 1) -> Callable[[], None]:
    """Serve only the first bytes of the output, as if they were all."""

    def cut() -> None:
        content = emulator.content(str(emulator.jobs[0]["output_file_id"]))
        length = count if count >= 0 else content.index(b"\n", len(content) // 2) + 1
        emulator.fail(Fault(on="content", status=200, body=content[:length], times=times))

    return cut


@pytest.mark.parametrize("count", [-1, 100], ids=["at the end of a line", "within a line"])
async def test_a_download_that_was_cut(run: Runner, emulator: Emulator, count: int) -> None:
    """A download that is shorter than its metadata says is repeated."""
    report = await run(**ONE_JOB, on_event=_at(RunEventKind.ENDED, _cut(emulator, count)))
    assert (report.ok, len(emulator.jobs)) == (True, 1)


async def test_a_download_that_is_cut_for_good(run: Runner, emulator: Emulator) -> None:
    """A download that is always cut ends in an error that names the file; giving it up keeps the readable rows."""
    cut = _at(RunEventKind.ENDED, _cut(emulator, -1, times=10_000))
    with pytest.raises(ResultsUnavailableError, match="bytes, and its metadata says") as caught:
        await run(**ONE_JOB, patience=60, on_event=cut)
    assert caught.value.file_ids == (emulator.jobs[0]["output_file_id"],)
    report = await run(give_up=[str(emulator.jobs[0]["id"])], stop_after_rows=10)
    assert 0 < report.succeeded < 10
    assert report.succeeded + report.not_sent == 10
    emulator.clear_faults()
    assert (await run()).ok
    sent = [emulator.content(str(job["input_file_id"])).count(b"\n") for job in emulator.jobs]
    assert sent == [10, report.not_sent]


async def test_results_that_grow(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """The run waits beyond patience for results that grow; patience counts from the last growth."""

    def grow() -> None:
        content = emulator.content(str(emulator.jobs[0]["output_file_id"]))
        for length in range(100, len(content), 100):
            emulator.fail(Fault(on="content", status=200, body=content[:length], times=2))

    report = await run(**ONE_JOB, patience=5, on_event=_at(RunEventKind.ENDED, grow))
    assert (report.ok, len(emulator.jobs)) == (True, 1)
    assert time.seconds > 10


# --- rows that are omitted ---


async def test_rows_that_are_left_out(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """Omitted rows go again after two equal reads of the job and its file, a minute apart, and one right before."""
    run.fates.planned = {"row-5": [Missing()]}
    created: list[float] = []
    report = await run(**ONE_JOB, on_event=_at(RunEventKind.CREATED, lambda: created.append(time.seconds), times=2))
    assert (report.ok, len(emulator.jobs)) == (True, 2)
    assert created[1] >= 60
    assert emulator.count("content") == 2


@pytest.mark.parametrize("size", [None, 0, 1, 10**9], ids=repr)
async def test_metadata_that_is_no_proof(run: Runner, emulator: Emulator, size: int | None) -> None:
    """Without a matching size in the metadata, omitted rows may still come, and do not go again."""
    run.fates.planned = {"row-5": [Missing()]}

    def spoil() -> None:
        file_id = str(emulator.jobs[0]["output_file_id"])
        body = {"id": file_id} if size is None else {"id": file_id, "bytes": size}
        emulator.fail(Fault(on="file", status=200, body=body, times=10_000))

    with pytest.raises(ResultsUnavailableError, match="its metadata says"):
        await run(**ONE_JOB, patience=90, on_event=_at(RunEventKind.ENDED, spoil))
    assert len(emulator.jobs) == 1
    emulator.clear_faults()
    assert (await run()).ok
    assert len(emulator.jobs) == 2


async def test_what_is_given_up_stays_given_up(
    run: Runner, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata that stays wrong does not undo a give-up: the omitted rows go again."""
    run.fates.planned = {"row-5": [Missing()]}
    describe = StoredFile.to_json
    results: list[object] = []

    def described(file: StoredFile) -> dict[str, object]:
        return describe(file) | ({"bytes": 10**9} if file.id in results else {})

    monkeypatch.setattr(StoredFile, "to_json", described)
    spoil = _at(RunEventKind.ENDED, lambda: results.append(emulator.jobs[0]["output_file_id"]))
    with pytest.raises(ResultsUnavailableError, match="its metadata says"):
        await run(**ONE_JOB, patience=90, on_event=spoil)
    report = await run(give_up=[str(emulator.jobs[0]["id"])])
    assert (report.ok, len(emulator.jobs)) == (True, 2)


@pytest.mark.parametrize("size", [None, 0, 1], ids=repr)
async def test_sizes_that_are_wrong_for_good(
    run: Runner, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    """If sizes stay wrong, whole results are read once more before rows go again, but not in every call."""
    run.fates.planned = {"row-5": [Failure("Credit limit exceeded", "402")]}
    describe = StoredFile.to_json

    def described(file: StoredFile) -> dict[str, object]:
        return describe(file) | ({"bytes": size} if file.purpose == "batch-generated" else {})

    monkeypatch.setattr(StoredFile, "to_json", described)
    assert not (await run(**ONE_JOB)).complete
    assert not (await run(**ONE_JOB)).complete  # read once more
    report = await run(**ONE_JOB)
    assert (report.ok, len(emulator.jobs)) == (True, 2)


async def test_whole_results_need_no_proof(run: Runner, emulator: Emulator) -> None:
    """No metadata is read of a result that accounts for every row."""
    run.fates.planned = {"row-5": [Failure("four stops at most", "invalid_request_error")]}
    report = await run(**ONE_JOB)
    assert (report.succeeded, report.failed) == (9, 1)
    assert emulator.count("file") == 1  # of the input, before the create


async def test_without_patience_there_is_one_look(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """Without patience absent results are an error at once, and omitted rows go again at once."""
    run.fates.planned = {"row-5": [Missing()]}
    assert (await run(**ONE_JOB, patience=0, retry_delays=0)).ok
    assert time.seconds < 10
    assert len(emulator.jobs) == 2


# --- jobs that end without results ---


@pytest.mark.parametrize(("percent", "wait"), [(0, 30), (40, 900)])
async def test_a_job_that_ends_without_files(
    run: Runner, emulator: Emulator, time: VirtualTime, percent: float, wait: float
) -> None:
    """A job that ends without files is evidence after a second, equal read; after patience if rows were done."""
    emulator.ends_as = "FAILED"

    def become_well() -> None:
        emulator.ends_as = None
        job_id = str(emulator.jobs[0]["id"])
        emulator.change_job(job_id, progress=percent, output_file_id=None, error="internal error")

    created: list[float] = []
    watch = _at(RunEventKind.CREATED, lambda: created.append(time.seconds), times=2)
    begun = _at(RunEventKind.CREATED, become_well)

    def on_event(event: RunEvent) -> None:
        watch(event)
        begun(event)

    assert (await run(**ONE_JOB, on_event=on_event)).ok
    assert wait <= created[1] < wait + 60


@pytest.mark.parametrize("seconds", [10, 100])
async def test_a_job_that_has_not_failed_after_all(
    run: Runner, emulator: Emulator, time: VirtualTime, seconds: float
) -> None:
    """A job that has not failed after all is followed if it still runs, else collected; nothing is sent again."""
    emulator.timing = Timing(validating=0, running=seconds)

    def seem_to_fail() -> None:
        failed = {**emulator.jobs[0], "status": "FAILED", "error": "internal error", "progress": 0}
        emulator.fail(Fault(on="retrieve", status=200, body=failed))

    report = await run(**ONE_JOB, poll_interval=5, on_event=_at(RunEventKind.CREATED, seem_to_fail))
    assert (report.ok, len(emulator.jobs)) == (True, 1)
    assert time.seconds >= seconds


async def test_a_job_that_runs_after_all_counts_as_in_flight(
    run: Runner, emulator: Emulator, time: VirtualTime
) -> None:
    """Once a job that seemed to have failed is seen running, no job is created beyond the limits beside it."""
    emulator.timing = Timing(validating=0, running=100)
    created: list[float] = []

    def on_event(event: RunEvent) -> None:
        if event.kind == RunEventKind.CREATED:
            created.append(time.seconds)
            if len(created) == 1:
                emulator.timing = Timing(validating=0, running=10)
                failed = {**emulator.jobs[0], "status": "FAILED", "error": "internal error", "progress": 0}
                emulator.fail(Fault(on="retrieve", status=200, body=failed))

    report = await run(max_rows_per_job=1, max_enqueued_rows=1, max_jobs=9, poll_interval=1, on_event=on_event)
    assert (report.ok, len(emulator.jobs)) == (True, 10)
    assert [moment for moment in created if 40 < moment < 90] == []


_GHOST = "5b0c2d6e-8f14-4a7b-9c33-0e5d7a61f2b8"


@pytest.mark.parametrize("unique_files", [True, False])
async def test_a_create_that_is_answered_with_a_job_that_never_exists(
    run: Runner, emulator: Emulator, unique_files: bool
) -> None:
    """A job that never exists is looked for throughout patience, then named; no other is created before a give-up."""
    answered = {"job": {"id": _GHOST, "status": "VALIDATING"}}
    emulator.fail(Fault(on="create", status=201, body=answered))
    with pytest.raises(ResultsUnavailableError, match="was never seen since its create was answered") as caught:
        await run(**ONE_JOB, patience=100, unique_files=unique_files)
    assert caught.value.job_id == _GHOST
    assert emulator.jobs == []
    with pytest.raises(ResultsUnavailableError, match=_GHOST):
        await run(**ONE_JOB, patience=100, unique_files=unique_files)
    assert emulator.jobs == []
    report = await run(**ONE_JOB, patience=100, unique_files=unique_files, give_up=[_GHOST])
    assert (report.ok, len(emulator.jobs)) == (True, 1)


async def test_a_create_that_is_answered_with_the_id_of_another_job_than_it_made(
    run: Runner, emulator: Emulator, time: VirtualTime
) -> None:
    """The job of the attempt's own file is the job, whatever id the response contained."""
    answered = {"job": {"id": _GHOST, "status": "VALIDATING"}}
    emulator.fail(Fault(on="create", status=201, acts=True, body=answered))
    report = await run(**ONE_JOB, patience=100)
    assert (report.ok, len(emulator.jobs)) == (True, 1)
    assert report.job_ids == (emulator.jobs[0]["id"],)
    assert 100 <= time.seconds < 120


class Flapping:
    """A status that the service shows of the first job for so many seconds, while the job continues."""

    def __init__(self, emulator: Emulator, time: VirtualTime, status: str, seconds: float) -> None:
        self.emulator, self.time, self.status, self.seconds = emulator, time, status, seconds
        self.created: list[float] = []
        self.over_at = math.inf
        self.task: asyncio.Task[None] | None = None

    def __call__(self, event: RunEvent) -> None:
        if event.kind == RunEventKind.CREATED:
            self.created.append(self.time.seconds)
        if event.kind == RunEventKind.PROGRESSED and self.task is None:
            self.task = asyncio.create_task(self._flap())

    async def _flap(self) -> None:
        job_id = str(self.emulator.jobs[0]["id"])
        self.emulator.change_job(job_id, status=self.status, output_file_id=None, error_file_id=None)
        if self.seconds == FOR_EVER:
            return
        await self.time.sleep(self.seconds)
        self.emulator.change_job(job_id)
        self.over_at = self.time.seconds


@pytest.mark.parametrize(
    ("status", "seconds"), [("CANCELLED", 3), ("CANCELLED", 20), ("FAILED", 9), ("EXPIRED", 9), ("COMPLETED", 9)]
)
async def test_an_end_that_is_shown_for_a_moment(
    run: Runner, emulator: Emulator, time: VirtualTime, status: str, seconds: float
) -> None:
    """A passing final status stops nothing and sends nothing before a second read; then the job is followed."""
    emulator.timing = Timing(validating=0, running=60)
    flapping = Flapping(emulator, time, status, seconds)
    report = await run(poll_interval=2, max_rows_per_job=5, on_event=flapping)
    assert (report.ok, report.stopped, len(emulator.jobs)) == (True, None, 2)
    assert flapping.over_at < 30
    assert time.seconds >= 60


async def test_nothing_is_created_while_a_job_seems_to_have_been_cancelled(
    run: Runner, emulator: Emulator, time: VirtualTime
) -> None:
    """No job is created while one seems cancelled, perhaps on purpose; one that stays so stops the run in 30 s."""
    emulator.timing = Timing(validating=0, running=5)
    flapping = Flapping(emulator, time, "CANCELLED", FOR_EVER)
    report = await run(poll_interval=1, max_jobs=2, on_event=flapping)
    assert (report.complete, report.stopped) == (False, f"job {report.job_ids[0]} was cancelled")
    assert len(emulator.jobs) == len(flapping.created) == 2
    assert 30 <= time.seconds < 40


async def test_nothing_is_created_while_a_job_is_cancelled(run: Runner, emulator: Emulator) -> None:
    """No job is created between the cancel of a job and its end, which stops the run."""
    emulator.timing = Timing(validating=0, running=20, canceling=60)
    cancelling: list[asyncio.Task[BatchJob]] = []

    def on_event(event: RunEvent) -> None:
        if event.kind == RunEventKind.PROGRESSED and not cancelling:
            cancelling.append(asyncio.create_task(run.batches.cancel(str(event.job_id))))

    report = await run(poll_interval=1, max_jobs=2, on_event=on_event)
    assert (await cancelling[0]).status == "CANCELING"
    assert (report.complete, report.stopped) == (False, f"job {report.job_ids[0]} was cancelled")
    assert len(emulator.jobs) == 2


async def test_a_cancel_that_seems_to_be_under_way(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """Jobs are created again once a job that read CANCELING reads otherwise."""
    emulator.timing = Timing(validating=0, running=60)
    flapping = Flapping(emulator, time, "CANCELING", 20)

    def on_event(event: RunEvent) -> None:
        flapping(event)
        emulator.timing = Timing(validating=0, running=5)

    report = await run(poll_interval=1, max_jobs=2, on_event=on_event)
    assert (report.ok, report.stopped, len(emulator.jobs)) == (True, None, 4)
    assert [moment for moment in flapping.created[2:] if moment < flapping.over_at] == []
    assert flapping.created[2] < flapping.over_at + 5


# --- once more before rows go again ---


async def test_an_answer_that_comes_after_an_error(run: Runner, emulator: Emulator) -> None:
    """Before rows go again their job and its files are read once more, and collected again if they differ."""
    run.fates.planned = {"row-5": [Failure()]}

    def answer_after_all() -> None:
        (job,) = emulator.jobs
        output = emulator.content(str(job["output_file_id"]))
        errors = emulator.content(str(job["error_file_id"]))
        late = {"custom_id": "row-5", "response": {"status_code": 200, "body": {"choices": []}}}
        changed = {"id": job["output_file_id"], "bytes": len(output) + 100}
        emulator.fail(Fault(on="file", status=200, body=changed))
        emulator.fail(Fault(on="content", status=200, body=output + json.dumps(late).encode() + b"\n"))
        emulator.fail(Fault(on="content", status=200, body=errors))

    report = await run(**ONE_JOB, on_event=_at(RunEventKind.COLLECTED, answer_after_all))
    assert (report.ok, len(emulator.jobs)) == (True, 1)


async def test_error_rows_of_a_job_that_is_gone(run: Runner, emulator: Emulator) -> None:
    """Error rows that were read go again even if their job no longer exists."""
    run.fates.planned = {"row-5": [Failure()]}

    def forget() -> None:
        emulator.delete_job(str(emulator.jobs[0]["id"]))

    report = await run(**ONE_JOB, on_event=_at(RunEventKind.COLLECTED, forget))
    assert (report.ok, emulator.count("create")) == (True, 2)


# --- pieces that were edited ---


async def _edited(run: Runner, content: bytes) -> tuple[Path, bytes]:
    """Stop a run by editing the piece of its first job; return the piece and its former content."""
    piece = run.directory / "pieces" / "00001-1.jsonl"
    before = b""

    def edit() -> None:
        nonlocal before
        before = piece.read_bytes()
        piece.write_bytes(content)

    with pytest.raises(RunError, match=r"00001-1\.jsonl is not as this run wrote it.*put it back .*, or remove it"):
        await run(**ONE_JOB, on_event=_at(RunEventKind.COLLECTED, edit))
    return piece, before


EDITED = {"longer": b"{}\n" * 11, "of as many lines": b"{}\n" * 10, "cut": b'{"custom_id": "row-0"', "empty": b""}


@pytest.mark.parametrize("content", EDITED.values(), ids=EDITED)
async def test_an_edited_piece(run: Runner, emulator: Emulator, content: bytes) -> None:
    """An edited piece is an error that names the file; once it is restored, the run ends without a new job."""
    piece, before = await _edited(run, content)
    assert not run.output.exists()
    piece.write_bytes(before)
    report = await run()
    assert (report.ok, len(emulator.jobs)) == (True, 1)


async def test_an_edited_piece_that_is_removed(run: Runner, emulator: Emulator) -> None:
    """A removed piece is made again from the files of the job, and its hash recorded again."""
    piece, before = await _edited(run, b"{}\n")
    piece.unlink()
    report = await run()
    assert (report.ok, len(emulator.jobs)) == (True, 1)
    assert len(before.splitlines()) == len(run.lines)
    run.output.unlink()
    assert (await run()).ok
