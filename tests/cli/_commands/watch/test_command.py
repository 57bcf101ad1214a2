"""The command ``watch``, and ``list --watch``."""

from __future__ import annotations

import json
import re
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from together_batches._jobs import awaited_job
from together_batches.cli._commands.watch import command, watched
from together_batches.emulator import Emulator, Fault, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.conftest import Ran

    Run = Callable[..., Ran]
    Later = list[Callable[[Emulator], object]]

SOON = ("--poll-interval", "0.01")


@pytest.fixture
def later() -> Later:
    """Return functions that are called after the first request."""
    return []


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch, later: Later) -> Iterator[Emulator]:
    """Run an emulator at which a quarter of a second passes with each request; its jobs run for a second."""
    monkeypatch.setattr(command, "_FRAME_SECONDS", 0.01)
    monkeypatch.setattr(command, "_MIN_PAUSE_PER_CPU_SECOND", 0)
    monkeypatch.setattr(awaited_job, "_SHORTEST_SECONDS", 0.02)
    began = time.time()

    def note(_: object) -> None:
        emulator.advance(0.25)
        while later:
            later.pop()(emulator)

    emulator = Emulator(timing=Timing(validating=0.25, running=1), on_request=note, clock=lambda: began)
    with emulator.running_in_thread():
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        yield emulator


def fault(**facts: Any) -> Callable[[Emulator], object]:
    return lambda emulator: emulator.fail(Fault(**facts))


def test_lines_elsewhere(run: Run, swift: Emulator) -> None:
    """Without a terminal a job is a line at first, and with each tenth of its progress; then a summary follows."""
    job_id = swift.add_job()
    ran = run("watch", job_id, *SOON)
    assert ran.code == 0
    rows = [line.split("\t") for line in ran.lines]
    assert {(row[0], len(row)) for row in rows} == {(job_id, 9)}
    assert [row[1] for row in rows][-2:] == ["IN_PROGRESS", "COMPLETED"]
    assert [row[2] for row in rows] == ["0", "25", "50", "75", "100"]
    assert ran.err.startswith("1 of 1 job finished: 1 COMPLETED; took ")


def test_ids_that_differ_in_case(run: Run, swift: Emulator) -> None:
    """Ids that differ only in letter case are different jobs."""
    ids = [swift.add_job(id=job_id) for job_id in ("job-a", "JOB-A")]
    ran = run("watch", *ids, *SOON)
    assert ran.err.startswith("2 of 2 jobs finished: 2 COMPLETED")
    assert {line.split("\t")[0] for line in ran.lines} == {*ids}


def test_filters(run: Run, swift: Emulator) -> None:
    """Without ids, all unfinished jobs are watched, or those that match, with one list for each look."""
    ended = swift.add_job(status="FAILED")
    ids = [swift.add_job(model_id=f"m/{number % 2}") for number in range(4)]
    assert {line.split("\t")[0] for line in run("watch", "--model", "m/1", *SOON).lines} == {ids[1], ids[3]}
    assert swift.count("retrieve") == 0
    more = swift.add_job()
    assert {line.split("\t")[0] for line in run("watch", *SOON).lines} == {more}
    ran = run("watch", "--status", "FAILED")
    assert (ran.code, [line.split("\t")[0] for line in ran.lines]) == (7, [ended])
    assert run("watch") == (0, "", "no job matches\n")


def test_jobs_that_come_later(run: Run, swift: Emulator, later: Later) -> None:
    """With filters, jobs that match later are watched, too, and to their ends, although they match no longer."""
    ids = [swift.add_job()]
    later.append(lambda emulator: ids.append(emulator.add_job()))
    ran = run("watch", "--status", "IN_PROGRESS", *SOON)
    assert ran.code == 0
    assert {line.split("\t")[0] for line in ran.lines if "\tCOMPLETED\t" in line} == {*ids}
    assert len(ids) == 2


def test_a_status_that_is_new_to_this_version(run: Run, emulator: Emulator) -> None:
    """Jobs of an unknown status are watched on when none has it any more; one that no job ever had is an error."""
    emulator.add_job(status="IN_PROGRESS", ends_as="IN_PROGRESS")
    assert run("watch", "--status", "open").code == 2


def test_json(run: Run, swift: Emulator) -> None:
    """--json prints each change as the job with what is known of its movement, an object a line."""
    job_id = swift.add_job()
    first, *_, last = map(json.loads, run("watch", job_id, "--json", *SOON).lines)
    assert (first["id"], first["status"], last["status"]) == (job_id, "IN_PROGRESS", "COMPLETED")
    assert first["watch"].keys() >= {"seconds_without_movement", "is_stuck"}
    assert last["watch"] == {"is_stuck": False}


def test_stuck(run: Run, swift: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that has not moved for so long is marked, and printed again when that happens."""

    def monotonic() -> float:  # 4 000 seconds pass with each look
        return time.monotonic() + 4_000 * swift.count("list")

    monkeypatch.setattr(watched, "time", SimpleNamespace(monotonic=monotonic, process_time=time.process_time))
    old = swift.add_job(status="VALIDATING", age_seconds=7_265)
    young = swift.add_job(progress=40)
    rows = [line.split("\t") for line in run("watch", *SOON, "--stuck-after", "2h").lines]
    seen = {job_id: [(row[1], row[4]) for row in rows if row[0] == job_id] for job_id in (old, young)}
    assert seen[old][:2] == [("VALIDATING", "2h1m"), ("IN_PROGRESS", "-")]
    assert seen[young] == [("IN_PROGRESS", "-"), ("IN_PROGRESS", "2h13m"), ("COMPLETED", "-")]
    old = swift.add_job(status="VALIDATING", age_seconds=7_265)
    assert {line.split("\t")[4] for line in run("watch", old, *SOON, "--stuck-after", "3h").lines} == {"-"}
    assert run("watch", "--stuck-after", "30").code == 2


def test_a_clock_that_is_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages are by the clock of the service, also if no list is read."""
    with Emulator(ends_as=None, clock=lambda: time.time() - 7_200).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        ran = run("watch", emulator.add_job(), "--stuck-after", "1h", "--timeout", "0.1")
    [(_, _, _, _, stuck, age, *_)] = (line.split("\t") for line in ran.lines)
    assert (stuck, age.endswith("s")) == ("-", True)


def test_on_a_terminal(
    run: Run, swift: Emulator, on_terminal: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal shows one table, which is drawn again; its last state stays."""
    ids = [swift.add_job() for _ in range(2)]
    on_terminal("stdout")
    monkeypatch.setenv("COLUMNS", "160")
    ran = run("watch", *ids)
    frames = re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "", ran.out)
    assert frames.count("ID  ") >= 2
    *_, first, second, summary = frames.rstrip().split("\n")
    assert {first.split()[0], second.split()[0]} == set(ids)
    assert first.split()[1:4] == ["COMPLETED", "100", "%"]
    assert summary.startswith("2 of 2 jobs finished: 2 COMPLETED; ")
    assert ran.err.startswith("2 of 2 jobs finished: 2 COMPLETED; took ")


def test_warnings_appear_above_the_table(
    run: Run, swift: Emulator, later: Later, on_terminal: Callable[..., None]
) -> None:
    """What is logged while the table is drawn appears above it."""
    swift.add_job()
    later.append(fault(on="list", status=503, times=2))
    on_terminal("stdout", "stderr")
    ran = run("watch", "--verbose")
    assert "attempt 2 failed" in ran.out
    assert "503" not in ran.err


def test_an_outage(run: Run, swift: Emulator, later: Later) -> None:
    """An outage is named once, and the watch goes on; a first look without an answer ends it."""
    job_id = swift.add_job()
    later.append(fault(on="list", status=503, times=9))
    ran = run("watch", *SOON)
    assert ran.code == 0
    assert len(re.findall("^no answer since [0-9:]+ UTC: the service answered 503", ran.err, re.MULTILINE)) == 1
    assert f"{job_id}\tCOMPLETED" in ran.out
    swift.fail(Fault(status=503, times=None))
    assert run("watch").code == 1
    assert run("watch", "nowhere").code == 1


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("chosen", [True, False])
def test_a_key_that_is_refused(run: Run, swift: Emulator, later: Later, status: int, chosen: bool) -> None:
    """A refused key ends the watch, also in the middle."""
    job_id = swift.add_job(ends_as="IN_PROGRESS")
    later.append(fault(status=status, times=None))
    assert run("watch", *([job_id] if chosen else []), *SOON).code == 3


def test_a_key_that_may_not_list(run: Run, swift: Emulator, later: Later) -> None:
    """A list that is refused, in which a job that is absent for a moment is looked for, does not end the watch."""
    job_id = swift.add_job()
    later += [fault(on="list", status=403, times=None), fault(on="retrieve", status=404, times=2)]
    assert run("watch", job_id, *SOON).code == 0
    assert swift.count("list") == 1


def test_a_list_that_lags(run: Run, swift: Emulator, later: Later, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that the list does not show for a moment are read by their ids, and only a few of them."""
    monkeypatch.setattr(watched, "_MOST_ABSENT", 2)
    for _ in range(5):
        swift.add_job()
    later.append(fault(on="list", body=b"[]"))
    ran = run("watch", *SOON)
    assert ran.code == 0
    assert ran.err.startswith("5 of 5 jobs finished: 5 COMPLETED; ")
    assert swift.count("retrieve") == 2


def test_jobs_that_cannot_be_read(run: Run, swift: Emulator, later: Later) -> None:
    """Each is named at the end, after the others; a job that was seen is looked for as long as --patience says."""
    job_id = swift.add_job()
    ran = run("watch", "nowhere", job_id, *SOON)
    assert ran.code == 5
    assert ran.err.startswith("together-batches: error: the service answered 404")
    assert "1 of 2 jobs finished: 1 COMPLETED" in ran.err
    lost = swift.add_job(ends_as="IN_PROGRESS")
    later += [fault(on="retrieve", status=404, times=3), fault(on="list", body=b"[]", times=2)]
    ran = run("watch", lost, *SOON, "--patience", "0.05")
    assert (ran.code, swift.count("list")) == (4, 2)
    assert "0.05 s" in ran.err


def test_a_job_that_only_the_list_shows(run: Run, swift: Emulator, later: Later) -> None:
    """A job that was seen exists as long as its id or the list shows it."""
    job_id = swift.add_job()
    later.append(fault(on="retrieve", status=404, times=None))
    assert run("watch", job_id, *SOON, "--patience", "0").code == 0


def test_too_long(run: Run, emulator: Emulator) -> None:
    """The time limit ends the watch, and leaves the jobs alone."""
    emulator.add_job(ends_as="IN_PROGRESS")
    ran = run("watch", "--timeout", "0.2")
    assert ran.code == 6
    again = "the jobs were left alone, and the same command watches them again"
    assert ran.err == f"together-batches: error: timed out after 0.2 s: 0 of 1 job finished; {again}\n"
    assert emulator.count("cancel") == 0


def test_interrupted(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted watch leaves the jobs alone, and says how to go on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    emulator.add_job(ends_as="IN_PROGRESS")
    monkeypatch.setattr(watched.Watched, "pause", interrupt)
    ran = run("watch")
    assert ran.code == 130
    assert ran.err.startswith("interrupted: 0 of 1 job finished; the jobs were left alone, and the same command ")


def test_ids_and_filters(run: Run, swift: Emulator, feed: Callable[..., None]) -> None:
    """Ids or filters choose the jobs; --except leaves some out of both, and - reads standard input."""
    first, second = swift.add_job(), swift.add_job()
    assert run("watch", first, "--model", "m").code == 2
    feed(f"{first}\n{second}\n".encode())
    assert {line.split("\t")[0] for line in run("watch", "-", "--except", first, *SOON).lines} == {second}
    feed(b"")
    assert run("watch", "-") == (0, "", "no ids are left; there is nothing to watch\n")
    ran = run("watch", "--model", "nothing")
    assert ran.code == 4
    assert "no job has the model 'nothing'" in ran.err


def test_nothing_to_watch_on_a_terminal(run: Run, swift: Emulator, on_terminal: Callable[..., None]) -> None:
    """If no job matches, no empty table is drawn."""
    on_terminal("stdout")
    assert run("watch") == (0, "", "no job matches\n")


def test_list_watch(run: Run, swift: Emulator) -> None:
    """`list --watch` is `watch` with the filters of list, and takes no view of its own."""
    job_id = swift.add_job()
    ran = run("list", "--watch", "--status", "IN_PROGRESS")
    assert (ran.code, ran.lines[-1].split("\t")[:2]) == (0, [job_id, "COMPLETED"])
    assert run("list", "--watch", "--columns", "id").code == 2


def test_how_often(monkeypatch: pytest.MonkeyPatch, run: Run, swift: Emulator) -> None:
    """Without an interval, young jobs are looked at soon, but never so often that it costs much CPU time."""
    swift.add_job()
    assert run("watch").code == 0
    assert swift.count("list") >= 2
    monkeypatch.setattr(command, "_MIN_PAUSE_PER_CPU_SECOND", 1e6)
    swift.add_job()
    before = swift.count("list")
    assert run("watch", "--timeout", "0.6").code == 6
    assert swift.count("list") == before + 2


def test_labels(run: Run, swift: Emulator) -> None:
    """Labels are a filter and the last column, if a job has one."""
    first, second = swift.add_job(), swift.add_job(ends_as="IN_PROGRESS")
    run("label", first, "--label", "nightly")
    ran = run("watch", "--label", "nightly", *SOON)
    assert {(line.split("\t")[0], line.split("\t")[-1]) for line in ran.lines} == {(first, "nightly")}
    assert json.loads(run("watch", first, "--json").lines[-1])["labels"] == ["nightly"]
    ran = run("watch", second, *SOON, "--timeout", "0.1")
    assert {len(line.split("\t")) for line in ran.lines} == {9}
