"""The live table of the command ``watch``: its CPU time, its requests and what it draws, over a minute."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from typing import TYPE_CHECKING

from tests.benchmarks._measure import Bar, Case, Line, Plan, Sample, Samples, lines
from together_batches.emulator import Emulator, Timing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_JOBS = 1_000
_SIZE = 40, 120
_LONGEST_AGE = 120


def _measure(plan: Plan) -> Iterator[Sample]:
    seconds = 15 if plan.quick else 60
    for _ in range(plan.few):
        with Emulator(timing=Timing(running=600)).running_in_thread() as emulator:
            for number in range(_JOBS):
                emulator.add_job(age_seconds=number % _LONGEST_AGE)
            environment = {
                **{name: value for name, value in os.environ.items() if name not in {"CI", "COLUMNS"}},
                "TERM": "xterm-256color",
                "TOGETHER_API_KEY": str(emulator.api_key),
                "TOGETHER_BASE_URL": emulator.base_url,
            }
            figures = _watched([sys.executable, "-m", "together_batches", "watch"], environment, seconds)
            figures |= {"lists": emulator.count("list"), "other_requests": len(emulator.requests)}
            figures["other_requests"] -= figures["lists"]
        yield Sample("ours", {"jobs": _JOBS}, figures)


def _watched(command: Sequence[str], environment: dict[str, str], seconds: float) -> dict[str, float]:
    """Run a command on a terminal for so long, and return its share of a CPU, its start included."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(command[0], command, environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *_SIZE, 0, 0))
    ends, drawn = time.monotonic() + seconds, 0
    while (left := ends - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            drawn += len(os.read(terminal, 1 << 16))
    os.kill(child, signal.SIGTERM)
    _, status, used = os.wait4(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    share = 100 * (used.ru_utime + used.ru_stime) / seconds
    return {"cpu_share": share, "drawn": drawn / seconds}


def _judge(samples: Samples) -> list[Line]:
    ours = samples.of("ours")
    return lines(
        ("CPU time, of one core", ours.values("cpu_share"), "%", Bar("≤", 2)),
        ("requests for the list", ours.values("lists"), "in a minute", None),
        ("other requests", ours.values("other_requests"), "in a minute", Bar("≤", 0, each=True)),
        ("drawn on the terminal", ours.values("drawn"), "bytes/s", None),
    )


CASE = Case("watch", f"watch {_JOBS:,} jobs on a terminal for a minute", _measure, _judge)
