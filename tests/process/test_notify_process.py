"""Notifications of a process that is killed, or ended by Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from wires import KEY

from together_batches.emulator import Emulator, Timing

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


def _started(emulator: Emulator, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "together_batches", *argv],
        env={**os.environ, "TOGETHER_API_KEY": KEY, "TOGETHER_BASE_URL": emulator.base_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def test_a_run_killed_before_its_delivery(tmp_path: Path) -> None:
    """A process that is killed after the run has finished leaves the notification to the next call."""
    row = {"custom_id": "a", "body": {"model": "m", "messages": [{"role": "user", "content": "Hello."}]}}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    # The first command kills the process that waits for it.
    command = f"cd {tmp_path}; cat >> seen; test -e killed && exit; touch killed; kill -9 $PPID"
    run = ("run", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--exec", command)
    codes: list[int] = []
    with Emulator(api_key=KEY, timing=Timing(validating=0, running=0)).running_in_thread() as emulator:
        for _ in range(2):
            with _started(emulator, *run, "--poll-interval", "0.1") as process:
                process.communicate(timeout=50)
                codes.append(process.returncode)
        assert len(emulator.jobs) == 1
    assert codes == [-signal.SIGKILL, 0]
    first, second = map(json.loads, (tmp_path / "seen").read_text().splitlines())
    assert (first["type"], first["id"], first["data"]) == ("run.finished", second["id"], second["data"])


def test_ctrl_c_during_a_delivery(tmp_path: Path) -> None:
    """Ctrl-C ends the command at once, and the commands of --exec; it says what was not delivered."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Emulator(api_key=KEY).running_in_thread() as emulator:
        job_id = emulator.add_job(status="COMPLETED", output_file_id="file-o")
        hanging = f"exec > {fifo}; echo; sleep 60 & sleep 60"
        with _started(emulator, "wait", job_id, "--exec", hanging) as process, fifo.open() as written:
            written.read(1)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=20)
            assert written.read() == ""  # each process of the command has ended
    assert process.returncode == 130
    assert "warning: 1 notification not delivered\n" in said
    assert said.splitlines()[-1] == "interrupted: 1 of 1 job finished: 1 COMPLETED; the jobs were left alone"
