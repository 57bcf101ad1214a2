"""The code of docs/how-to/run-from-an-orchestrator.md in processes that are killed and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.run_page import blocks

from together_batches.emulator import Emulator, Timing

if TYPE_CHECKING:
    from collections.abc import Generator

    from together_batches.emulator import RecordedRequest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "run-from-an-orchestrator.md"
DAY = "2026-11-27"
ROWS = 20
HOUR = 3600
SECONDS = 200
"""Limit for a process: an engine takes long to start on a busy machine."""


class Recipe:
    """The files of the page in a directory of their own, with requests and an emulator whose jobs take an hour."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.emulator = Emulator(timing=Timing(validating=0, running=HOUR), on_request=self._see)
        self._awaited = ""
        self._seen = threading.Event()
        for block in blocks(PAGE.read_text("utf-8")):
            if name := re.match(r"(?:#!.*\n)?# (\S+\.(?:py|sh))\n", block.text):
                (directory / name[1]).write_text(block.text)
        # The command of this tree, which need not be installed.
        command = directory / "bin" / "together-batches"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m together_batches "$@"\n')
        command.chmod(0o700)
        (directory / "inbox").mkdir()
        (directory / "answers").mkdir()
        self.write_requests(DAY)

    @property
    def answers(self) -> Path:
        return self.directory / "answers" / f"{DAY}.jsonl"

    def write_requests(self, name: str) -> None:
        body = {"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": "Name a river."}]}
        lines = (json.dumps({"custom_id": f"row-{number}", "body": body}) for number in range(ROWS))
        (self.directory / "inbox" / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))

    def run(self, script: str, typed: str = "", **variables: str) -> str:
        """Run a script to its end, with ``typed`` as standard input; return its standard output."""
        with self._begin(script, variables) as process:
            try:
                printed, errors = process.communicate(typed, timeout=SECONDS)
            finally:
                _kill(process)
        assert process.returncode == 0, printed + errors
        return printed

    @contextmanager
    def running(self, script: str, until: str, **variables: str) -> Generator[subprocess.Popen[str]]:
        """Run a script until its first request for the operation ``until``; kill its processes on leaving."""
        self._awaited = until
        self._seen.clear()
        with self._begin(script, variables) as process:
            try:
                limit = time.monotonic() + SECONDS
                while not self._seen.wait(0.1):
                    if process.poll() is not None or time.monotonic() > limit:
                        _kill(process)
                        raise AssertionError(f"no request {until!r}", *process.communicate())
                yield process
            finally:
                _kill(process)

    def kill(self, script: str, at: str, **variables: str) -> None:
        """Start a script, and kill its processes at the first request for the operation ``at``."""
        with self.running(script, at, **variables):
            pass

    def run_after_kills(self, script: str, again: str = "", **variables: str) -> str:
        """Kill a script at its create, and when it is run ``again``; return what it prints at last, an hour later."""
        again = again or script
        self.kill(script, at="create", **variables)
        self.kill(again, at="list", **variables)
        self.emulator.advance(HOUR)
        return self.run(again, **variables)

    def assert_done_once(self) -> None:
        """Check that there is one job, and that the answers are complete and in order."""
        assert len(self.emulator.jobs) == self.emulator.count("create") == 1
        ids = [json.loads(line)["custom_id"] for line in self.answers.read_text("utf-8").splitlines()]
        assert ids == [f"row-{number}" for number in range(ROWS)]

    def _see(self, request: RecordedRequest) -> None:
        if request.operation == self._awaited:
            self._seen.set()

    def _begin(self, script: str, variables: dict[str, str]) -> subprocess.Popen[str]:
        own = {
            "HOME": str(self.directory),
            "PATH": os.pathsep.join([str(self.directory / "bin"), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(self.directory), str(ROOT)]),
            "TOGETHER_API_KEY": str(self.emulator.api_key),
            "TOGETHER_BASE_URL": self.emulator.base_url,
            "DO_NOT_TRACK": "1",
        }
        path = self.directory / "script"
        path.write_text(script)
        command = ["sh" if script.startswith("#!/bin/sh") else sys.executable, str(path)]
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=own | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a process with those that it has started, such as a server of its engine."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
