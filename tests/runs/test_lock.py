"""One process at a run: the second is refused with the name of the first, and a dead process holds no lock."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from together_batches import RunInUseError, RunLedgerError
from together_batches.runs._lock import has_record_locks, holder, locked, taken_over_error

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
    """The refusal has the number and machine of the first process; when that has ended, the run is free."""
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
    """The lock file of a killed process remains, without effect."""
    with _held_elsewhere(tmp_path) as first:
        first.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        first.wait()
    assert (tmp_path / "lock").read_text("utf-8").startswith(f"{first.pid} ")
    assert holder(tmp_path) is None
    with locked(tmp_path):
        pass


def test_twice_in_one_process(tmp_path: Path) -> None:
    """A second lock in the same process is refused."""
    with locked(tmp_path), pytest.raises(RunInUseError, match=f"process {os.getpid()} on"), locked(tmp_path):
        pass


def test_a_holder_whose_name_cannot_be_read(tmp_path: Path) -> None:
    """The refusal is raised without the holder's name, too, if that is unreadable."""
    with locked(tmp_path):
        (tmp_path / "lock").write_bytes(b"\xff")
        with pytest.raises(RunInUseError, match="in use by another process") as raised, locked(tmp_path):
            pass
    assert (raised.value.pid, raised.value.host) == (None, None)


def test_where_there_is_no_directory(tmp_path: Path) -> None:
    """A missing directory has no holder, and cannot be locked."""
    assert holder(tmp_path / "missing") is None
    with pytest.raises(RunLedgerError, match=r"cannot work in .*missing: No such file"), locked(tmp_path / "missing"):
        pass


def test_a_lock_file_that_was_removed(tmp_path: Path) -> None:
    """A removed lock file is made again at the holder's next check; until then another process may take it."""
    with locked(tmp_path) as lock:
        (tmp_path / "lock").unlink()
        assert holder(tmp_path) is None
        lock.check()
        assert holder(tmp_path) == (os.getpid(), socket.gethostname())
        lock.check()
        with pytest.raises(RunInUseError), locked(tmp_path):
            pass


def test_a_lock_file_that_was_replaced(tmp_path: Path) -> None:
    """If another process replaced the lock file, the first has lost the run, and its error names the other."""
    with locked(tmp_path) as lock:
        (tmp_path / "lock").unlink()
        with _held_elsewhere(tmp_path) as other:
            with pytest.raises(RunInUseError, match=rf"in use by process {other.pid} on "):
                lock.check()
            assert holder(tmp_path) == (other.pid, socket.gethostname())
            taken = taken_over_error(tmp_path)
            assert (taken.pid, taken.host) == (other.pid, socket.gethostname())
            assert f"was taken over by process {other.pid} on" in str(taken)
            other.communicate("")
        lock.check()
        assert holder(tmp_path) == (os.getpid(), socket.gethostname())
        assert taken_over_error(tmp_path).pid is None


def test_the_file_stays(tmp_path: Path) -> None:
    """The lock file stays when the run is free: a process that has just opened it would lock a nameless file."""
    with locked(tmp_path):
        before = (tmp_path / "lock").stat().st_ino
    with locked(tmp_path):
        assert (tmp_path / "lock").stat().st_ino == before
    assert (tmp_path / "lock").is_file()


posix = pytest.mark.skipif(sys.platform == "win32", reason="calls of POSIX")


@posix
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """Without locks in the file system the run continues with a warning; no process is refused or named as holder."""
    import fcntl

    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path) as lock:
        assert holder(tmp_path) is None
        lock.check()
    (record,) = caplog.records
    assert f"the file system of {tmp_path} has no locks ({os.strerror(code)}): make sure" in record.getMessage()


@posix
def test_a_lock_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that fails for another reason raises that reason, not a refusal."""
    import fcntl

    def flock(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RunLedgerError, match=r"cannot work in .*: Input/output error"), locked(tmp_path):
        pass
    assert holder(tmp_path) is None


@posix
def test_locks_for_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's locks are of another kind, and may be missing alone; locks held by another process prove support."""
    import fcntl

    assert has_record_locks(tmp_path)
    refusal = errno.EAGAIN

    def lockf(*_: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    with locked(tmp_path):
        assert has_record_locks(tmp_path)
        monkeypatch.setattr(fcntl, "lockf", lockf)
        assert has_record_locks(tmp_path)
        refusal = errno.ENOSYS
        assert not has_record_locks(tmp_path)
        assert holder(tmp_path) is not None


_FORK = """
import os, pathlib, sys
from together_batches import RunInUseError
from together_batches.runs._lock import holder, locked
directory = pathlib.Path(sys.argv[1])
with locked(directory) as lock:
    read_end, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            lock.check()
        except RunInUseError as error:
            os.write(tell, str(error.pid).encode())
        lock.give()
        sys.stdin.read()
        os._exit(0)
    assert int(os.read(read_end, 20)) == os.getpid()
    assert holder(directory) is not None
    print("held", flush=True)
    os._exit(0)
"""


@posix
def test_a_forked_child_holds_nothing(tmp_path: Path) -> None:
    """A forked child is another process: it cannot release its parent's lock, nor keep it when the parent ends."""
    command = [sys.executable, "-c", _FORK, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "held\n"
        assert parent.wait() == 0
        assert holder(tmp_path) is None  # while the child lives
        with locked(tmp_path):
            pass
