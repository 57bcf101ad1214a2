"""Commands of ``--exec``: what they get, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from together_batches.cli._notify.exec import environment, execute
from together_batches.cli._notify.notifications import Notification

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands for a POSIX shell")

ENDED = Notification(
    "job.ended", "job-1", "msg_1", datetime(2026, 9, 14, 12, tzinfo=UTC), {"job_id": "job-1", "progress": 99.5}
)


async def test_what_a_command_gets(tmp_path: Path) -> None:
    """The facts are in variables, and as one line of JSON on standard input."""
    seen = tmp_path / "seen"
    command = (
        f'(read -r line; echo "$line"; env | grep ^TOGETHER_BATCHES_ | sort) > {shlex.quote(str(seen))}; '
        'test -z "$(cat)"'
    )
    assert await execute(command, ENDED) is None
    line, *variables = seen.read_text().splitlines()
    assert json.loads(line) == {
        "id": "msg_1",
        "type": "job.ended",
        "timestamp": "2026-09-14T12:00:00.000Z",
        "data": {"job_id": "job-1", "progress": 99.5},
    }
    assert variables == [
        "TOGETHER_BATCHES_EVENT=job.ended",
        "TOGETHER_BATCHES_EVENT_ID=msg_1",
        "TOGETHER_BATCHES_JOB_ID=job-1",
        "TOGETHER_BATCHES_PROGRESS=99.5",
        "TOGETHER_BATCHES_TIMESTAMP=2026-09-14T12:00:00.000Z",
    ]


def test_the_environment_of_a_command() -> None:
    """It has neither the key nor the secret of the webhook, under no name and in no text, nor older facts."""
    before = {
        "PATH": "/bin",
        "TOGETHER_API_KEY": "key",
        "COPY_OF_THE_KEY": " key",
        "TOGETHER_BATCHES_WEBHOOK_URL": "https://hooks.example",
        "TOGETHER_BATCHES_WEBHOOK_SECRET": "whsec_x",
        "TOGETHER_BATCHES_STATUS": "FAILED",
        "TOGETHER_BATCHES_PROFILE": "work",
        "TOGETHER_BASE_URL": "http://127.0.0.1:1",
    }
    kept = ["PATH", "TOGETHER_BASE_URL", "TOGETHER_BATCHES_PROFILE"]
    facts = {f"TOGETHER_BATCHES_{name}" for name in ("EVENT", "EVENT_ID", "TIMESTAMP", "JOB_ID", "PROGRESS")}
    assert environment(ENDED, before).keys() == {*kept, *facts}
    assert environment(ENDED, {"TOGETHER_API_KEY": "", "EMPTY": ""}).keys() == {"EMPTY", *facts}
    secrets = {"TOGETHER_API_KEY": "tgp_v1_01234", "TOGETHER_BATCHES_WEBHOOK_SECRET": "whsec_MDEyMzQ1Njc4OQ=="}
    copies = {"HEADER": "Authorization: Bearer tgp_v1_01234", "RAW": "MDEyMzQ1Njc4OQ=="}
    assert environment(ENDED, {**secrets, **copies}).keys() == facts


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("exit 3", "the exit code of --exec was 3"),
        ("no-such-command-of-anyone 2>/dev/null", "the exit code of --exec was 127"),
        ("kill -9 $$", "--exec was ended by SIGKILL"),
        ("exit 1 \0", "--exec cannot be started: embedded null byte"),
    ],
)
async def test_a_command_that_fails(command: str, problem: str) -> None:
    """The reason of a failure is its exit code or its signal."""
    assert await execute(command, ENDED) == problem


async def test_a_command_that_reads_nothing() -> None:
    """A command need not read its standard input, however long that is."""
    longest = ENDED._replace(data={f"fact_{n}": "x" * 4_000 for n in range(25)})
    assert await execute("exit 0", longest) is None


async def test_odd_characters(tmp_path: Path) -> None:
    """What the system or JSON cannot represent is replaced; nothing is interpreted by the shell."""
    seen = tmp_path / "seen"
    odd = ENDED._replace(data={"status": "größe \ud800 $(touch hacked) `touch hacked`"})
    command = f'cd {shlex.quote(str(tmp_path))}; cat > seen; printf %s "$TOGETHER_BATCHES_STATUS" > variable'
    assert await execute(command, odd) is None
    assert json.loads(seen.read_text())["data"] == {"status": "größe ? $(touch hacked) `touch hacked`"}
    assert (tmp_path / "variable").read_text() == "größe ? $(touch hacked) `touch hacked`"
    assert not (tmp_path / "hacked").exists()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Return a named pipe; a reader of it gets its end when each process that has opened it is over."""
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.mark.parametrize("command", ["sleep 60", "(sleep 60 & sleep 60) | cat", "trap '' TERM; (sleep 60); sleep 60"])
async def test_a_command_that_hangs(command: str, fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that lasts too long is ended with all that it has started, also if it ignores SIGTERM."""
    monkeypatch.setattr("together_batches.cli._notify.exec._GRACE_SECONDS", 0.1)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # does not wait for a command that is ended before it writes
    os.set_blocking(reader, True)
    named = f"exec 3> {shlex.quote(str(fifo))}; {command}"
    assert await execute(named, ENDED, seconds=0.2) == "--exec was ended after 0.2 s"
    assert await to_thread.run_sync(os.read, reader, 1) == b""
    os.close(reader)


async def test_a_command_is_ended_with_its_task(fifo: Path) -> None:
    """After Ctrl-C no command is left."""
    command = f"exec 3> {shlex.quote(str(fifo))}; echo >&3; sleep 60 & sleep 60"
    task = asyncio.create_task(execute(command, ENDED))
    file = await to_thread.run_sync(fifo.open, "rb")
    with file:
        await to_thread.run_sync(file.read, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await to_thread.run_sync(file.read) == b""


async def test_a_second_interrupt(fifo: Path) -> None:
    """Ctrl-C twice leaves no command either, not even one that ignores all signals."""
    task = asyncio.create_task(execute(f"trap '' TERM INT HUP; exec 3> {shlex.quote(str(fifo))}; sleep 60", ENDED))
    file = await to_thread.run_sync(fifo.open, "rb")
    with file:
        for _ in range(2):
            task.cancel()
            await asyncio.wait([task], timeout=0.05)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await to_thread.run_sync(file.read) == b""


async def test_a_command_is_ended_at_its_start() -> None:
    """A task that is cancelled before its command is waited for leaves nothing open, which would be a warning."""
    task = asyncio.create_task(execute("sleep 60", ENDED))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_command_leaves_running(tmp_path: Path) -> None:
    """A process that the command leaves in the background goes on, and is not waited for."""
    assert await execute(f"sleep 60 & echo $! > {shlex.quote(str(tmp_path / 'pid'))}", ENDED) is None
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


async def test_the_output_of_a_command(capfd: pytest.CaptureFixture[str]) -> None:
    """Its output goes to standard error, a line at a time, safe for a terminal."""
    assert await execute(r"printf 'out\n\033[31m\377'; echo err >&2", ENDED) is None
    assert capfd.readouterr() == ("", "out\n\\x1b[31m\ufffderr\n")


async def test_an_endless_output(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the beginning of a long output is printed; the rest is read, so that the command can go on."""
    monkeypatch.setattr("together_batches.cli._notify.exec._MOST_PRINTED", 4)
    assert await execute("yes | head -c 1000000", ENDED) is None
    assert capfd.readouterr().err == "y\ny\nthe rest of the output of --exec is left out\n"


async def test_without_standard_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """If standard error is closed, the output is dropped."""
    monkeypatch.setattr(sys, "stderr", None)
    assert await execute("echo out; echo err >&2", ENDED) is None
    assert capfd.readouterr() == ("", "")


async def test_its_own_process_group(tmp_path: Path) -> None:
    """A command has a process group of its own, so that Ctrl-C at the terminal does not reach it."""
    group = tmp_path / "group"
    assert await execute(f"ps -o pgid= -p $$ > {shlex.quote(str(group))}", ENDED) is None
    assert int(group.read_text()) != os.getpgrp()
