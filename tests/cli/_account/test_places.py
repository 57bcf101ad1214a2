"""The command's own files are in one directory, for their user alone, and are changed by one process at a time."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from together_batches import UsageError
from together_batches._local.locks import take
from together_batches.cli._account.places import config_directory, locked

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="the system has a place of its own")
def test_the_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CONFIG_HOME moves the directory, which is not created; otherwise it is in the home directory."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_directory() == tmp_path / "together-batches"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_directory() == tmp_path / ".config" / "together-batches"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_what_is_created_is_private(tmp_path: Path) -> None:
    """The directory and the file of its lock are for their owner alone, whatever the umask."""
    before = os.umask(0)
    try:
        with locked(tmp_path / "a" / "b"):
            pass
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a" / "b", tmp_path / "a" / "b" / "lock")]
    assert modes == [0o700, 0o600]


def test_a_lock_that_is_held(tmp_path: Path) -> None:
    """A process waits for another one, but not for ever; afterwards the lock is free."""
    pauses: list[float] = []
    with locked(tmp_path), pytest.raises(UsageError, match=r"^another process holds .+lock; try again"):  # noqa: SIM117
        with locked(tmp_path, sleep=pauses.append):
            pytest.fail("it is held")
    assert 1 < sum(pauses) < 10
    with locked(tmp_path), (tmp_path / "lock").open("rb") as file, pytest.raises(OSError, match=r".+"):
        take(file)
    with locked(tmp_path):
        pass


def test_a_directory_that_cannot_be_created(tmp_path: Path) -> None:
    """The error names the directory and the cause."""
    (tmp_path / "a").touch()
    with (
        pytest.raises(UsageError, match=rf"^cannot write in {tmp_path / 'a' / 'b'}: .+"),
        locked(tmp_path / "a" / "b"),
    ):
        pytest.fail("there is none")
