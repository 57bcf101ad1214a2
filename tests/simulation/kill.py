"""Real kills: ``kill -9`` of the command at random moments, against an emulator that keeps running.

The process is started again after each kill, and finally runs to completion. Its output must equal that of a run
without kills, and the service must have one job for each attempt at each shard.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import attrs
import msgspec

from together_batches import runs
from together_batches.cli._terminal.exits import Exit
from together_batches.emulator import Answer, Emulator, Failure, Fault, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
_KEY = "key-of-the-kills"
_MOVING = ("begin_upload", "store", "preprocess", "create", "content")
"""Calls by which a run advances. Moments are chosen by their count, because a slow machine makes as many."""
_PATIENCE = 600.0
_LOOK_SECONDS = 0.002


@attrs.frozen
class Killing:
    """The result of a run with kills."""

    rows: int
    kills: int
    starts: int
    jobs: int
    seconds_without: float
    seconds_with: float
    last_calls: Counter[str]
    """Number of kills by the last call that the service received before them."""


def killed(
    directory: Path, *, rows: int, kills: int, rows_per_job: int, seed: int, say: Callable[[str], None]
) -> Killing:
    """Run with kills; raise :class:`AssertionError` if a check fails."""
    random = Random(f"kill {seed}")
    source = directory / "input.jsonl"
    with source.open("wb") as file:
        file.writelines(_lines(rows))

    with _emulator(seed).running_in_thread() as emulator:
        began = time.monotonic()
        _to_the_end(emulator, source, directory / "without" / "answers.jsonl", rows_per_job)
        seconds_without = time.monotonic() - began
        moves, jobs_without = _moves(emulator), len(emulator.jobs)
        _judge(emulator, directory / "without", rows)
    say(f"without a kill: {rows} rows, {jobs_without} jobs, {moves} calls, {seconds_without:.1f} s")

    done = 0
    last_calls: Counter[str] = Counter()
    with _emulator(seed).running_in_thread() as emulator:
        began = time.monotonic()
        output = directory / "with" / "answers.jsonl"
        while done < kills:
            # Spread over the run, by the length of one without kills; some come before a start has made its first
            # call: it reads its input and its ledger, and joins its results.
            made = _moves(emulator)
            latest = max(made, moves * (done + 1) / (kills + 1))
            goal = made if random.random() < 0.3 else random.uniform(made, latest)
            pause = random.uniform(0, 0.4)
            ended = _one_kill(emulator, source, output, rows_per_job, goal, pause)
            assert ended is None, f"it came to its end after {done} kills of {kills}: {ended}"
            done += 1
            last_calls[_last(emulator)] += 1
            say(f"killed {done} of {kills}, after {_moves(emulator)} calls of about {moves}")
        _to_the_end(emulator, source, output, rows_per_job)
        seconds_with = time.monotonic() - began
        jobs = _judge(emulator, directory / "with", rows)

    for name in ("answers.jsonl", "answers.failures.jsonl"):
        one, other = (_without_numbers(directory / part / name) for part in ("without", "with"))
        assert one == other, f"{name} is not what it is without a kill"
    assert jobs == jobs_without
    return Killing(rows, kills, done + 1, jobs, seconds_without, seconds_with, last_calls)


def _emulator(seed: int) -> Emulator:
    return Emulator(
        api_key=_KEY,
        seed=seed,
        timing=Timing(validating=0.1, running=0.3),
        answer=_answer,
        # A slow create is more often killed between its effect and its response.
        faults=[Fault(on="create", delay=0.05, times=None)],
    )


def _answer(row: Mapping[str, object]) -> Answer | Failure:
    """Decide by the row alone: one in a hundred fails, and is sent again in a second job.

    It is not lost, because a job with only lost rows has no results, and is then read again for a long time.
    """
    name = str(row["custom_id"])
    if _fails(name):
        return Failure()
    return Answer(body={"choices": [{"message": {"role": "assistant", "content": f"{name} it is."}}]})


def _fails(name: str) -> bool:
    return name.endswith("17")


def _lines(rows: int) -> Iterator[bytes]:
    for number in range(rows):
        content = f"Say this number, and say nothing else beside it, whatever you may think of it: {number}"
        body = {"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": content}]}
        yield msgspec.json.encode({"custom_id": f"row-{number}", "body": body}) + b"\n"


def _begin(emulator: Emulator, source: Path, output: Path, rows_per_job: int) -> subprocess.Popen[str]:
    output.parent.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(ROOT), "TOGETHER_API_KEY": _KEY, "TOGETHER_BASE_URL": emulator.base_url}
    command = [sys.executable, "-m", "together_batches", "run", str(source), "-o", str(output)]
    limits = ["--max-rows-per-job", str(rows_per_job), "--max-attempts", "2", "--poll-interval", "0.1"]
    limits += ["--patience", "5", "--retry-delays", "0"]  # for a service that hides nothing for longer
    return subprocess.Popen(
        [*command, *limits], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _to_the_end(emulator: Emulator, source: Path, output: Path, rows_per_job: int) -> None:
    with _begin(emulator, source, output, rows_per_job) as process:
        try:
            said, _ = process.communicate(timeout=_PATIENCE)
        finally:
            process.kill()
    assert process.returncode == Exit.SOME_FAILED, said


def _one_kill(
    emulator: Emulator, source: Path, output: Path, rows_per_job: int, goal: float, pause: float
) -> str | None:
    """Start the command and kill it ``pause`` seconds after so many calls; return its output if it ended before."""
    with _begin(emulator, source, output, rows_per_job) as process:
        try:
            limit = time.monotonic() + _PATIENCE
            while _moves(emulator) < goal and process.poll() is None:
                assert time.monotonic() < limit, "it does not move on"
                time.sleep(_LOOK_SECONDS)
            time.sleep(pause)
        finally:
            process.kill()
        said, _ = process.communicate()
    return None if process.returncode == -signal.SIGKILL else f"exit {process.returncode}: {said}"


def _moves(emulator: Emulator) -> int:
    return sum(emulator.count(operation) for operation in _MOVING)


def _last(emulator: Emulator) -> str:
    """Return the last call."""
    return emulator.requests[-1].operation if emulator.requests else "none"


def _judge(emulator: Emulator, directory: Path, rows: int) -> int:
    """Check for one job for each attempt and one line for each row; return the number of jobs."""
    inputs: Counter[bytes] = Counter(emulator.content(str(job["input_file_id"])) for job in emulator.jobs)
    assert set(inputs.values()) == {1}, f"{inputs.total()} jobs for {len(inputs)} inputs"
    view = runs.read(directory / "answers.jsonl.run")
    noted = [attempt.job_id for shard in view.shards for attempt in shard.attempts]
    assert sorted(map(str, noted)) == sorted(str(job["id"]) for job in emulator.jobs)
    names = [f"row-{number}" for number in range(rows)]
    assert _ids(directory / "answers.jsonl") == names
    assert _ids(directory / "answers.failures.jsonl") == [name for name in names if _fails(name)]
    return inputs.total()


def _without_numbers(path: Path) -> bytes:
    """Return the output without the emulator's numbers of the lines of each job, which errors quote."""
    return re.sub(rb"br_[0-9a-f]+", b"br_", path.read_bytes())


def _ids(path: Path) -> list[str]:
    return [msgspec.json.decode(line)["custom_id"] for line in path.read_bytes().splitlines()]
