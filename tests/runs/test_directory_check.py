"""A run touches only files that it made."""

from __future__ import annotations

import io
import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from together_batches import RunChangedError, UsageError, runs
from together_batches.runs._directory_check import check_directory, is_scratch
from together_batches.runs._lock import is_lock, locked

if TYPE_CHECKING:
    from pathlib import Path

    from .stage import Runner


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "names",
    [
        ["notes.txt"],
        ["uploads/photo.jpg", "downloads/thesis.pdf"],
        ["input.jsonl"],  # without a lock, it may be any file
        ["invalid.jsonl"],
        ["lock", "input.jsonl"],  # with a lock that no run wrote
        [".hidden"],
        ["pieces/00001-1.jsonl"],
    ],
)
async def test_a_directory_of_other_files_is_refused(run: Runner, tmp_path: Path, names: list[str]) -> None:
    """A directory of other files is refused, and every file in it stays as it was."""
    site = tmp_path / "site"
    for name in names:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("precious")
    before = contents(site)
    with pytest.raises(UsageError, match="is not the directory of a run, and is not empty"):
        await run(directory=site)
    assert contents(site) == before


@pytest.mark.parametrize("size", range(len("17 host\na run of together_batches\n")))
def test_a_lock_that_a_full_disk_cut(tmp_path: Path, size: int) -> None:
    """A lock that a full disk cut is recognised as a run's, wherever it ends."""
    (tmp_path / "lock").write_text("17 host\na run of together_batches\n"[:size])
    assert is_lock(tmp_path)


@pytest.mark.parametrize("text", ["17\n", "host", "17 host\nanother\n", "17 host\na run of together_batches\n?"])
def test_a_lock_of_another_program(tmp_path: Path, text: str) -> None:
    """The lock of another program is not taken for a run's."""
    (tmp_path / "lock").write_text(text)
    assert not is_lock(tmp_path)


async def test_a_foreign_lock_beside_a_ledger_is_left_alone(run: Runner, tmp_path: Path) -> None:
    """A foreign lock is left alone whatever the names of the files beside it."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "ledger.sqlite").write_text("accounts of the company")
    (site / "lock").write_text("the code of the safe")
    before = contents(site)
    with pytest.raises(UsageError, match="its file lock is not the lock of a run"):
        await run(directory=site)
    assert contents(site) == before


def test_what_a_stopped_run_leaves_is_taken_over(tmp_path: Path) -> None:
    """A stopped run's directory is adopted by the marker of its lock; without it, if no other file is present."""
    check_directory(tmp_path, None)
    with locked(tmp_path):
        pass
    (tmp_path / "notes.txt").touch()
    check_directory(tmp_path, None)
    (tmp_path / "lock").write_text("4711 machine\n")
    with pytest.raises(UsageError, match=r"it holds notes\.txt"):
        check_directory(tmp_path, None)
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "ids").mkdir()
    for name in (
        *("input.jsonl", "invalid.jsonl", ".input.jsonl.new.part", ".ledger.sqlite.0123456789abcdef.part"),
        *("sent.jsonl", "rows.jsonl", "ids/00001.jsonl", "ids/.00002.jsonl.new.part"),
    ):
        (tmp_path / name).touch()
    check_directory(tmp_path, None)
    (tmp_path / "ids" / "cards.jsonl").touch()
    with pytest.raises(UsageError, match=r"it holds ids"):
        check_directory(tmp_path, None)
    (tmp_path / "ids" / "cards.jsonl").unlink()
    (tmp_path / "input.jsonl").unlink()
    (tmp_path / "input.jsonl").symlink_to("/dev/null")
    with pytest.raises(UsageError, match=r"it holds input\.jsonl"):
        check_directory(tmp_path, None)


@pytest.mark.parametrize("name", ["input.jsonl", "invalid.jsonl", "uploads/00001-1.jsonl", "pieces/mine.jsonl"])
def test_an_input_in_the_place_of_a_file_of_the_run(tmp_path: Path, name: str) -> None:
    """An input in the place of a run's file is refused, also through a link: it would be overwritten or removed."""
    directory, link = tmp_path / "run", tmp_path / "link.jsonl"
    (directory / name).parent.mkdir(parents=True)
    (directory / name).write_text("precious")
    link.symlink_to(directory / name)
    with locked(directory):
        pass
    for given in (directory / name, link):
        with pytest.raises(UsageError, match="has the place of a file that the run in"):
            check_directory(directory, given)


async def test_only_scratch_files_are_removed(run: Runner) -> None:
    """Only scratch files are removed from the directories for uploads and downloads, which may hold others."""
    await run(stop_after_rows=1)  # nothing is sent
    uploads, downloads = run.directory / "uploads", run.directory / "downloads"
    for path in (
        uploads / "photo.jpg",
        uploads / "00001-1.jsonl",
        downloads / "00001-1-2.jsonl",
        downloads / "a.pdf",
    ):
        path.write_text("x")
    (uploads / "album").mkdir()
    assert (await run()).ok
    left = [path.name for folder in (uploads, downloads) for path in sorted(folder.iterdir())]
    assert left == ["album", "photo.jpg", "a.pdf"]


@pytest.mark.parametrize("name", ["pieces", "uploads", "downloads"])
async def test_a_link_in_the_place_of_a_directory(run: Runner, tmp_path: Path, name: str) -> None:
    """A link in the place of a directory is not followed: its target is not the run's."""
    await run(stop_after_rows=1)  # nothing is sent
    (run.directory / name).rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "00001-1.jsonl").write_text("precious")
    (run.directory / name).symlink_to(elsewhere)
    with pytest.raises(UsageError, match=f"{name} is a link; put a directory in its place"):
        await run()
    assert contents(elsewhere) == {"00001-1.jsonl": b"precious"}


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("00001-1.jsonl", True),
        ("100000-12-2.jsonl", True),
        (".00001-1.jsonl.new.part", True),
        (".together-batches-0123456789abcdef-0.part", True),
        ("photo.jpg", False),
        ("1-1.jsonl", False),
        ("00001-1.jsonl.bak", False),
    ],
)
def test_names_of_scratch_files(name: str, *, ours: bool) -> None:
    """Scratch files are recognised by the names that a run gives, now or in an older version."""
    assert is_scratch(name) is ours


async def test_the_files_of_a_run_are_for_their_owner(run: Runner) -> None:
    """The answers and the ledger are readable by their owner only; a link keeps its place, and its file the mode."""
    real = run.output.with_name("real.jsonl")
    real.touch(0o640)
    real.chmod(0o640)
    run.output.symlink_to(real)
    assert (await run(overwrite=True)).ok
    assert run.output.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert real.stat().st_size
    assert stat.S_IMODE((run.directory / "ledger.sqlite").stat().st_mode) == 0o600
    shutil.rmtree(run.directory)
    run.output.unlink()
    assert (await run()).ok
    assert stat.S_IMODE(run.output.stat().st_mode) == 0o600


async def test_outputs_that_are_no_files(run: Runner, tmp_path: Path) -> None:
    """Outputs that are not regular files are refused before a request is sent, and never replaced."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UsageError, match=f"cannot write {path}: it is "):
            await run(output=path, overwrite=True, directory=tmp_path.parent / f"{tmp_path.name}.run")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


async def test_a_name_that_is_not_utf8(run: Runner, tmp_path: Path) -> None:
    """A name that is not UTF-8 works; unencodable characters are written as question marks."""
    odd = tmp_path / os.fsdecode(b"in\xff.jsonl")
    try:
        shutil.copyfile(run.source, odd)
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    assert (await run(source=odd)).ok
    assert (await run(source=odd)).ok
    assert runs.read(run.directory).input_name == "in?.jsonl"


async def test_an_open_file(run: Runner) -> None:
    """An open file is copied into the directory: the run resumes from there, and refuses other bytes."""
    content = run.source.read_bytes()
    assert (await run(source=io.BytesIO(content))).ok
    assert (run.directory / "input.jsonl").read_bytes() == content
    assert (await run(source=io.BytesIO(content))).ok
    assert (await run(source=io.BytesIO(b""))).ok  # a pipe that gives nothing a second time
    with pytest.raises(RunChangedError, match="what is read now is not what the run in"):
        await run(source=io.BytesIO(content + b"\n"))


async def test_a_pipe_by_its_path(run: Runner, tmp_path: Path) -> None:
    """A pipe given by its path is refused, because opening it would block a thread that cannot be stopped."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        UsageError, match="is a pipe or a device, and cannot be read again: open it and pass the file"
    ):
        await run(source=tmp_path / "pipe")
