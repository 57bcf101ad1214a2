"""Behaviour that all commands share."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from together_batches import __version__, cli

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ran
    from together_batches.emulator import Emulator

    Run = Callable[..., Ran]


def test_version(run: Run) -> None:
    """--version prints the version of the package."""
    assert run("--version") == (0, f"together-batches {__version__}\n", "")


def test_usage_error(run: Run) -> None:
    """A usage error is one harmless line and exit code 2."""
    code, out, err = run("list", "--\x1b[31m")
    assert (code, out) == (2, "")
    assert err == "together-batches: error: there is no option --\\x1b[31m; see together-batches list --help\n"


def test_narrow_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A character that the encoding of standard output lacks is escaped."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    assert cli.main(["cancel", "--dry-run", "jöb"]) == 0
    assert raw.getvalue() == b"j\\xf6b\n"


def test_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Output that cannot be written is a failure with its cause."""

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        def fileno(self) -> int:
            return spare.fileno()

    with (tmp_path / "spare").open("w") as spare:
        monkeypatch.setattr(sys, "stdout", Full())
        assert cli.main(["cancel", "--dry-run", "a"]) == 1
    assert capsys.readouterr().err.endswith("the output cannot be written: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_full_device(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is one error, also of a command that prints line by line."""
    job_id = emulator.add_job(status="COMPLETED")
    with open("/dev/full", "w") as full:  # noqa: PTH123  # not a path to a file
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(["watch", job_id]) == 1
        monkeypatch.undo()
    assert capsys.readouterr().err.splitlines() == [
        "together-batches: error: the output cannot be written: No space left on device"
    ]


def test_everything_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends without a traceback if standard output is closed and the reader of standard error has left."""

    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", Closed())
    assert cli.main(["list", "--nonsense"]) == 1
