"""One process at a run: the second is told who the first is, and a process that dies holds nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from together_batches import RunInUseError, RunLedgerError
from together_batches.runs._lock import holder, locked

if TYPE_CHECKING:
    from pathlib import Path

_HOLD = """
import sys, pathlib
from together_batches.runs._lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def _held_elsewhere(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_process_is_refused(tmp_path: Path) -> None:
    """With the number and the machine of the first; when that has ended, the run is free."""
    with _held_elsewhere(tmp_path) as first:
        with pytest.raises(RunInUseError, match=rf"in use by process {first.pid} on ") as raised, locked(tmp_path):
            pass
        assert (raised.value.pid, raised.value.host) == (first.pid, socket.gethostname())
        assert raised.value.directory == str(tmp_path)
        assert holder(tmp_path) == (first.pid, socket.gethostname())
        first.communicate("")
    with locked(tmp_path):
        assert holder(tmp_path) == (os.getpid(), socket.gethostname())
    assert holder(tmp_path) is None


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """Its name is still there, and means nothing any more."""
    with _held_elsewhere(tmp_path) as first:
        first.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        first.wait()
    assert (tmp_path / "lock").read_text("utf-8").startswith(f"{first.pid} ")
    assert holder(tmp_path) is None
    with locked(tmp_path):
        pass


def test_twice_in_one_process(tmp_path: Path) -> None:
    """Is one too many."""
    with locked(tmp_path), pytest.raises(RunInUseError, match=f"process {os.getpid()} on"), locked(tmp_path):
        pass


def test_who_it_is_may_not_be_told(tmp_path: Path) -> None:
    """The refusal stands without a name, too."""
    with locked(tmp_path):
        (tmp_path / "lock").write_bytes(b"\xff")
        with pytest.raises(RunInUseError, match="in use by another process") as raised, locked(tmp_path):
            pass
    assert (raised.value.pid, raised.value.host) == (None, None)


def test_where_there_is_no_directory(tmp_path: Path) -> None:
    """Nobody is at a run that is not there, and none can be held."""
    assert holder(tmp_path / "missing") is None
    with pytest.raises(RunLedgerError, match=r"cannot work in .*missing: No such file"), locked(tmp_path / "missing"):
        pass
