"""A durable run in a process that is killed or stopped, without any clean-up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from simulation.kill import killed
from wires import KEY

from together_batches import runs
from together_batches.cli._terminal.exits import Exit
from together_batches.emulator import Emulator, Timing

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no SIGKILL and no SIGSTOP")


@posix
def test_kill_9(tmp_path: Path) -> None:
    """A run killed five times, at random moments, has one job for each attempt and the same output as without a kill.

    ``nox -s simulate -- --kill 30`` kills thirty times during a run of 200,000 rows.
    """
    came_of_it = killed(tmp_path, rows=2_000, kills=5, rows_per_job=250, seed=0, say=print)
    assert (came_of_it.kills, came_of_it.jobs) == (5, 16)


@posix
def test_a_run_that_was_taken_over(tmp_path: Path) -> None:
    """A stopped process whose run is taken over, after its lock file is removed, ends without another job."""
    source, output, lock = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "out.jsonl.run" / "lock"
    row = {"body": {"model": "m", "messages": [{"role": "user", "content": "Hello."}]}}
    source.write_text("".join(json.dumps({"custom_id": f"row-{n}", **row}) + "\n" for n in range(12)))
    with Emulator(api_key=KEY, timing=Timing(validating=0, running=0.2)).running_in_thread() as emulator:
        # It creates two jobs, reads their states, and creates more, two seconds later.
        with _running(emulator, source, output, "2", "2") as first:
            try:
                while not _has_jobs(output.with_name("out.jsonl.run"), 2):
                    time.sleep(0.01)
                first.send_signal(signal.SIGSTOP)
                lock.unlink()
                with _running(emulator, source, output, "0.1", "9") as second:
                    said, _ = second.communicate(timeout=50)
                    assert second.returncode == Exit.DONE, said
                first.send_signal(signal.SIGCONT)
                said, _ = first.communicate(timeout=50)
            finally:
                first.kill()
        assert first.returncode == Exit.FAILED, said
        assert "was taken over by another process, so this process stops" in said
        assert len(emulator.jobs) == 6
    assert len(output.read_text().splitlines()) == 12


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_jobs_if_wanted(tmp_path: Path, number: signal.Signals) -> None:
    """``--cancel-on-interrupt`` applies to SIGTERM and SIGHUP as to Ctrl-C."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    row = {"custom_id": "a", "body": {"model": "m", "messages": [{"role": "user", "content": "Hello."}]}}
    source.write_text(json.dumps(row) + "\n")
    with Emulator(api_key=KEY, timing=Timing(validating=0, running=600)).running_in_thread() as emulator:
        with _running(emulator, source, output, "0.1", "1", "--cancel-on-interrupt") as process:
            try:
                while not _has_jobs(output.with_name("out.jsonl.run"), 1):
                    time.sleep(0.01)
                process.send_signal(number)
                said, _ = process.communicate(timeout=50)
            finally:
                process.kill()
        assert process.returncode == Exit.INTERRUPTED, said
        assert emulator.jobs[0]["status"] in {"CANCELING", "CANCELLED"}


def _running(
    emulator: Emulator, source: Path, output: Path, poll_interval: str, max_jobs: str, *options: str
) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "together_batches",
        "run",
        str(source),
        "-o",
        str(output),
        "--max-rows-per-job",
        "2",
    ]
    return subprocess.Popen(
        [*command, "--poll-interval", poll_interval, "--max-jobs", max_jobs, *options],
        env={**os.environ, "TOGETHER_API_KEY": KEY, "TOGETHER_BASE_URL": emulator.base_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def _has_jobs(directory: Path, number: int) -> bool:
    if not (directory / "ledger.sqlite").exists():
        return False
    view = runs.read(directory)
    return sum(attempt.job_id is not None for shard in view.shards for attempt in shard.attempts) == number
